"""A phone call over WebSocket: what a client sees of it, and how it is taken up again."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.runtime.helpers import GatedBackend
from tests.servers.ws.helpers import Served, said, serving

pytestmark = pytest.mark.unit

# Each sentence is a chunk of its own.
SENTENCES = [f"This is sentence number {i} of the reply." for i in range(8)]
LONG = {"max_tokens": 512}


async def dropped(served: Served) -> None:
    """Wait until the server has seen a connection end."""
    seen = len(served.requests.ended)
    while len(served.requests.ended) == seen:
        await asyncio.sleep(0.005)


class TestWholeConversation:
    async def test_call_goes_from_start_to_ended_and_the_connection_closes_normally(self) -> None:
        async with serving() as served, served.client("line-7") as client:
            ready = await client.start(system_prompt="Be brief.")
            assert ready["call_id"] == "line-7"
            assert ready["resume_token"]
            first = await client.turn("Is glass covered?", "a")
            assert said(first) == "You said Is glass covered?. That makes 1."
            assert [event["index"] for event in first if event["type"] == "chunk"] == list(range(len(first) - 1))
            end = first[-1]
            assert (end["turn_id"], end["finish_reason"]) == ("a", "stop")
            assert end["timings"]["total_ms"] > 0
            second = await client.turn("And water?", "b")
            assert said(second) == "You said And water?. That makes 2."
            assert second[-1]["usage"]["cached_tokens"] > 0
            await client.send("end", reason="hangup")
            ended = await client.expect("ended")
            assert (ended["reason"], ended["turns"]) == ("hangup", 2)
            assert (await client.closed()).code == 1000
            assert len(served.edge.conversations) == 0
        assert served.requests.ended == [("ws", "ok")]

    async def test_turkish_text_arrives_whole(self) -> None:
        async with serving() as served, served.call("çağrı ☎") as client:
            events = await client.turn("Kaskom çatlak camı, ığüşöç dâhil, kapsıyor mu?")
            assert said(events) == "You said Kaskom çatlak camı, ığüşöç dâhil, kapsıyor mu?. That makes 1."

    async def test_interruption_ends_the_turn_and_what_was_heard_stays(self) -> None:
        backend = GatedBackend(reply=lambda _: " ".join(SENTENCES))
        async with serving(backend) as served, served.call(params=LONG) as client:
            backend.hold(after_tokens=60)
            await client.send("turn", turn_id="t1", text="Tell me all.")
            await client.expect("chunk")
            await asyncio.to_thread(backend.wait_until_held)
            await client.send("interrupt", spoken_text="This is sentence")
            await client.send("confirm", turn_id="none")
            await client.until("error")  # so the interruption has been taken, too
            backend.release()
            end = (await client.until("turn_end"))[-1]
            assert end["finish_reason"] == "interrupted"
            assert (await client.turn("Go on.", "t2"))[-1]["finish_reason"] == "stop"

    async def test_calls_of_different_ids_do_not_see_each_other(self) -> None:
        async with serving() as served, served.call("a") as one, served.call("b") as other:
            await one.turn("Only here.")
            assert said(await other.turn("Hello.")) == "You said Hello.. That makes 1."

    async def test_start_may_repeat_the_call_id_of_the_path(self) -> None:
        async with serving() as served, served.client("c9") as client:
            assert (await client.start(call_id="c9"))["call_id"] == "c9"


class TestMessagesThatCannotBeUsed:
    """They are answered by an error, and the call goes on."""

    @pytest.mark.parametrize(
        "message",
        [
            "garbage",
            "",
            "[]",
            '"turn"',
            "{}",
            '{"type": "shout"}',
            '{"type": "turn", "turn_id": "t", "text": "x", "volume": 11}',
            '{"type": "turn", "turn_id": "t", "text": 7}',
            '{"type": "turn", "turn_id": "t", "text": "\\ud800"}',
            '{"type": "tool_result", "tool_call_id": "x", "result": "\\ud800"}',
            '{"type": "tool_result", "tool_call_id": "x", "result": NaN}',
            "[" * 100_000,
            "9" * 10_000,
        ],
        ids=lambda message: message[:24],
    )
    async def test_unreadable_message_is_an_invalid_request(self, message: str) -> None:
        async with serving() as served, served.call() as client:
            await client.connection.send(message)
            error = await client.expect("error")
            assert (error["code"], error["fatal"]) == ("invalid_request", False)
            assert said(await client.turn("Still there?")) == "You said Still there?. That makes 1."

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "turn", "turn_id": "t1", "text": "Hello"},
            {"type": "interrupt"},
            {"type": "partial", "text": "Hel"},
            {"type": "confirm", "turn_id": "t1"},
        ],
        ids=lambda event: str(event["type"]),
    )
    async def test_event_before_start_is_a_wrong_state(self, event: dict[str, str]) -> None:
        async with serving() as served, served.client() as client:
            await client.connection.send(json.dumps(event))
            error = await client.expect("error")
            assert (error["code"], error["fatal"]) == ("wrong_state", False)
            await client.start()

    async def test_second_start_is_a_wrong_state(self) -> None:
        async with serving() as served, served.call() as client:
            await client.send("start")
            assert (await client.expect("error"))["code"] == "wrong_state"
            await client.turn("Hello.")

    async def test_start_for_another_call_than_the_path_s_is_refused(self) -> None:
        async with serving() as served, served.client("mine") as client:
            await client.send("start", call_id="yours")
            error, close = await client.refused()
            assert (error["code"], close.code) == ("invalid_request", 4400)
            assert "path" in error["message"]


class TestResume:
    async def test_abrupt_drop_repeats_no_chunk_and_loses_none(self) -> None:
        backend = GatedBackend(reply=lambda _: " ".join(SENTENCES))
        async with serving(backend) as served:
            async with served.client() as client:
                ready = await client.start(params=LONG)
                backend.hold(after_tokens=150)
                await client.send("turn", turn_id="t1", text="Tell me all.")
                chunks = [await client.expect("chunk"), await client.expect("chunk")]
                client.connection.transport.abort()
                await dropped(served)
            backend.release()
            async with served.client(query=resume_query(ready["resume_token"], "t1", chunks[-1]["index"])) as client:
                again = await client.expect("ready")
                assert again["call_id"] == "c1"
                chunks += (await client.until("turn_end"))[:-1]
                assert [chunk["index"] for chunk in chunks] == list(range(len(chunks)))
                assert "".join(chunk["text"] for chunk in chunks).split() == " ".join(SENTENCES).split()
                await client.turn("And then?", "t2")

    async def test_start_with_the_token_resumes_as_the_query_does(self) -> None:
        async with serving() as served:
            async with served.client() as client:
                ready = await client.start()
                events = await client.turn("One.")
                last = events[-2]["index"]
            async with served.client() as client:
                await client.start(resume_token=ready["resume_token"], last_turn_id="t1", last_index=last)
                assert (await client.expect("turn_end"))["turn_id"] == "t1"
                assert said(await client.turn("Two.", "t2")) == "You said Two.. That makes 2."

    @pytest.mark.parametrize("token", ["wrong", "ü%20"])
    async def test_wrong_token_is_not_found(self, token: str) -> None:
        async with serving() as served:
            async with served.call():
                pass
            async with served.client(query=f"?resume_token={token}") as client:
                error, close = await client.refused()
                assert (error["code"], close.code) == ("not_found", 4404)

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("?last_index=3", "resume_token"),
            ("?resume_token=", "resume_token"),
            ("?resume_token=t&last_index=-1", "last_index"),
            ("?resume_token=t&last_index=%C2%B2", "last_index"),
            ("?resume_token=t&last_index=99999999999", "last_index"),
            ("?resume_token=t&resume_token=u", "resume_token"),
            ("?key=secret", "resume_token"),
            ("?resume_token=%FF", "query"),
            ("?" + "&".join(["resume_token=t"] * 50), "query"),
        ],
    )
    async def test_query_that_cannot_be_used_is_refused_by_name(self, query: str, param: str) -> None:
        async with serving() as served, served.client(query=query) as client:
            error, close = await client.refused()
            assert (error["code"], close.code) == ("invalid_request", 4400)
            assert param in error["message"]
            assert "secret" not in error["message"]

    async def test_call_is_over_when_nobody_comes_back_in_time(self) -> None:
        async with serving(resume_s=0.05) as served:
            async with served.client() as client:
                ready = await client.start()
                client.connection.transport.abort()
            while len(served.edge.conversations):
                await asyncio.sleep(0.005)
            async with served.client(query=resume_query(ready["resume_token"])) as client:
                assert (await client.refused())[1].code == 4404


def resume_query(token: str, turn_id: str = "", index: int = 0) -> str:
    return f"?resume_token={token}&last_turn_id={turn_id}&last_index={index}"


async def test_each_event_of_the_contract_is_taken() -> None:
    """Those that say nothing back are taken without an error."""
    async with serving() as served, served.call() as client:
        await client.send("partial", text="Is wa")
        await client.send("context", rag_context="Water is covered.")
        await client.turn("Is water covered?")
        await client.send("played", turn_id="t1", index=0, played_ms=200)
        await client.send("interrupt")
        await client.send("turn", turn_id="t2", text="Kept back?", speculative=True)
        await client.send("confirm", turn_id="t2")
        assert (await client.until("turn_end"))[-1]["turn_id"] == "t2"
