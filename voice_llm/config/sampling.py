"""SamplingParams: how a reply is drawn from the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from ..errors import InvalidRequestError

Pacing = Literal["voice", "off"]
FirstChunk = Literal["clause", "sentence"]

# Each token of a reply is looked through for all of them, on the one thread that all calls share.
MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a reply is drawn. Every field has an effect; a value that cannot have one is refused.

    Attributes:
        max_tokens: Longest reply, in tokens; reserved in the call's context.
        temperature: 0 is greedy; above, the softmax temperature.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set whose probability reaches this; 1 keeps all.
        min_p: Drop tokens below this share of the likeliest one's probability; 0 drops none.
        repetition_penalty: Divides the logits of tokens already in this reply; 1 is off.
        presence_penalty: Subtracted once from the logits of tokens already in this reply.
        frequency_penalty: Subtracted for each occurrence in this reply.
        seed: Makes sampling repeatable; None draws a fresh one.
        stop: Strings that end the reply; none of them is ever part of the text. At most 16, of 1 to 256 characters.
        grammar: GBNF grammar with a ``root`` rule that the reply must match.
        json_schema: JSON schema that the reply must match; excludes ``grammar``.
        pacing: "voice": the reply is heard at speaking rate, so it may come in its own time once its first words are
            there, and others go first; "off": it is read, and comes as fast as the machine can.
        first_chunk: Where the reply's first chunk may end, with which the caller begins to hear it: "clause", so that
            speech starts early; "sentence", for a voice, or a reader of the text, that takes whole sentences only.
    """

    max_tokens: int = 256
    temperature: float = 0.2
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    pacing: Pacing = "voice"
    first_chunk: FirstChunk = "clause"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _as_tuple(self.stop))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidRequestError(f"{name} must be a number, not {value!r}", param=name)
            if not low <= value <= high:
                raise InvalidRequestError(f"{name} must be between {low} and {high}, not {value!r}", param=name)
        for name in ("max_tokens", "top_k"):
            if not isinstance(getattr(self, name), int):
                raise InvalidRequestError(f"{name} must be a whole number, not {getattr(self, name)!r}", param=name)
        whole = isinstance(self.seed, int) and not isinstance(self.seed, bool)
        if self.seed is not None and not (whole and -(2**63) <= self.seed < 2**63):
            raise InvalidRequestError(f"seed must be a 64-bit whole number, not {self.seed!r}", param="seed")
        if len(self.stop) > MAX_STOPS:
            raise InvalidRequestError(f"stop must hold at most {MAX_STOPS} strings, not {len(self.stop)}", param="stop")
        if not all(isinstance(s, str) and 1 <= len(s) <= MAX_STOP_CHARS for s in self.stop):
            raise InvalidRequestError(f"stop must hold strings of 1 to {MAX_STOP_CHARS} characters", param="stop")
        if not isinstance(self.grammar, str | None):
            raise InvalidRequestError(f"grammar must be text, not {self.grammar!r}", param="grammar")
        if not isinstance(self.json_schema, Mapping | None):
            raise InvalidRequestError(f"json_schema must be an object, not {self.json_schema!r}", param="json_schema")
        if self.pacing not in get_args(Pacing):
            raise InvalidRequestError(f"pacing must be 'voice' or 'off', not {self.pacing!r}", param="pacing")
        if self.first_chunk not in get_args(FirstChunk):
            raise InvalidRequestError(
                f"first_chunk must be 'clause' or 'sentence', not {self.first_chunk!r}", param="first_chunk"
            )
        if self.grammar is not None and self.json_schema is not None:
            raise InvalidRequestError("give either grammar or json_schema, not both", param="grammar")

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with ``overrides``; a value of None leaves the field as it is.

        Raises:
            InvalidRequestError: A name is unknown or a value is out of range.
        """
        known = {f.name for f in dataclasses.fields(self)}
        for name in overrides:
            if name not in known:
                raise InvalidRequestError(f"unknown sampling parameter {name!r}", param=name)
        return dataclasses.replace(self, **{k: v for k, v in overrides.items() if v is not None})


def _as_tuple(stop: object) -> tuple[object, ...]:
    if isinstance(stop, str):
        return (stop,)
    if not isinstance(stop, Sequence):
        raise InvalidRequestError(f"stop must be a list of strings, not {stop!r}", param="stop")
    return tuple(stop)


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("max_tokens", 1, 1_000_000),
    ("temperature", 0, 10),
    ("top_k", 0, 10_000_000),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("repetition_penalty", 0.01, 10),
    ("presence_penalty", -10, 10),
    ("frequency_penalty", -10, 10),
)
