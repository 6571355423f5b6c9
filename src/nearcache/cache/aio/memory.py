"""``memory://`` for asyncio: nothing waits here but loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...awaiting import LoadTasks, call_loader
from ...changes import Change, Swapped
from ...flights import Load
from ..base import DEFAULT, K, V
from ..memory import MemoryCache
from .base import AsyncCache, AsyncHold, Loader


class AsyncMemoryCache(AsyncCache[K, V]):
    """See :class:`AsyncCache`."""

    cache: MemoryCache[K, V]

    def __init__(self, cache: MemoryCache[K, V]) -> None:
        super().__init__(cache)
        self._tasks = LoadTasks()

    async def contains(self, key: object) -> bool:
        return key in self.cache

    async def set(self, key: K, value: V, *, ttl: float | None = DEFAULT, tags: Sequence[str] = ()) -> None:
        self.cache.set(key, value, ttl=ttl, tags=tags)

    async def setdefault(self, key: K, default: V | None = None) -> V | None:
        return self.cache.setdefault(key, default)

    async def invalidate(self, key: K) -> bool:
        return self.cache.invalidate(key)

    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        return self.cache.gets(key, default)

    async def _swap(self, key: Any, change: Change, ttl: float | None, tags: Sequence[str]) -> Swapped:
        return self.cache._swap(key, change, ttl, tags)

    async def _take(self, key: Any) -> Any:
        return self.cache._take(key)

    async def _touch(self, key: Any, ttl: float | None, *, whole: bool) -> tuple[bool, Any]:
        return self.cache._touch(key, ttl, whole=whole)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        return self.cache.get_many(keys)

    async def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: float | None = DEFAULT,
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

    async def _read(self, key: K) -> tuple[Any, Exception | None]:  # noqa: ARG002  there is no tier to ask
        self.cache._use()
        return DEFAULT, None

    async def _load(self, key: K, loader: Loader[K, V], ttl: float | None, tags: Any) -> Any:
        cache = self.cache
        cache._use()
        terms = cache._terms(key, ttl, tags)

        async def work(mine: Load) -> None:
            try:
                op = cache._begin_load(mine, terms)
                if op is None:
                    return
                try:
                    value = await call_loader(loader, key)
                    cache._finish_load(mine, op, terms, value)
                except BaseException:
                    cache._fail_load(op)
                    raise
            except Exception as error:
                mine.error = error
                raise
            finally:
                cache._loads.end(mine)

        return await self._tasks.load(cache._loads, terms.name, work)
