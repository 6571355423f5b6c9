"""What the log is told by what nobody calls: threads of the cache's own, and callbacks in an event loop.

The handlers are the user's, and may raise: on a full disk, say. That is no reason for a thread to end that nobody
begins anew. And what goes wrong for one key can go wrong for thousands a second, of which nobody wants to read each.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_log: Final = logging.getLogger("nearcache")
#: How far apart two lines about the same are at least, once there has been one.
_APART_NS: Final = 1_000_000_000


def log(level: int, text: str, *arguments: object, error: BaseException | None = None) -> None:
    """Log something, whatever the handlers do. ``error``: whose traceback goes with it."""
    _write(level, text, arguments, error)


class Recurring:
    """Logs what may come again and again: the first at once, then at most one a second, which counts what was left out.

    For any thread, and without a lock: two at once may both be told.

    Args:
        clock: Monotonic nanoseconds.
    """

    __slots__ = ("_clock", "_due_ns", "_numbers", "_told")

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._due_ns = clock()
        self._numbers = itertools.count(1)
        self._told = 0

    def log(self, level: int, text: str, *arguments: object, error: BaseException | None = None) -> bool:
        """Log it, if it is time; see :func:`log`. Returns whether it was."""
        number, now_ns = next(self._numbers), self._clock()
        if now_ns < self._due_ns:
            return False
        left_out = number - self._told - 1
        self._due_ns, self._told = now_ns + _APART_NS, number
        if left_out > 0:
            text, arguments = text + " (and %d more of the kind since the last line)", (*arguments, left_out)
        _write(level, text, arguments, error)
        return True


def log_not_renewed(failures: Recurring, namespace: str, keys: object, error: BaseException) -> None:
    """Log that what was to replace old values in the background has failed. ``keys``: one, or a list of them."""
    text = "namespace %s: %.200r was not loaded anew, and the old value stays: %r"
    failures.log(logging.WARNING, text, namespace, keys, error)


def _write(level: int, text: str, arguments: tuple[object, ...], error: BaseException | None) -> None:
    with suppress(Exception):
        _log.log(level, text, *arguments, exc_info=error, stacklevel=3)
