"""Reading and changing by the very object that is the key: what the slots do at once, and when they must not."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache._store import Op, Store
from support.store_kit import Key, Value, attached_store, fill, local_store, opened


class Counted:
    """A key that counts how often its hash is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0

    def __hash__(self) -> int:
        self.asked += 1
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and other.name == self.name


KEYS = ["text", 7, 1_000_000_007, ("a", 1), b"data", 2.5, Counted("k")]


@pytest.mark.parametrize("key", KEYS, ids=[type(key).__name__ + str(i) for i, key in enumerate(KEYS)])
def test_life_of_any_kind_of_key_by_the_very_object(key: Any) -> None:
    """Store, read, overwrite and delete by one object, whatever its kind."""
    store = local_store(ttl_ns=100)
    store[key] = 1
    assert key in store
    assert store[key] == 1
    store[key] = 2
    assert store[key] == 2
    store.check_invariants()
    del store[key]
    assert key not in store
    with pytest.raises(KeyError):
        del store[key]
    with pytest.raises(KeyError):
        store[key]
    store.check_invariants()


def test_special_methods_called_by_name_do_the_same() -> None:
    """The wrappers in the type's dictionary lead to the same functions."""
    store = local_store()
    Store.__setitem__(store, "k", 1)
    Store.__setitem__(store, "k", 2)
    assert Store.__contains__(store, "k")
    assert Store.__getitem__(store, "k") == 2
    Store.__delitem__(store, "k")
    assert not Store.__contains__(store, "k")


@pytest.mark.parametrize("same", [True, False], ids=["the very object", "an equal one"])
def test_hash_of_a_key_that_does_not_keep_it_is_asked_for_once(same: bool) -> None:
    """``[]`` and ``in`` hash a tuple, or an object, once, found at once or not."""
    store = local_store()
    kept = Counted("k")
    store[kept] = 1
    key = kept if same else Counted("k")
    key.asked = 0
    assert store[key] == 1
    assert key.asked == 1
    assert key in store
    assert key.asked == 2


@pytest.mark.parametrize("same", [True, False], ids=["the very object", "an equal one"])
@pytest.mark.parametrize("hindrance", ["none", "absent", "a size", "an operation", "a listener", "a lifetime"])
def test_hash_of_a_key_that_does_not_keep_it_is_asked_for_once_by_assignment(hindrance: str, same: bool) -> None:
    """However closely the entry has to be looked at."""
    store = attached_store(listener=(lambda *what: None) if hindrance == "a listener" else None)
    key = Counted("k")
    if hindrance != "absent":
        store.l1_put(key, 1, size=10 if hindrance == "a size" else 0, ttl_ns=100 if hindrance == "a lifetime" else 0)
    if hindrance == "an operation":
        store.l1_open(Op("other"))
    key = key if same else Counted("k")
    key.asked = 0
    store[key] = 2
    assert key.asked == 1
    assert store[key] == 2
    store.check_invariants()


@pytest.mark.parametrize("hindrance", ["none", "listener", "another key"])
def test_hash_of_a_key_that_does_not_keep_it_is_asked_for_once_by_deletion(hindrance: str) -> None:
    """Also where the entry needs a closer look, and where there is none."""
    gone: list[Any] = []
    listening = {"listener": lambda *removal: gone.append(removal)} if hindrance == "listener" else {}
    store = local_store(**listening)
    key = Counted(7)
    store[key if hindrance != "another key" else Counted(7)] = 1
    key.asked = 0
    del store[key]
    assert key.asked == 1
    assert len(gone) == (hindrance == "listener")
    with pytest.raises(KeyError):
        del store[key]
    assert key.asked == 2
    assert len(store) == 0
    store.check_invariants()


def test_hash_that_raises_is_heard_of() -> None:
    """What ``__hash__`` raises comes out of ``[]`` and ``in``."""

    class Bad:
        def __hash__(self) -> int:
            raise ZeroDivisionError

    store = local_store()
    for ask in (lambda: store[Bad()], lambda: Bad() in store):
        with pytest.raises(ZeroDivisionError):
            ask()


def test_expired_entry_is_not_there_and_deleting_it_raises() -> None:
    """``del`` of what has expired raises KeyError, and the entry is gone."""
    store = local_store(ttl_ns=100)
    store["k"] = 1
    store.l1_set_clock(1100)
    assert "k" not in store
    with pytest.raises(KeyError):
        del store["k"]
    assert store.currsize == 0
    store.check_invariants()


def test_overwriting_puts_the_deadline_off() -> None:
    """A value written again lives from then on."""
    store = local_store(ttl_ns=100)
    store["k"] = 1
    store.l1_set_clock(1050)
    store["k"] = 2
    store.l1_set_clock(1149)
    assert store["k"] == 2
    store.l1_set_clock(1150)
    assert "k" not in store


def test_overwriting_what_has_no_end_gives_it_the_lifetime_of_the_store() -> None:
    """What it was put with went with the value."""
    store = local_store(ttl_ns=100)
    for key in KEYS:
        store.l1_put(key, 1, ttl_ns=0)
        assert store.remaining_ns(key) is None
        store[key] = 2
        assert store.remaining_ns(key) == 100
    store.check_invariants()


