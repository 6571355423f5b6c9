"""What every asynchronous view of a cache is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from ..._aio import Hits
from ...answers import DEFAULT, Answer
from ...backlog import DeadLetter
from ...changes import MISSING
from ...choices import Seconds
from ...errors import CacheError
from ...events import EntryEvent
from ..base import Cache, K, Lifetime, V
from ..events.listening import QUEUE
from ..events.subscriptions import Subscription
from ..holding import Depth
from ..mappings import merged
from ..readthrough import found_or
from ..report import Resharded, SelfTest
from .calling import in_loop
from .readthrough import AsyncReadThrough
from .verbs import AsyncVerbs

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .views import AsyncView

D = TypeVar("D")
Tags: TypeAlias = Sequence[str] | Callable[[K, V], Iterable[str]]


class AsyncHold:
    """What :meth:`AsyncCache.hold` returns. See :class:`Hold`."""

    def __init__(
        self,
        begin: Callable[[bytes], Awaitable[Any]],
        end: Callable[[bytes], Awaitable[Any]],
        *,
        let_go: Callable[[bytes], Awaitable[Any]] | None = None,
        owe: Callable[[bytes], None] | None = None,
    ) -> None:
        self._begin = begin
        self._end = end
        self._let_go = end if let_go is None else let_go
        self._owe = owe
        self._depth = Depth()

    async def __aenter__(self) -> Self:
        token = self._depth.enter()
        try:
            await self._begin(token)
        except BaseException as failure:
            if self._depth.leave():  # as Hold does
                if isinstance(failure, CacheError):
                    with suppress(CacheError):
                        await self._let_go(token)
                elif self._owe is not None:  # who is cancelled is to wait for no server
                    self._owe(token)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if token := self._depth.leave():
            await self._end(token)


class AsyncCache(Hits[K, V], AsyncReadThrough[K, V], AsyncVerbs[K, V]):
    """A cache's methods as coroutines: the same L1, the same keys, the same flights, any number of event loops.

    ``cache.aio`` makes it. What needs no I/O (``peek``, ``drop``, ``len``, iteration, ``stats``, ``health``) is the
    cache's own and stays as it is: ``c.cache.peek(key)``.

    ``get`` and ``get_or_load`` do not suspend on an L1 hit. Cancelling a caller concerns nobody else: a load that it
    began goes on, for the others and for the cache.

    Attributes:
        cache: The cache whose view this is.
    """

    cache: Cache[K, V]

    def __init__(self, cache: Cache[K, V]) -> None:
        super().__init__(cache.l1_hit)
        self.cache = cache

    def __repr__(self) -> str:
        return f"{self.cache!r}.aio"

    # -- single keys

    if TYPE_CHECKING:  # the compiled part cannot know what loaders may answer
        # fmt: off
        @overload  # type: ignore[override]  # loaders may answer more than the stub of floor 1 can say
        def get_or_load(
            self, key: K, loader: None = None, *, ttl: Lifetime = ..., tags: Tags[K, V] = ...,
            max_age: Seconds | None = ...,
        ) -> Coroutine[Any, Any, V]: ...
        @overload
        def get_or_load(
            self, key: K, loader: Callable[[K], Awaitable[Answer[V]]], *, ttl: Lifetime = ..., tags: Tags[K, V] = ...,
            max_age: Seconds | None = ...,
        ) -> Coroutine[Any, Any, V]: ...
        @overload
        def get_or_load(
            self, key: K, loader: Callable[[K], Answer[V]], *, ttl: Lifetime = ..., tags: Tags[K, V] = ...,
            max_age: Seconds | None = ...,
        ) -> Coroutine[Any, Any, V]: ...
        # fmt: on
        def get_or_load(self, *_: Any, **__: Any) -> Any: ...

    async def contains(self, key: object) -> bool:
        """Return whether some tier has a value for a key, as ``key in cache`` does."""
        raise NotImplementedError

    async def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value in every tier. See :meth:`Cache.set`."""
        raise NotImplementedError

    async def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        """Store what is the cache's own business, as ``set`` does but without the writer."""
        raise NotImplementedError

    async def setdefault(self, key: K, default: V | None = None) -> V | None:
        """Return the value for a key, or store the default and return it. See :meth:`Cache.setdefault`."""
        found: V | None = await self._defaulted(key, default, ())
        return found

    async def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        """The same; what is stored gets tags."""
        raise NotImplementedError

    async def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process. See :meth:`Cache.invalidate`."""
        raise NotImplementedError

    @overload
    async def pop(self, key: K) -> V: ...
    @overload
    async def pop(self, key: K, default: V | D) -> V | D: ...
    async def pop(self, key: K, default: Any = DEFAULT) -> Any:
        """Remove a key everywhere and return its value. Never calls the loader.

        Raises:
            KeyError, ShardUnavailableError: As :meth:`Cache.pop`.
        """
        return found_or(default, key, *await self._pop(key))

    # -- many keys

    async def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values. See :meth:`Cache.set_many`."""
        raise NotImplementedError

    async def delete_many(self, keys: Iterable[K]) -> None:
        """Drop every copy of many keys in every process. See :meth:`Cache.delete_many`."""
        raise NotImplementedError

    async def update(self, other: Any = (), /, **more: V) -> None:
        """Store what a mapping, an iterable of pairs, or keywords hold, as ``dict.update`` takes them."""
        if values := merged(other, more):
            await self.set_many(values)

    async def clear(self) -> None:
        """Empty every tier, in every process. See :meth:`TieredCache.clear`."""
        raise NotImplementedError

    # -- groups, and changes elsewhere

    async def invalidate_tag(self, tag: str) -> None:
        """Drop every copy of every value that has this tag, in every process. See :meth:`Cache.invalidate_tag`."""
        raise NotImplementedError

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> AsyncHold:
        """Return a context, for ``async with``, in which the data behind these keys can be changed safely.

        See :meth:`Cache.hold`. When the task is cancelled within, the hold ends as well.
        """
        raise NotImplementedError

    def _scan_under(self, path: Sequence[str]) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        """Serve nothing older than the token of another process from now on. See :meth:`Cache.wait_for`."""
        raise NotImplementedError

    def view(self, name: str) -> AsyncView[Any, V]:
        """Return the entries whose keys are ``(name, key)``, with the same methods. See :meth:`Cache.view`."""
        from .views import AsyncView  # it inherits from what caches and views have in common

        return AsyncView(self, self.cache.view(name))

    def listen(
        self,
        function: Callable[[EntryEvent], Awaitable[object] | object],
        events: Iterable[str] | None = None,
        *,
        queue: int = QUEUE,
    ) -> Subscription:
        """Have a function, or a coroutine function, called in the running event loop for each change of an entry.

        One event after the other; the next waits until a coroutine is done. It ends with the loop. See
        :meth:`Cache.listen`.
        """
        return self.cache.listen(in_loop(function, asyncio.get_running_loop()), events, queue=queue)

    async def reshard(self, url: str, **options: Any) -> Resharded:
        """Change the list of shards of the namespace, for all processes. See :meth:`Cache.reshard`.

        A thread does it; cancelling the caller does not end it.
        """
        return await asyncio.to_thread(self.cache.reshard, url, **options)

    # -- what is written behind the cache

    async def flush(self, timeout: Seconds = 30.0) -> None:
        """Wait until every change in the queues has been written or given up. See :meth:`Cache.flush`."""
        await asyncio.to_thread(self.cache.flush, timeout)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the changes that could not be written. See :meth:`Cache.dead_letters`."""
        return await asyncio.to_thread(self.cache.dead_letters)

    async def replay_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        """Have dead letters written once more. See :meth:`Cache.replay_dead_letters`."""
        return await asyncio.to_thread(self.cache.replay_dead_letters, ids)

    async def discard_dead_letters(self, ids: Iterable[str]) -> int:
        """Forget dead letters. See :meth:`Cache.discard_dead_letters`."""
        return await asyncio.to_thread(self.cache.discard_dead_letters, ids)

    # -- life and observation

    async def selftest(self, timeout: Seconds = 2.0) -> SelfTest:
        """Publish an invalidation on every shard and wait until it comes back. See :meth:`Cache.selftest`."""
        return await asyncio.to_thread(self.cache.selftest, timeout)

    async def close(self) -> None:
        """Close the cache itself, for threads too. Loads of this loop are cancelled and have ended. Idempotent.

        The load whose loader calls this is not cancelled: it comes to its own end.
        """
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what the compiled part asks for when L1 has nothing

    async def _missing_get(self, key: K, default: Any) -> Any:
        found, _ = await self._read(key)
        return default if found is MISSING else found

    async def _pop(self, key: K) -> tuple[Any, Exception | None]:
        """Remove a key. Returns its value, or MISSING and why it is not known that there was none."""
        raise NotImplementedError
