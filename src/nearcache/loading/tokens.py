"""Reading your writes across processes: steps that wait until this process has applied what a token names."""

from __future__ import annotations

from typing import Any

from .._store import Store
from ..coherence import pack_token, parse_token, version_of
from ..flights import Signal
from ..rings import version_in
from .steps import Await, Steps
from .tier import Tier


def token_of(tier: Tier) -> str:
    """Return a token of all that this process has done and seen."""
    positions = {place: tier.newest(lane) for place, lane in enumerate(in_order(tier))}
    known = {place: position for place, position in positions.items() if position is not None}
    return pack_token(known, version_in(tier.ring)[0])


def catch_up(tier: Tier, store: Store[Any, Any], token: str, seconds: float) -> Steps[None]:
    """Let nothing be served from L1 that is older than the token.

    A lane that has not applied it by now is asked where it stands: the answer comes behind all messages before it. What
    does not answer within the time is made suspect, so that each entry is looked at in L2 before it is served again.
    All are asked before any is waited for.
    Of a token that was made under another version of the list of shards nothing is known but its age: all lanes are
    asked then. Copies of a shard that is out are not served after this, for it cannot be asked how old they are.

    Raises:
        ValueError: It is no token, or one of another set of shards.
    """
    lanes, positions = in_order(tier), parse_token(token)
    if version_of(token) != version_in(tier.ring)[0]:
        positions = dict.fromkeys(range(len(lanes)), (0, 0))
    if any(place >= len(lanes) for place in positions):
        raise ValueError(
            f"token={token!r:.100}: it names a lane that this cache does not have; are the shards the same?"
        )
    deadline_ns = tier.clock() + int(seconds * 1e9)
    asked: list[tuple[int, Signal]] = []
    for place, (epoch, seq) in positions.items():
        lane = lanes[place]
        here = tier.lanes[lane].applied
        if here is not None and here[0] == epoch and here[1] >= seq:
            continue
        signal = Signal()
        if tier.ears.fence(lane, signal.set):
            asked.append((lane, signal))
    for lane, signal in asked:
        reached = yield Await(signal, max(0.0, (deadline_ns - tier.clock()) / 1e9))
        if not reached:
            tier.suspect(store, lane)
    if tier.stale is not None:  # what a lost connection has left behind may be older
        for place in positions:
            tier.stale.forget(lanes[place])


def in_order(tier: Tier) -> list[int]:
    """Return the lanes in the order of their names, which is the same in all processes, however they list them."""
    if not version_in(tier.ring)[1]:  # lanes of a cluster have numbers of their own
        return list(tier.active)
    return sorted(tier.active, key=lambda lane: tier.shard_names[lane].encode("utf-8", "surrogatepass"))
