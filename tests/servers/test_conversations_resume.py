"""A call outlives its connection: nothing is lost, nothing is said twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.helpers import GatedBackend
from tests.servers.conversation_helpers import Peer, calling, ends, spoken
from voice_llm.errors import InvalidRequestError, NotFoundError, WrongStateError
from voice_llm.prompt import Tool
from voice_llm.servers.edge import Edge
from voice_llm.servers.identity import Identity
from voice_llm.session import CallError, CallToolCall, Chunk, Ended, Ready, TurnEnd
from voice_llm.session.contract import Confirm, End, Params, Played, Start, ToolResult, Turn
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

REPLY = "Elbette, hemen bakıyorum. Siparişiniz yolda. Yarın öğlen sizde olur. İyi günler."
LONG_REPLY = "Bu uzun bir cevap. " * 50
CHUNKS = 4
CALL = '<tool_call>{"name":"look_up","arguments":{}}</tool_call>'


def again(ready: Ready, last: Chunk | None = None) -> Start:
    """How a peer takes its call up after the last chunk it has received."""
    return Start(
        call_id=ready.call_id,
        resume_token=ready.resume_token or "",
        last_turn_id=last.turn_id if last else "",
        last_index=last.index if last else 0,
    )


async def taken_up(edge: Edge, ready: Ready, last: Chunk | None = None) -> Peer:
    peer = Peer(edge.conversations)
    peer.say(again(ready, last))
    assert await peer.until(Ready) == ready
    assert peer.told[0] == ready
    return peer


class TestDrop:
    @pytest.mark.parametrize("received", range(CHUNKS + 2))
    @pytest.mark.parametrize("whole", [True, False], ids=["reply-made-meanwhile", "reply-held-up"])
    @pytest.mark.parametrize("hangs_up", [True, False], ids=["hangs-up", "vanishes"])
    async def test_at_any_event_of_a_reply_loses_and_repeats_no_chunk(
        self, received: int, *, whole: bool, hangs_up: bool
    ) -> None:
        backend = GatedBackend(reply=lambda _: REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations, reads=False)
            peer.say(Start())
            ready = await peer.take()
            assert isinstance(ready, Ready)
            if not whole:
                backend.hold(after_tokens=16 * received)
            peer.say(Turn("t1", "Nerede?"))
            if whole:
                [call] = edge.conversations._calls.values()
                async with asyncio.timeout(20):
                    while len(call._log) < CHUNKS + 1:
                        await asyncio.sleep(0.001)
                for _ in range(received):
                    await peer.take()
            else:
                await backend.held()
                peer.read()
            if hangs_up:
                peer.hang_up()
                await asyncio.sleep(0)
            await peer.vanish()
            backend.release()
            chunks = peer.all(Chunk)
            other = await taken_up(edge, ready, chunks[-1] if chunks else None)
            await other.until(TurnEnd)
            assert [c.index for c in [*chunks, *other.all(Chunk)]] == list(range(CHUNKS))
            assert spoken([*chunks, *other.told]) == REPLY
            assert ends(other.told) == [("t1", "stop")]
            other.say(Turn("t2", "Teşekkürler"))
            await other.until(TurnEnd, 2)
            assert spoken(other.told, "t2") == REPLY

    async def test_without_a_chunk_everything_that_is_kept_comes_again(self) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            await peer.vanish()
            other = await taken_up(edge, ready)
            await other.until(TurnEnd)
            assert other.told == peer.told

    async def test_only_the_last_turns_are_kept(self) -> None:
        async with calling(FakeBackend(reply=lambda _: "Tamam.")) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            for number in range(20):
                peer.say(Turn(f"t{number}", "x"))
                await peer.until(TurnEnd, number + 1)
            await peer.vanish()
            kept = [f"t{number}" for number in range(12, 20)]
            for last in (None, Chunk("t3", 0, "", final=True)):
                other = await taken_up(edge, ready, last)
                await other.until(TurnEnd, len(kept))
                assert [turn_id for turn_id, _ in ends(other.told)] == kept
                await other.vanish()

    async def test_during_a_speculation_keeps_it_back_until_it_is_confirmed(self) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            peer.say(Turn("s1", "Nerede?", speculative=True), Confirm("x"))
            await peer.until(CallError)
            await peer.vanish()
            other = await taken_up(edge, ready)
            other.say(Confirm("s2"))
            await other.until(CallError)
            assert not other.all(Chunk)
            other.say(Confirm("s1"))
            await other.until(TurnEnd)
            assert spoken(other.told) == REPLY

    async def test_while_a_tool_is_asked_asks_again(self) -> None:
        backend = FakeBackend(reply=lambda p: "Yolda." if "</tool_response>" in p else "Bakıyorum. " + CALL)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start(tools=(Tool("look_up"),))
            peer.say(Turn("t1", "Nerede?"))
            call = await peer.until(CallToolCall)
            await peer.vanish()
            other = await taken_up(edge, ready, peer.all(Chunk)[-1])
            assert await other.until(CallToolCall) == call
            other.say(ToolResult(call.tool_call_id, "ok"))
            await other.until(TurnEnd)
            assert [(c.index, c.text) for c in other.all(Chunk)] == [(1, "Yolda.")]

    async def test_again_and_again_is_no_different(self) -> None:
        backend = GatedBackend(reply=lambda _: REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            chunks: list[Chunk] = []
            for _ in range(CHUNKS):
                await peer.until(Chunk)
                chunks.append(peer.all(Chunk)[0])
                await peer.vanish()
                peer = await taken_up(edge, ready, chunks[-1])
            assert [c.index for c in chunks] == list(range(CHUNKS))
            await peer.until(TurnEnd)

    async def test_leaves_what_was_heard_where_it_was(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return REPLY

        async with calling(FakeBackend(reply=reply)) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            await peer.vanish()
            other = await taken_up(edge, ready, peer.all(Chunk)[-1])
            other.say(Played("t1", 1, 0), Turn("t2", "Efendim?"))
            await other.until(TurnEnd, 2)
            assert f"assistant\n{REPLY}<|im_end|>" in prompts[-1]


class TestExpiry:
    async def test_call_that_nobody_takes_up_ends_and_frees_everything(self) -> None:
        backend = GatedBackend(reply=lambda _: LONG_REPLY)
        async with calling(backend, resume_s=0.05) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            backend.hold(after_tokens=30)
            peer.say(Turn("t1", "Anlat"))
            await backend.held()
            await peer.vanish()
            assert (len(edge.conversations), edge.host.lent) == (1, 1)
            backend.release()
            assert await edge.host.drain(20)
            assert len(edge.conversations) == 0
            other = Peer(edge.conversations)
            other.say(again(ready))
            with pytest.raises(NotFoundError):
                await other.to_the_end()

    async def test_call_that_is_taken_up_has_its_time_again(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            [call] = edge.conversations._calls.values()
            await peer.vanish()
            first = call._expiry
            assert first is not None
            other = await taken_up(edge, ready)
            assert first.cancelled()
            await other.vanish()
            assert call._expiry is not None
            assert not call._expiry.cancelled()

    async def test_server_that_closes_ends_what_waits(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            await peer.vanish()
            await edge.conversations.close()
            assert len(edge.conversations) == 0


class TestRight:
    async def test_token_id_and_tenant_have_to_be_the_calls_own(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start(call_id="c1")
            messages = set()
            other = Identity("other")
            await Peer(edge.conversations, other).start(call_id="c2")
            wrong = [
                (Start(call_id="c1", resume_token="x"), Identity("acme")),
                (Start(call_id="c1", resume_token=f"{ready.resume_token}x"), Identity("acme")),
                (Start(call_id="c1", resume_token="ş"), Identity("acme")),
                (Start(call_id="c3", resume_token=ready.resume_token or ""), Identity("acme")),
                (Start(resume_token=ready.resume_token or ""), Identity("acme")),
                (Start(call_id="c1", resume_token=ready.resume_token or ""), other),
                (Start(call_id="c2", resume_token=ready.resume_token or ""), other),
            ]
            for start, identity in wrong:
                thief = Peer(edge.conversations, identity)
                thief.say(start)
                with pytest.raises(NotFoundError) as refused:
                    await thief.to_the_end()
                messages.add(str(refused.value))
            assert len(messages) == 1, "what was wrong is nobody's business"
            peer.say(Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            assert peer.all(CallError) == []

    @pytest.mark.parametrize(("turn_id", "index"), [("t1", 4), ("t1", -1), ("t2", 0), ("s1", 0)])
    async def test_chunk_that_was_never_sent_is_refused_and_the_call_waits_on(self, turn_id: str, index: int) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            await peer.vanish()
            other = Peer(edge.conversations)
            other.say(again(ready, Chunk(turn_id, index, "", final=False)))
            with pytest.raises(InvalidRequestError):
                await other.to_the_end()
            await taken_up(edge, ready)


class TestTakeover:
    async def test_newer_connection_has_the_call_and_the_older_one_is_told(self) -> None:
        backend = GatedBackend(reply=lambda _: REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start()
            backend.hold(after_tokens=40)
            peer.say(Turn("t1", "Nerede?"))
            await backend.held()
            await peer.until(Chunk)
            other = await taken_up(edge, ready, peer.all(Chunk)[-1])
            with pytest.raises(WrongStateError, match="taken"):
                await peer.to_the_end()
            peer.say(End())
            backend.release()
            await other.until(TurnEnd)
            assert spoken([*peer.told, *other.told]) == REPLY
            assert len(edge.conversations) == 1
            other.say(End())
            await other.until(Ended)

    async def test_older_one_that_has_stopped_reading_does_not_matter(self) -> None:
        backend = FakeBackend(reply=lambda _: "Ab. " * 400, context_per_call=4096)
        async with calling(backend) as edge:
            stalled = Peer(edge.conversations, reads=False)
            stalled.say(Start(params=Params(max_tokens=2000, pacing="off")))
            ready = await stalled.take()
            assert isinstance(ready, Ready)
            stalled.say(Turn("t1", "Anlat"))
            first = await stalled.take()
            assert isinstance(first, Chunk)
            other = await taken_up(edge, ready, first)
            await other.until(TurnEnd)
            assert [c.index for c in other.all(Chunk)] == list(range(1, 400))
            await stalled.vanish()
            assert len(edge.conversations) == 1
