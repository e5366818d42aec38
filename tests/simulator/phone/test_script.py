from __future__ import annotations

import numpy as np
import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.simulator.phone import Line, Samples, SpokenLine, speak_lines
from voice_llm.simulator.phone.audio import silence

from .fake_bot import tone

pytestmark = pytest.mark.unit


def test_silence_of_the_voice_does_not_count_as_speech() -> None:
    sound = np.concatenate([silence(4000), tone(0.5), silence(5000)])
    spoken = SpokenLine.cut(Line(text="Hello"), sound)
    assert len(spoken.samples) == 160 + 4000 + 160
    assert spoken.speech_start == 160
    assert abs(spoken.speech_end - 4160) <= 3


def test_voice_without_sound_is_refused() -> None:
    class Mute:
        def speak(self, text: str) -> Samples:
            return silence(800)

    with pytest.raises(InvalidRequestError, match="no audible sound"):
        speak_lines([Line(text="Hello")], Mute())


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("text", {"text": "  "}),
        ("pause_s", {"text": "a", "pause_s": 0}),
        ("barge_in_after_s", {"text": "a", "barge_in_after_s": -1}),
    ],
)
def test_lines_that_cannot_be_said_are_refused(field: str, line: dict[str, str | float]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Line(**line)  # type: ignore[arg-type]
    assert caught.value.param == field
