"""Code of keys and values that reaches back into the store, at every point where it runs.

The named tests reproduce faults of comparable C code: lru-dict, functools.lru_cache, the C OrderedDict.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, Key, Value, attached_store, fill, local_store, opened

Action = Callable[[Store[Any, Any]], object]


def grow(store: Store[Any, Any]) -> None:
    """More than the table has room for, so that slab and index move."""
    for number in range(3000, 3300):
        store[number] = number


ACTIONS: dict[str, Action] = {
    "clear": lambda store: store.drop_all(),
    "drop the key itself": lambda store: store.drop_all() or store.l1_put(Key("a", on_eq=None), "other"),
    "take all, one by one": lambda store: [store.l1_pop_next() for _ in range(len(store))],
    "grow": grow,
    "read": lambda store: [store.get(number) for number in range(10)],
    "sweep": lambda store: store.l1_sweep(1000),
    "suspect": lambda store: store.lane_suspect(0),
    "forget operations": lambda store: store.l1_reset_pending(),
    "open an operation": lambda store: store.l1_open(Op(1)),
    "message": lambda store: store.lane_apply(0, 3, list(range(10))),
    "pop": lambda store: store.drop_all() if not len(store) else store.l1_hit_dict(range(9), []),
}

CALLS: dict[str, Callable[[Store[Any, Any], Any], object]] = {
    "getitem": lambda store, key: store.__getitem__(key),
    "get": lambda store, key: store.get(key),
    "contains": lambda store, key: key in store,
    "setitem": lambda store, key: store.__setitem__(key, "new"),
    "delitem": lambda store, key: store.__delitem__(key),
    "put": lambda store, key: store.l1_put(key, "new", ttl_ns=5, size=3),
    "peek": lambda store, key: store.peek(key),
    "hit": lambda store, key: store.l1_hit(key, None),
    "hit_dict": lambda store, key: store.l1_hit_dict([1, key, 2, key], []),
    "drop": lambda store, key: store.drop(key),
    "join": lambda store, key: store.l1_join(key),
    "suspect": lambda store, key: store.l1_suspect(key),
    "apply": lambda store, key: store.lane_apply(0, 3, ["x", key, "y", key]),
    "open and finish": lambda store, key: store.l1_finish(opened(store, key), "new", 9, NEVER, identity=SERVER),
    "write": lambda store, key: store.l1_finish(
        opened(store, key, wid=9, write=True), "new", 9, NEVER, identity=SERVER
    ),
    "refresh": lambda store, key: store.l1_confirm(opened(store, key), 1, NEVER, SERVER),
    "abandon": lambda store, key: store.l1_abandon(opened(store, key), drop=True),
}


def crowded(maxsize: int | None = None) -> Store[Any, Any]:
    store = attached_store(maxsize)
    for number in range(20):
        store[number] = number
    return store


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("call", CALLS)
def test_eq_that_acts_on_the_store_breaks_nothing(call: str, action: str) -> None:
    """bpo-35780, gh-94879, gh-142637: ``__eq__`` changes the table under the call that asked."""
    store = crowded()
    left = [0]

    def act() -> None:
        if left[0]:
            left[0] -= 1
            ACTIONS[action](store)

    store[Key("b")] = "b"
    fill(store, Key("a", on_eq=act), "a", wid=1)
    opened(store, Key("a", on_eq=act))
    store[Key("c")] = "c"
    left[0] = 3
    try:
        CALLS[call](store, Key("a", on_eq=act))
    except KeyError:
        assert call in {"getitem", "delitem"}
    assert left[0] < 3
    left[0] = 0
    store.check_invariants()
    held = list(store)
    assert len(held) == len(set(held))


@pytest.mark.parametrize("call", CALLS)
def test_eq_that_raises_is_heard_and_nothing_is_lost(call: str) -> None:
    """The exception reaches the caller; whatever does not have to go stays."""
    store = crowded()
    armed: list[int] = []

    def act() -> None:
        if armed:
            raise ZeroDivisionError

    store[Key("a", on_eq=act)] = "a"
    opened(store, Key("a", on_eq=act))
    armed.append(1)
    with pytest.raises(ZeroDivisionError):
        CALLS[call](store, Key("a"))
    armed.clear()
    store.check_invariants()
    assert {number for number in range(20) if number in store} == set(range(20))
    # A message or a completion that cannot tell which entry it means drops it; see the tests of the rules.
    may_go = call in {"apply", "open and finish", "write", "refresh", "abandon"}
    assert store.peek(Key("a")) in ({"a", None} if may_go else {"a"})


def test_eq_whose_entry_another_key_takes_over_is_asked_no_more() -> None:
    """In a full store a new key may get the very place of the entry that is being compared; its value is not served."""
    store = local_store(4)
    store[Key("a", on_eq=lambda: store.__setitem__("new", "new"))] = "a"
    for number in range(3):
        store[number] = number
    assert store.get(Key("a")) is None
    assert store["new"] == "new"


def test_eq_under_which_entries_move_to_a_larger_index_misses_none() -> None:
    """Who tends carries a growth on, and what the search comes to next may lie behind it then."""
    store = local_store(None)
    turns: list[int] = []
    store[Key("a", on_eq=lambda: [store.l1_tend() for _ in turns])] = "a"
    store[Key("b")] = "b"
    for number in range(8191):  # one more than there was room for
        store[number] = number
    turns += range(300)
    assert store.get(Key("b")) == "b"


def test_eq_that_always_changes_the_store_ends_in_an_error() -> None:
    """It would be sought for ever."""
    store = local_store(None)
    numbers = iter(range(10**9))
    store[Key("a", on_eq=lambda: store.l1_put(next(numbers), 1))] = 1
    with pytest.raises(RuntimeError, match="each time"):
        store.get(Key("b"))
    store.check_invariants()


def test_eq_that_recurses_into_the_same_lookup_raises_recursionerror() -> None:
    """And the store survives it."""
    store = local_store()
    probe = Key("b")
    store[Key("a", on_eq=lambda: store.get(probe))] = 1
    with pytest.raises(RecursionError):
        store.get(probe)
    store.check_invariants()


def test_hash_that_acts_on_the_store_breaks_nothing() -> None:
    """``__hash__`` runs before anything is looked at."""
    store = crowded()

    class Hashing:
        def __hash__(self) -> int:
            store.drop_all()
            grow(store)
            return 5

    for call in CALLS.values():
        try:
            call(store, Hashing())
        except KeyError:
            pass
        store.check_invariants()


def test_hash_that_raises_is_heard() -> None:
    """By every call, with nothing changed."""
    store = crowded()

    class Unwilling:
        def __hash__(self) -> int:
            raise ZeroDivisionError

    before = set(store)
    for call in CALLS.values():
        with pytest.raises(ZeroDivisionError):
            call(store, Unwilling())
    assert set(store) == before
    store.check_invariants()


@pytest.mark.parametrize("action", ACTIONS)
def test_del_of_evicted_values_and_keys_may_act_on_the_store(action: str) -> None:
    """lru-dict #22: user code runs while the victim is on its way out."""
    store = attached_store(5)
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        if len(calls) < 50:
            ACTIONS[action](store)
            store.check_invariants()

    for number in range(40):
        store[Key(number, number, on_del=act)] = Value(act)
        assert len(store) <= 5
    assert calls
    store.check_invariants()


