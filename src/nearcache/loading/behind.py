"""Write-behind: changes wait in a queue of their lane in Redis until the user's writer has taken them. Steps only.

A change and its record in the queue are one step of one script: what was acknowledged is in the queue. The mark ``P``
of the key says that one waits, so that nobody loads the old value into the cache meanwhile, however the new one may
have got out of it: who asks for a lease is given the value in the queue.

One process at a time owns a lane's queue, by a lock with an end. It is given the records in their order, and whatever
is not settled when it dies is given to the next owner, again in its order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .._store import Op, Store
from ..absence import ABSENT
from ..backlog import Backlog, Change, DeadLetter, order
from ..clocks import NS_PER_MS, suspended_ns
from ..codecs import is_deletion, peek_ids, thaw
from ..errors import DecodeError, ShardError
from ..keys import decode_key
from ..l2 import Exchange
from ..placement import LaneNames
from .acking import confirmed
from .claims import Owned
from .replies import MISSING, REFUSED, STORED, answer, errors_in
from .steps import Steps
from .swapping import find
from .tier import LEASE_LONGEST_NS, Tier, hex_id, new_id
from .tokens import in_order
from .versions import GENERATIONS
from .ways import Way, put

#: Of one reply: bytes of records, and dead letters.
_REPLY_BYTES: Final = b"4000000"
_PAGE: Final = 500
#: What the keys of records begin with that are of another shape than ours. No encoded key does.
_STRANGE: Final = b"?"


# -- changes -----------------------------------------------------------------------------------------------------


@confirmed
def delete_behind(tier: Tier, store: Store[Any, Any], name: Any, way: Way, *, version: int = 0) -> Steps[bool | None]:
    """Drop every copy of a key, and queue its deletion. Returns whether L2 or this L1 held one.

    Args:
        version: The write that must be there; 0: whatever is there. If it is another, ``None`` is returned.
    Raises:
        ShardError: It is not known to be done. An invalidation is owed.
        BacklogFullError: There is no room in the queue. Nothing was changed.
    """
    lane, encoded = tier.place(name)
    op, since = Op(name, lane, wid=new_id(), write=True), tier.serial(lane)
    mode = way.mark + (b"CAS" + hex_id(version) if version else b"")
    keys = tier.write_keys(lane, [encoded], [tier.names[lane].queue])
    generation = tier.lanes[lane].generation or 0
    sealed = tier.codec.seal_deletion(op.wid, key=encoded)
    try:
        store.l1_open(op)
        was_here = store.l1_erase(name)
        for _ in range(GENERATIONS):
            command = tier.call(tier.scripts.set, keys, hex_id(op.wid), hex_id(generation), mode, b"1", sealed)
            heard, _ = yield from put(tier, lane, [command], way)
            if heard.status == STORED:
                tier.acknowledge(lane, heard.epoch, heard.seq, (encoded,), since)
                store.l1_finish(op, None, 0, 0)
                tier.count(invalidations=1)
                return was_here or heard.existed > 0
            generation = heard.generation
            if heard.status == REFUSED:
                store.l1_abandon(op, drop=True)
                return None
    except BaseException as error:
        tier.give_up(store, op, encoded, error)
        raise
    store.l1_abandon(op, drop=True)
    raise tier.outrun(lane)


def take_behind(tier: Tier, store: Store[Any, Any], name: Any, way: Way) -> Steps[Any]:
    """Queue the deletion of a key and return its value, or MISSING: of several callers one gets it."""
    while True:
        there = yield from find(tier, store, name)
        if there.value is MISSING:
            return MISSING
        if (yield from delete_behind(tier, store, name, way, version=there.version)) is not None:
            return there.value


# -- the owner of a queue ----------------------------------------------------------------------------------------


def is_owned(mark: bytes, time: Sequence[bytes]) -> bool:
    """Whether a process owns a queue, by the mark that says until when, and by the server's ``TIME``.

    Nobody owns one for longer than a lease can be. By a mark that says so the clock was set back since, and a process
    that lives is about to prolong its own.
    """
    left_ms = int(mark[18:] or 0) - int(time[0]) * 1000 - int(time[1]) // 1000
    return 0 < left_ms <= LEASE_LONGEST_NS // NS_PER_MS


class Queues:
    """What one process knows of the queues: which of them it owns, and how far it has read.

    Attributes:
        token: Names the owner: 16 hexadecimal digits, its own.
        lengths: Records in each queue, when it was last asked.
    """

    def __init__(self, lanes: int, backlog: Backlog) -> None:
        self.backlog = backlog
        self.token = hex_id(new_id())
        self.lengths = [0] * lanes
        self._from = [b"0"] * lanes
        self._is_page_full = [False] * lanes
        self._identities = [0] * lanes  # of who answered last
        self._locked_ns = [0] * lanes  # when the lock that is held was last asked for, or prolonged

    def fetch(self, tier: Tier) -> Steps[list[ShardError]]:
        """Ask for what there is to do on every lane, and keep what is owned. Returns what failed."""
        now_ns = tier.clock()
        self._locked_ns = [_lasting_ns(tier)] * len(self.lengths)
        exchanges = [Exchange(lane, [self._command(tier, lane)]) for lane in range(len(self.lengths))]
        replies = yield exchanges
        failed = []
        for lane, reply in enumerate(replies):
            errors = errors_in(reply)
            if errors:  # perhaps of records that have been given out, to nobody
                failed.append(errors[0])
                self.lose(tier, lane)
            elif self._is_replaced(tier, lane, reply.identity):
                self.lose(tier, lane)
                self.lengths[lane] = int(reply.values[0][1])
            else:
                self._take(tier, lane, reply.values[0], now_ns)
        return failed

    def _is_replaced(self, tier: Tier, lane: int, identity: int) -> bool:
        """Whether another server has taken over with a queue of this process's: as it had been some time ago, perhaps.

        Then records are in it that this process has settled, and nobody gives them to him unless he begins anew.
        """
        known = self._identities[lane]
        self._identities[lane] = identity or known  # 0: it does not say who it is
        return lane in tier.queues and identity not in (0, known)

    def _command(self, tier: Tier, lane: int) -> Any:
        names = tier.names[lane]
        count = b"0" if self.backlog.is_full else b"%d" % _PAGE
        arguments = (self.token, b"%d" % tier.lease_ms_on(lane), count, _REPLY_BYTES, self._from[lane])
        keys = [names.queue, names.owner, names.lane_key]
        return (tier.scripts.dequeue, len(keys), *keys, tier.ring, hex_id(new_id()), *arguments)

    def _take(self, tier: Tier, lane: int, reply: list[Any], now_ns: int) -> None:
        status, length, fresh, *rest = reply
        self.lengths[lane] = int(length)
        if int(status) != 1 or not int(length):
            self.lose(tier, lane)
            return
        if int(fresh):
            self.lose(tier, lane)
        tier.queues[lane] = Owned(self.token, now_ns)
        records, deliveries, urgent, told_ms = rest
        self._is_page_full[lane] = len(records) == _PAGE
        asked_for_old = self._from[lane] != b">"
        for place, (record, fields) in enumerate(records):
            if fields is None:  # somebody has deleted it from the stream
                continue
            encoded, envelope = _content(record, fields)
            given = int(deliveries[place]) if place < len(deliveries) else 1
            # Both by the server's clock. It may have been set back meanwhile; what is not made yet is made now.
            age_ms = max(0, int(told_ms) - order(record)[0])
            self.backlog.add(lane, encoded, record, envelope, now_ns - age_ms * NS_PER_MS, given)
        with contextlib.suppress(ValueError):  # nobody has ever waited, or it is nothing that a script has written
            self.backlog.hurry(lane, urgent)
        if asked_for_old and not self.backlog.is_full:
            self._from[lane] = records[-1][0] if records else b">"

    def is_catching_up(self, tier: Tier) -> bool:
        """Whether more of what former owners were given is to come: they may have written later changes of a key."""
        return not self.backlog.is_full and any(self._from[lane] != b">" for lane in tier.queues)

    def has_more(self, tier: Tier) -> bool:
        """Whether another look is likely to bring more, which may be later changes of the same keys."""
        return self.is_catching_up(tier) or (
            not self.backlog.is_full and any(self._is_page_full[lane] for lane in tier.queues)
        )

    def owned(self, tier: Tier, lanes: Iterable[int]) -> Steps[set[int]]:
        """Return those of the lanes whose queue is this process's, to begin something now.

        A lock whose end may be near is prolonged first: the process may have stood still, and the listener with it,
        or the machine have slept, until another one had the queue and wrote later changes.
        """
        owned, now_ns = {lane for lane in lanes if lane in tier.queues}, _lasting_ns(tier)
        asked = [lane for lane in owned if now_ns - self._locked_ns[lane] > tier.lease_ms * 500_000]
        if asked:
            replies = yield [Exchange(lane, [self._renew(tier, lane)]) for lane in asked]
            for lane, reply in zip(asked, replies, strict=True):
                if errors_in(reply) or not int(reply.values[0]):
                    self.lose(tier, lane)
                else:
                    self._locked_ns[lane] = now_ns
        return owned & tier.queues.keys()

    def _renew(self, tier: Tier, lane: int) -> Any:
        return (tier.scripts.renew, 1, tier.names[lane].owner, self.token, b"%d" % tier.lease_ms_on(lane))

    def touch(self, tier: Tier) -> None:
        """The writer has got so far: it does not hang."""
        for lane in list(tier.queues):
            tier.queues[lane] = Owned(self.token, tier.clock())

    def lose(self, tier: Tier, lane: int) -> None:
        """The lane's queue is not known to be this process's any more."""
        tier.queues.pop(lane, None)
        self.backlog.forget(lane)
        self._from[lane] = b"0"

    def release(self, tier: Tier) -> Steps[None]:
        """Give back what is owned, so that others need not wait for its end."""
        exchanges = [
            Exchange(lane, [tier.call(tier.scripts.abort, _as_lease(names), hex_id(new_id()), self.token)])
            for lane, names in enumerate(tier.names)
            if lane in tier.queues
        ]
        for lane in list(tier.queues):
            self.lose(tier, lane)
        if exchanges:
            yield exchanges

    def written(self, tier: Tier, changes: Sequence[Change]) -> Steps[None]:
        """Tell the queues what has been written. What cannot be told is written again."""
        by_lane: dict[int, list[Change]] = {}
        for change in changes:
            by_lane.setdefault(change.lane, []).append(change)
        exchanges = [Exchange(lane, [self._written(tier, lane, share)]) for lane, share in by_lane.items()]
        replies = yield exchanges
        for (lane, share), reply in zip(by_lane.items(), replies, strict=True):
            if errors_in(reply) or int(reply.values[0][0]) != 1:
                self.lose(tier, lane)
                continue
            self.lengths[lane] = int(reply.values[0][4])
            self.backlog.settle(share)

    def _written(self, tier: Tier, lane: int, share: list[Change]) -> Any:
        names = tier.names[lane]
        keys = tier.write_keys(lane, [change.encoded for change in share], [names.queue, names.owner])
        pairs = [part for change in share for part in (change.id, _wid_of(change.envelope))]
        ids = [record for change in share for record in change.ids]
        return tier.call(tier.scripts.written, keys, hex_id(new_id()), self.token, *pairs, *ids)

    def bury(self, tier: Tier, change: Change, error: str) -> Steps[bool]:
        """Make a change a dead letter, and drop its value from the cache. Returns whether that was done."""
        names = tier.names[change.lane]
        keys = tier.write_keys(change.lane, [change.encoded], [names.queue, names.owner, names.dead])
        arguments = (self.token, error.encode("utf-8", "replace")[:2000], b"%d" % change.attempts, *change.ids)
        command = tier.call(tier.scripts.buried, keys, hex_id(new_id()), *arguments)
        reply = (yield [Exchange(change.lane, [command])])[0]
        if errors_in(reply) or int(reply.values[0][0]) != 1:
            self.lose(tier, change.lane)
            return False
        self.lengths[change.lane] = int(reply.values[0][4])
        self.backlog.settle([change])
        return True


def _content(record: bytes, fields: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return encoded key and envelope of a record; of a stranger's, a key of its own, so that it is no key's change."""
    if fields[::2] == [b"k", b"e"]:
        return fields[1], fields[3]
    return _STRANGE + record, b""


