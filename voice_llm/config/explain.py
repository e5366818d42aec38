"""What is wrong with a configuration, in words for the person who wrote it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError

__all__ = ["dataclass_from", "explain", "findings", "parse_json_object", "unknown"]

T = TypeVar("T")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` is unknown, which known one is nearest, and which there are."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {what} {name!r}{hint} (there are: {', '.join(names) or 'none'})"


def parse_json_object(text: str, *, source: str) -> dict[str, Any]:
    """Parse a JSON object, refusing what JSON readers tolerate in silence: repeated keys, NaN and Infinity.

    Raises:
        ConfigError: The message names the source and, for a syntax error, line and column.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}", param=error.param) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: must hold a JSON object")
    return value


def dataclass_from(cls: type[T], value: object) -> T:
    """Build a configuration dataclass from a mapping; one that is built already is returned as it is.

    Raises:
        InvalidRequestError: A key is unknown or a value is not allowed; ``param`` names it.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError("must be an object")
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            raise ConfigError(unknown("key", str(key), known), param=str(key))
    try:
        return cls(**value)
    except TypeError as error:  # a value of a wrong type that the class did not foresee
        raise ConfigError(str(error)) from None


def explain(error: ValidationError, model: type[BaseModel], *, source: str) -> ConfigError:
    """Turn what pydantic found into a ConfigError: a line each, with the source and the dotted path."""
    found = findings(error, model)
    lines = [f"{source}: {path}: {text}" if path else f"{source}: {text}" for path, text in found]
    return ConfigError("\n".join(lines), param=found[0][0] or None)


def findings(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return what pydantic found, as pairs of a dotted path and a text."""
    return [_finding(details, model) for details in error.errors()]


def _finding(details: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    path = [str(part) for part in details["loc"]]
    if details["type"] == "extra_forbidden":
        return ".".join(path), unknown("key", path[-1], _known_keys(model, path[:-1]))
    if details["type"] == "missing":
        return ".".join(path), "is missing"
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, Exception):
        param = getattr(cause, "param", None)
        return ".".join([*path, param] if param else path), str(cause)
    text = re.sub(r"^\w+ should", "it should", str(details["msg"]))
    return ".".join(path), f"is {reprlib.repr(details['input'])}; {text}"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # a place in a list of models
            continue
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model that a type is, or holds: as a list of them, or as one that may be missing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"the key {twice!r} is given twice in one object", param=twice)
    return value


def _no_constant(name: str) -> float:
    raise ConfigError(f"{name} is not a JSON number")
