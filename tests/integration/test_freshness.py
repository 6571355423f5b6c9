"""Values that grow old, on real servers: served at once, loaded anew by one of the fleet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.codecs import peek_times
from support.caches import grow_old
from support.redis import RedisServer
from support.tasks import until
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


class Source:
    """A loader that counts, and waits when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, key: str) -> str:
        self.calls += 1
        number = self.calls
        assert self.may_go.wait(TIMEOUT)
        return f"{key}{number}"


def test_old_value_is_served_at_once_and_loaded_once_in_the_fleet(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Two processes' worth of caches see an old value; one loads, and both get what it brought."""
    source = Source()
    options = {"ttl": 100, "soft_ttl": 10, "loader": source, "lease": 30.0}
    a, b = open_cache(**options), open_cache(**options)
    assert a["k"] == "k1"
    grow_old(redis_server, a, b)
    source.may_go.clear()
    assert a["k"] == "k1"
    wait_until(lambda: source.calls == 2)
    assert b["k"] == "k1"
    assert b.get("k") == "k1"
    source.may_go.set()
    wait_until(lambda: a["k"] == "k2" and b["k"] == "k2")
    assert source.calls == 2


def test_renewal_that_begins_late_leaves_what_another_process_has_loaded_meanwhile(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """It was begun for the old value, and that has been replaced before its thread came to run."""
    source = Source()
    a, b = (open_cache(ttl=100, soft_ttl=10, loader=source) for _ in range(2))
    assert a["k"] == "k1"
    grow_old(redis_server, a)
    late: list[Callable[[], Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(b._runner._workers, "submit", lambda work, _keys: not late.append(work))
        assert b["k"] == "k1"
    assert a["k"] == "k1"
    wait_until(lambda: a["k"] == "k2")
    (begin,) = late
    begin()
    assert (b["k"], a["k"], source.calls) == ("k2", "k2", 2)


@pytest.mark.parametrize("way", ["get", "get_or_load"])
def test_every_read_that_finds_an_old_value_sees_to_it(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], way: str
) -> None:
    """``get`` as well, if the cache has a loader."""
    source = Source()
    cache = open_cache(ttl=100, soft_ttl=10, loader=source)
    assert cache["k"] == "k1"
    grow_old(redis_server, cache)
    assert getattr(cache, way)("k") == "k1"
    wait_until(lambda: cache.peek("k") == "k2")


def test_old_values_among_many_are_served_at_once_and_loaded_one_by_one(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """``get_many`` as well, with the user's keys; new ones, absent ones and those of no soft end are left alone."""
    source = Source()
    cache = open_cache(ttl=100, soft_ttl=10, loader=source, key=str.lower)
    keys = ["A", "B", "C"]
    assert [cache[key] for key in keys] == ["A1", "B2", "C3"]
    grow_old(redis_server, cache)
    cache["new"] = "new"
    cache.set("for ever", 1, ttl=None)
    source.may_go.clear()
    old = {"A": "A1", "B": "B2", "C": "C3", "new": "new", "for ever": 1}
    assert cache.get_many([*keys, "new", "none", "for ever"]) == old
    assert cache.get_many(keys) == {"A": "A1", "B": "B2", "C": "C3"}
    source.may_go.set()
    wait_until(lambda: {cache.peek(key) for key in keys}.isdisjoint({"A1", "B2", "C3", None}))
    assert sorted(str(cache.peek(key))[0] for key in keys) == keys
    assert source.calls == 6


def test_bulk_loader_is_called_once_for_all_that_has_grown_old(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """In the background, once in the fleet; what it leaves out stays, and one that raises changes nothing."""
    calls: list[list[str]] = []
    may_fail, may_go = threading.Event(), threading.Event()

    def load_many(keys: list[str]) -> dict[str, str]:
        calls.append(sorted(keys))
        number = len(calls)
        if number == 2:
            assert may_fail.wait(TIMEOUT)
            raise OSError("down")
        if number > 2:
            assert may_go.wait(TIMEOUT)
        return {key: f"{key}{number}" for key in keys if key != "c" or number == 1}

    options = {"ttl": 100, "soft_ttl": 10, "load_many": load_many}
    a, b = open_cache(**options, lease=0.1), open_cache(**options, lease=0.1)
    old = {"a": "a1", "b": "b1", "c": "c1"}
    assert a.get_many([*"abc"]) == old
    grow_old(redis_server, a)
    assert a.get_many([*"abc"]) == old
    wait_until(lambda: len(calls) == 2)
    assert b.get_many([*"abc"]) == old
    may_fail.set()
    wait_until(lambda: a.stats().loader.errors == 1)
    assert a.get_many([*"abc"]) == b.get_many([*"abc"]) == old
    may_go.set()

    def is_new() -> bool:
        found = [cache.get_many([*"abc"]) for cache in (a, b)]
        return found[0] == found[1] and found[0]["a"] > "a2" and found[0]["b"] > "b2" and found[0]["c"] == "c1"

    wait_until(is_new)
    assert calls[:2] == [["a", "b", "c"]] * 2


def test_tasks_renew_many_by_coroutine_functions(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """One by one, or all by one call; a thread serves the old values, and leaves that to tasks."""
    calls: list[Any] = []

    async def load_many(keys: list[str]) -> dict[str, int]:
        calls.append(sorted(keys))
        return dict.fromkeys(keys, len(calls))

    async def load(key: str) -> int:
        calls.append(key)
        return len(calls)

    many = open_cache(ttl=100, soft_ttl=10, load_many=load_many)
    single = open_cache(ttl=100, soft_ttl=10, loader=load, namespace="single")

    async def main() -> None:
        assert await many.aio.get_many([*"ab"]) == {"a": 1, "b": 1}
        assert await single.aio.get_or_load("a") == 2
        grow_old(redis_server, many, single)
        assert single.get_many([*"a"]) == {"a": 2}
        single.drop("a")
        assert calls == [["a", "b"], "a"]
        assert await many.aio.get_many([*"ab"]) == {"a": 1, "b": 1}
        assert await single.aio.get_many([*"ab"]) == {"a": 2}
        await until(lambda: many.peek("a") == many.peek("b") in (3, 4) and single.peek("a") in (3, 4))
        assert sorted(map(str, calls[2:])) == ["['a', 'b']", "a"]
        await many.aio.close()
        await single.aio.close()

    asyncio.run(main())


def test_failed_renewal_keeps_the_old_value(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """It is tried again when the time of a lease is over."""
    calls: list[str] = []

    def loader(key: str) -> str:
        calls.append(key)
        if len(calls) == 2:
            raise OSError("down")
        return f"{key}{len(calls)}"

    cache = open_cache(ttl=100, soft_ttl=10, loader=loader, lease=1.0)
    assert cache["k"] == "k1"
    grow_old(redis_server, cache)
    assert cache["k"] == "k1"
    wait_until(lambda: cache.stats().loader.errors == 1)
    wait_until(lambda: cache["k"] == "k3")


def test_failed_renewals_name_their_keys_in_the_log(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a single value as the loader was given it, of several together, in threads and in tasks."""

    def fail(_keys: Any) -> Any:
        raise OSError("down")

    async def fail_too(_keys: Any) -> Any:
        raise OSError("down")

    def logged(cache: Cache[Any, Any], read: Callable[[], Any], line: str) -> None:
        cache.set_many({"a": 1, "b": 2})
        grow_old(redis_server, cache)
        caplog.clear()
        read()
        line = f"namespace {cache.settings.namespace}: {line} was not loaded anew, and the old value stays: "
        wait_until(lambda: caplog.messages == [f"{line}OSError('down')"])

    options: dict[str, Any] = {"ttl": 100, "soft_ttl": 10, "key": str.lower}
    single = open_cache(**options, loader=fail, namespace="single")
    logged(single, lambda: single["A"], "'A'")
    many = open_cache(**options, load_many=fail, namespace="many")
    logged(many, lambda: many.get_many(["A", "B"]), "['A', 'B']")

    async def main(cache: Cache[Any, Any]) -> None:
        assert await cache.aio.get_or_load("A", fail_too) == 1
        await until(lambda: bool(caplog.messages))
        await cache.aio.close()

    tasks = open_cache(**options, namespace="tasks")
    logged(tasks, lambda: asyncio.run(main(tasks)), "'A'")


def test_tasks_are_served_at_once_too(redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A coroutine function is carried on in a task of the loop."""
    calls: list[str] = []

    async def loader(key: str) -> str:
        calls.append(key)
        if len(calls) > 1:
            await gate.wait()
        return f"{key}{len(calls)}"

    async def main() -> None:
        nonlocal gate
        gate = asyncio.Event()
        assert await cache.aio.get_or_load("k", loader) == "k1"
        grow_old(redis_server, cache)
        assert await cache.aio.get_or_load("k", loader) == "k1"
        while len(calls) < 2:
            await asyncio.sleep(0)
        gate.set()
        while cache.peek("k") != "k2":
            await asyncio.sleep(0)
        assert await cache.aio.refresh("k", loader) == "k3"
        await cache.aio.close()

    gate: Any = None
    cache = open_cache(ttl=100, soft_ttl=10)
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_refresh_loads_anew_and_reaches_others(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Though a value is there."""
    source = Source()
    a, b = open_cache(loader=source), open_cache(loader=source)
    assert a["k"] == b["k"] == "k1"
    assert a.refresh("k") == "k2"
    assert a["k"] == "k2"
    wait_until(lambda: b["k"] == "k2")
    assert source.calls == 2


def test_ttl_function_and_jitter_reach_l2(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Redis is told the same lifetime as the envelope, within what jitter allows; cost and soft end are recorded."""
    cache = open_cache(ttl=lambda _key, value: value, jitter=0.5, soft_ttl=0.5, loader=lambda _: 80)
    cache["a"] = 40
    cache.set_many({"b": 60, "c": 20})
    assert cache["d"] == 80
    wanted = {b"a": 40, b"b": 60, b"c": 20, b"d": 80}
    seen = set()
    with redis_server.client() as client:
        for name in client.keys("*"):
            if client.type(name) != b"string":
                continue
            whole, soft, cost = peek_times(client.get(name))
            letter = name[-1:]
            assert wanted[letter] * 500 < whole <= wanted[letter] * 1000
            assert abs(client.pttl(name) - whole) < 10_000
            assert soft == whole // 2
            assert (cost > 0) == (letter == b"d")
            seen.add(letter)
    assert seen == set(wanted)


def test_cached_functions_keep_their_generation(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """What ``cache_clear`` goes by has no end, and so never grows old: growing old is no clear."""
    cache = open_cache(ttl=100, soft_ttl=10, beta=1.0)
    calls: list[int] = []

    @cache.cached(version="a")
    def square(x: int) -> int:
        calls.append(x)
        return x * x

    assert square(3) == 9
    grow_old(redis_server, cache)
    assert square(3) == 9
    wait_until(lambda: calls == [3, 3])  # the result was loaded anew, under the same key
    assert square(3) == 9


@pytest.mark.parametrize("isolation", ["shared", "copy"])
@pytest.mark.parametrize("keys", [{}, {"signing_keys": b"k" * 32}])
def test_absence_is_kept_for_the_fleet(
    open_cache: Callable[..., Cache[Any, Any]], isolation: str, keys: dict[str, Any]
) -> None:
    """One asks the source; all know, by every way of reading, until somebody stores or invalidates."""
    calls: list[str] = []
    values: dict[str, int] = {}

    def loader(key: str) -> int:
        calls.append(key)
        return values[key]

    options = {"negative_ttl": 60, "loader": loader, "isolation": isolation, **keys}
    a, b = open_cache(**options), open_cache(**options)
    for cache in (a, b):
        with pytest.raises(KeyError, match="'k'"):
            cache["k"]
        with pytest.raises(KeyError, match="'k'"):
            cache.get_or_load("k")
        assert cache.get("k", 7) == 7
        assert cache.get_many(["k"]) == {}
        assert "k" not in cache
    assert calls == ["k"]
    assert a.setdefault("k", 1) == 1
    assert b["k"] == 1
    b.invalidate("k")
    values["k"] = 2
    wait_until(lambda: a.get("k") is None)
    assert a["k"] == 2
    del values["k"]
    with pytest.raises(KeyError):
        a.refresh("k")
    wait_until(lambda: b.get("k") is None)
    assert calls == ["k", "k", "k"]


def test_tasks_meet_absence_as_threads_do(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """KeyError, one call."""
    calls: list[str] = []

    async def loader(key: str) -> Any:
        calls.append(key)
        return nearcache.ABSENT

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(KeyError):
                await cache.aio.get_or_load("k", loader)
        assert await cache.aio.get("k", 3) == 3
        await cache.aio.close()

    cache = open_cache(negative_ttl=60)
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert calls == ["k"]
