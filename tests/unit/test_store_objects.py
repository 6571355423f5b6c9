"""The store as a Python object: references, collection, slots, subclassing."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from nearcache import MemoryCache
from nearcache._store import Op, Store
from nearcache.cache.memory.aging import AgingMemoryCache
from nearcache.cache.memory.idling import IdlingMemoryCache
from nearcache.cache.tiered.cache import TieredCache
from nearcache.errors import ValueTooLargeError
from support.store_kit import NEVER, SERVER, Key, Value, attached_store, fill, local_store, opened

MP_ASS_SUBSCRIPT, MP_LENGTH, MP_SUBSCRIPT, SQ_CONTAINS, SQ_ITEM, TP_ITER = 3, 4, 5, 41, 44, 62


def slot(cls: type, number: int) -> int | None:
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.restype, get_slot.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_int]
    address: int | None = get_slot(cls, number)
    return address


def first(key: Any, holder: Any, *_: Any) -> Any:
    """What it is given, together with something to hold."""
    return key


class Sub(Store[Any, Any]):
    """As the public cache: hooks, but no method of the hit path."""

    def _missing(self, key: Any) -> Any:
        raise KeyError(key)


class MappingSub(Store[Any, Any], MutableMapping[Any, Any]):  # type: ignore[misc]  # that is what is tested
    """As the public cache is one: a MutableMapping too."""


@contextmanager
def references_unchanged(*objects: object) -> Iterator[None]:
    gc.collect()
    before = [sys.getrefcount(obj) for obj in objects]
    yield
    gc.collect()
    assert [sys.getrefcount(obj) for obj in objects] == before


@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_value_stored_over_itself_is_counted_once_per_entry(policy: str) -> None:
    """By the same key, by an equal one, and under the key that takes an evicted one's place."""
    value, other = object(), object()
    keys = [f"key {number}" for number in range(40)]
    with references_unchanged(value, other, *keys):
        cache = Store[str, object](4, policy=policy)
        for key in keys[:4]:
            cache[key] = value
        held = sys.getrefcount(value)
        for key in [*keys[:4], *("".join(key) for key in keys[:4]), *keys]:
            cache[key] = value
        assert len(cache) == 4
        assert sys.getrefcount(value) == held
        for key in keys:
            cache[key] = other
        assert sys.getrefcount(value) == held - 4
        del cache, key


# -- slots


@pytest.mark.parametrize("number", [MP_ASS_SUBSCRIPT, MP_LENGTH, MP_SUBSCRIPT, SQ_CONTAINS, TP_ITER])
@pytest.mark.parametrize("cls", [Sub, MappingSub])
def test_subclass_inherits_the_slots_of_a_hit(cls: type, number: int) -> None:
    """``cache[key]`` calls the C function itself, not the generic slot that looks ``__getitem__`` up."""
    assert slot(cls, number) == slot(Store, number) is not None


def test_store_is_no_sequence() -> None:
    """Items have no numbers."""
    assert slot(Store, SQ_ITEM) is None
    with pytest.raises(TypeError):
        reversed(local_store())  # type: ignore[call-overload]  # that is what is tested


