"""Rules R1 to R7 of the coherence protocol, as far as the store carries them out, each by name."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, Key, attached_store, fill, local_store, opened


def finish(store: Store[Any, Any], op: Op, value: Any, wid: int, identity: int = SERVER) -> bool:
    return store.finish(op, value, wid, NEVER, identity=identity)


# -- R1: register before sending


def test_r1_message_during_flight_prevents_store() -> None:
    """A message for the key between open and finish: the reply may be older than the message."""
    store = attached_store()
    op = opened(store, "k")
    assert store.apply(0, 99, ["k"]) == 0
    assert not op.storable
    assert finish(store, op, "old", 1) is False
    assert "k" not in store


def test_r1_message_before_open_does_not_matter() -> None:
    """Only what happens during the flight does."""
    store = attached_store()
    store.apply(0, 99, ["k"])
    assert finish(store, opened(store, "k"), "new", 99) is True
    assert store["k"] == "new"


def test_r1_message_for_another_key_does_not_matter() -> None:
    """Poison is per key."""
    store = attached_store()
    op = opened(store, "k")
    store.apply(0, 99, ["other"])
    assert finish(store, op, "v", 1) is True


# -- R2: what clears the marks


def test_r2_message_makes_a_flight_unjoinable() -> None:
    """A reader who comes after the message must not get an older result."""
    store = attached_store()
    op = opened(store, "k")
    assert store.join("k") is op
    store.apply(0, 99, ["k"])
    assert not op.joinable
    assert store.join("k") is None


def test_r2_write_poisons_flights_and_joiners_at_its_start() -> None:
    """A local write begins: flights of the key lose both marks."""
    store = attached_store()
    read = opened(store, "k")
    write = opened(store, "k", wid=7, write=True)
    assert (read.storable, read.joinable) == (False, False)
    assert (write.storable, write.joinable) == (True, False)
    assert store.join("k") is None
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
        store.finish(first, None, 0, NEVER)
    elif end == "abandon":
        store.abandon(first, drop=False)
    else:
        store.refresh(first, 1, NEVER)
    assert (second.storable, second.joinable) == (False, False)


def test_r2_own_message_does_not_poison_own_write() -> None:
    """The message that announces the write itself speaks for it."""
    store = attached_store()
    write = opened(store, "k", wid=7, write=True)
    store.apply(0, 7, ["k"])
    assert write.storable
    assert finish(store, write, "new", 7) is True


def test_r2_own_message_poisons_flights() -> None:
    """Being our own write does not make an older read newer (no filter by origin)."""
    store = attached_store()
    read = opened(store, "k")
    store.apply(0, 7, ["k"])
    assert not read.storable


def test_r2_read_op_with_the_messages_wid_is_poisoned() -> None:
    """Only a write can be the one that a message announces."""
    store = attached_store()
    op = opened(store, "k", wid=7)
    store.apply(0, 7, ["k"])
    assert not op.storable


def test_r2_stamp_change_clears_the_marks_of_the_lane_at_once() -> None:
    """Without touching a single op."""
    store = attached_store(lanes=2)
    here, there = opened(store, "a", 0), opened(store, "b", 1)
    store.lane_suspect(0)
    assert (here.storable, here.joinable) == (False, False)
    assert (there.storable, there.joinable) == (True, True)
    assert store.join("a") is None
    assert store.join("b") is there


# -- R3: conditions for storing


def test_r3_undisturbed_flight_is_stored() -> None:
    """Nothing happened: keep it."""
    store = attached_store()
    assert finish(store, opened(store, "k"), "v", 1) is True
    assert store["k"] == "v"
    assert store.counters()["stored"] == 1


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
    assert finish(store, op, "v", 1) is False
    assert op.storable  # nothing spoke against it; it merely was not attached


def test_r3_lane_detached_at_the_end_prevents_store() -> None:
    """Nor does identity 0 match identity 0."""
    store = attached_store()
    op = opened(store, "k")
    store.lane_attach(0, 0)
    assert finish(store, op, "v", 1, identity=0) is False


def test_r3_deadline_passed_prevents_store() -> None:
    """Nobody could read it."""
    store = attached_store()
    assert store.finish(opened(store, "k"), "v", 1, 1000, identity=SERVER) is False


def test_r3_value_above_maxbytes_is_not_stored() -> None:
    """And the old value of another write goes."""
    store = attached_store(maxbytes=10)
    fill(store, "k", "old", wid=1)
    write = opened(store, "k", wid=2, write=True)
    assert store.finish(write, "large", 2, NEVER, 11, SERVER) is False
    assert len(store) == 0


# -- R4: disagreement


def test_r4_two_flights_disagree_neither_is_stored() -> None:
    """Two replies with different wids: nobody knows which is newer."""
    store = attached_store()
    fill(store, "k", "one", wid=1)
    assert finish(store, opened(store, "k"), "two", 2) is False
    assert len(store) == 0
    assert store.counters()["invalidated"] == 1


def test_r4_same_wid_is_stored_again_with_the_new_deadline() -> None:
    """Agreement is no reason to drop."""
    store = attached_store()
    fill(store, "k", "v", wid=1, deadline=2000)
    fill(store, "k", "v again", wid=1, deadline=3000)
    store.set_clock(2500)
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
    store.apply(0, 1, ["k"])
    assert store["k"] == "old"
    assert finish(store, write, "new", 2) is False
    assert len(store) == 0


def test_r4_poisoned_read_leaves_an_entry_of_the_same_wid() -> None:
    """They agree, whatever the read may not do."""
    store = attached_store()
    op = opened(store, "k")
    store.apply(0, 9, ["k"])
    fill(store, "k", "v", wid=9)
    assert finish(store, op, "v", 9) is False
    assert store["k"] == "v"


def test_r4_wid_zero_drops_whatever_there_is() -> None:
    """There is no value, so L1 must not have one."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    assert store.finish(opened(store, "k"), None, 0, NEVER, identity=SERVER) is False
    assert len(store) == 0


