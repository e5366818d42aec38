"""StopStrings: end a reply where one of its stop strings begins."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InvalidRequestError


class StopStrings:
    """Pass text on up to the first stop string, of which not even a part gets through.

    The stop string that begins first wins; of those that begin at the same place, the first to be complete.

    Attributes:
        matched: The stop string that was found; None so far.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Take the stop strings.

        Raises:
            InvalidRequestError: One of them is empty.
        """
        if not all(stops):
            raise InvalidRequestError("stop strings must not be empty", param="stop")
        self.matched: str | None = None
        self._stops = sorted(set(stops), key=len)
        self._first = re.compile("[" + re.escape("".join({stop[0] for stop in stops})) + "]") if stops else None
        self._held = ""

    def decode(self, text: str) -> str:
        """Return what certainly precedes any stop string; nothing once one has matched."""
        return self._scan(text, final=False)

    def flush(self) -> str:
        """Return what was held back as the possible beginning of a stop string."""
        return self._scan("", final=True)

    def _scan(self, text: str, *, final: bool) -> str:
        if self.matched is not None:
            return ""
        text = self._held + text
        self._held = ""
        if self._first is None:
            return text
        for start in self._first.finditer(text):
            at = start.start()
            for stop in self._stops:
                if text.startswith(stop, at):
                    self.matched = stop
                    return text[:at]
                if not final and stop.startswith(text[at:]):
                    self._held = text[at:]
                    return text[:at]
        return text
