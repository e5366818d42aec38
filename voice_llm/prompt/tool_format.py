"""ToolFormat: how tools, calls of them and their results are written for a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..config import StructuralTag, StructuralTags
from .template import Literal
from .tokens import Text
from .tools import AllowedTools, Tool

__all__ = ["GENERIC", "ToolFormat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """Markers around JSON. The markers become control tokens where a vocabulary has them; what is between never does.

    A call that is written here for the history is, to the character, what ``tags`` forces in a reply.

    Attributes:
        call_opening: Before a call.
        call_closing: After it.
        result_opening: Before a call's result, in a user message.
        result_closing: After it.
    """

    call_opening: str = "<tool_call>"
    call_closing: str = "</tool_call>"
    result_opening: str = "<tool_response>"
    result_closing: str = "</tool_response>"

    def tool(self, tool: Tool) -> str:
        """Describe a tool, on one line."""
        return to_json({"name": tool.name, "description": tool.description, "parameters": tool.parameters})

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[Literal | Text, ...]:
        """Write a call."""
        text = f"{_before_arguments(name)}{to_json(arguments)}{_AFTER_ARGUMENTS}"
        return (Literal(self.call_opening), Text(text), Literal(self.call_closing))

    def example(self) -> tuple[Literal | Text, ...]:
        """Show the form of a call."""
        text = '{"name":"...","arguments":{...}}'
        return (Literal(self.call_opening), Text(text), Literal(self.call_closing))

    def result(self, content: str) -> tuple[Literal | Text, ...]:
        """Write the result of a call."""
        return (Literal(self.result_opening), Text(f"\n{content}\n"), Literal(self.result_closing))

    def tags(self, tools: Sequence[Tool], allowed: AllowedTools) -> StructuralTags:
        """Describe the calls that a reply may hold, for a sampler to force."""
        return StructuralTags(
            trigger=self.call_opening,
            tags=tuple(
                StructuralTag(
                    begin=self.call_opening + _before_arguments(tools[index].name),
                    schema=tools[index].parameters,
                    end=_AFTER_ARGUMENTS + self.call_closing,
                    param=f"tools[{index}].parameters",
                    strict=tools[index].strict,
                )
                for index in allowed.indexes
            ),
            at_once=allowed.required,
            most=allowed.most_calls,
        )


GENERIC: Final = ToolFormat()
"""For models that were not trained on a format of their own."""

_AFTER_ARGUMENTS: Final = "}"


def to_json(value: object) -> str:
    """Write a value as a grammar forces it: on one line, without white space, text unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _before_arguments(name: str) -> str:
    return f'{{"name":{to_json(name)},"arguments":'
