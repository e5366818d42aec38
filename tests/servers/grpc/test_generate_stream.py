"""GenerateStream: a client made from the contract's table holds conversations, and each option has its effect."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.runtime.helpers import GatedBackend, idle, profile
from tests.servers.grpc import wire
from tests.servers.grpc.gateway import gateway_to, read, serving, trailer
from tests.servers.helpers import any_ports, edge_around
from voice_llm.config import SamplingParams, StructuralTags
from voice_llm.errors import BackendError
from voice_llm.observer import Observer
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import generate_stream
from voice_llm.servers.grpc.told import ToldTurns
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend, FakeSampler

pytestmark = pytest.mark.unit

RAG = "Water damage is covered up to 5,000 euros."


class Reader(FakeBackend):
    """Keeps the prompts that it answers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(reply=self._answer, **options)
        self.prompts: list[str] = []

    @property
    def last_prompt(self) -> str:
        return self.prompts[-1].replace("<|im_start|>", "[").replace("<|im_end|>", "]")

    def _answer(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return "Yes."


async def test_client_made_from_the_table_gets_text_and_then_details() -> None:
    async with gateway_to() as gateway:
        reply = await gateway.ask("Merhaba, nasılsın?")
    assert reply.text == "You said Merhaba, nasılsın?. That makes 1."
    assert reply.reason == "stop"
    assert reply.completion_tokens == len(reply.text.encode()) + 1
    assert reply.prompt_tokens > len("Merhaba, nasılsın?")


async def test_tokens_are_whole_characters() -> None:
    said = "Çığ düştü, işte İstanbul'da"
    async with gateway_to(FakeBackend(reply=lambda _: said)) as gateway:
        reply = await gateway.ask("?")
    assert len(reply.tokens) > 10
    assert "".join(token.decode() for token in reply.tokens) == said


@pytest.mark.parametrize(
    ("language", "heading", "rag", "question"),
    [
        ("en", "Instructions for this call:", "Information for this question:", "Question:"),
        ("tr", "Bu görüşme için talimatlar:", "Bu soru için bilgiler:", "Soru:"),
    ],
)
async def test_prompt_is_the_profiles_and_the_requests_with_rag_in_the_users_turn(
    language: str, heading: str, rag: str, question: str
) -> None:
    served = profile(language=language, system_prompt="You are Ada.")
    async with gateway_to(backend := Reader(), served=served) as gateway:
        await gateway.ask("Is it covered?", system_prompt="Be brief.", rag_context=RAG)
    assert backend.last_prompt == (
        f"[system\nYou are Ada.\n\n{heading}\nBe brief.]\n[user\n{rag}\n{RAG}\n\n{question}\nIs it covered?]\n"
    )


async def test_own_rag_prompt_is_filled_in_once_and_placeholders_in_texts_stay_texts() -> None:
    served = profile(rag_prompt="<{{rag_context}}|{{user_prompt}}|{{other}}>")
    async with gateway_to(backend := Reader(), served=served) as gateway:
        await gateway.ask("what is {{rag_context}}?", rag_context="see {{user_prompt}} \\1")
    assert backend.last_prompt == "[user\n<see {{user_prompt}} \\1|what is {{rag_context}}?|{{other}}>]\n"


async def test_empty_rag_context_leaves_the_bare_question() -> None:
    async with gateway_to(backend := Reader()) as gateway:
        await gateway.ask("Hello?", rag_context=" ")
    assert backend.last_prompt == "[user\nHello?]\n"


async def test_second_rag_turn_of_a_call_decodes_only_what_is_new() -> None:
    """The history repeats bare texts; the sequence holds them filled in."""
    backend = FakeBackend()
    async with gateway_to(backend, served=profile(system_prompt="You are Ada.")) as gateway:
        first = await gateway.ask("Is it covered?", rag_context=RAG, call_id="c1")
        before = backend.counters.decoded_tokens
        history = [("user", "Is it covered?"), ("assistant", first.text)]
        second = await gateway.ask("And fire?", rag_context="Fire too.", call_id="c1", history=history)
        decoded = backend.counters.decoded_tokens - before
    assert second.text.endswith("That makes 2.")
    new = "\n<|user\nInformation for this question:\nFire too.\n\nQuestion:\nAnd fire?|\n<|assistant\n"
    # What was generated is decoded but for its last token.
    assert decoded - second.completion_tokens <= len(new) + 2
    assert second.prompt_tokens > first.prompt_tokens + first.completion_tokens


async def test_history_without_a_call_id_stays_bare() -> None:
    async with gateway_to(backend := Reader()) as gateway:
        await gateway.ask("Is it covered?", rag_context=RAG)
        await gateway.ask("And fire?", history=[("user", "Is it covered?"), ("assistant", "Yes.")])
    assert backend.last_prompt == "[user\nIs it covered?]\n[assistant\nYes.]\n[user\nAnd fire?]\n"


async def test_calls_of_the_same_id_of_two_tenants_know_nothing_of_each_other() -> None:
    async with gateway_to(backend := Reader()) as gateway:
        await gateway.ask("Is it covered?", rag_context=RAG, call_id="c1", tenant="acme")
        await gateway.ask("And?", call_id="c1", tenant="other", history=[("user", "Is it covered?")])
    assert RAG in backend.prompts[0]
    assert backend.last_prompt == "[user\nIs it covered?]\n[user\nAnd?]\n"


async def test_what_is_remembered_of_a_call_includes_its_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ToldTurns()
    monkeypatch.setattr(generate_stream, "ToldTurns", lambda: told)
    async with gateway_to(Reader()) as gateway:
        await gateway.ask("Hm?", call_id="c1")
        assert told.chars == 2 * len("Hm?") + len("Yes.")


async def test_refused_question_is_not_part_of_the_call() -> None:
    async with gateway_to(backend := Reader(context_per_call=600)) as gateway:
        error = await gateway.refusal("Hm?", rag_context="long " * 400, call_id="c1", params={"max_new_tokens": 50})
        await gateway.ask("So?", history=[("user", "Hm?")], call_id="c1", params={"max_new_tokens": 50})
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.INVALID_ARGUMENT, "context_too_long")
    assert backend.last_prompt == "[user\nHm?]\n[user\nSo?]\n"


