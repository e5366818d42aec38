"""Answer: what one reply of a server cost, measured on this side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EngineError

if TYPE_CHECKING:
    from .grpc_client import GrpcClient, Question

__all__ = ["Answer", "measure"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reply cost.

    Attributes:
        first_token_ms: From asking to the first text; None where none came.
        total_ms: From asking to the end.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: float | None
    total_ms: float

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token; None where it cannot be said."""
        if self.first_token_ms is None or self.completion_tokens < 2:
            return None
        return (self.completion_tokens - 1) / max(self.total_ms - self.first_token_ms, 1e-3) * 1e3

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form; what is unknown is left out."""
        timings = {"first_token_ms": self.first_token_ms, "total_ms": self.total_ms}
        fields = {
            "type": "finished",
            "finish_reason": self.finish_reason,
            "usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens},
            "timings": {name: round(ms, 1) for name, ms in timings.items() if ms is not None},
        }
        speed = self.tokens_per_s
        return fields if speed is None else fields | {"tokens_per_s": round(speed, 1)}

    def __str__(self) -> str:
        parts = [] if self.finish_reason == "stop" else [self.finish_reason]
        if self.first_token_ms is not None:
            parts.append(f"first token {self.first_token_ms:.0f} ms")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.0f} tokens/s")
        parts.append(f"{self.prompt_tokens} tokens in, {self.completion_tokens} out")
        return " | ".join([*parts, f"{self.total_ms:.0f} ms"])


async def measure(
    client: GrpcClient, question: Question, clock: Callable[[], float], on_text: Callable[[str], None]
) -> Answer:
    """Ask a question; ``on_text`` gets the reply's text as it comes.

    Raises:
        VoiceLLMError: The server is not there, refuses, or fails.
    """
    asked_s, first_s = clock(), None
    async for part in client.reply(question):
        if isinstance(part, str):
            first_s = clock() if first_s is None else first_s
            on_text(part)
            continue
        first_ms = None if first_s is None else (first_s - asked_s) * 1e3
        total_ms = (clock() - asked_s) * 1e3
        return Answer(part.finish_reason, part.prompt_tokens, part.completion_tokens, first_ms, total_ms)
    raise EngineError("the server ended the reply without saying why")
