"""Contexts as Pipecat writes them become prompts that a local template takes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators.llm_context import LLMContext

from voice_llm.pipecat import VoiceLLMAdapter

pytestmark = pytest.mark.unit

_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


async def messages_of(messages: list[Any], **options: Any) -> list[dict[str, Any]]:
    adapter = VoiceLLMAdapter()
    return (await adapter.get_llm_invocation_params(LLMContext(messages), **options))["messages"]


async def test_the_system_instruction_comes_first() -> None:
    said = await messages_of([{"role": "user", "content": "Hi"}], system_instruction="Be brief.")
    assert said == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


async def test_developer_messages_become_the_callers() -> None:
    said = await messages_of([{"role": "developer", "content": "Greet."}, {"role": "user", "content": "Hi"}])
    assert [m["role"] for m in said] == ["user", "user"]


async def test_a_system_message_in_the_middle_becomes_the_callers() -> None:
    said = await messages_of(
        [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Now in Turkish."}],
        system_instruction="Brief.",
    )
    assert [m["role"] for m in said] == ["system", "user", "user"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_first_system_message_is_used_where_no_instruction_was_given() -> None:
    history = [{"role": "system", "content": "From the context."}, {"role": "user", "content": "Hi"}]
    assert (await messages_of(history))[0] == {"role": "system", "content": "From the context."}


async def test_irregular_white_space_of_transcripts_is_made_regular() -> None:
    said = await messages_of([{"role": "user", "content": "  What is  my \t balance?  "}])
    assert said[0]["content"] == "What is my balance?"


async def test_line_breaks_of_typed_text_stay() -> None:
    said = await messages_of([{"role": "user", "content": "one\n two"}])
    assert said[0]["content"] == "one\ntwo"


async def test_text_and_the_tool_call_after_it_are_one_message_as_sampled() -> None:
    said = await messages_of(
        [
            {"role": "assistant", "content": "Let me look."},
            {"role": "assistant", "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "IN_PROGRESS"},
        ]
    )
    assert said[0] == {"role": "assistant", "content": "Let me look.", "tool_calls": [_CALL]}
    assert [m["role"] for m in said] == ["assistant", "tool"]


async def test_the_context_itself_is_never_changed() -> None:
    context = LLMContext([{"role": "developer", "content": " Hi "}, {"role": "user", "content": "a  b"}])
    await VoiceLLMAdapter().get_llm_invocation_params(context)
    assert context.messages == [{"role": "developer", "content": " Hi "}, {"role": "user", "content": "a  b"}]


async def test_messages_for_this_service_alone_are_unwrapped() -> None:
    adapter = VoiceLLMAdapter()
    own = adapter.create_llm_specific_message({"role": "user", "content": "only here"})
    params = await adapter.get_llm_invocation_params(LLMContext([own]))
    assert params["messages"] == [{"role": "user", "content": "only here"}]


async def test_tools_are_written_as_openai_does() -> None:
    schema = FunctionSchema(name="look", description="Look up", properties={"n": {"type": "string"}}, required=["n"])
    context = LLMContext([{"role": "user", "content": "Hi"}], tools=ToolsSchema(standard_tools=[schema]))
    params = await VoiceLLMAdapter().get_llm_invocation_params(context)
    assert params["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Look up",
                "parameters": {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]},
            },
        }
    ]
    assert params["tool_choice"] == "auto"


def test_openai_is_never_imported() -> None:
    code = "import sys, voice_llm.pipecat; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
async def test_a_forced_call_is_forced_until_its_result_is_there(choice: Any) -> None:
    """Pipecat keeps the choice in the context, so that the reply to the result would be another call, without end."""
    schema = FunctionSchema(name="look", description="", properties={}, required=[])
    asked: list[Any] = [{"role": "user", "content": "Hi"}]
    answered = [
        *asked,
        {"role": "assistant", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    choices = []
    for messages in (asked, answered):
        context = LLMContext(messages, tools=[schema], tool_choice=choice)
        choices.append((await VoiceLLMAdapter().get_llm_invocation_params(context))["tool_choice"])
    assert choices == [choice, "auto"]


async def test_no_choice_stays_none_after_a_result() -> None:
    schema = FunctionSchema(name="look", description="", properties={}, required=[])
    messages: list[Any] = [{"role": "tool", "tool_call_id": "c1", "content": "1"}]
    context = LLMContext(messages, tools=[schema], tool_choice="none")
    assert (await VoiceLLMAdapter().get_llm_invocation_params(context))["tool_choice"] == "none"


async def test_what_no_template_takes_is_left_out_and_told() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Look at"}, image, {"type": "text", "text": "this"}]},
        {"role": "narrator", "content": "Once."},
        {"role": "user", "content": "and?", "name": "ada"},
    ]
    params = await VoiceLLMAdapter().get_llm_invocation_params(LLMContext(messages))
    assert params["messages"] == [{"role": "user", "content": "Look at this"}, {"role": "user", "content": "and?"}]
    assert len(params["problems"]) == 2
