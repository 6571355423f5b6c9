"""``memory://`` in the child of a fork: what other threads of the parent were doing is not waited for."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.forks import _told, tell_of_forks
from support.waiting import wait_until

PATIENCE = 20.0

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "aging": {"ttl": 60, "soft_ttl": 30},
    "idle": {"ttl": nearcache.Idle(60)},
}


def in_child(work: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Carry it out in a child; return what that exits with: 0, 1 if it raised, -SIGALRM if it did not end."""
    pid = fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(PATIENCE))
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Gate:
    """Where a thread of the parent stands still while the child does its work."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.go_on = threading.Event()

    def wait(self) -> None:
        """Stand still until the gate is opened."""
        self.inside.set()
        assert self.go_on.wait(PATIENCE)

    def load(self, _key: str) -> int:
        """Bring 1, as a loader that stands still first."""
        self.wait()
        return 1


def is_asleep(thread: threading.Thread) -> bool:
    """Whether a thread waits, as far as the kernel says.

    Without a GIL a child that was forked without hooks waits for ever for one that was running then.
    """
    try:
        told = Path(f"/proc/self/task/{thread.native_id}/stat").read_text("ascii")
    except OSError:
        return True
    return told.rpartition(")")[2].split()[0] == "S"


def forked_meanwhile(
    gate: Gate, work: Callable[[], object], child: Callable[[], object], fork: Callable[[], int] = os.fork
) -> int:
    """Fork while a thread that does this work stands at the gate, then let it go on. Returns as :func:`in_child`."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert gate.inside.wait(PATIENCE)
        wait_until(lambda: is_asleep(thread))
        return in_child(child, fork)
    finally:
        gate.go_on.set()
        thread.join()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fork_during_a_load_of_another_thread_leaves_the_child_to_load_itself(options: dict[str, Any]) -> None:
    """The parent's load ends in the parent."""
    cache: Cache[str, int] = nearcache.open("memory://", **options)
    gate = Gate()

    def child() -> None:
        assert cache.get_or_load("k", lambda _key: 2) == 2
        assert cache["k"] == 2
        assert cache.incr("k") == 3
        assert cache.stats().loader.running == 0

    assert forked_meanwhile(gate, lambda: cache.get_or_load("k", gate.load), child) == 0
    assert cache["k"] == 1


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fork_without_hooks_is_noticed_by_the_first_who_needs_to_know(options: dict[str, Any]) -> None:
    """As code in C forks; what it does is known by the number of the process. A fork of that child is one as any."""
    cache: Cache[str, int] = nearcache.open("memory://", **options)
    gate = Gate()

    def grandchild() -> None:
        assert cache.stats().loader.running == 0
        assert cache.get_or_load("k", lambda _key: 4) == 4

    def child() -> None:
        assert cache.get_or_load("other", lambda _key: 2) == 2
        thread = threading.Thread(target=cache.get_or_load, args=("k", gate.load), daemon=True)
        gate.inside.clear()
        thread.start()
        assert gate.inside.wait(PATIENCE)
        assert in_child(grandchild) == 0

    fork = ctypes.PyDLL(None).fork
    assert forked_meanwhile(gate, lambda: cache.get_or_load("k", gate.load), child, fork) == 0
    assert cache["k"] == 1


def test_fork_during_a_call_of_a_cached_function_leaves_the_child_to_call_it() -> None:
    """As for any load."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    gate = Gate()

    @cache.cached
    def squared(number: int) -> int:
        gate.wait()
        return number**2

    def child() -> None:
        gate.go_on.set()
        assert squared(3) == 9

    assert forked_meanwhile(gate, lambda: squared(3), child) == 0


def test_fork_in_the_middle_of_a_change_leaves_the_child_free_to_change() -> None:
    """Locks that other threads hold are not here."""
    cache: Any = nearcache.open("memory://")
    held = [cache._changing, cache._turns, cache._counting]
    gate = Gate()

    def hold() -> None:
        with held[0], held[1], held[2]:
            gate.wait()

    def child() -> None:
        assert cache.incr("n") == 1
        assert cache.get_or_load("k", lambda _key: 2) == 2

    assert forked_meanwhile(gate, hold, child) == 0


def test_fork_while_a_view_for_asyncio_is_made_leaves_the_child_to_make_its_own() -> None:
    """Of the same cache, and of others."""
    cache, other = nearcache.open("memory://"), nearcache.open("memory://")
    gate, make = Gate(), cache._async_view

    def slowly() -> Any:
        gate.wait()
        return make()

    def child() -> None:
        gate.go_on.set()
        assert cache.aio.cache is cache
        assert other.aio.cache is other

    cache._async_view = slowly  # type: ignore[method-assign]  # where the other thread is to stand still
    assert forked_meanwhile(gate, lambda: cache.aio, child) == 0
    assert cache.aio is cache.aio


def test_fork_within_a_loader_ends_the_load_in_both() -> None:
    """In the child it is the same thread that goes on; what it brings is returned, and not kept."""
    cache: Cache[str, int] = nearcache.open("memory://")
    pids: list[int] = []

    def forking(_key: str) -> int:
        pids.append(os.fork())
        return 1

    value = cache.get_or_load("k", forking)
    if pids[-1] == 0:
        os._exit(0 if value == 1 and cache.get_or_load("k", lambda _key: 2) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[-1], 0)[1]) == 0
    assert cache["k"] == value == 1


def test_one_that_fails_in_the_child_keeps_no_other_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    """Who is not told goes on with what is the parent's. The log says what went wrong."""

    class Part:
        was_told = False

        def after_fork(self) -> None:
            """Begin anew, or fail."""
            self.was_told = True
            if self is first:
                raise RuntimeError("can't start new thread")

    first, second = Part(), Part()
    for part in (first, second):
        tell_of_forks(part, Part.after_fork)

    def child() -> None:
        assert first.was_told
        assert second.was_told
        assert "could not begin anew in a forked child" in caplog.text
        assert "can't start new thread" in caplog.text

    assert in_child(child) == 0
    assert not first.was_told


def test_caches_that_are_gone_are_told_of_no_fork() -> None:
    """Who is to be told is not kept alive by that."""
    caches = [nearcache.open("memory://") for _ in range(10)]
    of = {id(cache) for cache in caches}
    assert of <= set(_told)
    del caches
    assert not of & set(_told)
