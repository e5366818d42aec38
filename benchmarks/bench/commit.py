"""Which code is being measured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["commit"]

_ROOT: Final = Path(__file__).resolve().parents[2]
# Results and what is written from them change while a run goes on; they are not what is measured.
_CODE: Final = (".", ":(exclude)benchmarks/results", ":(exclude)docs", ":(exclude)*.md")


def commit(root: Path = _ROOT) -> str | None:
    """Return the short hash of a repository's commit, with ``-dirty`` where its code has changes.

    None where the folder is not the top of a repository, or there is no git.
    """
    try:
        top, short = _git(root, "rev-parse", "--show-toplevel", "--short", "HEAD").splitlines()
        if Path(top) != root.resolve():
            return None
        changed = _git(root, "status", "--porcelain", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{short}-dirty" if changed else short


def _git(root: Path, *arguments: str) -> str:
    # Without taking locks, so that nobody who works in the repository meanwhile is disturbed.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
