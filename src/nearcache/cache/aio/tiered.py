"""The cache with all its tiers, for asyncio. The same steps as for threads, carried out by another runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...absence import Absent
from ...answers import DEFAULT
from ...changes import Change, Swapped
from ...choices import Seconds, timeout_to_s
from ...errors import ShardError
from ...l2 import ClusterDriver, Driver
from ...l2.aio import AsyncDriver
from ...l2.clustering_aio import AsyncClusterDriver
from ...loading import (
    MISSING,
    Steps,
    Tier,
    Walk,
    catch_up,
    clear,
    contains,
    find,
    invalidate,
    invalidate_tag,
    scan,
)
from ...loading.tasks import AsyncRunner
from ...options import check_tags
from ..base import K, Lifetime, V
from ..scanning import beginning, beginning_under
from ..tiered.cache import TieredCache
from ..tiered.holding import Holding
from .base import AsyncCache, AsyncHold
from .readthrough import Loader

T = TypeVar("T")


class AsyncTieredCache(AsyncCache[K, V]):
    """See :class:`AsyncCache`."""

    cache: TieredCache[K, V]

    def __init__(self, cache: TieredCache[K, V]) -> None:
        super().__init__(cache)
        self._runner = AsyncRunner(_driver_for(cache._driver), cache._tier, cache.settings.timeout)
        cache._driver.attach(self._runner)

    @property
    def _tier(self) -> Tier:
        return self.cache._tier

    # -- single keys

    async def contains(self, key: object) -> bool:
        cache = self.cache
        if cache.peek(key, MISSING) is not MISSING:  # type: ignore[arg-type]  # a key of another type is not there
            return True
        try:
            return await self._run(contains(self._tier, cache, cache._name(key)))
        except ShardError:
            return False

    async def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        await self._run(self.cache._setting(key, value, ttl, tags))

    async def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        await self._run(self.cache._setting_unwritten(key, value, **options))

    async def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        found: Any = self.cache.l1_hit(key, MISSING)
        if found is MISSING:
            found = await self._run_alone(self.cache._defaulting(key, default, tags, is_sync=False))
        return default if found is MISSING else found

    async def invalidate(self, key: K) -> bool:
        return await self._run(invalidate(self._tier, self.cache, self.cache._name(key)))

    async def _pop(self, key: K) -> tuple[Any, Exception | None]:
        value: Any = self.cache.l1_hit(key, MISSING)
        if value is MISSING:
            return await self._run(self.cache._popping(key, is_sync=False))
        await self._remove(key)
        return value, None

    async def _remove(self, key: K) -> bool:
        return await self._run(self.cache._removing(key))

    # -- the hooks of the verbs

    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        there = await self._run(find(self._tier, self.cache, self.cache._name(key)))
        if there.value is MISSING and self.cache._changing.gets_loads:
            with suppress(KeyError):
                default = await self.get_or_load(key)
                there = await self._run(find(self._tier, self.cache, self.cache._name(key)))
        return (default if there.value is MISSING else there.value), there.version

    async def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return await self._run_alone(self.cache._swapping(key, change, ttl, tags))

    async def _take(self, key: Any) -> Any:
        return await self._run_alone(self.cache._taking(key))

    async def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return await self._run(self.cache._touching(key, ttl, whole=whole))

    # -- many keys

    async def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        await self._run(self.cache._setting_many(values, ttl, tags))

    async def delete_many(self, keys: Iterable[K]) -> None:
        await self._run(self.cache._removing_many(keys))

    def _scan(self, prefix: str | bytes | None) -> AsyncIterator[Any]:
        return self._walk(beginning(prefix))

    def _scan_under(self, path: Sequence[str]) -> AsyncIterator[Any]:
        return self._walk(beginning_under(path))

    async def _walk(self, start: bytes) -> AsyncIterator[Any]:
        walk = Walk()
        while walk.goes_on(self._tier):
            for key in await self._run(scan(self._tier, self.cache, walk, start)):
                yield key

    async def clear(self) -> None:
        await self._run(clear(self._tier, self.cache))

    # -- groups, and changes elsewhere

    async def invalidate_tag(self, tag: str) -> None:
        await self._run(invalidate_tag(self._tier, self.cache, *check_tags([tag])))

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> AsyncHold:
        held = Holding(self.cache, keys, seconds, linger)
        return AsyncHold(
            lambda token: self._run(held.begin(token)),
            lambda token: self._run(held.end(token)),
            let_go=lambda token: self._run(held.let_go(token)),
            owe=held.owe,
        )

    async def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        await self._run(catch_up(self._tier, self.cache, token, timeout_to_s(timeout)))

    # -- life

    async def close(self) -> None:
        await self._runner.close_here()
        await asyncio.to_thread(self.cache.close)

    # -- inside

    async def _read(self, key: K) -> tuple[Any, Exception | None]:
        try:
            found = await self._run(self.cache._reading(key))
        except ShardError as error:
            return MISSING, error
        return MISSING if isinstance(found, Absent) else found, None

    async def _load(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, loader, ttl, tags)
        return self.cache._present(key, await self._runner.load(self.cache, wanted))

    async def _load_young(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any, limit_ns: int) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, loader, ttl, tags)
        return self.cache._present(key, await self._runner.load_young(self.cache, wanted, limit_ns))

    async def _gather(
        self, keys: list[K], load_many: Any, ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        cache = self.cache
        cache._use()
        named = {key: cache._name(key) for key in keys}
        found = await self._runner.gather(cache, cache._gathering(named, load_many, ttl, tags, limit_ns))
        return {key: found[name] for key, name in named.items() if name in found}

    async def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        return await self._run(self.cache._reading_many(keys, limit_ns))

    async def _held_young(self, key: K, limit_ns: int) -> tuple[Any, Exception | None]:
        return await self._run(self.cache._reading_young(key, limit_ns))

    async def _refresh(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        self.cache._use()
        wanted = self.cache._wanted(key, loader, ttl, tags)
        return self.cache._present(key, await self._runner.refresh(self.cache, wanted))

    async def _run(self, steps: Steps[T]) -> T:
        self.cache._use()
        return await self._runner.run(steps)

    async def _run_alone(self, steps: Steps[T]) -> T:
        self.cache._use()
        return await self._runner.run_alone(steps)


def _driver_for(driver: Driver) -> AsyncDriver:
    return AsyncClusterDriver(driver) if isinstance(driver, ClusterDriver) else AsyncDriver(driver)
