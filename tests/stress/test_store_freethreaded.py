"""Threads that run at the same instant on one store: written to break one that relies on the GIL.

The tests run on every build. With a GIL they find little that ``test_store_threads.py`` does not; without one the
threads meet inside the store's C code. Each test ends with a store that is whole, and with every reference it was
given given back. Operations are counted, never timed.
"""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from nearcache._store import Store
from support.store_crowd import (
    NAMES,
    Flight,
    Host,
    NosyKey,
    NosyValue,
    Slow,
    Supply,
    Token,
    disturb,
    nosy_step,
    operate,
    text,
    use_all,
    use_one,
)
from support.store_kit import NEVER, SERVER, attached_store, local_store
from support.threads import PATIENCE, balanced, living, together

THREADS = 4
OPERATIONS = 20_000
BATCH = 50


pytestmark = pytest.mark.usefixtures("eager_switching")


# -- the mapping -------------------------------------------------------------------------------------------------


def use(store: Store[Any, Any], supply: Supply, bound: int, operations: int) -> None:
    """All threads do everything."""

    def worker(number: int) -> None:
        rng = random.Random(number)
        for _ in range(operations):
            if rng.random() < 0.05:
                use_all(store, supply, bound, rng.randrange(8))
            else:
                use_one(store, supply, rng.randrange(NAMES), rng.randrange(16))

    together(worker, THREADS)


