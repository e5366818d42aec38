"""What ``voice-llm simulate`` calls: the engine in process, in virtual time, or a server elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..engine.step_costs import StepCosts
from ..errors import ConfigError
from ..simulator import EngineTarget, OpenAITarget, Target
from ..simulator.caller import Clock, Sleep
from ..simulator.targets import CallHolder
from .endpoints import Endpoints
from .options import EngineOptions

__all__ = ["Called", "TargetOptions"]

_ALLOWED: Final = "engine, virtual, grpc://HOST:PORT, ws://HOST:PORT, http://HOST:PORT/v1 or audio:ws://HOST:PORT/PATH"


@dataclass(frozen=True, slots=True)
class Called:
    """A target that is ready.

    Attributes:
        target: Who answers.
        about: What it is, for the report.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        run_id: What call ids begin with, where that must not change.
    """

    target: Target | CallHolder
    about: dict[str, str]
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """What the command line says of the target.

    Attributes:
        text: ``--target``.
        engine: How it is loaded.
        api_key: Shown to a server.
        tls_ca: As in ``Endpoints``, for gRPC.
        tls_cert: Likewise.
        tls_key: Likewise.
        tenant: In whose name a server is asked.
        model_name: Which model an OpenAI server is asked for; None for the first of its list.
        call_ids: Name calls to an OpenAI server, as ours takes it.
        costs: File of step costs for virtual time.
        timeout_s: Longest silence of a server.
        seed: Of what differs from step to step in virtual time.

    Raises:
        ConfigError: There is no such target, or an option has no effect on it.
    """

    text: str = "engine"
    engine: EngineOptions
    api_key: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tenant: str | None = None
    model_name: str | None = None
    call_ids: bool = False
    costs: Path | None = None
    timeout_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("engine", "virtual", "grpc", "ws", "http", "audio"):
            raise ConfigError(f"--target is {self.text!r}; allowed is {_ALLOWED}", param="target")
        if self.kind != "http" and (self.model_name or self.call_ids):
            raise ConfigError("--model-name and --call-ids are for an http:// target", param="target")
        if self.kind != "virtual" and self.costs is not None:
            raise ConfigError("--costs is for --target virtual", param="costs")

    @property
    def kind(self) -> str:
        """What kind of target it is."""
        scheme, separator, rest = self.text.partition(":")
        if not separator:
            return scheme if scheme in ("engine", "virtual") else ""
        if scheme == "audio":
            return "audio" if rest.startswith(("ws://", "wss://")) else ""
        return {"grpc": "grpc", "ws": "ws", "wss": "ws", "http": "http", "https": "http"}.get(scheme, "")

    @property
    def is_virtual(self) -> bool:
        """Whether it is called in virtual time."""
        return self.kind == "virtual"

    @asynccontextmanager
    async def open(self, *, quiet: bool) -> AsyncIterator[Called]:
        """Make the target ready, and close it in the end.

        Raises:
            VoiceLLMError: It cannot be made ready: a profile or a file is wrong, or a package is missing. A server that
                is down shows in the calls.
        """
        opened = getattr(self, f"_open_{self.kind}")
        async with opened(quiet) as called:
            yield called

    @asynccontextmanager
    async def _open_engine(self, quiet: bool) -> AsyncIterator[Called]:
        async with self.engine.engine(quiet=quiet) as engine:
            about = {
                "target": f"engine in process, profile {engine.profile.name}",
                "model": engine.backend.info.model_id,
            }
            yield Called(EngineTarget(engine, tenant=self.tenant or "default"), about)

    @asynccontextmanager
    async def _open_virtual(self, quiet: bool) -> AsyncIterator[Called]:
        from ..simulator.virtual import VirtualTarget, virtual_engine

        costs = read_costs(self.costs) if self.costs is not None else None
        async with await virtual_engine(self.engine.settled_profile(), costs, seed=self.seed) as engine:
            named = str(self.costs) if self.costs is not None else "of SmolLM2-135M on two CPU cores"
            about = {"target": "engine in virtual time", "step costs": named}
            loop = asyncio.get_running_loop()
            yield Called(VirtualTarget(engine), about, clock=loop.time, run_id="virtual")

    @asynccontextmanager
    async def _open_grpc(self, quiet: bool) -> AsyncIterator[Called]:
        from ..simulator import ConverseTarget
        from .grpc_client import credentials_of

        there = Endpoints.of_grpc(
            self.text.removeprefix("grpc://"), self.tls_ca, self.tls_cert, self.tls_key, self.tenant, self.api_key
        )
        target = ConverseTarget(
            there.grpc,
            tenant=self.tenant or "default",
            api_key=self.api_key,
            credentials=credentials_of(there) if there.uses_tls else None,
            timeout_s=self.timeout_s,
        )
        async with target:
            yield Called(target, {"target": self.text})

    @asynccontextmanager
    async def _open_ws(self, quiet: bool) -> AsyncIterator[Called]:
        from ..simulator.websocket_target import WebSocketTarget

        yield Called(
            WebSocketTarget(self.text, headers=self._headers(), timeout_s=self.timeout_s), {"target": self.text}
        )

    @asynccontextmanager
    async def _open_http(self, quiet: bool) -> AsyncIterator[Called]:
        name = self.model_name or await _first_model(self.text, self._headers())
        target = OpenAITarget(
            self.text, name, headers=self._headers(), call_ids=self.call_ids, timeout_s=self.timeout_s
        )
        async with target:
            yield Called(target, {"target": self.text, "model": name})

    @asynccontextmanager
    async def _open_audio(self, quiet: bool) -> AsyncIterator[Called]:
        from ..simulator.phone.target import AudioTarget

        target = AudioTarget(self.text.removeprefix("audio:"))
        yield Called(target, {"target": self.text})

    def _headers(self) -> dict[str, str]:
        named = {"x-tenant-id": self.tenant} if self.tenant else {}
        return named | ({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {})


def read_costs(path: Path) -> StepCosts:
    """Read step costs from a file, such as a plan writes.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", param="costs") from None
    return StepCosts.from_json(data.get("costs", data) if isinstance(data, dict) else data)


async def _first_model(base_url: str, headers: dict[str, str]) -> str:
    """Return the first model that a server lists; one that does not answer is told by the calls."""
    try:
        import aiohttp
    except ImportError:
        raise ConfigError('calling a server needs aiohttp: pip install "pipecat-voice-llm[simulator]"') from None
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(f"{base_url.rstrip('/')}/models") as response,
        ):
            return str((await response.json())["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError):
        return "default"
