"""Operations in flight: revalidation, local writes against them, their life, and keys that cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, Key, attached_store, fill, local_store, opened


def finish(store: Store[Any, Any], op: Op, value: Any, wid: int, identity: int = SERVER) -> bool:
    return store.l1_finish(op, value, wid, NEVER, identity=identity)


# -- refresh


def test_refresh_restamps_only_the_same_wid() -> None:
    """The suspect is current again, until the new deadline."""
    store = attached_store()
    fill(store, "k", "v", wid=1, deadline=2000)
    fill(store, "other", "v", wid=2)
    store.lane_suspect(0)
    assert store.l1_confirm(opened(store, "k"), 1, 3000, SERVER) is True
    store.l1_set_clock(2500)
    assert store["k"] == "v"
    assert store.l1_counters()["hits"] == 1  # the revalidated read was counted as a miss when L1 had to ask
    assert store.l1_suspect("other") == (2, "v", 0)
    assert list(store) == ["k"]


def test_refresh_with_another_wid_drops_the_entry() -> None:
    """L2 holds another value by now."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.lane_suspect(0)
    assert store.l1_confirm(opened(store, "k"), 2, NEVER, SERVER) is False
    assert len(store) == 0


def test_refresh_without_entry_returns_false() -> None:
    """It was evicted meanwhile; the caller has to read."""
    store = attached_store()
    assert store.l1_confirm(opened(store, "k"), 1, NEVER, SERVER) is False
    assert store.l1_join("k") is None


