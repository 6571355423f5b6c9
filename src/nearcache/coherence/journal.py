"""The journal of one lane: what this process has changed there, and what it still owes.

Redis replicates asynchronously. A primary that fails takes with it what its replica has not heard of, deletions
included: old values come back. No cache can mend that alone, but the writers together can, for each knows what it
wrote. The lane record says where the old epoch ended on the new primary; every process then invalidates again exactly
those of its own changes that lie beyond.

The same goes for a change whose answer never came. It may have happened or not, now or later; so its keys are *owed* an
invalidation, until one is acknowledged. Meanwhile this process takes nothing from L2 for them: whatever is there may be
what it meant to be rid of.

A hold that could not be begun, or not be ended, may be there too, for as long as it was to last at most. Its end is
owed under its token, which is nobody else's.

Bounded in keys and in bytes, for a long key takes the room of several. Acknowledged changes are forgotten after a
minute, the oldest first when there are too many; what is owed is never forgotten: where it would be too much, the lane
as a whole is owed a clear. Only of holds the oldest are then left to end by their time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

#: Changed keys remembered, and for how long: replication that lags by more has other troubles.
LIMIT: Final = 65_536
KEEP_NS: Final = 60_000_000_000
#: A key takes the room of one for each time that it is as long as this, and of one more: 16 MiB in all.
ROOM_BYTES: Final = 256
#: Epochs that are remembered to be over, and to have ended where.
_EPOCHS: Final = 64
#: What one message invalidates at most.
BATCH_KEYS: Final = 128
_BATCH_BYTES: Final = 60_000


#: Epoch, number, instant, keys. A bare tuple of what the collector need not look at is not looked at either.
_Change = tuple[int, int, int, Sequence[bytes] | None]

#: How an invalidation ends a hold: for how many milliseconds it goes on (0: not at all), and its token.
HoldEnd = tuple[bytes, bytes]


class Debt(NamedTuple):
    """What is to be invalidated together.

    Attributes:
        keys: Encoded; ``None``: the whole lane is to be cleared.
        serial: When it was asked for: what has come to be owed since then is another debt.
        hold: The hold of these keys that is to be ended with it; empty: none.
    """

    keys: list[bytes] | None
    serial: int
    hold: HoldEnd | tuple[()] = ()


class Journal:
    """See the module. Not locked: the caller is.

    Attributes:
        serial: Counts the times that something came to be owed.
        newest: Epoch and number of the last acknowledged change, or load that others hear of; None after a new epoch,
            until there is another.
        has_strayed: Whether a change was acknowledged in an epoch that the lane is not known to be in, or to come from.
        forgotten: Changed keys that had to be forgotten before their time: a failover now could not be repaired whole.
        replayed: Keys that a failover lost and this process invalidated again.
    """

    __slots__ = (
        "_buried", "_burier", "_changes", "_clear_owed", "_doubted", "_ends", "_epoch", "_has_forked", "_held",
        "_held_room", "_limit", "_over", "_owed", "_owed_room", "_room", "forgotten", "has_strayed", "newest",
        "replayed", "serial",
    )  # fmt: skip

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._changes: deque[_Change] = deque()
        self._room = 0  # what their keys take
        self._owed: dict[bytes, int] = {}  # key -> serial of its newest debt
        self._owed_room = 0  # what these take
        self._held: dict[HoldEnd, dict[bytes, None]] = {}  # hold to be ended -> its keys, each owed an invalidation too
        self._held_room = 0  # what these take
        self._clear_owed = 0  # serial of the newest debt of a clear; 0: none
        self.serial = 1
        self._doubted = 0  # what was sent before this serial counts for nothing
        self._epoch: int | None = None
        self._has_forked = False  # whether the lane's record has passed on to another server, or been lost
        self._ends: Mapping[int, int] | None = {}
        self._over: deque[int] = deque(maxlen=_EPOCHS)  # epochs that this process knows to be over
        self._buried: set[int] = set()  # epochs over by a new record, of which there are changes
        self._burier: int | None = None  # the epoch that the newest of these records began
        self.newest: tuple[int, int] | None = None
        self.has_strayed = False
        self.forgotten = 0
        self.replayed = 0

    # -- acknowledged changes

    def note(
        self, epoch: int, seq: int, keys: Sequence[bytes] | None, now_ns: int, since: int, *, settles: bool = True
    ) -> bool:
        """A change of ``keys`` (encoded; None: a clear) is acknowledged, as this number of this epoch. O(1).

        Args:
            since: The serial before it was sent. What has come to be owed later is not settled by it.
            settles: Whether what was owed for these keys is. If not, they are only owed once more when it is lost.
        Returns:
            Whether that counts. If not, it is owed, or dead with the record that it was made in.
        """
        is_over = epoch in self._over and not self._survives(epoch, seq)
        if since < self._doubted or (is_over and self._ends is not None):
            # The acknowledgement took longer than the server lived, and what took over does not have the change.
            self._lose(keys)
            return False
        self._remember(epoch, seq, keys, now_ns)
        if is_over:  # dead with its record, unless that is back some day
            self._buried.add(epoch)
            return False
        self.reach(epoch, seq)
        if epoch != self._epoch and self._epoch is not None and not self._survives(epoch, seq):
            self.has_strayed = True  # a primary that has just taken over, or one that was replaced and begins anew
        if self._owed and settles:  # what they were owed for is out of date now
            self._settle(list(self._owed) if keys is None else keys, since)
        return True

    def _remember(self, epoch: int, seq: int, keys: Sequence[bytes] | None, now_ns: int) -> None:
        changes = self._changes
        changes.append((epoch, seq, now_ns, keys))
        self._room += _room(keys)
        oldest_ns = now_ns - KEEP_NS
        while changes[0][2] < oldest_ns:
            self._room -= _room(changes.popleft()[3])
        while self._room > self._limit:
            forgotten = changes.popleft()[3]
            self._room -= _room(forgotten)
            self.forgotten += 1 if forgotten is None else len(forgotten)

    def reach(self, epoch: int, seq: int) -> None:
        """A change of this process, or a value that it loaded, has this number. They come in any order."""
        if self.newest is None or self.newest[0] != epoch or self.newest[1] < seq:
            self.newest = (epoch, seq)

    def _survives(self, epoch: int, seq: int) -> bool:
        """Whether the server of now has a change of an epoch that is over."""
        return self._ends is not None and seq <= self._ends.get(epoch, -1)

    def _lose(self, keys: Sequence[bytes] | None) -> None:
        self.replayed += 1 if keys is None else len(keys)
        if keys is None:
            self.owe_clear()
        else:
            self.owe(keys)

    def forked(self, epoch: int, ends: Mapping[int, int] | None, seq: int = 0) -> int:
        """The lane is in a new epoch. What the server has lost is owed again; returns how many keys.

        Args:
            epoch: The new one.
            ends: Earlier epochs -> their last number that the server has. An epoch that is not among them passed on a
                primary of which this one never heard. ``None``: the record began anew, and all older values are dead.
            seq: The lane's number when it was asked. It tells what was lost of an epoch that was over, and is back.
        """
        if epoch in self._over:
            # The server, or its record, was replaced and is reached once more. It holds what it did, however it began,
            # and none of what others have taken meanwhile.
            self._over.remove(epoch)
            ends = {**(ends or {}), epoch: seq}
        if self.newest is not None and (self.newest[0] != epoch or epoch in (ends or ())):
            self.newest = None  # whatever is heard from now on comes later
        replayed = self.replayed
        if ends and self._ends and self._epoch in ends:
            # It comes from there, with all that was there. The record itself tells of the newest few ends only.
            ends = {old: end for old, end in self._ends.items() if old != epoch} | dict(ends)
            ends = dict(list(ends.items())[-_EPOCHS:])
        if self._epoch is not None and self._epoch != epoch:
            self._over.append(self._epoch)
        self._over.extend(old for old in ends or () if old not in self._over and old != epoch)
        self._has_forked = self._has_forked or bool(ends) or self._epoch not in (None, epoch)
        self._epoch, self._ends = epoch, ends
        self.has_strayed = False
        if ends is None:
            self._burier = epoch
        elif ends and epoch != self._burier and self._burier not in ends:
            self._buried = set()  # a server that has not heard of that record: what it ended may be alive here
        changes, self._changes = self._changes, deque()
        buried: set[int] = set()
        for change in changes:
            made, seq, _, keys = change
            is_current = made == epoch and epoch not in (ends or ())
            if is_current or self._survives(made, seq):
                self._changes.append(change)
            elif ends is None or (made in self._buried and made not in ends):
                # Dead with the record that it was made in. But a replica that has not heard of the new record may
                # become primary, and the old one be back.
                buried.add(made)
                self._changes.append(change)
            else:
                self._lose(keys)
        self._buried = buried
        self._room = sum(_room(keys) for *_, keys in self._changes)
        return self.replayed - replayed

    def reclaim(self, before_ns: int) -> None:
        """The lane is still in its epoch. Changes of one that it does not come from are owed again.

        Their server was perhaps replaced, lost its record, and began another: of that epoch no lane ever tells the end.
        If it is the one to come instead, to invalidate once more costs a value that was acknowledged, but does no harm.

        Args:
            before_ns: When the lane was asked. It may have passed on since, to where a later change was acknowledged.
        """
        self.has_strayed = False
        changes, self._changes = self._changes, deque()
        for change in changes:
            made, seq, at_ns, keys = change
            if made == self._epoch or made in self._buried or self._survives(made, seq):
                self._changes.append(change)
            elif at_ns >= before_ns:
                self._changes.append(change)
                self.has_strayed = True
            else:
                self._lose(keys)
        self._room = sum(_room(keys) for *_, keys in self._changes)

    def doubt(self) -> None:
        """Those who read elsewhere may not have heard of what the lane has taken of late: it is owed again.

        So is what is under way. No lane takes what is to be refused that has never lost what it had been told.
        """
        self.serial += 1
        self._doubted = self.serial
        if self._has_forked or any(epoch != self._epoch for epoch, *_ in self._changes):
            changes, self._changes, self._room = self._changes, deque(), 0
            for *_, keys in changes:
                self._lose(keys)

    # -- what is owed

    @property
    def owes(self) -> bool:
        """Whether anything is owed."""
        return bool(self._owed) or bool(self._clear_owed) or bool(self._held)

    @property
    def owed_count(self) -> int:
        """How many keys are owed an invalidation, or the end of a hold; one more for a clear."""
        return len(self._owed.keys() | {key for keys in self._held.values() for key in keys}) + bool(self._clear_owed)

    @property
    def owes_clear(self) -> bool:
        """Whether a clear is owed."""
        return bool(self._clear_owed)

    def owed_keys(self) -> list[bytes]:
        """Return the keys that are owed an invalidation each."""
        return list(self._owed)

    def owed_holds(self) -> dict[HoldEnd, list[bytes]]:
        """Return the holds that are to be ended, each with its keys."""
        return {hold: list(keys) for hold, keys in self._held.items()}

    def is_owed(self, key: bytes) -> bool:
        """Whether what L2 holds for this key must not be believed."""
        return bool(self._clear_owed) or key in self._owed

    def owe(self, keys: Sequence[bytes], hold: HoldEnd | tuple[()] = ()) -> None:
        """These keys are owed an invalidation, and the end of this hold, if one is given."""
        self.serial += 1
        if hold:
            held = self._held.setdefault(hold, {})
            self._held_room += _room(key for key in dict.fromkeys(keys) if key not in held)
            held.update(dict.fromkeys(keys))
            while len(self._held) > 1 and self._held_room > self._limit:
                self._held_room -= _room(self._held.pop(next(iter(self._held))))
        if not self._clear_owed:
            debts = dict.fromkeys(keys, self.serial)
            self._owed_room += _room(key for key in debts if key not in self._owed)
            self._owed.update(debts)
        if self._clear_owed or self._owed_room > self._limit:
            self.owe_clear()

    def owe_clear(self) -> None:
        """The whole lane is."""
        self.serial += 1
        self._clear_owed = self.serial
        self._owed.clear()
        self._owed_room = 0

    def due(self) -> Debt | None:
        """Return what to invalidate next, to be handed to :meth:`paid` when that is acknowledged."""
        if self._clear_owed:
            return Debt(None, self.serial)
        for hold, keys in self._held.items():
            return Debt(_batch(keys), self.serial, hold)
        return Debt(_batch(self._owed), self.serial) if self._owed else None

    def paid(self, debt: Debt) -> None:
        """It has been acknowledged. A key that has come to be owed anew meanwhile still is: the older request says
        nothing about a change that came after it."""
        if debt.keys is None:
            if self._clear_owed <= debt.serial:
                self._clear_owed = 0
            return
        self._settle(debt.keys, debt.serial)
        if debt.hold:
            self.ended(debt.hold, debt.keys)

    def _settle(self, keys: Iterable[bytes], serial: int) -> None:
        """What these keys were owed up to this serial is owed no more."""
        for key in keys:
            if self._owed.get(key, serial + 1) <= serial:
                del self._owed[key]
                self._owed_room -= _room((key,))

    def ended(self, hold: HoldEnd, keys: Sequence[bytes]) -> None:
        """The end of a hold has been acknowledged. Nothing is ever held again under its token."""
        held = self._held.get(hold, {})
        for key in keys:
            if key in held:
                del held[key]
                self._held_room -= _room((key,))
        if not held:
            self._held.pop(hold, None)

    def after_fork(self) -> None:
        """In the child: the parent goes on remembering its own changes.

        Both go on owing what is owed: the child must not read it before it is paid, and the parent may end at once, as
        it does where a process becomes a daemon. To invalidate twice does no harm.
        """
        self._changes.clear()
        self._room = 0


def _batch(keys: Iterable[bytes]) -> list[bytes]:
    """The first of these keys, as many as one message takes."""
    batch: list[bytes] = []
    size = 0
    for key in keys:
        size += len(key) + 8
        if batch and (size > _BATCH_BYTES or len(batch) == BATCH_KEYS):
            break
        batch.append(key)
    return batch


def _room(keys: Iterable[bytes] | None) -> int:
    """Return for how many short keys these take the room."""
    if keys is None:
        return 1
    room = 0
    for key in keys:
        room += 1 + len(key) // ROOM_BYTES
    return room
