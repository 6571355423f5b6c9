"""What a listener has before it starts, and how often it says that it starts anew."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache._store import Store
from nearcache.bus import Listener
from nearcache.coherence import Lane
from support.followers import listener_of
from support.threads import PATIENCE


class Nowhere:
    """Makes no connection."""

    def connect_listener(self, shard: int) -> Any:
        raise OSError(errno.ECONNREFUSED, "Connection refused")

    def note_alive(self, shard: int) -> None:
        raise AssertionError

    def name_of(self, shard: int) -> str:
        return f"number {shard}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    """One that has not been started."""
    store: Store[Any, Any] = Store(10)
    made = listener_of(store, Nowhere(), [Lane(60_000_000_000)])
    yield made
    made.stop()


def test_listener_opens_nothing_until_it_starts(monkeypatch: pytest.MonkeyPatch, listener: Listener) -> None:
    """Nor in a child: who becomes a daemon closes all that is open. With no descriptor left, it starts later."""

    def refuse() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as starved:
        starved.setattr(socket, "socketpair", refuse)
        listener.after_fork()
        listener.start()
        assert listener.thread is None
    listener.start()
    assert listener.thread is not None
    assert listener.wait_settled(PATIENCE)


def test_listener_that_fails_again_and_again_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong in each turn is told once, and then from time to time."""
    failures, enough = [], threading.Event()

    def fail() -> None:
        failures.append(1)
        if len(failures) == 5:
            enough.set()
        raise RuntimeError("out of order")

    monkeypatch.setattr("nearcache.bus.listener.BACKOFF_FIRST_S", 0)
    monkeypatch.setattr("nearcache.logs._APART_NS", int(3600e9))
    monkeypatch.setattr(listener, "_tend", fail)
    listener.start()
    assert enough.wait(PATIENCE)
    listener.stop()
    assert caplog.text.count("namespace t: the listener begins anew") == 1
