"""``consistency="lane"``: L1 serves nothing that is older than what this process has seen of the lane.

The messages of a lane come in the order of its changes, so the entries of L1 agree with each other. But a process
learns of changes in other ways too, and sooner: what it reads from L2, or writes there, may be newer than messages that
are still on their way to it. Key by key that does no harm. Between keys it shows:

::

    another process             this one                                   messages of the lane applied up to
    changes a  (its 7th change)                                            6
    changes b  (its 8th)        reads b in L2: new                         6
                                hits a in L1: old, though a was first      6
                                                                           8

Here every answer of L2 says where the lane stands, and what has been *observed* is compared with what has been
*applied*. While the lane is ahead, it is not vouched for: fresh until 0, so that a hit costs what it always costs. It
is served again when its messages have caught up.

An answer may come from where no message will ever come from: a server that was replaced since, or has replaced another.
No number of one epoch says anything about another's. So the waiting ends, too, with the answer to a heartbeat that was
sent after the observation: all that the followed server had by then is applied, and what it does not know of is made
good by making the lane suspect, as after a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from .._store import Store
from ..clocks import TICK_NS, Clock, monotonic_ns
from .derived import Derived
from .horizon import Horizon
from .lane import Lane

#: No lane is ever in epoch 0: this place is not reached.
NOWHERE: Final = (0, 0)


class _Ahead(NamedTuple):
    """What has been observed of a lane and not been applied.

    Attributes:
        place: Epoch and number.
        at_ns: When that was first known.
        since_ns: Since when the lane is withheld.
    """

    place: tuple[int, int]
    at_ns: int
    since_ns: int


class OrderedHorizon(Horizon):
    """See the module, and :class:`Horizon`.

    Args:
        lanes: The state machines, by number.
    """

    def __init__(
        self,
        store: Callable[[], Store[Any, Any] | None],
        tags: Store[bytes, int],
        derived: Derived,
        clock: Clock = monotonic_ns,
        *,
        lanes: Sequence[Lane],
    ) -> None:
        super().__init__(store, tags, derived, clock)
        self._lanes = lanes
        self._ahead: dict[int, _Ahead] = {}
        self._until_ns: dict[int, int] = {}  # until when a lane is, or would be, vouched for
        self._seen_ns: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._withheld_ns: dict[int, int] = {}
        self._gate = threading.RLock()  # re-entrant: an observation may come with a collection

    # -- what steps ask and tell

    def is_ahead(self, lane: int) -> bool:
        """Whether something has been observed of a lane that its messages have not told yet."""
        return lane in self._ahead

    def seen_ns(self, lane: int) -> int:
        """When something was last observed that was new: what was asked for before may be older."""
        return self._seen_ns.get(lane, 0)

    def newest(self, lane: int) -> tuple[int, int] | None:
        """Epoch and number of what has been observed beyond what is applied; None: nothing has."""
        ahead = self._ahead.get(lane)
        return None if ahead is None else ahead.place

    def times(self, lane: int) -> int:
        """How often a lane was withheld."""
        return self._times.get(lane, 0)

    def withheld_ns(self, lane: int) -> int:
        """For how long, altogether."""
        ahead = self._ahead.get(lane)
        return self._withheld_ns.get(lane, 0) + (0 if ahead is None else max(0, self._clock() - ahead.since_ns))

    def observe(self, lane: int, place: tuple[int, int]) -> None:
        """This process is about to know that a lane has reached this epoch and number; :data:`NOWHERE`: nobody knows.

        To be said before anybody is given what was read there.
        """
        if self._has_applied(lane, place):  # what has been applied stays so, whoever looks at it without the lock
            return
        with self._gate:
            if self._has_applied(lane, place):
                return
            now_ns, before = self._clock(), self._ahead.get(lane)
            if before is None:
                # In this order: whoever is interrupted in between leaves a lane dark until its next heartbeat.
                self._pass_on(lane, 0)
                self._times[lane] = self._times.get(lane, 0) + 1
            elif before.place[0] != place[0]:
                place = NOWHERE
            elif before.place >= place:
                return
            self._seen_ns[lane] = now_ns
            self._ahead[lane] = _Ahead(place, now_ns, now_ns if before is None else before.since_ns)

    # -- what the follower tells

    def caught_up(self, lane: int) -> None:
        """More of a lane has been applied, or a heartbeat answered: perhaps it may be served again."""
        with self._gate:
            ahead = self._ahead.get(lane)
            if ahead is None:
                return
            if not self._has_applied(lane, ahead.place):
                sent_ns = self._until_ns.get(lane, 0) - self._lanes[lane].bound_ns + TICK_NS
                if sent_ns <= ahead.at_ns:
                    return
                self.lane_suspect(lane)
            del self._ahead[lane]
            self._withheld_ns[lane] = self._withheld_ns.get(lane, 0) + max(0, self._clock() - ahead.since_ns)
            super().lane_vouch(lane, self._until_ns.get(lane, 0))

    def lane_vouch(self, lane: int, until_ns: int) -> None:
        """See :class:`Horizon`. What is withheld stays so."""
        with self._gate:
            self._until_ns[lane] = until_ns
            if lane not in self._ahead:
                super().lane_vouch(lane, until_ns)

    def lane_dark(self, lane: int) -> None:
        """See :class:`Horizon`."""
        with self._gate:
            self._until_ns[lane] = 0
            super().lane_dark(lane)

    def after_fork(self) -> None:
        """In the child: the lock may have been held. What the parent has observed is suspect here anyway."""
        self._gate = threading.RLock()
        self._ahead.clear()

    def _has_applied(self, lane: int, place: tuple[int, int]) -> bool:
        applied = self._lanes[lane].applied
        return applied is not None and applied[0] == place[0] and applied[1] >= place[1]

    def _pass_on(self, lane: int, until_ns: int) -> None:
        """Tell the stores, and nobody who keeps books about outages."""
        store = self._store()
        if store is not None:
            Store.lane_vouch(store, lane, until_ns)
            self.tags.lane_vouch(lane, until_ns)
            self.derived.vouched(store, lane, until_ns)
