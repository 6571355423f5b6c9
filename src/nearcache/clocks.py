"""The clocks of nearcache: monotonic nanoseconds, and nothing else.

No decision rests on a wall clock (two hosts disagree, and any of them may step). L1 reads the kernel's coarse
monotonic clock on every hit, because it costs a tenth of the precise one; it lags behind by up to one tick.
Instants that L1 compares against therefore have one tick taken off (:data:`TICK_NS`), so that lag can only make
an entry end early, never late; but where a host runs a virtual machine late, its ticks are late by as much.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

#: CLOCK_MONOTONIC_COARSE, which the time module has no name for; the numbers of Linux' clocks do not change.
_COARSE = 6 if sys.platform == "linux" else None

#: Resolution of the clock that L1 reads, in nanoseconds: on Linux 1 to 10 ms, as the kernel was built.
TICK_NS: int = 1_000_000 if _COARSE is None else max(1_000_000, round(time.clock_getres(_COARSE) * 1e9))

NS_PER_MS: int = 1_000_000

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
