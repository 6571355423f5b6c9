"""``cache.cached`` on coroutine functions: one load, no blocked loop, cancellation, circles."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import nearcache
from nearcache import Cache, LoadCycleError
from support.threads import PATIENCE, together


@pytest.fixture
def cache() -> Cache[Any, Any]:
    """A cache of this process."""
    return nearcache.open("memory://", maxsize=1000)


def run(main: Any) -> Any:
    """Run a coroutine function to its end on a loop of its own; one that hangs fails."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main(), PATIENCE)

    return asyncio.run(bounded())


def test_coroutine_many_tasks_share_one_load(cache: Cache[Any, Any]) -> None:
    """All get its result, and the loop is free while they wait."""
    calls = []

    async def main() -> None:
        gate = asyncio.Event()

        @cache.cached
        async def f(x: int) -> list[int]:
            calls.append(x)
            await gate.wait()
            return [x]

        tasks = [asyncio.create_task(f(1)) for _ in range(20)]
        while not calls:
            await asyncio.sleep(0)  # the loop turns
        gate.set()
        results = await asyncio.gather(*tasks)
        assert all(result is results[0] for result in results)
        assert f.cache_info() == (19, 1, 1000, 1)
        assert f.peek(1) is results[0]

    run(main)
    assert calls == [1]


def test_coroutine_hit_does_not_suspend(cache: Cache[Any, Any]) -> None:
    """What memory holds comes back in the first step."""

    @cache.cached
    async def f(x: int) -> int:
        return x

    assert run(lambda: f(1)) == 1
    with pytest.raises(StopIteration) as stopped:
        f(1).send(None)
    assert stopped.value.value == 1


def test_coroutine_cancelled_waiter_leaves_the_load_to_the_others(cache: Cache[Any, Any]) -> None:
    """Even when it is the one that began it."""
    calls = []

    async def main() -> None:
        gate, entered = asyncio.Event(), asyncio.Event()

        @cache.cached
        async def f() -> str:
            calls.append(1)
            entered.set()
            await gate.wait()
            return "done"

        first, second = asyncio.create_task(f()), asyncio.create_task(f())
        await entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == "done"
        assert await f() == "done"

    run(main)
    assert calls == [1]


def test_coroutine_exception_reaches_all_and_is_not_kept(cache: Cache[Any, Any]) -> None:
    """The very object; the next call tries again."""
    failure = KeyError("no")
    calls = []

    async def main() -> None:
        @cache.cached
        async def f() -> None:
            calls.append(1)
            await asyncio.sleep(0)
            raise failure

        outcomes = await asyncio.gather(*(f() for _ in range(3)), return_exceptions=True)
        assert all(outcome is failure for outcome in outcomes)
        with pytest.raises(KeyError):
            await f()

    run(main)
    assert calls == [1, 1]


def test_coroutine_recursion_works_and_circles_are_errors(cache: Cache[Any, Any]) -> None:
    """On other keys it goes down; a circle, through other tasks too, shows its chain."""

    async def main() -> None:
        @cache.cached
        async def fib(n: int) -> int:
            return n if n < 2 else sum(await asyncio.gather(fib(n - 1), fib(n - 2)))

        assert await fib(30) == 832040

        waiting: list[int] = []
        met = asyncio.Event()

        @cache.cached
        async def circle(n: int) -> int:
            waiting.append(n)
            if len(waiting) == 2:
                met.set()
            await met.wait()
            return await circle(1 - n)

        outcomes = await asyncio.gather(circle(0), circle(1), return_exceptions=True)
        assert all(isinstance(outcome, LoadCycleError) for outcome in outcomes)

        @cache.cached
        async def alone(n: int) -> int:
            return await alone(n)

        with pytest.raises(LoadCycleError, match="->"):
            await alone(1)

    run(main)


def test_coroutine_surface_is_awaitable(cache: Cache[Any, Any]) -> None:
    """What may wait for the network is a coroutine; what memory answers is not. Methods too."""
    values = iter(range(100))

    async def main() -> None:
        class Thing:
            @cache.cached
            async def number(self, x: int = 0) -> int:
                return next(values)

        thing = Thing()
        assert await thing.number() == await thing.number(0) == 0
        assert await thing.number.invalidate() is True
        assert await thing.number() == 1
        assert await thing.number.refresh() == 2
        await thing.number.set(50)
        assert await thing.number() == thing.number.peek() == 50
        await thing.number.cache_clear()
        assert await thing.number() == 3
        assert await Thing().number() == 4

    run(main)


