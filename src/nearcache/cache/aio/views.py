"""A part of a cache, as asyncio sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from ..._aio import Ready
from ...answers import DEFAULT, checked_answers, for_key, is_coroutine_loader, require_loader
from ...changes import MISSING, Change, Swapped
from ...choices import Seconds
from ...events import EntryEvent
from ...freshness import Lifetime
from ..base import K, V
from ..events.listening import QUEUE
from ..events.subscriptions import Subscription
from ..holding import several
from ..mappings import merged, pairs_of
from ..readthrough import found_or
from ..scanning import begins, under
from ..views import D, View, raise_of
from .calling import in_loop
from .verbs import AsyncVerbs

if TYPE_CHECKING:
    from .base import AsyncCache
    from .readthrough import BulkLoader, Loader


class AsyncView(AsyncVerbs[K, V]):
    """What :meth:`AsyncCache.view` returns: the methods of :class:`View` as coroutines.

    ``get`` and ``get_or_load`` do not suspend on an L1 hit. What needs no I/O (``len``, iteration, ``peek``) is that of
    the view for threads: ``c.plain.peek(key)``.

    Attributes:
        cache: The asynchronous cache that it is a part of.
        plain: The same view for threads.
    """

    __slots__ = ("cache", "plain")

    def __init__(self, cache: AsyncCache[Any, Any], plain: View[K, V]) -> None:
        self.cache: AsyncCache[Any, Any] = cache
        self.plain: View[K, V] = plain

    def __repr__(self) -> str:
        return f"{self.plain!r}.aio"

    def view(self, name: str) -> AsyncView[Any, V]:
        """Return a part of this view. See :meth:`View.view`."""
        return AsyncView(self.cache, self.plain.view(name))

    # -- single keys

    @overload
    def get(self, key: K, default: None = None, *, max_age: Seconds | None = None) -> Coroutine[Any, Any, V | None]: ...
    @overload
    def get(self, key: K, default: V | D, *, max_age: Seconds | None = None) -> Coroutine[Any, Any, V | D]: ...
    def get(self, key: K, default: Any = None, *, max_age: Seconds | None = None) -> Coroutine[Any, Any, Any]:
        """Return, when awaited, the value for a key, or the default. Never calls the loader."""
        found = self.plain.l1_plain_hit(key, MISSING) if max_age is None else MISSING
        if found is not MISSING:
            ready: Any = Ready(found)
            return ready  # type: ignore[no-any-return]  # a coroutine to all that ask
        return self.cache.get(self.plain._key(key), default, max_age=max_age)

    def get_or_load(
        self,
        key: K,
        loader: Loader[K, V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        max_age: Seconds | None = None,
    ) -> Coroutine[Any, Any, V]:
        """Return, when awaited, the value for a key; on a miss call the loader, with the view's key.

        See :meth:`View.get_or_load`.
        """
        found = self.plain.l1_plain_hit(key, MISSING) if max_age is None else MISSING
        if found is not MISSING:
            ready: Any = Ready(found)
            return ready  # type: ignore[no-any-return]  # as above
        labels: Any = (*self.plain._tags, *tags)
        load: Any = self.cache.get_or_load  # its stub takes one kind of loader at a time
        chosen = None if loader is None else for_key(loader, key)
        loaded = load(self.plain._key(key), chosen, ttl=ttl, tags=labels, max_age=max_age)
        return cast("Coroutine[Any, Any, V]", loaded if type(loaded) is Ready else self._there(key, loaded))

    async def _there(self, key: K, read: Any) -> Any:
        """Await a read by the cache's key; that there is no value is said of the view's."""
        try:
            return await read
        except KeyError as error:
            raise_of(key, self.plain._key(key), error)

    async def refresh(
        self, key: K, loader: Loader[K, V] | None = None, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> V:
        """Load the value for a key anew, whatever is there, and return it. See :meth:`View.refresh`."""
        labels = (*self.plain._tags, *tags)
        chosen: Any = None if loader is None else for_key(loader, key)
        value: V = await self._there(key, self.cache.refresh(self.plain._key(key), chosen, ttl=ttl, tags=labels))
        return value

    async def contains(self, key: object) -> bool:
        """Return whether some tier has a value for a key, as ``key in view`` does."""
        return await self.cache.contains(self.plain._key(key))

    async def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value in every tier. See :meth:`Cache.set`."""
        await self.cache.set(self.plain._key(key), value, ttl=ttl, tags=(*self.plain._tags, *tags))

    async def setdefault(self, key: K, default: V | None = None) -> V | None:
        """Return the value for a key; if there is none, store the default and return it. Never calls the loader."""
        found = await self.cache._defaulted(self.plain._key(key), default, self.plain._tags)
        return cast("V | None", found)

    @overload
    async def pop(self, key: K) -> V: ...
    @overload
    async def pop(self, key: K, default: V | D) -> V | D: ...
    async def pop(self, key: K, default: Any = DEFAULT) -> Any:
        """Remove a key everywhere and return its value. Never calls the loader.

        Raises:
            KeyError: There is none, and no default was given.
        """
        return found_or(default, key, *await self.cache._pop(self.plain._key(key)))

    async def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process. See :meth:`Cache.invalidate`."""
        return await self.cache.invalidate(self.plain._key(key))

    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""
        found: tuple[Any, int] = await self.cache.gets(self.plain._key(key), default)
        return found

    # -- many keys

    async def get_many(self, keys: Iterable[K], *, max_age: Seconds | None = None) -> dict[K, V]:
        """Return the values that are there, by key. See :meth:`View.get_many`."""
        if self.plain.cache.settings.load_many is not None:
            return await self.get_or_load_many(keys, max_age=max_age)
        named = {self.plain._key(key): key for key in several("get_many", keys)}
        return {named[key]: value for key, value in (await self.cache.get_many(named, max_age=max_age)).items()}

    async def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: BulkLoader[K, V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        max_age: Seconds | None = None,
    ) -> dict[K, V]:
        """Return the values for many keys; call the bulk loader once for all misses, with the view's keys.

        See :meth:`View.get_or_load_many`.
        """
        named = {self.plain._key(key): key for key in several("get_or_load_many", keys)}
        chosen = None if load_many is None else self._for_keys(load_many, named)
        labels = (*self.plain._tags, *tags)
        found = await self.cache.get_or_load_many(named, chosen, ttl=ttl, tags=labels, max_age=max_age)
        return {named[key]: value for key, value in found.items()}

    def _for_keys(self, load_many: Any, named: Mapping[Any, K]) -> Any:
        """Return a bulk loader that is called with the view's keys, of the same kind: one that awaits, or may block."""
        require_loader("load_many", load_many)

        def renamed(answers: Any) -> Any:
            return {self.plain._key(key): value for key, value in checked_answers(load_many, answers).items()}

        if not is_coroutine_loader(load_many):
            return lambda missed: renamed(load_many([named[key] for key in missed]))

        async def load(missed: list[Any]) -> Any:
            return renamed(await load_many([named[key] for key in missed]))

        return load

    async def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values. See :meth:`Cache.set_many`."""
        named = {self.plain._key(key): value for key, value in dict(pairs_of(values)).items()}
        await self.cache.set_many(named, ttl=ttl, tags=(*self.plain._tags, *tags))

    async def update(self, other: Any = (), /, **more: V) -> None:
        """Store what a mapping, an iterable of pairs, or keywords hold, as ``dict.update`` takes them."""
        if values := merged(other, more):
            await self.set_many(values)

    async def delete_many(self, keys: Iterable[K]) -> None:
        """Drop every copy of many keys in every process. See :meth:`Cache.delete_many`."""
        await self.cache.delete_many([self.plain._key(key) for key in several("delete_many", keys)])

    async def clear(self) -> None:
        """Drop everything that was stored through this view and its views. See :meth:`View.clear`."""
        await self.cache.invalidate_tag(self.plain._tags[-1])

    def listen(
        self,
        function: Callable[[EntryEvent], Awaitable[object] | object],
        events: Iterable[str] | None = None,
        *,
        queue: int = QUEUE,
    ) -> Subscription:
        """Have a function called in the running event loop for each change in the view. See :meth:`AsyncCache.listen`.

        Events have the view's keys.
        """
        return self.plain.listen(in_loop(function, asyncio.get_running_loop()), events, queue=queue)

    async def _scan(self, prefix: str | bytes | None) -> AsyncIterator[Any]:
        path = self.plain.path
        async for key in self.cache._scan_under(path):
            if under(path, key) and begins(key[-1], prefix):
                yield key[-1]

    # -- the hooks of the verbs

    async def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return await self.cache._swap(self.plain._key(key), change, ttl, (*self.plain._tags, *tags))

    async def _take(self, key: Any) -> Any:
        return await self.cache._take(self.plain._key(key))

    async def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return await self.cache._touch(self.plain._key(key), ttl, whole=whole)
