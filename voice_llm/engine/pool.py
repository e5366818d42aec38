"""ContextPool: which call holds which KV sequence, and what each sequence holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import EngineError

__all__ = ["ContextPool", "KVSequence"]


@dataclass(slots=True, eq=False)
class KVSequence:
    """One sequence of the KV cache while a call holds it.

    Attributes:
        id: Sequence id in the backend; changes when the call is rehomed.
        owner: Id of the call that holds it; None once released.
        tokens: The tokens whose keys and values the sequence holds, in order.
    """

    id: int
    owner: str | None
    tokens: list[int] = field(default_factory=list)


class ContextPool:
    """Owns the sequence ids. Bookkeeping only: whoever calls it moves and drops the KV itself.

    Args:
        size: Number of sequences of the backend.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = set(range(size))
        self._held: dict[int, KVSequence] = {}

    def __repr__(self) -> str:
        tokens = sum(len(s.tokens) for s in self._held.values())
        return f"<ContextPool [sequences: {len(self._held)} held, {len(self._free)} free | tokens: {tokens}]>"

    @property
    def size(self) -> int:
        """Number of sequences, held and free."""
        return self._size

    @property
    def free(self) -> int:
        """Number of sequences that no call holds."""
        return len(self._free)

    @property
    def held(self) -> Iterable[KVSequence]:
        """The sequences that calls hold."""
        return self._held.values()

    def holder(self, sequence_id: int) -> KVSequence | None:
        """Return who holds that id."""
        return self._held.get(sequence_id)

    def acquire(self, owner: str) -> KVSequence:
        """Give the lowest free sequence to a call; low ids keep neighbours adjacent.

        Raises:
            EngineError: None is free; ask ``free`` before.
        """
        if not self._free:
            raise EngineError(f"no sequence is free: {self!r}")
        sequence = KVSequence(min(self._free), owner)
        self._free.remove(sequence.id)
        self._held[sequence.id] = sequence
        return sequence

    def release(self, sequence: KVSequence) -> None:
        """Take a sequence back; once more is harmless."""
        if self._held.get(sequence.id) is sequence:
            del self._held[sequence.id]
            self._free.add(sequence.id)
        sequence.owner = None
        sequence.tokens = []

    def move(self, sequence: KVSequence, to: int) -> None:
        """Note that a sequence's KV now lies in the free id ``to``."""
        if to not in self._free or self._held.get(sequence.id) is not sequence:
            raise EngineError(f"cannot move sequence {sequence.id} to {to}: {self!r}")
        del self._held[sequence.id]
        self._free.add(sequence.id)
        self._free.remove(to)
        sequence.id = to
        self._held[to] = sequence

    def swap(self, a: KVSequence, b: KVSequence) -> None:
        """Note that two held sequences have exchanged their ids."""
        if self._held.get(a.id) is not a or self._held.get(b.id) is not b:
            raise EngineError(f"cannot swap sequences {a.id} and {b.id}: {self!r}")
        a.id, b.id = b.id, a.id
        self._held[a.id], self._held[b.id] = a, b

    def check_integrity(self, length_of: Callable[[int], int]) -> None:
        """Check that every id is held or free, once, and that the backend holds just what the pool says.

        Args:
            length_of: The backend's own length of a sequence, in tokens.

        Raises:
            EngineError: With all the numbers.
        """
        ids = set(self._held) | self._free
        if len(self._held) + len(self._free) != self._size or ids != set(range(self._size)):
            raise EngineError(f"{len(self._held)} held + {len(self._free)} free of {self._size}: {sorted(ids)}")
        wrong = [s.id for i, s in self._held.items() if s.id != i or s.owner is None]
        if wrong:
            raise EngineError(f"sequences {wrong} do not know their id or owner")
        for sequence_id in range(self._size):
            holder = self._held.get(sequence_id)
            expected = len(holder.tokens) if holder else 0
            real = length_of(sequence_id)
            if real != expected:
                raise EngineError(
                    f"sequence {sequence_id} holds {real} tokens where the pool says {expected}: {self!r}"
                )
