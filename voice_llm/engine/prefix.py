"""Token prefixes: how much two prompts share, and the saved states that let a prompt start further on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backend.base import SavedState

__all__ = ["IsolationKey", "PrefixMatch", "PrefixStore", "common_prefix_length"]


@dataclass(frozen=True, slots=True)
class IsolationKey:
    """Whose KV this is. Nothing is ever matched, shared or restored across different keys.

    Attributes:
        model: Model id of the backend.
        profile: Name of the profile.
        tenant: The tenant, or None for what belongs to the profile itself (its own system prompt).
        adapter: LoRA adapter, or "".
    """

    model: str
    profile: str
    tenant: str | None
    adapter: str = ""

    @property
    def of_profile(self) -> IsolationKey:
        """The key under which the profile's own system prompt is kept for all its tenants."""
        return IsolationKey(self.model, self.profile, None, self.adapter)


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """A saved state whose first ``length`` tokens are those of the prompt."""

    state: SavedState
    tokens: list[int]
    length: int


@dataclass(slots=True, eq=False)
class _Entry:
    key: IsolationKey
    tokens: list[int]
    state: SavedState
    used: int = field(default=0)


class PrefixStore:
    """Saved states of prompt prefixes in bounded host memory; the least recently used go first.

    Args:
        max_bytes: Host memory for all states together.
        per_key: Most states of one isolation key, so that one tenant cannot push out all others.
    """

    def __init__(self, max_bytes: int, *, per_key: int = 8) -> None:
        self._max_bytes = max_bytes
        self._per_key = per_key
        self._entries: list[_Entry] = []
        self._uses = 0

    def __repr__(self) -> str:
        return f"<PrefixStore [states: {len(self)} | bytes: {self.nbytes}/{self._max_bytes}]>"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Host memory taken, in bytes."""
        return sum(e.state.nbytes for e in self._entries)

    def find(self, key: IsolationKey, prompt: list[int]) -> PrefixMatch | None:
        """Return the state that shares the longest prefix with ``prompt``: the key's own, or the profile's."""
        best: tuple[int, _Entry] | None = None
        for entry in self._entries:
            if entry.key in (key, key.of_profile):
                length = common_prefix_length(entry.tokens, prompt)
                if length and (best is None or length > best[0]):
                    best = (length, entry)
        if best is None:
            return None
        length, entry = best
        self._uses += 1
        entry.used = self._uses
        return PrefixMatch(entry.state, entry.tokens, length)

    def would_add(self, key: IsolationKey, tokens: list[int], *, novelty: float = 0.5) -> bool:
        """Whether no state of this key shares at least ``novelty`` of ``tokens`` already."""
        return (
            self._max_bytes > 0
            and bool(tokens)
            and all(
                common_prefix_length(e.tokens, tokens) < novelty * len(tokens) for e in self._entries if e.key == key
            )
        )

    def add(self, key: IsolationKey, tokens: list[int], state: SavedState) -> bool:
        """Keep a state; False where it is larger than the whole store."""
        if state.nbytes > self._max_bytes:
            return False
        of_key = sorted((e for e in self._entries if e.key == key), key=lambda e: e.used)
        for entry in of_key[: max(0, len(of_key) - self._per_key + 1)]:
            self._entries.remove(entry)
        self._uses += 1
        self._entries.append(_Entry(key, list(tokens), state, self._uses))
        while self.nbytes > self._max_bytes:
            self._entries.remove(min(self._entries, key=lambda e: e.used))
        return True


def common_prefix_length(a: list[int], b: list[int]) -> int:
    """Return how many leading tokens are equal; compares slices, since token loops are slow in Python."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