@pytest.mark.parametrize("reason", ["message", "stamp", "identity", "detached", "deadline"])
def test_refresh_needs_what_storing_needs(reason: str) -> None:
    """And leaves the suspect a suspect otherwise."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.lane_suspect(0)
    op = opened(store, "k")
    deadline, identity = NEVER, SERVER
    if reason == "message":
        store.lane_apply(0, 1, ["k"])
    elif reason == "stamp":
        store.lane_suspect(0)
    elif reason == "identity":
        identity += 1
    elif reason == "detached":
        store.lane_attach(0, 0)
    else:
        deadline = 1000
    assert store.l1_confirm(op, 1, deadline, identity) is False
    assert store.l1_suspect("k") == (1, "v", 0)


# -- local writes against flights


@pytest.mark.parametrize("change", ["setitem", "put", "delitem", "drop", "drop_all"])
def test_local_change_poisons_flights_of_the_key(change: str) -> None:
    """A load that began before must not come back with what was there before."""
    store = attached_store()
    store["k"] = 0
    op, other = opened(store, "k"), opened(store, "other")
    {
        "setitem": lambda: store.__setitem__("k", 1),
        "put": lambda: store.l1_put("k", 1),
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
        lambda store, op: store.l1_confirm(op, 5, NEVER, SERVER),
    ):
        store = attached_store()
        op = opened(store, "k")
        store["k"] = "put"
        assert complete(store, op) is False
        assert store["k"] == "put"


# -- the life of an operation


def test_flight_that_a_local_put_overtook_still_speaks_against_another_write() -> None:
    """Only what was put locally is newer for certain."""
    store = attached_store()
    flight = opened(store, "k")
    store["k"] = "local"
    assert not finish(store, opened(store, "k"), "v", 1)
    fill(store, "k", "v", wid=1)
    assert not finish(store, flight, "w", 2)
    assert len(store) == 0


def test_join_finds_the_joinable_read_among_several() -> None:
    """The newest one whose marks are whole."""
    store = attached_store()
    first = opened(store, "k")
    second = opened(store, "k")
    assert store.l1_join("k") is second
    store.l1_abandon(second, drop=False)
    assert store.l1_join("k") is None
    third = opened(store, "k")
    assert store.l1_join("k") is third
    assert not first.joinable


def test_join_does_not_find_writes() -> None:
    """A write brings no value to share."""
    store = attached_store()
    opened(store, "k", wid=1, write=True)
    assert store.l1_join("k") is None


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
    store.l1_open(flight)
    joined = store.l1_join("k")
    assert joined is flight
    assert isinstance(joined, Flight)
    assert joined.waiters == 3


def test_op_is_for_one_use() -> None:
    """Neither opened twice, nor again after its end, nor initialised anew."""
    store = attached_store()
    op = opened(store, "k")
    with pytest.raises(ValueError, match="opened before"):
        store.l1_open(op)
    finish(store, op, "v", 1)
    with pytest.raises(ValueError, match="opened before"):
        store.l1_open(op)
    for known in (op, Op("never opened")):
        with pytest.raises(ValueError, match="initialised already"):
            known.__init__("other")  # type: ignore[misc]  # that is what is tested
    store.check_invariants()


def test_op_without_init_is_refused() -> None:
    """A subclass that forgets ``super().__init__``."""

    class Forgetful(Op):
        def __init__(self) -> None:
            pass

    with pytest.raises(ValueError, match="not initialised"):
        attached_store().l1_open(Forgetful())


def test_op_of_another_store_is_refused() -> None:
    """And one that was never opened cannot have a result."""
    store, other = attached_store(), attached_store()
    foreign, unopened = opened(other, "k"), Op("k")
    for call in (
        lambda: finish(store, foreign, 1, 1),
        lambda: store.l1_confirm(foreign, 1, NEVER),
        lambda: store.l1_abandon(foreign, drop=True),
        lambda: finish(store, unopened, 1, 1),
        lambda: store.l1_confirm(unopened, 1, NEVER),
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
    store.l1_reset_pending()
    assert [(op.storable, op.joinable) for op in ops] == [(False, False)] * 5
    assert store.l1_join(2) is None
    assert finish(store, ops[1], "v", 1) is False
    store.l1_abandon(ops[0], drop=False)
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
        store.l1_abandon(op, drop=False)
        store.check_invariants()
    assert all(store.l1_join(number) is None for number in range(100))


def test_arguments_out_of_range_leave_the_op_open() -> None:
    """A bad call is not a completion."""
    store = attached_store()
    op = opened(store, "k")
    for call in (
        lambda: store.l1_finish(op, 1, -1, NEVER),
        lambda: store.l1_finish(op, 1, 1, 2**63),
        lambda: store.l1_finish(op, 1, 1, NEVER, size=-1),
        lambda: store.l1_confirm(op, 2**64, NEVER),
        lambda: store.lane_apply(0, 2**64, ["k"]),
    ):
        with pytest.raises(OverflowError):
            call()
    assert store.l1_join("k") is op


# -- keys that cannot be compared


def broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("end", ["finish", "refresh", "abandon"])
def test_completion_with_a_key_that_cannot_be_compared_drops_all_it_may_mean(end: str) -> None:
    """The error propagates, the op is closed, and nothing stale stays behind."""
    store = attached_store()
    held = Key("held")
    fill(store, held, "v", wid=1)
    fill(store, Key("behind it"), "v", wid=1)
    op, other = opened(store, Key("k")), opened(store, Key("other"))
    held.on_eq = broken
    complete = {
        "finish": lambda: finish(store, op, "w", 2),
        "refresh": lambda: store.l1_confirm(op, 2, NEVER, SERVER),
        "abandon": lambda: store.l1_abandon(op, drop=True),
    }[end]
    with pytest.raises(ZeroDivisionError):
        complete()
    assert (len(store), store.l1_counters()["invalidated"]) == (0, 2)
    assert (op.storable, other.storable) == (False, False)
    assert store.l1_join(op.key) is None
    store.check_invariants()


def test_apply_with_a_key_that_cannot_be_compared_deals_with_the_others_first() -> None:
    """An invalidation is never lost on account of its neighbour."""
    store = attached_store()
    held = Key("held")
    fill(store, held, "v", wid=1)
    fill(store, "plain", "v", wid=1)
    held.on_eq = broken
    with pytest.raises(ZeroDivisionError):
        store.lane_apply(0, 2, [Key("k"), "plain"])
    assert len(store) == 0
    store.check_invariants()


def test_local_store_keeps_nothing_that_flights_bring_unless_attached() -> None:
    """``memory://`` attaches its lane to itself if it wants flights to store."""
    store = local_store()
    assert finish(store, opened(store, "k"), "v", 1) is False
    assert store.l1_finish(opened(store, "k"), "v", 1, NEVER) is False  # a server that nobody names is none


def test_abandon_of_an_operation_that_was_never_opened_does_nothing() -> None:
    """What undoes a write must not raise in place of the interrupt that struck before it began."""
    store = attached_store()
    fill(store, "k", "v", wid=1)
    store.l1_abandon(Op("k", wid=2, write=True), drop=True)
    assert store["k"] == "v"
