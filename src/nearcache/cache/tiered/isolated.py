"""``isolation="copy"``: a cache on Redis whose readers share nothing.

L1 holds payloads (``Frozen``) where the other cache holds objects. They pass through the steps of reading and writing
like any value; here, at the edge, whatever goes in is frozen and whatever comes out is thawed. The other cache pays
nothing for this one: a hit there is still the compiled store's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from ...absence import Absent
from ...answers import is_coroutine_loader, mapped, mapped_many
from ...changes import SKIP, Change, Swapped
from ...choices import Seconds
from ...codecs import FreezingCodec, thaw
from ...errors import ConfigError
from ...freshness import Ttl
from ...loading import Gathering, Loading, Steps
from ..base import D, K, Lifetime, V
from ..mappings import pairs_of
from .cache import TieredCache

T = TypeVar("T")


class IsolatedCache(TieredCache[K, V]):
    """L1 in front of Redis, where each reader gets an object of its own.

    Args:
        url, options: As for :class:`TieredCache`.

    Cost: a hit decodes the value, unless it is text, bytes, a number or ``None``; so does a write, and the first reader
    gets what it made. Arrays are read-only views of the payload, and shared as such.
    """

    _isolation = "copy"
    l1_is_plain = False

    def __init__(self, url: str | None = None, /, **options: Any) -> None:
        if callable(listener := options.get("on_removal")):
            options["on_removal"] = _thawing(listener)
        super().__init__(url, **options)

    # -- out: what the store returns

    def __getitem__(self, key: K, /) -> V:
        return cast("V", thaw(super().__getitem__(key)))

    def get(self, key: K, default: Any = None, *, max_age: Seconds | None = None) -> Any:
        """Return the value for a key, or the default."""
        return thaw(super().get(key, default, max_age=max_age))

    def l1_hit(self, key: K, default: D) -> V | D:
        """Return the value in L1, or the default."""
        return cast("V | D", thaw(super().l1_hit(key, default)))

    def l1_hit_dict(self, keys: Iterable[K], missed: list[K]) -> dict[K, V]:
        """Return the values in L1 by key, and add the other keys to ``missed``."""
        return {key: thaw(value) for key, value in super().l1_hit_dict(keys, missed).items()}

    def peek(self, key: K, default: Any = None) -> Any:
        """Return the value in L1 without moving its recency, or the default."""
        return thaw(super().peek(key, default))

    def l1_snapshot(self) -> list[tuple[K, V]]:
        """Return the valid pairs of L1."""
        return [(key, thaw(value)) for key, value in super().l1_snapshot()]

    def l1_pop_next(self) -> tuple[K, V]:
        """Take the entry of L1 that would make room next."""
        key, value = super().l1_pop_next()
        return key, thaw(value)

    def expire(self, time: float | None = None) -> list[tuple[K, V]]:
        """Remove from L1 what has expired, and return it."""
        return [(key, thaw(value)) for key, value in super().expire(time)]

    def _given(self, result: T) -> T:
        given: Any = result
        # Only bulk reads return a dict: a value that is one comes frozen.
        return cast("T", {key: thaw(value) for key, value in given.items()} if type(given) is dict else thaw(given))

    def _async_view(self) -> Any:
        """Refuse: tasks that share a load would share its value.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "isolation", self._isolation, "asyncio has isolation='shared' only: open another cache for it"
        )

    # -- in: what callers and loaders give

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, self._freeze(value))

    def set(self, key: K, value: V, **more: Any) -> None:
        """Store a value in every tier. See :meth:`Cache.set`."""
        super().set(key, self._freeze(value), **more)

    def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        return thaw(super()._defaulted(key, self._freeze(default), tags))

    def _pop(self, key: Any) -> tuple[Any, Exception | None]:
        value, cause = super()._pop(key)
        return thaw(value), cause

    def _held_young(self, key: K, limit_ns: int) -> tuple[Any, Exception | None]:
        value, cause = super()._held_young(key, limit_ns)
        return thaw(value), cause

    def set_many(self, values: Mapping[K, V] | Iterable[tuple[K, V]], **more: Any) -> None:
        """Store many values. See :meth:`Cache.set_many`."""
        super().set_many({key: self._freeze(value) for key, value in dict(pairs_of(values)).items()}, **more)

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version."""
        value, version = super().gets(key, default)
        return thaw(value), version

    def _swapping(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Steps[Swapped]:
        def make(there: Any, version: int) -> Any:
            new = change.make(thaw(there), version)
            return new if new is SKIP else self._freeze(new)

        stored, old, new = yield from super()._swapping(key, change._replace(make=make), ttl, tags)
        return Swapped(stored, thaw(old), thaw(new))

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        alive, value = super()._touch(key, ttl, whole=whole)
        return alive, thaw(value)

    def _wanted(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any) -> Loading:
        if not is_coroutine_loader(loader):  # else it is not called
            loader = mapped(loader, self._freeze, thaw)
        return super()._wanted(key, loader, ttl, tags)

    def _gathering(
        self, named: dict[K, Any], load_many: Callable[[list[K]], Any], ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> Gathering:
        return super()._gathering(named, mapped_many(load_many, self._freeze), ttl, tags, limit_ns)

    def _labels(self, tags: Any) -> Any:
        labels = super()._labels(tags)
        return _thawing_labels(labels) if callable(labels) else labels

    def _ttl(self, ttl: Lifetime, endless_ms: int) -> Ttl:
        chosen = super()._ttl(ttl, endless_ms)
        return (lambda key, value: chosen(key, thaw(value))) if callable(chosen) else chosen

    def l1_finish(self, op: Any, value: Any, wid: int, *rest: Any, **more: Any) -> bool:
        """Complete an operation. Whatever way a value came, none gets into L1 as it is."""
        return super().l1_finish(op, self._freeze(value) if wid else value, wid, *rest, **more)

    def _freeze(self, value: Any) -> Any:
        if isinstance(value, Absent):
            return value
        codec = self._tier.codec
        assert isinstance(codec, FreezingCodec)
        return codec.freeze(value)


def _thawing(listener: Callable[[Any, Any, Any], object]) -> Callable[[Any, Any, Any], object]:
    def notify(key: Any, value: Any, cause: Any) -> object:
        return listener(key, thaw(value), cause)

    return notify


def _thawing_labels(labels: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda key, value: labels(key, thaw(value))
