"""benchmarks.gpu: what it measures with a tiny model of random weights, on a CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from benchmarks import gpu, gpu_page
from benchmarks.bench.workload import Workload, common_tokens
from benchmarks.gpu_backend import PhoneBackend, StandInVocabulary
from voice_llm.backend.base import BatchEntry
from voice_llm.backend.llama import LlamaModel
from voice_llm.config import EngineConfig, SamplingParams
from voice_llm.prompt import ENGLISH, PromptFormatter, resolve_template
from voice_llm.text.pipeline import TextPipeline

pytestmark = pytest.mark.model

_WIDTH, _VOCAB = 32, 4096
_TEXT = "Good morning! My name is Zeynep, I'd like to know:\n is “kasko” 1.250,50 ₺ a year, ya da değil mi? 🙂 x²_"


def write_model(path: Path) -> None:
    """Write one layer of random weights with a vocabulary that spells every letter."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fillers = [f"filler{n}" for n in range(_VOCAB - 256 - len(control))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*(letters[byte] for byte in range(256)), *fillers, *control])
    writer.add_token_types([*[gguf.TokenType.NORMAL] * (_VOCAB - 3), *[gguf.TokenType.CONTROL] * 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(_VOCAB - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    chance = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", chance.normal(0, 1, (_VOCAB, _WIDTH)).astype(np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", chance.normal(0, 1, (_WIDTH, _WIDTH)).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def tiny(tiny_path: Path) -> Iterator[LlamaModel]:
    model = LlamaModel(tiny_path, gpu_layers=0)
    yield model
    model.close()


@pytest.fixture(scope="module")
def phone(tiny: LlamaModel) -> Iterator[PhoneBackend]:
    config = EngineConfig(
        sequences=1,
        context_per_call=2048,
        threads=1,
        threads_batch=1,
        micro_batch_tokens=512,
        gpu_layers=0,
        flash_attention="off",
        kv_layout="split",
    )
    backend = PhoneBackend(tiny, config)
    yield backend
    backend.close()


@pytest.fixture
def options(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ["gpu", "--model", str(tiny_path), "--threads", "1", "--gpu-layers", "0", "--out", str(tmp_path / "o.json")]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", arguments)
    return gpu.main()


def read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def test_only_a_vocabulary_without_words_is_stood_in_for(tiny: LlamaModel, smollm2_path: Path) -> None:
    assert StandInVocabulary.of(tiny) is not None
    real = LlamaModel(smollm2_path, vocab_only=True)
    assert StandInVocabulary.of(real) is None
    real.close()


def test_text_with_stand_ins_keeps_every_byte_and_has_as_many_tokens_as_usual(phone: PhoneBackend) -> None:
    tokens = phone.tokenize(_TEXT)
    assert b"".join(map(phone.token_bytes, tokens)).decode() == _TEXT
    assert tokens == phone.tokenize(_TEXT)
    assert 0.2 < len(tokens) / len(_TEXT) < 0.5


def test_prompts_with_stand_ins_are_as_long_as_a_phone_call_s(phone: PhoneBackend) -> None:
    template = resolve_template(phone.info.chat_template, None, phone.control_tokens, bos_token="", eos_token="")
    formatter = PromptFormatter(phone, template, bos="", headings=ENGLISH)
    openings = [
        formatter.format(
            [{"role": "system", "content": script.system_prompt}, {"role": "user", "content": ""}],
            rag_context=script.rag_context,
            context_tokens=2048,
            reserve_tokens=48,
            open_ended=True,
        ).tokens
        for script in Workload().scripts(0, 4)[:4]
    ]
    shared = common_tokens(openings)
    assert 120 < shared < 230
    assert all(230 < len(opening) - shared < 500 for opening in openings)


def test_when_no_ids_are_left_new_words_are_spelled(tiny: LlamaModel) -> None:
    vocabulary = StandInVocabulary(300, 301)
    assert [vocabulary.id_of(word) for word in ("a", "b", "a", "c", "b")] == [300, 301, 300, None, 301]
    assert vocabulary.bytes_of(301) == b"b"
    assert vocabulary.bytes_of(302) is None


def test_random_weights_speak_in_sentences_that_are_chunked(phone: PhoneBackend) -> None:
    phone.seq_drop(0)
    sampler = phone.new_sampler(SamplingParams(temperature=0.0))
    phone.decode([BatchEntry(0, 0, phone.tokenize("Hello."), True)])
    pipeline = TextPipeline(language="en")
    chunks: list[str] = []
    for _ in range(48):
        token = phone.sample(0, sampler)
        assert not phone.is_end_of_turn(token)
        chunks += pipeline.decode(phone.token_bytes(token)).chunks
        phone.decode([BatchEntry(0, phone.seq_length(0), [token], True)])
    sampler.close()
    assert len(chunks) >= 2
    assert all(chunk.rstrip()[-1] in ".,?" for chunk in chunks)


def test_a_point_tells_what_callers_heard_and_where_the_time_went(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*options, "--calls", "1", "--layouts", "unified", "--window-s", "8"], monkeypatch) == 0
    results = read(tmp_path / "o.json")
    (point,) = results["points"]
    assert (point["layout"], point["calls"], point["errors"]) == ("unified", 1, 0)
    assert point["config"]["kv_layout"] == "unified"
    assert point["turns"] >= 1
    assert 0 < point["first_token_ms"]["p50"] <= point["first_speech_ms"]["p50"]
    assert point["steps"]["1"]["steps"] >= 47  # the first token comes with the prompt
    assert point["steps"]["1"]["ms"] > 0
    assert point["tokens_per_s"] * point["window_s"] == pytest.approx(point["steps"]["1"]["steps"], rel=0.05)
    assert point["memory"]["host"] > 10
    assert sum(line["share"] for line in point["time"]["lines"]) == pytest.approx(1, abs=0.01)


def test_two_layouts_end_in_one_file_and_one_page(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# GPU\n<!-- gpu -->\nnothing yet\n<!-- /gpu -->\nHow.\n")
    monkeypatch.setattr(gpu, "write_page", lambda results: gpu_page.write_page(results, page))
    assert run([*options, "--calls", "1", "--window-s", "0.2", "--write"], monkeypatch) == 0
    points = read(tmp_path / "o.json")["points"]
    assert [(p["layout"], p["config"]["kv_layout"]) for p in points] == [("split", "split"), ("unified", "unified")]
    assert [path.name for path in tmp_path.glob("*.json")] == ["o.json"]
    text = page.read_text()
    assert "nothing yet" not in text
    assert text.startswith("# GPU\n<!-- gpu -->\n")
    assert text.endswith("<!-- /gpu -->\nHow.\n")
    assert text.count("| 1 | split |") == text.count("| 1 | unified |") == 3


def test_results_of_different_machines_make_no_table(tmp_path: Path) -> None:
    result = {"machine": {"gpu": "A"}, "model": "m", "window_s": 1.0, "points": []}
    with pytest.raises(ValueError, match="machine"):
        gpu_page.tables([result, {**result, "machine": {"gpu": "B"}}])


def test_the_page_has_a_place_for_the_tables_and_names_the_commands() -> None:
    text = gpu_page.PAGE.read_text()
    assert text.count("<!-- gpu -->\n") == text.count("<!-- /gpu -->") == 1
    assert "python -m benchmarks.gpu --model" in text
    assert "benchmarks/gpu.sh measure" in text
