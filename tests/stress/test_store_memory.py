"""Memory over a long life: ten million operations leave it flat, and after a burst it is given back."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, attached_store, local_store

pytestmark = pytest.mark.slow

KEYS = 50_000
ROUNDS = 20
GROWTH_BYTES = 2 << 20


def resident() -> int:
    """The bytes of memory that this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def exhaust(iterator: Any) -> None:
    """Run an iterator to its end at the speed of C."""
    deque(iterator, maxlen=0)


def one_round(store: Store[Any, Any], keys: list[str], number: int) -> None:
    """Half a million operations: reads of all keys, of half that are there, puts with and without a lifetime, drops,
    and some flights."""
    store.l1_set_clock(1000 + number * 10**9)
    exhaust(map(store.get, keys))
    exhaust(map(store.l1_put, keys, repeat(None), repeat(3 * 10**9)))
    exhaust(map(store.get, keys))
    exhaust(map(store.__contains__, keys))
    exhaust(map(store.__setitem__, keys[::2], keys))
    exhaust(map(store.drop, keys[1::2]))
    exhaust(map(store.l1_put, reversed(keys), repeat(None), repeat(10**8)))
    exhaust(map(store.l1_hit, keys, repeat(None)))
    exhaust(map(store.peek, keys))
    exhaust(map(store.l1_erase, keys[::4]))
    exhaust(map(store.__setitem__, keys[::4], keys))
    exhaust(map(store.get, keys[: KEYS // 2]))
    exhaust(map(store.l1_put, keys, repeat(number), repeat(0)))
    for key in keys[::10]:
        op = Op(key)
        store.l1_open(op)
        store.l1_finish(op, key, number + 1, NEVER, identity=SERVER)
    if number % 5 == 4:
        store.l1_set_clock(1000 + (number + 10) * 10**9)
        store.expire()
        store.drop_all()


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_memory_over_ten_million_operations_stays_flat(policy: str) -> None:
    """What lives as long as the process may not leak a byte per operation: less than 2 MB from round 5 to the end."""
    keys = [f"key {number}" for number in range(KEYS)]
    store = attached_store(KEYS * 3 // 4, policy=policy)
    before = 0
    operations = 0
    for number in range(ROUNDS):
        one_round(store, keys, number)
        operations += KEYS * 10
        if number == 4:
            gc.collect()
            before = resident()
    gc.collect()
    assert operations >= 10_000_000
    assert resident() - before < GROWTH_BYTES
    store.check_invariants()


@pytest.mark.parametrize(
    ("way", "policy"),
    [("expire", "lru"), ("puts", "lru"), ("tend", "lru"), ("expire", "adaptive"), ("puts", "adaptive")],
)
def test_memory_after_a_burst_is_given_back(way: str, policy: str) -> None:
    """A million entries come and expire; then the store is as small as what it holds asks for, whoever cleans up."""
    store = local_store(None, policy=policy)
    for number in range(1000):
        store[-number - 1] = number
    usual = sys.getsizeof(store)
    exhaust(map(store.l1_put, range(1_000_000), repeat(None), repeat(10**9)))
    assert sys.getsizeof(store) > 1_000_000 * 64
    store.l1_set_clock(10**10)
    if way == "expire":
        pairs = store.expire()
        assert len(pairs) == 1_000_000
        del pairs
        assert sys.getsizeof(store) < 8 * usual
    turn = store.l1_tend if way == "tend" else lambda: store.l1_put(-1, 0)
    for _ in range(500_000):
        turn()
    assert len(store) == 1000
    assert store[-2] == 1
    store.check_invariants()
    assert sys.getsizeof(store) < 8 * usual
