"""The verbs that change a value according to what is there, atomically: Memcached's, Redis' and Ehcache's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, overload

from ..answers import DEFAULT
from ..changes import (
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
from ..choices import Idle
from ..errors import ConfigError
from ..freshness import Lifetime
from .scanning import Scannable

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class Verbs(Scannable[K], Generic[K, V]):
    """What caches and views have in common. Hooks do the work: ``_swap``, ``_take``, ``_touch`` and ``_remove``.

    All verbs look at the value in L2, never at a copy in L1, and never call the loader; with ``writer=`` and no
    ``write_delay=`` they look at the data, by the loader (docs/writing.md). Of several processes that change a key at
    the same time one is first, and the others see what it made. ``ttl``, ``tags``: as for ``set``.

    Every verb raises, besides what it says,
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing was changed.
        ContentionError: Others changed the key during each of many attempts. Nothing was changed.
        TypeError: With ``writer=`` and no ``write_delay=``: there is no ``loader=``.
        ShardUnavailableError: It is not known to be done, whatever ``on_error`` is. No L1 copy is kept.
    """

    __slots__ = ()

    def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        raise NotImplementedError

    def _take(self, key: Any) -> Any:
        raise NotImplementedError

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        raise NotImplementedError

    def _remove(self, key: Any) -> bool:
        """Remove a key from every tier, and behind the cache where there is a writer. Returns whether it was there."""
        raise NotImplementedError

    @overload
    def gets(self, key: K, default: None = None) -> tuple[V | None, int]: ...
    @overload
    def gets(self, key: K, default: D) -> tuple[V | D, int]: ...
    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version, for :meth:`cas`; ``(default, 0)`` if there is none. One round trip."""
        raise NotImplementedError

    def add(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """Store a value if there is none. Returns whether it was stored. One round trip."""
        return self._swap(key, adding(value), ttl, tags).stored

    def replace(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """Store a value if there is one already. Returns whether it was stored. Two round trips."""
        return self._swap(key, replacing(value), ttl, tags).stored

    def cas(self, key: K, value: V, version: int, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> bool:
        """Store a value if what is there still has the version that :meth:`gets` returned; 0: if there is none.

        Returns whether it was stored. One round trip.
        """
        return self._swap(key, at_version(value, version), ttl, tags).stored

    def get_and_set(
        self, key: K, value: V, default: Any = None, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> Any:
        """Store a value and return the one before, or the default. Two round trips."""
        old = self._swap(key, setting(value), ttl, tags).old
        return default if old is MISSING else old

    def get_and_delete(self, key: K, default: Any = None) -> Any:
        """Drop every copy of a key and return the value, or the default. Of several callers one gets it.

        One round trip.
        """
        found = self._take(key)
        return default if found is MISSING else found

    def touch(self, key: K, ttl: Lifetime = DEFAULT) -> bool:
        """Give a value another lifetime, from now on. Returns whether there is one. One round trip, without the value.

        Copies in other processes' L1 go if their lifetime gets shorter; otherwise they stay for the time they had.

        Raises:
            ConfigError: An :class:`Idle` is given: that a value lives by use stands in it, and it does not travel.
        """
        return self._touch(key, ttl, whole=False)[0]

    def get_and_touch(self, key: K, ttl: Lifetime = DEFAULT, default: Any = None) -> Any:
        """Give a value another lifetime and return it, or the default if there is none. Raises as :meth:`touch`."""
        found = self._touch(key, ttl, whole=True)[1]
        return default if found is MISSING else found

    def compute(
        self,
        key: K,
        function: Callable[[Any], V],
        default: Any = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> V:
        """Store what a function makes of the value, or of the default, and return it. Two round trips.

        The function is called again each time that somebody else has changed the value meanwhile. It must not change
        the object that it is given, and what it raises ends the call with nothing changed.

        Raises:
            TypeError: It is a coroutine function.
            RuntimeError: It raised StopIteration or GeneratorExit, as with loaders.
        """
        new: V = self._swap(key, computing(function, default), ttl, tags).new
        return new

    def incr(
        self, key: K, delta: int = 1, initial: int = 0, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> int:
        """Add to an integer and return the sum; where there is none, to ``initial``. Two round trips.

        ``ttl`` and ``tags`` are for a number that was not there. One that was keeps its own, lifetime and tags.

        Raises:
            TypeError: The value, ``delta`` or ``initial`` is no int.
        """
        count: int = self._swap(key, counting(delta, initial), ttl, tags).new
        return count

    def decr(
        self, key: K, delta: int = 1, initial: int = 0, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> int:
        """Subtract from an integer, also below 0. See :meth:`incr`."""
        count: int = self._swap(key, counting(-delta, initial), ttl, tags).new
        return count

    def append(self, key: K, piece: str | bytes) -> bool:
        """Add to the end of a text or of bytes, which keep lifetime and tags. Returns whether there were any.

        Raises:
            TypeError: The value is not of the piece's type.
        """
        return self._swap(key, joining(piece, in_front=False), DEFAULT, ()).stored

    def prepend(self, key: K, piece: str | bytes) -> bool:
        """The same at the beginning."""
        return self._swap(key, joining(piece, in_front=True), DEFAULT, ()).stored


def refuse_idle(ttl: Lifetime) -> None:
    """Raise ConfigError if a value that is there is to be given an idle time."""
    if isinstance(ttl, Idle):
        raise ConfigError("ttl", ttl, "touch() gives a lifetime in seconds; store a value anew to let it live by use")
