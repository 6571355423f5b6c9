"""``memory://`` for asyncio: one load per key, whoever asks; nobody's cancellation is another's."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import LoadCycleError, MemoryCache
from nearcache.aio import AsyncCache
from support.tasks import LoopGate

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


def test_methods_do_what_the_caches_do() -> None:
    """Every verb, hits and misses."""

    async def main() -> None:
        async with nearcache.open("memory://", maxsize=10).aio as c:
            assert await c.get("a") is None
            await c.set("a", 1)
            await c.set("short", 1, ttl=1000)
            assert await c.get("a") == await c.get_or_load("a") == c.cache["a"] == 1
            assert await c.contains("a")
            assert not await c.contains("b")
            assert await c.setdefault("a", 5) == 1
            assert await c.setdefault("b", 5) == 5
            await c.set_many({"x": 1, "y": 2})
            await c.update({"z": 3}, w=4)
            await c.update()
            assert await c.get_many(["x", "y", "z", "w", "nothing"]) == {"x": 1, "y": 2, "z": 3, "w": 4}
            assert await c.pop("x") == 1
            assert await c.pop("x", None) is None
            with pytest.raises(KeyError):
                await c.pop("x")
            assert await c.invalidate("y")
            assert not await c.invalidate("y")
            await c.delete_many(["z", "w"])
            assert await c.get_many(["x", "y", "z", "w"]) == {}
            with pytest.raises(KeyError, match="none"):
                await c.get_or_load("none")
            await c.set("tagged", 1, tags=["t"])
            await c.set_many({"also": 2}, tags=["t"])
            assert await c.get_or_load("loaded", str.upper, tags=lambda key, value: [value.lower()]) == "LOADED"
            await c.invalidate_tag("t")
            await c.invalidate_tag("loaded")
            assert await c.get_many(["tagged", "also", "loaded"]) == {}
            async with c.hold(["a"]):
                assert await c.get("a") is None
                await c.set("a", "old")
            assert await c.get("a") is None
            with pytest.raises(ValueError, match="seconds"):
                c.hold(["a"], seconds=0)
            await c.wait_for(c.cache.token())
            await c.clear()
            assert len(c.cache) == 0
            assert await c.selftest() == nearcache.SelfTest()
        with pytest.raises(nearcache.ClosedError):
            await c.set("a", 1)
        with pytest.raises(nearcache.ClosedError):
            await c.get("a")
        await c.close()

    asyncio.run(main())


def test_view_has_the_cache_s_verbs() -> None:
    """Under the same names and parameters. What needs no I/O is the cache's own."""
    local = {
        "aio", "cache_info", "cached", "copy", "expire", "fromkeys", "health", "items", "keys", "popitem", "settings",
        "stats", "token", "values", "view", *vars(nearcache.cache.base.Store),
    }  # fmt: skip
    verbs = {name for name in dir(MemoryCache) if not name.startswith("_")} - local
    assert verbs <= set(dir(AsyncCache))
    own = {name for name in dir(AsyncCache) if not name.startswith("_")} - {"cache", "contains"}
    assert own <= set(dir(MemoryCache))


def test_aio_is_one_object_and_says_whose() -> None:
    """It is made once."""
    cache = nearcache.open("memory://")
    assert cache.aio is cache.aio
    assert cache.aio.cache is cache
    assert repr(cache.aio) == f"{cache!r}.aio"
    cache.close()


def test_copies_have_views_of_their_own() -> None:
    """A copied or pickled cache's view is not the first one's."""
    cache: MemoryCache[str, int] = MemoryCache()
    assert cache.aio.cache is cache
    assert cache.copy().aio.cache is not cache


def test_importing_nearcache_does_not_import_asyncio() -> None:
    """Those who do not use it do not pay for it."""
    code = "import sys, nearcache; nearcache.open('memory://')['k'] = 1; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=TIMEOUT, check=False).returncode == 0


