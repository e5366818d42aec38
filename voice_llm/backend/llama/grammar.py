"""What a GBNF grammar must pass before llama.cpp sees it.

llama.cpp's parser reserves memory without end for ``{5,2}``, takes exponential time to look for left recursion, and
misses it behind a rule that is empty only through other rules; sampling then never ends or ends the process. Endless
repetitions of what may be empty take it exponential time to apply. It also prints a faulty grammar, which is a
caller's text, to stderr. So a grammar is read here first, and what would go wrong there is refused with the reason.

What stays possible is a grammar that is slow because many of its ways match the same text, such as ``([^b]+)+``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final, NamedTuple

from ...errors import GrammarError

__all__ = ["check_grammar", "without_space"]

_MAX_BYTES: Final = 65_536
_MAX_DEPTH: Final = 64
# llama.cpp's own bound; above it, it silently drops an upper limit.
_MAX_REPETITIONS: Final = 2_000
_MAX_ELEMENTS: Final = 250_000
_MAX_STEPS: Final = 1_000_000

_CHARACTER: Final = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\\"\[\]-])"
_TOKEN: Final = re.compile(
    rf"""(?P<space>[ \t]+|\#[^\r\n]*)|(?P<newline>\r\n?|\n)|(?P<define>::=)|(?P<name>[a-zA-Z0-9-]+)
    |(?P<literal>"(?:[^"\\]|{_CHARACTER})*")|(?P<set>\[\^?(?:[^\]\\]|{_CHARACTER})*\])|(?P<any>\.)
    |(?P<repeat>[*+?]|\{{[ \t]*[0-9]+[ \t]*(?:,[ \t]*(?:[0-9]+)?[ \t]*)?\}})
    |(?P<open>\()|(?P<close>\))|(?P<or>\|)|(?P<token>[<!])""",
    re.VERBOSE,
)


@dataclass(slots=True)
class _Item:
    """One element of a sequence: a rule's name, a group, or a terminal (then ``body`` says whether it is empty)."""

    body: str | list[list[_Item]] | bool
    elements: int
    least: int = 1
    most: int | None = 1


class _Token(NamedTuple):
    kind: str
    text: str


def check_grammar(text: str, *, param: str = "grammar") -> None:
    """Refuse a grammar that llama.cpp cannot use or would not survive.

    Args:
        text: GBNF with a ``root`` rule.
        param: What the error names as the offending field.

    Raises:
        GrammarError: The grammar is empty, too large, malformed, left-recursive, or refers to what is not there.
    """
    try:
        if not text.strip():
            raise GrammarError("the grammar is empty")
        if "\0" in text or len(text.encode()) > _MAX_BYTES:
            raise GrammarError(f"a grammar has at most {_MAX_BYTES} bytes and no NUL")
        _check_rules(_Parser(text).rules())
    except UnicodeEncodeError:
        raise GrammarError("the grammar holds half a surrogate pair", param=param) from None
    except GrammarError as e:
        raise GrammarError(str(e), param=param) from None


def without_space(rules: str) -> str:
    """Take the rule ``space``, which allows white space between values, out of what the schema converter wrote."""
    lines = [[token.text for token in _tokens(line)] for line in rules.splitlines()]
    return "\n".join(" ".join(t for t in line if t != "space") for line in lines if line[:1] != ["space"])


def _check_rules(rules: Mapping[str, list[list[_Item]]]) -> None:
    for name in ("root", *(ref for alternatives in rules.values() for ref in _references(alternatives))):
        if name not in rules:
            raise GrammarError(f"the grammar has no rule {name!r}")
    empty = _empty_rules(rules)
    if any(item.most is None and _body_may_be_empty(item, empty) for items in rules.values() for item in _items(items)):
        raise GrammarError("the grammar repeats without limit what may be empty")
    leftmost = {name: set(_leftmost(alternatives, empty)) for name, alternatives in rules.items()}
    try:
        order = list(TopologicalSorter(leftmost).static_order())
    except CycleError as e:
        raise GrammarError("the grammar is left-recursive: " + " -> ".join(reversed(e.args[1]))) from None
    steps: dict[str, int] = {}
    for name in order:
        steps[name] = _steps(rules[name], empty, steps)
    if sum(steps.values()) > _MAX_STEPS:
        raise GrammarError("the grammar has too many ways to begin a rule")