@pytest.mark.parametrize(
    ("fields", "text", "code"),
    [
        ({"user_prompt": " "}, "user_prompt", "invalid_request"),
        ({"tenant": None}, "x-tenant-id", "invalid_request"),
        ({"tenant": ""}, "x-tenant-id", "invalid_request"),
        ({"call_id": "x" * 129}, "x-call-id", "invalid_request"),
        ({"params": {"stop_sequences": ["x"] * 17}}, "stop_sequences has 17 strings", "invalid_request"),
        ({"history": [("system", "x")]}, "history[0].role must be one of user, assistant, tool", "invalid_request"),
        ({"history": [("", "x")]}, "history[0].role", "invalid_request"),
        ({"history": [("user", "x")] * 6}, "history has 6 messages; allowed are 5", "invalid_request"),
        ({"params": {"max_new_tokens": 0}}, "max_new_tokens must be between 1 and 100", "invalid_request"),
        ({"params": {"max_new_tokens": 101}}, "max_new_tokens must be between 1 and 100", "invalid_request"),
        ({"params": {"temperature": -1.0}}, "temperature", "invalid_request"),
        ({"params": {"top_p": 1.5}}, "top_p", "invalid_request"),
        ({"params": {"top_k": -2}}, "top_k", "invalid_request"),
        ({"params": {"repetition_penalty": 0.0}}, "repetition_penalty", "invalid_request"),
        ({"params": {"stop_sequences": [""]}}, "stop", "invalid_request"),
        ({"params": {"engine_specific_params": {"mirostat": 2}}}, "engine_specific_params.mirostat", "invalid_request"),
        ({"params": {"engine_specific_params": {"min_p": None}}}, "engine_specific_params.min_p", "invalid_request"),
        ({"params": {"engine_specific_params": {"min_p": "much"}}}, "min_p must be a number", "invalid_request"),
        ({"params": {"engine_specific_params": {"json_schema": "{}"}}}, "json_schema must be", "invalid_request"),
        ({"params": {"engine_specific_params": {"grammar": "x ::= y"}}}, "no root rule", "invalid_request"),
        ({"lora_adapter_id": "warm-voice"}, "lora_adapter_id", "not_found"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], text: str, code: str) -> None:
    async with gateway_to(config=any_ports(max_messages=5, max_reply_tokens=100)) as gateway:
        error = await gateway.refusal(**fields)
    status = grpc.StatusCode.NOT_FOUND if code == "not_found" else grpc.StatusCode.INVALID_ARGUMENT
    assert (error.code(), trailer(error, "error-code")) == (status, code)
    assert text in (error.details() or "")


async def test_long_message_of_an_error_still_fits_into_the_status() -> None:
    async with gateway_to() as gateway:
        error = await gateway.refusal(params={"engine_specific_params": {"ş😀" * 5000: 1}})
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith("engine_specific_params.ş😀")


class Drawing(FakeBackend):
    """Keeps how replies are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.params: list[SamplingParams] = []

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> FakeSampler:
        self.params.append(params)
        return super().new_sampler(params, tags)


async def test_parameters_reach_the_sampler() -> None:
    specific = {"min_p": 0.25, "presence_penalty": 1, "frequency_penalty": 0.5, "json_schema": {"minimum": 3}}
    params = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "repetition_penalty": 1.5, "seed": -(2**62) - 1}
    async with gateway_to(backend := Drawing()) as gateway:
        await gateway.ask("Hm?", params={**params, "engine_specific_params": specific})
    (found,) = backend.params
    assert {name: getattr(found, name) for name in (*params, *specific)} == {**params, **specific}
    assert found.json_schema is not None
    assert isinstance(found.json_schema["minimum"], int)


async def test_length_and_stop_sequences_end_the_reply() -> None:
    async with gateway_to() as gateway:
        short = await gateway.ask("Hello?", params={"max_new_tokens": 3})
        stopped = await gateway.ask("Hello?", params={"stop_sequences": ["Hello"]})
    assert (short.text, short.reason, short.completion_tokens) == ("You", "length", 3)
    assert (stopped.text.strip(), stopped.reason) == ("You said", "stop")


async def test_profiles_reply_length_holds_where_the_request_says_nothing() -> None:
    async with gateway_to(served=profile(sampling={"max_tokens": 5})) as gateway:
        assert (await gateway.ask("Hello?")).completion_tokens == 5


async def test_cancel_stops_the_generation_and_the_call_can_go_on() -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge, serving(edge) as gateway:
        engine = await edge.host.wait_ready()
        backend.hold(after_tokens=4)
        reply = gateway.start("Tell me much.", call_id="c1")
        first = await anext(aiter(reply))
        assert first.token == b"Y"
        await backend.held()
        reply.cancel()
        await not_busy(edge)
        backend.release()
        await idle(engine)
        assert backend.counters.sampled_tokens <= 6
        again = await gateway.ask("Tell me more.", call_id="c1", history=[("user", "Tell me much.")])
    assert again.text == "You said Tell me more.. That makes 2."


async def test_deadline_stops_the_generation() -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge, serving(edge) as gateway:
        engine = await edge.host.wait_ready()
        backend.hold(after_tokens=4)
        error = await gateway.refusal("Tell me much.", timeout_s=0.5, call_id="c1")
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await not_busy(edge)
        backend.release()
        await idle(engine)
        assert backend.counters.sampled_tokens <= 6


async def test_cancel_during_a_long_prefill_frees_the_sequence_within_a_step() -> None:
    backend = GatedBackend(context_per_call=8192, max_batch_tokens=64)
    async with edge_around(backend) as edge, serving(edge) as gateway:
        engine = await edge.host.wait_ready()
        before = len(backend.batches)
        backend.hold()
        reply = gateway.start("x" * 2000, call_id="c1")
        await backend.held()
        reply.cancel()
        await not_busy(edge)
        backend.release()
        await idle(engine)
        assert len(backend.batches) - before <= 2


async def not_busy(edge: Edge) -> None:
    """Wait until no request uses the engine."""
    async with asyncio.timeout(20):
        while edge.host.lent:
            await asyncio.sleep(0.005)


async def test_second_request_of_a_busy_call_is_aborted() -> None:
    backend = GatedBackend()
    async with gateway_to(backend) as gateway:
        backend.hold(after_tokens=2)
        reply = gateway.start("Hello?", call_id="c1")
        await anext(aiter(reply))
        error = await gateway.refusal("Hello?", call_id="c1")
        backend.release()
        await read_rest(reply)
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.ABORTED, "call_busy")


async def read_rest(reply: Any) -> None:
    async for _ in reply:
        pass


class Noted(Observer):
    """Keeps what it is told of requests."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.ended: list[tuple[str, str]] = []

    def call_refused(self, code: str) -> None:
        self.refused.append(code)

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        assert took_s >= 0
        self.ended.append((interface, code))


def assert_at_capacity(error: grpc.aio.AioRpcError, observer: Noted) -> None:
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "at_capacity")
    assert int(trailer(error, "retry-after-ms") or 0) > 0
    assert observer.refused == ["at_capacity"]


