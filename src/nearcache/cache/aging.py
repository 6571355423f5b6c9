"""``memory://`` whose values grow old, or have lifetimes that are not all alike, or whose absence is kept.

The compiled store knows one end of an entry. Here it is the soft one; a second store keeps the same values until their
hard end, and gives them out when the first has nothing any more. Both go through the same operations, so that what is
written or removed during a load is newer in both.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from .._store import Op, Store
from ..absence import ABSENT, Absent, Failure
from ..answers import is_coroutine_loader
from ..changes import MISSING
from ..clocks import NEVER_NS, monotonic_ns
from ..flights import Load, renewal_of
from ..freshness import Life
from ..options import Settings
from ..workers import Workers
from .base import DEFAULT, K, Lifetime, V
from .copying import remaining, restore
from .exchanging import NOTHING, deadline_ns
from .listening import MemoryHub
from .memory import MemoryCache

_IDENTITY: Final = 1


class _Twins(Op):
    """An operation on both stores."""

    __slots__ = ("other",)

    def __init__(self, name: Any, wid: int) -> None:
        super().__init__(name, 0, wid=wid, write=True)
        self.other = Op(name, 0, wid=wid, write=True)


class AgingMemoryCache(MemoryCache[K, V]):
    """A cache of one process, with ``soft_ttl``, ``beta``, ``jitter``, ``negative_ttl``, ``error_ttl``, ``ages`` or a
    function for ``ttl``.

    Args:
        url, options: As for :class:`MemoryCache`.

    Cost: hits are those of any cache; a write runs Python code, and an entry takes twice the place.
    """

    def _begin(self, settings: Settings) -> None:
        self._old: Store[Any, V] = Store(settings.maxsize, maxbytes=settings.maxbytes)
        self._old.lane_vouch(0, NEVER_NS)
        self._old.lane_attach(0, _IDENTITY)
        self._births: Store[Any, int] = Store(settings.maxsize)
        self._births.lane_vouch(0, NEVER_NS)
        self._resting: Store[Any, bool] = Store(settings.maxsize)  # names whose loader has just failed
        self._resting.lane_vouch(0, NEVER_NS)
        super()._begin(settings)

    def _begin_alone(self) -> None:
        super()._begin_alone()
        self._workers = Workers()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._old.reset_pending()
        self._births.reset_pending()
        self._resting.reset_pending()

    def _begin_telling(self, hub: MemoryHub) -> None:
        super()._begin_telling(hub)

        def twin_told(name: Any, value: Any, cause: Any) -> None:
            hub.twin_told(name, value, cause, is_there=first.terms(name) is not None)

        first = weakref.proxy(self)
        self._old.tell(twin_told)

    # -- reading: what the first store does not hold

    def _missing_get(self, key: K, default: Any) -> Any:
        self._use()
        old = self._found_old(key)
        return default if old is NOTHING or isinstance(old, Absent) else old

    def _missing_in(self, key: object) -> bool:
        old = self._old.peek(self._held(key), NOTHING)
        return old is not NOTHING and not isinstance(old, Absent)

    def _missing(self, key: K) -> V:
        if self.settings.loader is None:
            old: V = self._missing_get(key, NOTHING)
            if old is not NOTHING:
                return old
        return super()._missing(key)

    def _held_many(self, keys: Iterable[K], limit_ns: int | None) -> dict[K, V]:
        wanted = list(keys)
        found = super()._held_many(wanted, limit_ns)
        for key in wanted if limit_ns is None else ():
            if key not in found and (old := self._missing_get(key, NOTHING)) is not NOTHING:
                found[key] = old
        return found

    def _hit_young(self, key: K, limit_ns: int) -> Any:
        if not self.settings.ages:
            return super()._hit_young(key, limit_ns)
        name = self._held(key)
        born_ns = self._births.hit(name, None)
        if born_ns is None or born_ns < monotonic_ns() - limit_ns:
            return DEFAULT
        found = self.hit(key, DEFAULT)
        if found is DEFAULT:
            found = self._old.hit(name, DEFAULT)
        return DEFAULT if isinstance(found, Absent) else found

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:
        name = self._held(key)
        born_ns = self._births.hit(name, None)
        touched = super()._touch(key, ttl, whole=whole)
        if born_ns is not None:
            self._births[name] = born_ns  # it is as old as it was
        return touched

    def _put_changed(self, op: Op, old: Any, new: Any, size: int, chosen: Any) -> None:
        super()._put_changed(op, old, new, size, chosen)
        if self.settings.ages:
            self._births[op.key] = monotonic_ns()

    def _found_old(self, key: Any) -> Any:
        loader = self.settings.loader
        if loader is None:
            return self._old.get(self._held(key), NOTHING)
        return self._old_value(self._terms(key, DEFAULT, DEFAULT), loader)

    def _old_value(self, terms: Any, loader: Any) -> Any:
        old = self._old.get(terms.name, NOTHING)
        if old is NOTHING or isinstance(old, Absent):
            return old
        if not is_coroutine_loader(loader) and self._begin_renewal(terms.name):
            taken = self._workers.submit(lambda: self._renew(terms, loader))
            if not taken:
                self._renewing.pop(terms.name, None)
        return old

    # -- loading anew

    def _begin_renewal(self, name: Any) -> bool:
        if name in self._resting:
            return False
        mine = object()
        return self._renewing.setdefault(name, mine) is mine  # no lock: comparing names may run any code

    def _renew(self, terms: Any, loader: Callable[[Any], V]) -> None:
        with self._renewal(terms.name):
            self._carry_out(Load(renewal_of(terms.name)), terms, loader)

    @contextmanager
    def _renewal(self, name: Any) -> Iterator[None]:
        """What :meth:`_begin_renewal` has begun. If it fails, none begins for the time of a lease, as on Redis."""
        try:
            yield
        except Exception:
            self._resting.put(name, True, round(self.settings.lease * 1e9))
            raise
        finally:
            self._renewing.pop(name, None)

    # -- writing: in both stores

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def _set_for(self, key: K, value: V, ttl_ms: int, tags: Sequence[str]) -> None:
        self._put(key, value, ttl_ms, tags)

    def invalidate_tag(self, tag: str) -> None:
        """Remove every value that has this tag, and all that is old. See :meth:`Cache.invalidate_tag`."""
        super().invalidate_tag(tag)
        self._old.drop_all(invalidated=True)

    def __delitem__(self, key: K) -> None:
        if not self.erase(key):
            raise KeyError(key)

    def erase(self, key: K) -> bool:
        """Remove a key. Returns whether it was there."""
        was_new = super().erase(key)
        return self._old.erase(self._held(key)) or was_new

    def _remove_held(self, name: Any) -> None:
        self._old.erase(name)

    def drop(self, key: K) -> bool:
        """The same: there are no other processes."""
        was_new = super().drop(key)
        return self._old.drop(self._held(key)) or was_new

    def drop_all(self, *, invalidated: bool = False) -> int:
        """Remove everything. Returns how many entries there were that were not old."""
        self._old.drop_all(invalidated=invalidated)
        return super().drop_all(invalidated=invalidated)

    def _expire(self, now_ns: int | None) -> list[tuple[K, V]]:
        """What is merely old is there all the same: a value has gone when neither store has it."""
        left = dict(super()._expire(now_ns))
        for name, value in self._old.expire(now_ns):
            left.pop(name, None)
            if not isinstance(value, Absent):
                left[name] = value
        gone = {name: value for name, value in left.items() if name not in self._old}
        for name in gone:
            self._births.drop(name)
        return list(gone.items())

    def open(self, op: Op) -> None:
        """See :class:`Store`."""
        super().open(op)
        if isinstance(op, _Twins):
            self._old.open(op.other)

    def abandon(self, op: Op, *, drop: bool) -> None:
        """See :class:`Store`."""
        super().abandon(op, drop=drop)
        if isinstance(op, _Twins):
            self._old.abandon(op.other, drop=drop)

    def close(self) -> None:
        """Let go of everything held. Idempotent."""
        self._workers.close()
        super().close()

    # -- copies: what is old, or will be, has the rest of its time there, too

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``copy`` and ``pickle`` take along."""
        now_ns = monotonic_ns()
        old = [each for each in remaining(self._old) if not isinstance(each[1], Absent)]
        ages = {name: now_ns - born_ns for name, born_ns, _ in remaining(self._births)}
        return super().__getstate__() | {"old": old, "ages": ages}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the cache that ``__getstate__`` has described."""
        super().__setstate__(state)
        for name, value, left_ns in state["old"]:
            restore(self._old, name, value, left_ns, self.measure(value))
        for name, age_ns in state["ages"].items():
            self._births[name] = monotonic_ns() - age_ns

    # -- the verbs: what is old is there all the same, until something else is stored

    def _holder(self, name: Any) -> Store[Any, Any]:
        return self if self.terms(name) is not None else self._old

    def _whole(self, key: Any, name: Any) -> Any:
        value = self.peek(key, NOTHING)
        if value is NOTHING:
            value = self._old.peek(name, ABSENT)
        return MISSING if isinstance(value, Absent) else value

    def _outdate(self, name: Any) -> None:
        self._old.erase(name)

    def _operation(self, name: Any) -> Op:
        return _Twins(name, next(self._wids))

    def _keep(self, op: Op, value: V, life: Life, cost_ms: int, size: int, under: tuple[int, int] | None) -> bool:
        assert isinstance(op, _Twins)
        if self.settings.ages:
            self._births[op.key] = monotonic_ns()
        if isinstance(value, Absent):
            kept: Any = value.remembered() if isinstance(value, Failure) else value
            self._old.finish(op.other, kept, op.wid, deadline_ns(life.ttl_ms), size, _IDENTITY)
            return self.finish(op, None, 0, 0)
        due_ms = self._freshness.due_ms(life.soft_ms or life.ttl_ms, cost_ms) if life.ttl_ms else 0
        if due_ms != life.ttl_ms:
            self._old.finish(op.other, value, op.wid, deadline_ns(life.ttl_ms), size, _IDENTITY)
            life = Life(max(1, due_ms))
            if self._hub is not None:
                self._hub.twins.add(op.key)
        else:
            self._old.abandon(op.other, drop=True)
        return super()._keep(op, value, life, cost_ms, size, under)

    def _held(self, key: Any) -> Any:
        return key if self.settings.key is None else self.settings.key(key)
