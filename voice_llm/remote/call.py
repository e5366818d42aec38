"""RemoteCall: one phone call's place in an engine elsewhere."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from .._proto import engine_pb2 as pb
from ..config import SamplingParams
from ..config.language import check_language
from ..engine import Failed
from ..errors import TooLargeError, VoiceLLMError
from ..events import Prefilled
from ..prompt import ToolChoice
from ..runtime import ReplyStream
from ..runtime.call import Messages, Tools
from .codec import params_text, prompt_of, tool_choice_text
from .link import CallLink

if TYPE_CHECKING:
    from .engine import RemoteEngine

__all__ = ["RemoteCall"]

_MAX_AGE_S: Final = 60.0


class RemoteCall:
    """One phone call's place in an engine elsewhere; used as ``Call`` is, and failing as it does.

    Timings are the server's, from the arrival of a request there; what a request had waited here when it was sent
    (``arrival_s``, up to a minute) is part of them, and the time on the network is not. Of that wait, the server lets
    the last second at most count for a request's place among those of others.
    """

    def __init__(self, engine: RemoteEngine, link: CallLink, *, call_id: str, tenant: str, language: str) -> None:
        self._engine = engine
        self._link = link
        self._call_id = call_id
        self._tenant = tenant
        self._language = language

    def __repr__(self) -> str:
        return f"<RemoteCall {self._call_id} [{self._engine.endpoint} | tenant: {self._tenant}]>"

    def __del__(self) -> None:
        # A call that nobody can close any more would hold its place for ever.
        self.close_nowait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def call_id(self) -> str:
        """The transport's name for the call."""
        return self._call_id

    @property
    def tenant(self) -> str:
        """Whose call it is, as the server sees it."""
        return self._tenant

    @property
    def language(self) -> str:
        """Code of the language that its replies are in, unless a turn says otherwise."""
        return self._language

    async def prefill(
        self,
        messages: Messages,
        *,
        rag_context: str | None = None,
        tools: Tools = (),
        open_ended: bool = True,
        arrival_s: float | None = None,
    ) -> Prefilled:
        """Bring what is known of the next prompt into the KV cache; as ``Call.prefill``.

        Raises:
            TooLargeError: The prompt is larger than the server takes.
            EngineDeadError: The server has gone away, or its engine has died; else as ``Call.prefill``.
        """
        self._link.check()
        prompt = prompt_of(messages, rag_context, tools)
        request_id = self._link.new_id()
        command = pb.CallCommand(
            prefill=pb.Prefill(
                request_id=request_id, prompt=prompt, open_ended=open_ended, age_s=self._age_s(arrival_s)
            )
        )
        self._check_size(command)
        done: asyncio.Future[Prefilled] = asyncio.get_running_loop().create_future()
        self._link.submit(request_id, command, partial(_settle, done))
        try:
            return await done
        except asyncio.CancelledError:
            self._link.cancel(request_id)
            self._link.forget(request_id)
            raise

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
        """Answer the last message; as ``Call.generate``.

        Raises:
            TooLargeError: The prompt is larger than the server takes (while iterating).
            EngineDeadError: The server has gone away, or its engine has died; else as ``Call.generate``.
        """
        settled = (params or self._engine.profile.sampling).replace(**overrides)
        spoken = "" if language is None else check_language(language)
        self._link.check()
        request_id = self._link.new_id()
        stream = ReplyStream(partial(self._link.cancel, request_id), call=self)
        watcher = weakref.ref(stream)  # a strong one would keep an abandoned stream from being noticed

        def sink(event: Any) -> None:
            reader = watcher()
            if reader is not None:
                reader.push(event)

        try:
            command = pb.CallCommand(
                generate=pb.Generate(
                    request_id=request_id,
                    prompt=prompt_of(messages, rag_context, tools),
                    params=params_text(settled),
                    tool_choice=tool_choice_text(tool_choice),
                    age_s=self._age_s(arrival_s),
                    language=spoken,
                )
            )
            self._check_size(command)
        except VoiceLLMError as e:
            stream.push(Failed(e))
        else:
            self._link.submit(request_id, command, sink)
        return stream

    async def close(self) -> None:
        """End the call and wait until the server has let go of it; idempotent."""
        self.close_nowait()
        await self._link.ended()

    def close_nowait(self) -> None:
        """End the call without waiting."""
        self._link.close_nowait()

    def _age_s(self, arrival_s: float | None) -> float:
        return 0.0 if arrival_s is None else min(max(0.0, self._engine.clock() - arrival_s), _MAX_AGE_S)

    def _check_size(self, command: pb.CallCommand) -> None:
        size_bytes, most = command.ByteSize(), self._engine.max_command_bytes
        if size_bytes > most:
            raise TooLargeError(f"the request has {size_bytes} bytes, more than the {most} that the server takes")


def _settle(done: asyncio.Future[Prefilled], event: object) -> None:
    if done.done():
        return
    if isinstance(event, Failed):
        done.set_exception(event.error)
    elif isinstance(event, Prefilled):
        done.set_result(event)
