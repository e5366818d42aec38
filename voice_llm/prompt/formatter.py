"""PromptFormatter: from the messages of a call to the token ids of one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ContextTooLongError, TemplateError
from .budget import TurnTokens, first_kept_turn, question_room
from .checks import check_text
from .layout import ENGLISH, Headings, LaidMessage, lay_out
from .messages import Message, Role, parse_messages
from .reply import Reply, match_replies, splice
from .template import ChatTemplate, Content, Literal, Part
from .tokenizer import Tokenizer
from .tokens import Piece, Sampled, Text, TokenEncoder
from .tool_format import GENERIC, ToolFormat
from .tools import Tool, parse_tools


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, ready to be decoded.

    Attributes:
        tokens: Its ids, the begin-of-sequence token included.
        dropped_messages: How many of the oldest messages, as laid out, had to go; the system message never does.
        spliced_tokens: How many of the ids are sampled tokens of earlier replies.
    """

    tokens: tuple[int, ...]
    dropped_messages: int = 0
    spliced_tokens: int = 0


class PromptFormatter:
    """Writes prompts for one model. Holds no state of a call; for any thread but an event loop's, which it would stall.

    Args:
        tokenizer: The model's.
        template: The model's chat template.
        bos: Text of the begin-of-sequence token where the model wants a prompt to start with it, else "".
        headings: What introduces retrieved text and tools.
        tool_format: How tools, calls and results are written.
        cache_chars: How much tokenized text is remembered.

    Raises:
        TemplateError: ``bos`` is no control token of the vocabulary.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        bos: str = "",
        headings: Headings = ENGLISH,
        tool_format: ToolFormat = GENERIC,
        cache_chars: int = 1_000_000,
    ) -> None:
        if bos and bos not in tokenizer.control_tokens:
            raise TemplateError(f"the begin-of-sequence token {bos!r} is no control token of this vocabulary")
        self._bos = tokenizer.control_tokens[bos] if bos else None
        self._token_bytes = tokenizer.token_bytes
        self._template = template
        self._headings = headings
        self.tool_format = tool_format
        self._encoder = TokenEncoder(tokenizer, cache_chars=cache_chars)

    def format(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        rag_context: str | None = None,
        tools: Sequence[Tool | Mapping[str, Any]] = (),
        replies: Sequence[Reply] = (),
        context_tokens: int,
        reserve_tokens: int,
        open_ended: bool = False,
    ) -> Prompt:
        """Write the prompt of the next reply, or the part of it that is already known.

        Args:
            messages: The whole history, oldest first.
            rag_context: Retrieved text for the whole call.
            tools: What the model may ask for; between the system message and the retrieved text.
            replies: What the model said in this call, oldest first; spliced in for the assistant messages with the
                same text.
            context_tokens: How many tokens the call's sequence holds.
            reserve_tokens: How many of them are for the reply.
            open_ended: End right after the last message's text, so that more of it can follow. With an empty user
                message at the end, that is all that is known before the caller speaks.

        Raises:
            InvalidRequestError: A message or a tool cannot be used.
            TemplateError: The chat template refuses this chat.
            ContextTooLongError: The system message and the last turn alone do not fit.
        """
        rag_context = check_text(rag_context, "rag_context") if rag_context is not None else None
        laid = lay_out(
            parse_messages(messages),
            rag_context=rag_context,
            tools=parse_tools(tools),
            headings=self._headings,
            tool_format=self.tool_format,
        )
        chat = _Chat(laid, self._contents(laid, replies))
        budget_tokens = context_tokens - reserve_tokens
        prompt = self._write(chat, open_ended)
        if len(prompt.tokens) + question_room(budget_tokens) <= budget_tokens:
            return prompt
        prompt = self._write_newest(chat, budget_tokens, open_ended)
        if len(prompt.tokens) > budget_tokens:
            raise ContextTooLongError(
                prompt_tokens=len(prompt.tokens), max_tokens=reserve_tokens, context_tokens=context_tokens
            )
        return prompt

    def _contents(self, messages: Sequence[LaidMessage], replies: Sequence[Reply]) -> tuple[tuple[Piece, ...], ...]:
        spoken = [message.text for message in messages if message.role == "assistant"]
        found = iter(match_replies(spoken, replies))
        contents: list[tuple[Piece, ...]] = []
        for message in messages:
            reply = next(found) if message.role == "assistant" else None
            contents.append(self._spliced(message, reply) if reply else message.pieces)
        return tuple(contents)

    def _spliced(self, message: LaidMessage, reply: Reply) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        for piece in splice(message.text, reply, self._token_bytes):
            # What was not sampled is the end of the message; the markers of a call in it are control tokens as ever.
            rest = message.after(len(message.text) - len(piece.text)) if isinstance(piece, Text) else (piece,)
            pieces += rest
        return tuple(pieces)

    def _write(self, chat: _Chat, open_ended: bool, dropped_messages: int = 0) -> Prompt:
        tokens = self._encoder.encode(self._pieces(chat, self._template.render(chat.roles, open_ended=open_ended)))
        if self._bos is not None and tokens[:1] != [self._bos]:
            tokens.insert(0, self._bos)
        spliced = sum(len(piece.tokens) for content in chat.contents for piece in content if isinstance(piece, Sampled))
        return Prompt(tuple(tokens), dropped_messages, spliced)

    def _pieces(self, chat: _Chat, parts: Sequence[Part]) -> Iterator[Piece]:
        for part, following in zip(parts, (*parts[1:], None), strict=True):
            if isinstance(part, Content):
                yield from chat.contents[part.message_index]
            elif isinstance(following, Content) and chat.starts_as_sampled(following.message_index):
                yield Literal(self._template.as_sampled(part.text))
            else:
                yield part

    def _write_newest(self, chat: _Chat, budget_tokens: int, open_ended: bool) -> Prompt:
        """Drop whole oldest turns; where the last one alone does not fit, its prompt is longer than the budget."""
        starts = chat.turn_starts()
        if not starts:
            return self._write(chat, open_ended)
        first = first_kept_turn(*self._measure(chat, starts), budget_tokens)
        for start in starts[first:]:
            prompt = self._write(chat.since(start), open_ended, start - chat.fixed_messages)
            # Sizes of turns are estimates, since text may be tokenized otherwise beside its neighbours. This is exact.
            if len(prompt.tokens) <= budget_tokens:
                break
        return prompt

    def _measure(self, chat: _Chat, starts: Sequence[int]) -> tuple[list[TurnTokens], int]:
        """Return the size of each turn and of what always stays; a literal belongs to the message before it."""
        groups: list[list[Piece]] = [[] for _ in chat.messages]
        opening: list[Piece] = []
        group = opening
        for part in self._template.render(chat.roles):
            if isinstance(part, Content):
                group = groups[part.message_index]
                group += chat.contents[part.message_index]
            else:
                group.append(part)
        sizes = [len(self._encoder.encode(pieces)) for pieces in groups]
        turns: list[TurnTokens] = []
        for start, end in zip(starts, (*starts[1:], len(sizes)), strict=True):
            total = sum(sizes[start:end])
            reply = sizes[end - 1] if chat.messages[end - 1].role == "assistant" else 0
            turns.append(TurnTokens(total - reply, total))
        fixed = len(self._encoder.encode(opening)) + (self._bos is not None)
        return turns, fixed + sum(sizes[: chat.fixed_messages])


@dataclass(frozen=True, slots=True)
class _Chat:
    """Messages as laid out, and the pieces that each one's content is written with."""

    messages: tuple[LaidMessage, ...]
    contents: tuple[tuple[Piece, ...], ...]

    @property
    def roles(self) -> list[Role]:
        return [message.role for message in self.messages]

    @property
    def fixed_messages(self) -> int:
        """How many messages always stay: the system message, where there is one."""
        return int(self.messages[0].role == "system")

    def turn_starts(self) -> list[int]:
        """Where each turn starts; what is said before the first user message is a turn of its own."""
        first = self.fixed_messages
        return [i for i in range(first, len(self.messages)) if i == first or self.messages[i].opens_turn]

    def since(self, start: int) -> _Chat:
        """The fixed messages, and those from ``start`` on."""
        fixed = self.fixed_messages
        return _Chat(self.messages[:fixed] + self.messages[start:], self.contents[:fixed] + self.contents[start:])

    def starts_as_sampled(self, index: int) -> bool:
        content = self.contents[index]
        return bool(content) and isinstance(content[0], Sampled)
