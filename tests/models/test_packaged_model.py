"""The packaged demo model is what the demo profile says it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from voice_llm.config.profile import Profile
from voice_llm.models import check_gguf, resolve_model

pytestmark = pytest.mark.model


def test_demo_profile_resolves_to_the_packaged_model(smollm2_path: Path) -> None:
    assert resolve_model(Profile.load("smollm2_135m_demo").model) == smollm2_path


def test_demo_context_is_what_the_model_was_trained_for(smollm2_path: Path) -> None:
    header = check_gguf(smollm2_path)
    assert header.architecture == "llama"
    assert header.context_length == Profile.load("smollm2_135m_demo").engine.context_per_call
    assert header.chat_template is not None
    assert "<|im_start|>" in header.chat_template