def test_overwriting_what_has_an_end_gives_it_none_in_a_store_without_lifetimes() -> None:
    """The same the other way round."""
    store = local_store()
    for key in KEYS:
        store.l1_put(key, 1, ttl_ns=100)
        store[key] = 2
        assert store.remaining_ns(key) is None
    store.check_invariants()


@pytest.mark.parametrize("key", KEYS, ids=[type(key).__name__ + str(i) for i, key in enumerate(KEYS)])
def test_comparison_that_raises_while_overwriting_is_heard_of(key: Any) -> None:
    """An operation in flight may be on the same key; that cannot be found out, so nothing is changed."""

    def fail() -> None:
        raise ZeroDivisionError

    store = attached_store()
    store[key] = 1
    store.l1_open(Op(Key("other", hash(key), on_eq=fail)))
    with pytest.raises(ZeroDivisionError):
        store[key] = 2
    assert store.peek(key) == 1
    store.check_invariants()


def test_overwriting_what_an_operation_brought_leaves_no_origin() -> None:
    """The id of the write that made a value goes with the value."""
    store = attached_store()
    fill(store, "k", "old", 7)
    assert store.l1_wid("k") == 7
    for value in ("new", "newer"):
        store["k"] = value
        assert (store["k"], store.l1_wid("k")) == (value, 0)
        store.check_invariants()


def test_overwriting_what_has_a_size_gives_the_bytes_back() -> None:
    """A value without a size takes none."""
    store = local_store()
    store.l1_put("k", "large", size=1000)
    for value in ("small", "smaller"):
        store["k"] = value
        assert store.l1_counters()["bytes"] == 0
        store.check_invariants()


def test_changes_overtake_operations_in_flight() -> None:
    """A value put, or removed, while it is being read is newer than what the read brings."""
    for change in (lambda s: s.__setitem__("k", 2), lambda s: s.__delitem__("k")):
        store = attached_store()
        store["k"] = 1
        op = opened(store, "k")
        change(store)
        assert not op.storable


def test_changes_are_told_to_the_listener() -> None:
    """What is replaced or deleted at once is told, as everything else."""
    told: list[tuple[Any, Any, str]] = []
    store = local_store(listener=lambda *what: told.append(what))
    store["k"] = 1
    store["k"] = 2
    del store["k"]
    assert told == [("k", 1, "replaced"), ("k", 2, "invalidated")]


def test_changes_are_counted() -> None:
    """Overwriting counts as storing, and not as a hit."""
    store = local_store()
    store["k"] = 1
    store["k"] = 2
    assert store["k"] == 2
    counted = store.l1_counters()
    assert (counted["stored"], counted["hits"], counted["misses"]) == (2, 1, 0)


def test_value_whose_death_changes_the_store_finds_it_whole() -> None:
    """What an old value does when it dies comes after the change that let it go."""
    store = local_store()
    seen: list[object] = []

    def look() -> None:
        store.check_invariants()
        seen.append(type(store.get("k")))

    store["k"] = Value(look)
    store["k"] = Value(look)
    del store["k"]
    assert seen == [Value, type(None)]


def test_keyfunc_and_getsizeof_are_asked_all_the_same() -> None:
    """Where keys are translated or values weighed, nothing is done at once."""
    store = local_store(keyfunc=str.lower)
    store["K"] = 1
    assert "k" in store
    store["k"] = 2
    assert store["K"] == 2
    del store["K"]
    assert store.currsize == 0
    weighed = local_store(getsizeof=len, maxbytes=10)
    weighed["k"] = "abc"
    weighed["k"] = "ab"
    assert weighed.l1_counters()["bytes"] == 2
    del weighed["k"]
    assert weighed.l1_counters()["bytes"] == 0


def test_many_deletions_and_changes_agree_with_a_dict() -> None:
    """Long runs over a crowded index, by the same objects, leave what a dict would hold."""
    store = local_store(1000)
    model: dict[str, int] = {}
    keys = [f"key {number}" for number in range(700)]
    state = 1
    for step in range(20_000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        key = keys[(state >> 8) % len(keys)]
        if state & 3 and key in model:
            del store[key]
            del model[key]
        else:
            store[key] = model[key] = step
        assert (key in store) == (key in model)
    store.check_invariants()
    assert dict(store.l1_snapshot()) == model


# -- tuples, whose hash is not always asked for


class Whole(int):
    """No exact int."""


class Word(str):
    """No exact str, but hashed as one."""

    __slots__ = ()


ITEMS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.text(max_size=5),
    st.floats(allow_nan=False),
    st.sampled_from([None, True, 2.5, b"b", Whole(9), Word("w"), object, frozenset({1})]),
)
NESTED = st.recursive(ITEMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8)
TUPLES = st.lists(NESTED, max_size=5).map(tuple)


@given(st.lists(TUPLES, min_size=1, max_size=20))
def test_tuples_have_the_hash_that_python_gives_them(keys: list[tuple[Any, ...]]) -> None:
    """What `l1_hit_dict` enters under the store's hash is found under Python's, and equal tuples are one key."""
    store: Store[Any, Any] = local_store(100)
    for key in keys:
        store[key] = key
    copies = [(*key,) for key in keys]
    found = store.l1_hit_dict(copies, [])
    for copy in [*copies, *(pickle.loads(pickle.dumps(key)) for key in keys)]:  # of the same items, and of equal ones
        assert found[copy] == store[copy] == copy
        assert copy in found
    assert len(store) == len(found) == len(set(keys))
    store.check_invariants()
