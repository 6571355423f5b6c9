"""Checked by mypy and pyright, never run: what a type checker makes of a cache in a user's program."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import nearcache
from nearcache import Cache, CacheInfo, EntryEvent, Health, MemoryCache, RemovalCause, SelfTest, Stats, View
from nearcache.aio import AsyncView
from nearcache.events import EventKind

assert_type(nearcache.open(), Cache[Any, Any])
assert_type(nearcache.open("redis://a:6379,b:6379", namespace="shop", ttl=300, max_staleness=1.0), Cache[Any, Any])

# A variable's own annotation is how a program says what its cache holds.
prices: Cache[str, int] = nearcache.open("memory://", maxsize=100)
names: Cache[Any, str] = nearcache.open("memory://")


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


def load_many(skus: list[str]) -> dict[str, int | nearcache.Loaded[int]]:
    """A bulk loader: some values come with terms of their own."""
    return {sku: nearcache.Loaded(len(sku), ttl=5, tags=["t"], validator="v") for sku in skus}


@nearcache.conditional
def load_newer(sku: str, old: nearcache.Old | None) -> int | nearcache.Loaded[int] | nearcache.Unchanged:
    """A loader that is shown what is there."""
    return (
        nearcache.UNCHANGED if old is not None and old.validator == "v" else nearcache.Loaded(len(sku), validator="v")
    )


@nearcache.conditional
def load_newer_int(sku: str, old: nearcache.Old[int] | None) -> int | nearcache.Unchanged:
    """The same; what it is shown has the value's type."""
    if old is not None:
        assert_type(old.value, int)
        return nearcache.UNCHANGED
    return len(sku)


class Repository:
    """Loaders that are methods."""

    @nearcache.conditional
    def load_newer(self, sku: str, old: nearcache.Old[int] | None) -> int | nearcache.Unchanged:
        """Of an instance."""
        return nearcache.UNCHANGED if old else len(sku)

    @classmethod
    @nearcache.conditional
    def load_class(cls, sku: str, old: nearcache.Old[int] | None) -> int | nearcache.Unchanged:
        """Of a class."""
        return nearcache.UNCHANGED if old else len(sku)

    @staticmethod
    @nearcache.conditional
    def load_static(sku: str, old: nearcache.Old[int] | None) -> int | nearcache.Unchanged:
        """Of nothing."""
        return nearcache.UNCHANGED if old else len(sku)


def read_through() -> None:
    """Loaders may answer with terms; what the caller gets is the value."""
    assert_type(prices.get_or_load_many(["a", "b"], load_many, ttl=5, tags=["t"], max_age=5), dict[str, int])
    assert_type(prices.get_many(["a"], max_age=5), dict[str, int])
    assert_type(prices.get("a", max_age=5), int | None)
    assert_type(prices.get("a", 0, max_age=5), int)
    assert_type(prices.get_or_load("a", load, max_age=5), int)
    assert_type(prices.get_or_load("a", lambda sku: nearcache.Loaded(len(sku)), max_age=5), int)
    assert_type(prices.get_or_load("a", load_newer), int)
    assert_type(prices.refresh("a", load_newer), int)
    assert_type(prices.refresh("a", load_newer_int), int)
    assert_type(prices.refresh("a", Repository().load_newer), int)
    assert_type(prices.refresh("a", Repository.load_class), int)
    assert_type(prices.refresh("a", Repository.load_static), int)
    prices.get_or_load_many(["a"], lambda skus: dict.fromkeys(skus, "x"))  # type: ignore[arg-type]  # other values
    prices.get_or_load("a", lambda sku: nearcache.Loaded("x"))  # type: ignore[arg-type]  # likewise


def use_verbs() -> None:
    """Verbs know the value's type; what they return for nothing is the caller's own."""
    assert_type(prices.add("a", 1, ttl=5, tags=["t"]), bool)
    assert_type(prices.replace("a", 1), bool)
    assert_type(prices.gets("a"), tuple[int | None, int])
    assert_type(prices.gets("a", "none"), tuple[int | str, int])
    value, version = prices.gets("a", 0)
    assert_type(version, int)
    assert_type(prices.cas("a", value, version), bool)
    assert_type(prices.incr("a", 2, initial=1, ttl=5), int)
    assert_type(prices.decr("a"), int)
    assert_type(prices.compute("a", lambda there: int(there) + 1, default=0), int)
    assert_type(prices.append("a", b"x"), bool)
    assert_type(prices.prepend("a", "x"), bool)
    assert_type(prices.touch("a", nearcache.Idle(5)), bool)
    prices.get_and_set("a", 1)
    prices.get_and_delete("a", None)
    prices.get_and_touch("a", 5, default=0)
    assert_type(prices.setdefault("a", 1), int)
    prices.add("a", "1")  # type: ignore[arg-type]  # a wrong value
    prices.compute("a", repr)  # type: ignore[arg-type]  # it makes a value of another type
    prices.append("a", 1)  # type: ignore[arg-type]  # no text


def total(of: Mapping[str, int]) -> int:
    """Takes what is read."""
    return sum(of.values())


def raise_all(of: MutableMapping[str, int]) -> None:
    """Takes what is changed."""
    of.update({key: value + 1 for key, value in of.items()})


def use_as_a_mapping(memory: MemoryCache[str, int]) -> None:
    """What takes a mapping takes a cache."""
    assert_type(total(prices) + total(memory), int)
    raise_all(prices)
    raise_all(memory)


def use_groups() -> None:
    """Views have keys of their own, and values of the cache's; holds and tokens are what they say."""
    assert_type(prices.view("users"), View[Any, int])
    assert_type(prices.view("users").view("old"), View[Any, int])
    users: View[int, str] = names.view("users")
    assert_type(users[1], str)
    assert_type(users.get(1), str | None)
    assert_type(users.get(1, 2), str | int)
    assert_type(users.pop(1), str)
    assert_type(users.pop(1, None), str | None)
    assert_type(users.get_many([1]), dict[int, str])
    assert_type(users.incr(1), int)
    assert_type(users.aio, AsyncView[int, str])
    assert_type(list(users), list[int])
    users["a"] = "x"  # type: ignore[index]  # a key of another type
    prices.invalidate_tag("t")
    with prices.hold(["a"], 5, linger=1):
        pass
    assert_type(prices.token(), str)
    prices.wait_for(prices.token(), timeout=1)
    prices.selftest(timeout=timedelta(seconds=1))
    prices.set("a", 1, ttl=nearcache.Idle(5))
    prices.set("a", 1, ttl=lambda key, value: nearcache.Idle(len(key) + value))


def use_as_mapping() -> None:
    """The mapping half speaks of this process's L1."""
    assert_type(iter(prices), Iterator[str])
    assert_type(prices.scan("a"), Iterator[str])
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


def write_behind() -> None:
    """What writes takes any function of key and value; what could not be written is typed."""
    own = nearcache.open("redis://a", writer=nearcache.Writer(write=note_row, delete=print), write_delay=1)
    own.flush(timeout=timedelta(minutes=5))
    assert_type(own.dead_letters(), list[nearcache.DeadLetter])
    assert_type(own.dead_letters()[0].id, str)
    assert_type(own.replay_dead_letters(), int)
    assert_type(own.discard_dead_letters(["0-1-0"]), int)
    assert_type(own.stats().writing.backlog, int)
    nearcache.Writer(write=len)  # type: ignore[arg-type]  # it takes one argument


def note_row(key: str, value: int) -> None:
    """A writer."""


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
