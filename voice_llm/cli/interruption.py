"""Interruption: what came of speaking over a reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Interruption"]

_ANSWERED: Final = ("stop", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """What came of speaking over a reply.

    Attributes:
        heard_chunks: Chunks of the reply before the interruption.
        late_chunks: Chunks that came after it; none should.
        finish_reason: How the turn ended.
        stopped_ms: From the interruption to the turn's end; None where the reply ended before.
        next_finish_reason: How the next turn ended.
        next_first_chunk_ms: From its question to its first chunk; None where none came.
    """

    heard_chunks: int
    finish_reason: str
    late_chunks: int = 0
    stopped_ms: float | None = None
    next_finish_reason: str = ""
    next_first_chunk_ms: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the reply stopped as interrupted and the next turn was answered."""
        answered = self.next_finish_reason in _ANSWERED and self.next_first_chunk_ms is not None
        return self.finish_reason == "interrupted" and answered

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form; what is unknown is left out."""
        timings = {"stopped_ms": self.stopped_ms, "next_first_chunk_ms": self.next_first_chunk_ms}
        return {
            "passed": self.passed,
            "finish_reason": self.finish_reason,
            "heard_chunks": self.heard_chunks,
            "late_chunks": self.late_chunks,
            "next_finish_reason": self.next_finish_reason,
            **{name: round(ms, 1) for name, ms in timings.items() if ms is not None},
        }

    def __str__(self) -> str:
        if self.stopped_ms is None:
            return f"the reply ended ({self.finish_reason}) before it could be interrupted"
        after = f"after {self.heard_chunks} chunk" + ("s" if self.heard_chunks != 1 else "")
        stop = f"{self.finish_reason} {after}: ended in {self.stopped_ms:.0f} ms, {self.late_chunks} late"
        if self.next_first_chunk_ms is None:
            return f"{stop} | the next turn was not answered ({self.next_finish_reason})"
        return f"{stop} | next turn: {self.next_finish_reason}, first chunk {self.next_first_chunk_ms:.0f} ms"
