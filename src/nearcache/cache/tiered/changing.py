"""How changes of a cache on Redis are made: alone, after the user's writer, or with a record for it in a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..._store import Store
from ...answers import is_coroutine_loader
from ...changes import Change, Swapped, adding
from ...coroutines import is_coroutine_function
from ...errors import ClosedError
from ...freshness import Ttl
from ...loading import (
    DIRECT,
    MISSING,
    Room,
    Source,
    Steps,
    Tag,
    Tier,
    Way,
    delete_behind,
    delete_many_behind,
    delete_through,
    invalidate,
    invalidate_many,
    queued,
    swap,
    swap_through,
    take,
    take_behind,
    take_through,
    write,
    write_many,
    write_through,
)
from ...writers import Writer


class Changing:
    """Without a writer. Every method returns steps; keys are the user's, names what the cache holds."""

    def __init__(self, tier: Tier) -> None:
        self._any_tier = tier

    @property
    def way(self) -> Way:
        """How a verb sends what it has made of a value."""
        return DIRECT

    @property
    def _tier(self) -> Tier:
        return self._any_tier.now  # the list of shards may have changed

    def check_sync(self, *, decides: bool = False) -> None:
        """Check that a thread can make changes; ``decides``: those that depend on what is there."""

    @property
    def gets_loads(self) -> bool:
        """Whether a version can only be had of what has been loaded."""
        return False

    def set(
        self,
        store: Store[Any, Any],
        key: Any,
        name: Any,
        value: Any,
        ttl_ms: int,
        tags: tuple[Tag, ...],
        *,
        absent_only: bool = False,
    ) -> Steps[Any]:
        """Store a value. See :func:`nearcache.loading.write`."""
        del key  # it is for writers
        return write(self._tier, store, name, value, ttl_ms, tags=tags, absent_only=absent_only, way=self.way)

    def set_many(
        self,
        store: Store[Any, Any],
        names: Mapping[Any, Any],
        values: Mapping[Any, Any],
        ttl_ms: Ttl,
        tags: tuple[Tag, ...],
    ) -> Steps[None]:
        """Store values. ``names`` and ``values``: by the user's keys. ``ttl_ms``: of name and value, if a function."""
        named = {name: values[key] for key, name in names.items()}
        return write_many(self._tier, store, named, ttl_ms, tags, self.way)

    def remove(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[bool]:
        """Remove a key. Returns whether it was there."""
        del key
        return invalidate(self._tier, store, name)

    def remove_many(self, store: Store[Any, Any], names: Mapping[Any, Any]) -> Steps[Any]:
        """Remove keys."""
        return invalidate_many(self._tier, store, names.values())

    def swap(
        self,
        store: Store[Any, Any],
        key: Any,
        name: Any,
        change: Change,
        ttl_ms: Callable[[Any], int],
        tags: tuple[Tag, ...],
    ) -> Steps[Swapped]:
        """Replace a value by what is made of it. See :func:`nearcache.loading.swap`."""
        del key
        return swap(self._tier, store, name, change, ttl_ms, tags, self.way)

    def take(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[Any]:
        """Remove a key, and return its value or MISSING."""
        del key
        return take(self._tier, store, name)


class ChangingThrough(Changing):
    """The writer is called first, within each call. What decides by what is there asks the loader."""

    def __init__(self, tier: Tier, writer: Writer, loader: Callable[[Any], Any] | None) -> None:
        super().__init__(tier)
        self._writer = writer
        self._loader = loader

    @property
    def gets_loads(self) -> bool:
        """See :class:`Changing`."""
        return self._loader is not None

    def _source(self) -> Source:
        """Return what the data can be asked with.

        Raises:
            TypeError: It cannot be asked.
        """
        if self._loader is None:
            raise TypeError(
                "with writer= and no write_delay= the data behind the cache decides, and without loader= nobody can "
                "ask it: open the cache with loader=, change the data itself under cache.hold(keys), or give "
                "write_delay="
            )
        return Source(self._loader, self._writer)

    def check_sync(self, *, decides: bool = False) -> None:
        """Refuse coroutine functions.

        Raises:
            TypeError: The writer has one; or the loader is one, and it is needed.
        """
        given = self._writer
        functions: list[Any] = [given.write, given.write_many, given.delete, given.delete_many]
        for function in functions:
            if function is not None and is_coroutine_function(function):
                raise TypeError(f"writer: {function!r} is a coroutine function: use cache.aio for changes")
        if decides and self._loader is not None and is_coroutine_loader(self._loader):
            raise TypeError(
                f"loader: {self._loader!r} is a coroutine function, and is asked: use cache.aio for this verb"
            )

    def set(
        self,
        store: Store[Any, Any],
        key: Any,
        name: Any,
        value: Any,
        ttl_ms: int,
        tags: tuple[Tag, ...],
        *,
        absent_only: bool = False,
    ) -> Steps[Any]:
        """Have a value written, then store it."""
        if absent_only:
            return self._set_absent(store, key, name, adding(value), ttl_ms, tags)
        return self._set(store, {key: name}, {key: value}, ttl_ms, tags)

    def _set_absent(
        self, store: Store[Any, Any], key: Any, name: Any, change: Change, ttl_ms: int, tags: tuple[Tag, ...]
    ) -> Steps[Any]:
        swapped = yield from self.swap(store, key, name, change, lambda _: ttl_ms, tags)
        return MISSING if swapped.stored else swapped.old

    def _set(
        self,
        store: Store[Any, Any],
        names: Mapping[Any, Any],
        values: Mapping[Any, Any],
        ttl_ms: Ttl,
        tags: tuple[Tag, ...],
    ) -> Steps[Any]:
        yield from write_through(self._tier, store, self._writer, names, values, ttl_ms, tags)
        return MISSING

    def set_many(
        self,
        store: Store[Any, Any],
        names: Mapping[Any, Any],
        values: Mapping[Any, Any],
        ttl_ms: Ttl,
        tags: tuple[Tag, ...],
    ) -> Steps[None]:
        """Have values written, then store them."""
        return (
            self._set(store, names, values, ttl_ms, tags)
            if names
            else super().set_many(store, names, values, ttl_ms, tags)
        )

    def remove(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[bool]:
        """Have a key deleted. It counts as having been there: what is behind the cache is not asked."""
        self._writer.require_deletes()
        return self._remove(store, {key: name})

    def _remove(self, store: Store[Any, Any], names: Mapping[Any, Any]) -> Steps[bool]:
        yield from delete_through(self._tier, store, self._writer, names)
        return True

    def remove_many(self, store: Store[Any, Any], names: Mapping[Any, Any]) -> Steps[Any]:
        """Have keys deleted."""
        self._writer.require_deletes()
        return self._remove(store, names) if names else super().remove_many(store, names)

    def swap(
        self,
        store: Store[Any, Any],
        key: Any,
        name: Any,
        change: Change,
        ttl_ms: Callable[[Any], int],
        tags: tuple[Tag, ...],
    ) -> Steps[Swapped]:
        """Replace what the loader says by what is made of it. See :func:`nearcache.loading.swap_through`."""
        return swap_through(self._tier, store, self._source(), key, name, change, ttl_ms, tags)

    def take(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[Any]:
        """Have a key deleted, and return what the loader said of it, or MISSING."""
        source = self._source()
        self._writer.require_deletes()
        return take_through(self._tier, store, source, key, name)


class ChangingBehind(Changing):
    """Each change goes into a queue as well. The writer is called for it later, and somewhere."""

    def __init__(self, tier: Tier, writer: Writer, room: Room) -> None:
        super().__init__(tier)
        self._writer = writer
        self._way = queued(room)
        self._end: tuple[ClosedError, threading.Thread | None] | None = None

    def end(self, error: ClosedError, writing: threading.Thread | None) -> None:
        """Refuse further changes with this error: the queues are about to go. But not those that the writer makes."""
        self._end = error, writing

    @property
    def way(self) -> Way:
        """See :class:`Changing`."""
        if self._end is not None and self._end[1] is not threading.current_thread():
            raise self._end[0]
        return self._way

    def remove(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[bool]:
        """Queue a deletion. The key counts as having been there: what is behind the cache is not asked."""
        del key
        self._writer.require_deletes()
        return self._remove(store, name)

    def remove_many(self, store: Store[Any, Any], names: Mapping[Any, Any]) -> Steps[Any]:
        """Queue deletions."""
        self._writer.require_deletes()
        return delete_many_behind(self._tier, store, names.values(), self.way)

    def _remove(self, store: Store[Any, Any], name: Any) -> Steps[bool]:
        yield from delete_behind(self._tier, store, name, self.way)
        return True

    def take(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[Any]:
        """Queue the deletion of a key, and return its value or MISSING."""
        del key
        self._writer.require_deletes()
        return take_behind(self._tier, store, name, self.way)
