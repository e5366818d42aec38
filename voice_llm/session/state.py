"""SessionState: where a call session stands."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ..errors import WrongStateError

__all__ = ["SessionState"]


class SessionState(Enum):
    """Where a session stands; moves only along ``_MOVES``."""

    NEW = "new"
    LISTENING = "listening"
    TALKING = "talking"
    ENDED = "ended"

    def require(self, *states: SessionState) -> None:
        """Refuse what is not legal in this state.

        Raises:
            WrongStateError: It is none of ``states``.
        """
        if self not in states:
            allowed = " or ".join(s.value for s in states)
            raise WrongStateError(f"the call is {self.value}; this needs it to be {allowed}")

    def moved(self, state: SessionState) -> SessionState:
        """Return the state to come.

        Raises:
            WrongStateError: It cannot follow this one.
        """
        if state not in _MOVES[self]:
            raise WrongStateError(f"a call cannot go from {self.value} to {state.value}")
        return state


_MOVES: Final = {
    SessionState.NEW: {SessionState.LISTENING, SessionState.ENDED},
    SessionState.LISTENING: {SessionState.TALKING, SessionState.ENDED},
    SessionState.TALKING: {SessionState.TALKING, SessionState.LISTENING, SessionState.ENDED},
    SessionState.ENDED: set[SessionState](),
}
