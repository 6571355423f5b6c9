"""Growing old: until when a copy is served, when its value is due to be loaded anew, and the order to do so.

A value that is due is served all the same; L1 keeps it for the life of a lease, so that readers have it at no cost
while it is loaded anew, and so that a load which fails is tried again then. Nobody waits for the loading: a step
asks for it by :class:`Spawn`, and it takes the key's lease in L2, whatever is there. Whoever does not get the lease
leaves it to the one who has it: one load in the whole fleet. Its fill is announced, and that ends the old copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from .._store import Store
from ..clocks import NS_PER_MS, TICK_NS
from ..codecs import peek_times
from ..freshness import ENDLESS_MS, IDLE_MS, Life, idle_copy_ms, is_worn
from ..l2 import Exchange
from .replies import errors_in
from .steps import Spawn, Steps
from .tier import Tier, hex_id


class Times(NamedTuple):
    """What an envelope says: whole lifetime, distance of the soft end (0: none), cost of the load. Milliseconds."""

    whole_ms: int
    soft_ms: int = 0
    cost_ms: int = 0


class Due(NamedTuple):
    """A value that is to be loaded anew: the id of its write, and the hashes of its tags.

    What takes its place unasked keeps them, or who invalidates by a tag would not reach it any more.
    """

    wid: int
    tags: tuple[int, ...] = ()


def times_in(header: bytes) -> Times:
    """Return what the header of an envelope says."""
    return Times(*peek_times(header))


def judge(tier: Tier, start_ns: int, pttl_ms: int, times: Times) -> tuple[int, bool]:
    """Return when an L1 copy must end (0: it must not be kept), and whether its value is due to be loaded anew.

    Args:
        start_ns: When the request was sent.
        pttl_ms: The remaining lifetime that Redis stated.
        times: What the envelope states.
    """
    deadline_ns = tier.deadline_ns(start_ns, pttl_ms, times.whole_ms)
    if times.soft_ms == IDLE_MS:
        copy_ms = idle_copy_ms(times.whole_ms if pttl_ms == -1 else pttl_ms, times.whole_ms)
        return (0 if copy_ms <= 0 else min(deadline_ns, start_ns + copy_ms * NS_PER_MS - TICK_NS)), False
    if not deadline_ns or not (times.soft_ms or tier.freshness.beta):
        return deadline_ns, False
    left_ms = times.whole_ms if pttl_ms == -1 else min(pttl_ms, times.whole_ms)
    if times.soft_ms:
        left_ms -= times.whole_ms - times.soft_ms
    due_ms = tier.freshness.due_ms(left_ms, times.cost_ms)
    is_due = due_ms <= 0
    if is_due:
        due_ms = tier.lease_ms
    return min(deadline_ns, start_ns + due_ms * NS_PER_MS - TICK_NS), is_due


def live_on(tier: Tier, lane: int, encoded: bytes, wid: int, pttl_ms: int, times: Times) -> Steps[int]:
    """Let a value that lives by being read have its whole lifetime again, if it is time. Returns what it has left."""
    if times.soft_ms != IDLE_MS or not is_worn(pttl_ms, times.whole_ms):
        return pttl_ms
    keys = [tier.names[lane].value(encoded), tier.names[lane].lane_key]
    command = tier.call(tier.scripts.extend, keys, hex_id(wid), b"%d" % times.whole_ms)
    reply = (yield [Exchange(lane, [command])])[0]
    if errors_in(reply):  # it has been read all the same
        tier.count(errors=1)
        return pttl_ms
    return times.whole_ms if int(reply.values[0]) else pttl_ms


def passed_on(header: bytes, left_ms: int) -> Life:
    """Return the lifetime that a value passes on to what is made of it: what is left, or all that it once had."""
    times = times_in(header)
    if times.soft_ms == IDLE_MS:
        return Life(times.whole_ms, IDLE_MS)
    return Life(left_ms if left_ms > 0 else ENDLESS_MS)


def renew_later(
    tier: Tier,
    store: Store[Any, Any],
    wanted: Any,
    due: Due,
    renewal: Callable[[Tier, Store[Any, Any], Any, Due], Steps[Any]],
) -> Steps[None]:
    """Have a value loaded anew in the background, unless this process is about to already."""
    with tier.lock:
        if wanted.name in tier.renewing:
            return
        tier.renewing.add(wanted.name)
    taken = False
    try:
        taken = yield Spawn(lambda: renewal(tier, store, wanted, due), wanted.loader, wanted.key)
    finally:
        if not taken:
            tier.renewed(wanted.name)


def renew_many_later(
    tier: Tier,
    store: Store[Any, Any],
    wanted: Any,
    due: Mapping[Any, Due],
    renewal: Callable[[Tier, Store[Any, Any], Any, Mapping[Any, Due]], Steps[Any]],
) -> Steps[None]:
    """Have values loaded anew in the background by one call, but those that this process is about to already.

    Args:
        wanted: A :class:`~nearcache.loading.Gathering`.
        due: The values, by the keys as the cache holds them.
    """
    with tier.lock:
        ours = {name: wanted.keys[name] for name in due if name not in tier.renewing}
        tier.renewing.update(ours)
    if not ours:
        return
    taken = False
    try:
        make = partial(renewal, tier, store, replace(wanted, keys=ours), due)
        taken = yield Spawn(make, wanted.loader, list(ours.values()))
    finally:
        if not taken:
            for name in ours:
                tier.renewed(name)
