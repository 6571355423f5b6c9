"""Lanes of shards that were left: how long they are told of it, and when their numbers are used again."""

from __future__ import annotations

from nearcache.coherence import KEEP_NS
from nearcache.loading.shards.leaving import Leaving


def test_lane_that_was_left_is_told_again_and_again_for_a_while() -> None:
    """At once, then at intervals, and no longer than changes are remembered."""
    leaving = Leaving(every_ns=10, most=8)
    assert not leaving.is_due(0)
    leaving.tell(3, 100)
    leaving.rest(3, "c")
    assert leaving.take(100) == [3]
    assert not leaving.is_due(109)
    assert leaving.take(109) == []
    assert leaving.take(110) == [3]
    assert leaving.take(100 + KEEP_NS) == []
    assert not leaving.is_due(200 + KEEP_NS)


def test_number_of_a_lane_that_is_told_is_kept_while_there_are_others() -> None:
    """First those that nobody is told by, then new ones, and in the end the one that was left first."""
    leaving = Leaving(every_ns=10, most=4)
    for number in (1, 2):
        leaving.tell(number, 0)
        leaving.rest(number, "bc"[number - 1])
    leaving.rest(0, "a")
    assert leaving.number_for("d", made=3) == 0
    assert leaving.number_for("e", made=3) == 3
    assert leaving.number_for("f", made=4) == 1
    assert leaving.take(5) == [2]


def test_shard_that_comes_back_is_not_told_that_it_was_left() -> None:
    """Its old number is free."""
    leaving = Leaving(every_ns=10, most=8)
    leaving.tell(1, 0)
    leaving.rest(1, "b")
    assert leaving.number_for("b", made=2) == 1
    assert leaving.take(5) == []
