"""The pool of one shard's connections: what no server can make happen."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from unittest import mock

import pytest

from nearcache.clocks import NEVER_NS, monotonic_ns
from nearcache.errors import ShardUnavailableError
from nearcache.l2.connection import Connection
from nearcache.l2.driver import ListenerLink
from nearcache.l2.pool import Pool
from nearcache.l2.transfer import Flow, ask
from nearcache.workers import Workers
from support.waiting import wait_until

TIMEOUT = 20.0


def closing_pool() -> None:
    """Close a pool where a collection may close it: in the middle."""
    pool = Pool("a", 1, lambda _: pytest.fail("nothing is to be connected"), monotonic_ns)
    with pool._free:
        pool.close()


def closing_workers() -> None:
    """The same for background threads."""
    workers = Workers("t")
    with workers._lock:
        workers.close()


@pytest.mark.parametrize("closing", [closing_pool, closing_workers])
def test_closed_by_a_collection_in_the_middle_does_not_wait_for_itself(closing: Callable[[], None]) -> None:
    """A cache that nobody holds any more is closed in whatever thread the collection happens to run."""
    thread = threading.Thread(target=closing, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


class Interrupt(BaseException):
    """As a signal's handler raises it, wherever the interpreter looks for signals."""


class Fake:
    """A connection."""

    def close(self) -> None:
        """Nothing to close."""


def interrupted(action: Callable[[], object], after: int) -> bool:
    """Interrupt an action after so many calls. Returns whether it took that long."""
    left = [after]

    def count(_frame: object, event: str, what: Any) -> None:
        # Where signals are looked for: a function begins, or one in C has returned (not __enter__: support.interrupts).
        if event == "call" or (event == "c_return" and what.__name__ != "__enter__"):
            left[0] -= 1
            if left[0] == 0:
                raise Interrupt

    sys.setprofile(count)
    try:
        action()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def connect(_deadline_ns: int) -> Connection:
    """Make one."""
    return cast("Connection", Fake())


def use(pool: Pool, way: str, deadline_ns: int) -> None:
    """Take a connection in one way or the other and put it back; take it again, and find that it has failed."""
    connection = getattr(pool, way)(deadline_ns)
    pool.put(connection)
    pool.discard(pool.wait(deadline_ns))


