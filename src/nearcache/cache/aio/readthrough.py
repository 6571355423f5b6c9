"""Reading through for asyncio: :class:`ReadThrough`'s methods as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from ...answers import DEFAULT, Answer, require_loader
from ...changes import MISSING
from ...choices import Seconds
from ...errors import LoadTimeoutError
from ...freshness import Lifetime
from ..holding import refuse_text
from ..readthrough import age_to_ns, bulk_loading, found_or, refreshing

if TYPE_CHECKING:
    from ..base import Cache

K = TypeVar("K")
V = TypeVar("V")

#: A loader: a coroutine function, or a function that blocks.
Loader: TypeAlias = Callable[[K], Answer[V]] | Callable[[K], Awaitable[Answer[V]]]
#: A bulk loader, likewise.
BulkLoader: TypeAlias = (
    Callable[[list[K]], Mapping[K, Answer[V]]] | Callable[[list[K]], Awaitable[Mapping[K, Answer[V]]]]
)


class AsyncReadThrough(Generic[K, V]):
    """What :class:`AsyncCache` has of loaders. The hooks do the work, as for :class:`ReadThrough`."""

    __slots__ = ()

    if TYPE_CHECKING:
        cache: Cache[K, V]

    async def refresh(
        self,
        key: K,
        loader: Loader[K, V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Any = DEFAULT,
    ) -> V:
        """Load the value for a key anew, whatever is there, and return it. See :meth:`Cache.refresh`."""
        chosen = refreshing(self.cache.settings, loader)
        require_loader("loader", chosen)
        return cast("V", await self._refresh(key, chosen, ttl, tags))

    async def get_many(self, keys: Iterable[K], *, max_age: Seconds | None = None) -> dict[K, V]:
        """Return the values that are there, by key. See :meth:`Cache.get_many`."""
        refuse_text("get_many", keys)
        if self.cache.settings.load_many is not None:
            return await self.get_or_load_many(keys, max_age=max_age)
        limit_ns = None if max_age is None else age_to_ns(max_age)
        found, missed = self.cache._hits(keys, limit_ns)
        if missed:
            found.update(await self._held_many(missed, limit_ns))
        return found

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: BulkLoader[K, V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] | Callable[[K, V], Iterable[str]] = DEFAULT,
        max_age: Seconds | None = None,
    ) -> dict[K, V]:
        """Return the values for many keys; call the bulk loader once for all misses.

        See :meth:`Cache.get_or_load_many`.

        Args:
            load_many: A coroutine function, which runs in this event loop, or a function that may block, which runs in
                a worker thread.
        """
        refuse_text("get_or_load_many", keys)
        chosen = bulk_loading(self.cache.settings, load_many)
        limit_ns = None if max_age is None else age_to_ns(max_age)
        found, missed = self.cache._hits(keys, limit_ns)
        if missed:
            found.update(await self._in_time(tuple(missed), self._gather(missed, chosen, ttl, tags, limit_ns)))
        return found

    # -- what the compiled part asks for when L1 has nothing

    async def _missing_load(
        self,
        key: K,
        loader: Loader[K, V] | None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Any = DEFAULT,
        max_age: Seconds | None = None,
    ) -> V:
        chosen = loader if loader is not None else self.cache.settings.loader
        if chosen is not None:
            require_loader("loader", chosen)
        if max_age is not None:
            return await self._young_or_loaded(key, chosen, ttl, tags, age_to_ns(max_age))
        if chosen is not None:
            return cast("V", await self._in_time(key, self._load(key, chosen, ttl, tags)))
        return cast("V", found_or(DEFAULT, key, *await self._read(key)))

    async def _missing_aged(self, key: K, default: Any, max_age: Any) -> Any:
        limit_ns = age_to_ns(max_age)
        found = self.cache._hit_young(key, limit_ns)
        return (await self._held_many([key], limit_ns)).get(key, default) if found is MISSING else found

    async def _young_or_loaded(self, key: K, loader: Any, ttl: Lifetime, tags: Any, limit_ns: int) -> V:
        found = self.cache._hit_young(key, limit_ns)
        if found is not MISSING:
            return cast("V", found)
        if loader is not None:
            return cast("V", await self._in_time(key, self._load_young(key, loader, ttl, tags, limit_ns)))
        return cast("V", found_or(DEFAULT, key, *await self._held_young(key, limit_ns)))

    async def _in_time(self, key: Any, work: Coroutine[Any, Any, Any]) -> Any:
        seconds = self.cache.settings.loader_timeout
        if seconds is None:
            return await work
        # Not wait_for: it would take a TimeoutError of the loader's for its own. The load is a task of its own anyway.
        waiting = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait((waiting,), timeout=seconds)
        finally:
            waiting.cancel()
        if not done:
            raise LoadTimeoutError(key, seconds)
        return waiting.result()

    # -- for the subclasses

    async def _read(self, key: K) -> tuple[Any, Exception | None]:
        """Return the value of some tier, or MISSING and why it is not known that there is none."""
        raise NotImplementedError

    async def _refresh(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        raise NotImplementedError

    async def _load(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any) -> Any:
        raise NotImplementedError

    async def _load_young(self, key: K, loader: Loader[K, V], ttl: Lifetime, tags: Any, limit_ns: int) -> Any:
        raise NotImplementedError

    async def _gather(
        self, keys: list[K], load_many: Any, ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        """Return the values of keys that L1 does not hold, loading those that no tier holds."""
        raise NotImplementedError

    async def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        """Return the values that a tier below L1 holds."""
        raise NotImplementedError

    async def _held_young(self, key: K, limit_ns: int) -> tuple[Any, Exception | None]:
        """Return the value that some tier holds, or MISSING and why it is not known that there is none."""
        return (await self._held_many([key], limit_ns)).get(key, MISSING), None
