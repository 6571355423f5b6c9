"""Ends of entries: jitter, the soft end, and XFetch's draw."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.errors import ConfigError
from nearcache.freshness import ENDLESS_MS, Freshness, Life
from nearcache.options import parse
from nearcache.workers import Workers
from support.tasks import until
from support.threads import PATIENCE, together
from support.waiting import wait_until

SECOND = 10**9
TIMEOUT = 20.0


def test_jitter_fraction_shortens_by_at_most_that_part() -> None:
    """0.25 of 8 s: from 6 s (exclusive) to 8 s."""
    assert Freshness(jitter=0.25, chance=lambda: 0.0).life(8000) == Life(8000)
    assert Freshness(jitter=0.25, chance=lambda: 0.5).life(8000) == Life(7000)
    assert Freshness(jitter=0.25, chance=lambda: 0.9999).life(8000).ttl_ms > 6000


def test_jitter_seconds_shortens_by_no_more_than_half() -> None:
    """A short lifetime survives an option meant for long ones."""
    assert Freshness(jitter=30, chance=lambda: 0.5).life(100_000) == Life(85_000)
    assert Freshness(jitter=30, chance=lambda: 1.0).life(10_000) == Life(5000)


def test_no_expiry_is_left_alone() -> None:
    """What never ends is neither shortened nor old."""
    for endless in (0, ENDLESS_MS):
        assert Freshness(jitter=0.5, soft=10).life(endless) == Life(endless)


def test_soft_end_is_a_fraction_or_seconds_and_before_the_end() -> None:
    """At or beyond the end there is none."""
    assert Freshness(soft=0.5).life(8000) == Life(8000, 4000)
    assert Freshness(soft=3).life(8000) == Life(8000, 3000)
    assert Freshness(soft=8).life(8000) == Life(8000, 0)


def test_xfetch_draws_earlier_for_dearer_values() -> None:
    """The advance is exponential with mean beta * cost; without beta or cost there is none."""
    draws = random.Random(7)
    early = Freshness(beta=2.0, chance=draws.random)
    advances = [60_000 - early.due_ms(60_000, 500) for _ in range(4000)]
    assert min(advances) >= 0
    assert math.isclose(statistics.fmean(advances), 1000, rel_tol=0.1)
    assert Freshness(beta=2.0).due_ms(60_000, 0) == 60_000
    assert Freshness().due_ms(60_000, 500) == 60_000


@pytest.mark.parametrize(("ttl", "soft"), [(60, 60), (60, 61.5), (0.5, 1), (3600.0, 7200)])
def test_soft_end_behind_the_hard_one_is_refused(ttl: float, soft: float) -> None:
    """No value would ever grow old. A fraction, and a lifetime that is a function or none, leave it open."""
    with pytest.raises(nearcache.ConfigError, match=f"soft_ttl={soft!r}.*less than ttl={ttl:g}"):
        parse("memory://", ttl=ttl, soft_ttl=soft)
    parse("memory://", ttl=ttl, soft_ttl=0.9)
    for open_end in (None, lambda _key, _value: 5):
        parse("memory://", ttl=open_end, soft_ttl=soft)


@pytest.mark.parametrize("option", ["soft_ttl", "jitter", "beta"])
@pytest.mark.parametrize("value", [-1, math.nan, "soon", True, 1e12])
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    """With a message that names option and value."""
    with pytest.raises(ConfigError, match=option):
        nearcache.open("memory://", **{option: value})


def test_ttl_function_sees_key_and_value() -> None:
    """For stored values as for loaded ones, whoever gives it."""
    cache = nearcache.open("memory://", ttl=lambda key, value: 10 if key == "short" else value, loader=lambda _: 50)
    cache["short"] = 1
    cache["long"] = 100
    cache.set("given", 7, ttl=lambda key, value: len(key) + value)
    assert cache["loaded"] == 50
    for key, seconds in {"short": 10, "long": 100, "given": 12, "loaded": 50}.items():
        left = cache.remaining_ns(key)
        assert left is not None
        assert seconds - 5 < left / SECOND < seconds + 1  # the store's clock has ticks


def test_ttl_function_with_a_bad_result_is_an_error() -> None:
    """And nothing is stored."""
    cache = nearcache.open("memory://", ttl=lambda _key, _value: -1)
    with pytest.raises(ConfigError, match="-1"):
        cache["k"] = 1
    assert "k" not in cache


class Source:
    """A loader that counts, and waits when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_go = threading.Event()
        self.may_go.set()
        self.done = threading.Event()

    def __call__(self, key: str) -> str:
        self.calls += 1
        number = self.calls
        assert self.may_go.wait(TIMEOUT)
        return f"{key}{number}"


