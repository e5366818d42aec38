"""Settings: the environment over the profile, and what it is refused for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voice_llm.config.profile import ModelSource, Profile
from voice_llm.config.settings import ENV_PREFIX, Settings
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def set_variables(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(ENV_PREFIX + name, value)


@pytest.fixture
def profile() -> Profile:
    return Profile.load("smollm2_135m_demo")


def test_silent_environment_leaves_the_profile_as_it_is(profile: Profile) -> None:
    assert Settings().apply(profile) == profile


def test_variables_override_the_profile(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
    set_variables(monkeypatch, THREADS="3", GPU_LAYERS="0", CONTEXT_SIZE="2048", MAX_BATCH_SIZE="16")
    engine = Settings().apply(profile).engine
    assert (engine.threads, engine.gpu_layers, engine.context_per_call, engine.sequences) == (3, 0, 2048, 16)
    assert engine.batch_tokens == profile.engine.batch_tokens


def test_auto_threads_and_model_path_override_the_profile(monkeypatch: pytest.MonkeyPatch, profile: Profile) -> None:
    set_variables(monkeypatch, THREADS="Auto", MODEL_PATH="/srv/a.gguf", LOG_LEVEL="DEBUG")
    settings = Settings()
    changed = settings.apply(profile.model_copy(update={"engine": profile.engine.replace(threads=7)}))
    assert changed.engine.threads == "auto"
    assert changed.model == ModelSource(path="/srv/a.gguf")
    assert settings.log_level == "debug"


def test_dotenv_is_read_and_the_environment_goes_before_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV_PREFIX}THREADS=2\n{ENV_PREFIX}MAX_BATCH_SIZE=4\nOTHER_SERVICE=x\n")
    set_variables(monkeypatch, THREADS="5")
    settings = Settings()
    assert (settings.threads, settings.max_batch_size) == (5, 4)


def test_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, THREADS="", MODEL_PATH="", LOG_LEVEL="")
    settings = Settings()
    assert (settings.threads, settings.model_path, settings.log_level) == (None, None, "warning")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("THREADS", "many", 'a whole number from 1 to 512 or "auto"'),
        ("GPU_LAYERS", "-2", "a whole number from -1"),
        ("CONTEXT_SIZE", "8k", "a whole number from 64"),
        ("MAX_BATCH_SIZE", "0", "a whole number from 1 to 256"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_bad_variable_is_refused_by_name_with_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    set_variables(monkeypatch, **{name: value})
    with pytest.raises(ConfigError) as caught:
        Settings()
    assert str(caught.value).startswith(f"{ENV_PREFIX}{name}: ")
    assert value in str(caught.value)
    assert allowed in str(caught.value)
    assert caught.value.param == ENV_PREFIX + name
