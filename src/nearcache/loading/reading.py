"""Reading: what L1 misses, from L2. Steps only: no I/O here.

The order of things is the protocol (docs/coherence.md): the operation is registered with the store before the request
is sent, so that any message about the key, whenever it comes, keeps the answer out of L1.
"""

from __future__ import annotations

from typing import Any, Final

from .._store import Store
from ..codecs import HEADER_SIZE, peek_ids
from ..errors import DecodeError, ShardError
from ..flights import ABANDONED, Read
from ..l2 import Exchange, Reply
from .steps import JoinRead, Steps
from .tier import Tier

#: There is no value. Not ``None``, which is one.
MISSING: Final = object()

#: What follows the key in a GETRANGE that fetches a value's header.
HEADER_COMMAND_TAIL: Final = (b"0", b"%d" % (HEADER_SIZE - 1))


def answer(reply: Reply | ShardError) -> Reply:
    """Return a reply in which no command failed; raise the failure otherwise."""
    for error in errors_in(reply):
        raise error
    assert not isinstance(reply, ShardError)
    return reply


def errors_in(reply: Reply | ShardError) -> list[ShardError]:
    """Return what failed, in order."""
    if isinstance(reply, ShardError):
        return [reply]
    return [value for value in reply.values if isinstance(value, ShardError)]


# -- L2 ----------------------------------------------------------------------------------------------------------


def read(tier: Tier, store: Store[Any, Any], key: Any) -> Steps[Any]:
    """Return the value in L2, or MISSING; L1 takes it when the protocol allows.

    Raises:
        ShardError: The shard did not answer.
    """
    shard, encoded = tier.place(key)
    if tier.is_owed(shard, encoded):
        tier.count(misses=1)
        return MISSING
    joined = store.join(key)
    if isinstance(joined, Read):
        outcome = yield JoinRead(joined)
        if isinstance(outcome, ShardError):
            raise outcome
        if outcome is not ABANDONED:
            return outcome
    op = Read(key, shard)
    outcome = ABANDONED
    try:
        store.open(op)
        outcome = yield from _fetch(tier, store, op, shard, encoded)
        return outcome
    except BaseException as error:
        store.abandon(op, drop=False)
        if isinstance(error, ShardError):
            outcome = error
            tier.count(errors=1)
        raise
    finally:
        op.resolve(outcome, tier.lock)


def _fetch(tier: Tier, store: Store[Any, Any], op: Read, shard: int, encoded: bytes) -> Steps[Any]:
    name = tier.names[shard].value(encoded)
    suspect = store.suspect(op.key)
    if suspect is not None:
        wid, value, _ = suspect
        current = yield from _revalidate(tier, store, op, shard, name, wid)
        if current:
            return value
    start_ns = tier.clock()
    generation = tier.known_generation(shard)
    commands: list[Any] = [(b"PTTL", name), (b"GET", name)]
    if generation is None:
        commands.append(tier.ask_generation(shard))
    reply = answer((yield [Exchange(shard, commands)])[0])
    pttl_ms, data = reply.values[0], reply.values[1]
    if generation is None:
        generation = generation_in(reply.values[2])
    value, wid, deadline_ns = yield from accept(tier, shard, data, pttl_ms, generation, start_ns)
    size = len(data) if data is not None else 0
    store.finish(op, value, wid, deadline_ns, size, reply.identity)
    return value


def accept(
    tier: Tier, shard: int, data: bytes | None, pttl_ms: int, generation: int | None, start_ns: int
) -> Steps[tuple[Any, int, int]]:
    """Judge what a GET returned. Returns ``(value or MISSING, wid or 0, deadline)``; wid 0 keeps it out of L1."""
    if data is None:
        tier.count(misses=1)
        return MISSING, 0, 0
    try:
        wid, written_in, whole_ms = peek_ids(data)
        if written_in != generation:
            # Our view of the generation may be older than the envelope: ask once more before calling it dead.
            generation = yield from current_generation(tier, shard)
        if written_in != generation:
            tier.count(misses=1)
            return MISSING, 0, 0
        value, _ = tier.codec.loads(data)
    except DecodeError:
        tier.count(misses=1, undecodable=1)
        return MISSING, 0, 0
    tier.count_hit(len(data))
    deadline_ns = tier.deadline_ns(start_ns, pttl_ms, whole_ms)
    return value, wid if deadline_ns else 0, deadline_ns


def _revalidate(tier: Tier, store: Store[Any, Any], op: Read, shard: int, name: bytes, wid: int) -> Steps[bool]:
    """Whether L2 still holds the write that a suspect entry came from. Costs no payload and no decoding."""
    start_ns = tier.clock()
    commands: list[Any] = [(b"PTTL", name), (b"GETRANGE", name, *HEADER_COMMAND_TAIL), tier.ask_generation(shard)]
    reply = answer((yield [Exchange(shard, commands)])[0])
    pttl_ms, header, generation = reply.values
    deadline_ns = revalidated(tier, wid, pttl_ms, header, generation_in(generation), start_ns)
    if not deadline_ns:
        return False
    store.refresh(op, wid, deadline_ns, reply.identity)
    tier.count(hits=1, revalidated=1)
    return True


def revalidated(tier: Tier, wid: int, pttl_ms: int, header: bytes, generation: int | None, start_ns: int) -> int:
    """Return the deadline of an entry whose write L2 still holds, judged by the value's header; 0 if it does not."""
    try:
        there, written_in, whole_ms = peek_ids(header)
    except DecodeError:
        return 0
    if there != wid or written_in != generation:
        return 0
    return tier.deadline_ns(start_ns, pttl_ms, whole_ms)


def contains(tier: Tier, key: Any) -> Steps[bool]:
    """Whether L2 holds a live value. Reads its header only and changes nothing, in L1 or L2."""
    shard, encoded = tier.place(key)
    if tier.is_owed(shard, encoded):
        return False
    commands: list[Any] = [
        (b"GETRANGE", tier.names[shard].value(encoded), *HEADER_COMMAND_TAIL),
        tier.ask_generation(shard),
    ]
    reply = answer((yield [Exchange(shard, commands)])[0])
    try:
        return bool(peek_ids(reply.values[0])[1] == generation_in(reply.values[1]))
    except DecodeError:
        return False


def generation_in(field: bytes | None) -> int | None:
    """Return the generation that a lane record states; ``None`` without a record, and then nothing is alive."""
    try:
        return int(field, 16) if field is not None else None
    except ValueError:
        return None


def current_generation(tier: Tier, shard: int) -> Steps[int | None]:
    """Ask the lane record for its generation."""
    reply = answer((yield [Exchange(shard, [tier.ask_generation(shard)])])[0])
    return generation_in(reply.values[0])
