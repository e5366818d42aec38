"""Backends: the seam to an inference library. The llama.cpp one is imported on demand, from ``backend.llama``."""

from .base import Backend, BackendCounters, BackendInfo, BatchEntry, Sampler, SavedState, Tokenizer

__all__ = ["Backend", "BackendCounters", "BackendInfo", "BatchEntry", "Sampler", "SavedState", "Tokenizer"]
