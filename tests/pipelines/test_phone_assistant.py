"""The phone bot finds its options, its models and its transports."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport

from pipelines import phone_assistant
from voice_llm.errors import ModelFileError

pytestmark = pytest.mark.unit


class TwilioSocket:
    """A WebSocket on which Twilio opens a stream."""

    def __init__(self) -> None:
        start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": {}}
        self._messages = [{"event": "connected"}, {"event": "start", "streamSid": "MZ1", "start": start}]
        self.state = type("State", (), {})()

    async def iter_text(self) -> Any:
        for message in self._messages:
            yield json.dumps(message)


async def test_twilio_needs_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWILIO_ACCOUNT_SID", raising=False)
    runner_args = WebSocketRunnerArguments(websocket=TwilioSocket())  # type: ignore[arg-type]

    transport = await phone_assistant.transport_for(runner_args)

    assert isinstance(transport, FastAPIWebsocketTransport)
    assert runner_args.transport_type == "twilio"
    assert runner_args.call_data is not None
    assert runner_args.call_data.call_id == "CA1"


async def test_twilio_with_credentials_is_the_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    runner_args = WebSocketRunnerArguments(websocket=TwilioSocket())  # type: ignore[arg-type]

    transport = await phone_assistant.transport_for(runner_args)

    assert isinstance(transport, FastAPIWebsocketTransport)
    serializer = transport._params.serializer
    assert isinstance(serializer, TwilioFrameSerializer)
    assert serializer._params.auto_hang_up


@pytest.mark.parametrize("name", ["webrtc", "twilio", "websocket", "eval"])
def test_every_transport_has_sound_both_ways(name: str) -> None:
    params = phone_assistant.TRANSPORT_PARAMS[name]()

    assert params.audio_in_enabled
    assert params.audio_out_enabled


def test_the_facts_are_there() -> None:
    assert "deductible" in phone_assistant.FACTS.read_text(encoding="utf-8")


async def test_models_are_loaded_once_by_whoever_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    async def load() -> object:
        loads.append(1)
        await asyncio.sleep(0)
        return object()

    monkeypatch.setattr(phone_assistant, "load_parts", load)
    monkeypatch.setattr(phone_assistant, "_loading", None)
    first, second = await asyncio.gather(phone_assistant.loaded_parts(), phone_assistant.loaded_parts())

    assert first is second is await phone_assistant.loaded_parts()
    assert loads == [1]


async def test_a_caller_who_hangs_up_while_models_load_does_not_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    async def load() -> str:
        await release.wait()
        return "parts"

    monkeypatch.setattr(phone_assistant, "load_parts", load)
    monkeypatch.setattr(phone_assistant, "_loading", None)
    impatient = asyncio.create_task(phone_assistant.loaded_parts())
    patient = asyncio.create_task(phone_assistant.loaded_parts())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    release.set()

    assert str(await patient) == "parts"


async def test_a_wrong_folder_is_named_and_the_next_call_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOICE_LLM_WHISPER", str(tmp_path))
    monkeypatch.setattr(phone_assistant, "_loading", None)
    for _ in range(2):
        with pytest.raises(ModelFileError, match=r"no Whisper model.*model\.bin"):
            await phone_assistant.loaded_parts()
