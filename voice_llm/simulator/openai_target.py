"""OpenAITarget: calls over a server's ``/chat/completions``, streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import AtCapacityError, ConfigError, InvalidRequestError
from ..events import ToolCall, Usage
from ..prompt import Message, arrange, parse_messages
from .chat_stream import CallPieces, parse_line, shown
from .script import CallScript
from .targets import ChatMessages, TargetCall, TargetError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["OpenAITarget"]

_OWN_FIELDS: Final = frozenset({"model", "messages", "max_tokens", "stream", "stream_options"})


class OpenAITarget:
    """A server that speaks OpenAI's chat completions. An asynchronous context manager, as it keeps connections open.

    The prompt is laid out as the engine does it: the call's RAG context ends the system message.

    Args:
        base_url: Up to and with ``/v1``.
        model: The model's name there.
        headers: Sent with each request, such as ``Authorization``.
        options: Further fields of each request's body, such as ``temperature``.
        call_ids: Send the call's id as ``x-call-id`` and end the call with ``DELETE /calls/{id}``, as voice_llm's own
            server takes it.
        timeout_s: Longest silence of the server.

    Raises:
        ConfigError: aiohttp is not installed.
        InvalidRequestError: ``options`` has a field that the target sets itself.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        call_ids: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        _import_aiohttp()
        for name in sorted(_OWN_FIELDS & (options or {}).keys()):
            raise InvalidRequestError(f"{name} is the target's own to set", param=name)
        self.base_url = base_url.rstrip("/")
        self.call_ids = call_ids
        self.body = {**(options or {}), "model": model, "stream": True, "stream_options": {"include_usage": True}}
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """See ``Target``; nothing is sent before the first turn."""
        return _OpenAICall(self, self._connect(), script, call_id)

    async def close(self) -> None:
        """Close the connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connect(self) -> aiohttp.ClientSession:
        if self._session is None:
            aiohttp = _import_aiohttp()
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                # A queue in the client would hide how long the server takes.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s),
            )
        return self._session


class _OpenAICall:
    runs_tools = False
    timings = None

    def __init__(self, target: OpenAITarget, session: aiohttp.ClientSession, script: CallScript, call_id: str) -> None:
        self._target = target
        self._session = session
        self._script = script
        self._call_id = call_id
        self._headers = {"x-call-id": call_id} if target.call_ids else {}
        self.usage: Usage | None = None
        self.tool_calls: tuple[ToolCall, ...] = ()

    async def prefill(self, messages: ChatMessages) -> None:
        """Do nothing: chat completions have no word for it."""

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        self.usage, self.tool_calls = None, ()
        pieces = CallPieces()
        laid = arrange(parse_messages(messages), self._script.rag_context)
        body = {**self._target.body, "messages": [_as_openai(message) for message in laid]}
        if self._script.tools:
            body["tools"] = list(self._script.tools)
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        url = f"{self._target.base_url}/chat/completions"
        finished = False
        with _typed_errors():
            async with self._session.post(url, json=body, headers=self._headers) as response:
                await _check_status(response)
                if response.content_type != "text/event-stream":
                    raise TargetError(f"the server streams no events but answers with {response.content_type}")
                # Read to the very end, past the end mark: only then can the connection be used again.
                async for line in response.content:
                    chunk = parse_line(line)
                    if chunk is None:
                        continue
                    self.usage = chunk.token_counts or self.usage
                    finished = finished or chunk.finished
                    pieces.add(chunk.call_pieces)
                    if chunk.text:
                        yield chunk.text
        if not finished:
            raise TargetError("the reply broke off")
        self.tool_calls = pieces.calls()

    async def interrupt(self, spoken: str) -> None:
        """Do nothing: the next request brings the whole history, and the connection is closed."""

    async def close(self) -> None:
        if not self._target.call_ids:
            return
        with _typed_errors():
            async with self._session.delete(f"{self._target.base_url}/calls/{self._call_id}") as response:
                if response.status != 404:  # the server may have dropped the call already
                    await _check_status(response)


def _as_openai(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        written["tool_calls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    reason = f"HTTP {response.status}: {shown(await response.read())}"
    if response.status == 429:
        seconds = response.headers.get("Retry-After", "")
        raise AtCapacityError(reason, retry_after_s=float(seconds) if seconds.isdecimal() else 1.0)
    raise TargetError(reason, status=response.status)


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Turn what the HTTP client raises into our own errors."""
    aiohttp = _import_aiohttp()
    try:
        yield
    except TimeoutError as error:
        raise TargetError("the server was silent for too long") from error
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
        raise TargetError(f"{type(error).__name__}: {error}") from error


def _import_aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError:
        raise ConfigError('calling a server needs aiohttp: pip install "pipecat-voice-llm[simulator]"') from None
    return aiohttp
