"""What the lanes' actions are carried out on: the store of the values, that of tags' generations, derived lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._store import Store
from ..clocks import Clock, monotonic_ns
from .derived import Derived


class Horizon:
    """The stores of one cache, as the lanes see them. Nothing is done any more when the cache is gone.

    Args:
        store: Returns the store of the values, or None when it is gone.
        tags: The store of the tags' generations, by the encoded key of the tag's record.
        derived: The lanes for entries with tags.
    """

    def __init__(
        self,
        store: Callable[[], Store[Any, Any] | None],
        tags: Store[bytes, int],
        derived: Derived,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._store = store
        self._clock = clock
        self._vouched_ns: dict[int, int] = {}  # lane -> until when it is, or was, vouched for
        self._dark_ns: dict[int, int] = {}  # lane -> time without, up to the newest vouching
        self.tags = tags
        self.derived = derived

    def dark_ns(self, lane: int) -> int:
        """Return for how long nothing of a lane could be served, since it was first vouched for."""
        until_ns = self._vouched_ns.get(lane)
        if until_ns is None:
            return 0
        return self._dark_ns[lane] + max(0, self._clock() - until_ns)

    def _account(self, lane: int, until_ns: int) -> None:
        """Keep the books on darkness: it lasts from the end of one vouching to the beginning of the next."""
        now_ns = self._clock()
        before_ns = self._vouched_ns.get(lane)
        if until_ns:
            self._dark_ns[lane] = self._dark_ns.get(lane, 0) + (0 if before_ns is None else max(0, now_ns - before_ns))
            self._vouched_ns[lane] = until_ns
        elif before_ns is not None:
            self._vouched_ns[lane] = min(before_ns, now_ns)

    def lane_vouch(self, lane: int, until_ns: int) -> None:
        """Entries of the lane may be served until then."""
        store = self._store()
        if store is not None:
            self._account(lane, until_ns)
            store.lane_vouch(lane, until_ns)
            self.tags.lane_vouch(lane, until_ns)
            self.derived.vouched(store, lane, until_ns)

    def lane_suspect(self, lane: int) -> None:
        """No entry of the lane may be served before it is looked at."""
        store = self._store()
        if store is not None:
            store.lane_suspect(lane)
            self.tags.lane_suspect(lane)
            self.derived.suspected(store, lane)

    def lane_attach(self, lane: int, identity: int) -> None:
        """Results read from this server may be kept; 0: from none."""
        store = self._store()
        if store is not None:
            store.lane_attach(lane, identity)
            self.tags.lane_attach(lane, identity)

    def lane_dark(self, lane: int) -> None:
        """Nothing of the lane may be served."""
        store = self._store()
        if store is not None:
            self._account(lane, 0)
            store.lane_dark(lane)
            self.tags.lane_dark(lane)
            self.derived.vouched(store, lane, 0)

    def caught_up(self, lane: int) -> None:
        """More of the lane has been applied, or a heartbeat answered. That changes nothing here."""

    def after_fork(self) -> None:
        """In the child: no lock here may be held by others."""

    def lane_apply(self, lane: int, wid: int, keys: list[Any]) -> int:
        """Drop what a message names. Returns how many entries that were."""
        store = self._store()
        return 0 if store is None else store.lane_apply(lane, wid, keys)

    def apply_tags(self, lane: int, wid: int, tags: list[bytes]) -> None:
        """Tags have another generation: the write's id."""
        store = self._store()
        if store is not None:
            self.tags.lane_apply(lane, wid, tags)
            self.derived.heard(store, wid, tags)
