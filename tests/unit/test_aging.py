"""Values of ``memory://`` that grow old or live by being read: who makes room, what is told, and what is left."""

from __future__ import annotations

import gc
import math
import random
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from support.fixtures import Clock
from support.threads import together

TIMEOUT = 20.0


def test_value_that_is_read_most_is_the_last_to_make_room() -> None:
    """While it is new and when it has grown old; beside as many new values as there is room for, as many are old."""
    with nearcache.open("memory://", ttl=100, soft_ttl=0.1, maxsize=10, policy="lru") as cache:
        cache["hot"] = "hot"
        for number in range(100):
            cache[number] = number
            assert cache.get("hot") == "hot"
        for start in range(100, 200, 9):
            cache.expire(time.monotonic() + 20)
            assert cache.get("hot") == "hot"
            cache.update((number, number) for number in range(start, start + 9))
        assert len([number for number in range(300) if number in cache]) == 9 + 9
        assert "hot" in cache


def test_old_values_take_as_many_bytes_as_new_ones_and_no_more() -> None:
    """Beside them."""
    with nearcache.open("memory://", ttl=100, soft_ttl=0.1, maxbytes=100, getsizeof=len) as cache:
        for start in range(0, 100, 10):
            cache.update((number, "x" * 10) for number in range(start, start + 10))
            cache.expire(time.monotonic() + 20)
        cache.update((number, "x" * 10) for number in range(100, 110))
        assert len([number for number in range(110) if number in cache]) == 20


class Named:
    """A key that says when it is gone."""


@pytest.mark.parametrize("options", [{"ttl": 100, "soft_ttl": 0.1}, {"ttl": nearcache.Idle(50)}, {"ttl": 100}])
@pytest.mark.parametrize("how", ["del", "drop", "clear", "close", "expire", "evict", "touch"])
def test_keys_of_values_that_are_gone_are_let_go(how: str, options: dict[str, Any]) -> None:
    """Nothing is kept that was noted of them, their ages among it."""

    def load(_key: Any) -> nearcache.Loaded[int]:
        return nearcache.Loaded(1, tags=["t"], validator="v")

    ways: dict[str, Callable[[Any], object]] = {
        "del": lambda key: cache.__delitem__(key),
        "drop": lambda key: cache.drop(key),
        "clear": lambda _: cache.clear(),
        "close": lambda _: cache.close(),
        "expire": lambda _: cache.expire(math.inf),
        "evict": lambda _: cache.set("another", 1),
        "touch": lambda key: [cache.touch(key, 5), cache.expire(math.inf)],
    }
    cache = nearcache.open("memory://", ages=True, maxsize=1, loader=load, **options)
    key = Named()
    gone = weakref.ref(key)
    assert cache.get_or_load(key, max_age=1) == 1
    assert cache.get(key, max_age=10) == 1
    ways[how](key)
    del key
    gc.collect()
    assert gone() is None


def removals(listening: bool, **options: Any) -> tuple[Any, list[Any], Callable[[], list[Any]]]:
    """A cache, what ``on_removal`` is told, and a function that returns what a listener hears."""
    told: list[Any] = []
    heard: list[Any] = []
    cache = nearcache.open("memory://", on_removal=lambda *said: told.append(said), **options)
    if not listening:
        return cache, told, list
    kinds = ["created", "updated", "removed", "expired", "evicted"]
    subscription = cache.listen(lambda event: heard.append((event.kind, event.key, event.value)), events=kinds)

    def flushed() -> list[Any]:
        assert subscription.flush(TIMEOUT)
        return heard

    return cache, told, flushed


