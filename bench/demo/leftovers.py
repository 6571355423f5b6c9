"""Looks for anything that the demo may have left behind.

Every process that the demo starts, directly or not, inherits a mark in its environment; where the system shows
environments (``/proc``), any process with the mark is found, whoever its parent is by now.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MARK: Final = "NEARCACHE_DEMO_MARK"
_PROCESSES: Final = Path("/proc")
_PATIENCE_S: Final = 5.0


def mark() -> str:
    """Mark this process's environment, and so that of all it will start; return the mark."""
    os.environ[MARK] = secrets.token_hex(8)
    return os.environ[MARK]


def marked_processes(token: str, variable: str = MARK) -> list[int]:
    """Return the ids of other living processes that carry a mark; an empty list where environments cannot be seen."""
    wanted = f"{variable}={token}".encode()
    found = []
    for entry in _PROCESSES.glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find(token: str, pids: Iterable[int], paths: Iterable[Path]) -> list[str]:
    """Return what is left, in words, after a short grace for processes that are just ending.

    Args:
        token: The mark.
        pids: Processes known to have been started.
        paths: Files and directories known to have been made.
    """
    deadline = time.monotonic() + _PATIENCE_S
    pids, paths = list(pids), list(paths)
    while True:
        left = sorted({*marked_processes(token), *(pid for pid in pids if alive(pid))})
        found = [f"process {pid} ({_name(pid)})" for pid in left] + [f"file {path}" for path in paths if path.exists()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)  # nothing to wait on: these are not our children


def _name(pid: int) -> str:
    try:
        return (_PROCESSES / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "ending"