def test_coroutine_unless_keeps_a_result_out(cache: Cache[Any, Any]) -> None:
    """It is returned all the same, to each who asked."""
    calls = []

    async def main() -> None:
        @cache.cached(unless=lambda result: result is None)
        async def f() -> None:
            calls.append(1)

        assert await f() is None
        assert await f() is None

    run(main)
    assert calls == [1, 1]


def test_coroutine_is_told_for_one(cache: Cache[Any, Any]) -> None:
    """What asks whether it is a coroutine function hears yes."""

    @cache.cached
    async def f() -> None: ...

    if hasattr(inspect, "markcoroutinefunction"):
        assert inspect.iscoroutinefunction(f)
    else:
        assert asyncio.iscoroutinefunction(f)


def test_coroutine_loops_in_many_threads_share_one_load(cache: Cache[Any, Any]) -> None:
    """Loops of other threads wait for the load of the first, without blocking."""
    calls = []

    @cache.cached
    async def f(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        return x

    async def ask() -> list[int]:
        return await asyncio.gather(*(f(x) for x in range(20)))

    together(lambda number: run(ask), 4)
    assert sorted(calls) == list(range(20))


def test_coroutine_keeps_its_context(cache: Cache[Any, Any]) -> None:
    """The function sees the context variables of the task that began the load."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        @cache.cached
        async def f() -> str:
            return variable.get()

        variable.set("mine")
        assert await f() == "mine"

    run(main)


def test_cached_coroutine_function_whose_unless_raises_stop_iteration_ends() -> None:
    """No future can carry that one, and who waits must not wait for ever."""
    cache: Cache[Any, Any] = nearcache.open("memory://")

    def stop(_value: Any) -> bool:
        raise StopIteration

    @cache.cached(unless=stop)
    async def answer() -> int:
        return 42

    async def main() -> None:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await asyncio.wait_for(answer(), 20.0)

    asyncio.run(main())


def stuck_at_first(begun: threading.Event, calls: list[int]) -> Callable[[int], Coroutine[Any, Any, int]]:
    """A function whose first call, as ``calls`` counts them, goes no further than to say that it has begun."""

    async def f(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            begun.set()
            await asyncio.Event().wait()
        return x

    return f


def test_coroutine_whose_loop_ends_in_the_middle_is_called_anew(cache: Cache[Any, Any]) -> None:
    """Closed without a word, or cancelled by ``asyncio.run``: who asks next, or waits already, takes over."""
    begun = threading.Event()
    calls: list[int] = []
    f = cache.cached(stuck_at_first(begun, calls))

    async def begin() -> None:
        task = asyncio.ensure_future(f(1))
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this is about
        while not begun.is_set():
            await asyncio.sleep(0)
        assert not task.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    assert run(lambda: f(1)) == 1

    begun.clear()
    calls.clear()
    cache.clear()
    asyncio.run(begin())  # cancels the task
    assert run(lambda: f(1)) == 1
    assert calls == [1, 1]


def test_coroutine_cancelled_with_its_loop_is_taken_over_by_a_waiter_of_another(cache: Cache[Any, Any]) -> None:
    """No task is cancelled for what happened to somebody else's."""
    begun, ending = threading.Event(), threading.Event()
    calls: list[int] = []
    f = cache.cached(stuck_at_first(begun, calls))

    async def first() -> None:
        task = asyncio.ensure_future(f(1))
        while not ending.is_set():
            await asyncio.sleep(0)
        assert not task.done()

    async def second() -> int:
        task = asyncio.ensure_future(f(1))
        (load,) = cache._loads._by_key.values()  # type: ignore[attr-defined]  # of memory://
        while len(load.callbacks) < 2:
            await asyncio.sleep(0)
        ending.set()
        return await task

    thread = threading.Thread(target=lambda: asyncio.run(first()))
    thread.start()
    assert begun.wait(PATIENCE)
    assert run(second) == 1
    thread.join(PATIENCE)
    assert calls == [1, 1]


def test_coroutine_call_is_a_coroutine_function(cache: Cache[Any, Any]) -> None:
    """Frameworks ask that of ``__call__`` too; and as a loader it is told for what it is."""

    @cache.cached
    async def f(x: int) -> int:
        return x

    assert inspect.iscoroutinefunction(f.__call__)

    class Service:
        @cache.cached
        async def find(self, name: str) -> str:
            return name

        @classmethod
        @cache.cached
        async def named(cls, name: str) -> str:
            return name

    assert inspect.iscoroutinefunction(Service().find.__call__)
    # From 3.13 on a class method is bound by Python itself, and what is bound says it.
    assert inspect.iscoroutinefunction(Service.named if sys.version_info >= (3, 13) else Service.named.__call__)
    with pytest.raises(TypeError, match="coroutine function"):
        cache.get_or_load(1, f)
