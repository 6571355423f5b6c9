"""A new key in a full store takes the place of whoever is next to go: by a shorter way, with the same result."""

from __future__ import annotations

from typing import Any

from nearcache._store import Store
from support.store_kit import NEVER, local_store


def full_store(**options: Any) -> Store[Any, Any]:
    """Three entries, and room for no other."""
    store = local_store(3, **options)
    for key in "abc":
        store[key] = key
    return store


def test_displacing_heeds_the_hits_before_it() -> None:
    """They are only noted until somebody wants to know the order."""
    store = full_store()
    assert store["a"] == "a"
    store["d"] = "d"
    assert list(store) == ["c", "a", "d"]
    store.check_invariants()


def test_displacing_is_counted_as_a_store_and_an_eviction() -> None:
    """Each time."""
    store = full_store()
    for number in range(10):
        store[number] = number
    counters = store.l1_counters()
    assert (counters["stored"], counters["evictions"], counters["entries"]) == (13, 10, 3)


def test_displacing_gives_the_bytes_back_and_takes_as_many_as_the_new_value_has() -> None:
    """Sizes count where nothing bounds their sum."""
    store = local_store(2)
    store.l1_put("a", 1, size=5)
    store.l1_put("b", 2, size=7)
    store["c"] = 3
    assert store.l1_counters()["bytes"] == 7
    store.l1_put("d", 4, size=3)
    assert store.l1_counters()["bytes"] == 3
    store.check_invariants()


def test_displacing_does_not_happen_while_something_has_expired() -> None:
    """That goes first, and who would have been next stays."""
    store = local_store(3)
    store["a"] = "a"
    store.l1_put("b", "b", ttl_ns=10)
    store["c"] = "c"
    store.l1_set_clock(1000 + (1 << 21))  # timers have a unit of half of that
    store["d"] = "d"
    assert list(store) == ["a", "c", "d"]
    assert store.l1_counters()["evictions"] == 0


def test_displacing_gives_the_new_entry_its_own_end() -> None:
    """The first lifetime in a store that had none, none in place of one, and another in place of one."""
    store = full_store()
    store.l1_put("d", "d", ttl_ns=10**12)
    store["a"] = store["b"] = "a"
    store.check_invariants()
    store.l1_put("e", "e", ttl_ns=5)
    assert [store.remaining_ns(key) for key in ("a", "b", "e")] == [None, None, 5]
    store.check_invariants()
    store.l1_set_clock(1005)
    assert store.expire() == [("e", "e")]
    assert list(store) == ["a", "b"]
    store.check_invariants()


def test_displacing_and_overwriting_serve_the_new_value_whatever_was_said_of_the_old() -> None:
    """A lane that was suspected concerns what was there before."""
    store = full_store()
    store.lane_suspect(0)
    store["d"] = "d"
    store["c"] = "c again"
    assert (store["d"], store["c"], store.get("b")) == ("d", "c again", None)
    store.lane_dark(0)
    store.lane_vouch(0, NEVER)
    assert store["d"] == "d"
