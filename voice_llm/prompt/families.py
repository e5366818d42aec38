"""Chat templates for files that carry none, and which of them a vocabulary asks for."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import TemplateError
from .template import ChatTemplate

_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for message in messages -%}
{%- set role = 'ipython' if message['role'] == 'tool' else message['role'] -%}
{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif -%}
"""

_GEMMA = """\
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] not in ('user', 'assistant') %}{{ raise_exception('Only user and assistant') }}{% endif -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif -%}
{%- set role = 'model' if message['role'] == 'assistant' else 'user' -%}
{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif -%}
"""

_MISTRAL = """\
{{- bos_token }}
{%- for message in messages -%}
{%- if message['role'] not in ('user', 'assistant') %}{{ raise_exception('Only user and assistant') }}{% endif -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif -%}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- else %}{{ ' ' + message['content'] + eos_token }}{% endif -%}
{%- endfor -%}
"""

_PHI3 = """\
{%- for message in messages -%}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif -%}
"""

_ZEPHYR = """\
{%- for message in messages -%}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif -%}
"""

FAMILIES: Mapping[str, str] = {
    "chatml": _CHATML,
    "llama3": _LLAMA3,
    "gemma": _GEMMA,
    "mistral": _MISTRAL,
    "phi3": _PHI3,
    "zephyr": _ZEPHYR,
}
"""Templates by name."""

# Zephyr is not here: it writes its markers as plain text, so no vocabulary tells.
_SIGNS: tuple[tuple[str, frozenset[str]], ...] = (
    ("chatml", frozenset({"<|im_start|>", "<|im_end|>"})),
    ("llama3", frozenset({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})),
    ("gemma", frozenset({"<start_of_turn>", "<end_of_turn>"})),
    ("phi3", frozenset({"<|user|>", "<|assistant|>", "<|end|>"})),
    ("mistral", frozenset({"[INST]", "[/INST]"})),
)


def resolve_template(
    file_template: str | None,
    override: str | None,
    control_tokens: Collection[str],
    *,
    bos_token: str = "",
    eos_token: str = "",
    date: datetime.date | None = None,
    variables: Mapping[str, Any] | None = None,
) -> ChatTemplate:
    """Choose a model's chat template: the profile's, else the file's own, else one that the vocabulary asks for.

    Args:
        file_template: What the model file carries.
        override: ``chat_template`` of the profile: the name of a family, the path of a file, or the Jinja text.
        control_tokens: Texts of the vocabulary's control tokens.
        bos_token: See ``ChatTemplate``.
        eos_token: See ``ChatTemplate``.
        date: See ``ChatTemplate``.
        variables: See ``ChatTemplate``.

    Raises:
        TemplateError: None fits, or the chosen one cannot be used.
    """
    if override:
        source = _named_source(override)
    elif file_template and file_template.strip():
        source = file_template
    else:
        source = _family_source(control_tokens)
    return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token, date=date, variables=variables)


def _named_source(override: str) -> str:
    if override in FAMILIES:
        return FAMILIES[override]
    if "{{" in override or "{%" in override:
        return override
    try:
        return Path(override).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TemplateError(
            f"chat_template {override!r} is neither one of {', '.join(FAMILIES)}, nor a readable file, "
            f"nor Jinja text: {error}"
        ) from error


def _family_source(control_tokens: Collection[str]) -> str:
    for name, signs in _SIGNS:
        if all(sign in control_tokens for sign in signs):
            return FAMILIES[name]
    raise TemplateError(
        "the model file has no chat template and its vocabulary does not tell one; set chat_template in the profile: "
        f"one of {', '.join(FAMILIES)}, the path of a file, or the Jinja text"
    )
