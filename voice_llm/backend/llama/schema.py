"""JSON schema to GBNF by llama-cpp-python's converter, refusing by name whatever that converter would silently drop.

``oneOf`` is read as ``anyOf``: alternatives of a reply that a model writes are told apart by their content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...errors import GrammarError
from .library import json_schema_to_gbnf

__all__ = ["schema_to_gbnf"]

_ANNOTATIONS: Final = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
    ]
)
_PRIMITIVES: Final = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_FORMATS: Final = re.compile(r"date|time|date-time|uuid[1-5]?")
_MAX_DEPTH: Final = 32


def schema_to_gbnf(schema: Mapping[str, Any]) -> str:
    """Convert a JSON schema to a GBNF grammar with a ``root`` rule.

    Raises:
        GrammarError: A keyword is not honoured (it is named, with its path), or the schema is malformed.
    """
    _check(schema, "#", 0)
    _check_references(schema)
    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError, RecursionError, re.error) as e:
        raise GrammarError(f"the JSON schema cannot be converted: {type(e).__name__}: {e}", param="json_schema") from e


def _check(schema: object, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _refused(path, f"nests deeper than {_MAX_DEPTH}")
    if not isinstance(schema, Mapping):
        raise _refused(path, f"is {schema!r}; a schema is an object")
    honoured = _honoured(schema, path)
    dropped = sorted(set(schema) - honoured - _ANNOTATIONS)
    if dropped:
        raise _refused(path, f"uses {', '.join(map(repr, dropped))}, which cannot be enforced here")
    for key, sub in _sub_schemas(schema):
        _check(sub, f"{path}/{key}", depth + 1)


def _honoured(schema: Mapping[str, Any], path: str) -> set[str]:
    """Return the keywords that the converter looks at for this kind of schema, in its own order of cases."""
    kind = schema.get("type")
    if "$ref" in schema:
        return {"$ref"}
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return {union}
    if isinstance(kind, list):
        return {"type"}
    for constant in ("const", "enum"):
        if constant in schema:
            return {constant, "type"}
    if kind is not None and kind not in _PRIMITIVES:
        raise _refused(path, f"has the type {kind!r}")
    if kind in (None, "object") and ("properties" in schema or "additionalProperties" in schema):
        undeclared = sorted(set(schema.get("required", ())) - set(schema.get("properties", {})))
        if undeclared:
            raise _refused(path, f"requires {', '.join(map(repr, undeclared))} without declaring it")
        return {"type", "properties", "required", "additionalProperties"}
    if kind in (None, "array") and "prefixItems" in schema and not schema.get("items"):
        return {"type", "prefixItems", "items"}
    if kind in (None, "array") and "items" in schema:
        return {"type", "items", "minItems", "maxItems"}
    return _honoured_of_string(schema, path) if kind == "string" else {"type"}


def _honoured_of_string(schema: Mapping[str, Any], path: str) -> set[str]:
    if "pattern" in schema:
        return {"type", "pattern"}
    if "format" in schema:
        if not _FORMATS.fullmatch(str(schema["format"])):
            raise _refused(path, f"has the format {schema['format']!r}; date, time, date-time and uuid are enforced")
        return {"type", "format"}
    return {"type", "minLength", "maxLength"}


def _sub_schemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key in ("properties", "$defs", "definitions"):
        for name, sub in dict(schema.get(key, {})).items():
            yield f"{key}/{name}", sub
    for key in ("anyOf", "oneOf", "prefixItems"):
        for index, sub in enumerate(schema.get(key, ())):
            yield f"{key}/{index}", sub
    for key in ("items", "additionalProperties"):
        if not isinstance(schema.get(key, True), bool):
            yield key, schema[key]


def _check_references(schema: Mapping[str, Any]) -> None:
    """Refuse what the converter would mix up: it names a rule after the last part of a reference."""
    targets: dict[str, str] = {}
    for reference in _references(schema):
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _refused("#", f"refers to {reference!r}; only references inside the schema are resolved")
        name = reference.rsplit("/", 1)[-1]
        if targets.setdefault(name, reference) != reference:
            raise _refused("#", f"refers to {reference!r} and {targets[name]!r}, which share their last name")


def _references(node: object) -> Iterator[object]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _refused(path: str, what: str) -> GrammarError:
    return GrammarError(f"the JSON schema at {path} {what}", param="json_schema")
