"""The verbs of a cache of one process: changes that are made anew when somebody else was quicker."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ..._store import Op, Store
from ...changes import ATTEMPTS, MISSING, SKIP, Change, Swapped
from ...clocks import NEVER_NS, NS_PER_MS, TICK_NS, monotonic_ns
from ...errors import ContentionError
from ...freshness import Life, Lifetime, ttl_for
from ...options import RemovalCause, check_tags
from ..base import K, V
from ..verbs import refuse_idle
from .base import Under
from .speaking import SpeakingCache

#: There is one process and no server: any write id and any identity will do, as long as they are not 0.
LOADED: Final = 1
IDENTITY: Final = 1

#: What a change makes of a value that is to go.
GONE: Final[Any] = object()
#: Longest wait for a turn.
PATIENCE_S: Final = 1.0


class Terms(NamedTuple):
    """How an entry is to be kept: in which store, under which write id, until when, and what it depends on."""

    store: Store[Any, Any]
    wid: int
    until_ns: int
    under: tuple[int, int] | Under | None


class ExchangingCache(SpeakingCache[K, V]):
    """What :class:`MemoryCache` is made from: the verbs, over one store.

    Nothing is locked while a change is made. Then, under the lock, what it was made of must still be there: the same
    id, which every verb gives anew, and the same object. What is written after this look speaks against the change.

    Who was too late once would be so again and again among threads that do not stop, so he asks for a turn, and while
    somebody has one, all take turns. Nobody waits long for his: what is made in a turn may itself wait for others.
    """

    def _begin_exchanges(self) -> None:
        self._wids = itertools.count(LOADED + 1)
        self._free_exchanges()

    def _free_exchanges(self) -> None:
        """Nobody is making a change."""
        # Re-entrant: hashing and comparing keys, and letting go of values, may use the cache.
        self._changing = threading.RLock()
        if self._on_removal is not None:
            self._on_removal.begin(self._changing)
        self._turns = threading.RLock()
        self._crowded = False  # whether somebody has his turn

    def gets(self, key: K, default: Any = None) -> tuple[Any, int]:
        """Return the value and its version. See :meth:`Verbs.gets`."""

        def mark(old: Any, version: int) -> Any:
            return SKIP if old is MISSING or version > LOADED else old

        old, _, version = self._exchange(key, mark, self._same_terms)
        return (default, 0) if old is MISSING else (old, version)

    def _swap(self, key: Any, change: Change, ttl: Lifetime, tags: Sequence[str]) -> Swapped:
        chosen, labels = self._ttl(ttl, 0), check_tags(tags)

        def terms(op: Op, old: Any, new: Any, version: int) -> Terms:
            if change.keeps and old is not MISSING:
                return self._same_terms(op, old, new, version)
            life = self._freshness.life(ttl_for(chosen, key, new))
            return Terms(self, op.wid, self._end_of(life), self._depend(labels))

        old, new, _ = self._exchange(key, change.make, terms)
        return Swapped(new is not SKIP, old, new)

    def _take(self, key: Any) -> Any:
        return self._exchange(key, lambda old, _: SKIP if old is MISSING else GONE, self._same_terms)[0]

    def _pop(self, key: Any) -> tuple[Any, Exception | None]:
        taken = self._take(key)
        return taken, None

    def _touch(self, key: Any, ttl: Lifetime, *, whole: bool) -> tuple[bool, Any]:  # noqa: ARG002  costs nothing here
        refuse_idle(ttl)
        chosen = self._ttl(ttl, 0)

        def terms(op: Op, old: Any, new: Any, version: int) -> Terms:
            life = self._freshness.life(ttl_for(chosen, key, old))
            same = self._same_terms(op, old, new, version)
            return same._replace(wid=version if version > LOADED else same.wid, until_ns=self._end_of(life))

        old = self._exchange(key, lambda old, _: SKIP if old is MISSING else old, terms)[0]
        return old is not MISSING, old

    def _same_terms(self, op: Op, _old: Any, _new: Any, _version: int) -> Terms:
        """The place, the lifetime and the tags that the entry has."""
        holder = self._holder(op.key)
        # None: it has just expired, and so does what is made of it.
        until_ns, under = holder.l1_terms(op.key) or (1, None)
        return Terms(holder, op.wid, until_ns, under)

    def _exchange(
        self, key: Any, make: Callable[[Any, int], Any], terms: Callable[[Op, Any, Any, int], Terms]
    ) -> tuple[Any, Any, int]:
        """Put what is made of a value in its place. Returns the value before, the one after, and its version."""
        self._use()
        name = self._name(key)
        turns = self._take_turn() if self._crowded else None
        try:
            for _ in range(ATTEMPTS):
                done = self._attempt(key, name, make, terms)
                if done is not None:
                    return done
                turns = turns or self._take_turn()
        finally:
            if turns is not None:
                self._crowded = False
                turns.release()
        raise ContentionError(name, ATTEMPTS)

    def _attempt(
        self, key: Any, name: Any, make: Callable[[Any, int], Any], terms: Callable[[Op, Any, Any, int], Terms]
    ) -> tuple[Any, Any, int] | None:
        """As :meth:`_exchange`, once. Returns None if somebody else was quicker."""
        version, old = self._version(name), self._whole(key, name)
        new = make(old, 0 if old is MISSING else version)
        if new is SKIP:
            return old, new, version
        size = 0 if new is GONE else self._fitting_size_of(name, new)
        with self._later, self._changing:
            op = Op(name, 0, wid=next(self._wids), write=True)
            self.l1_open(op)
            try:
                if self._version(name) == version and self._whole(key, name) is old:
                    chosen = Terms(self, 0, 0, None) if new is GONE else terms(op, old, new, version)
                    if self._put_changed(op, old, new, size, chosen):
                        return old, new, chosen.wid
            finally:
                self.l1_abandon(op, drop=False)
        return None

    def _take_turn(self) -> threading.RLock | None:
        """Wait for a turn. Returns what is to be released after it; None if it did not come."""
        turns = self._turns
        if turns.acquire(timeout=PATIENCE_S):
            self._crowded = True
            return turns
        # Whoever has it waits for others, or was interrupted at a bad moment.
        self._turns = threading.RLock()
        return None

    def _put_changed(self, op: Op, old: Any, new: Any, size: int, chosen: Terms) -> bool:
        """Store what is made of a value. Returns whether that was done: a write that takes no lock may be quicker."""
        if new is GONE:
            return self._put_silently(op, new, size, chosen)
        with self._telling(None if new is old else "stored", existed=old is not MISSING):
            is_done = self._put_silently(op, new, size, chosen)
        if is_done and self._hub is not None and chosen.store is not self and new is not old:
            self._hub.tell("updated", op.key, "stored", new)  # the store that has it tells of no values that come
        return is_done

    def _put_silently(self, op: Op, new: Any, size: int, chosen: Terms) -> bool:
        store, wid, until_ns, under = chosen
        if store is self:
            self._outdate(op.key, "invalidated" if new is GONE else "replaced")
        else:  # it has grown old, and so it stays
            op = Op(op.key, 0, wid=op.wid, write=True)
            store.l1_open(op)
        # Where nothing is kept at all, it is done as well. What has ended meanwhile is tried anew, as on nothing.
        return store.l1_finish(op, new, wid, until_ns, size, IDENTITY, under) or new is GONE or self.maxsize == 0

    def _version(self, name: Any) -> int:
        """The id that a verb gave an entry; 1 for an entry that came otherwise, 0 for none."""
        holder = self._holder(name)
        return holder.l1_wid(name) or int(holder.l1_terms(name) is not None)

    def _whole(self, key: Any, name: Any) -> Any:  # noqa: ARG002  for the subclass
        """Return the value, or MISSING."""
        return self.peek(key, MISSING)

    # -- for the subclasses

    def _holder(self, name: Any) -> Store[Any, Any]:  # noqa: ARG002  for the subclass
        """The store that has the value, if any has."""
        return self

    def _end_of(self, life: Life) -> int:
        """When an entry with this lifetime is to end."""
        return deadline_ns(life.ttl_ms)

    def _outdate(self, name: Any, cause: RemovalCause) -> None:
        """Another value, or none, comes in the place of one that has grown old."""


def deadline_ns(ttl_ms: int) -> int:
    """When what is stored now is to end; 0 ms: never."""
    return monotonic_ns() + ttl_ms * NS_PER_MS - TICK_NS if ttl_ms else NEVER_NS
