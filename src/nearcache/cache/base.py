"""What every cache is: a mapping whose hits are served by the compiled store it inherits from."""

from __future__ import annotations

import math
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from .. import freshness
from .._store import Store
from ..absence import Absent, raise_absent
from ..answers import DEFAULT, is_coroutine_loader, require_loader
from ..changes import MISSING
from ..choices import Seconds
from ..clocks import NEVER_NS
from ..errors import ClosedError
from ..freshness import Ttl, checked_ttl
from ..options import Settings, check_tags
from .events.listening import Telling
from .functions.cached import decorate
from .functions.surface import CachedFunction, Decorator
from .holding import Hold
from .letters import Letters
from .mappings import Enumerable, pairs_of
from .readthrough import ReadThrough, found_or
from .report import CacheInfo, Health, SelfTest, Stats, log_too_large
from .shards.resharding import Reshardable
from .verbs import Verbs
from .views import View

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .aio import AsyncCache

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

#: Seconds, None for no expiry, or a function that returns one of them for key and value.
Lifetime: TypeAlias = freshness.Lifetime

#: An instant, in seconds, that is later than any.
_LATEST_S: Final = 2.0**33


if TYPE_CHECKING:
    _Mapping = MutableMapping
else:
    _Mapping = Generic  # it is registered as one below: whatever a dict takes is compiled, or written here


