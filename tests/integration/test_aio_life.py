"""The life of ``cache.aio`` on real servers: loops that come and go, forks, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.cache.tiered.cache import TieredCache
from support.leaks import holdings
from support.redis import RedisServer
from support.tasks import Gate, in_threads, until, waiting
from support.waiting import wait_until
from support.worker import Worker

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize("how", ["run", "close"])
def test_loop_that_ends_in_the_middle_of_a_load_leaves_it_to_others(
    open_sharded: Callable[..., TieredCache[Any, Any]], how: str
) -> None:
    """Whether its tasks are cancelled or just dropped: a thread that waits loads instead."""
    cache, gate, results = open_sharded(), Gate(), list[Any]()

    async def begin() -> None:
        task = asyncio.ensure_future(cache.aio.get_or_load("k", gate))
        await until(lambda: waiting(cache, "k") == 2)
        if how == "close":
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # this one is the test's own

    def end() -> None:
        if how == "run":
            asyncio.run(begin())
        else:
            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin())
            loop.close()

    def wait() -> None:
        assert gate.entered.wait(TIMEOUT)
        results.append(cache.get_or_load("k", str.upper))

    in_threads(end, wait)
    assert gate.calls == ["k"]
    assert results == ["K"]
    gc.collect()


@pytest.mark.parametrize("indirectly", [False, True])
def test_loader_that_closes_the_cache_comes_to_its_own_end(
    open_sharded: Callable[..., TieredCache[Any, Any]], indirectly: bool
) -> None:
    """Other loads are cancelled, and awaited; its own, by itself or by a task of its own, would wait for itself."""
    ends: list[str] = []

    async def main() -> None:
        c, gate = open_sharded().aio, Gate()

        async def closing(key: str) -> str:
            await (asyncio.create_task(c.close()) if indirectly else c.close())
            ends.append(key)
            return key

        other = asyncio.create_task(c.get_or_load("other", gate))
        await until(gate.entered.is_set)
        with pytest.raises(nearcache.ClosedError):  # L2 is closed to what it brings
            await c.get_or_load("k", closing)
        with pytest.raises(nearcache.ClosedError):
            await other

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert ends == ["k"]


def test_one_loop_per_test_leaves_nothing_behind(open_sharded: Callable[..., TieredCache[Any, Any]]) -> None:
    """As pytest's plugins do it: a loop each, one cache."""
    cache = open_sharded()
    before = holdings()
    for number in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cache.aio.set(number, number))
        cache.drop(number)
        assert loop.run_until_complete(cache.aio.get(number)) == number
        loop.close()
    wait_until(lambda: holdings().beyond(before) == [], what="the threads that connect have ended")


def test_cache_that_is_dropped_is_collected_with_its_view(redis_server: RedisServer) -> None:
    """In a loop that goes on: no socket, no thread, no task of it is left."""
    before = holdings()

    async def main() -> None:
        cache = nearcache.open(redis_server.url)
        await cache.aio.set("k", 1)
        seen = weakref.ref(cache)
        del cache
        gc.collect()
        assert seen() is None
        await until(lambda: holdings().beyond(before) == [] or None)
        assert len(asyncio.all_tasks()) == 1

    loop = asyncio.new_event_loop()
    before = holdings()
    loop.run_until_complete(main())
    loop.close()


FORK = """
import asyncio, os
import nearcache

cache = nearcache.open(URL)

async def use(key, value):
    await cache.aio.set(key, value)
    cache.drop(key)
    return await cache.aio.get_or_load(key, lambda key: "loaded")

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def between_loops():
    before = asyncio.run(use("k", 1))
    child = in_child(lambda: asyncio.run(use("c", 2)) == 2)
    return [before, child, asyncio.run(use("k", 3))]

async def inside():
    # The loop of the parent does not run in the child, which makes another; the parent's has to stay as it was.
    global begun, may_end
    begun, may_end = asyncio.Event(), asyncio.Event()
    before = await use("k", 1)
    load = asyncio.ensure_future(cache.aio.get_or_load("slow", slow))
    await begun.wait()
    child = in_child(fresh_loop)
    found = [before, child, await use("k", 3)]
    may_end.set()
    return [*found, await load]

async def slow(key):
    if key == "slow":
        begun.set()
        await may_end.wait()
    return "slow"

def fresh_loop():
    asyncio.events._set_running_loop(None)
    other = asyncio.run(use("c", 2)) == 2 and asyncio.run(cache.aio.get_or_load("child", slow)) == "slow"
    cache.close()
    return other

def within_a_loop():
    return asyncio.run(inside())
"""


def test_forked_child_has_loops_and_connections_of_its_own(
    make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """Between two loops, and in the middle of one with a load under way: both sides go on."""
    worker = make_worker(f"URL = {redis_server.url!r}\n{FORK}")
    assert worker.call("between_loops") == [1, 0, 3]
    assert worker.call("within_a_loop") == [1, 0, 3, "slow"]