def taken_by_another_thread(pool: Pool, deadline_ns: int) -> list[Connection]:
    """Return all connections that somebody else can have."""
    taken: list[Connection] = []
    thread = threading.Thread(target=lambda: taken.extend(pool.wait(deadline_ns) for _ in range(2)), daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return taken


@pytest.mark.parametrize("way", ["open", "wait"])
def test_interrupt_at_any_point_costs_nobody_else_a_connection(way: str) -> None:
    """Neither the lock nor a place may stay with a thread that goes on to do something else."""
    after, was_interrupted = 0, True
    while was_interrupted:
        after += 1
        pool, deadline_ns = Pool("a", 2, connect, monotonic_ns), monotonic_ns() + int(TIMEOUT * 1e9)
        was_interrupted = interrupted(partial(use, pool, way, deadline_ns), after)
        assert len(taken_by_another_thread(pool, deadline_ns)) == 2, f"interrupted after {after} calls"
    assert after > 10


def test_connection_that_cannot_be_made_leaves_its_place_to_who_waits() -> None:
    """However long he would have had the patience to wait for one that is put back."""
    refuse = threading.Event()

    def fail(_deadline_ns: int) -> Connection:
        refuse.wait(TIMEOUT)
        raise ShardUnavailableError("a", "it refuses")

    def wait_for_room() -> None:
        wait_until(lambda: pool._waiters == 1, TIMEOUT)
        refuse.set()

    outcomes = [connect, fail]  # the last one first
    pool = Pool("a", 1, lambda deadline_ns: outcomes.pop()(deadline_ns), monotonic_ns)
    taken: list[Connection] = []

    def take() -> None:
        wait_until(lambda: len(outcomes) == 1, TIMEOUT)
        taken.append(pool.wait(monotonic_ns() + int(10 * TIMEOUT * 1e9)))

    threads = [threading.Thread(target=each, daemon=True) for each in (take, wait_for_room)]
    for thread in threads:
        thread.start()
    with pytest.raises(ShardUnavailableError):
        pool.open(NEVER_NS)
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(taken) == 1


class Slow:
    """Connections take longer than a call may: those for which there is no hurry are made when the gate opens."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.gate = threading.Event()
        self.made: list[Any] = []
        self.tries = 0
        self.pool = Pool("a", 1, self.connect, lambda: self.now_ns)

    def connect(self, deadline_ns: int) -> Connection:
        """Make one, or use up the time."""
        if deadline_ns <= 1000:
            self.now_ns = deadline_ns
            raise ShardUnavailableError("a", "no answer in time")
        self.tries += 1
        assert self.gate.wait(TIMEOUT)
        self.made.append(mock.Mock())
        return cast("Connection", self.made[-1])

    def call(self) -> None:
        """Ask for one in vain, or wait for the one that is being made."""
        with pytest.raises(ShardUnavailableError, match="in time"):
            self.pool.open(self.now_ns) or self.pool.wait(self.now_ns)


def test_connection_for_which_a_call_has_no_time_is_made_for_the_next_one() -> None:
    """Else no call would ever have one, where connecting takes longer than a call may."""
    slow = Slow()
    for _ in range(3):
        slow.call()
    slow.gate.set()
    wait_until(lambda: slow.pool.idle, TIMEOUT)
    assert slow.tries == 1
    assert slow.pool.take_idle() is slow.made[0]


def test_connection_that_is_made_when_the_pool_is_closed_is_closed_too() -> None:
    """Nobody waits for it."""
    slow = Slow()
    slow.call()
    wait_until(lambda: slow.tries, TIMEOUT)
    slow.pool.close()
    slow.gate.set()
    wait_until(lambda: slow.made and slow.made[0].close.called, TIMEOUT)
    assert not slow.pool.idle
    assert len(slow.pool) == 0


def test_child_does_not_wait_for_what_its_parent_makes() -> None:
    """The thread that makes it is the parent's."""
    slow = Slow()
    slow.call()
    slow.pool.after_fork()
    slow.call()
    slow.gate.set()
    wait_until(lambda: len(slow.made) == 2, TIMEOUT)


def test_place_of_a_connection_that_no_thread_can_make_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call tries by itself."""
    slow = Slow()
    monkeypatch.setattr("nearcache.l2.pool.start_thread", lambda *_: None)
    slow.call()
    slow.gate.set()
    assert slow.pool.open(NEVER_NS) is slow.made[0]


def test_child_of_a_fork_takes_none_of_its_parents_connections() -> None:
    """It would read the parent's answers, and the parent the child's."""
    pool = Pool("a", 2, connect, monotonic_ns)
    connection = pool.open(NEVER_NS)
    assert connection is not None
    pool.put(connection)
    pool.after_fork()
    assert pool.take_idle() is None
    assert (len(pool), pool.in_use) == (0, 0)


@pytest.mark.parametrize("is_tls", [False, True])
def test_answer_to_no_request_is_not_left_for_the_next_call(*, is_tls: bool) -> None:
    """Over TLS compiled code cannot look; whoever gets the flow as it stands finds what is left."""
    for said, is_usual in ((b"+one\r\n", True), (b"+one\r\n+two\r\n", False)):
        here, there = socket.socketpair()
        connection = Connection(here, "a")
        if is_tls:
            connection.line = None
        with here, there:
            there.sendall(said)
            answer = ask(connection, b"PING\r\n", 1, TIMEOUT)
        assert (answer == [b"one"]) is is_usual
        if not is_usual:
            assert isinstance(answer, Flow)
            assert answer.values == [b"one"]
            assert connection.reader.has_data()


def test_listener_takes_all_that_has_been_decrypted() -> None:
    """No selector sees it: what was left would wait for what comes next, and so would its invalidations."""
    chunks = [b"two", b"one"]

    class Decrypted(Connection):
        def receive_some(self) -> bytes | None:
            return chunks.pop()

        def has_buffered(self) -> bool:
            return bool(chunks)

    here, there = socket.socketpair()
    with here, there:
        assert ListenerLink(Decrypted(here, "a")).receive() == b"onetwo"
