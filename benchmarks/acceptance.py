"""The long proofs, one after the other on an otherwise idle machine: ``make acceptance``.

Writes ``benchmarks/results/acceptance.json`` and the README's tables; ends with status 4 where an objective is missed.
``make acceptance ARGS="long-prompt"`` runs one of them and keeps the others' results.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from .common import Proof, machine
from .tables import write_readme

RESULTS = Path(__file__).parent / "results" / "acceptance.json"

# Loaded one by one: what the others import would have to be looked through by each garbage collection.
_PROOFS: Final = {
    "raw-loop": "throughput.near_the_raw_loop",
    "scattered": "throughput.scattered_calls",
    "first-token": "latency.opening_prompt",
    "long-prompt": "long_prompt.beside_talkers",
    "beside": "equality.calls_beside_each_other",
    "reuse": "equality.reused_caches",
    "event-loop": "event_loop.eight_bots",
    "python-share": "python_share.python_share",
    "barge-in": "barge_in.barge_in",
    "pipecat-text": "pipecat_text.first_text",
    "phone-calls": "phone_calls.voice_to_voice",
    "streaming": "streaming.token_path",
    "hostile": "hostile.two_hundred",
    "scenarios": "scenarios.built_in_scenarios",
    "virtual-hour": "scenarios.virtual_hour",
    "queue-theory": "queue_theory.queue_theory",
    "simulation": "agreement.simulation_agrees",
    "abort": "serving.abort",
    "killed-client": "serving.killed_client",
}


def main() -> int:
    """Run the proofs that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make acceptance", description=__doc__)
    parser.add_argument("proof", nargs="*", choices=[*_PROOFS, []], help="which to run; all by default")
    names = parser.parse_args().proof or list(_PROOFS)
    console = Console()
    proofs: list[Proof] = []
    for name in names:
        with console.status(f"{name} ({len(proofs)} done)"):
            found = asyncio.run(_run(name))
        proofs += found
        for proof in found:
            mark = "[green]met[/green]" if proof.passed else "[red]missed[/red]"
            console.print(f"{mark}  {proof.objective}", highlight=False)
            console.print(f"      {json.dumps(proof.figures, ensure_ascii=False)}", style="dim", highlight=False)
    _keep(proofs)
    write_readme()
    return 0 if all(p.passed for p in proofs) else 4


def _keep(proofs: list[Proof]) -> None:
    """Put the proofs into the results, in place of older ones of the same name; of another machine nothing is kept."""
    about = machine()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    old = kept["proofs"] if kept.get("machine") == about else []
    by_name = {p["name"]: p for p in old} | {p.name: p.to_json() for p in proofs}
    RESULTS.write_text(
        json.dumps({"machine": about, "proofs": list(by_name.values())}, indent=1, ensure_ascii=False) + "\n"
    )


async def _run(name: str) -> list[Proof]:
    module, _, function = _PROOFS[name].partition(".")
    prove: Callable[[], Awaitable[list[Proof]]] = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    return await prove()


if __name__ == "__main__":
    sys.exit(main())
