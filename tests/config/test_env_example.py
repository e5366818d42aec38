""".env.example and Settings say the same: every variable, once, with its default."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any, Final

import pytest

from voice_llm.config import EngineConfig, ModelSource, Profile, SamplingParams, ServerConfig, Settings
from voice_llm.config.sources import variable_of
from voice_llm.config.variables import ENGINE_FIELDS, SAMPLING_FIELDS, SERVER_FIELDS

pytestmark = pytest.mark.unit

EXAMPLE: Final = Path(__file__).resolve().parents[2] / ".env.example"


def entries() -> list[tuple[str, str]]:
    """Commented-out assignments, as pairs of a variable and its value."""
    return re.findall(r"^# ([A-Z][A-Z_]*)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


def written(value: Any) -> str:
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def default_of(setting: str) -> str:
    for fields, defaults in (
        (ENGINE_FIELDS, EngineConfig()),
        (SAMPLING_FIELDS, SamplingParams()),
        (SERVER_FIELDS, ServerConfig()),
    ):
        if setting in fields:
            return written(getattr(defaults, fields[setting]))
    return written(Settings.model_fields[setting].default)


def test_every_variable_is_there_once() -> None:
    assert sorted(name for name, _ in entries()) == sorted(
        variable_of(Settings, name) for name in Settings.model_fields
    )


def test_values_are_the_defaults() -> None:
    assert dict(entries()) == {variable_of(Settings, name): default_of(name) for name in Settings.model_fields}


def test_nothing_is_set_and_each_variable_has_a_comment() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    assert max(map(len, lines)) <= 120
    for before, line in itertools.pairwise(lines):
        if re.match(r"^# [A-Z_]+=", line):
            assert before.startswith("# "), f"{line} has no comment"


def test_uncommented_it_changes_nothing(tmp_path: Path) -> None:
    text = re.sub(r"^# ([A-Z][A-Z_]*=)", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    plain = Profile(name="any", model=ModelSource(path="any.gguf"))
    settings = Settings()
    assert settings.apply(plain) == plain
    assert settings.server() == ServerConfig()


@pytest.mark.parametrize(
    ("fields", "target"),
    [(ENGINE_FIELDS, EngineConfig), (SAMPLING_FIELDS, SamplingParams), (SERVER_FIELDS, ServerConfig)],
)
def test_each_setting_sets_a_field_that_exists(fields: dict[str, str], target: type) -> None:
    assert set(fields) <= set(Settings.model_fields)
    assert set(fields.values()) <= {field.name for field in dataclasses.fields(target)}


def test_each_bound_of_a_server_can_be_set_by_a_variable() -> None:
    by_files = {"api_keys", "tls", "clients", "production"}
    assert {field.name for field in dataclasses.fields(ServerConfig)} == {*SERVER_FIELDS.values(), *by_files}
