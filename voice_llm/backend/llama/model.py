"""LlamaModel: weights and vocabulary of one GGUF file."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import BackendError, ModelFileError
from .library import api, capture_log, last_errors, types

__all__ = ["LlamaModel"]

_ATTR_UNKNOWN: Final = 1 << 0
_ATTR_CONTROL: Final = 1 << 3
_ATTR_USER_DEFINED: Final = 1 << 4
_LOAD_MODE_NONE: Final = 0
_LOAD_MODE_MMAP: Final = 1
# User-defined tokens that stand for structure (<think>, <tool_call>), unlike runs of white space, which are text.
_MARKER: Final = re.compile(r"[<\[]\S+[>\]]")


class LlamaModel:
    """A loaded GGUF file. Tokenizing may be done from any thread, everything else by the owner of the context.

    Args:
        path: The GGUF file.
        gpu_layers: Layers to put on an accelerator; -1 for all.
        use_mmap: Map the file instead of reading it.
        vocab_only: Load no weights: enough to tokenize.
        progress: Called with the share loaded, 0 to 1.

    Raises:
        ModelFileError: llama.cpp could not load the file; the text says why.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = -1,
        use_mmap: bool = True,
        vocab_only: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        capture_log()
        if not path.is_file():
            raise ModelFileError(f"there is no model file at {path}")
        last_errors()
        params = api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers if gpu_layers >= 0 else 0x7FFFFFFF
        params.load_mode = _LOAD_MODE_MMAP if use_mmap else _LOAD_MODE_NONE
        params.vocab_only = vocab_only
        keep_alive = _set_progress(params, progress)
        self._pointer: Any = api.llama_model_load_from_file(str(path).encode(), params)
        del keep_alive
        if not self._pointer:
            raise ModelFileError(f"llama.cpp cannot load {path}: {last_errors()}")
        self.path = path
        self._vocab: Any = api.llama_model_get_vocab(self._pointer)
        self.n_vocab = int(api.llama_vocab_n_tokens(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self.control_tokens: Mapping[str, int]
        self.end_of_turn_tokens: frozenset[int]
        self.control_tokens, self.end_of_turn_tokens = self._scan_vocabulary()

    @property
    def pointer(self) -> Any:
        """The ``llama_model *``.

        Raises:
            BackendError: The model is closed.
        """
        if not self._pointer:
            raise BackendError("the model is closed")
        return self._pointer

    @property
    def vocab(self) -> Any:
        """The ``llama_vocab *``."""
        if not self._pointer:
            raise BackendError("the model is closed")
        return self._vocab

    @property
    def sliding_window(self) -> int:
        """Window of the sliding-window layers, in tokens; 0 without any."""
        return max(0, int(api.llama_model_n_swa(self.pointer)))

    @property
    def chat_template(self) -> str | None:
        """The file's own Jinja chat template, if it has one."""
        text = api.llama_model_chat_template(self.pointer, None)
        return text.decode("utf-8", "replace") if text else None

    @property
    def add_bos(self) -> bool:
        """Whether a prompt of this model starts with the begin-of-sequence token."""
        return bool(api.llama_vocab_get_add_bos(self.vocab))

    @property
    def bos_token(self) -> str:
        """Text of the begin-of-sequence token, or ""."""
        return self._token_text(api.llama_vocab_bos(self.vocab))

    @property
    def eos_token(self) -> str:
        """Text of the end-of-sequence token, or ""."""
        return self._token_text(api.llama_vocab_eos(self.vocab))

    def metadata(self, key: str) -> str | None:
        """Return a metadata value of the file as text, or None."""
        size = api.llama_model_meta_val_str(self.pointer, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        api.llama_model_meta_val_str(self.pointer, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Tokenize without adding begin or end tokens; see ``Tokenizer``."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = api.llama_tokenize(self.vocab, data, len(data), buffer, room, False, parse_special)
        if count < 0:
            room = -count
            buffer = (ctypes.c_int32 * room)()
            count = api.llama_tokenize(self.vocab, data, len(data), buffer, room, False, parse_special)
        if count < 0:
            raise BackendError(f"the tokenizer failed on a text of {len(data)} bytes")
        return list(buffer[:count])

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token; see ``Tokenizer``."""
        piece = self._pieces.get(token)
        if piece is None:
            self.check_token(token)
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def check_token(self, token: int) -> None:
        """Refuse an id that the vocabulary lacks, which native code would not survive.

        Raises:
            BackendError: The id is out of range.
        """
        if not 0 <= token < self.n_vocab:
            raise BackendError(f"token id {token} is outside the vocabulary of {self.n_vocab}")

    def close(self) -> None:
        """Free the weights; idempotent. Contexts must be closed before."""
        if self._pointer:
            api.llama_model_free(self._pointer)
            self._pointer = None

    def _read_piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = api.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = api.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[: max(size, 0)]

    def _token_text(self, token: int) -> str:
        if not 0 <= token < self.n_vocab:
            return ""
        return bytes(api.llama_vocab_get_text(self._vocab, token)).decode("utf-8", "replace")

    def _scan_vocabulary(self) -> tuple[dict[str, int], frozenset[int]]:
        control: dict[str, int] = {}
        end_of_turn: set[int] = set()
        for token in range(self.n_vocab):
            attr = api.llama_vocab_get_attr(self._vocab, token)
            if not attr & (_ATTR_CONTROL | _ATTR_UNKNOWN | _ATTR_USER_DEFINED):
                continue
            text = self._token_text(token)
            if text and (attr & (_ATTR_CONTROL | _ATTR_UNKNOWN) or _MARKER.fullmatch(text)):
                control[text] = token
            if api.llama_vocab_is_eog(self._vocab, token):
                end_of_turn.add(token)
        return control, frozenset(end_of_turn)


def _set_progress(params: Any, progress: Callable[[float], None] | None) -> object:
    """Install a progress callback and return what must stay alive during the load."""
    if progress is None:
        return None
    callback_type = dict(types.llama_model_params._fields_)["progress_callback"]

    def on_progress(share: float, _user_data: Any) -> bool:
        progress(share)
        return True

    params.progress_callback = callback_type(on_progress)
    return params.progress_callback
