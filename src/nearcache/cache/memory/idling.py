"""``memory://`` whose values may live by being read: ``ttl=nearcache.Idle(seconds)``.

The two stores of a cache whose values grow old do for this as well. The first serves a value for half of the idle time,
at the cost of any hit, and tells nobody. After that the second is looked at, which has it for one and a half times the
idle time; found there, it is given all of it again, in both.
"""

from __future__ import annotations

from typing import Any

from ..._store import Op, own_get
from ...changes import MISSING
from ...clocks import NS_PER_MS
from ...freshness import IDLE_MS, Life, idle_copy_ms
from ...options import Settings
from ..base import K, V
from .aging import AgingMemoryCache
from .base import Under
from .exchanging import GONE, IDENTITY, Terms, deadline_ns


@own_get
class IdlingMemoryCache(AgingMemoryCache[K, V]):
    """A cache of one process, with whatever :class:`AgingMemoryCache` has, and values that live by being read."""

    _takes_idle = True

    def _begin(self, settings: Settings) -> None:
        # By name: the whole lifetime, and what the entry depends on. Changed under the lock of the verbs.
        self._idle: dict[Any, tuple[int, tuple[int, int] | Under | None]] = {}
        self._next: Life | None = None  # of what a verb is about to put in place, under its lock
        super()._begin(settings)

    def _let_go(self, name: Any) -> None:
        super()._let_go(name)
        self._idle.pop(name, None)

    # -- reading

    def _found_old(self, key: Any) -> Any:
        name = self._name(key)
        return self._live_on(name) if name in self._idle else super()._found_old(key)

    def _old_value(self, wanted: Any, loader: Any) -> Any:
        return self._live_on(wanted.name) if wanted.name in self._idle else super()._old_value(wanted, loader)

    def remaining_ns(self, key: Any) -> int | None:
        """As there, but the idle time at most: what is kept beyond is for those who read the first store, unnoticed."""
        left_ns, (whole_ms, _) = super().remaining_ns(key), self._idle.get(key, (0, None))
        return min(left_ns, whole_ms * 2 // 3 * NS_PER_MS) if left_ns is not None and whole_ms else left_ns

    def _begin_renewal(self, name: Any) -> bool:
        return name not in self._idle and super()._begin_renewal(name)

    def _live_on(self, name: Any) -> Any:
        """Return the value, and let it live on; MISSING if it is gone. What is written meanwhile is newer."""
        whole_ms, under = self._idle.get(name, (0, None))
        copy, twin = Op(name, 0), Op(name, 0)
        with self._later, self._changing:  # what is read may not speak against what another thread is storing
            self._old.l1_open(twin)
            self.l1_open(copy)
            try:
                value, wid = self._old.get(name, MISSING), self._old.l1_wid(name)
                # Else another thread has just removed the young one, and is about to see what has become of it.
                is_known = self.l1_terms(name) is not None or self._lapsed.peek(name, MISSING) is value
                if value is not MISSING and whole_ms and wid and is_known:
                    self._old.l1_confirm(twin, wid, deadline_ns(whole_ms), IDENTITY)
                    until_ns = deadline_ns(idle_copy_ms(whole_ms, whole_ms))
                    if self.l1_finish(copy, value, wid, until_ns, self.l1_measure(value), IDENTITY, under):
                        self._lapsed.drop(name)
                return value
            finally:
                self._old.l1_abandon(twin, drop=False)
                self.l1_abandon(copy, drop=False)

    # -- writing

    def _keep(self, op: Op, value: V, life: Life, cost_ms: int, size: int, under: Under | None) -> bool:
        if life.soft_ms == IDLE_MS:
            self._idle[op.key] = (life.ttl_ms, under)
            life, cost_ms = Life(life.ttl_ms, idle_copy_ms(life.ttl_ms, life.ttl_ms)), 0
        else:
            self._idle.pop(op.key, None)
        return super()._keep(op, value, life, cost_ms, size, under)

    # -- copies: what is in use begins its time anew in them

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``copy`` and ``pickle`` take along."""
        return super().__getstate__() | {"idle": {name: whole_ms for name, (whole_ms, _) in list(self._idle.items())}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the cache that ``__getstate__`` has described."""
        super().__setstate__(state)
        for name, value, _ in state["entries"]:
            if whole_ms := state["idle"].get(name):
                op = self._operation(name)
                self.l1_open(op)
                under = self._depend(state["tags"].get(name, ()))
                self._keep(op, value, Life(whole_ms, IDLE_MS), 0, self.l1_measure(value), under)

    # -- the verbs

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""
        found = super().gets(key, default)
        if found[1] and (name := self._name(key)) in self._idle:
            self._live_on(name)
        return found

    def _end_of(self, life: Life) -> int:
        self._next = life if life.soft_ms == IDLE_MS else None
        return deadline_ns(life.ttl_ms if self._next is None else idle_copy_ms(life.ttl_ms, life.ttl_ms))

    def _same_terms(self, op: Op, old: Any, new: Any, version: int) -> Terms:
        if new is GONE or old is MISSING or op.key not in self._idle:
            return super()._same_terms(op, old, new, version)
        whole_ms, under = self._idle[op.key]
        return Terms(self, op.wid, self._end_of(Life(whole_ms, IDLE_MS)), under)

    def _put_silently(self, op: Op, new: Any, size: int, chosen: Terms) -> bool:
        life, self._next = self._next, None
        is_done = super()._put_silently(op, new, size, chosen)
        if life is None or not is_done:
            self._idle.pop(op.key, None)
            return is_done
        twin = Op(op.key, 0, wid=chosen.wid, write=True)
        self._old.l1_open(twin)
        self._old.l1_finish(twin, new, chosen.wid, deadline_ns(life.ttl_ms), size, IDENTITY)
        self._idle[op.key] = (life.ttl_ms, chosen.under)
        return True
