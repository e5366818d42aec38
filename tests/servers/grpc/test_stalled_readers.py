"""Readers that take nothing: they lose their own reply, and nobody else notices."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import pytest

from tests.runtime.helpers import idle
from tests.servers.grpc.gateway import Gateway, gateway_to, serving
from tests.servers.grpc.test_converse import Phone
from tests.servers.grpc.test_generate_stream import Noted
from tests.servers.helpers import edge_around
from voice_llm._proto import call_pb2 as pb
from voice_llm.servers.grpc import rpc
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

# Leaves room for a few small messages.
NARROW: Final = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 100))


async def until_not_lent(edge: Any) -> None:
    async with asyncio.timeout(20):
        while edge.host.lent:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("call_id", [None, "c1"])
async def test_reader_of_a_reply_that_takes_nothing_loses_it(
    monkeypatch: pytest.MonkeyPatch, call_id: str | None
) -> None:
    monkeypatch.setattr(rpc, "_WRITE_PATIENCE_S", 1.0)
    monkeypatch.setattr(rpc, "_STATUS_PATIENCE_S", 0.05)
    async with edge_around(FakeBackend(reply=lambda _: "long " * 40)) as edge, serving(edge) as gateway:
        engine = await edge.host.wait_ready()
        async with grpc.aio.insecure_channel(gateway.target, options=NARROW) as channel:
            stalled = Gateway(channel, gateway.target)
            reply = stalled.start("Hello?", call_id=call_id)
            await anext(aiter(reply))
            assert (await gateway.ask("Hello?")).text == ("long " * 40).strip()
            await until_not_lent(edge)
            await idle(engine)
            assert (await engine.stats()).held_sequences == (call_id is not None)
            if call_id is not None:
                assert (await gateway.ask("Hello?", call_id=call_id)).reason == "stop"


async def test_slow_reader_that_takes_its_time_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for one message, not for the whole reply."""
    monkeypatch.setattr(rpc, "_WRITE_PATIENCE_S", 2.0)
    async with (
        gateway_to(FakeBackend(reply=lambda _: "long " * 40)) as gateway,
        grpc.aio.insecure_channel(gateway.target, options=NARROW) as channel,
    ):
        reply = Gateway(channel, gateway.target).start("Hello?")
        messages, began_s = [], time.monotonic()
        async for message in reply:
            messages.append(message)
            await asyncio.sleep(0.015)
    assert time.monotonic() - began_s > 2.0
    assert b"".join(m.token for m in messages).decode().split() == ["long"] * 40
    assert messages[-1].finish_details.finish_reason == "stop"


async def test_phone_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_WRITE_PATIENCE_S", 1.0)
    monkeypatch.setattr(rpc, "_STATUS_PATIENCE_S", 0.05)
    observer = Noted()
    backend = FakeBackend(reply=lambda _: "One more sentence. " * 12)
    async with edge_around(backend, observer=observer) as edge, serving(edge) as gateway:
        async with grpc.aio.insecure_channel(gateway.target, options=NARROW) as channel:
            phone = Phone(channel)
            await phone.start(call_id="c1")
            await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
            assert (await gateway.ask("Hello?")).reason == "stop"
            async with asyncio.timeout(20):
                while ("grpc", "slow_consumer") not in observer.ended:
                    await asyncio.sleep(0.005)
        # What was said is kept, so that the call can be taken up again.
        assert len(edge.conversations) == 1
