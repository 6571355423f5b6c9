"""What holds under either policy, and what the learning one is for."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from nearcache._store import Store
from support.store_kit import NEVER, SERVER, attached_store, local_store, opened

POLICIES = ("lru", "adaptive")
both = pytest.mark.parametrize("policy", POLICIES)


def request(store: Store[Any, Any], key: Any) -> bool:
    """Read through. Returns whether it was a hit."""
    if store.get(key) is not None:
        return True
    store[key] = key
    return False


@pytest.mark.parametrize("policy", ["LRU", "lfu", "", None, 1])
def test_policy_that_is_unknown_is_named_in_the_error(policy: Any) -> None:
    """The message says what was given, and what there is."""
    with pytest.raises(ValueError, match=rf"policy={policy!r}: it must be 'lru' or 'adaptive'"):
        Store(10, policy=policy)


# -- bounds and books ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("maxsize", [1, 2, 3, 8, 9, 100, 1000])
def test_maxsize_under_either_policy_holds_at_every_step(policy: str, maxsize: int) -> None:
    """Reads, writes, drops at random: never too many entries, and each one is what was last put there."""
    rng = random.Random(maxsize)
    store = local_store(maxsize, policy=policy)
    held: dict[int, int] = {}
    for step in range(6000):
        key = rng.randrange(2 * maxsize + 1)
        choice = rng.random()
        if choice < 0.5:
            assert store.get(key) in {None, held.get(key)}
        elif choice < 0.95:
            store[key] = held[key] = step
            assert store.peek(key) == step
        else:
            store.drop(key)
            held.pop(key, None)
        assert len(store) <= maxsize
        if step % 100 == 0:
            store.check_invariants()
    assert dict(store.l1_snapshot()).items() <= held.items()
    for key in range(maxsize):
        store[key] = key
    assert len(store) == maxsize


@both
def test_maxbytes_under_either_policy_holds_at_every_step(policy: str) -> None:
    """Values of any size, overwritten with larger ones: what they take together stays within the bound."""
    rng = random.Random(2)
    store = local_store(None, maxbytes=3000, policy=policy)
    for step in range(10_000):
        size = rng.randrange(3001 if step % 500 == 0 else 150)
        key = rng.randrange(200)
        store.l1_put(key, step, size=size)
        assert store[key] == step
        store.get(rng.randrange(200))
        assert store.l1_counters()["bytes"] <= 3000
        if step % 50 == 0:
            store.check_invariants()
    assert store.l1_counters()["evictions"] > 1000


@both
def test_whole_contents_under_either_policy_are_seen_everywhere(policy: str) -> None:
    """Snapshot, iteration, len, sizes, and taking one after the other: each entry once."""
    store = local_store(500, policy=policy)
    for number in range(800):
        store[number] = -number
        store.get(number // 2)
    pairs = store.l1_snapshot()
    assert len(pairs) == len(store) == store.currsize == 500
    assert Counter(key for key, _ in pairs) == Counter(iter(store))
    assert all(key in store and value == -key for key, value in pairs)
    popped = [store.l1_pop_next() for _ in range(500)]
    assert sorted(popped) == sorted(pairs)
    assert len(store) == 0
    with pytest.raises(KeyError):
        store.l1_pop_next()
    store.check_invariants()


@both
def test_counting_under_either_policy_is_the_same(policy: str) -> None:
    """A hit is a hit, a miss a miss, and whoever had to go was evicted: the listener heard of each."""
    gone: Counter[str] = Counter()
    store = local_store(50, policy=policy, listener=lambda key, value, cause: gone.update([cause]))
    rng = random.Random(3)
    hits = stored = replaced = 0
    for _ in range(5000):
        key = rng.randrange(100)
        if request(store, key):
            hits += 1
            if rng.random() < 0.1:
                store[key] = [key]  # another object each time: what is stored over itself has not gone
                stored += 1
                replaced += 1
        else:
            stored += 1
    counters = store.l1_counters()
    assert (counters["hits"], counters["misses"], counters["stored"]) == (hits, 5000 - hits, stored)
    assert counters["evictions"] == gone["evicted"] == stored - replaced - 50
    assert gone["replaced"] == replaced


@both
def test_entries_that_leave_otherwise_keep_the_books(policy: str) -> None:
    """Invalidated by messages, expired, dropped, all dropped, suspects: the policy is told of each."""
    store = attached_store(64, policy=policy)
    rng = random.Random(4)
    now = 1000
    for step in range(4000):
        key = rng.randrange(150)
        if store.get(key) is None:
            deadline = now + rng.randrange(1, 10**9) if step % 2 else NEVER
            store.l1_finish(opened(store, key), key, step + 1, deadline, identity=SERVER)  # not over a suspect
        choice = rng.randrange(200)
        if choice < 10:
            store.lane_apply(0, 0, [rng.randrange(150) for _ in range(5)])
        elif choice < 20:
            now += rng.randrange(10**8)
            store.l1_set_clock(now)
        elif choice < 24:
            store.expire()
        elif choice < 28:
            store.l1_erase(key)
        elif choice == 28:
            store.drop_all(invalidated=step % 2 == 0)
        elif choice == 29:
            store.lane_suspect(0)
        elif choice == 30:
            store.l1_confirm(opened(store, key), step + 1, NEVER, SERVER)
        else:
            store.l1_tend()
        store.check_invariants()
        assert len(store) <= 64
    counters = store.l1_counters()
    assert min(counters[name] for name in ("hits", "invalidated", "expirations", "suspects", "evictions")) > 0


@both
def test_store_without_a_bound_keeps_all_and_shrinks(policy: str) -> None:
    """Nothing is evicted; and when most has gone the rest is where it was."""
    store = local_store(None, policy=policy)
    for number in range(30_000):
        store[number] = number
        store.get(number // 3)
    assert len(store) == 30_000
    store.check_invariants()
    for number in range(100, 30_000):
        store.drop(number)
    for _ in range(3000):
        store.l1_tend()
    store.check_invariants()
    assert sorted(store.l1_snapshot()) == [(number, number) for number in range(100)]
    assert store.l1_counters()["evictions"] == 0


# -- what it is for ------------------------------------------------------------------------------------------


@both
def test_pop_next_takes_what_an_eviction_would(policy: str) -> None:
    """Under the learning policy not the first of all, but what is worth least; under LRU what was used longest ago."""
    store = local_store(policy=policy)
    for key in range(200):
        store[key % 10] = key
    store["once"] = 1
    assert store.l1_pop_next() == (("once", 1) if policy == "adaptive" else (0, 190))


def after_a_scan(policy: str) -> float:
    """The share of a hot set that is still there after five times as many one-off keys as the store holds."""
    store = local_store(1000, policy=policy)
    rng = random.Random(5)
    for _ in range(20_000):  # traffic: a hot set that fills half of the store, and others that come once
        request(store, ("hot", rng.randrange(500)))
        if rng.random() < 0.3:
            request(store, ("once", rng.random()))
    for number in range(5_000):
        request(store, ("scan", number))
    return sum(("hot", number) in store for number in range(500)) / 500


def test_scan_of_one_off_keys_does_not_flush_the_hot_set() -> None:
    """Whatever the seed, nine in ten of those in use stay; LRU loses them all."""
    assert min(after_a_scan("adaptive") for _ in range(3)) >= 0.9
    assert after_a_scan("lru") == 0


def of_a_loop(policy: str, size: int) -> float:
    """The share of hits in the later half of 20 rounds over twice as many keys as the store holds."""
    store = local_store(size, policy=policy)
    for step in range(40 * size):
        if step == 20 * size:
            before = store.l1_counters()["hits"]
        request(store, step % (2 * size))
    return (store.l1_counters()["hits"] - before) / (20 * size)


@pytest.mark.parametrize("size", [16, 100, 1000])
def test_loop_larger_than_the_store_hits(size: int) -> None:
    """Half of the keys could hit at every round; LRU has none of them."""
    assert min(of_a_loop("adaptive", size) for _ in range(3)) >= 0.3
    assert of_a_loop("lru", size) == 0
