"""Tools that a reply may ask for, validated at the edge of the prompt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ..errors import InvalidRequestError
from .checks import check_fields, check_text, check_tool_name

ToolChoice = str | Mapping[str, Any]
"""``"auto"``, ``"none"``, ``"required"``, a tool's name, or ``{"type": "function", "function": {"name": ...}}``."""

_FIELDS: Final = frozenset({"type", "name", "description", "parameters", "strict"})
_MAX_TOOLS: Final = 128


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that the model can ask its client to do.

    Attributes:
        name: Letters, digits, ``_`` and ``-``; 64 at most.
        description: What it does and when to use it; for the model.
        parameters: JSON schema of its arguments, an object. Every call is forced to match it.
        strict: Refuse keywords that cannot be enforced (``minimum``, some formats), which else only the model reads.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


class AllowedTools(NamedTuple):
    """What a tool choice comes to.

    Attributes:
        indexes: Places of the tools that the reply may ask for; none where it may not ask for any.
        required: Whether it has to.
        most_calls: How often it may ask.
    """

    indexes: tuple[int, ...]
    required: bool = False
    most_calls: int = 8


def parse_tools(tools: Sequence[Tool | Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Validate tools.

    Mappings are read as OpenAI writes them, ``{"type": "function", "function": {...}}``, or flat: ``name``,
    ``description``, ``parameters`` and ``strict``.

    Raises:
        InvalidRequestError: One cannot be used as written; ``param`` names the field.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidRequestError("tools must be a list of tools", param="tools")
    if len(tools) > _MAX_TOOLS:
        raise InvalidRequestError(f"there are {len(tools)} tools, more than {_MAX_TOOLS}", param="tools")
    parsed = tuple(_parse_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))
    names = [tool.name for tool in parsed]
    for index, name in enumerate(names):
        if name in names[:index]:
            param = f"tools[{index}].name"
            raise InvalidRequestError(f"{param}: there are two tools named {name!r}", param=param)
    return parsed


def parse_tool_choice(choice: ToolChoice, tools: Sequence[Tool]) -> AllowedTools:
    """Find out which of the tools a reply may, or must, ask for.

    Raises:
        InvalidRequestError: It names no tool, or asks for a call where there are no tools.
    """
    everything = tuple(range(len(tools)))
    if choice == "auto":
        return AllowedTools(everything)
    if choice == "none":
        return AllowedTools(())
    if choice == "required":
        if not tools:
            raise InvalidRequestError("tool_choice is 'required', but there are no tools", param="tool_choice")
        return AllowedTools(everything, required=True)
    name: object = choice
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
    for index, tool in enumerate(tools):
        if tool.name == name:
            return AllowedTools((index,), required=True, most_calls=1)
    allowed = ", ".join(["auto", "none", "required", *(tool.name for tool in tools)])
    raise InvalidRequestError(f"tool_choice must be one of {allowed}, not {choice!r}", param="tool_choice")


def _parse_tool(tool: Tool | Mapping[str, Any], where: str) -> Tool:
    if isinstance(tool, Tool):
        tool = dataclasses.asdict(tool)
    if not isinstance(tool, Mapping):
        raise InvalidRequestError(f"{where} must be an object with a name", param=where)
    if (kind := tool.get("type", "function")) != "function":
        raise InvalidRequestError(f"{where}.type must be 'function', not {kind!r}", param=f"{where}.type")
    if "function" in tool:
        check_fields(tool, frozenset({"type", "function"}), where)
        tool, where = tool["function"], f"{where}.function"
        if not isinstance(tool, Mapping):
            raise InvalidRequestError(f"{where} must be an object with a name", param=where)
    check_fields(tool, _FIELDS, where)
    name = check_tool_name(tool.get("name"), f"{where}.name")
    description = check_text(tool.get("description") or "", f"{where}.description")
    strict = tool.get("strict")
    if not isinstance(strict, bool | None):
        raise InvalidRequestError(f"{where}.strict must be true or false, not {strict!r}", param=f"{where}.strict")
    return Tool(name, description, _parse_parameters(tool.get("parameters"), f"{where}.parameters"), bool(strict))


def _parse_parameters(parameters: object, param: str) -> dict[str, Any]:
    """Return a schema of an object; without any, of one that is empty."""
    if not isinstance(parameters, Mapping | None):
        raise InvalidRequestError(f"{param} must be a JSON schema, not {parameters!r}", param=param)
    schema = dict(parameters or {})
    if schema.get("type", "object") != "object":
        raise InvalidRequestError(f"{param}.type must be 'object', not {schema['type']!r}", param=f"{param}.type")
    schema["type"] = "object"
    if not {"additionalProperties", "$ref", "anyOf", "oneOf"} & schema.keys():
        schema.setdefault("properties", {})
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
        plain: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidRequestError(f"{param} cannot be written as JSON: {e}", param=param) from None
    return plain
