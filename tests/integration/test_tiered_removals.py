"""What ``on_removal`` of a cache on Redis is told, when, and in which thread; its expiry and its copies."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, MemoryCache, RemovalCause
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

Removal = tuple[Any, Any, RemovalCause]


@pytest.fixture
def open_told(redis_server: RedisServer) -> Iterator[Callable[..., tuple[Cache[Any, Any], list[Removal]]]]:
    """Open caches that note what they are told; they are closed at the end."""
    opened: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> tuple[Cache[Any, Any], list[Removal]]:
        told: list[Removal] = []
        cache = nearcache.open(redis_server.url, on_removal=lambda *removal: told.append(removal), **options)
        opened.append(cache)
        return cache, told

    yield opener
    for cache in opened:
        cache.close()


def heard(*caches: Cache[Any, Any]) -> None:
    """Wait until these caches have applied every message sent so far."""
    for cache in caches:
        assert cache.selftest().ok


# -- causes --------------------------------------------------------------------------------------------------------


def test_own_overwrite_is_replaced(open_told: Callable[..., Any]) -> None:
    """L1 held a value and keeps the new one, by each way of writing; its own message removes nothing."""
    cache, told = open_told()
    cache["k"] = 1
    cache["k"] = 2
    cache.set("k", 3, ttl=60)
    cache.set_many({"k": 4})
    heard(cache)
    assert told == [("k", 1, "replaced"), ("k", 2, "replaced"), ("k", 3, "replaced")]
    assert cache.peek("k") == 4


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
def test_own_invalidation_is_invalidated(open_told: Callable[..., Any], how: Any) -> None:
    """In the thread that calls, and once: the message that comes back finds nothing."""
    cache, told = open_told()
    cache["k"] = 1
    how(cache)
    assert told == [("k", 1, "invalidated")]
    heard(cache)
    assert len(told) == 1


@pytest.mark.parametrize(
    "how",
    [
        lambda cache: cache.set("k", 2),
        lambda cache: cache.set_many({"k": 2}),
        lambda cache: cache.incr("k"),
        lambda cache: cache.compute("k", lambda _: 2),
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.drop("k"),
        lambda cache: cache.clear(),
    ],
    ids=["set", "set_many", "incr", "compute", "invalidate", "drop", "clear"],
)
def test_own_change_of_what_is_over_is_expired(
    open_told: Callable[..., Any], redis_server: RedisServer, how: Any
) -> None:
    """The copy had ended before; whether the listener's thread has met it already makes no difference."""
    cache, told = open_told()
    cache.set("k", 1, ttl=0.05)
    wait_until(lambda: cache.peek("k") is None and not redis_server.cli("KEYS", "*:v:*"))  # L2's lives a little longer
    how(cache)
    heard(cache)
    assert told == [("k", 1, "expired")]


@pytest.mark.parametrize(
    "how",
    [
        lambda other: other.set("k", 2),
        lambda other: other.set_many({"k": 2}),
        lambda other: other.invalidate("k"),
        lambda other: other.delete_many(["k"]),
    ],
    ids=["set", "set_many", "invalidate", "delete_many"],
)
def test_change_elsewhere_is_invalidated(open_told: Callable[..., Any], how: Any) -> None:
    """Whether the other process wrote or removed: this one's copy is not true any more."""
    other, _ = open_told()
    cache, told = open_told()
    cache["k"] = 1
    heard(cache, other)
    how(other)
    heard(cache)
    assert told == [("k", 1, "invalidated")]


def test_message_is_told_in_the_listeners_thread(redis_server: RedisServer) -> None:
    """Which therefore must not be kept waiting."""
    threads: list[str] = []
    with (
        nearcache.open(
            redis_server.url, on_removal=lambda *_: threads.append(threading.current_thread().name)
        ) as cache,
        nearcache.open(redis_server.url) as other,
    ):
        cache["k"] = 1
        heard(other)
        other["k"] = 2
        heard(cache)
        assert threads == ["nearcache-listener"]
        cache["k"] = 3
        cache.drop("k")
        assert threads == ["nearcache-listener", threading.current_thread().name]


def test_listener_of_removals_may_close_the_cache(redis_server: RedisServer) -> None:
    """Even in the thread that close() would otherwise wait for."""
    told: list[Removal] = []
    closed = threading.Event()

    def close(*removal: Any) -> None:
        told.append(removal)
        cache.close()
        closed.set()

    cache = nearcache.open(redis_server.url, on_removal=close)
    with nearcache.open(redis_server.url) as other:
        cache.set_many({"a": 1, "b": 2})
        heard(cache, other)
        other.invalidate("a")
        assert closed.wait(20)
    assert told == [("a", 1, "invalidated"), ("b", 2, "dropped")]
    with pytest.raises(nearcache.ClosedError):
        cache.get("b")


def test_clear_elsewhere_is_invalidated_when_the_entry_is_met(open_told: Callable[..., Any]) -> None:
    """A clear costs O(1) everywhere, so nothing goes through the entries. They are not served any more at once."""
    other, _ = open_told()
    cache, told = open_told()
    cache["k"] = 1
    heard(cache, other)
    other.clear()
    wait_until(lambda: cache.get("k") is None)
    assert told == [("k", 1, "invalidated")]


