"""Reading questions from a file, those that come with the package by default."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...config.explain import findings
from ...config.language import check_language
from ...errors import ConfigError
from ..scenario.places import Document, read_yaml
from .score import GroundedQuestion

__all__ = ["load_questions"]

_CONFIG = ConfigDict(frozen=True, extra="forbid")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class _Question(BaseModel):
    model_config = _CONFIG

    id: str
    kind: Literal["answerable", "absent", "contradicted"]
    question: str = Field(min_length=1)
    answer: str | None = None
    claim: str | None = None

    @field_validator("answer", "claim")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ConfigError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _check_answer(self) -> Self:
        if (self.kind == "absent") == (self.answer is not None):
            raise ConfigError("what the facts answer needs an answer, and what they do not has none", param="answer")
        return self


class _Set(BaseModel):
    model_config = _CONFIG

    language: str
    facts: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = Field(min_length=1)
    questions: Annotated[tuple[_Question, ...], BeforeValidator(_tuple)] = Field(min_length=1)

    @field_validator("language")
    @classmethod
    def _check_language(cls, language: str) -> str:
        return check_language(language)


class _File(BaseModel):
    model_config = _CONFIG

    sets: Annotated[tuple[_Set, ...], BeforeValidator(_tuple)] = Field(min_length=1)


def load_questions(path: Path | None = None) -> tuple[GroundedQuestion, ...]:
    """Read a file of questions; the forty that come with the package where none is named.

    Raises:
        ConfigError: The file is wrong; the message has a line for each fault.
    """
    document = read_yaml(path or Path(str(resources.files(__package__))) / "questions.yaml")
    try:
        file = _File.model_validate(document.data)
    except ValidationError as error:
        raise _explained(error, document) from None
    return tuple(
        GroundedQuestion(
            id=q.id,
            language=one.language,
            facts=one.facts,
            question=q.question,
            kind=q.kind,
            answer=q.answer,
            claim=q.claim,
        )
        for one in file.sets
        for q in one.questions
    )


def _explained(error: ValidationError, document: Document) -> ConfigError:
    lines = []
    for path, text in findings(error, _File):
        location = tuple(int(part) if part.isdigit() else part for part in path.split(".") if part)
        lines.append(f"{document.place_of(location)}: {path + ': ' if path else ''}{text}")
    return ConfigError("\n".join(lines))
