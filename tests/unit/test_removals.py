"""``on_removal``, ``expire`` and ``policy`` of a ``memory://`` cache."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, get_args

import pytest

import nearcache
from nearcache import MemoryCache, RemovalCause, options
from support.fixtures import Clock
from support.threads import PATIENCE

SECOND = 10**9
Told = list[tuple[Any, Any, RemovalCause]]


def told_cache(**options: Any) -> tuple[MemoryCache[Any, Any], Told]:
    """A cache and the list of what its listener is told."""
    told: Told = []
    return MemoryCache(on_removal=lambda *removal: told.append(removal), **options), told


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "aging": {"ttl": 60, "soft_ttl": 30},
    "idle": {"ttl": nearcache.Idle(60)},
    "function": {"ttl": lambda _key, _value: 5},
}

# -- on_removal ----------------------------------------------------------------------------------------------------


def test_removal_to_make_room_is_evicted() -> None:
    """The entry that had to go, not the one that came."""
    cache, told = told_cache(maxsize=2, policy="lru")
    cache.update(a=1, b=2)
    cache["c"] = 3
    assert told == [("a", 1, "evicted")]


def test_removal_of_an_overwritten_value_is_replaced() -> None:
    """The key is still there; told is the old value."""
    cache, told = told_cache()
    cache["k"] = 1
    cache["k"] = 2
    cache.set("k", 3)
    cache.set_many({"k": 4})
    assert told == [("k", 1, "replaced"), ("k", 2, "replaced"), ("k", 3, "replaced")]


@pytest.mark.parametrize(
    "how",
    [
        lambda cache: cache.__delitem__("k"),
        lambda cache: cache.pop("k"),
        lambda cache: cache.popitem(),
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.delete_many(["k"]),
        lambda cache: cache.clear(),
    ],
    ids=["del", "pop", "popitem", "invalidate", "delete_many", "clear"],
)
def test_removal_of_what_is_not_true_any_more_is_invalidated(how: Any) -> None:
    """Somebody said so, once."""
    cache, told = told_cache()
    cache["k"] = 1
    how(cache)
    assert told == [("k", 1, "invalidated")]
    assert "k" not in cache


@pytest.mark.parametrize(
    "how",
    [lambda cache: cache.drop("k"), lambda cache: cache.drop_all(), lambda cache: cache.close()],
    ids=["drop", "drop_all", "close"],
)
def test_removal_of_a_mere_copy_is_dropped(how: Any) -> None:
    """The value is as true as before; this process does not keep it any longer."""
    cache, told = told_cache()
    cache["k"] = 1
    how(cache)
    assert told == [("k", 1, "dropped")]


def test_removal_by_time_is_expired_when_it_is_met_or_reclaimed() -> None:
    """Not at the instant: nothing runs for its sake. (A small cache has one core, which every call comes to.)"""
    cache, told = told_cache(ttl=10, maxsize=10)
    cache.l1_set_clock(0)
    cache.update(a=1, b=2)
    cache.l1_set_clock(60 * SECOND)
    assert told == []
    assert cache.get("a") is None
    assert told == [("a", 1, "expired")]
    cache["c"] = 3
    assert told[1:] == [("b", 2, "expired")]


CHANGES: dict[str, Callable[[Any], object]] = {
    "assign": lambda cache: cache.__setitem__("k", 2),
    "set": lambda cache: cache.set("k", 2, tags=["t"]),
    "incr": lambda cache: cache.incr("k"),
    "compute": lambda cache: cache.compute("k", lambda _: 2),
    "add": lambda cache: cache.add("k", 2),
    "refresh": lambda cache: cache.refresh("k", lambda _: 2),
    "invalidate": lambda cache: cache.invalidate("k"),
    "drop": lambda cache: cache.drop("k"),
    "clear": lambda cache: cache.clear(),
    "drop_all": lambda cache: cache.drop_all(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [{"ttl": 100}, {"ttl": 100, "soft_ttl": 10}], ids=["plain", "aging"])
def test_removal_of_what_was_over_when_it_was_changed_is_expired(
    clock: Clock, options: dict[str, Any], change: str
) -> None:
    """Whatever comes then has replaced nothing that anybody could still get."""
    told: Told = []
    with nearcache.open("memory://", on_removal=lambda *removal: told.append(removal), **options) as cache:
        cache["k"] = 1
        clock(cache, 200)
        CHANGES[change](cache)
        assert told == [("k", 1, "expired")]


@pytest.mark.parametrize("was_read", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_removal_of_what_was_merely_old_is_none_by_time(clock: Clock, change: str, was_read: bool) -> None:
    """The soft end is no end: until the hard one it is the change that takes the value away."""
    told: Told = []
    with nearcache.open("memory://", ttl=100, soft_ttl=10, on_removal=lambda *removal: told.append(removal)) as cache:
        cache["k"] = 1
        clock(cache, 20)
        assert not was_read or cache.get("k") == 1
        CHANGES[change](cache)
        causes = {"drop": "dropped", "drop_all": "dropped", "invalidate": "invalidated", "clear": "invalidated"}
        assert told == ([] if change == "add" else [("k", 1, causes.get(change, "replaced"))])


def test_removal_is_told_with_the_key_held() -> None:
    """The caller's key is not kept, so it cannot be told."""
    cache, told = told_cache(key=str.lower)
    cache["ABC"] = 1
    cache["aBC"] = 2
    del cache["Abc"]
    assert told == [("abc", 1, "replaced"), ("abc", 2, "invalidated")]


