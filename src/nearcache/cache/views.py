"""A part of a cache: the entries whose keys begin alike, as a mapping of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from .._parts import Part
from ..answers import DEFAULT, checked_answers, for_key, require_loader
from ..changes import MISSING, Change, Swapped
from ..choices import Seconds
from ..freshness import Lifetime
from .events.listening import Listened
from .holding import several
from .mappings import Enumerable, pairs_of
from .readthrough import found_or
from .scanning import begins, under
from .verbs import K, V, Verbs

if TYPE_CHECKING:
    from .aio import AsyncView
    from .base import Cache
    from .events.subscriptions import Subscription

D = TypeVar("D")


class View(Part[K, V], Verbs[K, V], Enumerable[K, V], Listened, MutableMapping[K, V]):
    """What :meth:`Cache.view` returns.

    The key ``k`` of the view ``name`` is the key ``(name, k)`` of the cache, in the same L1 and the same L2. What is
    stored through the view has a tag of the view's besides its own, so that :meth:`clear` takes one round trip,
    whatever the number of entries.

    Iteration and ``len`` speak of this process's L1 and look at all of its entries.

    Attributes:
        cache: The cache.
        path: The view's name, after those of the views that it is part of.
    """

    __slots__ = ("_tags", "cache")

    def __init__(self, cache: Cache[Any, Any], path: tuple[str, ...]) -> None:
        if not path or not all(isinstance(name, str) and name for name in path):
            raise TypeError(f"view({path[-1] if path else ''!r}): a view's name is a text that is not empty")
        super().__init__(cache.l1_hit, path)
        self.cache: Cache[Any, Any] = cache
        # A clear of an outer view has to reach what is stored through the inner one.
        self._tags = tuple(_tag_of(path[: end + 1]) for end in range(len(path)))

    def __repr__(self) -> str:
        return f"{self.cache!r}.view({'/'.join(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cache, self.path)

    def view(self, name: str) -> View[Any, V]:
        """Return a part of this view: its keys begin with both names, and clearing this one clears it."""
        return View(self.cache, (*self.path, name))

    @property
    def aio(self) -> AsyncView[K, V]:
        """The same view for asyncio."""
        from .aio import AsyncView

        return AsyncView(self.cache.aio, self)

    # -- mapping

    def _missing(self, key: K) -> V:
        if self.cache.settings.loader is None:
            named = self._key(key)
            try:
                found: V = self.cache[named]
            except KeyError as error:
                raise_of(key, named, error)
            return found
        return self.get_or_load(key)

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        if not self._remove(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._key(key) in self.cache

    def __iter__(self) -> Iterator[K]:
        return iter([key for key, _ in self.l1_snapshot()])

    def __len__(self) -> int:
        return len(self.l1_snapshot())

    def l1_snapshot(self) -> list[tuple[K, V]]:
        """Return the pairs of the view that L1 holds. Moves no recency."""
        return [(key[-1], value) for key, value in self.cache.l1_snapshot() if under(self.path, key)]

    def _missing_get(self, key: K, default: Any, max_age: Seconds | None) -> Any:
        return self.cache.get(self._key(key), default, max_age=max_age)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...
    def pop(self, key: K, default: Any = DEFAULT) -> Any:
        """Remove a key everywhere and return its value. Never calls the loader.

        Raises:
            KeyError: There is none, and no default was given.
        """
        return found_or(default, key, *self.cache._pop(self._key(key)))

    def popitem(self) -> tuple[K, V]:
        """Remove a pair that L1 holds everywhere, who makes room next first, and return it. Never calls the loader.

        Raises:
            KeyError: L1 holds none.
        """
        self.cache._use()
        for key, value in self.l1_snapshot():
            if self._remove(key):  # else somebody else was quicker, and has it
                return key, value
        raise KeyError("popitem(): L1 holds nothing of this view")

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return the value for a key; if there is none, store the default and return it. Never calls the loader."""
        return self.cache._defaulted(self._key(key), default, self._tags)

    # -- as of the cache

    def peek(self, key: K, default: Any = None) -> Any:
        """Return the value in this process's L1, or the default. Moves no recency."""
        return self.cache.peek(self._key(key), default)

    def drop(self, key: K) -> bool:
        """Drop this process's copy of a key. Returns whether there was one."""
        return self.cache.drop(self._key(key))

    def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value in every tier. See :meth:`Cache.set`."""
        self.cache.set(self._key(key), value, ttl=ttl, tags=(*self._tags, *tags))

    def get_or_load(
        self,
        key: K,
        loader: Callable[[Any], V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        max_age: Seconds | None = None,
    ) -> V:
        """Return the value for a key; on a miss call the loader, with the view's key. See :meth:`Cache.get_or_load`.

        The cache's own ``loader=`` is called with the cache's key, ``(name, key)``; its ``tags=`` do not count here.
        """
        found: Any = self.l1_plain_hit(key, MISSING) if max_age is None else MISSING
        if found is not MISSING:
            hit: V = found
            return hit
        named, labels = self._key(key), (*self._tags, *tags)
        chosen = None if loader is None else for_key(loader, key)
        try:
            value: V = self.cache.get_or_load(named, chosen, ttl=ttl, tags=labels, max_age=max_age)
        except KeyError as error:
            raise_of(key, named, error)
        return value

    def refresh(
        self,
        key: K,
        loader: Callable[[Any], V] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> V:
        """Load the value for a key anew, whatever is there, and return it. See :meth:`Cache.refresh`."""
        named, labels = self._key(key), (*self._tags, *tags)
        chosen = None if loader is None else for_key(loader, key)
        try:
            value: V = self.cache.refresh(named, chosen, ttl=ttl, tags=labels)
        except KeyError as error:
            raise_of(key, named, error)
        return value

    def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process. See :meth:`Cache.invalidate`."""
        return self.cache.invalidate(self._key(key))

    def get_many(self, keys: Iterable[K], *, max_age: Seconds | None = None) -> dict[K, V]:
        """Return the values that are there, by key. See :meth:`Cache.get_many`.

        The cache's own ``load_many=`` is called with the cache's keys, ``(name, key)``.
        """
        if self.cache.settings.load_many is not None:
            return self.get_or_load_many(keys, max_age=max_age)
        named = {self._key(key): key for key in several("get_many", keys)}
        return {named[key]: value for key, value in self.cache.get_many(named, max_age=max_age).items()}

    def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[Any]], Mapping[Any, V]] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        max_age: Seconds | None = None,
    ) -> dict[K, V]:
        """Return the values for many keys; call the bulk loader once for all misses, with the view's keys.

        See :meth:`Cache.get_or_load_many`. The cache's own ``load_many=`` is called with the cache's keys.
        """
        named = {self._key(key): key for key in several("get_or_load_many", keys)}
        if load_many is not None:
            require_loader("load_many", load_many)

        def load(missed: list[Any]) -> Any:
            assert load_many is not None
            answers = load_many([named[key] for key in missed])
            return {self._key(key): value for key, value in checked_answers(load_many, answers).items()}

        found = self.cache.get_or_load_many(
            named, None if load_many is None else load, ttl=ttl, tags=(*self._tags, *tags), max_age=max_age
        )
        return {named[key]: value for key, value in found.items()}

    def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values. See :meth:`Cache.set_many`."""
        named = {self._key(key): value for key, value in dict(pairs_of(values)).items()}
        self.cache.set_many(named, ttl=ttl, tags=(*self._tags, *tags))

    def delete_many(self, keys: Iterable[K]) -> None:
        """Drop every copy of many keys in every process. See :meth:`Cache.delete_many`."""
        self.cache.delete_many([self._key(key) for key in several("delete_many", keys)])

    def clear(self) -> None:
        """Drop everything that was stored through this view and its views, in every process. One round trip.

        Raises:
            ShardUnavailableError: It is not known to be done. This process serves none of it in any case.
        """
        self.cache.invalidate_tag(self._tags[-1])

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""
        return self.cache.gets(self._key(key), default)

    # -- the hooks of the verbs

    def _scan(self, prefix: str | bytes | None) -> Iterator[Any]:
        found = self.cache._scan_under(self.path)
        return (key[-1] for key in found if under(self.path, key) and begins(key[-1], prefix))

    def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        return self.cache._swap(self._key(key), change, ttl, (*self._tags, *tags))

    def _remove(self, key: Any) -> bool:
        return self.cache._remove(self._key(key))

    def _take(self, key: Any) -> Any:
        return self.cache._take(self._key(key))

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        return self.cache._touch(self._key(key), ttl, whole=whole)

    def _add_listener(self, function: Any, kinds: frozenset[str], limit: int, path: tuple[Any, ...]) -> Subscription:
        return self.cache._add_listener(function, kinds, limit, self.path + path)

    def _key(self, key: Any) -> tuple[Any, ...]:
        return (*self.path, key)


def raise_of(key: Any, named: tuple[Any, ...], error: KeyError) -> NoReturn:
    """Raise an error anew: the cache's word that there is no value is said of the view's key.

    A loader's or a ``key=`` function's own error stays as it is.
    """
    if type(error) is KeyError and error.args == (named,):
        raise KeyError(key) from error.__cause__
    raise error


def _tag_of(path: tuple[str, ...]) -> str:
    """Return the view's tag: no two views have the same, and no user's tag looks like it."""
    return "\0view" + "".join(f":{len(name)}:{name}" for name in path)
