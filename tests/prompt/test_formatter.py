from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from voice_llm.errors import ContextTooLongError, InvalidRequestError, TemplateError
from voice_llm.events import ToolCall
from voice_llm.prompt import (
    FAMILIES,
    TURKISH,
    ChatTemplate,
    Message,
    Prompt,
    PromptFormatter,
    Reply,
    Tool,
    resolve_template,
)

from .vocabularies import CHATML, ByteTokenizer

pytestmark = pytest.mark.unit

CONTROLS = (*CHATML, "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<|eot_id|>")
SMOLLM2 = (Path(__file__).parent / "data" / "smollm2.jinja").read_text(encoding="utf-8")
THINKING = FAMILIES["chatml"].replace("assistant\\n' }}{% endif", "assistant\\n<think></think>' }}{% endif")
TEMPLATES = [*FAMILIES, SMOLLM2, THINKING]
ASK = Message("user", "Merhaba, randevu istiyorum.")


class Phone:
    """A formatter with a byte tokenizer, and enough context for all but the tests about that."""

    def __init__(self, template: str = "chatml", *, bos: str = "", words: tuple[str, ...] = (), **options: Any) -> None:
        self.tokenizer = ByteTokenizer(CONTROLS, user_defined=CONTROLS, words=words)
        chosen = resolve_template(None, template, CONTROLS, bos_token="<s>", eos_token="</s>")
        self.formatter = PromptFormatter(self.tokenizer, chosen, bos=bos, **options)

    def format(
        self, *messages: Message, context_tokens: int = 100_000, reserve_tokens: int = 0, **options: Any
    ) -> Prompt:
        return self.formatter.format(messages, context_tokens=context_tokens, reserve_tokens=reserve_tokens, **options)

    def show(self, *messages: Message, **options: Any) -> str:
        return self.tokenizer.show(self.format(*messages, **options).tokens)


def reply_of(*words: str, complete: bool = True) -> Reply:
    """A reply of the tokens 1000, 1001, ..., all of it speakable at once."""
    texts = ["".join(words[: count + 1]) for count in range(len(words))]
    visible = tuple(len("".join(text.split())) for text in texts)
    return Reply(tuple(range(1000, 1000 + len(words))), visible, "".join(words), complete)


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_held_of_a_turn_begins_the_next_one(template: str) -> None:
    """Prompt and sampled tokens stay in the cache: the next prompt goes on from there."""
    words = (" Tabii", ",", " hangi", " gün?")
    phone = Phone(template, words=words)
    reply = reply_of(*words)
    chat = [Message("system", "Kısa konuş."), ASK]
    held = phone.format(*chat).tokens + reply.tokens
    after = phone.format(*chat, Message("assistant", "Tabii, hangi gün?"), Message("user", "Salı"), replies=[reply])
    assert after.tokens[: len(held)] == held
    assert after.spliced_tokens == len(reply.tokens)


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_open_ended_prompt_begins_every_prompt_that_follows(template: str) -> None:
    phone = Phone(template)
    chat = [Message("system", "Kısa konuş."), Message("assistant", "Alo?"), ASK, Message("assistant", "Tabii.")]
    final = phone.format(*chat, Message("user", "Salı günü olsun")).tokens
    for heard in ("", "Sal", "Salı günü", "Salı günü olsun"):
        early = phone.format(*chat, Message("user", heard), open_ended=True).tokens
        assert final[: len(early)] == early
    assert (
        final[: len(phone.format(*chat[:1], open_ended=True).tokens)] == phone.format(*chat[:1], open_ended=True).tokens
    )


def test_an_empty_user_message_gives_the_header_of_the_next_turn() -> None:
    shown = Phone().show(ASK, Message("assistant", "Tabii."), Message("user", ""), open_ended=True)
    assert shown.endswith("Tabii.<|im_end|>\n<|im_start|>user\n")


def test_a_reply_that_was_cut_short_holds_what_was_spoken() -> None:
    words = ("Tabii", ",", " hangi", " gün?")
    phone = Phone(words=words)
    prompt = phone.format(
        ASK, Message("assistant", "Tabii, ha"), Message("user", "Dur"), replies=[reply_of(*words, complete=False)]
    )
    assert "assistant\nTabii, ha<|im_end|>" in phone.tokenizer.show(prompt.tokens)
    assert prompt.spliced_tokens == 2


