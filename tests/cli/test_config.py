"""``voice-llm config``: what is set, where it comes from, and that keys stay unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from voice_llm.cli.app import app
from voice_llm.config import EngineConfig, Profile, SamplingParams, ServerConfig
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit

PREFIX = "LLM_LLAMA_SERVICE_"


@pytest.fixture(autouse=True)
def no_server_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENV", "GRPC_TLS_CA_PATH"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["config", *map(str, arguments)], catch_exceptions=False)


def rows(*arguments: str | Path) -> dict[str, dict[str, Any]]:
    """What ``--json`` says, by group and name."""
    result = run("--json", *arguments)
    assert result.exit_code == 0
    parsed = [json.loads(line) for line in result.stdout.splitlines()]
    return {f"{row['group']}.{row['name']}": row for row in parsed}


def origins(found: dict[str, dict[str, Any]], *names: str) -> list[str]:
    return [found[name]["origin"] for name in names]


def test_every_field_has_a_row() -> None:
    names = set(rows())
    for group, cls in (("engine", EngineConfig), ("sampling", SamplingParams), ("server", ServerConfig)):
        fields = set(cls.__dataclass_fields__) - {"tls"}
        assert {f"{group}.{name}" for name in fields} <= names
    assert {f"model.{name}" for name in Profile.model_fields} - names == {
        "model.schema_location",
        "model.sampling",
        "model.engine",
    }
    assert {"server.tls.ca", "server.tls.certificate", "server.tls.key", "server.log_level"} <= names


def test_each_value_comes_from_the_last_that_speaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{PREFIX}THREADS=2\n{PREFIX}CONTEXT_SIZE=1024\n{PREFIX}HTTP_PORT=81\n")
    monkeypatch.setenv(f"{PREFIX}THREADS", "3")
    monkeypatch.setenv(f"{PREFIX}GPU_LAYERS", "5")
    monkeypatch.setenv(f"{PREFIX}PORT_GRPC", "82")
    found = rows("--gpu-layers", "0", "--ws-port", "83")
    names = ("engine.gpu_layers", "engine.threads", "engine.context_per_call", "engine.sequences", "engine.swa_full")
    assert [found[name]["value"] for name in names] == [0, 3, 1024, 8, False]
    assert origins(found, *names) == ["flag", "environment", ".env", "profile", "default"]
    ports = ("server.http_port", "server.grpc_port", "server.ws_port", "server.metrics_port")
    assert [found[name]["value"] for name in ports] == [81, 82, 83, 16072]
    assert origins(found, *ports) == [".env", "environment", "flag", "default"]


def test_variable_that_sets_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT_GRPC", "82")
    found = rows()
    assert found["server.grpc_port"]["variable"] == f"{PREFIX}PORT_GRPC"
    assert found["server.tls.ca"]["variable"] == "GRPC_TLS_CA_PATH"
    assert found["engine.sequences"]["variable"] == f"{PREFIX}MAX_BATCH_SIZE"
    assert found["engine.swa_full"]["variable"] is None


def test_profile_is_credited_only_with_what_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"name": "mine", "model": {"path": "a.gguf"}, "engine": {"sequences": 8}}')
    found = rows("--profile", file)
    names = ("model.name", "model.model", "engine.sequences", "engine.threads", "model.language", "sampling.top_k")
    assert origins(found, *names) == ["profile", "profile", "profile", "default", "default", "default"]
    assert found["model.model"]["value"] == str(tmp_path / "a.gguf")


def test_model_may_come_from_a_flag_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}MODEL_PATH", "/srv/a.gguf")
    assert rows()["model.model"] == {
        "group": "model",
        "name": "model",
        "value": "/srv/a.gguf",
        "origin": "environment",
        "variable": f"{PREFIX}MODEL_PATH",
    }
    found = rows("--model", "/srv/b.gguf")["model.model"]
    assert (found["value"], found["origin"]) == ("/srv/b.gguf", "flag")


def test_admission_has_a_flag() -> None:
    found = rows("--admission", "limit")["engine.admission"]
    assert (found["value"], found["origin"]) == ("limit", "flag")
    assert rows()["engine.admission"]["value"] == "forecast"


def test_batch_that_a_variable_raised_is_credited_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PHYSICAL_BATCH_SIZE", "1024")
    found = rows()["engine.batch_tokens"]
    assert (found["value"], found["origin"]) == (1024, "environment")
    monkeypatch.setenv(f"{PREFIX}PHYSICAL_BATCH_SIZE", "128")
    assert rows()["engine.batch_tokens"]["origin"] == "default"


@pytest.mark.parametrize("columns", ["80", "120"])
@pytest.mark.parametrize("from_file", [True, False])
def test_keys_are_masked_and_their_tenants_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: str, from_file: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    if from_file:
        (tmp_path / "keys").write_text("acme:s3cret-1\nglobex:s3cret-2\n")
        monkeypatch.setenv(f"{PREFIX}API_KEYS_FILE", "keys")
    else:
        monkeypatch.setenv(f"{PREFIX}API_KEYS", "acme:s3cret-1,globex:s3cret-2")
    table, lines = run(), run("--json")
    assert table.exit_code == lines.exit_code == 0
    assert "acme:****, globex:****" in table.stdout
    assert rows()["server.api_keys"]["value"] == ["acme:****", "globex:****"]
    assert rows()["server.api_keys"]["origin"] == "environment"
    assert "s3cret" not in table.output + lines.output


@pytest.mark.parametrize("columns", [80, 120])
def test_table_fits_the_terminal_and_loses_no_name(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv(f"{PREFIX}MODEL_PATH", "/srv/" + "models/" * 30 + "a.gguf")
    result = run()
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= columns
    for name in rows():
        assert f"  {name.partition('.')[2]} " in result.stdout
    assert "/srv/" + "models/" * 30 + "a.gguf" in "".join(
        line[29 : columns - 13].strip() for line in result.stdout.splitlines()
    )


def test_what_serve_would_refuse_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENV", "production")
    with pytest.raises(ConfigError, match="GRPC_TLS_CA_PATH"):
        run()
    monkeypatch.delenv("ENV")
    with pytest.raises(ConfigError, match="http_port is 70000"):
        run("--http-port", "70000")
