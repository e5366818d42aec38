"""Reports say what came, in the terminal, as JSON and as a page of its own, also where nothing went well."""

from __future__ import annotations

import asyncio
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from voice_llm.errors import AtCapacityError, ConfigError, NotFoundError
from voice_llm.events import Usage
from voice_llm.simulator import CallResult, RunResult
from voice_llm.simulator.judged import JudgedRun, judge_run
from voice_llm.simulator.metrics import SHARES
from voice_llm.simulator.objective import check_objective, parse_objective
from voice_llm.simulator.report import (
    Change,
    Report,
    build_report,
    compare,
    comparison_table,
    read_report,
    render_page,
    render_report,
    verdict,
    worse,
)
from voice_llm.simulator.scenario import Scenario, list_scenarios
from voice_llm.simulator.simulation import Simulation

from .fakes import Pieces, ScriptedTarget, now, virtually

pytestmark = pytest.mark.unit

YES: Pieces = [(0.3, "Evet, "), (0.2, "tabii ki.")]
GAPPED: Pieces = [(0.3, "Evet, olur. "), (4.0, "Tabii ki.")]
SCRIPT_TAG = "<script>alert('x')</script>"
NOTHING = JudgedRun(RunResult(concurrent=1, wall_s=0.0, calls=()), ())


def scenario(name: str = "hotel", *turns: dict[str, Any], **fields: Any) -> Scenario:
    told = {"name": name, "turns": turns or [{"user": "Hello?"}, {"user": "Thank you."}], **fields}
    return Scenario.model_validate_json(json.dumps(told))


def simulate(*scenarios: Scenario, replies: tuple[Pieces, ...] = (YES,), **options: Any) -> JudgedRun:
    down = options.pop("down", False)
    usage = Usage(prompt_tokens=200, cached_tokens=150, completion_tokens=6)

    async def main() -> JudgedRun:
        called = ScriptedTarget(
            replies, usage=usage, open_error=lambda _: AtCapacityError("[red]busy[/]") if down else None
        )
        simulation = Simulation(scenarios=scenarios or (scenario(),), **options)
        return await simulation.run(called, run_id="r", clock=now, sleep=asyncio.sleep)

    return virtually(main)


def report_of(judged: JudgedRun, objective: str = "", **fields: Any) -> Report:
    about: dict[str, Any] = {"title": "Calls: hotel", "about": {"target": "engine"}}
    return build_report(judged, objective=check_objective(parse_objective(objective), judged), **about | fields)


