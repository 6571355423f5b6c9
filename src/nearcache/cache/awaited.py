"""``cache.cached`` on coroutine functions: one load per key, and an event loop that is never blocked.

Whatever may wait for the network goes through :class:`Apart`, which hands it to a thread. That is all this module asks
of a cache, and the place where another way of asking can be put in.

A load is a task of its own, shielded from the callers who wait for it: cancelling one of them does not cancel it. Its
thread goes through ``get_or_load`` like any other, so threads, tasks and event loops share one load; the coroutine runs
on the loop of the caller who began it. A thread per load, and none of a pool: loads may need each other.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from ..answers import bare
from ..awaiting import carried
from ..errors import LoadCycleError
from .cached import ABSENT, Cached, Plan

#: The load that the present task is part of.
_current: Final[contextvars.ContextVar[Pending | None]] = contextvars.ContextVar("nearcache_load", default=None)


class Apart:
    """Runs blocking calls in threads for an event loop."""

    @staticmethod
    async def run(call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns, called in a thread of its own, in a copy of the present context."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                value = context.run(carried, call)
            except concurrent.futures.CancelledError:
                _tell(loop, outcome, outcome.cancel)
            except BaseException as error:  # noqa: BLE001  it is raised where the outcome is awaited
                _tell(loop, outcome, outcome.set_exception, error)
            else:
                _tell(loop, outcome, outcome.set_result, value)

        threading.Thread(target=work, name="nearcache-load", daemon=True).start()
        return await outcome


def _tell(loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[Any], how: Callable[..., Any], *what: Any) -> None:
    def tell() -> None:
        if not outcome.done():
            how(*what)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return


class Pending:
    """A load under way on one loop, and the loads that it waits for."""

    __slots__ = ("awaits", "key", "task")

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key
        self.awaits: list[Pending] = []
        self.task: asyncio.Task[Any]

    def path_to(self, wanted: Pending) -> list[Pending] | None:
        """Return the loads through which this one waits for another, both included; ``None`` if it does not."""
        paths, seen = [[self]], {id(self)}
        while paths:
            path = paths.pop()
            if path[-1] is wanted:
                return path
            fresh = [load for load in path[-1].awaits if id(load) not in seen]
            seen.update(map(id, fresh))
            paths.extend([*path, load] for load in fresh)
        return None


async def wait_for(load: Pending) -> Any:
    """Wait for a load, as a part of another one perhaps.

    Raises:
        LoadCycleError: That load waits, through others, for the one that this is part of.
    """
    outer = _current.get()
    if outer is None:
        return await asyncio.shield(load.task)
    path = load.path_to(outer)
    if path is not None:
        raise LoadCycleError([outer.key, *(part.key for part in path)])
    outer.awaits.append(load)
    try:
        return await asyncio.shield(load.task)
    finally:
        outer.awaits.remove(load)


class CachedCoroutine(Cached):
    """A coroutine function whose results are kept in a cache.

    A hit in this process's memory does not suspend. ``invalidate``, ``refresh``, ``set`` and ``cache_clear`` are
    coroutine functions as well.
    """

    def __init__(self, plan: Plan, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        super().__init__(plan, function)
        self._pending: dict[tuple[Any, ...], Pending] = {}
        # What asyncio and inspect go by when they are asked whether this is a coroutine function.
        self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
        mark = getattr(inspect, "markcoroutinefunction", None)  # since 3.12
        if mark is not None:
            mark(self)

    async def cache_clear(self) -> None:
        """See :meth:`Cached.cache_clear`."""
        await Apart.run(self._plan.clear)
        self._forget_counts()

    async def _call(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        if not self._knows_generation():
            try:
                await Apart.run(self._plan.generation)
            except ConnectionError:
                return bare(await self._function(*args, **kwargs))
        try:
            found, key = self._hit(args, kwargs, is_method)
        except ConnectionError:
            return bare(await self._function(*args, **kwargs))
        return found if found is not ABSENT else (await self._load(key, args, kwargs))[0]

    def _knows_generation(self) -> bool:
        plan = self._plan
        return not plan.is_shared or plan.cache.hit((plan.name,), ABSENT) is not ABSENT

    async def _load(self, key: tuple[Any, ...], args: Any, kwargs: Any) -> tuple[Any, bool]:
        """Return the value, and whether this call of ours has made it."""
        loop = asyncio.get_running_loop()
        place = (id(loop), key)
        load = self._pending.get(place)
        if load is not None:
            self._count(hit=True)
            return (await wait_for(load))[0], False
        load = self._pending[place] = Pending(key)
        context = contextvars.copy_context()
        context.run(_current.set, load)
        load.task = context.run(loop.create_task, self._in_thread(key, args, kwargs))
        load.task.add_done_callback(lambda task: self._ended(place, task))
        return cast("tuple[Any, bool]", await wait_for(load))

    async def _in_thread(self, key: tuple[Any, ...], args: Any, kwargs: Any) -> tuple[Any, bool]:
        loop = asyncio.get_running_loop()

        async def call() -> Any:
            return await self._function(*args, **kwargs)

        def call_there() -> Any:
            return asyncio.run_coroutine_threadsafe(call(), loop).result()

        return cast("tuple[Any, bool]", await Apart.run(lambda: self._read_through(key, call_there, (), {})))

    def _ended(self, place: tuple[Any, ...], task: asyncio.Task[Any]) -> None:
        del self._pending[place]
        if not task.cancelled():
            task.exception()  # those who wait raise it; if nobody does any more, that is no news

    async def _invalidate(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        return await Apart.run(lambda: Cached._invalidate(self, args, kwargs, is_method))

    async def _refresh(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = await Apart.run(lambda: self._key(args, kwargs, is_method))
        while True:
            await Apart.run(lambda: self._plan.cache.invalidate(key))
            value, is_new = await self._load(key, args, kwargs)
            if is_new:
                return value

    async def _set(self, value: Any, args: Any, kwargs: Any, is_method: bool) -> Any:
        await Apart.run(lambda: Cached._set(self, value, args, kwargs, is_method))