def test_removal_is_told_after_the_change_and_may_use_the_cache() -> None:
    """The listener finds the cache as the change has left it."""
    seen: list[Any] = []

    def look(key: str, value: int, cause: RemovalCause) -> None:
        seen.append((cause, cache.get(key)))
        if cause == "evicted":
            cache.l1_set_clock(None)

    cache: MemoryCache[str, int] = MemoryCache(maxsize=1, on_removal=look)
    cache["a"] = 1
    cache["a"] = 2
    cache["b"] = 3
    cache.invalidate("b")
    assert seen == [("replaced", 2), ("evicted", None), ("invalidated", None)]


def test_removal_is_told_in_the_thread_that_caused_it() -> None:
    """A memory:// cache has no thread of its own."""
    threads: list[int] = []
    cache: MemoryCache[str, int] = MemoryCache(on_removal=lambda *_: threads.append(threading.get_ident()))
    cache["k"] = 1
    other = threading.Thread(target=cache.invalidate, args=("k",))
    other.start()
    other.join()
    assert threads == [other.ident]


def test_removal_listener_is_not_called_by_hits() -> None:
    """Reading what is there runs no Python code, a listener's included."""
    cache, told = told_cache(maxsize=2)
    cache.update(a=1, b=2)
    for _ in range(1000):
        assert (cache["a"], cache.get("b"), "a" in cache) == (1, 2, True)
    assert told == []


def test_removal_listener_that_raises_does_not_undo_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is complete; the exception goes where those of finalizers go."""
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    cache: MemoryCache[str, int] = MemoryCache(on_removal=lambda *_: 1 // 0)
    cache["k"] = 1
    assert cache.invalidate("k")
    assert [type(each.exc_value) for each in raised] == [ZeroDivisionError]
    assert "k" not in cache


def test_removal_listener_that_raises_goes_to_the_hook_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is not printed besides."""
    error, reported = ValueError("no"), []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value))

    def note(*_removal: Any) -> None:
        raise error

    cache: MemoryCache[str, int] = MemoryCache(on_removal=note)
    cache["k"] = 1
    cache["k"] = 2
    assert cache["k"] == 2
    assert reported == [error]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_removal_is_not_told_of_a_value_that_stays(options: dict[str, Any]) -> None:
    """Who closes what has been replaced would close what is in use."""
    told: Told = []
    cache = nearcache.open("memory://", on_removal=lambda *removal: told.append(removal), **options)
    value = ["in use"]
    cache["k"] = value
    cache.gets("k")
    cache.touch("k", ttl=50)
    assert cache.get_and_touch("k", ttl=50) is value
    cache["k"] = value
    cache.set("k", value, tags=["t"])
    assert cache.cas("k", value, cache.gets("k")[1])
    assert told == []
    cache.set("k", 2, tags=["t"])
    assert told == [("k", value, "replaced")]


def test_removal_of_a_loaded_value_is_told_as_any_other() -> None:
    """Whoever stored it."""
    cache, told = told_cache(loader=str.upper)
    assert cache["k"] == "K"
    cache["k"] = "other"
    assert told == [("k", "K", "replaced")]


def test_removal_causes_are_these_five() -> None:
    """The type lists what may come."""
    assert set(get_args(RemovalCause)) == {"evicted", "expired", "replaced", "invalidated", "dropped"}


# -- expire --------------------------------------------------------------------------------------------------------


def test_expire_returns_what_has_expired_and_keeps_the_rest() -> None:
    """As cachetools' TTLCache.expire does; the listener is told too."""
    cache, told = told_cache()
    cache.l1_set_clock(0)
    cache.set("a", 1, ttl=10)
    cache.set("b", 2, ttl=100)
    cache["c"] = 3
    assert cache.expire() == []
    cache.l1_set_clock(60 * SECOND)
    assert len(cache) == 3
    assert cache.expire() == [("a", 1)]
    assert cache.expire() == []
    assert len(cache) == 2
    assert told == [("a", 1, "expired")]
    assert cache.stats().l1.expirations == 1


