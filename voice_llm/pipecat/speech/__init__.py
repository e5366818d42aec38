"""Speech on this machine: Whisper and Piper models that are loaded once and shared by all calls of the process.

::

    whisper, piper = await SharedWhisper.load(), await SharedPiper.load()     # once a process
    stt, tts = LocalWhisperSTT(whisper=whisper), LocalPiperTTS(piper=piper)   # once a call
"""

try:
    import faster_whisper  # noqa: F401
    import piper as _piper  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "voice_llm.pipecat.speech needs faster-whisper and piper-tts: pip install 'pipecat-ai[whisper,piper]'",
        name=error.name,
    ) from error

from .files import piper_voice, whisper_folder
from .piper import SharedPiper
from .stt import LocalWhisperSTT, LocalWhisperSTTSettings
from .tts import LocalPiperTTS, LocalPiperTTSSettings
from .whisper import SharedWhisper, Transcription

__all__ = [
    "LocalPiperTTS",
    "LocalPiperTTSSettings",
    "LocalWhisperSTT",
    "LocalWhisperSTTSettings",
    "SharedPiper",
    "SharedWhisper",
    "Transcription",
    "piper_voice",
    "whisper_folder",
]
