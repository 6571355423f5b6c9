"""``memory://`` for asyncio at an end: that of a loop, whatever way it goes, and that of the cache."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

import nearcache
from support.tasks import LoopGate

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.mark.parametrize("how", ["run", "close"])
def test_loop_that_ends_in_the_middle_leaves_the_load_to_others(how: str) -> None:
    """``asyncio.run`` cancels what is left; a loop that is merely closed does not, but its load is given up as well.

    A thread that waits takes over.
    """
    cache = nearcache.open("memory://")
    entered, waiting = threading.Event(), threading.Event()
    results: list[Any] = []
    unwound: list[str] = []

    async def hang(key: str) -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append(key)
        return "never"

    async def begin() -> None:
        task = asyncio.ensure_future(cache.aio.get_or_load("k", hang))
        while not waiting.is_set():
            await asyncio.sleep(0)
        if how == "close":
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # this one is the test's own

    def wait() -> None:
        assert entered.wait(TIMEOUT)
        results.append(cache.get_or_load("k", str.upper))

    def tell() -> None:
        while not cache._loads.waiting:
            threading.Event().wait(0.001)
        waiting.set()

    threads = [threading.Thread(target=wait), threading.Thread(target=tell)]
    for thread in threads:
        thread.start()
    if how == "run":
        asyncio.run(begin())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert results == ["K"]
    assert unwound == ["k"]
    gc.collect()
    cache.close()


class Forgotten(asyncio.SelectorEventLoop):
    """One that says nothing when it is collected, though nobody has closed it."""

    sockets: tuple[Any, Any]

    def __init__(self) -> None:
        super().__init__()
        self.sockets = self._ssock, self._csock  # type: ignore[attr-defined]  # to be closed by hand

    def __del__(self) -> None:
        """Do not warn."""


def test_loop_that_is_left_behind_leaves_the_load_to_others() -> None:
    """Nobody closes it, and its thread ends: it is collected although a load that others wait for is its own."""
    cache = nearcache.open("memory://")
    sockets: list[Any] = []
    results: list[Any] = []

    async def begin() -> None:
        gate = LoopGate()
        task = asyncio.ensure_future(cache.aio.get_or_load("k", gate))
        await gate.entered.wait()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # this one is the test's own

    def leave_behind() -> None:
        loop = Forgotten()
        sockets.extend(loop.sockets)
        loop.run_until_complete(begin())

    first = threading.Thread(target=leave_behind)
    first.start()
    first.join(TIMEOUT)
    load = cache._loads.under_way("k")
    assert load is not None
    load.carrier = 0  # a new thread may have the number of the one that is gone
    waiter = threading.Thread(target=lambda: results.append(cache.get_or_load("k", str.upper)))
    waiter.start()
    while not cache._loads._waiting.get(waiter.ident):
        threading.Event().wait(0.001)
    del load
    gc.collect()
    waiter.join(TIMEOUT)
    for each in sockets:
        each.close()
    assert results == ["K"]
    cache.close()


def test_task_that_nobody_holds_gets_what_it_waits_for() -> None:
    """Its loop does not keep it from being collected, and the load of a thread knows it but weakly."""
    cache = nearcache.open("memory://")
    entered, gate = threading.Event(), threading.Event()
    results: list[Any] = []

    def load(key: str) -> str:
        entered.set()
        assert gate.wait(TIMEOUT)
        return key.upper()

    async def main() -> None:
        async def ask() -> None:
            results.append(await cache.aio.get_or_load("k", str.lower))

        assert await asyncio.to_thread(entered.wait, TIMEOUT)
        asyncio.ensure_future(ask())  # noqa: RUF006  that is the point
        while len(cache._loads.under_way("k").callbacks) < 1:  # type: ignore[union-attr]  # the thread's
            await asyncio.sleep(0)
        gc.collect()
        gate.set()
        while not results:
            await asyncio.sleep(0)

    thread = threading.Thread(target=cache.get_or_load, args=("k", load))
    thread.start()
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    thread.join(TIMEOUT)
    assert results == ["K"]
    cache.close()


def test_load_begun_just_before_its_loop_ends_is_given_up() -> None:
    """Its task has not taken its first step."""
    cache = nearcache.open("memory://")

    async def begin() -> None:
        asyncio.ensure_future(cache.aio.get_or_load("k", LoopGate()))  # noqa: RUF006  that is the point
        await asyncio.sleep(0)
        assert cache._loads.under_way("k") is not None

    asyncio.run(begin())
    assert cache._loads.under_way("k") is None
    assert cache.get_or_load("k", str.upper) == "K"
    cache.close()


def test_close_cancels_the_loads_of_the_loop() -> None:
    """And says so to who waits for them. No task is left."""

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()
        task = asyncio.create_task(c.get_or_load("k", gate))
        await gate.entered.wait()
        await c.close()
        with pytest.raises(nearcache.ClosedError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


@pytest.mark.parametrize("indirectly", [False, True])
def test_loader_that_closes_the_cache_comes_to_its_own_end(indirectly: bool) -> None:
    """Other loads are cancelled, and awaited; its own, by itself or by a task of its own, would wait for itself."""
    ends: list[str] = []

    async def main() -> None:
        c, gate = nearcache.open("memory://").aio, LoopGate()

        async def closing(key: str) -> str:
            await (asyncio.create_task(c.close()) if indirectly else c.close())
            ends.append(key)
            return key

        other = asyncio.create_task(c.get_or_load("other", gate))
        await gate.entered.wait()
        assert await c.get_or_load("k", closing) == "k"
        with pytest.raises(nearcache.ClosedError):
            await other

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert ends == ["k"]
