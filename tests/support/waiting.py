"""Waiting for what another process does. For integration tests only: elsewhere, wait on an event."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 20.0, *, what: str = "", step: float = 0.005) -> T:
    """Return the first truthy result of ``predicate``; AssertionError after ``timeout`` seconds.

    Args:
        predicate: Asked every ``step`` seconds, once more at the deadline.
        timeout: In seconds.
        what: Says in the failure what was waited for.
        step: Seconds between two questions.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        result = predicate()
        if result:
            return result
        if late:
            name = what or getattr(predicate, "__name__", repr(predicate))
            raise AssertionError(f"not within {timeout} s: {name} (last answer {result!r})")
        time.sleep(step)
