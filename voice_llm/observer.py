"""Observer: is told what happens in an engine and at its edges; metrics are made of it."""

from __future__ import annotations

from .events import FinishReason, Timings, Usage

__all__ = ["Observer"]


class Observer:
    """Is told what happens; every method does nothing by default.

    Methods are called on the engine's thread or on the event loop, between steps: they must be quick, thread-safe, and
    never raise. No text of a call is ever passed.
    """

    def step(self, kind: str, rows: int, took_s: float) -> None:
        """A step of the engine is over.

        Args:
            kind: ``"decode"`` or ``"prefill"``.
            rows: Tokens in it.
            took_s: Its duration, planning and sampling included.
        """

    def token(self, gap_s: float) -> None:
        """A token was drawn, ``gap_s`` after the one before it in the same reply."""

    def turn_ended(self, reason: FinishReason, usage: Usage, timings: Timings) -> None:
        """A turn is over, and not failed."""

    def turn_failed(self, code: str) -> None:
        """A turn has failed, in the engine or on its way there, with the code of its error."""

    def prefilled(self, usage: Usage, took_s: float) -> None:
        """An early prefill is complete."""

    def cancelled(self, latency_s: float) -> None:
        """A running request was cancelled, ``latency_s`` after it was asked for."""

    def barge_in(self) -> None:
        """A caller spoke over a reply."""

    def speculation_discarded(self) -> None:
        """A speculative turn was withdrawn or superseded."""

    def call_refused(self, code: str) -> None:
        """A call was not admitted, with the code of the error."""

    def event_refused(self, code: str) -> None:
        """An event of a call was refused and the call went on, with the code of the error."""

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        """A request at an edge is over.

        Args:
            interface: ``"http"``, ``"grpc"`` or ``"ws"``.
            code: ``"ok"``, or the code of its error.
            took_s: Its duration.
        """
