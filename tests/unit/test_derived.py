"""Derived lanes: an entry with tags ends with its tags, and with the silence of any lane below it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._store import Op, Store
from nearcache.clocks import monotonic_ns
from nearcache.coherence import DERIVED, Derived, Horizon

FAR = 3_600_000_000_000


def made(lanes: int = 2, **options: Any) -> tuple[Store[Any, Any], Derived, Horizon]:
    """A store with its derived lanes, all lanes attached and vouched for."""
    store: Store[Any, Any] = Store(1000, lanes=lanes + DERIVED)
    derived = Derived(lanes, **options)
    horizon = Horizon(lambda: store, Store(100, lanes=lanes), derived)
    for lane in range(lanes):
        horizon.lane_attach(lane, 1)
        horizon.lane_vouch(lane, monotonic_ns() + FAR)
    return store, derived, horizon


def enter(store: Store[Any, Any], derived: Derived, key: str, lane: int, *tags: tuple[bytes, int]) -> int:
    """Enter a value of a lane with these tags; return its derived lane."""
    op = Op(key, lane)
    store.l1_open(op)
    under = derived.assign(store, lane, tags)
    store.l1_finish(op, key.upper(), 7, monotonic_ns() + FAR, 0, 1, under)
    return under[0]


def test_entry_with_tags_is_served_while_nothing_happens() -> None:
    """Under a derived lane a hit is a hit."""
    store, derived, _ = made()
    enter(store, derived, "k", 0, (b"!t:1", 1))
    assert store.peek("k") == "K"


def test_entry_is_suspect_when_its_tag_changes() -> None:
    """A message about the tag's record reaches what depends on it."""
    store, derived, horizon = made()
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.apply_tags(1, 99, [b"!t:1"])
    assert store.peek("k") is None
    assert store.l1_suspect("k") is not None


def test_entry_stays_when_a_tag_of_another_derived_lane_changes() -> None:
    """Other tags are other lanes, as a rule."""
    store, derived, horizon = made()
    mine = enter(store, derived, "k", 0, (b"!t:1", 1))
    tag = next(tag for tag in (b"!t:%d" % n for n in range(2, 99)) if derived.assign(store, 0, [(tag, 1)])[0] != mine)
    horizon.apply_tags(1, 99, [tag])
    assert store.peek("k") == "K"


def test_first_combinations_of_tags_share_no_derived_lane() -> None:
    """So in a cache with few of them a change reaches what it is about, and nothing else. Others share, by hash."""
    store, derived, _ = made(count=8)
    combinations = [(lane, tags) for lane in range(2) for tags in ([], [(b"!t:1", 1)], [(b"!t:1", 1), (b"!t:2", 0)])]
    under = [derived.assign(store, lane, tags)[0] for lane, tags in combinations]
    assert len(set(under)) == 6
    assert [derived.assign(store, lane, tags)[0] for lane, tags in combinations] == under
    assert {derived.assign(store, 0, [(b"!t:%d" % n, 0)])[0] for n in range(3, 100)} == set(range(2, 10))


def test_entry_stays_when_this_process_makes_the_record_that_it_states() -> None:
    """A record's own making, announced, is expected: the entry states that very generation."""
    store, derived, horizon = made()
    derived.expect(99)
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.apply_tags(1, 99, [b"!t:1"])
    assert store.peek("k") == "K"
    horizon.apply_tags(1, 99, [b"!t:1"])  # once only
    assert store.peek("k") is None


def test_record_of_this_process_whose_message_never_comes_is_forgotten_among_many() -> None:
    """Messages are lost: what they would have said must not be kept for ever."""
    store, derived, horizon = made()
    for wid in range(1, 1026):
        derived.expect(wid)
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.apply_tags(1, 2, [b"!t:1"])
    assert store.peek("k") == "K"
    horizon.apply_tags(1, 1, [b"!t:1"])
    assert store.peek("k") is None


@pytest.mark.parametrize("silent", [0, 1])
def test_entry_is_not_served_when_a_lane_below_is_dark(silent: int) -> None:
    """Neither without its own lane nor without that of a tag."""
    store, derived, horizon = made()
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.lane_dark(silent)
    assert store.peek("k") is None
    horizon.lane_vouch(silent, monotonic_ns() + FAR)
    assert store.peek("k") == "K"


@pytest.mark.parametrize("lost", [0, 1])
def test_entry_is_suspect_when_a_lane_below_lost_a_message(lost: int) -> None:
    """The lost message may have been about the key, or about the tag."""
    store, derived, horizon = made()
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.lane_suspect(lost)
    assert store.peek("k") is None


def test_entry_without_relation_to_a_lane_is_not_touched_by_it() -> None:
    """A third lane may fall silent."""
    store, derived, horizon = made(lanes=3)
    enter(store, derived, "k", 0, (b"!t:1", 1))
    horizon.lane_dark(2)
    horizon.lane_suspect(2)
    assert store.peek("k") == "K"


