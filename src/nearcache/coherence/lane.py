"""The coherence core: what this process may believe about one lane. No I/O, no threads, no clock.

A lane is an ordered stream of invalidation messages. Each message names its place in the sequence *and* the write
before it, so that a lost, repeated or foreign message breaks the chain and is noticed at the next message or at the
next heartbeat, whichever is first. A heartbeat is a request sent on the very connection that carries the messages:
its reply comes after every message the server executed earlier, so it is a fence. Once it is in and agrees with what
was applied, everything this process has dropped is everything there was to drop at the instant the heartbeat was
*sent*, and L1 may be served until that instant plus the bound.

::

             connected               first heartbeat reply (the baseline)
    DOWN  ---------------->  SYNC  -------------------------------------->  LIVE
      ^                       |                                              |   gap, other epoch, bad frame:
      |        lost, error, no reply within the time-out                     |   suspect everything, carry on from
      +-----------------------+----------------------------------------------+   the newest known position

The owner of the socket (``bus``) reports events; every method returns the :class:`Action`\\ s to carry out on the
store, in order. Nothing here may be skipped by a caller: an action not carried out is a stale read.

Tolerance for gaps is zero. Comparing sequence numbers with entries is not done anywhere: after a failover numbers
are reused, write ids are not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from ..clocks import TICK_NS
from ..errors import DecodeError
from .messages import Message, parse_message, unsigned
from .metrics import Histogram

#: The identity of every server that does not say who it is. Nothing has it by itself: whoever has read something there
#: has to prove that the lane stood, at that moment, where its messages lead (``loading.proof``).
CHAINED: Final = 2**64 - 1
#: How far replication may lag, for all that such a server tells.
LAG_NS: Final = 10_000_000_000


class State(Enum):
    """Where a lane stands."""

    DOWN = "down"
    SYNC = "sync"
    LIVE = "live"


# -- actions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suspect:
    """Make every entry and pending operation of the lane suspect, in O(1)."""


@dataclass(frozen=True, slots=True)
class Detach:
    """Vouch for nothing and store nothing until attached again."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Results read from the server with this identity may be stored."""

    identity: int


@dataclass(frozen=True, slots=True)
class Vouch:
    """L1 may be served until this instant (monotonic ns)."""

    until_ns: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Drop what a message names, by encoded key: rules R2 and R7.

    If a key turns out not to be decodable, report :meth:`Lane.bad_frame`.
    """

    wid: int
    keys: list[bytes]


@dataclass(frozen=True, slots=True)
class Forked:
    """The lane is in a new epoch: the server was replaced, or lost the record. What that lost has to be repaired.

    Attributes:
        epoch: The new one.
        ends: Earlier epochs, each with its last number that the server has; ``None``: the record began anew, so that
            nothing older lives. Unless the epoch is one that was thought to be over: then the record is back.
        seq: How far the new one had come.
    """

    epoch: int
    ends: dict[int, int] | None
    seq: int


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Give up this connection; ``lost`` is already included in the actions."""

    reason: str


Action = Suspect | Detach | Attach | Vouch | Apply | Forked | Reconnect


@dataclass(slots=True)
class LaneCounters:
    """What has happened on a lane since the cache was opened."""

    received: int = 0
    gaps: int = 0
    resyncs: int = 0
    bad_frames: int = 0
    heartbeats: int = 0
    forks: int = 0


@dataclass(slots=True)
class Position:
    """A place in the lane's history."""

    epoch: int
    seq: int
    wid: int


class _Mark(NamedTuple):
    """One answered heartbeat, and where the lane stood."""

    sent_ns: int
    answered_ns: int
    epoch: int
    seq: int


class _Cleared(NamedTuple):
    """A clear of our own that has returned: when, and whether that was after all entries had been dropped here."""

    at_ns: int
    has_dropped: bool


