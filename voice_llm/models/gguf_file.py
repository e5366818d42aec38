"""check_gguf: is this file a whole GGUF model? Reads the header only, so it takes milliseconds."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..errors import ModelFileError

__all__ = ["GGUFHeader", "MetadataValue", "check_gguf"]

MetadataValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says of itself.

    Attributes:
        version: Version of the file format, 2 or 3.
        tensor_count: Number of tensors.
        metadata: The scalar keys (``general.architecture``, ``tokenizer.chat_template``); arrays are left out.
        file_bytes: Size of the file.
    """

    version: int
    tensor_count: int
    metadata: Mapping[str, MetadataValue]
    file_bytes: int

    @property
    def architecture(self) -> str:
        """The model family's name in llama.cpp, or "" where the file names none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def context_length(self) -> int | None:
        """Tokens of context that the model was trained for."""
        value = self.metadata.get(f"{self.architecture}.context_length")
        return value if isinstance(value, int) else None

    @property
    def chat_template(self) -> str | None:
        """The file's own Jinja chat template."""
        value = self.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) else None


def check_gguf(path: Path) -> GGUFHeader:
    """Read the header of a GGUF file and check that the file is long enough for all of its tensors.

    Raises:
        ModelFileError: The file is missing, a directory, unreadable, empty, not GGUF, of an unsupported version, or
            shorter than its header says.
    """
    if path.is_dir():
        raise ModelFileError(f"{path} is a directory; name the .gguf file in it")
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise ModelFileError(f"{path} is empty: its download or copy failed; fetch it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_header(path, data)
    except FileNotFoundError:
        raise ModelFileError(f"there is no model file at {path}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_header(path: Path, data: mmap.mmap) -> GGUFHeader:
    size = len(data)
    magic = data[:4]
    if magic != _MAGIC[:size]:
        raise ModelFileError(f"{path} is not a GGUF model file: it starts with {magic!r}, not with {_MAGIC!r}")
    try:
        reader = _Reader(data, position=len(_MAGIC))
        version = reader.u32()
        if version not in (2, 3):
            raise ModelFileError(f"{path} is {_version_name(version)}; supported are versions 2 and 3, little-endian")
        tensor_count, key_count = reader.u64(), reader.u64()
        metadata = _read_metadata(reader, key_count)
        tensor_bytes = _read_tensor_bytes(reader, tensor_count)
    except (struct.error, OverflowError):  # a length that leads out of the file, or out of any
        raise ModelFileError(f"{path} is truncated: its {size} bytes end inside the header; fetch it again") from None
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: {error}; fetch it again") from None
    expected = _data_start(reader.position, metadata) + tensor_bytes
    if tensor_bytes and size < expected:
        raise ModelFileError(f"{path} is truncated: {size} bytes where its header promises {expected}; fetch it again")
    return GGUFHeader(version, tensor_count, MappingProxyType(metadata), size)


class _Reader:
    """Takes little-endian values off a buffer, one after the other; struct.error where the buffer ends too early."""

    def __init__(self, data: mmap.mmap, *, position: int) -> None:
        self.position = position
        self._data = data

    def scalar(self, layout: struct.Struct) -> MetadataValue:
        value: MetadataValue = layout.unpack_from(self._data, self.position)[0]
        self.position += layout.size
        return value

    def u32(self) -> int:
        return int(self.scalar(_U32))

    def u64(self) -> int:
        return int(self.scalar(_U64))

    def text(self) -> str:
        length = self.u64()
        start = self.position
        self.skip(length)
        return self._data[start : self.position].decode(errors="replace")

    def skip(self, nbytes: int) -> None:
        if nbytes > len(self._data) - self.position:
            raise struct.error("the buffer ends too early")
        self.position += nbytes

    def skip_texts(self, count: int) -> None:
        # A vocabulary has 150,000 of them: no method calls, no slices.
        unpack_length, data, position = _U64.unpack_from, self._data, self.position
        for _ in range(count):
            position += 8 + unpack_length(data, position)[0]
        self.position = position
        self.skip(0)


def _read_metadata(reader: _Reader, key_count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(key_count):
        key, kind = reader.text(), reader.u32()
        if kind == _TEXT:
            metadata[key] = reader.text()
        elif kind == _ARRAY:
            _skip_array(reader)
        else:
            metadata[key] = reader.scalar(_scalar_layout(kind))
    return metadata


def _skip_array(reader: _Reader) -> None:
    kind, count = reader.u32(), reader.u64()
    if kind == _TEXT:
        reader.skip_texts(count)
    else:
        reader.skip(count * _scalar_layout(kind).size)


def _scalar_layout(kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise ValueError(f"its header has a value of the unknown type {kind}")
    return _SCALARS[kind]


def _read_tensor_bytes(reader: _Reader, tensor_count: int) -> int:
    """Return how far the tensors reach, in bytes from where their data starts."""
    end = 0
    for _ in range(tensor_count):
        reader.skip(reader.u64())  # the tensor's name
        dimensions = reader.u32()
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"its header has a tensor of {dimensions} dimensions")
        elements = math.prod(reader.u64() for _ in range(dimensions))
        quantization, offset = reader.u32(), reader.u64()
        # A type that is newer than the table counts as one byte: too small a promise refuses no good file.
        block_elements, block_bytes = _BLOCKS.get(quantization, (max(elements, 1), 1))
        end = max(end, offset + elements // block_elements * block_bytes)
    return end


def _data_start(header_bytes: int, metadata: Mapping[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        return header_bytes
    return -(-header_bytes // alignment) * alignment


def _version_name(version: int) -> str:
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    return f"a big-endian GGUF file (version {swapped})" if version > 0xFFFF else f"a GGUF file of version {version}"


_MAGIC: Final = b"GGUF"
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_TEXT: Final = 8
_ARRAY: Final = 9
_MAX_DIMENSIONS: Final = 4
_SCALARS: Final[dict[int, struct.Struct]] = {
    **{kind: struct.Struct("<" + code) for kind, code in enumerate("BbHhIif?")},
    **{kind: struct.Struct("<" + code) for kind, code in enumerate("Qqd", start=10)},
}
# Elements of a block -> ggml type -> bytes of a block; from ggml's type table.
_BLOCK_BYTES: Final[dict[int, dict[int, int]]] = {
    1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 9: 40, 20: 18, 39: 17},
    64: {40: 36},
    128: {41: 18},
    256: dict(
        zip(
            (10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 29, 34, 35),
            (84, 110, 144, 176, 210, 292, 66, 74, 98, 50, 110, 82, 136, 56, 54, 66),
            strict=True,
        )
    ),
}
_BLOCKS: Final = {kind: (elements, nbytes) for elements, row in _BLOCK_BYTES.items() for kind, nbytes in row.items()}
