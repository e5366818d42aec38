"""What the processes of a server have used of the machine, from ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_s"]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants, ended ones included; 0 where there is none."""
    try:
        # The name in brackets may hold spaces; what is counted comes after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return 0.0
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_s, children))
