"""A read that proves where it came from, where no server says who it is; and what is made of a lane that moved."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.coherence import CHAINED, Action, Forked, Lane
from nearcache.coherence.lane import LAG_NS
from nearcache.l2 import Reply
from nearcache.loading import Tier
from nearcache.loading.proof import prove, proven
from support.followers import EPOCH, GENERATION, START, Scene, fill, push, standing
from support.tiers import Deaf, tier_of

BOUND = 2_000_000_000
READ: list[Any] = [(b"GET", b"k")]
HERE = (EPOCH, 7, 0x77)


class Ears(Deaf):
    """What was heard last is told by the test."""

    where: tuple[int, int, int] | None = HERE

    def place(self, lane: int) -> Any:
        return self.where


@pytest.fixture
def tier() -> Tier:
    """A tier of one lane, on a server that does not say who it is."""
    tier = tier_of()
    tier.lanes[0].connected(0)
    tier.ears = Ears()
    return tier


def said(epoch: int, seq: int, wid: int) -> Reply:
    """A reply to the question where the lane stands, and to the read."""
    return Reply([[b"%016x" % epoch, b"%d" % seq, b"%016x" % wid], b"value"], 0)


@pytest.mark.parametrize(
    ("there", "now", "identity"),
    [
        (HERE, HERE, CHAINED),
        (HERE, (EPOCH, 9, 0x99), CHAINED),  # the read was before what came since, and that keeps it out if it must
        ((EPOCH, 8, 0x88), (EPOCH, 8, 0x88), CHAINED),
        ((EPOCH, 8, 0x88), HERE, 0),  # ahead of all that was heard: of a history of its own, for all that is known
        ((EPOCH, 8, 0x88), None, 0),
        ((EPOCH, 6, 0x66), HERE, 0),  # behind: a server that was replaced
        ((EPOCH, 7, 0x78), HERE, 0),  # as many changes, but others
        ((EPOCH + 1, 7, 0x77), HERE, 0),
    ],
)
def test_read_is_kept_if_the_server_stands_where_was_heard(
    tier: Tier, there: tuple[int, int, int], now: Any, identity: int
) -> None:
    """When the read was registered, or when its answer is there."""
    exchange, proof = prove(tier, 0, READ)
    assert exchange.commands[0] == (b"HMGET", b"nc:{t:0}:L", b"e", b"s", b"w")  # before the value
    assert exchange.commands[1:] == READ
    tier.ears.where = now  # type: ignore[attr-defined]  # they are Ears
    assert proven(tier, proof, said(*there)) == Reply([b"value"], identity)


def test_read_where_there_is_no_record_is_not_kept(tier: Tier) -> None:
    """It was evicted, or everything was flushed."""
    _, proof = prove(tier, 0, READ)
    assert proven(tier, proof, Reply([[None, None, None], b"value"], 0)).identity == 0


def test_read_from_a_server_that_says_who_it_is_asks_nothing_more(tier: Tier) -> None:
    """Its identity stays what its connection was told."""
    tier.lanes[0].connected(5)
    exchange, proof = prove(tier, 0, READ)
    assert (exchange.commands, proof) == (READ, None)
    assert proven(tier, proof, Reply([b"value"], 5)) == Reply([b"value"], 5)


def test_read_where_nothing_is_heard_asks_nothing_more(tier: Tier) -> None:
    """It could prove nothing."""
    tier.ears = Deaf()
    assert prove(tier, 0, READ)[1] is None


def test_place_counts_a_message_before_anything_of_it_is_done() -> None:
    """A reader that finds an entry gone must not take the lane for where it was before."""
    scene = Scene()
    places: list[Any] = []

    class Told:
        """A value that looks when it is let go of."""

        def __del__(self) -> None:
            places.append(scene.follower.place(0))

    assert scene.follower.place(0) is None
    scene.go_live()
    assert scene.follower.place(0) == (EPOCH, 0, 3)
    fill(scene.store, "k", Told())
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)  # the compiled way
    fill(scene.store, "k", Told())
    scene.watched[5] = lambda: None
    scene.follower.received(push(0, "S", 2, 4, 5, b"sk"), START)  # the other
    assert places == [(EPOCH, 1, 4), (EPOCH, 2, 5)]
    scene.follower.lost("gone")
    assert scene.follower.place(0) is None


# -- the lane


def beat(lane: Lane, seq: int, wid: int, at_ns: int, took_ns: int = 0) -> list[Action]:
    """One heartbeat, answered after so long."""
    lane.heartbeat_sent(at_ns)
    fields = standing(seq, wid).split(b"\r\n")[2::2]
    return [each for each in lane.heartbeat_reply(fields, at_ns + took_ns) if isinstance(each, Forked)]


def nameless(seq: int, wid: int, at_ns: int) -> Lane:
    """A lane on a server that does not say who it is."""
    lane = Lane(BOUND)
    assert lane.connected(0)
    assert beat(lane, seq, wid, at_ns) == [Forked(EPOCH, {}, seq)]
    return lane


def test_lane_that_stands_where_it_stood_lost_nothing() -> None:
    """Whoever answers now has all that there was."""
    lane = nameless(5, 0x55, 1)
    lane.lost("cut")
    lane.connected(0)
    assert beat(lane, 5, 0x55, 2) == []


@pytest.mark.parametrize("cut", [True, False])
def test_lane_that_moved_may_have_lost_what_is_younger_than_replication_lags(cut: bool) -> None:
    """Changes of this process since then are made again; those before are there, whoever answers."""
    lane = nameless(5, 0x55, START)
    old = START + 1_000_000
    assert beat(lane, 5, 0x55, old) == []
    last = old + LAG_NS
    lane.message(b"S %016x 6 %016x %016x\n2:sk" % (EPOCH, 0x55, 0x66))
    assert beat(lane, 6, 0x66, last) == []
    if cut:
        lane.lost("cut")
        lane.connected(0)
    much_later = last + 5 * LAG_NS  # what counts is when the server before was last heard
    assert beat(lane, 9, 0x99, much_later) == [Forked(EPOCH, {EPOCH: 5}, 9)]
    assert lane.counters.forks == 0  # it may have been nothing
    assert beat(lane, 9, 0x99, much_later + 1) == []


@pytest.mark.parametrize(("early_ns", "end"), [(0, 5), (1, 0)])
def test_lane_that_moved_has_what_was_answered_so_long_before_the_last_question(early_ns: int, end: int) -> None:
    """What an answer tells may be as young as itself; and the server that gave the last one may have gone at once."""
    lane = nameless(5, 0x55, 1)
    assert beat(lane, 5, 0x55, START, took_ns=9) == []
    lane.message(b"S %016x 6 %016x %016x\n2:sk" % (EPOCH, 0x55, 0x66))
    assert beat(lane, 6, 0x66, START + 9 + LAG_NS - early_ns, took_ns=9) == []
    assert beat(lane, 9, 0x99, START + 5 * LAG_NS) == [Forked(EPOCH, {EPOCH: end}, 9)]


def test_lane_that_moved_has_the_newest_of_what_is_old_enough() -> None:
    """No more than that is made again; and of answers that are older still, none is kept."""
    lane = nameless(5, 0x55, 1)
    beat(lane, 5, 0x55, START)
    for seq in (6, 7, 8):
        lane.message(b"S %016x %d %016x %016x\n2:sk" % (EPOCH, seq, 0x11 * (seq - 1), 0x11 * seq))
        assert beat(lane, seq, 0x11 * seq, START + (seq - 5) * LAG_NS) == []
    assert beat(lane, 9, 0x99, START + 9 * LAG_NS) == [Forked(EPOCH, {EPOCH: 7}, 9)]


def test_lane_that_went_back_is_counted_as_a_fork() -> None:
    """That is certain."""
    lane = nameless(5, 0x55, START)
    assert beat(lane, 4, 0x44, START + 1) == [Forked(EPOCH, {EPOCH: 0}, 4)]
    assert lane.counters.forks == 1


def test_lane_of_another_epoch_says_itself_what_it_lost() -> None:
    """Somebody with more rights has adopted it."""
    lane = nameless(5, 0x55, START)
    lane.heartbeat_sent(START + 1)
    fields = [b"%016x" % 0xF, b"9", b"%016x" % 0x99, b"%016x" % GENERATION, b"1", b"%016x:4" % EPOCH]
    assert Forked(0xF, {EPOCH: 4}, 9) in lane.heartbeat_reply(fields, START + 1)
