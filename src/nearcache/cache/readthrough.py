"""Reading through: what a cache does about keys that it does not hold, one by one or many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..answers import DEFAULT, Answer, is_coroutine_loader, require_loader
from ..changes import MISSING
from ..choices import MAX_TTL_S, Seconds, plain_seconds
from ..errors import ConfigError
from ..flights import Loads, young_of
from ..freshness import Lifetime
from ..options import Settings
from .holding import refuse_text
from .timed import Limit, in_time, joined

K = TypeVar("K")
V = TypeVar("V")


class ReadThrough(Generic[K, V]):
    """What :class:`Cache` has of loaders. Hooks do the work: see the end."""

    __slots__ = ()

    if TYPE_CHECKING:
        settings: Settings

        def l1_hit(self, key: Any, default: Any) -> Any: ...
        def l1_hit_dict(self, keys: Iterable[Any], missed: list[Any]) -> dict[Any, Any]: ...

    def get_or_load(
        self,
        key: K,
        loader: Callable[[K], Answer[V]] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] | Callable[[K, V], Iterable[str]] = DEFAULT,
        max_age: Seconds | None = None,
    ) -> V:
        """Return the value for a key; on a miss call the loader and keep its value.

        However many threads, tasks and processes ask for one key at the same time, one loader runs.

        Args:
            key: Encodable (``memory://``: hashable).
            loader: Called with the key; default: the cache's own ``loader=``. It returns the value, or :class:`Loaded`.
            ttl: Lifetime of a loaded value in seconds; ``None``: no expiry; or a function that returns it for key and
                value; default: the cache's.
            tags: Names, at most 16, that :meth:`invalidate_tag` invalidates the value by, or a function that returns
                them for key and value; default: the cache's own ``tags=``. What tags there are is best known before the
                load: the first value under a tag that only the function told of is returned and not kept. What takes
                the place of an old value (``soft_ttl``, ``beta``) has the tags of that one besides.
            max_age: A value that was stored longer ago, in seconds, is loaded anew.
        Returns:
            The object that L1 holds, not a copy: treat it as read-only.
        Raises:
            KeyError: A miss, and there is no loader; or the loader says that there is no value.
            LoadTimeoutError: It takes longer than ``loader_timeout``. It goes on.
            LoadCycleError: The loader asks, directly or through other threads, for the key it loads.
            ShardError: With ``write_delay=``, the key's shard is out: a newer value than the loader's may wait there.
            Anything the loader raises, in every thread that waits for it, and later, if ``error_ttl`` says so.
        Cost: L1 hit O(1) without I/O; L2 hit one round trip; miss three and the loader. With ``max_age`` the first read
            of a value that this process has not loaded costs one round trip.
        """
        found: Any = self.l1_hit(key, MISSING) if max_age is None else self._hit_young(key, age_to_ns(max_age))
        if found is not MISSING:
            hit: V = found  # cast() would be a call
            return hit
        chosen = loader if loader is not None else self.settings.loader
        if max_age is not None:
            return self._young_or_loaded(key, chosen, ttl, tags, age_to_ns(max_age))
        if chosen is None:
            return self._missing(key)
        return self._missing_load(key, chosen, ttl=ttl, tags=tags)

    def refresh(
        self,
        key: K,
        loader: Callable[[K], Answer[V]] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] | Callable[[K, V], Iterable[str]] = DEFAULT,
    ) -> V:
        """Load the value for a key anew, whatever is there, and return it. Readers have the old one meanwhile.

        A load that another thread or process has begun for this purpose, or for a missing key, is waited for, and its
        value returned: one loader runs.

        Args:
            key, loader, ttl, tags: As for :meth:`get_or_load`.
        Raises:
            TypeError: There is no loader.
            Anything the loader raises; the old value stays.
        """
        return self._refresh(key, refreshing(self.settings, loader), ttl, tags)

    def get_many(self, keys: Iterable[K], *, max_age: Seconds | None = None) -> dict[K, V]:
        """Return the values that are there, by key. One round trip per shard for some 500 keys of it, in parallel.

        It calls no loader, unless the cache has a bulk loader (``load_many=``): that is called once for all misses.

        Args:
            keys: Encodable (``memory://``: hashable).
            max_age: Values that were stored longer ago, in seconds, count as missing.
        Raises:
            TypeError: The keys are one text or bytes.
            Anything the bulk loader raises.
        """
        refuse_text("get_many", keys)
        if self.settings.load_many is not None:
            return self.get_or_load_many(keys, max_age=max_age)
        limit_ns = None if max_age is None else age_to_ns(max_age)
        found, missed = self._hits(keys, limit_ns)
        if missed:
            found.update(self._held_many(missed, limit_ns))
        return found

    def get_or_load_many(
        self,
        keys: Iterable[K],
        load_many: Callable[[list[K]], Mapping[K, Answer[V]]] | None = None,
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] | Callable[[K, V], Iterable[str]] = DEFAULT,
        max_age: Seconds | None = None,
    ) -> dict[K, V]:
        """Return the values for many keys; call the bulk loader once for all misses, and keep what it brings.

        A key that another thread, task or process is loading is waited for instead. Keys without a value are left out.

        Args:
            keys: Encodable (``memory://``: hashable).
            load_many: Called with a list of keys; returns a mapping of those that have a value. Other keys in it are
                left out. Default: the cache's own.
            ttl, tags, max_age: As for :meth:`get_or_load`; functions are called for each value.
        Raises:
            TypeError: There is no bulk loader, or the keys are one text or bytes.
            Anything it raises, in every thread that waits for one of its keys; nothing is kept then.
        Cost: what L1 misses, one round trip per shard for some 500 keys of it; what L2 misses, two more and the loader.
        """
        refuse_text("get_or_load_many", keys)
        chosen = bulk_loading(self.settings, load_many)
        if is_coroutine_loader(chosen):
            raise TypeError(
                f"load_many={chosen!r} is a coroutine function: await cache.aio.get_or_load_many(keys) instead"
            )
        limit_ns = None if max_age is None else age_to_ns(max_age)
        found, missed = self._hits(keys, limit_ns)
        if missed:
            found.update(self._gathered(missed, chosen, ttl, tags, limit_ns))
        return found

    # -- with max_age

    def _hits(self, keys: Iterable[K], limit_ns: int | None) -> tuple[dict[K, V], list[K]]:
        """Return what L1 holds, and the other keys, each once."""
        missed: list[K] = []
        if limit_ns is None:
            found: dict[K, V] = self.l1_hit_dict(keys, missed)
        else:
            held = {key: self._hit_young(key, limit_ns) for key in keys}
            found = {key: value for key, value in held.items() if value is not MISSING}
            missed = [key for key in held if key not in found]
        return found, list(dict.fromkeys(missed)) if missed else missed

    def _get_young(self, key: K, default: Any, max_age: Any) -> Any:
        limit_ns = age_to_ns(max_age)
        found = self._hit_young(key, limit_ns)
        return self._held_many([key], limit_ns).get(key, default) if found is MISSING else found

    def _young_or_loaded(self, key: K, loader: Any, ttl: Lifetime, tags: Any, limit_ns: int) -> V:
        if loader is not None:
            return cast("V", self._loaded(key, limit_ns, self._load_young, key, loader, ttl, tags, limit_ns))
        return cast("V", found_or(DEFAULT, key, *self._held_young(key, limit_ns)))

    # -- for the subclasses

    def _missing_load(self, key: K, loader: Callable[[K], Any], *, ttl: Lifetime = DEFAULT, tags: Any = DEFAULT) -> V:
        """Return the value for a key of which it was counted that L1 does not hold it."""
        return cast("V", self._loaded(key, None, self._load, key, loader, ttl, tags))

    def _loaded(self, key: Any, limit_ns: int | None, load: Callable[..., Any], *args: Any) -> Any:
        """Return what a load of one key brings, in time; ``limit_ns``: the greatest age that it is asked for with."""
        seconds = self.settings.loader_timeout
        if seconds is None:
            return load(*args)
        limit = Limit(key, seconds)
        loads, name = self._flights(), self._name(key)
        # Who finds a load under way needs no thread: a loader that hangs would else have one for each caller.
        flight = loads.joinable(name if limit_ns is None else young_of(name, limit_ns))
        value = MISSING if flight is None else joined(loads, flight, limit)
        return in_time(lambda: load(*args), limit) if value is MISSING else self._landed(key, value)

    def _gathered(self, keys: list[K], *args: Any) -> dict[K, V]:
        seconds = self.settings.loader_timeout
        if seconds is None:
            return self._gather(keys, *args)
        return cast("dict[K, V]", in_time(lambda: self._gather(keys, *args), Limit(tuple(keys), seconds)))

    def _name(self, key: Any) -> Any:
        """Return what stands for a key in the store, in messages, and among the loads under way."""
        return key if self.settings.key is None else self.settings.key(key)

    def _flights(self) -> Loads:
        """Return the loads under way."""
        raise NotImplementedError

    def _landed(self, key: K, value: Any) -> V:
        """Return what another caller's load has brought, or raise what it means."""
        raise NotImplementedError

    def _missing(self, key: K) -> V:
        raise NotImplementedError

    def _load(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any) -> V:
        raise NotImplementedError

    def _load_young(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any, limit_ns: int) -> V:
        raise NotImplementedError

    def _refresh(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any) -> V:
        raise NotImplementedError

    def _gather(
        self, keys: list[K], load_many: Callable[[list[K]], Any], ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        """Return the values of keys that L1 does not hold, loading those that no tier holds."""
        raise NotImplementedError

    def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        """Return the values that a tier below L1 holds."""
        raise NotImplementedError

    def _held_young(self, key: K, limit_ns: int) -> tuple[Any, Exception | None]:
        """Return the value that some tier holds, or MISSING and why it is not known that there is none."""
        return self._held_many([key], limit_ns).get(key, MISSING), None

    def _hit_young(self, key: K, limit_ns: int) -> Any:
        """Return the value in L1 if it is known to be so young, else MISSING."""
        raise NotImplementedError


def found_or(default: Any, key: Any, found: Any, cause: Exception | None) -> Any:
    """Return what was found of a key, else the default.

    Raises:
        KeyError: There is neither. ``cause``: why it is not known that there is no value; None: it is.
    """
    if found is not MISSING:
        return found
    if default is DEFAULT:
        raise KeyError(key) from cause
    return default


def refreshing(settings: Settings, loader: Any) -> Any:
    """Return the loader that ``refresh`` was given, else the cache's own.

    Raises:
        TypeError: There is neither.
    """
    chosen = settings.loader if loader is None else loader
    if chosen is None:
        raise TypeError("refresh() loads: give it a loader, or open the cache with loader=")
    return chosen


def bulk_loading(settings: Settings, load_many: Any) -> Any:
    """Return the bulk loader that ``get_or_load_many`` was given, else the cache's own.

    Raises:
        TypeError: There is neither, or it cannot be called.
    """
    chosen = settings.load_many if load_many is None else load_many
    if chosen is None:
        raise TypeError("get_or_load_many() loads: give it load_many=, or open the cache with load_many=")
    require_loader("load_many", chosen)
    return chosen


def age_to_ns(max_age: Any) -> int:
    """Return a greatest age in nanoseconds.

    Raises:
        ConfigError: It is out of range.
    """
    seconds = plain_seconds(max_age)
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= MAX_TTL_S:
        raise ConfigError("max_age", max_age, f"give seconds from 0 to {MAX_TTL_S:g}, or None for any age")
    return int(seconds * 1e9)