@pytest.mark.parametrize("maxsize", [3, 40, None])
@pytest.mark.parametrize("make_key", [text, Slow])
def test_store_shared_objects_in_all_threads_get_their_counts_back(
    make_key: Callable[[int], Any], maxsize: int | None
) -> None:
    """Threads that read and write the same objects take and give back the same number of references."""
    keys = [make_key(name) for name in range(NAMES)]
    values = [Token(name) for name in range(NAMES)]
    store = local_store(maxsize, cores=None)
    with balanced(keys + values):
        use(store, Supply(make_key, keys.__getitem__, values.__getitem__), maxsize or NAMES, OPERATIONS // 2)
        store.check_invariants()
        assert store.l1_counters()["entries"] == len(store) == len(list(store))
        store.drop_all()
        store.check_invariants()


@pytest.mark.parametrize("maxsize", [3, 40])
@pytest.mark.parametrize("make_key", [text, Slow])
def test_store_objects_of_each_threads_own_die_with_the_store(make_key: Callable[[int], Any], maxsize: int) -> None:
    """Objects made by one thread are evicted, overwritten and dropped by others; none is forgotten or freed twice."""
    store = local_store(maxsize, cores=None)
    use(store, Supply(make_key, make_key, Token), maxsize, OPERATIONS // 2)
    store.check_invariants()
    assert living(Token) == len(store) <= maxsize
    del store
    assert living(Token) == 0


def test_store_one_writer_for_each_key_readers_never_see_time_go_back() -> None:
    """A key's values come in the order in which they were put, in every thread, the writer's own included."""
    store = local_store(40)

    def worker(number: int) -> None:
        rng = random.Random(number)
        seen = dict.fromkeys(range(NAMES), 0)
        for step in range(1, OPERATIONS * 2):
            name = rng.randrange(NAMES)
            if name % THREADS == number:
                store[text(name)] = step
                seen[name] = step
            value = store.get(text(name), seen[name])
            assert value >= seen[name], f"{name}: {value} after {seen[name]}"
            seen[name] = value

    together(worker, THREADS)
    store.check_invariants()


@pytest.mark.parametrize("threads", [2, 12])
@pytest.mark.parametrize("policy", ["lru", "adaptive"])
def test_store_hits_of_threads_beside_writers_are_counted_each_once(policy: str, threads: int) -> None:
    """Whoever notes a hit, and whoever carries out the notes, no hit is lost, and overwriting is none.

    With more threads than a part has notes for, some share them.
    """
    store = local_store(2 * NAMES, policy=policy)
    keys = [text(name) for name in range(NAMES)]
    for key in keys:
        store[key] = 0

    def worker(number: int) -> None:
        rng = random.Random(number)
        for step in range(OPERATIONS):
            if step % 10 == 9:
                store[rng.choice(keys)] = step
            elif step % 100 == 42:
                assert store.get(-1 - step) is None
            else:
                assert store.get(rng.choice(keys)) is not None

    together(worker, threads)
    store.check_invariants()
    counters = store.l1_counters()
    wanted = threads * OPERATIONS
    assert counters["stored"] == wanted // 10 + NAMES
    assert counters["misses"] == wanted // 100
    assert counters["hits"] == wanted - wanted // 10 - wanted // 100


@pytest.mark.parametrize("way", ["drop", "del", "pop_next"])
def test_store_many_threads_remove_the_same_entries_each_goes_once(way: str) -> None:
    """Of all who remove an entry one is told that it did."""
    store = local_store(None, cores=None)
    total = OPERATIONS // 2
    tokens = [Token(name) for name in range(total)]
    removed: list[list[int]] = [[] for _ in range(THREADS)]
    meet = threading.Barrier(THREADS, timeout=PATIENCE)

    def remove(number: int, name: int) -> None:
        if way == "pop_next":
            with suppress(KeyError):
                removed[number].append(store.l1_pop_next()[1].name)
        elif way == "drop":
            removed[number] += [name] * store.drop(name)
        else:
            with suppress(KeyError):
                del store[name]
                removed[number].append(name)

    def worker(number: int) -> None:
        for first in range(0, total, BATCH):
            if first // BATCH % THREADS == number:
                for token in tokens[first : first + BATCH]:
                    store[token.name] = token
            meet.wait()
            for name in range(first, first + BATCH):
                remove(number, name)
            meet.wait()

    with balanced(tokens):
        together(worker, THREADS)
        store.check_invariants()
        assert len(store) == 0
        assert sorted(name for each in removed for name in each) == list(range(total))


def test_store_bound_by_bytes_is_never_exceeded_in_any_thread() -> None:
    """``getsizeof`` and ``keyfunc`` run in all threads; the bound holds whenever somebody looks."""
    store: Store[Any, Any] = local_store(
        None, maxbytes=300, getsizeof=lambda value: value.name, keyfunc=lambda name: (name, name % 3)
    )

    def worker(number: int) -> None:
        rng = random.Random(number)
        for _ in range(OPERATIONS):
            name = rng.randrange(1, NAMES)
            if rng.random() < 0.5:
                store[name] = Token(name)
            else:
                assert getattr(store.get(name), "name", name) == name
            assert store.l1_counters()["bytes"] <= 300

    together(worker, THREADS)
    store.check_invariants()
    assert store.l1_counters()["bytes"] == sum(value.name for _, value in store.l1_snapshot())


def test_store_clock_that_moves_expired_values_are_not_served() -> None:
    """One thread lets time go by; what the others read was put less than a lifetime ago."""
    store = local_store(40, ttl_ns=100)
    ahead, behind = [1000], [1000]  # the store's clock is between the two

    def worker(number: int) -> None:
        rng = random.Random(number)
        for _ in range(OPERATIONS):
            name = rng.randrange(NAMES)
            if number == 0:
                ahead[0] += rng.randrange(20)
                store.l1_set_clock(ahead[0])
                behind[0] = ahead[0]
                store.l1_sweep(5)
            elif rng.random() < 0.5:
                latest: list[int] = []
                store[name] = latest
                latest.append(ahead[0])
            else:
                earliest, found = behind[0], store.get(name)
                assert not found or earliest < found[0] + 100

    together(worker, THREADS)
    store.check_invariants()
    store.l1_set_clock(ahead[0] + 1000)
    assert store.l1_snapshot() == []


# -- code of keys and values that calls the store -----------------------------------------------------------------


def test_store_keys_and_values_that_call_it_in_all_threads_do_no_harm() -> None:
    """No lock is held while ``__eq__``, ``__hash__`` or ``__del__`` runs: nobody waits for himself or in a circle."""
    host = Host(20)

    def worker(host: Host, number: int) -> None:
        rng = random.Random(number)
        for _ in range(OPERATIONS // 8):
            nosy_step(host, rng.randrange(30), rng.randrange(12))

    together(partial(worker, host), THREADS)
    host.store.check_invariants()
    assert len(host.store) <= 20
    host.store.drop_all()
    host.store.drop_all()  # the dying values have put some more
    host.store.check_invariants()
    del host
    assert [living(kind) for kind in (Host, NosyKey, NosyValue, Token, Flight)] == [0, 0, 0, 0, 0]


def test_store_values_that_put_themselves_back_never_exceed_the_bound() -> None:
    """What ``__del__`` puts is an ordinary put, in whatever thread the value dies."""
    host = Host(4)

    def worker(host: Host, number: int) -> None:
        for step in range(OPERATIONS // 4):
            host.store[(number, step % 10)] = NosyValue(host, step)
            assert len(host.store) <= 4

    together(partial(worker, host), THREADS)
    host.store.check_invariants()
    del host
    assert living(NosyValue) == living(Token) == 0


# -- operations and lanes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3])
def test_store_operations_under_messages_and_lane_changes_all_end(lanes: int) -> None:
    """Nothing is left in flight; every operation dies, and every value comes back."""
    store = attached_store(40, lanes=lanes)
    values = [Token(name) for name in range(NAMES)]

    def worker(number: int) -> None:
        rng = random.Random(number)
        for _ in range(OPERATIONS // 2):
            name = rng.randrange(NAMES)
            lane = name % lanes
            if number == 0:
                disturb(store, rng, name, lane)
            else:
                operate(store, rng, values, name, lane)

    with balanced(values):
        together(worker, THREADS)
        store.check_invariants()
        assert all(store.l1_join(text(name)) is None for name in range(NAMES))
        assert living(Flight) == 0
        store.drop_all()
        store.check_invariants()


def test_store_one_operation_in_two_threads_is_opened_and_finished_once() -> None:
    """Of two that open it one is refused; of two that complete it one may have its value stored."""
    store = attached_store(None, cores=None)
    rounds = OPERATIONS // 6
    values = [Token(name) for name in range(rounds)]
    ops = [Flight(name, wid=name + 1, write=bool(name % 2)) for name in range(rounds)]
    opened, stored, meet = (
        [[0] * rounds for _ in range(2)],
        [[0] * rounds for _ in range(2)],
        threading.Barrier(2, timeout=PATIENCE),
    )

    def worker(number: int) -> None:
        for name, op in enumerate(ops):
            meet.wait()
            with suppress(ValueError):
                store.l1_open(op)
                opened[number][name] = 1
            meet.wait()
            if number and name % 3 == 0:
                store.l1_abandon(op, drop=False)
            else:
                stored[number][name] = store.l1_finish(op, values[name], name + 1, NEVER, identity=SERVER)

    with balanced(values + ops):
        together(worker, 2)
        store.check_invariants()
        assert [one + other for one, other in zip(*opened, strict=True)] == [1] * rounds
        completed = [one + other for one, other in zip(*stored, strict=True)]
        assert all(completed[name] <= 1 if name % 3 == 0 else completed[name] == 1 for name in range(rounds))
        assert all(store.l1_join(name) is None for name in range(rounds))
        store.drop_all()


def test_store_operations_forgotten_in_the_middle_store_nothing_and_die() -> None:
    """``l1_reset_pending`` from one thread, while others open and finish."""
    store = attached_store(40)

    def worker(number: int) -> None:
        rng = random.Random(number)
        for step in range(OPERATIONS):
            name = rng.randrange(NAMES)
            if number == 0:
                store.l1_reset_pending()
                continue
            op = Flight(name, wid=step + 1)
            store.l1_open(op)
            store.l1_finish(op, Token(name), step + 1, NEVER, identity=SERVER)
            assert getattr(store.get(name), "name", name) == name

    together(worker, THREADS)
    store.l1_reset_pending()
    store.check_invariants()
    assert living(Flight) == 0
    assert living(Token) == len(store)


# -- the collector ------------------------------------------------------------------------------------------------


class Knot(Store[Any, Any]):
    """A store that ``living`` can count."""


def test_store_collector_in_one_thread_frees_the_knots_of_the_others() -> None:
    """Stores that hold themselves, and each other, and operations, are made and dropped while one thread collects."""
    shared = attached_store(30)

    def worker(shared: Store[Any, Any], number: int) -> None:
        rng = random.Random(number)
        for step in range(OPERATIONS // 6):
            if number == 0 and step % 50 == 0:
                gc.collect()
                shared.check_invariants()
                continue
            knot = Knot(5)
            knot.lane_vouch(0, NEVER)
            knot["self"], knot["shared"], knot["token"] = knot, shared, Token(step)
            op = Flight(("key of", number, step))
            knot.l1_open(op)
            shared[rng.randrange(50)] = knot
            shared[rng.randrange(50)] = shared
            found = shared.get(rng.randrange(50))
            assert found is None or isinstance(found, Store)

    together(partial(worker, shared), THREADS)
    shared.check_invariants()
    del shared
    assert [living(kind) for kind in (Knot, Token, Flight)] == [0, 0, 0]


def test_store_import_leaves_the_gil_off_where_there_is_none() -> None:
    """The compiled modules say that they are fit for free threading: importing them switches no GIL on."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    code = "import sys, nearcache; nearcache.open('memory://'); print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    command = [sys.executable, "-W", "error", "-c", code]
    shown = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert shown.strip() == str(not sysconfig.get_config_var("Py_GIL_DISABLED"))