def test_assign_before_a_change_makes_what_is_entered_after_it_suspect() -> None:
    """The stamp is taken before the generations are looked at, so a change in between is not missed."""
    store, derived, horizon = made()
    op = Op("k", 0)
    store.l1_open(op)
    under = derived.assign(store, 0, [(b"!t:1", 1)])
    horizon.apply_tags(1, 99, [b"!t:1"])
    store.l1_finish(op, "K", 7, monotonic_ns() + FAR, 0, 1, under)
    assert store.peek("k") is None


def test_too_many_tags_make_all_suspect_and_begin_anew() -> None:
    """Memory is bounded; what was dealt out under forgotten tags may not be served unchecked."""
    store, derived, _ = made(tags=3)
    enter(store, derived, "k", 0, (b"!t:1", 1))
    for n in range(2, 4):
        derived.assign(store, 0, [(b"!t:%d" % n, 1)])
    assert (len(derived), store.peek("k")) == (3, "K")
    derived.assign(store, 0, [(b"!t:4", 1)])
    assert (len(derived), store.peek("k")) == (0, None)


def test_vouching_of_a_new_derived_lane_is_the_least_below_it() -> None:
    """One that was never vouched for is not good because its neighbour is."""
    store, derived, horizon = made(lanes=2)
    until_ns = monotonic_ns() + FAR
    horizon.lane_vouch(0, until_ns)
    horizon.lane_vouch(1, until_ns - 5)
    number, _ = derived.assign(store, 0, [(b"!t:1", 1)])
    assert store.lane_fresh_until(number) == until_ns - 5
    horizon.lane_vouch(1, until_ns + 5)
    assert store.lane_fresh_until(number) == until_ns


def test_dark_time_runs_from_the_end_of_one_vouching_to_the_next() -> None:
    """Not before the first, not while vouched for, and from the moment of an early end."""
    now = [0]
    store: Store[Any, Any] = Store(10, lanes=1 + DERIVED)
    horizon = Horizon(lambda: store, Store(10, lanes=1), Derived(1), clock=lambda: now[0])
    now[0] = 50
    assert horizon.dark_ns(0) == 0
    horizon.lane_vouch(0, 100)
    now[0] = 90
    assert horizon.dark_ns(0) == 0
    now[0] = 130
    assert horizon.dark_ns(0) == 30
    horizon.lane_vouch(0, 200)
    now[0] = 150
    assert horizon.dark_ns(0) == 30
    horizon.lane_dark(0)
    now[0] = 155
    assert horizon.dark_ns(0) == 35


def test_horizon_of_a_store_that_is_gone_does_nothing() -> None:
    """The listener outlives a collected cache by a moment."""
    horizon = Horizon(lambda: None, Store(10, lanes=1), Derived(1))
    horizon.lane_vouch(0, 1)
    horizon.lane_suspect(0)
    horizon.lane_attach(0, 1)
    horizon.lane_dark(0)
    horizon.apply_tags(0, 1, [b"!t:1"])
    assert horizon.lane_apply(0, 1, ["k"]) == 0
    assert horizon.dark_ns(0) == 0


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("tag"), st.integers(0, 9)),
        st.tuples(st.just("lane"), st.integers(0, 2)),
        st.tuples(st.just("enter"), st.integers(0, 9)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.lists(st.frozensets(st.integers(0, 9), min_size=1, max_size=3), min_size=10, max_size=10))
def test_entry_whose_tag_changed_since_is_never_served(events: list, tags_of: list[frozenset[int]]) -> None:
    """Whatever shares a derived lane: no entry outlives a change of a tag of its own, or a gap on a lane of its own."""
    store, derived, horizon = made(lanes=3)
    good: set[int] = set()
    for wid, (event, number) in enumerate(events, 1000):
        if event == "enter":
            store.drop(number)
            tags = [(b"!t:%d" % tag, tag % 3) for tag in sorted(tags_of[number])]
            op = Op(number, number % 3)
            store.l1_open(op)
            store.l1_finish(op, "v", 7, monotonic_ns() + FAR, 0, 1, derived.assign(store, number % 3, tags))
            good.add(number)
            assert store.peek(number) == "v"
        elif event == "tag":
            horizon.apply_tags(number % 3, wid, [b"!t:%d" % number])
            good = {entry for entry in good if number not in tags_of[entry]}
        else:
            horizon.lane_suspect(number)
            good = {e for e in good if number not in ({e % 3} | {tag % 3 for tag in tags_of[e]})}
        for entry in set(range(10)) - good:
            assert store.peek(entry) is None


def test_lane_that_leaves_ends_what_depended_on_it_and_holds_up_nothing_after() -> None:
    """Its shard is in the list no more: nobody will vouch for it again, and nobody need."""
    store, derived, horizon = made()
    under = enter(store, derived, "k", 0, (b"!t:1", 1))
    derived.leave(store, 1)
    assert store.peek("k") is None
    horizon.lane_vouch(0, monotonic_ns() + FAR)
    assert enter(store, derived, "k", 0, (b"!t:1", 0)) == under
    assert store.peek("k") == "K"
