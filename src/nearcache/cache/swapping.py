"""What changes a single key of a cache on Redis: which steps carry it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from ..changes import MISSING, Change, Swapped
from ..loading import ENDLESS_MS, Steps, Tier, invalidate, look, swap, tags_named, take, touch, write
from ..options import check_tags
from .base import DEFAULT, Cache, K, V

T = TypeVar("T")


class SwappingCache(Cache[K, V]):
    """What :class:`TieredCache` is made from: changes of single keys, given a tier and a way to run steps."""

    _tier: Tier

    def _run(self, steps: Steps[T]) -> T:
        raise NotImplementedError

    def _name(self, key: Any) -> Any:
        return key if self.settings.key is None else self.settings.key(key)

    def setdefault(self, key: K, default: V | None = None) -> V | None:
        """Return the value for a key, or store the default. Of several processes at once, one stores."""
        found = self.get(key, DEFAULT)
        if found is DEFAULT:
            found = self._run(write(self._tier, self, self._name(key), default, self._tier.ttl_ms, absent_only=True))
        return default if found is MISSING else cast("V", found)

    def __delitem__(self, key: K) -> None:
        if not self.invalidate(key):
            raise KeyError(key)

    def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process. See :meth:`Cache.invalidate`."""
        return self._run(invalidate(self._tier, self, self._name(key)))

    # -- the hooks of the verbs

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""
        there = self._run(look(self._tier, self, self._name(key)))
        return (default if there.value is MISSING else there.value), there.version

    def _swap(self, key: Any, change: Change, ttl: float | None, tags: Sequence[str]) -> Swapped:
        return self._run(self._swapping(key, change, ttl, tags))

    def _swapping(self, key: Any, change: Change, ttl: float | None, tags: Sequence[str]) -> Steps[Swapped]:
        ttl_ms, named = self._ttl_ms(ttl, ENDLESS_MS), tags_named(self._tier, check_tags(tags))
        return swap(self._tier, self, self._name(key), change, ttl_ms, named)

    def _take(self, key: Any) -> Any:
        return self._run(take(self._tier, self, self._name(key)))

    def _touch(self, key: Any, ttl: float | None, *, whole: bool) -> tuple[bool, Any]:
        return self._run(touch(self._tier, self, self._name(key), self._ttl_ms(ttl, ENDLESS_MS), whole=whole))
