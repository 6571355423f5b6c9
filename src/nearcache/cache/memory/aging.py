"""``memory://`` whose values grow old, or have lifetimes that are not all alike, or whose absence is kept.

The compiled store knows one end of an entry. Here it is the soft one; a second store keeps the same values until their
hard end, and gives them out when the first has nothing any more::

    first   [ young ]      bounded; hits know nothing of the second
                |  its soft end: the name has lapsed
    old     [ twins of the young | lapsed ]      bounded by those two
                                     |
    lapsed                       [ names ]       bounded as the first is, the one read last goes last

So the first store decides who makes room while a value is young, and the names that have lapsed do so afterwards. What
they give up goes from the second store. Whoever has a value alone says when it goes: the first store of what is young,
the second of what has lapsed.

A signal's handler that raises may interrupt that, and then the second store has a value that neither of the others
knows of. It is a valid one, and may be served; a bound above what the others can need makes it go in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ..._listeners import WeakListener, tell_listener
from ..._store import Op, Store, own_get
from ...absence import ABSENT, Absent, Failure, Unkept
from ...answers import DEFAULT, is_coroutine_loader
from ...changes import MISSING
from ...clocks import NEVER_NS, monotonic_ns
from ...errors import ValueTooLargeError
from ...flights import Load, renewal_of
from ...freshness import Life
from ...options import RemovalCause, Settings
from ...workers import Workers
from ..base import K, Lifetime, V
from ..events.listening import MemoryHub
from .base import Under
from .cache import MemoryCache
from .copying import remaining, restore
from .exchanging import IDENTITY, Terms, deadline_ns

#: Causes of which a value goes without another one in its place.
_GOING: Final = frozenset({"expired", "evicted", "invalidated", "dropped"})
#: Those of them that are nobody's doing, who would see to the rest.
_GOING_BY_ITSELF: Final = frozenset({"expired", "evicted"})


@own_get
class AgingMemoryCache(MemoryCache[K, V]):
    """A cache of one process, with ``soft_ttl``, ``beta``, ``jitter``, ``negative_ttl``, ``error_ttl``, ``ages`` or a
    function for ``ttl``.

    Args:
        url, options: As for :class:`MemoryCache`.

    Cost: hits are those of any cache; a write runs Python code, and so does a removal, that of each entry by ``clear``
    too. An entry takes twice the place, and old values have ``maxsize`` and ``maxbytes`` for themselves once more.
    """

    def _begin(self, settings: Settings) -> None:
        self._old: Store[Any, V] = Store(
            _ample(settings.maxsize), maxbytes=_ample(settings.maxbytes), listener=WeakListener(self._old_told)
        )
        self._old.lane_attach(0, IDENTITY)
        self._lapsed: Store[Any, V] = Store(
            settings.maxsize, maxbytes=settings.maxbytes, listener=WeakListener(self._lapsed_told)
        )
        self._resting: Store[Any, bool] = Store(settings.maxsize)  # names whose loader has just failed
        for store in (self._old, self._lapsed, self._resting):
            store.lane_vouch(0, NEVER_NS)
        self._births: dict[Any, int] = {}
        self._tagged: dict[Any, tuple[str, ...]] = {}  # by name: the second store does not know them
        super()._begin(settings)

    def _store_options(self, settings: Settings) -> dict[str, Any]:
        return super()._store_options(settings) | {"listener": WeakListener(self._young_told)}

    def _begin_alone(self) -> None:
        super()._begin_alone()
        self._workers = Workers(self.settings.namespace)

    def _after_fork(self) -> None:
        super()._after_fork()
        for store in (self._old, self._lapsed, self._resting):
            store.l1_reset_pending()

    # -- what has gone

    def _begin_telling(self, hub: MemoryHub) -> None:  # noqa: ARG002  it is told by _say, of both stores
        self.l1_tell(WeakListener(self._young_told), stored=True)

    def _young_told(self, name: Any, value: Any, cause: Any) -> None:
        """The first store says that an entry has come or gone."""
        if cause not in _GOING or not self._has_grown_old(name, value, cause):
            self._say(name, value, cause)

    def _has_grown_old(self, name: Any, value: Any, cause: Any) -> bool:
        """See to what the second store has of a name that the first has no more; return whether that is the value.

        By now it may be another one, which another thread has stored, and of which the first store will say the same.
        Or a verb has put the very value back, which it has found just before it went: then that has not gone.
        """
        with self._later, self._changing:
            old = self._old.peek(name, MISSING)
            is_old = cause == "expired" and old is value
            there = self.l1_peek(name, MISSING)
            if there is not MISSING:
                return is_old or there is value  # it was read, or stored anew
            if is_old:
                return self._lapse(name, value)
            if old is MISSING or old is value:
                self._old.drop(name)
                self._let_go(name)
        return False

    def _old_told(self, name: Any, value: Any, cause: Any) -> None:
        """The second store says that an entry has gone."""
        with self._later, self._changing:
            if self._old.peek(name, MISSING) is value:  # it is back, as in the first store
                return
            was_lapsed = self._lapsed.peek(name, MISSING) is value
            if was_lapsed:
                self._unlapse(name, cause)
            if cause in _GOING_BY_ITSELF or (was_lapsed and cause != "replaced"):
                self._forget(name)

    def _lapsed_told(self, name: Any, value: Any, cause: Any) -> None:
        """A name has gone from those of old values."""
        if cause == "evicted":
            self._old.drop(name)
            self._forget(name)
            self._say(name, value, cause)

    def _say(self, name: Any, value: Any, cause: Any) -> None:
        teller = self._on_removal if self._hub is None else self._hub.told
        if teller is not None and not isinstance(value, Absent):
            tell_listener(teller, name, value, cause)

    def _reclaim(self, name: Any) -> None:
        """Let go of what is over before there is a change: of a soft end the first store would say that all is."""
        self.l1_reclaim(name)
        self._old.l1_reclaim(name)

    def _lapse(self, name: Any, value: Any) -> bool:
        """Only the second store has it from now on. Returns whether it is of a size to be kept."""
        try:
            self._lapsed.l1_put(name, value, size=0 if isinstance(value, Absent) else self.l1_measure(value))
        except ValueTooLargeError:
            self._old.drop(name)
            return False
        return True

    def _unlapse(self, name: Any, cause: RemovalCause) -> None:
        """Say of a value that only the second store had that it has gone: who takes the name away does so."""
        value = self._lapsed.peek(name, ABSENT)
        if self._lapsed.drop(name):
            self._say(name, value, cause)

    def _forget(self, name: Any) -> None:
        """Let go of what is noted of a name, if there is no value any more."""
        with self._changing:
            if self.l1_terms(name) is None and self._old.l1_terms(name) is None:
                self._let_go(name)

    def _let_go(self, name: Any) -> None:
        self._births.pop(name, None)
        self._tagged.pop(name, None)
        self._resting.drop(name)
        if self._answers is not None:
            self._answers.drop(name)

    # -- reading: what the first store does not hold

    def _missing_get(self, key: K, default: Any) -> Any:
        self._use()
        old = self._found_old(key)
        return default if old is MISSING or isinstance(old, Absent) else old

    def _missing_in(self, key: object) -> bool:
        old = self._old.peek(self._name(key), MISSING)
        return old is not MISSING and not isinstance(old, Absent)

    def _missing(self, key: K) -> V:
        if self.settings.loader is None:
            old: V = self._missing_get(key, MISSING)
            if old is not MISSING:
                return old
        return super()._missing(key)

    def _held_many(self, keys: list[K], limit_ns: int | None) -> dict[K, V]:
        found = super()._held_many(keys, limit_ns)
        for key in keys if limit_ns is None else ():  # else both stores have been asked
            if (old := self._missing_get(key, MISSING)) is not MISSING:
                found[key] = old
        return found

    def _hit_young(self, key: K, limit_ns: int) -> Any:
        if not self.settings.ages:
            return super()._hit_young(key, limit_ns)
        name = self._name(key)
        born_ns = self._births.get(name)
        if born_ns is None or born_ns < monotonic_ns() - limit_ns:
            return MISSING
        found = self.l1_hit(key, MISSING)
        if found is MISSING:
            found = self._old.l1_hit(name, MISSING)
        return MISSING if isinstance(found, Absent) else found

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        name = self._name(key)
        born_ns = self._births.get(name)
        touched = super()._touch(key, ttl, whole=whole)
        if born_ns is not None:
            self._births[name] = born_ns  # it is as old as it was
            self._forget(name)
        return touched

    def _same_terms(self, op: Op, old: Any, new: Any, version: int) -> Terms:
        """As there. What is made of a value lives as long as that would have, and not only until its soft end."""
        same, whole = super()._same_terms(op, old, new, version), self._old.l1_terms(op.key)
        return same if whole is None else same._replace(until_ns=max(same.until_ns, whole[0]))

    def _put_changed(self, op: Op, old: Any, new: Any, size: int, chosen: Terms) -> bool:
        is_done = super()._put_changed(op, old, new, size, chosen)
        if is_done and self.settings.ages:
            self._births[op.key] = monotonic_ns()
        self._forget(op.key)
        return is_done

    def _put_silently(self, op: Op, new: Any, size: int, chosen: Terms) -> bool:
        was_lapsed = op.key in self._lapsed
        is_done = super()._put_silently(op, new, size, chosen)
        if is_done and chosen.store is self._old and was_lapsed:
            self._lapse(op.key, new)
        return is_done

    def remaining_ns(self, key: Any) -> int | None:
        """Nanoseconds for which a value is served: until its hard end. See :meth:`Store.remaining_ns`."""
        old = self._old.peek(key, MISSING)
        if isinstance(old, Absent):
            raise KeyError(key)
        return super().remaining_ns(key) if old is MISSING else self._old.remaining_ns(key)

    def _found_old(self, key: Any) -> Any:
        loader = self.settings.loader
        if loader is None:
            return self._read_old(self._name(key))
        return self._old_value(self._wanted(key, DEFAULT, DEFAULT), loader)

    def _read_old(self, name: Any) -> Any:
        self._lapsed.l1_hit(name, None)  # who reads it keeps it
        return self._old.get(name, MISSING)

    def _old_value(self, wanted: Any, loader: Any) -> Any:
        old = self._read_old(wanted.name)
        if old is MISSING or isinstance(old, Absent):
            return old
        if not is_coroutine_loader(loader) and self._begin_renewal(wanted.name):
            taken = self._workers.submit(lambda: self._renew(wanted, loader), wanted.key)
            if not taken:
                self._renewing.pop(wanted.name, None)
        return old

    # -- loading anew

    def _begin_renewal(self, name: Any) -> bool:
        if name in self._resting:
            return False
        mine = object()
        return self._renewing.setdefault(name, mine) is mine  # no lock: comparing names may run any code

    def _renew(self, wanted: Any, loader: Callable[[Any], V]) -> None:
        with self._renewal(wanted):
            self._carry_out(Load(renewal_of(wanted.name)), wanted, loader)

    @contextmanager
    def _renewal(self, wanted: Any) -> Iterator[None]:
        """What :meth:`_begin_renewal` has begun. If it fails, none begins for the time of a lease, as on Redis."""
        wanted.is_renewal = True
        try:
            yield
        except (Exception, Unkept):
            self._resting.l1_put(wanted.name, True, round(self.settings.lease * 1e9))
            raise
        finally:
            self._renewing.pop(wanted.name, None)

    def _begin_load(self, mine: Load, wanted: Any) -> Op | None:
        if not wanted.is_renewal:
            return super()._begin_load(mine, wanted)
        with self._later, self._changing:  # what is stored from now on speaks against it, whatever its tags are
            wanted.inherited = self._tagged.get(wanted.name, ())
            return super()._begin_load(mine, wanted)

    # -- writing: in both stores

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def _set_for(self, key: K, value: V, ttl_ms: int, tags: Sequence[str]) -> None:
        self._put(key, value, ttl_ms, tags)

    def invalidate_tag(self, tag: str) -> None:
        """Remove every value that has this tag, and all that is old. See :meth:`Cache.invalidate_tag`."""
        with self._later, self._changing:
            super().invalidate_tag(tag)
            self._old.drop_all(invalidated=True)

    def __delitem__(self, key: K) -> None:
        if not self.l1_erase(key):
            raise KeyError(key)

    def l1_erase(self, key: K) -> bool:
        """Remove a key. Returns whether it was there."""
        name = self._name(key)
        with self._later, self._changing:  # nothing is stored in one and not in the other
            self._reclaim(name)
            was_value = self._missing_in(key)  # and not the answer that there is none
            self._old.l1_erase(name)
            return super().l1_erase(key) or was_value

    def _remove_held(self, name: Any) -> None:
        self._old.l1_erase(name)

    def drop(self, key: K) -> bool:
        """Remove a value, old or not. Returns whether there was one; there are no other processes."""
        name = self._name(key)
        with self._later, self._changing:
            self._reclaim(name)
            was_value = self._missing_in(key)
            self._old.drop(name)
            return super().drop(key) or was_value

    def drop_all(self, *, invalidated: bool = False) -> int:
        """Remove everything. Returns how many entries there were that were not old."""
        with self._later, self._changing:
            self._expire(None)
            self._old.drop_all(invalidated=invalidated)
            return super().drop_all(invalidated=invalidated)

    def _expire(self, now_ns: int | None) -> list[tuple[K, V]]:
        """What is merely old is there all the same: a value has gone when neither store has it."""
        left = dict(super()._expire(now_ns))
        for name, value in self._old.expire(now_ns):
            left.pop(name, None)
            if not isinstance(value, Absent):
                left[name] = value
        return [(name, value) for name, value in left.items() if name not in self._old]

    def close(self) -> None:
        """Let go of everything held. Idempotent."""
        self._workers.close()
        super().close()

    # -- copies: what is old, or will be, has the rest of its time there, too

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``copy`` and ``pickle`` take along."""
        now_ns = monotonic_ns()
        old = [each for each in remaining(self._old) if not isinstance(each[1], Absent)]
        ages = {name: now_ns - born_ns for name, born_ns in list(self._births.items())}
        return super().__getstate__() | {"old": old, "ages": ages, "tagged": dict(self._tagged)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the cache that ``__getstate__`` has described."""
        super().__setstate__(state)
        for name, value, left_ns in state["old"]:
            restore(self._old, name, value, left_ns, self.l1_measure(value))
            if self.l1_terms(name) is None:
                self._lapse(name, value)
        for name, age_ns in state["ages"].items():
            self._births[name] = monotonic_ns() - age_ns
        self._tagged.update(state["tagged"])

    # -- the verbs: what is old is there all the same, until something else is stored

    def _holder(self, name: Any) -> Store[Any, Any]:
        return self if self.l1_terms(name) is not None else self._old

    def _whole(self, key: Any, name: Any) -> Any:
        value = self.peek(key, MISSING)
        if value is MISSING:
            self._reclaim(name)
            value = self._old.peek(name, ABSENT)
        return MISSING if isinstance(value, Absent) else value

    def _outdate(self, name: Any, cause: RemovalCause) -> None:
        self._unlapse(name, cause)
        self._old.l1_erase(name)

    def _may_keep(self, op: Op) -> bool:
        return super()._may_keep(op) and self._old.l1_wid(op.key) < op.wid

    def _keep(self, op: Op, value: V, life: Life, cost_ms: int, size: int, under: Under | None) -> bool:
        name = op.key
        self._reclaim(name)
        if isinstance(value, Absent):
            self._outdate(name, "invalidated")
            kept: Any = value.remembered() if isinstance(value, Failure) else value
            if self._keep_old(name, kept, op.wid, life.ttl_ms, size):
                self._lapse(name, kept)
            return self.l1_finish(op, None, 0, 0)
        due_ms = self._freshness.due_ms(life.soft_ms or life.ttl_ms, cost_ms) if life.ttl_ms else 0
        if due_ms != life.ttl_ms:
            self._keep_old(name, value, op.wid, life.ttl_ms, size)
            self._unlapse(name, "expired")  # what the second store has let go, and another thread is about to say
            life = Life(max(1, due_ms))
        else:
            self._outdate(name, "replaced")
        is_kept = super()._keep(op, value, life, cost_ms, size, under)
        if not is_kept and self._old.peek(name, MISSING) is value:  # it was not to be young for as long as a tick
            is_kept = self._lapse(name, value)
        if is_kept and self.settings.ages:
            self._births[name] = monotonic_ns()
        if under is None:
            self._tagged.pop(name, None)
        elif is_kept:
            self._tagged[name] = under.tags
        if not is_kept:
            self._forget(name)
        return is_kept

    def _keep_old(self, name: Any, value: Any, wid: int, ttl_ms: int, size: int) -> bool:
        twin = Op(name, 0, wid=wid, write=True)
        self._old.l1_open(twin)
        return self._old.l1_finish(twin, value, wid, deadline_ns(ttl_ms), size, IDENTITY)


def _ample(bound: int | None) -> int | None:
    """For the young, the lapsed, and what is about to be one of them while another still is."""
    return None if bound is None else 3 * bound
