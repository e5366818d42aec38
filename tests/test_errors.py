"""Every error of the package: its code, its builtin co-base and its text."""

from __future__ import annotations

import inspect

import pytest

from voice_llm import errors
from voice_llm.errors import VoiceLLMError

pytestmark = pytest.mark.unit

TABLE: list[tuple[VoiceLLMError, str, type[Exception], str]] = [
    (errors.VoiceLLMError("broken"), "internal", Exception, "broken"),
    (errors.InvalidRequestError("top_p is 2", param="top_p"), "invalid_request", ValueError, "top_p is 2"),
    (errors.ConfigError("sequences is 0"), "invalid_request", ValueError, "sequences is 0"),
    (errors.GrammarError("no root rule"), "invalid_request", ValueError, "no root rule"),
    (errors.TemplateError("roles must alternate"), "invalid_request", ValueError, "roles must alternate"),
    (
        errors.ContextTooLongError(prompt_tokens=900, max_tokens=200, context_tokens=1024),
        "context_too_long",
        Exception,
        "a prompt of 900 tokens and a reply of up to 200 do not fit into the call's context of 1024; "
        "shorten the prompt, lower max_tokens or raise context_per_call",
    ),
    (errors.NotFoundError("unknown profile 'x'"), "not_found", LookupError, "unknown profile 'x'"),
    (errors.CallBusyError("a turn is running"), "call_busy", Exception, "a turn is running"),
    (errors.WrongStateError("the call is closed"), "wrong_state", Exception, "the call is closed"),
    (errors.AtCapacityError("8 of 8 calls"), "at_capacity", Exception, "8 of 8 calls"),
    (errors.UnauthenticatedError("no key"), "unauthenticated", Exception, "no key"),
    (errors.ForbiddenError("another tenant"), "forbidden", Exception, "another tenant"),
    (errors.TooLargeError("2 MiB"), "too_large", Exception, "2 MiB"),
    (errors.LoadingError("the model is loading"), "loading", Exception, "the model is loading"),
    (errors.DrainingError(), "draining", Exception, "the server is shutting down"),
    (errors.ModelFileError("truncated"), "model_file", Exception, "truncated"),
    (errors.SlowConsumerError("the reader is late"), "slow_consumer", Exception, "the reader is late"),
    (errors.EngineError("step failed"), "internal", Exception, "step failed"),
    (errors.BackendError("decode returned -3"), "internal", Exception, "decode returned -3"),
    (errors.ContextFullError("no cells"), "internal", Exception, "no cells"),
    (errors.EngineDeadError("the thread has ended"), "internal", Exception, "the thread has ended"),
]


@pytest.mark.parametrize(("error", "code", "builtin", "text"), TABLE, ids=lambda value: type(value).__name__)
def test_error_has_code_builtin_base_and_text(
    error: VoiceLLMError, code: str, builtin: type[Exception], text: str
) -> None:
    assert error.code == code
    assert isinstance(error, builtin)
    assert str(error) == text


def test_table_and_exports_name_every_error() -> None:
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {type(error).__name__ for error, *_ in TABLE} == defined == set(errors.__all__)


def test_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert [name for name in errors.__all__ if name not in errors.__doc__] == []


def test_details_are_attributes() -> None:
    assert errors.InvalidRequestError("x", param="top_p").param == "top_p"
    assert errors.InvalidRequestError("x").param is None
    assert errors.AtCapacityError("full", retry_after_s=2.5).retry_after_s == 2.5
    too_long = errors.ContextTooLongError(prompt_tokens=1, max_tokens=2, context_tokens=3)
    assert (too_long.prompt_tokens, too_long.max_tokens, too_long.context_tokens) == (1, 2, 3)
