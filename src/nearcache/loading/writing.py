"""Writing: set, invalidate and clear. Steps only: no I/O here.

L1 takes a written value only after the server has acknowledged it, and only if nobody else's message about the key
arrived in between: the other write may be the later one.
"""

from __future__ import annotations

from typing import Any, Final

from .._store import Op, Store
from ..codecs import Encoded
from ..errors import ServerReplyError, ShardError
from ..l2 import STAGE_BYTES, Command, Exchange, stage
from .reading import MISSING, accept, answer, errors_in
from .steps import Steps
from .tier import Tier, hex_id, new_id

#: A generation changes when somebody clears the namespace; a writer that meets that many clears in a row gives up.
_ATTEMPTS: Final = 5


def write(
    tier: Tier, store: Store[Any, Any], name: Any, value: Any, ttl_ms: int, *, absent_only: bool = False
) -> Steps[Any]:
    """Store a value in L2, then in L1. Returns MISSING, or with ``absent_only`` the live value that stood in the way.

    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Before anything is sent.
        ShardError: It is not known to be stored. If ``error.sent``, it may be; no L1 copy is kept.
    """
    shard, encoded = tier.place(name)
    content = tier.codec.encode(value)
    op = Op(name, shard, wid=new_id(), write=True, announced=True)
    try:
        store.open(op)
        return (yield from _write(tier, store, op, encoded, value, content, ttl_ms, absent_only))
    except BaseException as error:
        store.abandon(op, drop=True)
        if isinstance(error, ShardError):
            tier.count(errors=1)
        raise


def _write(
    tier: Tier, store: Store[Any, Any], op: Op, encoded: bytes, value: Any, content: Encoded, ttl_ms: int, nx: bool
) -> Steps[Any]:
    generation = tier.lanes[op.lane].generation or 0
    for _ in range(_ATTEMPTS):
        sealed = tier.codec.seal(content, wid=op.wid, generation=generation, ttl_ms=ttl_ms)
        start_ns = tier.clock()
        commands = set_commands(tier, op.lane, [encoded], [sealed], op.wid, generation, ttl_ms, nx=nx)
        reply = answer((yield [Exchange(op.lane, commands)])[0])
        status, there, *rest = reply.values[-1]
        if int(status) == 1:
            tier.count_write(len(sealed))
            deadline_ns = tier.deadline_ns(start_ns, ttl_ms, ttl_ms)
            store.finish(op, value, op.wid, deadline_ns, len(sealed), reply.identity)
            return MISSING
        if int(status) == 2:
            found, _, _ = yield from accept(tier, op.lane, rest[0], -1, int(there, 16), start_ns)
            if found is not MISSING:
                store.abandon(op, drop=True)  # L1 may hold an older value, and after this one it must not be read (R4)
                return found
            nx = False  # what is there cannot be read by anyone here, so it counts as absent
        generation = int(there, 16)
    raise ServerReplyError(tier.shard_names[op.lane], f"GENERATION changed {_ATTEMPTS} times during one write")


def set_commands(
    tier: Tier,
    lane: int,
    encoded: list[bytes],
    sealed: list[bytes],
    wid: int,
    generation: int,
    ttl_ms: int,
    *,
    nx: bool = False,
) -> list[Command]:
    """The commands that write values under one write id, with one message. The last one's answer counts."""
    mode = b"NX" if nx else b""
    if len(sealed) == 1 and len(sealed[0]) < STAGE_BYTES:  # nearly every write
        keys = tier.write_keys(lane, encoded)
        return [tier.call(tier.scripts.set, keys, hex_id(wid), hex_id(generation), mode, b"%d" % ttl_ms, sealed[0])]
    before, staging, envelopes = stage(tier.names[lane].prefix, hex_id(wid), sealed)
    arguments = (hex_id(wid), hex_id(generation), mode, b"%d" % ttl_ms, *envelopes)
    return [*before, tier.call(tier.scripts.set, tier.write_keys(lane, encoded, staging), *arguments)]


def invalidate(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[bool]:
    """Drop every copy of a key, in every process. Returns whether L2 or this L1 held a live one.

    Raises:
        ShardError: It is not known to be done; this process has dropped its copy all the same.
    """
    shard, encoded = tier.place(name)
    op = Op(name, shard, wid=new_id(), write=True)
    try:
        store.open(op)
        held = store.delete(name)
        reply = answer((yield [tier.invalidate_exchange(shard, [encoded], op.wid)])[0])
        store.finish(op, None, 0, 0)
        tier.count(invalidations=1)
        return held or int(reply.values[0][2]) > 0
    except BaseException as error:
        store.abandon(op, drop=True)
        if isinstance(error, ShardError):
            tier.count(errors=1)
        raise


def clear(tier: Tier, store: Store[Any, Any]) -> Steps[None]:
    """Give every lane a new generation: whatever was written before is dead, in every process. O(shards).

    Raises:
        ShardError: Of the first shard that did not do it; the others have been cleared.
    """
    ids = [new_id() for _ in tier.lanes]
    exchanges = [
        Exchange(lane, [tier.call(tier.scripts.clear, [tier.names[lane].lane_key], hex_id(wid))])
        for lane, wid in enumerate(ids)
    ]
    for lane, wid in zip(tier.lanes, ids, strict=True):
        lane.expect_clear(wid)
    try:
        replies = yield exchanges
    finally:
        for shard, lane in enumerate(tier.lanes):
            # Our id would be no safe guess: somebody may have cleared again. Readers ask until the lane tells.
            lane.generation = None
            store.lane_suspect(shard)
        store.drop_all(invalidated=True)
    tier.count(invalidations=1)
    failed = next((value for reply in replies for value in errors_in(reply)), None)
    if failed is not None:
        tier.count(errors=1)
        raise failed
