"""``lru_cache`` and ``ttl_cache``: what goes beyond functools' own tests (``tests/contract/test_lru.py``)."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import random
import subprocess
import sys
import threading
import traceback
import weakref
from typing import Any

import pytest

import nearcache
from support.threads import PATIENCE, together


class Asks:
    """A function that says when it is called, and waits to be let go."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, x: Any) -> Any:
        self.calls.append(x)
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        return x


def background(work: Any, *args: Any) -> tuple[threading.Thread, list[Any]]:
    """Start a thread; what it returns or raises comes into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work(*args))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def misses_reach(memo: Any, number: int) -> None:
    """Wait until so many calls have missed."""
    while memo.cache_info().misses < number:
        threading.Event().wait(0.001)


# -- the same as functools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxsize", [0, 1, 2, 7, 64, None])
@pytest.mark.parametrize("typed", [False, True])
def test_memo_random_calls_counts_as_functools_does(maxsize: int | None, typed: bool) -> None:
    """After any calls, results, counts and what is kept are those of functools, for every kind of argument."""
    rng = random.Random(5)
    ours_calls, theirs_calls = [], []

    def record(into: list[Any]) -> Any:
        def function(*args: Any, **keywords: Any) -> Any:
            into.append((args, keywords))
            return len(into)

        return function

    ours = nearcache.lru_cache(maxsize, typed)(record(ours_calls))
    theirs = functools.lru_cache(maxsize, typed)(record(theirs_calls))
    pool = [*range(20), *(str(n) for n in range(20)), 1.0, True, None, (1, 2), b"a", 2**70, "ä", "long" * 10]
    for _ in range(5000):
        args = [rng.choice(pool) for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 3]))]
        keywords = {name: rng.choice(pool) for name in rng.sample(["a", "b"], rng.choice([0, 0, 0, 1, 2]))}
        assert ours(*args, **keywords) == theirs(*args, **keywords)
        assert tuple(ours.cache_info()) == tuple(theirs.cache_info())
    assert ours_calls == theirs_calls
    ours.check_invariants()


def test_memo_surface_is_that_of_functools() -> None:
    """Every public attribute of functools' wrapper is there, and the named tuple is the same."""

    def function(x: int) -> int:
        """Doc."""
        return x

    ours, theirs = nearcache.lru_cache(function), functools.lru_cache(function)
    wanted = {name for name in dir(theirs) if not name.startswith("__")} | {"__wrapped__", "__name__", "__doc__"}
    assert wanted <= set(dir(ours))
    assert type(ours.cache_info()) is type(theirs.cache_info())
    assert ours.cache_parameters() == theirs.cache_parameters() == {"maxsize": 128, "typed": False}
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__doc__ == "Doc."
    assert ours.__wrapped__ is function
    assert callable(ours)


def test_memo_called_in_every_way_is_one_callable() -> None:
    """The call, ``__call__``, apply with a tuple and keywords, map and partial go to the same results."""
    calls: list[Any] = []

    @nearcache.lru_cache
    def f(x: str, **keywords: int) -> str:
        calls.append(x)
        return x

    assert f("a") == f.__call__("a") == f(*("a",)) == next(map(f, ["a"])) == functools.partial(f, "a")()
    assert calls == ["a"]
    assert f("a", k=1) == f.__call__("a", k=1) == "a"
    assert calls == ["a", "a"]
    with pytest.raises(TypeError, match="positional"):
        f("a", "b")


def test_memo_method_gets_its_instance_and_keeps_apart() -> None:
    """As a method it is bound like a function, and reached through the class too."""

    class Thing:
        @nearcache.lru_cache
        def method(self, x: int) -> tuple[int, int]:
            return id(self), x

        @classmethod
        @nearcache.lru_cache
        def of_class(cls, x: int) -> tuple[type, int]:
            return cls, x

    one, two = Thing(), Thing()
    assert one.method(1) == (id(one), 1) == Thing.method(one, 1)
    assert two.method(1) == (id(two), 1)
    assert one.of_class(1) == (Thing, 1)
    assert Thing.method.cache_info()[:2] == (1, 2)
    assert one.method.cache_info() == Thing.method.cache_info()


def test_memo_int_keys_equal_but_not_identical_hit() -> None:
    """An int or str that is equal to the key is the key, whatever object it is."""
    f = nearcache.lru_cache(lambda x: [x])
    big = f(10**30)
    assert f(int("1" + "0" * 30)) is big
    text = f("".join(["a", "b"]))
    assert f("".join(["a", "b"])) is text
    assert f.cache_info().misses == 2
    assert f(True) is not f(1)  # as with functools: only an exact int is its own key


def test_memo_copied_or_pickled_is_itself() -> None:
    """Copies are the function itself, and it is pickled by name."""
    assert copy.copy(at_top) is at_top
    assert copy.deepcopy(at_top) is at_top
    assert pickle.loads(pickle.dumps(at_top)) is at_top


@nearcache.lru_cache
def at_top(x: int) -> int:
    """Can be found by name."""
    return x


# -- memory ----------------------------------------------------------------------------------------------------------


