"""The object behind ``with cache.hold(...)``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import CacheError

if TYPE_CHECKING:
    from types import TracebackType


def hold_to_ms(seconds: float) -> int:
    """Check how long a hold may last; return milliseconds.

    Raises:
        ValueError: It is out of range.
    """
    if not 0.001 <= seconds <= 3600.0:
        raise ValueError(f"seconds={seconds!r}: give 0.001 to 3600, the longest that the change will take")
    return round(seconds * 1000)


def linger_to_ms(seconds: float) -> int:
    """Check for how long a hold goes on after its end; return milliseconds.

    Raises:
        ValueError: It is out of range.
    """
    if not 0 <= seconds <= 3600.0:
        raise ValueError(f"linger={seconds!r}: give 0 to 3600, as long as loaders may still read the old state")
    return round(seconds * 1000)


class Hold:
    """Keys whose data is about to change: nothing is stored under them until it has.

    Args:
        begin: Invalidates the keys and holds them.
        end: Invalidates them again and ends the hold.

    ``with`` begins and ends it. If ``begin`` fails, the block is not entered; if ``end`` fails, the hold ends by its
    time, and the invalidation is owed. One that is entered again begins anew, its time too, and ends when the last
    block is left.
    """

    def __init__(self, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        self._begin = begin
        self._end = end
        self._depth = Depth()

    def __enter__(self) -> Hold:
        self._depth.enter()
        try:
            self._begin()
        except BaseException as failure:
            if self._depth.leave() and isinstance(failure, CacheError):
                with suppress(CacheError):  # what is held by now would be held to the end of its time
                    self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._depth.leave():
            self._end()


class Depth:
    """How many blocks are inside one hold, in whatever threads and tasks."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        """One more."""
        with self._lock:
            self._count += 1

    def leave(self) -> bool:
        """One less. Returns whether it was the last."""
        with self._lock:
            self._count -= 1
            return self._count == 0
