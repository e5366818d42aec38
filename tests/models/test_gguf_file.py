"""check_gguf: whole files pass, and what is wrong with the others is told with sizes."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.errors import ModelFileError
from voice_llm.models import gguf_file
from voice_llm.models.gguf_file import check_gguf

pytestmark = pytest.mark.unit


def write_gguf(path: Path, *, words: int = 40, endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> bytes:
    """Write a small GGUF file with every kind of value and two tensors; returns its bytes."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    writer.add_context_length(2048)
    writer.add_chat_template("{{ messages }} çğış")
    writer.add_float32("test.float", 0.5)
    writer.add_bool("test.yes", True)
    writer.add_int64("test.below", -(2**40))
    writer.add_array("tokenizer.ggml.tokens", [f"kelime{i}ğ" for i in range(words)])
    writer.add_array("tokenizer.ggml.scores", [0.25] * words)
    writer.add_array("tokenizer.ggml.token_type", list(range(words)))
    writer.add_tensor("plain", np.ones((3, 5), dtype=np.float32))
    blocks = gguf.quants.quantize(np.ones((4, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("quantized", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        check_gguf(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def cut(whole: Path, folder: Path, size: int) -> Path:
    path = folder / "cut.gguf"
    path.write_bytes(whole.read_bytes()[:size])
    return path


def test_whole_file_passes_and_its_scalar_keys_are_read(whole: Path) -> None:
    header = check_gguf(whole)
    assert (header.version, header.tensor_count, header.architecture) == (3, 2, "llama")
    assert (header.context_length, header.chat_template) == (2048, "{{ messages }} çğış")
    assert (header.metadata["test.float"], header.metadata["test.yes"]) == (0.5, True)
    assert header.metadata["test.below"] == -(2**40)
    assert not any(key.startswith("tokenizer.ggml.") for key in header.metadata)
    assert header.file_bytes == whole.stat().st_size


def test_version_2_passes(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "v2.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 2) + whole.read_bytes()[8:])
    assert check_gguf(path).version == 2


def test_missing_file_empty_file_and_directory_are_told_apart(tmp_path: Path) -> None:
    assert "there is no model file at" in refusal(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    assert "is empty" in refusal(tmp_path / "empty.gguf")
    assert "is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("start", [b"PK\x03\x04zip", b"<!DOCTYPE html>", b"version https://git-lfs", b"GG", b"\0" * 64])
def test_other_files_are_not_gguf(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(start)
    message = refusal(path)
    assert "is not a GGUF model file" in message or (start == b"GG" and "is truncated" in message)


def test_big_endian_and_old_files_are_refused_by_version(whole: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "big.gguf", endianess=gguf.GGUFEndian.BIG)
    assert "a big-endian GGUF file (version 3)" in refusal(tmp_path / "big.gguf")
    (tmp_path / "old.gguf").write_bytes(b"GGUF" + struct.pack("<I", 1) + whole.read_bytes()[8:])
    assert "a GGUF file of version 1; supported are versions 2 and 3" in refusal(tmp_path / "old.gguf")


def test_lost_last_byte_is_told_with_both_sizes(whole: Path, tmp_path: Path) -> None:
    # The writer pads the last tensor to the alignment, and the padding may be missing without harm.
    data_bytes = 32 * (64 * 4 // 32) // 32 * 34
    start = whole.read_bytes().index(struct.pack("<f", 1.0) * 15)
    needed = start + 64 + data_bytes
    assert check_gguf(cut(whole, tmp_path, needed)).file_bytes == needed
    assert f"{needed - 1} bytes where its header promises {needed}" in refusal(cut(whole, tmp_path, needed - 1))


@given(share=st.floats(0.0, 1.0, exclude_max=True))
@settings(deadline=None, max_examples=60)
def test_file_cut_anywhere_is_refused(whole: Path, share: float) -> None:
    tensors_end = whole.read_bytes().index(struct.pack("<f", 1.0) * 15) + 64 + 8 * 34
    message = refusal(cut(whole, whole.parent, int(share * tensors_end)))
    assert "truncated" in message or "is empty" in message


@pytest.mark.parametrize("last", [["kelime"] * 9, [1, 2, 3], "metin"])
def test_file_without_tensors_cut_in_its_last_value_is_refused(
    tmp_path: Path, last: list[str] | list[int] | str
) -> None:
    path = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if isinstance(last, str):
        writer.add_string("last", last)
    else:
        writer.add_array("last", last)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert check_gguf(path).tensor_count == 0
    assert "truncated" in refusal(cut(path, tmp_path, path.stat().st_size - 1))


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_damage_is_refused_or_harmless_and_never_another_error(whole: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    extreme = [struct.pack("<Q", number) for number in (2**64 - 1, 2**63, 2**63 - 9, 2**60, 2**32)]
    damage = data.draw(st.one_of(st.sampled_from(extreme), st.binary(min_size=1, max_size=8)))
    place = data.draw(st.integers(8, len(content) - len(damage)))
    content[place : place + len(damage)] = damage
    path = whole.parent / "damaged.gguf"
    path.write_bytes(content)
    try:
        check_gguf(path)
    except ModelFileError as error:
        assert str(path) in str(error)  # noqa: PT017 - whether it is refused depends on the damage


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: theirs[kind] for kind in gguf_file._BLOCKS if kind in theirs} == {
        kind: sizes for kind, sizes in gguf_file._BLOCKS.items() if kind in theirs
    }
    assert len(gguf_file._BLOCKS.keys() & theirs.keys()) >= 30


def test_large_vocabulary_is_skipped_fast(tmp_path: Path) -> None:
    write_gguf(tmp_path / "large.gguf", words=150_000)
    # The process's own time: other work on the machine does not count.
    start = time.process_time()
    check_gguf(tmp_path / "large.gguf")
    assert time.process_time() - start < 0.3