def test_cold_key_is_loaded_once_however_many_tasks_ask() -> None:
    """And all of them get the one object."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        tasks = [asyncio.create_task(c.get_or_load("k", gate)) for _ in range(16)]
        await gate.entered.wait()
        gate.open.set()
        results = await asyncio.gather(*tasks)
        assert gate.calls == ["k"]
        assert all(result is results[0] for result in results)
        assert c.cache.stats().loader.loads == 1
        await c.close()

    asyncio.run(main())


def test_threads_tasks_and_loops_share_one_load() -> None:
    """Two loops in two threads, and threads without a loop; whoever is first loads for all."""
    cache = nearcache.open("memory://")
    calls: list[Any] = []
    results: list[Any] = []
    asked = threading.Barrier(5, timeout=TIMEOUT)

    def loader(key: str) -> list[str]:
        calls.append(key)
        while cache.stats().loader.running != 1 or not all_wait():
            threading.Event().wait(0.001)
        return [key]

    async def aloader(key: str) -> list[str]:
        return await asyncio.to_thread(loader, key)

    def all_wait() -> bool:
        load = cache._loads.under_way("k")
        return load is not None and cache._loads.waiting + len(load.callbacks) >= 8

    async def in_loop() -> None:
        asked.wait()
        results.extend(await asyncio.gather(*[cache.aio.get_or_load("k", aloader) for _ in range(4)]))

    def in_thread() -> None:
        asked.wait()
        results.append(cache.get_or_load("k", loader))

    work: list[Callable[[], Any]] = [lambda: asyncio.run(in_loop())] * 2 + [in_thread] * 3
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert calls == ["k"]
    assert results == [["k"]] * 11
    assert all(result is results[0] for result in results)
    cache.close()


@pytest.mark.parametrize("which", ["first", "last"])
def test_cancelled_waiter_leaves_the_load_to_the_others(which: str) -> None:
    """Be it the one that began the load or another."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        tasks = [asyncio.create_task(c.get_or_load("k", gate)) for _ in range(4)]
        await gate.entered.wait()
        tasks.pop(0 if which == "first" else -1).cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert await asyncio.gather(*tasks) == [["k", 1]] * 3
        await c.close()

    asyncio.run(main())


