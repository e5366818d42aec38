from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.backend.llama import LlamaModel
from voice_llm.errors import BackendError, ModelFileError

pytestmark = pytest.mark.model


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model file at .*none\.gguf"):
        LlamaModel(tmp_path / "none.gguf")


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="there is no model file"):
        LlamaModel(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + bytes(100), b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16])
def test_a_file_of_another_kind_is_refused_with_llama_cpps_reason(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load .*: .*gguf"):
        LlamaModel(file)


@pytest.mark.parametrize("size", [1_000, 1_000_000, 5_000_000])
@pytest.mark.parametrize("use_mmap", [True, False])
def test_a_truncated_file_is_refused(smollm2_path: Path, tmp_path: Path, size: int, use_mmap: bool) -> None:
    file = tmp_path / "cut.gguf"
    with smollm2_path.open("rb") as whole:
        file.write_bytes(whole.read(size))
    with pytest.raises(ModelFileError, match=r"cannot load .*cut\.gguf: (?!llama\.cpp gave no reason)"):
        LlamaModel(file, use_mmap=use_mmap)


def test_loading_writes_nothing_to_the_terminal(
    smollm2_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="voice_llm.llama_cpp"):
        LlamaModel(smollm2_path, vocab_only=True).close()
    assert capfd.readouterr() == ("", "")
    assert any(r.name == "voice_llm.llama_cpp" for r in caplog.records)
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


def test_progress_is_told_up_to_the_end(smollm2_path: Path) -> None:
    shares: list[float] = []
    LlamaModel(smollm2_path, gpu_layers=0, progress=shares.append).close()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_files_own_facts_are_read(model: LlamaModel) -> None:
    assert model.n_vocab == 49_152
    assert (model.bos_token, model.eos_token, model.add_bos) == ("<|im_start|>", "<|im_end|>", False)
    assert model.sliding_window == 0
    assert model.chat_template is not None
    assert "<|im_start|>" in model.chat_template
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("general.nonsense") is None


def test_tokens_of_structure_are_told_from_text(model: LlamaModel) -> None:
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(model.control_tokens)
    assert model.control_tokens["<|im_end|>"] in model.end_of_turn_tokens
    assert model.control_tokens["<|im_start|>"] not in model.end_of_turn_tokens
    assert not set(model.control_tokens) & {"the", " the", "\n"}
    assert all(model.token_bytes(model.control_tokens[t]) == b"" for t in ("<|im_start|>", "<|im_end|>"))


def test_a_control_token_is_parsed_where_that_is_asked_for(model: LlamaModel) -> None:
    tokens = model.tokenize("<|im_start|>user\nmerhaba<|im_end|>", parse_special=True)
    assert (tokens[0], tokens[-1]) == (model.control_tokens["<|im_start|>"], model.control_tokens["<|im_end|>"])


def test_the_text_of_a_control_token_stays_text(model: LlamaModel) -> None:
    for text in model.control_tokens:
        tokens = model.tokenize(f"a{text}b")
        assert not set(tokens) & set(model.control_tokens.values())
        assert b"".join(map(model.token_bytes, tokens)).decode() == f"a{text}b"


@pytest.fixture(scope="module")
def known_bytes(model: LlamaModel) -> frozenset[int]:
    """Bytes that have a token of their own; this vocabulary lacks some that its training never saw."""
    pieces = (model.token_bytes(token) for token in range(model.n_vocab))
    return frozenset(piece[0] for piece in pieces if len(piece) == 1)


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="çğıöşüÇĞİÖŞÜ 👋🏽👩‍👧 \n<|im_endstart>", max_size=60))
def test_text_survives_tokenizing_and_never_becomes_structure(
    model: LlamaModel, known_bytes: frozenset[int], text: str
) -> None:
    tokens = model.tokenize(text)
    assert b"".join(map(model.token_bytes, tokens)) == bytes(b for b in text.encode() if b in known_bytes)
    assert not set(tokens) & set(model.control_tokens.values())


def test_turkish_and_emoji_are_in_the_vocabulary_to_the_byte(model: LlamaModel) -> None:
    for text in ("Günaydın, nasılsınız? Çağrı ŞİMDİ başlıyor.", "👋🏽 👩‍👧 ok", "  two  spaces\n\n\ttab"):
        assert b"".join(map(model.token_bytes, model.tokenize(text))).decode() == text


def test_half_a_surrogate_pair_is_text_too(model: LlamaModel) -> None:
    assert b"".join(map(model.token_bytes, model.tokenize("a\ud800b"))) == b"a?b"


def test_no_text_is_no_tokens(model: LlamaModel) -> None:
    assert model.tokenize("") == []


@pytest.mark.parametrize("token", [-1, 49_152, 2**31])
def test_an_id_outside_the_vocabulary_is_refused(model: LlamaModel, token: int) -> None:
    with pytest.raises(BackendError, match="outside the vocabulary"):
        model.token_bytes(token)


def test_a_closed_model_says_so_and_closes_again(smollm2_path: Path) -> None:
    closed = LlamaModel(smollm2_path, vocab_only=True)
    closed.close()
    closed.close()
    with pytest.raises(BackendError, match="closed"):
        closed.tokenize("merhaba")
    with pytest.raises(BackendError, match="closed"):
        closed.token_bytes(100)
    with pytest.raises(BackendError, match="closed"):
        _ = closed.pointer