def read_change(tier: Tier, change: Change) -> tuple[Any, Any]:
    """Return key and value of a change; ABSENT for a deletion.

    Raises:
        DecodeError: Nobody with this process's settings can read it.
    """
    if change.encoded.startswith(_STRANGE):
        raise DecodeError("it is no record of nearcache's: these have a key, k, and then an envelope, e")
    key = decode_key(change.encoded)
    return key, thaw(tier.codec.loads_queued(change.envelope, key=change.encoded))


def _lasting_ns(tier: Tier) -> int:
    """What time it is by a clock that goes on while the machine sleeps, as that of the server does."""
    return tier.clock() + suspended_ns()


def _as_lease(names: LaneNames) -> list[bytes]:
    """The keys of scripts that speak of a lease, for the ownership of a queue: there is no value that goes with it."""
    return [names.value(b""), names.owner, names.lane_key]


def _wid_of(envelope: bytes) -> bytes:
    try:
        return hex_id(peek_ids(envelope)[0])
    except DecodeError:
        return b"-"


# -- looking at the queues ---------------------------------------------------------------------------------------


def queue_ends(tier: Tier) -> Steps[dict[int, bytes]]:
    """Return the id of the newest record of each lane's queue, by lane; of lanes whose queue is not empty.

    Raises:
        ShardError: A lane did not answer.
    """
    newest = (b"+", b"-", b"COUNT", b"1")
    replies = yield [Exchange(lane, [(b"XREVRANGE", names.queue, *newest)]) for lane, names in enumerate(tier.names)]
    return {lane: found.values[0][0][0] for lane, found in enumerate(map(answer, replies)) if found.values[0]}


