from __future__ import annotations

import pytest

from voice_llm.prompt import ENGLISH, TURKISH, Headings, Message, arrange

pytestmark = pytest.mark.unit


def test_the_calls_context_ends_the_system_message() -> None:
    laid = arrange([Message("system", "Be brief."), Message("user", "Hi")], "Open 9 to 5.")
    assert laid == (Message("system", "Be brief.\n\nInformation for this call:\nOpen 9 to 5."), Message("user", "Hi"))


@pytest.mark.parametrize("system", [[], [Message("system", "")]])
def test_without_a_system_prompt_the_context_is_the_system_message(system: list[Message]) -> None:
    laid = arrange([*system, Message("user", "Hi")], "Open 9 to 5.")
    assert laid[0] == Message("system", "Information for this call:\nOpen 9 to 5.")
    assert laid[1] == Message("user", "Hi")


def test_a_turns_context_stands_before_its_question_only() -> None:
    chat = [Message("user", "Saat?", "Dokuzda açılır."), Message("assistant", "Dokuzda."), Message("user", "Peki.")]
    assert arrange(chat, None, TURKISH) == (
        Message("user", "Bu soru için bilgiler:\nDokuzda açılır.\n\nSoru:\nSaat?"),
        Message("assistant", "Dokuzda."),
        Message("user", "Peki."),
    )


def test_a_profile_can_word_the_headings() -> None:
    headings = Headings(call_context="## Facts")
    assert arrange([Message("user", "Hi")], "x", headings)[0].content == "## Facts\nx"


def test_nothing_retrieved_changes_nothing() -> None:
    chat = (Message("system", ""), Message("user", "Hi"))
    assert arrange(chat, None, ENGLISH) == arrange(chat, "", ENGLISH) == chat
