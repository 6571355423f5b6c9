"""Copies of a shard that is out: which may be served, and for how long. No server, no real time."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Op, Store
from nearcache.coherence import Lane, State, pack_token
from nearcache.loading import MISSING, catch_up
from nearcache.loading.reading import stale_copy
from nearcache.loading.stale import StaleCopies
from support.steps import EPOCH, IDENTITY
from support.steps import World as Answered

ALLOWED = 1_000
BOUND = 100


class World:
    """A store with two lanes and what remembers their ends, as a cache has them; the clock is ours."""

    def __init__(self) -> None:
        self.lanes = [Lane(BOUND), Lane(BOUND)]
        self.stale = StaleCopies(self.lanes, ALLOWED, 2)
        self.store: Store[Any, Any] = Store(10, lanes=2)
        self.now(1_000_000)
        for lane in range(2):
            self.live(lane)

    def now(self, ns: int) -> None:
        self.ns = ns
        self.store.l1_set_clock(ns)

    def live(self, lane: int) -> None:
        self.lanes[lane].state = State.LIVE
        self.store.lane_attach(lane, 7)
        self.stale.vouched(lane, self.ns + BOUND)
        self.store.lane_vouch(lane, self.ns + BOUND)

    def suspect(self, lane: int, state: State) -> None:
        self.lanes[lane].state = state
        if state is State.DOWN:
            self.store.lane_dark(lane)
        self.stale.suspected(lane, self.store.lane_stamp(lane), self.ns)
        self.store.lane_suspect(lane)

    def keep(self, key: str, lane: int = 0, life: int = 1_000_000) -> None:
        op = Op(key, lane)
        self.store.l1_open(op)
        assert self.store.l1_finish(op, f"value of {key}", 5, self.ns + life, 1, 7)

    def write(self, key: str, wid: int) -> None:
        """A write of our own, whose message is still to come."""
        op = Op(key, 0, wid=wid, write=True, announced=True)
        self.store.l1_open(op)
        assert self.store.l1_finish(op, f"value of {key}", wid, self.ns + 1_000_000, 1, 7)

    def find(self, key: str, lane: int = 0) -> Any:
        return self.stale.find(self.store, key, lane, self.ns, MISSING)


@pytest.fixture
def world() -> World:
    """Both lanes live, ``k`` held of the first one."""
    world = World()
    world.keep("k")
    return world


def test_copy_of_a_lost_lane_is_found_until_its_time_is_over(world: World) -> None:
    """Counted from the last instant that was vouched for, not from the loss."""
    world.now(world.ns + BOUND // 2)
    world.suspect(0, State.DOWN)
    assert world.find("k") == "value of k"
    world.now(1_000_000 + BOUND + ALLOWED - 1)
    assert world.find("k") == "value of k"
    world.now(1_000_000 + BOUND + ALLOWED)
    assert world.find("k") is MISSING


def test_copy_of_a_lane_that_went_dark_is_found_before_the_loss_is_noticed(world: World) -> None:
    """A paused server: no answer, and no end of the connection either."""
    world.now(1_000_000 + BOUND)
    assert world.find("k") == "value of k"
    world.now(1_000_000 + BOUND + ALLOWED)
    assert world.find("k") is MISSING


def test_copy_is_not_served_past_its_own_lifetime(world: World) -> None:
    """What it was given when it was written still holds."""
    world.keep("short", life=50)
    world.suspect(0, State.DOWN)
    assert world.find("short") == "value of short"
    world.now(world.ns + 50)
    assert world.find("short") is MISSING


def test_attempts_to_reconnect_do_not_shorten_or_lengthen_it(world: World) -> None:
    """Each attempt counts the stamp up; the copy's own stamp is what matters."""
    for _ in range(5):
        world.suspect(0, State.DOWN)
    assert world.find("k") == "value of k"
    world.live(0)
    world.now(1_000_000 + 600)
    world.live(0)
    world.suspect(0, State.DOWN)
    assert world.find("k") == "value of k"  # nobody has read it since: it was vouched for until the first loss
    world.now(1_000_000 + BOUND + ALLOWED)
    assert world.find("k") is MISSING


@pytest.mark.parametrize("state", [State.LIVE, State.SYNC])
def test_copy_from_before_a_clear_or_a_gap_is_never_found(world: World, state: State) -> None:
    """It may be known to have changed, also if the connection was lost before or is lost after."""
    world.suspect(0, State.DOWN)
    world.live(0)
    world.keep("later")
    world.suspect(0, state)
    world.suspect(0, State.DOWN)
    assert world.find("k") is MISSING
    assert world.find("later") is MISSING


