"""What is to be written behind the cache, and when: coalescing, order, pauses. The clock is the test's."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from nearcache.backlog import FIRST_PAUSE_NS, LONGEST_PAUSE_NS, Backlog

SECOND = 1_000_000_000


def backlog(delay: float = 1.0, batch: int = 10, attempts: int | None = 3, chance: float = 1.0) -> Backlog:
    """A backlog whose pauses are the longest that there are."""
    return Backlog(int(delay * SECOND), batch, attempts, lambda: chance)


def test_change_is_due_after_its_delay_and_stays_until_it_is_settled() -> None:
    """What was taken and not settled is taken again: nothing is lost by a failure in between."""
    waiting = backlog()
    waiting.add(0, b"k", b"1-0", b"v", 0)
    assert waiting.take(SECOND - 1) == []
    assert waiting.wait_ns(SECOND // 4) == SECOND * 3 // 4
    (change,) = waiting.take(SECOND)
    assert (change.lane, change.encoded, change.envelope, change.ids) == (0, b"k", b"v", [b"1-0"])
    assert waiting.take(SECOND) == [change]
    waiting.settle([change])
    assert (waiting.take(SECOND), len(waiting), waiting.wait_ns(0)) == ([], 0, None)


def test_later_changes_of_a_key_overtake_earlier_ones_without_delaying_them() -> None:
    """The last is written and stands for all; a key that is written all the time is due all the same."""
    waiting = backlog()
    for number in range(10):
        waiting.add(0, b"k", b"%d-0" % number, b"v%d" % number, number * SECOND // 10)
    (change,) = waiting.take(SECOND)
    assert (change.envelope, change.id) == (b"v9", b"9-0")
    assert change.ids == [b"%d-0" % number for number in range(10)]
    assert waiting.counters.coalesced == 9


def test_change_that_was_made_longer_ago_is_due_earlier() -> None:
    """Of two that are taken over together, in the order in which they are due."""
    waiting = backlog()
    waiting.add(0, b"a", b"2-0", b"v", 0)
    waiting.add(0, b"b", b"1-0", b"v", -5 * SECOND)
    assert [change.encoded for change in waiting.take(0)] == [b"b"]
    assert [change.encoded for change in waiting.take(SECOND)] == [b"b", b"a"]


def test_record_that_is_given_out_again_changes_nothing() -> None:
    """An owner that reads its queue anew gets what it has."""
    waiting = backlog()
    waiting.add(0, b"k", b"1-0", b"old", 0)
    waiting.add(0, b"k", b"2-0", b"new", 0)
    waiting.add(0, b"k", b"1-0", b"old", 0)
    (change,) = waiting.take(SECOND)
    assert (change.envelope, change.ids) == (b"new", [b"1-0", b"2-0"])


def test_same_key_on_two_lanes_is_two_keys() -> None:
    """After a change of the shards a key may wait in its old queue and its new one."""
    waiting = backlog()
    waiting.add(0, b"k", b"1-0", b"a", 0)
    waiting.add(1, b"k", b"1-0", b"b", 0)
    assert [change.envelope for change in waiting.take(SECOND)] == [b"a", b"b"]


def test_batch_takes_the_longest_overdue_first() -> None:
    """No key waits for ever behind others."""
    waiting = backlog(batch=2)
    for number in range(5):
        waiting.add(0, b"%d" % number, b"%d-0" % number, b"v", number)
    first = waiting.take(2 * SECOND)
    assert [change.encoded for change in first] == [b"0", b"1"]
    waiting.settle(first)
    assert [change.encoded for change in waiting.take(2 * SECOND)] == [b"2", b"3"]


def test_failure_makes_the_pause_twice_as_long_up_to_the_longest() -> None:
    """And random between half of it and all of it, so that not all come back at once."""
    for chance, part in ((0.0, 0.5), (1.0, 1.0)):
        waiting = backlog(attempts=None, chance=chance)
        waiting.add(0, b"k", b"1-0", b"v", 0)
        (change,) = waiting.take(SECOND)
        pauses = []
        for _ in range(30):
            assert not waiting.fail(change, 0)
            pauses.append(waiting.wait_ns(0))
        expected = [min(FIRST_PAUSE_NS << min(number, 20), LONGEST_PAUSE_NS) * part for number in range(1, 31)]
        assert pauses == expected


def test_change_that_has_failed_as_often_as_it_may_is_given_up() -> None:
    """The third of three tries is the last."""
    waiting = backlog(attempts=3)
    waiting.add(0, b"k", b"1-0", b"v", 0)
    (change,) = waiting.take(SECOND)
    assert [waiting.fail(change, 0) for _ in range(3)] == [False, False, True]
    assert waiting.counters.retried == 2


def test_newer_value_begins_its_tries_anew_but_not_its_pause() -> None:
    """What had failed is not to be written any more; what is behind the cache is as slow as before."""
    waiting = backlog(attempts=2)
    waiting.add(0, b"k", b"1-0", b"poison", 0)
    (change,) = waiting.take(SECOND)
    assert not waiting.fail(change, SECOND)
    pause = waiting.wait_ns(SECOND)
    waiting.add(0, b"k", b"2-0", b"good", SECOND)
    assert waiting.wait_ns(SECOND) == pause
    assert [waiting.fail(change, SECOND) for _ in range(2)] == [False, True]


def test_postponed_changes_pause_and_nothing_is_counted() -> None:
    """They were not tried."""
    waiting = backlog(attempts=1)
    waiting.add(0, b"k", b"1-0", b"v", 0)
    (change,) = waiting.take(SECOND)
    waiting.postpone([change], SECOND)
    assert waiting.take(SECOND) == []
    assert (change.attempts, waiting.wait_ns(SECOND)) == (0, FIRST_PAUSE_NS)


def test_hurry_ends_delays_but_no_pauses() -> None:
    """Who flushes wants everything now; what fails is not to be tried without a pause."""
    waiting = backlog(delay=100, attempts=None)
    waiting.add(0, b"a", b"1-0", b"v", 0)
    waiting.hurry(0, b"1-0")
    (change,) = waiting.take(1)
    waiting.fail(change, 1)
    assert waiting.take(2) == []


def test_hurry_is_for_what_was_there_up_to_a_record_of_a_lane() -> None:
    """In the order of numbers; a change that has been overtaken by a later one was there."""
    waiting = backlog(delay=100)
    waiting.add(0, b"a", b"9-9", b"v", 0)
    waiting.add(0, b"b", b"9-10", b"v", 0)
    waiting.add(0, b"c", b"10-0", b"v", 0)
    waiting.add(1, b"a", b"1-0", b"v", 0)
    waiting.add(0, b"b", b"11-0", b"later", 0)
    waiting.hurry(0, b"9-10")
    assert [(change.lane, change.encoded, change.envelope) for change in waiting.take(1)] == [
        (0, b"a", b"v"), (0, b"b", b"later"),
    ]  # fmt: skip
    waiting.hurry(0, b"9-8")
    assert len(waiting.take(1)) == 2


def test_record_that_was_given_out_far_too_often_is_hopeless_unless_tries_have_no_end() -> None:
    """Whoever was given it has died of it, again and again."""
    for attempts, hopeless in ((3, True), (None, False)):
        waiting = backlog(attempts=attempts)
        waiting.add(0, b"k", b"1-0", b"v", 0, deliveries=14)
        (change,) = waiting.take(SECOND)
        assert waiting.is_hopeless(change) is hopeless


def test_forgotten_lane_leaves_the_others() -> None:
    """Its queue is another process's now."""
    waiting = backlog()
    waiting.add(0, b"k", b"1-0", b"v", 0)
    waiting.add(1, b"k", b"1-0", b"v", 0)
    waiting.forget(0)
    assert [change.lane for change in waiting.take(SECOND)] == [1]


