"""Views on ``memory://``: keys, tags, iteration, nesting."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

import nearcache
from nearcache import MemoryCache


def test_view_is_a_mapping_over_keys_that_begin_with_its_name() -> None:
    """The same entries under two names; other keys are not in it."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    view = cache.view("v")
    assert isinstance(view, MutableMapping)
    view["a"] = 1
    view.update(b=2, c=3)
    cache["a"] = "not in it"
    assert cache["v", "a"] == view["a"] == view.get("a") == 1
    assert (sorted(view), len(view), "a" in view, "d" in view) == (["a", "b", "c"], 3, True, False)
    assert view.pop("b") == 2
    assert view.setdefault("c", 9) == 3
    assert view.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}
    view.set_many({"d": 4, "e": 5})
    view.delete_many(["d"])
    assert dict(view.items()) == {"a": 1, "c": 3, "e": 5}
    del view["a"]
    with pytest.raises(KeyError):
        del view["a"]
    assert cache["a"] == "not in it"


def test_view_clear_reaches_what_was_stored_through_it_and_its_views() -> None:
    """Whatever method stored it; the neighbours and the rest of the cache stay, and names cannot run together."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    view, inner = cache.view("v"), cache.view("v").view("w")
    neighbours = [cache.view(f"v:{number}:w") for number in range(1, 6)]
    view["set"] = cache["k"] = 1
    for near in neighbours:
        near["k"] = 1
    view.add("add", 1)
    view.incr("incr")
    view.compute("compute", lambda there: there, 1)
    assert view.get_or_load("load", lambda key: key) == "load"
    inner["k"] = inner["l"] = 1
    inner.clear()
    assert (len(view), len(inner)) == (5, 0)
    inner["k"] = 1
    assert list(inner) == ["k"]
    view.clear()
    assert (len(view), len(inner), cache["k"]) == (0, 0, 1)
    assert sum(map(len, neighbours)) == 5
    view["set"] = 2
    assert view["set"] == 2


def test_view_clear_leaves_hundreds_of_other_views_alone() -> None:
    """In a cache of this process nothing else has their values."""
    cache: MemoryCache[Any, Any] = MemoryCache(maxsize=10_000)
    views = [cache.view(f"view {number}") for number in range(900)]
    for view in views:
        view["k"] = 1
    for view in views[::3]:
        view.clear()
    assert [view.get("k") for view in views] == [None, 1, 1] * 300


def test_view_of_a_cache_with_a_loader_tags_what_is_loaded() -> None:
    """The cache's loader gets the cache's key, and what it brings goes with the view."""
    calls: list[Any] = []
    cache: MemoryCache[Any, Any] = MemoryCache(loader=lambda key: calls.append(key) or key)
    view = cache.view("v")
    assert view[1] == view[1] == ("v", 1)
    view.clear()
    assert view[1] == ("v", 1)
    assert calls == [("v", 1)] * 2


def test_view_verbs_answer_as_those_of_the_cache() -> None:
    """Versions, swaps and lifetimes are those of the entry."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    view = cache.view("v")
    assert view.add("k", 1)
    value, version = view.gets("k")
    assert cache.gets(("v", "k")) == (value, version)
    assert view.cas("k", 2, version)
    assert view.touch("k", 5)
    assert view.get_and_touch("k", 5) == view.get_and_delete("k") == 2
    assert repr(view).endswith(".view('v')")


def test_view_leaves_the_list_of_shards_to_the_cache() -> None:
    """It is a part of the keys; which shards there are is the whole namespace's."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    for whole, part in ((cache, cache.view("v")), (cache.aio, cache.aio.view("v"))):
        assert hasattr(whole, "reshard")
        assert not hasattr(part, "reshard")


@pytest.mark.parametrize("name", ["", 1, None])
def test_view_of_no_name_is_refused(name: Any) -> None:
    """A view's name is a text."""
    with pytest.raises(TypeError, match="a view's name is a text that is not empty"):
        MemoryCache().view(name)


