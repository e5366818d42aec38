"""What of a streamed chat completion is read: server-sent events with one JSON object each."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, NonNegativeInt, ValidationError

from ..events import ToolCall, Usage
from .targets import TargetError

__all__ = ["CallPieces", "Chunk", "parse_line", "shown"]

_END_MARK: Final = b"[DONE]"
_SHOWN_BYTES: Final = 200


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _CallPiece(BaseModel):
    index: NonNegativeInt = 0
    id: str | None = None
    function: _Function = _Function()


class _Delta(BaseModel):
    content: str | None = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _PromptDetails(BaseModel):
    cached_tokens: NonNegativeInt | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    prompt_tokens_details: _PromptDetails | None = None


class Chunk(BaseModel):
    """One event of the stream, as far as a caller cares."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None

    @property
    def text(self) -> str:
        """New text of the reply."""
        return (self.choices[0].delta.content or "") if self.choices else ""

    @property
    def call_pieces(self) -> list[_CallPiece]:
        """Pieces of tool calls."""
        return (self.choices[0].delta.tool_calls or []) if self.choices else []

    @property
    def finished(self) -> bool:
        """Whether it says that the reply is complete."""
        return bool(self.choices) and self.choices[0].finish_reason is not None

    @property
    def token_counts(self) -> Usage | None:
        """Token counts in our words; a server that does not tell what was cached counts as having cached nothing."""
        if self.usage is None:
            return None
        details = self.usage.prompt_tokens_details or _PromptDetails()
        return Usage(self.usage.prompt_tokens, details.cached_tokens or 0, self.usage.completion_tokens)


class CallPieces:
    """Puts tool calls together that come in pieces."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[_CallPiece]] = {}

    def add(self, pieces: list[_CallPiece]) -> None:
        """Take in what an event has of them."""
        for piece in pieces:
            self._pieces.setdefault(piece.index, []).append(piece)

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls.

        Raises:
            TargetError: Arguments are no JSON object, or a call has no name.
        """
        return tuple(_call_of(pieces) for _, pieces in sorted(self._pieces.items()))


def parse_line(line: bytes) -> Chunk | None:
    """Parse a line of the stream; None where it is empty, a comment or the end mark.

    Raises:
        TargetError: It is no chat completion, or tells of an error.
    """
    field, _, data = line.strip().partition(b":")
    if field != b"data" or data.strip() == _END_MARK:
        return None
    try:
        chunk = Chunk.model_validate_json(data)
    except ValidationError as error:
        raise TargetError(f"the reply is no chat completion: {shown(data)}") from error
    if chunk.error is not None:
        raise TargetError(f"the server failed during the reply: {shown(json.dumps(chunk.error).encode())}")
    return chunk


def _call_of(pieces: list[_CallPiece]) -> ToolCall:
    name = "".join(piece.function.name or "" for piece in pieces)
    text = "".join(piece.function.arguments or "" for piece in pieces) or "{}"
    try:
        arguments = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        arguments = None
    if not name or not isinstance(arguments, dict):
        raise TargetError(
            f"the reply calls a tool without a name, or with arguments that are no object: {shown(text.encode())}"
        )
    return ToolCall(next((piece.id for piece in pieces if piece.id), ""), name, arguments)


def shown(body: bytes) -> str:
    """Return as much of what a server sent as fits into an error message."""
    return body[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
