"""What drawing a token costs, a row: ours beside llama.cpp's whole chain as llama-cpp-python calls it.

The whole chain has the grammar first, so that it masks the vocabulary for each token; ours asks it about the drawn
token, and masks only where that is refused. Ours keeps the GIL, the other gives it away at each call. Both draw in
pairs from the same logits, on a quiet machine and beside an event loop that is never idle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
from rich.console import Console
from rich.table import Table

from voice_llm.backend.base import BatchEntry
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config.sampling import SamplingParams

from .common import engine_config, machine, model_path
from .wide_model import write_wide_model

_CALLBACK_S: Final = 0.001
_TOP_P, _MIN_P, _TEMPERATURE, _TOP_K = 0.95, 0.05, 0.7, 40
_DRAWN: Final[dict[str, Any]] = {"temperature": _TEMPERATURE, "top_k": _TOP_K, "top_p": _TOP_P, "min_p": _MIN_P}
_ALLOWED: Final = r"root ::= [^\x00]*"
_REFUSED: Final = r"root ::= [0-9]*"
CASES: Final[dict[str, dict[str, Any]]] = {
    "greedy": {"temperature": 0},
    "default": _DRAWN,
    "penalties": {**_DRAWN, "repetition_penalty": 1.1},
    "grammar, draw allowed": {**_DRAWN, "grammar": _ALLOWED},
    "grammar, draw refused": {**_DRAWN, "grammar": _REFUSED},
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one case costs, in microseconds a row.

    Attributes:
        n_vocab: Tokens of the vocabulary.
        case: How it is drawn.
        busy: Whether an event loop was running beside it.
        ours_us: Median of ours.
        ours_mean_us: Its mean, which holds the waits for the GIL.
        whole_us: Median of llama.cpp's whole chain.
        whole_mean_us: Its mean.
    """

    n_vocab: int
    case: str
    busy: bool
    ours_us: float
    ours_mean_us: float
    whole_us: float
    whole_mean_us: float


def measure(path: Path, pairs: int) -> list[Cost]:
    """Time every case on one model.

    Args:
        path: The model's file.
        pairs: How often each of the two draws in each case.
    """
    model = LlamaModel(path, gpu_layers=0)
    backend = LlamaBackend(model, engine_config(sequences=1, context_per_call=64))
    backend.decode([BatchEntry(0, 0, [1, 2, 3], True)])
    row = backend._logits.row(2)
    # Random weights prefer nothing; a language model does.
    row[:] = np.random.default_rng(0).normal(0, 2, model.n_vocab)
    row[_favourite(model)] = 30
    try:
        return [_cost(backend, case, busy, pairs) for busy in (False, True) for case in CASES]
    finally:
        backend.close()


def _favourite(model: LlamaModel) -> int:
    """Return a token whose text ``_ALLOWED`` allows and ``_REFUSED`` does not."""
    texts = ((token, model.token_bytes(token).strip()) for token in range(model.n_vocab))
    return next(token for token, text in texts if text.isalnum() and not text.isdigit())


def _cost(backend: LlamaBackend, case: str, busy: bool, pairs: int) -> Cost:
    params = SamplingParams(seed=1, **CASES[case])
    sampler = backend.new_sampler(params)
    chain = _whole_chain(backend.model, params)
    context = backend._logits.context
    draws = (lambda: backend.sample(0, sampler), lambda: llama_cpp.llama_sampler_sample(chain, context, 2))
    ways: tuple[list[float], list[float]] = [], []
    with busy_event_loop() if busy else nullcontext():
        for pair in range(pairs):
            time.sleep(_CALLBACK_S)  # as during a decode, the others have the GIL
            # The first of a pair finds the logits out of the cores' caches, so each is first every other time.
            for way in (0, 1) if pair % 2 else (1, 0):
                ways[way].append(_timed_us(draws[way]))
    sampler.close()
    llama_cpp.llama_sampler_free(chain)
    (ours, ours_mean), (whole, whole_mean) = ((statistics.median(w), statistics.fmean(w)) for w in ways)
    return Cost(
        backend.model.n_vocab, case, busy, round(ours, 1), round(ours_mean, 1), round(whole, 1), round(whole_mean, 1)
    )


def _timed_us(draw: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    draw()
    return (time.perf_counter() - started_s) * 1e6


def _whole_chain(model: LlamaModel, params: SamplingParams) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    stages = []
    if params.grammar is not None:
        stages.append(llama_cpp.llama_sampler_init_grammar(model.vocab, params.grammar.encode(), b"root"))
    if params.repetition_penalty != 1:
        penalties = (params.max_tokens, params.repetition_penalty, 0.0, 0.0)
        stages.append(llama_cpp.llama_sampler_init_penalties(model.n_vocab, *penalties))
    if params.temperature == 0:
        stages.append(llama_cpp.llama_sampler_init_greedy())
    else:
        stages += [
            llama_cpp.llama_sampler_init_top_k(params.top_k),
            llama_cpp.llama_sampler_init_top_p(params.top_p, 1),
            llama_cpp.llama_sampler_init_min_p(params.min_p, 1),
            llama_cpp.llama_sampler_init_temp(params.temperature),
            llama_cpp.llama_sampler_init_dist(1),
        ]
    for stage in stages:
        llama_cpp.llama_sampler_chain_add(chain, stage)
    return chain


@contextmanager
def busy_event_loop() -> Iterator[None]:
    """Run a thread whose event loop has callbacks of a millisecond of Python, one after the other."""
    over = threading.Event()

    async def callbacks() -> None:
        while not over.is_set():
            until_s = time.thread_time() + _CALLBACK_S
            while time.thread_time() < until_s:
                pass
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(callbacks()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _table(costs: list[Cost]) -> Table:
    headings = ("vocabulary", "drawn", "event loop", "ours", "mean", "whole chain", "mean")
    table = Table(*headings, title="A row of sampling, in microseconds (median and mean)")
    for c in costs:
        figures = (c.ours_us, c.ours_mean_us, c.whole_us, c.whole_mean_us)
        table.add_row(f"{c.n_vocab:,}", c.case, "busy" if c.busy else "quiet", *(f"{f:,.0f}" for f in figures))
    return table


def main() -> None:
    """Measure both vocabularies and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=300, help="draws of each way in each case (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "wide.gguf"
        write_wide_model(wide)
        costs = [cost for path in (model_path(), wide) for cost in measure(path, options.pairs)]
    if options.out is not None:
        figures = {"machine": machine(), "costs": [asdict(cost) for cost in costs]}
        options.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    Console().print(_table(costs))


if __name__ == "__main__":
    main()