async def test_full_engine_says_when_to_come_back() -> None:
    async with edge_around(observer=(observer := Noted()), max_calls=1) as edge, serving(edge) as gateway:
        async with (await edge.host.wait_ready()).open_call():
            error = await gateway.refusal("Hello?")
        assert (await gateway.ask("Hello?")).reason == "stop"
    assert_at_capacity(error, observer)


async def test_tenant_with_as_many_requests_as_it_may_have_is_told_so_and_others_are_served() -> None:
    backend = GatedBackend()
    limits = any_ports(max_calls_per_tenant=1)
    async with gateway_to(backend, observer=(observer := Noted()), config=limits) as gateway:
        backend.hold(after_tokens=2)
        reply = gateway.start("Hello?", call_id="c1")
        await anext(aiter(reply))
        error = await gateway.refusal("Hello?", call_id="c2")
        backend.release()
        assert (await gateway.ask("Hello?", tenant="other")).reason == "stop"
        await read(reply)
    assert_at_capacity(error, observer)


async def test_loading_and_draining_are_unavailable_with_a_hint() -> None:
    loaded = asyncio.Event()

    async def load() -> Any:
        await loaded.wait()
        raise RuntimeError("never")

    host = EngineHost(load, profile_name="test")
    host.start()
    edge = Edge.around(host, any_ports())
    async with serving(edge) as gateway:
        loading = await gateway.refusal()
        await host.drain(0)
        draining = await gateway.refusal()
    await edge.close()
    await host.close()
    for error, code in ((loading, "loading"), (draining, "draining")):
        assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.UNAVAILABLE, code)
        assert int(trailer(error, "retry-after-ms") or 0) > 0


