"""Call: one phone call's place in the engine, as its client sees it."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ..backend import Tokenizer
from ..config import SamplingParams, StructuralTags
from ..config.language import check_language
from ..engine import Failed, IsolationKey, LiveCall, Request, RequestKind, Speech, TurnWork
from ..errors import EngineDeadError, EngineError, InvalidRequestError, VoiceLLMError, WrongStateError
from ..events import Finished, Prefilled, Timings, Usage
from ..prompt import Message, Reply, Tool, ToolChoice, ToolFormat, parse_messages, parse_tool_choice, parse_tools
from ..text import TextPipeline, ToolCallParser
from .stream import ReplyStream
from .submission import Submission

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Call", "Messages", "Opening", "Tools"]

logger = logging.getLogger(__name__)

Messages = Sequence[Message | Mapping[str, Any]]
Tools = Sequence[Tool | Mapping[str, Any]]

# How many of a call's latest replies are kept as they were sampled, to be spliced back into its history.
_REMEMBERED_REPLIES: Final = 64


class Call:
    """One phone call's place in the engine.

    Its client owns the history and sends it whole; only what is new is computed.
    """

    def __init__(self, engine: Engine, live: LiveCall, language: str) -> None:
        self._engine = engine
        self._live = live
        self._language = language
        self._turns: deque[TurnWork] = deque(maxlen=_REMEMBERED_REPLIES)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Call {self.call_id} [{'closed' if self._closed else 'open'} | tenant: {self.tenant}]>"

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
        return self._live.call_id

    @property
    def tenant(self) -> str:
        """Whose call it is."""
        return self._live.key.tenant or ""

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
        """Bring what is known of the next prompt into the KV cache, in whatever room live turns leave.

        Args:
            messages: The history so far; an empty last user message prefills the next turn's header.
            rag_context: The call's retrieved text, the last block of its system message.
            tools: What the turn to come may ask for.
            open_ended: Leave the last message open, so that more of it can follow. Otherwise the whole prompt is
                computed, up to the header of the reply: a turn with these very messages then starts at once, and one
                whose last message has grown recomputes those few tokens.
            arrival_s: When the reason for it reached our edge, on ``Engine.clock``; now by default.

        Returns:
            What was computed and what was cached; ``complete`` is False where a newer turn or prefill took its place.

        Raises:
            InvalidRequestError: Messages or tools cannot be used.
            ContextTooLongError: They do not fit.
            WrongStateError: The call is closed.
            CallBusyError: A turn is running; a prefill would have to wait for it.
            EngineDeadError: The engine has died.
        """
        done: asyncio.Future[Prefilled] = asyncio.get_running_loop().create_future()

        def sink(event: object) -> None:
            if done.done():
                return
            if isinstance(event, Failed):
                done.set_exception(event.error)
            elif isinstance(event, Prefilled):
                done.set_result(event)
            elif isinstance(event, Finished):
                done.set_result(Prefilled(event.usage, event.timings.total_ms or 0.0, complete=False))

        arrival = self._engine.clock() if arrival_s is None else arrival_s
        submission = self._submission()
        preparing = self._prepare(
            lambda: self._prefill_request(messages, rag_context, tools, arrival, open_ended=open_ended),
            submission,
            sink,
        )
        try:
            await preparing
            return await done
        except asyncio.CancelledError:
            submission.cancel()
            done.cancel()
            raise
        except Exception as e:
            raise _as_ours(e) from e

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
        """Answer the last message. The turn starts at once; what goes wrong later is raised while iterating.

        Args:
            messages: The whole history; what it shares with the call's cache is not computed again.
            params: How to draw the reply; the profile's sampling by default.
            rag_context: The call's retrieved text, the last block of its system message.
            tools: What the reply may ask for, as ``Tool`` or as OpenAI writes them.
            tool_choice: ``"auto"``: words, calls or both, as the model sees fit; ``"none"``: no calls; ``"required"``:
                at least one; a tool's name: one of that. Every call matches its tool's schema.
            language: Code of the reply's language; the call's by default.
            arrival_s: When the turn reached our edge, on ``Engine.clock``; now by default. Timings count from it.
            **overrides: Fields of ``SamplingParams`` to change.

        Returns:
            An asynchronous iterator of ``TextDelta``, ``SentenceChunk``, ``Thought``, then ``ToolCall`` where the model
            asks for tools, and, last, ``Finished``.

        Raises:
            InvalidRequestError: Messages, template, grammar, tools or parameters cannot be used, or the language is no
                code of BCP 47.
            ContextTooLongError: Prompt and reply do not fit.
            CallBusyError: A turn is running already.
            WrongStateError: The call is closed.
            EngineDeadError: The engine has died.
            AtCapacityError: A soft call's turn finds as many calls as may be.
        """
        settled = (params or self._engine.profile.sampling).replace(**overrides)
        spoken = self._language if language is None else check_language(language)
        arrival = self._engine.clock() if arrival_s is None else arrival_s
        submission = self._submission()
        stream = ReplyStream(submission.cancel, played=partial(self._played, submission), call=self)
        watcher = weakref.ref(stream)  # a strong one would keep an abandoned stream from being noticed

        def sink(event: Any) -> None:
            if isinstance(event, Failed):
                self._engine.observer.turn_failed(event.error.code)
            reader = watcher()
            if reader is not None:
                reader.push(event)

        def prepared(preparing: asyncio.Future[None]) -> None:
            if (error := preparing.exception()) is not None:
                sink(Failed(_as_ours(error)))

        preparing = self._prepare(
            lambda: self._turn_request(messages, settled, rag_context, tools, tool_choice, spoken, arrival),
            submission,
            sink,
        )
        preparing.add_done_callback(prepared)
        return stream

    async def close(self) -> None:
        """End the call and free what it holds; idempotent."""
        self.close_nowait()
        try:
            await self._engine._run(lambda: None)
        except EngineDeadError:
            return

    def close_nowait(self) -> None:
        """End the call without waiting: everything is free at the engine's next step."""
        if not self._closed:
            self._closed = True
            batcher, live = self._engine._batcher, self._live
            self._engine._post_nowait(lambda: batcher.close_call(live))

    def _played(self, submission: Submission, index: int, played_ms: float) -> None:
        request, now_s = submission.request, self._engine.clock()
        speech = request.work.speech if request is not None else None
        if speech is not None:
            self._engine._post_nowait(lambda: speech.played(index, played_ms, now_s))

    def _submission(self) -> Submission:
        engine = self._engine
        return Submission(engine._worker.submit, engine._cancel)

    def _prepare(
        self, make: Callable[[], Request], submission: Submission, sink: Callable[[Any], None]
    ) -> asyncio.Future[None]:
        """Make a request on the prompt thread and submit it there, so that requests keep their order."""
        self._engine._check_alive()
        if self._closed:
            raise WrongStateError(f"call {self.call_id!r} is closed")

        def make_and_submit() -> None:
            if (reason := submission.cancelled) is not None:
                # Given up while others were prepared: a long prompt would keep those behind it waiting for nothing.
                self._engine._on_loop(sink, Finished(reason, Usage(), Timings()))
                return
            request = make()
            with self._engine._listening(request, sink):
                submission.submit(request)

        try:
            return self._engine._loop.run_in_executor(self._engine._prompts, make_and_submit)
        except RuntimeError:
            raise EngineDeadError("the engine is closed") from None

    def _prefill_request(
        self, messages: Messages, rag_context: str | None, tools: Tools, arrival_s: float, *, open_ended: bool
    ) -> Request:
        reserve_tokens = self._engine.profile.sampling.max_tokens
        tokens = self._tokens(parse_messages(messages), rag_context, tools, reserve_tokens, open_ended=open_ended)
        return Request(self._live, RequestKind.PREFILL, tokens, arrival_s)

    def _turn_request(
        self,
        messages: Messages,
        params: SamplingParams,
        rag_context: str | None,
        tools: Tools,
        tool_choice: ToolChoice,
        language: str,
        arrival_s: float,
    ) -> Request:
        parsed = parse_messages(messages)
        if parsed[-1].role == "assistant":
            raise InvalidRequestError("the last message must be the caller's, not the assistant's", param="messages")
        tools = parse_tools(tools)
        allowed = parse_tool_choice(tool_choice, tools)
        tool_format = self._engine._formatter.tool_format
        tags = tool_format.tags(tools, allowed) if allowed.indexes else None
        _check_combination(params, tags)
        tokens = self._tokens(parsed, rag_context, tools, params.max_tokens, open_ended=False)
        text = TextPipeline(
            stop=params.stop,
            language=language,
            # What a grammar has shaped is for a program: a "*" in it is data, not markup.
            speech=params.grammar is None and params.json_schema is None,
            first_clause=params.first_chunk == "clause",
            # A call that is forced from the first token on is no part of a thought, even where the prompt opens one.
            inside_thought=not allowed.required and _opens_thought(tokens, self._engine.backend),
            tool_calls=_call_parser(tool_format, [tools[index].name for index in allowed.indexes]),
        )
        profile = self._engine.profile
        speech = None
        if params.pacing == "voice":
            target_s = profile.first_chunk_target_ms / 1e3
            speech = Speech(chars_per_s=profile.speaking_rate_of(language), target_s=target_s)
        turn = TurnWork(self._engine.backend.new_sampler(params, tags), text, params.max_tokens, speech)
        self._turns.append(turn)
        return Request(self._live, RequestKind.TURN, tokens, arrival_s, turn)

    def _tokens(
        self,
        messages: Sequence[Message],
        rag_context: str | None,
        tools: Tools,
        reserve_tokens: int,
        *,
        open_ended: bool,
    ) -> list[int]:
        formatter = self._engine._formatter
        prompt = formatter.format(
            messages,
            rag_context=rag_context,
            tools=tools,
            replies=[_as_reply(turn, formatter.tool_format) for turn in self._turns],
            context_tokens=self._engine.backend.info.context_per_call,
            reserve_tokens=reserve_tokens,
            open_ended=open_ended,
        )
        return list(prompt.tokens)


