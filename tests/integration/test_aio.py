"""``cache.aio`` on real servers: the same L1 and flights as for threads, any number of loops, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import LoadCycleError, ShardUnavailableError
from nearcache.cache.tiered.cache import TieredCache
from support.redis import RedisServer
from support.tasks import Gate, in_threads, until, waiting
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


def test_methods_do_what_the_cache_s_do(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """Every verb; and what one does by await, another process and the synchronous side see."""
    a, b = open_sharded(), open_sharded()

    async def main() -> None:
        async with a.aio as c:
            assert await c.get("k") is None
            await c.set("k", [1], ttl=1000)
            assert b["k"] == [1]
            b["k"] = [2]
            await until(lambda: a.peek("k") is None)
            assert await c.get("k") == [2]
            a.drop("k")
            assert await c.contains("k")
            assert not await c.contains("none")
            assert a.peek("k") is None
            assert await c.setdefault("k", 5) == [2]
            assert await c.setdefault("new", 5) == b["new"] == 5
            assert (await c.selftest()).ok
            await c.clear()
            assert await c.get("k") is None
            await until(lambda: "k" not in b)
            with pytest.raises(nearcache.UnencodableKeyError):
                await c.set(object(), 1)
            with pytest.raises(nearcache.UnencodableValueError):
                await c.set("k", object())
            with pytest.raises(nearcache.ConfigError, match="ttl"):
                await c.set("k", 1, ttl=-1)
        with pytest.raises(nearcache.ClosedError):
            await c.get("k")
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await c.close()
        with pytest.raises(nearcache.ClosedError):
            a["k"]

    asyncio.run(main())


def test_methods_for_many_keys_do_what_the_cache_s_do(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """One round trip per shard; a key that is not there is not in the answer."""
    a, b = open_sharded(), open_sharded()

    async def main() -> None:
        async with a.aio as c:
            keys = [f"k{number}" for number in range(200)]
            await c.set_many({key: key for key in keys})
            assert b.get_many(keys) == {key: key for key in keys}
            a.drop_all()
            assert await c.get_many([*keys, "none"]) == {key: key for key in keys}
            await c.update({"u": 1}, v=2)
            assert await c.pop("u") == 1
            assert await c.pop("u", "gone") == "gone"
            with pytest.raises(KeyError):
                await c.pop("u")
            assert await c.invalidate("v")
            assert not await c.invalidate("v")
            await c.delete_many(keys)
            assert await c.get_many(keys) == {}
            await until(lambda: b.get_many(keys) == {})
            with pytest.raises(KeyError, match="none"):
                await c.get_or_load("none")

    asyncio.run(main())


def test_groups_and_changes_elsewhere_do_what_the_cache_s_do(
    open_sharded: Callable[..., TieredCache[Any, Any]],
) -> None:
    """Tags, holds and tokens."""
    a, b = open_sharded(), open_sharded()

    async def main() -> None:
        async with a.aio as c:
            await c.set("t1", 1, tags=["t"])
            await c.set_many({"t2": 2}, tags=["t"])
            assert await c.get_or_load("t3", str.upper, tags=["t"]) == "T3"
            await c.invalidate_tag("t")
            assert await c.get_many(["t1", "t2", "t3"]) == {}
            async with c.hold(["k"]):
                await b.aio.set("k", "old")
                assert await c.get("k") is None
            assert await c.get("k") is None
            b["k"] = "new"
            await c.wait_for(b.token())
            assert await c.get("k") == "new"

    asyncio.run(main())


def test_key_function_and_ttl_of_the_cache_hold(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """The loader gets the key as it was given; several keys may mean one entry."""
    cache = open_sharded(key=str.lower, ttl=1000, loader=lambda key: [key])

    async def main() -> None:
        assert await cache.aio.get_or_load("K") == ["K"]
        assert await cache.aio.get_or_load("k") == ["K"]
        cache.drop_all()
        assert await cache.aio.get_many(["K", "k"]) == {"K": ["K"], "k": ["K"]}
        assert (cache.remaining_ns("k") or 0) <= 1001 * 10**9

    asyncio.run(main())


def test_many_gets_at_once_over_several_shards(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """With few connections, and each key asked for by several tasks, who join one read."""
    open_sharded().set_many({f"k{number}": number for number in range(300)})
    cache = open_sharded(pool_size=2)  # after the writes: who hears of one during a read asks once more

    async def main() -> None:
        wanted = [f"k{number % 300}" for number in range(900)]
        assert await asyncio.gather(*map(cache.aio.get, wanted)) == [number % 300 for number in range(900)]

    asyncio.run(main())
    assert cache.stats().l2.hits == 300


def test_cold_key_is_loaded_once_by_tasks_threads_and_loops(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """Two loops of eight tasks and four threads; all get the one object."""
    cache, gate, results = open_sharded(), Gate(), list[Any]()

    async def in_loop() -> None:
        results.extend(await asyncio.gather(*[cache.aio.get_or_load("cold", gate) for _ in range(8)]))

    def in_thread() -> None:
        assert gate.entered.wait(TIMEOUT)
        results.append(cache.get_or_load("cold", lambda key: pytest.fail("loaded again")))

    def let_go() -> None:
        assert gate.entered.wait(TIMEOUT)
        wait_until(lambda: waiting(cache, "cold") == 20, timeout=TIMEOUT)
        gate.open.set()

    loops = [lambda: asyncio.run(in_loop())] * 2
    in_threads(*loops, *[in_thread] * 4, let_go)
    assert gate.calls == ["cold"]
    assert results == [["cold", 1]] * 20
    assert all(result is results[0] for result in results)
    assert cache.stats().loader.loads == 1


def test_cold_key_is_loaded_once_by_two_processes_tasks(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """The second waits for the first's message, without blocking its loop."""
    a, b = open_sharded(), open_sharded()
    gate, idle = Gate(), Gate()

    async def main() -> None:
        first = asyncio.create_task(a.aio.get_or_load("k", gate))
        await until(gate.entered.is_set)
        second = asyncio.create_task(b.aio.get_or_load("k", idle))
        await until(lambda: b.stats().l2.misses)
        await asyncio.sleep(0.05)
        gate.open.set()
        assert await first == await second == ["k", 1]
        assert idle.calls == []

    asyncio.run(main())