@pytest.mark.parametrize("way", ["overwrite", "drop", "delitem", "drop_all", "expire", "pop", "message", "sweep"])
def test_del_that_puts_the_key_back_is_served(way: str) -> None:
    """The entry is out before its value dies, so that putting it back is an ordinary put."""
    store = attached_store(5)
    revived: list[int] = []

    def revive() -> None:
        if not revived:
            revived.append(1)
            store.l1_put("k", "back", ttl_ns=0)
            store.check_invariants()

    store.l1_put("k", Value(revive), ttl_ns=10)
    if way == "overwrite":
        store["k"] = 1
    elif way == "drop":
        store.drop("k")
    elif way == "delitem":
        del store["k"]
    elif way == "drop_all":
        store.drop_all()
    elif way == "pop":
        store.l1_pop_next()
    elif way == "message":
        store.lane_apply(0, 5, ["k"])
    else:
        store.l1_set_clock(1010)
        store.l1_sweep(100) if way == "sweep" else store.get("k")
    assert revived
    assert store["k"] == "back"
    store.check_invariants()


def test_store_does_not_grow_past_maxsize_under_reentrant_puts() -> None:
    """gh-148180: a put within a put must not make room for two."""
    store = local_store(4)

    def put_more(depth: int) -> None:
        if depth < 40:
            store[depth] = Value(lambda: put_more(depth + 1))
            assert len(store) <= 4

    for number in range(100):
        store[-1 - number] = Value(lambda: put_more(0))
        assert len(store) <= 4
    store.check_invariants()