def aged(source: Any, **options: Any) -> Any:
    """Return a cache that holds "k1", past its soft end."""
    cache = nearcache.open("memory://", ttl=100, soft_ttl=0.1, loader=source, **options)
    assert cache["k"] == "k1"
    cache.expire(time.monotonic() + 20)
    return cache


def settle(cache: Any, number: int) -> None:
    """Wait until the background has brought a value."""
    deadline = threading.Event()
    for _ in range(2000):
        if cache.peek("k") == f"k{number}":
            return
        deadline.wait(0.005)
    raise AssertionError(cache.peek("k"))


def test_old_value_is_served_at_once_while_one_load_runs() -> None:
    """However many read it: by every way of reading."""
    source = Source()
    cache = aged(source)
    source.may_go.clear()
    assert [cache["k"], cache.get("k"), cache.get_or_load("k"), cache.get_many(["k"])["k"]] == ["k1"] * 4
    assert "k" in cache
    source.may_go.set()
    settle(cache, 2)
    assert source.calls == 2
    cache.close()


def test_deleted_old_value_stays_away() -> None:
    """Old values are invalidated with the new ones, and a load that began before does not bring one back."""
    source = Source()
    cache = aged(source)
    source.may_go.clear()
    assert cache["k"] == "k1"
    del cache["k"]
    assert cache.get("k") is None
    source.may_go.set()
    cache["k"] = "mine"
    assert cache["k"] == "mine"
    source.may_go.clear()  # a machine may be so slow that this one is old by now, and loaded anew
    cache.clear()
    assert cache.get("k") is None
    source.may_go.set()
    cache.close()


@pytest.mark.parametrize("how", ["invalidate", "delete_many", "drop", "clear", "pop", "tag"])
def test_every_way_of_removing_removes_old_values(how: str) -> None:
    """None comes back."""
    cache = nearcache.open("memory://", ttl=100, soft_ttl=0.1)
    cache.set("k", 1, tags=["t"])
    cache.expire(time.monotonic() + 20)
    assert cache.get("k") == 1
    ways = {
        "invalidate": lambda: cache.invalidate("k"),
        "delete_many": lambda: cache.delete_many(["k"]),
        "drop": lambda: cache.drop("k"),
        "clear": cache.clear,
        "pop": lambda: cache.pop("k"),
        "tag": lambda: cache.invalidate_tag("t"),
    }
    ways[how]()
    assert cache.get("k") is None
    assert "k" not in cache


def test_failed_renewal_keeps_the_old_value_and_is_tried_again() -> None:
    """After the time of a lease: until then no read calls the loader."""
    failed = threading.Event()

    def loader(_key: str) -> str:
        if not state:
            state.append(1)
            return "k1"
        state.append(1)
        if len(state) == 2:
            failed.set()
            raise OSError("down")
        return "k2"

    state: list[int] = []
    cache = aged(loader)
    assert cache["k"] == "k1"
    assert failed.wait(TIMEOUT)
    wait_until(lambda: not cache._renewing, TIMEOUT)
    assert [cache["k"] for _ in range(10)] == ["k1"] * 10
    assert (len(state), cache._renewing) == (2, {})
    cache._resting.l1_set_clock(time.monotonic_ns() + 3 * SECOND)
    assert cache["k"] == "k1"
    settle(cache, 2)
    assert len(state) == 3
    cache.close()
    assert len(cache._resting) == 0


