"""YAML with places: what a file holds, and on which line each part of it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from ...errors import ConfigError

__all__ = ["Document", "Location", "Place", "read_yaml"]

Location = tuple[str | int, ...]
"""Keys and list indexes that lead to a part of a document."""

_REMEDIES: Final = {
    "mapping values are not allowed here": "put a text that has a colon in it into quotes",
    "could not find expected ':'": "is a colon missing after a key, or an indentation wrong?",
    "cannot start any token": "indent with spaces, and put a text that begins with such a character into quotes",
    "did not find expected": "is an indentation wrong, or a quote not closed?",
    "unexpected end of stream": "a quote or bracket is not closed",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


@dataclass(slots=True)
class Document:
    """What a file holds.

    Attributes:
        data: Mappings, lists and plain values.
        places: Where each key and each list item stands, by the way to it.
    """

    data: Any
    places: dict[Location, Place] = field(default_factory=dict)

    def place_of(self, location: Location) -> Place:
        """Return where a part stands, or the nearest part around it."""
        while location not in self.places:
            location = location[:-1]
        return self.places[location]


def read_yaml(path: Path, *, including: tuple[Path, ...] = ()) -> Document:
    """Read a YAML file, with ``!include other.yaml`` for what another file holds.

    Plain words stay words: only ``true`` and ``false`` are booleans and only decimal numbers are numbers, so a caller
    may say ``yes`` or ``012``.

    Args:
        path: The file.
        including: The files whose includes lead here.

    Raises:
        ConfigError: The file cannot be read, or is no YAML; the message has the line, and what may help.
    """
    if path in including:
        raise ConfigError(f"{path} includes itself, by way of {' and '.join(str(file) for file in including)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        reader = _Reader(text, path, including)
        return reader.document()
    except yaml.YAMLError as error:
        raise ConfigError(f"{_place_of_error(path, error)}: {_words_of(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: brackets or lists stand too deep in one another") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values, as far as callers' words could be taken for others."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


class _Reader:
    """Reads one file."""

    def __init__(self, text: str, path: Path, including: tuple[Path, ...]) -> None:
        self._loader = _Loader(text)
        self._path = path
        self._including = including
        self._places: dict[Location, Place] = {}

    def document(self) -> Document:
        node = self._loader.get_single_node()
        if node is None:
            raise ConfigError(f"{self._path} is empty")
        return Document(self._value(node, (), ()), self._places)

    def _value(self, node: yaml.Node, location: Location, around: tuple[yaml.Node, ...]) -> Any:
        self._places.setdefault(location, self._place(node))
        if node in around:
            raise ConfigError(f"{self._place(node)}: an alias stands inside of what it stands for")
        if node.tag == "!include":
            return self._included(node, location)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location, (*around, node))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*location, n), (*around, node)) for n, item in enumerate(node.value)]
        try:
            value = self._loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{self._place(node)}: {node.value[:40]!r} cannot be read: {error}") from None
        if not isinstance(value, str | int | float | None):
            raise ConfigError(f"{self._place(node)}: {node.tag} is no text, number or boolean")
        return value

    def _mapping(self, node: yaml.MappingNode, location: Location, around: tuple[yaml.Node, ...]) -> dict[str, Any]:
        own = {self._key(key) for key, _ in node.value}
        if len(own) < len(node.value):
            self._check_unique(node)
        self._loader.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value in node.value:
            key = self._key(key_node)
            self._places[(*location, key)] = self._place(key_node)
            mapping[key] = self._value(value, (*location, key), around)
        return mapping

    def _check_unique(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self._key(key_node)
            if key in seen and key != "<<":
                raise ConfigError(f"{self._place(key_node)}: the key {key!r} is given twice; keep one of them")
            seen.add(key)

    def _included(self, node: yaml.Node, location: Location) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise ConfigError(f"{self._place(node)}: !include takes the name of a file")
        target = (self._path.parent / node.value).resolve()
        if not target.is_file():
            raise ConfigError(f"{self._place(node)}: there is no file {target} to include")
        document = read_yaml(target, including=(*self._including, self._path))
        self._places.update({(*location, *inner): place for inner, place in document.places.items() if inner})
        return document.data

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise ConfigError(f"{self._place(node)}: a key must be a word")
        return str(node.value)

    def _place(self, node: yaml.Node) -> Place:
        return Place(self._path, node.start_mark.line + 1)


def _place_of_error(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return str(path if mark is None else Place(path, mark.line + 1))


def _words_of(error: yaml.YAMLError) -> str:
    problem = str(getattr(error, "problem", None) or error)
    remedies: Iterator[str] = (remedy for part, remedy in _REMEDIES.items() if part in problem)
    remedy = next(remedies, None)
    return f"not YAML: {problem}" + (f"; {remedy}" if remedy else "")
