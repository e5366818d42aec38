"""A caller with sound: places a phone call to a bot's telephony WebSocket and measures it at the caller's edge.

Needs ``pip install "pipecat-voice-llm[simulator]"`` where a voice, a connection or a picture is asked for.
"""

from .audio import SAMPLE_RATE, Samples
from .bot_process import CALL_LOG_VARIABLE, BotProcess
from .call_log import LogEvent, join_call_log, read_call_log
from .conversation import Conversation, Manners, Utterance
from .errors import (
    BotHungUpError,
    BotProcessError,
    BotProtocolError,
    BotUnreachableError,
    CallLogError,
    CallTooLongError,
    NoReplyError,
    PhoneCallError,
)
from .phone_caller import PhoneCaller
from .piper_voice import PiperCallerVoice
from .playback import Playback
from .recording import Recording
from .report import latency_table, transcript_table
from .results import PhoneCall, PhoneTurn, TurnStages
from .script import Line, SpokenLine, Voice, speak_lines
from .timeline import draw_timeline
from .twilio import BotClear, BotMark, BotMedia, TwilioStream

__all__ = [
    "CALL_LOG_VARIABLE",
    "SAMPLE_RATE",
    "BotClear",
    "BotHungUpError",
    "BotMark",
    "BotMedia",
    "BotProcess",
    "BotProcessError",
    "BotProtocolError",
    "BotUnreachableError",
    "CallLogError",
    "CallTooLongError",
    "Conversation",
    "Line",
    "LogEvent",
    "Manners",
    "NoReplyError",
    "PhoneCall",
    "PhoneCallError",
    "PhoneCaller",
    "PhoneTurn",
    "PiperCallerVoice",
    "Playback",
    "Recording",
    "Samples",
    "SpokenLine",
    "TurnStages",
    "TwilioStream",
    "Utterance",
    "Voice",
    "draw_timeline",
    "join_call_log",
    "latency_table",
    "read_call_log",
    "speak_lines",
    "transcript_table",
]
