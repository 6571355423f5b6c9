"""Deadlines, lanes, suspects: what may be served when."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable

import pytest

from nearcache._store import Store
from support.store_kit import NEVER, SERVER, attached_store, fill, local_store, opened


def test_entry_is_served_before_its_deadline_and_not_at_it() -> None:
    """``now < deadline``."""
    store = local_store(ttl_ns=100)
    store["k"] = 1
    store.l1_set_clock(1099)
    assert store["k"] == 1
    store.l1_set_clock(1100)
    with pytest.raises(KeyError):
        store["k"]


@pytest.mark.parametrize("key", ["k", 5, ("k", 5)], ids=["str", "int", "tuple"])
@pytest.mark.parametrize("read", ["__getitem__", "get", "l1_hit"])
def test_expired_entry_is_reclaimed_by_the_read_that_finds_it(read: str, key: Hashable) -> None:
    """It counts as an expiration and a miss, once, and the default is what there is."""
    store = local_store(ttl_ns=100)
    store[key] = 1
    store.l1_set_clock(2000)
    if read == "__getitem__":
        with pytest.raises(KeyError):
            store[key]
    else:
        assert getattr(store, read)(key, "nothing") == "nothing"
    assert len(store) == 0
    counters = store.l1_counters()
    assert (counters["expirations"], counters["misses"], counters["hits"]) == (1, 1, 0)


def test_expired_entry_is_neither_contained_nor_peeked_and_del_raises() -> None:
    """Dead is dead for every method."""
    store = local_store(ttl_ns=100)
    store["k"] = 1
    store.l1_set_clock(1100)
    assert "k" not in store
    assert store.peek("k") is None
    with pytest.raises(KeyError):
        del store["k"]
    assert len(store) == 0


def test_setitem_on_an_expired_key_gives_it_a_new_life() -> None:
    """Overwriting takes the new deadline."""
    store = local_store(ttl_ns=100)
    store["k"] = 1
    store.l1_set_clock(1100)
    store["k"] = 2
    assert store["k"] == 2
    store.l1_set_clock(1199)
    assert store["k"] == 2


def test_pop_next_reclaims_expired_and_steps_over_suspects() -> None:
    """Only a valid pair is handed out; a suspect may yet be revalidated."""
    store = attached_store(lanes=2)
    fill(store, "suspect", 1, wid=1, lane=1)
    store.l1_put("expired", 2, ttl_ns=10)
    store.l1_put("valid", 3)
    store.lane_suspect(1)
    store.l1_set_clock(1010)
    assert store.l1_pop_next() == ("valid", 3)
    with pytest.raises(KeyError):
        store.l1_pop_next()
    assert store.l1_suspect("suspect") == (1, 1, 1)
    assert (len(store), store.l1_counters()["expirations"]) == (1, 1)


def test_pop_next_reclaims_no_more_on_the_way_than_there_is_room_for() -> None:
    """Of eight places on the stack one is for the pair itself."""
    store = local_store()
    for number in range(10):
        store.l1_put(number, number, ttl_ns=10)
    store["valid"] = 1
    store.l1_set_clock(1010)
    assert store.l1_pop_next() == ("valid", 1)
    assert store.l1_counters()["expirations"] == 7
    store.check_invariants()


def test_sweep_reclaims_every_expired_entry_within_one_round() -> None:
    """As many steps as there are positions see them all; what lives stays."""
    store = local_store(None)
    for number in range(100):
        store.l1_put(number, number, ttl_ns=10 if number % 2 else 0)
    store.l1_set_clock(1010)
    assert store.l1_sweep(50) + store.l1_sweep(50) == 50
    assert len(store) == 50
    assert store.l1_sweep(10**9) == 0
    assert store.l1_sweep(0) == 0
    assert store.l1_sweep(-5) == 0
    store.check_invariants()


def test_puts_sweep_by_themselves_so_that_the_dead_do_not_pile_up() -> None:
    """Two positions a put: no burst of short-lived entries stays for ever."""
    store = local_store(None)
    for number in range(1000):
        store.l1_put(number, number, ttl_ns=10)
    store.l1_set_clock(1010)
    for number in range(600):
        store.l1_put("one key", number)
    assert len(store) == 1
    assert store.l1_counters()["expirations"] == 1000


def test_read_that_tends_and_finds_an_expired_entry_has_room_for_both() -> None:
    """A full ring of hits makes the next read reclaim a few; the one it has found itself is buried beside them."""
    store = local_store(None)
    for number in range(100):
        store.l1_put(number, number, ttl_ns=10)
    store["ever"] = 1
    for _ in range(128):  # as many as the ring takes
        assert store["ever"] == 1
    store.l1_set_clock(1010)
    assert store.get(50) is None
    assert 101 - 8 <= len(store) < 100  # a graveyard on the stack has eight places
    store.check_invariants()


def burst(policy: str) -> Store[int, None]:
    """Return a store in which twenty thousand entries have expired, and one has not."""
    store: Store[int, None] = local_store(None, policy=policy)
    store.l1_set_clock(0)
    for key in range(20_000):
        store.l1_put(key, None, 10)
    store[-1] = None
    store.l1_set_clock(10)
    return store


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_expire_gives_the_tables_back_too(policy: str) -> None:
    """Nobody has to write afterwards."""
    store = burst(policy)
    full = sys.getsizeof(store)
    assert len(store.expire()) == 20_000
    assert sys.getsizeof(store) < full / 2
    assert not store.l1_tend()
    assert list(store) == [-1]
    store.check_invariants()


def test_tend_says_whether_there_is_more_to_give_back() -> None:
    """Whoever tends goes on until there is not, in a bounded number of turns."""
    store = burst("lru")
    full = sys.getsizeof(store)
    store.l1_sweep(20_001)
    turns = 0
    while store.l1_tend():
        turns += 1
    assert 0 < turns < 20_000
    assert sys.getsizeof(store) < full / 2
    store.check_invariants()


def test_tend_behind_timers_that_were_left_says_that_there_is_more() -> None:
    """An entry whose time is over goes before the next heartbeat, however many timers of deleted ones come first."""
    store: Store[int, None] = local_store(None)
    for key in range(3_000):
        store.l1_put(key, None, 10)
    for key in range(2_900):
        del store[key]
    store.l1_set_clock(10**9)
    while store.l1_tend():
        store.check_invariants()
    assert len(store) == 0
    assert not store.l1_tend()


def test_sweep_of_an_empty_store_finds_nothing() -> None:
    """No table, no work."""
    assert local_store().l1_sweep(10) == 0


def test_lane_that_is_not_vouched_for_serves_nothing() -> None:
    """All lanes start dark."""
    store: Store[str, int] = Store(10)
    store["k"] = 1
    assert store.get("k") is None
    store.lane_vouch(0, NEVER)
    assert store["k"] == 1


def test_entry_is_served_before_fresh_until_and_not_at_it() -> None:
    """The fence is exclusive, and passing it makes no entry go."""
    store = local_store()
    store["k"] = 1
    store.lane_vouch(0, 2000)
    store.l1_set_clock(1999)
    assert store["k"] == 1
    store.l1_set_clock(2000)
    assert store.get("k") is None
    assert "k" not in store
    assert store.lane_fresh_until(0) == 2000
    store.lane_vouch(0, 3000)
    assert store["k"] == 1


def test_dark_lane_serves_again_once_vouched_for() -> None:
    """``lane_dark`` leaves the stamp alone."""
    store = local_store()
    store["k"] = 1
    store.lane_dark(0)
    assert store.get("k") is None
    assert (store.lane_fresh_until(0), store.lane_stamp(0)) == (0, 0)
    store.lane_vouch(0, NEVER)
    assert store["k"] == 1


def test_suspect_entry_stays_and_is_counted_when_read() -> None:
    """A failed stamp test is a miss that leaves the value in place."""
    store = local_store()
    store["k"] = 1
    store.lane_suspect(0)
    assert store.lane_stamp(0) == 1
    assert store.get("k") is None
    assert len(store) == 1
    counters = store.l1_counters()
    assert (counters["suspects"], counters["misses"], counters["expirations"]) == (1, 1, 0)


def test_lane_suspect_concerns_that_lane_only() -> None:
    """Each lane has its own stamp and its own fence."""
    store = attached_store(lanes=3)
    for lane in range(3):
        fill(store, lane, lane, wid=lane + 1, lane=lane)
    store.lane_suspect(1)
    assert sorted(store) == [0, 2]
    store.lane_dark(2)
    assert sorted(store) == [0]


def test_suspect_returns_wid_and_value_of_what_may_be_revalidated() -> None:
    """Not of a valid entry, an expired one or none."""
    store = attached_store()
    fill(store, "k", "value", wid=5, deadline=2000)
    assert store.l1_suspect("k") is None
    assert store.l1_suspect("absent") is None
    store.lane_suspect(0)
    assert store.l1_suspect("k") == (5, "value", 0)
    store.l1_set_clock(2000)
    assert store.l1_suspect("k") is None


def test_suspect_includes_entries_of_a_dark_lane() -> None:
    """They too may be compared by wid."""
    store = attached_store()
    fill(store, "k", "value", wid=5)
    store.lane_dark(0)
    assert store.l1_suspect("k") == (5, "value", 0)


@pytest.mark.parametrize("lane", [-1, 1, 2**40])
def test_lane_that_does_not_exist_raises_indexerror(lane: int) -> None:
    """Every lane method checks its lane."""
    store = local_store()
    for call in (
        lambda: store.lane_vouch(lane, 1),
        lambda: store.lane_suspect(lane),
        lambda: store.lane_dark(lane),
        lambda: store.lane_attach(lane, SERVER),
        lambda: store.lane_stamp(lane),
        lambda: store.lane_fresh_until(lane),
        lambda: store.lane_apply(lane, 1, []),
    ):
        with pytest.raises(IndexError):
            call()


def test_op_of_a_lane_that_does_not_exist_cannot_be_opened() -> None:
    """Nor one whose lane fits no lane number."""
    with pytest.raises(IndexError):
        opened(local_store(), "k", lane=1)
    with pytest.raises(OverflowError):
        opened(local_store(), "k", lane=65536)


def test_system_clock_lets_entries_end() -> None:
    """Without ``l1_set_clock`` it is the monotonic clock, in nanoseconds, at most a tick behind."""
    store: Store[str, int] = Store(10)
    now = time.monotonic_ns()
    store.lane_vouch(0, now + 3600 * 10**9)
    store.l1_put("long", 1, ttl_ns=3600 * 10**9)
    assert store["long"] == 1
    store.lane_vouch(0, now - 10**9)
    assert store.get("long") is None


def test_set_clock_none_returns_to_the_system() -> None:
    """A fixed instant is not for ever."""
    store = local_store(ttl_ns=50)
    store.l1_set_clock(10)
    store["k"] = 1
    assert store["k"] == 1
    store.l1_set_clock(None)
    assert store.get("k") is None
