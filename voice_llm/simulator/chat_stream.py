"""What of a streamed chat completion is read: server-sent events with one JSON object each."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, NonNegativeInt, ValidationError

from ..events import Usage
from .targets import TargetError

__all__ = ["Chunk", "parse_line", "shown"]

_END_MARK: Final = b"[DONE]"
_SHOWN_BYTES: Final = 200


class _Delta(BaseModel):
    content: str | None = None


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


def shown(body: bytes) -> str:
    """Return as much of what a server sent as fits into an error message."""
    return body[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
