"""What is to be awaited: told before a thread calls it, or keeps it for a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

V = TypeVar("V")


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives something to await."""
    if type(function) is FunctionType and not function.__dict__:  # asked of each load; nobody has marked it as one
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def no_coroutine(who: str, value: V) -> V:
    """Return what a function returned that was called in a thread.

    Raises:
        TypeError: It is a coroutine: the first who reads it could await it, and nobody else.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"{who} returned a coroutine: give a coroutine function (async def) itself, and use cache.aio")
    return value


def carried(call: Callable[..., V], *args: Any) -> V:
    """Call it, and make of a StopIteration what the interpreter makes of one that leaves a coroutine.

    No generator and no future carries one: the generator would raise something else, and who awaits the future would
    wait for ever. So in threads, too, and wherever values are, that of a loader, or of what a value is made by, is the
    same error.

    Raises:
        RuntimeError: It raised StopIteration, which is the cause.
    """
    try:
        return call(*args)
    except StopIteration as error:
        raise RuntimeError(f"{call!r} raised StopIteration") from error
