"""``memory://``: L1 alone. A bounded mapping with expiry and a loader, and any hashable for a key."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from ..._store import Op, own_get
from ...absence import ABSENT, Absent, Failure
from ...answers import DEFAULT, UNCHANGED, Loaded, opened, with_single
from ...changes import MISSING
from ...choices import Idle, Seconds, timeout_to_s
from ...clocks import NEVER_NS, NS_PER_MS, monotonic_ns
from ...coherence.derived import Derived
from ...coherence.token import pack_token, parse_token
from ...coroutines import carried
from ...errors import ConfigError
from ...flights import ABANDONED, Load, Loads, renewal_of, young_of
from ...forks import tell_of_forks
from ...freshness import Life, Ttl, freshness_of, ttl_for
from ...options import MOST_TAGS, Settings, check_tags, parse, tags_told
from ..base import K, Lifetime, V, closed, refuse_coroutines, store_options
from ..holding import Hold, hold_to_ms, linger_to_ms, several
from ..mappings import pairs_of
from ..report import CoherenceStats, Health, L2Stats, SelfTest, Stats, l1_stats, loader_stats
from .answering import AnsweringCache
from .base import Under
from .copying import CopyingCache
from .exchanging import IDENTITY, deadline_ns
from .gathering import gathering, in_this_thread

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ...keywords import Options
    from ..aio import AsyncCache

#: Sets of tags that are told apart; beyond them, some values go along with others'.
_DERIVED: Final = 1023


@dataclass(slots=True)
class _Wanted:
    """What a load is carried out with."""

    key: Any
    name: Any
    ttl_ms: Ttl
    labels: Any
    begun_ns: int = 0
    changes: object = None
    under: Under | None = None
    limit_ns: int | None = None
    shown: Loaded[Any] | None = None
    is_conditional: bool = False
    is_renewal: bool = False  # unasked, in the background, of a value that is there
    inherited: tuple[str, ...] = ()  # the tags of that

    @property
    def names(self) -> tuple[str, ...]:
        """The tags that it was asked for with, as far as they are known before the load."""
        return () if callable(self.labels) else self.labels

    def told(self, error: Exception) -> Exception | None:
        """Return what those are told who have come to wait for a load that raised this; None: they try for themselves.

        To what nobody has asked for "no value" means less: the old one stays.
        """
        return None if self.is_renewal else error


@own_get
class MemoryCache(AnsweringCache[K, V], CopyingCache[K, V]):
    """A cache of one process. Writing, reading and deleting are the store's own, in compiled code.

    Args:
        url: ``memory://`` with options, or nothing.
        options: ``maxsize``, ``maxbytes``, ``getsizeof``, ``policy``, ``ttl``, ``loader``, ``key``, ``on_removal``.
    Raises:
        ConfigError: An option is unknown or out of range.

    It can be copied (:meth:`copy`, ``copy.copy``, ``copy.deepcopy``) and pickled: settings, valid entries with the rest
    of their time, and attributes of subclasses; not counters, nor loads under way. ``__init__`` is not called again.
    """

    _takes_idle = False

    def __init__(self, url: str = "memory://", /, **options: Unpack[Options]) -> None:
        settings = parse(url, **options)
        if settings.scheme != "memory":
            raise ConfigError("url", url, "a MemoryCache is memory://; use nearcache.open for the others")
        if type(self)._keep is MemoryCache._keep and is_aging(settings):
            raise ConfigError(
                "url",
                url,
                "with options about age or absence, or an Idle or a function as ttl, open it by nearcache.open",
            )
        self._begin(settings)

    def _begin(self, settings: Settings) -> None:
        self.settings: Settings = with_single(settings)
        settings = self.settings
        self._begin_removals()
        super().__init__(
            settings.maxsize,
            lanes=1 + _DERIVED,
            ttl_ns=round(settings.ttl * 1e9) if isinstance(settings.ttl, (int, float)) else 0,
            getsizeof=settings.getsizeof,
            **self._store_options(settings),
        )
        self.lane_vouch(0, NEVER_NS)
        self.lane_attach(0, IDENTITY)
        self._derived = Derived(1, _DERIVED)
        self._derived.vouched(self, 0, NEVER_NS)
        self._tag_changes = object()
        self._freshness = freshness_of(settings)
        self._counted = Counter[str]()
        self._begin_exchanges()
        self._begin_alone()
        self._closed = False
        tell_of_forks(self, lambda cache: cache._after_fork())

    def _store_options(self, settings: Settings) -> dict[str, Any]:
        return store_options(settings, self._on_removal)

    def _begin_alone(self) -> None:
        """Nobody is loading anything."""
        self._loads = Loads()
        self._counting = threading.RLock()
        self._renewing: dict[Any, object] = {}

    def _after_fork(self) -> None:
        """In the child: what other threads had begun goes on in the parent only."""
        self.l1_reset_pending()
        self._derived.after_fork()
        self._free_exchanges()
        self._begin_alone()

    # -- hooks of the store

    def _missing(self, key: K) -> V:
        if self._closed:
            raise closed(repr(self))
        if self.settings.loader is None:
            raise KeyError(key)
        loader = self.settings.loader
        return cast("V", self._loaded(key, None, self._load, key, loader, DEFAULT))

    def _flights(self) -> Loads:
        self._use()
        return self._loads

    def _landed(self, key: Any, value: Any) -> V:
        return self._present(key, value)

    def _load(self, key: K, loader: Callable[[K], V], ttl: Lifetime, tags: Any = DEFAULT) -> V:
        self._use()
        refuse_coroutines(loader)
        wanted = self._wanted(key, ttl, tags)
        old = self._old_value(wanted, loader)
        if old is MISSING:
            return self._carry_out(Load(wanted.name), wanted, loader)
        return self._present(key, old)

    def _old_value(self, wanted: _Wanted, loader: Any) -> Any:  # noqa: ARG002  what is over is gone
        return MISSING

    def _begin_renewal(self, name: Any) -> bool:  # noqa: ARG002  nothing is loaded anew in the background
        return False

    def _renewal(self, wanted: _Wanted) -> AbstractContextManager[None]:
        raise NotImplementedError

    def _refresh(self, key: K, loader: Callable[[K], V], ttl: Lifetime, tags: Any) -> V:
        self._use()
        refuse_coroutines(loader)
        wanted = self._wanted(key, ttl, tags)
        return self._carry_out(Load(renewal_of(wanted.name)), wanted, loader)

    def _load_young(self, key: K, loader: Callable[[K], V], ttl: Lifetime, tags: Any, limit_ns: int) -> V:
        self._use()
        refuse_coroutines(loader)
        wanted = self._wanted(key, ttl, tags, limit_ns)
        return self._carry_out(Load(young_of(wanted.name, limit_ns)), wanted, loader)

    def _gather(
        self, keys: list[K], load_many: Callable[[list[K]], Any], ttl: Lifetime, tags: Any, limit_ns: int | None
    ) -> dict[K, V]:
        self._use()
        steps = gathering(self, keys, load_many, ttl, tags, limit_ns)
        return cast("dict[K, V]", in_this_thread(self, steps, load_many))

    def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:  # noqa: ARG002  there is no other tier
        self._use()
        return {}

    def _hit_young(self, key: K, limit_ns: int) -> Any:  # noqa: ARG002  for the subclass
        raise ConfigError("max_age", limit_ns / 1e9, "this memory:// cache keeps no ages: open it with ages=True")

    def _carry_out(self, mine: Load, wanted: _Wanted, loader: Callable[[K], V]) -> V:
        try:
            while (flight := self._loads.begin(mine)) is not mine:
                value = self._loads.wait(flight)
                if value is not ABANDONED:
                    return self._present(wanted.key, value)
            op = self._begin_load(mine, wanted)
            if op is not None:
                self._count(loads=1)
                try:
                    self._finish_load(mine, op, wanted, self._call(loader, mine, wanted))
                except BaseException:
                    self._fail_load(op)
                    raise
        except Exception as error:
            mine.error = wanted.told(error)
            raise
        finally:
            try:
                self._loads.end(mine)
            finally:  # an interrupt in the middle of it must not leave others waiting
                self._loads.end(mine)
        return self._present(wanted.key, mine.value)

    def _call(self, loader: Callable[[Any], Any], mine: Load, wanted: _Wanted) -> Any:
        try:
            return carried(self._shown(loader, mine, wanted), wanted.key)
        except Exception as error:  # noqa: BLE001  it is raised again, if it is not kept
            return self._failed(error, mine, wanted)

    # What is written or deleted during a load is newer, and stays as it is.

    def _wanted(self, key: K, ttl: Lifetime, tags: Any, limit_ns: int | None = None) -> _Wanted:
        """Check what a load was asked for with."""
        name, labels = self._name(key), self._labels(tags)
        return _Wanted(key, name, self._ttl(ttl, 0), labels, limit_ns=limit_ns)

    def _begin_load(self, mine: Load, wanted: _Wanted) -> Op | None:
        """Register a load; None, with the value in ``mine``, if somebody was quicker."""
        found: Any = MISSING
        if wanted.limit_ns is not None:
            found = self._hit_young(wanted.key, wanted.limit_ns)
        elif mine.key is wanted.name:  # else whatever is there is to be loaded anew
            found = self.peek(wanted.key, MISSING)
        if found is not MISSING:
            mine.value = found
            return None
        wanted.changes = self._tag_changes
        wanted.under = self._depend((*wanted.inherited, *wanted.names))
        op = self._operation(wanted.name)
        self.l1_open(op)
        wanted.begun_ns = monotonic_ns()
        return op

    def _finish_load(self, mine: Load, op: Op, wanted: _Wanted, answer: Any) -> None:
        if isinstance(answer, Absent):
            if answer is ABSENT and (wanted.is_renewal or not self._freshness.negative_ms):
                raise KeyError(wanted.key)
            mine.value = answer
            known = self._freshness
            life = known.failure(answer.error()) if isinstance(answer, Failure) else known.absence()
            with self._later:
                self._settle(op, cast("V", answer), life, 0, 0, None)
            return
        if answer is UNCHANGED and wanted.shown is not None:
            answer = wanted.shown
            self._count(unchanged=1)
        loaded = opened(answer)
        value = loaded.value
        cost_ms = (monotonic_ns() - wanted.begun_ns) // NS_PER_MS + 1
        told = (*tags_told(wanted.labels, wanted.key, value), *loaded.tags)
        under = wanted.under
        if told:
            check_tags({*wanted.names, *told})
            under = self._depend((*wanted.inherited, *wanted.names, *told))
        size = self.l1_measure(value)
        mine.value = value
        if wanted.limit_ns is not None:  # who asks from now on may find it stored longer ago
            self._loads.close(mine)
        if told and wanted.changes is not self._tag_changes:  # perhaps of a tag that nobody knew it would have
            self.l1_abandon(op, drop=False)
            return
        if under is not None and len(under.tags) > MOST_TAGS:
            self._remove_old(op, wanted.key)
            return
        ttl = wanted.ttl_ms if loaded.ttl is DEFAULT else self._ttl(loaded.ttl, 0)
        life = self._freshness.life(ttl_for(ttl, wanted.key, value))
        existed = self._hub is not None and self._whole(wanted.key, wanted.name) is not MISSING
        with self._later, self._telling("loaded", existed=existed):
            is_kept = self._settle(op, value, life, cost_ms, size, under)
        if is_kept and (loaded.validator is not None or (wanted.is_conditional and isinstance(answer, Loaded))):
            self._remember(op, loaded, life.ttl_ms)

    def _remove_old(self, op: Op, key: K) -> None:
        """Remove the value that a load was to replace, and cannot, unless something has been written meanwhile."""
        with self._later, self._changing:
            if self._may_keep(op):
                self.l1_erase(key)
            self.l1_abandon(op, drop=False)

    def _operation(self, name: Any) -> Op:
        return Op(name, 0, wid=next(self._wids), write=True)

    def _settle(self, op: Op, value: V, life: Life, cost_ms: int, size: int, under: Under | None) -> bool:
        """Store what a load has brought. Returns whether it is kept: nothing has been written meanwhile."""
        with self._changing:  # to the store two writes that it knows by their ids would speak against one another
            is_current = under is None or self.lane_stamp(under.lane) == under.stamp  # no tag has changed meanwhile
            if is_current and self._may_keep(op):
                return self._keep(op, value, life, cost_ms, size, under)
            self.l1_abandon(op, drop=False)
        return False

    def _may_keep(self, op: Op) -> bool:
        return op.storable

    def _keep(self, op: Op, value: V, life: Life, cost_ms: int, size: int, under: Under | None) -> bool:  # noqa: ARG002
        return self.l1_finish(op, value, op.wid, deadline_ns(life.ttl_ms), size, IDENTITY, under)

    def _fail_load(self, op: Op) -> None:
        self.l1_abandon(op, drop=False)
        self._count(load_errors=1)

    def _put(self, key: K, value: V, ttl_ms: int, tags: Sequence[str]) -> None:
        life = self._freshness.life(ttl_ms)
        op = self._operation(self._name(key))
        size = self._fitting_size_of(key, value)
        existed = self._hub is not None and self._whole(key, op.key) is not MISSING
        # Under the lock no verb is between looking and storing.
        with self._later, self._changing, self._telling("stored", existed=existed):
            self.l1_open(op)
            self._keep(op, value, life, 0, size, self._depend(tags))

    def _ttl(self, ttl: Any, endless_ms: int) -> Ttl:
        chosen = super()._ttl(ttl, endless_ms)
        if self._takes_idle:
            return chosen
        if callable(chosen):
            return lambda key, value: _lasting(chosen(key, value))
        return _lasting(chosen)

    # -- writing

    def set(self, key: K, value: V, *, ttl: Lifetime = DEFAULT, tags: Sequence[str] = ()) -> None:
        """Store a value. See :meth:`Cache.set`."""
        self._use()
        self._set_for(key, value, ttl_for(self._ttl(ttl, 0), key, value), check_tags(tags) if tags else ())

    def _set_for(self, key: K, value: V, ttl_ms: int, tags: Sequence[str]) -> None:
        if tags:
            self._put(key, value, ttl_ms, tags)
        else:
            self.l1_put(key, value, ttl_ns=ttl_ms * NS_PER_MS)

    def invalidate(self, key: K) -> bool:
        """Remove a key. Returns whether it was there."""
        self._use()
        return self.l1_erase(key)

    def _remove(self, key: Any) -> bool:
        return self.invalidate(key)

    def _remove_held(self, name: Any) -> None:
        """It has been removed from this store already."""

    def _set_unwritten(self, key: Any, value: Any, **options: Any) -> None:
        self.set(key, value, **options)

    def set_many(
        self,
        values: Mapping[K, V] | Iterable[tuple[K, V]],
        *,
        ttl: Lifetime = DEFAULT,
        tags: Sequence[str] = (),
    ) -> None:
        """Store many values, or, if one of them is refused, none."""
        self._use()
        wanted, chosen, labels = dict(pairs_of(values)), self._ttl(ttl, 0), check_tags(tags)
        lives = [ttl_for(chosen, key, value) for key, value in wanted.items()]
        for key, value in wanted.items():
            self._fitting_size_of(key, value)
            hash(self._name(key))
        for (key, value), ttl_ms in zip(wanted.items(), lives, strict=True):
            self._set_for(key, value, ttl_ms, labels)

    def delete_many(self, keys: Iterable[K]) -> None:
        """Remove many keys."""
        for key in several("delete_many", keys):
            self.invalidate(key)

    def clear(self) -> None:
        """Remove everything."""
        self._use()
        self.drop_all(invalidated=True)

    def invalidate_tag(self, tag: str) -> None:
        """Remove every value that has this tag. See :meth:`Cache.invalidate_tag`."""
        self._use()
        (name,) = check_tags([tag])
        self._tag_changes = object()  # no number: two threads at once could bring an old one back
        self._derived.changed(self, name.encode("utf-8", "surrogatepass"))

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> Hold:
        """Return a context in which the data behind these keys can be changed safely. See :meth:`Cache.hold`.

        What is loaded or stored meanwhile goes at its end, or once more after ``linger``.
        """
        hold_to_ms(seconds)
        held, linger_ms = several("hold", keys), linger_to_ms(linger)

        def end(_token: bytes) -> None:
            self.delete_many(held)
            if linger_ms:
                again = threading.Timer(linger_ms / 1000, lambda: [self.l1_erase(key) for key in held])
                again.daemon = True
                again.start()

        return Hold(lambda _token: self.delete_many(held), end)

    def token(self) -> str:
        """Return a token. There are no other processes, so it says nothing."""
        self._use()
        return pack_token({})

    def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        """There is nothing to wait for."""
        self._use()
        parse_token(token)
        timeout_to_s(timeout)

    # -- observation and life

    def stats(self) -> Stats:
        """Return what was counted since the cache was opened; zeros for the tiers that it does not have."""
        return Stats(
            l1=l1_stats(self.l1_counters(), self.settings.maxsize, self.settings.maxbytes),
            l2=L2Stats(*[0] * len(L2Stats.__slots__)),
            loader=loader_stats(self._counted, len(self._loads)),
            coherence=CoherenceStats(),
        )

    def health(self) -> Health:
        """There is nothing that could be ill, while it is open."""
        return Health(closed=self._closed)

    def selftest(self, timeout: Seconds = 2.0) -> SelfTest:
        """There is nothing to test."""
        timeout_to_s(timeout)
        return SelfTest()

    def close(self) -> None:
        """Let go of everything held. Idempotent."""
        self._closed = True
        name = repr(self)

        def refuse(_key: Any) -> Any:
            raise closed(name)

        self.l1_refuse(refuse)  # no look at ``_closed`` lies on the way of a hit, nor of an assignment
        if self._hub is not None:
            self._hub.close()
        self.drop_all()

    def _async_view(self) -> AsyncCache[K, V]:
        from ..aio.memory import AsyncMemoryCache

        self._use()
        return AsyncMemoryCache(self)


def _lasting(ttl_ms: int) -> int:
    """Return a lifetime that is no idle time."""
    if ttl_ms < 0:
        remedy = "open the memory:// cache with ttl=nearcache.Idle(...), and give values that differ a ttl of their own"
        raise ConfigError("ttl", Idle(-ttl_ms / 1000), remedy)
    return ttl_ms


def is_aging(settings: Settings) -> bool:
    """Whether what the compiled store knows of lifetimes is not enough."""
    is_plain = freshness_of(settings).is_plain and not settings.ages
    return callable(settings.ttl) or isinstance(settings.ttl, Idle) or not is_plain
