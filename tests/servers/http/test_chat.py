"""Chat completions over a real socket, mostly with the stock ``openai`` client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.helpers import profile
from voice_llm.testing import FakeBackend

from .helpers import said, serving

pytestmark = pytest.mark.unit


async def test_the_openai_client_gets_a_whole_reply_with_its_usage() -> None:
    async with serving() as served:
        reply = await served.openai.chat.completions.create(
            model="test", messages=[{"role": "user", "content": "Merhaba, su hasarı kapsamda mı?"}]
        )
        choice = reply.choices[0]
        assert choice.message.content == "You said Merhaba, su hasarı kapsamda mı?. That makes 1."
        assert (choice.finish_reason, choice.message.role, reply.model) == ("stop", "assistant", "test")
        assert reply.usage is not None
        assert reply.usage.completion_tokens > 40
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
        assert reply._request_id is not None
        assert reply._request_id.startswith("req-")


async def test_the_openai_client_streams_the_same_reply_in_pieces_and_its_usage_last() -> None:
    async with serving() as served:
        stream = await served.openai.chat.completions.create(
            model="test", stream=True, stream_options={"include_usage": True},
            messages=[{"role": "user", "content": "günaydın"}],
        )  # fmt: skip
        pieces = [piece async for piece in stream]
    deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
    assert "".join(delta.content or "" for delta in deltas) == "You said günaydın. That makes 1."
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert len(deltas) > 5
    assert [p.choices[0].finish_reason for p in pieces if p.choices and p.choices[0].finish_reason] == ["stop"]
    assert pieces[-1].choices == []
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens > 10
    assert all(piece.usage is None for piece in pieces[:-1])
    assert len({piece.id for piece in pieces}) == 1


CLAIM: Any = {
    "type": "function",
    "function": {
        "name": "claim_status",
        "description": "Looks up a claim.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
    },
}
CALL = '<tool_call>{"name":"claim_status","arguments":{"number":"4711"}}</tool_call>'


def asking_twice(prompt: str) -> str:
    return "It is paid." if "</tool_response>" in prompt else f"One moment. {CALL}{CALL}"


async def test_a_tool_is_asked_for_and_its_result_answered_with_the_clients_own_types() -> None:
    async with serving(FakeBackend(reply=asking_twice)) as served:
        create = served.openai.chat.completions.create
        messages: list[Any] = [{"role": "user", "content": "Is claim 4711 paid?"}]
        first = await create(model="test", messages=messages, tools=[CLAIM], tool_choice="auto")
        asked = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert asked.content is not None
        assert asked.content.strip() == "One moment."
        assert [c.function.arguments for c in asked.tool_calls or [] if c.type == "function"] == [
            '{"number":"4711"}'
        ] * 2
        # What clients do: send the very object back, with all the empty fields it has.
        messages.append(asked.model_dump())
        messages += [
            {"role": "tool", "tool_call_id": c.id, "name": "claim_status", "content": "paid"}
            for c in asked.tool_calls or []
        ]
        second = await create(model="test", messages=messages, tools=[CLAIM])
        assert second.choices[0].message.content == "It is paid."
        assert second.choices[0].finish_reason == "stop"


async def test_streamed_tool_calls_carry_an_index_each_and_come_after_the_words() -> None:
    async with serving(FakeBackend(reply=asking_twice)) as served:
        stream = await served.openai.chat.completions.create(
            model="test", stream=True, tools=[CLAIM], messages=[{"role": "user", "content": "4711?"}]
        )
        choices = [piece.choices[0] async for piece in stream]
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 1]
    assert len({call.id for call in calls}) == 2
    assert [c.function.name for c in calls if c.function] == ["claim_status"] * 2
    assert choices[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_without_parallel_tool_calls_a_reply_asks_for_one_at_most(stream: bool) -> None:
    async with serving(FakeBackend(reply=asking_twice)) as served:
        body = said("4711?", tools=[CLAIM], parallel_tool_calls=False, stream=stream)
        async with served.http.post(served.url("/v1/chat/completions"), json=body) as response:
            assert (await response.text()).count("claim_status") == 1


async def test_a_named_tool_choice_is_forced_and_none_forbids_tools() -> None:
    made: list[Any] = []

    class Recording(FakeBackend):
        def new_sampler(self, params: Any, tags: Any = None) -> Any:
            made.append(tags)
            return super().new_sampler(params, tags)

    async with serving(Recording(reply=asking_twice)) as served:
        named = {"type": "function", "function": {"name": "claim_status"}}
        await served.ask(said("4711?", tools=[CLAIM], tool_choice=named))
        await served.ask(said("4711?", tools=[CLAIM], tool_choice="none"))
    assert (made[-2].at_once, made[-2].most) == (True, 1)
    assert made[-1] is None


async def test_sampling_fields_reach_the_sampler_and_formats_become_schemas() -> None:
    made: list[Any] = []

    class Recording(FakeBackend):
        def new_sampler(self, params: Any, tags: Any = None) -> Any:
            made.append(params)
            return super().new_sampler(params, tags)

    schema = {"type": "object", "properties": {"paid": {"type": "boolean"}}}
    async with serving(Recording()) as served:
        status, _ = await served.ask(
            said(
                "Hi.", temperature=0.5, top_p=0.5, top_k=7, min_p=0.125, presence_penalty=0.5, frequency_penalty=0.25,
                repetition_penalty=1.5, seed=3, stop="END", max_completion_tokens=20,
            )
        )  # fmt: skip
        assert status == 200
        params = made.pop()
        assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.5, 0.5, 7, 0.125)
        assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0.5, 0.25, 1.5)
        assert (params.seed, params.stop, params.max_tokens) == (3, ("END",), 20)
        for form, expected in (
            ({"type": "json_object"}, {"type": "object"}),
            ({"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}, schema),
            ({"type": "text"}, None),
        ):
            await served.ask(said("Hi.", response_format=form))
            assert made.pop().json_schema == expected
        await served.ask(said("Hi.", grammar='root ::= "yes"', stop=["a", "b"]))
        assert (made[-1].grammar, made[-1].stop) == ('root ::= "yes"', ("a", "b"))


async def test_a_reply_that_reaches_its_length_says_so() -> None:
    async with serving() as served:
        _, body = await served.ask(said("a long story", max_tokens=5))
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_come_apart_from_the_text(stream: bool) -> None:
    async with serving(FakeBackend(reply=lambda _: "<think>Hmm, claims.</think>It is paid.")) as served:
        create = served.openai.chat.completions.create
        if stream:
            pieces = [
                p async for p in await create(model="test", stream=True, messages=[{"role": "user", "content": "?"}])
            ]
            told: list[Any] = [piece.choices[0].delta for piece in pieces]
        else:
            told = [(await create(model="test", messages=[{"role": "user", "content": "?"}])).choices[0].message]
    assert "".join(d.content or "" for d in told) == "It is paid."
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in told).strip() == "Hmm, claims."


async def test_the_profiles_system_prompt_goes_before_the_requests_and_retrieved_text_after_it() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    async with serving(FakeBackend(reply=reply), served=profile(system_prompt="You are Ada.")) as served:
        await served.ask(
            {
                "rag_context": "Deductible: 150.",
                "messages": [
                    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                    {"role": "user", "content": "How much?", "rag_context": "Policy 7."},
                ],
            }
        )
        prompt = prompts[-1]
        assert prompt.index("You are Ada.\n\nBe brief.") < prompt.index("Deductible: 150.") < prompt.index("How much?")
        assert "Policy 7." in prompt
        await served.ask(said("Hi."))
        assert prompts[-1].startswith("<|im_start|>system\nYou are Ada.<|im_end|>")


async def test_requests_of_one_call_compute_only_what_is_new() -> None:
    async with serving() as served:
        messages = [{"role": "user", "content": "Is water damage covered? " * 20}]
        _, first = await served.ask({"messages": messages}, x_call_id="call-1")
        messages += [first["choices"][0]["message"], {"role": "user", "content": "And fire?"}]
        before = served.engine.backend.counters.decoded_tokens
        _, second = await served.ask({"messages": messages}, x_call_id="call-1")
        decoded = served.engine.backend.counters.decoded_tokens - before
    usage = second["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
    assert decoded <= 60 + usage["completion_tokens"]
    assert second["choices"][0]["message"]["content"] == "You said And fire?. That makes 2."


async def test_a_call_of_the_same_name_in_another_tenant_shares_nothing() -> None:
    async with serving() as served:
        messages = [{"role": "user", "content": "My secret is 4711. " * 20}]
        await served.ask({"messages": messages}, x_call_id="call-1", x_tenant_id="acme")
        _, other = await served.ask({"messages": messages}, x_call_id="call-1", x_tenant_id="rival")
        assert other["usage"]["prompt_tokens_details"]["cached_tokens"] < 30
        status, _ = await served.get("/v1/models", x_tenant_id="rival")
        assert status == 200
        for tenant, status in (("third", 404), ("rival", 204), ("rival", 404), ("acme", 204)):
            async with served.http.delete(served.url("/v1/calls/call-1"), headers={"x-tenant-id": tenant}) as gone:
                assert gone.status == status


async def test_what_is_served_is_listed_and_may_be_called_by_the_names_it_has() -> None:
    async with serving() as served:
        assert [model.id async for model in served.openai.models.list()] == ["test"]
        assert (await served.openai.models.retrieve("test")).owned_by == "voice_llm"
        for name in ("test", "fake"):
            assert (await served.ask(said("Hi.", model=name)))[0] == 200
        status, profiles = await served.get("/v1/profiles")
        assert (status, profiles["current_profile"]) == (200, "test")
        assert {"test", "smollm2_135m_demo"} <= set(profiles["profiles"])


async def test_another_profile_cannot_be_switched_to() -> None:
    async with serving() as served:
        for body, expected in (
            ({"profile": "test"}, (200, None)),
            ({"profile": "smollm2_135m_demo"}, (400, "profile")),
            ({"profile": "nonesuch"}, (404, None)),
            ({"profile": 1}, (400, "profile")),
            ({"profile": "test", "force": True}, (400, "force")),
        ):
            async with served.http.post(served.url("/v1/models/switch"), json=body) as response:
                answer = await response.json()
                assert (response.status, answer.get("error", {}).get("param")) == expected


async def test_a_reply_counts_as_heard_from_its_first_sentence_on_since_clients_cut_the_text(heard: list[str]) -> None:
    said = "Thank you for calling, madam. How can I help you?"
    async with serving(FakeBackend(reply=lambda _: said)) as served:
        await served.ask({"messages": [{"role": "user", "content": "?"}]})
        stream = await served.openai.chat.completions.create(
            model="test", stream=True, messages=[{"role": "user", "content": "?"}]
        )
        async for _ in stream:
            pass
    assert heard == ["Thank you for calling, madam. ", "How can I help you?"]  # a reply that is sent whole is not heard
