"""Interrupts at every instant at which a signal handler may run."""

from __future__ import annotations

import gc
import inspect
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

TIMEOUT: Final = 20.0
_PAUSES: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
#: Where a generator may be ended by what is raised here and by no signal: in Python 3.10 without its ``finally``.
_NOT_THERE: Final = ("return",) if sys.version_info >= (3, 11) else ("return", "call")


def _is_instant(frame: FrameType, event: str, what: Any) -> bool:
    """May a signal be noticed here?

    Not right after ``__enter__``, where the lock of a ``with`` would stay taken. CPython 3.14 does look there, by
    mistake (python/cpython#148874; neither 3.13 nor 3.15 do): nothing that is written in Python can be safe from that.
    """
    if event == "c_call" or (event == "c_return" and what.__name__ == "__enter__"):
        return False
    return not (event in _NOT_THERE and frame.f_code.co_flags & _PAUSES)


def interrupted(step: int, call: Callable[[], object]) -> bool:
    """Call something, and raise KeyboardInterrupt at the instant of this number, if there is one. Returns whether.

    Where a function begins or ends: there the interpreter looks for signals. But not where a generator yields (or, in
    Python 3.10, goes on): one that is interrupted there would not be told.
    """
    left = step

    def look(frame: FrameType, event: str, what: Any) -> None:
        nonlocal left
        left -= _is_instant(frame, event, what)
        if left == 0:
            raise KeyboardInterrupt

    collects = gc.isenabled()
    gc.disable()  # what is raised in the middle of a collection is ignored, and reported as if something were wrong
    sys.setprofile(look)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
        if collects:
            gc.enable()
    return left <= 0  # where it is ignored, in a ``__del__`` say, the call returns


def finishes(call: Callable[[], object]) -> bool:
    """Whether a call returns, in a thread of its own."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return not thread.is_alive()
