"""Settle what a configuration leaves to "auto": by trying it on this machine, once, and keeping the answer on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from pathlib import Path
from typing import Any, Final

import platformdirs

from ...config.engine import EngineConfig
from ...errors import BackendError, ConfigError
from ..base import BatchEntry
from .context import LlamaBackend
from .library import api
from .model import LlamaModel

__all__ = ["settle", "tuning_file"]

logger = logging.getLogger(__name__)

_TUNED: Final = ("flash_attention", "kv_layout", "threads", "threads_batch", "micro_batch_tokens")
_TRIAL_CALLS: Final = 4
_TRIAL_CONTEXT_TOKENS: Final = 256
_TRIAL_STEPS: Final = 8
# The first guess is what the other parts do best with; noise must not talk us out of it for good.
_CLEARLY_FASTER: Final = 0.93
_PROMPT_TOKENS: Final = 64
# A turn's share of a machine, roughly: its reply's steps, ridden together with other calls, and its prompt's chunks.
_STEPS_A_TURN: Final = 30
_CHUNKS_A_TURN: Final = 2


def tuning_file() -> Path:
    """Return where the answers are kept."""
    return Path(platformdirs.user_cache_dir("voice_llm")) / "tuning.json"


def settle(model: LlamaModel, config: EngineConfig, *, file: Path | None = None) -> EngineConfig:
    """Return ``config`` with every "auto" replaced; measures for a few seconds the first time.

    Args:
        model: The loaded weights.
        config: What is asked for; values that are given are kept.
        file: Where answers are kept; the user's cache folder by default.
    """
    if all(getattr(config, name) != "auto" for name in _TUNED):
        return config
    file = file or tuning_file()
    key = _key(model, config)
    known = _read(file)
    choice = known.get(key)
    if not isinstance(choice, dict) or not _is_usable(choice, config):
        logger.info("measuring how %s runs best on this machine (once, a few seconds)", model.path.name)
        choice = _measure(model, config)
        _write(file, {**known, key: choice})
    return config.replace(**{name: choice[name] for name in _TUNED if getattr(config, name) == "auto"})


def _is_usable(choice: dict[str, Any], config: EngineConfig) -> bool:
    """Whether an answer from the file is one; anybody may have written there."""
    if any(choice.get(name) in ("auto", None) for name in _TUNED):
        return False
    try:
        config.replace(**{name: choice[name] for name in _TUNED})
    except ConfigError:
        return False
    return True


def _measure(model: LlamaModel, config: EngineConfig) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    best = config.replace(
        sequences=min(config.sequences, _TRIAL_CALLS),
        context_per_call=min(config.context_per_call, 2 * _TRIAL_CONTEXT_TOKENS),
        threads=cores if config.threads == "auto" else None,
        threads_batch=cores if config.threads_batch == "auto" else None,
        micro_batch_tokens=min(512, config.batch_tokens) if config.micro_batch_tokens == "auto" else None,
        flash_attention=("on" if config.kv_type == "q8_0" else "off") if config.flash_attention == "auto" else None,
        kv_layout="split" if config.kv_layout == "auto" else None,
    )
    best_ms = _trial_ms(model, best)
    for changes in _alternatives(config, cores):
        candidate = best.replace(**changes)
        candidate_ms = _trial_ms(model, candidate)
        logger.info("%s: %.1f ms a turn against %.1f", changes, candidate_ms, best_ms)
        if candidate_ms < best_ms * _CLEARLY_FASTER:
            best, best_ms = candidate, candidate_ms
    return {name: getattr(best, name) for name in _TUNED} | {"turn_ms": round(best_ms, 2)}


def _alternatives(config: EngineConfig, cores: int) -> list[dict[str, Any]]:
    """Return what to try against the first guess, one change at a time."""
    changes: list[dict[str, Any]] = []
    if config.flash_attention == "auto" and config.kv_type != "q8_0":
        changes.append({"flash_attention": "on"})
    if config.kv_layout == "auto":
        changes.append({"kv_layout": "unified"})
    if config.threads == "auto" and cores > 2:
        changes.append({"threads": cores // 2})
    if config.threads_batch == "auto" and cores > 2:
        changes.append({"threads_batch": cores // 2})
    return changes


def _trial_ms(model: LlamaModel, config: EngineConfig) -> float:
    """Time what a turn costs: chunks of prompt, and steps of several calls together; infinite where it does not run."""
    try:
        backend = LlamaBackend(model, config, owns_model=False)
    except BackendError as e:
        logger.info("%r does not run here: %s", config, e)
        return float("inf")
    try:
        room = min(_TRIAL_CONTEXT_TOKENS, backend.info.context_per_call - _TRIAL_STEPS)
        tokens = (model.tokenize("The quick brown fox jumps over the lazy dog. ") * 64)[:room]
        chunk = min(_PROMPT_TOKENS, backend.info.max_batch_tokens, room // 2)
        chunk_times = [
            _timed(backend, [BatchEntry(0, start, tokens[start : start + chunk], False)])
            for start in range(0, len(tokens) - chunk + 1, chunk)
        ]
        state = backend.seq_save(0)
        for sequence_id in range(1, config.sequences):
            backend.seq_restore(sequence_id, state)
        step_times = [
            _timed(backend, [BatchEntry(i, state.length + n, tokens[:1], True) for i in range(config.sequences)])
            for n in range(_TRIAL_STEPS)
        ]
    finally:
        backend.close()
    return min(chunk_times[1:]) * _CHUNKS_A_TURN + min(step_times) * _STEPS_A_TURN


def _timed(backend: LlamaBackend, entries: list[BatchEntry]) -> float:
    started_s = time.perf_counter()
    backend.decode(entries)
    return (time.perf_counter() - started_s) * 1e3


def _key(model: LlamaModel, config: EngineConfig) -> str:
    """Name model, machine and build, and what was asked for."""
    asked = [getattr(config, name) for name in _TUNED] + [config.kv_type, config.gpu_layers, config.batch_tokens]
    asked += [min(config.sequences, _TRIAL_CALLS)]
    machine = [platform.node(), platform.machine(), os.cpu_count(), api.llama_print_system_info().decode()]
    identity = [model.path.name, model.path.stat().st_size, *machine, *asked]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(file: Path, known: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1))
        temporary.replace(file)
    except OSError as e:
        logger.info("the measured choices cannot be kept: %s", e)
