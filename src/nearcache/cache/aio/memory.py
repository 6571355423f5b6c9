"""``memory://`` for asyncio: nothing waits here but loads."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...absence import ABSENT
from ...awaiting import LoadTasks, call_loader
from ...changes import Change, Swapped
from ...flights import Load, renewal_of
from ..base import DEFAULT, K, Lifetime, V
from ..memory import NOTHING, MemoryCache
from .base import AsyncCache, AsyncHold, Loader


class AsyncMemoryCache(AsyncCache[K, V]):
    """See :class:`AsyncCache`."""

    cache: MemoryCache[K, V]

    def __init__(self, cache: MemoryCache[K, V]) -> None:
        super().__init__(cache)
        self._tasks = LoadTasks()

    async def contains(self, key: object) -> bool:
        return key in self.cache

    async def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        self.cache.set(key, value, ttl=ttl, tags=tags)

    async def setdefault(self, key: K, default: V | None = None) -> V | None:
        return self.cache.setdefault(key, default)

    async def invalidate(self, key: K) -> bool:
        return self.cache.invalidate(key)

    async def _remove(self, key: K) -> bool:
        return self.cache.invalidate(key)

    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        return self.cache.gets(key, default)

    async def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return self.cache._swap(key, change, ttl, tags)

    async def _take(self, key: Any) -> Any:
        return self.cache._take(key)

    async def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return self.cache._touch(key, ttl, whole=whole)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        return self.cache.get_many(keys)

    async def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        self.cache.set_many(values, ttl=ttl, tags=tags)

    async def delete_many(self, keys: Iterable[K]) -> None:
        self.cache.delete_many(keys)

    async def clear(self) -> None:
        self.cache.clear()

    async def invalidate_tag(self, tag: str) -> None:
        self.cache.invalidate_tag(tag)

    def hold(self, keys: Iterable[K], seconds: float = 5.0, *, linger: float = 0.0) -> AsyncHold:
        held = self.cache.hold(keys, seconds, linger=linger)

        async def begin() -> None:
            held.__enter__()

        async def end() -> None:
            held.__exit__(None, None, None)

        return AsyncHold(begin, end)

    async def wait_for(self, token: str, timeout: float = 1.0) -> None:
        self.cache.wait_for(token, timeout)

    async def close(self) -> None:
        self.cache.close()
        await self._tasks.end_here()

    async def _read(self, key: K) -> tuple[Any, Exception | None]:
        self.cache._use()
        return self.cache._missing_get(key, DEFAULT), None

    async def _load(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        terms = self.cache._terms(key, ttl, tags)
        old = self.cache._old_value(terms, loader)
        if old is not NOTHING:
            if old is not ABSENT and inspect.iscoroutinefunction(loader) and self.cache._begin_renewal(terms.name):
                self._tasks.spawn(lambda: self._renew(terms, loader))
            return self.cache._present(key, old)
        return await self._carry_out(terms.name, terms, loader)

    async def _refresh(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        terms = self.cache._terms(key, ttl, tags)
        return await self._carry_out(renewal_of(terms.name), terms, loader)

    async def _renew(self, terms: Any, loader: Loader[K, V]) -> None:
        try:
            await self._carry_out(renewal_of(terms.name), terms, loader)
        finally:
            self.cache._renewing.discard(terms.name)

    async def _carry_out(self, name: Any, terms: Any, loader: Loader[K, V]) -> Any:
        cache = self.cache

        async def work(mine: Load) -> None:
            try:
                op = cache._begin_load(mine, terms)
                if op is None:
                    return
                try:
                    value = await self._call(loader, terms.key)
                    cache._finish_load(mine, op, terms, value)
                except BaseException:
                    cache._fail_load(op)
                    raise
            except Exception as error:
                mine.error = error
                raise
            finally:
                cache._loads.end(mine)

        value = await self._tasks.load(cache._loads, name, work)
        return cache._present(terms.key, value)

    async def _call(self, loader: Loader[K, V], key: K) -> Any:
        try:
            return await call_loader(loader, key)
        except KeyError:
            if not self.cache._freshness.negative_ms:
                raise
            return ABSENT
