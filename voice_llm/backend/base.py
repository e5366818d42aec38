"""The seam between the engine and an inference library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..config.sampling import SamplingParams
from ..config.structure import StructuralTags


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What the engine needs to know of a loaded model and its context.

    Attributes:
        model_id: Names the weights; part of every isolation key and of every saved state's key.
        sequences: How many calls the KV cache holds side by side.
        context_per_call: Tokens that one sequence can hold.
        max_batch_tokens: Most tokens that one ``decode`` takes.
        chat_template: The file's own Jinja template, if it has one.
        bos_token: Text of the begin-of-sequence token, or "".
        eos_token: Text of the end-of-sequence token, or "".
        add_bos: Whether a prompt starts with the begin-of-sequence token.
        split_kv: Whether each sequence has its own KV stream, so that only rows of adjacent ids share a micro-batch.
        sliding_window: Tokens of the attention window of sliding-window layers; 0 where the model has none.
    """

    model_id: str
    sequences: int
    context_per_call: int
    max_batch_tokens: int
    chat_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    add_bos: bool = False
    split_kv: bool = True
    sliding_window: int = 0


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A run of tokens of one sequence in a batch.

    Attributes:
        sequence_id: Which sequence they belong to.
        position: Position of the first of them; equals the sequence's present length.
        tokens: One or more token ids.
        wants_logits: Whether the last of them is to be sampled from.
    """

    sequence_id: int
    position: int
    tokens: Sequence[int]
    wants_logits: bool


@dataclass(slots=True)
class BackendCounters:
    """What the backend really did since it was loaded; the truth that usage figures are checked against."""

    batches: int = 0
    micro_batches: int = 0
    decoded_tokens: int = 0
    sampled_tokens: int = 0


class SavedState(Protocol):
    """The KV state of one sequence, held in host memory."""

    @property
    def nbytes(self) -> int:
        """Host memory that it takes, in bytes."""


class Sampler(Protocol):
    """Sampling state of one reply (penalties, grammar, random numbers)."""

    def open_tag(self, said: str) -> None:
        """The reply has come to the trigger of its tags, and ``said`` after it: force the rest.

        Harmless where no tags were given, or where the reply is forced already.

        Raises:
            GrammarError: The rest cannot be forced.
        """

    def close(self) -> None:
        """Free it; idempotent."""


class Tokenizer(Protocol):
    """Text to tokens and back; the part of a backend that may be used from any thread."""

    @property
    def info(self) -> BackendInfo:
        """What is fixed once the model is loaded."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Text to id of every token that stands for structure, not for text (``<|im_end|>``, ``<tool_call>``)."""

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Tokenize without adding any begin or end token.

        Args:
            text: What to tokenize.
            parse_special: Whether the text of a control token becomes that token. Never True for content.
        """

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token (possibly part of a character); empty for control tokens."""


@runtime_checkable
class Backend(Tokenizer, Protocol):
    """One model with a KV cache of many sequences. Apart from ``Tokenizer`` and ``new_sampler``, for one thread only.

    Implementations check whatever would abort the process before they call native code and raise ``BackendError``.
    """

    @property
    def counters(self) -> BackendCounters:
        """Running totals."""

    def is_end_of_turn(self, token: int) -> bool:
        """Whether a sampled token ends the reply."""

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        """Run the model over a batch; returns the number of micro-batches that it took.

        Raises:
            ContextFullError: No KV cells were left; nothing of the batch is kept.
            BackendError: Anything else; the sequences of the batch are in an unknown state and must be dropped.
        """

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> Sampler:
        """Prepare sampling for one reply.

        Args:
            params: How to draw.
            tags: What its tool calls look like; excludes grammar and schema of ``params``.

        Raises:
            GrammarError: The grammar or schema cannot be used.
        """

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """Draw the next token after the ``entry_index``-th entry of the last ``decode``; updates ``sampler``."""

    def seq_length(self, sequence_id: int) -> int:
        """How many tokens the sequence holds."""

    def seq_trim(self, sequence_id: int, length: int) -> bool:
        """Keep the first ``length`` tokens; False, and an empty sequence, where the window before is gone."""

    def seq_drop(self, sequence_id: int) -> None:
        """Empty the sequence."""

    def seq_save(self, sequence_id: int) -> SavedState:
        """Copy the sequence's KV state to host memory."""

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        """Replace the sequence's content by a saved state.

        Raises:
            BackendError: The state does not fit; the sequence is then empty.
        """

    def close(self) -> None:
        """Free the model and its memory; idempotent."""
