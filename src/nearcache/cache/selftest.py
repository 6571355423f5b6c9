"""The self-test: publish an invalidation on every shard, and see whether it comes back."""

from __future__ import annotations

import threading
from typing import Any, Final

from ..bus import Listener
from ..clocks import monotonic_ns
from ..coherence import RESERVED, Lane, State
from ..errors import CoherenceError
from ..l2 import Driver, Reply
from ..loading import Tier, new_id
from .report import SelfTest, ShardTest

#: Seconds between two looks at a lane that is about to be subscribed.
_LOOK_S: Final = 0.005
_ASTRAY: Final = (
    "requests and the subscription meet different lanes: are they in different databases, or led to different servers "
    "by a proxy?"
)


def run_selftest(tier: Tier, driver: Driver, listener: Listener, timeout_s: float) -> SelfTest:
    """Test every shard, one after the other."""
    listener.wait_settled(timeout_s)  # a cache that has just been opened, or forked
    return SelfTest(
        tuple(_test(tier, driver, listener, lane, tier.shard_names[lane], timeout_s) for lane in tier.active)
    )


def require(found: SelfTest) -> None:
    """Accept a self-test.

    Raises:
        CoherenceError: Invalidations do not arrive everywhere.
    """
    if not found.ok:
        raise CoherenceError(f"invalidations do not arrive, and require_coherence=True refuses that:\n{found}")


def _test(tier: Tier, driver: Driver, listener: Listener, lane: int, name: str, timeout_s: float) -> ShardTest:
    wid, seen, at_ns = new_id(), threading.Event(), [0]

    def notice() -> None:
        at_ns[0] = monotonic_ns()
        seen.set()

    _await_subscription(tier.lanes[lane], timeout_s / 2)
    listener.watch(wid, notice)
    try:
        sent_ns = monotonic_ns()
        reply = driver.execute([tier.invalidate_exchange(lane, [RESERVED + b"selftest"], wid)])[0]
        error = reply if isinstance(reply, Exception) else _error_in(reply)
        if error is not None:
            return ShardTest(name, False, None, f"cannot publish: {error}")
        assert isinstance(reply, Reply)
        if seen.wait(timeout_s):
            if _is_followed(tier, listener, lane, reply, timeout_s):
                return ShardTest(name, True, (at_ns[0] - sent_ns) / 1e6, "")
            return ShardTest(name, False, None, _ASTRAY)
        return ShardTest(name, False, None, _why_unseen(tier, lane, reply))
    finally:
        listener.unwatch(wid)


def _await_subscription(lane: Lane, timeout_s: float) -> None:
    """A lane that has just been added, or has lost its server, may be subscribed in a moment."""
    until_ns, pause = monotonic_ns() + int(timeout_s * 1e9), threading.Event()
    while lane.state is not State.LIVE and monotonic_ns() < until_ns:
        pause.wait(_LOOK_S)


def _error_in(reply: Reply) -> Exception | None:
    return next((value for value in reply.values if isinstance(value, Exception)), None)


def _epoch_in(reply: Reply) -> int:
    epoch: Any = reply.values[0][3]
    return int(epoch, 16)


def _is_followed(tier: Tier, listener: Listener, number: int, reply: Reply, timeout_s: float) -> bool:
    """Whether the lane written to is the one whose heartbeats are heard: channels are common to all databases."""
    lane, epoch = tier.lanes[number], _epoch_in(reply)
    if lane.epoch != epoch:  # or the record is new since the last heartbeat
        asked = threading.Event()
        if listener.fence(number, asked.set):
            asked.wait(timeout_s)
    return lane.epoch == epoch


def _why_unseen(tier: Tier, number: int, reply: Reply) -> str:
    lane = tier.lanes[number]
    if lane.state is not State.LIVE:
        return f"not subscribed ({lane.state.value}): {lane.last_error}"
    if lane.epoch != _epoch_in(reply):
        return _ASTRAY
    return (
        "writes and heartbeats pass but published messages do not arrive: does the ACL user have the "
        "channel (&nc:*), does a proxy drop pub/sub?"
    )
