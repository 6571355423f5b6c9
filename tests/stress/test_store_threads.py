"""Many threads on one store: the GIL changes hands inside comparisons, releases and sizes."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Op, Store
from support.store_crowd import Slow
from support.store_kit import NEVER, SERVER, attached_store

OPERATIONS = 60_000
THREADS = 4


pytestmark = pytest.mark.usefixtures("eager_switching")


def run(worker: Callable[[int], None]) -> None:
    """Run ``worker(seed)`` in all threads; raise what the first one raised."""
    errors: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            worker(seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def make_plain(name: int) -> Any:
    return f"key {name}"


@pytest.mark.parametrize("make_key", [make_plain, Slow])
def test_readers_and_writers_with_eviction_leave_a_whole_store(make_key: Callable[[int], Any]) -> None:
    """A value always belongs to its key, bounds hold all the time, and the structure at the end."""
    store: Store[Any, Any] = attached_store(50)

    def worker(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(OPERATIONS // (1 if make_key is make_plain else 4)):
            name = rng.randrange(100)
            key, choice = make_key(name), rng.random()
            if choice < 0.6:
                value = store.get(key)
                assert value is None or value[0] == name
            elif choice < 0.9:
                store[key] = [name]
            elif choice < 0.95:
                store.drop(key)
            elif choice < 0.96:
                assert len(store.l1_snapshot()) <= 50
            else:
                assert (key in store) in {True, False}
            assert len(store) <= 50

    run(worker)
    store.check_invariants()
    held = list(store)
    assert len(held) == len(set(held)) == len(store)


@pytest.mark.parametrize("make_key", [make_plain, Slow])
def test_flights_writes_and_messages_never_serve_an_older_value(make_key: Callable[[int], Any]) -> None:
    """A model of L2 beside the store: what a thread reads from L1 is never older than what it saw before."""
    store: Store[Any, Any] = attached_store(30)
    server = ModelServer(store, make_key)

    def worker(seed: int) -> None:
        rng = random.Random(seed)
        seen: dict[int, int] = {}
        for _ in range(OPERATIONS // (2 if make_key is make_plain else 8)):
            name, choice = rng.randrange(20), rng.random()
            if choice < 0.5:
                version = server.read(name)
                assert version >= seen.get(name, 0), "time went back"
                seen[name] = version
            elif choice < 0.7:
                seen[name] = server.write(name)
            else:
                server.deliver()

    run(worker)
    server.deliver()
    store.check_invariants()
    for name, version in server.versions.items():
        assert store.get(make_key(name)) in {None, version}


class ModelServer:
    """L2 as one dictionary of versions, which are the wids too, and one ordered stream of messages."""

    def __init__(self, store: Store[Any, Any], make_key: Callable[[int], Any]) -> None:
        self.store, self.make_key = store, make_key
        self.versions: dict[int, int] = dict.fromkeys(range(20), 1)
        self._lock, self._delivering = threading.Lock(), threading.Lock()
        self._outbox: list[tuple[int, int]] = []

    def read(self, name: int) -> int:
        """Through L1."""
        key = self.make_key(name)
        version: int | None = self.store.get(key)
        if version is None:
            op = Op(key)
            self.store.l1_open(op)
            version = self.versions[name]
            self.store.l1_finish(op, version, version, NEVER, identity=SERVER)
        return version

    def write(self, name: int) -> int:
        """One step of the server is: change, number, publish."""
        with self._lock:
            wid = max(self.versions.values()) + 1
        op = Op(self.make_key(name), wid=wid, write=True)
        self.store.l1_open(op)
        with self._lock:
            committed = max(self.versions.values()) + 1
            self.versions[name] = committed
            self._outbox.append((committed, name))
        if committed == wid:
            self.store.l1_finish(op, wid, wid, NEVER, identity=SERVER)
        else:
            self.store.l1_abandon(op, drop=True)
        return committed

    def deliver(self) -> None:
        """Apply the messages that are there, in order."""
        with self._delivering:
            while self._outbox:
                wid, name = self._outbox[0]
                self.store.lane_apply(0, wid, [self.make_key(name)])
                self._outbox.pop(0)


def test_collector_in_the_middle_of_everything_finds_a_whole_store() -> None:
    """``gc.collect`` from one thread while others write and evict."""
    store: Store[Any, Any] = attached_store(100)

    def worker(seed: int) -> None:
        rng = random.Random(seed)
        for step in range(OPERATIONS // 20):
            name = rng.randrange(300)
            store[name] = [store, name]
            if seed == 0 and step % 50 == 0:
                gc.collect()

    run(worker)
    store.check_invariants()
    assert len(store) == 100


def test_lanes_flicker_while_readers_read() -> None:
    """Vouching, suspecting, attaching from one thread, as the listener does."""
    store: Store[Any, Any] = attached_store(100, lanes=2)

    def worker(seed: int) -> None:
        rng = random.Random(seed)
        for step in range(OPERATIONS // 2):
            lane, name = step % 2, rng.randrange(100)
            if seed == 0:
                store.lane_suspect(lane)
                store.lane_dark(lane)
                store.lane_attach(lane, SERVER if step % 4 else 0)
                store.lane_vouch(lane, NEVER)
                continue
            suspect = store.l1_suspect(name)
            op = Op(name, lane)
            store.l1_open(op)
            if suspect is not None:
                store.l1_confirm(op, suspect[0], NEVER, SERVER)
            else:
                store.l1_finish(op, name, name + 1, NEVER, identity=SERVER)
            assert store.get(name, name) == name

    run(worker)
    store.check_invariants()
    assert all(store.l1_join(name) is None for name in range(100))
