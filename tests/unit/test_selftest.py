"""The self-test asks all lanes at the same time, and says of each what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from nearcache.cache.tiered.selftest import run_selftest
from nearcache.coherence import State
from nearcache.errors import ServerReplyError
from nearcache.l2 import Reply

EPOCH, OTHER = 0xE, 0xF


class Lanes:
    """Tier, driver and listener in one, of lanes that behave as told."""

    def __init__(self, *behaviours: str) -> None:
        self._behaviours = behaviours
        self.active = range(len(behaviours))
        self.shard_names = [f"{number}" for number in self.active]
        self.name_at = self.shard_names.__getitem__
        self.lanes = [SimpleNamespace(state=State.LIVE, epoch=EPOCH, last_error="") for _ in self.active]
        self.watched: dict[int, Callable[[], None]] = {}
        self.asked = 0
        for lane, behaviour in zip(self.lanes, behaviours, strict=True):
            if behaviour == "down":
                lane.state, lane.last_error = State.DOWN, "not allowed"
            elif behaviour in ("new", "astray"):
                lane.epoch = OTHER

    def invalidate_exchange(self, lane: int, _keys: list[bytes], wid: int) -> tuple[int, int]:
        return lane, wid

    def execute(self, exchanges: list[tuple[int, int]]) -> list[Any]:
        self.asked += 1
        return [self._reply(lane, wid) for lane, wid in exchanges]

    def _reply(self, lane: int, wid: int) -> Any:
        behaviour = self._behaviours[lane]
        if behaviour == "mute":
            error = ServerReplyError("0", "NOPERM")
            return Reply([error], 1)
        if behaviour in ("fine", "new", "astray"):
            self.watched[wid]()
        return Reply([[1, b"%016x" % EPOCH, 0, b"%016x" % EPOCH, b"7"]], 1)

    def fence(self, lane: int, woken: Callable[[], None]) -> bool:
        if self._behaviours[lane] == "new":
            self.lanes[lane].epoch = EPOCH
            woken()
        return True

    def wait_settled(self, _timeout_s: float) -> bool:
        return True

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        self.watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        del self.watched[wid]


def test_each_lane_is_told_what_is_wrong_with_it_and_all_are_asked_at_once() -> None:
    """Sixty-four lanes that are each waited for in turn would take minutes to say what one says in seconds."""
    lanes: Any = Lanes("fine", "lost", "mute", "down", "new", "astray", "fine")
    found = run_selftest(lanes, lanes, lanes, 0.0)
    assert [shard.ok for shard in found.shards] == [True, False, False, False, True, False, True]
    assert [shard.lag_ms is not None for shard in found.shards] == [shard.ok for shard in found.shards]
    problems = [shard.problem for shard in found.shards]
    assert "published messages do not arrive" in problems[1]
    assert "cannot publish" in problems[2]
    assert "not subscribed (down): not allowed" in problems[3]
    assert "different lanes" in problems[5]
    assert lanes.asked == 1
    assert lanes.watched == {}


def test_lane_of_a_cluster_is_named_with_its_node() -> None:
    """Which of 64 it is helps nobody to find what is wrong."""
    lanes: Any = Lanes("fine", "lost")
    lanes.name_at = ["10.0.0.1:7000", "1"].__getitem__  # nobody knows who has the other one
    found = run_selftest(lanes, lanes, lanes, 0.0)
    assert [shard.name for shard in found.shards] == ["0 at 10.0.0.1:7000", "1"]
