"""Single flight: one does the work, all get the outcome, nobody waits for ever."""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable
from contextvars import Context, copy_context

import pytest

from nearcache._reads import Event
from nearcache.errors import LoadCycleError
from nearcache.flights import ABANDONED, Load, Loads, Read, Signal, strand
from support.interrupts import finishes, interrupted

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
                while self.loads.waiting < self.size - 1:
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
    assert crowd.loads.waiting == 0


def test_load_that_raises_reaches_every_waiter() -> None:
    """The loader's own exception, in every thread."""
    crowd = Crowd(Loads(), 8)
    error = ValueError("no such row")

    def loader(call: int) -> object:
        raise error

    crowd.run(loader)
    assert crowd.calls == 1
    assert crowd.outcomes == [error] * 8


def test_error_of_a_load_has_the_frames_of_one_who_waited() -> None:
    """It is one object for all: each would else show the ways of those before, the ten-thousandth all of them."""
    loads, load = Loads(), Load("k")
    error = ValueError("no such row")

    def loader() -> object:
        raise error

    with pytest.raises(ValueError, match="no such row"):
        try:
            loads.begin(load)
            loader()
        except ValueError as raised:
            load.error = raised
            raise
        finally:
            loads.end(load)
    ways = []
    for _ in range(3):
        with pytest.raises(ValueError, match="no such row") as caught:
            load.outcome()
        assert caught.value is error
        ways.append([frame.name for frame in traceback.extract_tb(caught.tb)][1:])
    assert ways == [["outcome", ways[0][1], "loader"]] * 3


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
    assert read.wait(lock, 0.0) == read.outcome == "first"


def test_read_that_takes_too_long_is_abandoned_by_its_joiner() -> None:
    """The joiner then asks for itself."""
    read, seen = Read("k", 0), list[object]()
    joiner = threading.Thread(target=lambda: seen.append(read.wait(threading.Lock(), 0.0)))
    joiner.start()
    joiner.join(TIMEOUT)
    assert seen == [ABANDONED]


def test_read_tells_callbacks_once_early_and_late() -> None:
    """Who must not block leaves a callback; it is called in the thread that ends the read, or at once."""
    lock, read = threading.Lock(), Read("k", 0)
    seen: list[object] = []

    def removed() -> None:
        seen.append("removed")

    read.add_done_callback(lambda: seen.append(read.outcome), lock)
    read.add_done_callback(removed, lock)
    read.remove_done_callback(removed, lock)
    assert read.outcome is ABANDONED
    read.resolve("value", lock)
    read.resolve("other", lock)
    read.add_done_callback(lambda: seen.append("late"), lock)
    assert seen == ["value", "late"]


def test_read_is_not_waited_for_by_the_thread_that_began_it() -> None:
    """A sync call in the thread of an event loop would keep the task waiting that reads."""
    assert Read("k", 0).wait(threading.Lock(), TIMEOUT) is ABANDONED


def test_load_tells_callbacks_once_early_and_late() -> None:
    """As a read does; and one that has left is not told."""
    loads, load, seen = Loads(), Load("k"), list[str]()

    def left() -> None:
        seen.append("left")

    loads.begin(load)
    loads.join(load, lambda: seen.append("early"))
    loads.join(load, left)
    loads.leave(load, left)
    load.value = 1
    loads.end(load)
    loads.end(load)
    loads.join(load, lambda: seen.append("late"))
    assert seen == ["early", "late"]
    assert load.outcome() == 1
    assert loads.under_way("k") is None


def strand_of(name: str) -> Context:
    """Return the context of a load that a task carries out."""
    context = Context()
    context.run(strand.set, name)
    return context


def test_loads_of_tasks_of_one_thread_that_wait_for_each_other_are_an_error() -> None:
    """They are told from each other by their tokens, for the thread is the same."""
    loads = Loads()
    first, second = strand_of("first"), strand_of("second")
    a, b = first.run(Load, "a"), second.run(Load, "b")
    loads.begin(a)
    loads.begin(b)
    first.run(loads.join, b, bool)
    with pytest.raises(LoadCycleError) as caught:
        second.run(loads.join, a, bool)
    assert caught.value.chain == ("a", "b", "a")
    first.run(loads.leave, b, bool)
    second.run(loads.join, a, bool)


def test_load_that_waits_for_several_is_followed_along_each() -> None:
    """A loader may gather."""
    loads = Loads()
    contexts = {name: strand_of(name) for name in "abc"}
    flights = {name: context.run(Load, name) for name, context in contexts.items()}
    for flight in flights.values():
        loads.begin(flight)
    contexts["a"].run(loads.join, flights["b"], bool)
    contexts["a"].run(loads.join, flights["c"], bool)
    for name in "bc":
        with pytest.raises(LoadCycleError) as caught:
            contexts[name].run(loads.join, flights["a"], bool)
        assert caught.value.chain == ("a", name, "a")


def test_task_that_loads_nothing_keeps_nobody_waiting() -> None:
    """However many of them wait in the thread that carries the load."""
    loads, load = Loads(), strand_of("s").run(Load, "k")
    loads.begin(load)
    loads.join(load, bool)
    loads.join(load, bool)
    assert loads.waiting == 0


