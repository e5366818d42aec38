"""The clients of a running server: what they show, what they write, and how they end."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
from typer.testing import CliRunner, Result

from tests.runtime.helpers import profile
from tests.servers.helpers import any_ports, edge_around
from voice_llm.backend import BatchEntry
from voice_llm.cli.app import app
from voice_llm.cli.benchmark import measure_rounds
from voice_llm.cli.client import run_client
from voice_llm.cli.endpoints import Endpoints
from voice_llm.cli.exit_codes import ExitCode, exit_code_of
from voice_llm.cli.generate import ask
from voice_llm.cli.grpc_client import Question
from voice_llm.cli.health import show_health
from voice_llm.cli.interrupt_test import interrupt_often
from voice_llm.cli.probes import Interface
from voice_llm.cli.wait_for_ready import wait
from voice_llm.config import TlsFiles
from voice_llm.errors import (
    AtCapacityError,
    ConfigError,
    DrainingError,
    ForbiddenError,
    InvalidRequestError,
    LoadingError,
    UnauthenticatedError,
    VoiceLLMError,
)
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.host import EngineHost
from voice_llm.servers.http import HttpServer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

Captured = pytest.CaptureFixture[str]

# Nothing listens on the first ports: root alone may.
NOWHERE = Endpoints(grpc="127.0.0.1:1", http="127.0.0.1:2")


class SlowBackend(FakeBackend):
    """Takes its time, so that something can happen meanwhile."""

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        time.sleep(0.002)
        return super().decode(entries)


@asynccontextmanager
async def listening(edge: Edge, **options: Any) -> AsyncIterator[Endpoints]:
    """Serve an edge; yields where."""
    servers = (GrpcServer(edge), HttpServer(edge))
    grpc_port, http_port = [await server.start() for server in servers]
    try:
        yield Endpoints(grpc=f"127.0.0.1:{grpc_port}", http=f"127.0.0.1:{http_port}", **options)
    finally:
        for server in servers:
            await server.stop()


@asynccontextmanager
async def serving(
    backend: FakeBackend | None = None, client: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Edge, Endpoints]]:
    async with (
        edge_around(backend, config=any_ports(**config)) as edge,
        listening(edge, **(client or {})) as endpoints,
    ):
        yield edge, endpoints


@asynccontextmanager
async def loading() -> AsyncIterator[tuple[Callable[[], None], Endpoints]]:
    """A server whose model is loaded only when told."""
    loaded = asyncio.Event()

    async def load() -> Engine:
        await loaded.wait()
        return await Engine.start(FakeBackend(), profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    edge = Edge.around(host, any_ports())
    try:
        async with listening(edge) as endpoints:
            yield loaded.set, endpoints
    finally:
        await edge.close()
        await host.close()


def lines(captured: Captured) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


def voice_llm(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


class TestGenerate:
    async def test_reply_is_printed_as_it_is_and_its_figures_beside_it(self, capsys: Captured) -> None:
        async with serving(FakeBackend(reply=lambda _: "Evet, [cam] ığüşöç :smile: karşılanır.")) as (_, endpoints):
            code = await ask(endpoints, Question(prompt="Kaskom camı kapsıyor mu?"), as_json=False)
        out, err = capsys.readouterr()
        assert (code, out) == (ExitCode.DONE, "Evet, [cam] ığüşöç :smile: karşılanır.\n")
        assert "first token" in err
        assert "tokens/s" in err
        assert "tokens in" in err

    async def test_json_is_one_object_a_line(self, capsys: Captured) -> None:
        async with serving() as (_, endpoints):
            await ask(endpoints, Question(prompt="Çok iyi"), as_json=True)
        *tokens, end = lines(capsys)
        assert "".join(token["text"] for token in tokens) == "You said Çok iyi. That makes 1."
        assert {token["type"] for token in tokens} == {"token"}
        assert (end["type"], end["finish_reason"]) == ("finished", "stop")
        assert end["usage"]["completion_tokens"] == len("You said Çok iyi. That makes 1.".encode()) + 1
        assert 0 < end["timings"]["first_token_ms"] <= end["timings"]["total_ms"]

    async def test_options_reach_the_prompt_and_the_reply(self, capsys: Captured) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return "x" * 50

        question = Question(prompt="Q1", system="SYSTEM-A", rag_context="FACT-B", max_tokens=5, call_id="c1")
        async with serving(FakeBackend(reply=reply)) as (edge, endpoints):
            await ask(endpoints, question, as_json=True)
            assert len(edge.soft_calls) == 1
        assert all(text in prompts[-1] for text in ("Q1", "SYSTEM-A", "FACT-B"))
        end = lines(capsys)[-1]
        assert (end["finish_reason"], end["usage"]["completion_tokens"]) == ("length", 5)

    async def test_what_the_server_refuses_is_the_same_error_here(self) -> None:
        async with serving(max_reply_tokens=64) as (_, endpoints):
            with pytest.raises(InvalidRequestError) as e:
                await ask(endpoints, Question(prompt="Hi", max_tokens=65), as_json=False)
            with pytest.raises(InvalidRequestError):
                await ask(endpoints, Question(prompt=""), as_json=False)
        assert exit_code_of(e.value) is ExitCode.USAGE

    async def test_capacity_comes_with_its_hint(self) -> None:
        async with serving(max_calls_per_tenant=1, api_keys={"k": "t"}, client={"api_key": "k", "tenant": "t"}) as (
            edge,
            endpoints,
        ):
            identity = edge.authenticator.by_key(authorization="Bearer k", tenant=None, loopback=True)
            async with edge.soft_calls.use(identity, None):
                with pytest.raises(AtCapacityError) as e:
                    await ask(endpoints, Question(prompt="Hi"), as_json=False)
        assert e.value.retry_after_s > 0

    async def test_server_that_drains_is_not_ready(self) -> None:
        async with serving() as (edge, endpoints):
            await edge.host.drain(0)
            with pytest.raises(DrainingError) as e:
                await ask(endpoints, Question(prompt="Hi"), as_json=False)
        assert exit_code_of(e.value) is ExitCode.NOT_READY

    async def test_key_is_shown_to_the_server_only(self, capsys: Captured) -> None:
        keys = {"right-key": "north"}
        async with serving(api_keys=keys, client={"api_key": "right-key", "tenant": "north"}) as (_, endpoints):
            assert await ask(endpoints, Question(prompt="Hi"), as_json=False) is ExitCode.DONE
        async with serving(api_keys=keys, client={"api_key": "wrong-key", "tenant": "north"}) as (_, endpoints):
            with pytest.raises(UnauthenticatedError) as e:
                await ask(endpoints, Question(prompt="Hi"), as_json=False)
        assert "-key" not in f"{e.value} {endpoints!r} {capsys.readouterr()}"


class TestMutualTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def server_files(self, authority: trustme.CA, tmp_path: Path) -> TlsFiles:
        certificate = authority.issue_cert("127.0.0.1")
        files = TlsFiles(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
        authority.cert_pem.write_to_path(files.ca)
        certificate.private_key_pem.write_to_path(files.key)
        certificate.cert_chain_pems[0].write_to_path(files.certificate)
        return files

    @pytest.fixture
    def client_files(self, authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
        certificate = authority.issue_cert("gateway.example", common_name="acme")
        files = {"tls_ca": tmp_path / "ca.pem", "tls_cert": tmp_path / "me.pem", "tls_key": tmp_path / "me.key"}
        certificate.private_key_pem.write_to_path(files["tls_key"])
        certificate.cert_chain_pems[0].write_to_path(files["tls_cert"])
        return files

    async def test_certificate_is_who_is_asking(
        self, server_files: TlsFiles, client_files: dict[str, Path], capsys: Captured
    ) -> None:
        client = {**client_files, "tenant": "acme"}
        async with serving(tls=server_files, client=client) as (_, endpoints):
            assert await ask(endpoints, Question(prompt="Hi"), as_json=False) is ExitCode.DONE
            assert await show_health(endpoints, Interface.BOTH, timeout_s=20, as_json=False) is ExitCode.DONE
        async with serving(tls=server_files, client={**client_files, "tenant": "other"}) as (_, endpoints):
            with pytest.raises(ForbiddenError):
                await ask(endpoints, Question(prompt="Hi"), as_json=False)

    async def test_what_is_wrong_with_tls_is_said(
        self, server_files: TlsFiles, client_files: dict[str, Path], tmp_path: Path, capsys: Captured
    ) -> None:
        stranger, garbage = tmp_path / "stranger.pem", tmp_path / "garbage.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        garbage.write_text("no certificate")
        clients: list[tuple[dict[str, Any], str]] = [
            ({}, "may want TLS with a client certificate"),
            ({"tls_ca": client_files["tls_ca"]}, "may want TLS with a client certificate"),
            ({**client_files, "tls_ca": stranger}, "not of the authorities in --tls-ca"),
            ({"tls_ca": garbage}, "PEM"),
        ]
        async with serving(tls=server_files) as (_, served):
            for files, phrase in clients:
                endpoints = Endpoints(grpc=served.grpc, **files)
                assert await show_health(endpoints, Interface.GRPC, timeout_s=20, as_json=True) is ExitCode.FAILED
                assert phrase in lines(capsys)[0]["detail"]

    async def test_tls_towards_plain_text_is_said(self, client_files: dict[str, Path], server_files: TlsFiles) -> None:
        async with serving(client=client_files) as (_, endpoints):
            with pytest.raises(VoiceLLMError, match="the server speaks plain text"):
                await ask(endpoints, Question(prompt="Hi"), as_json=False)

    async def test_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        endpoints = Endpoints(tls_ca=tmp_path / "none.pem")
        with pytest.raises(ConfigError, match=r"none\.pem cannot be read"):
            await ask(endpoints, Question(prompt="Hi"), as_json=False)


class TestHealth:
    async def test_healthy_server_is_shown_with_its_room(self, capsys: Captured) -> None:
        async with serving() as (_, endpoints):
            assert await show_health(endpoints, Interface.BOTH, timeout_s=20, as_json=False) is ExitCode.DONE
        out = capsys.readouterr().out
        assert out.count("healthy") == 2
        assert "4 of 4 calls free" in out
        assert endpoints.grpc in out
        assert max(len(line) for line in out.splitlines()) <= 80

    async def test_loading_server_is_not_ready(self, capsys: Captured) -> None:
        async with loading() as (_, endpoints):
            assert await show_health(endpoints, Interface.BOTH, timeout_s=20, as_json=True) is ExitCode.NOT_READY
            assert [(one["interface"], one["state"]) for one in lines(capsys)] == [
                ("http", "loading"),
                ("grpc", "not serving"),
            ]
            with pytest.raises(LoadingError) as e:
                await ask(endpoints, Question(prompt="Hi"), as_json=False)
            assert exit_code_of(e.value) is ExitCode.NOT_READY

    async def test_missing_server_is_a_failure_with_a_hint(self, capsys: Captured) -> None:
        assert await show_health(NOWHERE, Interface.BOTH, timeout_s=20, as_json=False) is ExitCode.FAILED
        out, err = capsys.readouterr()
        assert out.count("refused") == 2
        assert "voice-llm serve" in err

    async def test_interfaces_that_are_swapped_or_silent_are_told_apart(self, capsys: Captured) -> None:
        async with serving() as (_, served):
            swapped = Endpoints(grpc=served.http, http=served.grpc)
            assert await show_health(swapped, Interface.BOTH, timeout_s=20, as_json=True) is ExitCode.FAILED
        assert [one["detail"] for one in lines(capsys)] == [
            "what answers there is not HTTP",
            "what answers there is HTTP, not gRPC",
        ]
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            endpoints = Endpoints(grpc=address, http=address)
            assert await show_health(endpoints, Interface.BOTH, timeout_s=0.2, as_json=True) is ExitCode.FAILED
        assert [one["detail"] for one in lines(capsys)] == ["no answer in time"] * 2


class TestWaitForReady:
    async def test_waits_until_the_model_is_loaded(self, capsys: Captured) -> None:
        async with loading() as (loaded, endpoints):
            waiting = asyncio.create_task(wait(endpoints, Interface.BOTH, timeout_s=60, as_json=False))
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done
            loaded()
            assert await waiting is ExitCode.DONE
        assert capsys.readouterr().out.startswith("ready after")

    async def test_gives_up_in_time_and_says_what_is_missing(self, capsys: Captured) -> None:
        async with loading() as (_, endpoints):
            assert await wait(endpoints, Interface.HTTP, timeout_s=0.1, as_json=False) is ExitCode.NOT_READY
        assert f"http {endpoints.http}: loading" in capsys.readouterr().err
        assert await wait(NOWHERE, Interface.GRPC, timeout_s=0.1, as_json=True) is ExitCode.NOT_READY
        (report,) = lines(capsys)
        assert (report["ready"], report["interfaces"][0]["state"]) == (False, "unreachable")


class TestBenchmark:
    async def test_figures_of_each_round_are_shown_and_written(self, capsys: Captured, tmp_path: Path) -> None:
        output = tmp_path / "figures.json"
        async with serving() as (_, endpoints):
            code = await measure_rounds(
                endpoints, concurrent=3, requests=5, iterations=2, max_tokens=8, output=output, as_json=False
            )
        assert code is ExitCode.DONE
        out = capsys.readouterr().out
        assert "p50 / p95 / p99" in out
        assert out.count("5/5") == 2
        assert "median" in out
        assert max(len(line) for line in out.splitlines()) <= 80
        report = json.loads(output.read_text())
        assert [report[name] for name in ("concurrent", "requests", "iterations", "max_tokens")] == [3, 5, 2, 8]
        assert report["date"].endswith("+00:00")
        assert report["machine"]["cpus"] > 0
        first = report["rounds"][0]
        assert (first["requests"], first["errors"], first["completion_tokens"]) == (5, {}, 40)
        for name in ("first_token_ms", "total_ms"):
            assert 0 < first[name]["p50"] <= first[name]["p95"] <= first[name]["p99"]
        assert report["spread"]["tokens_per_s"]["min"] <= report["spread"]["tokens_per_s"]["max"]

    async def test_failures_are_counted_by_code_and_fail_the_command(self, capsys: Captured) -> None:
        async with serving(SlowBackend(), max_calls_per_tenant=1) as (_, endpoints):
            code = await measure_rounds(
                endpoints, concurrent=3, requests=3, iterations=1, max_tokens=40, output=None, as_json=False
            )
        assert code is ExitCode.FAILED
        assert "failed with at_capacity" in capsys.readouterr().err

    async def test_missing_server_ends_it_at_once(self) -> None:
        with pytest.raises(VoiceLLMError, match="voice-llm serve"):
            await measure_rounds(
                NOWHERE, concurrent=1, requests=1, iterations=1, max_tokens=1, output=None, as_json=True
            )

    async def test_file_that_cannot_be_written_is_refused_before_the_work(self, tmp_path: Path) -> None:
        output = tmp_path / "none" / "figures.json"
        with pytest.raises(ConfigError, match="--output"):
            await measure_rounds(
                NOWHERE, concurrent=1, requests=1, iterations=1, max_tokens=1, output=output, as_json=True
            )


class TestInterruptTest:
    async def test_reply_that_stops_passes(self, capsys: Captured) -> None:
        backend = SlowBackend(reply=lambda _: "And then the keeper lit the lamp. " * 60, context_per_call=4096)
        async with serving(backend) as (_, endpoints):
            code = await interrupt_often(endpoints, iterations=2, after_chunks=1, timeout_s=60, as_json=True)
            await asyncio.sleep(0)
        results = lines(capsys)
        assert code is ExitCode.DONE, results
        assert [(r["iteration"], r["passed"], r["finish_reason"]) for r in results] == [
            (1, True, "interrupted"),
            (2, True, "interrupted"),
        ]
        assert all(r["stopped_ms"] > 0 and r["next_first_chunk_ms"] > 0 and r["late_chunks"] == 0 for r in results)

    async def test_reply_that_is_over_before_fails(self, capsys: Captured) -> None:
        async with serving(FakeBackend(reply=lambda _: "Short.")) as (_, endpoints):
            code = await interrupt_often(endpoints, iterations=1, after_chunks=5, timeout_s=60, as_json=False)
        assert code is ExitCode.FAILED
        assert "before it could be interrupted" in capsys.readouterr().err

    async def test_call_that_is_refused_says_why(self) -> None:
        async with loading() as (_, endpoints):
            with pytest.raises(LoadingError):
                await interrupt_often(endpoints, iterations=1, after_chunks=1, timeout_s=60, as_json=True)

    async def test_missing_server_is_said(self) -> None:
        with pytest.raises(VoiceLLMError, match="voice-llm serve"):
            await interrupt_often(NOWHERE, iterations=1, after_chunks=1, timeout_s=60, as_json=True)


class TestCommandLine:
    @pytest.mark.parametrize("command", ["generate", "health", "wait-for-ready", "benchmark", "interrupt-test"])
    def test_help_names_the_server_s_options_and_no_key(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOICE_LLM_API_KEY", "a-secret")
        result = voice_llm(command, "--help")
        assert result.exit_code == 0
        for option in ("--json", "--grpc-endpoint", "--tls-ca", "--tls-cert", "--tls-key", "--tenant", "--api-key"):
            assert option in result.output
        assert "VOICE_LLM_CLIENT_CERT_PATH" in result.output
        assert "a-secret" not in result.output

    @pytest.mark.parametrize(
        ("arguments", "phrase"),
        [
            (["generate", "Hi", "--grpc-endpoint", "nowhere"], "--grpc-endpoint is 'nowhere'"),
            (["health", "--http-endpoint", "http://x:1"], "--http-endpoint"),
            (["health", "--http-endpoint", "::1:80"], "--http-endpoint"),
            (["health", "--http-endpoint", "x:70000"], "--http-endpoint"),
            (["generate", "Hi", "--tls-cert", "a.pem"], "--tls-key"),
            (["generate", "Hi", "--api-key", "ğ"], "--api-key"),
            (["generate", "Hi", "--call-id", "çağrı"], "--call-id"),
            (["generate", "Hi", "--max-tokens", "99999999999"], "cannot be asked"),
            (["generate", "\udcff"], "cannot be asked"),
            (["generate", "Hi", "--rag-context", "@none.txt"], "none.txt cannot be read"),
        ],
    )
    def test_wrong_option_is_one_line_and_exit_code_2(self, arguments: list[str], phrase: str) -> None:
        result = voice_llm(*arguments)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert phrase in line

    def test_missing_server_is_one_line_and_exit_code_1(self) -> None:
        result = voice_llm("generate", "Hi", "--grpc-endpoint", NOWHERE.grpc)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"voice-llm: no server at {NOWHERE.grpc}: the connection is refused")
        assert "voice-llm serve" in line
        result = voice_llm("generate", "Hi", "--json", "--grpc-endpoint", NOWHERE.grpc)
        error = json.loads(result.stdout)
        assert (error["type"], error["code"], error["fatal"]) == ("error", "unreachable", True)

    def test_settings_of_the_environment_reach_the_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRPC_TLS_CA_PATH", "no-such-ca.pem")
        result = voice_llm("generate", "Hi", "--tenant", "north")
        assert result.exit_code == 2
        assert "no-such-ca.pem cannot be read" in result.stderr

    @pytest.mark.parametrize("command", [("generate", "Hi"), ("benchmark",)])
    def test_a_key_without_its_tenant_is_refused_before_anything_is_asked(self, command: tuple[str, ...]) -> None:
        result = voice_llm(*command, "--api-key", "k")
        assert result.exit_code == 2
        assert "--tenant is missing" in result.stderr

    def test_help_loads_no_client_library_and_names_the_program_as_it_was_called(self) -> None:
        """The alias ``llm_cli`` is the same program."""
        done = python("""
