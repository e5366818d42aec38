"""A bot on an engine elsewhere behaves as on one in its own process: the same tests, over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from tests.pipecat import test_barge_in, test_prefill, test_service, test_tools
from tests.runtime.helpers import profile
from tests.servers.helpers import edge_around
from voice_llm.pipecat import VoiceLLMService
from voice_llm.remote import RemoteEngine
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .helpers import serving

pytestmark = pytest.mark.unit

Case = Callable[[], Awaitable[None]]

CASES: list[tuple[ModuleType, Case]] = [
    (test_barge_in, test_barge_in.test_between_sentences_what_was_spoken_stays_and_is_not_computed_again),
    (test_barge_in, test_barge_in.test_while_the_reply_is_generated_it_stops_and_the_next_turn_is_answered),
    (test_barge_in, test_barge_in.test_twice_in_a_row_only_what_was_spoken_each_time_stays),
    (test_prefill, test_prefill.test_partial_transcripts_leave_the_turn_nothing_to_compute_but_what_has_to_be_fresh),
    (test_prefill, test_prefill.test_a_prefill_in_progress_gives_way_to_a_live_turn),
    (test_service, test_service.test_metrics_say_time_to_first_token_processing_time_and_what_was_cached),
    (test_service, test_service.test_a_full_engine_is_an_error_and_the_call_is_answered_once_there_is_room),
    (test_service, test_service.test_a_one_shot_inference_runs_while_the_call_is_answered),
    (test_service, test_service.test_the_language_of_the_settings_says_where_sentences_end_and_changes_live),
    (test_tools, test_tools.test_a_tool_is_run_and_its_result_is_spoken),
    (test_tools, test_tools.test_no_tool_runs_from_a_speculative_turn),
]


@pytest.mark.parametrize(("module", "case"), CASES, ids=lambda value: getattr(value, "__name__", ""))
async def test_on_an_engine_elsewhere(module: ModuleType, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere: dict[int, RemoteEngine] = {}

    class ServiceElsewhere(VoiceLLMService):
        def __init__(self, *, engine: Engine, **options: Any) -> None:
            super().__init__(engine=elsewhere[id(engine)], **options)

    @asynccontextmanager
    async def running(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[Engine]:
        max_calls = options.pop("max_calls", None)
        async with (
            edge_around(backend, served=profile(**options), max_calls=max_calls) as edge,
            serving(edge) as endpoint,
            await RemoteEngine.connect(endpoint) as engine,
        ):
            here = edge.host.require()
            elsewhere[id(here)] = engine
            yield here

    monkeypatch.setattr(module, "running", running)
    monkeypatch.setattr(module, "VoiceLLMService", ServiceElsewhere)
    await case()
    assert elsewhere
