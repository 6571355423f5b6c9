"""Rules R1 to R7 of the coherence protocol, as far as the store carries them out, each by name."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, attached_store, fill, opened


def finish(store: Store[Any, Any], op: Op, value: Any, wid: int, identity: int = SERVER) -> bool:
    return store.l1_finish(op, value, wid, NEVER, identity=identity)


# -- R1: register before sending


def test_r1_message_during_flight_prevents_store() -> None:
    """A message for the key between open and finish: the reply may be older than the message."""
    store = attached_store()
    op = opened(store, "k")
    assert store.lane_apply(0, 99, ["k"]) == 0
    assert not op.storable
    assert finish(store, op, "old", 1) is False
    assert "k" not in store


def test_r1_message_before_open_does_not_matter() -> None:
    """Only what happens during the flight does."""
    store = attached_store()
    store.lane_apply(0, 99, ["k"])
    assert finish(store, opened(store, "k"), "new", 99) is True
    assert store["k"] == "new"


def test_r1_message_for_another_key_does_not_matter() -> None:
    """Poison is per key."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_apply(0, 99, ["other"])
    assert finish(store, op, "v", 1) is True


# -- R2: what clears the marks


def test_r2_message_makes_a_flight_unjoinable() -> None:
    """A reader who comes after the message must not get an older result."""
    store = attached_store()
    op = opened(store, "k")
    assert store.l1_join("k") is op
    store.lane_apply(0, 99, ["k"])
    assert not op.joinable
    assert store.l1_join("k") is None


def test_r2_write_poisons_flights_and_joiners_at_its_start() -> None:
    """A local write begins: flights of the key lose both marks."""
    store = attached_store()
    read = opened(store, "k")
    write = opened(store, "k", wid=7, write=True)
    assert (read.storable, read.joinable) == (False, False)
    assert (write.storable, write.joinable) == (True, False)
    assert store.l1_join("k") is None
    assert finish(store, read, "old", 1) is False


def test_r2_write_poisons_flights_and_joiners_at_its_ack() -> None:
    """A read that began while the write was under way may have seen the old value."""
    store = attached_store()
    write = opened(store, "k", wid=7, write=True)
    read = opened(store, "k")
    assert read.joinable
    assert finish(store, write, "new", 7) is True
    assert (read.storable, read.joinable) == (False, False)
    assert finish(store, read, "old", 1) is False
    assert "k" not in store


def test_r2_second_write_poisons_the_first() -> None:
    """Nobody knows which of the two the server did last."""
    store = attached_store()
    first = opened(store, "k", wid=1, write=True)
    second = opened(store, "k", wid=2, write=True)
    assert finish(store, second, "two", 2) is True
    assert finish(store, first, "one", 1) is False
    assert "k" not in store


@pytest.mark.parametrize("end", ["finish", "abandon", "refresh"])
def test_r2_completion_of_any_op_poisons_the_rest(end: str) -> None:
    """However it ends."""
    store = attached_store()
    first, second = opened(store, "k"), opened(store, "k")
    if end == "finish":
        store.l1_finish(first, None, 0, NEVER)
    elif end == "abandon":
        store.l1_abandon(first, drop=False)
    else:
        store.l1_confirm(first, 1, NEVER)
    assert (second.storable, second.joinable) == (False, False)


def test_r2_own_message_does_not_poison_own_write() -> None:
    """The message that announces the write itself speaks for it."""
    store = attached_store()
    write = opened(store, "k", wid=7, write=True)
    store.lane_apply(0, 7, ["k"])
    assert write.storable
    assert finish(store, write, "new", 7) is True


def test_r2_message_without_wid_is_nobodys_own() -> None:
    """It poisons a write that has none either."""
    store = attached_store()
    write = opened(store, "k", write=True)
    store.lane_apply(0, 0, ["k"])
    assert not write.storable


def test_r2_own_message_poisons_flights() -> None:
    """Being our own write does not make an older read newer (no filter by origin)."""
    store = attached_store()
    read = opened(store, "k")
    store.lane_apply(0, 7, ["k"])
    assert not read.storable