import sys
from typer.testing import CliRunner
from voice_llm.cli.app import app, main
for arguments in (["--help"], ["generate", "--help"], ["health", "--help"]):
    assert CliRunner().invoke(app, arguments).exit_code == 0
loaded = {"grpc", "aiohttp", "websockets", "google.protobuf"} & set(sys.modules)
assert not loaded, loaded
sys.argv = ["/usr/bin/llm_cli", "health", "--help"]
main()
""")
        assert done.returncode == 0, done.stderr
        assert "Usage: llm_cli health" in done.stdout

    def test_missing_library_is_one_line_with_the_command_that_installs_it(self) -> None:
        # aiohttp last: what is once imported cannot be taken away again
        commands = [("grpc", "generate", "Hi"), ("grpc", "benchmark"), ("aiohttp", "health")]
        done = python(f"""
import sys
from voice_llm.cli import main
for library, *arguments in {commands!r}:
    sys.modules[library] = None
    sys.argv = ["voice-llm", *arguments]
    try:
        main()
    except SystemExit as e:
        assert e.code == 2, e.code
    del sys.modules[library]
""")
        hint = "pip install 'pipecat-voice-llm[remote]'"
        expected = [f"voice-llm: this command needs {library}: {hint}" for library, *_ in commands]
        assert done.stderr.splitlines() == expected

    def test_ctrl_c_is_a_failure_without_a_traceback(self) -> None:
        async def interrupted() -> ExitCode:
            raise KeyboardInterrupt

        with pytest.raises(typer.Exit) as e:
            run_client(interrupted, as_json=False)
        assert e.value.exit_code == ExitCode.FAILED


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