@dataclass(slots=True)
class Lane:
    """What this process knows about one lane.

    Args:
        bound_ns: B, the longest that one answered heartbeat vouches for L1.
    Attributes:
        applied: Epoch and number of the last message whose actions have been carried out; ``position`` may be ahead of
            it, while they are. None: nothing is known. Set by whoever carries them out.
        ring: Which version of the list of shards is the newest that the lane has seen; None: it has not said.
    """

    bound_ns: int
    state: State = State.DOWN
    identity: int = 0
    stated_generation: int | None = None
    position: Position | None = None
    fresh_until_ns: int = 0
    last_error: str = "not connected yet"
    epoch: int | None = None
    applied: tuple[int, int] | None = None
    ring: bytes | None = None
    round_trips: Histogram = field(default_factory=Histogram)
    counters: LaneCounters = field(default_factory=LaneCounters)
    _sent: deque[int] = field(default_factory=deque)
    _void: int = 0
    _last: Position | None = None  # where it stood when the connection was lost
    _marks: deque[_Mark] = field(default_factory=deque)
    _own_clears: dict[int, _Cleared | None] = field(default_factory=dict)  # by wid; None: it has not returned

    @property
    def generation(self) -> int | None:
        """The lane's generation; ``None``: not known.

        It is not known while the message of a clear of our own is still to come: others may say what was before that.
        """
        return None if self._own_clears else self.stated_generation

    @property
    def asked_ns(self) -> int:
        """When the heartbeat was sent that vouches for L1; before all time: none does."""
        return self.fresh_until_ns - self.bound_ns + TICK_NS

    @property
    def heartbeat_ns(self) -> int:
        """Time between heartbeats: a quarter of the bound, so that three may be lost before L1 goes dark."""
        return self.bound_ns // 4

    @property
    def reply_timeout_ns(self) -> int:
        """Longest wait for a heartbeat's reply before the connection counts as dead."""
        return self.bound_ns // 2

    # -- events from the connection

    def lost(self, reason: str) -> list[Action]:
        """The connection is gone, or is given up. Also the event of a fork, in the child."""
        self.state = State.DOWN
        self.identity = 0
        self._last = self.position or self._last
        self.position = None
        self.applied = None
        self.fresh_until_ns = 0
        self.last_error = reason
        self._sent.clear()
        self._void = 0
        self.stated_generation = None
        self._own_clears.clear()
        return [Detach(), Suspect()]

    def expect_clear(self, wid: int) -> None:
        """This process is about to clear the lane under this id. What others say of its generation may be older.

        And if it drops its entries itself when that is done, its own message, which may come later, would without this
        make suspect what was written since.
        """
        self._own_clears[wid] = None

    def cleared(self, wid: int, now_ns: int, *, has_dropped: bool = True) -> None:
        """It has done so, or given up. What is written from now on is newer than the clear.

        Args:
            has_dropped: Whether all of the lane was dropped here. If not, the message makes it suspect.
        """
        if wid in self._own_clears:
            self._own_clears[wid] = _Cleared(now_ns, has_dropped)

    def connected(self, identity: int) -> list[Action]:
        """A new connection is subscribed; ``identity`` is the server's, 0 if that is not known.

        The first heartbeat must follow at once.
        """
        actions = self.lost("waiting for the first heartbeat")
        self.state = State.SYNC
        self.identity = identity or CHAINED
        return actions

    def heartbeat_sent(self, now_ns: int) -> None:
        """A heartbeat goes out. Call it *before* the bytes are written: the instant must not be late."""
        self._sent.append(now_ns)

    def forget_heartbeat(self) -> None:
        """The oldest unanswered heartbeat did not run (its script was not loaded) and is sent again."""
        if self._sent:
            self._sent.popleft()
            self._void = max(0, self._void - 1)

    def suspended(self) -> list[Action]:
        """The machine slept for a time that the monotonic clock does not show.

        Heartbeats sent before that would vouch for longer than their bound, so their replies only say where the lane
        stands.
        """
        self.fresh_until_ns = 0
        self._void = len(self._sent)
        return [Suspect(), Vouch(0)]

    def heartbeat_reply(self, reply: Any, now_ns: int) -> list[Action]:
        """The reply to the oldest unanswered heartbeat: ``[epoch, seq, wid, generation, placement version, ends]``."""
        if self.state is State.DOWN or not self._sent:
            return self._give_up("a reply that nobody asked for")
        sent_ns = self._sent.popleft()
        try:
            there = Position(*map(unsigned, (int(reply[0], 16), int(reply[1]), int(reply[2], 16))))
            generation = unsigned(int(reply[3], 16))
            self.ring = reply[4] if len(reply) > 4 else None
            ends = parse_ends(reply[5] if len(reply) > 5 else None)
        except (TypeError, ValueError, IndexError, KeyError):
            said = "the listener was refused: {}" if isinstance(reply, Exception) else "heartbeat not understood: {!r}"
            return self._give_up(said.format(reply))
        self.counters.heartbeats += 1
        self.round_trips.add(now_ns - sent_ns)
        actions: list[Action] = []
        if self.state is State.SYNC:
            self.state = State.LIVE
            self.counters.resyncs += 1
            actions.append(Attach(self.identity))
        elif there != self.position or self.stated_generation not in (None, generation):
            # A message that the server sent before this reply has not come: it is lost. Or the record was.
            self.counters.gaps += 1
            actions.append(Suspect())
        if self.epoch != there.epoch:
            self.counters.forks += self.epoch is not None
            # A new record has one random number as epoch and as generation. To be said at the first heartbeat too: this
            # process may have changed something before, on a server that has been replaced since.
            actions.append(Forked(there.epoch, None if there.epoch == generation else ends, there.seq))
        elif self.identity == CHAINED:
            actions += self._doubt(there, sent_ns, now_ns)
        elif self.position is not None and there.seq < self.position.seq:
            # Behind a proxy another primary has taken over, and nobody has met it anew. What it lacks is known even so.
            self.counters.forks += 1
            actions.append(Forked(there.epoch, {there.epoch: there.seq}, there.seq))
        self.epoch = there.epoch
        self.position = there
        self.stated_generation = generation
        # What was cleared before this heartbeat was sent is in the reply, whether or not its message ever comes.
        for wid, cleared in list(self._own_clears.items()):  # a copy: others add to it
            if cleared is not None and cleared.at_ns <= sent_ns:
                self._own_clears.pop(wid, None)
        self.last_error = ""
        if self._void:
            self._void -= 1
            return actions
        # L1 compares with a clock that lags by up to one tick, so one tick is taken off.
        self.fresh_until_ns = sent_ns + self.bound_ns - TICK_NS
        actions.append(Vouch(self.fresh_until_ns))
        return actions

    def message(self, payload: bytes) -> list[Action]:
        """One message of the lane's channel."""
        self.counters.received += 1
        try:
            return self._follow(parse_message(payload))
        except DecodeError as error:
            return self.bad_frame(str(error))

    def bad_frame(self, reason: str) -> list[Action]:
        """A message could not be understood. It may have named any key."""
        self.counters.bad_frames += 1
        return self._give_up(reason)

    def overdue(self, now_ns: int) -> bool:
        """Whether the oldest unanswered heartbeat has waited too long."""
        return bool(self._sent) and now_ns - self._sent[0] >= self.reply_timeout_ns

    def deadline_ns(self) -> int | None:
        """The instant at which :meth:`overdue` becomes true; ``None`` while no heartbeat is out."""
        return self._sent[0] + self.reply_timeout_ns if self._sent else None

    # -- inside

    def _doubt(self, there: Position, sent_ns: int, now_ns: int) -> list[Action]:
        """What is to be made of a server that may be another than before, and does not say so.

        If the lane stands where it stood, nothing is lost. Else others have written, perhaps after a failover: then the
        new primary lacks what the old one had not passed on. It has what the old one had before replication lags.
        """
        known, marks = self.position or self._last, self._marks
        while marks and (marks[0].epoch != there.epoch or (len(marks) > 1 and self._is_old(marks[1]))):
            marks.popleft()  # the newest of those that are old enough stays
        in_doubt = known is not None and known != there
        end = marks[0].seq if marks and self._is_old(marks[0]) else 0
        if in_doubt:
            self.counters.forks += known is not None and there.seq < known.seq
            while len(marks) > bool(end):
                marks.pop()
        marks.append(_Mark(sent_ns, now_ns, there.epoch, there.seq))
        return [Forked(there.epoch, {there.epoch: end}, there.seq)] if in_doubt else []

    def _is_old(self, mark: _Mark) -> bool:
        """Whether a primary that took over since the last answer has what was there at a mark."""
        return mark.answered_ns <= self._marks[-1].sent_ns - LAG_NS

    def _follow(self, message: Message) -> list[Action]:
        actions: list[Action] = []
        if self.state is State.LIVE:
            here = self.position
            assert here is not None
            if (
                message.seq != here.seq + 1
                or message.prev != here.wid
                or (message.epoch != here.epoch and message.operation != "E")
            ):
                self.counters.gaps += 1
                # What is missing may have been a clear, or the whole record: readers ask until a heartbeat tells.
                self.stated_generation = None
                actions.append(Suspect())
            self.position = Position(message.epoch, message.seq, message.wid)
        # In SYNC there is no position yet; messages still poison what is in flight.
        return actions + self._heed(message)

    def _heed(self, message: Message) -> list[Action]:
        """What a message asks for, wherever it stands in the chain."""
        if message.operation == "E":  # somebody found the server replaced; the next heartbeat says what it lost
            return [Suspect()]
        if message.operation != "C":
            return [Apply(message.wid, message.keys)]
        self.stated_generation = message.wid
        # Once our own call has returned and dropped everything itself, what L1 holds is newer. Not before.
        own = self._own_clears.pop(message.wid, None)
        return [] if own is not None and own.has_dropped else [Suspect()]

    def _give_up(self, reason: str) -> list[Action]:
        return [*self.lost(reason), Reconnect(reason)]


def parse_ends(field: bytes | None) -> dict[int, int]:
    """Return what a lane record says about earlier epochs: each with its last number.

    Raises:
        ValueError: It is not of the form ``epoch:seq,epoch:seq,...``.
    """
    if not field:
        return {}
    pairs = (pair.split(b":") for pair in field.split(b","))
    # Newest first; an epoch that stands there twice was picked up again by another primary, and ended there later.
    return {int(epoch, 16): int(seq) for epoch, seq in reversed(list(pairs))}
