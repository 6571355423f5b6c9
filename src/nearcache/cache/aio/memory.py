"""``memory://`` for asyncio: nothing waits here but loads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from typing import Any

from ...absence import Absent
from ...answers import DEFAULT, is_coroutine_loader
from ...awaiting import LoadTasks, call_loader, wait_for_load
from ...changes import MISSING, Change, Swapped
from ...choices import Seconds
from ...flights import Load, Many, renewal_of, young_of
from ..base import K, Lifetime, V
from ..memory.cache import MemoryCache
from ..memory.gathering import Request, gathering
from .base import AsyncCache, AsyncHold
from .readthrough import Loader


class AsyncMemoryCache(AsyncCache[K, V]):
    """See :class:`AsyncCache`."""

    cache: MemoryCache[K, V]

    def __init__(self, cache: MemoryCache[K, V]) -> None:
        super().__init__(cache)
        self._tasks = LoadTasks(cache.settings.namespace)

    async def contains(self, key: object) -> bool:
        return key in self.cache

    async def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        self.cache.set(key, value, ttl=ttl, tags=tags)

    async def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        self.cache._set_unwritten(key, value, **options)

    async def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        return self.cache._defaulted(key, default, tags)

    async def invalidate(self, key: K) -> bool:
        return self.cache.invalidate(key)

    async def _pop(self, key: K) -> tuple[Any, Exception | None]:
        return self.cache._pop(key)

    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        return self.cache.gets(key, default)

    async def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return self.cache._swap(key, change, ttl, tags)

    async def _take(self, key: Any) -> Any:
        return self.cache._take(key)

    async def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return self.cache._touch(key, ttl, whole=whole)

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

    async def _scan(self, prefix: str | bytes | None) -> AsyncIterator[Any]:
        for key in self.cache._scan(prefix):
            yield key

    def _scan_under(self, path: Sequence[str]) -> AsyncIterator[Any]:  # noqa: ARG002  as for threads
        return self._scan(None)

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> AsyncHold:
        held = self.cache.hold(keys, seconds, linger=linger)

        async def begin(_token: bytes) -> None:
            held.__enter__()

        async def end(_token: bytes) -> None:
            held.__exit__(None, None, None)

        return AsyncHold(begin, end)

    async def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        self.cache.wait_for(token, timeout)

    async def close(self) -> None:
        self.cache.close()
        await self._tasks.end_here()

    async def _read(self, key: K) -> tuple[Any, Exception | None]:
        self.cache._use()
        return self.cache._missing_get(key, MISSING), None

    async def _load(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, ttl, tags)
        old = self.cache._old_value(wanted, loader)
        if old is not MISSING:
            is_value = not isinstance(old, Absent)
            if is_value and is_coroutine_loader(loader) and self.cache._begin_renewal(wanted.name):
                self._tasks.spawn(lambda: self._renew(wanted, loader), wanted.key)
            return self.cache._present(key, old)
        return await self._carry_out(wanted.name, wanted, loader)

    async def _load_young(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any, limit_ns: int) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, ttl, tags, limit_ns)
        return await self._carry_out(young_of(wanted.name, limit_ns), wanted, loader)

    async def _gather(
        self, keys: list[K], load_many: Any, ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        cache = self.cache
        cache._use()

        async def work(mine: Load) -> None:
            try:
                steps = gathering(cache, keys, load_many, ttl, tags, limit_ns)
                mine.value = await self._in_this_task(steps, load_many)
            except Exception as error:
                mine.error = error
                raise
            finally:
                cache._loads.end(mine)

        found: dict[K, V] = await self._tasks.load(cache._loads, Many(keys), work)
        return found

    async def _in_this_task(self, steps: Generator[Request, Any, Any], load_many: Any) -> Any:
        try:
            request = next(steps)
            while True:
                try:
                    if isinstance(request, Load):
                        answer = await wait_for_load(self.cache._loads, request)
                    else:
                        answer = await call_loader(load_many, list(request))
                except BaseException as error:  # noqa: BLE001  a cancellation too: there is something to undo
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    async def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        return self.cache._held_many(keys, limit_ns)

    async def _refresh(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, ttl, tags)
        return await self._carry_out(renewal_of(wanted.name), wanted, loader)

    async def _renew(self, wanted: Any, loader: Loader[K, V]) -> None:
        with self.cache._renewal(wanted):
            await self._carry_out(renewal_of(wanted.name), wanted, loader)

    async def _carry_out(self, name: Any, wanted: Any, loader: Loader[K, V]) -> Any:
        cache = self.cache

        async def work(mine: Load) -> None:
            try:
                op = cache._begin_load(mine, wanted)
                if op is None:
                    return
                cache._count(loads=1)
                try:
                    value = await self._call(loader, mine, wanted)
                    cache._finish_load(mine, op, wanted, value)
                except BaseException:
                    cache._fail_load(op)
                    raise
            except Exception as error:
                mine.error = wanted.told(error)
                raise
            finally:
                cache._loads.end(mine)

        value = await self._tasks.load(cache._loads, name, work)
        return cache._present(wanted.key, value)

    async def _call(self, loader: Loader[K, V], mine: Load, wanted: Any) -> Any:
        try:
            return await call_loader(self.cache._shown(loader, mine, wanted), wanted.key)
        except Exception as error:  # noqa: BLE001  it is raised again, if it is not kept
            return self.cache._failed(error, mine, wanted)
