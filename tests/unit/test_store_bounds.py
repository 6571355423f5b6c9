"""Which entries go: exact LRU, entry and byte bounds, sizes."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from typing import Any

import pytest

from nearcache._store import Store
from nearcache.errors import ValueTooLargeError
from support.store_kit import NEVER, SERVER, attached_store, fill, local_store, opened


class Model:
    """LRU by the book."""

    def __init__(self, maxsize: int) -> None:
        self.entries: OrderedDict[int, int] = OrderedDict()
        self.maxsize = maxsize

    def read(self, key: int) -> int | None:
        if key in self.entries:
            self.entries.move_to_end(key)
        return self.entries.get(key)

    def write(self, key: int, value: int) -> None:
        self.entries[key] = value
        self.entries.move_to_end(key)
        if len(self.entries) > self.maxsize:
            self.entries.popitem(last=False)


@pytest.mark.parametrize("maxsize", [1, 2, 3, 7, 8, 9, 15, 100])  # 15: all bits of a slot that are the ref's
def test_order_of_eviction_equals_that_of_an_ordereddict(maxsize: int) -> None:
    """After every one of 5,000 random operations the whole order is the same."""
    rng = random.Random(maxsize)
    store, model = local_store(maxsize), Model(maxsize)
    for step in range(5000):
        key = rng.randrange(2 * maxsize + 1)
        choice = rng.random()
        if choice < 0.5:
            assert store.get(key) == model.read(key)
        elif choice < 0.9:
            store[key] = step
            model.write(key, step)
        else:
            assert store.drop(key) == (model.entries.pop(key, None) is not None)
        assert store.l1_snapshot() == list(model.entries.items())
    store.check_invariants()


def test_refresh_and_finish_move_to_the_front() -> None:
    """A revalidation is a use, and so is a store over the old value."""
    store = attached_store()
    for number in range(4):
        fill(store, number, number, wid=number + 1)
    assert store[3] == 3
    assert store.l1_confirm(opened(store, 0), 1, NEVER, SERVER)
    assert store.l1_finish(opened(store, 1, wid=9, write=True), 1, 9, NEVER, identity=SERVER)
    assert list(store) == [2, 3, 0, 1]


def test_maxsize_none_never_evicts() -> None:
    """Unbounded is unbounded."""
    store = local_store(None)
    for number in range(20_000):
        store[number] = number
    assert len(store) == 20_000
    assert store.l1_counters()["evictions"] == 0
    assert all(store[number] == number for number in range(20_000))
    store.check_invariants()


def test_maxsize_zero_keeps_nothing() -> None:
    """Nonsense, but harmless."""
    store = attached_store(0)
    store["k"] = 1
    assert len(store) == 0
    assert store.l1_finish(opened(store, "k"), 1, 1, NEVER, identity=SERVER) is False
    store.check_invariants()


@pytest.mark.parametrize("maxsize", [2**31, 2**63, 10**30])
def test_huge_maxsize_is_as_good_as_none(maxsize: int) -> None:
    """Nothing is allocated ahead."""
    store = local_store(maxsize)
    store["k"] = 1
    assert store["k"] == 1
    assert sys.getsizeof(store) < 10_000


def test_maxbytes_evicts_from_the_least_recently_used_end() -> None:
    """As many as it takes, and no more."""
    store = local_store(None, maxbytes=100)
    for number in range(10):
        store.l1_put(number, number, size=10)
    store[0]
    store.l1_put("large", 1, size=35)
    assert list(store) == [5, 6, 7, 8, 9, 0, "large"]
    counters = store.l1_counters()
    assert (counters["bytes"], counters["evictions"]) == (95, 4)
    store.check_invariants()


def test_maxbytes_evicts_hundreds_at_once() -> None:
    """More than a small graveyard holds."""
    store = local_store(None, maxbytes=1000)
    for number in range(1000):
        store.l1_put(number, object(), size=1)
    store.l1_put("all", 1, size=1000)
    assert store.l1_snapshot() == [("all", 1)]
    assert store.l1_counters()["evictions"] == 1000
    store.check_invariants()


def test_overwrite_with_another_size_counts_the_difference() -> None:
    """Growing may evict others, never itself."""
    store = local_store(None, maxbytes=100)
    store.l1_put("a", 1, size=40)
    store.l1_put("b", 1, size=40)
    store.l1_put("a", 2, size=61)
    assert store.l1_snapshot() == [("a", 2)]
    assert store.l1_counters()["bytes"] == 61
    store.l1_put("a", 3, size=100)
    store.l1_put("a", 4, size=0)
    assert store.l1_counters()["bytes"] == 0
    store.l1_put("a", 5, size=7)
    assert store.l1_counters()["bytes"] == 7
    store.check_invariants()


def test_put_of_a_value_above_maxbytes_raises_and_keeps_the_old_one() -> None:
    """A write that cannot be made changes nothing."""
    store = local_store(None, maxbytes=10)
    store.l1_put("k", "old", size=10)
    with pytest.raises(ValueTooLargeError) as caught:
        store.l1_put("k", "new", size=11)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (11, 10)
    assert store["k"] == "old"


def test_setitem_takes_the_size_from_getsizeof() -> None:
    """So does ``l1_put``, whatever size it is told."""
    store = local_store(None, maxbytes=10, getsizeof=len)
    store["a"] = "12345"
    store.l1_put("b", "123", size=9)
    assert store.l1_counters()["bytes"] == 8
    with pytest.raises(ValueTooLargeError):
        store["c"] = "x" * 11
    assert store.l1_snapshot() == [("a", "12345"), ("b", "123")]


@pytest.mark.parametrize(
    ("size", "error"),
    [(-1, ValueError), (2**63, ValueError), (1.5, TypeError), (None, TypeError), ("5", TypeError)],
)
def test_size_that_is_no_size_raises(size: Any, error: type[Exception]) -> None:
    """From ``getsizeof`` as from the argument; nothing is stored."""
    measured = local_store(None, getsizeof=lambda value: size)
    with pytest.raises(error, match="getsizeof"):
        measured["k"] = 1
    with pytest.raises(error, match="size"):
        local_store().l1_put("k", 1, size=size)
    assert len(measured) == 0


def test_getsizeof_that_raises_changes_nothing() -> None:
    """Its exception is the caller's."""
    store = local_store(None, getsizeof=lambda value: 1 // value)
    store["k"] = 1
    with pytest.raises(ZeroDivisionError):
        store["k"] = 0
    assert store["k"] == 1


def test_finish_takes_the_size_it_is_told() -> None:
    """``getsizeof`` is for local values; L2 values have an encoded size."""
    store: Store[Any, Any] = attached_store(None, maxbytes=100, getsizeof=lambda value: 1 // 0)
    assert store.l1_finish(opened(store, "k"), "v", 1, NEVER, 60, SERVER)
    assert store.l1_finish(opened(store, "l"), "v", 1, NEVER, 60, SERVER)
    assert (list(store), store.l1_counters()["bytes"]) == (["l"], 60)


def test_only_what_would_be_kept_counts_as_too_large() -> None:
    """Not the size of what ends a read without a value."""
    store = attached_store(None, maxbytes=10)
    assert not store.l1_finish(opened(store, "k"), None, 0, NEVER, 11, SERVER)
    assert store.l1_counters()["too_large"] == 0
    assert not store.l1_finish(opened(store, "k"), "v", 1, NEVER, 11, SERVER)
    assert store.l1_counters()["too_large"] == 1


def test_bytes_are_given_back_by_every_way_out() -> None:
    """Deleting, dropping, expiring, popping, invalidating."""
    store = attached_store(None)
    for number in range(6):
        store.l1_put(number, number, size=1 << number, ttl_ns=10 if number == 5 else 0)
    del store[0]
    store.drop(1)
    store.l1_pop_next()
    store.lane_apply(0, 1, [3])
    store.l1_set_clock(1010)
    store.l1_sweep(10)
    assert store.l1_counters()["bytes"] == 1 << 4
    store.drop_all()
    assert store.l1_counters()["bytes"] == 0
    store.check_invariants()
