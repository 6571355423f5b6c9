"""Rules R5 and R7 for writes that are sure to be announced: what is heard before their own message is older."""

from __future__ import annotations

from typing import Any

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, attached_store, fill

MINE, BEFORE, AFTER = 7, 6, 8


def announced(store: Store[Any, Any], wid: int = MINE) -> Op:
    """A write under way whose message will come."""
    op = Op("k", 0, wid=wid, write=True, announced=True)
    store.l1_open(op)
    return op


def acknowledged(store: Store[Any, Any], op: Op) -> bool:
    """Its reply has come."""
    return store.l1_finish(op, f"value {op.wid}", op.wid, NEVER, identity=SERVER)


def test_announced_write_is_stored_though_an_older_message_comes_first() -> None:
    """Somebody wrote before us; his message arrives while we wait for our reply."""
    store = attached_store()
    write = announced(store)
    store.lane_apply(0, BEFORE, ["k"])
    assert acknowledged(store, write)
    store.lane_apply(0, MINE, ["k"])
    assert store["k"] == "value 7"


def test_announced_write_is_not_stored_if_a_newer_message_follows_its_own() -> None:
    """Somebody wrote after us, and we hear of both before our reply."""
    store = attached_store()
    write = announced(store)
    store.lane_apply(0, MINE, ["k"])
    store.lane_apply(0, AFTER, ["k"])
    assert not acknowledged(store, write)
    assert len(store) == 0


def test_announced_write_survives_an_older_message_that_comes_after_its_reply() -> None:
    """Reply and messages travel on two connections: the reply may overtake them."""
    store = attached_store()
    acknowledged(store, announced(store))
    assert store.lane_apply(0, BEFORE, ["k"]) == 0
    assert store.lane_apply(0, MINE, ["k"]) == 0
    assert store["k"] == "value 7"


def test_announced_write_is_dropped_by_a_newer_message_after_its_own() -> None:
    """From its own message on, every other one is newer."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_apply(0, MINE, ["k"])
    assert store.lane_apply(0, AFTER, ["k"]) == 1
    assert len(store) == 0


def test_announced_write_heard_before_its_reply_is_dropped_by_the_next_message() -> None:
    """Once heard it is an entry like any other."""
    store = attached_store()
    write = announced(store)
    store.lane_apply(0, MINE, ["k"])
    assert acknowledged(store, write)
    assert store.lane_apply(0, AFTER, ["k"]) == 1


def test_announced_writes_in_a_row_keep_the_last() -> None:
    """The messages of the first ones come late, and are about what is gone already."""
    store = attached_store()
    for wid in (1, 2, 3):
        assert acknowledged(store, announced(store, wid))
    for wid in (1, 2, 3):
        assert store.lane_apply(0, wid, ["k"]) == 0
    assert store["k"] == "value 3"


def test_announced_write_whose_message_is_lost_becomes_suspect_like_any_entry() -> None:
    """The gap changes the stamp; revalidation ends the waiting for the message."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_suspect(0)
    store.lane_apply(0, AFTER, ["k"])
    assert store.get("k") is None
    assert store.l1_suspect("k") == (MINE, "value 7", 0)
    read = Op("k", 0)
    store.l1_open(read)
    assert store.l1_confirm(read, MINE, NEVER, identity=SERVER)
    assert store["k"] == "value 7"
    assert store.lane_apply(0, AFTER, ["k"]) == 1


def test_announced_write_under_way_when_a_message_is_lost_is_not_stored() -> None:
    """Its own message may have been the one that was lost."""
    store = attached_store()
    write = announced(store)
    store.lane_suspect(0)
    assert not acknowledged(store, write)


def test_announced_write_that_is_overwritten_by_a_read_is_an_ordinary_entry() -> None:
    """A read of the same write was made after it, so nothing older can be in front of it any more."""
    store = attached_store()
    acknowledged(store, announced(store))
    read = Op("k", 0)
    store.l1_open(read)
    assert store.l1_finish(read, "value 7", MINE, NEVER, identity=SERVER)
    assert store.lane_apply(0, AFTER, ["k"]) == 1


def test_write_that_may_go_unannounced_is_poisoned_by_any_other_message() -> None:
    """A fill over nothing publishes nothing, so there is no message to wait for."""
    store = attached_store()
    op = Op("k", 0, wid=MINE, write=True)
    store.l1_open(op)
    store.lane_apply(0, BEFORE, ["k"])
    assert not acknowledged(store, op)


def test_read_cannot_be_announced() -> None:
    """Only writes publish."""
    store = attached_store()
    op = Op("k", 0, announced=True)
    store.l1_open(op)
    store.lane_apply(0, BEFORE, ["k"])
    assert not op.storable


