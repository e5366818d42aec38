"""Scenario: one phone call as a file tells it, with what is expected of every reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from ...config.language import check_language
from ...errors import ConfigError, InvalidRequestError

__all__ = [
    "Event",
    "Expectation",
    "ExpectedCall",
    "Pause",
    "Person",
    "Reference",
    "Scenario",
    "ScenarioTool",
    "ScenarioTurn",
    "SendAfter",
]

_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
_LONGEST_S: Final = 600
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}

Event = Literal["response", "function_call", "bot_interrupted"]


def _texts(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), WithJsonSchema(_TEXTS)]


class Pause(BaseModel):
    """Silence in the middle of what the caller says."""

    model_config = _CONFIG

    pause_ms: int = Field(gt=0, le=_LONGEST_S * 1000)
    """How long, in milliseconds."""


def _spoken(value: object) -> object:
    """Take ``user: text`` and ``user: [text, {pause_ms: 800}, text]``."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) or _is_pause(part) for part in parts):
        raise ConfigError("must be what the caller says: a text, or a list of texts and pauses such as {pause_ms: 800}")
    if not any(isinstance(part, str) and part.strip() for part in parts):
        raise ConfigError("must have words; a caller who says nothing is silence_ms")
    return tuple(parts)


def _is_pause(part: object) -> bool:
    return isinstance(part, Mapping) and part.keys() == {"pause_ms"}


Spoken = Annotated[
    tuple[str | Pause, ...],
    BeforeValidator(_spoken),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": [_TEXT, Pause.model_json_schema()]}}]}),
]


class SendAfter(BaseModel):
    """When the caller begins to speak, or hangs up: counted from what the bot does, or from what came before."""

    model_config = _CONFIG

    event: Literal["llm_started", "bot_started_speaking"] | None = None
    """``llm_started``: its first text came; ``bot_started_speaking``: the caller hears the reply."""
    word: str | None = Field(default=None, min_length=1)
    """Once the caller has heard this word of the reply; else once the reply has been heard."""
    delay_ms: int = Field(default=0, ge=0, le=_LONGEST_S * 1000)
    """So much later."""

    @model_validator(mode="after")
    def _check_anchor(self) -> Self:
        if self.event is not None and self.word is not None:
            raise ConfigError("give event or word, not both", param="word")
        if self.event is None and self.word is None and not self.delay_ms:
            raise ConfigError("needs an event, a word, or a delay_ms of more than 0")
        return self

    @property
    def interrupts(self) -> bool:
        """Whether it is in the middle of the bot's reply."""
        return self.event is not None or self.word is not None


class ExpectedCall(BaseModel):
    """A tool that is to be called."""

    model_config = _CONFIG

    name: str
    """Name of the tool."""
    args: Mapping[str, Any] = {}
    """Arguments that it must have; others do no harm."""


class Expectation(BaseModel):
    """What is expected of one reply.

    Names are those of Pipecat's evals, where these have one.
    """

    model_config = _CONFIG

    event: Event = "response"
    """``response``: the reply; ``function_call``: what it asks of tools; ``bot_interrupted``: the reply before stops
    when the caller speaks into it."""
    within_ms: int | None = Field(default=None, gt=0)
    """The reply begins to be heard within so many milliseconds; for ``bot_interrupted``, it stops within them."""
    text_contains: Texts = ()
    """The reply contains each of these, whatever its spaces and capitals."""
    text_matches: str | None = None
    """The reply matches this regular expression somewhere, whatever its capitals."""
    text_excludes: Texts = ()
    """The reply contains none of these."""
    max_words: int | None = Field(default=None, gt=0)
    """The reply has so many words at most."""
    max_sentences: int | None = Field(default=None, gt=0)
    """The reply has so many sentences at most."""
    calls: tuple[ExpectedCall, ...] = ()
    """Tools that are called, in any order."""
    absent: bool = False
    """There is none: no reply, no call."""
    eval: str | None = None
    """What a judge would have to find; there is none here, so it is told as not judged."""
    needs_better_model: bool = False
    """Tell where it fails, but do not let the run fail: small models are not expected to pass."""

    @field_validator("text_matches")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ConfigError(
                f"is no regular expression: {error}; put a backslash before a sign that is meant as it is"
            ) from None
        return pattern

    @model_validator(mode="after")
    def _check_has_effect(self) -> Self:
        of_text = {"text_contains", "text_matches", "text_excludes", "max_words", "max_sentences", "eval"}
        given = self.model_fields_set - {"event", "absent", "needs_better_model", "within_ms"}
        allowed = {"response": of_text, "function_call": {"calls"}, "bot_interrupted": set()}[self.event]
        for name in sorted(given - allowed):
            raise ConfigError(f"says nothing about event {self.event}; leave it out, or name another event", param=name)
        if self.absent and given:
            raise ConfigError("of what is absent nothing else can be expected", param=min(given))
        return self


