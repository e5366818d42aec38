"""Write the README's figures from the committed results, so that the two cannot differ."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
README = _ROOT / "README.md"
RESULTS = Path(__file__).parent / "results" / "acceptance.json"
_BLOCK = re.compile(r"(<!-- acceptance -->\n).*?(<!-- /acceptance -->)", re.DOTALL)
_SHOWN = {
    "decode_8": lambda f: f"{f['ratio']:.2f}",
    "decode_1": lambda f: f"{f['ratio']:.2f}",
    "scattered_calls": lambda f: f"{f['ratio']:.2f}, {f['micro_batches_a_step']:.1f} micro-batches a step",
    "first_token": lambda f: (
        f"{f['ratio']:.2f} ({f['first_token_ms']:.0f} ms against {f['first_token_cold_ms']:.0f} ms)"
    ),
    "long_prompt_voice": lambda f: (
        f"{f['playback_gaps']} gaps; llama.cpp's server {f['peer']['playback_gaps']}, {f['peer']['silence_s']:.0f} s"
    ),
    "long_prompt": lambda f: (
        f"{f['longest_token_gap_ms']:.0f} ms at most; llama.cpp's server {f['peer']['longest_piece_gap_ms']:.0f} ms"
    ),
    "calls_beside_each_other": lambda f: f"{f['same']} of {f['of']} the same",
    "reused_cache": lambda f: f"{f['same']} of {f['of']} the same",
    "event_loop": lambda f: (
        f"{f['alone']['longest_cpu_ms']:.0f} and {f['alone']['p99_ms']:.0f} ms, "
        f"beside work {f['beside_work']['longest_cpu_ms']:.0f} and {f['beside_work']['p99_ms']:.0f} ms"
    ),
    "python_share_quiet": lambda f: _python_share(f),
    "python_share_busy": lambda f: _python_share(f),
    "barge_in_row": lambda f: (
        f"{f['steps_p99']:.0f} step; {f['freed_ms']['p50']:.0f} ms p50, {f['freed_ms']['p99']:.0f} ms p99 "
        f"over {f['barge_ins']} barge-ins, the step was {f['running_step_ms']['p99']:.0f} ms p99"
    ),
    "barge_in_reuse": lambda f: f"{f['recomputed_most']} tokens at most over {f['turns']} turns",
    "pipecat_first_text": lambda f: _first_text(f),
    "pipecat_first_text_transcripts": lambda f: _first_text(f),
    "voice_to_voice": lambda f: (
        f"p50 {f['ratio_p50']:.2f} ({f['voice_llm']['voice_to_voice_p50_ms']:.0f} ms against "
        f"{f['stock']['voice_to_voice_p50_ms']:.0f} ms), p90 {f['ratio_p90']:.2f}"
    ),
    "streaming_together": lambda f: _token_path(f),
    "streaming_staggered": lambda f: _token_path(f),
    "hostile_clients": lambda f: (
        f"{f['connections']} connections, {len(f['lost'])} of {f['healthy_turns']} turns lost, "
        f"{f['memory_before_mib']:.0f} MiB before and {f['memory_after_mib']:.0f} after"
    ),
    "abort": lambda f: f"{f['restart_s']:.1f} s, first start {f['first_start_s']:.1f} s",
    "killed_client": lambda f: f"{f['cancel_ms']:.0f} ms, {f['prefilled_tokens']:.0f} tokens computed",
    "scenarios": lambda f: (
        f"{f['expectations_met']} met, {f['expectations_missed']} missed over {f['turns']} turns of {f['scenarios']} "
        f"scenarios; of those for a better model {f['better_model_met']}"
    ),
    "virtual_hour": lambda f: f"{f['wall_s']:.0f} s, {f['turns']} turns, {f['most_at_once']} calls at once",
    "queue_theory_0.5": lambda f: _queue(f),
    "queue_theory_0.8": lambda f: _queue(f),
    "simulation_2_calls": lambda f: _agreement(f),
    "simulation_4_calls": lambda f: _agreement(f),
    "simulation_8_calls": lambda f: _agreement(f),
    "simulation_12_calls": lambda f: _agreement(f),
    "barge_in": lambda f: f"{max(f['stop_ms']):.0f} ms at most, median {statistics.median(f['stop_ms']):.0f} ms",
}


_STAGES = {
    "vad_stop_ms": "silence noticed",
    "transcript_ms": "transcript",
    "turn_end_ms": "turn over",
    "first_chunk_ms": "first words",
    "first_audio_ms": "first sound",
    "audible_ms": "heard by the caller",
}


def _queue(figures: dict[str, Any]) -> str:
    return (
        f"{figures['wait_of_service']:.3f} of a service, theory {figures['theory']:.3f} "
        f"({figures['off']:+.1%}, {figures['arrivals']:,} arrivals)"
    )


def _agreement(figures: dict[str, Any]) -> str:
    low, high = figures["p95_interval"]
    (p50, p50_simulated), (p95, p95_simulated) = figures["first speech p50"], figures["first speech p95"]
    return (
        f"p50 {p50_simulated:.0f} ms, really {p50:.0f} ({figures['off'][0]:+.0%}); p95 {p95_simulated:.0f} ms, really "
        f"{p95:.0f} ({low:.0f} to {high:.0f}); busy {figures['utilisation'][0]:.0%}"
    )


def _first_text(figures: dict[str, Any]) -> str:
    ours_ms, stock_ms = figures["first_text_p50_ms"], figures["stock_first_text_p50_ms"]
    return f"{figures['ratio']:.2f} ({ours_ms:.0f} ms against {stock_ms:.0f} ms)"


def _python_share(figures: dict[str, Any]) -> str:
    shares = (f"{sampling} {run['share']:.1%} of {run['step_ms']:.0f} ms" for sampling, run in figures.items())
    most = max(run["share_at_most"] for run in figures.values())
    return f"{', '.join(shares)}; with all waits for the GIL and for a core {most:.0%}"


def _token_path(figures: dict[str, Any]) -> str:
    return (
        f"p50 {figures['p50_ms']:.1f}, p95 {figures['p95_ms']:.1f} ms; "
        f"{figures['server_cpu_s_per_1000']:.2f} s of CPU per 1,000 messages"
    )


def readme_block() -> str:
    """Return the generated part of the README."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    about = results["machine"]
    lines = [
        f"`make acceptance` on {about['cores']} cores of {about['cpu']}, {about['model']}, "
        f"llama-cpp-python {about['llama_cpp_python']}, {about['threads']} threads.",
        "",
        "| objective | found | | date |",
        "|---|---|---|---|",
    ]
    for proof in results["proofs"]:
        shown = _SHOWN[proof["name"]](proof["figures"])
        lines.append(
            f"| {proof['objective']} | {shown} | {'met' if proof['passed'] else '**missed**'} | {proof['date']} |"
        )
    by_name = {proof["name"]: proof["figures"] for proof in results["proofs"]}
    if "voice_to_voice" in by_name:
        lines += ["", *_stage_table(by_name["voice_to_voice"])]
    return "\n".join(lines) + "\n"


def _stage_table(figures: dict[str, Any]) -> list[str]:
    ours, stock = figures["voice_llm"]["stages_ms"], figures["stock"]["stages_ms"]
    return [
        "Where the milliseconds of a phone call go, medians after the end of the caller's speech:",
        "",
        "| | " + " | ".join(_STAGES.values()) + " |",
        "|---|" + "---|" * len(_STAGES),
        "| Pipecat's stock bot | " + " | ".join(f"{stock[stage]:.0f}" for stage in _STAGES) + " |",
        "| `phone_assistant.py` | " + " | ".join(f"{ours[stage]:.0f}" for stage in _STAGES) + " |",
    ]


def write_readme() -> None:
    """Put the generated part where the README's markers are."""
    text = README.read_text()
    README.write_text(_BLOCK.sub(lambda m: m[1] + readme_block() + m[2], text))


if __name__ == "__main__":
    write_readme()