# -- what a listener is told ---------------------------------------------------------------------------------------


def told_store(**options: Any) -> tuple[Store[Any, Any], list[Any]]:
    """A store that holds a value of another write, and what its listener is told."""
    told: list[Any] = []
    store = attached_store(listener=lambda *removal: told.append(removal), **options)
    fill(store, "k", "old", wid=1)
    return store, told


def test_announced_write_replaces_whether_its_message_or_its_reply_comes_first() -> None:
    """Which of two connections is quicker makes no difference to the cause."""
    for message_first in (True, False):
        store, told = told_store()
        write = announced(store)
        if message_first:
            assert store.lane_apply(0, MINE, ["k"]) == 1  # what is not true any more is not served till the reply comes
            assert store.get("k") is None
        assert acknowledged(store, write)
        if not message_first:
            store.lane_apply(0, MINE, ["k"])
        assert told == [("k", "old", "replaced")]
        assert store["k"] == "value 7"


def test_announced_write_replaces_though_its_value_is_not_kept() -> None:
    """L2 holds the new value; that L1 has no room for it makes the old one no less replaced."""
    for message_first in (True, False):
        store, told = told_store(maxbytes=100)
        write = announced(store)
        if message_first:
            store.lane_apply(0, MINE, ["k"])
        assert not store.l1_finish(write, "large", MINE, NEVER, 101, SERVER)
        assert told == [("k", "old", "replaced")]


def test_message_of_anothers_write_invalidates_though_a_write_is_under_way() -> None:
    """Here it is the other one that has changed the value first."""
    store, told = told_store()
    write = announced(store)
    store.lane_apply(0, BEFORE, ["k"])
    assert told == [("k", "old", "invalidated")]
    assert acknowledged(store, write)
    assert len(told) == 1


def test_message_of_an_own_invalidation_invalidates() -> None:
    """It stores nothing, so nothing is replaced."""
    store, told = told_store()
    op = Op("k", 0, wid=MINE, write=True)
    store.l1_open(op)
    store.lane_apply(0, MINE, ["k"])
    assert told == [("k", "old", "invalidated")]


def test_write_that_fails_invalidates() -> None:
    """Nobody knows what L2 holds."""
    store, told = told_store()
    store.l1_abandon(announced(store), drop=True)
    assert told == [("k", "old", "invalidated")]


def test_write_that_leaves_no_value_invalidates() -> None:
    """There is nothing that the old one is replaced by."""
    store, told = told_store()
    assert not store.l1_finish(announced(store), None, 0, NEVER, identity=SERVER)
    assert told == [("k", "old", "invalidated")]


# -- a write that has been spared is on probation until its message comes


def test_announced_write_that_a_message_spared_is_served_until_the_next_heartbeat_at_most() -> None:
    """A primary that took over without the write numbers on as if it had never been; then what it spares is newer."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_apply(0, AFTER, ["k"])
    assert store["k"] == "value 7"
    store.lane_vouch(0, NEVER)
    assert store.get("k") is None
    assert store.l1_suspect("k") == (MINE, "value 7", 0)
    store.check_invariants()


def test_announced_write_of_the_last_of_all_lanes_is_on_its_own_probation() -> None:
    """As many lanes as there may be: the numbers of the probations behind them still fit."""
    store: Store[str, str] = Store(10, lanes=32_768)
    last = 32_767
    store.lane_attach(last, SERVER)
    store.lane_vouch(last, NEVER)
    for spared_first in (True, False):
        write = Op("k", last, wid=MINE, write=True, announced=True)
        store.l1_open(write)
        if spared_first:
            store.lane_apply(last, BEFORE, ["k"])
        assert acknowledged(store, write)
        store.lane_apply(last, BEFORE, ["k"])
        assert store["k"] == "value 7"
        store.lane_vouch(last, NEVER)
        assert store.get("k") is None
        store.check_invariants()


def test_announced_write_that_a_message_spared_before_its_reply_is_on_probation_too() -> None:
    """Whether the heartbeat is answered before the reply or after it."""
    store = attached_store()
    write = announced(store)
    store.lane_apply(0, AFTER, ["k"])
    assert acknowledged(store, write)
    assert store["k"] == "value 7"
    store.lane_vouch(0, NEVER)
    assert store.get("k") is None

    other = attached_store()
    write = announced(other)
    other.lane_apply(0, AFTER, ["k"])
    other.lane_vouch(0, NEVER)
    acknowledged(other, write)
    assert other.get("k") is None


def test_announced_write_that_two_messages_spared_is_on_probation_since_the_first() -> None:
    """The heartbeat between them tells that its own message, which comes no later, was lost."""
    store = attached_store()
    write = announced(store)
    store.lane_apply(0, BEFORE, ["k"])
    store.lane_vouch(0, NEVER)
    store.lane_apply(0, AFTER, ["k"])
    acknowledged(store, write)
    assert store.get("k") is None


def test_suspect_that_goes_on_probation_and_back_is_of_no_stamp_that_the_lane_had() -> None:
    """Nobody who remembers until when the lane's last stamps were vouched for takes it for one of those."""
    store = attached_store()
    acknowledged(store, announced(store))
    for _ in range(3):
        store.lane_suspect(0)
    store.lane_apply(0, BEFORE, ["k"])
    store.lane_apply(0, MINE, ["k"])
    lane, stamp, value = store.l1_suspect_since("k") or (None, 0, None)
    assert (lane, value) == (0, "value 7")
    assert 2**30 < (stamp - store.lane_stamp(0)) % 2**32 < 2**32 - 2**30