ENDS: dict[str, tuple[Callable[[Any], object], str, str]] = {
    "invalidate": (lambda cache: cache.invalidate("k"), "invalidated", "removed"),
    "del": (lambda cache: cache.__delitem__("k"), "invalidated", "removed"),
    "pop": (lambda cache: cache.pop("k"), "invalidated", "removed"),
    "clear": (lambda cache: cache.clear(), "invalidated", "removed"),
    "drop": (lambda cache: cache.drop("k"), "dropped", "removed"),
    "drop_all": (lambda cache: cache.drop_all(), "dropped", "removed"),
    "set": (lambda cache: cache.set("k", "new"), "replaced", "updated"),
    "endless": (lambda cache: cache.set("k", "new", ttl=None), "replaced", "updated"),
    "append": (lambda cache: cache.compute("k", lambda old: old + "+"), "replaced", "updated"),
    "refresh": (lambda cache: cache.refresh("k", str.upper), "replaced", "updated"),
    "expire": (lambda cache: cache.expire(math.inf), "expired", "expired"),
}


@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize("options", [{"ttl": 100, "soft_ttl": 0.1}, {"ttl": nearcache.Idle(30)}])
@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("how", sorted(ENDS))
def test_removal_is_told_once_and_when_the_value_goes(
    how: str, is_old: bool, options: dict[str, Any], listening: bool
) -> None:
    """Growing old is no end, whoever is asked; the end of what is old is one."""
    change, cause, kind = ENDS[how]
    cache, told, heard = removals(listening, **options)
    cache.set("k", "v", tags=["t"])
    if is_old:
        cache.expire(time.monotonic() + 20)
        assert "k" in cache
    assert told == []
    change(cache)
    assert told == [("k", "v", cause)]
    if listening:
        assert [event[:2] for event in heard()] == [("created", "k"), (kind, "k")]
    left = cache.get("k")
    cache.close()
    assert told[1:] == ([] if left is None else [("k", left, "dropped")])


def test_removal_of_old_values_by_a_tag_is_told_at_once() -> None:
    """That of new ones when they are met or reclaimed, as in any cache."""
    cache, told, heard = removals(True, ttl=100, soft_ttl=0.1)
    cache.set("k", "v", tags=["t"])
    cache.expire(time.monotonic() + 20)
    cache.set("new", "v", tags=["t"])
    cache.invalidate_tag("t")
    assert told == [("k", "v", "invalidated")]
    cache.expire(math.inf)
    assert told[1:] == [("new", "v", "expired")]
    assert [kind for kind, _, _ in heard()] == ["created", "created", "removed", "expired"]
    cache.close()


def test_removal_of_old_values_that_make_room_is_told() -> None:
    """As of any others."""
    cache, told, heard = removals(True, ttl=100, soft_ttl=0.1, maxsize=2, policy="lru")
    for number in range(6):
        cache[number] = number
        if number % 2:
            cache.expire(time.monotonic() + 20)
    assert sorted(told) == [(number, number, "evicted") for number in range(4)]
    assert {key for kind, key, _ in heard() if kind == "evicted"} == set(range(4))
    assert [number for number in range(6) if number in cache] == [4, 5]
    cache.close()


def test_absence_that_takes_the_place_of_a_value_is_told_as_its_removal() -> None:
    """What is remembered of absent keys is itself no value, and goes unsaid."""
    for is_old in (False, True):
        cache, told, heard = removals(True, ttl=100, soft_ttl=0.1, negative_ttl=10)
        cache["k"] = 1
        if is_old:
            cache.expire(time.monotonic() + 20)
        with pytest.raises(KeyError):
            cache.refresh("k", {}.__getitem__)
        cache.expire(math.inf)
        assert told == [("k", 1, "invalidated")]
        assert heard()[1:] == [("removed", "k", 1)]
        cache.close()


