"""What a crowd of threads does to one store, call by call; used by ``stress/test_store_freethreaded.py``."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nearcache._store import Op, Store
from support.store_kit import NEVER, SERVER, attached_store

NAMES = 64


class Token:
    """A value that can be told from every other, and that says to which key it belongs."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: int) -> None:
        self.name = name


class Slow:
    """A key that is compared in Python, so that other threads come between the steps of a lookup."""

    __slots__ = ("name",)

    def __init__(self, name: int) -> None:
        self.name = name

    def __hash__(self) -> int:
        return self.name % 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slow) and other.name == self.name


class Flight(Op):
    """An operation that ``living`` can count."""


def text(name: int) -> str:
    """A key that is compared in C."""
    return f"key {name}"


@dataclass
class Supply:
    """Where a thread takes keys and values from: the same objects for all threads, or new ones each time."""

    make_key: Callable[[int], Any]
    key: Callable[[int], Any]
    value: Callable[[int], Token]

    def check(self, key: Any, value: Token) -> None:
        assert self.make_key(value.name) == key, f"{key!r} has the value of {value.name}"


def use_one(store: Store[Any, Any], supply: Supply, name: int, choice: int) -> None:
    """One call that concerns one key, and what may be said of its result whatever other threads do."""
    key = supply.key(name)
    if choice < 5:
        value = store.get(key)
        assert value is None or value.name == name
    elif choice == 5:
        with suppress(KeyError):
            assert store[key].name == name
    elif choice == 6:
        assert (key in store) in {True, False}
        assert getattr(store.peek(key), "name", name) == name
    elif choice == 7:
        keys = [supply.key(each % NAMES) for each in range(name, name + 5)]
        for found, value in store.l1_hit_dict(keys, []).items():
            supply.check(found, value)
    elif choice < 12:
        store[key] = supply.value(name)
    elif choice == 12:
        store.l1_put(key, supply.value(name), ttl_ns=0, size=3)
    elif choice == 13:
        store.drop(key)
    elif choice == 14:
        with suppress(KeyError):
            del store[key]
    else:
        with suppress(KeyError):
            supply.check(*store.l1_pop_next())


def use_all(store: Store[Any, Any], supply: Supply, bound: int, choice: int) -> None:
    """One call that concerns the whole store."""
    if choice == 0:
        assert store.drop_all() >= 0
    elif choice == 1:
        pairs = store.l1_snapshot()
        assert len(pairs) == len({key for key, _ in pairs}) <= bound
        for key, value in pairs:
            supply.check(key, value)
    elif choice == 2:
        held = list(store)
        assert len(held) == len(set(held)) <= bound
    elif choice == 3:
        assert store.l1_sweep(10) == 0
    elif choice == 4:
        assert store.l1_counters()["entries"] <= bound
        assert sys.getsizeof(store) > 0
    else:
        assert len(store) <= bound
        assert store.currsize <= bound


class Meddling(threading.local):
    """What a thread may still do from within ``__eq__``, ``__hash__`` and ``__del__``: not too deep, not each time."""

    # Of the class, since a value may die in a thread whose own attributes have gone already.
    depth = 0
    calls = 0

    def act(self, store: Store[Any, Any], often: int) -> None:
        """Call the store, one time in ``often``; the calls may bring others about, three deep."""
        self.calls += 1
        if self.calls % often or self.depth >= 3:
            return
        self.depth += 1
        try:
            turn = self.calls // often
            (store.get, store.drop, store.peek, store.l1_suspect, store.l1_join, store.__contains__)[turn % 6](
                turn % 50
            )
            if turn % 3 == 0:
                store[turn % 50] = Token(turn % 50)
            if turn % 50 == 0:
                store.drop_all()
            if turn % 20 == 1:
                store.l1_snapshot()
        finally:
            self.depth -= 1


class Host:
    """A store whose keys and values call it, from every thread that touches them."""

    def __init__(self, maxsize: int) -> None:
        self.store = attached_store(maxsize, cores=None)
        self.meddling = Meddling()


class NosyKey:
    """Calls the store whenever it is hashed or compared."""

    __slots__ = ("host", "name")

    def __init__(self, host: Host, name: int) -> None:
        self.host = host
        self.name = name

    def __hash__(self) -> int:
        self.host.meddling.act(self.host.store, 11)
        return self.name % 5

    def __eq__(self, other: object) -> bool:
        self.host.meddling.act(self.host.store, 7)
        return isinstance(other, NosyKey) and other.name == self.name


class NosyValue(Token):
    """Calls the store when it dies, whichever thread that happens in."""

    __slots__ = ("host",)

    def __init__(self, host: Host, name: int) -> None:
        super().__init__(name)
        self.host = host

    def __del__(self) -> None:
        self.host.meddling.act(self.host.store, 2)


def nosy_step(host: Host, name: int, choice: int) -> None:
    """One call with a key that calls the store itself."""
    store, key = host.store, NosyKey(host, name)
    if choice < 4:
        assert getattr(store.get(key), "name", name) == name
    elif choice < 7:
        store[key] = NosyValue(host, name)
    elif choice == 7:
        store.drop(key)
    elif choice == 8:
        store.lane_apply(0, name + 1, [key, name])
    elif choice == 9:
        op = Flight(key)
        store.l1_open(op)
        store.l1_finish(op, NosyValue(host, name), name + 1, NEVER, identity=SERVER)
    elif choice == 10:
        op = Flight(key, wid=name + 2, write=True)
        store.l1_open(op)
        store.l1_abandon(op, drop=True)
    elif name == 0:
        store.drop_all()
    else:
        assert len(store) <= 20


def disturb(store: Store[Any, Any], rng: random.Random, name: int, lane: int) -> None:
    """What the listener does, and what a lane goes through."""
    choice = rng.randrange(10)
    if choice < 3:
        store.lane_apply(lane, rng.randrange(1, 50), [text(name), text(name + 1)])
    elif choice < 5:  # a clear, or a lost message
        store.lane_suspect(lane)
    elif choice == 5:
        store.lane_dark(lane)
    elif choice == 6:
        store.lane_attach(lane, SERVER if rng.random() < 0.7 else 0)
    elif choice == 7:
        assert store.lane_stamp(lane) >= 0
        assert store.lane_fresh_until(lane) in {0, NEVER}
    else:
        store.lane_vouch(lane, NEVER)
        store.lane_attach(lane, SERVER)


def operate(store: Store[Any, Any], rng: random.Random, values: list[Token], name: int, lane: int) -> None:
    """One operation from its start to its end, in one of the ways it may end."""
    key, choice = text(name), rng.randrange(10)
    suspect = store.l1_suspect(key)
    assert suspect is None or suspect[1].name == name
    wid = rng.randrange(1, 50)
    op = Flight(key, lane, wid=wid, write=choice < 3, announced=choice < 2)
    store.l1_open(op)
    joined = store.l1_join(key)
    assert joined is None or (joined.key == key and not joined.is_write)
    if choice in {0, 3, 4, 5}:
        store.l1_finish(op, values[name], wid, NEVER, identity=SERVER)
    elif choice == 6 and suspect is not None:
        store.l1_confirm(op, suspect[0], NEVER, SERVER)
    elif choice == 7:
        assert not store.l1_finish(op, None, 0, NEVER, identity=SERVER)
    elif choice == 8:
        store.drop_all()
    assert op.storable in {True, False}
    store.l1_abandon(op, drop=rng.random() < 0.2)
    assert getattr(store.get(key), "name", name) == name
