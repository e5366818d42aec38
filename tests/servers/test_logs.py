from __future__ import annotations

import asyncio
import datetime
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from voice_llm.errors import BackendError, ConfigError, InvalidRequestError
from voice_llm.servers.logs import set_up_logging
from voice_llm.servers.tracing import current_trace, entered

pytestmark = pytest.mark.unit

SECRET = "kredi kartı numaram 4111"
logger = logging.getLogger("voice_llm.servers.somewhere")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process's logging as it was found."""
    root, ours = logging.getLogger(), logging.getLogger("voice_llm")
    before = (root.handlers[:], root.level, ours.level)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def failed_with(error: BaseException, cause: BaseException | None = None) -> None:
    try:
        raise error from cause
    except BaseException:
        logger.exception("a request failed")


def test_record_is_one_json_object_on_one_line(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    logger.info("çağrı %d\nbitti", 7)
    (line,) = lines_of(stream)
    made = datetime.datetime.fromisoformat(line.pop("time"))
    assert line == {"level": "info", "logger": "voice_llm.servers.somewhere", "message": "çağrı 7\nbitti"}
    assert made.utcoffset() == datetime.timedelta(0)
    assert abs(datetime.datetime.now(datetime.UTC) - made) < datetime.timedelta(minutes=1)


def test_time_is_utc_with_milliseconds(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    record = logging.makeLogRecord({"name": "voice_llm.x", "levelno": 20, "msg": "x", "created": 1_000_000_000.0076})
    logging.getLogger().handle(record)
    assert lines_of(stream)[0]["time"] == "2001-09-09T01:46:40.007Z"


def test_half_of_a_surrogate_pair_is_written_as_an_escape(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    logger.info("call \ud83d")
    stream.getvalue().encode("utf-8")
    assert lines_of(stream)[0]["message"] == "call \ud83d"


def test_line_of_a_request_names_trace_tenant_and_call(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    with entered({"x-trace-id": "t-1", "x-span-id": "s-1"}, tenant="acme") as trace:
        trace.identify(call_id="call-9")
        logger.info("inside")
    logger.info("outside")
    inside, outside = lines_of(stream)
    ids = {name: inside[name] for name in ("trace_id", "span_id", "tenant", "call_id")}
    assert ids == {"trace_id": "t-1", "span_id": "s-1", "tenant": "acme", "call_id": "call-9"}
    assert set(outside) == {"time", "level", "logger", "message"}


async def test_lines_of_requests_side_by_side_do_not_mix(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    both_inside = asyncio.Barrier(2)

    async def answer(name: str) -> None:
        with entered({"x-trace-id": name}, tenant=name):
            await both_inside.wait()
            logger.info("%s", name)

    await asyncio.gather(answer("a"), answer("b"))
    assert sorted((line["message"], line["trace_id"], line["tenant"]) for line in lines_of(stream)) == [
        ("a", "a", "a"),
        ("b", "b", "b"),
    ]


async def test_tasks_of_a_request_see_what_is_said_later_of_it(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    known = asyncio.Event()

    async def work() -> None:
        await known.wait()
        logger.info("working")

    with entered({}) as trace:
        task = asyncio.create_task(work())
        trace.identify(tenant="acme", call_id="c1")
        known.set()
        await task
    assert [(line["tenant"], line["call_id"]) for line in lines_of(stream)] == [("acme", "c1")]
    assert current_trace() is None


@pytest.mark.parametrize("as_json", [True, False])
def test_exception_is_shown_with_its_place_and_cause(stream: io.StringIO, as_json: bool) -> None:
    set_up_logging("info", json=as_json, stream=stream)
    failed_with(BackendError("llama_decode returned -3"), OSError(28, "No space left on device"))
    said = lines_of(stream)[0]["exception"] if as_json else stream.getvalue()
    assert "in failed_with" in said
    assert said.index("OSError: [Errno 28] No space left on device") < said.index(
        "voice_llm.errors.BackendError: llama"
    )


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        InvalidRequestError(f"{SECRET!r} is no role"),
        ExceptionGroup(SECRET, [RuntimeError(SECRET)]),
    ],
)
def test_text_of_an_exception_that_may_quote_a_caller_is_not_written(
    stream: io.StringIO, as_json: bool, error: Exception
) -> None:
    set_up_logging("debug", json=as_json, stream=stream)
    failed_with(BackendError("a step failed"), error)
    said = stream.getvalue()
    assert type(error).__name__ in said
    assert "4111" not in said


def test_exception_that_is_its_own_cause_is_written_once(stream: io.StringIO) -> None:
    set_up_logging("info", json=True, stream=stream)
    first, second = BackendError("first"), BackendError("second")
    first.__context__ = second
    failed_with(second, first)
    assert lines_of(stream)[0]["exception"].count("BackendError: second") == 1


@pytest.mark.parametrize("name", ["aiohttp.access", "websockets.server", "grpc._cython.cygrpc", "asyncio"])
def test_libraries_are_heard_from_warnings_on(stream: io.StringIO, name: str) -> None:
    set_up_logging("debug", json=True, stream=stream)
    logging.getLogger(name).info("GET /v1/calls/%s", SECRET)
    logging.getLogger(name).warning("worn out")
    assert [line["message"] for line in lines_of(stream)] == ["worn out"]


@pytest.mark.parametrize(
    ("level", "heard"), [("INFO", ["info", "error"]), ("error", ["error"]), (20, ["info", "error"])]
)
def test_level_decides_what_is_heard_of_this_package(stream: io.StringIO, level: int | str, heard: list[str]) -> None:
    set_up_logging(level, json=True, stream=stream)
    logger.debug("quiet")
    logger.info("said")
    logger.error("loud")
    assert [line["level"] for line in lines_of(stream)] == heard


def test_unknown_level_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="'loud'; allowed is one of debug, info, warning, error, critical"):
        set_up_logging("loud", json=True)