@pytest.mark.parametrize("options", [{"ttl": 0.2, "soft_ttl": 0.01}, {"ttl": nearcache.Idle(0.02)}, {"ttl": 0.02}])
def test_threads_that_change_the_same_keys_leave_nothing_behind(options: dict[str, Any]) -> None:
    """Whatever is old has lapsed or is new as well; what was noted is of values that are there."""
    cache: Any = nearcache.open("memory://", maxsize=20, ages=True, **options)

    def work(seed: int) -> None:
        draws = random.Random(seed)
        changes: list[Callable[[int], object]] = [
            lambda key: cache.set(key, object(), tags=["t"] if draws.random() < 0.2 else ()),
            lambda key: cache.refresh(key, lambda _: nearcache.Loaded(object(), validator="v")),
            lambda key: cache.get_or_load(key, lambda _: object()),
            lambda key: cache.compute(key, lambda _: object()),
            lambda key: cache.touch(key, 0.01),
            cache.gets,
            cache.get,
            cache.invalidate,
            cache.drop,
        ]
        for number in range(3000):
            try:
                draws.choice(changes)(draws.randrange(40))
            except nearcache.ContentionError:
                continue
            if number % 1000 == seed:
                cache.invalidate_tag("t")

    together(work, 3)
    cache.expire()
    for store in (cache, cache._old, cache._lapsed):
        store.check_invariants()
    new = {name for name in range(40) if cache.l1_hit(name, None) is not None}  # of the others none is left in it
    old = {name for name, _ in cache._old.l1_snapshot()}
    lapsed = set(cache._lapsed)
    assert len(lapsed) <= 20
    assert not new & lapsed
    assert old <= new | lapsed
    cache.clear()
    assert [len(kept) for kept in (cache, cache._old, cache._lapsed, cache._idle, cache._births)] == [0] * 5
    assert cache._answers is None or len(cache._answers) == 0


def test_remaining_time_is_that_until_the_hard_end(clock: Clock) -> None:
    """So long the value is served, old or not; a copy has the rest of it."""
    with nearcache.open("memory://", ttl=100, soft_ttl=10) as cache:
        cache["k"] = 1
        cache.set("brief", 1, ttl=5)
        cache.set("endless", 1, ttl=None)
        assert cache.remaining_ns("k") == pytest.approx(100e9, abs=1e9)
        assert cache.remaining_ns("brief") == pytest.approx(5e9, abs=1e9)
        assert cache.remaining_ns("endless") is None
        clock(cache, 20)
        assert cache.get("k") == 1
        assert cache.remaining_ns("k") == pytest.approx(80e9, abs=1e9)
        assert cache.copy().remaining_ns("k") == pytest.approx(80e9, abs=1e9)
        assert cache.touch("k", 50)
        assert cache.remaining_ns("k") == pytest.approx(50e9, abs=1e9)
        clock(cache, 200)
        for gone in ("k", "brief", "never"):
            with pytest.raises(KeyError):
                cache.remaining_ns(gone)


def test_remaining_time_of_a_value_in_use_is_its_idle_time_at_most(clock: Clock) -> None:
    """And some as long as it is served."""
    with nearcache.open("memory://", ttl=nearcache.Idle(60)) as cache:
        cache["k"] = 1
        for second in (0, 29, 50, 89):
            clock(cache, second)
            assert cache.remaining_ns("k") == pytest.approx(min(60, 90 - second) * 1e9, abs=1e9)
        assert cache.get("k") == 1
        assert cache.remaining_ns("k") == pytest.approx(60e9, abs=1e9)


def test_absence_has_no_remaining_time() -> None:
    """That there is no value is kept, and is none."""
    with nearcache.open("memory://", negative_ttl=60, loader=lambda _: nearcache.ABSENT) as cache:
        with pytest.raises(KeyError):
            cache["k"]
        with pytest.raises(KeyError):
            cache.remaining_ns("k")


def test_copy_grows_old_when_the_cache_it_was_taken_from_does(clock: Clock) -> None:
    """The end that a value has in a copy is the one that it had: the soft one is none the later for it."""
    with nearcache.open("memory://", ttl=100, soft_ttl=10) as cache:
        cache["k"] = 1
        with cache.copy() as copied:
            clock(copied, 20)
            assert copied.l1_peek("k", None) is None
            assert copied.get("k") == 1