async def test_internal_error_says_internal_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge, serving(edge) as gateway:
        backend.hold(after_tokens=2)
        reply = gateway.start("Hello?")
        await backend.held()
        backend.fail_next(BackendError("tensor 7 is broken"))
        backend.release()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_rest(reply)
        assert (await gateway.ask("Hello?")).reason == "stop"
    assert (caught.value.code(), trailer(caught.value, "error-code")) == (grpc.StatusCode.INTERNAL, "internal")
    assert "tensor" not in repr(caught.value)


async def test_bytes_that_are_no_message_are_refused_and_nothing_of_them_is_told() -> None:
    async with gateway_to() as gateway:
        raw: Any = gateway.channel.unary_stream(wire.METHOD)
        for garbage in (b"\xff\xff\xff", b"\x12\x02\xff\xfe"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read_rest(raw(garbage, metadata=[("x-tenant-id", "acme")]))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "GenerateStreamRequest" in (caught.value.details() or "")


async def test_message_that_is_too_large_is_resource_exhausted() -> None:
    async with gateway_to(config=any_ports(max_request_bytes=2000)) as gateway:
        error = await gateway.refusal("x" * 3000)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await gateway.ask("Hello?")).reason == "stop"


async def test_trace_is_passed_on_and_the_end_is_told_to_the_observer() -> None:
    async with gateway_to(observer=(observer := Noted())) as gateway:
        reply = gateway.start("Hello?", metadata=[("x-trace-id", "trace-7"), ("x-span-id", "span-3")])
        await read(reply)
        trailers = dict(await reply.trailing_metadata())
        error = await gateway.refusal("")
    assert (trailers["x-trace-id"], trailers["x-span-id"]) == ("trace-7", "span-3")
    assert trailer(error, "traceparent")
    assert observer.ended == [("grpc", "ok"), ("grpc", "invalid_request")]


async def test_reply_counts_as_heard_from_its_first_sentence_on_since_gateways_cut_the_text(heard: list[str]) -> None:
    said = "Hoş geldiniz efendim, buyurun. Size nasıl yardımcı olabilirim?"
    async with gateway_to(FakeBackend(reply=lambda _: said)) as gateway:
        await gateway.ask("?")
    assert heard == ["Hoş geldiniz efendim, buyurun. ", "Size nasıl yardımcı olabilirim?"]
