"""``cache.cached`` on coroutine functions: the same by way of ``cache.aio``, so that an event loop is never blocked.

A load is a task of its own: cancelling who waits for it does not cancel it. Threads, tasks and event loops share one
load; the coroutine runs on the loop of the caller who began it, and if that loop ends, another one begins anew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from ..._results import called_on_instances
from ...absence import Unkept
from ...answers import bare
from ...changes import MISSING
from .cached import Bound, Cached, _doc
from .plan import Plan, new_generation


class BoundCoroutine(Bound):
    """A cached coroutine method together with its instance."""

    __slots__ = ()
    __doc__ = property(_doc)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # as in CachedCoroutine
        found = MISSING if kwargs else self._plain_hit(args, MISSING)
        return found if found is not MISSING else await self.__func__._sought((self.__self__, *args), kwargs, True)


class CachedCoroutine(Cached):
    """A coroutine function whose results are kept in a cache.

    A hit in this process's memory does not suspend. ``invalidate``, ``refresh``, ``set``, ``key`` and
    ``cache_clear`` are coroutine functions as well.

    Raises:
        ConfigError: The cache has no ``aio``.
    """

    _binding = BoundCoroutine

    def __init__(self, plan: Plan, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        super().__init__(plan, function)
        self._aio = plan.cache.aio
        # What asyncio and inspect go by when they are asked whether this is a coroutine function.
        self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)
        mark = getattr(inspect, "markcoroutinefunction", None)  # since 3.12
        if mark is not None:
            mark(self)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # what frameworks go by that ask the call itself
        found = MISSING if kwargs else self._plain_hit(args, MISSING)
        return found if found is not MISSING else await self._sought(args, kwargs, self._in_class)

    async def cache_clear(self) -> None:
        """See :meth:`Cached.cache_clear`."""
        if self._plan.is_shared:
            await self._aio.invalidate((self._plan.name,))
        else:
            self._draw()
        self._forget_counts()

    async def _awaited_generation(self) -> Any:
        held = self._held_generation(MISSING)
        if held is MISSING:
            held = await self._aio._missing_load((self._plan.name,), _drawn, ttl=None, tags=())
        return held

    async def _key(self, args: Any, kwargs: Any, is_method: bool) -> tuple[Any, ...]:
        part = self._checked_part(args, kwargs, is_method)
        return (self._plan.name, await self._awaited_generation(), *part)

    async def _sought(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        """Return the value for these arguments, of which it is not known whether they are a hit."""
        try:
            generation = await self._awaited_generation()
        except ConnectionError:
            return bare(await self._function(*args, **kwargs))
        key = (self._plan.name, generation, *self._plan.part(args, kwargs, is_method=is_method))
        found = self._found(key)
        if found is not MISSING:
            return found
        self._plan.checked(key[2:])
        return (await self._read_through(key, args, kwargs))[0]

    async def _read_through(self, key: tuple[Any, ...], args: Any, kwargs: Any) -> tuple[Any, bool]:
        plan, called = self._plan, False

        async def load(_key: Any) -> Any:
            nonlocal called
            called = True
            with plan.calling():
                return plan.sifted(await self._function(*args, **kwargs))

        try:
            value = await self._aio._missing_load(key, load, tags=plan.tags, **plan.ttl)
        except Unkept as unkept:
            value = unkept.outcome()
        finally:
            self._count(hit=not called)
        return value, called

    async def _invalidate(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        return await self._aio.invalidate(await self._key(args, kwargs, is_method))

    async def _refresh(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = await self._key(args, kwargs, is_method)
        while True:
            await self._aio.invalidate(key)
            value, is_new = await self._read_through(key, args, kwargs)
            if is_new:
                return value

    async def _set(self, value: Any, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = await self._key(args, kwargs, is_method)
        await self._aio._set_unwritten(key, value, tags=self._plan.tags, **self._plan.ttl)


@called_on_instances
class CachedCoroutineMethod(CachedCoroutine):
    """A cached coroutine method, as its name and its first parameter say."""


async def _drawn(_key: Any) -> str:
    return new_generation()
