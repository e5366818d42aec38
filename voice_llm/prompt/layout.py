"""Where retrieved text goes in a chat: never before anything that is more stable than itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Headings:
    """The lines that introduce retrieved text; plain, so that small models follow them too.

    Attributes:
        call_context: Before the call's RAG context, the last block of the system message.
        turn_context: Before a turn's own RAG context, in the user message.
        question: Before what the caller said, in a user message that has such a context.
    """

    call_context: str = "Information for this call:"
    turn_context: str = "Information for this question:"
    question: str = "Question:"


ENGLISH = Headings()
TURKISH = Headings(
    call_context="Bu görüşme için bilgiler:",
    turn_context="Bu soru için bilgiler:",
    question="Soru:",
)


def arrange(messages: Sequence[Message], rag_context: str | None, headings: Headings = ENGLISH) -> tuple[Message, ...]:
    """Write all retrieved text into the contents.

    The call's RAG context ends the system message, or is the system message where there is none. A user message's own
    RAG context precedes its question and stays there for the rest of the call, so that the history is sent as it was.
    """
    laid = tuple(_with_turn_context(message, headings) for message in messages)
    if not rag_context:
        return laid
    block = f"{headings.call_context}\n{rag_context}"
    if not laid or laid[0].role != "system":
        return (Message("system", block), *laid)
    system = laid[0].content
    return (Message("system", f"{system}\n\n{block}" if system else block), *laid[1:])


def _with_turn_context(message: Message, headings: Headings) -> Message:
    if not message.rag_context:
        return message
    content = f"{headings.turn_context}\n{message.rag_context}\n\n{headings.question}\n{message.content}"
    return replace(message, content=content, rag_context=None)
