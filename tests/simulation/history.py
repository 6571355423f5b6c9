"""What each simulated server has held: when a value was born there, and when something newer killed it.

A value dies with the first announcement of a newer state of its key: a write, a fill over it, an invalidation, a clear,
or the loss of the lane record, whose new generation makes all envelopes count as absent. Eviction does not kill: the
value has gone from L2, but nothing newer is there, so that L1 may go on serving it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nearcache.coherence import TAG_KEY, parse_message
from nearcache.placement import LaneNames, lane_prefix

if TYPE_CHECKING:
    from simulation.server import Change

NAMES: Final = LaneNames(lane_prefix("sim"))
_VALUE: Final = NAMES.value_prefix
_LEASE: Final = NAMES.lease_prefix
_LANE: Final = NAMES.lane_key


class History:
    """Of one server.

    Attributes:
        sequence: Counts announcements.
        born: Value -> the count after which it was stored.
        killed: Value -> (instant, count, whether it was a new generation) of what ended it.
        alive: Encoded key -> the values of it that nothing has ended.
        ends: Value -> the instant of its expiry.
        least: Encoded key -> the oldest version of the source that may still be filled in.
        generation: Of the lane record; None without one.
        marks: Encoded key -> the lease or hold on it, and the millisecond of its end.
        held: Encoded keys that have been on hold.
        current: Encoded key -> the value that L2 holds, alive or not.
        soft_ends: Value -> the instant from which on it is due to be loaded anew.
        due_for: Value -> how long it is due before its end.
        shortened: Value -> the instant at which it was given a shorter life.
        lost: Values that nothing newer has ended: the server took over without them.
    """

    __slots__ = (
        "alive", "born", "current", "due_for", "ends", "generation", "held", "killed", "least", "lost", "marks",
        "sequence", "shortened", "soft_ends",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sequence = 0
        self.born: dict[int, int] = {}
        self.killed: dict[int, tuple[int, int, bool]] = {}
        self.alive: dict[bytes, dict[int, None]] = {}
        self.ends: dict[int, int] = {}
        self.least: dict[bytes, int] = {}
        self.generation: bytes | None = None
        self.marks: dict[bytes, tuple[bytes, int]] = {}
        self.held: dict[bytes, bool] = {}
        self.current: dict[bytes, int] = {}
        self.soft_ends: dict[int, int] = {}
        self.due_for: dict[int, int] = {}
        self.shortened: dict[int, int] = {}
        self.lost: set[int] = set()

    def announce(self, payload: bytes, now_ns: int) -> tuple[str, list[bytes]]:
        """Take a message into account; return its operation and keys."""
        message = parse_message(payload)
        if message.operation == "C":
            self.kill_all(now_ns)
        elif message.operation in "SFI":
            self.sequence += 1
            for key in message.keys:
                for value in self.alive.pop(key, ()):
                    self.killed[value] = (now_ns, self.sequence, False)
        return message.operation, message.keys

    def unsay(self, payload: bytes) -> list[bytes]:
        """A failover has lost a message: what it says of versions counts no more. Returns its keys."""
        message = parse_message(payload)
        if message.operation == "C":
            self.least.clear()
        for key in message.keys:
            self.least.pop(key, None)
        return message.keys

    def kill_all(self, now_ns: int) -> None:
        """Everything is dead."""
        self.sequence += 1
        for values in self.alive.values():
            for value in values:
                self.killed[value] = (now_ns, self.sequence, True)
        self.alive.clear()

    def take_generation(self, data: dict[bytes, Any], now_ns: int) -> None:
        """Look at the lane record after it has changed."""
        generation = data.get(_LANE, {}).get(b"g")
        if generation != self.generation:
            self.generation = generation
            self.kill_all(now_ns)

    def live(self, key: bytes, now_ns: int) -> int | None:
        """The value of a key that L2 holds, and that nothing has ended; None if there is none."""
        value = self.current.get(key)
        if value is None or value not in self.alive.get(key, ()):
            return None
        # The double lets nothing live through the last millisecond.
        return None if self.ends.get(value, now_ns + 2_000_000) - 1_000_000 <= now_ns else value

    def store(self, key: bytes, value: int, end_ms: int | None, now_ns: int) -> bool:
        """A value is in L2; return whether it is new there."""
        self.current[key] = value
        if end_ms is not None:
            end_ns = (end_ms + 1) * 1_000_000  # Redis lets it live through the whole of its last millisecond
            self.gives_life(value, end_ns, now_ns)
            if value in self.due_for:  # given a longer life, it is due later
                self.soft_ends[value] = max(self.soft_ends[value], end_ns - self.due_for[value])
        if value in self.alive.get(key, ()):
            return False
        self.born[value] = self.sequence
        self.killed.pop(value, None)
        self.alive.setdefault(key, {})[value] = None
        return True

    def gives_life(self, value: int, end_ns: int, now_ns: int) -> None:
        """A value lives until then, as of now."""
        if end_ns < self.ends.get(value, end_ns):
            self.shortened[value] = now_ns
        self.ends[value] = end_ns

    def is_due(self, value: int, soft_ns: int, before_ns: int) -> None:
        """A value is due to be loaded anew from an instant on, which is so long before its end."""
        self.soft_ends[value], self.due_for[value] = soft_ns, before_ns

    def fork(self) -> History:
        """A copy, for the server that goes on from here."""
        new = History()
        new.sequence = self.sequence + 1
        new.born = dict(self.born)
        new.killed = dict(self.killed)
        new.alive = {key: dict(values) for key, values in self.alive.items()}
        new.ends = dict(self.ends)
        new.least = dict(self.least)
        new.generation = self.generation
        new.held = dict(self.held)
        new.soft_ends = dict(self.soft_ends)
        new.due_for = dict(self.due_for)
        new.shortened = dict(self.shortened)
        return new

    def mark(self, key: bytes, mark: bytes | None, end_ms: int, now_ms: int) -> bool:
        """A lease or hold has changed; return whether a lease in force was given to somebody else."""
        before = self.marks.pop(key, None)
        if mark is None:
            return False
        self.marks[key] = (mark, end_ms)
        self.held[key] = self.held.get(key, False) or mark[:1] == b"H"
        if before is None or before[1] <= now_ms or mark[:1] not in b"LW" or before[0][:1] not in b"LW":
            return False
        return before[0][1:] != mark[1:] and before[0][17:] == (self.generation or b"")

    def kill(self, key: bytes, value: int, now_ns: int) -> None:
        """One value is lost, and what is there instead counts."""
        if self.alive.get(key, {}).pop(value, value) is None:
            self.killed[value] = (now_ns, self.sequence, False)


def value_key(name: bytes) -> bytes | None:
    """The encoded key that a name in Redis holds the value of, or None."""
    return name[len(_VALUE) :] if name.startswith(_VALUE) else None


def lease_key(name: bytes) -> bytes | None:
    """The encoded key that a name in Redis is the lease of, or None."""
    return name[len(_LEASE) :] if name.startswith(_LEASE) else None


def is_lane(name: bytes) -> bool:
    """Whether it names the lane record."""
    return name == _LANE


def generation_of(envelope: bytes) -> bytes:
    """The generation that an envelope was sealed with, as the lane record has it."""
    return envelope[12:20].hex().encode()


def only_makes_records(change: Change) -> bool:
    """Whether all that a change says is that tags have records now, or that the lane has one.

    A tag's record that is lost takes the values that have its tag along: nothing older comes back. While the list of
    shards changes, whoever makes one invalidates what the other owner may have. A lane's record, where there was none,
    is made by whatever script comes first, before it finds that it was called for another generation and does nothing
    else. To end all that has a tag is another matter.
    """
    told = [parse_message(payload) for _, payload in change.published]
    if not told:
        return all(is_lane(name) for name, *_ in change.keys)
    if hasattr(change.cause, "tag_hash"):
        return False
    return all(each.operation in ("S", "I") and all(key.startswith(TAG_KEY) for key in each.keys) for each in told)