def test_failed_renewal_by_a_task_is_tried_again_after_the_time_of_a_lease() -> None:
    """As for threads; one that is cancelled has not failed."""
    outcomes: list[Any] = ["k1", OSError("down"), asyncio.CancelledError(), "k2"]
    calls: list[str] = []

    async def load(key: str) -> Any:
        calls.append(key)
        outcome = outcomes[len(calls) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def main(cache: Any) -> None:
        async def read(count: int) -> None:
            assert await cache.aio.get_or_load("k", load) == "k1"
            await until(lambda: len(calls) == count and not cache._renewing)

        assert await cache.aio.get_or_load("k", load) == "k1"
        cache.expire(time.monotonic() + 20)
        for _ in range(10):
            await read(2)
        cache._resting.l1_set_clock(time.monotonic_ns() + 3 * SECOND)
        await read(3)
        await read(4)
        assert await cache.aio.get_or_load("k", load) == "k2"

    with nearcache.open("memory://", ttl=100, soft_ttl=0.1) as cache:
        asyncio.run(main(cache))


class Asking:
    """A key whose comparison uses the cache."""

    def __init__(self, number: int, ask: Callable[[], object]) -> None:
        self.number = number
        self.ask = ask

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.ask()
        return isinstance(other, Asking) and self.number == other.number


def test_comparing_keys_may_use_a_cache_whose_values_are_being_renewed() -> None:
    """No lock is held meanwhile."""
    units = itertools.count()

    def ask() -> None:
        if not source.may_go.is_set():
            with pytest.raises(LookupError):  # what is stored each time, no comparison would come to an end with
                cache.get_or_load(f"unit {next(units)}", {}.__getitem__)

    source = Source()
    with nearcache.open("memory://", ttl=100, soft_ttl=0.1, loader=source) as cache:
        keys = [Asking(number, ask) for number in range(2)]
        for key in keys:
            _ = cache[key]
        cache.expire(time.monotonic() + 20)
        source.may_go.clear()
        together(lambda _: [cache[key] for key in keys], 1)
        assert next(units)
        source.may_go.set()


def test_refresh_loads_whatever_is_there() -> None:
    """And returns what it brought."""
    source = Source()
    cache = nearcache.open("memory://", loader=source)
    assert cache["k"] == "k1"
    assert cache.refresh("k") == "k2"
    assert cache["k"] == "k2"
    with pytest.raises(TypeError, match="loader"):
        nearcache.open("memory://").refresh("k")


def test_workers_end_when_nothing_is_left_and_refuse_when_closed() -> None:
    """No thread while idle."""
    workers, done = Workers("t", threads=2), threading.Semaphore(0)
    for _ in range(10):
        assert workers.submit(done.release, "k")
    for _ in range(10):
        assert done.acquire(timeout=TIMEOUT)
    for thread in threading.enumerate():
        if thread.name == "nearcache-refresh":
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    workers.close()
    assert not workers.submit(done.release, "k")


def test_workers_refuse_what_would_wait_behind_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked serves the old value, and asks again later."""
    monkeypatch.setattr("nearcache.workers.MOST_WAITING", 3)
    workers, begun, done = Workers("t", threads=1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        done.wait(PATIENCE)

    try:
        assert workers.submit(work, "k")
        assert begun.wait(PATIENCE)
        assert [workers.submit(int, "k") for _ in range(4)] == [True, True, True, False]
    finally:
        done.set()


def test_deleting_what_is_not_there_raises_with_old_values_too() -> None:
    """Neither store has it."""
    cache = nearcache.open("memory://", ttl=60, soft_ttl=30)
    with pytest.raises(KeyError, match="'k'"):
        del cache["k"]


def test_expire_returns_old_values_when_they_are_gone_and_only_then() -> None:
    """A value past its soft end is there all the same; at its end it is given once, however many stores had it."""
    with nearcache.open("memory://", ttl=100, soft_ttl=0.1, maxsize=10) as cache:
        cache["old"] = 1
        cache.set("lasting", 2, ttl=1000)
        cache.set("endless", 3, ttl=None)
        now = time.monotonic()
        assert cache.expire(now + 20) == []
        assert cache.get_many(["old", "lasting", "endless"]) == {"old": 1, "lasting": 2, "endless": 3}
        assert cache.expire(now + 101) == [("old", 1)]
        assert cache.expire(now + 101) == []
        assert cache.get("old") is None
        assert len(cache._old) == 1
        cache["both"] = 4
        assert sorted(cache.expire(math.inf)) == [("both", 4), ("lasting", 2)]
        assert len(cache._old) == 0


def test_expire_reclaims_what_was_remembered_of_absent_keys() -> None:
    """It was no value, so it is not given; but its place is."""
    with nearcache.open("memory://", negative_ttl=10, loader=lambda _: nearcache.ABSENT) as cache:
        with pytest.raises(KeyError):
            cache["gone"]
        assert len(cache._old) == 1
        assert cache.expire(time.monotonic() + 11) == []
        assert len(cache._old) == 0
