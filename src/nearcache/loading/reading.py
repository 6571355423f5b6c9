"""Reading: what L1 misses, from L2. Steps only: no I/O here.

The order of things is the protocol (docs/coherence.md): the operation is registered with the store before the request
is sent, so that any message about the key, whenever it comes, keeps the answer out of L1.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .._envelopes import Opened, opened, whole
from .._getting import Get
from .._store import Store
from ..absence import Absent
from ..codecs import peek_absence, peek_ids, peek_tags
from ..errors import DecodeError, ShardError
from ..flights import ABANDONED, Load, Read
from ..freshness import IDLE_MS, is_worn
from ..l2 import Exchange
from .absences import note, noted
from .aging import Due, Times, judge, live_on, times_in
from .proof import prove, proven
from .replies import HEADER_RANGE, MISSING, TAGGED_RANGE, answer
from .steps import JoinRead, Steps
from .tagging import are_current, depend, tag_of
from .tier import Tier


class Found(NamedTuple):
    """What a GET found.

    Attributes:
        value: Or MISSING, or ABSENT, or a Failure.
        wid: The write's; 0 keeps what was found out of L1.
        deadline_ns: When an L1 copy must end.
        under: What the L1 copy is to depend on, if it has tags.
        due: The value, if it is to be loaded anew; else None.
    """

    value: Any
    wid: int
    deadline_ns: int
    under: tuple[int, int] | None
    due: Due | None = None


_NOTHING: Final = Found(MISSING, 0, 0, None)
#: A value of another generation than it is believed to be in use.
_ANOTHER: Final = Found(MISSING, 0, 0, None)


def read(
    tier: Tier, store: Store[Any, Any], key: Any, flight: Load | None = None, *, strict: bool = True
) -> Steps[Any]:
    """Return the value in L2, MISSING, or ABSENT or a Failure if that is known; L1 takes it when the protocol allows.

    Args:
        tier, store: The cache's.
        key: As the cache holds it.
        flight: The load that this is a part of, which is no fresher than the read.
        strict: Whether a value of which nobody can tell whether its tags are current is an error, and not absent.

    Raises:
        ShardError: The shard did not answer, or that of a tag, and there is no copy that may be served all the same.
    """
    try:
        return (yield from _read(tier, store, key, flight, strict=strict))
    except ShardError:
        value = stale_copy(tier, store, key, tier.place(key)[0])
        if value is MISSING:
            raise
        return value


def stale_copy(tier: Tier, store: Store[Any, Any], key: Any, lane: int) -> Any:
    """Return what L1 may serve of a lane whose shard has just failed to answer, or MISSING."""
    if tier.stale is None:
        return MISSING
    value = tier.stale.find(store, key, lane, tier.clock(), MISSING)
    if isinstance(value, Absent):
        return MISSING
    if value is not MISSING:
        tier.count(stale=1)
    return value


def _read(tier: Tier, store: Store[Any, Any], key: Any, flight: Load | None, *, strict: bool) -> Steps[Any]:
    shard, encoded = tier.place(key)
    if tier.is_owed(shard, encoded):
        tier.count(misses=1)
        return MISSING
    if tier.freshness.errors and (known := noted(tier, store, key)) is not MISSING:
        return known
    joined = store.l1_join(key)
    # Where no message would come to tell, what a read brings may be as old as the read.
    oldest_ns = max(tier.overtaken_ns, tier.clock() - tier.bound_ns)
    if tier.observed is not None:
        oldest_ns = max(oldest_ns, tier.observed.seen_ns(shard))
    if isinstance(joined, Read) and joined.since_ns > oldest_ns:
        if flight is not None:
            flight.rests_on(joined, joined.since_ns)
        outcome = yield JoinRead(joined)
        if isinstance(outcome, ShardError):
            raise outcome
        if outcome is not ABANDONED:
            _note_age(flight, joined)
            return outcome
    op = Read(key, shard, tier.clock())
    outcome = ABANDONED
    try:
        store.l1_open(op)
        if flight is not None:
            flight.rests_on(op, op.since_ns)
        outcome = yield from _fetch(tier, store, op, shard, encoded, flight, strict=strict)
        _note_age(flight, op)
        return outcome
    except BaseException as error:
        store.l1_abandon(op, drop=False)
        if isinstance(error, ShardError):
            outcome = error
            tier.count(errors=1)
        raise
    finally:
        op.resolve(outcome, tier.lock)


def _note_age(flight: Load | None, op: Read) -> None:
    if flight is not None:
        flight.due = op.due


def _fetch(
    tier: Tier, store: Store[Any, Any], op: Read, shard: int, encoded: bytes, flight: Load | None, *, strict: bool
) -> Steps[Any]:
    names = tier.names[shard]
    suspect = store.l1_suspect(op.key)
    if suspect is not None:
        wid, value, lane = suspect
        if tier.observed is not None and tier.observed.is_ahead(shard):
            tier.count(withheld=1)
        name, is_tagged = names.value(encoded), lane >= tier.derived.lanes
        current = yield from _revalidate(tier, store, op, shard, name, wid, is_tagged=is_tagged)
        if current:
            return value
    generation = tier.known_generation(shard)
    is_believed = generation is not None
    while True:
        start_ns = tier.clock()
        commands = Get(names.value_prefix, encoded, None if is_believed else names.lane_key, _usual(tier))
        exchange, proof = prove(tier, shard, commands)
        reply = proven(tier, proof, answer((yield [exchange])[0]))
        pttl_ms, data, identity = reply.values[0], reply.values[1], reply.identity
        if not is_believed:
            generation = tier.generation_in(shard, reply.values[2])
        elif identity != tier.lanes[shard].identity:
            generation = None  # another server than that whose messages are heard: it may have been cleared since
        found = yield from accept(
            tier, store, shard, encoded, data, pttl_ms, generation, start_ns, strict=strict, is_believed=is_believed
        )
        if found is not _ANOTHER:
            break
        # What is believed may be older than the envelope. The value is asked for once more, along with the generation:
        # behind a proxy two answers may be two servers', and make a value live that is dead on both.
        is_believed = False
    op.due = found.due
    if flight is not None and found.value is MISSING:
        flight.op = None  # before this read ends: who comes now may wait for what its load begins next
    size = len(data) if data is not None else 0
    keep(tier, store, op, found, size, identity)
    return found.value


def keep(tier: Tier, store: Store[Any, Any], op: Read, found: Found, size: int, identity: int) -> None:
    """Let L1 keep what a GET found, if the protocol allows."""
    if found.wid:
        if not op.storable:
            tier.judge(op.lane, poisoned=1)
        if isinstance(found.value, Absent):
            note(store, op, found.value, found.wid, found.deadline_ns, size, identity, found.under)
            return
        if tier.sampler is not None:
            tier.sample(op.key)
    store.l1_finish(op, found.value, found.wid, found.deadline_ns, size, identity, found.under)


def accept(
    tier: Tier,
    store: Store[Any, Any],
    lane: int,
    encoded: bytes,
    data: bytes | Opened | None,
    pttl_ms: int,
    generation: int | None,
    start_ns: int,
    *,
    strict: bool = False,
    is_believed: bool = False,
) -> Steps[Found]:
    """Judge what a GET returned.

    Args:
        data: The envelope.
        generation: Which the same server has stated, not before it returned that.
        is_believed: Whether it has not, and it may be older. Of a value of another one nothing is said then.
        strict: Whether a value of which nobody can tell whether its tags are current is an error, and not absent:
            for who would put another in its place, or say why there is none. Who loads then does so.
    Raises:
        ShardError: For that reason.
    """
    if data is None:
        tier.count(misses=1)
        return _NOTHING
    how = _usual(tier)
    usual = None if how is None else opened(data, how)
    if usual is not None and usual[2] == generation:
        value, wid, _, whole_ms = usual
        tier.count_hit(len(data))
        deadline_ns = tier.deadline_ns(start_ns, pttl_ms, whole_ms)
        return Found(value, wid if deadline_ns else 0, deadline_ns, None)
    data = whole(data)
    try:
        wid, written_in, whole_ms = peek_ids(data)
        if written_in != generation:
            if is_believed:
                return _ANOTHER
            tier.count(misses=1)
            return _NOTHING
        value, envelope = tier.codec.loads(data, key=encoded)
    except DecodeError as error:
        tier.count_unreadable(encoded, error)
        return _NOTHING
    under = None
    if envelope.tags:
        under = yield from _under(tier, store, lane, envelope.tags, strict=strict)
        if under is None:
            tier.count(misses=1)
            return _NOTHING
    tier.count_hit(len(data))
    times = Times(whole_ms, envelope.soft_ttl_ms, envelope.cost_ms)
    pttl_ms = yield from live_on(tier, lane, encoded, wid, pttl_ms, times)
    deadline_ns, is_due = judge(tier, start_ns, pttl_ms, times)
    due = None
    if is_due and not isinstance(value, Absent):
        due = Due(wid, tuple(hashed for hashed, _ in envelope.tags))
    return Found(value, wid if deadline_ns else 0, deadline_ns, under, due)


def _usual(tier: Tier) -> tuple[int, Any, int] | None:
    """What opens an envelope with nothing out of the ordinary in it, if that is all that there is to do."""
    return None if tier.freshness.beta else tier.codec.usual


def _under(
    tier: Tier, store: Store[Any, Any], lane: int, tags: tuple[tuple[int, int], ...], *, strict: bool = False
) -> Steps[tuple[int, int] | None]:
    """Return what an L1 entry with these tags depends on; None if one of them is not current, or nobody can tell."""
    under = depend(tier, store, lane, [tag_of(tier, hashed) for hashed, _ in tags])
    try:
        current = yield from are_current(tier, store, tags)
    except ShardError:
        if strict:
            raise
        tier.count(errors=1)
        return None
    return under if current else None


def _revalidate(
    tier: Tier, store: Store[Any, Any], op: Read, lane: int, name: bytes, wid: int, *, is_tagged: bool
) -> Steps[bool]:
    """Whether L2 still holds the write that a suspect entry came from. Costs no payload and no decoding."""
    start_ns = tier.clock()
    part = TAGGED_RANGE if is_tagged else HEADER_RANGE
    commands: list[Any] = [(b"PTTL", name), (b"GETRANGE", name, *part), tier.ask_generation(lane)]
    exchange, proof = prove(tier, lane, commands)
    reply = proven(tier, proof, answer((yield [exchange])[0]))
    pttl_ms, header, fields = reply.values
    generation = tier.generation_in(lane, fields)
    deadline_ns, under = yield from revalidated(tier, store, lane, wid, pttl_ms, header, generation, start_ns)
    if not deadline_ns:
        tier.judge(lane, dropped=1)
        return False
    store.l1_confirm(op, wid, deadline_ns, reply.identity, under)
    tier.count(hits=1)
    tier.judge(lane, revalidated=1)
    return True


def revalidated(
    tier: Tier,
    store: Store[Any, Any],
    lane: int,
    wid: int,
    pttl_ms: int,
    header: bytes,
    generation: int | None,
    start_ns: int,
) -> Steps[tuple[int, tuple[int, int] | None]]:
    """Judge a suspect entry by its value's header. Returns its deadline (0: not good) and what it depends on.

    One that is due to be loaded anew counts as not good: it is read again, and then that is seen to.
    """
    try:
        there, written_in, _ = peek_ids(header)
        times = times_in(header)
        tags = peek_tags(header)
    except DecodeError:
        return 0, None
    if there != wid or written_in != generation:
        return 0, None
    under = None
    if tags:
        under = yield from _under(tier, store, lane, tags)
        if under is None:
            return 0, None
    deadline_ns, is_due = judge(tier, start_ns, pttl_ms, times)
    is_due = is_due or (times.soft_ms == IDLE_MS and is_worn(pttl_ms, times.whole_ms))
    return (0, None) if is_due else (deadline_ns, under)


def contains(tier: Tier, store: Store[Any, Any], key: Any) -> Steps[bool]:
    """Whether L2 holds a live value. Reads its header only and changes nothing, in L1 or L2."""
    shard, encoded = tier.place(key)
    if tier.is_owed(shard, encoded):
        return False
    commands: list[Any] = [
        (b"GETRANGE", tier.names[shard].value(encoded), *TAGGED_RANGE),
        tier.ask_generation(shard),
    ]
    try:
        reply = answer((yield [Exchange(shard, commands)])[0])
        generation = tier.generation_in(shard, reply.values[1])
    except ShardError:
        if stale_copy(tier, store, key, shard) is MISSING:
            raise
        return True
    try:
        if peek_ids(reply.values[0])[1] != generation or peek_absence(reply.values[0]):
            return False
        tags = peek_tags(reply.values[0])
    except DecodeError:
        return False
    return not tags or (yield from are_current(tier, store, tags))


def current_generation(tier: Tier, shard: int) -> Steps[int | None]:
    """Ask the lane record for its generation."""
    reply = answer((yield [Exchange(shard, [tier.ask_generation(shard)])])[0])
    return tier.generation_in(shard, reply.values[0])
