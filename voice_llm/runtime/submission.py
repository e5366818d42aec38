"""Submission: one request's way into the engine, cancellable at any point of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..engine import Request
from ..events import FinishReason

__all__ = ["Submission"]


class Submission:
    """Keeps submit and cancel of one request in order, whichever thread they come from.

    A request is made on the prompt thread, while its reader may give up on the event loop. Whatever the reader submits
    after it has cancelled reaches the engine after that cancel.

    Args:
        submit: Hands a request to the engine's thread.
        cancel: Cancels one there.
    """

    def __init__(self, submit: Callable[[Request], None], cancel: Callable[[Request, FinishReason], None]) -> None:
        self._submit = submit
        self._cancel = cancel
        # Reentrant, since a reader may be collected as garbage, and so cancel, while this very thread submits.
        self._lock = threading.RLock()
        self._request: Request | None = None
        self._reason: FinishReason | None = None

    @property
    def cancelled(self) -> FinishReason | None:
        """Why it was cancelled, if it was: then there is no need to make the request any more."""
        return self._reason

    @property
    def request(self) -> Request | None:
        """The request, once it is on its way."""
        return self._request

    def submit(self, request: Request) -> None:
        """Send the request on its way; one that was cancelled meanwhile ends at once, with its last event."""
        with self._lock:
            self._submit(request)
            self._request = request
            if self._reason is not None:
                self._cancel(request, self._reason)

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Cancel now or as soon as there is something to cancel; only the first reason counts."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
                if self._request is not None:
                    self._cancel(self._request, reason)