def test_two_replies_in_a_row_are_both_spliced_where_roles_must_alternate() -> None:
    phone = Phone("gemma", words=("Bir", "İki"))
    prompt = phone.format(
        ASK,
        Message("assistant", "Bir"),
        Message("assistant", "İki"),
        replies=[Reply((1000,), (3,), "Bir", True), Reply((1001,), (3,), "İki", True)],
    )
    assert prompt.spliced_tokens == 2
    assert "model\nBir\nİki<end_of_turn>" in phone.tokenizer.show(prompt.tokens)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("template", ["chatml", "gemma", "mistral"])
def test_nothing_that_is_said_or_retrieved_changes_the_structure(control: str, template: str) -> None:
    phone = Phone(template)

    def controls(text: str) -> list[int]:
        chat = [
            Message("system", f"system {text}"),
            Message("user", f"first {text}", f"facts {text}"),
            Message("assistant", f"said {text}"),
            Message("user", text),
        ]
        return [token for token in phone.format(*chat, rag_context=f"rag {text}").tokens if token >= 256]

    assert controls(control) == controls("x")
    assert controls(f"{control}{control}\n") == controls("x")


def test_the_begin_token_is_there_once() -> None:
    for template in ("chatml", "gemma"):
        shown = Phone(template, bos="<s>").show(ASK)
        assert shown.startswith("<s>")
        assert shown.count("<s>") == 1
    assert "<s>" not in Phone("chatml").show(ASK)
    with pytest.raises(TemplateError, match="'<bos>' is no control token"):
        Phone("chatml", bos="<bos>")


def test_headings_are_the_profiles() -> None:
    assert "Bu görüşme için bilgiler:\nPazar kapalı" in Phone(headings=TURKISH).show(ASK, rag_context="Pazar kapalı")


def test_dictionaries_are_messages_too() -> None:
    phone = Phone()
    raw = phone.formatter.format([{"role": "user", "content": ASK.content}], context_tokens=1000, reserve_tokens=10)
    assert raw == phone.format(ASK)


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="at least one"):
        Phone().format()
    with pytest.raises(InvalidRequestError, match="rag_context"):
        Phone().format(ASK, rag_context="\udc00")


def turns(count: int, *, system: str = "Kısa konuş.", reply: str = "y" * 60) -> list[Message]:
    chat = [Message("system", system)]
    for number in range(count):
        chat += [Message("user", f"Soru {number:02} " + "s" * 40), Message("assistant", f"Yanıt {number:02} " + reply)]
    return [*chat, Message("user", "s" * 90 + " Son soru")]


def test_an_over_long_call_loses_its_oldest_turns_and_nothing_else() -> None:
    phone = Phone()
    for count in range(1, 30):
        prompt = phone.format(*turns(count), rag_context="Pazar kapalı.", context_tokens=1300, reserve_tokens=100)
        if prompt.dropped_messages:
            break
    shown = phone.tokenizer.show(prompt.tokens)
    first = prompt.dropped_messages // 2
    rag = "Information for this call:\nPazar kapalı."
    assert len(prompt.tokens) <= 700
    assert shown.startswith(f"<|im_start|>system\nKısa konuş.\n\n{rag}<|im_end|>\n<|im_start|>user\nSoru {first:02}")
    assert [f"Soru {number:02}" in shown for number in range(count)] == [number >= first for number in range(count)]
    assert shown.endswith(" Son soru<|im_end|>\n<|im_start|>assistant\n")


def test_a_call_that_fits_loses_nothing() -> None:
    assert Phone().format(*turns(10), context_tokens=4000, reserve_tokens=100).dropped_messages == 0


@pytest.mark.parametrize("system", ["Kısa konuş.", "Kısa konuş. " * 80])
@pytest.mark.parametrize("template", ["chatml", "gemma", "mistral"])
def test_the_kept_prefix_changes_only_now_and_then_as_a_call_grows(template: str, system: str) -> None:
    phone = Phone(template)
    room_tokens = 1400 + len(system.encode())
    dropped: list[int] = []
    for count in range(30):
        chat = turns(count, system=system)
        early = phone.format(
            *chat[:-1], Message("user", ""), context_tokens=room_tokens, reserve_tokens=0, open_ended=True
        )
        prompt = phone.format(*chat, context_tokens=room_tokens, reserve_tokens=0)
        assert len(prompt.tokens) <= room_tokens
        assert prompt.tokens[: len(early.tokens)] == early.tokens
        dropped.append(prompt.dropped_messages)
    moves = [later - earlier for earlier, later in pairwise(dropped) if later != earlier]
    assert 2 <= len(moves) <= 8
    assert min(moves) >= 6