def shown(*parts: RenderableType, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.export_text()


def changes(before: Report, now_is: Report) -> dict[str, Change]:
    return {change.name: change for change in compare(before, now_is)}


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


MISSES = scenario(
    "hotel_booking",
    {"user": "Hello?", "expect": [{"text_contains": "evet"}, {"text_contains": "12", "needs_better_model": True}]},
    {"user": "How much?", "expect": [{"text_contains": "104 euros"}, {"eval": "It is polite."}]},
)
FULL = simulate(MISSES, scenario("clinic"), replies=(YES, GAPPED), calls=3)
DOWN = simulate(scenario("hotel"), scenario("clinic"), calls=4, down=True)


def test_a_report_adds_up() -> None:
    report = report_of(FULL, "first_speech_p95<=10s,errors<=0%")
    assert (report.concurrent, len(report.calls)) == (3, 3)
    assert sum(s.calls for s in report.scenarios) == 3
    assert report.times["first_token"].p50 == pytest.approx(300)
    assert report.times["first_token"].count == 6
    assert report.shares["gaps"] == pytest.approx(0.5)
    assert report.shares["cached"] == pytest.approx(0.75)
    assert report.tokens == {"prompt": 1200, "cached": 900, "completion": 36}
    assert report.errors == {}
    assert report.objective_met
    hotel = next(s for s in report.scenarios if s.name == "hotel_booking")
    assert (hotel.turns, hotel.failed, hotel.better_model_failed) == (2 * hotel.calls, hotel.calls, hotel.calls)
    assert hotel.not_judged == hotel.calls
    assert report.expectations_failed == hotel.failed


def test_moments_count_from_the_beginning_of_the_run() -> None:
    run = RunResult(concurrent=1, wall_s=9.0, started_s=1000.0, calls=())
    call = CallResult(call_id="c", script="hotel", started_s=1002.0, ended_s=1004.5)
    (written,) = report_of(JudgedRun(RunResult(concurrent=1, wall_s=9.0, started_s=1000.0, calls=(call,)), ())).calls
    assert (written.started_s, written.ended_s) == (2.0, 4.5)
    assert report_of(JudgedRun(run, ())).calls == ()


def test_errors_are_counted_by_their_words() -> None:
    report = report_of(DOWN)
    assert report.errors == {"at_capacity: [red]busy[/]": 4}
    assert report.shares["errors"] == 1.0


@pytest.mark.parametrize("judged", [FULL, DOWN, NOTHING], ids=["full", "down", "nothing"])
def test_a_report_is_read_as_it_was_written(judged: JudgedRun, tmp_path: Path) -> None:
    report = report_of(judged, "first_speech<=1s,gaps<=1%", notes=["virtual time"])
    path = tmp_path / "report.json"
    path.write_text(report.to_json(), encoding="utf-8")
    assert read_report(path) == report
    assert not any(change.verdict == "worse" for change in compare(report, read_report(path)))


def test_what_is_no_report_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no report .*report\.json"):
        read_report(tmp_path / "report.json")
    for text, words in (('{"format": 1}', "title"), ("not json", "is no report"), ('{"format": 2}', "format")):
        path = tmp_path / "wrong.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=words):
            read_report(path)


def test_a_run_compared_with_itself_is_the_same() -> None:
    report = report_of(FULL)
    assert {change.verdict for change in compare(report, report)} == {"same"}
    assert worse(compare(report, report)) == ()


def test_a_slower_run_is_worse_and_a_quicker_one_better() -> None:
    slow = report_of(simulate(replies=([(0.6, "Evet, "), (0.2, "tabii ki.")],)))
    quick = report_of(simulate(replies=(YES,)))
    slower, quicker = changes(quick, slow)["first token, p95"], changes(slow, quick)["first token, p95"]
    assert (slower.before, slower.now, slower.difference, slower.verdict) == (
        "300 ms",
        "600 ms",
        "+300 ms (+100%)",
        "worse",
    )
    assert (quicker.difference, quicker.verdict) == ("-300 ms (-50%)", "better")
    assert "first token, p95" in {change.name for change in worse(compare(quick, slow))}


@pytest.mark.parametrize(
    ("later_s", "verdict_is"), [(0.302, "same"), (0.329, "same"), (0.331, "worse"), (0.271, "same"), (0.269, "better")]
)
def test_what_differs_by_a_tenth_at_most_is_the_same(later_s: float, verdict_is: str) -> None:
    before = report_of(simulate(replies=([(0.3, "Evet.")],)))
    after = report_of(simulate(replies=([(later_s, "Evet.")],)))
    assert changes(before, after)["first token, p50"].verdict == verdict_is


def test_a_few_milliseconds_are_the_same_however_large_a_share() -> None:
    before, after = (report_of(simulate(replies=([(s, "Evet.")],))) for s in (0.005, 0.014))
    assert changes(before, after)["first token, p50"].verdict == "same"


def test_shares_get_worse_in_their_own_direction() -> None:
    steady, gapped = report_of(simulate(replies=(YES,))), report_of(simulate(replies=(GAPPED,)))
    gaps = SHARES["gaps"].title
    assert (changes(steady, gapped)[gaps].difference, changes(steady, gapped)[gaps].verdict) == (
        "+100.0 points",
        "worse",
    )
    assert changes(gapped, steady)[gaps].verdict == "better"
    met = report_of(simulate(scenario("s", {"user": "Hm?", "expect": [{"text_contains": "evet"}]})))
    missed = report_of(simulate(scenario("s", {"user": "Hm?", "expect": [{"text_contains": "hayır"}]})))
    for name in (SHARES["expectations"].title, "s: expectations missed"):
        assert changes(met, missed)[name].verdict == "worse"
        assert changes(missed, met)[name].verdict == "better"
    assert "s: expectations missed" not in changes(met, met)


def test_what_only_one_run_has_is_neither_better_nor_worse() -> None:
    change = changes(report_of(DOWN), report_of(FULL))["first token, p50"]
    assert (change.before, change.now, change.verdict) == ("", "300 ms", "")
    assert changes(report_of(DOWN), report_of(FULL))[SHARES["errors"].title].verdict == "better"
    assert changes(report_of(FULL), report_of(DOWN))[SHARES["errors"].title].verdict == "worse"


@pytest.mark.parametrize("judged", [FULL, DOWN, NOTHING], ids=["full", "down", "nothing"])
def test_a_page_needs_nothing_but_itself(judged: JudgedRun) -> None:
    report = report_of(judged, "first_speech<=1s", notes=["virtual time"])
    source = render_page(report, changes=compare(report_of(FULL), report), before="yesterday")
    page = Page(source)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    named = {name for _, attributes in page.tags for name in attributes}
    assert not {"src", "href", "xlink:href", "srcset", "action"} & named
    assert not any(name.startswith("on") for name in named)
    assert not re.search(r"https?://|url\(|@import", source)
    assert "nan" not in source.casefold().replace("finanz", "")
    assert verdict(report) in page.text
    assert "Compared with yesterday" in page.text


def test_a_page_shows_what_was_said_missed_and_slow() -> None:
    report = report_of(FULL, "first_speech<=1ms", notes=["virtual time"])
    text = Page(render_page(report)).text
    for part in (
        "hotel_booking",
        "clinic",
        "How much?",
        "contains '104 euros'",
        "needs a better model",
        "virtual time",
    ):
        assert part in text
    assert text.count("Evet, tabii ki.") >= 1
    for heading in ("Objective", "Latency", "Calls", "Scenarios", "What was missed", "Slowest turns"):
        assert heading in text
    assert "Failures" not in text


def test_what_callers_and_models_say_is_never_markup() -> None:
    said = scenario("s", {"user": f"Hi {SCRIPT_TAG} [bold]you[/]", "expect": [{"text_contains": "<b>bold</b>"}]})
    judged = simulate(said, replies=([(0.3, f"So {SCRIPT_TAG} & [red]it[/nothing] is.")],))
    report = report_of(judged, title=f"T {SCRIPT_TAG}", about={"a<i>": SCRIPT_TAG}, notes=[SCRIPT_TAG])
    changed = (Change(f"n {SCRIPT_TAG}", SCRIPT_TAG, SCRIPT_TAG),)
    source = render_page(report, changes=changed, before=SCRIPT_TAG)
    page = Page(source)
    assert "<script" not in source
    assert {"script", "b", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.text.count(SCRIPT_TAG) > 8
    text = shown(*render_report(report), width=300)
    assert f"Hi {SCRIPT_TAG} [bold]you[/]" in text
    assert "& [red]it[/nothing] is." in text


def test_a_long_run_is_drawn_around_its_slowest_turn() -> None:
    late = [YES] * 60
    late[40] = [(9.0, "Evet.")]
    many = scenario("long", *({"user": f"Question number {n}, please?"} for n in range(60)))
    report = report_of(simulate(many, replies=tuple(late)))
    assert report.wall_s > 200
    source = render_page(report)
    assert re.search(r"1 of 1 calls, \d+ to \d+ s of \d+ s", source)
    assert "first token after 9000 ms" in source
    assert "turn 1, caller" not in source
    assert "turn 41, caller" in source


def test_barge_ins_and_failed_turns_are_drawn() -> None:
    broken = scenario(
        "s", {"user": "Tell me."}, {"user": "Stop!", "send_after": {"event": "bot_started_speaking", "delay_ms": 300}}
    )
    slow: Pieces = [(0.3, "Bu çok uzun. "), (0.2, "Sürüyor da sürüyor. "), (2.0, AtCapacityError("x"))]
    source = render_page(report_of(simulate(broken, replies=(slow,))))
    assert 'class="barge"' in source
    assert 'class="failed"' in source
    assert "the caller breaks in; stopped in" in source


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_shows_the_full_names_of_scenarios(width: int) -> None:
    names = list_scenarios()
    judged = simulate(*(scenario(name) for name in names))
    text = shown(*render_report(report_of(judged)), width=width)
    for name in names:
        assert re.search(rf"^\s*{name}\s", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= width


def test_a_terminal_shows_what_was_missed_and_the_verdict_last() -> None:
    report = report_of(FULL, "first_speech<=1ms", notes=["virtual time"])
    text = shown(*render_report(report))
    for part in ("hotel_booking", "2: How much?", "contains '104", "note: virtual time", "first_speech<=1ms", "missed"):
        assert part in text
    assert "contains '12'" not in text
    assert text.strip().splitlines()[-1].strip() == verdict(report)
    assert "objective missed" in verdict(report)
    assert re.search(r"\d expectations? missed", verdict(report))


def test_a_terminal_shows_some_of_many_misses_and_how_many_more() -> None:
    missed = [{"user": f"Question {n}?", "expect": [{"text_contains": "hayır"}]} for n in range(20)]
    text = shown(*render_report(report_of(simulate(scenario("s", *missed)))))
    assert text.count("Question ") == 12
    assert "and 8 more" in text


def test_all_is_well_is_said() -> None:
    report = report_of(simulate(scenario("s", {"user": "Hm?", "expect": [{"max_words": 9}]})), "errors<=0%")
    assert verdict(report).startswith("1 call, ")
    assert verdict(report).endswith("all expectations met, objective met")


def test_two_runs_are_shown_side_by_side() -> None:
    steady, gapped = report_of(simulate(replies=(YES,))), report_of(simulate(replies=(GAPPED,)))
    text = shown(comparison_table(compare(steady, gapped), before="yesterday.json"), width=120)
    for part in ("yesterday.json", "now", SHARES["gaps"].title, "worse", "same", "+100.0 points"):
        assert part in text


def test_a_run_in_which_every_call_failed_is_reported() -> None:
    report = report_of(DOWN, "first_speech<=1s,errors<=1%")
    assert not report.objective_met
    text = shown(*render_report(report))
    assert "at_capacity: [red]busy[/]" in text
    assert "nothing was measured" in text
    assert "4 calls, 0 turns" in text
    assert "4 failures" in text
    page = Page(render_page(report)).text
    assert "at_capacity: [red]busy[/]" in page
    assert "Failures" in page
    assert "expectations met" not in verdict(report)


def test_an_empty_run_is_reported() -> None:
    report = report_of(NOTHING)
    assert "0 calls, 0 turns in 0.0 s" in shown(*render_report(report))
    assert "0 calls, 0 turns" in Page(render_page(report)).text
    assert compare(report, report) == ()
    assert compare(report_of(FULL), report) != ()


def test_a_call_of_no_scenario_is_reported_too() -> None:
    judged = judge_run(FULL.run, [])
    report = report_of(judged)
    assert (report.scenarios, report.expectations_failed) == ((), 0)
    assert "6 turns" in shown(*render_report(report))
    assert "Evet" in Page(render_page(report)).text


def test_a_path_is_never_markup() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    changed = Change("a figure with a long name", "1 ms", "2 ms")
    console.print(comparison_table((changed,), before="runs [/old]/report.json"))
    assert "runs [/old]/report.json" in console.export_text()
