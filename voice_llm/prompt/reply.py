"""Replies as they were sampled, and how much of one a message of the history still stands for."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .tokens import Piece, Sampled, Text

TokenBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the model.

    Attributes:
        tokens: As sampled, without the end-of-turn token.
        visible_chars: For each token, how many characters of ``text`` that are not white space had been given out
            once it had been processed; never falls. What a filter still holds back is not counted.
        text: What was given out: stop strings, markup and thoughts already taken out.
        complete: Whether the model ended it, or its length did; not a stop string or a cancel.
    """

    tokens: tuple[int, ...]
    visible_chars: tuple[int, ...]
    text: str
    complete: bool

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.visible_chars):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.visible_chars)} counts of visible characters")
        if any(later < earlier for earlier, later in zip(self.visible_chars, self.visible_chars[1:], strict=False)):
            raise ValueError("the counts of visible characters must not fall")


def match_replies(contents: Sequence[str], replies: Sequence[Reply]) -> list[Reply | None]:
    """Find the reply that each assistant message stands for: its text, or the beginning of it, but for white space.

    Both are in the order of the call; a message may have no reply (a greeting, another model's words) and a reply no
    message. Of all ways to pair them in order, the one that covers most text is taken.
    """
    heard = [_dense(content) for content in contents]
    said = [_dense(reply.text) for reply in replies]
    # covered[m][r]: how much text the messages from m on and the replies from r on can cover at most.
    covered = [[0] * (len(said) + 1) for _ in range(len(heard) + 1)]

    def pair(m: int, r: int) -> int:
        if not heard[m] or not said[r].startswith(heard[m]):
            return -1
        # Where two pairings cover the same text, the one with the whole reply wins.
        return covered[m + 1][r + 1] + 2 * len(heard[m]) + (heard[m] == said[r])

    for m in reversed(range(len(heard))):
        for r in reversed(range(len(said))):
            covered[m][r] = max(covered[m + 1][r], covered[m][r + 1], pair(m, r))
    found: list[Reply | None] = []
    r = 0
    for m in range(len(heard)):
        while r < len(said) and covered[m][r] == covered[m][r + 1] and pair(m, r) < covered[m][r]:
            r += 1
        if r < len(said) and pair(m, r) == covered[m][r]:
            found.append(replies[r])
            r += 1
        else:
            found.append(None)
    return found


def splice(content: str, reply: Reply, token_bytes: TokenBytes) -> tuple[Piece, ...]:
    """Write a message with the tokens that were sampled for it.

    All of them where the message is the whole of a complete reply. Otherwise the longest run of them, from the first,
    that says nothing beyond the message, and the rest of the message as plain text. White space and what the filter
    took out do not count as saying something, but a run never ends in what it took out: that may be the start of what
    was cut off.

    Args:
        content: Text of the message; equal to the reply's text, or to the beginning of it, but for white space.
        reply: What was sampled.
        token_bytes: The tokenizer's.
    """
    wanted = _dense(content)
    if reply.complete and wanted == _dense(reply.text):
        return (Sampled(reply.tokens),)
    length, covered, ends_in_space = _longest_run(reply, len(wanted), token_bytes)
    rest = content[_end_of_dense(content, covered) :]
    if ends_in_space:
        rest = rest.lstrip()
    pieces: list[Piece] = []
    if length:
        pieces.append(Sampled(reply.tokens[:length]))
    if rest:
        pieces.append(Text(rest))
    return tuple(pieces)


def _longest_run(reply: Reply, wanted_chars: int, token_bytes: TokenBytes) -> tuple[int, int, bool]:
    """Return how many tokens to keep, how many visible characters they say, and whether they end in white space."""
    raw, ends = _read(reply.tokens, token_bytes)
    places = _places(reply, raw, [end for end, _ in ends])
    best = (0, 0, False)
    covered = 0
    for count, (end, is_whole) in enumerate(ends, start=1):
        while covered < len(places) and places[covered] < end:
            covered += 1
        if covered > wanted_chars:
            break
        # A run that says no more than the best one only adds markup or space.
        if is_whole and covered > best[1] and not raw[places[covered - 1] + 1 : end].strip():
            best = (count, covered, raw[end - 1].isspace())
    return best


def _read(tokens: Sequence[int], token_bytes: TokenBytes) -> tuple[str, list[tuple[int, bool]]]:
    """Return the text of the tokens, and for each where its last whole character ends and if nothing is left over."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = ""
    ends: list[tuple[int, bool]] = []
    for token in tokens:
        text += decoder.decode(token_bytes(token))
        ends.append((len(text), not decoder.getstate()[0]))
    return text, ends


def _places(reply: Reply, raw: str, ends: Sequence[int]) -> list[int]:
    """Return where in the sampled text each visible character is; nothing where the filter did more than take out.

    Each is looked for as late as it can be, from the last to the first, but not after the token that gave it out. So
    a character is never taken for one of a thought or of markup before it, and text that was held back counts for the
    token that brought it.
    """
    dense = _dense(reply.text)
    places = [0] * len(dense)
    token = len(ends) - 1
    limit = len(raw)
    for index in reversed(range(len(dense))):
        while token > 0 and reply.visible_chars[token - 1] > index:
            token -= 1
        if token >= 0 and reply.visible_chars[token] > index:
            limit = min(limit, ends[token])
        limit = raw.rfind(dense[index], 0, limit)
        if limit < 0:
            return []
        places[index] = limit
    return places


def _dense(text: str) -> str:
    """The text without its white space."""
    return "".join(text.split())


def _end_of_dense(text: str, count: int) -> int:
    """Where the ``count``-th character that is not white space ends."""
    if count == 0:
        return 0
    for index, char in enumerate(text):
        count -= not char.isspace()
        if count == 0:
            return index + 1
    return len(text)
