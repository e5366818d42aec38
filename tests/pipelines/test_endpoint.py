"""The example bots use the engine that the environment names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from pipelines import phone_assistant, text_assistant
from tests.remote.helpers import serving
from tests.runtime.helpers import read_text, user
from tests.servers.helpers import edge_around
from voice_llm.errors import ConfigError
from voice_llm.remote import EngineFace, RemoteEngine

pytestmark = pytest.mark.unit

LOADERS = pytest.mark.parametrize(
    "load_engine", [phone_assistant.load_engine, text_assistant.load_engine], ids=["phone", "text"]
)


@LOADERS
async def test_an_endpoint_takes_the_place_of_a_model_here(
    load_engine: Callable[[], Awaitable[EngineFace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_around() as edge, serving(edge) as endpoint:
        monkeypatch.setenv("VOICE_LLM_ENDPOINT", endpoint)
        engine = await load_engine()
        assert isinstance(engine, RemoteEngine)
        async with engine, engine.open_call() as call:
            assert await read_text(call.generate(user("Hi"))) == "You said Hi. That makes 1."


@LOADERS
async def test_an_endpoint_that_is_none_is_refused(
    load_engine: Callable[[], Awaitable[EngineFace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICE_LLM_ENDPOINT", "localhost")
    with pytest.raises(ConfigError, match="host:port"):
        await load_engine()
