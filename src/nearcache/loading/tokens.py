"""Reading your writes across processes: steps that wait until this process has applied what a token names."""

from __future__ import annotations

from typing import Any

from .._store import Store
from ..coherence import pack_token, parse_token
from ..flights import Signal
from .steps import Await, Steps
from .tier import Tier


def token_of(tier: Tier) -> str:
    """Return a token of all that this process has done and seen."""
    positions = {lane: tier.newest(lane) for lane in range(len(tier.lanes))}
    return pack_token({lane: position for lane, position in positions.items() if position is not None})


def catch_up(tier: Tier, store: Store[Any, Any], token: str, seconds: float) -> Steps[None]:
    """Let nothing be served from L1 that is older than the token.

    A lane that has not applied it by now is asked where it stands: the answer comes behind all messages before it. What
    does not answer within the time is made suspect, so that each entry is looked at in L2 before it is served again.

    Raises:
        ValueError: It is no token, or one of another set of shards.
    """
    positions = parse_token(token)
    if any(lane >= len(tier.lanes) for lane in positions):
        raise ValueError(f"token={token!r}: it names a lane that this cache does not have; are the shards the same?")
    deadline_ns = tier.clock() + int(seconds * 1e9)
    for lane, (epoch, seq) in positions.items():
        here = tier.lanes[lane].applied
        if here is not None and here[0] == epoch and here[1] >= seq:
            continue
        signal = Signal()
        if tier.ears.fence(lane, signal.set):
            reached = yield Await(signal, max(0.0, (deadline_ns - tier.clock()) / 1e9))
            if not reached:
                tier.suspect(store, lane)
