"""The garbage collector, which up to CPython 3.11 may run wherever an object is made, and with it any code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, Key, attached_store, fill, opened

Act = Callable[[Store[Any, Any]], object]


class Last:
    """Garbage whose end can be made to do things."""

    def __init__(self, on_del: Callable[[], object]) -> None:
        self.me = self
        self.on_del = on_del

    def __del__(self) -> None:
        self.on_del()


def write(store: Store[Any, Any], key: Any) -> None:
    """Announced, and spared by a message before its own."""
    op = Op(key, 0, wid=3, write=True, announced=True)
    store.l1_open(op)
    store.lane_apply(0, 9, [key])
    store.l1_finish(op, ["new"], 3, NEVER, identity=SERVER)


def suspected(store: Store[Any, Any], key: Any) -> None:
    store.lane_suspect(0)
    store.l1_suspect(key)
    store.l1_suspect_since(key)


def crowded() -> Store[Any, Any]:
    """Entries of L2's, a read under way for each, local ones, and a listener."""
    store = attached_store(100, listener=lambda *event: [event])
    for key in ("a", 1, Key("b"), (1, 2)):
        fill(store, key, [key], wid=1, deadline=NEVER - 10)
        opened(store, key)
    for number in range(20):
        store[number + 100] = [number]
    return store


CALLS: dict[str, Callable[[Store[Any, Any], Any], object]] = {
    "getitem": lambda store, key: store[key],
    "get": lambda store, key: store.get(key),
    "contains": lambda store, key: key in store,
    "setitem": lambda store, key: store.__setitem__(key, ["new"]),
    "delitem": lambda store, key: store.__delitem__(key),
    "put": lambda store, key: store.l1_put(key, ["new"], ttl_ns=5, size=3),
    "peek": lambda store, key: store.peek(key),
    "hit_dict": lambda store, key: store.l1_hit_dict([1, key, "x"] * 9, []),
    "drop": lambda store, key: store.drop(key),
    "erase": lambda store, key: store.l1_erase(key),
    "pop_next": lambda store, key: store.l1_pop_next(),
    "snapshot": lambda store, key: store.l1_snapshot(),
    "iterate": lambda store, key: list(store),
    "expire": lambda store, key: store.expire(NEVER - 5),
    "sweep": lambda store, key: store.l1_sweep(100),
    "remaining_ns": lambda store, key: store.remaining_ns(key),
    "wid": lambda store, key: store.l1_wid(key),
    "terms": lambda store, key: store.l1_terms(key),
    "counters": lambda store, key: store.l1_counters(),
    "join": lambda store, key: store.l1_join(key),
    "suspect": suspected,
    "apply": lambda store, key: store.lane_apply(0, 3, ["x", key, "y", 1]),
    "read": lambda store, key: store.l1_finish(opened(store, key), ["new"], 9, NEVER, identity=SERVER),
    "write": write,
    "refresh": lambda store, key: store.l1_confirm(opened(store, key), 1, NEVER, SERVER),
    "abandon": lambda store, key: store.l1_abandon(opened(store, key), drop=True),
    "drop_all": lambda store, key: store.drop_all(),
}

ACTS: dict[str, Act] = {
    "empty it": lambda store: (store.l1_reset_pending(), store.drop_all()),
    "empty and fill it": lambda store: (store.drop_all(), [store.l1_put(number, [number]) for number in range(300)]),
}

#: What makes no object that the collector counts, or only one in memory that it has counted before.
QUIET = {
    "getitem", "get", "contains", "counters", "peek", "drop", "erase", "sweep", "remaining_ns", "wid", "join",
    "drop_all",
}  # fmt: skip


@pytest.fixture(scope="module")
def collector() -> Iterator[None]:
    """The collector looks at what a test makes, runs when told to, and is left as it was."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(0)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("call", CALLS)
def test_collector_that_runs_within_a_call_and_changes_the_store_breaks_nothing(call: str, act: str) -> None:
    """At each of the first objects that the call makes, in turn."""
    acted: list[int] = []
    within = 0
    for key in ("a", Key("b")):
        for allowed in range(7):
            store = crowded()
            gc.collect()
            # Memory of tuples that have gone is used again without being counted.
            kept = [(*range(length),) for length in range(1, 5) for _ in range(30)]

            def change(store: Store[Any, Any] = store) -> None:
                gc.set_threshold(0)
                acted.append(1)
                ACTS[act](store)

            before = len(acted)
            Last(change)
            gc.set_threshold(gc.get_count()[0] + allowed, 1, 1)
            try:
                CALLS[call](store, key)
            except KeyError:
                assert call in {"getitem", "delitem", "remaining_ns", "pop_next"}
            gc.set_threshold(0)
            within += len(acted) > before
            store.check_invariants()
            gc.collect()
            kept.clear()
    assert within or call in QUIET or sys.version_info >= (3, 12)
