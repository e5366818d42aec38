"""ToolCallParser: find the tool calls that a reply ends with."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from .blocks import overlap

__all__ = ["ParsedCall", "ToolCallParser"]

# Where a call's JSON begins, should the model have written something before it.
_JSON_START: Final = '{"name"'


class ParsedCall(NamedTuple):
    """A call that is whole: a tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


class ToolCallParser:
    """Split a reply into its words and the calls after them.

    What follows the first opening marker is never words, whether calls can be made out in it or not. A call is
    ``{"name": ..., "arguments": {...}}`` between the markers; one that is not, or that names none of the tools, is left
    out.

    Args:
        names: The tools that may be called.
        opening: Marker that begins a call.
        closing: Marker that ends it; also allowed inside of a JSON string.
    """

    def __init__(self, names: Collection[str], *, opening: str = "<tool_call>", closing: str = "</tool_call>") -> None:
        self._names = frozenset(names)
        self._opening = opening
        self._closing = closing
        self._held = ""
        self._begun = False
        self._inside = False
        self._searched = 0  # no closing marker of the present call ends before this index of what is held
        self._calls: list[ParsedCall] = []

    @property
    def begun(self) -> bool:
        """Whether the first opening marker was seen."""
        return self._begun

    @property
    def calls(self) -> tuple[ParsedCall, ...]:
        """The calls of the reply; none where it ends inside one: half of what was meant may do harm."""
        return () if self._inside else tuple(self._calls)

    @property
    def begun_text(self) -> str:
        """What is held of a call that has begun and not ended."""
        return self._held if self._inside else ""

    def decode(self, text: str) -> str:
        """Return the new words; what may be the beginning of a marker is held back."""
        self._held += text
        if self._begun:
            self._parse()
            return ""
        words, found, rest = self._held.partition(self._opening)
        if found:
            self._begun = self._inside = True
            self._held = rest
            self._parse()
            return words
        words = words[: len(words) - overlap(words, self._opening)]
        self._held = self._held[len(words) :]
        return words

    def flush(self) -> str:
        """Return the words that were held back."""
        words = "" if self._begun else self._held
        if not self._begun:
            self._held = ""
        return words

    def _parse(self) -> None:
        while True:
            if not self._inside:
                _, found, rest = self._held.partition(self._opening)
                if not found:
                    return
                self._held, self._inside, self._searched = rest, True, 0
            at = self._held.find(self._closing, self._searched)
            if at < 0:
                self._searched = max(self._searched, len(self._held) - len(self._closing) + 1)
                return
            call, inside_string = self._read(self._held[:at])
            self._searched = at + 1
            if inside_string:
                continue
            if call is not None:
                self._calls.append(call)
            self._held, self._inside = self._held[at + len(self._closing) :], False

    def _read(self, text: str) -> tuple[ParsedCall | None, bool]:
        """Return the call that the text is, if it is one, and whether it rather ends within a string."""
        found, inside_string = _read_json(text)
        if found is None and (start := text.find(_JSON_START, 1)) > 0:
            found, inside_string = _read_json(text[start:])
        if not isinstance(found, dict):
            return None, inside_string
        name, arguments = found.get("name"), found.get("arguments", {})
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            return None, False
        return ParsedCall(name, arguments), False


def _read_json(text: str) -> tuple[object, bool]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(found, ensure_ascii=False).encode()  # half a character, escaped, is no text
    except json.JSONDecodeError as e:
        return None, e.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return None, False
    return found, False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