class Opening:
    """A call about to be opened: awaitable, and an asynchronous context manager that closes it."""

    def __init__(self, engine: Engine, call_id: str, tenant: str, *, language: str | None = None, **kind: bool) -> None:
        self._engine = engine
        self._call_id = call_id
        self._tenant = tenant
        self._language = engine.profile.language if language is None else language
        self._kind = kind
        self._call: Call | None = None

    def __await__(self) -> Generator[Any, None, Call]:
        return self._open().__await__()

    async def __aenter__(self) -> Call:
        self._call = await self._open()
        return self._call

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None:
            await self._call.close()

    async def _open(self) -> Call:
        engine, call_id, kind = self._engine, self._call_id, self._kind
        key = IsolationKey(engine.backend.info.model_id, engine.profile.name, self._tenant)
        live = await engine._run(
            lambda: engine._batcher.open_call(call_id, key, **kind),
            # Opened after its opener gave up: nobody else would ever close it.
            on_late=lambda late: engine._post_nowait(lambda: engine._batcher.close_call(late)),
        )
        return Call(engine, live, self._language)


def _opens_thought(prompt: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt ends with an opened ``<think>``, as some templates' generation prompts do."""
    names = {token: text for text, token in tokenizer.control_tokens.items() if "think" in text}
    end = "".join(names.get(t) or tokenizer.token_bytes(t).decode("utf-8", "replace") for t in prompt[-6:])
    return end.rstrip().endswith("<think>")


def _check_combination(params: SamplingParams, tags: StructuralTags | None) -> None:
    name = "grammar" if params.grammar is not None else "json_schema" if params.json_schema is not None else None
    if tags is not None and name is not None:
        raise InvalidRequestError(f"{name} and tools that may be called exclude each other", param=name)


def _call_parser(tool_format: ToolFormat, names: Sequence[str]) -> ToolCallParser | None:
    if not names:
        return None
    return ToolCallParser(names, opening=tool_format.call_opening, closing=tool_format.call_closing)


def _as_reply(turn: TurnWork, tool_format: ToolFormat) -> Reply:
    """Snapshot a turn, finished or not, as what the model said, its calls as the history has them."""
    complete = turn.complete  # read first: a turn that ends meanwhile must not pass as complete with a token missing
    visible_chars = tuple(turn.visible_chars)
    tokens = tuple(turn.generated[: len(visible_chars)])
    calls = [piece.text for call in turn.calls for piece in tool_format.call(call.name, call.arguments)]
    return Reply(tokens=tokens, visible_chars=visible_chars, text="".join([*turn.emitted, *calls]), complete=complete)


def _as_ours(error: BaseException | None) -> VoiceLLMError:
    if isinstance(error, VoiceLLMError):
        return error
    logger.error("a prompt could not be prepared", exc_info=error)
    return EngineError(f"the prompt could not be prepared: {type(error).__name__}")
