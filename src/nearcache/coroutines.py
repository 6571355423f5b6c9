"""What is to be awaited: told before a thread calls it, or keeps it for a value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

V = TypeVar("V")


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives something to await."""
    if type(function) is FunctionType and not function.__dict__:  # asked of each load; nobody has marked it as one
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    call = getattr(function, "__call__", None)  # noqa: B004  what it is is asked, not whether it is there
    return _is(inspect.iscoroutinefunction, function) or _is(inspect.iscoroutinefunction, call)


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives a generator, of either kind."""
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(judge: Callable[[Any], bool], function: Any) -> bool:
    """Ask ``inspect`` of what a function is.

    Not of a mock with the specification of a function, which passes for one, but whose flags are a mock as well:
    ``inspect`` fails at it, or finds every flag set.
    """
    while isinstance(function, functools.partial):
        function = function.func
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return isinstance(flags, int) and judge(function)


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
