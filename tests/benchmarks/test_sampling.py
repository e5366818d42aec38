"""The sampling benchmark measures every case, at both vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sampling
from benchmarks.wide_model import N_VOCAB, write_wide_model
from voice_llm.backend.llama import LlamaModel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    write_wide_model(path)
    return path


def test_the_wide_model_has_the_vocabulary_of_the_large_ones(wide_path: Path) -> None:
    model = LlamaModel(wide_path, gpu_layers=0)
    assert model.n_vocab == N_VOCAB
    model.close()


def test_every_case_is_timed_both_ways_quiet_and_busy(smollm2_path: Path) -> None:
    costs = sampling.measure(smollm2_path, pairs=2)
    assert [(c.case, c.busy) for c in costs] == [(case, busy) for busy in (False, True) for case in sampling.CASES]
    assert all(c.n_vocab == 49_152 and c.ours_us > 0 and c.whole_us > 0 for c in costs)
