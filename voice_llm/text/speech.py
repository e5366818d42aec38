"""SpeechFilter: what of a model's text a voice can speak.

Taken out: emphasis, headings, block quotes, bullets, rules, code fences with their content, backticks, link targets,
images, HTML tags, emoji, ``<tool_call>`` blocks. Table cells become ``a, b``. White space collapses to one space or one
line break and is left out at both ends. Kept: numbered list markers (``1.`` is spoken and tells where an item begins),
bare URLs, ``snake_case``, ``3*4``, ``5 * 3``, dial codes such as ``*123#``, and whatever only looks like markup.
"""

from __future__ import annotations

import re

from .blocks import BlockSplitter

_EMOJI = (
    "\u200d\ufe0e\ufe0f\u20e3"  # joiner, variation selectors and keycap: parts of sequences
    "\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001faff\U000e0020-\U000e007f"
)
_PLAIN = re.compile(rf"[^\s*_`~|\[!<{_EMOJI}]+")
_SPACE = re.compile(r"\s+")
_RUN = {mark: re.compile(re.escape(mark) + "+") for mark in "*_~`#"}
_BULLETS = frozenset("-+*•◦‣▪●·–")
_RULE = re.compile(r"[-=:]+[ \t]*")

# Undecided links and tags are held back, so their length is bounded: a stray "[" must not silence a reply.
_LINK = re.compile(r"!?\[([^\[\]\n]{0,80})\]\([^()\n]{0,300}\)")
_LINK_BEGINNING = re.compile(r"!|!?\[[^\[\]\n]{0,80}(?:\](?:\([^()\n]{0,300})?)?")
_TAG = re.compile(r"</?([A-Za-z][\w:.-]{0,30})(?:[ \t][^<>\n]{0,100})?/?>")
_TAG_BEGINNING = re.compile(r"</?(?:[A-Za-z][\w:.-]{0,30}(?:[ \t][^<>\n]{0,100})?/?)?")
_BREAKING_TAGS = frozenset({"br", "p", "div", "li", "ul", "ol", "tr", "hr", "h1", "h2", "h3", "h4"})

_HOLD = -1


