"""The model file of a benchmark run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench import weights
from benchmarks.bench.weights import PACKAGED, bench_model
from voice_llm.backend.llama import LlamaModel


@pytest.mark.unit
def test_packaged_weights_are_the_packaged_file(tmp_path: Path) -> None:
    source = tmp_path / "tiny.Q4_1.gguf"
    assert bench_model(PACKAGED, source=source, folder=tmp_path / "made") == source
    assert not (tmp_path / "made").exists()


@pytest.mark.unit
def test_file_that_cannot_be_made_is_not_left_behind(tmp_path: Path) -> None:
    source = tmp_path / "tiny.Q4_1.gguf"
    source.write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"tiny\.Q4_0\.gguf"):
        bench_model("q4_0", source=source, folder=tmp_path / "made")
    assert not list((tmp_path / "made").glob("*.gguf"))


@pytest.mark.model
def test_other_weights_are_made_once_and_read_the_same_prompt(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench_model("q4_0", source=smollm2_path, folder=tmp_path)
    assert made.stat().st_size < smollm2_path.stat().st_size
    models = [LlamaModel(path, vocab_only=True) for path in (smollm2_path, made)]
    try:
        text = "<|im_start|>user\nİyi günler, is my claim settled?<|im_end|>\n"
        packaged, other = (model.tokenize(text) for model in models)
        assert packaged == other
        assert models[0].chat_template == models[1].chat_template
    finally:
        for model in models:
            model.close()
    monkeypatch.setattr(weights, "_quantize", None)
    assert bench_model("q4_0", source=smollm2_path, folder=tmp_path) == made
