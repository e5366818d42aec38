"""What peers may read of an error."""

from __future__ import annotations

import pytest

from voice_llm.config import SamplingParams
from voice_llm.errors import InvalidRequestError, NotFoundError
from voice_llm.servers.status import reply_to

pytestmark = pytest.mark.unit


def test_message_and_field_of_a_common_error_are_told_as_they_are() -> None:
    reply = reply_to(InvalidRequestError("x" * 500, param="p" * 128))

    assert (reply.message, reply.param) == ("x" * 500, "p" * 128)


def test_what_quotes_the_peer_is_cut_whatever_the_peer_sent() -> None:
    reply = reply_to(InvalidRequestError(f"unknown field {'é' * 1_000_000!r}", param="é" * 1_000_000))

    assert reply.message.startswith("unknown field 'ééé")
    assert reply.message.endswith("...")
    assert len(reply.message) == 500
    assert reply.param is not None
    assert reply.param.endswith("...")
    assert len(reply.param) == 128
    assert len(reply_to(NotFoundError("x" * 501)).message) == 500


def test_a_refused_value_is_not_sent_back_whole() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(temperature="hot" * 1_000_000)  # type: ignore[arg-type]

    assert len(reply_to(caught.value).message) == 500