class Person(BaseModel):
    """How the caller speaks and listens."""

    model_config = _CONFIG

    description: str = ""
    """Who it is, for people who read the file."""
    speaking_wpm: float = Field(default=150.0, gt=0, le=400)
    """Words a minute."""
    think_s: float = Field(default=0.8, ge=0, le=_LONGEST_S)
    """Pause between the end of a reply, as heard, and the caller's next words, in seconds."""
    mishears: float = Field(default=0.0, ge=0, le=1)
    """Share of the reports in which the recogniser gets the last word wrong, until the next one: noise on the line."""
    noise_snr_db: float | None = Field(default=None, ge=-10, le=60)
    """Signal-to-noise ratio where the caller is heard as sound, in decibels; None for a quiet line."""


class ScenarioTool(BaseModel):
    """A tool that the bot may call, and what it returns here."""

    model_config = _CONFIG

    name: str
    """Its name."""
    description: str = ""
    """What it does, for the model."""
    parameters: Mapping[str, Any] = {}
    """JSON schema of its arguments."""
    result: Any = None
    """What it returns in this call, as JSON."""


def _calls(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Reference(BaseModel):
    """A good answer, by which a scenario proves itself: it meets every expectation."""

    model_config = _CONFIG

    text: str = ""
    """The words."""
    calls: Annotated[tuple[ExpectedCall, ...], BeforeValidator(_calls)] = ()
    """The tools that it calls first."""


def _reference(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


class ScenarioTurn(BaseModel):
    """One turn: what the caller does, and what is expected of the reply."""

    model_config = _CONFIG

    user: Spoken | None = None
    """What the caller says: a text, or texts and pauses (``pause_ms``)."""
    silence_ms: int | None = Field(default=None, gt=0, le=_LONGEST_S * 1000)
    """The caller says nothing for so long, in the place of ``user``."""
    partials: tuple[str, ...] = ()
    """What a streaming recogniser reports while it is said, corrections too; by default the words, a few at a time."""
    send_after: SendAfter | None = None
    """When the caller begins to speak; by default when the reply before has been heard and thought about."""
    hang_up_after: SendAfter | None = None
    """When the caller hangs up in this turn's reply; by default not at all."""
    facts: Texts = ()
    """Retrieved text of this turn."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Longest reply, in tokens."""
    expect: tuple[Expectation, ...] = ()
    """What is expected of the reply."""
    reference: Annotated[
        Reference | None, BeforeValidator(_reference, json_schema_input_type=str | Reference | None)
    ] = None
    """A good answer: a text, or ``text`` and ``calls``."""

    @model_validator(mode="after")
    def _check_caller(self) -> Self:
        if (self.user is None) == (self.silence_ms is None):
            raise ConfigError("a turn has either user, what the caller says, or silence_ms")
        if self.user is None and self.partials:
            raise ConfigError("who says nothing has no partial transcripts", param="partials")
        return self

    @property
    def text(self) -> str:
        """What the caller says, without its pauses."""
        return " ".join(part.strip() for part in self.user or () if isinstance(part, str))


class Scenario(BaseModel):
    """One phone call: who calls, what is said, and what is expected of the replies."""

    model_config = _CONFIG

    name: str = Field(pattern=r"^[\w][\w./ -]*$")
    """What it is called."""
    description: str = ""
    """What it is about, in a line."""
    language: str = "en"
    """Code of the language that is spoken (BCP 47)."""
    system_prompt: str = ""
    """How the call begins for the model."""
    context: tuple[Mapping[str, Any], ...] = ()
    """Messages before the call's first turn, as ``role`` and ``content``."""
    facts: Texts = ()
    """Retrieved text that the whole call has."""
    tools: tuple[ScenarioTool, ...] = ()
    """What the bot may call."""
    caller: Person = Person()
    """How the caller speaks and listens."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Longest reply, in tokens, where a turn does not say."""
    every_reply: tuple[Expectation, ...] = ()
    """What is expected of each reply that is not interrupted, hung up on or expected to be absent."""
    turns: tuple[ScenarioTurn, ...] = Field(min_length=1)
    """The turns, in order."""
    stop_on_failure: bool = False
    """Hang up after the first turn that misses an expectation."""

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str) -> str:
        try:
            return check_language(language)
        except InvalidRequestError as error:
            # The field's own name is told already.
            raise ConfigError(str(error)) from None

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        if (first := self.turns[0].send_after) is not None and first.interrupts:
            raise ConfigError("nothing comes before the first turn that it could interrupt", param="turns.0.send_after")
        for number, (before, turn) in enumerate(pairwise(self.turns), 1):
            if turn.send_after is not None and turn.send_after.interrupts and not (before.user and turn.user):
                raise ConfigError("only words interrupt, and only a reply", param=f"turns.{number}.send_after")
        for number, turn in enumerate(self.turns[:-1]):
            if turn.hang_up_after is not None:
                raise ConfigError("turns follow after the caller has hung up", param=f"turns.{number}.hang_up_after")
        known = {tool.name for tool in self.tools}
        for number, turn in enumerate(self.turns):
            called = [call.name for e in turn.expect for call in e.calls]
            called += [call.name for call in turn.reference.calls] if turn.reference else []
            for name in called:
                if name not in known:
                    raise ConfigError(
                        f"there is no tool {name!r} (there are: {', '.join(sorted(known)) or 'none'}); add it to tools",
                        param=f"turns.{number}",
                    )
        return self