# -- R5: writes


def test_r5_foreign_message_between_start_and_ack_prevents_storing_a_write() -> None:
    """Somebody else's write may have come second."""
    store = attached_store()
    write = opened(store, "k", wid=7, write=True)
    store.apply(0, 8, ["k"])
    store.apply(0, 7, ["k"])
    assert finish(store, write, "mine", 7) is False
    assert len(store) == 0


# -- R6: unknown outcome


def test_r6_abandon_with_drop_removes_the_entry_and_poisons() -> None:
    """Time-out: nobody knows what L2 holds now."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    write, read = opened(store, "k", wid=2, write=True), opened(store, "k")
    store.abandon(write, drop=True)
    assert len(store) == 0
    assert not read.storable


def test_r6_abandon_without_drop_keeps_the_entry() -> None:
    """A read that failed says nothing about the value."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.abandon(opened(store, "k"), drop=False)
    assert store["k"] == "v"


def test_r6_abandon_after_completion_does_nothing() -> None:
    """It may stand in a ``finally``."""
    store = attached_store()
    op = opened(store, "k")
    assert finish(store, op, "v", 1) is True
    bystander = opened(store, "k")
    store.abandon(op, drop=False)
    assert bystander.storable
    assert store["k"] == "v"


# -- R7: messages


def test_r7_own_message_does_not_drop_own_write() -> None:
    """Same wid: this is the very value that the message announces."""
    store = attached_store()
    finish(store, opened(store, "k", wid=7, write=True), "mine", 7)
    assert store.apply(0, 7, ["k"]) == 0
    assert store["k"] == "mine"


def test_r7_message_of_another_write_drops_the_entry() -> None:
    """And says how many went."""
    store = attached_store()
    for number in range(20):
        fill(store, number, number, wid=number + 1)
    assert store.apply(0, 999, [*range(20), "absent", 3]) == 20
    assert len(store) == 0
    assert store.counters()["invalidated"] == 20


def test_r7_message_without_wid_drops_everything_it_names() -> None:
    """wid 0 is nobody's write."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store["local"] = 1
    assert store.apply(0, 0, ["k", "local"]) == 2


def test_r7_clear_makes_the_lane_suspect() -> None:
    """O(1), and nothing is lost that a revalidation could keep."""
    store = attached_store(lanes=2)
    fill(store, "a", 1, wid=1, lane=0)
    fill(store, "b", 2, wid=2, lane=1)
    op = opened(store, "c", 0)
    assert store.apply(0, 5, [], True) == 0
    assert (store.lane_stamp(0), store.lane_stamp(1)) == (1, 0)
    assert list(store) == ["b"]
    assert not op.storable


# -- refresh


def test_refresh_restamps_only_the_same_wid() -> None:
    """The suspect is current again, until the new deadline."""
    store = attached_store()
    fill(store, "k", "v", wid=1, deadline=2000)
    fill(store, "other", "v", wid=2)
    store.lane_suspect(0)
    assert store.refresh(opened(store, "k"), 1, 3000, SERVER) is True
    store.set_clock(2500)
    assert store["k"] == "v"
    assert store.counters()["hits"] == 1  # the revalidated read was counted as a miss when L1 had to ask
    assert store.suspect("other") == (2, "v")
    assert list(store) == ["k"]


def test_refresh_with_another_wid_drops_the_entry() -> None:
    """L2 holds another value by now."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.lane_suspect(0)
    assert store.refresh(opened(store, "k"), 2, NEVER, SERVER) is False
    assert len(store) == 0


