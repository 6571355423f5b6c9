"""Versions of the list of shards: which lane a key has, and what follows from a change of that."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._putting import Said, said
from .._store import Op, Store
from ..coherence import Histogram, Journal, Lane, unsigned
from ..errors import ServerReplyError, ShardError
from ..keys import slot_of
from ..l2 import Command, Reply
from ..placement import ClusterPlacement, LaneNames, Placement
from ..rings import Ring, Shards, admits
from .counters import Judged

if TYPE_CHECKING:
    import threading

    from typing_extensions import Self

    from ..clocks import Clock
    from ..coherence import HoldEnd, OrderedHorizon


#: A generation changes when somebody clears the namespace; a write that meets so many new ones in a row gives up.
GENERATIONS: Final = 5


class Held(NamedTuple):
    """A hold.

    Attributes:
        names: Of the keys.
        until_ns: When it ends if nobody ends it.
        linger_ms: How long it goes on after its end, as scripts are told it.
    """

    names: Sequence[Any]
    until_ns: int
    linger_ms: bytes


class Newest:
    """Which tier is in use now. Shared by all versions."""

    def __init__(self, tier: Any) -> None:
        self.tier = tier

    def is_astray(self, lane: int, encoded: bytes) -> bool:
        """Whether a key is not read at this lane any more."""
        return bool(self.tier.has_moved and self.tier.table[slot_of(encoded)] != lane)


class Versions:
    """What a tier knows of versions. Its ``ring``, ``table``, ``other`` and ``active`` never change.

    :meth:`under` makes another tier for another version, which shares all else. So an operation goes on with the tier
    that it began with: it places all its keys, and says its version, as of then. A server that is two steps ahead
    refuses it.

    Attributes:
        ring: The version, as scripts are told it.
        table: The lane of each slot, where its keys are read and written.
        other: The lane where they are invalidated beside, while the list of shards changes; else None.
        active: The lanes of this version.
        left: What shards that are none any more are told instead of ``ring``.
        name_at: Returns what has a lane now, for people: in a cluster a node. ``shard_names`` are the lanes' own names.
        resting: The lanes of those. Shared by all versions.
        held: The holds that this process has begun and not ended, by their tokens.
        changing: Of each version in the middle of a change that an operation still goes on with, its tier, by ``ring``.
        outdated: Called when a lane is found to be ahead of this process.
        agreed: Called when a lane is found to have what this process has.
        has_moved: Whether any key has ever moved.
        has_changed: Whether there has ever been a change that had a middle.
    """

    # What the tier has.
    names: list[LaneNames]
    lanes: list[Lane]
    journals: list[Journal]
    lags: list[Histogram]
    judged: list[Judged]
    adopted: dict[int, int]
    bound_ns: int
    clock: Clock
    lock: threading.RLock
    observed: OrderedHorizon | None

    def __init__(self, placement: Placement | ClusterPlacement, most_lanes: int) -> None:
        self.shard_names = list(placement.names)
        self.name_at: Callable[[int], str] = self.shard_names.__getitem__
        self.most_lanes = most_lanes
        self.ring = b"1"
        self.table = placement.table
        self.other: bytes | None = None
        self.active: tuple[int, ...] = tuple(range(len(placement.names)))
        self.left = b"1"
        self.resting: set[int] = set()
        self.held: dict[bytes, Held] = {}
        self.changing: weakref.WeakValueDictionary[bytes, Self] = weakref.WeakValueDictionary()
        self.outdated: Callable[[], None] = _nothing
        self.agreed: Callable[[], None] = _nothing
        self._newest = Newest(self)
        self.has_moved = self.has_changed = False
        self._versions: weakref.WeakSet[Any] = weakref.WeakSet([self])

    @property
    def is_changing(self) -> bool:
        """Whether some operation may be under way that has to be heard by two owners."""
        return self.has_changed and bool(self.changing)  # the latter is dear to ask

    @property
    def now(self) -> Self:
        """The tier of the version that is in use now."""
        tier: Self = self._newest.tier
        return tier

    def ask_generation(self, lane: int) -> Command:
        """The command that reads a lane's generation, and whether its readers are up to date: a GET asks nobody."""
        return (b"HMGET", self.names[lane].lane_key, b"g", b"r")

    def generation_in(self, lane: int, fields: list[bytes | None]) -> int | None:
        """Return the generation that a lane record states; ``None`` where it states none, and then nothing is alive.

        Raises:
            ServerReplyError: This version of the list of shards is over, and what was read is nobody's any more.
        """
        generation, ring = fields
        if ring is not None and ring != self.ring and not admits(self.ring, ring):
            self.outdated()
            raise ServerReplyError(self.shard_names[lane], "NCTOPO " + ring.decode(errors="replace"))
        return None if generation is None else self.generation(generation) or None

    def said(self, lane: int, answer: Any) -> Said:
        """Return what the script ``set`` has answered.

        Raises:
            ServerReplyError: It is no such answer: see :meth:`damaged`.
        """
        try:
            return said(answer)
        except ValueError as error:
            raise self.damaged(lane) from error

    @staticmethod
    def generation(text: Any) -> int:
        """Return the generation that a script has answered; 0, which no value has, if it is none (:meth:`damaged`)."""
        try:
            return unsigned(int(text, 16))
        except (TypeError, ValueError):
            return 0

    def damaged(self, lane: int) -> ServerReplyError:
        """What to raise of an answer that holds what no script writes. Whether anything was done is not known."""
        record = self.names[lane].lane_key.decode(errors="replace")
        return ServerReplyError(self.shard_names[lane], f"NCRECORD {record} holds what no script writes")

    def outrun(self, lane: int) -> ServerReplyError:
        """What to raise of a write that met another generation each time. It is not done."""
        return ServerReplyError(self.shard_names[lane], f"GENERATION changed {GENERATIONS} times during one write")

    def under(self, ring: Ring, numbers: dict[str, int]) -> Self:
        """Return the tier of another version, which is in use from now on.

        Args:
            numbers: The lane of each shard, by name.
        """
        tier = copy.copy(self)
        tier.ring, tier.left = ring.text, ring.left
        tier.table = _table(ring.reads, numbers)
        tier.other = None if ring.also is None else _table(ring.also, numbers)
        tier.active = tuple(numbers[endpoint.name] for endpoint in ring.endpoints)
        self._versions.add(tier)
        if tier.other is not None:
            self.changing[tier.ring] = tier
            self.share(has_changed=True)
        if tier.table != self.table:
            self.share(has_moved=True)
        self._newest.tier = tier
        return tier

    def as_of(self, ring: bytes) -> Self:
        """Return a tier that differs in nothing but the version that scripts are told."""
        tier = copy.copy(self)
        tier.ring = ring
        return tier

    def is_astray(self, lane: int, encoded: bytes) -> bool:
        """Whether a key is not read at this lane any more. Cheap if none has ever moved."""
        return self._newest.is_astray(lane, encoded)

    def share(self, **attributes: Any) -> None:
        """Give all versions something new to share."""
        for tier in list(self._versions):
            for name, value in attributes.items():
                setattr(tier, name, value)

    def add_lane(self, number: int, name: str) -> None:
        """Know a further lane, or give a number that is not in use any more to another one."""
        if number == len(self.lanes):
            self.names.append(self.names[0])
            self.shard_names.append(name)
            self.journals.append(Journal())
            self.lags.append(Histogram())
            self.judged.append(Judged())
            self.lanes.append(Lane(self.bound_ns))
            return
        self.shard_names[number] = name
        self.journals[number] = Journal()
        self.lags[number] = Histogram()
        self.judged[number] = Judged()
        self.lanes[number] = Lane(self.bound_ns)
        self.adopted.pop(number, None)
        self.resting.discard(number)

    def owe_on(self, lanes: Iterable[int]) -> None:
        """Let what is owed be owed on every lane where this version invalidates; a clear on these lanes too.

        A server that was ahead may have refused a change, which has to be made where the others look now.
        """
        with self.lock:
            owed = dict.fromkeys(key for journal in self.journals for key in journal.owed_keys())
            has_clear = any(journal.owes_clear for journal in self.journals)
            for key in owed:
                slot = slot_of(key)
                for table in (self.table, self.other):
                    if table is not None and not self.journals[table[slot]].is_owed(key):
                        self.journals[table[slot]].owe([key])
            self._owe_holds()
            for lane in lanes if has_clear else ():
                self.journals[lane].owe_clear()

    def _owe_holds(self) -> None:
        """The same for the ends of holds: what is on hold stays so where a key moves to, until its time ends."""
        for number, journal in enumerate(self.journals):
            for hold, keys in journal.owed_holds().items():
                for key in keys:
                    for table in (self.table, self.other):
                        if table is not None and table[slot_of(key)] != number:
                            self.journals[table[slot_of(key)]].owe([key], hold)

    def doubt(self) -> None:
        """Owe again what shards may have taken although this version was over: see :meth:`Journal.doubt`.

        To be followed by :meth:`owe_on`.
        """
        with self.lock:
            for journal in self.journals:
                journal.doubt()

    def acknowledge(
        self,
        lane: int,
        epoch: bytes | int,
        seq: bytes | int,
        encoded: Sequence[bytes] | None,
        since: int,
        *,
        settles: bool = True,
    ) -> bool:
        """A change of these keys (None: a clear) is in the server, as this number of this epoch.

        Args:
            since: The journal's serial (:meth:`serial`) before the change was sent.
            settles: Whether what was owed for these keys is paid by it: see :meth:`Journal.note`.
        Returns:
            Whether that counts: not if the server is known to have been replaced by one that has not heard of it.
        Raises:
            ServerReplyError: These are no numbers: see :meth:`damaged`.
        """
        try:
            place = (epoch if isinstance(epoch, int) else unsigned(int(epoch, 16))), int(seq)
        except (TypeError, ValueError) as error:
            raise self.damaged(lane) from error
        if self.observed is not None:
            self.observed.observe(lane, place)
        with self.lock:
            counts = self.journals[lane].note(*place, encoded, self.clock(), since, settles=settles)
            if not counts:
                self.pass_on_debts()
            return counts

    def owe(self, lane: int, encoded: Sequence[bytes], hold: HoldEnd | tuple[()] = ()) -> None:
        """A change of these keys failed, or nobody knows: an invalidation is owed until one is acknowledged.

        Args:
            hold: The hold that is to be ended with it.
        """
        with self.lock:
            self.journals[lane].owe(encoded, hold)
            self.pass_on_debts()

    def answered(self, lane: int, encoded: Sequence[bytes], reply: Reply | ShardError, since: int) -> ShardError | None:
        """A request that began with an invalidation of these keys was answered: that is acknowledged, or else owed.

        Args:
            since: As :meth:`acknowledge` takes it.
        Returns:
            Why it is owed.
        """
        first = reply if isinstance(reply, ShardError) else reply.values[0]
        try:
            if isinstance(first, ShardError):
                raise first
            *_, epoch, seq = first
            self.acknowledge(lane, epoch, seq, encoded, since)
        except ShardError as error:
            self.owe(lane, encoded)
            return error
        return None

    def pass_on_debts(self) -> None:
        """Something has come to be owed: where this version is over, let it be owed where the others look now.

        An operation that began before a change of the list may fail after it. Nobody pays on a lane that was left.
        """
        if self.now is not self:
            self.now.owe_on(self.now.active)


class TagStore(Store[bytes, int]):
    """The generations of tags, by the encoded key of the tag's record."""

    def __init__(self, newest: Newest, maxsize: int, *, lanes: int) -> None:
        super().__init__(maxsize, lanes=lanes)
        self._newest = newest

    def l1_finish(self, op: Op, value: Any, wid: int, *rest: Any, **more: Any) -> bool:
        """See :class:`Store`. What was read of an owner that has been left is not kept."""
        return super().l1_finish(op, value, 0 if self._newest.is_astray(op.lane, op.key) else wid, *rest, **more)


def _table(shards: Shards, numbers: dict[str, int]) -> bytes:
    """Return the lane of each slot."""
    lanes = bytes(numbers[name] for name in shards.names)
    return shards.placement.table.translate(lanes + bytes(256 - len(lanes)))


def _nothing() -> None:
    """Nobody is told."""