class _Made(Generic[R]):
    """An attribute that is made when it is first asked for, as by ``functools.cached_property``.

    Up to Python 3.11 that holds one lock for all instances meanwhile, which the child of a fork in this moment would
    wait for. Here each of two threads may make one, of which the first is kept.
    """

    def __init__(self, make: Callable[[Any], R]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> R: ...

    def __get__(self, instance: object, owner: type) -> Self | R:
        if instance is None:
            return self
        made: R = instance.__dict__.setdefault(self._name, self._make(instance))
        return made


class Cache(
    Store[K, V], ReadThrough[K, V], Verbs[K, V], Enumerable[K, V], Letters, Telling, Reshardable, _Mapping[K, V]
):
    """The common base of the caches that :func:`nearcache.open` returns.

    ``cache[key]``, ``get`` and ``in`` are the store's own: a hit runs no Python code. What L1 does not hold goes
    through the hooks ``_missing``, ``_missing_get`` and ``_missing_in``.

    Iteration, ``len``, ``keys``, ``values``, ``items``, ``copy`` and ``==`` speak of this process's L1.
    """

    settings: Settings
    _too_large = log_too_large  # the store's hook

    @_Made
    def aio(self) -> AsyncCache[K, V]:
        """The same cache for asyncio: its methods as coroutines, in any event loop. See :class:`AsyncCache`.

        Raises:
            ClosedError: The cache was closed.
        """
        return self._async_view()

    def _async_view(self) -> AsyncCache[K, V]:
        raise NotImplementedError

    # -- single keys

    def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value in every tier.

        Args:
            key: Encodable (``memory://``: hashable).
            value: Stored as it is in L1; treat it as read-only from here on.
            ttl: Lifetime in seconds, or a function of key and value; ``None``: no expiry; default: the cache's.
            tags: Names, at most 16, that :meth:`invalidate_tag` invalidates the value by.
        Raises:
            UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing was changed.
            ShardUnavailableError: Nothing is known to be stored; no L1 copy is kept in this process.
        Cost: one round trip.
        """
        raise NotImplementedError

    def invalidate(self, key: K) -> bool:
        """Drop every copy of a key in every process; no error if there is none. Returns whether there was one.

        On Redis a value counts that only :meth:`invalidate_tag` (or a view's ``clear``) has ended: its tags, which may
        be on other servers, are not asked for. So ``del`` raises no KeyError then.

        Raises:
            ShardUnavailableError: It is not known to be done. This process's own copy is gone in any case.
        """
        raise NotImplementedError

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...
    def pop(self, key: K, default: Any = DEFAULT) -> Any:
        """Remove a key everywhere and return its value. Never calls the loader.

        On Redis two callers at once may both be given it; of those of :meth:`get_and_delete` one is.

        Raises:
            KeyError: There is none, and no default was given. The key is removed all the same, as by ``del``: where
                there is a ``writer`` the data may have it, and another process may be about to load it.
            ShardUnavailableError: Nobody knows whether there is one, or whether it is removed; an invalidation is owed.
                With ``on_error="queue"`` that is no error: it counts as absent.
        """
        return found_or(default, key, *self._pop(key))

    def _pop(self, key: Any) -> tuple[Any, Exception | None]:
        """Remove a key. Returns its value, or MISSING and why it is not known that there was none."""
        raise NotImplementedError

    def popitem(self) -> tuple[K, V]:
        """Remove the L1 entry that would make room next (``lru``: the least recently used) everywhere; return it.

        Raises:
            KeyError: L1 is empty.
        """
        self._use()
        name, value = self.l1_pop_next()
        self._remove_held(name)
        return name, value

    def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        """Store what is the cache's own business, as ``set`` does but without the writer."""
        raise NotImplementedError

    def _remove_held(self, name: Any) -> None:
        """Remove a key that is given as it is held: after ``key=``."""
        raise NotImplementedError

    @overload
    def setdefault(self: Cache[K, D | None], key: K, default: None = None) -> D | None: ...
    @overload
    def setdefault(self, key: K, default: V) -> V: ...
    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value for a key; if there is none, store the default and return it. Never calls the loader.

        Of several callers at once, in all processes, one stores.
        """
        return self._defaulted(key, default, ())

    def _defaulted(self, key: Any, default: Any, tags: Sequence[str]) -> Any:
        """The same; what is stored gets tags."""
        found = self.get(key, MISSING)
        while found is MISSING:
            if self.add(key, default, tags=tags):
                return default
            found, _ = self.gets(key, MISSING)
        return found

    # -- many keys

    def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values. One round trip per shard, in parallel. ``tags``: those of all of them.

        Raises:
            UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing was changed.
            BulkError: Some keys are stored and others not, or perhaps not: it says which.
        """
        raise NotImplementedError

    def delete_many(self, keys: Iterable[K]) -> None:
        """Drop every copy of many keys in every process. One round trip per shard, in parallel.

        Raises:
            TypeError: It is one text, whose letters would be taken for keys.
            BulkError: It is not known to be done for some keys: it says for which.
        """
        raise NotImplementedError

    # -- functions

    @overload
    def cached(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
    @overload
    def cached(
        self,
        /,
        *,
        key: Callable[..., Any] | None = None,
        typed: bool = False,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        unless: Callable[[Any], object] | None = None,
        version: str | int | None = None,
        ignore: Collection[str] = (),
    ) -> Decorator: ...
    def cached(
        self,
        function: Any = None,
        /,
        *,
        key: Callable[..., Any] | None = None,
        typed: bool = False,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
        unless: Callable[[Any], object] | None = None,
        version: str | int | None = None,
        ignore: Collection[str] = (),
    ) -> Any:
        """Return a function whose results are kept in this cache; to be used as a decorator, bare or called.

        Args:
            function: A function, method, class method, static method or coroutine function.
            key: From the arguments (``self`` included) to what is to stand for them in the key.
            typed: Whether equal arguments of different types are different.
            ttl: Lifetime of a result in seconds; ``None``: no expiry; default: the cache's.
            tags: Names, at most 16, that :meth:`invalidate_tag` invalidates the results by.
            unless: Called with a result; if it says yes, the result is returned but not kept.
            version: Part of the key: another version begins with nothing.
            ignore: Names of parameters that are no part of the key.
        Returns:
            The function, with ``cache_info``, ``cache_clear``, ``cache_parameters``, ``__wrapped__``, and
            ``invalidate``, ``refresh``, ``peek``, ``set`` and ``key``, which take its arguments: docs/decorators.md.
        Raises:
            ConfigError: An option is wrong, or the function's name would not say which one it is.
            TypeError: It cannot be called, or is a generator function.
        Calls raise what the function raises, unchanged and not kept; and
            UnencodableKeyError: An argument, which it names, cannot be part of a key.
        """
        options = {
            "key": key, "typed": typed, "ttl": ttl, "tags": tags, "unless": unless, "version": version, "ignore": ignore
        }  # fmt: skip
        if function is None:
            return lambda function: decorate(self, function, options)
        return decorate(self, function, options)

    # -- groups, and changes elsewhere

    def invalidate_tag(self, tag: str) -> None:
        """Drop every copy of every value that has this tag, in every process, however many they are.

        When it has returned, this process serves none of them; others stop within the staleness bound, as a rule at
        once.

        Raises:
            ConfigError: It is not a text.
            ShardUnavailableError: It is not known to be done. This process serves none of them in any case.
        Cost: one round trip, whatever the number of values.
        """
        raise NotImplementedError

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> Hold:
        """Return a context in which the data behind these keys can be changed safely.

        ::

            with cache.hold(["sku:1"]):
                database.commit()

        At the beginning and at the end the keys are invalidated, and in between nothing can be stored under them, in no
        process: a reader that saw the old state just before the commit cannot put it back after it. Readers still get
        what their loaders bring. A process that dies in between leaves holds that end by themselves.

        Args:
            seconds: The longest that the change will take, 0.001 to 3600.
            linger: How long the hold goes on after the end, 0 to 3600: as long as a loader may still read the old state
                then, from a replica of the database that lags, or in a transaction that began before.
        Raises:
            ValueError: ``seconds`` or ``linger`` is out of range.
            ShardUnavailableError, BulkError: At the beginning: do not commit. At the end: the invalidation is not
                known to be done; it is owed, with the end of the hold. With ``on_error="queue"`` neither is raised: the
                block is entered, keys of a shard that is away are not on hold, and both invalidations are owed.
            TypeError: ``keys`` is one text or bytes.
        Cost: two round trips per shard.
        """
        raise NotImplementedError

    def _scan_under(self, path: Sequence[str]) -> Iterator[Any]:
        """Walk through keys, among them all those of a view. See :meth:`scan`."""
        raise NotImplementedError

    def token(self) -> str:
        """Return a token of all that this process has changed and seen: a few dozen characters for a cookie or header.

        Another process that is given it to :meth:`wait_for` serves nothing older afterwards.
        """
        raise NotImplementedError

    def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        """Serve nothing older than the token of another process from now on.

        As a rule its messages have arrived and nothing happens. Else the shards concerned are asked where they stand,
        one round trip; what does not answer in time is looked at in L2, entry by entry, before it is served again.

        Raises:
            ValueError: It is no token, or one of another set of shards.
        """
        raise NotImplementedError

    def view(self, name: str) -> View[Any, V]:
        """Return the entries whose keys are ``(name, key)`` as a mapping of its own, with the verbs and loads.

        Its ``clear()`` takes one round trip, whatever the number of entries. See :class:`View`.

        Raises:
            TypeError: The name is no text, or empty.
        """
        return View(self, (name,))

    # -- this process's L1, seen as a mapping

    def keys(self) -> KeysView[K]:
        """The keys in L1, in the order of :meth:`items` and as many."""
        return KeysView(cast("Mapping[K, V]", self))

    def copy(self) -> Cache[K, V]:
        """Return a ``memory://`` cache of its own that holds what L1 holds now, each entry for the rest of its time."""
        raise NotImplementedError

    def expire(self, time: float | None = None) -> list[tuple[K, V]]:
        """Remove from L1 what has expired, and return it, as cachetools' ``TTLCache.expire`` does.

        Nobody has to call it: expired entries are not served, and are reclaimed along with other work.

        Args:
            time: The instant, in seconds of ``time.monotonic()``; what would have expired by then goes. ``None``: now.
        Returns:
            The pairs, under the keys held (after ``key=``), in no particular order.
        Raises:
            ValueError: The instant is not a number.
        Cost: O(expired entries), and of the tables, if these are made smaller; no I/O; ``on_removal`` is called for
        each, in this thread.
        """
        if time is None:
            return self._expire(None)
        if math.isnan(time):
            raise ValueError(f"time={time!r}: give an instant of time.monotonic(), in seconds, or None for now")
        return self._expire(NEVER_NS if time > _LATEST_S else round(max(time, 0.0) * 1e9))

    def _expire(self, now_ns: int | None) -> list[tuple[K, V]]:
        return super().expire(now_ns)

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: Any = None) -> Self:
        """Return a new cache of this class, with its default settings, that holds the keys."""
        make: Any = cls  # the caches that can be made without arguments; this base cannot
        cache = make()
        for key in keys:
            cache[key] = value
        return cast("Self", cache)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return dict(self.l1_snapshot()) == dict(pairs_of(other)) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as for every mutable mapping

    def __dir__(self) -> list[str]:
        # The store's own verbs, which the layers below call, are nobody's to complete.
        return [name for name in super().__dir__() if not name.startswith(("l1_", "lane_"))]

    def __repr__(self) -> str:
        size, limit = len(self), self.settings.maxsize
        return f"<{type(self).__name__} {self.settings.namespace!r}: {size} of {limit} entries in L1>"

    # -- life and observation

    def cache_info(self) -> CacheInfo:
        """Return hits, misses, maxsize and currsize of L1, named as ``functools.lru_cache`` names them."""
        counters = self.l1_counters()
        return CacheInfo(counters["hits"], counters["misses"], self.settings.maxsize, len(self))

    def stats(self) -> Stats:
        """Return what happened in each tier since the cache was opened."""
        raise NotImplementedError

    def health(self) -> Health:
        """Return the state of every shard, and whether L1 may serve its keys."""
        raise NotImplementedError

    def selftest(self, timeout: Seconds = 2.0) -> SelfTest:
        """Publish an invalidation on every shard and wait until it comes back, up to ``timeout`` seconds."""
        raise NotImplementedError

    def close(self) -> None:
        """End threads and connections. Idempotent. A closed cache raises ClosedError when used."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the subclasses

    def _missing_aged(self, key: K, default: Any, max_age: Any) -> Any:
        return self._get_young(key, default, max_age)

    def _present(self, key: K, value: Any) -> V:
        """Return what a load has brought, or raise what it means."""
        if isinstance(value, Absent):
            raise_absent(key, value)
        return cast("V", value)

    def _ttl(self, ttl: Any, endless_ms: int) -> Ttl:
        """Check a lifetime given with a call; return milliseconds, or a function that does."""
        return checked_ttl(self.settings.ttl if ttl is DEFAULT else ttl, endless_ms)

    def _labels(self, tags: Any) -> Any:
        """Check the tags given with a load; return them, or the function that tells them."""
        return self.settings.tags if tags is DEFAULT else tags if callable(tags) else check_tags(tags)


def store_options(settings: Settings, on_removal: Any) -> dict[str, Any]:
    """What the store is told, by the names of its own arguments, whatever the kind of cache."""
    return {
        "maxbytes": settings.maxbytes,
        "keyfunc": settings.key,
        "listener": _sparing(settings, on_removal),
        "policy": settings.policy,
    }


def _sparing(settings: Settings, listener: Any) -> Any:
    """Return ``on_removal``, not to be told of what is noted of keys that have no value."""
    if listener is None or not settings.error_ttl:
        return listener
    return lambda key, value, cause: None if isinstance(value, Absent) else listener(key, value, cause)


def refuse_coroutines(loader: Callable[..., Any]) -> None:
    """Raise TypeError for a loader that a thread cannot call."""
    require_loader("loader", loader)
    if is_coroutine_loader(loader):
        raise TypeError(f"loader={loader!r} is a coroutine function: await cache.aio.get_or_load(key) instead")


def closed(name: str) -> ClosedError:
    """The error of a call on a closed cache."""
    return ClosedError(f"{name}: this cache is closed, by close(), `with` or `async with cache.aio`; open a new one")


MutableMapping.register(Cache)
