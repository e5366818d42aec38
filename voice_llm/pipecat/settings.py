"""VoiceLLMSettings: what of the service may change during a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pipecat.services.settings import LLMSettings
from pipecat.transcriptions.language import Language
from pipecat.utils.types import NOT_GIVEN, NotGiven, is_given

from ..config import Profile, SamplingParams

__all__ = ["VoiceLLMSettings", "sampling_of", "settings_of"]

_SAMPLING_FIELDS: Final = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)


@dataclass
class VoiceLLMSettings(LLMSettings):
    """Settings of ``VoiceLLMService``; each may change live by an ``LLMUpdateSettingsFrame``.

    Fields that are not given are the profile's. ``extra`` takes the other fields of ``SamplingParams``, and wins.

    Parameters:
        language: What the voice speaks, from the next reply on: where sentences end and how fast text is played.
            None is the profile's. To be said here, since a service does not see the settings of the TTS behind it.
        rag_context: Retrieved text that the replies may draw on, the last block of the system message.
        min_p: Drop tokens below this share of the likeliest one's probability.
        repetition_penalty: Divides the logits of tokens already in the reply.
        stop: Strings that end the reply.
    """

    language: Language | str | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    rag_context: str | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    min_p: float | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    repetition_penalty: float | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    stop: list[str] | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)


def settings_of(profile: Profile) -> VoiceLLMSettings:
    """Return the settings that a profile implies, every field given."""
    sampling = profile.sampling
    return VoiceLLMSettings(
        model=profile.name,
        system_instruction=None,
        language=None,
        rag_context=None,
        filter_incomplete_user_turns=False,
        user_turn_completion_config=None,
        use_provider_thinking_default=False,
        extra={},
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop=list(sampling.stop),
    )


def sampling_of(settings: VoiceLLMSettings, profile: Profile) -> SamplingParams:
    """Return how to draw a reply; what the settings leave open is the profile's.

    Raises:
        InvalidRequestError: A setting is out of range, or ``extra`` names an unknown one.
    """
    given: dict[str, Any] = {name: getattr(settings, name) for name in _SAMPLING_FIELDS}
    return profile.sampling.replace(**{k: v for k, v in given.items() if is_given(v)} | settings.extra)