def test_announced_write_whose_message_comes_is_an_entry_like_any_other() -> None:
    """Heartbeats do not concern it any more; the lane's stamp does."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_apply(0, BEFORE, ["k"])
    store.lane_apply(0, MINE, ["k"])
    store.lane_vouch(0, NEVER)
    assert store["k"] == "value 7"
    store.lane_suspect(0)
    assert store.get("k") is None


def test_announced_write_that_nothing_spared_is_not_concerned_by_heartbeats() -> None:
    """Most writes: their message is the next to come."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_vouch(0, NEVER)
    assert store["k"] == "value 7"


def test_probation_ends_with_the_lane() -> None:
    """A suspected lane makes suspect what is on probation in it, and its message does not make that good."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_apply(0, BEFORE, ["k"])
    store.lane_suspect(0)
    assert store.get("k") is None
    store.lane_apply(0, MINE, ["k"])
    assert store.get("k") is None
    assert store.l1_suspect("k") == (MINE, "value 7", 0)


def test_probation_is_dark_when_the_lane_is() -> None:
    """What is not vouched for is not served, spared or not."""
    store = attached_store()
    acknowledged(store, announced(store))
    store.lane_apply(0, BEFORE, ["k"])
    store.lane_dark(0)
    assert store.get("k") is None


def tagged_store() -> Store[Any, Any]:
    """A store whose lane 1 stands for lane 0 and a tag."""
    store: Store[Any, Any] = Store(10, lanes=2)
    store.lane_attach(0, SERVER)
    for lane in (0, 1):
        store.lane_vouch(lane, NEVER)
    return store


def test_announced_write_with_tags_is_spared_too_before_its_reply_or_after_it() -> None:
    """It is on the probation of the lane that it depends on, until its message comes."""
    for is_before in (True, False):
        store = tagged_store()
        write, under = announced(store), (1, store.lane_stamp(1))
        if is_before:
            store.lane_apply(0, BEFORE, ["k"])
        assert store.l1_finish(write, "value", MINE, NEVER, identity=SERVER, under=under)
        if not is_before:
            assert store.lane_apply(0, BEFORE, ["k"]) == 0
        assert store["k"] == "value"
        store.lane_apply(0, MINE, ["k"])
        for lane in (0, 1):
            store.lane_vouch(lane, NEVER)
        assert store["k"] == "value"
        store.lane_suspect(1)
        assert store.get("k") is None
        store.check_invariants()


def test_announced_write_with_tags_that_was_spared_is_suspect_after_a_heartbeat_or_a_change_of_a_tag() -> None:
    """Whether that comes before its reply or after it. A heartbeat reaches the lane before what depends on it."""
    events = {
        "the lane's heartbeat": lambda store: store.lane_vouch(0, NEVER),
        "both": lambda store: (store.lane_vouch(0, NEVER), store.lane_vouch(1, NEVER)),
        "a tag": lambda store: store.lane_suspect(1),
    }
    for name, happen in events.items():
        store = tagged_store()
        write, under = announced(store), (1, store.lane_stamp(1))
        store.lane_apply(0, BEFORE, ["k"])
        happen(store)
        store.l1_finish(write, "value", MINE, NEVER, identity=SERVER, under=under)
        assert (name, store.get("k")) == (name, None)
        assert store.l1_suspect("k") == (MINE, "value", 1)
    for name in ("both", "a tag"):
        store = tagged_store()
        write = announced(store)
        store.l1_finish(write, "value", MINE, NEVER, identity=SERVER, under=(1, store.lane_stamp(1)))
        store.lane_apply(0, BEFORE, ["k"])
        events[name](store)
        assert (name, store.get("k")) == (name, None)
