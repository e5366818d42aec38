"""The engine in virtual time: exact, repeatable, and a queue as theory has it."""

from __future__ import annotations

import asyncio

import pytest

from voice_llm.config import EngineConfig, Profile
from voice_llm.config.profile import ModelSource
from voice_llm.engine.step_costs import StepCosts
from voice_llm.simulator import CallerTurn, CallScript, RunResult, run_calls
from voice_llm.simulator.script import ScriptedReply
from voice_llm.simulator.virtual import (
    SimulatedBackend,
    StepClock,
    VirtualEngine,
    VirtualTarget,
    WordTokenizer,
    recorded_replies,
)
from voice_llm.testing import run_in_virtual_time

pytestmark = pytest.mark.unit

FREE = StepCosts(decode_ms=(0.0,), row_ms=0.0, context_ms=0.0, prefill_ms=(0.0, 0.0, 0.0))
# Powers of two, so that sums are exact.
COSTS = StepCosts(decode_ms=(12.0, 16.0), row_ms=4.0, context_ms=0.0, prefill_ms=(0.0, 2.0, 0.0))


def profile(**engine: object) -> Profile:
    return Profile(name="virtual", model=ModelSource(path="none.gguf"), engine=EngineConfig(**engine))  # type: ignore[arg-type]


def simulate(scripts: list[CallScript], costs: StepCosts = COSTS, *, sequences: int = 4, seed: int = 0) -> RunResult:
    async def main() -> RunResult:
        backend = SimulatedBackend(WordTokenizer(), costs, clock=StepClock(), sequences=sequences, seed=seed)
        engine = await VirtualEngine.start(backend, profile(sequences=sequences, admission="limit"))
        try:
            loop = asyncio.get_running_loop()
            result = await run_calls(VirtualTarget(engine), scripts, concurrent=sequences, clock=loop.time, run_id="v")
            await engine.check_integrity()
            return result
        finally:
            await engine.close()

    return run_in_virtual_time(main())


def saying(text: str, reply: str = "Yes, of course. It is covered.", **more: object) -> CallScript:
    turn = CallerTurn(text, reply=ScriptedReply(reply))
    return CallScript(turns=(turn,), **more)  # type: ignore[arg-type]


def test_reply_is_the_scripted_one() -> None:
    result = simulate([saying("Is water covered?")])
    assert result.errors == ()
    assert [turn.text for turn in result.turns] == ["Yes, of course. It is covered."]


def test_time_is_what_the_steps_cost() -> None:
    script = saying("one", "a b c", partials=False, prefill_on_open=False)
    (turn,) = simulate([script], sequences=1).turns
    assert turn.usage is not None
    prompt_ms = 2.0 * turn.usage.prompt_tokens
    assert turn.first_token_ms == pytest.approx(prompt_ms, abs=1e-6)
    # Two more tokens and the end of the turn, a step each.
    assert turn.total_ms == pytest.approx(prompt_ms + 3 * 12.0, abs=1e-6)


def test_same_seed_gives_the_same_run_to_the_last_digit() -> None:
    spread = StepCosts(**{**{f: getattr(COSTS, f) for f in COSTS.__slots__}, "spread": 0.2})
    scripts = [saying(f"Question number {n}, please?") for n in range(20)]
    first, second, other = (simulate(scripts, spread, seed=seed) for seed in (7, 7, 8))
    assert first.to_json() == second.to_json()
    assert first.to_json() != other.to_json()


def test_hints_make_the_first_token_sooner() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    cold, warm = (
        simulate([saying(words, partials=hints, prefill_on_open=hints)]).turns[0].first_token_ms
        for hints in (False, True)
    )
    assert cold is not None
    assert warm is not None
    assert warm < cold / 3


def test_recorded_replies_are_said_again_and_cover_unknown_words() -> None:
    recorded = simulate([saying("Is water covered?", "It is."), saying("Is fire covered?", "It is not.")])
    replies = recorded_replies(recorded.turns)
    assert replies(CallerTurn("Is water covered?")).text == "It is."
    assert replies(CallerTurn("is fire covered")).text == "It is not."
    assert replies(CallerTurn("Something else?")).text in ("It is.", "It is not.")


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_is_that_of_a_queue_with_one_server(load: float) -> None:
    """M/D/1: Poisson arrivals, the same work each, one sequence. The long proof is in ``make acceptance``."""
    from benchmarks.queue_theory import mean_wait_of, theory_wait

    assert mean_wait_of(load, arrivals=8_000, seed=3) == pytest.approx(theory_wait(load), rel=0.12)