def test_r2_read_op_with_the_messages_wid_is_poisoned() -> None:
    """Only a write can be the one that a message announces."""
    store = attached_store()
    op = opened(store, "k", wid=7)
    store.lane_apply(0, 7, ["k"])
    assert not op.storable


def test_r2_stamp_change_clears_the_marks_of_the_lane_at_once() -> None:
    """Without touching a single op."""
    store = attached_store(lanes=2)
    here, there = opened(store, "a", 0), opened(store, "b", 1)
    store.lane_suspect(0)
    assert (here.storable, here.joinable) == (False, False)
    assert (there.storable, there.joinable) == (True, True)
    assert store.l1_join("a") is None
    assert store.l1_join("b") is there


# -- R3: conditions for storing


def test_r2_operation_that_is_over_is_nobodys_news() -> None:
    """What happens to the key afterwards cannot reach it, so that nobody is to share its result any more."""
    store = attached_store()
    op = opened(store, "k")
    assert finish(store, op, "v", 1)
    assert not op.storable
    assert not op.joinable


def test_r3_undisturbed_flight_is_stored() -> None:
    """Nothing happened: keep it."""
    store = attached_store()
    assert finish(store, opened(store, "k"), "v", 1) is True
    assert store["k"] == "v"
    assert store.l1_counters()["stored"] == 1


def test_r3_stamp_moved_during_flight_prevents_store() -> None:
    """A message may have been lost meanwhile."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_suspect(0)
    assert finish(store, op, "v", 1) is False


def test_r3_identity_of_reply_differs_prevents_store() -> None:
    """The reply came from another server than the messages."""
    store = attached_store()
    assert finish(store, opened(store, "k"), "v", 1, identity=SERVER + 1) is False


def test_r3_identity_of_lane_changed_during_flight_prevents_store() -> None:
    """We listen to another server now."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_attach(0, SERVER + 1)
    assert finish(store, op, "v", 1) is False
    other = opened(store, "l")
    store.lane_attach(0, SERVER)
    assert finish(store, other, "v", 1) is False


def test_r3_lane_detached_at_start_prevents_store() -> None:
    """Messages between the request and the subscription were not heard."""
    store = attached_store()
    store.lane_attach(0, 0)
    op = opened(store, "k")
    store.lane_attach(0, SERVER)
    assert op.storable  # nothing speaks against it; it merely was not attached
    assert finish(store, op, "v", 1) is False


def test_r3_lane_detached_at_the_end_prevents_store() -> None:
    """Nor does identity 0 match identity 0."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_attach(0, 0)
    assert finish(store, op, "v", 1, identity=0) is False


def test_r3_deadline_passed_prevents_store() -> None:
    """Nobody could read it."""
    store = attached_store()
    assert store.l1_finish(opened(store, "k"), "v", 1, 1000, identity=SERVER) is False


def test_r3_value_above_maxbytes_is_not_stored() -> None:
    """And the old value of another write goes."""
    store = attached_store(maxbytes=10)
    fill(store, "k", "old", wid=1)
    write = opened(store, "k", wid=2, write=True)
    assert store.l1_finish(write, "large", 2, NEVER, 11, SERVER) is False
    assert len(store) == 0


# -- R4: disagreement


def test_r4_two_flights_disagree_neither_is_stored() -> None:
    """Two replies with different wids: nobody knows which is newer."""
    store = attached_store()
    fill(store, "k", "one", wid=1)
    assert finish(store, opened(store, "k"), "two", 2) is False
    assert len(store) == 0
    assert store.l1_counters()["invalidated"] == 1


def test_r4_same_wid_is_stored_again_with_the_new_deadline() -> None:
    """Agreement is no reason to drop."""
    store = attached_store()
    fill(store, "k", "v", wid=1, deadline=2000)
    fill(store, "k", "v again", wid=1, deadline=3000)
    store.l1_set_clock(2500)
    assert store["k"] == "v again"


def test_r4_storable_write_replaces_the_old_value() -> None:
    """The old entry was there before the write began, and nothing came between."""
    store = attached_store()
    fill(store, "k", "old", wid=1)
    assert finish(store, opened(store, "k", wid=2, write=True), "new", 2) is True
    assert store["k"] == "new"
    assert len(store) == 1


def test_r4_poisoned_write_drops_the_old_value() -> None:
    """Neither of them."""
    store = attached_store()
    fill(store, "k", "old", wid=1)
    write = opened(store, "k", wid=2, write=True)
    store.lane_apply(0, 1, ["k"])
    assert store["k"] == "old"
    assert finish(store, write, "new", 2) is False
    assert len(store) == 0


def test_r4_poisoned_read_leaves_an_entry_of_the_same_wid() -> None:
    """They agree, whatever the read may not do."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_apply(0, 9, ["k"])
    fill(store, "k", "v", wid=9)
    assert finish(store, op, "v", 9) is False
    assert store["k"] == "v"


