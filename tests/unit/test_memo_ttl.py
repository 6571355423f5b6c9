"""``ttl_cache``, what the decorators refuse, and that they need no driver."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import nearcache
from support.threads import PATIENCE


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ttl_cache_result_ends_with_its_time() -> None:
    """Before the end it is a hit, at the end it is not; currsize counts what is alive."""
    clock, calls = Clock(), []

    @nearcache.ttl_cache(maxsize=10, ttl=5, timer=clock)
    def f(x: str) -> int:
        calls.append(x)
        return len(calls)

    assert (f("a"), f("a")) == (1, 1)
    clock.now += 4.9
    assert f("a") == 1
    assert f.cache_info() == (2, 1, 10, 1)
    clock.now += 0.1
    assert f.cache_info().currsize == 0
    assert f("a") == 2


def test_ttl_cache_time_begins_when_the_function_returns() -> None:
    """A slow call does not shorten the life of its result."""
    clock = Clock()

    @nearcache.ttl_cache(ttl=5, timer=clock)
    def f(x: str) -> float:
        clock.now += 100
        return clock.now

    first = f("a")
    clock.now += 4
    assert f("a") == first


def test_ttl_cache_clock_may_begin_at_zero() -> None:
    """It is the first of all instants."""
    now = [0.0]
    memo = nearcache.ttl_cache(ttl=10, timer=lambda: now[0])(lambda: object())
    first = memo()
    assert memo() is first
    now[0] = 10.0
    assert memo() is not first


def test_ttl_cache_default_clock_keeps_and_forgets() -> None:
    """With the clock that is read in C: an hour is not over, a nanosecond is."""
    long, short = [], []
    keeps = nearcache.ttl_cache(ttl=3600)(long.append)
    keeps("a"), keeps("a"), keeps(1), keeps(1)
    assert long == ["a", 1]
    forgets = nearcache.ttl_cache(ttl=1e-9)(short.append)
    forgets("a")
    until = nearcache._store.Store(1)  # the same clock: wait for its next tick
    until.lane_vouch(0, 2**62)
    until.l1_put("x", 1, ttl_ns=1)
    while "x" in until:
        threading.Event().wait(0.001)
    forgets("a")
    assert short == ["a", "a"]


def test_ttl_cache_zero_or_none_is_never_or_for_ever() -> None:
    """0: nothing is kept; None: no end."""
    calls: list[Any] = []
    never = nearcache.ttl_cache(ttl=0)(calls.append)
    never(1), never(1)
    assert calls == [1, 1]
    assert never.cache_parameters() == {"maxsize": 128, "typed": False}
    clock = Clock()
    for_ever = nearcache.ttl_cache(ttl=None, timer=clock)(calls.append)
    for_ever(2)
    clock.now = 8e9
    for_ever(2)
    assert calls == [1, 1, 2]


def test_ttl_cache_time_too_short_to_count_still_ends() -> None:
    """Less than half a nanosecond is not without an end."""
    clock, calls = Clock(), []

    @nearcache.ttl_cache(ttl=1e-10, timer=clock)
    def f(x: str) -> int:
        calls.append(x)
        return len(calls)

    assert f("a") == 1
    clock.now += 0.001
    assert f("a") == 2


def test_ttl_cache_bare_and_typed_are_as_expected() -> None:
    """Without parentheses the defaults hold."""
    assert nearcache.ttl_cache(lambda x: x).cache_parameters() == {"maxsize": 128, "typed": False}
    typed = nearcache.ttl_cache(typed=True)(lambda x: x)
    assert typed(1) == typed(1.0)
    assert typed.cache_info().misses == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nearcache.lru_cache("10"), TypeError, "maxsize='10'"),
        (lambda: nearcache.lru_cache()(5), TypeError, "cannot decorate 5"),
        (lambda: nearcache.ttl_cache(ttl=-1), ValueError, "ttl=-1"),
        (lambda: nearcache.ttl_cache(ttl=float("nan")), ValueError, "ttl=nan"),
        (lambda: nearcache.ttl_cache(ttl="10"), TypeError, "ttl='10'"),
        (lambda: nearcache.ttl_cache(timer=lambda: -1.0)(abs)(1), ValueError, "timer.. gave -1.0"),
        (
            lambda: nearcache.ttl_cache(ttl=timedelta(hours=1), timer=datetime.now)(abs)(1),
            TypeError,
            r"timer.. gave datetime.datetime\(.*seconds.*time.monotonic.*a timedelta",
        ),
    ],
)
def test_memo_bad_option_is_refused_by_name(make: Any, error: type[Exception], message: str) -> None:
    """The message names the option and the value."""
    with pytest.raises(error, match=message):
        make()


def test_memo_of_a_coroutine_function_is_refused() -> None:
    """A coroutine can be awaited once; the message names what to use."""

    async def f() -> None: ...

    with pytest.raises(TypeError, match=r"use cache\.cached"):
        nearcache.lru_cache(f)


def test_memo_of_a_partial_coroutine_function_is_refused() -> None:
    """It has no name of its own, but can be told all the same."""

    async def f(x: int) -> int:
        return x

    with pytest.raises(TypeError, match=r"cannot decorate functools\.partial.*use cache\.cached"):
        nearcache.lru_cache(functools.partial(f, 1))


def _numbers(until: int) -> Iterator[int]:
    yield from range(until)


async def _numbers_later(until: int) -> AsyncIterator[int]:
    for number in range(until):
        yield number


@pytest.mark.parametrize("function", [_numbers, _numbers_later, functools.partial(_numbers, 1)])
def test_memo_of_a_generator_function_is_refused(function: Any) -> None:
    """A generator can be read once, and would be empty for who asks again."""
    for decorate in (nearcache.lru_cache, nearcache.ttl_cache(ttl=60)):
        with pytest.raises(TypeError, match=r"cannot decorate .*_numbers.* once only; return a list"):
            decorate(function)


@pytest.mark.parametrize("function", [_numbers, _numbers_later])
@pytest.mark.parametrize("maxsize", [0, 8])
def test_generator_that_a_function_returns_is_no_result(function: Any, maxsize: int) -> None:
    """The same, of a function that only hands it on; it is told when it is called."""
    for decorate in (nearcache.lru_cache(maxsize), nearcache.ttl_cache(maxsize, ttl=60)):
        memo = decorate(lambda until: function(until))
        for _ in range(2):
            with pytest.raises(TypeError, match=r"<lambda> returned a generator: .* once only; return a list"):
                memo(1)
        assert memo.cache_info()[1:] == (2, maxsize, 0)


def test_memo_of_a_memo_has_parameters_of_its_own() -> None:
    """What the inner one has besides is the outer one's too, as with functools."""
    inner = nearcache.ttl_cache(maxsize=7, ttl=60)(abs)
    outer = nearcache.lru_cache(maxsize=5, typed=True)(inner)
    assert outer.cache_parameters() == {"maxsize": 5, "typed": True}
    assert inner.cache_parameters() == {"maxsize": 7, "typed": False}
    assert outer.__wrapped__ is inner


def test_memo_alone_needs_neither_redis_nor_threads() -> None:
    """Decorating and calling loads no driver."""
    code = (
        "import sys, nearcache\nf = nearcache.lru_cache(abs)\nassert f(-1) == 1\n"
        "assert not {'redis', 'hiredis', 'asyncio', 'numpy'} & set(sys.modules)"
    )
    env = {**os.environ}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.returncode == 0, done.stderr
