"""Where tools and retrieved text go in a chat: never before anything that is more stable than themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .messages import Message, Role
from .template import Literal
from .tokens import Text
from .tool_format import GENERIC, ToolFormat
from .tools import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Headings:
    """The lines that introduce retrieved text and tools; plain, so that small models follow them too.

    Attributes:
        call_context: Before the call's RAG context, the last block of the system message.
        turn_context: Before a turn's own RAG context, in the user message.
        question: Before what the caller said, in a user message that has such a context.
        tools: Before the tools, between the system message and the call's RAG context.
        tool_call: After them, before the form of a call.
    """

    call_context: str = "Information for this call:"
    turn_context: str = "Information for this question:"
    question: str = "Question:"
    tools: str = "Tools that you can use, one per line:"
    tool_call: str = "To use a tool, write a line like this, and nothing after it. You are told the result."


ENGLISH = Headings()
TURKISH = Headings(
    call_context="Bu görüşme için bilgiler:",
    turn_context="Bu soru için bilgiler:",
    question="Soru:",
    tools="Kullanabileceğin araçlar, her satırda bir tane:",
    tool_call="Araç kullanmak için şuna benzer bir satır yaz, ardından başka bir şey yazma. Sonuç sana bildirilir.",
)


@dataclass(frozen=True, slots=True)
class LaidMessage:
    """A message as it stands in the prompt.

    Attributes:
        role: Who speaks, for the chat template.
        pieces: What is said; only in literals, control tokens are meant.
        opens_turn: Whether the caller speaks here; a tool's result goes on with a turn.
    """

    role: Role
    pieces: tuple[Literal | Text, ...]
    opens_turn: bool = False

    @property
    def text(self) -> str:
        """The pieces, joined."""
        return "".join(piece.text for piece in self.pieces)

    def after(self, length: int) -> tuple[Literal | Text, ...]:
        """The pieces without the first ``length`` characters of the text."""
        rest: list[Literal | Text] = []
        for piece in self.pieces:
            if length < len(piece.text):
                rest.append(replace(piece, text=piece.text[max(0, length) :]))
            length -= len(piece.text)
        return tuple(rest)


def lay_out(
    messages: Sequence[Message],
    *,
    rag_context: str | None = None,
    tools: Sequence[Tool] = (),
    headings: Headings = ENGLISH,
    tool_format: ToolFormat = GENERIC,
) -> tuple[LaidMessage, ...]:
    """Write everything into the messages that the template is to print.

    The system message is followed by the tools, and these by the call's RAG context: what calls share comes first.
    Calls follow the words of their message, or of the one before; results in a row become one user message, which
    every template can take.
    """
    blocks: list[tuple[Literal | Text, ...]] = []
    if tools:
        blocks.append(_tools_block(tools, headings, tool_format))
    if rag_context:
        blocks.append((Text(_rag_block(rag_context, headings)),))
    laid: list[LaidMessage] = []
    if messages and messages[0].role == "system":
        if messages[0].content or not blocks:
            blocks.insert(0, (Text(messages[0].content),))
        messages = messages[1:]
    if blocks:
        laid.append(LaidMessage("system", _joined(blocks, "\n\n")))
    previous: Message | None = None
    for message in messages:
        pieces = _written(_with_turn_context(message, headings), tool_format)
        if previous is not None and _goes_on(previous, message):
            pieces = _joined((laid.pop().pieces, pieces), "\n")
        role: Role = "user" if message.role == "tool" else message.role
        laid.append(LaidMessage(role, pieces, opens_turn=message.role == "user"))
        previous = message
    return tuple(laid)


def arrange(messages: Sequence[Message], rag_context: str | None, headings: Headings = ENGLISH) -> tuple[Message, ...]:
    """Write all retrieved text into the contents.

    The call's RAG context ends the system message, or is the system message where there is none. A user message's own
    RAG context precedes its question and stays there for the rest of the call, so that the history is sent as it was.
    """
    laid = tuple(_with_turn_context(message, headings) for message in messages)
    if not rag_context:
        return laid
    block = _rag_block(rag_context, headings)
    if not laid or laid[0].role != "system":
        return (Message("system", block), *laid)
    system = laid[0].content
    return (Message("system", f"{system}\n\n{block}" if system else block), *laid[1:])


def _rag_block(rag_context: str, headings: Headings) -> str:
    return f"{headings.call_context}\n{rag_context}"


def _tools_block(tools: Sequence[Tool], headings: Headings, tool_format: ToolFormat) -> tuple[Literal | Text, ...]:
    lines = [headings.tools, *(tool_format.tool(tool) for tool in tools), headings.tool_call, ""]
    return (Text("\n".join(lines)), *tool_format.example())


def _goes_on(previous: Message, message: Message) -> bool:
    """Whether two messages stand for one: results in a row, or words and the calls that were written after them."""
    if message.role == "tool":
        return previous.role == "tool"
    calls_only = bool(message.tool_calls) and not message.content
    return previous.role == message.role == "assistant" and calls_only


def _written(message: Message, tool_format: ToolFormat) -> tuple[Literal | Text, ...]:
    if message.role == "tool":
        return tool_format.result(message.content)
    if not message.tool_calls:
        return (Text(message.content),)
    calls = tuple(piece for call in message.tool_calls for piece in tool_format.call(call.name, call.arguments))
    return _joined([(Text(message.content),), calls], "\n") if message.content else calls


def _joined(blocks: Sequence[tuple[Literal | Text, ...]], separator: str) -> tuple[Literal | Text, ...]:
    pieces = list(blocks[0])
    for block in blocks[1:]:
        pieces += [Text(separator), *block]
    return tuple(pieces)


def _with_turn_context(message: Message, headings: Headings) -> Message:
    if not message.rag_context:
        return message
    content = f"{headings.turn_context}\n{message.rag_context}\n\n{headings.question}\n{message.content}"
    return replace(message, content=content, rag_context=None)