def test_value_loaded_before_an_invalidation_is_not_kept(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """By a task as by a thread: neither tier has it."""
    a, b = open_sharded(), open_sharded()

    async def slow(key: str) -> str:
        await b.aio.invalidate(key)
        return "old"

    async def main() -> None:
        assert await a.aio.get_or_load("k", slow) == "old"
        assert a.peek("k") is None
        assert not await b.aio.contains("k")
        assert await a.aio.get_or_load("k", lambda key: "new") == "new"

    asyncio.run(main())


@pytest.mark.parametrize("which", ["first", "last"])
def test_cancelled_waiter_leaves_the_load_to_the_others(
    open_sharded: Callable[..., TieredCache[Any, Any]], which: str
) -> None:
    """The one that began it, or another; a thread among those who wait."""
    cache, gate, results = open_sharded(), Gate(), list[Any]()

    async def main() -> None:
        tasks = [asyncio.create_task(cache.aio.get_or_load("k", gate)) for _ in range(4)]
        await until(gate.entered.is_set)
        await until(lambda: waiting(cache, "k") == 5)
        gone = tasks.pop(0 if which == "first" else -1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.open.set()
        results.extend(await asyncio.gather(*tasks))

    def in_thread() -> None:
        assert gate.entered.wait(TIMEOUT)
        results.append(cache.get_or_load("k", str.upper))

    in_threads(lambda: asyncio.run(main()), in_thread)
    assert gate.calls == ["k"]
    assert results == [["k", 1]] * 4


def test_cancelled_reader_leaves_the_reading_to_the_others(
    open_sharded: Callable[..., TieredCache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """They ask for themselves."""
    cache = open_sharded(timeout=10)
    cache["k"] = "value"
    cache.drop("k")

    async def main() -> None:
        await cache.aio.get("other")
        for server in two_shards:
            server.pause()
        tasks = [asyncio.create_task(cache.aio.get("k")) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        await asyncio.sleep(0)
        for server in two_shards:
            server.resume()
        assert await asyncio.gather(*tasks[1:]) == ["value", "value"]
        assert tasks[0].cancelled()

    asyncio.run(main())


def test_loader_that_raises_reaches_every_task_and_gives_the_lease_back(
    open_sharded: Callable[..., TieredCache[Any, Any]],
) -> None:
    """Its own exception; the next load need not wait."""
    cache = open_sharded()

    async def fail(key: str) -> str:
        await until(lambda: waiting(cache, "k") == 4)
        raise LookupError(f"no row {key}")

    async def main() -> None:
        results = await asyncio.gather(*[cache.aio.get_or_load("k", fail) for _ in range(4)], return_exceptions=True)
        assert all(type(result) is LookupError for result in results)
        assert await cache.aio.get_or_load("k", str.upper) == "K"

    asyncio.run(main())


def test_cancelled_wait_for_a_slow_loader_is_finished_in_the_background(
    open_sharded: Callable[..., TieredCache[Any, Any]],
) -> None:
    """``wait_for`` gives the caller its time back; the value comes to the cache all the same."""
    cache, gate = open_sharded(), Gate()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cache.aio.get_or_load("k", gate), 0.1)
        gate.entered.wait(0)
        gate.open.set()
        await until(lambda: cache.peek("k") is not None)
        assert await cache.aio.get("k") == ["k", 1]

    asyncio.run(main())


def test_dead_shard_costs_the_caching_not_the_value(
    open_sharded: Callable[..., TieredCache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Reads miss, loaders stand in, writes say so; the other shard is as it was."""
    cache = open_sharded(timeout=0.5)
    keys = [f"k{number}" for number in range(100)]
    dead = {key for key in keys if cache._tier.place(key)[0] == 0}
    live = set(keys) - dead

    async def main() -> None:
        c = cache.aio
        await c.set_many(dict.fromkeys(keys, 1))
        two_shards[0].kill()
        cache.drop_all()
        assert set(await c.get_many(keys)) == live
        assert {key for key in keys if await c.get(key) == 1} == live
        key = min(dead)
        assert await c.get_or_load(key, str.upper) == key.upper()
        with pytest.raises(KeyError) as missing:
            await c.get_or_load(key)
        assert isinstance(missing.value.__cause__, ShardUnavailableError)
        with pytest.raises(ShardUnavailableError):
            await c.set(key, 2)
        with pytest.raises(nearcache.BulkError) as partly:
            await c.set_many(dict.fromkeys(keys, 3))
        assert set(partly.value.stored) == live
        assert not await c.contains(key)
        two_shards[0].start()
        await until(lambda: cache._driver.status(0).breaker == "closed")
        # What is made up for from before may remove what is written meanwhile.
        await until(lambda: not any(journal.owes for journal in cache._tier.journals))
        await c.set(key, 4)
        assert await c.get(key) == 4

    asyncio.run(main())


def test_read_has_one_deadline(
    open_sharded: Callable[..., TieredCache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """A shard that answers nothing is a miss within the time given, and the loop goes on meanwhile."""
    cache = open_sharded(timeout=0.2)
    cache["k"] = 1
    cache.drop("k")

    async def main() -> None:
        await asyncio.gather(cache.aio.get("a"), cache.aio.get("b"), cache.aio.get("c"))
        for server in two_shards:
            server.pause()
        assert await asyncio.wait_for(cache.aio.get("k", "default"), 10) == "default"
        for server in two_shards:
            server.resume()

    asyncio.run(main())


def test_circle_of_loaders_is_an_error(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """Between tasks and a thread: a needs b needs a."""
    cache, both = open_sharded(), threading.Barrier(2, timeout=TIMEOUT)
    outcomes: list[Any] = []

    async def needs_b(key: str) -> Any:
        await asyncio.to_thread(both.wait)
        return await cache.aio.get_or_load("b", str.upper)

    def needs_a(key: str) -> Any:
        both.wait()
        return cache.get_or_load("a", str.upper)

    async def main() -> None:
        outcomes.append(await cache.aio.get_or_load("a", needs_b))

    def note(work: Callable[[], Any]) -> None:
        try:
            work()
        except LoadCycleError as error:
            outcomes.append(error)

    in_threads(lambda: note(lambda: asyncio.run(main())), lambda: note(lambda: cache.get_or_load("b", needs_a)))
    circles = [outcome for outcome in outcomes if isinstance(outcome, LoadCycleError)]
    assert circles
    assert all(set(circle.chain) == {"a", "b"} for circle in circles)
