"""GrpcClient: the gRPC interfaces as the clients use them; the only module of the command line that imports grpc."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from .._proto import call_pb2, call_pb2_grpc, llama_pb2, llama_pb2_grpc
from ..errors import ConfigError, EngineError, InvalidRequestError, VoiceLLMError
from ..remote.errors import error_of_status, has_own_code
from .client import UnreachableError
from .endpoints import Endpoints

__all__ = ["Conversation", "GrpcClient", "Question", "ReplyEnd", "why_unreachable"]

_CHECK: Final = "/grpc.health.v1.Health/Check"
# grpc.health.v1.HealthCheckResponse has one field, and a client needs no other library to read it.
_HEALTH: Final = {b"\x08\x01": "healthy", b"\x08\x02": "not serving"}

_KEEPALIVE: Final = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))

_UNREACHABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

# Part of what gRPC says of a connection that failed -> what that means.
_FAILURES: Final = (
    ("connection refused", "the connection is refused"),
    ("domain name not found", "the name cannot be resolved"),
    ("errors resolving", "the name cannot be resolved"),
    ("dns resolution", "the name cannot be resolved"),
    ("certificate_verify_failed", "TLS fails: its certificate is not of the authorities in --tls-ca"),
    ("hostname verification", "TLS fails: its certificate is for another host name"),
    ("wrong_version_number", "TLS fails: the server speaks plain text"),
    ("security handshaker", "TLS fails: a TLS file holds no certificate or key in PEM form"),
    ("handshake failed", "TLS fails"),
    ("http1.x", "what answers there is HTTP, not gRPC"),
    ("socket closed", "it closes the connection; it may want TLS with a client certificate"),
    ("connection reset", "it closes the connection; it may want TLS with a client certificate"),
    ("timed out", "no answer in time"),
    ("deadline exceeded", "no answer in time"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What ``GenerateStream`` is asked; None leaves the server's choice."""

    prompt: str
    system: str = ""
    rag_context: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """The end of a reply."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class GrpcClient:
    """A connection to a server's gRPC interface; use it as an asynchronous context manager.

    Args:
        endpoints: Where it is and how to speak to it.

    Raises:
        ConfigError: A TLS file cannot be read.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoint = endpoints.grpc
        self._metadata = tuple(endpoints.headers().items())
        if endpoints.uses_tls:
            self._channel = grpc.aio.secure_channel(self._endpoint, credentials_of(endpoints), options=_KEEPALIVE)
        else:
            self._channel = grpc.aio.insecure_channel(self._endpoint, options=_KEEPALIVE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def reply(self, question: Question) -> AsyncIterator[str | ReplyEnd]:
        """Ask, and yield the reply's text as it comes and its end.

        Raises:
            UnreachableError: No server answers.
            VoiceLLMError: It refuses, or fails.
        """
        metadata = self._metadata
        if question.call_id is not None:
            if not (question.call_id and question.call_id.isascii() and question.call_id.isprintable()):
                raise InvalidRequestError("--call-id must be printable ASCII characters", param="call_id")
            metadata += (("x-call-id", question.call_id),)
        stub = llama_pb2_grpc.LlamaServiceStub(self._channel)  # type: ignore[no-untyped-call]
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with self._errors():
            async for response in stub.GenerateStream(_request(question), metadata=metadata):
                if response.HasField("finish_details"):
                    end = response.finish_details
                    yield ReplyEnd(end.finish_reason, end.prompt_tokens, end.completion_tokens)
                elif text := decoder.decode(response.token):
                    yield text

    def converse(self) -> Conversation:
        """Open a phone call; nothing is sent before its first event."""
        stub = call_pb2_grpc.CallServiceStub(self._channel)  # type: ignore[no-untyped-call]
        return Conversation(stub.Converse(metadata=self._metadata), self)

    async def health(self, timeout_s: float) -> str:
        """Return ``"healthy"``, or what the health service says instead.

        Raises:
            UnreachableError: No server answers within the time.
        """
        check: Any = self._channel.unary_unary(_CHECK)
        with self._errors():
            answer = await check(b"", timeout=timeout_s, metadata=self._metadata)
        return _HEALTH.get(answer, "unknown")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as e:
            raise self.error_of(e) from None

    def error_of(self, error: grpc.aio.AioRpcError) -> VoiceLLMError:
        """Return a failed request's error as one of our own."""
        if not has_own_code(error) and error.code() in _UNREACHABLE:
            return UnreachableError(self._endpoint, why_unreachable(error.details() or "it says no more"))
        known = error_of_status(error)
        return EngineError(f"the server failed: {known}") if isinstance(known, EngineError) else known


class Conversation:
    """One phone call over ``Converse``."""

    def __init__(self, stream: Any, client: GrpcClient) -> None:
        self._stream = stream
        self._client = client

    async def send(self, **event: Any) -> None:
        """Send one client event, such as ``turn=Turn(...)``.

        Raises:
            VoiceLLMError: The call has ended, or no server answers.
        """
        try:
            await self._stream.write(call_pb2.ClientEvent(**event))
        except grpc.aio.AioRpcError as e:
            raise self._client.error_of(e) from None
        except grpc.aio.UsageError:  # the stream has ended already: reading it says why
            await self.next()
            raise EngineError("the server ended the call") from None

    async def next(self) -> tuple[str, Any]:
        """Return the next server event's name and message.

        Raises:
            VoiceLLMError: The call has ended, or no server answers.
        """
        try:
            event = await self._stream.read()
        except grpc.aio.AioRpcError as e:
            raise self._client.error_of(e) from None
        if event is grpc.aio.EOF:
            raise EngineError("the server ended the call")
        name = event.WhichOneof("event")
        return name, getattr(event, name)

    def cancel(self) -> None:
        """Leave at once; idempotent."""
        self._stream.cancel()


def why_unreachable(details: str) -> str:
    """Return what gRPC's words for a failed connection mean."""
    said = details.lower()
    meant = next((meaning for part, meaning in _FAILURES if part in said), None)
    return meant or f"it is not reached ({details.splitlines()[0][:160]})"


def _request(question: Question) -> llama_pb2.GenerateStreamRequest:
    try:
        params = llama_pb2.GenerationParams(
            max_new_tokens=question.max_tokens, temperature=question.temperature, seed=question.seed
        )
        return llama_pb2.GenerateStreamRequest(
            system_prompt=question.system, user_prompt=question.prompt, rag_context=question.rag_context, params=params
        )
    except ValueError as e:  # a number that no field can hold, or bytes of the command line that are no text
        raise InvalidRequestError(f"this cannot be asked: {e}") from e


def credentials_of(endpoints: Endpoints) -> grpc.ChannelCredentials:
    """Return the credentials of an encrypted connection.

    Raises:
        ConfigError: A TLS file cannot be read.
    """
    return grpc.ssl_channel_credentials(_read(endpoints.tls_ca), _read(endpoints.tls_key), _read(endpoints.tls_cert))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e
