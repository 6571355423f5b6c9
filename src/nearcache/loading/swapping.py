"""Changing what is there: compare and swap, take, touch. Steps only: no I/O here.

Every one of them acts on the value in L2, whatever L1 holds: a decision about a value that may be old would be no
decision. What is refused changes nothing and tells nobody, and L1 keeps no copy older than what refused it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from .._store import Op, Store
from ..absence import Absent
from ..changes import ATTEMPTS, SKIP, Change, Swapped
from ..codecs import peek_ids, peek_tags
from ..errors import ContentionError, DecodeError, NotReplicatedError
from ..flights import ABANDONED, Read, Signal
from ..freshness import Life
from ..l2 import Exchange
from .acking import confirmed
from .aging import Times, judge, passed_on
from .reading import accept, keep
from .replies import MISSING, REFUSED, STORED, TAGGED_RANGE, answer
from .steps import Await, Steps
from .tagging import Tag, are_current, depend, generations
from .tier import Tier, hex_id, new_id
from .versions import GENERATIONS
from .ways import DIRECT, Way, put
from .writing import invalidate, set_commands

#: The first tries follow each other at once; then each waits, for longer and longer, at most so long.
_AT_ONCE: Final = 2
_LONGEST_WAIT_S: Final = 0.05


class There(NamedTuple):
    """What L2 holds under a key.

    Attributes:
        value: Or MISSING.
        version: The write id of the value; 0 if it is MISSING.
        wid: That of the envelope, which stands in the way even if nobody here can read it; None: there is none.
        life: What it passes on to a value that is made of it.
    """

    value: Any
    version: int
    wid: int | None
    life: Life = Life(0)
    start_ns: int = 0
    tags: tuple[tuple[int, int], ...] = ()
    under: tuple[int, int] | None = None


@confirmed
def swap(
    tier: Tier,
    store: Store[Any, Any],
    name: Any,
    change: Change,
    ttl: Callable[[Any], int],
    tags: tuple[Tag, ...] = (),
    way: Way = DIRECT,
) -> Steps[Swapped]:
    """Replace a value by what is made of it, if nobody else has written meanwhile; else try again.

    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing has been changed.
        ContentionError: Others were quicker, every time. Nothing has been changed.
        ShardError: It is not known to be stored. If ``error.sent``, it may be; an invalidation is owed.
        Anything that the change raises.
    """
    there = None if change.guess is None else There(MISSING, change.guess, change.guess or None)
    for attempt in range(ATTEMPTS):
        if there is None:
            there = yield from find(tier, store, name)
        new = change.make(there.value, there.version)
        if new is SKIP:
            return Swapped(False, there.value, SKIP)
        found = yield from _store(tier, store, name, new, there, change, ttl, tags, way)
        if isinstance(found, bool):
            return Swapped(found, there.value, new)
        there = found
        if attempt >= _AT_ONCE:
            longest_s = min(_LONGEST_WAIT_S, 0.0005 * 2.0 ** min(attempt, 10))
            yield Await(Signal(), longest_s * (new_id() / 2.0**64))
            there = None
    raise ContentionError(name, ATTEMPTS)


def _pay(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[None]:
    """Make the invalidation that is owed. Whether a replica has it is asked of the caller's own change."""
    with suppress(NotReplicatedError):
        yield from invalidate(tier, store, name)


