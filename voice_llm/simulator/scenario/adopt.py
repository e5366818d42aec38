"""Pipecat's eval scenarios, as far as they fit: what differs is renamed, what cannot be checked here is noted."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Final

from ...config.explain import unknown
from ...errors import ConfigError

__all__ = ["adopt"]

# What a run of this simulator has no part for, and why.
_IGNORED: Final = {
    "judge": "a judge's verdicts (eval) are told as not judged",
    "user": "how the caller is heard is the target's to say: --target audio:URL speaks",
    "trigger_disconnect": "callers always hang up",
    "trigger_connect": "callers always dial",
}
_REPLIES: Final = ("response", "llm_response", "tts_response")
_ANCHORS: Final = {
    "llm_started": "llm_started",
    "bot_started_speaking": "bot_started_speaking",
    "response": "llm_started",
    "llm_response": "llm_started",
    "bot_stopped_speaking": None,
}
_OWN: Final = ("function_call", "bot_interrupted")


def adopt(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a scenario's mapping in this package's words, and what of it is not checked.

    Raises:
        ConfigError: It cannot be run here at all; ``param`` is the dotted way to the reason.
    """
    if "persona" in data:
        raise ConfigError(
            "a caller that a language model plays cannot be run here; write the turns out, and say how the person "
            "speaks under caller",
            param="persona",
        )
    notes = [f"{key}: {why}" for key, why in _IGNORED.items() if key in data]
    adopted = {key: value for key, value in data.items() if key not in _IGNORED}
    if isinstance(adopted.get("turns"), list):
        adopted["turns"] = [_turn(turn, number, notes) for number, turn in enumerate(adopted["turns"])]
    return adopted, notes


def _turn(turn: Any, number: int, notes: list[str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    for key in ("dtmf", "image"):
        if key in turn:
            raise ConfigError(
                f"a caller here speaks, and sends no {key}; leave the turn out", param=f"turns.{number}.{key}"
            )
    adopted = dict(turn)
    if adopted.pop("audio", None) is not None:
        notes.append(f"turn {number + 1}: its recording is not played; its words are spoken")
    if isinstance(adopted.get("send_after"), dict):
        adopted["send_after"] = _anchor(adopted["send_after"], number)
        if adopted["send_after"].get("event", "") is None and not adopted["send_after"].get("delay_ms"):
            del adopted["send_after"]  # callers speak when the bot has spoken anyway
    if isinstance(adopted.get("expect"), list):
        kept = (_expectation(e, number, notes) for e in adopted["expect"])
        adopted["expect"] = [expectation for expectation in kept if expectation is not None]
    return adopted


def _anchor(send_after: dict[str, Any], number: int) -> dict[str, Any]:
    event = send_after.get("event")
    if event is None:
        return send_after
    if not isinstance(event, str) or event not in _ANCHORS:
        raise ConfigError(
            f"the caller cannot wait for {event!r}, but for one of {', '.join(_ANCHORS)}, or for a word",
            param=f"turns.{number}.send_after.event",
        )
    return {**send_after, "event": _ANCHORS[event]}


def _expectation(expectation: Any, number: int, notes: list[str]) -> Any:
    """Return an expectation in our words; None for one that nothing here can meet or miss."""
    if not isinstance(expectation, dict):
        return expectation
    event = expectation.get("event", "response")
    if event in _REPLIES:
        event = "response"
    elif not isinstance(event, str) or (event not in _OWN and get_close_matches(event, (*_REPLIES, *_OWN))):
        raise ConfigError(unknown("event", str(event), (*_REPLIES, *_OWN)), param=f"turns.{number}.expect")
    elif event not in _OWN:
        notes.append(f"turn {number + 1}: event {event} is not checked")
        return None
    adopted = {key: value for key, value in expectation.items() if key != "check_from"} | {"event": event}
    if event == "function_call" and "name" in adopted:
        adopted["calls"] = [{"name": adopted.pop("name"), "args": adopted.pop("args", {})}]
    if event == "function_call" and isinstance(adopted.get("calls"), list):
        adopted["calls"] = [{"name": call} if isinstance(call, str) else call for call in adopted["calls"]]
    return adopted
