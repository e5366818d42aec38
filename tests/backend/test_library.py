from __future__ import annotations

import subprocess
import sys

import pytest

from voice_llm.backend.llama import library
from voice_llm.errors import BackendError

pytestmark = pytest.mark.unit

# CPython's flag for functions of a PyDLL.
_KEEPS_GIL = 0x4


def keeps_gil(name: str) -> bool:
    function = getattr(library.api, name)
    return bool(function._flags_ & _KEEPS_GIL)


def test_a_missing_symbol_is_named_together_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("llama_cpp.llama_cpp.llama_memory_seq_rm")
    monkeypatch.delattr("llama_cpp.llama_cpp.llama_batch")
    with pytest.raises(BackendError, match=r"llama_memory_seq_rm, llama_batch.*pip install llama-cpp-python==0\.3\.36"):
        library._bind()


def test_a_library_without_a_declared_symbol_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_HOLDS_GIL", (*library._HOLDS_GIL, "llama_of_tomorrow"))
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_of_tomorrow", library.api.llama_n_ctx_seq, raising=False)
    with pytest.raises(BackendError, match="llama_of_tomorrow"):
        library._bind()


@pytest.mark.parametrize(
    "name",
    [
        "llama_decode",
        "llama_synchronize",
        "llama_state_seq_get_data",
        "llama_state_seq_set_data",
        "llama_model_load_from_file",
        "llama_tokenize",
    ],
)
def test_a_long_call_lets_other_threads_run(name: str) -> None:
    assert not keeps_gil(name)


@pytest.mark.parametrize(
    "name",
    [
        "llama_sampler_sample",
        "llama_sampler_apply",
        "llama_get_logits_ith",
        "llama_memory_seq_rm",
        "llama_memory_seq_pos_max",
        "llama_token_to_piece",
    ],
)
def test_a_short_call_keeps_the_lock_that_it_would_have_to_win_back(name: str) -> None:
    assert keeps_gil(name)


def test_every_symbol_knows_its_argument_types() -> None:
    for name, function in vars(library.api).items():
        assert function.argtypes is not None, name


def test_importing_the_backend_leaves_llama_cpps_log_alone() -> None:
    code = "from voice_llm.backend.llama import library; print(library._captured)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == ("False", "")


def test_errors_are_remembered_once_for_the_exception_that_follows() -> None:
    library.last_errors()
    library._on_log(4, b"load: the file is broken\n", None)
    library._on_log(3, b"only a warning\n", None)
    assert library.last_errors() == "load: the file is broken"
    assert library.last_errors() == "llama.cpp gave no reason"


def test_the_log_goes_to_python_logging_and_quietly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="voice_llm.llama_cpp"):
        for level in (1, 2, 3, 4):
            library._on_log(level, b"line\n", None)
        library._on_log(5, b".", None)
    library.last_errors()
    assert [r.levelname for r in caplog.records] == ["DEBUG", "DEBUG", "INFO", "WARNING"]