def still_waiting(tier: Tier, ends: Mapping[int, bytes]) -> Steps[dict[int, bytes]]:
    """Return those of the lanes in whose queues records up to these still wait, and tell the owners to hurry.

    Raises:
        ShardError: A lane did not answer.
    """
    asked = [(lane, tier.names[lane], end) for lane, end in ends.items()]
    replies = yield [
        Exchange(lane, [tier.call(tier.scripts.hurry, [names.queue, names.lane_key], end)])
        for lane, names, end in asked
    ]
    left = zip(asked, map(answer, replies), strict=True)
    return {lane: end for (lane, _, end), found in left if int(found.values[0])}


def dead_letters(tier: Tier, lane: int, after: bytes = b"") -> Steps[tuple[list[DeadLetter], bytes]]:
    """Return a page of what could not be written on a lane, the oldest first, and where the next page begins.

    Raises:
        ShardError: The lane did not answer.
    """
    start = b"(" + after if after else b"-"
    command = (b"XRANGE", tier.names[lane].dead, start, b"+", b"COUNT", b"%d" % _PAGE)
    entries = answer((yield [Exchange(lane, [command])])[0]).values[0]
    letters = [_letter(tier, lane, record, fields) for record, fields in entries]
    return letters, entries[-1][0] if len(entries) == _PAGE else b""


