"""What a store tells of: its listener's five causes, the pairs that ``expire`` returns, what ``l1_hit_dict`` found."""

from __future__ import annotations

import gc
import os
import signal
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, Key, attached_store, fill, local_store, opened

Event = tuple[Any, Any, str]


@pytest.fixture
def heard() -> list[Event]:
    """What listeners were told, in order."""
    return []


def told(heard: list[Event]) -> Callable[[Any, Any, str], object]:
    return lambda key, value, cause: heard.append((key, value, cause))


# -- causes


def test_listener_hears_of_each_evicted_entry(heard: list[Event]) -> None:
    """By number and by bytes, the least recently used first; a hit puts one off."""
    store = local_store(3, maxbytes=10, listener=told(heard))
    for number in range(3):
        store[number] = -number
    assert store[0] == 0
    store[3] = -3
    assert heard == [(1, -1, "evicted")]
    store.l1_put(4, -4, size=10)
    assert heard[1:] == [(2, -2, "evicted")]
    store.l1_put(5, -5, size=1)
    assert heard[2:] == [(0, 0, "evicted"), (3, -3, "evicted"), (4, -4, "evicted")]


@pytest.mark.parametrize("way", ["read", "sweep", "expire", "tend", "put", "pop_next"])
def test_listener_hears_of_an_expired_entry_whoever_finds_it(way: str, heard: list[Event]) -> None:
    """Once, when it is reclaimed."""
    store = local_store(ttl_ns=10, listener=told(heard))
    store["k"] = 1
    store.l1_set_clock(1010)
    ways: dict[str, Callable[[], object]] = {
        "read": lambda: store.get("k"),
        "sweep": lambda: store.l1_sweep(10),
        "expire": store.expire,
        "tend": store.l1_tend,
        "put": lambda: store.l1_put("other", 1),
        "pop_next": lambda: store.l1_put("other", 1) or store.l1_pop_next(),
    }
    ways[way]()
    assert [event for event in heard if event[0] == "k"] == [("k", 1, "expired")]


@pytest.mark.parametrize(
    "way",
    ["put", "same", "write", "erase", "drop", "drop_all", "clear", "message", "flight", "abandon", "reclaim"],
)
def test_listener_hears_of_an_expired_entry_whatever_else_takes_it_away(way: str, heard: list[Event]) -> None:
    """Its time was over before it was written over or removed; and what comes then has replaced nothing."""
    store = attached_store()
    store.l1_tell(told(heard), stored=True)
    fill(store, "k", 1, wid=5, deadline=1010)
    store.l1_set_clock(1010)
    ways: dict[str, Callable[[], object]] = {
        "put": lambda: store.l1_put("k", 2),
        "same": lambda: store.l1_put("k", 1),
        "write": lambda: store.l1_finish(opened(store, "k", wid=9, write=True), 2, 9, NEVER, identity=SERVER),
        "erase": lambda: store.l1_erase("k"),
        "drop": lambda: store.drop("k"),
        "drop_all": store.drop_all,
        "clear": lambda: store.drop_all(invalidated=True),
        "message": lambda: store.lane_apply(0, 6, ["k"]),
        "flight": lambda: store.l1_finish(opened(store, "k"), 2, 6, NEVER, identity=SERVER),
        "abandon": lambda: store.l1_abandon(opened(store, "k"), drop=True),
        "reclaim": lambda: store.l1_reclaim("k"),
    }
    ways[way]()
    come = {"put": [("k", 2, "created")], "same": [("k", 1, "created")], "write": [("k", 2, "created")]}
    assert heard == [("k", 1, "expired"), *come.get(way, [])]
    store.check_invariants()


def test_reclaiming_leaves_alone_what_is_not_over(heard: list[Event]) -> None:
    """And counts no read; what it takes has expired, whoever listens."""
    store = local_store(ttl_ns=10, listener=told(heard))
    store["k"] = 1
    assert not store.l1_reclaim("k")
    store.l1_set_clock(1010)
    assert store.l1_reclaim("k")
    assert not store.l1_reclaim("k")
    assert heard == [("k", 1, "expired")]
    counted = store.l1_counters()
    assert (counted["expirations"], counted["misses"]) == (1, 0)