def test_view_never_loads_where_the_cache_does_not() -> None:
    """pop, setdefault, get and refresh keep to what they say of loaders."""
    calls: list[Any] = []
    cache: MemoryCache[Any, Any] = MemoryCache(loader=lambda key: calls.append(key) or key)
    view = cache.view("v")
    assert view.pop("a", None) is view.get("a") is None
    with pytest.raises(KeyError, match=r"^'a'$"):
        view.pop("a")
    assert (view.setdefault("a", 1), view.setdefault("a", 2), calls) == (1, 1, [])
    assert view.refresh("a", lambda key: key * 2) == view.peek("a") == "aa"
    assert view.refresh("a") == ("v", "a")
    assert view.drop("a")
    assert view.peek("a") is None
    other = cache.view("w")
    other["k"] = 1
    view.update(other, more=2)
    assert (view.pop("k"), view.pop("more"), calls) == (1, 2, [("v", "a")])


def test_view_items_and_values_are_pairs_of_a_snapshot() -> None:
    """What goes meanwhile was there; none of it is a hit, none of it loads."""
    calls: list[Any] = []
    cache: MemoryCache[Any, Any] = MemoryCache(loader=lambda key: calls.append(key) or key)
    view = cache.view("v")
    view.update(a=1, b=2)
    cache["a"] = "not in it"
    pairs, values, keys = iter(view.items()), iter(view.values()), iter(view)
    found = [next(pairs)], [next(values)], [next(keys)]
    view.clear()
    assert (dict([*found[0], *pairs]), sorted([*found[1], *values])) == ({"a": 1, "b": 2}, [1, 2])
    assert sorted([*found[2], *keys]) == ["a", "b"]
    view["a"] = 1
    assert (("a", 1) in view.items(), ("a", 2) in view.items(), ("b", 2) in view.items()) == (True, False, False)
    assert (1 in view.values(), 2 in view.values(), len(view.items()), view == {"a": 1}) == (True, False, 1, True)
    assert view.popitem() == ("a", 1)
    with pytest.raises(KeyError, match="L1 holds nothing of this view"):
        view.popitem()
    assert (calls, cache.cache_info().hits, dict(cache.items())) == ([], 0, {"a": "not in it"})


WAYS_TO_STORE: dict[str, Callable[[MemoryCache[Any, Any], Any], object]] = {
    "cache.update": lambda cache, other: cache.update(other),
    "cache.set_many": lambda cache, other: cache.set_many(other),
    "cache.aio.update": lambda cache, other: asyncio.run(cache.aio.update(other)),
    "cache.aio.set_many": lambda cache, other: asyncio.run(cache.aio.set_many(other)),
    "view.update": lambda cache, other: cache.view("w").update(other),
    "view.set_many": lambda cache, other: cache.view("w").set_many(other),
    "view.aio.update": lambda cache, other: asyncio.run(cache.aio.view("w").update(other)),
    "view.aio.set_many": lambda cache, other: asyncio.run(cache.aio.view("w").set_many(other)),
    "cache == view": lambda cache, other: cache == other,
}


@pytest.mark.parametrize("kind", ["cache", "view"])
@pytest.mark.parametrize("way", list(WAYS_TO_STORE))
def test_what_a_cache_or_view_holds_is_stored_without_reading_it_through(way: str, kind: str) -> None:
    """Its L1 is looked at once: not one key is counted as a hit, or loaded because it has gone meanwhile."""
    calls: list[Any] = []
    source: MemoryCache[Any, Any] = MemoryCache(loader=lambda key: calls.append(key) or key)
    other: Any = source if kind == "cache" else source.view("v")
    other.update(a=1, b=2)
    target: MemoryCache[Any, Any] = MemoryCache()
    WAYS_TO_STORE[way](target, other)
    assert (calls, source.cache_info().hits) == ([], 0)
    assert dict(target.view("w") if way.startswith("view") else target) == ({} if "==" in way else {"a": 1, "b": 2})


READS: dict[str, Callable[..., object]] = {
    "get_or_load": lambda view, *loader: view.get_or_load("a", *loader),
    "get_or_load, young": lambda view, *loader: view.get_or_load("a", *loader, max_age=60),
    "refresh": lambda view, *loader: view.refresh("a", *loader),
    "await get_or_load": lambda view, *loader: asyncio.run(awaited(view.aio.get_or_load, "a", *loader)),
    "await get_or_load, young": lambda view, *loader: asyncio.run(
        awaited(view.aio.get_or_load, "a", *loader, max_age=60)
    ),
    "await refresh": lambda view, *loader: asyncio.run(awaited(view.aio.refresh, "a", *loader)),
}


