"""A model's chat template, rendered without ever seeing what was said."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import TemplateError
from . import jinja
from .messages import Role


@dataclass(frozen=True, slots=True)
class Literal:
    """Text that the template printed; control tokens in it are meant."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """Where the content of a message goes."""

    message_index: int


Part = Literal | Content


@dataclass(frozen=True, slots=True)
class _Slot:
    """A message as the template sees it: the contents of one or several messages, joined."""

    role: Role
    indexes: tuple[int, ...]
    separator: str = "\n"


class ChatTemplate:
    """A Jinja chat template, as Hugging Face and llama.cpp models carry it.

    The template is given place-holders, not contents, and its output is cut at them. So nothing that a caller or a
    document says is ever read as a template or as a control token, and a template may do with a content only what
    leaves it whole.

    What the template takes is tried once, on construction, and made up for afterwards:

    - a system message that it refuses, drops, or prints anywhere but first goes before the first user message, a
      blank line between;
    - a chat that may not start with the assistant (a greeting) starts with an empty user message;
    - messages of one role in a row, where roles must alternate, are joined by a line break.

    Args:
        source: The Jinja text.
        bos_token: Text of the begin-of-sequence token, for templates that print it.
        eos_token: Text of the end-of-sequence token.
        date: What ``strftime_now`` tells the template. Without it the function is not defined (most templates then
            print a date of their own or none), because a prompt that changes at midnight is a prompt that is computed
            again.
        variables: More variables for the template, such as ``enable_thinking``.

    Raises:
        TemplateError: The text is no template, or it fails for a chat of one user message.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        date: datetime.date | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self._render_text = partial(
            jinja.render,
            jinja.compile_template(source, date),
            {**(variables or {}), "bos_token": bos_token, "eos_token": eos_token},
        )
        self._marks = _unused_marks(source)
        self._place_holder = re.compile(f"{self._marks[0]}([0-9]+){self._marks[1]}")
        self._probe()

    def render(self, roles: Sequence[Role], *, open_ended: bool = False) -> tuple[Part, ...]:
        """Lay out a chat, up to and with the header of the reply.

        Args:
            roles: The role of each message; a ``Content`` names a message by its index here.
            open_ended: Whether to end right after the last message's content instead.

        Returns:
            Literal text and contents in order; each message is there exactly once, and no two literals are neighbours.

        Raises:
            TemplateError: The template refuses this chat, or does not print a message exactly once.
        """
        slots = self._arrange(roles)
        parts = self._expand(slots, self._render_slots([slot.role for slot in slots]))
        if open_ended:
            parts = parts[: parts.index(Content(len(roles) - 1)) + 1]
        return tuple(parts)

    def as_sampled(self, literal: str) -> str:
        """Return the literal that was before a reply when it was sampled, given the one before it in the history.

        Some templates print something else when they ask for a reply than when they repeat it: other white space
        (Mistral), an empty ``<think>`` block, a channel that the model is to choose. The tokens of a reply follow what
        they followed when they were sampled.
        """
        return self._asking if literal == self._repeating else literal

    def _probe(self) -> None:
        self._asking = self._repeating = _literal_after(self._render_slots(["user"]), 0)
        self._takes_system = self._takes(["system", "user", "assistant", "user"])
        system: list[Role] = ["system"] if self._takes_system else []
        self._starts_with_assistant = all(self._takes([*before, "assistant", "user"]) for before in ([], system))
        self._takes_system_alone = self._takes(["system"])
        self._repeats_roles = self._takes(["user", "user"]) and self._takes(["user", "assistant", "assistant", "user"])
        if self._takes(["user", "assistant", "user"]):
            self._repeating = _literal_after(self._render_slots(["user", "assistant", "user"]), 0)

    def _takes(self, roles: Sequence[Role]) -> bool:
        try:
            self._render_slots(roles)
        except TemplateError:
            return False
        return True

    def _arrange(self, roles: Sequence[Role]) -> list[_Slot]:
        slots = [_Slot(role, (index,)) for index, role in enumerate(roles)]
        has_system = bool(slots) and slots[0].role == "system"
        folds = has_system and not self._takes_system
        rest = slots[1:] if has_system else slots
        if not rest:
            needs_user = folds or not self._takes_system_alone
        else:
            needs_user = rest[0].role != "user" and (folds or not self._starts_with_assistant)
        if needs_user:
            rest = [_Slot("user", ()), *rest]
        if folds:
            rest = [_Slot("user", (0, *rest[0].indexes), "\n\n"), *rest[1:]]
        slots = [slots[0], *rest] if has_system and not folds else rest
        return slots if self._repeats_roles else _merge_repeats(slots)

    def _render_slots(self, roles: Sequence[Role]) -> list[Part]:
        """Render place-holders and cut at them; ``Content`` names a slot here."""
        start, end = self._marks
        messages = [{"role": role, "content": f"{start}{index}{end}"} for index, role in enumerate(roles)]
        text = self._render_text(messages=messages, add_generation_prompt=True)
        pieces = self._place_holder.split(text)
        printed = [int(number) for number in pieces[1::2]]
        _check_printed(roles, printed)
        parts: list[Part] = [Literal(pieces[0])]
        for number, literal in zip(printed, pieces[2::2], strict=True):
            parts += [Content(number), Literal(literal)]
        return parts

    def _expand(self, slots: Sequence[_Slot], parts: Sequence[Part]) -> list[Part]:
        """Replace slots by their messages; join the literals that then are neighbours."""
        expanded: list[Part] = []
        for part in parts:
            if isinstance(part, Literal):
                _append_literal(expanded, part.text)
                continue
            slot = slots[part.message_index]
            separators = [slot.separator] + ["\n"] * len(slot.indexes)
            for number, index in enumerate(slot.indexes):
                if number:
                    _append_literal(expanded, separators[number - 1])
                expanded.append(Content(index))
        return expanded


def _check_printed(roles: Sequence[Role], printed: Sequence[int]) -> None:
    if list(printed) == list(range(len(roles))):
        return
    problem = "does not keep the order of the messages"
    for index, role in enumerate(roles):
        if (times := printed.count(index)) != 1:
            problem = f"prints a {role} message {times} times instead of once"
            break
    raise TemplateError(f"the chat template {problem}; {jinja.HINT}")


def _merge_repeats(slots: Sequence[_Slot]) -> list[_Slot]:
    merged: list[_Slot] = []
    for slot in slots:
        if merged and merged[-1].role == slot.role:
            merged[-1] = _Slot(slot.role, merged[-1].indexes + slot.indexes, merged[-1].separator)
        else:
            merged.append(slot)
    return merged


def _append_literal(parts: list[Part], text: str) -> None:
    if parts and isinstance(parts[-1], Literal):
        text = parts.pop().text + text  # type: ignore[union-attr]
    if text:
        parts.append(Literal(text))


def _literal_after(parts: Sequence[Part], slot: int) -> str:
    literal = parts[parts.index(Content(slot)) + 1]
    return literal.text if isinstance(literal, Literal) else ""


def _unused_marks(source: str) -> tuple[str, str]:
    """Two private-use characters that the template does not print itself."""
    unused = [mark for mark in map(chr, range(0xF0000, 0xF0000 + len(source) + 2)) if mark not in source]
    return unused[0], unused[1]
