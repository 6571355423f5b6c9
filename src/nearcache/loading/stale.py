"""Copies that L1 still holds of a shard that is out, for users who would rather have an old value than none.

An entry carries the stamp that its lane had when it was last known to be current, so what has to be remembered is until
when each stamp was vouched for. A copy is served for ``stale_if_error`` after that instant and never past its own
lifetime. Stamps that ended in any other way than by the loss of the connection are not remembered: a clear has made
their entries worthless, and after a gap some of them are known to have changed. Entries with tags stand under derived
lanes, of which nothing is remembered: nobody can say which of their tags have changed.
"""

from __future__ import annotations

from typing import Any

from .._store import Store
from ..coherence import Lane, State


class StaleCopies:
    """Until when copies were vouched for, by lane and stamp. Changed by the listener's thread, read by any.

    Args:
        lanes: The state machines.
        allowed_ns: How long after that a copy may be served.
        most: How many lanes there may ever be.
    """

    def __init__(self, lanes: list[Lane], allowed_ns: int, most: int) -> None:
        self._lanes = lanes
        self._allowed_ns = allowed_ns
        self._current = [0] * most
        self._ended: list[dict[int, int]] = [{} for _ in self._current]

    def vouched(self, lane: int, until_ns: int) -> None:
        """The lane's entries of the stamp in force may be served until then."""
        if lane < len(self._current):  # not a derived lane
            self._current[lane] = until_ns

    def suspected(self, lane: int, stamp: int, now_ns: int) -> None:
        """The stamp in force, given here, is about to end."""
        if lane >= len(self._current):
            return
        until_ns, self._current[lane] = self._current[lane], 0
        if self._lanes[lane].state is not State.DOWN:
            self._ended[lane] = {}
        elif until_ns:
            known = {old: ns for old, ns in self._ended[lane].items() if ns + self._allowed_ns > now_ns}
            self._ended[lane] = known | {stamp: until_ns}

    def forget(self, lane: int) -> None:
        """What was vouched for before now is not to be served any more, unless it is vouched for still."""
        if lane < len(self._current):
            self._ended[lane] = {}

    def find(self, store: Store[Any, Any], key: Any, lane: int, now_ns: int, default: Any) -> Any:
        """Return a copy that may be served although nobody can be asked, or the default."""
        found = store.l1_suspect_since(key)
        if found is None or found[0] != lane:
            return default
        stamp = found[1]
        until_ns = self._ended[lane].get(stamp, 0)
        if not until_ns and stamp == store.lane_stamp(lane):
            until_ns = self._current[lane]
        return found[2] if until_ns and now_ns < until_ns + self._allowed_ns else default
