"""Single flight: one does the work, all get the outcome, nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nearcache.errors import LoadCycleError
from nearcache.flights import ABANDONED, Load, Loads, Read

TIMEOUT = 20.0


def load_once(loads: Loads, key: object, loader: Callable[[], object]) -> object:
    """The pattern that the class prescribes."""
    mine = Load(key)
    try:
        while (load := loads.begin(mine)) is not mine:
            value = loads.wait(load)
            if value is not ABANDONED:
                return value
        mine.value = loader()
        return mine.value
    except Exception as error:
        mine.error = error
        raise
    finally:
        loads.end(mine)


class Crowd:
    """Threads that all ask for one key, while the first one's loader waits until all have asked."""

    def __init__(self, loads: Loads, size: int) -> None:
        self.loads, self.size = loads, size
        self.calls = 0
        self.outcomes: list[object] = []
        self._lock = threading.Lock()
        self._waiting = threading.Event()

    def run(self, loader: Callable[[int], object]) -> None:
        """Start the threads, let ``loader`` run once all others wait, and collect the outcomes."""
        threads = [threading.Thread(target=self._ask, args=(loader,)) for _ in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def _ask(self, loader: Callable[[int], object]) -> None:
        def load() -> object:
            with self._lock:
                self.calls += 1
                call = self.calls
            if call == 1:
                while len(self.loads._waiting) < self.size - 1:
                    threading.Event().wait(0.001)
            return loader(call)

        try:
            outcome = load_once(self.loads, "k", load)
        except BaseException as error:
            outcome = error
        with self._lock:
            self.outcomes.append(outcome)


def test_load_asked_for_by_many_threads_runs_once() -> None:
    """However many ask, one loads."""
    crowd = Crowd(Loads(), 16)
    crowd.run(lambda call: f"value {call}")
    assert crowd.calls == 1
    assert crowd.outcomes == ["value 1"] * 16


def test_load_that_raises_reaches_every_waiter() -> None:
    """The loader's own exception, in every thread."""
    crowd = Crowd(Loads(), 8)
    error = ValueError("no such row")

    def loader(call: int) -> object:
        raise error

    crowd.run(loader)
    assert crowd.calls == 1
    assert crowd.outcomes == [error] * 8


def test_load_interrupted_frees_the_waiters() -> None:
    """An interrupt concerns one thread; others take over, and nobody waits for ever.

    How many load is left open here: without a cache behind it, a waiter that wakes late finds nothing and loads.
    """
    crowd = Crowd(Loads(), 8)

    def loader(call: int) -> object:
        if call == 1:
            raise KeyboardInterrupt
        return "value"

    crowd.run(loader)
    assert crowd.calls >= 2
    assert sorted(map(repr, crowd.outcomes)) == ["'value'"] * 7 + ["KeyboardInterrupt()"]


def test_load_that_asks_for_its_own_key_is_an_error() -> None:
    """It would wait for itself."""
    loads = Loads()
    with pytest.raises(LoadCycleError) as caught:
        load_once(loads, "k", lambda: load_once(loads, "k", lambda: 1))
    assert caught.value.chain == ("k", "k")
    assert len(loads) == 0


def test_load_that_asks_for_another_key_works() -> None:
    """Re-entrant loaders are normal."""
    loads = Loads()
    assert load_once(loads, "a", lambda: [load_once(loads, "b", lambda: 1)]) == [1]


def test_loads_of_two_threads_that_wait_for_each_other_are_an_error() -> None:
    """a needs b in one thread, b needs a in the other: the one that would close the circle is told."""
    loads, both = Loads(), threading.Barrier(2, timeout=TIMEOUT)
    errors: list[BaseException] = []

    def need(first: str, second: str) -> None:
        def loader() -> object:
            both.wait()
            return load_once(loads, second, lambda: 1)

        try:
            load_once(loads, first, loader)
        except LoadCycleError as error:
            errors.append(error)

    threads = [threading.Thread(target=need, args=pair) for pair in [("a", "b"), ("b", "a")]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert errors
    assert all(isinstance(error, LoadCycleError) and set(error.chain) == {"a", "b"} for error in errors)
    assert len(loads) == 0


def test_load_end_is_harmless_without_begin_and_twice() -> None:
    """An interrupt may strike between any two lines of the pattern."""
    loads = Loads()
    mine, other = Load("k"), Load("k")
    assert loads.begin(other) is other
    loads.end(mine)
    assert loads.begin(mine) is other
    loads.end(other)
    loads.end(other)
    assert len(loads) == 0


def test_read_resolves_to_its_first_outcome() -> None:
    """Joiners, early and late, see one and the same."""
    lock, read = threading.Lock(), Read("k", 0)
    seen: list[object] = []
    joiner = threading.Thread(target=lambda: seen.append(read.wait(lock, TIMEOUT)))
    joiner.start()
    read.resolve("first", lock)
    read.resolve("second", lock)
    joiner.join(TIMEOUT)
    assert seen == ["first"]
    assert read.wait(lock, 0.0) == "first"


def test_read_that_takes_too_long_is_abandoned_by_its_joiner() -> None:
    """The joiner then asks for itself."""
    assert Read("k", 0).wait(threading.Lock(), 0.0) is ABANDONED
