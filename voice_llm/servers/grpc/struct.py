"""``google.protobuf.Struct`` and plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value

from ...errors import InvalidRequestError

__all__ = ["plain_struct", "plain_value", "struct_of"]

# Beyond it a double no longer knows each whole number.
_MAX_WHOLE: Final = 2**53


def plain_struct(struct: Struct) -> dict[str, Any]:
    """Return the JSON object that a struct stands for.

    Raises:
        InvalidRequestError: See ``plain_value``.
    """
    return {name: plain_value(value) for name, value in struct.fields.items()}


def plain_value(value: Value) -> Any:
    """Return the JSON value. All numbers of a ``Value`` are doubles: whole ones become integers again.

    Raises:
        InvalidRequestError: A number is not finite, which JSON does not know.
    """
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [plain_value(each) for each in value.list_value.values]
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    return value.string_value if kind == "string_value" else None


def struct_of(mapping: Mapping[str, Any]) -> Struct:
    """Return a JSON object as a struct."""
    struct = Struct()
    struct.update(mapping)
    return struct


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise InvalidRequestError(f"{number} is not a JSON number")
    return int(number) if number.is_integer() and abs(number) <= _MAX_WHOLE else number