def test_copy_that_alone_goes_is_dropped(open_told: Callable[..., Any]) -> None:
    """drop, drop_all and close leave L2, and the other processes, as they are."""
    cache, told = open_told()
    cache.set_many({"a": 1, "b": 2, "c": 3})
    cache.drop("a")
    assert told == [("a", 1, "dropped")]
    cache.drop_all()
    assert sorted(told[1:]) == [("b", 2, "dropped"), ("c", 3, "dropped")]
    heard(cache)
    assert cache["a"] == 1
    cache.close()
    cache.close()
    assert told[3:] == [("a", 1, "dropped")]


def test_copy_that_makes_room_is_evicted_and_stays_in_l2(open_told: Callable[..., Any]) -> None:
    """Whether room is needed for a write or for a read."""
    cache, told = open_told(maxsize=1, policy="lru")
    cache["a"] = 1
    cache["b"] = 2
    heard(cache)
    assert cache["a"] == 1
    assert told == [("a", 1, "evicted"), ("b", 2, "evicted")]


def test_failed_write_is_invalidated(open_told: Callable[..., Any], redis_server: RedisServer) -> None:
    """Nobody knows which value L2 holds, so L1 keeps neither."""
    cache, told = open_told()
    cache["k"] = 1
    heard(cache)
    redis_server.kill()
    with pytest.raises(nearcache.ShardUnavailableError):
        cache["k"] = 2
    assert told == [("k", 1, "invalidated")]


def test_removal_is_told_with_the_key_held(open_told: Callable[..., Any]) -> None:
    """After ``key=``, which is also what messages carry."""
    cache, told = open_told(key=str.lower)
    cache["ABC"] = 1
    cache.invalidate("aBC")
    assert told == [("abc", 1, "invalidated")]


# -- time ----------------------------------------------------------------------------------------------------------


def test_expired_copies_are_reclaimed_without_any_call(open_told: Callable[..., Any]) -> None:
    """The listener's thread does it, a heartbeat or so after their time: memory returns after a burst."""
    cache, told = open_told(l1_ttl=1.0, max_staleness=0.4)
    values = {n: str(n) for n in range(3000)}
    cache.set_many(values)
    wait_until(lambda: len(cache) == 0)
    assert sorted(told) == [(n, str(n), "expired") for n in range(3000)]
    assert cache.stats().l1.expirations == 3000
    assert cache.get_many(values) == values


def test_expire_removes_from_l1_alone(open_told: Callable[..., Any]) -> None:
    """L2 ends its entries by itself."""
    cache, told = open_told(l1_ttl=60)
    cache["k"] = 1
    assert cache.expire() == []
    assert cache.expire(time.monotonic() + 61) == [("k", 1)]
    assert told == [("k", 1, "expired")]
    assert len(cache) == 0
    assert cache["k"] == 1


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_policy_of_either_kind_keeps_the_bound(open_told: Callable[..., Any], policy: str) -> None:
    """As in a cache of memory alone."""
    cache, told = open_told(maxsize=10, policy=policy)
    cache.set_many({n: n for n in range(50)})
    assert len(cache) == 10
    assert [cause for _, _, cause in told].count("evicted") == 40
    assert cache.get_many(range(50)) == {n: n for n in range(50)}


# -- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_cache_on_redis_is_not_pickled_and_says_what_to_do(open_told: Callable[..., Any], way: Any) -> None:
    """A connection cannot travel; a URL can."""
    cache, _ = open_told(namespace="shop")
    with pytest.raises(TypeError, match=r"open another with the same URL and namespace='shop'"):
        way(cache)


def test_copy_of_l1_keeps_lifetimes_and_the_key_function(open_told: Callable[..., Any]) -> None:
    """A memory:// cache that hears of nothing any more."""
    cache, told = open_told(key=str.lower, maxsize=7, policy="lru", loader=str.upper)
    cache.set("A", 1, ttl=100)
    cache["B"] = 2
    copied = cache.copy()
    assert isinstance(copied, MemoryCache)
    assert (copied.settings.maxsize, copied.settings.loader, copied.settings.on_removal) == (7, None, None)
    assert copied.l1_snapshot() == [("a", 1), ("b", 2)]
    assert copied["b"] == copied["B"] == 2
    assert copied.expire(time.monotonic() + 101) == [("a", 1)]
    assert copied.expire(time.monotonic() + 3601) == [("b", 2)]
    assert (told, len(cache)) == ([], 2)


# -- many keys -----------------------------------------------------------------------------------------------------


def test_get_many_with_a_key_function_returns_the_callers_keys(open_told: Callable[..., Any]) -> None:
    """Also where several of them mean one entry, whether L1 holds it or not."""
    cache, _ = open_told(key=str.lower)
    cache.set_many({"a": 1, "b": 2})
    wanted = {"A": 1, "a": 1, "B": 2}
    assert cache.get_many(["A", "a", "B", "A", "c"]) == wanted
    heard(cache)
    cache.drop_all()
    assert cache.get_many(["A", "a", "B", "A", "c"]) == wanted
