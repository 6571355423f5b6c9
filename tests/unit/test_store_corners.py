"""Where one rule of the store meets another."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import Key, Value, local_store


class Token:
    """A value whose end can be seen."""


def test_read_that_reclaims_and_then_raises_lets_go_of_what_it_reclaimed() -> None:
    """What a full ring of hits brings along is finished before a comparison may fail."""
    store = local_store(None)
    tokens = [Token() for _ in range(7)]
    seen = [weakref.ref(token) for token in tokens]
    for number, token in enumerate(tokens):
        store.l1_put(number, token, ttl_ns=10)
    del tokens, token
    store["live"] = 1

    def fail() -> None:
        raise OSError("not comparable")

    store[Key("a", on_eq=fail)] = 2
    store.l1_set_clock(10**9)
    for _ in range(128):
        assert store["live"] == 1
    with pytest.raises(OSError, match="not comparable"):
        store[Key("b", on_eq=fail)]
    gc.collect()
    assert [ref() for ref in seen] == [None] * 7
    store.check_invariants()


def test_read_whose_comparison_fills_the_notes_has_room_for_its_own() -> None:
    """Hits are noted in a ring, which is emptied before one more than it takes."""
    store = local_store()
    store["hit"] = 1
    store[Key("k", on_eq=lambda: [store["hit"] for _ in range(128)])] = "v"
    assert store.get(Key("k")) == "v"
    for _ in range(10):
        assert store["hit"] == 1
    assert store.l1_counters()["hits"] == 139
    store.check_invariants()


def test_get_of_an_absent_key_with_a_hook_counts_one_miss() -> None:
    """A miss is one miss, whoever answers it."""

    class Hooked(Store[Any, Any]):
        def _missing_get(self, key: Any, default: Any) -> Any:
            return ("asked for", key, default)

    store = Hooked(10)
    store.lane_vouch(0, 2**62)
    assert store.get("x") == ("asked for", "x", None)
    assert store.get("x", 1) == ("asked for", "x", 1)
    assert store.l1_counters()["misses"] == 2


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_what_is_stored_before_init_is_gone_after_it(policy: str) -> None:
    """__init__ begins with an empty store, whatever a subclass did before."""

    class Hasty(Store[Any, Any]):
        def __init__(self) -> None:
            self["early"] = 1
            super().__init__(10, policy=policy)

    store = Hasty()
    store.lane_vouch(0, 2**62)
    assert len(store) == 0
    for number in range(100):
        store[number] = number
    assert len(store) == 10
    store.check_invariants()


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_store_initialised_after_an_entry_came_and_went_is_whole(policy: str) -> None:
    """No entry is left of before, but a table is, and its order is made anew."""
    store: Store[Any, Any] = Store.__new__(Store)
    store["early"] = 1
    with pytest.raises(KeyError):  # no lane is vouched for
        del store["early"]
    store.__init__(10, policy=policy)  # type: ignore[misc]  # that is what is tested
    store.lane_vouch(0, 2**62)
    for number in range(20):
        store[number] = number
        store.check_invariants()
    assert len(store) == 10


def test_store_initialised_after_an_operation_came_and_went_has_no_memory_of_it() -> None:
    """Nobody gives the first core's tables back once others have taken its place."""
    store: Store[Any, Any] = Store.__new__(Store)
    empty = store.__sizeof__()
    op = Op("k")
    store.l1_open(op)
    store.l1_abandon(op, drop=False)
    assert store.__sizeof__() > empty
    store.__init__(10)  # type: ignore[misc]  # that is what is tested
    assert store.__sizeof__() == empty


def test_values_that_come_again_as_often_as_they_go_do_not_keep_init_for_ever() -> None:
    """It says so, instead; a store that is left alone again can be initialised."""
    store: Store[Any, Any] = Store.__new__(Store)
    going_on = [True]

    def come_again() -> None:
        if going_on:
            store["k"] = Value(come_again)

    store["k"] = Value(come_again)
    with pytest.raises(RuntimeError, match="filled again"):
        store.__init__(10)  # type: ignore[misc]  # that is what is tested
    going_on.clear()
    store.__init__(10)  # type: ignore[misc]  # that is what is tested
    assert len(store) == 0
    store.check_invariants()


def test_expire_at_a_later_instant_takes_nothing_from_the_present() -> None:
    """Afterwards what expires is reclaimed at its own time, as if nobody had looked ahead."""
    store = local_store(None)
    for number in range(50):
        store.l1_put(number, number, ttl_ns=10**9)
    store.l1_put("later", 0, ttl_ns=10**13)
    assert {key for key, _ in store.expire(10**12)} == set(range(50))
    assert store.expire(10**12) == []
    for number in range(50):
        store.l1_put(number, number, ttl_ns=10**8)
    store.l1_set_clock(10**9)
    for number in range(100, 200):
        store.l1_put(number, number)
    assert len(store) == 101
    store.check_invariants()


def test_overwriting_alone_gives_the_memory_of_a_burst_back() -> None:
    """Not only new keys bring the table nearer to its size."""
    store = local_store(None)
    for number in range(50_000):
        store[number] = number
    full = store.__sizeof__()
    for number in range(49_900):
        del store[number]
    for _ in range(20_000):
        store[49_999] = 0
    assert store.__sizeof__() < full / 8
    assert len(store) == 100
    store.check_invariants()


def test_listener_that_belongs_to_a_dead_cycle_is_not_called() -> None:
    """A store that is collected together with its listener tells it nothing."""
    told: list[Any] = []

    class Owner:
        def __init__(self) -> None:
            self.store: Store[Any, Any] = Store(10, listener=self.tell)
            self.store["self"] = self

        def tell(self, *event: Any) -> None:
            told.append(event)

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None
    assert told == []
