"""Calling a listener in an event loop, from the thread that has the events."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from ...events import EntryEvent
from ..events.subscriptions import Over

#: How often the thread looks whether the loop is still there.
_LOOK_S: Final = 0.5


def in_loop(function: Callable[[EntryEvent], Any], loop: asyncio.AbstractEventLoop) -> Callable[[EntryEvent], None]:
    """Return what has a function called in a loop and waits until it, and what it returned if awaitable, is done.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(function):
        raise TypeError(f"listen({function!r}): give a function, or a coroutine function")

    async def run(event: EntryEvent) -> None:
        result = function(event)
        if inspect.isawaitable(result):
            await result

    def begin(event: EntryEvent, done: Future[None]) -> None:
        task = loop.create_task(run(event))
        task.add_done_callback(lambda ended: _settle(done, ended))

    def call(event: EntryEvent) -> None:
        done: Future[None] = Future()
        try:
            loop.call_soon_threadsafe(begin, event, done)
        except RuntimeError:  # it is closed
            raise Over from None
        while True:
            try:
                return done.result(_LOOK_S)
            except CancelledError:
                raise Over from None
            except FutureTimeoutError:  # of the wait, or what the function raised
                if done.done() and not done.cancelled():
                    return done.result()
                if loop.is_closed():
                    raise Over from None

    return call


def _settle(done: Future[None], ended: asyncio.Task[None]) -> None:
    """Pass on how a task ended."""
    if ended.cancelled():
        done.cancel()
    elif (error := ended.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
