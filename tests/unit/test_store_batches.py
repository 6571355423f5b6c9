"""What ``l1_hit_dict`` serves of many keys is what they get one by one, whatever their hashing and comparing does."""

from __future__ import annotations

import gc
import random
import sysconfig
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Store
from support.store_kit import Key, local_store

NOTHING = object()
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class Token:
    """A value whose end can be seen."""


def one_by_one(store: Store[Any, Any], keys: Any) -> tuple[dict[Any, Any], list[Any]]:
    """What ``l1_hit_dict`` is defined by."""
    found, missed = {}, []
    for key in keys:
        value = store.l1_hit(key, NOTHING)
        if value is NOTHING:
            missed.append(key)
        else:
            found[key] = value
    return found, missed


def key_of(number: int) -> Any:
    """Keys of all kinds, whose hashes are known, cheap, or somebody's own."""
    kinds: tuple[Callable[[int], Any], ...] = (
        lambda number: f"text {number}",
        lambda number: number,
        lambda number: -number,
        lambda number: ("pair", number),
        lambda number: b"data %d" % number,
        lambda number: number / 2,
        lambda number: frozenset([number]),
        lambda number: Key(number),
    )
    return kinds[number % len(kinds)](number)


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
@pytest.mark.parametrize("shape", [list, tuple, iter])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100, 700])
def test_many_keys_are_served_as_they_are_one_by_one(length: int, shape: Callable[[Any], Any], policy: str) -> None:
    """Keys of all kinds, absent ones, some twice, some equal but other objects; more than are noted at a time."""
    rng = random.Random(length)
    store, twin = local_store(600, policy=policy), local_store(600, policy=policy)
    for number in range(400):
        for each in (store, twin):
            each.l1_put(key_of(number), number, ttl_ns=10 if number % 9 == 0 else 0)
    for each in (store, twin):
        each.l1_set_clock(20)
    keys = [key_of(rng.randrange(800)) for _ in range(length)]
    missed: list[Any] = []
    found = store.l1_hit_dict(shape(keys), missed)
    expected, absent = one_by_one(twin, keys)
    assert list(found.items()) == list(expected.items())
    assert missed == absent
    assert store.l1_snapshot() == twin.l1_snapshot()
    assert store.l1_counters() == twin.l1_counters()
    store.check_invariants()


def test_keyfunc_is_applied_and_results_are_under_the_callers_keys() -> None:
    """The batch is of the caller's keys, the store holds others."""
    store = local_store(keyfunc=str.lower)
    store["A"] = 1
    missed: list[str] = []
    assert store.l1_hit_dict(["a", "A", "b", "B"], missed) == {"a": 1, "A": 1}
    assert missed == ["b", "B"]


def test_suspects_are_no_hits_of_a_batch() -> None:
    """A lane that may have missed a message serves nothing, and counts why."""
    store = local_store()
    for number in range(40):
        store[number] = number
    store.lane_suspect(0)
    missed: list[int] = []
    assert store.l1_hit_dict(list(range(40)), missed) == {}
    assert missed == list(range(40))
    assert (store.l1_counters()["misses"], store.l1_counters()["suspects"]) == (40, 40)


def test_list_that_a_hash_empties_ends_there() -> None:
    """Hashing may run any code; what has been taken from the list is served, and nothing is read beyond its end.

    Without a GIL all of it is taken at once, for another thread could empty it at any time.
    """
    store = local_store()
    keys: list[Any] = []

    class Emptying:
        def __hash__(self) -> int:
            keys.clear()
            gc.collect()
            return 1

    store["a"] = 1
    for before in (0, 3, 16, 20):
        keys[:] = ["a"] * before + [Emptying()] + [f"fresh {number}" for number in range(30)]
        missed: list[Any] = []
        found = store.l1_hit_dict(keys, missed)
        assert found == ({"a": 1} if before else {})
        kinds = [type(key) for key in missed]
        assert kinds in ([[Emptying] + 30 * [str]] if FREE_THREADED else [[], [Emptying]])
    store.check_invariants()


def test_hash_that_raises_leaves_no_reference_behind() -> None:
    """The keys of a batch are held while it lasts, and let go when one of them cannot be hashed."""
    store = local_store()

    class Text(str):
        __slots__ = ("__weakref__",)

    keys: list[Any] = [Text(f"key {number}") for number in range(5)]
    seen = [weakref.ref(key) for key in keys]
    with pytest.raises(TypeError, match="unhashable"):
        store.l1_hit_dict([*keys, [], "x"], [])
    del keys
    gc.collect()
    assert [ref() for ref in seen] == [None] * 5


@pytest.mark.parametrize("change", ["drop_all", "overwrite", "refill"])
def test_comparison_in_the_result_that_changes_the_store_is_noticed(change: str) -> None:
    """A key may meet an equal hash in the dictionary that is being made: then its ``__eq__`` runs amid the batch."""
    store = local_store(100)
    calls = []

    class Meddling:
        def __hash__(self) -> int:
            return hash("meet")

        def __eq__(self, other: object) -> bool:
            if self not in gone:
                return self is other
            calls.append(other)
            if change == "overwrite":
                for name in names:
                    store[name] = Token()
            else:
                store.drop_all()
            if change == "refill":
                for number in range(100):
                    store[f"other {number}"] = Token()
            return False

    class Removing:
        def __hash__(self) -> int:
            if store.drop(odd):
                gone.append(odd)
            return 1

    odd = Meddling()
    gone: list[Any] = []
    first = [f"first {number}" for number in range(15)]
    names = ["meet", *(f"later {number}" for number in range(12))]
    for key in (odd, *first, *names):
        store[key] = Token()
    old = [weakref.ref(store.peek(name)) for name in names[1:]]
    missed: list[Any] = []
    found = store.l1_hit_dict([odd, *first, Removing(), *names], missed)
    assert set(calls) == {"meet"}  # a dictionary may meet the same place twice while it probes
    assert list(found)[:16] == [odd, *first]
    assert [found.get(name) is store.peek(name) for name in names[1:]] == [True] * 12
    assert missed[1:] == ([] if change == "overwrite" else names[1:])
    gc.collect()
    assert [ref() for ref in old] == [None] * 12
    store.check_invariants()


def test_value_that_a_later_duplicate_replaces_may_run_code_when_it_goes() -> None:
    """Between two takings of one key its value can change; the older one dies while the batch is under way."""
    store = local_store(None)
    keys: list[Any] = []

    class Dying:
        def __del__(self) -> None:
            keys.clear()
            store.drop_all()

    class Replacing:
        def __hash__(self) -> int:
            return 5

        def __eq__(self, other: object) -> bool:
            store["twice"] = "new"
            return True

    store["twice"] = Dying()
    store[Replacing()] = "odd"
    for number in range(20):
        store[f"key {number}"] = number
    keys[:] = ["twice", Replacing(), "twice", *(f"key {number}" for number in range(20))]
    missed: list[Any] = []
    found = store.l1_hit_dict(keys, missed)
    assert found.get("twice", "new") == "new"
    assert len(store) == 0
    store.check_invariants()
