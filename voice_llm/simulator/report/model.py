"""Report: what a run found out, as a file that another run can be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import ConfigError, NotFoundError

__all__ = [
    "BoundReport",
    "CallReport",
    "Figures",
    "Report",
    "ScenarioReport",
    "TurnReport",
    "VerdictReport",
    "read_report",
]

_CONFIG = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
FORMAT: Final = 1


class Figures(BaseModel):
    """Percentiles of a time, in milliseconds."""

    model_config = _CONFIG

    count: int
    p50: float
    p95: float
    p99: float
    max: float


class BoundReport(BaseModel):
    """One bound of the objective."""

    model_config = _CONFIG

    text: str
    found: str
    met: bool
    metric: str
    limit: float
    """Milliseconds, or a share from 0 to 1."""


class VerdictReport(BaseModel):
    """One thing that was expected of a reply."""

    model_config = _CONFIG

    expected: str
    outcome: str
    found: str = ""
    gates: bool = True


class TurnReport(BaseModel):
    """One turn. Moments are seconds since the run began."""

    model_config = _CONFIG

    turn: int
    said: str = ""
    text: str = ""
    heard: str | None = None
    """What of the text the caller heard, where that is not all."""
    spoke_s: float | None = None
    asked_s: float
    first_token_ms: float | None = None
    first_chunk_ms: float | None = None
    first_speech_ms: float | None = None
    first_audio_ms: float | None = None
    queue_ms: float | None = None
    total_ms: float
    heard_until_s: float | None = None
    gaps: int = 0
    gap_ms: float = 0.0
    stopped_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    tools: tuple[str, ...] = ()
    error: str | None = None
    verdicts: tuple[VerdictReport, ...] = ()


class CallReport(BaseModel):
    """One call."""

    model_config = _CONFIG

    call_id: str
    scenario: str = ""
    started_s: float
    ended_s: float
    error: str | None = None
    turns: tuple[TurnReport, ...] = ()


class ScenarioReport(BaseModel):
    """How the calls of one scenario did."""

    model_config = _CONFIG

    name: str
    calls: int
    turns: int
    passed: int
    """Expectations that count and are met."""
    failed: int
    """Those that count and are not."""
    better_model_passed: int
    """Those that need a better model, and are met all the same."""
    better_model_failed: int
    not_judged: int


class Report(BaseModel):
    """A run."""

    model_config = _CONFIG

    format: Literal[1]
    """Of the file."""
    title: str
    about: Mapping[str, str]
    """What was run, where and when."""
    concurrent: int
    wall_s: float
    calls: tuple[CallReport, ...]
    times: Mapping[str, Figures]
    """By the name of the time."""
    shares: Mapping[str, float]
    """By the name of the share, 0 to 1."""
    tokens: Mapping[str, int]
    """Prompt, cached and completion tokens of all turns."""
    errors: Mapping[str, int]
    """What went wrong, and how often."""
    objective: tuple[BoundReport, ...] = ()
    scenarios: tuple[ScenarioReport, ...] = ()
    notes: tuple[str, ...] = ()
    """What the figures do not show."""

    @property
    def objective_met(self) -> bool:
        """Whether all bounds hold."""
        return all(bound.met for bound in self.objective)

    @property
    def expectations_failed(self) -> int:
        """Expectations that count and are not met."""
        return sum(scenario.failed for scenario in self.scenarios)

    def to_json(self) -> str:
        """Return it as JSON text."""
        return self.model_dump_json(indent=1, exclude_defaults=True)


def read_report(path: Path) -> Report:
    """Read a report's JSON file.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(f"there is no report {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} is no report of voice-llm simulate: {where}: {first['msg']}") from None
