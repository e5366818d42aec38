"""Structural tags to GBNF."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Final, NamedTuple

from ...config.structure import StructuralTags
from .grammar import check_grammar, without_space
from .schema import schemas_to_rules

__all__ = ["tags_to_gbnf"]

_REMEMBERED: Final = 64


class _Tag(NamedTuple):
    begin: str
    schema_json: str
    end: str
    param: str
    strict: bool


def tags_to_gbnf(tags: StructuralTags, said: str = "") -> str:
    """Write the grammar of a reply's tags, checked.

    JSON in them is forced to be without white space: that is shorter, and where a space has to stand alone before a
    quote, small models often go on with an empty string.

    Args:
        tags: The forms to choose from.
        said: What the reply has of its first tag, after the trigger. Where no tag goes on from there, it is as if
            nothing had been said. Without effect where the reply starts with a tag.

    Raises:
        GrammarError: A schema cannot be enforced, or all of them are too large together; ``param`` names the field.
    """
    key = tuple(_Tag(t.begin, json.dumps(t.schema, ensure_ascii=False), t.end, t.param, t.strict) for t in tags.tags)
    start = ("", "") if tags.at_once else (tags.trigger, said.lstrip())
    return _gbnf(key, *start, tags.most)


@lru_cache(_REMEMBERED)
def _gbnf(tags: tuple[_Tag, ...], trigger: str, said: str, most: int) -> str:
    names, rules = _rules(tags)
    start = trigger + said
    if not any(tag.begin.startswith(start) for tag in tags):
        start = trigger
    lines = [rules]
    first: list[str] = []
    for number, (tag, name) in enumerate(zip(tags, names, strict=True)):
        lines.append(f"tagged-{number} ::= {name} {_literal(tag.end)}")
        if tag.begin.startswith(start):
            first.append(f"{_literal(tag.begin[len(start) :])} tagged-{number}")
    lines.append("tag ::= " + " | ".join(f"{_literal(tag.begin)} tagged-{i}" for i, tag in enumerate(tags)))
    lines.append(f"root ::= ({' | '.join(first)}) tag{{0,{most - 1}}}" if most > 1 else f"root ::= {' | '.join(first)}")
    text = "\n".join(lines)
    check_grammar(text, param="tools")
    return text


@lru_cache(_REMEMBERED)
def _rules(tags: tuple[_Tag, ...]) -> tuple[list[str], str]:
    names, rules = schemas_to_rules([(json.loads(tag.schema_json), tag.param, tag.strict) for tag in tags])
    return names, without_space(rules)


def _literal(text: str) -> str:
    """Quote a text; nothing where it is empty."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"' if text else ""
