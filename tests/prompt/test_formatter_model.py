"""Our prompts against Jinja and llama.cpp doing the same in the usual, unsafe way."""

from __future__ import annotations

import jinja2
import pytest

from voice_llm.prompt import Message, PromptFormatter, Reply, resolve_template

from .test_golden import SMOLLM2
from .vocabularies import LlamaVocabulary

pytestmark = pytest.mark.model

CHAT = [
    Message("system", "Bir diş hekiminin telefonuna bakıyorsun.  Kısa konuş.\n\n- Çalışma saatleri: 9-17"),
    Message("assistant", "Merhaba, nasıl yardımcı olabilirim?"),
    Message("user", "I'd like an appointment for Tuesday, 3:30 pm."),
    Message("assistant", "Of course! What's your name?"),
    Message("user", "Ayşe Öztürk"),
]


def formatter(vocabulary: LlamaVocabulary) -> PromptFormatter:
    return PromptFormatter(vocabulary, resolve_template(vocabulary.chat_template, None, vocabulary.control_tokens))


def test_the_stored_template_is_the_models_own(smollm2: LlamaVocabulary) -> None:
    assert smollm2.chat_template == SMOLLM2


@pytest.mark.parametrize("chat", [CHAT, CHAT[1:], CHAT[2:3]])
def test_harmless_chats_have_llama_cpps_own_ids(smollm2: LlamaVocabulary, chat: list[Message]) -> None:
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(smollm2.chat_template)
    messages = [{"role": message.role, "content": message.content} for message in chat]
    rendered = template.render(messages=messages, add_generation_prompt=True)
    prompt = formatter(smollm2).format(chat, context_tokens=2048, reserve_tokens=256)
    assert list(prompt.tokens) == smollm2.tokenize(rendered, parse_special=True)


def test_every_cut_of_a_reply_reads_as_what_was_spoken(smollm2: LlamaVocabulary) -> None:
    text = "Tabii, Ayşe Hanım! Salı günü saat 15.30 için randevunuzu yazdım. 👍 Başka bir isteğiniz var mı?"
    tokens = tuple(smollm2.tokenize(text))
    counts = [
        len("".join(smollm2.text(tokens[: end + 1]).decode(errors="ignore").split())) for end in range(len(tokens))
    ]
    reply = Reply(tokens, tuple(counts), text, complete=True)
    room = formatter(smollm2)
    for end in range(1, len(text) + 1):
        spoken = text[:end].strip()
        prompt = room.format(
            [*CHAT[:3], Message("assistant", spoken), CHAT[4]], replies=[reply], context_tokens=2048, reserve_tokens=256
        )
        shown = smollm2.text(prompt.tokens).decode()
        assert shown.endswith(f"assistant\n{spoken}\nuser\nAyşe Öztürk\nassistant\n")
        assert prompt.spliced_tokens <= len(tokens)
    assert prompt.spliced_tokens == len(tokens)