def test_getsizeof_that_acts_on_the_store_breaks_nothing() -> None:
    """It is asked before anything is looked up."""
    store: Store[Any, Any] = local_store(10, maxbytes=100, getsizeof=lambda value: measure(value))
    depth: list[int] = []

    def measure(value: Any) -> int:
        if not depth:
            depth.append(1)
            for number in range(30):
                store[number] = number
            store.drop_all()
            store["k"] = "inner"
            depth.clear()
        return 7

    for number in range(10):
        store["k"] = number
        assert store["k"] == number
        store.check_invariants()
    assert store.l1_counters()["bytes"] == 7


def test_keyfunc_that_acts_on_the_store_breaks_nothing() -> None:
    """Nor does one that raises."""
    store: Store[Any, Any] = local_store(10, keyfunc=lambda key: map_key(key))

    def map_key(key: Any) -> Any:
        if key == "bad":
            raise ZeroDivisionError
        if isinstance(key, str):
            store.drop_all()
        return key

    store[1] = 1
    store["text"] = 2
    assert store.l1_snapshot() == [("text", 2)]
    for call in (
        "getitem",
        "get",
        "contains",
        "setitem",
        "delitem",
        "put",
        "peek",
        "hit",
        "hit_dict",
        "drop",
    ):
        with pytest.raises(ZeroDivisionError):
            CALLS[call](store, "bad")
    store.check_invariants()


def test_key_that_dies_with_its_entry_may_be_compared_to_the_last() -> None:
    """gh-119004: the only reference to the held key is the table's, and ``__eq__`` removes it."""
    store = local_store()

    def remove() -> None:
        store.drop_all()
        grow(store)

    store[Key("a", on_eq=remove)] = "a"
    assert store.get(Key("a")) is None
    store.check_invariants()


def test_key_that_dies_in_its_own_comparison_is_still_there_for_the_reflected_one() -> None:
    """gh-142637: after ``NotImplemented`` the interpreter asks the other side about the removed key."""
    store = local_store()

    class Shy(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other: object) -> Any:
            if self.on_eq is None:
                return isinstance(other, Shy) and self.name == other.name
            self.on_eq()
            return NotImplemented

    def remove() -> None:
        store.drop_all()
        grow(store)

    store[Shy("a" * 1000, on_eq=remove)] = "a"
    assert store.get(Shy("b")) is None
    store.check_invariants()


def test_iteration_survives_any_change() -> None:
    """gh-152537: the iterator owns what it goes over."""
    store = local_store(None)
    for number in range(100):
        store[Key(number, number)] = number
    iterator = iter(store)
    seen = [next(iterator).name]
    store.drop_all()
    grow(store)
    seen += [key.name for key in iterator]
    assert seen == list(range(100))


def test_keys_list_that_shrinks_during_a_call_is_no_harm() -> None:
    """``l1_hit_dict`` and ``lane_apply`` look at the list as it is."""
    store = crowded()
    for call in (lambda keys: store.l1_hit_dict(keys, []), lambda keys: store.lane_apply(0, 5, keys)):
        keys: list[Any] = []
        store[Key("a", on_eq=keys.clear)] = 1
        keys += [Key("b"), *range(10)]
        call(keys)
        assert keys == []
        store.drop_all()