def test_memo_in_a_cycle_is_collected() -> None:
    """Results, keys, the function, attributes and the timer: a memo that is reached from any of them is freed."""

    class Mark:
        pass

    def make() -> list[weakref.ref[Any]]:
        marks = [Mark() for _ in range(5)]
        memo: Any = nearcache.ttl_cache(maxsize=10, timer=lambda: len(marks))(lambda *args: (memo, args))
        memo(marks[0], marks[1])
        memo.attribute = (memo, marks[2])
        marks[3].memo = memo
        memo(marks[3])
        return [weakref.ref(memo), *map(weakref.ref, marks)]

    refs = make()
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def test_memo_gone_lets_go_of_everything() -> None:
    """Without a cycle the end comes at once."""

    class Mark:
        pass

    mark = Mark()
    memo: Any = nearcache.lru_cache(lambda x: x)
    memo(mark)
    ref = weakref.ref(mark)
    del mark
    assert ref() is not None
    memo.cache_clear()
    assert ref() is None


def test_memo_deep_chain_of_memos_dies_quietly() -> None:
    """A memo that holds a memo that holds a memo does not exhaust the C stack."""
    memo: Any = nearcache.lru_cache(lambda: None)
    for _ in range(10_000):
        outer: Any = nearcache.lru_cache(lambda x: x)
        outer(memo)
        memo = outer
    del memo, outer


# -- threads ---------------------------------------------------------------------------------------------------------


def test_memo_many_threads_miss_one_key_the_function_runs_once() -> None:
    """All of them get the one result."""
    asks = Asks()
    memo = nearcache.lru_cache(asks)
    threads = [background(memo, "key") for _ in range(8)]
    misses_reach(memo, 8)
    asks.gate.set()
    for thread, _ in threads:
        thread.join(PATIENCE)
    assert [outcome for _, outcome in threads] == [["key"]] * 8
    assert asks.calls == ["key"]
    assert memo.cache_info() == (0, 8, 128, 1)


def test_memo_function_raises_every_waiter_gets_it_and_nothing_is_kept() -> None:
    """An exception is that of the function, unchanged, for all who waited; the next call tries again."""
    gate, calls = threading.Event(), []
    failure = ValueError("no")

    @nearcache.lru_cache
    def memo(x: int) -> int:
        calls.append(x)
        assert gate.wait(PATIENCE)
        raise failure

    threads = [background(memo, 1) for _ in range(4)]
    misses_reach(memo, 4)
    gate.set()
    for thread, _ in threads:
        thread.join(PATIENCE)
    assert all(outcome[0] is failure for _, outcome in threads)
    ways = [frame.name for frame in traceback.extract_tb(failure.__traceback__)]
    assert 1 <= ways.count("run") < 4, "each adds to those of the others"
    assert "memo" in ways, "whoever waited does not say where it was raised"
    assert calls == [1]
    with pytest.raises(ValueError, match="no"):
        memo(1)
    assert calls == [1, 1]
    assert memo.cache_info().currsize == 0


def test_memo_interrupted_owner_a_waiter_takes_over() -> None:
    """What is no Exception concerns the thread that it struck alone."""
    first, gate = threading.Event(), threading.Event()

    @nearcache.lru_cache
    def memo(x: int) -> str:
        if not first.is_set():
            first.set()
            assert gate.wait(PATIENCE)
            raise KeyboardInterrupt
        return "done"

    owner, struck = background(memo, 1)
    assert first.wait(PATIENCE)
    waiter, outcome = background(memo, 1)
    misses_reach(memo, 2)
    gate.set()
    owner.join(PATIENCE)
    waiter.join(PATIENCE)
    assert isinstance(struck[0], KeyboardInterrupt)
    assert outcome == ["done"]


def test_memo_that_calls_itself_with_the_same_argument_recurses() -> None:
    """As with functools: a call does not wait for itself. None of the calls outlives its end."""
    depth = [0]

    @nearcache.lru_cache
    def memo(x: int) -> Asks:
        depth[0] += 1
        return Asks() if depth[0] == 5 else memo(x)

    result = weakref.ref(memo(1))
    assert memo(1) is result()
    assert depth == [5]
    memo.check_invariants()
    memo.cache_clear()
    assert result() is None


@pytest.mark.parametrize("length", [2, 3])
def test_memos_that_wait_for_each_other_in_a_circle_do_not_deadlock(length: int) -> None:
    """Threads whose calls need each other's, through several memos: who would close the circle calls for itself."""
    inside = threading.Barrier(length, timeout=PATIENCE)
    nested: list[int] = []

    def make(number: int) -> Any:
        @nearcache.lru_cache
        def memo(is_first: str) -> int:
            if getattr(local, "depth", 0):
                nested.append(number)
                return number
            local.depth = 1
            inside.wait()
            return number + memos[(number + 1) % length](is_first)

        return memo

    local = threading.local()
    memos = [make(number) for number in range(length)]
    results: dict[int, int] = {}
    together(lambda number: results.__setitem__(number, memos[number]("x")), length)
    assert len(nested) == 1
    assert len(results) == length
    for memo in memos:
        memo.check_invariants()