def test_r4_wid_zero_drops_whatever_there_is() -> None:
    """There is no value, so L1 must not have one."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    assert store.l1_finish(opened(store, "k"), None, 0, NEVER, identity=SERVER) is False
    assert len(store) == 0


# -- R5: writes


def test_r5_foreign_message_between_start_and_ack_prevents_storing_a_write() -> None:
    """Somebody else's write may have come second."""
    store = attached_store()
    write = opened(store, "k", wid=7, write=True)
    store.lane_apply(0, 8, ["k"])
    store.lane_apply(0, 7, ["k"])
    assert finish(store, write, "mine", 7) is False
    assert len(store) == 0


# -- R6: unknown outcome


def test_r6_abandon_with_drop_removes_the_entry_and_poisons() -> None:
    """Time-out: nobody knows what L2 holds now."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    write, read = opened(store, "k", wid=2, write=True), opened(store, "k")
    store.l1_abandon(write, drop=True)
    assert (len(store), store.l1_counters()["invalidated"]) == (0, 1)
    assert not read.storable


def test_r6_abandon_without_drop_keeps_the_entry() -> None:
    """A read that failed says nothing about the value."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.l1_abandon(opened(store, "k"), drop=False)
    assert store["k"] == "v"


def test_r6_abandon_after_completion_does_nothing() -> None:
    """It may stand in a ``finally``."""
    store = attached_store()
    op = opened(store, "k")
    assert finish(store, op, "v", 1) is True
    bystander = opened(store, "k")
    store.l1_abandon(op, drop=False)
    assert bystander.storable
    assert store["k"] == "v"


# -- R7: messages


def test_r7_own_message_does_not_drop_own_write() -> None:
    """Same wid: this is the very value that the message announces."""
    store = attached_store()
    finish(store, opened(store, "k", wid=7, write=True), "mine", 7)
    assert store.lane_apply(0, 7, ["k"]) == 0
    assert store["k"] == "mine"


def test_r7_message_of_another_write_drops_the_entry() -> None:
    """And says how many went."""
    store = attached_store()
    for number in range(20):
        fill(store, number, number, wid=number + 1)
    assert store.lane_apply(0, 999, [*range(20), "absent", 3]) == 20
    assert len(store) == 0
    assert store.l1_counters()["invalidated"] == 20


def test_r7_message_without_wid_drops_everything_it_names() -> None:
    """wid 0 is nobody's write."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store["local"] = 1
    assert store.lane_apply(0, 0, ["k", "local"]) == 2


def test_r7_clear_makes_the_lane_suspect() -> None:
    """O(1), and nothing is lost that a revalidation could keep."""
    store = attached_store(lanes=2)
    fill(store, "a", 1, wid=1, lane=0)
    fill(store, "b", 2, wid=2, lane=1)
    op = opened(store, "c", 0)
    store.lane_suspect(0)
    assert (store.lane_stamp(0), store.lane_stamp(1)) == (1, 0)
    assert list(store) == ["b"]
    assert not op.storable
