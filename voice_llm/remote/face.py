"""The faces that an engine here and one elsewhere have in common, for those who take either."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Protocol

from ..config import Profile, SamplingParams
from ..events import Prefilled
from ..prompt import ToolChoice
from ..runtime import ReplyStream
from ..runtime.call import Messages, Tools

__all__ = ["CallFace", "EngineFace", "OpeningFace"]


class CallFace(Protocol):
    """What ``Call`` and ``RemoteCall`` can do; see ``Call``."""

    @property
    def call_id(self) -> str:
        """The transport's name for the call."""

    @property
    def tenant(self) -> str:
        """Whose call it is."""

    @property
    def language(self) -> str:
        """Code of the language that its replies are in, unless a turn says otherwise."""

    async def prefill(
        self,
        messages: Messages,
        *,
        rag_context: str | None = None,
        tools: Tools = (),
        open_ended: bool = True,
        arrival_s: float | None = None,
    ) -> Prefilled:
        """Bring what is known of the next prompt into the KV cache."""

    def generate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        rag_context: str | None = None,
        tools: Tools = (),
        tool_choice: ToolChoice = "auto",
        language: str | None = None,
        arrival_s: float | None = None,
        **overrides: Any,
    ) -> ReplyStream:
        """Answer the last message."""

    async def close(self) -> None:
        """End the call; idempotent."""

    def close_nowait(self) -> None:
        """End the call without waiting."""


class OpeningFace(Protocol):
    """A call about to be opened: awaitable, and an asynchronous context manager that closes it."""

    def __await__(self) -> Generator[Any, None, CallFace]:
        """Open the call."""

    async def __aenter__(self) -> CallFace:
        """Open the call."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


class EngineFace(Protocol):
    """What ``Engine`` and ``RemoteEngine`` can do; see ``Engine``."""

    @property
    def profile(self) -> Profile:
        """The profile that it was loaded with."""

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds; arrival times are given on this clock."""

    def open_call(
        self,
        *,
        call_id: str | None = None,
        tenant: str = "default",
        language: str | None = None,
        one_shot: bool = False,
    ) -> OpeningFace:
        """Open a call."""

    async def close(self) -> None:
        """Let go of the engine; idempotent."""
