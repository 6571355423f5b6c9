"""Copies and pickles of a ``memory://`` cache: what they take along and what not."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import MemoryCache, RemovalCause
from nearcache.cache.memory import copying
from nearcache.clocks import TICK_NS, monotonic_ns

Copy = Callable[[Any], Any]

PICKLES: list[Copy] = [
    lambda cache, p=protocol: pickle.loads(pickle.dumps(cache, p)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
]
WAYS: list[Copy] = [lambda cache: cache.copy(), copy.copy, copy.deepcopy, *PICKLES]
NAMES = ["method", "copy", "deepcopy", *(f"pickle{protocol}" for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]

every_way = pytest.mark.parametrize("way", WAYS, ids=NAMES)


def load_upper(key: str) -> str:
    return key.upper()


def note(key: Any, value: Any, cause: RemovalCause) -> None:
    noted.append((key, value, cause))


noted: list[tuple[Any, Any, RemovalCause]] = []


class Shelf(MemoryCache[str, Any]):
    """A subclass with a constructor, a hook, slots and attributes of its own."""

    __slots__ = ("__secret", "label", "unset")

    def __init__(self, label: str, *, colour: str) -> None:
        super().__init__(maxsize=5)
        self.label = label
        self.__secret = "s3"
        self.colour = colour

    def secret(self) -> str:
        return self.__secret

    def _missing(self, key: str) -> Any:
        return f"{self.label} has no {key}"


class Counted(MemoryCache[str, int]):
    """A subclass that adds to what is pickled, and leaves something out."""

    opened = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "more": 7}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.opened = state["more"]


class Sized(MemoryCache[str, str]):
    """Sizes values by a method of its own."""

    def __init__(self) -> None:
        self.unit = 10
        super().__init__(maxbytes=100, getsizeof=self.size)

    def size(self, value: str) -> int:
        return len(value) * self.unit


@every_way
def test_copy_has_settings_and_entries_in_their_order(way: Copy) -> None:
    """And is a cache of its own."""
    cache: MemoryCache[Any, Any] = MemoryCache(
        maxsize=3, policy="lru", ttl=60, loader=load_upper, key=str.lower, on_removal=note
    )
    cache.update(A=1, B=[2], C=3)
    assert cache["a"] == 1
    copied = way(cache)
    assert type(copied) is MemoryCache
    assert copied.settings == cache.settings
    assert copied.l1_snapshot() == cache.l1_snapshot() == [("b", [2]), ("c", 3), ("a", 1)]
    copied["D"] = 4
    assert "b" not in copied
    assert "b" in cache
    assert copied["missing"] == "MISSING"
    copied.check_invariants()


@every_way
def test_copy_of_an_adaptive_cache_holds_the_same(way: Copy) -> None:
    """What it had learnt of the keys it learns anew."""
    cache: MemoryCache[int, int] = MemoryCache(maxsize=100, policy="adaptive")
    cache.update({n: n for n in range(150)})
    copied = way(cache)
    assert copied.settings.policy == "adaptive"
    assert copied == cache
    assert len(copied) == 100


@every_way
def test_copy_keeps_what_is_left_of_the_lifetimes(way: Copy) -> None:
    """No entry lives longer for having been copied, and one without an end has none."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache.set("a", 1, ttl=100)
    cache.set("b", 2, ttl=1000)
    cache["c"] = 3
    copied, now = way(cache), time.monotonic()
    assert copied.expire(now + 90) == []
    assert copied.expire(now + 101) == [("a", 1)]
    assert copied.expire(now + 1001) == [("b", 2)]
    assert copied.l1_snapshot() == [("c", 3)]


