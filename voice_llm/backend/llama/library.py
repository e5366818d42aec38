"""The one place that imports llama_cpp: symbols, how they are bound, and llama.cpp's log.

Short calls are bound through ``ctypes.PyDLL``, which keeps the GIL: giving it away for a call of a few microseconds
means winning it back from a busy event loop, which can take milliseconds. Only calls that run long (decode, state
copies, load) are bound through ``CDLL`` and release it.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import llama_cpp.llama_cpp as _binding
import llama_cpp.llama_grammar as _grammar

from ...errors import BackendError

__all__ = ["SchemaConverter", "api", "capture_log", "last_errors", "types"]

logger = logging.getLogger("voice_llm.llama_cpp")

_HOLDS_GIL = (
    "llama_context_default_params",
    "llama_get_logits_ith",
    "llama_get_memory",
    "llama_memory_seq_pos_max",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_rm",
    "llama_model_chat_template",
    "llama_model_default_params",
    "llama_model_get_vocab",
    "llama_model_has_encoder",
    "llama_model_meta_val_str",
    "llama_model_n_swa",
    "llama_n_ctx_seq",
    "llama_print_system_info",
    "llama_sampler_accept",
    "llama_sampler_apply",
    "llama_sampler_chain_add",
    "llama_sampler_chain_default_params",
    "llama_sampler_chain_init",
    "llama_sampler_free",
    "llama_sampler_init_dist",
    "llama_sampler_init_grammar",
    "llama_sampler_init_greedy",
    "llama_sampler_init_min_p",
    "llama_sampler_init_penalties",
    "llama_sampler_init_temp",
    "llama_sampler_init_top_k",
    "llama_sampler_init_top_p",
    "llama_sampler_sample",
    "llama_supports_gpu_offload",
    "llama_token_to_piece",
    "llama_vocab_bos",
    "llama_vocab_eos",
    "llama_vocab_get_add_bos",
    "llama_vocab_get_attr",
    "llama_vocab_get_text",
    "llama_vocab_is_eog",
    "llama_vocab_n_tokens",
)
_RELEASES_GIL = (
    "llama_backend_init",
    "llama_decode",
    "llama_free",
    "llama_init_from_model",
    "llama_log_set",
    "llama_model_free",
    "llama_model_load_from_file",
    "llama_state_seq_get_data",
    "llama_state_seq_get_size",
    "llama_state_seq_set_data",
    "llama_synchronize",
    "llama_tokenize",
)
_TYPES = ("llama_batch", "llama_context_params", "llama_model_params", "llama_token_data_array")


def _bind() -> SimpleNamespace:
    """Collect every symbol that is used, or say which the installed build lacks."""
    bound: dict[str, Any] = {}
    missing: list[str] = []
    keeps_gil = ctypes.PyDLL(_binding._lib._name)
    for name in (*_HOLDS_GIL, *_RELEASES_GIL):
        declared = getattr(_binding, name, None)
        if declared is None or not hasattr(keeps_gil, name):
            missing.append(name)
        elif name in _RELEASES_GIL:
            bound[name] = declared
        else:
            function = getattr(keeps_gil, name)
            function.argtypes, function.restype = declared.argtypes, declared.restype
            bound[name] = function
    missing += [name for name in _TYPES if not hasattr(_binding, name)]
    if missing:
        raise BackendError(
            f"the installed llama-cpp-python lacks {', '.join(missing)}; "
            "voice_llm is written for 0.3.36: pip install llama-cpp-python==0.3.36"
        )
    return SimpleNamespace(**bound)


api: Any = _bind()
SchemaConverter: Any = _grammar.SchemaConverter
types: Any = SimpleNamespace(**{name: getattr(_binding, name) for name in _TYPES})

# llama.cpp warns of things that are normal here (a context shorter than the trained one), and each of its errors also
# becomes an exception that carries the text; so both are logged one level lower than it would.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_CONTINUATION = 5
_recent_errors: deque[str] = deque(maxlen=8)
_capture_lock = threading.Lock()
_captured = False


def _on_log(level: int, text: bytes, _user_data: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if not line or level == _CONTINUATION:
        return
    if level >= 4:
        _recent_errors.append(line)
    logger.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


# Must outlive every call into llama.cpp, so it lives as long as the module.
_log_callback = _binding.llama_log_callback(_on_log)


def capture_log() -> None:
    """Send llama.cpp's log to Python logging; done when the first model is loaded, not at import."""
    global _captured
    with _capture_lock:
        if not _captured:
            api.llama_backend_init()
            api.llama_log_set(_log_callback, ctypes.c_void_p(0))
            _captured = True


def last_errors() -> str:
    """Return and forget what llama.cpp last complained about, for the text of an exception."""
    text = "; ".join(_recent_errors)
    _recent_errors.clear()
    return text or "llama.cpp gave no reason"
