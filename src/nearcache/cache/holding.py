"""The object behind ``with cache.hold(...)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    time, and the invalidation is owed.
    """

    def __init__(self, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> Hold:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
