"""Filling: the user's loader, and its value's way into L2 and L1. Steps only: no I/O here.

A value that was loaded before an invalidation must not be stored after it. In L1 the pending operation sees to that,
in L2 a fence: a token under the key's name that every write and invalidation removes. It is fetched before the loader
is called, and the fill is refused unless it is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._store import Op, Store
from ..errors import ShardError
from ..flights import ABANDONED, Load
from ..l2 import Exchange, stage
from .reading import MISSING, accept, answer, read
from .steps import Call, JoinLoad, Steps
from .tier import FENCE_MS, Tier, hex_id, new_id


@dataclass(frozen=True, slots=True)
class Loading:
    """One request to load.

    Attributes:
        name: The key as the cache holds it.
        key: The key as the user gave it, which is what the loader gets.
        loader: Returns the value, or raises.
        ttl_ms: Lifetime of the filled value.
    """

    name: Any
    key: Any
    loader: Callable[[Any], Any]
    ttl_ms: int


def load(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Return the value in L2, or else the loader's, which L2 and L1 then keep.

    However many threads ask for one key at the same time, one of them does the work. A shard that does not answer
    costs the caching, not the value.

    Raises:
        Whatever the loader raises, in every waiting thread.
        LoadCycleError: The loader waits, directly or through others, for itself.
    """
    mine = Load(wanted.name)
    try:
        while (flight := tier.loads.begin(mine)) is not mine:
            value = yield JoinLoad(flight)
            if value is not ABANDONED:
                return value
        return (yield from carry_out(tier, store, wanted, mine))
    finally:
        tier.loads.end(mine)


def carry_out(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load) -> Steps[Any]:
    """Do the work of a load that has begun, and end it. See :func:`load`."""
    try:
        mine.value = yield from _load(tier, store, wanted)
        return mine.value
    except Exception as error:
        mine.error = error
        raise
    finally:
        tier.loads.end(mine)


def _load(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    try:
        value = yield from read(tier, store, wanted.name)
    except ShardError:
        return (yield from _call(tier, wanted))
    if value is not MISSING:
        return value
    shard, encoded = tier.place(wanted.name)
    op = Op(wanted.name, shard, wid=new_id(), write=True)
    try:
        store.open(op)
        return (yield from _fill(tier, store, wanted, op, encoded))
    except BaseException:
        store.abandon(op, drop=False)
        raise


def _fill(tier: Tier, store: Store[Any, Any], wanted: Loading, op: Op, encoded: bytes) -> Steps[Any]:
    """Fence, load, fill. The operation is finished or abandoned when this returns."""
    try:
        token, generation, found = yield from _fence(tier, op.lane, encoded)
    except ShardError:
        value = yield from _call(tier, wanted)
        store.abandon(op, drop=False)
        return value
    if found is not MISSING:  # another process was quicker
        store.abandon(op, drop=False)
        return found
    value = yield from _call(tier, wanted)
    sealed = tier.codec.seal(tier.codec.encode(value), wid=op.wid, generation=generation, ttl_ms=wanted.ttl_ms)
    before, staging, envelopes = stage(tier.names[op.lane].prefix, hex_id(op.wid), [sealed])
    arguments = (hex_id(op.wid), hex_id(generation), token, b"%d" % wanted.ttl_ms, *envelopes)
    command = tier.call(tier.scripts.fill, tier.write_keys(op.lane, [encoded], staging), *arguments)
    start_ns = tier.clock()
    try:
        reply = answer((yield [Exchange(op.lane, [*before, command])])[0])
    except ShardError:
        tier.count(errors=1)
        store.abandon(op, drop=True)
        return value
    if int(reply.values[-1][0]) != 1:
        tier.count(fills_refused=1)
        store.abandon(op, drop=False)
        return value
    tier.count_write(len(sealed))
    deadline_ns = tier.deadline_ns(start_ns, wanted.ttl_ms, wanted.ttl_ms)
    store.finish(op, value, op.wid, deadline_ns, len(sealed), reply.identity)
    return value


def _fence(tier: Tier, shard: int, encoded: bytes) -> Steps[tuple[bytes, int, Any]]:
    """Return ``(token, generation, MISSING)``, or a live value that has come meanwhile as the third."""
    keys = tier.write_keys(shard, [encoded])
    mode = b""
    while True:
        start_ns = tier.clock()
        command = tier.call(tier.scripts.fence, keys, hex_id(new_id()), FENCE_MS, mode)
        reply = answer((yield [Exchange(shard, [command])])[0])
        status, generation, held, *rest = reply.values[0]
        if int(status) == 0:
            return held, int(generation, 16), MISSING
        value, _, _ = yield from accept(tier, shard, held, int(rest[0]), int(generation, 16), start_ns)
        if value is not MISSING:
            return b"", int(generation, 16), value
        mode = b"REPLACE"  # a value that cannot be read here (another schema, say) is to be loaded over


def _call(tier: Tier, wanted: Loading) -> Steps[Any]:
    tier.count(loads=1)
    try:
        return (yield Call(wanted.loader, wanted.key))
    except BaseException:
        tier.count(load_errors=1)
        raise
