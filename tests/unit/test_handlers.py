"""A signal's handler that uses the cache where it has come in the middle of another use, of the same thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.clocks import monotonic_ns
from nearcache.l2.breaker import DEFAULTS, Breaker
from support.threads import together


def miss() -> tuple[Any, Callable[[], object]]:
    """Return the lock of a miss, and a miss."""
    cache: nearcache.MemoryCache[str, int] = nearcache.MemoryCache()
    return cache._counting, lambda: cache.get_or_load("k", len)


def clear() -> tuple[Any, Callable[[], object]]:
    """Return the lock of a cached function, and what a handler may do with it."""
    cached: Any = nearcache.MemoryCache[Any, Any]().cached(abs)
    return cached._counting, cached.cache_clear


def fail() -> tuple[Any, Callable[[], object]]:
    """Return the lock of a breaker, and what a request does with it that fails."""
    breaker = Breaker(DEFAULTS, clock=monotonic_ns)
    return breaker._lock, lambda: breaker.fail(certain=True)


@pytest.mark.parametrize("use", [miss, clear, fail])
def test_lock_that_a_handler_finds_taken_by_its_own_thread_lets_it_pass(use: Any) -> None:
    """It would wait for ever, and then all other threads would."""
    lock, again = use()

    def interrupted(_number: int) -> None:
        with lock:
            again()

    together(interrupted, 1)