def test_full_backlog_says_so_until_something_is_settled() -> None:
    """The rest is as well kept in Redis."""
    waiting = backlog(batch=2)
    for number in range(20):
        waiting.add(0, b"%d" % number, b"%d-0" % number, b"v", 0)
    assert waiting.is_full
    waiting.settle(waiting.take(SECOND))
    assert not waiting.is_full


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(0, 2**32))
def test_what_is_written_is_the_last_of_every_key_and_settles_every_record(
    history: list[tuple[int, bool]], seed: int
) -> None:
    """Whatever comes between: failures, postponements, records given out again."""
    chance = random.Random(seed)
    waiting = Backlog(0, 2, None, chance.random)
    written: dict[bytes, bytes] = {}
    settled: set[bytes] = set()
    last: dict[bytes, bytes] = {}
    now = 0
    for number, (key, tries) in enumerate(history):
        name, record = b"%d" % key, b"%d-0" % number
        last[name] = record
        waiting.add(0, name, record, record, now)
        if chance.random() < 0.2:
            waiting.add(0, name, record, record, now)
        if tries:
            now = _turn(waiting, chance, now, written, settled)
    while len(waiting):
        now = _turn(waiting, chance, now, written, settled)
    assert written == last
    assert settled == {b"%d-0" % number for number in range(len(history))}


def _turn(waiting: Backlog, chance: random.Random, now: int, written: dict[bytes, bytes], settled: set[bytes]) -> int:
    changes = waiting.take(now)
    for change in changes:
        if chance.random() < 0.3:
            assert not waiting.fail(change, now)
        elif chance.random() < 0.2:
            waiting.postpone([change], now)
        else:
            written[change.encoded] = change.envelope
            settled.update(change.ids)
            waiting.settle([change])
    return now if changes else now + (waiting.wait_ns(now) or 0)
