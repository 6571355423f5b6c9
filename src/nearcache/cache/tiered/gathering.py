"""What a cache on Redis reads of many keys, and of a greatest age: which steps carry it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...absence import Absent
from ...answers import DEFAULT
from ...changes import MISSING
from ...clocks import monotonic_ns
from ...errors import ShardError
from ...loading import (
    ENDLESS_MS,
    Gathering,
    Loading,
    Steps,
    Walk,
    gather,
    load_young,
    look_many,
    read_many,
    read_young,
    scan,
)
from ..base import K, Lifetime, V, refuse_coroutines
from ..scanning import beginning, beginning_under
from .base import SteppingCache


class GatheringCache(SteppingCache[K, V]):
    """What :class:`TieredCache` is made from, besides."""

    def _load_young(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any, limit_ns: int) -> V:
        refuse_coroutines(loader)
        return self._present(
            key, self._run(load_young(self._tier, self, self._wanted(key, loader, ttl, tags), limit_ns))
        )

    def _gather(
        self, keys: list[K], load_many: Callable[[list[K]], Any], ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        named = {key: self._name(key) for key in keys}  # with key=, several may have one name
        found = self._run(gather(self._tier, self, self._gathering(named, load_many, ttl, tags, limit_ns)))
        return {key: found[name] for key, name in named.items() if name in found}

    def _gathering(
        self, named: dict[K, Any], load_many: Callable[[list[K]], Any], ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> Gathering:
        keys = {name: key for key, name in reversed(named.items())}
        wanted = {name: keys[name] for name in named.values()}
        return Gathering(wanted, load_many, self._ttl(ttl, ENDLESS_MS), self._labels(tags), limit_ns)

    def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        return self._run(self._reading_many(keys, limit_ns))

    def _held_young(self, key: K, limit_ns: int) -> tuple[Any, Exception | None]:
        return self._run(self._reading_young(key, limit_ns))

    def _reading_young(self, key: K, limit_ns: int) -> Steps[tuple[Any, ShardError | None]]:
        errors: list[ShardError] = []
        found = yield from read_young(self._tier, self, [self._name(key)], limit_ns, errors=errors)
        value = next(iter(found.values()), MISSING)
        return (MISSING if isinstance(value, Absent) else value), next(iter(errors), None)

    def _reading_many(self, keys: Iterable[K], limit_ns: int | None) -> Steps[dict[K, V]]:
        """Steps that return what L2 holds, by the keys as the user gave them."""
        if self.settings.key is None:
            return self._reading_names(keys, None, limit_ns)
        return self._reading_keyed(keys, limit_ns)

    def _reading_keyed(self, keys: Iterable[K], limit_ns: int | None) -> Steps[dict[K, V]]:
        named = {key: self._name(key) for key in keys}
        found = yield from self._reading_names(named.values(), {name: key for key, name in named.items()}, limit_ns)
        return {key: found[name] for key, name in named.items() if name in found}

    def _reading_names(
        self, names: Iterable[Any], keys: Mapping[Any, K] | None, limit_ns: int | None
    ) -> Steps[dict[Any, V]]:
        """The same by the keys as the cache holds them. ``keys``: as the user gave them; None: they are the same."""
        if limit_ns is not None:
            found = yield from read_young(self._tier, self, names, limit_ns)
            return {name: value for name, value in found.items() if not isinstance(value, Absent)}
        loader = self.settings.loader
        if loader is None or not self._tier.freshness.renews:
            return (yield from read_many(self._tier, self, names))

        def wanted(name: Any) -> Loading:
            return self._wanted(name if keys is None else keys[name], loader, DEFAULT, DEFAULT)

        return (yield from look_many(self._tier, self, names, wanted))

    def _scan(self, prefix: str | bytes | None) -> Iterator[Any]:
        return self._walk(beginning(prefix))

    def _scan_under(self, path: Sequence[str]) -> Iterator[Any]:
        return self._walk(beginning_under(path))

    def _walk(self, start: bytes) -> Iterator[Any]:
        """Walk through all keys whose encoding begins so."""
        walk = Walk()
        while walk.goes_on(self._tier):
            yield from self._run(scan(self._tier, self, walk, start))

    def _hit_young(self, key: K, limit_ns: int) -> Any:
        name = self._name(key)
        if self._tier.births.is_young(name, self.l1_wid(name), monotonic_ns() - limit_ns):
            return self.l1_hit(key, MISSING)
        return MISSING
