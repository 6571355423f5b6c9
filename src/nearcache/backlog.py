"""What waits to be written behind the cache, as the process that is to do it sees it. No I/O, no clock of its own.

Records come from queues in Redis, one per lane, oldest first, and leave them only when they have been written or given
up. Here they are put together by key: of several records of one key the last is written, and stands for all of them.

::

    add --delay--> due --take--> written: the records leave the queue
                    ^     \\--failed--> a longer and longer pause --> due, again and again
                    |      \\--failed too often--> the record becomes a dead letter
                    \\--postponed (others failed: so would this one)

A key is due so long after its first record was made, however late that is read, and by whom. It is not after its last:
one that is written all the time is written, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

#: Pauses after a failure, in nanoseconds: the first, which doubles, and the longest. Of each a random part is taken.
FIRST_PAUSE_NS: Final = 200_000_000
LONGEST_PAUSE_NS: Final = 60_000_000_000
#: A record that so many more owners have been given than it may be tried has ended processes, not just failed.
_DELIVERIES: Final = 10


class DeadLetter(NamedTuple):
    """A change that could not be written behind the cache.

    Attributes:
        id: Names it, for ``replay_dead_letters`` and ``discard_dead_letters``.
        key: The key held (after ``key=``); its encoding, bytes, if nobody here can read it.
        value: The value; :data:`nearcache.ABSENT` for a deletion, or if nobody here can read it.
        is_deletion: Whether the key was to be deleted.
        error: What the writer raised last.
        attempts: How often it was tried.
    """

    id: str
    key: Any
    value: Any
    is_deletion: bool
    error: str
    attempts: int


@dataclass(slots=True, eq=False)
class Change:
    """The last known change of one key.

    Attributes:
        lane, encoded: Which key.
        envelope: The value, sealed; or that the key is to be deleted.
        ids: The records that it stands for, in their order; the last is its own.
        due_ns: When it is to be written.
        attempts: How often that has failed.
        deliveries: To how many owners of the queue the record has been given.
        is_urgent: Somebody waits until it has been written, so it does not wait for later ones.
    """

    lane: int
    encoded: bytes
    envelope: bytes
    ids: list[bytes]
    due_ns: int
    attempts: int = 0
    deliveries: int = 1
    is_urgent: bool = False

    @property
    def id(self) -> bytes:
        """The record's."""
        return self.ids[-1]


@dataclass(slots=True)
class BacklogCounters:
    """What has happened to changes.

    Attributes:
        coalesced: Were overtaken by a later one of the same key.
        retried: Failed, and are or were tried again.
    """

    coalesced: int = 0
    retried: int = 0


@dataclass(slots=True)
class Backlog:
    """See the module.

    Args:
        delay_ns: How long a change waits for later ones of its key.
        batch: Most changes that are taken at a time.
        attempts: How often one is tried; ``None``: without an end.
        chance: Returns a random number, from 0 to below 1.
    """

    delay_ns: int
    batch: int
    attempts: int | None
    chance: Callable[[], float]
    counters: BacklogCounters = field(default_factory=BacklogCounters)
    _changes: dict[tuple[int, bytes], Change] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be fetched before something has been written: the rest is as well kept in Redis."""
        return len(self._changes) >= 10 * self.batch

    def add(self, lane: int, encoded: bytes, record: bytes, envelope: bytes, made_ns: int, deliveries: int = 1) -> None:
        """Take a record over, of a change made then. One that is here already changes nothing."""
        there = self._changes.get((lane, encoded))
        if there is None:
            due_ns = made_ns + self.delay_ns
            self._changes[lane, encoded] = Change(lane, encoded, envelope, [record], due_ns, 0, deliveries)
        elif record not in there.ids:
            # What has failed is not to be written any more, and this one has not failed yet. Its turn does not come
            # earlier for that: the pause is for what is behind the cache.
            there.ids.append(record)
            there.envelope, there.attempts, there.deliveries = envelope, 0, deliveries
            self.counters.coalesced += 1

    def take(self, now_ns: int) -> list[Change]:
        """Return what is due, the longest overdue first. It stays here until it is settled."""
        due = [change for change in self._changes.values() if self._due_ns(change) <= now_ns]
        due.sort(key=lambda change: change.due_ns)
        return due[: self.batch]

    def settle(self, changes: Iterable[Change]) -> None:
        """They have been written, or given up."""
        for change in changes:
            self._changes.pop((change.lane, change.encoded), None)

    def fail(self, change: Change, now_ns: int) -> bool:
        """It could not be written. Returns whether it is to be given up."""
        change.attempts += 1
        if self.is_hopeless(change):
            return True
        self.counters.retried += 1
        self._pause(change, now_ns)
        return False

    def postpone(self, changes: Iterable[Change], now_ns: int) -> None:
        """They have not been tried, because others failed. Their turn comes after a pause, and nothing is counted."""
        for change in changes:
            self._pause(change, now_ns)

    def is_hopeless(self, change: Change) -> bool:
        """Whether it has been tried too often, or ended too many processes."""
        return self.attempts is not None and (
            change.attempts >= self.attempts or change.deliveries > self.attempts + _DELIVERIES
        )

    def forget(self, lane: int) -> None:
        """The lane's queue is another process's now, or is read again from its beginning."""
        for place in [place for place in self._changes if place[0] == lane]:
            del self._changes[place]

    def hurry(self, lane: int, record: bytes) -> None:
        """Somebody waits for what is in the lane's queue up to this record: it is due at once, unless it has failed."""
        last = order(record)
        for change in self._changes.values():
            if change.lane == lane and not change.is_urgent:
                change.is_urgent = order(change.ids[0]) <= last

    def wait_ns(self, now_ns: int) -> int | None:
        """Return in how long something is due; ``None`` if there is nothing."""
        return min((max(0, self._due_ns(change) - now_ns) for change in self._changes.values()), default=None)

    def _due_ns(self, change: Change) -> int:
        return 0 if change.is_urgent and not change.attempts else change.due_ns

    def _pause(self, change: Change, now_ns: int) -> None:
        longest_ns = min(LONGEST_PAUSE_NS, FIRST_PAUSE_NS << min(change.attempts, 20))
        change.due_ns = now_ns + longest_ns // 2 + int(longest_ns / 2 * self.chance())


def order(record: bytes) -> tuple[int, int]:
    """Return what records of a stream are sorted by, from a record's id."""
    time_ms, _, number = record.partition(b"-")
    return int(time_ms), int(number)