@every_way
def test_copy_lives_no_tick_longer_than_what_it_was_made_of(way: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is told by the clock of L1, which is behind by up to a tick."""
    now_ns = monotonic_ns()
    cache: MemoryCache[str, int] = MemoryCache()
    cache.set("a", 1, ttl=100)
    cache.l1_set_clock(now_ns)
    monkeypatch.setattr(copying, "monotonic_ns", lambda: now_ns + TICK_NS)
    copied = way(cache)
    copied.l1_set_clock(now_ns)
    assert copied.remaining_ns("a") == cache.remaining_ns("a")


@every_way
def test_copy_leaves_out_what_has_expired(way: Copy) -> None:
    """Held or not."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache.l1_set_clock(0)
    cache.set("a", 1, ttl=1)
    cache["b"] = 2
    cache.l1_set_clock(5 * 10**9)
    assert len(cache) == 2
    assert way(cache).l1_snapshot() == [("b", 2)]


@every_way
def test_copy_starts_its_counters_anew(way: Copy) -> None:
    """What happened, happened to the other one."""
    cache: MemoryCache[str, str] = MemoryCache(loader=load_upper)
    assert (cache["k"], cache["k"]) == ("K", "K")
    copied = way(cache)
    assert (copied.stats().l1.hits, copied.stats().l1.misses, copied.stats().loader.loads) == (0, 0, 0)
    assert copied["k"] == "K"
    assert copied.stats().l1.hits == 1


@every_way
def test_copy_does_not_apply_the_key_function_again(way: Copy) -> None:
    """The keys held are already what it returns."""
    cache: MemoryCache[Any, int] = MemoryCache(key=repr)
    cache["k"] = 1
    copied = way(cache)
    assert copied.l1_snapshot() == [("'k'", 1)]
    assert copied["k"] == 1


@every_way
def test_copy_counts_sizes_again(way: Copy) -> None:
    """The bound in bytes holds in the copy as well."""
    cache: MemoryCache[int, bytes] = MemoryCache(maxbytes=100, getsizeof=len, policy="lru")
    cache.update({1: b"x" * 40, 2: b"y" * 40})
    copied = way(cache)
    assert copied.stats().l1.size_bytes == 80
    copied[3] = b"z" * 40
    assert list(copied) == [2, 3]


@every_way
def test_copy_of_a_subclass_keeps_attributes_slots_and_hooks(way: Copy) -> None:
    """Its constructor is not called again: it may need what nobody can know."""
    shelf = Shelf("top", colour="red")
    shelf["k"] = 1
    copied = way(shelf)
    assert type(copied) is Shelf
    assert (copied.label, copied.secret(), copied.colour) == ("top", "s3", "red")
    assert not hasattr(copied, "unset")
    assert copied["k"] == 1
    assert copied["m"] == "top has no m"
    assert copied.settings.maxsize == 5
    assert "__dict__" not in vars(copied)


@every_way
def test_copy_of_a_subclass_with_a_state_of_its_own(way: Copy) -> None:
    """It may extend both halves."""
    cache = Counted()
    cache["k"] = 1
    copied = way(cache)
    assert (copied.opened, copied["k"]) == (7, 1)


@every_way
def test_copy_of_a_subclass_that_refers_to_itself_in_its_settings(way: Copy) -> None:
    """Attributes are there before the entries are sized."""
    cache = Sized()
    cache["k"] = "xxx"
    copied = way(cache)
    assert copied.stats().l1.size_bytes == 30


@every_way
def test_copy_of_a_cache_with_type_arguments(way: Copy) -> None:
    """They are an attribute, which is copied like any other."""
    cache = MemoryCache[str, int]("memory://?maxsize=3")
    cache["k"] = 1
    assert way(cache)["k"] == 1


@pytest.mark.parametrize("way", [copy.deepcopy, *PICKLES], ids=["deepcopy", *NAMES[3:]])
def test_deep_copy_of_a_cache_that_holds_itself_holds_itself(way: Copy) -> None:
    """Cycles are no endless loop."""
    cache: MemoryCache[str, Any] = MemoryCache()
    cache["self"] = cache
    copied = way(cache)
    assert copied is not cache
    assert copied["self"] is copied
    for each in (cache, copied):
        each.clear()


def test_copy_shares_the_values_and_deepcopy_does_not() -> None:
    """As dict.copy and copy.deepcopy do with a dict."""
    cache: MemoryCache[str, Any] = MemoryCache()
    cache["k"] = [1]
    assert copy.copy(cache)["k"] is cache.copy()["k"] is cache["k"]
    assert copy.deepcopy(cache)["k"] is not cache["k"]


def test_copy_keeps_the_listener_which_hears_nothing_of_the_copying() -> None:
    """Nothing is removed by it."""
    noted.clear()
    cache: MemoryCache[str, int] = MemoryCache(on_removal=note, maxsize=2, policy="lru")
    cache.update(a=1, b=2)
    copied = pickle.loads(pickle.dumps(cache))
    assert noted == []
    copied["c"] = 3
    assert noted == [("a", 1, "evicted")]


def test_pickle_of_a_cache_with_a_function_that_pickle_refuses_is_refused() -> None:
    """Callables are pickled as pickle pickles them: by name."""
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(MemoryCache(loader=lambda key: key))


@every_way
def test_copy_of_a_closed_cache_is_refused(way: Copy) -> None:
    """It holds nothing, and says so as in any other use."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache.close()
    with pytest.raises(nearcache.ClosedError):
        way(cache)


def test_setstate_of_a_cache_in_use_is_refused() -> None:
    """It is for new objects."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache["k"] = 1
    with pytest.raises(ValueError, match="already"):
        cache.__setstate__(cache.__getstate__())
    assert cache["k"] == 1


@every_way
def test_copy_takes_tags_along(way: Copy) -> None:
    """What ends a value ends its copy, in the copy."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache.set("red", 1, tags=["red"])
    cache.set("both", 2, tags=["red", "blue"])
    cache["plain"] = 3
    copied = way(cache)
    copied.invalidate_tag("blue")
    assert dict(copied.items()) == {"red": 1, "plain": 3}
    copied.invalidate_tag("red")
    assert dict(copied.items()) == {"plain": 3}
    assert dict(cache.items()) == {"red": 1, "both": 2, "plain": 3}


@every_way
def test_copy_takes_views_along(way: Copy) -> None:
    """Clearing one in the copy empties it there."""
    cache: MemoryCache[Any, int] = MemoryCache()
    cache.view("u")["k"] = 1
    copied = way(cache)
    copied.view("u").clear()
    assert ("k" in copied.view("u"), "k" in cache.view("u")) == (False, True)


@every_way
def test_copy_takes_what_is_old_along(way: Copy) -> None:
    """A value that has grown old is served until its hard end, by the copy too."""
    cache = nearcache.open("memory://", ttl=60, soft_ttl=30, ages=True)
    cache["new"], cache["old"] = 1, 2
    cache.l1_set_clock(monotonic_ns() + 31_000_000_000)
    cache["new"] = 3
    copied = way(cache)
    assert (copied.get("new"), copied.get("old")) == (3, 2)
    copied._old.l1_set_clock(monotonic_ns() + 45_000_000_000)
    assert (cache.get("old"), copied.get("old")) == (2, 2)
    copied._old.l1_set_clock(monotonic_ns() + 61_000_000_000)
    assert copied.get("old") is None
