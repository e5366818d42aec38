"""What can be imported is what is promised."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
import subprocess
import sys

import pytest

import voice_llm

pytestmark = pytest.mark.unit

ON_DEMAND = {"RemoteEngine"}
PACKAGES = ["voice_llm", *(m.name for m in pkgutil.walk_packages(voice_llm.__path__, "voice_llm.") if m.ispkg)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_promised_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_package_promises_all_that_it_shows_and_in_order() -> None:
    """A public name at the top is either a sub-module or promised."""
    shown = {
        name
        for name, value in vars(voice_llm).items()
        if not name.startswith("_") and not isinstance(value, type(voice_llm))
    }
    assert voice_llm.__all__ == sorted(shown | ON_DEMAND)


def test_what_needs_an_extra_is_imported_when_it_is_first_asked_for() -> None:
    """The package itself works without gRPC, also where something asks for a name that is not there."""
    script = """
import sys, voice_llm, voice_llm.remote
assert not hasattr(voice_llm, "RemoteEngin")
assert "grpc" not in sys.modules
assert voice_llm.RemoteEngine.__name__ == "RemoteEngine"
assert "grpc" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_the_words_of_an_engine_are_at_the_top() -> None:
    """What the first example of the documentation needs."""
    assert {"Call", "Engine", "Profile", "SamplingParams", "VoiceLLMError"} <= set(voice_llm.__all__)


def test_the_package_is_typed() -> None:
    assert importlib.resources.files("voice_llm").joinpath("py.typed").is_file()
