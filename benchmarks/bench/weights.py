"""The model file of a run: the packaged model with weights of a type that llama.cpp has fast kernels for."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import llama_cpp

from ..common import model_path
from ..peer import ROOT

__all__ = ["PACKAGED", "WEIGHTS", "bench_model"]

PACKAGED: Final = "packaged"
_TYPES: Final = {
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
}
WEIGHTS: Final = (*_TYPES, PACKAGED)


def bench_model(weights: str, *, source: Path | None = None, folder: Path = ROOT) -> Path:
    """Return the model file with weights of a type; made once, by llama.cpp's own quantiser, in a second or two.

    The packaged file's Q4_1 is a type for which llama.cpp's CPU backend has no repacked kernels: prompts take about
    twice as long as with Q4_0 at the same size. What is lost by rounding twice changes words, not the work.

    Args:
        weights: One of ``WEIGHTS``.
        source: The packaged model's file.
        folder: Where files that are made are kept.

    Raises:
        RuntimeError: The file cannot be made.
    """
    packaged = model_path() if source is None else source
    if weights == PACKAGED:
        return packaged
    made = folder / f"{packaged.name.split('.')[0]}.{weights.upper()}.gguf"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: a run that is stopped here leaves nothing that the next would take for the model.
        partial = made.with_suffix(".partial")
        _quantize(packaged, partial, _TYPES[weights])
        partial.replace(made)
    return made


def _quantize(source: Path, target: Path, ftype: int) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = ftype
    options.allow_requantize = True
    if llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(options)):
        raise RuntimeError(f"llama.cpp cannot make {target.with_suffix('.gguf').name} from {source.name}")