def test_listener_hears_of_a_replaced_value_under_its_key(heard: list[Event]) -> None:
    """With the old value; of a local put as of a write's result."""
    store = attached_store(listener=told(heard))
    store["k"] = 1
    store["k"] = 2
    assert heard == [("k", 1, "replaced")]
    assert store.l1_finish(opened(store, "k", wid=9, write=True), 3, 9, NEVER, identity=SERVER)
    assert heard[1:] == [("k", 2, "replaced")]
    assert store["k"] == 3
    store["k"] = store["k"]  # what is stored over itself has not gone
    assert len(heard) == 2


def test_listener_is_told_of_a_message_when_all_of_its_keys_are_dealt_with() -> None:
    """Nobody sees one half of it."""
    seen: list[list[Any]] = []
    store = attached_store(listener=lambda *event: seen.append(list(store)))
    for key in "abc":
        fill(store, key, 1, wid=5)
    store.lane_apply(0, 6, ["a", "b"])
    assert seen == [["c"], ["c"]]


@pytest.mark.parametrize("way", ["message", "erase", "del", "pop_next", "flight", "abandon", "drop_all"])
def test_listener_hears_of_an_invalidated_entry(way: str, heard: list[Event]) -> None:
    """Somebody changed or removed the value."""
    store = attached_store(listener=told(heard))
    fill(store, "k", 1, wid=5)
    ways: dict[str, Callable[[], object]] = {
        "message": lambda: store.lane_apply(0, 6, ["k"]),
        "erase": lambda: store.l1_erase("k"),
        "del": lambda: store.__delitem__("k"),
        "pop_next": store.l1_pop_next,
        "flight": lambda: store.l1_finish(opened(store, "k"), 2, 6, NEVER, identity=SERVER),
        "abandon": lambda: store.l1_abandon(opened(store, "k"), drop=True),
        "drop_all": lambda: store.drop_all(invalidated=True),
    }
    ways[way]()
    assert heard == [("k", 1, "invalidated")]
    assert len(store) == 0


def test_listener_hears_of_dropped_entries(heard: list[Event]) -> None:
    """By ``drop``, and by ``drop_all`` unless that is told otherwise."""
    store = local_store(listener=told(heard))
    for number in range(4):
        store[number] = -number
    assert store.drop(2)
    assert not store.drop(2)
    assert store.drop_all() == 3
    assert sorted(heard) == [(0, 0, "dropped"), (1, -1, "dropped"), (2, -2, "dropped"), (3, -3, "dropped")]


def test_drop_all_leaves_the_hits_before_it_counted() -> None:
    """They are noted in passing, and the notes end with the entries."""
    store = local_store()
    store["k"] = 1
    assert store["k"] == 1
    store.drop_all()
    assert store.l1_counters()["hits"] == 1


def test_drop_all_invalidated_keeps_flights_from_storing() -> None:
    """Whatever the cause is called."""
    store = attached_store()
    fill(store, "k", 1, wid=5)
    op = opened(store, "k")
    assert store.drop_all(invalidated=True) == 1
    assert not store.l1_finish(op, 1, 5, NEVER, identity=SERVER)


def test_listener_is_not_told_when_the_store_dies(heard: list[Event]) -> None:
    """Neither by its reference count nor by the collector."""
    store = local_store(listener=told(heard))
    store["k"] = 1
    del store
    store = local_store(listener=told(heard))
    store["self"] = store
    del store
    gc.collect()
    assert heard == []


# -- what listeners may do


def test_listener_that_raises_is_reported_and_the_change_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through ``sys.unraisablehook``; the others are told all the same."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))

    def refuse(key: Any, value: Any, cause: str) -> None:
        raise ZeroDivisionError(key)

    store = local_store(listener=refuse)
    for number in range(3):
        store[number] = number
    store[0] = "new"
    assert store.drop_all() == 3
    assert reported == [ZeroDivisionError] * 4
    assert len(store) == 0
    store.check_invariants()