class _Parser:
    """Recursive descent, as llama.cpp does it; a line break ends a rule unless a group is open."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), _Token("end", "")]
        self._next = 0
        self._elements = 0

    def rules(self) -> dict[str, list[list[_Item]]]:
        rules: dict[str, list[list[_Item]]] = {}
        self._skip("newline")
        while self._peek() != "end":
            name = self._take("name")
            self._take("define")
            self._skip("newline")
            rules[name] = self._alternatives(0)
            if self._peek() != "end":
                self._take("newline")
            self._skip("newline")
        return rules

    def _alternatives(self, depth: int) -> list[list[_Item]]:
        if depth > _MAX_DEPTH:
            raise GrammarError(f"a grammar nests at most {_MAX_DEPTH} groups")
        found = [self._sequence(depth)]
        while self._peek() == "or":
            self._next += 1
            self._skip("newline")
            found.append(self._sequence(depth))
        return found

    def _sequence(self, depth: int) -> list[_Item]:
        items: list[_Item] = []
        while True:
            if depth:
                self._skip("newline")
            kind = self._peek()
            if kind == "repeat" and items:
                items[-1] = self._repeated(items[-1])
            elif kind == "open":
                self._next += 1
                self._skip("newline")
                items.append(_Item(self._alternatives(depth + 1), 1))
                self._take("close")
            elif kind in ("name", "literal", "set", "any"):
                text = self._take(kind)
                empty = text in ('""', "[]", "[^]")
                items.append(_Item(text if kind == "name" else empty, 1 if kind in ("name", "any") else len(text)))
            else:
                return items
            self._elements += items[-1].elements
            if self._elements > _MAX_ELEMENTS:
                raise GrammarError(f"a grammar has at most {_MAX_ELEMENTS} elements, repetitions written out")

    def _repeated(self, item: _Item) -> _Item:
        least, most = _bounds(self._take("repeat"))
        if most is not None and most < least:
            raise GrammarError(f"the grammar asks for a repetition of {least} to {most}")
        if item.body is True or item.most == 0:
            raise GrammarError("the grammar repeats what is empty")
        elements = item.elements * (max(1, least) + (1 if most is None else most - least) * 3)
        body = item.body if (item.least, item.most) == (1, 1) else [[item]]
        return _Item(body, elements, least, most)

    def _peek(self) -> str:
        return self._tokens[self._next].kind

    def _skip(self, kind: str) -> None:
        while self._peek() == kind:
            self._next += 1

    def _take(self, kind: str) -> str:
        token = self._tokens[self._next]
        if token.kind != kind:
            raise GrammarError(f"the grammar has {_WORDS[token.kind]} where {_WORDS[kind]} must be")
        self._next += 1
        return token.text


_QUANTIFIERS: Final[dict[str, tuple[int, int | None]]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_WORDS: Final = {
    "any": "'.'",
    "close": "')'",
    "define": "'::='",
    "end": "its end",
    "literal": "a literal",
    "name": "a rule's name",
    "newline": "a line's end",
    "open": "'('",
    "or": "'|'",
    "repeat": "a repetition",
    "set": "a character set",
}


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise GrammarError(f"the grammar cannot be read from line {line} on (an open quote or bracket, an escape?)")
        kind = match.lastgroup or ""
        if kind == "token":
            # After a text that ends inside a token, llama.cpp allows what it then cannot accept, and ends the process.
            raise GrammarError("a grammar may not name tokens (<...>, !<...>); write their text as a literal")
        if kind != "space":
            yield _Token(kind, match.group())
        position = match.end()


def _bounds(repetition: str) -> tuple[int, int | None]:
    if repetition in _QUANTIFIERS:
        return _QUANTIFIERS[repetition]
    first, comma, second = (part.strip() for part in repetition.strip("{}").partition(","))
    least = _count(first)
    return least, _count(second) if second else None if comma else least


def _count(digits: str) -> int:
    if len(digits) > 4 or int(digits) > _MAX_REPETITIONS:
        raise GrammarError(f"a grammar repeats at most {_MAX_REPETITIONS} times, not {digits[:20]}")
    return int(digits)


def _items(alternatives: list[list[_Item]]) -> Iterator[_Item]:
    for item in (item for sequence in alternatives for item in sequence):
        yield item
        if isinstance(item.body, list):
            yield from _items(item.body)


def _references(alternatives: list[list[_Item]]) -> Iterator[str]:
    return (item.body for item in _items(alternatives) if isinstance(item.body, str))


def _may_be_empty(alternatives: list[list[_Item]], empty: set[str]) -> bool:
    return any(all(_item_may_be_empty(item, empty) for item in sequence) for sequence in alternatives)


def _item_may_be_empty(item: _Item, empty: set[str]) -> bool:
    return item.least == 0 or _body_may_be_empty(item, empty)


def _body_may_be_empty(item: _Item, empty: set[str]) -> bool:
    if isinstance(item.body, bool):
        return item.body
    return item.body in empty if isinstance(item.body, str) else _may_be_empty(item.body, empty)


def _empty_rules(rules: Mapping[str, list[list[_Item]]]) -> set[str]:
    """Return the rules that match nothing at all, also by way of other rules."""
    users: dict[str, set[str]] = {}
    for name, alternatives in rules.items():
        for reference in _references(alternatives):
            users.setdefault(reference, set()).add(name)
    empty: set[str] = set()
    todo = list(rules)
    while todo:
        name = todo.pop()
        if name not in empty and _may_be_empty(rules[name], empty):
            empty.add(name)
            todo += users.get(name, ())
    return empty


def _leftmost(alternatives: list[list[_Item]], empty: set[str]) -> Iterator[str]:
    """Yield the rules that a match can begin with."""
    for sequence in alternatives:
        for item in sequence:
            if isinstance(item.body, str):
                yield item.body
            elif isinstance(item.body, list):
                yield from _leftmost(item.body, empty)
            if not _item_may_be_empty(item, empty):
                break


def _steps(alternatives: list[list[_Item]], empty: set[str], steps: Mapping[str, int]) -> int:
    """Count how often llama.cpp's search for left recursion enters a rule from here; it remembers nothing."""
    total = 1
    for sequence in alternatives:
        for item in sequence:
            may_be_empty = _item_may_be_empty(item, empty)
            times = max(1, item.least) if may_be_empty else 1
            if isinstance(item.body, str):
                total += times * steps[item.body]
            elif isinstance(item.body, list):
                total += times * _steps(item.body, empty, steps)
            if not may_be_empty:
                break
    return total
