"""The whole layout of a call, token for token, for four templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from voice_llm.prompt import Message, PromptFormatter, resolve_template

from .vocabularies import CHATML, ByteTokenizer

pytestmark = pytest.mark.unit

LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>")
SMOLLM2 = (Path(__file__).parent / "data" / "smollm2.jinja").read_text(encoding="utf-8")

SYSTEM = "You answer the phone of a dentist.\n\nInformation for this call:\nOpen 9 to 5."
PLAIN = "When do you open?"
WITH_FACTS = "Information for this question:\nClosed on May 1.\n\nQuestion:\nWhen do you open?"


def chat(turn_rag: str | None) -> list[Message]:
    return [
        Message("system", "You answer the phone of a dentist."),
        Message("user", "When do you open?", turn_rag),
        Message("assistant", "At nine."),
        Message("user", "Ve kapanış?"),
    ]


def chatml(question: str) -> str:
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\nAt nine.<|im_end|>\n<|im_start|>user\nVe kapanış?<|im_end|>\n<|im_start|>assistant\n"
    )


def llama3(question: str) -> str:
    return (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nAt nine.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nVe kapanış?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def gemma(question: str) -> str:
    return (
        f"<bos><start_of_turn>user\n{SYSTEM}\n\n{question}<end_of_turn>\n<start_of_turn>model\nAt nine.<end_of_turn>\n"
        "<start_of_turn>user\nVe kapanış?<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize(("turn_rag", "question"), [(None, PLAIN), ("Closed on May 1.", WITH_FACTS)])
@pytest.mark.parametrize(
    ("file_template", "controls", "bos", "layout"),
    [
        (SMOLLM2, CHATML, "", chatml),
        (None, CHATML, "", chatml),
        (None, LLAMA3, "<|begin_of_text|>", llama3),
        (None, GEMMA, "<bos>", gemma),
    ],
    ids=["smollm2", "chatml", "llama3", "gemma"],
)
def test_a_call_is_laid_out_to_the_token(
    file_template: str | None,
    controls: tuple[str, ...],
    bos: str,
    layout: object,
    turn_rag: str | None,
    question: str,
) -> None:
    tokenizer = ByteTokenizer(controls)
    template = resolve_template(file_template, None, controls, bos_token=bos)
    formatter = PromptFormatter(tokenizer, template, bos=bos)
    prompt = formatter.format(chat(turn_rag), rag_context="Open 9 to 5.", context_tokens=4096, reserve_tokens=256)
    assert callable(layout)
    assert tokenizer.show(prompt.tokens) == layout(question)
    assert list(prompt.tokens) == tokenizer.tokenize(layout(question), parse_special=True)
