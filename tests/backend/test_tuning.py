from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from voice_llm.backend.llama import LlamaBackend, LlamaModel, tuning
from voice_llm.backend.llama.trial import turn_ms
from voice_llm.config.engine import EngineConfig

from .support import engine_config

pytestmark = pytest.mark.model

AUTO = EngineConfig(gpu_layers=0)
TUNED = ("flash_attention", "kv_layout", "threads", "threads_batch", "micro_batch_tokens")

Cost = Callable[[EngineConfig], float]


class Trials:
    """Stands for the clock: the cost of each configuration that is tried is a formula."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cost: Cost = lambda _: 10.0
        self.tried: list[EngineConfig] = []
        monkeypatch.setattr(tuning, "turn_ms", self._turn_ms)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)

    def _turn_ms(self, _model: LlamaModel, config: EngineConfig) -> float:
        self.tried.append(config)
        return self.cost(config)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    return Trials(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tuning.json"


def is_settled(config: EngineConfig) -> bool:
    return all(getattr(config, name) != "auto" for name in TUNED)


def test_what_is_explicit_is_returned_without_measuring(model: LlamaModel, trials: Trials, file: Path) -> None:
    config = engine_config()
    assert tuning.settle(model, config, file=file) is config
    assert not trials.tried
    assert not file.exists()


def test_the_answer_is_measured_once_and_kept(model: LlamaModel, trials: Trials, file: Path) -> None:
    first = tuning.settle(model, AUTO, file=file)
    tried = len(trials.tried)
    assert is_settled(first)
    assert tried > 1
    assert tuning.settle(model, AUTO, file=file) == first
    assert len(trials.tried) == tried


def test_only_what_is_auto_is_chosen(model: LlamaModel, trials: Trials, file: Path) -> None:
    asked = AUTO.replace(threads=3, kv_layout="unified", context_per_call=2048)
    settled = tuning.settle(model, asked, file=file)
    assert (settled.threads, settled.kv_layout, settled.context_per_call, settled.sequences) == (3, "unified", 2048, 8)
    assert all((c.threads, c.kv_layout) == (3, "unified") for c in trials.tried)


@pytest.mark.parametrize(
    ("name", "value"), [("flash_attention", "on"), ("kv_layout", "unified"), ("threads", 4), ("threads_batch", 4)]
)
def test_what_is_faster_wins(model: LlamaModel, trials: Trials, file: Path, name: str, value: object) -> None:
    trials.cost = lambda c: 5.0 if getattr(c, name) == value else 10.0
    assert getattr(tuning.settle(model, AUTO, file=file), name) == value


def test_what_is_no_faster_or_does_not_run_loses(model: LlamaModel, trials: Trials, file: Path) -> None:
    trials.cost = lambda c: float("inf") if c.kv_layout == "unified" else 10.0
    settled = tuning.settle(model, AUTO, file=file)
    assert (settled.flash_attention, settled.kv_layout, settled.threads) == ("off", "split", 8)


def test_quantized_kv_is_only_tried_with_flash_attention(model: LlamaModel, trials: Trials, file: Path) -> None:
    settled = tuning.settle(model, AUTO.replace(kv_type="q8_0"), file=file)
    assert settled.flash_attention == "on"
    assert {c.flash_attention for c in trials.tried} == {"on"}


def test_another_question_is_measured_on_its_own(model: LlamaModel, trials: Trials, file: Path) -> None:
    first = tuning.settle(model, AUTO, file=file)
    for other in (AUTO.replace(kv_type="q8_0"), AUTO.replace(sequences=2), AUTO.replace(batch_tokens=128)):
        tried = len(trials.tried)
        settled = tuning.settle(model, other, file=file)
        assert len(trials.tried) > tried
        assert isinstance(settled.micro_batch_tokens, int)
        assert settled.micro_batch_tokens <= other.batch_tokens
    assert tuning.settle(model, AUTO, file=file) == first


@pytest.mark.parametrize("load", [{"sequences": 32}, {"context_per_call": 256}])
def test_another_load_is_measured_on_its_own(
    model: LlamaModel, trials: Trials, file: Path, load: dict[str, int]
) -> None:
    trials.cost = lambda c: 5.0 if (c.sequences <= 8) == (c.kv_layout == "unified") else 10.0
    assert tuning.settle(model, AUTO.replace(sequences=4), file=file).kv_layout == "unified"
    tried = len(trials.tried)
    tuning.settle(model, AUTO.replace(**{"sequences": 4, **load}), file=file)
    assert {name: getattr(trials.tried[-1], name) for name in load} == load
    assert len(trials.tried) > tried


def test_room_beyond_a_call_of_usual_length_is_no_other_load(model: LlamaModel, trials: Trials, file: Path) -> None:
    tuning.settle(model, AUTO, file=file)
    tried = len(trials.tried)
    tuning.settle(model, AUTO.replace(context_per_call=4096), file=file)
    assert len(trials.tried) == tried


def test_a_first_guess_that_was_only_disturbed_stays(model: LlamaModel, trials: Trials, file: Path) -> None:
    # The first trial ran beside something else.
    trials.cost = lambda _: 100.0 if len(trials.tried) == 1 else 10.0
    settled = tuning.settle(model, AUTO, file=file)
    assert (settled.flash_attention, settled.kv_layout, settled.threads) == ("off", "split", 8)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '"text"', b"\xff\xfe", "KEYED 5", "KEYED {}", 'KEYED {"threads": -1}']
)
def test_a_corrupt_file_is_measured_over(model: LlamaModel, trials: Trials, file: Path, content: str | bytes) -> None:
    expected = tuning.settle(model, AUTO, file=file)
    kept = json.loads(file.read_text())
    if isinstance(content, str) and content.startswith("KEYED"):
        value = json.loads(content.removeprefix("KEYED "))
        changed = {**next(iter(kept.values())), **value} if isinstance(value, dict) and value else value
        content = json.dumps(dict.fromkeys(kept, changed))
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    tried = len(trials.tried)
    assert tuning.settle(model, AUTO, file=file) == expected
    assert len(trials.tried) > tried
    assert json.loads(file.read_text()) == kept


def test_answers_for_others_stay_in_the_file(model: LlamaModel, trials: Trials, file: Path) -> None:
    tuning.settle(model, AUTO, file=file)
    tuning.settle(model, AUTO.replace(kv_type="q8_0"), file=file)
    assert len(json.loads(file.read_text())) == 2


def test_a_file_that_cannot_be_written_only_costs_the_memory(model: LlamaModel, trials: Trials, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert is_settled(tuning.settle(model, AUTO, file=tmp_path / "taken" / "tuning.json"))


@pytest.mark.parametrize("sizes", [{}, {"context_per_call": 64, "batch_tokens": 16, "micro_batch_tokens": 16}])
def test_a_real_trial_takes_time_whatever_the_sizes(model: LlamaModel, sizes: dict[str, int]) -> None:
    config = engine_config(sequences=2).replace(**sizes)
    assert 0 < turn_ms(model, config) < float("inf")


def test_a_configuration_that_does_not_run_is_infinitely_slow(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_llm.backend.llama.context.api.llama_init_from_model", lambda *_: None)
    assert turn_ms(model, engine_config()) == float("inf")


def test_what_is_settled_can_be_loaded(model: LlamaModel, trials: Trials, file: Path) -> None:
    asked = AUTO.replace(sequences=1, context_per_call=256, batch_tokens=32)
    backend = LlamaBackend(model, tuning.settle(model, asked, file=file), owns_model=False)
    assert backend.info.max_batch_tokens == 32
    backend.close()
