"""``voice-llm simulate`` as it is typed: what it shows, writes and ends with."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.cli.conftest import isolated as isolated  # a fixture
from voice_llm.cli.app import app
from voice_llm.cli.exit_codes import ExitCode
from voice_llm.simulator.virtual import SMOLLM2_ON_TWO_CORES

pytestmark = pytest.mark.unit

GOOD = """\
name: {name}
description: Somebody asks for the opening hours.
system_prompt: Be brief.
every_reply:
  - within_ms: 4000
turns:
  - user: Hello, when do you open tomorrow morning?
    expect:
      - text_contains: eight
    reference: We open at eight o'clock tomorrow, and close at six in the evening.
  - user: And on Sunday?
    send_after: {{event: bot_started_speaking, delay_ms: 500}}
    expect:
      - event: bot_interrupted
    reference: On Sunday we are closed.
"""
BROKEN = """\
name: broken
turns:
  - user: Hello?
    expect:
      - text_contians: eight
  - silence_ms: -3
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded that a test looks for."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return written(tmp_path / "hours.yaml", GOOD.format(name="hours"))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def simulate(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)], catch_exceptions=False)


def report_in(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def words(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def nobody_at() -> Iterator[str]:
    """An address at which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class TestScenarios:
    def test_list_shows_what_is_built_in(self) -> None:
        shown = simulate("--list")
        assert shown.exit_code == ExitCode.DONE
        rows = words(shown.stdout)
        assert "impatient_caller tr 5 Sabırsız bir arayan" in rows
        assert "insurance_claim en 5 Water in the kitchen" in rows

    def test_list_for_programs_is_a_line_of_json_each(self) -> None:
        rows = [json.loads(line) for line in simulate("--list", "--json").stdout.splitlines()]
        assert len(rows) >= 10
        assert all(row.keys() == {"name", "language", "turns", "description"} for row in rows)
        assert all(row["turns"] >= 3 for row in rows)

    def test_schema_is_json_that_names_all_keys(self) -> None:
        shown = simulate("--schema")
        assert shown.exit_code == ExitCode.DONE
        schema = json.loads(shown.stdout)
        assert schema["$schema"].startswith("https://json-schema.org/")
        assert {"name", "turns", "every_reply", "caller", "tools"} <= schema["properties"].keys()
        assert schema["additionalProperties"] is False

    def test_check_of_a_good_file_shows_what_is_in_it(self, scenario: Path) -> None:
        checked = simulate("--check", scenario)
        assert checked.exit_code == ExitCode.DONE
        assert "hours en 2 Somebody asks for the opening hours." in words(checked.stdout)

    def test_check_of_a_broken_file_tells_line_field_and_remedy(self, tmp_path: Path) -> None:
        path = written(tmp_path / "broken.yaml", BROKEN)
        checked = simulate("--check", path)
        assert checked.exit_code == ExitCode.USAGE
        assert "Traceback" not in checked.output
        first, second = checked.stderr.splitlines()
        assert f"{path}, line 5: turns.0.expect.0.text_contians: unknown key" in first
        assert "did you mean 'text_contains'?" in first
        assert f"{path}, line 6: turns.1.silence_ms: is -3; it should be greater than 0" in second

    def test_check_of_what_is_no_yaml_tells_the_line(self, tmp_path: Path) -> None:
        checked = simulate("--check", written(tmp_path / "odd.yaml", "name: odd\nturns: [\n"))
        assert checked.exit_code == ExitCode.USAGE
        assert "odd.yaml, line 3: not YAML" in checked.stderr
        assert "Traceback" not in checked.output

    def test_broken_file_is_not_run_either(self, tmp_path: Path) -> None:
        path = written(tmp_path / "broken.yaml", BROKEN)
        ran = simulate(path, "--target", "virtual", "--report", tmp_path / "out")
        assert ran.exit_code == ExitCode.USAGE
        assert not (tmp_path / "out").exists()

    def test_folder_is_all_its_scenarios(self, tmp_path: Path) -> None:
        folder = tmp_path / "calls"
        folder.mkdir()
        for name in ("one", "two"):
            written(folder / f"{name}.yaml", GOOD.format(name=name))
        rows = [json.loads(line) for line in simulate("--check", "--json", folder).stdout.splitlines()]
        assert [row["name"] for row in rows] == ["one", "two"]


class TestWhatIsAskedWrongly:
    @pytest.mark.parametrize("name", ["impatient_calller", "none.yaml", "no/such/folder"])
    def test_scenario_that_is_not_there_is_named(self, name: str) -> None:
        asked = simulate(name, "--target", "virtual")
        assert asked.exit_code == ExitCode.USAGE
        assert name in asked.stderr
        assert asked.stderr.count("\n") == 1

    def test_scenario_that_is_misspelt_gets_a_hint(self) -> None:
        assert "impatient_caller" in simulate("impatient_calller").stderr

    def test_no_scenario_is_answered_with_those_there_are(self) -> None:
        asked = simulate("--target", "virtual")
        assert asked.exit_code == ExitCode.USAGE
        assert "which scenario?" in asked.stderr
        assert "insurance_claim" in asked.stderr

    @pytest.mark.parametrize(
        ("options", "hint"),
        [
            (["--target", "nowhere"], "allowed is engine, virtual, grpc://HOST:PORT"),
            (["--target", "ftp://127.0.0.1"], "allowed is engine, virtual, grpc://HOST:PORT"),
            (["--target", "virtual", "--model-name", "tiny"], "http://"),
            (["--target", "engine", "--costs", "costs.json"], "--target virtual"),
            (["--target", "virtual", "--costs", "none.json"], "none.json cannot be read"),
            (["--target", "virtual", "--arrivals", "poisson:9"], "duration_s"),
            (["--target", "virtual", "--arrivals", "often", "--duration-s", "9"], "often"),
            (["--target", "virtual", "--objective", "first_chunk_p95"], "is no bound"),
            (["--target", "virtual", "--objective", "first_chnk<=1s"], "first_chunk"),
            (["--target", "virtual", "--compare", "none.json"], "there is no report none.json"),
            (["--target", "virtual", "--profile", "none"], "none"),
        ],
    )
    def test_option_that_cannot_be_is_told_in_a_line(self, scenario: Path, options: list[str], hint: str) -> None:
        asked = simulate(scenario, *options)
        assert asked.exit_code == ExitCode.USAGE
        assert hint in asked.stderr
        assert asked.stdout == ""
        assert "Traceback" not in asked.output

    def test_error_is_an_object_for_programs(self, scenario: Path) -> None:
        asked = simulate(scenario, "--target", "nowhere", "--json")
        assert asked.exit_code == ExitCode.USAGE
        error = json.loads(asked.stdout)
        assert (error["type"], error["code"]) == ("error", "invalid_request")

    def test_folder_that_cannot_be_made_is_told_before_anybody_calls(self, scenario: Path, tmp_path: Path) -> None:
        asked = simulate(scenario, "--target", "virtual", "--report", written(tmp_path / "file", "") / "out")
        assert asked.exit_code == ExitCode.USAGE
        assert "--report" in asked.stderr

    def test_file_that_is_no_report_cannot_be_compared_with(self, scenario: Path, tmp_path: Path) -> None:
        other = written(tmp_path / "other.json", '{"calls": 7}')
        asked = simulate(scenario, "--target", "virtual", "--compare", other)
        assert asked.exit_code == ExitCode.USAGE
        assert "other.json is no report" in asked.stderr


class TestVirtual:
    def test_run_shows_how_it_did_and_writes_the_report(self, scenario: Path, tmp_path: Path) -> None:
        ran = simulate(scenario, "--target", "virtual", "--calls", 2, "--report", tmp_path / "out")
        assert ran.exit_code == ExitCode.DONE, ran.output
        assert "2 calls, 4 turns" in ran.stdout
        assert "all expectations met" in ran.stdout
        assert "virtual time" in ran.stdout
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>")
        assert "On Sunday we are closed." in page
        report = report_in(tmp_path / "out")
        assert [call["scenario"] for call in report["calls"]] == ["hours", "hours"]
        first, second = report["calls"][0]["turns"]
        assert first["stopped_ms"] == 0
        assert first["text"].startswith(first["heard"])
        assert second["text"] == "On Sunday we are closed."
        assert report["about"]["target"] == "engine in virtual time"

    def test_same_seed_gives_the_same_report_but_for_the_date(self, tmp_path: Path) -> None:
        reports = []
        for name, seed in (("a", 7), ("b", 7), ("c", 8)):
            options = ("--target", "virtual", "--calls", 6, "--duration-s", 90, "--seed", seed)
            assert simulate("impatient_caller", "hotel_booking", *options, "--report", tmp_path / name).exit_code == 0
            reports.append(report_in(tmp_path / name))
            del reports[-1]["about"]["date"]
        first, second, other = reports
        assert first == second
        assert len(first["calls"]) > 6
        assert first["calls"] != other["calls"]

    def test_callers_may_dial_when_they_like(self, scenario: Path, tmp_path: Path) -> None:
        options = ("--target", "virtual", "--arrivals", "poisson:30", "--duration-s", 120, "--report", tmp_path)
        assert simulate(scenario, *options).exit_code == ExitCode.DONE
        report = report_in(tmp_path)
        assert len({call["started_s"] for call in report["calls"]}) == len(report["calls"]) > 20
        assert max(call["started_s"] for call in report["calls"]) < 120
        assert report["about"]["callers"] == "poisson:30, for 120 s, seed 0"

    def test_half_an_hour_of_calls_takes_seconds(self, scenario: Path, tmp_path: Path) -> None:
        began_s = time.monotonic()
        options = ("--target", "virtual", "--calls", 2, "--duration-s", 1800, "--report", tmp_path)
        assert simulate(scenario, *options).exit_code == ExitCode.DONE
        assert report_in(tmp_path)["wall_s"] >= 1800
        assert time.monotonic() - began_s < 60

    @pytest.mark.parametrize(
        ("objective", "code", "words_shown"),
        [
            ("first_chunk_p95<=4s,gaps<=1%,errors<=0%", ExitCode.DONE, "objective met"),
            ("first_chunk_p95<=4s,first_token_p50<=1ms", ExitCode.OBJECTIVE_MISSED, "objective missed"),
            ("first_audio_p95<=9s", ExitCode.OBJECTIVE_MISSED, "nothing was measured"),
            ("cached>=100%", ExitCode.OBJECTIVE_MISSED, "objective missed"),
        ],
    )
    def test_objective_decides_how_the_command_ends(
        self, scenario: Path, objective: str, code: ExitCode, words_shown: str
    ) -> None:
        ran = simulate(scenario, "--target", "virtual", "--objective", objective)
        assert ran.exit_code == code
        assert words_shown in ran.stdout

    def test_expectation_that_is_missed_counts_more_than_the_objective(self, tmp_path: Path) -> None:
        path = written(tmp_path / "hours.yaml", GOOD.format(name="hours").replace("contains: eight", "contains: noon"))
        ran = simulate(path, "--target", "virtual", "--calls", 1, "--objective", "first_token_p50<=1ms")
        assert ran.exit_code == ExitCode.FAILED
        assert "1 expectation missed" in ran.stdout
        assert "contains 'noon'" in ran.stdout
        assert "We open at eight" in words(ran.stdout)

    def test_comparison_shows_what_got_worse(self, scenario: Path, tmp_path: Path) -> None:
        slow = written(tmp_path / "slow.json", json.dumps(SMOLLM2_ON_TWO_CORES.scaled(20.0).to_json()))
        target = ("--target", "virtual", "--report", tmp_path / "out")
        assert simulate(scenario, *target).exit_code == ExitCode.DONE
        before = (tmp_path / "out" / "report.json").rename(tmp_path / "before.json")
        compared = simulate(scenario, *target, "--costs", slow, "--compare", before)
        rows = [words(line) for line in compared.stdout.splitlines()]
        assert any(row.startswith("first token, p95") and row.endswith("worse") for row in rows), compared.stdout
        assert "before.json" in compared.stdout
        same = simulate(scenario, *target, "--compare", before)
        assert "worse" not in words(same.stdout)
        rows = [words(line) for line in same.stdout.splitlines()]
        assert any(row.startswith("first token, p95") and row.endswith("same") for row in rows), same.stdout

    def test_json_is_one_object_without_the_calls(self, scenario: Path) -> None:
        ran = simulate(scenario, "--target", "virtual", "--json", "--objective", "first_token_p50<=1ms")
        assert ran.exit_code == ExitCode.OBJECTIVE_MISSED
        (line,) = ran.stdout.splitlines()
        told = json.loads(line)
        assert "calls" not in told
        assert told["objective_met"] is False
        assert told["objective"][0]["text"] == "first_token_p50<=1ms"
        assert told["times"]["first_token"]["count"] == 8
        assert told["scenarios"][0]["name"] == "hours"
        assert ran.stderr == ""


class TestNobodyThere:
    @pytest.mark.parametrize("scheme", ["http://{}/v1", "ws://{}", "grpc://{}"])
    def test_failures_are_counted_and_the_command_ends(self, scenario: Path, tmp_path: Path, scheme: str) -> None:
        began_s = time.monotonic()
        with nobody_at() as address:
            target = ("--target", scheme.format(address), "--speed", 50, "--calls", 3)
            ran = simulate(scenario, *target, "--report", tmp_path / "out")
        assert ran.exit_code == ExitCode.FAILED
        assert "3 failures" in ran.stdout
        assert address in ran.stdout
        assert "Traceback" not in ran.output
        assert ran.stderr == ""
        report = report_in(tmp_path / "out")
        assert sum(report["errors"].values()) == 3
        assert report["shares"]["errors"] == 1.0
        assert (tmp_path / "out" / "report.html").is_file()
        assert time.monotonic() - began_s < 30

    @pytest.mark.parametrize("scheme", ["http://{}/v1", "ws://{}", "grpc://{}"])
    def test_failures_are_told_to_programs(self, scenario: Path, scheme: str) -> None:
        with nobody_at() as address:
            ran = simulate(scenario, "--target", scheme.format(address), "--speed", 50, "--calls", 1, "--json")
        assert ran.exit_code == ExitCode.FAILED
        told = json.loads(ran.stdout)
        assert list(told["errors"].values()) == [1]
        assert told["shares"]["errors"] == 1.0

    def test_dead_server_is_not_dialled_without_end(self, scenario: Path, tmp_path: Path) -> None:
        """A person waits for a second before dialling again, as fast as persons are."""
        with nobody_at() as address:
            options = ("--target", f"ws://{address}", "--speed", 10, "--calls", 1, "--duration-s", 10)
            assert simulate(scenario, *options, "--report", tmp_path).exit_code == ExitCode.FAILED
        assert 2 <= len(report_in(tmp_path)["calls"]) <= 12

    @pytest.mark.parametrize("url", ["http://", "http://[/v1", "ws://", "grpc://", "grpc://no port"])
    def test_address_that_is_none_is_an_error_and_no_traceback(self, scenario: Path, url: str) -> None:
        ran = simulate(scenario, "--target", url, "--speed", 50, "--calls", 1)
        assert ran.exit_code in (ExitCode.FAILED, ExitCode.USAGE)
        assert "Traceback" not in ran.output
