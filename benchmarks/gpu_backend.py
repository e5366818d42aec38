"""A backend that speaks like a phone assistant whatever its weights say, at the price of the model that it runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from itertools import cycle
from typing import Final

from voice_llm.backend import Sampler
from voice_llm.backend.llama import LlamaModel
from voice_llm.config import EngineConfig

from .common import TalkativeBackend

__all__ = ["PhoneBackend", "StandInVocabulary"]

_REPLIES: Final = (
    "Thank you for calling about this. I can see that your policy was renewed in March, and the new documents went out "
    "to the address that we have on file. If they have not arrived by Friday, please call us again and we will send a "
    "second copy by registered mail.",
    "I am sorry to hear that. The claim is open and a colleague looks at the photographs today. You need not send "
    "anything else for now. We will write to you as soon as there is a decision, and that usually takes three working "
    "days from the moment the file is complete.",
    "Yes, that is covered. The excess is two hundred euros, and the garage sends the rest of the bill straight to us. "
    "Would you like me to book the appointment for you? There is a place free on Tuesday morning, or on Thursday after "
    "four in the afternoon if that suits you better.",
    "Let me check that for you. The monthly payment went up because the car is now parked in another town. You can "
    "lower it again by choosing the smaller mileage, which many of our customers do. I can change that right away if "
    "you tell me how far you drive in a year.",
)
_PIECE: Final = re.compile(r" ?[^\W\d_]{1,7}| ?\d{1,3}|\s|[^\w\s]|_")
_SAMPLE: Final = "Good morning, how can I help you today?"
_FIRST_WORD: Final = 256


class StandInVocabulary:
    """Gives the ids of a vocabulary without words to words, so that texts have about as many tokens as usual.

    Ids are handed out in the order of appearance: from that of the first word up to the last. When none is left, what
    is new stays with the model's own tokens. Safe to use from several threads.

    Args:
        first: The first id to hand out.
        last: The last one.
    """

    def __init__(self, first: int, last: int) -> None:
        self._free = range(first, last + 1)
        self._ids: dict[str, int] = {}
        self._pieces: dict[int, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: LlamaModel) -> StandInVocabulary | None:
        """Return one where the model's own vocabulary spells nearly every letter, as a made-up one does."""
        if len(model.tokenize(_SAMPLE)) < len(_SAMPLE) / 2:
            return None
        return cls(_FIRST_WORD, min([model.n_vocab, *model.control_tokens.values()]) - 1)

    def id_of(self, piece: str) -> int | None:
        """Return the piece's id; None where there is none left."""
        with self._lock:
            known = self._ids.get(piece)
            if known is None and len(self._ids) < len(self._free):
                known = self._ids[piece] = self._free[len(self._ids)]
                self._pieces[known] = piece.encode()
            return known

    def bytes_of(self, token: int) -> bytes | None:
        """Return what an id stands for; None where it was not handed out."""
        return self._pieces.get(token)


class PhoneBackend(TalkativeBackend):
    """Draws each token as usual, and then says the next one of a reply as people get them on the phone.

    Random weights neither end a reply nor make sentences, and other models' replies differ in length; here every model
    speaks the same, so that first speech and listening times are those of phone calls.
    """

    def __init__(self, model: LlamaModel, config: EngineConfig) -> None:
        self._stand_in = StandInVocabulary.of(model)
        super().__init__(model, config, owns_model=False)
        self._replies = cycle([self.tokenize(text) for text in _REPLIES])
        self._replying: dict[Sampler, Iterator[int]] = {}

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        if self._stand_in is None or parse_special:
            return super().tokenize(text, parse_special=parse_special)
        tokens: list[int] = []
        for piece in _PIECE.findall(text):
            known = self._stand_in.id_of(piece)
            tokens += super().tokenize(piece) if known is None else [known]
        return tokens

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``."""
        piece = self._stand_in.bytes_of(token) if self._stand_in is not None else None
        return super().token_bytes(token) if piece is None else piece

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        super().sample(entry_index, sampler)
        reply = self._replying.get(sampler)
        if reply is None:
            reply = self._replying[sampler] = cycle(next(self._replies))
        return next(reply)
