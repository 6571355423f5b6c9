"""Threads that start together and are surely over, and what can be counted when they are."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: Seconds until a thread that waits for another counts as one that will wait for ever; below pytest's own limit, after
#: which faulthandler shows where the threads are.
PATIENCE = 110.0


def together(worker: Callable[[int], object], count: int = 4) -> None:
    """Run ``worker(number)`` in ``count`` threads that begin at the same time; raise what the first one raised.

    A thread that does not end is an AssertionError: a deadlock fails its test and does not stop the others.
    """
    barrier = threading.Barrier(count, timeout=PATIENCE)
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            barrier.wait()
            worker(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    stuck = sum(thread.is_alive() for thread in threads)
    assert not stuck, f"{stuck} of {count} threads do not end"


class Background:
    """Threads that work until they are told to stop. What one of them raises is an AssertionError at the end.

    Attributes:
        stopping: Set when they are to come to an end.
    """

    def __init__(self, *works: Callable[[], object]) -> None:
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in works]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop. No thread may have met anything that it did not expect."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        assert self.errors == []

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)


def living(kind: type) -> int:
    """Return the number of objects of exactly this type that are alive after a collection.

    Finalizers that run in a collection may let go of more, which the next one finds.
    """
    for _ in range(3):
        gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())


@contextmanager
def balanced(objects: Sequence[Any]) -> Iterator[None]:
    """Check that as many references to each object exist after the block as before.

    The objects should be made for the test: free-threaded builds do not count references to constants, interned
    strings, functions and classes.
    """
    before = [sys.getrefcount(each) for each in objects]
    yield
    gc.collect()
    after = [sys.getrefcount(each) for each in objects]
    changed = [(each, old, new) for each, old, new in zip(objects, before, after, strict=True) if old != new]
    assert not changed, f"{len(changed)} of {len(objects)} counts moved (object, before, after): {changed[:5]}"
