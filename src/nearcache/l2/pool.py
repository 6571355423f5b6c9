"""The connections of one shard: at most so many, most recently used first, so that surplus ones stay idle.

The common path, an idle connection taken and put back, uses no lock: ``deque``'s ``pop`` and ``append`` are atomic.
The lock guards the number of connections, and waiting. No wake-up is lost: a waiter counts itself before it looks
for an idle connection, and whoever puts one back looks at the count after.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..clocks import Clock
from ..errors import ClosedError, ShardUnavailableError
from .connection import Connection


class _Place:
    """A connection that is being made. Lost with the frame of who is interrupted, as connections are."""

    __slots__ = ("__weakref__",)


class AnyPool(Protocol):
    """What the course of an exchange asks of a pool."""

    idle: deque[Connection]

    def put(self, connection: Connection) -> None:
        """Take back a connection on which nothing is due."""

    def discard(self, connection: Connection) -> None:
        """Close a connection that has failed, or whose state is not known."""

    def flush(self) -> None:
        """Close the idle connections: the server they led to is gone."""


class Pool:
    """See the module. Safe to use from many threads.

    Attributes:
        idle: The connections not in use. Taking with ``idle.pop()`` is the hot path.
    """

    def __init__(self, shard: str, size: int, connect: Callable[[int], Connection], clock: Clock) -> None:
        """Return an empty pool.

        Args:
            shard: Name of the shard, for messages.
            size: Most connections.
            connect: Makes one, given a deadline; called without the lock.
            clock: Monotonic nanoseconds.
        """
        self.idle: deque[Connection] = deque()
        self._shard = shard
        self._size = size
        self._connect = connect
        self._clock = clock
        self._renew_lock()
        # Weak, because an interrupt can strike a thread between taking a connection and naming it; such a one must
        # not count for ever.
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._connecting: weakref.WeakSet[_Place] = weakref.WeakSet()
        self._waiters = 0
        self._closed = self._retired = False

    def _renew_lock(self) -> None:
        # Re-entrant: a cache that nobody holds any more is closed by a collection, which may come in the middle of
        # this. Taken by itself and not through the condition, whose methods are in Python: an interrupt can end them
        # when they have the lock, and then nobody else would ever get it.
        self._lock = threading.RLock()
        self._free = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def retired(self) -> bool:
        """Whether :meth:`retire` or :meth:`close` was called."""
        return self._retired

    @property
    def in_use(self) -> int:
        """Number of connections that calls hold now."""
        return max(0, len(self._all) - len(self.idle))

    def take_idle(self) -> Connection | None:
        """Return an idle connection, if there is one."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def open(self, deadline_ns: int) -> Connection | None:
        """Return a new connection; None where there are as many as may be.

        Raises:
            ShardError: As ``connect`` does.
            ClosedError: The pool is closed.
        """
        with self._lock:
            self._check_open_locked()
            place = self._reserve_locked()
        return None if place is None else self._open_reserved(place, deadline_ns)

    def wait(self, deadline_ns: int) -> Connection:
        """Return an idle connection, or make one, or wait for one to be put back.

        Raises:
            ShardUnavailableError: All of them were busy until the deadline.
            ShardError: As ``connect`` does.
            ClosedError: The pool was closed meanwhile.
        """
        with self._lock:
            self._waiters += 1
            try:
                while True:
                    self._check_open_locked()
                    connection = self.take_idle()
                    if connection is not None:
                        return connection
                    place = self._reserve_locked()
                    if place is not None:
                        break
                    remaining_ns = deadline_ns - self._clock()
                    if remaining_ns <= 0:
                        raise ShardUnavailableError(
                            self._shard,
                            f"all {self._size} connections stayed busy; raise pool_size",
                        )
                    self._free.wait(remaining_ns / 1e9)
            finally:
                self._waiters -= 1
        return self._open_reserved(place, deadline_ns)

    def put(self, connection: Connection) -> None:
        """Take back a connection on which nothing is due."""
        self.idle.append(connection)
        if self._waiters:
            with self._lock:
                self._free.notify()
        if self._retired:
            self.flush()

    def discard(self, connection: Connection) -> None:
        """Close a connection that has failed, or whose state is not known."""
        connection.close()
        with self._lock:
            self._all.discard(connection)
            self._free.notify()

    def flush(self) -> None:
        """Close the idle connections: the server they led to is gone."""
        while (connection := self.take_idle()) is not None:
            self.discard(connection)

    def retire(self) -> None:
        """Close the idle connections now and the others when they are put back. Who is about to take one still may."""
        self._retired = True
        self.flush()

    def close(self) -> None:
        """The same, and let nobody take one any more; wake the waiters. Idempotent."""
        with self._lock:
            self._closed = True
            self._free.notify_all()
        self.retire()

    def after_fork(self) -> None:
        """Forget everything in a forked child: the connections are the parent's, and so was the lock's state."""
        self._renew_lock()
        self.idle.clear()
        self._connecting = weakref.WeakSet()
        self._waiters = 0
        for connection in list(self._all):
            connection.close()
        self._all = weakref.WeakSet()

    def _open_reserved(self, place: _Place, deadline_ns: int) -> Connection:
        connection = None
        try:
            connection = self._connect(deadline_ns)
        finally:
            with self._lock:
                self._connecting.discard(place)
                if connection is not None:
                    self._all.add(connection)
                else:
                    self._free.notify()
        if self._closed:
            self.discard(connection)
            self._check_open_locked()
        return connection

    def _reserve_locked(self) -> _Place | None:
        if len(self._all) + len(self._connecting) >= self._size:
            return None
        place = _Place()
        self._connecting.add(place)
        return place

    def _check_open_locked(self) -> None:
        if self._closed:
            raise ClosedError("the cache was closed")