def test_subclass_that_overrides_getitem_is_called() -> None:
    """The slots are inherited, not forced."""

    class Doubled(Store[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            return super().__getitem__(key) * 2

    store = Doubled(3)
    store.lane_vouch(0, NEVER)
    store["k"] = 4
    assert store["k"] == 8


def test_instance_of_one_class_changes_no_other_class() -> None:
    """Whose ``get`` a class has, its bases say, whichever of them have instances."""

    class Plain(MemoryCache[Any, Any]):
        pass

    class Mixin(MemoryCache[Any, Any]):
        def get(self, key: Any, default: Any = None, **options: Any) -> Any:
            return "mixed in"

    class Both(Plain, Mixin):
        pass

    assert Both().get("k") == "mixed in"
    plain = Plain()
    assert plain.get("k", 1) == 1
    assert Both().get("k") == "mixed in"
    plain["k"] = 2
    assert plain.get("k") == 2


@pytest.mark.parametrize("cls", [MemoryCache, AgingMemoryCache, IdlingMemoryCache, TieredCache])
def test_class_that_caches_are_made_of_has_a_get_of_its_own(cls: Any) -> None:
    """CPython calls it directly then. It is the store's all the same."""
    assert cls.get.__objclass__ is cls
    assert cls.get.__doc__ == Store.get.__doc__


def test_mutable_mapping_mixins_work_on_a_subclass() -> None:
    """pop, popitem, setdefault, update, views and equality come from the ABC."""
    store = MappingSub(10)
    store.lane_vouch(0, NEVER)
    store.update({"a": 1, "b": 2})
    assert store == {"a": 1, "b": 2}
    assert store.setdefault("c", 3) == 3
    assert store.pop("a") == 1
    assert sorted(store.items()) == [("b", 2), ("c", 3)]
    store.clear()
    assert not store


def test_store_is_generic_at_run_time() -> None:
    """``Store[str, int]`` may be written anywhere, and subclassed."""
    assert Store[str, int].__origin__ is Store  # type: ignore[attr-defined]  # generic alias

    class Typed(Store[str, int]):
        pass

    assert Typed.__mro__[1] is Store


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_store_and_op_cannot_be_copied_or_pickled(duplicate: Any) -> None:
    """Their C structs would be left behind; a clear error says so."""
    for obj in (local_store(), Op("k")):
        with pytest.raises(TypeError, match="pickle"):
            duplicate(obj)


def test_sizeof_counts_the_tables() -> None:
    """So that ``sys.getsizeof`` tells what a cache costs."""
    store = local_store(None)
    empty = sys.getsizeof(store)
    for number in range(1000):
        store[number] = None
    assert 1000 * 64 < sys.getsizeof(store) - empty < 1000 * 200
    store.drop_all()
    assert sys.getsizeof(store) == empty


USES: dict[str, Callable[[Store[Any, Any], int], object]] = {
    "tending": lambda store, number: store.l1_tend(),
    "reading": lambda store, number: store[0],
    "overwriting": lambda store, number: store.__setitem__(0, number),
    "overwriting with a size": lambda store, number: store.l1_put(0, number, size=1),
    "displacing": lambda store, number: store.__setitem__(10_000 + number, None),
}


@pytest.mark.parametrize("use", USES)
def test_sizeof_counts_the_index_that_is_left_until_any_use_has_carried_the_growth_on(use: str) -> None:
    """Not only new entries do."""
    store = local_store(1390)
    for number in range(1390 if use == "displacing" else 1025):  # there was room for 1,024
        store[number] = None
    growing = sys.getsizeof(store)
    for number in range(5000):
        USES[use](store, number)
    assert sys.getsizeof(store) < growing
    store.check_invariants()


def test_sizeof_counts_timers() -> None:
    """They come with the first lifetime."""
    store = local_store()
    store["k"] = None
    untimed = sys.getsizeof(store)
    store.l1_put("k", None, ttl_ns=10)
    assert sys.getsizeof(store) > untimed


def test_drop_all_gives_the_memory_back_and_a_full_table_stays_bounded() -> None:
    """A bounded store does not grow, however often its entries change."""
    store = local_store(100)
    for number in range(100):
        store[number] = number
    full = sys.getsizeof(store)
    for number in range(10_000):
        store[number] = number
    assert sys.getsizeof(store) == full


# -- references


def test_references_are_exact_after_every_way_out() -> None:
    """Keys and values end where they began."""
    keys = [f"key {number}" * 2 for number in range(8)]
    values = [object() for _ in range(8)]
    with references_unchanged(*keys, *values):
        store = attached_store(6)
        for key, value in zip(keys, values, strict=True):
            store[key] = value
            store[key] = value
        store[keys[3]]
        store.get(keys[3])
        store.get(key=keys[3])
        store.peek(keys[3])
        store.l1_hit_dict(keys, [])
        list(store)
        store.l1_snapshot()
        store.l1_pop_next()
        store.drop(keys[4])
        del store[keys[5]]
        store.lane_apply(0, 1, [keys[6]])
        store.l1_put(keys[0], values[0], ttl_ns=1)
        store.l1_set_clock(5000)
        store.get(keys[0])
        store.drop_all()
        store[keys[0]] = values[0]
        del store, key, value


def test_references_are_exact_after_operations_in_flight() -> None:
    """Finished, refused, refreshed, abandoned, forgotten, left open."""
    keys = [f"flight {number}" * 2 for number in range(8)]
    values = [object() for _ in range(3)]
    with references_unchanged(*keys, *values):
        store = attached_store(6)
        store.l1_finish(opened(store, keys[0]), values[0], 1, NEVER, identity=SERVER)
        store.l1_finish(opened(store, keys[0]), values[1], 2, NEVER, identity=SERVER)
        store.l1_finish(opened(store, keys[1]), values[1], 3, NEVER, identity=0)
        fill(store, keys[2], values[2], wid=4)
        store.lane_suspect(0)
        store.l1_suspect(keys[2])
        store.l1_confirm(opened(store, keys[2]), 4, NEVER, SERVER)
        store.l1_finish(opened(store, keys[2], wid=5, write=True), values[0], 5, NEVER, identity=SERVER)
        store.l1_abandon(opened(store, keys[2]), drop=True)
        first, second = opened(store, keys[3]), opened(store, keys[3])
        store.l1_join(keys[3])
        store.l1_abandon(first, drop=False)
        opened(store, keys[4])
        store.l1_reset_pending()
        opened(store, keys[5])
        del store, first, second


def test_references_are_exact_after_failures() -> None:
    """What could not be stored is not held."""
    value = object()
    with references_unchanged(value):
        store = local_store(None, maxbytes=1, getsizeof=lambda value: 2)
        with pytest.raises(ValueTooLargeError):
            store["k"] = value
        with pytest.raises(TypeError):
            store[[]] = value
        del store


# -- the collector


@pytest.mark.parametrize("cls", [Store, Sub, MappingSub])
def test_store_that_holds_itself_is_collected(cls: type[Store[Any, Any]]) -> None:
    """As a value, within a value, and as part of a key."""
    died = []
    store = cls(10)
    store["self"] = store
    store["list"] = [store]
    key = Key("holder")
    key.name = store
    store[key] = {"store": store}
    watch = weakref.ref(store, lambda _: died.append(True))
    del store, key
    assert watch() is not None
    gc.collect()
    assert died == [True]


def test_store_in_a_cycle_through_an_open_operation_is_collected() -> None:
    """The pending table is visited too."""

    class Flight(Op):
        store: Any = None

    store = Sub(10)
    flight = Flight("k")
    flight.store = store
    store.l1_open(flight)
    watch, watch_flight = weakref.ref(store), weakref.ref(flight)
    del store, flight
    gc.collect()
    assert watch() is None
    assert watch_flight() is None


def test_store_in_a_cycle_through_its_callbacks_is_collected() -> None:
    """``keyfunc`` and ``getsizeof`` are visited by what Cython generates."""
    holder: list[Any] = []
    store = Sub(10, keyfunc=partial(first, holder=holder), getsizeof=partial(first, 1, holder))
    holder.append(store)
    store["k"] = 1
    watch = weakref.ref(store)
    del store, holder
    gc.collect()
    assert watch() is None


def test_collector_sees_every_referent() -> None:
    """``gc.get_referents`` names keys, values, operations and callbacks."""
    store = attached_store(10, getsizeof=len)
    key, value, pending_key = ("key",), ["value"], ("pending",)
    store[key] = value
    op = opened(store, pending_key)
    referents = {id(obj) for obj in gc.get_referents(store)}
    assert {id(key), id(value), id(pending_key), id(op), id(len)} <= referents


def test_value_may_use_the_store_while_the_collector_clears_it() -> None:
    """``tp_clear`` empties the store first, so that it is whole for whoever comes."""
    seen: list[int] = []

    def visit(holder: dict[str, Any]) -> None:
        store = holder["store"]
        seen.append(len(store))
        store["new"] = 1
        store.check_invariants()

    holder: dict[str, Any] = {"store": Sub(10)}
    for number in range(5):
        holder["store"][number] = Value(lambda holder=holder: visit(holder))
    watch = weakref.ref(holder["store"])
    del holder
    gc.collect()
    assert len(seen) == 5
    gc.collect()
    assert watch() is None


def test_dying_store_is_unreachable_for_its_dying_values() -> None:
    """A weak reference is dead by then, and nothing else leads there."""
    seen: list[object] = []
    store = Sub(10)
    watch = weakref.ref(store)
    for number in range(5):
        store[number] = Value(lambda: seen.append(watch()))
    del store
    assert seen == [None] * 5


@pytest.mark.parametrize("cls", [Store, Sub])
def test_deeply_nested_stores_die_without_a_crash(cls: type[Store[Any, Any]]) -> None:
    """A hundred thousand stores, each holding the next."""
    store = cls(1)
    for _ in range(100_000):
        outer = cls(1)
        outer["inner"] = store
        store = outer
    del store, outer
    gc.collect()


def test_weak_references_to_a_plain_store_work() -> None:
    """Not only to subclasses."""
    store = local_store()
    watch = weakref.ref(store)
    assert watch() is store
    del store
    assert watch() is None
