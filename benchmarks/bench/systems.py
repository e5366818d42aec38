"""The systems that are compared: how each is started, and which target speaks to it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from voice_llm.config import Profile
from voice_llm.events import Timings
from voice_llm.simulator import CallScript, ConverseTarget, OpenAITarget
from voice_llm.simulator.insurance import SYSTEM_PROMPT

from ..common import PROFILE
from ..peer import PeerServer
from ..server_process import ServerProcess

__all__ = ["SYSTEMS", "Server", "Setup", "System", "systems_named"]

_SPINNING: Final = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_ENDING_S: Final = 5.0
_GREEDY: Final = {"temperature": 0}


@dataclass(frozen=True, slots=True)
class Setup:
    """What all systems are given alike: the model, room for so many calls, and threads."""

    model: Path
    calls: int
    context_tokens: int
    threads: int


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Attributes:
        pid: Its process.
        http: Base URL of its OpenAI interface.
        grpc: ``host:port`` of its gRPC interface, if it has one.
        computed_tokens: Reads how many prompt tokens it has computed since its start; None where it does not tell.
    """

    pid: int
    http: str
    grpc: str | None = None
    computed_tokens: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison.

    Attributes:
        name: Its name.
        how: How it is run, for the record.
        start: Runs a server, ready to answer, for as long as the block lasts.
        target: Speaks to it; the callback takes the server's own timings, where there are any.
        holds_system_prompt: Whether the server puts the system prompt first by itself, from its profile.
        peer: Whether ours is held against it.
    """

    name: str
    how: str
    start: Callable[[Setup], AbstractContextManager[Server]]
    target: Callable[[Server, Callable[[Timings], None]], OpenAITarget | ConverseTarget]
    holds_system_prompt: bool = False
    peer: bool = False

    def asked(self, script: CallScript) -> CallScript:
        """Return the call as it is put to this system, so that the prompts of all systems are the same."""
        return replace(script, system_prompt="") if self.holds_system_prompt else script


@contextmanager
def _llama_server(setup: Setup, *, options: tuple[str, ...] = (), spinning: bool = False) -> Iterator[Server]:
    environment = dict(os.environ) if spinning else _without_spinning()
    with PeerServer(
        setup.model,
        parallel=setup.calls,
        context_per_call=setup.context_tokens,
        threads=setup.threads,
        options=options,
        environment=environment,
    ) as peer:
        yield Server(peer.pid, peer.url)


@contextmanager
def _seed(setup: Setup) -> Iterator[Server]:
    command = [sys.executable, "-m", f"{__package__}.seed_server", "--model", str(setup.model)]
    command += ["--contexts", str(setup.calls), "--threads", str(setup.threads)]
    command += ["--context-tokens", str(setup.context_tokens)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_without_spinning()) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError("the seed's server did not start")
            yield Server(process.pid, f"http://127.0.0.1:{port}/v1")
        finally:
            process.terminate()
            try:
                process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def _voice_llm(setup: Setup) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "bench.json"
        profile.write_text(_profile(setup.model))
        arguments = ["--profile", str(profile), "--calls", str(setup.calls), "--threads", str(setup.threads)]
        arguments += ["--context-per-call", str(setup.context_tokens), "--no-supervise", "--drain-s", "0"]
        arguments += ["--admission", "limit"]  # how many calls fit is for the callers to say
        with ServerProcess(arguments, Path(folder) / "serve.log") as server:
            server.wait_healthy()
            computed = partial(server.metric, "voice_llm_step_tokens_total", kind="prefill")
            yield Server(server.process.pid, f"http://{server.http}/v1", server.grpc, computed)


def _profile(model: Path) -> str:
    packaged = Profile.load(PROFILE)
    chosen = packaged.model_copy(
        update={
            "name": "bench",
            "system_prompt": SYSTEM_PROMPT,
            "model": packaged.model.model_copy(update={"package": None, "file": None, "path": str(model)}),
        }
    )
    return chosen.model_dump_json()


def _without_spinning() -> dict[str, str]:
    """Return the environment without what ``benchmarks`` sets for servers of ours."""
    return {name: value for name, value in os.environ.items() if name not in _SPINNING}


def _openai(
    server: Server, on_turn_end: Callable[[Timings], None], *, call_ids: bool = False, **options: Any
) -> OpenAITarget:
    return OpenAITarget(server.http, "bench", options={**_GREEDY, **options}, call_ids=call_ids)


def _converse(server: Server, on_turn_end: Callable[[Timings], None]) -> ConverseTarget:
    assert server.grpc is not None
    # First speech is a whole sentence here, for every system.
    return ConverseTarget(server.grpc, params={**_GREEDY, "first_chunk": "sentence"}, on_turn_end=on_turn_end)


_BEST: Final = ("--no-kv-unified", "--no-cache-idle-slots", "-fa", "off", "-b", "128")

SYSTEMS: Final = (
    System("llama-server", "llama.cpp's server at its defaults, slots = calls", _llama_server, _openai, peer=True),
    System(
        "llama-server-best",
        f"llama.cpp's server, slots = calls, {' '.join(_BEST)}, OMP_WAIT_POLICY=active",
        partial(_llama_server, options=_BEST, spinning=True),
        _openai,
        peer=True,
    ),
    System("seed", "the seed's design re-created: a context a call, batches with a barrier", _seed, _openai, peer=True),
    System("voice-llm", "what a stock OpenAI client sends, no further header", _voice_llm, _openai, True),
    System("voice-llm x-call-id", "with x-call-id", _voice_llm, partial(_openai, call_ids=True), True),
    System(
        "voice-llm hints",
        "Converse, with the caller's words as partial events, and first_chunk sentence",
        _voice_llm,
        _converse,
        True,
    ),
    System(
        "voice-llm pacing off",
        "with x-call-id, and pacing off",
        _voice_llm,
        partial(_openai, call_ids=True, pacing="off"),
        True,
    ),
)


def systems_named(names: list[str]) -> tuple[System, ...]:
    """Return these systems, in the order of the table; all without names.

    Raises:
        KeyError: There is none of that name.
    """
    known = {system.name: system for system in SYSTEMS}
    for name in names:
        if name not in known:
            raise KeyError(name)
    return tuple(system for system in SYSTEMS if not names or system.name in names)
