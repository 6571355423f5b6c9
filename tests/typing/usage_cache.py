"""Checked by mypy, never run: what a type checker makes of a cache in a user's program."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from typing_extensions import assert_type

import nearcache
from nearcache import Cache, CacheInfo, EntryEvent, Health, MemoryCache, RemovalCause, SelfTest, Stats
from nearcache.events import EventKind

assert_type(nearcache.open(), Cache[Any, Any])
assert_type(nearcache.open("redis://a:6379,b:6379", namespace="shop", ttl=300, max_staleness=1.0), Cache[Any, Any])

# A variable's own annotation is how a program says what its cache holds.
prices: Cache[str, int] = nearcache.open("memory://", maxsize=100)


def load(sku: str) -> int:
    """A loader: from the key to the value."""
    return len(sku)


def use_single_keys() -> None:
    """Reads and writes of one key know its type and the value's."""
    assert_type(prices["a"], int)
    assert_type(prices.get("a"), int | None)
    assert_type(prices.get("a", 0), int)
    assert_type(prices.get("a", "none"), int | str)
    assert_type(prices.pop("a"), int)
    assert_type(prices.pop("a", None), int | None)
    assert_type(prices.popitem(), tuple[str, int])
    assert_type(prices.peek("a"), int | None)
    assert_type(prices.get_or_load("a", load, ttl=5), int)
    assert_type(prices.invalidate("a"), bool)
    assert_type(prices.drop("a"), bool)
    assert_type("a" in prices, bool)
    prices["a"] = 1
    prices.set("a", 1, ttl=2.5)
    prices.set("a", 1, ttl=None)
    del prices["a"]


def use_many_keys() -> None:
    """Bulk operations take any iterable of keys and any mapping of values."""
    assert_type(prices.get_many(["a", "b"]), dict[str, int])
    prices.set_many({"a": 1}, ttl=5)
    prices.set_many([("a", 1)])
    prices.delete_many({"a", "b"})
    prices.update({"a": 1})
    prices.update(a=1)


def use_as_mapping() -> None:
    """The mapping half speaks of this process's L1."""
    assert_type(iter(prices), Iterator[str])
    assert_type(len(prices), int)
    assert_type(prices.keys(), KeysView[str])
    assert_type(prices.values(), ValuesView[int])
    assert_type(prices.items(), ItemsView[str, int])
    assert_type(prices.copy(), Cache[str, int])
    assert_type(prices.expire(), list[tuple[str, int]])
    assert_type(prices.expire(12.5), list[tuple[str, int]])


class Shelf(MemoryCache[str, int]):
    """A copy of a subclass is one too."""


def copy_memory(shelf: Shelf) -> None:
    """The class stays the same."""
    assert_type(shelf.copy(), Shelf)


def note(key: str, value: int, cause: RemovalCause) -> None:
    """What ``on_removal`` may be: a comparison with a cause that does not exist is an error."""
    if cause == "evicted":
        print(key, value)
    elif cause == "lost":  # type: ignore[comparison-overlap]  # there is no such cause
        print(key)


noting = nearcache.open("memory://", policy="adaptive", on_removal=note)


def observe() -> None:
    """What monitoring reads is typed down to the numbers."""
    assert_type(prices.cache_info(), CacheInfo)
    assert_type(prices.cache_info().hits, int)
    assert_type(prices.stats(), Stats)
    assert_type(prices.stats().l1.hit_ratio, float)
    assert_type(prices.health(), Health)
    assert_type(prices.health().ok, bool)
    assert_type(prices.selftest(), SelfTest)


def close() -> None:
    """A cache is a context manager that hands on its own type."""
    with nearcache.open("memory://") as cache:
        assert_type(cache, Cache[Any, Any])
    with MemoryCache[str, int]("memory://") as own:
        assert_type(own, MemoryCache[str, int])


def refuse() -> None:
    """What cannot work is an error before the program runs; unused ignores are errors, so these are checked."""
    prices["a"] = "1"  # type: ignore[assignment]  # a wrong value
    prices.set(1, 1)  # type: ignore[arg-type]  # a wrong key
    prices.set("a", 1, 5)  # type: ignore[call-arg]  # the lifetime is keyword-only
    prices.get_or_load("a", str.upper)  # type: ignore[arg-type]  # a loader of another type


def use_listeners() -> None:
    """A listener takes an event; the handle counts."""

    def note(event: EntryEvent) -> None:
        assert_type(event.kind, EventKind)
        assert_type(event.has_value, bool)

    with prices.listen(note, events=["created", "removed"], queue=10) as subscription:
        assert_type(subscription.dropped, int)
        assert_type(subscription.flush(1.0), bool)
    prices.view("v").listen(print)
    prices.listen(len)  # type: ignore[arg-type]  # it takes no event