def test_expire_at_an_instant_removes_what_ends_by_then() -> None:
    """In seconds of time.monotonic(), the past and the future included."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache.set("a", 1, ttl=100)
    cache.set("b", 2, ttl=1000)
    cache["c"] = 3
    now = time.monotonic()
    assert cache.expire(now - 10) == []
    assert cache.expire(now + 99) == []
    assert cache.expire(now + 101) == [("a", 1)]
    assert cache.expire(-math.inf) == cache.expire(-5) == []
    assert cache.expire(math.inf) == [("b", 2)]
    assert cache.l1_snapshot() == [("c", 3)]
    cache.set("a", 4, ttl=100)  # an instant that has not come has spoilt nothing
    assert cache["a"] == 4
    assert cache.expire() == []
    cache.check_invariants()


def test_expire_returns_the_keys_held() -> None:
    """After ``key=``."""
    cache: MemoryCache[str, int] = MemoryCache(key=str.lower, ttl=10)
    cache["ABC"] = 1
    assert cache.expire(time.monotonic() + 60) == [("abc", 1)]


@pytest.mark.parametrize(("instant", "error"), [(math.nan, ValueError), ("now", TypeError), ([], TypeError)])
def test_expire_at_what_is_no_instant_is_refused(instant: Any, error: type[Exception]) -> None:
    """Nothing is removed."""
    cache: MemoryCache[str, int] = MemoryCache(ttl=10)
    cache["k"] = 1
    with pytest.raises(error):
        cache.expire(instant)
    assert cache["k"] == 1


# -- policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", get_args(options.Policy))
def test_policy_of_either_kind_keeps_the_bound(policy: str) -> None:
    """Whatever decides who goes, one goes for each that comes."""
    cache, told = told_cache(maxsize=100, policy=policy)
    for n in range(1000):
        cache[n] = n
        cache.get(n % 7)
    assert len(cache) == 100
    assert len(told) == 900
    assert {cause for _, _, cause in told} == {"evicted"}
    cache.check_invariants()


def test_policy_lru_evicts_the_least_recently_used() -> None:
    """Exactly."""
    cache, told = told_cache(maxsize=3, policy="lru")
    cache.update(a=1, b=2, c=3)
    assert cache["a"] == 1
    cache["d"] = 4
    assert told == [("b", 2, "evicted")]


def test_policy_adaptive_keeps_what_is_used_through_a_scan() -> None:
    """Keys that are asked for once do not push out those that are asked for again and again."""
    cache: MemoryCache[Any, Any] = MemoryCache(maxsize=1000, policy="adaptive")
    for _ in range(20):
        for n in range(500):
            cache.get_or_load(n, lambda key: key)
    for n in range(20_000):
        cache.get_or_load(("scan", n), lambda key: key)
    assert sum(n in cache for n in range(500)) > 400


def test_policy_may_stand_in_the_url_and_in_no_other_spelling() -> None:
    """The error says what is allowed."""
    assert nearcache.open("memory://?policy=lru").settings.policy == "lru"
    with pytest.raises(nearcache.ConfigError, match=r"policy='LRU': give one of 'lru', 'adaptive'"):
        nearcache.open("memory://", policy="LRU")


# -- no lock of the cache is held while the listener is told ------------------------------------------------------

WAYS: dict[str, Callable[[Any, int], Any]] = {
    "load": lambda cache, key: cache.get_or_load(key, str),
    "set": lambda cache, key: cache.set(key, key, tags=["t"]),
    "add": lambda cache, key: cache.add(key, key),
    "incr": lambda cache, key: cache.incr(key),
    "drop": lambda cache, key: (cache.set(key, key), cache.drop(key)),
    "pop": lambda cache, key: (cache.set(key, key), cache.pop(key)),
    "clear": lambda cache, key: (cache.set(key, key), cache.clear()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heard", [False, True])
def test_removal_listener_may_wait_for_a_lock_that_another_thread_has_which_uses_the_cache(
    heard: bool, kind: str, way: str
) -> None:
    """As a program's own lock around what it does with the cache and with what goes from it."""
    lock, begun, done = threading.RLock(), threading.Event(), threading.Event()

    def gone(_key: Any, _value: Any, _cause: RemovalCause) -> None:
        begun.set()
        with lock:
            pass

    cache: Any = nearcache.open("memory://", maxsize=1, on_removal=gone, **KINDS[kind])
    if heard:
        cache.listen(lambda _: None)

    def use(key: int) -> None:
        WAYS[way](cache, key)
        WAYS[way](cache, key + 1)

    def use_under_lock() -> None:
        with lock:
            ready.set()
            if begun.wait(PATIENCE):
                use(5)
        done.set()

    ready = threading.Event()
    threads = [threading.Thread(target=work, daemon=True) for work in (use_under_lock, lambda: use(1))]
    threads[0].start()
    assert ready.wait(PATIENCE)
    threads[1].start()
    for thread in threads:
        thread.join(PATIENCE)
    assert done.is_set()
    assert not threads[1].is_alive()
    cache.close()


@pytest.mark.parametrize("kind", KINDS)
def test_removal_listener_told_late_is_told_in_order_and_what_it_raises_goes_to_the_hook(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``clear`` under the lock of several; each is told, whatever the one before has raised."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_value.args))

    def note(key: Any, value: Any, cause: RemovalCause) -> None:
        raise ValueError(key, value, cause)

    cache: Any = nearcache.open("memory://", on_removal=note, **KINDS[kind])
    for key in range(3):
        cache.set(key, key, tags=["t"])
    cache.set(0, "new", tags=["t"])
    cache.incr(1)
    cache.clear()
    assert reported[:2] == [(0, 0, "replaced"), (1, 1, "replaced")]
    assert sorted(reported[2:], key=str) == [(0, "new", "invalidated"), (1, 2, "invalidated"), (2, 2, "invalidated")]