def test_copy_of_another_lane_is_not_touched(world: World) -> None:
    """Lanes are lost one by one, and an entry is judged by its own."""
    world.keep("other", lane=1)
    world.suspect(0, State.DOWN)
    world.suspect(1, State.LIVE)
    assert world.find("k") == "value of k"
    assert world.find("other", lane=1) is MISSING
    assert world.find("other", lane=0) is MISSING


def test_copy_that_a_message_dropped_is_gone(world: World) -> None:
    """An invalidation that arrived is never undone."""
    world.suspect(0, State.DOWN)
    world.store.lane_apply(0, 99, ["k"])
    assert world.find("k") is MISSING
    assert world.find("never held") is MISSING


def test_old_stamps_are_forgotten(world: World) -> None:
    """A lane that is lost again and again does not fill memory."""
    for _ in range(100):
        world.now(world.ns + ALLOWED)
        world.live(0)
        world.suspect(0, State.DOWN)
    assert len(world.stale._ended[0]) <= 2


def test_copy_that_a_lost_connection_left_behind_is_forgotten_and_not_what_is_vouched_for(world: World) -> None:
    """Of one lane only."""
    world.keep("j", 1)
    world.suspect(0, State.DOWN)
    world.suspect(1, State.DOWN)
    assert world.find("k") == "value of k"
    world.stale.forget(0)
    assert world.find("k") is MISSING
    assert world.find("j", 1) == "value of j"
    world.live(0)
    world.keep("k")
    world.stale.forget(0)
    world.suspect(0, State.DOWN)
    assert world.find("k") == "value of k"


@pytest.mark.parametrize("vouchings", range(6))
def test_copy_that_a_message_spared_before_a_clear_is_never_found(vouchings: int) -> None:
    """Heartbeats move the stamp of its probation, which says nothing of the lane's."""
    world = World()
    for _ in range(vouchings):
        world.live(0)
    world.write("k", 11)
    world.store.lane_apply(0, 55, ["k"])
    assert world.store.get("k") == "value of k"
    for _ in range(3):
        world.store.lane_suspect(0)
        world.stale.forget(0)
        assert world.store.get("k") is None
        assert world.find("k") is MISSING
    world.suspect(0, State.DOWN)
    assert world.find("k") is MISSING
    assert world.store.l1_suspect("k") == (11, "value of k", 0)


@pytest.mark.parametrize("losses", range(4))
def test_copy_that_its_own_message_made_good_after_a_gap_is_never_found(losses: int) -> None:
    """It went back to its lane as a suspect, under no stamp that the lane has had, or will have."""
    world = World()
    world.write("k", 11)
    world.store.lane_apply(0, 55, ["k"])
    world.suspect(0, State.SYNC)
    for _ in range(losses):
        world.live(0)
        world.suspect(0, State.DOWN)
        assert world.find("k") is MISSING
    world.live(0)
    world.store.lane_apply(0, 11, ["k"])
    assert world.store.get("k") is None
    assert world.find("k") is MISSING
    for _ in range(3):
        world.suspect(0, State.DOWN)
        assert world.find("k") is MISSING
        world.live(0)


def test_copy_of_an_own_write_is_found_like_any_other_when_its_message_has_come() -> None:
    """Also if a message of others came first, and if nothing came at all."""
    world = World()
    for key, heard in {"k": [55, 11], "j": [11], "i": []}.items():
        world.write(key, 11)
        for wid in heard:
            world.store.lane_apply(0, wid, [key])
    world.suspect(0, State.DOWN)
    assert [world.find(key) for key in "kji"] == ["value of k", "value of j", "value of i"]


@pytest.mark.parametrize("seq", [3, 9])
def test_copy_of_a_shard_that_is_out_is_not_served_after_waiting_for_a_token(seq: int) -> None:
    """Neither if the lane cannot be asked, nor if it is as far as the token again, and the copy is from before."""
    world = Answered(stale_ns=60_000_000_000)
    tier, store = world.tier, world.store
    assert tier.stale is not None
    op = Op("k", 0)
    store.l1_open(op)
    assert store.l1_finish(op, "old", 5, world.ns + 10**12, 1, IDENTITY)
    tier.stale.vouched(0, world.ns + BOUND)
    world.lane.state = State.DOWN
    tier.stale.suspected(0, store.lane_stamp(0), world.ns)
    store.lane_suspect(0)
    assert stale_copy(tier, store, "k", 0) == "old"
    world.lane.applied = (EPOCH, 5)
    world.run(catch_up(tier, store, pack_token({0: (EPOCH, seq)}, 1), 1.0))
    assert stale_copy(tier, store, "k", 0) is MISSING
