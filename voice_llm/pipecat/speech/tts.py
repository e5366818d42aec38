"""LocalPiperTTS: text to speech on a Piper voice that all calls share.

Piper is GPL-3.0, which this package's AGPL-3.0 is compatible with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from pipecat.frames.frames import Frame, TTSAudioRawFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.utils.tracing.service_decorators import traced_tts

from .piper import SharedPiper
from .workers import Priority

__all__ = ["LocalPiperTTS", "LocalPiperTTSSettings"]


@dataclass
class LocalPiperTTSSettings(TTSSettings):
    """Settings of LocalPiperTTS; the voice is the loaded one."""


class LocalPiperTTS(TTSService):
    """Speaks clauses and sentences as they come; an interruption drops what is being synthesised.

    Args:
        piper: The loaded voice, shared by all calls.
        settings: Pipecat's settings; changes of the voice need another ``SharedPiper``.
        **kwargs: For ``TTSService``; ``sample_rate`` is the pipeline's by default.
    """

    Settings = LocalPiperTTSSettings
    _settings: LocalPiperTTSSettings

    def __init__(self, *, piper: SharedPiper, settings: LocalPiperTTSSettings | None = None, **kwargs: Any) -> None:
        defaults = LocalPiperTTSSettings(model=None, voice=piper.name, language=None)
        if settings is not None:
            defaults.apply_update(settings)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=defaults, **kwargs)
        self._piper = piper
        self._begun_context_id: str | None = None

    def can_generate_metrics(self) -> bool:
        """Return True: TTFB, processing time and characters are reported."""
        return True

    @traced_tts
    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Yield the audio of ``text``, a sentence at a time."""
        # The caller waits for the first chunk of a reply; the next ones have until that is played.
        priority = Priority.LIKELY if context_id == self._begun_context_id else Priority.AWAITED
        self._begun_context_id = context_id
        await self.start_tts_usage_metrics(text)
        sentences = self._piper.synthesize(text, self.sample_rate)
        try:
            while (pcm := await asyncio.wrap_future(self._piper.submit(sentences, priority))) is not None:
                await self.stop_ttfb_metrics()
                yield TTSAudioRawFrame(pcm, self.sample_rate, 1, context_id=context_id)
        except Exception as e:
            await self.push_error(f"speech could not be synthesised: {e}", exception=e)
        finally:
            await self.stop_ttfb_metrics()

    async def _update_settings(self, delta: TTSSettings) -> dict[str, Any]:  # type: ignore[override]  # as in TTSService
        changed = await super()._update_settings(delta)
        if changed:
            self._warn_unhandled_updated_settings(changed)
        return changed