class SpeechFilter:
    """Leave out what a voice cannot speak. Holds back only what the next characters decide, and white space."""

    def __init__(self) -> None:
        self._tool_calls = BlockSplitter("<tool_call>", "</tool_call>")
        self._held = ""
        self._spoken: list[str] = []
        self._started = False  # whether anything was returned yet: white space before it is dropped
        self._space = ""  # white space waiting for something visible to follow
        self._after_emoji = False  # whether an emoji was left out since the last visible text
        self._line_start = True  # whether nothing of this line was kept yet: block markup is possible
        self._previous = " "  # the input character before the present one
        self._in_fence = False

    def decode(self, text: str) -> str:
        """Return the new speakable text."""
        return self._filter(self._tool_calls.decode(text), final=False)

    def flush(self) -> str:
        """Return what was held back; an unclosed marker counts as text, an unclosed fence or tool call stays silent."""
        return self._filter(self._tool_calls.flush(), final=True)

    def _filter(self, text: str, *, final: bool) -> str:
        self._tool_calls.take_inside()
        self._held = self._consume(self._held + text, final)
        spoken = "".join(self._spoken)
        self._spoken.clear()
        return spoken

    def _consume(self, text: str, final: bool) -> str:
        """Filter ``text`` and return the end of it that is still undecided."""
        at = 0
        while at < len(text):
            after = self._step(text, at, final)
            if after == _HOLD:
                return text[at:]
            at = after
        return ""

    def _step(self, text: str, at: int, final: bool) -> int:
        """Deal with what begins at ``at``; returns where it ends, or ``_HOLD`` where the text to come decides."""
        if self._in_fence:
            return self._skip_code(text, at, final)
        if space := _SPACE.match(text, at):
            self._wait("\n" if "\n" in space[0] else " ")
            return space.end()
        if self._line_start:
            after = self._block_markup(text, at, final)
            if after != at:
                return after
        if plain := _PLAIN.match(text, at):
            self._speak(plain[0])
            return plain.end()
        mark = text[at]
        if mark in "*_~":
            return self._emphasis(text, at, final)
        if mark in "[!":
            return self._link(text, at, final)
        if mark == "<":
            return self._tag(text, at, final)
        if mark == "|":
            self._wait(", ")
        elif mark != "`":
            self._after_emoji = True
        self._previous = mark
        return at + 1

    def _speak(self, text: str) -> None:
        orphaned = self._after_emoji and self._space == " " and text[0] in ".,!?;:…"  # "Great 🙂!"
        if self._space and self._started and not orphaned:
            self._spoken.append(self._space)
        self._spoken.append(text)
        self._space = ""
        self._after_emoji = False
        self._started = True
        self._line_start = False
        self._previous = text[-1]

    def _wait(self, space: str) -> None:
        """Remember white space: of several, a line break wins over a cell's comma, and that over a space."""
        if space == "\n":
            self._line_start = True
        if space == "\n" or (space == ", " and self._space != "\n") or not self._space:
            self._space = space
        self._previous = " "

    def _block_markup(self, text: str, at: int, final: bool) -> int:
        """Skip what has a meaning at the start of a line only; returns ``at`` where there is none."""
        mark = text[at]
        if mark in ">|":
            return at + 1
        if mark in "#`":
            return self._heading_or_fence(text, at, final)
        if mark in _BULLETS:
            if at + 1 == len(text):
                return at + 1 if final else _HOLD
            if text[at + 1].isspace():
                return at + 1
        if rule := _RULE.match(text, at):
            if rule.end() == len(text):
                return rule.end() if final else _HOLD
            if text[rule.end()] in "|\r\n":
                return rule.end()
        return at

    def _heading_or_fence(self, text: str, at: int, final: bool) -> int:
        end = _run_end(text, at)
        if end == len(text) and not final:
            return _HOLD
        if text[at] == "#":
            return end if end == len(text) or text[end].isspace() else at
        self._in_fence = end - at >= 3
        return end

    def _skip_code(self, text: str, at: int, final: bool) -> int:
        closing = text.find("```", at)
        if closing >= 0:
            self._in_fence = False
            return closing + 3
        code_end = len(text.rstrip("`"))
        if code_end > at:
            return code_end
        return len(text) if final else _HOLD

    def _emphasis(self, text: str, at: int, final: bool) -> int:
        end = _run_end(text, at)
        if end == len(text) and not final:
            return _HOLD
        mark, before, after = text[at], self._previous, text[end : end + 1]
        if mark == "_":
            kept = before.isalnum() and after.isalnum()
        elif mark == "*":
            dialled_or_factor = after.isdigit() or after == "#"
            kept = end - at == 1 and (dialled_or_factor or (before.isspace() and after.isspace()))
        else:
            kept = end - at == 1  # "~5" is "about 5", only "~~" strikes through
        if kept:
            self._speak(text[at:end])
        self._previous = mark
        return end

    def _link(self, text: str, at: int, final: bool) -> int:
        if link := _LINK.match(text, at):
            if text[at] == "[":
                self._consume(link[1], final=True)
            return link.end()
        if not final and _LINK_BEGINNING.fullmatch(text, at):
            return _HOLD
        self._speak(text[at])
        return at + 1

    def _tag(self, text: str, at: int, final: bool) -> int:
        if tag := _TAG.match(text, at):
            if tag[1].lower() in _BREAKING_TAGS:
                self._wait("\n")
            return tag.end()
        if not final and _TAG_BEGINNING.fullmatch(text, at):
            return _HOLD
        self._speak("<")
        return at + 1


def _run_end(text: str, at: int) -> int:
    run = _RUN[text[at]].match(text, at)
    return run.end() if run else at
