from __future__ import annotations

from pathlib import Path

import pytest

from voice_llm.errors import TemplateError
from voice_llm.prompt import FAMILIES, ChatTemplate, Literal, Role, resolve_template

pytestmark = pytest.mark.unit

CHATML = {"<|im_start|>", "<|im_end|>"}


def lay_out(template: ChatTemplate, *roles: Role) -> str:
    parts = template.render(roles)
    return "".join(part.text if isinstance(part, Literal) else f"[{part.message_index}]" for part in parts)


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        (
            CHATML,
            "<|im_start|>system\n[0]<|im_end|>\n<|im_start|>user\n[1]<|im_end|>\n<|im_start|>assistant\n[2]<|im_end|>\n"
            "<|im_start|>user\n[3]<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
            "<s><|start_header_id|>system<|end_header_id|>\n\n[0]<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n[1]"
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[2]<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\n[3]<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            {"<start_of_turn>", "<end_of_turn>"},
            "<s><start_of_turn>user\n[0]\n\n[1]<end_of_turn>\n<start_of_turn>model\n[2]<end_of_turn>\n"
            "<start_of_turn>user\n[3]<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            {"<|user|>", "<|assistant|>", "<|end|>"},
            "<|system|>\n[0]<|end|>\n<|user|>\n[1]<|end|>\n<|assistant|>\n[2]<|end|>\n<|user|>\n[3]<|end|>\n<|assistant|>\n",
        ),
        ({"[INST]", "[/INST]"}, "<s>[INST] [0]\n\n[1] [/INST] [2]</s>[INST] [3] [/INST]"),
    ],
)
def test_the_vocabulary_tells_the_family(controls: set[str], expected: str) -> None:
    template = resolve_template(None, None, controls, bos_token="<s>", eos_token="</s>")
    assert lay_out(template, "system", "user", "assistant", "user") == expected


def test_zephyr_can_be_named() -> None:
    template = resolve_template(None, "zephyr", (), eos_token="</s>")
    assert lay_out(template, "system", "user") == "<|system|>\n[0]</s>\n<|user|>\n[1]</s>\n<|assistant|>\n"


def test_the_files_template_comes_before_the_family_and_the_profiles_before_both(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("ğ{{ messages[0].content }}", encoding="utf-8")
    assert lay_out(resolve_template("a{{ messages[0].content }}", None, CHATML), "user") == "a[0]"
    assert (
        lay_out(resolve_template("a{{ messages[0].content }}", "b{{ messages[0].content }}", CHATML), "user") == "b[0]"
    )
    assert lay_out(resolve_template("a{{ messages[0].content }}", str(path), CHATML), "user") == "ğ[0]"
    assert lay_out(resolve_template("a{{ messages[0].content }}", "gemma", CHATML), "user").startswith(
        "<start_of_turn>"
    )


def test_where_nothing_fits_the_error_tells_how_to_name_a_template() -> None:
    with pytest.raises(TemplateError, match=r"set chat_template in the profile: one of chatml, .* path .* Jinja"):
        resolve_template(None, None, {"<s>"})
    with pytest.raises(TemplateError, match=r"'chatlm' is neither one of chatml"):
        resolve_template(None, "chatlm", CHATML)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_a_whole_phone_call(name: str) -> None:
    template = resolve_template(None, name, ())
    laid = lay_out(template, "system", "assistant", "user", "user", "assistant", "user")
    assert [laid.index(f"[{index}]") for index in range(6)] == sorted(laid.index(f"[{index}]") for index in range(6))
