"""What is good for once only, to be awaited or to be gone through: told before a thread calls it, or keeps it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, FunctionType, GeneratorType
from typing import Any, Final, TypeVar

V = TypeVar("V")

#: What is wrong with a generator, with what to return in its place behind it.
ONCE_ONLY: Final = "a generator can be read once only; return"


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives something to await."""
    return _is(function, inspect.CO_COROUTINE, inspect.iscoroutinefunction)


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives a generator, of either kind."""
    flags = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
    return _is(function, flags, lambda each: inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each))


def _is(function: Any, flags: int, judge: Callable[[Any], bool]) -> bool:
    if type(function) is FunctionType and not function.__dict__:  # asked of each load; nobody has marked it as one
        return bool(function.__code__.co_flags & flags)
    call = getattr(function, "__call__", None)  # noqa: B004  what it is is asked, not whether it is there
    return _found(function, judge) or _found(call, judge)


def _found(function: Any, judge: Callable[[Any], bool]) -> bool:
    """Ask ``inspect``, but not of a mock with the specification of a function, whose flags are a mock as well: there
    it fails, or finds every flag set.
    """
    while isinstance(function, functools.partial):
        function = function.func
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return isinstance(flags, int) and judge(function)


def good_again(who: str, value: V) -> V:
    """Return what a function returned that was called in a thread.

    Raises:
        TypeError: It is a coroutine or a generator: the first who reads it could use it, and nobody else.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"{who} returned a coroutine: give a coroutine function (async def) itself, and use cache.aio")
    if isinstance(value, (GeneratorType, AsyncGeneratorType)):
        raise TypeError(f"{who} returned a generator: {ONCE_ONLY} a list")
    return value


def carried(call: Callable[..., V], *args: Any) -> V:
    """Call it, and make of a StopIteration what the interpreter makes of one that leaves a coroutine.

    No generator and no future carries one: the generator would raise something else, and who awaits the future would
    wait for ever. So in threads, too, and wherever values are, that of a loader, or of what a value is made by, is the
    same error. A GeneratorExit is one as well: a generator takes it for its own end, and undoes nothing.

    Raises:
        RuntimeError: It raised StopIteration or GeneratorExit, which is the cause.
    """
    try:
        return call(*args)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"{call!r} raised {type(error).__name__}") from error