def find(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[There]:
    """Read what L2 holds now, whatever L1 has.

    Raises:
        ShardError: The shard did not answer.
    """
    lane, encoded = tier.place(name)
    if tier.is_owed(lane, encoded):
        yield from _pay(tier, store, name)
    op = Read(name, lane, tier.clock())
    outcome = ABANDONED
    try:
        store.l1_open(op)
        value_name = tier.names[lane].value(encoded)
        start_ns = tier.clock()
        commands = [(b"PTTL", value_name), (b"GET", value_name), tier.ask_generation(lane)]
        reply = answer((yield [Exchange(lane, commands)])[0])
        pttl_ms, data, fields = reply.values
        generation, identity = tier.generation_in(lane, fields), reply.identity
        found = yield from accept(tier, store, lane, encoded, data, pttl_ms, generation, start_ns, strict=True)
        keep(tier, store, op, found, len(data or b""), identity)
        outcome = found.value
        return _there(found.value, found.under, data, generation, pttl_ms, start_ns)
    except BaseException:
        store.l1_abandon(op, drop=False)
        raise
    finally:
        op.resolve(outcome, tier.lock)


def _there(
    value: Any, under: tuple[int, int] | None, data: bytes | None, generation: int | None, pttl_ms: int, start_ns: int
) -> There:
    """Put together what is known, with the ids as the script reads them.

    A value that counts is there, whatever generation was read beside it: that was asked for once more.
    """
    wid, counts = None, value is not MISSING
    if data is not None and len(data) >= 20 and (counts or int.from_bytes(data[12:20], "big") == generation):
        wid = _wid_in(data)
    if wid is None or data is None or not counts or isinstance(value, Absent):
        return There(MISSING, 0, wid)
    return There(value, wid, wid, passed_on(data, pttl_ms), start_ns, peek_tags(data), under)


def _wid_in(data: bytes) -> int:
    return int.from_bytes(data[4:12], "big")


def _store(
    tier: Tier,
    store: Store[Any, Any],
    name: Any,
    value: Any,
    there: There,
    change: Change,
    ttl: Callable[[Any], int],
    tags: tuple[Tag, ...],
    way: Way,
) -> Steps[There | bool]:
    """Store a value in place of another. Returns whether it is there to stay (not on hold), or what refused it."""
    lane, encoded = tier.place(name)
    content = tier.codec.encode_of(name, value)
    keeps = change.keeps and bool(there.version)
    ttl_ms, soft_ms = there.life if keeps else tier.freshness.life(ttl(value))
    op = Op(name, lane, wid=new_id(), write=True, announced=True)
    mode = b"CAS" + hex_id(there.wid) if there.wid is not None else b"NX"
    generation, since = tier.lanes[lane].generation or 0, tier.serial(lane)
    try:
        store.l1_open(op)
        tier.writing(op.wid, name, value)
        stated, under = there.tags, there.under
        if not keeps:
            under = depend(tier, store, lane, tags)
            stated = (yield from generations(tier, store, tags)) if tags else ()
        for _ in range(GENERATIONS):
            sealed = tier.codec.seal(content, op.wid, generation, ttl_ms, key=encoded, tags=stated, soft_ttl_ms=soft_ms)
            start_ns = tier.clock()
            args = (tier, lane, [encoded], [sealed], op.wid, generation, ttl_ms)
            commands = set_commands(*args, mode=mode, keep=keeps and not soft_ms, way=way)
            heard, identity = yield from put(tier, lane, commands, way)
            if heard.status == STORED:
                tier.stored(lane, heard, encoded, since, len(sealed))
                tier.sample(name)
                deadline_ns, _ = judge(tier, there.start_ns if keeps else start_ns, ttl_ms, Times(ttl_ms, soft_ms))
                store.l1_finish(op, value, 0 if heard.held else op.wid, deadline_ns, len(sealed), identity, under)
                return not heard.held
            generation = heard.generation
            if heard.status == REFUSED:
                store.l1_abandon(op, drop=True)  # L1 may hold an older value than the one that refused (R4)
                data, pttl_ms = heard.envelope, heard.pttl_ms
                found = yield from accept(tier, store, lane, encoded, data, pttl_ms, generation, start_ns, strict=True)
                return _there(found.value, found.under, data, generation, pttl_ms, start_ns)
    except BaseException as error:
        tier.give_up(store, op, encoded, error)
        raise
    store.l1_abandon(op, drop=True)
    raise tier.outrun(lane)


@confirmed
def take(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[Any]:
    """Drop every copy of a key, in every process, and return the value that L2 held, or MISSING.

    Raises:
        ShardError: It is not known to be done; an invalidation is owed.
    """
    lane, encoded = tier.place(name)
    was_owed, since = tier.is_owed(lane, encoded), tier.serial(lane)  # then what is there should have gone before
    op = Op(name, lane, wid=new_id(), write=True)
    try:
        store.l1_open(op)
        store.l1_erase(name)
        start_ns = tier.clock()
        command = tier.call(tier.scripts.take, tier.write_keys(lane, [encoded]), hex_id(op.wid))
        reply = answer((yield [Exchange(lane, [command])])[0])
        _, generation, data, epoch, seq = reply.values[0]
        tier.acknowledge(lane, epoch, seq, (encoded,), since)
        store.l1_finish(op, None, 0, 0)
        tier.count(invalidations=1)
    except BaseException as error:
        tier.give_up(store, op, encoded, error)
        raise
    current = tier.generation(generation)
    found = yield from accept(tier, store, lane, encoded, data, -1, current, start_ns, strict=True)
    return MISSING if was_owed or isinstance(found.value, Absent) else found.value


@confirmed
def touch(tier: Tier, store: Store[Any, Any], name: Any, ttl_ms: int, *, whole: bool) -> Steps[tuple[bool, Any]]:
    """Give a value another lifetime. Returns whether there is one and, if it is asked for whole, the value.

    Copies in L1 whose lifetime gets shorter go, in every process. Others stay, for as long as they would have.

    Raises:
        ShardError: It is not known to be done; an invalidation is owed.
    """
    lane, encoded = tier.place(name)
    if tier.is_owed(lane, encoded):
        yield from _pay(tier, store, name)
    op, since = Op(name, lane, wid=new_id(), write=True), tier.serial(lane)
    try:
        store.l1_open(op)
        start_ns = tier.clock()
        last = b"-1" if whole else TAGGED_RANGE[1]
        keys = tier.write_keys(lane, [encoded])
        command = tier.call(tier.scripts.touch, keys, hex_id(op.wid), b"%d" % ttl_ms, last)
        reply = answer((yield [Exchange(lane, [command])])[0])
        status, generation, *rest = reply.values[0]
        if int(status) == 0:
            store.l1_abandon(op, drop=True)
            return False, MISSING
        data, epoch, seq = rest
        if int(seq):
            tier.acknowledge(lane, epoch, seq, (encoded,), since)
            store.l1_finish(op, None, 0, 0)
        else:
            # Who is shown the value must not be given an older copy afterwards (R4).
            store.l1_abandon(op, drop=whole and store.l1_wid(name) not in (0, _wid_in(data)))
    except BaseException as error:
        tier.give_up(store, op, encoded, error)
        raise
    if whole:
        current = tier.generation(generation)
        found = yield from accept(tier, store, lane, encoded, data, ttl_ms, current, start_ns, strict=True)
        return found.value is not MISSING, found.value
    try:
        peek_ids(data)
        tags = peek_tags(data)
    except DecodeError:  # readers take it for none
        return False, MISSING
    return (yield from are_current(tier, store, tags)) if tags else True, MISSING