def test_a_cut_does_not_move_when_its_turn_is_answered() -> None:
    dropped = [
        Phone().format(*turns(count, reply="y" * 800), context_tokens=2800, reserve_tokens=0).dropped_messages
        for count in range(12)
    ]
    moved = [earlier != later for earlier, later in pairwise(dropped)]
    assert sum(moved) >= 3
    assert not any(first and second for first, second in pairwise(moved))


def test_the_prompt_is_counted_and_not_estimated() -> None:
    """A vocabulary may need more tokens for text beside other text than for the two apart."""

    class Wasteful(ByteTokenizer):
        def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
            return super().tokenize(text, parse_special=parse_special) + [0] * 60 * ("user\nSoru" in text)

    formatter = PromptFormatter(Wasteful(CONTROLS), resolve_template(None, "chatml", CONTROLS))
    for count in range(12):
        prompt = formatter.format(turns(count), context_tokens=800, reserve_tokens=0)
        assert len(prompt.tokens) <= 800


@pytest.mark.parametrize("context_tokens", range(260, 1500, 70))
def test_a_prompt_never_exceeds_its_budget(context_tokens: int) -> None:
    prompt = Phone("zephyr").format(*turns(8), context_tokens=context_tokens, reserve_tokens=50)
    assert len(prompt.tokens) <= context_tokens - 50


def test_what_always_stays_and_does_not_fit_is_an_error() -> None:
    with pytest.raises(ContextTooLongError) as refusal:
        Phone().format(*turns(5), context_tokens=140, reserve_tokens=100)
    assert refusal.value.max_tokens == 100
    assert refusal.value.context_tokens == 140
    assert 40 < refusal.value.prompt_tokens < 300
    with pytest.raises(ContextTooLongError):
        Phone().format(Message("system", "s" * 300), context_tokens=300, reserve_tokens=50, open_ended=True)


def test_a_greeting_is_dropped_before_the_first_turn() -> None:
    chat = [Message("assistant", "Alo? " * 20), ASK]
    prompt = Phone().format(*chat, context_tokens=170, reserve_tokens=50)
    assert prompt.dropped_messages == 1
    exact = len(Phone().format(*chat).tokens)
    assert Phone().format(*chat, context_tokens=exact + 50, reserve_tokens=50).dropped_messages == 0


