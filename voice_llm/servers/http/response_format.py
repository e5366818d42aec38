"""``response_format``: the form that a reply must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import InvalidRequestError

__all__ = ["json_schema_of"]

_PARAM: Final = "response_format"
_ANY_OBJECT: Final = {"type": "object"}


def json_schema_of(response_format: object) -> Mapping[str, Any] | None:
    """Return the JSON schema that a reply must match; None where any text will do.

    With ``strict`` or without it, replies match the schema in full: one that cannot be enforced is refused later.

    Raises:
        InvalidRequestError: It is none of OpenAI's three formats.
    """
    if response_format is None:
        return None
    form = _object(response_format, _PARAM)
    kind = form.get("type")
    fields = {"type", "json_schema"} if kind == "json_schema" else {"type"}
    _check_fields(form, fields, _PARAM)
    if kind == "text":
        return None
    if kind == "json_object":
        return _ANY_OBJECT
    if kind == "json_schema":
        return _schema(form.get("json_schema"), f"{_PARAM}.json_schema")
    raise InvalidRequestError(f"{_PARAM}.type must be text, json_object or json_schema", param=f"{_PARAM}.type")


def _schema(value: object, where: str) -> Mapping[str, Any]:
    described = _object(value, where)
    _check_fields(described, {"name", "description", "schema", "strict"}, where)
    if not isinstance(described.get("strict"), bool | None):
        raise InvalidRequestError(f"{where}.strict must be true or false", param=f"{where}.strict")
    for name in ("name", "description"):
        if not isinstance(described.get(name), str | None):
            raise InvalidRequestError(f"{where}.{name} must be text", param=f"{where}.{name}")
    schema = described.get("schema")
    return _ANY_OBJECT if schema is None else _object(schema, f"{where}.schema")


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{where} must be an object", param=where)
    return value


def _check_fields(value: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in value:
        if name not in known:
            raise InvalidRequestError(f"{where} has the unknown field {name!r}", param=f"{where}.{name}")
