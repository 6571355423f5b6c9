"""Connections to several shards at the same time: what comes of each, and what is left when one is a surprise."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from nearcache.clocks import monotonic_ns
from nearcache.errors import ClosedError, ShardError, ShardUnavailableError
from nearcache.l2.connection import Connection
from nearcache.l2.opening import open_each
from nearcache.l2.pool import Pool

PATIENCE = 20.0
SECOND = 1_000_000_000

Connecting = Callable[[int], Connection]


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    """Those that :func:`connected` made; none may be open in the end."""
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.close()


def connected(made: list[Connection]) -> Connection:
    """Return a connection that leads nowhere."""
    made.append(Connection(socket.socket(), "a"))
    return made[-1]


def pools(*connecting: Connecting, clock: Callable[[], int] = monotonic_ns) -> list[Pool]:
    """Return pools that connect in these ways."""
    return [Pool(str(number), 1, connect, clock) for number, connect in enumerate(connecting)]


def test_connections_to_several_shards_are_made_at_the_same_time(connections: list[Connection]) -> None:
    """None of them is there before all have been begun."""
    begun = threading.Barrier(64, timeout=PATIENCE)

    def connect(_: int) -> Connection:
        begun.wait()
        return connected(connections)

    found = open_each(pools(*[connect] * 64), monotonic_ns() + SECOND, monotonic_ns)
    assert all(isinstance(each, Connection) for each in found)
    assert len(set(map(id, found))) == 64


def test_each_shard_has_its_own_outcome(connections: list[Connection]) -> None:
    """A connection, an error, or neither where the pool is full."""

    def refuse(_: int) -> Connection:
        raise ShardUnavailableError("1", "nobody listens")

    chosen = pools(lambda _: connected(connections), refuse, lambda _: connected(connections))
    full = chosen[2].open(0)
    first, second, third = open_each(chosen, monotonic_ns() + SECOND, monotonic_ns)
    assert first is connections[1]
    assert full is connections[0]
    assert isinstance(second, ShardUnavailableError)
    assert third is None


def test_one_shard_has_all_the_time_and_several_leave_half_for_the_answers(connections: list[Connection]) -> None:
    """A dead host uses up what it is given."""
    deadlines: list[int] = []

    def connect(deadline_ns: int) -> Connection:
        deadlines.append(deadline_ns)
        return connected(connections)

    open_each(pools(connect), 1000, lambda: 0)
    open_each(pools(connect, connect, connect), 1000, lambda: 0)
    open_each(pools(connect, connect), 1000, lambda: 2000)
    assert deadlines == [1000, 500, 500, 500, 1000, 1000]


def test_shards_share_the_time_where_no_thread_can_be_had(
    connections: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter, or of the system's patience."""
    now = [0]
    deadlines: list[int] = []

    def connect(deadline_ns: int) -> Connection:
        deadlines.append(deadline_ns)
        now[0] = deadline_ns
        return connected(connections)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    found = open_each(pools(*[connect] * 4), 800, lambda: now[0])
    assert all(isinstance(each, Connection) for each in found)
    assert deadlines == [100, 200, 300, 400]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_pool_that_is_closed_meanwhile_leaves_no_connection(connections: list[Connection], place: int) -> None:
    """The caller hears of it, and nobody would put the others' back."""
    chosen = pools(*[lambda _: connected(connections)] * 3)
    chosen[place].close()
    with pytest.raises(ClosedError):
        open_each(chosen, monotonic_ns() + SECOND, monotonic_ns)
    assert len(connections) == 2
    assert all(connection.sock.fileno() == -1 for connection in connections)
    assert [len(pool) for pool in chosen] == [0, 0, 0]


def test_error_of_another_thread_keeps_nothing_alive() -> None:
    """It has no frames, which would hold the other shards' connections."""

    def refuse(_: int) -> Connection:
        raise ShardUnavailableError("a", "nobody listens")

    for error in open_each(pools(refuse, refuse), monotonic_ns() + SECOND, monotonic_ns):
        assert isinstance(error, ShardError)
        assert error.__traceback__ is None
