"""Settle what a configuration leaves to "auto": by trying it on this machine, once, and keeping the answer on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
from pathlib import Path
from typing import Any, Final

import platformdirs

from ...config.engine import EngineConfig
from ...errors import ConfigError
from .library import api
from .model import LlamaModel
from .trial import Load, turn_ms

__all__ = ["settle", "tuning_file"]

logger = logging.getLogger(__name__)

_TUNED: Final = ("flash_attention", "kv_layout", "threads", "threads_batch", "micro_batch_tokens")
# The first guess is what the other parts do best with; noise must not talk us out of it for good.
_CLEARLY_FASTER: Final = 0.93


def tuning_file() -> Path:
    """Return where the answers are kept."""
    return Path(platformdirs.user_cache_dir("voice_llm")) / "tuning.json"


def settle(model: LlamaModel, config: EngineConfig, *, file: Path | None = None) -> EngineConfig:
    """Return ``config`` with every "auto" replaced; measures for a few seconds the first time.

    Each choice is made at the load that the configuration is made for: with as many calls as it has sequences.

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
        threads=cores if config.threads == "auto" else None,
        threads_batch=cores if config.threads_batch == "auto" else None,
        micro_batch_tokens=min(512, config.batch_tokens) if config.micro_batch_tokens == "auto" else None,
        flash_attention=("on" if config.kv_type == "q8_0" else "off") if config.flash_attention == "auto" else None,
        kv_layout="split" if config.kv_layout == "auto" else None,
    )
    best_ms = turn_ms(model, best)
    for changes in _alternatives(config, cores):
        candidate = best.replace(**changes)
        candidate_ms = turn_ms(model, candidate)
        logger.info("%s: %.1f ms a turn against %.1f", changes, candidate_ms, best_ms)
        if candidate_ms < best_ms * _CLEARLY_FASTER:
            best_ms = min(best_ms, turn_ms(model, best))  # another process may have been in its way
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


def _key(model: LlamaModel, config: EngineConfig) -> str:
    """Name model, machine and build, and what was asked for."""
    asked = [getattr(config, name) for name in _TUNED] + [config.kv_type, config.gpu_layers, config.batch_tokens]
    asked += dataclasses.astuple(Load.of(config))
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
