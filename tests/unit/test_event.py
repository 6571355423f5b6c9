"""What has happened, or has not yet: an event that threads wait for."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import Callable

import pytest

from nearcache._reads import Event
from support.threads import PATIENCE


def test_event_wakes_all_who_wait_and_can_be_taken_back() -> None:
    """What happens is not forgotten until it is cleared; who waits for no time is told at once."""
    event, woken = Event(), threading.Semaphore(0)
    assert not event.wait(0)
    assert not event.wait(-1)
    assert not event.is_set()
    threads = [threading.Thread(target=lambda: event.wait() and woken.release()) for _ in range(5)]
    for thread in threads:
        thread.start()
    event.set()
    event.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert woken.acquire(blocking=False)
    assert event.is_set()
    assert event.wait()
    assert event.wait(1e30)
    event.clear()
    assert not event.is_set()
    assert not event.wait(0.001)


def test_event_waits_on_a_lock_of_who_makes_locks_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent may put locks of its own there after the import: on a real one all greenlets would wait, for ever."""
    made, real = [], _thread.allocate_lock

    def allocate_lock() -> object:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(_thread, "allocate_lock", allocate_lock)
    assert not Event().wait(0)
    assert len(made) == 1


class Gate:
    """What one waits on, with a hand in it; of those that are left over a test knows."""

    def __init__(self, when_made: Callable[[], object], left: weakref.WeakSet[Gate]) -> None:
        left.add(self)
        when_made()

    def acquire(self, *blocking: object) -> None:
        assert not blocking or blocking == (True, 0), "it has happened"

    def release(self) -> None:
        """Nobody waits."""


def test_event_that_happens_while_somebody_begins_to_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is on the list looks once more. Nothing of a wait stays behind, whether or not it happened."""
    event, left = Event(), weakref.WeakSet[Gate]()
    monkeypatch.setattr(_thread, "allocate_lock", lambda: Gate(lambda: None, left))
    assert not event.wait(0)
    monkeypatch.setattr(_thread, "allocate_lock", lambda: Gate(event.set, left))
    assert event.wait()
    assert not left