async def awaited(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a method in the loop that awaits it."""
    return await method(*arguments, **options)


@pytest.mark.parametrize("whose", ["the cache's", "the call's"])
@pytest.mark.parametrize("way", list(READS))
def test_view_says_of_its_own_key_that_a_loader_has_no_value(way: str, whose: str) -> None:
    """Whoever's loader, and however it was asked; an error of the loader's stays the object it is."""
    failure: KeyError | None = None

    def loader(_key: Any) -> Any:
        if failure is None:
            return nearcache.ABSENT
        raise failure

    cache = nearcache.open("memory://", ages=True, loader=loader if whose == "the cache's" else None)
    view, given = cache.view("v"), () if whose == "the cache's" else (loader,)
    with pytest.raises(KeyError, match=r"^'a'$"):
        READS[way](view, *given)
    failure = KeyError("a row")
    with pytest.raises(KeyError) as caught:
        READS[way](view, *given)
    assert caught.value is failure


def test_view_bulk_loads_and_invalidates_by_its_own_keys() -> None:
    """The bulk loader is given them, and what is not there any more is loaded anew."""
    asked: list[list[Any]] = []
    cache: MemoryCache[Any, Any] = MemoryCache()
    view = cache.view("v")

    def load_many(keys: list[Any]) -> dict[Any, Any]:
        asked.append(keys)
        return {key: f"{key}{len(asked)}" for key in keys}

    assert view.get_or_load_many(["a", "b"], load_many) == {"a": "a1", "b": "b1"}
    assert (view.invalidate("a"), view.invalidate("a"), cache["v", "b"]) == (True, False, "b1")
    assert view.get_or_load_many(["a", "b"], load_many) == {"a": "a2", "b": "b1"}
    assert asked == [["a", "b"], ["a"]]


@pytest.mark.parametrize(
    "options", [{}, {"key": lambda key: (len(key), *key)}, {"loader": lambda key: ("loaded", key)}]
)
@pytest.mark.parametrize("depth", [1, 3, 15])
def test_view_finds_what_is_under_equal_keys(options: dict[str, Any], depth: int) -> None:
    """Of every kind, however deep the view, by each way to read."""
    cache: MemoryCache[Any, Any] = MemoryCache(maxsize=1000, **options)
    view: Any = cache
    for level in range(depth):
        view = view.view(f"level {level}")
    keys = ["text", 7, -1, 2**70, 2.5, None, b"data", ("pair", (1, (2, "x")))]
    for key in keys:
        view[key] = [key]
    for key in [*keys, *pickle.loads(pickle.dumps(keys))]:
        assert view[key] == view.get(key) == view.get_or_load(key, None) == view.peek(key) == [key]
        assert asyncio.run(view.aio.get(key)) == asyncio.run(view.aio.get_or_load(key)) == [key]
        assert key in view
    assert view[7.0] == [7]
    assert view.get("absent") is None
    with pytest.raises(TypeError):
        view.get(["unhashable"])
    if "loader" in options:
        assert view["new"] == ("loaded", (*view.path, "new"))
    else:
        with pytest.raises(KeyError, match=r"^'new'$"):
            view["new"]


def test_view_counts_and_keeps_what_it_reads_as_the_cache_does() -> None:
    """A hit is one, a miss is one, and what was read last goes last."""
    cache: MemoryCache[Any, Any] = MemoryCache(maxsize=3, policy="lru")
    view = cache.view("v")
    view["a"], view["b"], view["c"] = 1, 2, 3
    before = cache.stats().l1
    assert (view["a"], view.get("b"), view.get_or_load("a"), view.get("d"), asyncio.run(view.aio.get("a"))) == (
        1, 2, 1, None, 1,
    )  # fmt: skip
    after = cache.stats().l1
    assert (after.hits - before.hits, after.misses - before.misses) == (4, 1)
    view["d"] = 4
    assert sorted(view) == ["a", "b", "d"]


def test_view_that_is_copied_is_a_view_of_the_same_cache() -> None:
    """Which is what it reads from and writes to."""
    view = MemoryCache[Any, Any](maxsize=10).view("v")
    view["a"] = 1
    again = copy.copy(view)
    assert (type(again), again.cache, again.path, again["a"]) == (type(view), view.cache, ("v",), 1)
