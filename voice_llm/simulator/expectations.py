"""Whether a reply is what was expected: one verdict for each thing that an expectation asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ..config.language import primary_language
from ..text import SentenceChunker
from .scenario import Expectation, ExpectedCall, Scenario, ScenarioTurn

__all__ = ["Observed", "Outcome", "Verdict", "expectations_of", "judge"]

_SPACES: Final = re.compile(r"\s+")
_WORD: Final = re.compile(r"\w+(?:['’.,-]\w+)*")
_HURRIED: Final = "persons hurried: times are not what people would meet"
_SOUND_ONLY: Final = "the reply is known as sound only"
# Turkish has a dotted and a dotless i, each with its own capital.
_TURKISH: Final = str.maketrans({"İ": "i", "I": "ı"})


class Outcome(StrEnum):
    """How an expectation came out."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was expected.

    Attributes:
        expected: What, in words.
        outcome: How it came out.
        found: What was there instead.
        gates: Whether a failure fails the run; False for what needs a better model.
    """

    expected: str
    outcome: Outcome
    found: str = ""
    gates: bool = True

    @property
    def fails_run(self) -> bool:
        """Whether it failed and counts."""
        return self.gates and self.outcome is Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of a turn.

    Attributes:
        text: The reply, as far as it came.
        first_speech_ms: When it began to be heard, after the caller stopped speaking; None where it did not.
        interrupted_ms: How long the reply before went on coming after the caller spoke into it; None where nobody did.
        calls: Tools that it called, with their arguments.
        words_known: Whether text and calls are known; else only that, and when, it was heard.
        times_count: Whether times are those that people would meet; else they are not judged.
    """

    text: str
    first_speech_ms: float | None = None
    interrupted_ms: float | None = None
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    words_known: bool = True
    times_count: bool = True


def expectations_of(scenario: Scenario, turn: ScenarioTurn, *, cut_short: bool) -> tuple[Expectation, ...]:
    """Return what is expected of a turn's reply.

    Args:
        scenario: Whose turn it is.
        turn: The turn.
        cut_short: Whether the caller spoke into the reply, or hung up in it.
    """
    silent = any(expectation.absent and expectation.event == "response" for expectation in turn.expect)
    shared = () if silent or cut_short else scenario.every_reply
    return (*shared, *turn.expect)


def judge(expectation: Expectation, observed: Observed, language: str = "en") -> tuple[Verdict, ...]:
    """Hold a reply against an expectation.

    Args:
        expectation: What is expected.
        observed: What came.
        language: Of the call; it decides what a capital's small letter is.
    """
    checks = _CHECKS[expectation.event](expectation, observed, language)
    gates = not expectation.needs_better_model
    return tuple(
        Verdict(expected, outcome, "" if outcome is Outcome.PASSED else found, gates)
        for expected, outcome, found in checks
    )


_Check = tuple[str, Outcome, str]


def _outcome(passed: bool) -> Outcome:
    return Outcome.PASSED if passed else Outcome.FAILED


def _of_reply(expectation: Expectation, observed: Observed, language: str) -> Iterator[_Check]:
    text = observed.text.strip()
    came = bool(text or observed.calls) if observed.words_known else observed.first_speech_ms is not None
    if expectation.absent:
        yield "no reply", _outcome(not came), _quoted(text)
        return
    yield "a reply", _outcome(came), "none came"
    if expectation.within_ms is not None:
        yield _in_time(expectation.within_ms, observed.first_speech_ms, "heard within", observed)
    for expected, outcome, found in _of_words(expectation, text, language):
        yield (expected, outcome, found) if observed.words_known else (expected, Outcome.NOT_JUDGED, _SOUND_ONLY)


def _of_words(expectation: Expectation, text: str, language: str) -> Iterator[_Check]:
    plain = _plain(text, language)
    for wanted in expectation.text_contains:
        yield f"contains {wanted!r}", _outcome(_plain(wanted, language) in plain), _quoted(text)
    for unwanted in expectation.text_excludes:
        yield f"does not contain {unwanted!r}", _outcome(_plain(unwanted, language) not in plain), _quoted(text)
    if expectation.text_matches is not None:
        matches = re.search(expectation.text_matches, text, re.IGNORECASE)
        yield f"matches /{expectation.text_matches}/", _outcome(matches is not None), _quoted(text)
    if expectation.max_words is not None:
        words = len(_WORD.findall(text))
        yield f"at most {expectation.max_words} words", _outcome(words <= expectation.max_words), f"{words} words"
    if expectation.max_sentences is not None:
        sentences = _sentences(text, language)
        expected = f"at most {expectation.max_sentences} sentences"
        yield expected, _outcome(sentences <= expectation.max_sentences), f"{sentences} sentences"
    if expectation.eval is not None:
        yield expectation.eval, Outcome.NOT_JUDGED, "there is no judge"


def _of_calls(expectation: Expectation, observed: Observed, language: str) -> Iterator[_Check]:
    for expected, outcome, found in _of_tools(expectation, observed):
        yield (expected, outcome, found) if observed.words_known else (expected, Outcome.NOT_JUDGED, _SOUND_ONLY)


def _of_tools(expectation: Expectation, observed: Observed) -> Iterator[_Check]:
    called = ", ".join(name for name, _ in observed.calls) or "no tool"
    if expectation.absent:
        yield "no tool is called", _outcome(not observed.calls), called
        return
    for wanted in expectation.calls or (None,):
        expected = "a tool is called" if wanted is None else f"{wanted.name}({_arguments(wanted.args)}) is called"
        yield expected, _outcome(any(_is_call(wanted, call) for call in observed.calls)), called
    if expectation.within_ms is not None:
        yield _in_time(expectation.within_ms, observed.first_speech_ms, "within", observed)


def _of_interruption(expectation: Expectation, observed: Observed, language: str) -> Iterator[_Check]:
    stopped_ms = observed.interrupted_ms
    if expectation.absent:
        yield "it is not interrupted", _outcome(stopped_ms is None), "it was"
        return
    yield "it stops when the caller speaks", _outcome(stopped_ms is not None), "nobody spoke into it"
    if expectation.within_ms is not None and stopped_ms is not None:
        yield _in_time(expectation.within_ms, stopped_ms, "stops within", observed)


_CHECKS: Final[Mapping[str, Callable[[Expectation, Observed, str], Iterable[_Check]]]] = {
    "response": _of_reply,
    "function_call": _of_calls,
    "bot_interrupted": _of_interruption,
}


def _in_time(within_ms: int, took_ms: float | None, words: str, observed: Observed) -> _Check:
    expected = f"{words} {within_ms} ms"
    if took_ms is None:
        return expected, Outcome.FAILED, "never"
    if not observed.times_count:
        return expected, Outcome.NOT_JUDGED, _HURRIED
    return expected, _outcome(took_ms <= within_ms), f"{took_ms:.0f} ms"


def _is_call(wanted: ExpectedCall | None, call: tuple[str, Mapping[str, Any]]) -> bool:
    name, arguments = call
    if wanted is None:
        return True
    return name == wanted.name and all(arguments.get(key) == value for key, value in wanted.args.items())


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _sentences(text: str, language: str) -> int:
    chunker = SentenceChunker(language, first_clause_min_chars=None, soft_limit_chars=10_000, hard_limit_chars=10_000)
    return len([*chunker.decode(text), *chunker.flush()])


def _plain(text: str, language: str) -> str:
    if primary_language(language) == "tr":
        text = text.translate(_TURKISH)
    return _SPACES.sub(" ", text).strip().casefold()


def _quoted(text: str) -> str:
    return repr(text) if text else "nothing"
