"""Idle times: the arithmetic, and ``memory://`` caches whose values live by being read."""

from __future__ import annotations

import asyncio
import copy
import operator
import pickle
import time
from typing import Any

import pytest

import nearcache
from nearcache import ConfigError, Idle, MemoryCache
from nearcache.freshness import IDLE_MS, Freshness, checked_ttl, idle_copy_ms, is_worn
from support.fixtures import Clock
from support.threads import PATIENCE


def test_idle_lifetime_leaves_the_idle_time_after_the_last_reading_of_a_copy() -> None:
    """Whenever a copy is taken, by whom ever: at its end the value has the idle time before it, at most half more."""
    for idle_ms in (1, 2, 3, 1000, 86_400_000):
        whole_ms, mark = Freshness(jitter=0.5, soft=0.5, beta=1.0).life(-idle_ms)
        assert mark == IDLE_MS
        assert idle_ms * 3 / 2 <= whole_ms <= idle_ms * 3 / 2 + 1
        for left_ms in {1, whole_ms // 2, whole_ms - whole_ms // 6, whole_ms}:
            left_ms = whole_ms if is_worn(left_ms, whole_ms) else left_ms
            assert left_ms - idle_copy_ms(left_ms, whole_ms) >= idle_ms
            assert idle_ms < 4 or idle_copy_ms(left_ms, whole_ms) > 0
    assert not is_worn(-1, 90)
    assert [is_worn(left_ms, 90) for left_ms in (0, 1, 74, 75)] == [False, True, True, False]
    assert checked_ttl(Idle(1.5), 0) == -1500


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e10, "x", None, True])
def test_idle_of_no_time_is_refused(seconds: Any) -> None:
    """Where it is made."""
    with pytest.raises(ConfigError, match="idle="):
        Idle(seconds)


def test_idle_is_a_value() -> None:
    """It can be compared, hashed and shown."""
    assert Idle(2) == Idle(2.0) != Idle(3)
    assert (len({Idle(2), Idle(2.0)}), repr(Idle(2.5))) == (1, "Idle(2.5)")
    assert Idle(2) != 2


def test_idle_itself_is_no_lifetime() -> None:
    """A class is called to make an object, not to tell a lifetime: said at the door, not by the first store."""
    with pytest.raises(ConfigError, match="ttl=<class"):
        nearcache.open("memory://", ttl=Idle)
    with pytest.raises(ConfigError, match="ttl=<class"):
        nearcache.open("memory://").set("k", 1, ttl=Idle)  # type: ignore[arg-type]  # a class


def test_value_lives_while_it_is_read_and_no_longer(clock: Clock) -> None:
    """So long after the last reading it is there, half as long again it is gone, however it is read."""
    with nearcache.open("memory://", ttl=Idle(10), maxsize=10) as cache:
        clock(cache, 0)
        cache["k"] = cache["unread"] = 1
        assert cache.get("k") == 1
        now = 0.0
        for read in (
            cache.__getitem__,
            cache.get,
            lambda key: cache.get_or_load(key, str),
            lambda k: cache.get_many([k])[k],
        ):
            now += 9.9
            clock(cache, now)
            assert read("k") == 1
            assert "k" in cache
        assert "unread" not in cache
        clock(cache, now + 9.9)
        assert "k" in cache  # to look is not to read
        clock(cache, now + 15.1)
        assert "k" not in cache
        assert cache.get("k") is None
        assert len(cache) == 0


def test_reading_the_copy_counts(clock: Clock) -> None:
    """A value that is read in the first half of the idle time, of which nobody is told, lives on from there."""
    with nearcache.open("memory://", ttl=Idle(10)) as cache:
        clock(cache, 0)
        cache["k"] = 1
        clock(cache, 4.9)
        assert cache.l1_hit("k", None) == 1
        clock(cache, 14.8)
        assert cache["k"] == 1


def test_each_value_may_have_a_lifetime_of_its_own_kind(clock: Clock) -> None:
    """Idle or not, by call, by function, over another."""
    with nearcache.open("memory://", ttl=lambda key, value: Idle(10) if key == "idle" else 10) as cache:
        clock(cache, 0)
        cache["idle"] = cache["plain"] = 1
        cache.set("long", 1, ttl=Idle(1000))
        cache.set("was idle", 1, ttl=Idle(10))
        cache.set("was idle", 2, ttl=10)
        clock(cache, 9)
        assert len(cache.get_many(["idle", "plain", "long", "was idle"])) == 4
        clock(cache, 18)
        assert cache.get_many(["idle", "plain", "long", "was idle"]) == {"idle": 1, "long": 1}


def test_verbs_keep_a_value_alive_and_make_values_that_live_by_use(clock: Clock) -> None:
    """incr and gets are a use; touch with seconds ends it; cas knows versions as ever."""
    with nearcache.open("memory://", ttl=Idle(10)) as cache:
        clock(cache, 0)
        assert cache.add("n", 1)
        assert cache.incr("n") == 2
        version = cache.gets("n")[1]
        clock(cache, 9)
        assert cache.incr("n") == 3
        assert not cache.cas("n", 9, version)
        clock(cache, 18)
        assert cache.gets("n")[0] == 3
        clock(cache, 27)
        value, version = cache.gets("n")
        assert cache.cas("n", value + 1, version)
        assert cache.touch("n")
        clock(cache, 36)
        assert cache["n"] == 4
        for touch in (cache.touch, cache.get_and_touch):
            with pytest.raises(ConfigError, match="touch"):
                touch("n", Idle(5))
        assert cache.touch("n", 5)
        clock(cache, 40)
        assert cache["n"] == 4
        clock(cache, 41.5)
        assert "n" not in cache
        assert cache.add("n", 1)
        assert cache.get_and_delete("n") == 1
        assert "n" not in cache


