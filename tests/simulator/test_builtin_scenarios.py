"""The scenarios that come with the package: many enough, fair to small models, and met by their own good answers."""

from __future__ import annotations

import asyncio
import re

import pytest

from voice_llm.config import EngineConfig, Profile
from voice_llm.config.profile import ModelSource
from voice_llm.simulator.expectations import Outcome, Verdict
from voice_llm.simulator.judged import JudgedRun
from voice_llm.simulator.scenario import Expectation, Scenario, find_scenarios, list_scenarios
from voice_llm.simulator.script import CallerTurn, ScriptedReply
from voice_llm.simulator.simulation import Simulation
from voice_llm.simulator.virtual import (
    Replies,
    VirtualTarget,
    scripted_replies,
    virtual_engine,
)
from voice_llm.testing import run_in_virtual_time

pytestmark = pytest.mark.unit

NAMES = list_scenarios()
PROFILE = Profile(name="virtual", model=ModelSource(path="none.gguf"), engine=EngineConfig(sequences=4))
TIME = re.compile(r"within \d+ ms$")


def scenario_of(name: str) -> Scenario:
    (scenario,) = find_scenarios([name])
    return scenario


def call(name: str, *, replies: Replies = scripted_replies, calls: int = 1) -> JudgedRun:
    async def main() -> JudgedRun:
        async with await virtual_engine(PROFILE) as engine:
            simulation = Simulation(scenarios=[scenario_of(name)], calls=calls)
            clock = asyncio.get_running_loop().time
            run = await simulation.run(VirtualTarget(engine, replies=replies), clock=clock, run_id="v")
            await engine.check_integrity()
            return run

    return run_in_virtual_time(main())


def declared(scenario: Scenario) -> list[Expectation]:
    return [*scenario.every_reply, *(expectation for turn in scenario.turns for expectation in turn.expect)]


def wrong(run: JudgedRun) -> list[tuple[int, Verdict]]:
    return [(turn.result.turn, v) for turn in run.turns for v in turn.verdicts if v.outcome is not Outcome.PASSED]


def test_there_are_ten_and_more_in_two_languages() -> None:
    languages = [scenario.language for scenario in find_scenarios(NAMES)]
    assert len(NAMES) >= 10
    assert min(languages.count("tr"), languages.count("en")) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_named_after_its_scenario_and_says_what_it_is_about(name: str) -> None:
    scenario = scenario_of(name)
    assert scenario.name == name
    assert scenario.description
    assert scenario.system_prompt
    assert scenario.facts


@pytest.mark.parametrize("name", NAMES)
def test_most_of_what_is_expected_is_expected_of_small_models_too(name: str) -> None:
    expectations = declared(scenario_of(name))
    assert sum(expectation.needs_better_model for expectation in expectations) <= 0.3 * len(expectations)


@pytest.mark.parametrize("name", NAMES)
def test_the_good_answers_meet_every_expectation(name: str) -> None:
    run = call(name)
    assert run.run.errors == ()
    assert wrong(run) == []
    assert len(run.turns) == len(scenario_of(name).turns)
    assert sum(verdict.gates and not TIME.search(verdict.expected) for verdict in run.verdicts) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_four_callers_at_once_are_answered_as_well(name: str) -> None:
    run = call(name, calls=4)
    assert run.run.errors == ()
    assert wrong(run) == []
    assert len(run.run.calls) == 4


@pytest.mark.parametrize("name", NAMES)
def test_every_turn_that_is_spoken_has_a_good_answer(name: str) -> None:
    assert [turn.text for turn in scenario_of(name).turns if turn.user and turn.reference is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_expectation_that_needs_a_better_model_is_missed_by_an_evasive_answer(name: str) -> None:
    def evasive(turn: CallerTurn) -> ScriptedReply:
        return ScriptedReply("Hm.")

    run = call(name, replies=evasive)
    better = [verdict for verdict in run.verdicts if not verdict.gates]
    assert better
    assert any(verdict.outcome is Outcome.FAILED for verdict in better)
    assert run.count(Outcome.FAILED, gates=True) <= len(run.turns)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("words", ["", "Oh well. " * 40, "See http://example.org."], ids=["silence", "babble", "link"])
def test_a_model_that_says_nothing_or_babbles_or_reads_out_links_fails_the_run(name: str, words: str) -> None:
    def reply(turn: CallerTurn) -> ScriptedReply:
        return ScriptedReply(words)

    assert call(name, replies=reply).failed