def test_refresh_without_entry_returns_false() -> None:
    """It was evicted meanwhile; the caller has to read."""
    store = attached_store()
    assert store.refresh(opened(store, "k"), 1, NEVER, SERVER) is False
    assert store.join("k") is None


@pytest.mark.parametrize("reason", ["message", "stamp", "identity", "detached", "deadline"])
def test_refresh_needs_what_storing_needs(reason: str) -> None:
    """And leaves the suspect a suspect otherwise."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.lane_suspect(0)
    op = opened(store, "k")
    deadline, identity = NEVER, SERVER
    if reason == "message":
        store.apply(0, 1, ["k"])
    elif reason == "stamp":
        store.lane_suspect(0)
    elif reason == "identity":
        identity += 1
    elif reason == "detached":
        store.lane_attach(0, 0)
    else:
        deadline = 1000
    assert store.refresh(op, 1, deadline, identity) is False
    assert store.suspect("k") == (1, "v")


# -- local writes against flights


@pytest.mark.parametrize("change", ["setitem", "put", "delitem", "drop", "drop_all"])
def test_local_change_poisons_flights_of_the_key(change: str) -> None:
    """A load that began before must not come back with what was there before."""
    store = attached_store()
    store["k"] = 0
    op, other = opened(store, "k"), opened(store, "other")
    {
        "setitem": lambda: store.__setitem__("k", 1),
        "put": lambda: store.put("k", 1),
        "delitem": lambda: store.__delitem__("k"),
        "drop": lambda: store.drop("k"),
        "drop_all": store.drop_all,
    }[change]()
    assert (op.storable, op.joinable) == (False, False)
    assert other.storable is (change != "drop_all")


def test_local_put_during_a_flight_survives_its_completion() -> None:
    """What was put while the flight was under way is newer than what the flight brings."""
    for complete in (
        lambda store, op: finish(store, op, "loaded", 5),
        lambda store, op: finish(store, op, None, 0),
        lambda store, op: store.refresh(op, 5, NEVER, SERVER),
    ):
        store = attached_store()
        op = opened(store, "k")
        store["k"] = "put"
        assert complete(store, op) is False
        assert store["k"] == "put"


# -- the life of an operation


def test_join_finds_the_joinable_read_among_several() -> None:
    """The newest one whose marks are whole."""
    store = attached_store()
    first = opened(store, "k")
    second = opened(store, "k")
    assert store.join("k") is second
    store.abandon(second, drop=False)
    assert store.join("k") is None
    third = opened(store, "k")
    assert store.join("k") is third
    assert not first.joinable


def test_join_does_not_find_writes() -> None:
    """A write brings no value to share."""
    store = attached_store()
    opened(store, "k", wid=1, write=True)
    assert store.join("k") is None


def test_op_shows_what_it_was_made_with() -> None:
    """All attributes are read-only."""
    op = Op("k", 3, wid=2**64 - 1, write=True)
    assert (op.key, op.lane, op.wid, op.is_write, op.storable, op.joinable) == (
        "k", 3, 2**64 - 1, True, True, False,
    )  # fmt: skip
    for name in ("key", "lane", "wid", "is_write", "storable", "joinable"):
        with pytest.raises(AttributeError):
            setattr(op, name, 1)


@pytest.mark.parametrize("wid", [-1, 2**64])
def test_op_with_a_wid_out_of_range_raises(wid: int) -> None:
    """A wid has 64 bits."""
    with pytest.raises(OverflowError):
        Op("k", wid=wid)


def test_op_of_an_unhashable_key_raises() -> None:
    """At once, not when it is opened."""
    with pytest.raises(TypeError):
        Op([])


def test_op_can_be_subclassed_with_its_own_constructor() -> None:
    """A flight is an op and more."""

    class Flight(Op):
        def __init__(self, key: str, waiters: int) -> None:
            super().__init__(key)
            self.waiters = waiters

    store = attached_store()
    flight = Flight("k", 3)
    store.open(flight)
    joined = store.join("k")
    assert joined is flight
    assert isinstance(joined, Flight)
    assert joined.waiters == 3


def test_op_is_for_one_use() -> None:
    """Neither opened twice, nor again after its end, nor initialised anew."""
    store = attached_store()
    op = opened(store, "k")
    with pytest.raises(ValueError, match="opened before"):
        store.open(op)
    finish(store, op, "v", 1)
    with pytest.raises(ValueError, match="opened before"):
        store.open(op)
    with pytest.raises(ValueError, match="opened already"):
        op.__init__("other")  # type: ignore[misc]  # that is what is tested
    store.check_invariants()


def test_op_without_init_is_refused() -> None:
    """A subclass that forgets ``super().__init__``."""

    class Forgetful(Op):
        def __init__(self) -> None:
            pass

    with pytest.raises(ValueError, match="not initialised"):
        attached_store().open(Forgetful())


def test_op_of_another_store_is_refused() -> None:
    """And one that was never opened."""
    store, other = attached_store(), attached_store()
    for op in (opened(other, "k"), Op("k")):
        for call in (
            lambda op=op: finish(store, op, 1, 1),
            lambda op=op: store.refresh(op, 1, NEVER),
            lambda op=op: store.abandon(op, drop=True),
        ):
            with pytest.raises(ValueError, match="not opened in this store"):
                call()


def test_finish_of_a_completed_op_stores_nothing() -> None:
    """But still drops what contradicts it."""
    store = attached_store()
    op = opened(store, "k")
    finish(store, op, "v", 1)
    assert finish(store, op, "v", 1) is False
    assert store["k"] == "v"
    assert finish(store, op, "w", 2) is False
    assert len(store) == 0


def test_reset_pending_forgets_every_op() -> None:
    """As the child of a fork does: the parent's flights are not ours."""
    store = attached_store()
    ops = [opened(store, key) for key in (1, 2, 2, 2, 3)]
    store.reset_pending()
    assert [(op.storable, op.joinable) for op in ops] == [(False, False)] * 5
    assert store.join(2) is None
    assert finish(store, ops[1], "v", 1) is False
    store.abandon(ops[0], drop=False)
    fill(store, 2, "v", wid=1)
    store.check_invariants()