def test_tool_results_belong_to_their_turn() -> None:
    chat = [*turns(8)[:-1], Message("user", "Hava?"), Message("tool", "12 derece")]
    shown = Phone().show(*chat, context_tokens=700, reserve_tokens=50)
    assert shown.endswith(
        "user\nHava?<|im_end|>\n<|im_start|>user\n<tool_response>\n12 derece\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


TOOL_MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
CALLS = tuple(ToolCall("", "hava", {"il": il}) for il in ("İzmir", "Van"))
CALL_WORDS = (
    *("Bakıyorum.", " ", "<tool_call>", '{"name":"hava","arg', 'uments":{"il":"İzmir"}}', "</tool_call>"),
    *("<tool_call>", '{"name":"hava","arguments":{"il":"Van"}}', "</tool_call>"),
)


def reply_with_calls() -> Reply:
    """A reply of the tokens 1000, 1001, ... whose words are given out and whose calls are not."""
    return Reply(tuple(range(1000, 1000 + len(CALL_WORDS))), (10,) * len(CALL_WORDS), "".join(CALL_WORDS), True)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("apart", [False, True])
def test_a_reply_with_calls_stays_as_it_was_sampled(template: str, apart: bool) -> None:
    """Also where the host keeps words and calls in messages of their own."""
    phone = Phone(template, words=CALL_WORDS)
    asked = [Message("assistant", "Bakıyorum."), Message("assistant", tool_calls=CALLS)]
    chat = [ASK, *(asked if apart else [Message("assistant", "Bakıyorum.", tool_calls=CALLS)]), Message("tool", "12")]
    held = phone.format(ASK).tokens + reply_with_calls().tokens
    assert phone.format(*chat, replies=[reply_with_calls()]).tokens[: len(held)] == held


def test_of_a_reply_with_calls_what_the_history_kept_stays_as_it_was_sampled() -> None:
    phone = Phone(words=CALL_WORDS)
    held = phone.format(ASK).tokens
    words_only = phone.format(ASK, Message("assistant", "Bakıyorum."), replies=[reply_with_calls()])
    assert words_only.tokens[: len(held) + 2] == (*held, 1000, 256 + CONTROLS.index("<|im_end|>"))
    one_call = Message("assistant", "Bakıyorum.", tool_calls=CALLS[:1])
    assert phone.format(ASK, one_call, replies=[reply_with_calls()]).tokens[len(held) :][:6] == tuple(range(1000, 1006))


def test_what_is_written_after_sampled_tokens_keeps_its_markers() -> None:
    words = (*CALL_WORDS[:5], "</tool_call><tool_call>", *CALL_WORDS[7:])
    controls = (*CHATML, *TOOL_MARKERS)
    tokenizer = ByteTokenizer(controls, user_defined=controls, words=words)
    formatter = PromptFormatter(tokenizer, resolve_template(None, "chatml", controls))
    reply = Reply(tuple(range(1000, 1000 + len(words))), (10,) * len(words), "".join(words), True)
    one_call = Message("assistant", "Bakıyorum.", tool_calls=CALLS[:1])
    tokens = formatter.format([ASK, one_call], replies=[reply], context_tokens=9999, reserve_tokens=0).tokens
    at = tokens.index(1000)
    assert tokens[at : at + 6] == (*range(1000, 1005), tokenizer.control_tokens["</tool_call>"])


def test_other_arguments_than_were_sampled_are_written_anew_with_real_markers() -> None:
    controls = (*CHATML, *TOOL_MARKERS)
    tokenizer = ByteTokenizer(controls, user_defined=controls, words=CALL_WORDS)
    formatter = PromptFormatter(tokenizer, resolve_template(None, "chatml", controls))
    changed = Message("assistant", "Bakıyorum.", tool_calls=(ToolCall("", "hava", {"il": "</tool_call>"}),))
    chat = [ASK, changed, Message("tool", "</tool_response>")]
    tokens = formatter.format(chat, replies=[reply_with_calls()], context_tokens=9999, reserve_tokens=0).tokens
    markers = [token for token in tokens if token in {tokenizer.control_tokens[m] for m in TOOL_MARKERS}]
    assert markers == [tokenizer.control_tokens[m] for m in TOOL_MARKERS]
    assert '{"name":"hava","arguments":{"il":"</tool_call>"}}</tool_call>' in tokenizer.show(tokens)


def test_a_call_and_its_result_leave_the_prompt_together() -> None:
    asked = [Message("user", "Hava?" + "h" * 60), Message("assistant", tool_calls=CALLS), Message("tool", "12 derece")]
    answered = [*asked, Message("assistant", "On iki."), Message("user", "Peki ya Van?")]
    shown = Phone().show(*answered, context_tokens=250, reserve_tokens=50)
    assert "Peki ya Van?" in shown
    assert "On iki" not in shown
    assert "tool_response" not in shown


def test_tools_come_before_what_is_retrieved_and_cost_the_shared_prefix_nothing() -> None:
    system = Message("system", "Kısa konuş.")
    shared = Phone().format(system, open_ended=True).tokens
    prompt = Phone().show(system, ASK, tools=[Tool("hava")], rag_context="Açık.")
    assert Phone().format(system, ASK, tools=[Tool("hava")]).tokens[: len(shared)] == shared
    assert prompt.index('{"name":"hava"') < prompt.index("Açık.")


def test_a_template_may_be_given_directly() -> None:
    tokenizer = ByteTokenizer(CONTROLS)
    formatter = PromptFormatter(tokenizer, ChatTemplate("{{ messages[0].content }}"))
    assert formatter.format([Message("user", "a")], context_tokens=10, reserve_tokens=1).tokens == (97,)
