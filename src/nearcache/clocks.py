"""The clocks of nearcache: monotonic nanoseconds, and nothing else.

No decision rests on a wall clock (two hosts disagree, and any of them may step). L1 reads the kernel's coarse
monotonic clock on every hit, because it costs a tenth of the precise one; it lags behind by up to one tick.
Instants that L1 compares against therefore have one tick taken off (:data:`TICK_NS`), so that lag can only make
an entry end early, never late.
"""

from __future__ import annotations

import time
from typing import Protocol

_COARSE = getattr(time, "CLOCK_MONOTONIC_COARSE", None)

#: Resolution of the clock that L1 reads, in nanoseconds.
TICK_NS: int = int(time.clock_getres(_COARSE) * 1e9) if _COARSE is not None else 1_000_000

#: "Never": the largest instant the store can hold.
NEVER_NS: int = 2**63 - 1


class Clock(Protocol):
    """A source of monotonic nanoseconds."""

    def __call__(self) -> int: ...


monotonic_ns: Clock = time.monotonic_ns

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def suspended_ns() -> int:
    """Return for how long this machine has slept since it was started: what the monotonic clock does not count.

    It never says too much. It says too little when this thread was made to wait between reading the one clock and
    the other. Always 0 where the platform has no clock to tell by.
    """
    return 0 if _BOOTTIME is None else time.clock_gettime_ns(_BOOTTIME) - monotonic_ns()