def test_memo_cleared_during_a_call_does_not_keep_its_result() -> None:
    """What was begun before a clear is older than it; who comes after does not share it either."""
    asks = Asks()
    memo = nearcache.lru_cache(asks)
    thread, outcome = background(memo, "key")
    assert asks.entered.acquire(timeout=PATIENCE)
    memo.cache_clear()
    later, second = background(memo, "key")
    assert asks.entered.acquire(timeout=PATIENCE)  # called again, while the first is still at it
    asks.gate.set()
    thread.join(PATIENCE)
    later.join(PATIENCE)
    assert outcome == second == ["key"]
    assert asks.calls == ["key", "key"]
    assert memo.cache_info()[:2] == (0, 1)


def test_memo_cleared_during_the_only_call_is_empty_after_it() -> None:
    """Nobody has come since, and the result is not kept all the same."""
    asks = Asks()
    memo = nearcache.lru_cache(asks)
    thread, _ = background(memo, "key")
    assert asks.entered.acquire(timeout=PATIENCE)
    memo.cache_clear()
    asks.gate.set()
    thread.join(PATIENCE)
    assert memo.cache_info() == (0, 0, 128, 0)


def test_memo_threads_with_evictions_and_clears_stays_whole() -> None:
    """Results are right and the store is sound, whatever threads do at the same time."""
    memo: Any = nearcache.lru_cache(maxsize=50)(lambda x: (x,))

    def work(number: int) -> None:
        rng = random.Random(number)
        for step in range(3000):
            x = rng.choice([rng.randrange(100), str(rng.randrange(100))])
            assert memo(x) == (x,)
            if step % 500 == 499:
                memo.cache_clear()

    together(work)
    memo.check_invariants()
    assert memo.cache_info().currsize <= 50


FORKED = """
import os, threading, nearcache
entered, gate = threading.Event(), threading.Event()
parent = os.getpid()

@nearcache.lru_cache
def f(x):
    if os.getpid() == parent:
        entered.set()
        gate.wait(100)
    return x

threads = [threading.Thread(target=f, args=(1,)) for _ in range(2)]
for thread in threads:
    thread.start()
entered.wait(100)
while f.cache_info().misses < 2:
    threading.Event().wait(0.001)
child = os.fork()
if child == 0:
    os._exit(0 if f(1) == 1 and f(1) == 1 else 1)
status = os.waitpid(child, 0)[1]
gate.set()
for thread in threads:
    thread.join()
assert status == 0, status
"""


def test_memo_forked_during_a_call_the_child_calls_for_itself() -> None:
    """The thread that was calling is not in the child, so nobody waits for it there."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


# -- keys that run code ----------------------------------------------------------------------------------------------


class Nasty:
    """A key whose comparison does something."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.action: Any = None

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if self.action is not None:
            action, self.action = self.action, None
            action()
        return isinstance(other, Nasty) and self.number == other.number


def test_memo_key_that_clears_while_compared_gives_the_right_result() -> None:
    """A comparison that changes the memo is asked again."""
    memo: Any = nearcache.lru_cache(lambda x: x.number)
    held, asked = Nasty(1), Nasty(1)
    memo(held)
    held.action = memo.cache_clear
    assert memo(asked) == 1
    memo.check_invariants()


def test_memo_key_whose_comparison_raises_raises() -> None:
    """The exception reaches the caller, and the memo works on."""
    memo: Any = nearcache.lru_cache(lambda x: x.number)

    def fail() -> None:
        raise RuntimeError("eq")

    held = Nasty(1)
    memo(held)
    held.action = fail
    with pytest.raises(RuntimeError, match="eq"):
        memo(Nasty(2))
    assert memo(Nasty(2)) == 2
    memo.check_invariants()


def test_memo_unhashable_argument_is_a_type_error() -> None:
    """As with functools; with nothing to keep, no key is made."""
    with pytest.raises(TypeError, match="unhashable"):
        nearcache.lru_cache(lambda x: x)([])
    assert nearcache.lru_cache(0)(lambda x: x)([]) == []


def test_memo_endless_recursion_is_a_recursion_error() -> None:
    """Not the end of the process."""

    @nearcache.lru_cache
    def memo(x: int) -> int:
        return memo(x + 1)

    with pytest.raises(RecursionError):
        memo(1)
    memo.check_invariants()


def test_memo_recursion_errors_leave_the_limit_where_it_is() -> None:
    """A level that was refused is not given back: a program could otherwise recurse until its stack ends."""

    @nearcache.lru_cache(maxsize=0)
    def memo(x: int) -> int:
        return memo(x + 1)

    def from_deeper(levels: int) -> int:
        return from_deeper(levels - 1) if levels else memo(0)

    def reached(depth: int) -> int:
        try:
            return reached(depth + 1)
        except RecursionError:
            return depth

    before = reached(0)
    for levels in range(50):  # the limit is met in the function, or just before it is called
        with pytest.raises(RecursionError):
            from_deeper(levels)
    assert reached(0) == before
