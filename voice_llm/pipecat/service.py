"""VoiceLLMService: an engine, of this process or another, as a Pipecat language-model service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    FunctionCallFromLLM,
    InterruptionFrame,
    LLMContextAssistantTurnFrame,
    LLMContextFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMServiceMetadataFrame,
    LLMThoughtEndFrame,
    LLMThoughtStartFrame,
    LLMThoughtTextFrame,
    StartFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.tracing.service_decorators import traced_llm
from pipecat.utils.types import assert_given

from ..errors import VoiceLLMError
from ..events import FinishReason, SentenceChunk, TextDelta, Thought, ToolCall, Usage
from ..remote.face import EngineFace
from ..runtime import ReplyStream
from .adapter import VoiceLLMAdapter, VoiceLLMInvocationParams
from .conversation import Conversation
from .failures import category_of, is_permanent
from .place import Place
from .prefiller import Prefiller, open_turn
from .settings import VoiceLLMSettings, sampling_of, settings_of
from .speculation import Speculation, SpeculationCounters
from .turns import eager_turn_strategies

__all__ = ["VoiceLLMService"]


class VoiceLLMService(LLMService[VoiceLLMAdapter]):
    """Answers the turns of one call; takes the place of any other LLM service of Pipecat.

    One engine serves all services of the process; each service is one call with a sequence of its own in the KV cache,
    from ``setup`` to ``cleanup``. The cache follows the context: what was said stays in it, what was not spoken is cut
    off, and what is already known of the next turn is computed while nobody waits.

    Args:
        engine: The engine, an ``Engine`` or a ``RemoteEngine``; it is not closed by the service.
        settings: What differs from the profile. ``system_instruction`` comes after the profile's system prompt.
        chunks: Push speakable clauses and sentences, each as one ``LLMTextFrame``, for ``PassthroughAggregator``;
            otherwise text as it is generated, which a TTS splits itself.
        tenant: Whose call it is; no KV is ever shared between tenants.
        call_id: Name of the call in the engine; a random one by default.
        early_prefill: Compute what is known of the next prompt after each reply and when the caller begins to speak.
        eager_turns: Recommend turn strategies that begin the reply at the first finalized transcript of a pause.
        **kwargs: For ``LLMService``.
    """

    Settings = VoiceLLMSettings
    _settings: VoiceLLMSettings
    adapter_class = VoiceLLMAdapter
    supports_response_schema = True

    def __init__(
        self,
        *,
        engine: EngineFace,
        settings: VoiceLLMSettings | None = None,
        chunks: bool = False,
        tenant: str = "default",
        call_id: str | None = None,
        early_prefill: bool = True,
        eager_turns: bool = True,
        **kwargs: Any,
    ) -> None:
        defaults = settings_of(engine.profile)
        if settings is not None:
            defaults.apply_update(settings)
        super().__init__(settings=defaults, **kwargs)
        self._engine = engine
        self._chunks = chunks
        self._tenant = tenant
        self._place = Place(engine, tenant=tenant, call_id=call_id)
        self._early_prefill = early_prefill
        self._eager_turns = eager_turns
        self._opening_error: VoiceLLMError | None = None
        self._conversation = Conversation()
        self._prefiller = Prefiller(
            self._conversation,
            params_of=self._invocation_params,
            ready_call=self._place.take,
            rag_context=lambda: assert_given(self._settings.rag_context),
            create_task=lambda work: self._in_background(work, "prefill"),
        )
        self._answering = False
        self._said_anything = False
        self._spoken_known = True  # whether the context holds what of the last reply was spoken
        self._strategies: UserTurnStrategies | None = None
        self._speculation: Speculation | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._problems: set[str] = set()
        self.speculation = SpeculationCounters()
        """What became of eager turns."""

    def can_generate_metrics(self) -> bool:
        """Return True: TTFB, processing time and token usage are reported."""
        return True

    def service_metadata_frame(self) -> LLMServiceMetadataFrame:
        """Return the frame that recommends eager turns to the user aggregator, unless they are switched off."""
        frame = super().service_metadata_frame()
        frame.user_turn_strategies = self._strategies
        return frame

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as in FrameProcessor
        """Take a place in the engine; where there is none, every turn tries again."""
        await super().setup(setup)
        if self._eager_turns:
            # Loads the turn detector, which would hold up the calls of this event loop.
            self._strategies = await asyncio.to_thread(eager_turn_strategies)
        try:
            await self._place.take()
        except VoiceLLMError as e:
            self._opening_error = e

    async def start(self, frame: StartFrame) -> None:
        """Report why the call could not be opened, or compute its opening prompt."""
        await super().start(frame)
        if self._opening_error is not None:
            await self._report(self._opening_error)
        self._prefill()

    async def cleanup(self) -> None:
        """Give the place in the engine back; once more is harmless."""
        self._place.give_back()
        await super().cleanup()
        for task in list(self._background):
            await self.cancel_task(task)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer contexts; everything else goes on."""
        self._settle_speculation(frame)
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            self._conversation.follow(frame)
            if self._speculation_gate.is_speculating:
                self._speculation = Speculation(self.speculation)
            await self._answer(frame.context)
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, LLMContextUserTurnFrame):
            self._conversation.add(frame)
        elif isinstance(frame, LLMContextAssistantTurnFrame):
            self._conversation.add(frame)
            self._spoken_known = True
            self._prefill()
        elif isinstance(frame, (EagerEndOfTurnCancelFrame, InterruptionFrame)):
            self._spoken_known = True  # nothing was, or it is about to be committed
        elif isinstance(frame, VADUserStartedSpeakingFrame):
            self._prefill()

    def prefill_user_text(self, text: str) -> None:
        """Compute what is known of the caller's turn, as far as it was transcribed; returns at once.

        Args:
            text: The whole turn so far, not only what is new.
        """
        if text.strip():
            self._prefill(text)

    def _prefill(self, user_text: str = "") -> None:
        # Until the context holds what was spoken of the last reply, a prompt would cut the cache too far.
        if self._early_prefill and self._spoken_known and not self._answering and not self._place.given_back:
            self._prefiller.show(user_text)

    async def warm_up(self) -> None:
        """Compute the opening prompt once, so that every call of the tenant with these settings starts from it.

        For process start; works without a pipeline, on a service that no call will use.

        Raises:
            VoiceLLMError: The engine is closed or full, or the prompt does not fit.
        """
        params = await self._invocation_params(LLMContext())
        async with self._engine.open_call(tenant=self._tenant) as call:
            await call.prefill(open_turn(params), rag_context=assert_given(self._settings.rag_context))

    async def run_inference(
        self,
        context: LLMContext,
        max_tokens: int | None = None,
        system_instruction: str | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> str | None:
        """Answer a context beside the call, on a sequence of its own; works before ``setup`` too.

        Args:
            context: The conversation.
            max_tokens: Longest reply; at most half of what a call's context holds.
            system_instruction: The whole system message; by default the one of the call.
            response_schema: JSON schema that the reply is forced to match.

        Raises:
            VoiceLLMError: The engine is closed or full, or the context cannot be used.
        """
        limit = self._engine.profile.engine.context_per_call // 2
        params = sampling_of(self._settings, self._engine.profile).replace(
            max_tokens=min(max_tokens, limit) if max_tokens else None,
            json_schema=self._check_response_schema(response_schema),
        )
        if system_instruction:
            request = await self._adapter.get_llm_invocation_params(context, system_instruction=system_instruction)
        else:
            request = await self._invocation_params(context)
        async with self._engine.open_call(tenant=self._tenant, one_shot=True) as call:
            rag_context = None if system_instruction else assert_given(self._settings.rag_context)
            events = call.generate(request["messages"], params, rag_context=rag_context)
            text = "".join([event.text async for event in events if isinstance(event, TextDelta)])
        return text.strip() or None

    async def _update_settings(self, delta: LLMSettings) -> dict[str, Any]:  # type: ignore[override]  # as in LLMService
        changed = await super()._update_settings(delta)
        if "model" in changed:
            self._settings.model = changed.pop("model")
            self._sync_model_name_to_metrics()
            await self.push_error("the model is the engine's: it cannot be changed", category=ErrorCategory.APPLICATION)
        return changed

    async def _answer(self, context: LLMContext) -> None:
        self._prefiller.stop()
        self._answering = True
        try:
            await self.push_frame(LLMFullResponseStartFrame())
            await self.start_processing_metrics()
            await self._process_context(context)
        except Exception as e:
            await self._report(e)
        finally:
            self._answering = False
            await self.stop_processing_metrics()
            await self.push_frame(LLMFullResponseEndFrame())

    @traced_llm
    async def _process_context(self, context: LLMContext) -> None:
        speculation = self._speculation
        self._said_anything = False
        await self.start_ttfb_metrics()
        self._log_llm_response(context)
        params = await self._invocation_params(context)
        await self._report_problems(params["problems"])
        call = await self._place.take()
        stream = call.generate(
            params["messages"],
            sampling_of(self._settings, self._engine.profile),
            rag_context=assert_given(self._settings.rag_context),
            tools=params["tools"],
            tool_choice=params["tool_choice"],
            language=assert_given(self._settings.language),
            # Pipecat's own aggregator waits for whole sentences.
            first_chunk=None if self._chunks else "sentence",
        )
        try:
            tool_calls = [tool_call async for tool_call in self._speak(stream)]
        finally:
            # An interruption must not wait for the engine: what is left of the reply is read behind its back.
            stream.cancel(FinishReason.INTERRUPTED)
            accounting = self._account(stream, speculation)
            if stream.finished is None:
                self._in_background(accounting, "account")
            else:
                await accounting
        if not (self._said_anything or tool_calls):
            await self.push_error(
                "the reply had neither words nor a whole tool call; a larger max_tokens may help",
                category=ErrorCategory.APPLICATION,
            )
        await self._call_tools(context, tool_calls)

    async def _speak(self, stream: ReplyStream) -> AsyncIterator[ToolCall]:
        """Push the reply's text as it comes, and yield its tool calls."""
        thinking = False
        try:
            async for event in stream:
                await self.stop_ttfb_metrics()
                if thinking is not isinstance(event, Thought):
                    thinking = not thinking
                    await self.push_frame(LLMThoughtStartFrame() if thinking else LLMThoughtEndFrame())
                if isinstance(event, Thought):
                    await self.push_frame(LLMThoughtTextFrame(text=event.text))
                elif isinstance(event, SentenceChunk if self._chunks else TextDelta):
                    self._said_anything = True
                    self._spoken_known = False
                    await self._push_llm_text(event.text)
                elif isinstance(event, ToolCall):
                    await self.stop_ttfat_metrics()
                    yield event
        finally:
            if thinking:
                await self.push_frame(LLMThoughtEndFrame())

    async def _call_tools(self, context: LLMContext, tool_calls: list[ToolCall]) -> None:
        if tool_calls and self._speculation_gate.is_speculating and self._speculation is not None:
            self._speculation.withdraw()
            self._spoken_known = True
        await self.run_function_calls(
            [
                FunctionCallFromLLM(
                    function_name=tool_call.name,
                    tool_call_id=tool_call.tool_call_id,
                    arguments=tool_call.arguments,
                    context=context,
                )
                for tool_call in tool_calls
            ]
        )

    async def _account(self, stream: ReplyStream, speculation: Speculation | None) -> None:
        """Report what a reply took, as soon as the engine has ended it."""
        with suppress(VoiceLLMError):
            async for _ in stream:
                pass
        if stream.finished is not None:
            if speculation is not None:
                speculation.finish(stream.finished.usage.completion_tokens)
            await self.start_llm_usage_metrics(_token_usage(stream.finished.usage))

    async def _invocation_params(self, context: LLMContext) -> VoiceLLMInvocationParams:
        params = await self._adapter.get_llm_invocation_params(
            context, system_instruction=assert_given(self._settings.system_instruction)
        )
        if prompt := self._engine.profile.system_prompt:
            messages = params["messages"]
            if messages and messages[0]["role"] == "system":
                messages[0] = {**messages[0], "content": f"{prompt}\n\n{messages[0]['content']}"}
            else:
                messages.insert(0, {"role": "system", "content": prompt})
        return params

    def _settle_speculation(self, frame: Frame) -> None:
        """Note what a frame means for the reply that was begun early, before the gate acts on it."""
        if self._speculation is None:
            return
        if isinstance(frame, UserStoppedSpeakingFrame):
            self._speculation.confirm()
        elif isinstance(frame, (EagerEndOfTurnCancelFrame, InterruptionFrame, LLMContextFrame)):
            self._speculation.withdraw()
        else:
            return
        self._speculation = None

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.create_task(work, f"{self}::{name}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _report_problems(self, problems: Sequence[str]) -> None:
        """Tell once of each part of the context that had to be left out; the message stays, and so would the error."""
        for problem in problems:
            if problem not in self._problems:
                self._problems.add(problem)
                await self.push_error(problem, category=ErrorCategory.APPLICATION)

    async def _report(self, error: Exception) -> None:
        await self.push_error(
            error_msg=str(error),
            exception=error,
            category=category_of(error),
            force_treat_as_permanent=is_permanent(error),
        )


def _token_usage(usage: Usage) -> LLMTokenUsage:
    return LLMTokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
    )
