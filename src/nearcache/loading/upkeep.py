"""Upkeep: what a cache has to do in L2 because of what its listener hears, beside dropping entries.

It pays what is owed whenever a lane proves to be well. That takes round trips, for which the listener's thread must not
wait; so it happens in a thread of its own, one per lane at most, which ends when nothing is owed any more.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from ..errors import CacheError
from ..l2 import Script
from ..logs import Recurring
from ..workers import start_thread
from .steps import ThreadRunner
from .tier import Tier
from .writing import pay

Renewal = tuple[int, Script, tuple[bytes, ...], tuple[bytes, ...]]


class Upkeep:
    """What the listener's followers call their keeper.

    Args:
        runner: Carries out the payments.
    """

    def __init__(self, tier: Tier, runner: ThreadRunner) -> None:
        self._tier = tier
        self._runner = runner
        self._paying: set[int] = set()
        self._met: set[int] = set()
        self._untold: set[int] = set()
        self._gaps: dict[int, int] = {}  # by lane, how many it had found by its last heartbeat
        self._losses = Recurring(tier.clock)
        self._lock = threading.RLock()

    @property
    def renew_every_ns(self) -> int:
        """When after :meth:`renewals` to ask for them again: several times in the life of a lease."""
        return self._tier.lasting_ms * 300_000

    def renewals(self, now_ns: int) -> list[Renewal]:
        """The leases to keep alive."""
        return self._tier.renewals(now_ns)

    def forked(self, lane: int, epoch: int, ends: dict[int, int] | None, seq: int) -> None:
        """Owe again what the lane's new primary does not know of."""
        self._tier.forked(lane, epoch, ends, seq)
        if lane in self._met:  # a record made anew, or set back, need not say in full which shards there are
            self._untold.add(lane)
        self._met.add(lane)

    def refused(self, lane: int) -> None:  # noqa: ARG002
        """A lane is ahead of this process: catch up."""
        self._tier.outdated()

    def suspended(self, now_ns: int) -> None:
        """The machine slept: nobody knows how old anything is."""
        self._tier.births.slept(now_ns)

    def vouched(self, lane: int) -> None:
        """The lane is well: pay what is owed on it, if anything is, and catch up with the others' list of shards."""
        ring = self._tier.lanes[lane].ring
        if ring is not None and ring != self._tier.now.ring:
            self._tier.outdated()
        elif ring is not None:
            self._tier.agreed()
        if self._tier.journals[lane].has_strayed:
            self._tier.reclaim(lane)
        if (gaps := self._tier.lanes[lane].counters.gaps) != self._gaps.get(lane, 0):
            # Behind a proxy it may be another primary by now, in the same epoch. Scripts that come by bring the version
            # of the list of shards along, but not the list.
            self._gaps[lane] = gaps
            self._untold.add(lane)
            text = "namespace %s: shard %s: messages were lost, or its lane record: what memory holds of it is in doubt"
            self._losses.log(logging.WARNING, text, self._tier.namespace, self._tier.name_at(lane))
        if not self._tier.journals[lane].owes:
            if lane in self._untold:
                self._untold.discard(lane)
                self._tier.outdated()
            return
        with self._lock:
            if lane in self._paying:
                return
            self._paying.add(lane)
        if start_thread(f"nearcache-repay-{lane}", self._pay, lane) is None:
            self._paid(lane)  # the next heartbeat tries again

    def _pay(self, lane: int) -> None:
        try:
            with contextlib.suppress(CacheError):  # closed meanwhile; or the next heartbeat tries again
                self._runner.run(pay(self._tier.now, lane))
        finally:
            self._paid(lane)

    def _paid(self, lane: int) -> None:
        with self._lock:
            self._paying.discard(lane)

    def after_fork(self) -> None:
        """In the child: no payment is under way here."""
        self._lock = threading.RLock()
        self._paying.clear()