@pytest.mark.parametrize("what", ["put the key back", "put others", "clear", "drop", "read", "expire", "shrink"])
def test_listener_may_use_the_store(what: str) -> None:
    """It is called when the change is complete and no lock is held."""
    calls: list[str] = []

    def listener(key: Any, value: Any, cause: str) -> None:
        store.check_invariants()
        calls.append(cause)
        if len(calls) > 100:
            return
        if what == "put the key back":
            store[key] = value
        elif what == "put others":
            for number in range(1000, 1040):
                store.l1_put(number, number, ttl_ns=len(calls))
        elif what == "clear":
            store.drop_all()
        elif what == "drop":
            store.drop(next(iter(store), None))
        elif what == "read":
            store.l1_hit_dict(range(50), [])
        else:
            store.expire() if what == "expire" else store.l1_tend()

    store = local_store(20, listener=listener)
    for number in range(60):
        store.l1_put(number, number, ttl_ns=number % 7)
        store.l1_set_clock(1000 + number)
        assert len(store) <= 20
    store[59] = "again"
    store.lane_apply(0, 1, list(range(40, 60)))
    store.drop_all()
    assert len(calls) > 20
    store.check_invariants()


def test_listener_that_holds_its_store_is_collected_with_it() -> None:
    """It is a reference like any other."""

    class Holder(Store[Any, Any]):
        alive = 0

        def __init__(self) -> None:
            super().__init__(10, listener=self.hear)
            Holder.alive += 1

        def hear(self, key: Any, value: Any, cause: str) -> None:
            """Tell nobody."""

        def __del__(self) -> None:
            Holder.alive -= 1

    holder = Holder()
    holder["k"] = holder
    del holder
    gc.collect()
    assert Holder.alive == 0


# -- expire, hit_dict, delete


def test_expire_returns_exactly_the_pairs_whose_time_is_over() -> None:
    """Over any span of deadlines, at any instant, each pair once."""
    store = local_store(None)
    deadlines = {number: 1001 + number**7 * 7919 % 10 ** (1 + number % 17) for number in range(1, 1500)}
    for number, deadline in deadlines.items():
        store.l1_put(number, -number, ttl_ns=deadline - 1000)
    store.l1_put("ever", 1)
    for instant in (1000, 10**4, 10**6, 10**9, 10**9 + 1, 10**12, 10**14, 10**15, 10**18):
        store.l1_set_clock(instant)
        due = {number for number, deadline in deadlines.items() if deadline <= instant}
        pairs = store.expire()
        assert sorted(pairs) == sorted((number, -number) for number in due)
        for number in due:
            del deadlines[number]
        assert len(store) == len(deadlines) + 1
        store.check_invariants()
    assert (deadlines, list(store)) == ({}, ["ever"])


def test_expire_at_another_instant_takes_what_will_be_over_by_then() -> None:
    """The clock stays where it is."""
    store = local_store()
    store.l1_put("soon", 1, ttl_ns=10**9)
    store.l1_put("late", 2, ttl_ns=10**15)
    assert store.expire(1000) == []
    assert store.expire(2 * 10**9) == [("soon", 1)]
    assert store["late"] == 2
    store.l1_put("new", 3, ttl_ns=5)
    assert store["new"] == 3


def test_expire_at_another_instant_takes_lifetimes_of_any_length() -> None:
    """From nanoseconds to decades, each at its end and no sooner."""
    store = local_store()
    for digits in range(19):
        store.l1_put(digits, digits, ttl_ns=10**digits)
    for digits in range(19):
        assert store.expire(999 + 10**digits) == []
        assert store.expire(1000 + 10**digits) == [(digits, digits)]
    store.check_invariants()