def test_op_outlives_its_store() -> None:
    """Its marks can still be read."""
    store = attached_store()
    op = opened(store, "k")
    del store
    assert (op.storable, op.joinable) == (False, False)


def test_many_ops_on_many_keys_complete_in_any_order() -> None:
    """The pending table is a table like the other."""
    store = attached_store(None)
    ops = [opened(store, number % 100) for number in range(1000)]
    for op in ops[::3] + ops[1::3] + ops[2::3]:
        store.abandon(op, drop=False)
        store.check_invariants()
    assert all(store.join(number) is None for number in range(100))


def test_arguments_out_of_range_leave_the_op_open() -> None:
    """A bad call is not a completion."""
    store = attached_store()
    op = opened(store, "k")
    for call in (
        lambda: store.finish(op, 1, -1, NEVER),
        lambda: store.finish(op, 1, 1, 2**63),
        lambda: store.finish(op, 1, 1, NEVER, size=-1),
        lambda: store.refresh(op, 2**64, NEVER),
        lambda: store.apply(0, 2**64, ["k"]),
    ):
        with pytest.raises(OverflowError):
            call()
    assert store.join("k") is op


# -- keys that cannot be compared


def broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("end", ["finish", "refresh", "abandon"])
def test_completion_with_a_key_that_cannot_be_compared_drops_all_it_may_mean(end: str) -> None:
    """The error propagates, the op is closed, and nothing stale stays behind."""
    store = attached_store()
    held = Key("held")
    fill(store, held, "v", wid=1)
    op, other = opened(store, Key("k")), opened(store, Key("other"))
    held.on_eq = broken
    complete = {
        "finish": lambda: finish(store, op, "w", 2),
        "refresh": lambda: store.refresh(op, 2, NEVER, SERVER),
        "abandon": lambda: store.abandon(op, drop=True),
    }[end]
    with pytest.raises(ZeroDivisionError):
        complete()
    assert len(store) == 0
    assert (op.storable, other.storable) == (False, False)
    assert store.join(op.key) is None
    store.check_invariants()


def test_apply_with_a_key_that_cannot_be_compared_deals_with_the_others_first() -> None:
    """An invalidation is never lost on account of its neighbour."""
    store = attached_store()
    held = Key("held")
    fill(store, held, "v", wid=1)
    fill(store, "plain", "v", wid=1)
    held.on_eq = broken
    with pytest.raises(ZeroDivisionError):
        store.apply(0, 2, [Key("k"), "plain"])
    assert len(store) == 0
    store.check_invariants()


def test_local_store_keeps_nothing_that_flights_bring_unless_attached() -> None:
    """``memory://`` attaches its lane to itself if it wants flights to store."""
    store = local_store()
    assert finish(store, opened(store, "k"), "v", 1) is False