def test_tag_and_invalidation_end_a_value_that_is_in_use(clock: Clock) -> None:
    """Also one that has lived on."""
    with nearcache.open("memory://", ttl=Idle(10)) as cache:
        clock(cache, 0)
        cache.set("a", 1, tags=["t"])
        cache.set("b", 1, tags=["t"])
        clock(cache, 9)
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 1}
        assert cache.invalidate("b")
        cache.invalidate_tag("t")
        assert cache.get_many(["a", "b"]) == {}


def test_loader_is_called_when_nobody_has_read_the_value_and_not_before(clock: Clock) -> None:
    """For threads and for tasks; the kind of the loader makes no difference."""
    calls: list[str] = []

    async def load(key: str) -> str:
        calls.append(key)
        return key

    async def main(cache: Any) -> None:
        for now in (0, 9, 18):
            clock(cache, now)
            assert await cache.aio.get_or_load("k", load) == "k"
        clock(cache, 40)
        assert await cache.aio.get_or_load("k", load) == "k"

    with nearcache.open("memory://", ttl=Idle(10)) as cache:
        asyncio.run(main(cache))
        clock(cache, 49)
        assert cache.get_or_load("k", str.upper) == "k"
        assert calls == ["k", "k"]


def test_listener_hears_of_the_end_once_and_of_no_living_on(clock: Clock) -> None:
    """The copy that is over is no event."""
    events: list[Any] = []
    with nearcache.open("memory://", ttl=Idle(10)) as cache:
        clock(cache, 0)
        subscription = cache.listen(lambda event: events.append((event.kind, event.value)))
        cache["k"] = 1
        clock(cache, 9)
        assert cache["k"] == 1
        assert cache.incr("k") == 2
        clock(cache, 18)
        assert cache["k"] == 2
        clock(cache, 40)
        assert cache.get("k") is None
        assert subscription.flush(PATIENCE)
        assert events == [("created", 1), ("updated", 2), ("expired", 2)]


def test_names_of_values_that_are_gone_are_forgotten() -> None:
    """However many there were."""
    with nearcache.open("memory://", ttl=Idle(10), maxsize=100) as cache:
        for number in range(5000):
            cache[number] = number
        names: dict[Any, Any] = cache._idle  # type: ignore[attr-defined]  # of this kind of cache
        assert names.keys() == set(cache)
        cache.expire(time.monotonic() + 16)
        assert names == {}
        cache.update({"a": 1, "b": 2, "c": 3})
        del cache["a"]
        cache.drop("b")
        assert list(names) == ["c"]
        cache.clear()
        assert names == {}


def test_value_in_use_stays_where_others_make_room(clock: Clock) -> None:
    """The store that knows of its hits decides, however often the copy has ended and lived on."""
    with nearcache.open("memory://", ttl=Idle(10), maxsize=10, policy="lru") as cache:
        clock(cache, 0)
        cache["hot"] = 1
        for step in range(100):
            clock(cache, step)
            for number in range(9):
                cache[step, number] = number
                assert cache.get("hot") == 1
        assert len(cache) == len(cache._old) == 10  # type: ignore[attr-defined]  # of this kind of cache


def test_plain_memory_cache_refuses_an_idle_time_and_says_what_to_do() -> None:
    """Its hits have no time to note that a value was read."""
    cache: MemoryCache[Any, Any] = MemoryCache()
    for ttl in (Idle(5), lambda key, value: Idle(5)):
        with pytest.raises(ConfigError, match=r"ttl=Idle\(5\).*open the memory:// cache with ttl=nearcache.Idle"):
            cache.set("k", 1, ttl=ttl)
    with pytest.raises(ConfigError, match="by nearcache"):
        MemoryCache(ttl=Idle(5))


def test_copies_hold_values_that_live_by_use(clock: Clock) -> None:
    """By copy and by pickle, under the names held; what has seconds keeps what is left of them."""
    with nearcache.open("memory://", ttl=Idle(10), key=operator.itemgetter(0)) as cache:
        clock(cache, 0)
        cache[("k", "ignored")] = 1
        cache.set(("plain", "ignored"), 2, ttl=10)
        for other in (copy.copy(cache), pickle.loads(pickle.dumps(cache))):
            clock(other, 9)
            assert other.get_many([("k",), ("plain",)]) == {("k",): 1, ("plain",): 2}
            clock(other, 18)
            assert other.get_many([("k",), ("plain",)]) == {("k",): 1}
            clock(cache, 0)


def test_functions_may_keep_results_while_they_are_used(clock: Clock) -> None:
    """``cached`` takes an idle time as any other lifetime."""
    calls: list[int] = []
    with nearcache.open("memory://", ttl=Idle(1)) as cache:

        @cache.cached(ttl=Idle(10))
        def double(number: int) -> int:
            calls.append(number)
            return number * 2

        for now in (0, 9, 18, 40):
            clock(cache, now)
            assert double(2) == 4
        assert calls == [2, 2]


def test_idle_is_a_lifetime_that_a_loader_may_give() -> None:
    """Where the cache can keep such values; elsewhere it says what to do."""
    loaded = nearcache.Loaded("v", ttl=Idle(600))
    with nearcache.open("memory://", ttl=Idle(60)) as cache:
        assert cache.get_or_load("k", lambda _key: loaded) == "v"
        assert cache.get_or_load_many(["m"], lambda _keys: {"m": loaded}) == {"m": "v"}
        assert {name: whole_ms for name, (whole_ms, _) in cache._idle.items()} == {"k": 900_001, "m": 900_001}
    with nearcache.open("memory://") as plain, pytest.raises(ConfigError, match=r"Idle\(600\)"):
        plain.get_or_load("k", lambda _key: loaded)
