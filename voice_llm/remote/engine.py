"""RemoteEngine: an engine in another process, with the face of ``Engine``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Final, Self

import grpc

from .._proto import engine_pb2 as pb
from .._proto import engine_pb2_grpc as pb_grpc
from ..config import Profile, TlsFiles
from ..config.language import check_language
from ..errors import ConfigError, EngineDeadError, InvalidRequestError, LoadingError
from ..runtime import Health
from .call import RemoteCall
from .errors import error_of_rpc
from .link import CallLink

__all__ = ["RemoteEngine", "RemoteOpening"]

_DEFAULT_TENANT: Final = "default"
_RETRY_S: Final = 0.2
_CHANNEL_OPTIONS: Final = (
    # A server that is started again is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the time that one attempt may take
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
)


class RemoteEngine:
    """The engine of a ``voice-llm serve`` elsewhere; used as ``Engine`` is. Made by ``connect``.

    A call lives as long as its connection. When the server goes away, its calls fail with ``EngineDeadError`` for good;
    once it is back, new ones can be opened, without anything else to be done.

    Example:
        >>> async with await RemoteEngine.connect("127.0.0.1:16071") as engine, engine.open_call() as call:
        ...     async for event in call.generate([{"role": "user", "content": "Hello!"}]):
        ...         print(event)

    It belongs to the event loop it was made on.

    Attributes:
        endpoint: The server, ``host:port``.
        max_command_bytes: Largest request that the server takes.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        description: pb.DescribeResponse,
        *,
        endpoint: str,
        tenant: str,
        api_key: str | None,
        timeout_s: float,
    ) -> None:
        self._channel = channel
        self._stub = _stub(channel)
        self._profile = _profile_of(description, endpoint)
        self._tenant = tenant
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._max_calls = description.max_calls
        self._readers: set[asyncio.Task[None]] = set()
        self._closed = False
        self.endpoint = endpoint
        self.max_command_bytes = description.max_command_bytes

    @classmethod
    async def connect(
        cls,
        endpoint: str,
        *,
        tenant: str = _DEFAULT_TENANT,
        tls: TlsFiles | None = None,
        api_key: str | None = None,
        timeout_s: float = 10.0,
    ) -> Self:
        """Connect to a server, and wait for it where it is starting or loading its model.

        Args:
            endpoint: Its gRPC port, ``host:port``.
            tenant: Whose calls these are; ``"default"`` leaves it to the server, which goes by certificate or key.
            tls: The authorities that sign the server's certificate, and the client's own certificate and key; plain
                text by default.
            api_key: A key, for a server that asks for one instead of a certificate.
            timeout_s: How long to wait for the server, here and when a call is opened, in seconds.

        Raises:
            EngineDeadError: No server answers there.
            LoadingError: Its model is not loaded in time; likewise DrainingError where it ends.
            UnauthenticatedError: It wants a key or a certificate.
            ForbiddenError: The tenant is another's.
            ConfigError: A TLS file cannot be read, or the server is no such server.
        """
        channel = await _channel(endpoint, tls)
        try:
            description = await _await_server(channel, endpoint, _metadata(tenant, api_key), timeout_s)
            return cls(channel, description, endpoint=endpoint, tenant=tenant, api_key=api_key, timeout_s=timeout_s)
        except BaseException:
            await channel.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<RemoteEngine {self._profile.name} [{self.endpoint} | {'closed' if self._closed else 'open'}]>"

    @property
    def profile(self) -> Profile:
        """The profile that the server had at ``connect``; its model's path is the bare file name."""
        return self._profile

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds of this process; arrival times are given on this clock."""
        return time.monotonic

    def open_call(
        self,
        *,
        call_id: str | None = None,
        tenant: str = _DEFAULT_TENANT,
        language: str | None = None,
        one_shot: bool = False,
    ) -> RemoteOpening:
        """Open a call; as ``Engine.open_call``.

        Args:
            call_id: The transport's name for it, unique in its tenant; a fresh one by default.
            tenant: Whose call it is; ``"default"`` is the tenant that was named to ``connect``.
            language: Code of the language that its replies are in; the profile's by default.
            one_shot: Whether it is no call but an inference beside them.

        Raises (when awaited):
            AtCapacityError: As many calls, or one-shots, are open as may be.
            WrongStateError: The tenant has an open call of that id.
            EngineDeadError: The server has gone away, or its engine has died.
            LoadingError: It is loading its model.
            DrainingError: It is about to end.
            ForbiddenError: The tenant is another's.

        Raises:
            InvalidRequestError: The tenant is not named, or the language is no code of BCP 47.
        """
        if not isinstance(tenant, str) or not tenant:
            raise InvalidRequestError(f"tenant must be a name, not {tenant!r}", param="tenant")
        spoken = "" if language is None else check_language(language)
        return RemoteOpening(self, pb.Open(call_id=call_id or "", one_shot=one_shot, language=spoken), tenant)

    async def health(self) -> Health:
        """Ask the server whether it can serve; one that does not answer cannot."""
        try:
            found = await _describe(self._stub, self.endpoint, _metadata(self._tenant, self._api_key), self._timeout_s)
        except Exception as e:
            return Health(False, str(e), 0, self._max_calls)
        detail = "" if found.healthy else "the server's engine has ended or is stalled"
        return Health(found.healthy, detail, found.open_calls, found.max_calls)

    async def close(self) -> None:
        """End all calls and the connection; the server goes on. Idempotent."""
        self._closed = True
        await self._channel.close()
        if self._readers:
            await asyncio.wait(self._readers)

    async def _open(self, opening: pb.Open, tenant: str) -> RemoteCall:
        if self._closed:
            raise EngineDeadError("the connection to the engine is closed")
        metadata = _metadata(self._tenant if tenant == _DEFAULT_TENANT else tenant, self._api_key)
        link = CallLink(self._stub, metadata, self.endpoint)
        opened, reader = await link.open(opening, self._timeout_s)
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        language = opening.language or self._profile.language
        return RemoteCall(self, link, call_id=opened.call_id, tenant=opened.tenant, language=language)


class RemoteOpening:
    """A call about to be opened: awaitable, and an asynchronous context manager that closes it."""

    def __init__(self, engine: RemoteEngine, opening: pb.Open, tenant: str) -> None:
        self._engine = engine
        self._opening = opening
        self._tenant = tenant
        self._call: RemoteCall | None = None

    def __await__(self) -> Generator[Any, None, RemoteCall]:
        return self._engine._open(self._opening, self._tenant).__await__()

    async def __aenter__(self) -> RemoteCall:
        self._call = await self
        return self._call

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None:
            await self._call.close()


async def _channel(endpoint: str, tls: TlsFiles | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
    ca, certificate, key = await asyncio.to_thread(lambda: [_read(p) for p in (tls.ca, tls.certificate, tls.key)])
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.aio.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)


def _read(path: Any) -> bytes:
    try:
        content: bytes = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"TLS file {path} cannot be read: {e.strerror}", param="tls") from None
    return content


async def _await_server(
    channel: grpc.aio.Channel, endpoint: str, metadata: grpc.aio.Metadata, timeout_s: float
) -> pb.DescribeResponse:
    ends_s = time.monotonic() + timeout_s
    while True:
        left_s = ends_s - time.monotonic()
        try:
            return await _describe(_stub(channel), endpoint, metadata, max(left_s, _RETRY_S))
        except LoadingError:
            if left_s <= _RETRY_S:
                raise
        except EngineDeadError as e:
            if left_s <= _RETRY_S:
                raise EngineDeadError(f"no voice_llm server answers; is it running there? {e}") from None
        await asyncio.sleep(_RETRY_S)


async def _describe(stub: Any, endpoint: str, metadata: grpc.aio.Metadata, timeout_s: float) -> pb.DescribeResponse:
    try:
        found: pb.DescribeResponse = await stub.Describe(pb.DescribeRequest(), metadata=metadata, timeout=timeout_s)
    except grpc.aio.AioRpcError as e:
        raise error_of_rpc(e, endpoint) from None
    return found


def _profile_of(description: pb.DescribeResponse, endpoint: str) -> Profile:
    try:
        return Profile.model_validate_json(description.profile)
    except ValueError:
        raise ConfigError(
            f"the profile of {endpoint} cannot be read: is it another version of voice_llm?", param="endpoint"
        ) from None


def _metadata(tenant: str, api_key: str | None) -> grpc.aio.Metadata:
    pairs = [] if tenant == _DEFAULT_TENANT else [("x-tenant-id", tenant)]
    pairs += [] if api_key is None else [("authorization", f"Bearer {api_key}")]
    for name, value in pairs:
        if not (value.isascii() and value.isprintable()):
            raise InvalidRequestError(f"{name} must be printable ASCII", param=name)
    return grpc.aio.Metadata(*pairs)


def _stub(channel: grpc.aio.Channel) -> Any:
    return pb_grpc.EngineServiceStub(channel)  # type: ignore[no-untyped-call]
