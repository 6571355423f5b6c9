"""``memory://`` with ``maxsize=0``: everything works, and nothing is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT, Cache
from support.threads import PATIENCE, together
from support.waiting import wait_until

KINDS: dict[str, dict[str, Any]] = {
    "adaptive": {},
    "lru": {"policy": "lru"},
    "bytes": {"maxbytes": 1000, "getsizeof": lambda _: 1},
    "aging": {"ttl": 100, "soft_ttl": 10, "negative_ttl": 5, "ages": True},
    "idle": {"ttl": nearcache.Idle(60)},
}


@pytest.fixture(params=KINDS)
def cache(request: pytest.FixtureRequest) -> Cache[Any, Any]:
    """A cache that keeps nothing."""
    return nearcache.open("memory://?maxsize=0", **KINDS[request.param])


def notes_of(cache: Any) -> list[Any]:
    """What a cache has noted of single keys, beside its entries."""
    known = [getattr(cache, name, None) for name in ("_births", "_tagged", "_idle", "_renewing", "_answers")]
    stores = [getattr(cache, name, ()) for name in ("_old", "_lapsed", "_resting")]
    return [held for held in (*known, *map(list, stores)) if held]


def test_nothing_that_is_stored_is_kept(cache: Cache[Any, Any]) -> None:
    """However it comes."""
    cache["a"] = 1
    cache.set("a", 2, ttl=5, tags=["t"])
    cache.set_many({"a": 3, "b": 4})
    cache.update(c=5)
    assert cache.setdefault("a", 6) == 6
    assert "a" not in cache
    assert (cache.get("a"), cache.get_many(["a", "b"]), len(cache), list(cache)) == (None, {}, 0, [])
    assert not cache.invalidate("a")
    assert cache.pop("a", "none") == "none"
    for missing in (cache.__getitem__, cache.__delitem__, cache.remaining_ns):
        with pytest.raises(KeyError):
            missing("a")
    cache.invalidate_tag("t")
    cache.clear()
    assert cache.expire() == notes_of(cache) == []
    assert cache.stats().l1.maxsize == 0
    cache.check_invariants()  # type: ignore[attr-defined]  # the store's


def test_verbs_find_no_value_and_are_done(cache: Cache[Any, Any]) -> None:
    """As where the value made room at once."""
    assert [cache.add("k", 1), cache.add("k", 1)] == [True, True]
    assert [cache.incr("n"), cache.incr("n", 5)] == [1, 5]
    assert cache.compute("k", lambda old: [old], None) == [None]
    assert cache.gets("k") == (None, 0)
    assert cache.get_and_set("k", 2) is None
    assert not any([cache.replace("k", 1), cache.touch("k", 5), cache.cas("k", 1, 1), cache.append("k", "x")])
    assert cache.stats().l1.entries == 0
    assert notes_of(cache) == []


def test_loads_are_made_each_time(cache: Cache[Any, Any]) -> None:
    """One after the other; of several keys in one call."""
    calls: list[Any] = []

    def load(key: Any) -> Any:
        calls.append(key)
        return ABSENT if key == "none" else nearcache.Loaded(len(calls), tags=["t"], validator="v")

    assert [cache.get_or_load("k", load), cache.get_or_load("k", load), cache.refresh("k", load)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(KeyError):
            cache.get_or_load("none", load)
    assert len(calls) == 5
    assert cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 0)) == {"a": 0, "b": 0}
    with cache.hold(["k"]):
        assert cache.get_or_load("k", load) == 6
    assert notes_of(cache) == []


def test_threads_that_ask_at_the_same_time_share_a_load(cache: Cache[Any, Any]) -> None:
    """Each of them gets what one has loaded while they waited; whoever comes later loads anew."""
    calls: list[Any] = []
    results: list[Any] = []

    def load(key: str) -> list[str]:
        calls.append(key)
        wait_until(lambda: cache._loads.waiting == 3)  # type: ignore[attr-defined]  # of this kind
        return [key]

    together(lambda _: results.append(cache.get_or_load("k", load)), 4)
    assert calls == ["k"]
    assert all(result is results[0] for result in results)
    assert cache.get_or_load("k", lambda _: "anew") == "anew"
    assert notes_of(cache) == []


def test_cached_functions_are_called_each_time(cache: Cache[Any, Any]) -> None:
    """With and without ``await``."""
    calls: list[int] = []

    @cache.cached
    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    @cache.cached
    async def treble(number: int) -> int:
        calls.append(number)
        return 3 * number

    async def main() -> None:
        assert [await treble(2), await treble(2)] == [6, 6]
        await cache.aio.set("k", 1)
        assert await cache.aio.get("k") is None
        assert await cache.aio.get_or_load("k", lambda _: 7) == 7

    assert [double(1), double(1), double.refresh(1)] == [2, 2, 2]
    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert calls == [1, 1, 1, 2, 2]
    assert double.cache_info() == (0, 3, 0, 0)
    double.set(5, 1)
    with pytest.raises(KeyError):
        double.peek(1)
    double.cache_clear()
    assert notes_of(cache) == []


def test_listeners_hear_of_nothing(cache: Cache[Any, Any]) -> None:
    """What is not kept has not come, and does not go."""
    events: list[Any] = []
    with cache.listen(events.append) as subscription:
        cache["k"] = 1
        cache.incr("n")
        cache.get_or_load("l", str)
        cache.invalidate("k")
        assert subscription.flush(PATIENCE)
    assert events == []