def test_op_that_a_comparison_initialises_anew_keeps_its_key() -> None:
    """The key that is being compared belongs to the operation."""
    store = attached_store()
    op = Op(Key("a"))
    refused: list[ValueError] = []

    def renew() -> None:
        with pytest.raises(ValueError, match="initialised already") as caught:
            op.__init__(Key("c"))  # type: ignore[misc]  # that is what is tested
        refused.append(caught.value)

    before = opened(store, Key("b", on_eq=renew))
    store.l1_open(op)
    assert refused
    assert op.key.name == "a"
    store.l1_abandon(before, drop=False)
    assert store.l1_join(Key("a")) is op
    store.check_invariants()


def test_op_that_its_key_initialises_while_it_is_hashed_has_one_key() -> None:
    """The inner one, which came to its end first."""

    class Hasty:
        def __hash__(self) -> int:
            op.__init__("inner")  # type: ignore[misc]  # that is what is tested
            return 1

    op: Op = Op.__new__(Op)
    with pytest.raises(ValueError, match="initialised already"):
        op.__init__(Hasty())  # type: ignore[misc]  # that is what is tested
    assert op.key == "inner"


def test_store_that_an_argument_initialises_has_the_lanes_of_the_first_to_end() -> None:
    """An operation and an entry of one of its lanes are no danger to a store of fewer."""
    store: Store[Any, Any] = Store.__new__(Store)

    class Bound(int):
        """Compared while ``__init__`` looks at it."""

        def __lt__(self, other: int) -> bool:
            if store.maxsize is None:
                store.__init__(10, lanes=5000)  # type: ignore[misc]  # that is what is tested
                store.lane_attach(4000, SERVER)
                store.lane_vouch(4000, NEVER)
                store.l1_finish(opened(store, "k", lane=4000), "v", 1, NEVER, identity=SERVER)
            return int(self) < other

    with pytest.raises(ValueError, match="initialised already"):
        store.__init__(Bound(20))  # type: ignore[misc]  # that is what is tested
    assert store.get("k") == "v"
    assert store.maxsize == 10
    store.check_invariants()


def test_op_opened_by_its_own_comparison_is_refused() -> None:
    """The second registration, not the first."""
    store = attached_store()
    op = Op(Key("a"))
    opening: list[int] = []

    def open_it() -> None:
        if not opening:
            opening.append(1)
            store.l1_open(op)

    opened(store, Key("b", on_eq=open_it))
    with pytest.raises(ValueError, match="opened before"):
        store.l1_open(op)
    assert store.l1_join(op.key) is op
    store.check_invariants()


def test_threads_that_switch_inside_eq_leave_one_entry_per_key() -> None:
    """gh-131757: two threads are inside the same lookup, for the GIL is let go in ``__eq__``."""
    store = local_store(None)
    barrier = threading.Barrier(2, timeout=30)
    once = threading.local()

    def meet() -> None:
        if not getattr(once, "met", False):
            once.met = True
            barrier.wait()

    store[Key("other", on_eq=meet)] = 0

    def write(value: int) -> None:
        store[Key("k", on_eq=None)] = value

    threads = [threading.Thread(target=write, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    once.met = True
    assert len(store) == 2
    assert store[Key("k")] in {1, 2}
    store.check_invariants()


def test_exception_in_flight_survives_the_release_of_entries() -> None:
    """A ``__del__`` that runs while an error propagates does not replace it."""
    store = attached_store()
    armed: list[int] = []

    def act() -> None:
        if armed:
            raise ZeroDivisionError

    fill(store, Key("a", on_eq=act), Value(lambda: store.get("nothing")), wid=1)
    op = opened(store, Key("b"))
    armed.append(1)
    with pytest.raises(ZeroDivisionError):
        store.l1_abandon(op, drop=True)
    assert sys.exc_info() == (None, None, None)
    assert len(store) == 0
