"""Clients that go away at any moment: nothing is left behind, and nobody's log fills."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import grpc
import pytest

from tests.runtime.helpers import idle
from tests.servers.grpc.gateway import Gateway, serving
from tests.servers.grpc.test_converse import Phone
from tests.servers.grpc.test_generate_stream import Noted
from tests.servers.helpers import any_ports, edge_around
from voice_llm._proto import call_pb2 as pb
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit


async def leave_a_question(gateway: Gateway, chance: random.Random) -> None:
    reply = gateway.start("Hello?", call_id=chance.choice([None, "c1", "c2"]))
    for _ in range(chance.randrange(4)):
        try:
            await anext(aiter(reply), None)
        except grpc.aio.AioRpcError:
            return
    await asyncio.sleep(chance.random() * 0.01)
    reply.cancel()


async def leave_a_call(gateway: Gateway, chance: random.Random) -> None:
    phone = Phone(gateway.channel)
    events = [pb.Start(), pb.Turn(turn_id="t1", text="Hello?"), pb.Interrupt(), pb.End()]
    names = ["start", "turn", "interrupt", "end"]
    for name, event in list(zip(names, events, strict=True))[: chance.randrange(5)]:
        try:
            await phone.say(**{name: event})
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
        await asyncio.sleep(chance.random() * 0.01)
    phone.stream.cancel()


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    observer = Noted()
    backend = FakeBackend(sequences=16)
    with caplog.at_level(logging.WARNING):
        async with edge_around(backend, observer=observer, config=any_ports(resume_s=0.05)) as edge:
            engine = await edge.host.wait_ready()
            async with serving(edge) as gateway:
                leavers = (chance.choice([leave_a_question, leave_a_call]) for _ in range(100))
                await asyncio.gather(*(leaver(gateway, chance) for leaver in leavers))
                async with asyncio.timeout(20):
                    while edge.host.lent or len(edge.conversations):
                        await asyncio.sleep(0.01)
                await idle(engine)
                assert (await gateway.ask("Hello?")).reason == "stop"
    assert faults == []
    assert [record.getMessage() for record in caplog.records] == []
    assert {code for _, code in observer.ended} <= {"ok", "cancelled", "call_busy", "at_capacity"}
