"""Loads that a caller waits for only so long. Who gives up leaves the load to itself: it ends, and fills the cache."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from time import monotonic
from typing import Any

from ..changes import MISSING
from ..errors import CacheError, LoadTimeoutError
from ..flights import ABANDONED, Load, Loads, strand
from ..workers import is_to_fork


class Limit:
    """How long somebody waits, and since when.

    Args:
        key: What is loaded.
        seconds: The longest time.
    """

    __slots__ = ("_until", "key", "seconds")

    def __init__(self, key: Any, seconds: float) -> None:
        self.key = key
        self.seconds = seconds
        self._until = monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._until - monotonic())

    def error(self) -> LoadTimeoutError:
        """Return what is raised at its end."""
        return LoadTimeoutError(self.key, self.seconds)


def joined(loads: Loads, flight: Load, limit: Limit) -> Any:
    """Return what a load under way brings, waiting for it in this thread; MISSING: nothing that others may take.

    Raises:
        LoadTimeoutError: It does not bring it in time.
        Whatever its loader raises.
    """
    if not loads.outlast(flight, limit.left_s()):
        raise limit.error()
    value = flight.outcome()
    return MISSING if value is ABANDONED else value


def in_time(work: Callable[[], Any], limit: Limit) -> Any:
    """Return what ``work`` returns, called in a thread of its own, if it does so within the time.

    A thread for each, and none of a pool: loads may need each other. It runs on behalf of the load that the caller is
    part of, so that one which needs itself is found out; otherwise on nobody's.

    In uWSGI's master there are no threads (see :func:`~nearcache.workers.is_to_fork`): the caller's own does it, in
    whatever time it takes.

    Raises:
        LoadTimeoutError: It does not. It goes on all the same.
        CacheError: No thread can be had for it, and in the caller's own nothing would end the wait.
        Whatever ``work`` raises.
    """
    future: Future[Any] = Future()
    context = contextvars.copy_context()
    context.run(strand.set, strand.get(future))
    if is_to_fork():
        return context.run(work)

    def run() -> None:
        try:
            value = context.run(work)
        except BaseException as error:  # noqa: BLE001  it is raised in the caller, if that still waits
            future.set_exception(error)
        else:
            future.set_result(value)

    try:
        threading.Thread(target=run, name="nearcache-load", daemon=True).start()
    except RuntimeError as error:
        raise CacheError(
            f"{limit.key!r:.100} was not loaded: loader_timeout= needs a thread for that, and the system gives no more"
        ) from error
    try:
        return future.result(limit.left_s())
    except NotInTime:
        if future.done():  # then it is the loader's own, unless that was done just now
            return future.result()
        raise limit.error() from None
