"""The clock that L1 reads is coarse, and by how much is known."""

from __future__ import annotations

import sys
import time

from nearcache.clocks import TICK_NS


def test_tick_is_as_long_as_the_kernel_says() -> None:
    """What is taken off deadlines is a whole tick of the clock by which L1 judges them."""
    coarse = 6 if sys.platform == "linux" else time.CLOCK_MONOTONIC
    assert round(time.clock_getres(coarse) * 1e9) <= TICK_NS <= 10_000_000
