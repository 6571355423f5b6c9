"""Reading values of a greatest age. Steps only: no I/O here.

How old a value is follows from its whole lifetime, which its envelope states, and from what is left of it in Redis.
Both are durations, by the server's clock, as lifetimes are; no wall clock of ours is looked at. A value whose lifetime
was changed by ``touch`` is marked: of such a one the age is not known, and it counts as too old. What is read here is
remembered with its age, so that L1 can answer the next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._store import Store
from ..absence import Absent
from ..clocks import NS_PER_MS
from ..codecs import peek_ids, peek_touched
from ..errors import ShardError
from ..flights import ABANDONED, Load, Read
from ..freshness import IDLE_MS
from ..l2 import Command, Exchange, Reply
from .aging import times_in
from .exchanges import Exchanges, portions
from .reading import accept, keep
from .replies import MISSING, answer
from .steps import Steps
from .tier import Tier


def read_young(
    tier: Tier,
    store: Store[Any, Any],
    names: Iterable[Any],
    limit_ns: int,
    flights: Mapping[Any, Load] | None = None,
    errors: list[ShardError] | None = None,
) -> Steps[dict[Any, Any]]:
    """Return what L2 holds of these keys that was stored no longer ago; ABSENT and Failures too.

    L1 takes older values as well: they are right for all who do not ask. What a shard that does not answer may hold is
    missing. ``flights``: the loads that these reads are a part of. ``errors`` gets why shards have not answered.
    """
    tier.births.in_use = True
    found: dict[Any, Any] = {}
    lost: set[int] = set()
    for portion, goes_on in portions(names, len(tier.active)):
        ops: dict[int, list[tuple[Read, bytes]]] = {}
        try:
            _open(tier, store, portion, flights or {}, ops)
            shares = [(lane, share) for lane, share in ops.items() if lane not in lost]
            start_ns = tier.clock()
            exchanges = [Exchange(lane, _commands(tier, lane, share)) for lane, share in shares]
            replies = yield Exchanges(exchanges, goes_on=goes_on)
            for (lane, share), reply in zip(shares, replies, strict=True):
                try:
                    yield from _take(tier, store, lane, share, answer(reply), start_ns, limit_ns, found, flights or {})
                except ShardError as error:
                    tier.count(errors=1)
                    lost.add(lane)
                    if errors is not None:
                        errors.append(error)
        finally:
            for op in (op for share in ops.values() for op, _ in share):
                store.l1_abandon(op, drop=False)  # unless it is finished
                op.resolve(ABANDONED, tier.lock)
    return found


def _open(
    tier: Tier,
    store: Store[Any, Any],
    names: list[Any],
    flights: Mapping[Any, Load],
    ops: dict[int, list[tuple[Read, bytes]]],
) -> None:
    """Register a read of each key that is not owed. ``ops`` gets them, by lane, also if one cannot be."""
    for name in names:
        lane, encoded = tier.place(name)
        if tier.is_owed(lane, encoded):
            tier.count(misses=1)
            continue
        op = Read(name, lane, tier.clock())
        ops.setdefault(lane, []).append((op, encoded))
        store.l1_open(op)
        if name in flights:
            flights[name].rests_on(op, op.since_ns)


def _commands(tier: Tier, lane: int, share: list[tuple[Read, bytes]]) -> list[Command]:
    names = [tier.names[lane].value(encoded) for _, encoded in share]
    commands: list[Command] = [command for name in names for command in ((b"PTTL", name), (b"GET", name))]
    return [*commands, tier.ask_generation(lane)]


def _take(
    tier: Tier,
    store: Store[Any, Any],
    lane: int,
    share: list[tuple[Read, bytes]],
    reply: Reply,
    start_ns: int,
    limit_ns: int,
    found: dict[Any, Any],
    flights: Mapping[Any, Load],
) -> Steps[None]:
    generation = tier.generation_in(lane, reply.values[-1])
    for (op, encoded), pttl_ms, data in zip(share, reply.values[0::2], reply.values[1::2], strict=False):
        taken = yield from accept(tier, store, lane, encoded, data, pttl_ms, generation, start_ns)
        keep(tier, store, op, taken, len(data or b""), reply.identity)
        op.due = taken.due
        op.resolve(taken.value, tier.lock)
        if taken.value is MISSING or data is None:
            continue
        wid, _, whole_ms = peek_ids(data)
        is_moved = peek_touched(data) or times_in(data).soft_ms == IDLE_MS  # what is read lives on
        if pttl_ms < 0 or pttl_ms > whole_ms or is_moved:
            continue
        born_ns = start_ns - (whole_ms - pttl_ms + 1) * NS_PER_MS  # rounded: it may be older by almost one
        if not isinstance(taken.value, Absent):
            tier.births.note(op.key, wid, born_ns, start_ns)
        if born_ns >= start_ns - limit_ns and _suits_all_when_closed(
            tier, flights.get(op.key), born_ns + limit_ns, start_ns
        ):
            found[op.key] = taken.value


def _suits_all_when_closed(tier: Tier, flight: Load | None, last_ns: int, start_ns: int) -> bool:
    """Close the flight to others; whether what will do until that instant will do for all who wait: some may have asked
    later than was read."""
    if flight is None:
        return True
    tier.loads.close(flight)
    return not flight.is_shared or (tier.clock() <= last_ns and tier.births.is_told(start_ns))
