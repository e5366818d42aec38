"""The call contract, state by state, limit by limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.runtime.helpers import GatedBackend, idle, profile, prompts_made
from tests.servers.conversation_helpers import Peer, calling, ends, spoken
from tests.servers.helpers import any_ports
from voice_llm.errors import (
    AtCapacityError,
    ContextTooLongError,
    DrainingError,
    EngineDeadError,
    InvalidRequestError,
    LoadingError,
    NotFoundError,
    SlowConsumerError,
    VoiceLLMError,
)
from voice_llm.observer import Observer
from voice_llm.prompt import Message, Tool
from voice_llm.runtime import Engine
from voice_llm.servers.conversations import Conversations
from voice_llm.servers.host import EngineHost
from voice_llm.servers.identity import Identity
from voice_llm.session import CallError, CallSession, CallToolCall, Chunk, Ended, Ready, TurnEnd
from voice_llm.session.contract import (
    ClientEvent,
    Confirm,
    Context,
    End,
    Interrupt,
    Params,
    Partial,
    Played,
    Start,
    ToolResult,
    Turn,
    Withdraw,
)
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

REPLY = "Elbette, hemen bakıyorum. Siparişiniz yolda. Yarın öğlen sizde olur."
LONG_REPLY = "Bu uzun bir cevap. " * 50
LOOK_UP = Tool("look_up", "Siparişe bakar.")
CALL = '<tool_call>{"name":"look_up","arguments":{}}</tool_call>'

EVERYTHING: dict[str, ClientEvent] = {
    "partial": Partial("x"),
    "turn": Turn("t9", "x"),
    "confirm": Confirm("t9"),
    "withdraw": Withdraw("t9"),
    "played": Played("t9", 0, 0),
    "interrupt": Interrupt(),
    "context": Context("x"),
    "tool_result": ToolResult("c9", 1),
}


class Refusals(Observer):
    def __init__(self) -> None:
        self.codes: list[str] = []

    def call_refused(self, code: str) -> None:
        self.codes.append(code)


async def code_of(peer: Peer) -> str:
    """The error that the connection ends with."""
    with pytest.raises(VoiceLLMError) as failed:
        await peer.to_the_end()
    return failed.value.code


async def error_told(peer: Peer, count: int = 1) -> CallError:
    error = await peer.until(CallError, count)
    assert not error.fatal
    return error


class TestBeforeReady:
    @pytest.mark.parametrize("event", EVERYTHING.values(), ids=EVERYTHING)
    async def test_nothing_else_is_legal_before_start_and_the_call_goes_on(self, event: ClientEvent) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            peer.say(event)
            assert (await error_told(peer)).code == "wrong_state"
            await peer.start()
            peer.say(Turn("t1", "Alo"))
            assert (await peer.until(TurnEnd)).turn_id == "t1"

    @pytest.mark.parametrize("event", [*EVERYTHING.values(), Start()], ids=[*EVERYTHING, "start"])
    async def test_nor_while_the_call_is_being_started(self, event: ClientEvent) -> None:
        backend = GatedBackend()
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            backend.hold()
            peer.say(Start(), event)
            assert (await error_told(peer)).code == "wrong_state"
            assert peer.all(Ready) == []
            backend.release()
            await peer.until(Ready)

    async def test_end_is_legal_before_start(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            peer.say(End("bye"))
            assert await peer.to_the_end() == [Ended("bye", 0)]

    async def test_end_is_legal_while_the_call_is_being_started(self) -> None:
        backend = GatedBackend()
        observer = Refusals()
        async with calling(backend, observer=observer) as edge:
            backend.hold()
            peer = Peer(edge.conversations)
            peer.say(Start(call_id="c1"))
            await backend.held()
            peer.say(End("bye"))
            backend.release()
            [ended] = await peer.to_the_end()
            assert isinstance(ended, Ended)
            assert (ended.reason, ended.turns) == ("bye", 0)
            assert observer.codes == []

    async def test_end_right_behind_start_is_no_refusal(self) -> None:
        observer = Refusals()
        async with calling(observer=observer) as edge:
            peer = Peer(edge.conversations)
            peer.say(Start(call_id="c1"), End("bye"))
            [ended] = await peer.to_the_end()
            assert isinstance(ended, Ended)
            assert (ended.reason, observer.codes) == ("bye", [])

    async def test_first_event_that_cannot_be_read_is_fatal(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            peer.say(InvalidRequestError("nonsense"))
            assert await code_of(peer) == "invalid_request"

    async def test_peer_that_says_nothing_holds_nothing(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            peer.hang_up()
            assert await peer.to_the_end() == []

    async def test_connection_that_drops_before_ready_leaves_no_call(self) -> None:
        backend = GatedBackend()
        async with calling(backend) as edge:
            backend.hold()
            peer = Peer(edge.conversations)
            peer.say(Start())
            await backend.held()
            await peer.vanish()
            backend.release()
            await edge.host.drain(20)
            assert len(edge.conversations) == 0


class TestReady:
    async def test_ready_comes_first_and_counts_what_was_computed(self) -> None:
        async with calling() as edge:
            ready = await Peer(edge.conversations).start(call_id="c1", system_prompt="Kısa konuş.")
            assert ready.call_id == "c1"
            assert ready.usage.prompt_tokens > 0
            assert ready.prefill_ms > 0
            assert ready.resume_token

    async def test_call_without_an_id_gets_one_of_its_own(self) -> None:
        async with calling() as edge:
            first, second = [await Peer(edge.conversations).start() for _ in range(2)]
            assert first.call_id != second.call_id
            assert first.resume_token != second.resume_token

    async def test_call_is_as_it_was_started(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return "Tamam. Peki. Olur."

        async with calling(FakeBackend(reply=reply)) as edge:
            peer = Peer(edge.conversations)
            await peer.start(
                profile="test",
                language="en-GB",
                system_prompt="Kısa konuş.",
                rag_context="Kargo yolda.",
                history=(Message("user", "Alo"), Message("assistant", "Buyurun.")),
                tools=(LOOK_UP,),
                params=Params(stop=("Olur",)),
            )
            peer.say(Turn("t1", "Nerede?", rag_context="Sipariş 17."))
            await peer.until(TurnEnd)
            assert spoken(peer.told) == "Tamam. Peki."
            for part in ("Kısa konuş.", "Kargo yolda.", "Alo", "Buyurun.", "look_up", "Sipariş 17."):
                assert part in prompts[-1]

    async def test_second_start_is_refused_and_the_call_goes_on(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Start(), Turn("t1", "Alo"))
            assert (await error_told(peer)).code == "wrong_state"
            await peer.until(TurnEnd)
            assert spoken(peer.told) == "You said Alo. That makes 1."

    async def test_later_event_that_cannot_be_read_is_told_and_the_call_goes_on(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(InvalidRequestError("nonsense", param="speed"), Turn("t1", "Alo"))
            error = await error_told(peer)
            assert (error.code, error.message) == ("invalid_request", "nonsense")
            await peer.until(TurnEnd)


class TestTurns:
    async def test_reply_streams_and_ends(self) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            chunks = peer.all(Chunk)
            assert [c.index for c in chunks] == list(range(len(chunks)))
            assert [c.final for c in chunks] == [False] * (len(chunks) - 1) + [True]
            assert spoken(peer.told) == REPLY
            assert ends(peer.told) == [("t1", "stop")]

    async def test_newer_turn_supersedes_and_the_old_one_ends_first(self) -> None:
        backend = GatedBackend(reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            backend.hold(after_tokens=60)
            peer.say(Turn("t1", "Anlat"))
            await backend.held()
            await peer.until(Chunk)
            peer.say(Turn("t2", "Dur"))
            backend.release()
            await peer.until(TurnEnd, 2)
            assert ends(peer.told) == [("t1", "interrupted"), ("t2", "stop")]
            ended = peer.told.index(peer.all(TurnEnd)[0])
            assert all(c.turn_id == "t2" for c in peer.told[ended:] if isinstance(c, Chunk))
            assert spoken(peer.told, "t2") == "Peki."

    async def test_what_was_heard_is_what_the_next_prompt_has(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return REPLY

        async with calling(FakeBackend(reply=reply)) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            peer.say(Played("t1", 0, 60_000), Interrupt(), Turn("t2", "Efendim?"))
            await peer.until(TurnEnd, 2)
            assert "assistant\nElbette, hemen bakıyorum.<|im_end|>" in prompts[-1]
            peer.say(Interrupt("Elbette"), Turn("t3", "Anlamadım"))
            await peer.until(TurnEnd, 3)
            assert prompts[-1].endswith(
                "user\nEfendim?<|im_end|>\n<|im_start|>assistant\nElbette<|im_end|>\n<|im_start|>user\nAnlamadım<|im_end|>\n"
            )
            assert peer.all(CallError) == []

    async def test_interruption_without_a_turn_is_no_error(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Interrupt(), Interrupt("x"), Partial("Al"), Context("x"), Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            assert peer.all(CallError) == []

    async def test_playback_is_reported_of_turns_that_were_only(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            peer.say(Played("t2", 0, 1), Played("t1", 0, 1), Turn("t2", "Alo"))
            await peer.until(TurnEnd, 2)
            peer.say(Played("t1", 0, 2), Turn("t3", "Alo"))  # late, and of no use to anybody, but no mistake
            await peer.until(TurnEnd, 3)
            assert [error.code for error in peer.all(CallError)] == ["wrong_state"]

    async def test_context_counts_from_the_next_turn_on_and_may_be_taken_away(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return "Tamam."

        async with calling(FakeBackend(reply=reply)) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Context("Bakiye 10."), Turn("t1", "Kaç?"))
            await peer.until(TurnEnd)
            assert "Bakiye 10." in prompts[-1]
            peer.say(Context(""), Turn("t2", "Kaç?"))
            await peer.until(TurnEnd, 2)
            assert "Bakiye 10." not in prompts[-1]

    async def test_turns_own_params_count_for_that_turn(self) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("t1", "Nerede?", params=Params(max_tokens=3)))
            await peer.until(TurnEnd)
            peer.say(Turn("t2", "Nerede?"))
            await peer.until(TurnEnd, 2)
            assert ends(peer.told) == [("t1", "length"), ("t2", "stop")]

    @pytest.mark.parametrize(
        ("turn", "code"),
        [
            (Turn("t1", "tekrar"), "invalid_request"),
            (Turn("", "x"), "invalid_request"),
            (Turn("t2", "  "), "invalid_request"),
            (Turn("t2", "x", params=Params(top_p=2.0)), "invalid_request"),
            (Turn("t2", "x", params=Params(max_tokens=5000)), "invalid_request"),
            (Turn("t2", "x", params=Params(pacing="fast")), "invalid_request"),
            (Turn("t2", "x", params=Params(reasoning_effort="low")), "invalid_request"),
            (Turn("t2", "x", params=Params(tool_choice="look_up")), "invalid_request"),
            (Turn("t2", "x", params=Params(lora_adapter_id="a")), "not_found"),
        ],
        ids=str,
    )
    async def test_turn_that_cannot_be_begun_leaves_the_running_one_alone(self, turn: Turn, code: str) -> None:
        backend = GatedBackend(reply=lambda _: REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            backend.hold(after_tokens=30)
            peer.say(Turn("t1", "Nerede?"))
            await backend.held()
            peer.say(turn)
            error = await error_told(peer)
            assert (error.code, error.turn_id) == (code, turn.turn_id or None)
            backend.release()
            await peer.until(TurnEnd)
            assert ends(peer.told) == [("t1", "stop")]
            assert spoken(peer.told) == REPLY

    async def test_turn_that_does_not_fit_ends_with_an_error_and_the_call_goes_on(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("t1", "x" * 3000))
            await peer.until(TurnEnd)
            assert (await error_told(peer)).code == "context_too_long"
            assert ends(peer.told) == [("t1", "error")]
            peer.say(Turn("t2", "Alo"))
            await peer.until(TurnEnd, 2)
            assert spoken(peer.told) == "You said Alo. That makes 1."


class TestSpeculation:
    async def test_says_nothing_until_it_is_confirmed(self) -> None:
        async with calling(FakeBackend(reply=lambda _: REPLY)) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("s1", "Nerede?", speculative=True), Turn("s2", "Nerede kaldı?", speculative=True))
            peer.say(Partial("x"), Confirm("s1"))
            assert (await error_told(peer)).code == "wrong_state"
            assert len(peer.told) == 2
            peer.say(Confirm("s2"))
            await peer.until(TurnEnd)
            assert spoken(peer.told) == REPLY
            assert ends(peer.told) == [("s2", "stop")]
            peer.say(Confirm("s2"), Withdraw("s2"))
            await error_told(peer, 3)

    async def test_withdrawn_it_leaves_no_trace(self) -> None:
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(Turn("s1", "Nere", speculative=True), Withdraw("s1"), Turn("t2", "Nerede?"), End())
            ended = await peer.until(Ended)
            assert ended.turns == 1
            assert {e.turn_id for e in peer.told if isinstance(e, (Chunk, TurnEnd))} == {"t2"}


class TestTools:
    async def test_turn_goes_on_when_the_results_are_in(self) -> None:
        backend = FakeBackend(reply=lambda p: "Yolda." if "</tool_response>" in p else "Bakıyorum. " + CALL)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start(tools=(LOOK_UP,))
            peer.say(ToolResult("call_x", 1))
            assert (await error_told(peer)).code == "wrong_state"
            peer.say(Turn("t1", "Nerede?"))
            call = await peer.until(CallToolCall)
            peer.say(ToolResult(call.tool_call_id, {"ok": True}), ToolResult(call.tool_call_id, 2))
            assert (await error_told(peer, 2)).code == "wrong_state"
            await peer.until(TurnEnd)
            assert [(c.index, c.text, c.final) for c in peer.all(Chunk)] == [
                (0, "Bakıyorum. ", False),
                (1, "Yolda.", True),
            ]
            assert ends(peer.told) == [("t1", "stop")]

    async def test_end_while_tools_are_open_ends_the_turn_first(self) -> None:
        async with calling(FakeBackend(reply=lambda _: CALL)) as edge:
            peer = Peer(edge.conversations)
            await peer.start(tools=(LOOK_UP,), params=Params(tool_choice="look_up"))
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(CallToolCall)
            peer.say(End())
            *_, end, ended = await peer.to_the_end()
            assert ends([end]) == [("t1", "interrupted")]
            assert isinstance(ended, Ended)


class TestEnd:
    async def test_in_mid_reply_ends_the_turn_first(self) -> None:
        backend = GatedBackend(reply=lambda _: LONG_REPLY)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            backend.hold(after_tokens=40)
            peer.say(Turn("t1", "Anlat"))
            await backend.held()
            peer.say(End("hangup"), Turn("t2", "x"))
            backend.release()
            *_, end, ended = await peer.to_the_end()
            assert isinstance(end, TurnEnd)
            assert isinstance(ended, Ended)
            assert (end.finish_reason.value, ended.reason, ended.turns) == ("interrupted", "hangup", 1)
            assert ended.usage == end.usage
            assert len(edge.conversations) == 0

    async def test_id_is_free_again_as_soon_as_the_end_is_told(self) -> None:
        async with calling() as edge:
            for _ in range(3):
                peer = Peer(edge.conversations)
                await peer.start(call_id="c1")
                peer.say(End())
                await peer.until(Ended)
                assert peer.all(CallError) == []

    async def test_server_that_closes_tells_every_call(self) -> None:
        async with calling() as edge:
            peers = [Peer(edge.conversations) for _ in range(3)]
            for peer in peers:
                await peer.start()
            assert len(edge.conversations) == 3
            await edge.conversations.close()
            for peer in peers:
                with pytest.raises(DrainingError) as caught:
                    await peer.to_the_end()
                assert caught.value.retry_after_s > 0


class TestRefused:
    @pytest.mark.parametrize(
        ("start", "error"),
        [
            (Start(profile="other"), NotFoundError),
            (Start(language="Turkish"), InvalidRequestError),
            (Start(call_id="a\x00b"), InvalidRequestError),
            (Start(call_id="a" * 129), InvalidRequestError),
            (Start(history=tuple(Message("user", "x") for _ in range(5))), InvalidRequestError),
            (Start(history=(Message("king", "x"),)), InvalidRequestError),  # type: ignore[arg-type]
            (Start(params=Params(max_tokens=101)), InvalidRequestError),
            (Start(params=Params(reasoning_effort="low")), InvalidRequestError),
            (Start(params=Params(lora_adapter_id="a")), NotFoundError),
            (Start(params=Params(tool_choice="required")), InvalidRequestError),
            (Start(tools=(Tool("a b"),)), InvalidRequestError),
            (Start(system_prompt="x" * 3000), ContextTooLongError),
            (Start(call_id="c1", resume_token="x"), NotFoundError),
        ],
        ids=str,
    )
    async def test_call_that_cannot_be_had_as_asked(self, start: Start, error: type[VoiceLLMError]) -> None:
        async with calling(max_messages=4, max_reply_tokens=100) as edge:
            peer = Peer(edge.conversations)
            peer.say(start)
            with pytest.raises(error):
                await peer.to_the_end()
            await edge.host.drain(20)
            assert len(edge.conversations) == 0

    async def test_call_too_many_and_it_is_counted(self) -> None:
        observer = Refusals()
        async with calling(observer=observer, max_calls=1) as edge:
            await Peer(edge.conversations).start()
            peer = Peer(edge.conversations)
            peer.say(Start())
            with pytest.raises(AtCapacityError) as refused:
                await peer.to_the_end()
            assert refused.value.retry_after_s > 0
            assert observer.codes == ["at_capacity"]

    async def test_tenants_calls_are_bounded_and_others_are_not_concerned(self) -> None:
        observer = Refusals()
        async with calling(observer=observer, max_calls_per_tenant=1) as edge:
            first = Peer(edge.conversations)
            await first.start()
            late = Peer(edge.conversations)
            late.say(Start())
            with pytest.raises(AtCapacityError, match="tenant"):
                await late.to_the_end()
            await Peer(edge.conversations, Identity("other")).start()
            first.say(End())
            await first.until(Ended)
            await Peer(edge.conversations).start()
            assert observer.codes == ["at_capacity"]

    async def test_id_that_is_open_is_not_shared_but_with_another_tenant(self) -> None:
        async with calling() as edge:
            await Peer(edge.conversations).start(call_id="c1")
            second = Peer(edge.conversations)
            second.say(Start(call_id="c1"))
            assert await code_of(second) == "wrong_state"
            await Peer(edge.conversations, Identity("other")).start(call_id="c1")

    async def test_while_the_model_is_loaded(self) -> None:
        observer = Refusals()

        async def never() -> Any:
            await asyncio.Event().wait()

        host = EngineHost(never, profile_name="test", observer=observer)
        host.start()
        async with calling() as edge:
            peer = Peer(Conversations(host, edge.config))
            peer.say(Start())
            with pytest.raises(LoadingError):
                await peer.to_the_end()
            assert observer.codes == ["loading"]
        await host.close()


class TestDrain:
    async def test_nothing_new_is_taken_and_what_is_there_goes_on_to_its_end(self) -> None:
        observer = Refusals()
        async with calling(observer=observer) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            draining = asyncio.create_task(edge.host.drain(20))
            await asyncio.sleep(0)
            late = Peer(edge.conversations)
            late.say(Start())
            with pytest.raises(DrainingError):
                await late.to_the_end()
            peer.say(Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            assert not draining.done()
            peer.say(End())
            await peer.until(Ended)
            assert await draining
            assert observer.codes == ["draining"]

    async def test_call_that_waits_to_be_resumed_is_waited_for(self) -> None:
        async with calling(resume_s=20) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            await peer.vanish()
            assert not await edge.host.drain(0.01)
            assert len(edge.conversations) == 1


class TestDeadEngine:
    async def test_in_mid_turn_is_the_last_that_the_peer_hears(self) -> None:
        backend = GatedBackend()

        async def load() -> Engine:
            return await Engine.start(backend, profile())

        host = EngineHost(load, profile_name="test")
        host.start()
        await host.wait_ready()
        conversations = Conversations(host, any_ports())
        try:
            peer, other = Peer(conversations), Peer(conversations)
            await peer.start()
            await other.start()
            backend.fatal = SystemExit()
            peer.say(Turn("t1", "Alo"))
            with pytest.raises(EngineDeadError):
                await peer.to_the_end()
            assert ends(peer.told) == [("t1", "error")]
            [error] = peer.all(CallError)
            assert error.code == "internal"
            other.say(Turn("t1", "Alo"))
            with pytest.raises(EngineDeadError):
                await other.to_the_end()
            assert await host.drain(20)
            assert len(conversations) == 0
        finally:
            await conversations.close()
            await host.close()


class TestBroken:
    async def test_what_nobody_has_foreseen_is_internal_and_ends_the_call(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise LookupError("secret detail")

        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            monkeypatch.setattr(CallSession, "partial", broken)
            peer.say(Partial("x"))
            assert await code_of(peer) == "internal"
            assert await edge.host.drain(20)
        assert "LookupError" in caplog.text

    async def test_transport_that_breaks_has_dropped_the_call(self) -> None:
        async def incoming() -> AsyncGenerator[ClientEvent, None]:
            yield Start(call_id="c1")
            await ready.wait()
            raise ConnectionResetError

        ready = asyncio.Event()
        async with calling() as edge:
            told = []
            async for event in edge.conversations.converse(incoming(), Identity("acme")):
                told.append(event)
                ready.set()
            [first] = told
            assert isinstance(first, Ready)
            peer = Peer(edge.conversations)
            peer.say(Start(call_id="c1", resume_token=first.resume_token or ""))
            assert await peer.until(Ready) == first


class TestSlowReader:
    @pytest.mark.parametrize("reply", ["Ab. " * 400, "Tamam."], ids=["of-a-long-reply", "of-many-refusals"])
    async def test_loses_its_call_and_nobody_else_is_held_up(self, reply: str) -> None:
        backend = FakeBackend(reply=lambda _: reply, context_per_call=4096)
        async with calling(backend) as edge:
            conversations = Conversations(edge.host, edge.config, patience_s=0.05)
            stalled = Peer(conversations, reads=False)
            stalled.say(Start(params=Params(max_tokens=2000, pacing="off")), *[Partial("x")] * 3)
            assert isinstance(await stalled.take(), CallError)
            while not isinstance(stalled.told[-1], Ready):
                await stalled.take()
            stalled.say(*([Turn("t1", "Anlat")] if len(reply) > 10 else [Confirm("t9")] * 300))
            healthy = Peer(edge.conversations)
            await healthy.start()
            healthy.say(Turn("t1", "Alo", params=Params(max_tokens=20)))
            await healthy.until(TurnEnd)
            async with asyncio.timeout(20):
                while len(conversations):
                    await asyncio.sleep(0.01)
            with pytest.raises(SlowConsumerError):
                await stalled.take()

    async def test_slow_one_that_goes_on_reading_loses_nothing(self) -> None:
        backend = FakeBackend(reply=lambda _: "Ab. " * 400, context_per_call=4096)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations, reads=False)
            peer.say(Start(params=Params(max_tokens=2000, pacing="off")))
            await peer.take()
            peer.say(Turn("t1", "Anlat"))
            while not isinstance(peer.told[-1], TurnEnd):
                await peer.take()
                await asyncio.sleep(0)
            assert [c.index for c in peer.all(Chunk)] == list(range(400))

    async def test_turn_that_waits_for_its_reader_still_ends_before_the_next_begins(self) -> None:
        backend = FakeBackend(reply=lambda p: "Peki." if "Dur" in p else "Ab. " * 400, context_per_call=4096)
        async with calling(backend) as edge:
            peer = Peer(edge.conversations, reads=False)
            peer.say(Start(params=Params(max_tokens=2000, pacing="off")))
            await peer.take()
            peer.say(Turn("t1", "Anlat"))
            [call] = edge.conversations._calls.values()
            assert call._outbox is not None
            async with asyncio.timeout(20):
                while len(call._outbox) < 256:
                    await asyncio.sleep(0.001)
            call.handle(Turn("t2", "Dur"))
            assert edge.host.engine is not None
            await prompts_made(edge.host.engine)
            await idle(edge.host.engine)  # the next reply is whole now
            peer.read()
            await peer.until(TurnEnd, 2)
            assert ends(peer.told) == [("t1", "interrupted"), ("t2", "stop")]
            turns = [e.turn_id for e in peer.told if isinstance(e, (Chunk, TurnEnd))]
            assert turns == ["t1"] * 257 + ["t2"] * 2
