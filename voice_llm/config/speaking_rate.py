"""How fast a voice speaks: one number, or one for each language."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from ..errors import ConfigError
from .language import primary_language

__all__ = ["SPEAKING_RATES", "SpeakingRates", "speaking_rate_of"]

_MAX_CHARS_PER_S: Final = 1000
_DEFAULT: Final = "default"
_KEY: Final = rf"^([a-z]{{2,3}}|{_DEFAULT})$"

# Turkish is written as it is spoken, so that its letters take longer than English ones: the packaged Piper voice speaks
# 17 characters of English a second, and 15 of Turkish, which it was given as phonemes.
SPEAKING_RATES: Final[Mapping[str, float]] = {_DEFAULT: 17.0, "tr": 15.0}
"""What holds where a profile does not say, in characters a second."""


def speaking_rate_of(language: str, rates: float | Mapping[str, float]) -> float:
    """Return how many characters of a language, given by its code, are spoken in a second."""
    if not isinstance(rates, Mapping):
        return rates
    return rates.get(primary_language(language), rates[_DEFAULT])


def _check_rates(rates: object) -> object:
    """Say what is wrong; pydantic would say it once for each form that was not meant."""
    if not isinstance(rates, Mapping):
        return _check_rate(rates)
    for language, rate in rates.items():
        if not re.match(_KEY, language):
            raise ConfigError(f"is no language: write its two or three letters, or {_DEFAULT!r}", param=language)
        _check_rate(rate, param=language)
    if _DEFAULT not in rates:
        raise ConfigError("is missing: the rate of all languages that are not named", param=_DEFAULT)
    return rates


def _check_rate(rate: object, param: str | None = None) -> object:
    is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if not is_number or not 0 < rate <= _MAX_CHARS_PER_S:  # type: ignore[operator]  # a number by now
        allowed = f"a number greater than 0 and at most {_MAX_CHARS_PER_S}"
        raise ConfigError(f"is {reprlib.repr(rate)}; it should be {allowed}", param=param)
    return rate


_Rate = Annotated[float, Field(gt=0, le=_MAX_CHARS_PER_S, allow_inf_nan=False)]
_ByLanguage = Annotated[
    Mapping[Annotated[str, Field(pattern=_KEY)], _Rate],
    Field(json_schema_extra={"required": [_DEFAULT], "additionalProperties": False}),
]
SpeakingRates = Annotated[_Rate | _ByLanguage, BeforeValidator(_check_rates)]
"""Characters a second: a number for all languages, or one by a language's letters and a ``default`` for all others."""
