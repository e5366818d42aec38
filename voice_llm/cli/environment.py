"""What only a process of our own may set: how the native library's threads wait."""

from __future__ import annotations

import os

__all__ = ["let_threads_spin"]


def let_threads_spin() -> None:
    """Let OpenMP's threads spin for a while before they sleep; call it before the native library is loaded.

    Threads that sleep between two steps make a single-token step nearly twice as long, and threads that never sleep
    take a core from everybody else while the phone is silent. So they spin for some 100 ms and sleep then. A library
    must not decide this for its process (in a bot, spinning threads fight speech recognition and synthesis), a
    command may.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "active")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000000")
