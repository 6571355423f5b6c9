"""What a test may leave behind: nothing. Snapshots of threads, file descriptors and child processes."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import NamedTuple

from support import processes


class Holdings(NamedTuple):
    """What this process holds at one instant; each item is a readable name."""

    threads: frozenset[str]
    files: frozenset[str]
    children: frozenset[str]

    def beyond(self, earlier: Holdings) -> list[str]:
        """Return what is here and was not there, one line each."""
        names = ("thread", "file descriptor", "child process")
        return [
            f"{name} {item}"
            for name, now, before in zip(names, self, earlier, strict=True)
            for item in sorted(now - before)
        ]


def holdings() -> Holdings:
    """Take a snapshot of this process."""
    gc.collect()
    return Holdings(
        frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
        frozenset(_open_files()),
        frozenset(f"{pid} {command}" for pid, command in processes.children_of(os.getpid()).items()),
    )


def leaked_since(earlier: Holdings, *, grace: float = 2.0) -> list[str]:
    """Return what this process holds beyond ``earlier``; it gets ``grace`` seconds to let go."""
    deadline = time.monotonic() + grace
    while True:
        left = holdings().beyond(earlier)
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.01)


def _open_files() -> list[str]:
    where = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = []
    for name in os.listdir(where):
        try:
            target = os.readlink(f"{where}/{name}") if where.startswith("/proc") else _describe(int(name))
        except OSError:
            continue  # the descriptor that listdir itself had open
        found.append(f"{name} -> {target}")
    return found


def _describe(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_mode:o}:{status.st_dev}:{status.st_ino}"
