from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator.phone import BotClear, BotMark, BotMedia, BotProtocolError, TwilioStream, mulaw

pytestmark = pytest.mark.unit


def test_handshake_says_whose_call_it_is_and_how_it_is_coded() -> None:
    stream = TwilioStream(call_sid="CA1", custom_parameters={"from_number": "+49"})
    assert json.loads(stream.connected())["event"] == "connected"
    start = json.loads(stream.start())
    assert (start["event"], start["sequenceNumber"], start["streamSid"]) == ("start", "1", stream.stream_sid)
    assert start["start"]["callSid"] == "CA1"
    assert start["start"]["streamSid"] == stream.stream_sid
    assert start["start"]["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    assert start["start"]["customParameters"] == {"from_number": "+49"}


def test_media_is_numbered_and_timed_from_the_beginning_of_the_stream() -> None:
    stream = TwilioStream()
    stream.start()
    frame = np.full(160, 4092, np.int16)
    first, second = json.loads(stream.media(frame)), json.loads(stream.media(frame))
    assert [m["sequenceNumber"] for m in (first, second)] == ["2", "3"]
    assert [m["media"]["chunk"] for m in (first, second)] == ["1", "2"]
    assert [m["media"]["timestamp"] for m in (first, second)] == ["0", "20"]
    assert base64.b64decode(first["media"]["payload"]) == bytes([0xAF] * 160)
    assert first["media"]["track"] == "inbound"


def test_keys_marks_and_hanging_up_are_said() -> None:
    stream = TwilioStream(call_sid="CA1")
    assert json.loads(stream.dtmf("5"))["dtmf"]["digit"] == "5"
    assert json.loads(stream.mark("m"))["mark"] == {"name": "m"}
    stop = json.loads(stream.stop())
    assert (stop["event"], stop["stop"]["callSid"], stop["sequenceNumber"]) == ("stop", "CA1", "3")


async def test_pipecat_reads_our_messages_as_a_twilio_call() -> None:
    from pipecat.runner.utils import parse_telephony_websocket

    stream = TwilioStream(call_sid="CA7", custom_parameters={"who": "Ada"})

    class Socket:
        async def iter_text(self):  # type: ignore[no-untyped-def]
            yield stream.connected()
            yield stream.start()

    kind, call = await parse_telephony_websocket(Socket())  # type: ignore[arg-type]
    assert (kind, call.stream_id, call.call_id, call.body) == ("twilio", stream.stream_sid, "CA7", {"who": "Ada"})


def test_messages_of_a_bot_are_read() -> None:
    stream = TwilioStream()
    sid = {"streamSid": stream.stream_sid}
    payload = base64.b64encode(mulaw.encode(np.array([0, 4092], np.int16))).decode()
    media = stream.read(json.dumps({"event": "media", "media": {"payload": payload}, **sid}))
    assert isinstance(media, BotMedia)
    assert media.samples.tolist() == [0, 4092]
    assert stream.read(json.dumps({"event": "mark", "mark": {"name": "m"}, **sid})) == BotMark("m")
    assert stream.read(json.dumps({"event": "clear", **sid})) == BotClear()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[1]", "no object"),
        ('{"event": "clear"}', "streamSid"),
        ('{"event": "clear", "streamSid": "other"}', "streamSid"),
        ('{"event": "media", "streamSid": "SID"}', "does not know"),
        ('{"event": "media", "streamSid": "SID", "media": {"payload": 5}}', "does not know"),
        ('{"event": "media", "streamSid": "SID", "media": {"payload": "aaa*a"}}', "not base64"),
        ('{"event": "mark", "streamSid": "SID", "mark": {}}', "does not know"),
        ('{"event": "dance", "streamSid": "SID"}', "does not know"),
    ],
)
def test_garbage_is_a_typed_error_that_says_what_it_is(message: str | bytes, complaint: str) -> None:
    stream = TwilioStream()
    if isinstance(message, str):
        message = message.replace("SID", stream.stream_sid)
    with pytest.raises(BotProtocolError, match=complaint):
        stream.read(message)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_whatever_comes_nothing_else_is_raised(data: str | bytes) -> None:
    with pytest.raises(BotProtocolError) as caught:
        TwilioStream().read(data)
    assert len(str(caught.value)) < 500
