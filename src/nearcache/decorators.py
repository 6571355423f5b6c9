"""``lru_cache`` and ``ttl_cache``: functools' and cachetools' decorators, on L1's compiled core alone.

They know neither Redis nor a cache object: each decorated function has a memory of its own, in this process. What
shares results between processes is ``cache.cached``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar, overload

from ._memo import Memo
from .choices import Seconds, plain_seconds
from .coroutines import ONCE_ONLY, good_again, is_coroutine_function, is_generator_function

__all__ = ["Memo", "lru_cache", "ttl_cache"]

P = ParamSpec("P")
R = TypeVar("R")

#: The named tuple that functools uses: hits, misses, maxsize, currsize.
_CacheInfo: Final = functools._CacheInfo
_LONGEST_TTL_S: Final = 9e9


@overload
def lru_cache(maxsize: Callable[P, R], typed: bool = False) -> Memo[P, R]: ...
@overload
def lru_cache(maxsize: int | None = 128, typed: bool = False) -> Callable[[Callable[P, R]], Memo[P, R]]: ...
def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Return a function that remembers its last results, as ``functools.lru_cache`` does, but faster.

    Args:
        maxsize: Most results to keep; the least recently used one makes room. ``None``: no bound; 0: none is kept.
            Or the function itself: ``@lru_cache`` without parentheses.
        typed: Whether ``f(3)`` and ``f(3.0)`` are remembered apart.
    Returns:
        A function with ``cache_info()``, ``cache_clear()``, ``cache_parameters()`` and ``__wrapped__``; or what makes
        one of a function.
    Raises:
        TypeError: An argument is of another type, or the function is a coroutine function or a generator function.

    Of several threads that miss the same arguments at once, one calls the function; the others wait for its result, or
    for its exception. A function that calls itself, with the same arguments too, does not wait for itself.
    Cost: a hit is one C function; a single ``str`` or ``int`` argument allocates nothing.
    """
    if callable(maxsize) and isinstance(typed, bool):
        return _remember(maxsize, 128, typed, 0, None)
    limit = _checked_maxsize(maxsize)
    return lambda function: _remember(function, limit, typed, 0, None)


@overload
def ttl_cache(
    maxsize: Callable[P, R], ttl: Seconds | None = 600, timer: Callable[[], float] = ..., typed: bool = False
) -> Memo[P, R]: ...
@overload
def ttl_cache(
    maxsize: int | None = 128, ttl: Seconds | None = 600, timer: Callable[[], float] = ..., typed: bool = False
) -> Callable[[Callable[P, R]], Memo[P, R]]: ...
def ttl_cache(
    maxsize: Any = 128, ttl: Seconds | None = 600, timer: Callable[[], float] = time.monotonic, typed: bool = False
) -> Any:
    """Return a function that remembers its last results for some time, as ``cachetools.func.ttl_cache`` does.

    Args:
        maxsize, typed: As for :func:`lru_cache`.
        ttl: How long a result is kept, in seconds or as a ``timedelta``; ``None``: without an end; 0: not at all.
        timer: The clock, in seconds. ``time.monotonic`` stands for the same clock read in C, to the millisecond or so;
            any other function is called, and must give 0 or more, be ``ttl`` a timedelta or not (cachetools has a timer
            of datetimes then).
    Returns, Raises: As :func:`lru_cache`; ``ValueError`` for a ``ttl`` that is negative or no number.
    """
    lifetime = plain_seconds(ttl)
    ttl_ns = _checked_ttl(lifetime)
    clock = None if timer is time.monotonic else timer
    if callable(maxsize):
        return _remember(maxsize, 128 if lifetime != 0 else 0, typed, ttl_ns, clock, shown=128)
    limit = _checked_maxsize(maxsize)
    return lambda function: _remember(function, limit if lifetime != 0 else 0, typed, ttl_ns, clock, shown=limit)


def _remember(
    function: Any,
    maxsize: int | None,
    typed: bool,
    ttl_ns: int,
    timer: Callable[[], float] | None,
    *,
    shown: Any = ...,
) -> Any:
    if not callable(function):
        raise TypeError(f"cannot decorate {function!r}: the first argument must be callable")
    called = getattr(function, "__qualname__", function)
    if is_coroutine_function(function):
        raise TypeError(
            f"cannot decorate {called}: a coroutine can be awaited once only; use cache.cached, which keeps what it "
            "returns"
        )
    if is_generator_function(function):
        raise TypeError(f"cannot decorate {called}: {ONCE_ONLY} a list")
    memo: Any = Memo(function, maxsize, typed, ttl_ns, timer, _CacheInfo, functools.partial(good_again, f"{called}"))
    limit = maxsize if shown is ... else shown
    functools.update_wrapper(memo, function)  # first: a function that has a memo itself has parameters, too
    memo.cache_parameters = lambda: {"maxsize": limit, "typed": typed}
    return memo


def _checked_maxsize(maxsize: Any) -> int | None:
    if maxsize is None:
        return None
    if not isinstance(maxsize, int):
        raise TypeError(f"maxsize={maxsize!r}: expected first argument to be an integer, a callable, or None")
    return max(maxsize, 0)


def _checked_ttl(ttl: float | None) -> int:
    """Nanoseconds; 0: without an end."""
    if ttl is None:
        return 0
    if not isinstance(ttl, (int, float)) or isinstance(ttl, bool):
        raise TypeError(f"ttl={ttl!r}: give seconds, or None for no end")
    if not ttl >= 0:
        raise ValueError(f"ttl={ttl!r}: give seconds, 0 or more, or None for no end")
    if ttl > _LONGEST_TTL_S:
        return 0
    return max(1, round(ttl * 1e9))  # 0 would be without an end; and what is not to be kept at all has no room
