"""``memory://``: the cache of one process."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, MemoryCache
from support.threads import together
from support.waiting import wait_until

TIMEOUT = 20.0


def test_open_memory_url_gives_a_memory_cache() -> None:
    """Options may stand in the URL or be keywords."""
    cache = nearcache.open("memory://?maxsize=3", ttl=60)
    assert isinstance(cache, MemoryCache)
    assert (cache.settings.maxsize, cache.settings.ttl) == (3, 60.0)


def test_memory_cache_takes_any_hashable_key_and_any_value() -> None:
    """Nothing is encoded."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    key, value = frozenset({1, (2, 3)}), object()
    cache[key] = value
    assert cache[key] is value
    with pytest.raises(TypeError, match="unhashable"):
        cache[[]]
    with pytest.raises(TypeError, match="unhashable"):
        cache.get([], "default")


def test_memory_cache_without_entries_takes_little() -> None:
    """What is for tags is made when there are some; a program may have a cache for each of its functions."""
    MemoryCache().close()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        caches: list[MemoryCache[str, int]] = [MemoryCache() for _ in range(20)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(caches) == 20
    assert (after - before) / 20 < 20_000


def test_memory_cache_evicts_the_least_recently_used() -> None:
    """Reading counts as use, `in` and peek do not."""
    cache: MemoryCache[str, int] = MemoryCache(maxsize=3, policy="lru")
    cache.update(a=1, b=2, c=3)
    assert cache["a"] == 1
    assert "b" in cache
    assert cache.peek("b") == 2
    cache["d"] = 4
    assert list(cache) == ["c", "a", "d"]
    assert cache.stats().l1.evictions == 1


def test_memory_cache_expires_entries() -> None:
    """By the cache's ttl, or one given with the call."""
    cache: MemoryCache[str, int] = MemoryCache(ttl=10)
    cache.l1_set_clock(0)
    cache["a"] = 1
    cache.set("b", 2, ttl=100)
    cache.set("c", 3, ttl=None)
    cache.l1_set_clock(11 * 10**9)
    assert cache.get_many([*"abc"]) == {"b": 2, "c": 3}
    cache.l1_set_clock(101 * 10**9)
    assert cache.get_many([*"abc"]) == {"c": 3}
    cache.l1_set_clock(None)


def test_memory_cache_bounds_bytes_by_getsizeof() -> None:
    """A value that can never fit is refused with both sizes."""
    cache: MemoryCache[int, bytes] = MemoryCache(maxbytes=100, getsizeof=len, policy="lru")
    for n in range(10):
        cache[n] = b"x" * 40
    assert list(cache) == [8, 9]
    assert cache.stats().l1.size_bytes == 80
    with pytest.raises(nearcache.ValueTooLargeError, match="maxbytes=100"):
        cache[1] = b"x" * 101
    assert list(cache) == [8, 9]


def test_memory_cache_loads_a_missing_key_once() -> None:
    """However many threads ask for it together."""
    calls: list[str] = []
    running, go = threading.Event(), threading.Event()

    def loader(key: str) -> str:
        calls.append(key)
        running.set()
        assert go.wait(TIMEOUT)
        return key.upper()

    cache: MemoryCache[str, str] = MemoryCache(loader=loader)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(cache["k"])) for _ in range(8)]
    threads[0].start()
    assert running.wait(TIMEOUT)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert calls == ["k"]
    assert results == ["K"] * 8
    assert cache.stats().loader.loads == 1
    assert cache.cache_info().currsize == 1


