"""How changes of a cache on Redis are made: alone, after the user's writer, or with a record for it in a queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._store import Store
from ..freshness import Ttl
from ..loading import (
    DIRECT,
    MISSING,
    Room,
    Steps,
    Tag,
    Tier,
    Way,
    delete_behind,
    delete_through,
    invalidate,
    invalidate_many,
    queued,
    take,
    take_behind,
    write,
    write_many,
    write_through,
)
from ..writers import Writer, is_coroutine_function


class Changing:
    """Without a writer. Every method returns steps; keys are the user's, names what the cache holds.

    Attributes:
        way: How a verb sends what it has made of a value.
    """

    way: Way = DIRECT

    def __init__(self, tier: Tier) -> None:
        self._tier = tier

    def check_verb(self) -> None:
        """Check that there can be verbs which decide by what the cache has."""

    def check_sync(self) -> None:
        """Check that a thread can make changes."""

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

    def take(self, store: Store[Any, Any], name: Any) -> Steps[Any]:
        """Remove a key, and return its value or MISSING."""
        return take(self._tier, store, name)


class ChangingThrough(Changing):
    """The writer is called first, within each call."""

    def __init__(self, tier: Tier, writer: Writer) -> None:
        super().__init__(tier)
        self._writer = writer

    def check_verb(self) -> None:
        """Refuse.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "with writer= and no write_delay= the data behind the cache decides, and this verb would decide by a copy: "
            "change the data itself under cache.hold(keys), or give write_delay="
        )

    def check_sync(self) -> None:
        """Refuse coroutine functions.

        Raises:
            TypeError: The writer has one.
        """
        given = self._writer
        for function in (given.write, given.write_many, given.delete, given.delete_many):
            if function is not None and is_coroutine_function(function):
                raise TypeError(f"writer: {function!r} is a coroutine function: use cache.aio for changes")

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
            self.check_verb()
        return self._set(store, {key: name}, {key: value}, ttl_ms, tags)

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

    def take(self, store: Store[Any, Any], name: Any) -> Steps[Any]:
        """Refuse, as :meth:`check_verb` does."""
        del store, name
        self.check_verb()
        raise AssertionError


class ChangingBehind(Changing):
    """Each change goes into a queue as well. The writer is called for it later, and somewhere."""

    def __init__(self, tier: Tier, writer: Writer, room: Room) -> None:
        super().__init__(tier)
        self._writer = writer
        self._room = room
        self.way = queued(room)

    def remove(self, store: Store[Any, Any], key: Any, name: Any) -> Steps[bool]:
        """Queue a deletion. The key counts as having been there: what is behind the cache is not asked."""
        del key
        self._writer.require_deletes()
        return self._remove(store, [name])

    def remove_many(self, store: Store[Any, Any], names: Mapping[Any, Any]) -> Steps[Any]:
        """Queue deletions."""
        self._writer.require_deletes()
        return self._remove(store, names.values())

    def _remove(self, store: Store[Any, Any], names: Iterable[Any]) -> Steps[bool]:
        for name in names:
            yield from delete_behind(self._tier, store, name, self._room)
        return True

    def take(self, store: Store[Any, Any], name: Any) -> Steps[Any]:
        """Queue the deletion of a key, and return its value or MISSING."""
        self._writer.require_deletes()
        return take_behind(self._tier, store, name, self._room, MISSING)
