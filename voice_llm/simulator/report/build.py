"""From a judged run to its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ...events import Usage
from ..expectations import Outcome
from ..judged import JudgedRun, JudgedTurn
from ..metrics import SHARES, TIMES, share_of, values_of
from ..objective import Checked
from ..percentiles import percentile
from ..results import CallResult, TurnResult
from .model import FORMAT, BoundReport, CallReport, Figures, Report, ScenarioReport, TurnReport, VerdictReport

__all__ = ["build_report"]


def build_report(
    judged: JudgedRun,
    *,
    title: str,
    about: Mapping[str, str],
    objective: Sequence[Checked] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Write a run up.

    Args:
        judged: What came, and how it did.
        title: What the run is called.
        about: What was run, where and when.
        objective: What it had to hold, and whether it did.
        notes: What the figures do not show.
    """
    run = judged.run
    turns = {(turn.result.call_id, turn.result.turn): turn for turn in judged.turns}
    usage = sum((turn.usage for turn in run.turns if turn.usage), Usage())
    return Report(
        format=FORMAT,
        title=title,
        about=about,
        concurrent=run.concurrent,
        wall_s=run.wall_s,
        calls=tuple(_call(call, turns, run.started_s) for call in run.calls),
        times={name: figures for name in TIMES if (figures := _figures(values_of(judged, name)))},
        shares={name: share for name in SHARES if (share := share_of(judged, name)) is not None},
        tokens={
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "completion": usage.completion_tokens,
        },
        errors=dict(Counter(run.errors).most_common()),
        objective=tuple(
            BoundReport(text=c.bound.text, found=c.found, met=c.met, metric=c.bound.metric, limit=c.bound.limit)
            for c in objective
        ),
        scenarios=tuple(_scenarios(judged)),
        notes=tuple(notes),
    )


def _figures(values: Sequence[float]) -> Figures | None:
    if not values:
        return None
    p50, p95, p99, most = (round(percentile(values, percent), 3) for percent in (50, 95, 99, 100))
    return Figures(count=len(values), p50=p50, p95=p95, p99=p99, max=most)


def _call(call: CallResult, judged: Mapping[tuple[str, int], JudgedTurn], began_s: float) -> CallReport:
    return CallReport(
        call_id=call.call_id,
        scenario=call.script,
        started_s=round(call.started_s - began_s, 4),
        ended_s=round(call.ended_s - began_s, 4),
        error=call.error,
        turns=tuple(_turn(turn, judged.get((turn.call_id, turn.turn)), began_s) for turn in call.turns),
    )


def _turn(turn: TurnResult, judged: JudgedTurn | None, began_s: float) -> TurnReport:
    usage = turn.usage
    return TurnReport(
        turn=turn.turn,
        said=turn.said,
        text=turn.text,
        heard=turn.heard if turn.heard != turn.text else None,
        spoke_s=_since(turn.spoke_s, began_s),
        asked_s=round(turn.asked_s - began_s, 4),
        **{
            name: _rounded(getattr(turn, name))
            for name in ("first_token_ms", "first_chunk_ms", "first_speech_ms", "first_audio_ms", "queue_ms")
        },
        total_ms=round(turn.total_ms, 3),
        heard_until_s=_since(turn.heard_until_s, began_s),
        gaps=turn.gaps,
        gap_ms=round(turn.gap_s * 1e3, 3),
        stopped_ms=_rounded(turn.stopped_ms),
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        tools=tuple(call.name for call in turn.tool_calls),
        error=turn.error,
        verdicts=tuple(
            VerdictReport(expected=v.expected, outcome=v.outcome.value, found=v.found, gates=v.gates)
            for v in (judged.verdicts if judged else ())
        ),
    )


def _scenarios(judged: JudgedRun) -> list[ScenarioReport]:
    calls = Counter(call.script for call in judged.run.calls)
    reports = []
    for name in judged.scenarios:
        turns = [turn for turn in judged.turns if turn.scenario == name]
        part = JudgedRun(judged.run, tuple(turns))
        passed, failed, not_judged = Outcome.PASSED, Outcome.FAILED, Outcome.NOT_JUDGED
        reports.append(
            ScenarioReport(
                name=name,
                calls=calls[name],
                turns=len(turns),
                passed=part.count(passed, gates=True),
                failed=part.count(failed, gates=True),
                better_model_passed=part.count(passed, gates=False),
                better_model_failed=part.count(failed, gates=False),
                not_judged=part.count(not_judged),
            )
        )
    return reports


def _since(time_s: float | None, began_s: float) -> float | None:
    return None if time_s is None else round(time_s - began_s, 4)


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)
