"""Reading many keys at once: a round trip per shard for some hundreds of them, all shards in parallel. Steps only: no
I/O here.

Keys are read a portion at a time, so that nobody has to wait until a shard, or compiled code, is done with all of them.
Of a portion each shard's share is asked for in one batch: every key's lifetime, then its value. The rules are those of
one read (``reading``). What nearly all answers have in common is done for all of them in compiled code (``_reads``);
whatever is not the usual answer is judged here, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._shares import Share, deal
from .._store import Store
from ..absence import Absent
from ..clocks import TICK_NS
from ..errors import ShardError
from ..flights import Load
from ..keys import encode_key
from ..l2 import Exchange, Reply
from .aging import Due
from .exchanges import Exchanges, portions
from .proof import Proof, prove, proven
from .reading import accept, keep, revalidated, stale_copy
from .replies import HEADER_RANGE, MISSING, TAGGED_RANGE, answer
from .steps import Steps
from .tier import Tier


@dataclass(slots=True)
class _Known:
    """What is known of all keys so far.

    Attributes:
        found: The values.
        lost: The lanes that have failed: nothing more is asked of them.
        goes_on: Whether another portion comes after this one.
    """

    found: dict[Any, Any] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    goes_on: bool = False


class _Settled(NamedTuple):
    """What became of a share: the places of what is left over, and of suspects that L2 has changed; and its reply."""

    left: list[int]
    changed: list[int]
    reply: Reply


def read_many(
    tier: Tier,
    store: Store[Any, Any],
    names: Iterable[Any],
    flights: Mapping[Any, Load] | None = None,
    due: dict[Any, Due] | None = None,
) -> Steps[dict[Any, Any]]:
    """Return what L2 holds of these keys.

    Keys whose shard does not answer are absent, as missing ones are, unless there are copies that may be served; it is
    not asked for those of a later portion.

    Args:
        flights: The loads that these reads are a part of.
        due: Gets the values that are to be loaded anew, by key.
    """
    known = _Known()
    for portion, goes_on in portions(names, len(tier.active)):
        known.goes_on = goes_on
        yield from _read_portion(tier, store, portion, known, flights, due)
    return known.found


def _read_portion(
    tier: Tier,
    store: Store[Any, Any],
    names: Iterable[Any],
    known: _Known,
    flights: Mapping[Any, Load] | None,
    due: dict[Any, Due] | None,
) -> Steps[None]:
    shares = deal(names, tier.table, encode_key)
    now_ns = tier.clock()
    try:
        for share in shares:
            journal = tier.journals[share.lane]
            if journal.owes:
                tier.count(misses=share.leave_out(journal.is_owed))
            share.open(store, now_ns)
            if flights is not None:
                for read in share.reads:
                    flights[read.key].rests_on(read, now_ns)
        again = yield from _round(tier, store, [share for share in shares if len(share)], known)
        if again:  # suspects that L2 has another value for: their second read starts afresh, as any read does
            yield from _round(tier, store, again, known)
        if due is not None and tier.freshness.renews:
            due.update((read.key, read.due) for share in shares for read in share.reads if read.due)
    finally:
        for share in shares:  # a shard failed, or we were interrupted
            share.end(store, tier.lock)


def _round(tier: Tier, store: Store[Any, Any], shares: list[Share], known: _Known) -> Steps[list[Share]]:
    """Ask for these shares. Returns what of them has to be asked for once more."""
    found = known.found
    for share in shares:
        if share.lane in known.lost:
            _serve_stale(tier, store, share, found)
    shares = [share for share in shares if share.lane not in known.lost]
    if not shares:
        return []
    start_ns = tier.clock()
    settled: dict[int, _Settled] = {}
    asked = [_exchange(tier, share) for share in shares]

    def settle(place: int, reply: Reply | ShardError) -> None:
        settled[place] = _settle(tier, store, shares[place], asked[place][1], reply, start_ns, found)

    def settle_early(place: int, reply: Reply | ShardError) -> None:
        # A slow shard keeps the others' answers neither from L1 nor from those who wait for them.
        with suppress(ShardError):  # it is met again below
            settle(place, reply)

    replies = yield Exchanges([exchange for exchange, _ in asked], settle_early, goes_on=known.goes_on)
    again = []
    for place, (share, reply) in enumerate(zip(shares, replies, strict=True)):
        try:
            if place not in settled:
                settle(place, reply)
            left, changed, proved = settled[place]
            if left:
                changed = changed + (yield from _settle_rest(tier, store, share, left, proved, start_ns, found))
        except ShardError:  # at once, or when asked for the generation once more
            tier.count(errors=1)
            known.lost.add(share.lane)
            _serve_stale(tier, store, share, found)
            continue
        if changed:
            again.append(share.again(changed))
    return again


def _exchange(tier: Tier, share: Share) -> tuple[Exchange, Proof | None]:
    if tier.observed is not None and tier.observed.is_ahead(share.lane):
        tier.count(withheld=sum(share.suspect(place) is not None for place in range(len(share))))
    names, derived = tier.names[share.lane], tier.derived.lanes
    commands = share.ask(names.value_prefix, names.lane_key, HEADER_RANGE, TAGGED_RANGE, derived)
    return prove(tier, share.lane, commands)


def _settle(
    tier: Tier,
    store: Store[Any, Any],
    share: Share,
    proof: Proof | None,
    reply: Reply | ShardError,
    start_ns: int,
    found: dict[Any, Any],
) -> _Settled:
    """Take what is usual among the answers.

    Raises:
        ShardError: The shard failed, or refused one of the commands.
    """
    if not isinstance(reply, Reply) or not isinstance(reply.values[-1], list):
        reply = answer(reply)
    reply = proven(tier, proof, reply)
    # A store that completes operations in a way of its own is not gone round, nor is a rule about renewals.
    is_usual = getattr(store, "l1_is_plain", True) and not tier.freshness.beta
    try:
        generation = tier.generation_in(share.lane, reply.values[-1])
        left, changed, counts = share.settle(
            store, reply.values, generation, reply.identity, start_ns, tier.l1_ttl_ms, TICK_NS,
            tier.codec.usual if is_usual else None, found, MISSING,
        )  # fmt: skip
    except ValueError:
        answer(reply)
        raise  # nobody knows what that is
    hits, misses, size_bytes, poisoned, revalidated_now = counts
    tier.count(hits=hits, misses=misses, bytes_read=size_bytes)
    if poisoned or revalidated_now or changed:
        tier.judge(share.lane, poisoned=poisoned, revalidated=revalidated_now, dropped=len(changed))
    if tier.sampler is not None:
        for read in share.reads:
            if read.key in found:
                tier.sample(read.key)
    share.resolve(tier.lock)
    return _Settled(left, changed, reply)


def _settle_rest(
    tier: Tier,
    store: Store[Any, Any],
    share: Share,
    places: list[int],
    reply: Reply,
    start_ns: int,
    found: dict[Any, Any],
) -> Steps[list[int]]:
    """Judge what is not usual. Returns the places of suspects that L2 has changed."""
    generation = tier.generation_in(share.lane, reply.values[-1])
    changed = []
    for place in places:
        op, pttl_ms, body = share.reads[place], reply.values[place], share.body(reply.values, place)
        suspect = share.suspect(place)
        if suspect is None:
            encoded = share.encoded[place]
            taken = yield from accept(tier, store, share.lane, encoded, body, pttl_ms, generation, start_ns)
            op.due = taken.due
            keep(tier, store, op, taken, len(body or b""), reply.identity)
            if taken.value is not MISSING and not isinstance(taken.value, Absent):
                found[op.key] = taken.value
        else:
            wid, value, _ = suspect
            deadline_ns, under = yield from revalidated(
                tier, store, share.lane, wid, pttl_ms, body, generation, start_ns
            )
            if not deadline_ns:
                tier.judge(share.lane, dropped=1)
                changed.append(place)
                continue
            store.l1_confirm(op, wid, deadline_ns, reply.identity, under)
            tier.count(hits=1)
            tier.judge(share.lane, revalidated=1)
            found[op.key] = value
        share.note(place, found.get(op.key, MISSING))
    share.resolve(tier.lock)
    return changed


def _serve_stale(tier: Tier, store: Store[Any, Any], share: Share, found: dict[Any, Any]) -> None:
    for read in share.reads:
        if read.key in found:  # by an answer that came before the failure
            continue
        copy = stale_copy(tier, store, read.key, share.lane)
        if copy is not MISSING:
            found[read.key] = copy
