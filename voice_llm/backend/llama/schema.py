"""JSON schema to GBNF by llama-cpp-python's converter, refusing by name whatever that converter would silently drop.

``oneOf`` is read as ``anyOf``: alternatives of a reply that a model writes are told apart by their content. An object
without ``additionalProperties`` has the declared properties only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ...errors import GrammarError
from .library import SchemaConverter

__all__ = ["schema_to_gbnf", "schemas_to_rules"]

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
# Where a schema holds others: by name, in a list, as one.
_NAMED: Final = frozenset({"properties", "$defs", "definitions"})
_LISTED: Final = frozenset({"anyOf", "oneOf", "prefixItems"})
_SINGLE: Final = frozenset({"items", "additionalProperties"})
_PRIMITIVES: Final = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
_FORMATS: Final = re.compile(r"date|time|date-time|uuid[1-5]?")
_MAX_DEPTH: Final = 32
# What llama.cpp can count to in a grammar.
_MAX_COUNT: Final = 2_000
# A character of a JSON string. Escapes of surrogates are left out: half a pair is not text.
_PLAIN: Final = r'[^"\\\x7F\x00-\x1F]'
_CHAR: Final = _PLAIN + r' | "\\" (["\\/bfnrt] | "u" ([0-9abcefABCEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))'
# The part of regular expressions that the converter turns into a grammar of the same language, inside quotes.
_SET: Final = r'\[(?:\\[\[\]-]|[^\[\]"\\^\x00-\x1F])+\]'
_PATTERN: Final = re.compile(
    rf'\^(?:\\[\[\](){{}}|*+?]|{_SET}|[*+?](?![*+?])|\{{\d+(?:,\d*)?\}}(?![*+?])|[().|]|[^\[\](){{}}|*+?."\\^$\x00-\x1F])*\$'
)


def schema_to_gbnf(schema: Mapping[str, Any]) -> str:
    """Convert a JSON schema to a GBNF grammar with a ``root`` rule.

    Raises:
        GrammarError: A keyword is not honoured (it is named, with its path), or the schema is malformed.
    """
    converter = _Converter()
    with _refusing("json_schema"):
        converter.add(schema, "")
    return converter.gbnf()


def schemas_to_rules(schemas: Sequence[tuple[Mapping[str, Any], str, bool]]) -> tuple[list[str], str]:
    """Convert schemas to GBNF rules without a root.

    Args:
        schemas: Each with what an error names as the offending field, and whether what cannot be enforced is refused;
            otherwise it is left out.

    Returns:
        The name of the rule of each schema, and the text of all rules.

    Raises:
        GrammarError: As ``schema_to_gbnf``.
    """
    converter = _Converter()
    names: list[str] = []
    for number, (schema, param, strict) in enumerate(schemas):
        with _refusing(param):
            names.append(converter.add(schema if strict else _relaxed(schema), f"schema-{number}"))
    return names, converter.gbnf()


def _relaxed(schema: Any) -> Any:
    """Return the schema without the keywords that cannot be enforced, so that the model alone can heed them."""
    if not isinstance(schema, Mapping):
        return schema
    kept = dict(schema)
    if not _FORMATS.fullmatch(str(kept.get("format", "date"))):
        del kept["format"]
    if "pattern" in kept and not (isinstance(kept["pattern"], str) and _PATTERN.fullmatch(kept["pattern"])):
        del kept["pattern"]
    honoured = _honoured(kept, "#") | _ANNOTATIONS
    kept = {key: value for key, value in kept.items() if key in honoured}
    for key in _NAMED & kept.keys():
        kept[key] = {name: _relaxed(sub) for name, sub in kept[key].items()}
    for key in _LISTED & kept.keys():
        kept[key] = [_relaxed(sub) for sub in kept[key]]
    for key in _SINGLE & kept.keys():
        kept[key] = _relaxed(kept[key])
    return kept


@contextmanager
def _refusing(param: str) -> Iterator[None]:
    """Let every failure name the field that the schema came in."""
    try:
        yield
    except GrammarError as e:
        raise GrammarError(str(e), param=param) from None
    except (AssertionError, LookupError, TypeError, ValueError, AttributeError, RecursionError, re.error) as e:
        raise GrammarError(f"the JSON schema cannot be converted: {type(e).__name__}: {e}", param=param) from e


class _Converter(SchemaConverter):  # type: ignore[misc]
    """The library's converter, with what it gets wrong put right.

    It writes constants without escaping backslashes, lets a string hold raw control characters and a pattern's dot
    hold quotes, takes any rule that happens to have a reference's last name for its target, misses references beside
    a reference, and nests a group for each item or character up to a limit.
    """

    def __init__(self) -> None:
        super().__init__(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
        self._schema: Any = {}
        self._prefix = ""
        self._names: dict[tuple[str, str], str] = {}

    def add(self, schema: Mapping[str, Any], name: str) -> str:
        """Add the rules of a schema and return the name of its own; an empty ``name`` stands for the root."""
        _check(schema, "#", 0)
        _check_references(schema)
        self._schema = json.loads(json.dumps(schema))
        self._prefix = name
        return self.visit(self._schema, name)

    def visit(self, schema: Mapping[str, Any], name: str) -> str:
        if "minLength" in schema or "maxLength" in schema:
            char = self._add_rule("char", _CHAR)
            times = _repetition(schema.get("minLength", 0), schema.get("maxLength"))
            return str(self._add_rule(f"{name}-text" if name else "root", rf'"\"" {char}{times} "\"" space'))
        if "minItems" in schema or "maxItems" in schema:
            item = self.visit(schema["items"], f"{name}-item" if name else "item")
            items = _items(item, schema.get("minItems", 0), schema.get("maxItems"))
            return str(self._add_rule(f"{name}-list" if name else "root", f'"[" space {items} "]" space'))
        return str(super().visit(schema, name))

    def gbnf(self) -> str:
        for name, rule in (("char", _CHAR), ("dot", _PLAIN)):
            if name in self._rules:
                self._rules[name] = rule
        return str(self.format_grammar())

    def _format_literal(self, literal: str) -> str:
        text = json.dumps(json.loads(literal), ensure_ascii=False)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _resolve_ref(self, ref: str) -> str:
        known = (self._prefix, ref)
        if known not in self._names:
            # Known before it is visited, so that a schema may contain itself.
            name = self._names[known] = f"reference-{len(self._names)}"
            self._names[known] = self.visit(_target(self._schema, ref), name)
        return self._names[known]

    def _visit_pattern(self, pattern: str, name: str) -> str:
        # In a group, or an alternative would leave out a quote.
        return str(super()._visit_pattern(f"^({pattern[1:-1]})$", name))


def _target(schema: Any, reference: str) -> Any:
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        schema = schema[int(key) if isinstance(schema, list) else key]
    return schema


def _repetition(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _items(item: str, least: int, most: int | None) -> str:
    if most == 0:
        return ""
    more = f'("," space {item})' + _repetition(max(0, least - 1), None if most is None else most - 1)
    return f"{item} {more}" if least else f"({item} {more})?"


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
            _check_choices(schema, union, path)
            return {union}
    if isinstance(kind, list):
        return {"type"}
    for constant in ("const", "enum"):
        if constant in schema:
            if constant == "enum":
                _check_choices(schema, constant, path)
            return {constant, "type"}
    if kind is not None and kind not in _PRIMITIVES:
        raise _refused(path, f"has the type {kind!r}")
    if kind in (None, "object") and ("properties" in schema or "additionalProperties" in schema):
        undeclared = sorted(set(schema.get("required", ())) - set(schema.get("properties", {})))
        if undeclared:
            raise _refused(path, f"requires {', '.join(map(repr, undeclared))} without declaring it")
        if "*" in schema.get("properties", {}):
            raise _refused(path, "has a property named '*', which cannot be told from additional ones")
        return {"type", "properties", "required", "additionalProperties"}
    if kind in (None, "array") and "prefixItems" in schema and not schema.get("items"):
        return {"type", "prefixItems", "items"}
    if kind in (None, "array") and "items" in schema:
        _check_count(schema, "minItems", "maxItems", path)
        return {"type", "items", "minItems", "maxItems"}
    return _honoured_of_string(schema, path) if kind == "string" else {"type"}


def _honoured_of_string(schema: Mapping[str, Any], path: str) -> set[str]:
    if "pattern" in schema:
        _check_pattern(schema["pattern"], path)
        return {"type", "pattern"}
    if "format" in schema:
        if not _FORMATS.fullmatch(str(schema["format"])):
            raise _refused(path, f"has the format {schema['format']!r}; date, time, date-time and uuid are enforced")
        return {"type", "format"}
    _check_count(schema, "minLength", "maxLength", path)
    return {"type", "minLength", "maxLength"}


def _check_choices(schema: Mapping[str, Any], key: str, path: str) -> None:
    if not isinstance(schema[key], list) or not schema[key]:
        raise _refused(path, f"has no alternatives in {key!r}")


def _check_count(schema: Mapping[str, Any], low: str, high: str, path: str) -> None:
    least, most = schema.get(low, 0), schema.get(high, _MAX_COUNT)
    for name, value in ((low, least), (high, most)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
            raise _refused(path, f"has the {name} {value!r}; a whole number from 0 to {_MAX_COUNT} is enforced")
    if least > most:
        raise _refused(path, f"has a {low} of {least} above its {high} of {most}")


def _check_pattern(pattern: object, path: str) -> None:
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        raise _refused(
            path,
            f"has the pattern {pattern!r}; enforced are ^...$ of plain characters, '.', sets such as [a-z0-9], groups, "
            "'|' and repetitions, without quotes",
        )
    re.compile(pattern)
    for low, high in re.findall(r"([^\[\\])-([^\]])", pattern):
        if any(low <= c <= high for c in '"\\'):
            raise _refused(path, f"has the pattern {pattern!r}, whose range {low}-{high} holds a quote or a backslash")


def _sub_schemas(schema: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for key in _NAMED:
        for name, sub in dict(schema.get(key, {})).items():
            yield f"{key}/{name}", sub
    for key in _LISTED:
        for index, sub in enumerate(schema.get(key, ())):
            yield f"{key}/{index}", sub
    for key in _SINGLE:
        if not isinstance(schema.get(key, True), bool):
            yield key, schema[key]


def _check_references(schema: Mapping[str, Any]) -> None:
    for reference in _references(schema):
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _refused("#", f"refers to {reference!r}; only references inside the schema are resolved")


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
