"""The connections of one shard: at most so many, most recently used first, so that surplus ones stay idle.

Where no more can be made (see ``shortage``), those that there are have to do for a while, as if they were as many as
may be. Where calls have too little time to make one, one at a time is made for those that come next.

The common path, an idle connection taken and put back, uses no lock: ``deque``'s ``pop`` and ``append`` are atomic.
The lock guards the number of connections, and waiting. No wake-up is lost: a waiter counts itself before it looks
for an idle connection, and whoever puts one back looks at the count after.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from ..clocks import Clock
from ..errors import ClosedError, ShardError, ShardUnavailableError
from ..workers import start_thread
from .connection import Connection
from .shortage import SHORT_NS, is_shortage

#: A time to connect that the shard's own ``connect_timeout`` cuts short.
DIAL_NS: Final = 3600_000_000_000


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
        self._ahead: weakref.WeakSet[_Place] = weakref.WeakSet()  # those of them for which no call waits
        self._waiters = 0
        self._short_until_ns = 0
        self._refusal: ShardError | None = None  # a copy: what was raised would keep its frames alive
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
        """Return a new connection; None where there are as many as may be, or as can be.

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
        connection = None
        while connection is None:
            found = self._await(deadline_ns)
            connection = self._open_reserved(found, deadline_ns) if isinstance(found, _Place) else found
        return connection

    def _await(self, deadline_ns: int) -> Connection | _Place:
        """Return an idle connection or a place for a new one, as soon as there is either."""
        with self._lock:
            self._waiters += 1
            try:
                while True:
                    self._check_open_locked()
                    remaining_ns = deadline_ns - self._clock()
                    found = self.take_idle() or (self._reserve_locked() if remaining_ns > 0 else None)
                    if found is not None:
                        return found
                    if remaining_ns <= 0:
                        raise late(self._shard, len(self._all), self._size, self._refusal)
                    self._free.wait(remaining_ns / 1e9)
            finally:
                self._waiters -= 1

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
        self._connecting, self._ahead = weakref.WeakSet(), weakref.WeakSet()
        self._waiters = 0
        for connection in list(self._all):
            connection.close()
        self._all = weakref.WeakSet()

    def _open_reserved(self, place: _Place, deadline_ns: int) -> Connection | None:
        """Return a new connection; None where no more can be made, and there are others to wait for."""
        try:
            return self._make(place, deadline_ns)
        except ShardUnavailableError:
            if self._clock() >= deadline_ns:
                self._make_ahead()
            raise

    def _make_ahead(self) -> None:
        """Have one made that is given the time that it takes, unless one is idle or being made so."""
        with self._lock:
            if self.idle or self._ahead or self._retired or (place := self._reserve_locked()) is None:
                return
            self._ahead.add(place)
        if start_thread("nearcache-connect", self._make_idle, place) is None:
            self._release(place)

    def _make_idle(self, place: _Place) -> None:
        with suppress(ShardError, ClosedError):
            connection = self._make(place, self._clock() + DIAL_NS)
            if connection is not None:
                self.put(connection)

    def _make(self, place: _Place, deadline_ns: int) -> Connection | None:
        connection = None
        try:
            connection = self._connect(deadline_ns)
            self._refusal = None
        except ShardError as error:
            if not (self._all and is_shortage(error)):
                raise
            self._refusal = copy.copy(error)
            self._short_until_ns = self._clock() + SHORT_NS
        finally:
            self._release(place, connection)
        if self._closed and connection is not None:
            self.discard(connection)
            self._check_open_locked()
        return connection

    def _release(self, place: _Place, connection: Connection | None = None) -> None:
        """Give a place to the connection that was made, or to who waits for one."""
        with self._lock:
            self._connecting.discard(place)
            self._ahead.discard(place)
            if connection is not None:
                self._all.add(connection)
            else:
                self._free.notify()

    def _reserve_locked(self) -> _Place | None:
        is_full = len(self._all) + len(self._connecting) >= self._size
        if is_full or (self._all and self._clock() < self._short_until_ns):
            return None
        place = _Place()
        self._connecting.add(place)
        return place

    def _check_open_locked(self) -> None:
        if self._closed:
            raise ClosedError("the cache was closed")


def late(shard: str, count: int, size: int, refusal: ShardError | None) -> ShardUnavailableError:
    """Return the error of who has waited in vain for one of so many connections, of ``size`` that may be.

    Args:
        refusal: Why no more could be made when that was last tried; None: they could.
    """
    if count >= size:
        return ShardUnavailableError(shard, f"all {count} connections stayed busy; raise pool_size")
    if refusal is None:
        return ShardUnavailableError(shard, "no connection could be made in time")
    reason = str(refusal).removeprefix(f"shard {shard}: ")
    error = ShardUnavailableError(shard, f"all {count} connections stayed busy; {reason}")
    error.__cause__ = refusal
    return error
