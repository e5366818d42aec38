"""SamplingParams: values that cannot be honoured are refused by name, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.config import SamplingParams
from voice_llm.errors import InvalidRequestError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 10**400),
        ("temperature", True),
        ("temperature", "hot"),
        ("top_k", 10**400),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("seed", True),
        ("seed", 2**63),
        ("seed", 1.0),
        ("stop", [""]),
        ("stop", 3),
        ("stop", ["x"] * 17),
        ("stop", ["x" * 257]),
        ("stop", "x" * 257),
        ("grammar", 3),
        ("json_schema", "{}"),
    ],
)
def test_value_that_cannot_be_honoured_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "value", [{"seed": -1}, {"temperature": 0}, {"stop": "END"}, {"stop": ["x" * 256] * 16}, {"top_p": 1}]
)
def test_value_at_the_edge_is_taken(value: dict[str, Any]) -> None:
    assert SamplingParams(**value)