def test_memory_cache_loader_that_raises_stores_nothing() -> None:
    """The exception is the loader's own."""
    cache: MemoryCache[str, str] = MemoryCache()
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("k", lambda key: str(1 // 0))
    assert cache.get_or_load("k", str.upper) == "K"
    assert cache.stats().loader.errors == 1


@pytest.mark.parametrize("how", ["set", "delete", "clear", "drop"])
def test_memory_cache_change_during_a_load_wins(how: str) -> None:
    """What is loaded is as old as the load's beginning, so the change is newer."""
    cache: MemoryCache[str, str] = MemoryCache()

    def loader(key: str) -> str:
        if how == "set":
            cache[key] = "changed"
        elif how == "delete":
            cache.invalidate(key)
        elif how == "clear":
            cache.clear()
        else:
            cache.drop(key)
        return "loaded"

    assert cache.get_or_load("k", loader) == "loaded"
    assert cache.get("k") == ("changed" if how == "set" else None)


def test_memory_cache_loader_without_a_miss_is_not_called() -> None:
    """A hit is a hit, whatever loader comes with the call."""
    cache: MemoryCache[str, Any] = MemoryCache(loader=lambda key: pytest.fail("called"))
    cache["k"] = None
    assert cache["k"] is None
    assert cache.get_or_load("k") is None
    assert cache.get("m", 3) == 3


def test_memory_cache_key_function_maps_keys() -> None:
    """The loader gets the key as the user gave it."""
    cache: MemoryCache[Any, Any] = MemoryCache(key=str.lower, loader=lambda key: key)
    assert cache["ABC"] == "ABC"
    assert cache["abc"] == "ABC"
    assert "aBc" in cache
    del cache["abC"]
    assert len(cache) == 0


def test_memory_cache_get_many_with_a_key_function_returns_the_callers_keys() -> None:
    """Several of them may mean one entry; one given twice comes once."""
    cache: MemoryCache[str, int] = MemoryCache(key=str.lower)
    cache.update(a=1, b=2)
    assert cache.get_many(["A", "a", "B", "A", "c", "C"]) == {"A": 1, "a": 1, "B": 2}
    assert cache.get_many(iter("aab")) == {"a": 1, "b": 2}
    assert cache.get_many([]) == {}
    with pytest.raises(TypeError):
        cache.get_many([1])  # type: ignore[list-item]  # a wrong key is what is tested


def test_memory_cache_closed_holds_nothing_and_says_so() -> None:
    """Idempotent, and later use is a clear error."""
    cache: MemoryCache[str, int] = MemoryCache()
    cache["k"] = 1
    assert cache.health().ok
    cache.close()
    cache.close()
    assert len(cache) == 0
    assert not cache.health().ok
    with pytest.raises(nearcache.ClosedError):
        cache["k"]
    with pytest.raises(nearcache.ClosedError):
        cache.set("k", 1)


USES: dict[str, Callable[[Cache[Any, Any]], object]] = {
    "[]": lambda cache: cache["k"],
    "[] =": lambda cache: cache.__setitem__("k", 1),
    "del": lambda cache: cache.__delitem__("k"),
    "in": lambda cache: "k" in cache,
    "get": lambda cache: cache.get("k", 0),
    "peek": lambda cache: cache.peek("k"),
    "set": lambda cache: cache.set("k", 1),
    "setdefault": lambda cache: cache.setdefault("k", 1),
    "update": lambda cache: cache.update(k=1),
    "pop": lambda cache: cache.pop("k", 0),
    "popitem": lambda cache: cache.popitem(),
    "get_or_load": lambda cache: cache.get_or_load("k", str.upper),
    "get_many": lambda cache: cache.get_many(["k"]),
    "delete_many": lambda cache: cache.delete_many(["k"]),
    "invalidate": lambda cache: cache.invalidate("k"),
    "incr": lambda cache: cache.incr("k"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("options", [{}, {"ttl": 60, "soft_ttl": 30}, {"key": str}], ids=["plain", "aging", "key"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_memory_cache_closed_says_so_however_it_is_used(
    use: Callable[[Cache[Any, Any]], object], options: dict[str, Any]
) -> None:
    """What is compiled knows it, too: nothing is kept that nobody would ever let go of. What closes one is named."""
    cache = nearcache.open("memory://", **options)
    cache["k"] = 1
    cache.close()
    with pytest.raises(nearcache.ClosedError, match=r"`async with cache\.aio`.*open a new one"):
        use(cache)
    assert len(cache) == 0


def test_memory_cache_has_nothing_to_test_and_is_well() -> None:
    """The same calls work on every cache."""
    cache = nearcache.open("memory://")
    assert cache.health().ok
    assert cache.selftest().ok
    assert cache.stats().l2.hits == 0


def test_open_refuses_what_it_does_not_know() -> None:
    """Before anything is started."""
    with pytest.raises(nearcache.ConfigError, match="begin with one of"):
        nearcache.open("carrier-pigeon://loft")
    with pytest.raises(nearcache.ConfigError, match="url"):
        nearcache.open(5)  # type: ignore[arg-type]  # a wrong type is what is tested
    with pytest.raises(nearcache.ConfigError, match=r"nearcache\.open"):
        MemoryCache("redis://a")


@pytest.mark.parametrize("options", [{}, {"ttl": 60, "soft_ttl": 30}], ids=["plain", "aging"])
def test_memory_cache_popitem_removes_what_it_returns_whatever_key_does(options: dict[str, Any]) -> None:
    """It returns the key as it is held, to which ``key=`` is not applied once more."""
    cache = nearcache.open("memory://", key=lambda number: number + 1, policy="lru", **options)
    cache[1], cache[2], cache[3] = "a", "b", "c"
    held = {2: "a", 3: "b", 4: "c"}
    name, value = cache.popitem()  # of which entry is said by the order, and that by parts without a GIL
    assert held.pop(name) == value
    assert dict(cache.items()) == held
    assert {name: cache.get(name - 1) for name in (2, 3, 4)} == {2: None, 3: None, 4: None} | held


class _Together(MemoryCache[str, Any]):
    """Two threads look before either of them changes anything."""

    barrier = threading.Barrier(2)

    def get(self, key: str, default: Any = None, *, max_age: float | None = None) -> Any:
        found = super().get(key, default, max_age=max_age)
        self.barrier.wait(TIMEOUT)
        return found


def test_memory_cache_setdefault_of_two_threads_is_one_value() -> None:
    """As in a dict: the second gets what the first has stored."""
    cache = _Together()
    given: list[Any] = []
    together(lambda _number: given.append(cache.setdefault("k", object())), 2)
    assert given[0] is given[1] is cache["k"]


@pytest.mark.parametrize("side", ["thread", "task"])
def test_memory_cache_pop_returns_what_it_removes(side: str) -> None:
    """As in a dict, whenever another one stores: wherever the key is hashed, anything may happen."""

    class Key:
        def __init__(self, at: int = 0, hook: Callable[[], None] | None = None) -> None:
            self.left, self.hook = at, hook

        def __hash__(self) -> int:
            self.left -= 1
            if self.hook is not None and self.left == 0:
                self.hook()
            return 1

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Key)

    cache: Cache[Any, Any] = nearcache.open("memory://")
    stored: list[int] = []
    for at in range(1, 10):
        cache[Key()] = "old"

        def store(at: int = at) -> None:
            stored.append(at)
            cache[Key()] = "new"

        key = Key(at, store)
        popped = cache.pop(key, None) if side == "thread" else asyncio.run(cache.aio.pop(key, None))
        left = cache.pop(Key(), None)
        assert (popped, left) in ([("new", None), ("old", "new")] if at in stored else [("old", None)])
    assert len(stored) > 1


@pytest.mark.parametrize("options", [{}, {"soft_ttl": 0.5, "ttl": 5}], ids=["plain", "aging"])
def test_memory_cache_set_many_that_is_refused_stores_nothing(options: dict[str, Any]) -> None:
    """A lifetime or a key that is wrong is found before the first is stored."""

    def no_list(key: str) -> Any:
        return [] if key == "z" else key

    cache: Cache[Any, Any] = nearcache.open("memory://", key=no_list, **options)
    with pytest.raises(ConfigError, match="ttl=-1"):
        cache.set_many({"a": 1, "b": 2}, ttl=lambda key, _value: -1 if key == "b" else 1)
    with pytest.raises(TypeError, match="unhashable"):
        cache.set_many({"a": 1, "z": 2})
    assert len(cache) == 0
    calls: list[str] = []
    cache.set_many({"a": 1, "b": 2}, ttl=lambda key, _value: calls.append(key) or 3, tags=["t"])  # type: ignore[func-returns-value]  # None
    assert (cache["a"], cache["b"], calls) == (1, 2, ["a", "b"])
    cache.invalidate_tag("t")
    assert cache.get_many([*"ab"]) == {}


@pytest.mark.parametrize("keys", ["ab", b"ab"])
def test_memory_cache_delete_many_of_one_text_is_refused(keys: Any) -> None:
    """Its letters are no keys, and the key itself would stay. Through views and in tasks too."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    view = cache.view("v")
    for each in (cache, view):
        each[keys] = 1
        with pytest.raises(TypeError, match=r"delete_many\(b?'ab'\): give a list of keys, as in delete_many\(\[b?'ab'"):
            each.delete_many(keys)
    for each in (cache.aio, cache.aio.view("v")):
        with pytest.raises(TypeError, match="give a list"):
            asyncio.run(each.delete_many(keys))
    cache.delete_many([keys])
    assert len(cache) == len(view) == 1


@pytest.mark.parametrize("keys", ["ab", b"ab"])
def test_memory_cache_bulk_reads_of_one_text_are_refused(keys: Any) -> None:
    """They would find nothing of what was meant. Through views and in tasks too."""
    cache: Cache[Any, Any] = nearcache.open("memory://", load_many=lambda keys: dict.fromkeys(keys, 1))
    plain: Cache[Any, Any] = nearcache.open("memory://")
    for each in (cache, cache.view("v"), plain, plain.view("v")):
        for read in (each.get_many, each.get_or_load_many):
            with pytest.raises(TypeError, match=r"many\(b?'ab'\): give a list of keys, as in get_"):
                read(keys)
    for task in (cache.aio, cache.aio.view("v"), plain.aio, plain.aio.view("v")):
        for ask in (task.get_many, task.get_or_load_many):
            with pytest.raises(TypeError, match="give a list of keys"):
                asyncio.run(ask(keys))


async def _later(_key: Any) -> int:
    return 1


@pytest.mark.parametrize(
    "store",
    [
        lambda cache: cache.get_or_load("k", lambda key: _later(key)),
        lambda cache: cache.get_or_load("k", cache.cached(_later)),
        lambda cache: cache.get_or_load_many(["k"], lambda keys: {key: _later(key) for key in keys}),
        lambda cache: cache.cached(lambda: _later("k"))(),
        lambda cache: cache.compute("k", lambda _value: _later("k")),
    ],
)
def test_memory_cache_keeps_no_coroutine(store: Callable[[Cache[Any, Any]], Any]) -> None:
    """The first who reads it could await it, and nobody else."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    with pytest.raises(TypeError, match=r"coroutine.*cache\.aio"):
        store(cache)
    assert len(cache) == 0


def _pieces(key: str) -> Iterator[str]:
    yield key


async def _pieces_later(key: str) -> AsyncIterator[str]:
    yield key


@pytest.mark.parametrize("pieces", [_pieces, _pieces_later])
@pytest.mark.parametrize(
    "store",
    [
        lambda cache, pieces: cache.get_or_load("k", pieces),
        lambda cache, pieces: cache.refresh("k", pieces),
        lambda cache, pieces: cache.view("v").get_or_load("k", pieces),
        lambda cache, pieces: asyncio.run(cache.aio.get_or_load("k", pieces)),
        lambda cache, pieces: asyncio.run(cache.aio.refresh("k", pieces)),
        lambda cache, pieces: cache.compute("k", pieces),
        lambda cache, pieces: nearcache.open("memory://", loader=pieces),
        lambda cache, pieces: cache.cached(pieces),
        lambda cache, pieces: cache.get_or_load("k", lambda key: pieces(key)),
        lambda cache, pieces: asyncio.run(cache.aio.get_or_load("k", lambda key: pieces(key))),
        lambda cache, pieces: cache.get_or_load_many(["k"], lambda keys: {key: pieces(key) for key in keys}),
        lambda cache, pieces: cache.cached(lambda: pieces("k"))(),
        lambda cache, pieces: cache.compute("k", lambda value: pieces(value)),
    ],
)
def test_memory_cache_keeps_no_generator(store: Callable[[Cache[Any, Any], Any], Any], pieces: Any) -> None:
    """The first who reads it has all of it, and nobody else has anything."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    with pytest.raises((TypeError, ConfigError), match=r"a generator can be read once only; return a list"):
        store(cache, pieces)
    assert len(cache) == 0


@pytest.mark.parametrize("pieces", [_pieces, _pieces_later])
def test_bulk_loader_that_is_a_generator_function_is_refused(pieces: Any) -> None:
    """The error says what it is to return."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    loads = (
        lambda: cache.get_or_load_many(["k"], pieces),
        lambda: asyncio.run(cache.aio.get_or_load_many(["k"], pieces)),
        lambda: nearcache.open("memory://", load_many=pieces),
    )
    for load in loads:
        with pytest.raises((TypeError, ConfigError), match=r"load_many=.*once only; return a mapping"):
            load()


@pytest.mark.parametrize("function", [3, None, _later])
def test_memory_cache_compute_of_what_is_no_function_of_the_value_is_refused(function: Any) -> None:
    """Before anything is read."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    with pytest.raises(TypeError, match=r"compute\(\.\.\., "):
        cache.compute("k", function)


def test_hit_ratio_is_hits_by_requests() -> None:
    """And 0 before the first one."""
    cache: MemoryCache[str, int] = MemoryCache()
    assert cache.stats().l1.hit_ratio == 0.0
    cache["k"] = 1
    found = [cache.get(key) for key in ("k", "k", "k", "other")]
    assert (found, cache.stats().l1.hit_ratio) == ([1, 1, 1, None], 0.75)


def test_hold_that_lingers_invalidates_once_more() -> None:
    """What was stored after its end, from a source that had not heard of the change, goes."""
    cache: MemoryCache[str, int] = MemoryCache()
    with cache.hold(["k"], linger=0.05):
        pass
    cache["k"] = 1
    wait_until(lambda: "k" not in cache)
