"""Language codes: what is one, and which language it names."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.config.language import check_language, primary_language
from voice_llm.errors import InvalidRequestError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "primary"),
    [("tr", "tr"), ("tr-TR", "tr"), ("TR_tr", "tr"), ("fil", "fil"), ("zh-Hant-TW", "zh"), ("es-419", "es")],
)
def test_code_names_its_language(code: str, primary: str) -> None:
    assert check_language(code) == code
    assert primary_language(code) == primary


@pytest.mark.parametrize(
    "code", ["", "t", "English", "türkçe", "tr-", "-tr", "tr TR", "tr--TR", "tr-TR\n", "12", "en-" + "a" * 9, 5, None]
)
def test_what_is_no_code_is_refused_by_name(code: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_language(code)
    assert caught.value.param == "language"


def test_endless_code_is_refused_without_being_repeated() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_language("en" + "-x" * 10_000)
    assert len(str(caught.value)) < 200
