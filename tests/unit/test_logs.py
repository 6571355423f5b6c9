"""What is logged by what nobody calls: no handler ends a thread, and nobody is told the same thousands of times."""

from __future__ import annotations

import logging
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

import nearcache
from nearcache._store import Store
from nearcache.bus.follower import _call
from nearcache.cache.tiered.sampler import SamplerThread
from nearcache.logs import Recurring, log
from nearcache.workers import Workers
from support.logs import full_disk
from support.threads import PATIENCE


def test_handler_that_raises_does_not_reach_who_logs(caplog: pytest.LogCaptureFixture) -> None:
    """One that works gets the line, with the place that it is from and what was raised."""
    with full_disk() as handler:
        log(logging.ERROR, "it failed: %d", 5)
        Recurring().log(logging.ERROR, "it failed: %d", 6)
    assert handler.refused == ["it failed: 5", "it failed: 6"]
    log(logging.ERROR, "it failed: %d", 7)
    Recurring().log(logging.ERROR, "it failed: %d", 8, error=ZeroDivisionError("of the user"))
    assert caplog.messages == ["it failed: 7", "it failed: 8"]
    assert {record.funcName for record in caplog.records} == {"test_handler_that_raises_does_not_reach_who_logs"}
    assert "of the user" in caplog.text


def test_recurring_logs_the_first_and_then_one_a_second_with_the_number_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each second begins with the line before."""
    now_s = 0.0
    recurring = Recurring(lambda: round(now_s * 1e9))
    for now_s in (5.0, 5.2, 5.9, 6.1, 7.0, 9.0):
        recurring.log(logging.WARNING, "at %s", now_s)
    assert caplog.messages == ["at 5.0", "at 6.1 (and 2 more of the kind since the last line)",
                               "at 9.0 (and 1 more of the kind since the last line)"]  # fmt: skip


def fail() -> None:
    raise ZeroDivisionError


def test_workers_go_on_when_neither_the_work_nor_the_log_does() -> None:
    """Four that ended so would be all that there may be."""
    workers, done = Workers("t", threads=1), threading.Event()
    with full_disk() as handler:
        assert workers.submit(fail, "k")
        assert workers.submit(fail, "k")
        assert workers.submit(done.set, "k")
        assert done.wait(PATIENCE)
    assert len(handler.refused) == 1
    workers.close()


def test_listener_is_called_again_when_neither_it_nor_the_log_works() -> None:
    """Also if its queue is full: the log of that is written by whoever changes something."""
    with nearcache.open("memory://") as cache, full_disk() as handler:
        subscription = cache.listen(lambda _: fail())
        cache["a"] = cache["b"] = 1
        assert subscription.flush(PATIENCE)
        assert subscription.delivered == subscription.errors == 2
        begun, go = threading.Event(), threading.Event()
        with cache.listen(lambda _: begun.set() or go.wait(PATIENCE), queue=1):
            cache["c"] = 1
            assert begun.wait(PATIENCE)
            cache["d"] = cache["e"] = 1
            go.set()
        assert len(handler.refused) == 2


def test_callback_of_a_lane_that_fails_is_not_the_lane_s_failure() -> None:
    """Nor is what the log does about it."""
    with full_disk() as handler:
        _call(fail)
    assert len(handler.refused) == 1


class Unspeakable:
    """A key that cannot be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def test_sampler_goes_on_when_neither_a_key_nor_the_log_works() -> None:
    """What it finds is not said then; the next is looked at all the same."""
    found: list[list[Any]] = [["a key"], [Unspeakable()], ["another"]]
    done, store = threading.Event(), Store[Any, Any](1)

    def run(_: Any) -> list[Any]:
        if found:
            return found.pop(0)
        done.set()
        return []

    parts: Any = SimpleNamespace(check=lambda *_: None, namespace="t", now=None, run=run)
    sampler = SamplerThread(weakref.ref(store), parts, parts, parts, 1e6)
    with full_disk() as handler:
        sampler.start()
        assert done.wait(PATIENCE)
        sampler.stop()
    assert len(handler.refused) == 3


def test_sampler_says_whose_key_it_could_not_look_at(caplog: pytest.LogCaptureFixture) -> None:
    """A program has several caches."""
    done, store = threading.Event(), Store[Any, Any](1)

    def run(_: Any) -> list[Any]:
        if caplog.messages:
            done.set()
        return [Unspeakable()]

    parts: Any = SimpleNamespace(check=lambda *_: None, namespace="t", now=None, run=run)
    sampler = SamplerThread(weakref.ref(store), parts, parts, parts, 1e6)
    sampler.start()
    assert done.wait(PATIENCE)
    sampler.stop()
    assert caplog.messages[0] == "namespace t: a key could not be sampled"


def test_listener_that_raises_at_every_event_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """``errors`` counts them; one line a second says that they come."""
    with nearcache.open("memory://") as cache:
        subscription = cache.listen(lambda _: fail())
        for key in range(500):
            cache[key] = 1
        assert subscription.flush(PATIENCE)
        assert subscription.errors == 500
    assert all(message.startswith("namespace default: a listener failed: ") for message in caplog.messages)
    assert 1 <= len(caplog.records) < 250
