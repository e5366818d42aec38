"""Events as JSON are what the call contract says, name by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.session import CallError, CallThought, Chunk, Ended, Ready, SessionEvent, TurnEnd, to_json

pytestmark = pytest.mark.unit

USAGE = Usage(30, 20, 7)
USAGE_JSON = {"prompt_tokens": 30, "cached_tokens": 20, "completion_tokens": 7}


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (
            Ready("c1", USAGE, 12.5),
            {"type": "ready", "call_id": "c1", "usage": USAGE_JSON, "prefill_ms": 12.5},
        ),
        (
            Chunk("t1", 2, "Şöyle: “tamam”. ", final=True),
            {"type": "chunk", "turn_id": "t1", "index": 2, "text": "Şöyle: “tamam”. ", "final": True},
        ),
        (CallThought("t1", "Kısa tut."), {"type": "thought", "turn_id": "t1", "text": "Kısa tut."}),
        (
            TurnEnd("t1", FinishReason.STOP, USAGE, Timings(1.0, 2.0, 3.0, 4.0, 5.0)),
            {
                "type": "turn_end",
                "turn_id": "t1",
                "finish_reason": "stop",
                "usage": USAGE_JSON,
                "timings": {
                    "queue_ms": 1.0,
                    "prefill_ms": 2.0,
                    "first_token_ms": 3.0,
                    "first_chunk_ms": 4.0,
                    "total_ms": 5.0,
                },
            },
        ),
        (
            CallError("at_capacity", "full", retry_after_s=1.5, fatal=True, turn_id="t1"),
            {
                "type": "error",
                "code": "at_capacity",
                "message": "full",
                "retry_after_s": 1.5,
                "fatal": True,
                "turn_id": "t1",
            },
        ),
        (
            Ended("hangup", 2, USAGE, 61.25),
            {"type": "ended", "reason": "hangup", "turns": 2, "usage": USAGE_JSON, "duration_s": 61.25},
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_event_has_exactly_the_fields_of_the_contract(event: SessionEvent, wire: dict[str, Any]) -> None:
    assert to_json(event) == wire
    assert json.loads(json.dumps(to_json(event))) == wire


@pytest.mark.parametrize("reason", FinishReason)
def test_finish_reason_is_a_word(reason: FinishReason) -> None:
    """A plain string, whatever serializer a transport has."""
    word = to_json(TurnEnd("t1", reason, Usage(), Timings()))["finish_reason"]
    assert type(word) is str
    assert word in {"stop", "length", "tool_calls", "cancelled", "interrupted", "error"}


def test_what_is_unknown_is_left_out() -> None:
    """Not null and not zero: a reply cut before its first token has no time of one."""
    end = to_json(TurnEnd("t1", FinishReason.INTERRUPTED, Usage(), Timings(queue_ms=0.0, total_ms=2.0)))
    assert end["timings"] == {"queue_ms": 0.0, "total_ms": 2.0}
    assert to_json(CallError("internal", "x")) == {"type": "error", "code": "internal", "message": "x", "fatal": False}


def test_times_have_a_thousandth_at_most() -> None:
    assert to_json(Ready("c1", Usage(), 12.3456789))["prefill_ms"] == 12.346
