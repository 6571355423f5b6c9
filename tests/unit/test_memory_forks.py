"""``memory://`` in the child of a fork: what other threads of the parent were doing is not waited for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.forks import _told

PATIENCE = 20.0

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "aging": {"ttl": 60, "soft_ttl": 30},
    "idle": {"ttl": nearcache.Idle(60)},
}


def in_child(work: Callable[[], object]) -> int:
    """Carry it out in a child; return what that exits with: 0, 1 if it raised, -SIGALRM if it did not end."""
    pid = os.fork()
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


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_fork_during_a_load_of_another_thread_leaves_the_child_to_load_itself(options: dict[str, Any]) -> None:
    """The parent's load ends in the parent."""
    cache: Cache[str, int] = nearcache.open("memory://", **options)
    inside, go_on = threading.Event(), threading.Event()

    def slow(_key: str) -> int:
        inside.set()
        assert go_on.wait(PATIENCE)
        return 1

    def child() -> None:
        assert cache.get_or_load("k", lambda _key: 2) == 2
        assert cache["k"] == 2
        assert cache.incr("k") == 3
        assert cache.stats().loader.running == 0

    thread = threading.Thread(target=cache.get_or_load, args=("k", slow))
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert in_child(child) == 0
    finally:
        go_on.set()
        thread.join()
    assert cache["k"] == 1


def test_fork_during_a_call_of_a_cached_function_leaves_the_child_to_call_it() -> None:
    """As for any load."""
    cache: Cache[Any, Any] = nearcache.open("memory://")
    inside, go_on = threading.Event(), threading.Event()

    @cache.cached
    def squared(number: int) -> int:
        inside.set()
        assert go_on.wait(PATIENCE)
        return number**2

    def child() -> None:
        go_on.set()
        assert squared(3) == 9

    thread = threading.Thread(target=squared, args=(3,))
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert in_child(child) == 0
    finally:
        go_on.set()
        thread.join()


def test_fork_in_the_middle_of_a_change_leaves_the_child_free_to_change() -> None:
    """Locks that other threads hold are not here."""
    cache: Any = nearcache.open("memory://")
    held = [cache._changing, cache._turns, cache._counting]
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with held[0], held[1], held[2]:
            inside.set()
            assert go_on.wait(PATIENCE)

    def child() -> None:
        assert cache.incr("n") == 1
        assert cache.get_or_load("k", lambda _key: 2) == 2

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert in_child(child) == 0
    finally:
        go_on.set()
        thread.join()


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


def test_caches_that_are_gone_are_told_of_no_fork() -> None:
    """Who is to be told is not kept alive by that."""
    caches = [nearcache.open("memory://") for _ in range(10)]
    of = {id(cache) for cache in caches}
    assert of <= set(_told)
    del caches
    assert not of & set(_told)
