"""The verbs of :class:`Verbs` as coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from ...answers import DEFAULT
from ...changes import (
    MISSING,
    Change,
    Swapped,
    adding,
    at_version,
    computing,
    counting,
    joining,
    replacing,
    setting,
)
from ...freshness import Lifetime
from ..scanning import checked

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class AsyncVerbs(Generic[K, V]):
    """See :class:`Verbs`: the same names, arguments, results and errors."""

    __slots__ = ()

    async def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        raise NotImplementedError

    async def _take(self, key: Any) -> Any:
        raise NotImplementedError

    async def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        raise NotImplementedError

    @overload
    async def gets(self, key: K, default: None = None) -> tuple[V | None, int]: ...
    @overload
    async def gets(self, key: K, default: D) -> tuple[V | D, int]: ...
    async def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """See :meth:`Verbs.gets`."""
        raise NotImplementedError

    def scan(self, prefix: str | bytes | None = None) -> AsyncIterator[K]:
        """Return an asynchronous iterator over the keys that have a value in L2. See :meth:`Scannable.scan`."""
        return self._scan(checked(prefix))

    def _scan(self, prefix: str | bytes | None) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def add(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """See :meth:`Verbs.add`."""
        return (await self._swap(key, adding(value), ttl, tags)).stored

    async def replace(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """See :meth:`Verbs.replace`."""
        return (await self._swap(key, replacing(value), ttl, tags)).stored

    async def cas(self, key: K, value: V, version: int, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """See :meth:`Verbs.cas`."""
        return (await self._swap(key, at_version(value, version), ttl, tags)).stored

    async def get_and_set(
        self, key: K, value: V, default: Any = None, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> Any:
        """See :meth:`Verbs.get_and_set`."""
        old = (await self._swap(key, setting(value), ttl, tags)).old
        return default if old is MISSING else old

    async def get_and_delete(self, key: K, default: Any = None) -> Any:
        """See :meth:`Verbs.get_and_delete`."""
        found = await self._take(key)
        return default if found is MISSING else found

    async def touch(self, key: K, ttl: Lifetime = DEFAULT) -> bool:
        """See :meth:`Verbs.touch`."""
        return (await self._touch(key, ttl, whole=False))[0]

    async def get_and_touch(self, key: K, ttl: Lifetime = DEFAULT, default: Any = None) -> Any:
        """See :meth:`Verbs.get_and_touch`."""
        found = (await self._touch(key, ttl, whole=True))[1]
        return default if found is MISSING else found

    async def compute(
        self,
        key: K,
        function: Callable[[Any], V],
        default: Any = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> V:
        """See :meth:`Verbs.compute`."""
        new: V = (await self._swap(key, computing(function, default), ttl, tags)).new
        return new

    async def incr(
        self, key: K, delta: int = 1, initial: int = 0, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> int:
        """See :meth:`Verbs.incr`."""
        count: int = (await self._swap(key, counting(delta, initial), ttl, tags)).new
        return count

    async def decr(
        self, key: K, delta: int = 1, initial: int = 0, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> int:
        """See :meth:`Verbs.decr`."""
        count: int = (await self._swap(key, counting(-delta, initial), ttl, tags)).new
        return count

    async def append(self, key: K, piece: str | bytes) -> bool:
        """See :meth:`Verbs.append`."""
        return (await self._swap(key, joining(piece, in_front=False), DEFAULT, ())).stored

    async def prepend(self, key: K, piece: str | bytes) -> bool:
        """See :meth:`Verbs.prepend`."""
        return (await self._swap(key, joining(piece, in_front=True), DEFAULT, ())).stored
