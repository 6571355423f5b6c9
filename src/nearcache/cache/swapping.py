"""What changes a single key of a cache on Redis: which steps carry it out."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from ..bus import Listener
from ..changes import MISSING, Change, Swapped
from ..freshness import ttl_for
from ..loading import ENDLESS_MS, Steps, Tier, find, invalidate, swap, tags_named, take, touch, write
from ..options import check_tags
from . import listening
from .base import DEFAULT, Cache, K, Lifetime, V
from .listening import TieredHub
from .subscriptions import Subscription

T = TypeVar("T")


class SwappingCache(Cache[K, V]):
    """What :class:`TieredCache` is made from: changes of single keys, given a tier and a way to run steps."""

    _tier: Tier
    _listener: Listener
    _hub: TieredHub | None = None

    def _use(self) -> None:
        raise NotImplementedError

    def _run(self, steps: Steps[T]) -> T:
        raise NotImplementedError

    def _name(self, key: Any) -> Any:
        return key if self.settings.key is None else self.settings.key(key)

    def _value_ttl_ms(self, key: Any, value: Any, ttl: Lifetime) -> int:
        return ttl_for(self._ttl(ttl, ENDLESS_MS), key, value)

    def setdefault(self, key: K, default: V | None = None) -> V | None:
        """Return the value for a key, or store the default. Of several processes at once, one stores."""
        found = self.get(key, DEFAULT)
        if found is DEFAULT:
            ttl_ms = self._value_ttl_ms(key, default, DEFAULT)
            found = self._run(write(self._tier, self, self._name(key), default, ttl_ms, absent_only=True))
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
        there = self._run(find(self._tier, self, self._name(key)))
        return (default if there.value is MISSING else there.value), there.version

    def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return self._run(self._swapping(key, change, ttl, tags))

    def _swapping(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Steps[Swapped]:
        chosen, named = self._ttl(ttl, ENDLESS_MS), tags_named(self._tier, check_tags(tags))
        return swap(self._tier, self, self._name(key), change, lambda value: ttl_for(chosen, key, value), named)

    def _take(self, key: Any) -> Any:
        return self._run(take(self._tier, self, self._name(key)))

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return self._run(self._touching(key, ttl, whole=whole))

    def _touching(self, key: Any, ttl: Lifetime, *, whole: bool) -> Steps[tuple[bool, Any]]:
        chosen, name = self._ttl(ttl, ENDLESS_MS), self._name(key)
        if callable(chosen):  # it has to be shown the value
            there = yield from find(self._tier, self, name)
            if there.value is MISSING:
                return False, MISSING
            chosen = chosen(key, there.value)
        ttl_ms = self._tier.freshness.life(chosen).ttl_ms
        return (yield from touch(self._tier, self, name, ttl_ms, whole=whole))

    # -- listening

    def _add_listener(self, function: Any, kinds: frozenset[str], limit: int, path: tuple[Any, ...]) -> Subscription:
        self._use()
        with listening.making:
            hub = self._hub
            if hub is None:
                this = weakref.ref(self)

                def knows(name: Any) -> bool:
                    cache = this()
                    return cache is not None and cache.terms(name) is not None

                hub = TieredHub(self.settings.on_removal, knows, self._tier.scripts)
                self.tell(hub.told)
                self._tier.witness = hub
                self._listener.report_to(hub)
                self._hub = hub
        return hub.add(function, kinds, limit, path)
