"""``cache.cached`` on coroutine functions: the same by way of ``cache.aio``, so that an event loop is never blocked.

A load is a task of its own: cancelling who waits for it does not cancel it. Threads, tasks and event loops share one
load; the coroutine runs on the loop of the caller who began it, and if that loop ends, another one begins anew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from ...absence import Unkept
from ...answers import bare
from ...changes import MISSING
from .cached import Bound, Cached, Plan, new_generation


class CachedCoroutine(Cached):
    """A coroutine function whose results are kept in a cache.

    A hit in this process's memory does not suspend. ``invalidate``, ``refresh``, ``set`` and ``cache_clear`` are
    coroutine functions as well.

    Raises:
        ConfigError: The cache has no ``aio``.
    """

    def __init__(self, plan: Plan, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        super().__init__(plan, function)
        self._aio = plan.cache.aio
        # What asyncio and inspect go by when they are asked whether this is a coroutine function.
        self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
        mark = getattr(inspect, "markcoroutinefunction", None)  # since 3.12
        if mark is not None:
            mark(self)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # what frameworks go by that ask the call itself
        return await self._call(args, kwargs, self._in_class)

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        return self if instance is None else BoundCoroutine(self, instance)

    async def cache_clear(self) -> None:
        """See :meth:`Cached.cache_clear`."""
        if self._plan.is_shared:
            await self._aio._set_unwritten((self._plan.name,), new_generation(), ttl=None)
        else:
            self._plan.clear()
        self._forget_counts()

    async def _generation(self) -> Any:
        held = self._plan.held_generation()
        if held is MISSING:
            held = await self._aio.get_or_load((self._plan.name,), _drawn, ttl=None, tags=())
        return held

    async def _awaited_key(self, args: Any, kwargs: Any, is_method: bool) -> tuple[Any, ...]:
        part = self._checked_part(args, kwargs, is_method)
        return (self._plan.name, await self._generation(), *part)

    async def _call(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        try:
            generation = await self._generation()
        except ConnectionError:
            return bare(await self._function(*args, **kwargs))
        found, key = self._hit(generation, args, kwargs, is_method)
        return found if found is not MISSING else (await self._read_through(key, args, kwargs))[0]

    async def _read_through(self, key: tuple[Any, ...], args: Any, kwargs: Any) -> tuple[Any, bool]:
        plan, called = self._plan, False

        async def load(_key: Any) -> Any:
            nonlocal called
            called = True
            with plan.calling():
                return plan.sifted(await self._function(*args, **kwargs))

        try:
            value = await self._aio.get_or_load(key, load, tags=plan.tags, **plan.ttl)
        except Unkept as unkept:
            value = unkept.outcome()
        finally:
            self._count(hit=not called)
        return value, called

    async def _invalidate(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        return await self._aio.invalidate(await self._awaited_key(args, kwargs, is_method))

    async def _refresh(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = await self._awaited_key(args, kwargs, is_method)
        while True:
            await self._aio.invalidate(key)
            value, is_new = await self._read_through(key, args, kwargs)
            if is_new:
                return value

    async def _set(self, value: Any, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = await self._awaited_key(args, kwargs, is_method)
        await self._aio._set_unwritten(key, value, tags=self._plan.tags, **self._plan.ttl)


class BoundCoroutine(Bound):
    """A cached coroutine method together with its instance."""

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # as in CachedCoroutine
        return await self.__func__._call((self.__self__, *args), kwargs, True)


async def _drawn(_key: Any) -> str:
    return new_generation()
