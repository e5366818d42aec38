"""FakeBackend: a backend without weights, as strict as llama.cpp and as predictable as a table.

Its tokens are bytes plus a few control tokens, its "model" answers from a script that sees only what the KV cache
holds, so a cache that was mixed up, cut wrong or not cut at all shows as a wrong reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ..backend.base import BackendCounters, BackendInfo, BatchEntry, Sampler, SavedState
from ..backend.micro_batches import count_micro_batches
from ..config.sampling import SamplingParams
from ..config.structure import StructuralTags
from ..errors import BackendError, ContextFullError, GrammarError
from .clock import VirtualClock

__all__ = ["CONTROL_TOKENS", "FakeBackend", "FakeSampler", "FakeState", "echo_reply"]

CONTROL_TOKENS: Final[Mapping[str, int]] = {
    "<|im_start|>": 256,
    "<|im_end|>": 257,
    "<|endoftext|>": 258,
    "<think>": 259,
    "</think>": 260,
    "<tool_call>": 261,
    "</tool_call>": 262,
}
_END_OF_TURN: Final = (257, 258)
_N_VOCAB: Final = 263
_NONSENSE: Final = ord("?")
_CONTROL_PATTERN: Final = re.compile("|".join(re.escape(t) for t in sorted(CONTROL_TOKENS, key=len, reverse=True)))
_CONTROL_TEXT: Final = {v: k for k, v in CONTROL_TOKENS.items()}
_HEADER_TOKENS: Final = [CONTROL_TOKENS["<|im_start|>"], *b"assistant\n"]

CHATML: Final = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def echo_reply(prompt: str) -> str:
    """The default script: repeat the last user message, and say how much context there was."""
    users: list[str] = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, flags=re.DOTALL)
    return f"You said {users[-1] if users else 'nothing'}. That makes {len(users)}."


@dataclass(frozen=True, slots=True)
class FakeState:
    """A saved sequence of ``FakeBackend``."""

    tokens: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """As if a token took a kilobyte."""
        return 1024 * len(self.tokens)


class FakeSampler:
    """Counts what is drawn; ``open_samplers`` of the backend shows one that is never closed.

    Attributes:
        tags: What it was made with.
        opened: What it was told by ``open_tag``; None so far.
    """

    def __init__(self, backend: FakeBackend, tags: StructuralTags | None = None) -> None:
        self._backend: FakeBackend | None = backend
        self.tags = tags
        self.opened: str | None = None
        backend.open_samplers += 1

    def open_tag(self, said: str) -> None:
        """See ``Sampler``; a script is not forced."""
        self.opened = said

    def close(self) -> None:
        """Free it; idempotent."""
        if self._backend is not None:
            self._backend.open_samplers -= 1
            self._backend = None

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._backend is None


class FakeBackend:
    """Implements ``Backend`` on lists of integers.

    Args:
        sequences: Calls side by side.
        context_per_call: Tokens a sequence holds.
        reply: From the prompt's text (control tokens spelled out) to the reply; called with what the KV cache holds.
        clock: Advanced by each decode, so that step times are exact.
        micro_batch_ms: Time of a micro-batch.
        token_ms: Time of each token in it.
        split_kv: As in ``BackendInfo``.
        sliding_window: Tokens that survive behind the newest one; 0 for all.
    """

    def __init__(
        self,
        *,
        sequences: int = 4,
        context_per_call: int = 2048,
        max_batch_tokens: int = 512,
        reply: Callable[[str], str] = echo_reply,
        clock: VirtualClock | None = None,
        micro_batch_ms: float = 4.0,
        token_ms: float = 4.0,
        split_kv: bool = True,
        sliding_window: int = 0,
    ) -> None:
        self._info = BackendInfo(
            model_id="fake",
            sequences=sequences,
            context_per_call=context_per_call,
            max_batch_tokens=max_batch_tokens,
            chat_template=CHATML,
            eos_token="<|im_end|>",
            split_kv=split_kv,
            sliding_window=sliding_window,
        )
        self._reply = reply
        self._clock = clock
        self._micro_batch_ms, self._token_ms = micro_batch_ms, token_ms
        self._held: list[list[int]] = [[] for _ in range(sequences)]
        self._oldest = [0] * sequences
        self._rows: dict[int, int] = {}
        self._counters = BackendCounters()
        self._failures: list[BackendError] = []
        self.open_samplers = 0
        self.closed = False
        self.batches: list[list[tuple[int, int]]] = []
        """(sequence id, tokens) of each entry of each batch so far."""

    @property
    def info(self) -> BackendInfo:
        """See ``Backend``."""
        return self._info

    @property
    def counters(self) -> BackendCounters:
        """See ``Backend``."""
        return self._counters

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See ``Tokenizer``."""
        return CONTROL_TOKENS

    def fail_next(self, error: BackendError) -> None:
        """Let a decode to come raise ``error``; several calls queue up."""
        self._failures.append(error)

    def tokens_of(self, sequence_id: int) -> list[int]:
        """Return what a sequence holds, for assertions."""
        return list(self._held[sequence_id])

    def text_of(self, tokens: Sequence[int]) -> str:
        """Spell out tokens, control tokens included."""
        data = b"".join(_CONTROL_TEXT[t].encode() if t > 255 else bytes([t]) for t in tokens)
        return data.decode("utf-8", "replace")

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        if not parse_special:
            return list(text.encode())
        tokens: list[int] = []
        end = 0
        for match in _CONTROL_PATTERN.finditer(text):
            tokens += text[end : match.start()].encode()
            tokens.append(CONTROL_TOKENS[match.group()])
            end = match.end()
        return tokens + list(text[end:].encode())

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``."""
        if token in (259, 260, 261, 262):
            return _CONTROL_TEXT[token].encode()
        return bytes([token]) if token < 256 else b""

    def is_end_of_turn(self, token: int) -> bool:
        """See ``Backend``."""
        return token in _END_OF_TURN

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        """See ``Backend``; as strict as llama.cpp would be deadly."""
        self._check(entries)
        if self._failures:
            self._fail(entries, self._failures.pop(0))
        in_order = sorted(entries, key=lambda e: e.sequence_id)
        micro_batches = count_micro_batches(in_order, split_kv=self._info.split_kv, micro_batch_tokens=512)
        total = sum(len(e.tokens) for e in entries)
        for entry in entries:
            held = self._held[entry.sequence_id]
            held.extend(entry.tokens)
            if self._info.sliding_window:
                self._oldest[entry.sequence_id] = max(0, len(held) - self._info.sliding_window)
        self._rows = {i: e.sequence_id for i, e in enumerate(entries) if e.wants_logits}
        self._counters.batches += 1
        self._counters.micro_batches += micro_batches
        self._counters.decoded_tokens += total
        self._decoded(entries, micro_batches)
        return micro_batches

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> FakeSampler:
        """See ``Backend``; a grammar without a root rule is refused, other parameters have no effect on a script."""
        if params.grammar is not None and "root" not in params.grammar:
            raise GrammarError("the grammar has no root rule", param="grammar")
        return FakeSampler(self, tags)

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        if entry_index not in self._rows:
            raise BackendError(f"entry {entry_index} has no logits")
        if not isinstance(sampler, FakeSampler) or sampler.closed:
            raise BackendError("the sampler is closed or not of this backend")
        self._counters.sampled_tokens += 1
        return self._next_token(self._held[self._rows[entry_index]])

    def seq_length(self, sequence_id: int) -> int:
        """See ``Backend``."""
        return len(self._held[sequence_id])

    def seq_trim(self, sequence_id: int, length: int) -> bool:
        """See ``Backend``."""
        held = self._held[sequence_id]
        if not 0 <= length <= len(held):
            raise BackendError(f"cannot trim {len(held)} tokens to {length}")
        if length < len(held) and self._oldest[sequence_id] > max(0, length - self._info.sliding_window + 1):
            self.seq_drop(sequence_id)
            return length == 0
        del held[length:]
        return True

    def seq_drop(self, sequence_id: int) -> None:
        """See ``Backend``."""
        self._held[sequence_id] = []
        self._oldest[sequence_id] = 0

    def seq_save(self, sequence_id: int) -> FakeState:
        """See ``Backend``."""
        return FakeState(tuple(self._held[sequence_id]))

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        """See ``Backend``."""
        if not isinstance(state, FakeState):
            raise BackendError("not a state of this backend")
        self._held[sequence_id] = list(state.tokens)
        self._oldest[sequence_id] = max(0, len(state.tokens) - self._info.sliding_window) * bool(
            self._info.sliding_window
        )

    def close(self) -> None:
        """See ``Backend``."""
        self.closed = True

    def _decoded(self, entries: Sequence[BatchEntry], micro_batches: int) -> None:
        """Note a batch, and let the time pass that it takes."""
        self.batches.append([(e.sequence_id, len(e.tokens)) for e in entries])
        if self._clock is not None:
            tokens = sum(len(e.tokens) for e in entries)
            self._clock.advance((micro_batches * self._micro_batch_ms + tokens * self._token_ms) / 1e3)

    def _is_known(self, token: int) -> bool:
        return 0 <= token < _N_VOCAB

    def _fail(self, entries: Sequence[BatchEntry], error: BackendError) -> NoReturn:
        if not isinstance(error, ContextFullError):
            for entry in entries:  # their state is unknown now: whoever uses them without a drop reads nonsense
                self._held[entry.sequence_id].append(_NONSENSE)
        raise error

    def _next_token(self, held: list[int]) -> int:
        header = _last_header(held)
        if header is None:
            return _END_OF_TURN[0]
        reply = self.tokenize(self._reply(self.text_of(held[:header])), parse_special=True)
        spoken = held[header + len(_HEADER_TOKENS) :]  # may end inside a character, so it is never turned into text
        if spoken != reply[: len(spoken)] or len(spoken) >= len(reply):
            return _END_OF_TURN[0]
        return reply[len(spoken)]

    def _check(self, entries: Sequence[BatchEntry]) -> None:
        if self.closed:
            raise BackendError("the backend is closed")
        total = sum(len(e.tokens) for e in entries)
        if not 0 < total <= self._info.max_batch_tokens or not all(e.tokens for e in entries):
            raise BackendError(f"a batch of {total} tokens")
        if len({e.sequence_id for e in entries}) != len(entries):
            raise BackendError("a sequence stands in the batch twice")
        for entry in entries:
            held = len(self._held[entry.sequence_id])
            if entry.position != held:
                raise BackendError(f"position {entry.position} where {held} tokens are held")
            if held + len(entry.tokens) > self._info.context_per_call:
                raise ContextFullError(f"sequence {entry.sequence_id} is full")
            if not all(map(self._is_known, entry.tokens)):
                raise BackendError("a token outside the vocabulary")


def _last_header(tokens: list[int]) -> int | None:
    """Return where the last assistant header begins."""
    for start in range(len(tokens) - len(_HEADER_TOKENS), -1, -1):
        if tokens[start] == _HEADER_TOKENS[0] and tokens[start : start + len(_HEADER_TOKENS)] == _HEADER_TOKENS:
            return start
    return None