def test_task_that_loads_nothing_does_not_look_at_what_its_load_waits_for() -> None:
    """It can be in no circle; and where many join a load that gathers many, each would look at all of them."""
    asked: list[str] = []

    class Watched(Event):
        def is_set(self) -> bool:
            asked.append("whether it is over")
            return super().is_set()

    loads, gathering = Loads(), strand_of("s")
    load, part = gathering.run(Load, "k"), Load("part")
    part.done = Watched()
    loads.begin(load)
    gathering.run(loads.join, part, bool)
    asked.clear()
    loads.join(load, bool)
    assert not asked


def test_thread_that_would_block_the_loop_which_loads_is_told() -> None:
    """Nothing else of the thread gets on while it blocks, the load included."""
    loads, load = Loads(), strand_of("s").run(Load, "k")
    loads.begin(load)
    with pytest.raises(LoadCycleError, match=r"this thread runs the event loop.*await it from cache.aio"):
        loads.wait(load)


def test_thread_that_blocks_keeps_the_loads_of_its_loop_waiting() -> None:
    """A thread waits for b; a, whose task is of that thread's loop, cannot end: who loads b must not wait for a."""
    loads, blocked = Loads(), threading.Event()
    b = strand_of("b").run(Load, "b")
    loads.begin(b)

    def block() -> None:
        a = strand_of("a").run(Load, "a")
        loads.begin(a)
        blocked.set()
        loads.wait(b)
        loads.end(a)

    thread = threading.Thread(target=block)
    thread.start()
    assert blocked.wait(TIMEOUT)
    while not loads.waiting:
        threading.Event().wait(0.001)
    load_of_a = loads.under_way("a")
    assert load_of_a is not None
    with pytest.raises(LoadCycleError) as caught:
        strand_of("b").run(loads.join, load_of_a, bool)
    assert caught.value.chain == ("a", "b", "a")
    loads.end(b)
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_cycle_within_one_thread_shows_the_loads_in_between() -> None:
    """Each loader has asked for the next; what this thread does besides, and others do, is no part of it."""
    loads = Loads()
    flights = {key: Load(key) for key in "zabc"}
    for key, flight in flights.items():
        assert loads.begin(flight) is flight
        if key == "a":
            other = Load("other")
            other.owner = "somebody"
            loads.begin(other)
    with pytest.raises(LoadCycleError, match="'a' -> 'b' -> 'c' -> 'a'") as caught:
        loads.wait(loads.begin(Load("a")))
    assert caught.value.chain == ("a", "b", "c", "a")


def test_cycle_of_a_bulk_load_leaves_out_its_other_keys_only() -> None:
    """They were begun together, none by the other's loader; what their loader has begun since belongs to the cycle."""
    loads = Loads()
    together = object()
    for key, beside in (("a", together), ("b", together), ("c", None)):
        flight = Load(key)
        flight.beside = beside
        loads.begin(flight)
    with pytest.raises(LoadCycleError) as caught:
        loads.wait(loads.begin(Load("a")))
    assert caught.value.chain == ("a", "c", "a")


def test_wait_for_what_is_over_is_no_part_of_a_cycle() -> None:
    """Its waiter has not run yet since; meanwhile who carried that load out may wait for the waiter's own."""
    loads = Loads()
    first, second = Load("a"), Load("b")
    first.owner, second.owner = "one", "two"
    for load in (first, second):
        load.carrier = -1
        assert loads.begin(load) is load
    context = copy_context()
    context.run(strand.set, "one")
    context.run(loads.join, second, lambda: None)
    loads.end(second)
    other = copy_context()
    other.run(strand.set, "two")
    other.run(loads.join, first, lambda: None)
    context.run(loads.leave, second, lambda: None)
    with pytest.raises(LoadCycleError):
        context.run(loads.join, first, lambda: None)


# -- interrupts


def test_end_of_a_load_interrupted_anywhere_and_repeated_frees_threads_and_tasks() -> None:
    """As the pattern prescribes it: the end in ``finally`` is interrupted, and an outer ``finally`` ends it again."""
    for step in itertools.count(1):
        told: list[int] = []
        loads, mine = Loads(), Load("k")
        mine.value = 1
        assert loads.begin(mine) is mine
        loads.join(mine, lambda told=told: told.append(1))
        was_interrupted = interrupted(step, lambda loads=loads, mine=mine: loads.end(mine))
        assert finishes(lambda loads=loads, mine=mine: (loads.end(mine), loads.wait(mine))), step
        assert told, step
        assert len(loads) == 0
        if not was_interrupted:
            return


def test_signal_whose_waiter_is_interrupted_anywhere_can_still_be_given() -> None:
    """Else the listener, which gives it, would be stuck for ever."""
    for step in itertools.count(1):
        signal = Signal()
        was_interrupted = interrupted(step, lambda signal=signal: signal.wait(0))
        assert finishes(signal.set), step
        assert signal.wait(TIMEOUT), step
        if not was_interrupted:
            return


def test_signal_interrupted_anywhere_while_it_is_given_and_given_again_is_heard() -> None:
    """By threads and by callbacks."""
    for step in itertools.count(1):
        told: list[int] = []
        signal = Signal()
        signal.add_done_callback(lambda told=told: told.append(1))
        was_interrupted = interrupted(step, signal.set)
        assert finishes(signal.set), step
        assert finishes(lambda signal=signal: signal.wait(TIMEOUT)), step
        assert told, step
        if not was_interrupted:
            return
