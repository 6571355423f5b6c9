"""What changes keys of a cache on Redis: which steps carry it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...absence import Absent
from ...answers import DEFAULT
from ...changes import MISSING, Change, Swapped
from ...errors import ShardError
from ...freshness import ttl_for
from ...loading import (
    ENDLESS_MS,
    Steps,
    find,
    invalidate,
    tags_named,
    touch,
    write,
)
from ...options import check_tags
from ..base import K, Lifetime, V
from ..holding import several
from ..mappings import pairs_of
from ..verbs import refuse_idle
from .base import SteppingCache
from .changing import Changing

T = TypeVar("T")


class SwappingCache(SteppingCache[K, V]):
    """What :class:`TieredCache` is made from: changes of single keys, and of many."""

    _changing: Changing

    def _value_ttl_ms(self, key: Any, value: Any, ttl: Lifetime) -> int:
        own_ms = self._own_ttl
        if ttl is DEFAULT and isinstance(own_ms, int):  # what nearly all values have, found without a further call
            return own_ms
        return ttl_for(self._ttl(ttl, ENDLESS_MS), key, value)

    def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        found = self.l1_hit(key, MISSING)
        if found is MISSING:
            found = self._run(self._defaulting(key, default, tags))
        return default if found is MISSING else found

    def _defaulting(self, key: Any, default: Any, tags: Sequence[str], *, is_sync: bool = True) -> Steps[Any]:
        """Read, and store the default if there is nothing: one call, with one deadline for both."""
        found, _ = yield from self._reading_or_why(key)
        if found is MISSING:
            if is_sync:
                self._changing.check_sync(decides=True)
            found = yield from self._setting(key, default, DEFAULT, tags, absent_only=True)
        return found

    def _pop(self, key: Any) -> tuple[Any, Exception | None]:
        value = self.l1_hit(key, MISSING)
        if value is MISSING:
            return self._run(self._popping(key))
        self._remove(key)
        return value, None

    def _popping(self, key: Any, *, is_sync: bool = True) -> Steps[tuple[Any, Exception | None]]:
        """Read, and remove even what was not found: the data may have it, a load may bring it, and another process may
        hold what L2 has given up.
        """
        if is_sync:
            self._changing.check_sync()
        found, cause = yield from self._reading_or_why(key)
        yield from self._removing(key)
        return found, cause

    def _reading_or_why(self, key: Any) -> Steps[tuple[Any, ShardError | None]]:
        """Return the value of some tier; or MISSING and why it is not known that there is none."""
        try:
            found = yield from self._reading(key)
        except ShardError as error:
            return MISSING, error
        return MISSING if isinstance(found, Absent) else found, None

    def __setitem__(self, key: K, value: V) -> None:
        self._change(self._setting(key, value, DEFAULT, ()))

    def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value in every tier. See :meth:`Cache.set`."""
        self._change(self._setting(key, value, ttl, tags))

    def __delitem__(self, key: K) -> None:
        if not self._remove(key):
            raise KeyError(key)

    def _change(self, steps: Steps[T]) -> T:
        """Carry out steps that may call the writer, in a thread."""
        self._changing.check_sync()
        return self._run(steps)

    def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        self._run(self._setting_unwritten(key, value, **options))

    def _setting_unwritten(
        self, key: Any, value: Any, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()
    ) -> Steps[Any]:
        ttl_ms = self._value_ttl_ms(key, value, ttl)
        named = tags_named(self._tier, check_tags(tags))
        return write(self._tier, self, self._name(key), value, ttl_ms, tags=named)

    def _setting(
        self, key: Any, value: Any, ttl: Lifetime, tags: Sequence[str], *, absent_only: bool = False
    ) -> Steps[Any]:
        ttl_ms = self._value_ttl_ms(key, value, ttl)
        named = tags_named(self._tier, check_tags(tags)) if tags else ()
        return self._changing.set(self, key, self._name(key), value, ttl_ms, named, absent_only=absent_only)

    def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values. See :meth:`Cache.set_many`."""
        self._change(self._setting_many(values, ttl, tags))

    def _setting_many(self, values: Any, ttl: Lifetime, tags: Sequence[str]) -> Steps[None]:
        chosen, given = self._ttl(ttl, ENDLESS_MS), dict(pairs_of(values))
        labels = tags_named(self._tier, check_tags(tags))
        names = {key: self._name(key) for key in given}
        if not callable(chosen):
            return self._changing.set_many(self, names, given, chosen, labels)
        keys = {name: key for key, name in names.items()}
        return self._changing.set_many(self, names, given, lambda name, value: chosen(keys[name], value), labels)

    def delete_many(self, keys: Iterable[K]) -> None:
        """Drop every copy of many keys. See :meth:`Cache.delete_many`."""
        self._change(self._removing_many(keys))

    def _removing_many(self, keys: Iterable[K]) -> Steps[Any]:
        return self._changing.remove_many(self, {key: self._name(key) for key in several("delete_many", keys)})

    def _remove(self, key: Any) -> bool:
        return self._change(self._removing(key))

    def _remove_held(self, name: Any) -> None:
        self._change(self._changing.remove(self, name, name))

    def _removing(self, key: Any) -> Steps[bool]:
        return self._changing.remove(self, key, self._name(key))

    def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process. See :meth:`Cache.invalidate`."""
        return self._run(invalidate(self._tier, self, self._name(key)))

    # -- the hooks of the verbs

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""
        there = self._run(find(self._tier, self, self._name(key)))
        if there.value is MISSING and self._changing.gets_loads:
            with suppress(KeyError):
                default = self.get_or_load(key)  # where it is not kept, it has no version either
                there = self._run(find(self._tier, self, self._name(key)))
        return (default if there.value is MISSING else there.value), there.version

    def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        self._changing.check_sync(decides=True)
        return self._run(self._swapping(key, change, ttl, tags))

    def _swapping(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Steps[Swapped]:
        chosen, named = self._ttl(ttl, ENDLESS_MS), tags_named(self._tier, check_tags(tags))
        return self._changing.swap(self, key, self._name(key), change, lambda value: ttl_for(chosen, key, value), named)

    def _take(self, key: Any) -> Any:
        self._changing.check_sync(decides=True)
        return self._run(self._taking(key))

    def _taking(self, key: Any) -> Steps[Any]:
        return self._changing.take(self, key, self._name(key))

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return self._run(self._touching(key, ttl, whole=whole))

    def _touching(self, key: Any, ttl: Lifetime, *, whole: bool) -> Steps[tuple[bool, Any]]:
        refuse_idle(ttl)
        chosen, name = self._ttl(ttl, ENDLESS_MS), self._name(key)
        if callable(chosen):  # it has to be shown the value
            there = yield from find(self._tier, self, name)
            if there.value is MISSING:
                return False, MISSING
            chosen = chosen(key, there.value)
        ttl_ms = self._tier.freshness.life(chosen).ttl_ms
        return (yield from touch(self._tier, self, name, ttl_ms, whole=whole))
