"""SessionCall: one call in the words of the call contract, whatever carries its events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

from ..errors import InvalidRequestError, VoiceLLMError
from ..events import Timings, ToolCall, Usage
from .script import CallScript
from .targets import ChatMessages, TargetError

__all__ = ["Event", "SessionCall", "Wire", "check_params"]

Event = Mapping[str, Any]
"""An event of the call contract in its JSON form; ``type`` names it."""

_HANG_UP_S: Final = 10.0
_TIMES: Final = ("queue_ms", "prefill_ms", "first_token_ms", "first_chunk_ms", "total_ms")
_BROKEN_OFF: Final = ("error", "cancelled", "interrupted")


class Wire(Protocol):
    """Carries the events of one call."""

    def send(self, event: Event) -> None:
        """Put an event on its way; those before it go first."""

    def events(self) -> AsyncIterator[Event]:
        """Yield what the server says, until the call is over.

        Raises:
            VoiceLLMError: The server, or the way to it, has failed.
        """

    async def close(self) -> None:
        """Drop the connection; idempotent."""


class SessionCall:
    """A ``TargetCall`` over a ``Wire``. Needs a running event loop.

    The call sends its system prompt and RAG context when it opens, so that they can be computed while the caller
    speaks; hints go out as ``partial`` events, and the server keeps the history. Nothing waits for ``ready`` but a
    turn, whose time counts it.

    Args:
        wire: The connection.
        script: Who calls.
        call_id: Its name.
        params: Fields of each turn's ``params``.
        on_turn_end: Called with the server's own timings of each turn.
        timeout_s: Longest silence of the server while it is waited for.
    """

    runs_tools = True

    def __init__(
        self,
        wire: Wire,
        script: CallScript,
        call_id: str,
        *,
        params: Mapping[str, Any],
        on_turn_end: Callable[[Timings], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._wire = wire
        self._script = script
        self._params = dict(params)
        self._on_turn_end = on_turn_end
        self._timeout_s = timeout_s
        self._incoming: asyncio.Queue[Event | VoiceLLMError] = asyncio.Queue()
        self._ready = asyncio.Event()
        self._turns = 0
        self._asked = False
        self._interrupted = False
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.tool_calls: tuple[ToolCall, ...] = ()
        wire.send(_start(script, call_id, self._params))
        self._reading = asyncio.create_task(self._read())

    async def prefill(self, messages: ChatMessages) -> None:
        """Tell the words of the turn so far. Before the call is ready, a server cannot take them: they are left out."""
        said = messages[-1]["content"]
        if said and self._ready.is_set() and not self._reading.done():
            self._wire.send({"type": "partial", "text": said})

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        """See ``TargetCall``."""
        self.usage, self.timings, self.tool_calls = None, None, ()
        self._asked = self._interrupted = False
        self._turns += 1
        turn_id = f"turn-{self._turns}"
        await self._wait_ready()
        self._wire.send(self._turn(turn_id, messages[-1], max_tokens))
        self._asked = True
        ended = False
        try:
            while not ended:
                event = await self._next()
                kind, own = event["type"], event.get("turn_id", "") == turn_id
                if kind == "error":
                    raise TargetError(f"the server failed: {event.get('code')}: {event.get('message')}")
                if own and kind == "chunk":
                    yield event.get("text", "")
                elif own and kind == "tool_call":
                    self._use_tool(event)
                elif own and kind == "turn_end":
                    ended = True
                    self._end_turn(event)
        finally:
            if not ended and not self._interrupted and not self._reading.done():
                self._wire.send({"type": "interrupt"})

    async def interrupt(self, spoken: str) -> None:
        """See ``TargetCall``; the server cuts its history even where the reply is complete already."""
        self._interrupted = True
        if self._asked and not self._reading.done():
            self._wire.send({"type": "interrupt", "spoken_text": spoken})

    async def close(self) -> None:
        """Hang up."""
        if not self._reading.done():
            self._wire.send({"type": "end", "reason": "hangup"})
        try:
            # Once the server has told that the call is over, its place is free for the next one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HANG_UP_S):
                    await asyncio.shield(self._reading)
        finally:
            self._reading.cancel()
            await self._wire.close()

    def _turn(self, turn_id: str, message: Mapping[str, Any], max_tokens: int | None) -> Event:
        params = self._params | ({} if max_tokens is None else {"max_tokens": max_tokens})
        event = {"type": "turn", "turn_id": turn_id, "text": message["content"], "params": params}
        return event | ({"rag_context": message["rag_context"]} if message.get("rag_context") else {})

    def _use_tool(self, event: Event) -> None:
        """Bring the result; the server goes on with the turn once it has all of them."""
        call = ToolCall(event["tool_call_id"], event["name"], dict(event.get("arguments", {})))
        self.tool_calls += (call,)
        result = self._script.tool_results.get(call.name)
        self._wire.send({"type": "tool_result", "tool_call_id": call.tool_call_id, "result": result})

    def _end_turn(self, event: Event) -> None:
        usage, timings = event.get("usage", {}), event.get("timings", {})
        self.usage = Usage(*(usage.get(name, 0) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")))
        self.timings = Timings(*(timings.get(name) for name in _TIMES))
        if self._on_turn_end is not None:
            self._on_turn_end(self.timings)
        if (reason := event.get("finish_reason")) in _BROKEN_OFF:
            raise TargetError(f"the reply was {reason}")

    async def _wait_ready(self) -> None:
        async with _patience(self._timeout_s):
            await self._ready.wait()

    async def _next(self) -> Event:
        async with _patience(self._timeout_s):
            event = await self._incoming.get()
        if isinstance(event, VoiceLLMError):
            raise event
        return event

    async def _read(self) -> None:
        failure: VoiceLLMError = TargetError("the server ended the call")
        try:
            async for event in self._wire.events():
                if event["type"] == "ready":
                    self._ready.set()
                else:
                    self._incoming.put_nowait(event)
        except VoiceLLMError as error:
            failure = error
        self._incoming.put_nowait(failure)
        self._ready.set()  # whoever waits for it hears of the failure


def check_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields for each turn's ``params``.

    Raises:
        InvalidRequestError: One is the target's own to set.
    """
    if "max_tokens" in params:
        raise InvalidRequestError("max_tokens is the target's own to set", param="max_tokens")
    return dict(params)


def _start(script: CallScript, call_id: str, params: Event) -> Event:
    fields = {
        "call_id": call_id,
        "system_prompt": script.system_prompt,
        "rag_context": script.rag_context or "",
        "language": script.language or "",
        "history": [{"role": m["role"], "content": m["content"]} for m in script.history],
        "tools": [_tool(tool) for tool in script.tools],
        "params": params,
    }
    return {"type": "start"} | {name: value for name, value in fields.items() if value}


def _tool(tool: Mapping[str, Any]) -> Event:
    function = tool["function"]
    return {name: function[name] for name in ("name", "description", "parameters") if function.get(name)}


@contextlib.asynccontextmanager
async def _patience(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise TargetError(f"the server was silent for {timeout_s:g} s") from None
