"""Writing: set, invalidate and clear. Steps only: no I/O here.

L1 takes a written value only after the server has acknowledged it, and only if nobody else's message about the key
arrived in between: the other write may be the later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._putting import Put, Said
from .._store import Op, Store
from ..absence import Absent
from ..codecs import Encoded
from ..errors import ShardError, with_key
from ..freshness import ENDLESS_MS, Life
from ..l2 import STAGE_BYTES, STAGING, Command, Exchange, stage
from .acking import confirmed
from .aging import Times, judge
from .reading import accept
from .replies import MISSING, REFUSED, STORED, answer, errors_in
from .steps import Steps
from .tagging import Tag, depend, generations
from .tier import Tier, hex_id, new_id
from .versions import GENERATIONS
from .ways import DIRECT, Way, put


@confirmed
def write(
    tier: Tier,
    store: Store[Any, Any],
    name: Any,
    value: Any,
    ttl_ms: int,
    *,
    tags: tuple[Tag, ...] = (),
    absent_only: bool = False,
    way: Way = DIRECT,
) -> Steps[Any]:
    """Store a value in L2, then in L1. Returns MISSING, or with ``absent_only`` the live value that stood in the way.

    A key on hold takes no value: what it has is removed, as by an invalidation.

    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Before anything is sent.
        ShardError: It is not known to be stored. If ``error.sent``, it may be; no L1 copy is kept. An invalidation of
            the key is owed, and will be made up for; where the tier forgives, that is all.
        BacklogFullError: There is no room in the queue. Nothing was changed.
    """
    lane, encoded = tier.place(name)
    life = tier.freshness.life(ttl_ms)
    letter = _letter(tier, name, value, life, tags, way)
    op = Op(name, lane, wid=new_id(), write=True, announced=True)
    try:
        store.l1_open(op)
        tier.expect_message(lane, op.wid, tier.clock())
        tier.writing(op.wid, name, value)
        if isinstance(letter, _Letter) and tags:
            known = way.known
            letter.under = depend(tier, store, lane, tags) if known is None else known.under[lane]
            letter.tags = (yield from generations(tier, store, tags)) if known is None else known.stated
        there = yield from _write(tier, store, op, encoded, value, letter, life, b"NX" if absent_only else b"", way)
    except BaseException as error:
        if tier.give_up(store, op, encoded, error) and way.room is None:  # what is not queued is not written
            tier.refusals.changed(error)
            return MISSING
        raise
    if isinstance(there, _Unread) and not tier.forgives:
        raise there.error
    return MISSING if isinstance(there, _Unread) else there


class _Unread(NamedTuple):
    """There is a value in the way, and why it is not known which. Nothing has been changed, so nothing is owed."""

    error: ShardError


@dataclass(slots=True)
class _Letter:
    """What is sent where it takes more than the usual form, which :class:`Put` makes in compiled code.

    Attributes:
        content: The value, encoded.
        tags: The generations that the envelope states.
        under: What the L1 entry depends on.
        size_bytes: Of the envelope, once it is sealed.
    """

    content: Encoded
    tags: tuple[tuple[int, int], ...] = ()
    under: tuple[int, int] | None = None
    size_bytes: int = 0


def _letter(tier: Tier, name: Any, value: Any, life: Life, tags: tuple[Tag, ...], way: Way) -> Put | _Letter:
    plain = tier.codec.plain
    try:
        if plain is None or tags or way.room is not None or tier.witness is not None or life.ttl_ms > ENDLESS_MS:
            return _Letter(tier.codec.encode(value))
        return Put(value, plain)
    except Exception as error:
        with_key(error, name)
        raise


def _sealed(
    tier: Tier, lane: int, encoded: bytes, letter: Put | _Letter, wid: int, generation: int, life: Life, mode: bytes,
    way: Way,
) -> Sequence[Command]:  # fmt: skip
    """Return the commands that write it."""
    ttl_ms, soft_ms = life
    if not isinstance(letter, _Letter):
        names, script, mode = tier.names[lane], tier.scripts.set, way.mark + mode
        letter.seal(names, script, tier.ring, encoded, wid, generation, ttl_ms, soft_ms, mode, STAGING)
        return letter
    envelope = tier.codec.seal(
        letter.content, wid, generation, ttl_ms, key=encoded, tags=letter.tags, soft_ttl_ms=soft_ms
    )
    letter.size_bytes = len(envelope)
    return set_commands(tier, lane, [encoded], [envelope], wid, generation, ttl_ms, mode=mode, way=way)


def _write(
    tier: Tier, store: Store[Any, Any], op: Op, encoded: bytes, value: Any, letter: Put | _Letter, life: Life,
    mode: bytes, way: Way,
) -> Steps[Any]:  # fmt: skip
    since = tier.serial(op.lane)
    generation = tier.lanes[op.lane].generation or 0 if way.known is None else way.known.generations[op.lane]
    for _ in range(GENERATIONS):
        start_ns = tier.clock()
        commands = _sealed(tier, op.lane, encoded, letter, op.wid, generation, life, mode, way)
        if way.room is None:
            reply = answer((yield [Exchange(op.lane, commands)])[0])
            heard, identity = tier.said(op.lane, reply.values[-1]), reply.identity
        else:
            heard, identity = yield from put(tier, op.lane, commands, way)
        if heard.status == STORED:
            tier.stored(op.lane, heard, encoded, since, letter.size_bytes)
            if heard.held:
                store.l1_finish(op, None, 0, 0)
            else:
                _keep(tier, store, op, value, letter, life, identity, start_ns)
            return MISSING
        if heard.status == REFUSED:
            found = yield from _look(tier, store, op, encoded, heard, start_ns)
            if found is not MISSING:
                return found
            # What is there is no value, or one that nobody here can read: this very one is replaced, and no other.
            there = heard.envelope
            mode = b"NX" if there is None else b"CAS%016x" % int.from_bytes(there[4:12], "big")
        generation = heard.generation
    raise tier.outrun(op.lane)


def _keep(
    tier: Tier, store: Store[Any, Any], op: Op, value: Any, letter: Put | _Letter, life: Life, identity: int,
    start_ns: int,
) -> None:  # fmt: skip
    """It is in the server: let L1 keep it."""
    ttl_ms, soft_ms = life
    under = letter.under if isinstance(letter, _Letter) else None
    if soft_ms or tier.freshness.beta:
        deadline_ns, _ = judge(tier, start_ns, ttl_ms, Times(ttl_ms, soft_ms))
    else:  # nearly every value
        deadline_ns = tier.deadline_ns(start_ns, ttl_ms, ttl_ms)
    if tier.sampler is not None:
        tier.sample(op.key)
    store.l1_finish(op, value, op.wid, deadline_ns, letter.size_bytes, identity, under)


def _look(tier: Tier, store: Store[Any, Any], op: Op, encoded: bytes, heard: Said, start_ns: int) -> Steps[Any]:
    """Return the value that stood in the way, ``_Unread`` if nobody knows, or MISSING if it is none."""
    try:
        found = yield from accept(
            tier, store, op.lane, encoded, heard.envelope, -1, heard.generation, start_ns, strict=True
        )
    except ShardError as error:
        tier.count(errors=1)
        store.l1_abandon(op, drop=True)
        return _Unread(error)
    if found.value is MISSING or isinstance(found.value, Absent):
        return MISSING
    store.l1_abandon(op, drop=True)  # L1 may hold an older value, and after this one it must not be read (R4)
    return found.value


def set_commands(
    tier: Tier,
    lane: int,
    encoded: list[bytes],
    sealed: list[bytes],
    wid: int,
    generation: int,
    ttl_ms: int,
    *,
    mode: bytes = b"",
    keep: bool = False,
    way: Way = DIRECT,
) -> list[Command]:
    """The commands that write values under one write id, with one message. The last one's answer counts.

    Args:
        mode: Of the script ``set``.
        keep: Whether the value that is there passes on what is left of its lifetime, whatever ``ttl_ms`` is.
        way: A queued value is not staged: it has to be copied anyway.
    """
    life, mode = b"KEEP" if keep else b"%d" % ttl_ms, way.mark + mode
    if way.room is not None:
        keys = tier.write_keys(lane, encoded, [tier.names[lane].queue])
        return [tier.call(tier.scripts.set, keys, hex_id(wid), hex_id(generation), mode, life, *sealed)]
    if len(sealed) == 1 and len(sealed[0]) < STAGE_BYTES:  # nearly every write
        keys = tier.write_keys(lane, encoded)
        return [tier.call(tier.scripts.set, keys, hex_id(wid), hex_id(generation), mode, life, sealed[0])]
    before, staging, envelopes = stage(tier.names[lane].prefix, hex_id(wid), sealed)
    arguments = (hex_id(wid), hex_id(generation), mode, life, *envelopes)
    return [*before, tier.call(tier.scripts.set, tier.write_keys(lane, encoded, staging), *arguments)]


@confirmed
def invalidate(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[bool]:
    """Drop every copy of a key, in every process. Returns whether L2 or this L1 held a live one, as far as L2 can tell:
    it does not ask whether the tags of what it holds are current.

    Raises:
        ShardError: It is not known to be done; this process has dropped its copy all the same. An invalidation is owed,
            and will be made up for; where the tier forgives, that is all.
    """
    shard, encoded = tier.place(name)
    op = Op(name, shard, wid=new_id(), write=True)
    held, since = False, tier.serial(shard)
    try:
        store.l1_open(op)
        held = store.l1_erase(name)
        reply = answer((yield [tier.invalidate_exchange(shard, [encoded], op.wid)])[0])
        _, _, existed, epoch, seq = reply.values[0]
        tier.acknowledge(shard, epoch, seq, (encoded,), since)
        store.l1_finish(op, None, 0, 0)
        tier.count(invalidations=1)
        return held or int(existed) > 0
    except BaseException as error:
        if tier.give_up(store, op, encoded, error):
            tier.refusals.changed(error)
            return held
        raise


@confirmed
def clear(tier: Tier, store: Store[Any, Any]) -> Steps[None]:
    """Give every lane a new generation: whatever was written before is dead, in every process. O(lanes).

    Raises:
        ShardError: Of the first lane that did not do it; the others have been cleared. It is owed.
    """
    ids = {number: new_id() for number in tier.active}
    for number, wid in ids.items():
        tier.lanes[number].expect_clear(wid)
    replies: list[Any] = [None] * len(ids)
    serials = [tier.serial(lane) for lane in ids]
    try:
        replies = yield [tier.clear_exchange(lane, wid) for lane, wid in ids.items()]
    finally:
        for number, reply, serial in zip(ids, replies, serials, strict=True):
            if reply is None or errors_in(reply):
                tier.owe_clear(number)
            else:
                _, _, epoch, seq = reply.values[0]
                tier.acknowledge(number, epoch, seq, None, serial)
            # Our id would be no safe guess: somebody may have cleared again. Readers ask until the lane tells.
            tier.lanes[number].stated_generation = None
            tier.suspect(store, number)
        store.drop_all(invalidated=True)
        for number, wid in ids.items():
            tier.lanes[number].cleared(wid, tier.clock())
    tier.count(invalidations=1)
    failed = next((value for reply in replies for value in errors_in(reply)), None)
    if failed is not None:
        tier.count(errors=1)
        if not tier.forgives:
            raise failed
        tier.refusals.changed(failed)


def pay(tier: Tier, lane: int) -> Steps[bool]:
    """Make the invalidations that are owed on a lane, and end holds by them. Returns whether nothing is owed now."""
    while (debt := tier.due(lane)) is not None:
        wid = new_id()
        if debt.keys is None:
            reply = yield from _clear_again(tier, lane, wid)
        else:
            reply = (yield [tier.invalidate_exchange(lane, debt.keys, wid, *debt.hold)])[0]
        if errors_in(reply):
            return False
        # A payment is a change like others: a failover may lose it too.
        *_, epoch, seq = reply.values[0]
        counts = tier.acknowledge(lane, epoch, seq, debt.keys, debt.serial)
        tier.paid(lane, debt)
        if not counts:  # a server that was replaced takes it and goes on taking it: the next heartbeat tries again
            return False
        tier.count(repaid=1 if debt.keys is None else len(debt.keys))
    return True


def _clear_again(tier: Tier, lane: int, wid: int) -> Steps[Any]:
    """Pay for a clear. Readers ask for the generation until the lane tells: the message may come after the reply.

    That message makes suspect what L1 has, of which nothing is dropped here.
    """
    tier.lanes[lane].expect_clear(wid)
    try:
        return (yield [tier.clear_exchange(lane, wid)])[0]
    finally:
        tier.lanes[lane].stated_generation = None
        tier.lanes[lane].cleared(wid, tier.clock(), has_dropped=False)
