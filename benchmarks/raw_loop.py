"""The ceiling: llama.cpp's own decode in a tight loop, with nothing around it. Prints its tokens a second."""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path

import llama_cpp

from .common import THREADS, model_path


class RawLoop:
    """A context with ``sequences`` equal prompts, advanced by ``llama_decode`` alone.

    Tokens are given, not sampled, but logits are computed for every row, as for a real reply.
    """

    def __init__(self, path: Path, *, sequences: int, context_per_call: int, prompt_tokens: int) -> None:
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = sequences * context_per_call
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = params.n_outputs_max = sequences
        params.n_threads = params.n_threads_batch = THREADS
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._batch = llama_cpp.llama_batch_init(512, 0, 1)
        self._sequences = sequences
        self._prompt_tokens = prompt_tokens
        self._memory = llama_cpp.llama_get_memory(self._context)

    def tokens_per_s(self, steps: int) -> float:
        """Prefill all sequences anew, then time ``steps`` steps of one token each."""
        llama_cpp.llama_memory_clear(self._memory, True)
        for sequence_id in range(self._sequences):
            self._decode([(sequence_id, position) for position in range(self._prompt_tokens)], last_only=True)
        started_s = time.perf_counter()
        for step in range(steps):
            self._decode([(s, self._prompt_tokens + step) for s in range(self._sequences)])
        return steps * self._sequences / (time.perf_counter() - started_s)

    def close(self) -> None:
        """Free everything."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _decode(self, rows: list[tuple[int, int]], *, last_only: bool = False) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (sequence_id, position) in enumerate(rows):
            batch.token[i] = 504 + (7 * position + sequence_id) % 2000
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence_id
            batch.logits[i] = not last_only or i == len(rows) - 1
        if llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)
        if not ctypes.cast(llama_cpp.llama_get_logits_ith(self._context, len(rows) - 1), ctypes.c_void_p).value:
            raise RuntimeError("no logits")


def main() -> None:
    """Measure once and print tokens a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, required=True)
    parser.add_argument("--prompt-tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    loop = RawLoop(model_path(), sequences=args.sequences, context_per_call=1024, prompt_tokens=args.prompt_tokens)
    print(loop.tokens_per_s(args.steps))
    loop.close()


if __name__ == "__main__":
    main()
