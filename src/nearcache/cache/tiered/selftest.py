"""The self-test: publish an invalidation on every shard, and see whether it comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..._reads import Event
from ...bus import Listener
from ...clocks import monotonic_ns
from ...coherence import RESERVED, Lane, State
from ...errors import CoherenceError
from ...l2 import Driver, Reply
from ...loading import Tier, new_id
from ..report import SelfTest, ShardTest

#: Seconds between two looks at a lane that is about to be subscribed.
_LOOK_S: Final = 0.005
_ASTRAY: Final = (
    "requests and the subscription meet different lanes: are they in different databases, or led to different servers "
    "by a proxy?"
)


def run_selftest(tier: Tier, driver: Driver, listener: Listener, timeout_s: float) -> SelfTest:
    """Test every shard, all at the same time: a cluster has many lanes, and each may have to be waited for."""
    listener.wait_settled(timeout_s)  # a cache that has just been opened, or forked
    trials = [_Trial(lane) for lane in tier.active]
    _await_subscriptions([tier.lanes[trial.lane] for trial in trials], timeout_s / 2)
    for trial in trials:
        listener.watch(trial.wid, trial.notice)
    try:
        sent_ns = monotonic_ns()
        replies = driver.execute(
            [tier.invalidate_exchange(trial.lane, [RESERVED + b"selftest"], trial.wid) for trial in trials]
        )
        said = list(zip(trials, map(_answer, replies), strict=True))
        _wait_for([trial.seen for trial, answer in said if isinstance(answer, Reply)], timeout_s)
        fences = _fence(tier, listener, [(trial.lane, answer) for trial, answer in said if isinstance(answer, Reply)])
        _wait_for(fences, timeout_s)
        for trial, answer in said:
            trial.problem = _problem(tier, trial, answer)
    finally:
        for trial in trials:
            listener.unwatch(trial.wid)
    return SelfTest(tuple(trial.outcome(_name(tier, trial.lane), sent_ns) for trial in trials))


def require(found: SelfTest) -> None:
    """Accept a self-test.

    Raises:
        CoherenceError: Invalidations do not arrive everywhere.
    """
    if not found.ok:
        raise CoherenceError(f"invalidations do not arrive, and require_coherence=True refuses that:\n{found}")


class _Trial:
    """The test of one lane."""

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.wid = new_id()
        self.seen = Event()
        self.problem = ""
        self._at_ns = 0

    def notice(self) -> None:
        """The message has come back. Called in the listener's thread."""
        self._at_ns = monotonic_ns()
        self.seen.set()

    def outcome(self, name: str, sent_ns: int) -> ShardTest:
        """Return what was found."""
        ok = not self.problem
        return ShardTest(name, ok, (self._at_ns - sent_ns) / 1e6 if ok else None, self.problem)


def _await_subscriptions(lanes: Sequence[Lane], timeout_s: float) -> None:
    """A lane that has just been added, or has lost its server, may be subscribed in a moment."""
    until_ns, pause = monotonic_ns() + int(timeout_s * 1e9), Event()
    while any(lane.state is not State.LIVE for lane in lanes) and monotonic_ns() < until_ns:
        pause.wait(_LOOK_S)


def _wait_for(events: Sequence[Event], timeout_s: float) -> None:
    """Wait until all have come, or it has been long enough."""
    until_ns = monotonic_ns() + int(timeout_s * 1e9)
    for event in events:
        event.wait(max(until_ns - monotonic_ns(), 0) / 1e9)


def _name(tier: Tier, lane: int) -> str:
    name, place = tier.shard_names[lane], tier.name_at(lane)
    return name if name == place else f"{name} at {place}"


def _answer(reply: Reply | Exception) -> Reply | Exception:
    """Return the reply, or what the server replied if that is an error."""
    if isinstance(reply, Exception):
        return reply
    return next((value for value in reply.values if isinstance(value, Exception)), reply)


def _epoch_in(reply: Reply) -> int:
    """Return the epoch that was written to; -1: what stands there is none, so that no lane is followed there."""
    epoch: Any = reply.values[0][3]
    try:
        return int(epoch, 16)
    except (TypeError, ValueError):
        return -1


def _fence(tier: Tier, listener: Listener, answers: Sequence[tuple[int, Reply]]) -> list[Event]:
    """Ask where the lanes stand that are in another epoch than what was written to: it may be new."""
    asked = []
    for lane, reply in answers:
        event = Event()
        if tier.lanes[lane].epoch != _epoch_in(reply) and listener.fence(lane, event.set):
            asked.append(event)
    return asked


def _problem(tier: Tier, trial: _Trial, answer: Reply | Exception) -> str:
    if isinstance(answer, Exception):
        return f"cannot publish: {answer}"
    if not trial.seen.is_set():
        return _why_unseen(tier, trial.lane, answer)
    # Channels are common to all databases: the lane written to has to be the one whose heartbeats are heard.
    return "" if tier.lanes[trial.lane].epoch == _epoch_in(answer) else _ASTRAY


def _why_unseen(tier: Tier, number: int, reply: Reply) -> str:
    lane = tier.lanes[number]
    if lane.state is not State.LIVE:
        return f"not subscribed ({lane.state.value}): {lane.last_error}"
    if lane.epoch != _epoch_in(reply):
        return _ASTRAY
    return (
        "writes and heartbeats pass but published messages do not arrive: does the ACL user have the "
        "channel (&nc:*; in a Redis Cluster +spublish, too), does a proxy drop pub/sub?"
    )