def _letter(tier: Tier, lane: int, record: bytes, fields: list[bytes]) -> DeadLetter:
    """Return a dead letter, of whatever a record in their stream tells."""
    told = _by_name(fields)
    encoded, envelope = told.get(b"k", b""), told.get(b"e")
    key, value = readable_key(encoded), ABSENT
    with contextlib.suppress(DecodeError):
        _, value = read_change(tier, Change(lane, encoded, envelope or b"", [record], 0))
    try:
        attempts = int(told.get(b"n", b"0"))
    except ValueError:
        attempts = 0
    return DeadLetter(
        id=f"{in_order(tier).index(lane)}-{record.decode()}",
        key=key,
        value=value,
        is_deletion=envelope is not None and is_deletion(envelope),
        error=told.get(b"x", b"").decode("utf-8", "replace"),
        attempts=attempts,
    )


def readable_key(encoded: bytes) -> Any:
    """Return a key, or its encoding if nobody can read it."""
    try:
        return decode_key(encoded)
    except DecodeError:
        return encoded


def _by_name(fields: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Return the fields of a stream's record."""
    return dict(zip(fields[::2], fields[1::2], strict=True))


def key_of_letter(tier: Tier, name: str) -> Steps[bytes | None]:
    """Return the encoded key of a dead letter; None if there is none of this id, or it has no key.

    Raises:
        ValueError: Not an id.
        ShardError: The lane did not answer.
    """
    return _by_name((yield from _fields_of(tier, *place_of(tier, name)))).get(b"k")


def _fields_of(tier: Tier, lane: int, record: bytes) -> Steps[Sequence[bytes]]:
    """Return the fields of a dead letter; none if it is gone."""
    found = answer((yield [Exchange(lane, [(b"XRANGE", tier.names[lane].dead, record, record)])])[0]).values[0]
    return found[0][1] if found else ()


def replay(tier: Tier, encoded: bytes, letters: Sequence[str]) -> Steps[int]:
    """Put the newest dead letter of a key into the queue of its lane. The others of these go: it has overtaken them.

    Args:
        encoded: The key, as :func:`key_of_letter` returned it.
        letters: Their ids.
    Returns:
        How many are dead letters no more: none if the newest is gone, or lacks an envelope, or its key has a newer
        change waiting.
    Raises:
        ShardError: A lane did not answer.
    """
    home = tier.lane_of(encoded)
    places = sorted((place_of(tier, letter) for letter in letters), key=lambda place: order(place[1]))
    lane, newest = places.pop()
    if lane != home:
        newest = yield from _bring_home(tier, lane, newest, home)
    if not newest:
        return 0
    records = [*(record for lane, record in places if lane == home), newest]
    names = tier.names[home]
    keys = [names.value(encoded), names.lease(encoded), names.dead, names.queue, names.lane_key]
    command = tier.call(tier.scripts.requeue, keys, hex_id(new_id()), *records)
    status, *rest = answer((yield [Exchange(home, [command])])[0]).values[0]
    if int(status) != 1:
        return 0
    count = int(rest[-1])
    for lane, record in places:  # only now: those that stay where they are cannot come to lie behind newer ones
        if lane != home:
            count += yield from _drop(tier, lane, record)
    return count


def _bring_home(tier: Tier, lane: int, record: bytes, home: int) -> Steps[bytes]:
    """Move a dead letter to the lane that its key has by now: only there is it known whether a newer change waits.

    Returns its record there; empty if it is gone, or another process has moved it. It is there before it leaves, so
    that none is lost; of two processes the one that takes it away has moved it.
    """
    fields = yield from _fields_of(tier, lane, record)
    if not fields:
        return b""
    names = tier.names[home]
    command = tier.call(tier.scripts.rebury, [names.dead, names.lane_key], hex_id(new_id()), *fields)
    _, _, moved = answer((yield [Exchange(home, [command])])[0]).values[0]
    if (yield from _drop(tier, lane, record)):
        return bytes(moved)
    yield from _drop(tier, home, moved)
    return b""


def _drop(tier: Tier, lane: int, record: bytes) -> Steps[int]:
    """Take a dead letter away. Returns whether it was there."""
    return int(answer((yield [Exchange(lane, [(b"XDEL", tier.names[lane].dead, record)])])[0]).values[0])


def discard(tier: Tier, ids: Iterable[str]) -> Steps[int]:
    """Forget dead letters. Returns how many there were.

    Raises:
        ValueError: Not an id.
        ShardError: A lane did not answer.
    """
    by_lane: dict[int, list[bytes]] = {}
    for text in ids:
        lane, record = place_of(tier, text)
        by_lane.setdefault(lane, []).append(record)
    if not by_lane:
        return 0
    replies = yield [Exchange(lane, [(b"XDEL", tier.names[lane].dead, *records)]) for lane, records in by_lane.items()]
    return sum(int(answer(reply).values[0]) for reply in replies)


def place_of(tier: Tier, text: str) -> tuple[int, bytes]:
    """Return lane and record of a dead letter by its id.

    Raises:
        ValueError: Not an id.
    """
    place, _, record = str(text).partition("-")
    lanes = in_order(tier)  # which is the same in all processes
    if not place.isdigit() or int(place) >= len(lanes) or not record.replace("-", "").isdigit():
        raise ValueError(f"{text!r} is no id of a dead letter: give what dead_letters() lists")
    return lanes[int(place)], record.encode()