def test_load_whose_waiters_are_all_cancelled_ends_and_is_kept() -> None:
    """The work was done, so the cache has it."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(c.get_or_load("k", gate), 0.01)
        assert gate.calls == ["k"]
        later = asyncio.create_task(c.get_or_load("k", gate))
        await asyncio.sleep(0)
        gate.open.set()
        assert await later == ["k", 1]
        assert await c.get("k") == ["k", 1]
        assert gate.calls == ["k"]
        await c.close()

    asyncio.run(main())


@pytest.mark.parametrize("error", [LookupError("no such row"), StopAsyncIteration()])
def test_loader_that_raises_reaches_every_task(error: Exception) -> None:
    """Its own exception; nothing is kept; and nobody is told of an error that all have seen."""

    async def main() -> None:
        c = nearcache.open("memory://").aio

        async def loader(key: str) -> str:
            await asyncio.sleep(0)
            raise error

        results = await asyncio.gather(*[c.get_or_load("k", loader) for _ in range(4)], return_exceptions=True)
        assert all(result is error for result in results)
        assert c.cache.stats().loader == nearcache.cache.report.LoaderStats(1, 1, 0)
        assert await c.get_or_load("k", str.upper) == "K"
        await c.close()

    reported: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert reported == []


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_loader_that_raises_stop_iteration_ends_its_load(many: bool) -> None:
    """No future can carry that one, and who waits must not wait for ever."""

    def stop(_key: Any) -> Any:
        raise StopIteration

    async def main() -> None:
        cache = nearcache.open("memory://")
        asked = cache.aio.get_or_load_many(["k"], stop) if many else cache.aio.get_or_load("k", stop)
        with pytest.raises(RuntimeError, match=r"stop.* raised StopIteration"):
            await asyncio.wait_for(asked, TIMEOUT)
        assert await cache.aio.get_or_load("k", lambda _key: 1) == 1

    asyncio.run(main())


def test_loader_that_is_cancelled_itself_raises_it_where_it_was_asked_for() -> None:
    """And the others load for themselves."""

    async def main() -> None:
        c = nearcache.open("memory://").aio
        calls: list[str] = []

        async def loader(key: str) -> int:
            calls.append(key)
            await asyncio.sleep(0)
            if len(calls) == 1:
                raise asyncio.CancelledError
            return len(calls)

        results = await asyncio.gather(*[c.get_or_load("k", loader) for _ in range(3)], return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [2, 2]
        await c.close()

    asyncio.run(main())


def test_loader_that_blocks_runs_in_a_worker_thread() -> None:
    """The loop goes on meanwhile. A callable that returns an awaitable is awaited."""

    async def main() -> None:
        c, moved = nearcache.open("memory://").aio, threading.Event()

        def loader(key: str) -> int:
            assert moved.wait(TIMEOUT)
            return threading.get_ident()

        async def double(key: str) -> str:
            return key * 2

        task = asyncio.create_task(c.get_or_load("k", loader))
        await asyncio.sleep(0)
        moved.set()
        assert await task != threading.get_ident()
        assert await c.get_or_load("lambda", lambda key: double(key)) == "lambdalambda"
        await c.close()

    asyncio.run(main())


def test_value_that_is_too_old_and_that_nobody_can_load_is_missing() -> None:
    """As in a thread: without a loader the age is all that is asked for."""
    cache = nearcache.open("memory://", ages=True)

    async def main() -> None:
        async with cache.aio as c:
            cache["k"] = 1
            assert await c.get_or_load("k", max_age=60) == 1
            for key, age in (("missing", 60), ("k", 0)):
                with pytest.raises(KeyError):
                    await c.get_or_load(key, max_age=age)
                assert await c.get(key, 7, max_age=age) == 7

    asyncio.run(main())


def test_loader_of_the_cache_may_be_a_coroutine_function() -> None:
    """A thread that asks for it is told, instead of being given a coroutine."""

    async def double(key: str) -> str:
        return key * 2

    cache = nearcache.open("memory://", loader=double)

    async def main() -> None:
        assert await cache.aio.get_or_load("a") == "aa"
        assert await cache.aio.get("b") is None
        assert cache["a"] == "aa"

    asyncio.run(main())
    with pytest.raises(TypeError, match=r"double.*is a coroutine function: await cache.aio"):
        cache["b"]
    cache.close()


def test_loader_may_use_the_cache_but_not_wait_for_itself() -> None:
    """Other keys, at once too, and through a worker thread; a circle is an error that shows the keys."""

    async def main() -> None:
        c = nearcache.open("memory://").aio

        async def loader(key: str) -> Any:
            if key == "many":
                return await asyncio.gather(c.get_or_load("a", loader), c.get_or_load("b", loader))
            if key == "self":
                return await asyncio.gather(c.get_or_load("a", loader), c.get_or_load("self", loader))
            if key == "thread":
                return await asyncio.to_thread(c.cache.get_or_load, "thread", str.upper)
            if key in ("ping", "pong"):
                return await c.get_or_load("pong" if key == "ping" else "ping", loader)
            return key

        assert await c.get_or_load("many", loader) == ["a", "b"]
        with pytest.raises(LoadCycleError, match="'self' -> 'self'"):
            await c.get_or_load("self", loader)
        with pytest.raises(LoadCycleError, match=r"'thread' -> 'thread'"):
            await c.get_or_load("thread", loader)
        with pytest.raises(LoadCycleError, match=r"'ping'.*'pong'|'pong'.*'ping'"):
            await asyncio.gather(c.get_or_load("ping", loader), c.get_or_load("pong", loader))
        assert c.cache.stats().loader.running == 0
        await c.close()

    asyncio.run(main())


def test_synchronous_call_that_would_block_its_own_loop_is_told() -> None:
    """The load needs the very thread that would wait."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        task = asyncio.create_task(c.get_or_load("k", gate))
        await gate.entered.wait()
        with pytest.raises(LoadCycleError, match="this thread runs the event loop"):
            c.cache.get_or_load("k", str.upper)
        gate.open.set()
        assert await task == ["k", 1]
        await c.close()

    asyncio.run(main())


def test_value_written_during_a_load_wins() -> None:
    """The write is newer than what was loaded."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        task = asyncio.create_task(c.get_or_load("k", gate))
        await gate.entered.wait()
        await c.set("k", "written")
        gate.open.set()
        assert await task == ["k", 1]
        assert await c.get("k") == "written"
        await c.close()

    asyncio.run(main())


def test_ttl_size_and_key_function_hold_for_loads_too() -> None:
    """Those of the call, or else the cache's."""

    async def main() -> None:
        cache: MemoryCache[str, str] = MemoryCache(maxbytes=100, getsizeof=len, key=str.lower)
        assert await cache.aio.get_or_load("A", str.swapcase, ttl=1000) == "a"
        assert await cache.aio.get("a") == "a"
        left_ns = cache.remaining_ns("a")
        assert left_ns is not None
        assert left_ns <= 1001 * 10**9
        assert cache.l1_counters()["bytes"] == 1
        with pytest.raises(nearcache.ConfigError, match="ttl"):
            await cache.aio.get_or_load("b", str.upper, ttl=-1)
        await cache.aio.close()

    asyncio.run(main())
