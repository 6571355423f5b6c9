"""Loads that a caller waits for only so long. Who gives up leaves the load to itself: it ends, and fills the cache."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

from ..errors import LoadTimeoutError
from ..flights import strand


def in_time(work: Callable[[], Any], key: Any, seconds: float) -> Any:
    """Return what ``work`` returns, called in a thread of its own, if it does so within the time.

    A thread for each, and none of a pool: loads may need each other. It runs on behalf of the load that the caller is
    part of, so that one which needs itself is found out; otherwise on nobody's.

    Raises:
        LoadTimeoutError: It does not. It goes on all the same.
        Whatever ``work`` raises.
    """
    future: Future[Any] = Future()
    context = contextvars.copy_context()
    context.run(strand.set, strand.get(future))

    def run() -> None:
        try:
            value = context.run(work)
        except BaseException as error:  # noqa: BLE001  it is raised in the caller, if that still waits
            future.set_exception(error)
        else:
            future.set_result(value)

    threading.Thread(target=run, name="nearcache-load", daemon=True).start()
    try:
        return future.result(seconds)
    except NotInTime:
        if future.done():  # then it is the loader's own
            raise
        raise LoadTimeoutError(key, seconds) from None