def test_hit_dict_returns_the_hits_and_appends_the_rest() -> None:
    """As often as they come; what has expired is a miss."""
    store = local_store()
    store.l1_put("a", 1)
    store.l1_put("none", None)
    store.l1_put("late", 2, ttl_ns=10)
    store.l1_set_clock(1010)
    missed: list[Any] = ["before"]
    assert store.l1_hit_dict(iter(["a", "x", "none", "late", "x", "a"]), missed) == {"a": 1, "none": None}
    assert missed == ["before", "x", "late", "x"]
    with pytest.raises(TypeError):
        store.l1_hit_dict(["a", []], missed)


def test_delete_says_whether_there_was_a_valid_entry() -> None:
    """An expired one goes as well."""
    store = local_store()
    store.l1_put("k", 1)
    store.l1_put("late", 1, ttl_ns=10)
    store.l1_set_clock(1010)
    assert [store.l1_erase("k"), store.l1_erase("k"), store.l1_erase("late")] == [True, False, False]
    assert len(store) == 0


# -- forking


@pytest.mark.parametrize("moment", ["eq", "hash", "listener"])
def test_fork_from_within_a_call_leaves_both_processes_a_whole_store(moment: str) -> None:
    """The child examines the store and goes at once; the parent goes on with its call."""
    codes: list[int] = []
    armed = False

    def fork(*event: Any) -> None:
        if not armed or codes:
            return
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                store.check_invariants()
                store.l1_hit_dict([1, 2], [])
                os._exit(0)
            finally:
                os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    class Hashed:
        def __hash__(self) -> int:
            fork()
            return 5

    store = local_store(10, listener=fork)
    key: Any = Hashed() if moment == "hash" else Key("a", on_eq=fork if moment == "eq" else None)
    other: Any = key if moment == "hash" else Key("a")
    store[key] = 1
    armed = True
    store[other] = 2
    assert codes == [0]
    assert store[other] == 2
    assert len(store) == 1
    store.check_invariants()


# -- another listener, and values that come


def test_another_listener_is_told_of_what_comes_and_goes_from_then_on(heard: list[Event]) -> None:
    """Puts and results of writes as created or updated, after what they took the place of; what is read is not told."""
    first: list[Event] = []
    store = attached_store(4, listener=told(first))
    store.l1_put("before", 1)
    store.l1_tell(told(heard), stored=True)
    store.l1_put("k", 1)
    store.l1_put("k", 2)
    write, read = Op("w", 0, wid=7, write=True), Op("r", 0)
    for op, wid in ((write, 7), (read, 8)):
        store.l1_open(op)
        assert store.l1_finish(op, op.key, wid, NEVER, 0, SERVER)
    store.l1_put("room", 3)
    assert heard == [
        ("k", 1, "created"),
        ("k", 1, "replaced"),
        ("k", 2, "updated"),
        ("w", "w", "created"),
        ("before", 1, "evicted"),
        ("room", 3, "created"),
    ]
    assert first == []
    store.check_invariants()


def test_another_listener_is_told_of_what_comes_only_if_it_asks(heard: list[Event]) -> None:
    """As the first one, otherwise; and it can be given once, for somebody may be about to call it."""
    store = local_store(4)
    store.l1_tell(told(heard))
    store.l1_put("k", 1)
    store.l1_put("k", 2)
    assert heard == [("k", 1, "replaced")]
    with pytest.raises(ValueError, match="another listener was given before"):
        store.l1_tell(told(heard))
    with pytest.raises(TypeError):
        local_store(4).l1_tell(None)  # type: ignore[arg-type]  # not None


def test_another_listener_in_a_cycle_is_collected() -> None:
    """The store shows it to the collector, and lets go of it."""
    store = local_store(4)
    key = Key("k")
    gone = weakref.ref(key)
    listener = _Cycle(store)
    store.l1_tell(listener, stored=True)
    store.l1_put(key, listener)
    del store, key, listener
    gc.collect()
    assert gone() is None


class _Cycle:
    """A listener that refers to its store."""

    def __init__(self, store: Store[Any, Any]) -> None:
        self.store = store

    def __call__(self, *_: Any) -> None: ...
