"""The Pipecat plugin: a language-model service on an engine in this process, and what makes it answer early.

::

    from voice_llm import Engine
    from voice_llm.pipecat import EarlyPrefill, PassthroughAggregator, VoiceLLMService

    engine = await Engine.load("smollm2_135m_demo")            # once a process
    llm = VoiceLLMService(engine=engine, chunks=True)          # once a call
    Pipeline([
        transport.input(), stt, EarlyPrefill(llm), context_aggregator.user(),
        llm, LLMTextProcessor(text_aggregator=PassthroughAggregator()), tts,
        transport.output(), context_aggregator.assistant(),
    ])
"""

try:
    import pipecat  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "voice_llm.pipecat needs Pipecat: pip install 'pipecat-voice-llm[pipecat]'", name=error.name
    ) from error

from .adapter import VoiceLLMAdapter, VoiceLLMInvocationParams
from .chunks import PassthroughAggregator
from .prefill import EarlyPrefill
from .service import VoiceLLMService
from .settings import VoiceLLMSettings
from .speculation import SpeculationCounters
from .turns import EagerTurnStopStrategy, eager_turn_strategies

__all__ = [
    "EagerTurnStopStrategy",
    "EarlyPrefill",
    "PassthroughAggregator",
    "SpeculationCounters",
    "VoiceLLMAdapter",
    "VoiceLLMInvocationParams",
    "VoiceLLMService",
    "VoiceLLMSettings",
    "eager_turn_strategies",
]
