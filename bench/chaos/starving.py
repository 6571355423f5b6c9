"""How long the threads of this process have waited for a processor, as the kernel counts it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")


class Starving:
    """Remembers what has been asked for, so that each wait is told of once. Without such a kernel nobody ever waits."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self.most_ns()

    def most_ns(self) -> int:
        """Return the longest that any one thread has waited since the last time; it counts when the wait is over."""
        waited = _waited_ns()
        most = max((each - self._before.get(thread, each) for thread, each in waited.items()), default=0)
        self._before = waited
        return most


def _waited_ns() -> dict[str, int]:
    found = {}
    for task in _TASKS.glob("*"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended, or this kernel does not count
            found[task.name] = int((task / "schedstat").read_bytes().split()[1])
    return found
