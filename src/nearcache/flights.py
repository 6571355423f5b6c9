"""Flights: work that is done once in this process, however many threads ask for it.

Two kinds. A :class:`Read` is a pending L2 read, known to the store by rules R1 to R5; other threads may join it while
nothing has happened to its key. A :class:`Load` is one call of the user's loader; it spans the read, the loader and
the write to L2.

A load can be waited for by a thread whose own load is waited for in turn, and so on round to itself. That would be a
deadlock, so before a thread waits, the chain of owners and what they wait for is followed; a cycle is an error that
shows the keys.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, Final

from ._store import Op
from .errors import LoadCycleError

#: Outcome of a flight that ended with nothing to share: the waiter has to do the work itself.
ABANDONED: Final = object()
_PENDING: Final = object()


class Read(Op):
    """A pending L2 read that other threads may wait for."""

    __slots__ = ("_done", "_outcome")

    def __init__(self, key: Hashable, lane: int) -> None:
        super().__init__(key, lane)
        self._outcome: Any = _PENDING
        self._done: threading.Event | None = None

    def resolve(self, outcome: object, lock: threading.Lock) -> None:
        """Give every waiter the outcome. Once is enough: later calls change nothing."""
        with lock:
            if self._outcome is not _PENDING:
                return
            self._outcome = outcome
            done = self._done
        if done is not None:
            done.set()

    def wait(self, lock: threading.Lock, timeout_s: float) -> Any:
        """Return the outcome, or :data:`ABANDONED` if it is not there within the time."""
        with lock:
            if self._outcome is not _PENDING:
                return self._outcome
            if self._done is None:
                self._done = threading.Event()
            done = self._done
        return self._outcome if done.wait(timeout_s) else ABANDONED


class Load:
    """One call of a loader, owned by the thread that makes it."""

    __slots__ = ("done", "error", "key", "owner", "value")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.owner = threading.get_ident()
        self.done = threading.Event()
        self.value: Any = ABANDONED
        self.error: Exception | None = None


class Loads:
    """The loads under way in this process.

    The pattern of use, in which an interrupt at any point frees the waiters::

        mine = Load(key)
        try:
            load = loads.begin(mine)
            if load is not mine:
                return loads.wait(load)
            mine.value = loader(key)
        except Exception as error:
            mine.error = error
            raise
        finally:
            loads.end(mine)
    """

    def __init__(self) -> None:
        # Re-entrant, because comparing keys of a memory:// cache may run any code, this cache included.
        self._lock = threading.RLock()
        self._by_key: dict[Hashable, Load] = {}
        self._waiting: dict[int, Load] = {}  # thread -> the load it waits for

    def __len__(self) -> int:
        return len(self._by_key)

    def begin(self, mine: Load) -> Load:
        """Return the load of the key: ``mine`` if the caller is to carry it out, else the one to :meth:`wait` for."""
        with self._lock:
            return self._by_key.setdefault(mine.key, mine)

    def wait(self, load: Load) -> Any:
        """Wait for another load; return its value, :data:`ABANDONED`, or raise what its loader raised.

        Raises:
            LoadCycleError: Waiting would be for ever, because that load waits, through others, for this thread.
        """
        me = threading.get_ident()
        with self._lock:
            self._refuse_cycle(load, me)
            outer = self._waiting.get(me)
            self._waiting[me] = load
        try:
            load.done.wait()
        finally:
            with self._lock:
                if outer is None:
                    self._waiting.pop(me, None)
                else:
                    self._waiting[me] = outer
        if load.error is not None:
            raise load.error
        return load.value

    def end(self, mine: Load) -> None:
        """Finish a load. Harmless for one that :meth:`begin` never took, and the second time.

        An ``Exception`` reaches every waiter. Anything else (an interrupt, an exit) concerns one thread only: the
        waiters find the load abandoned, and the first of them to come back takes it over.
        """
        with self._lock:
            if self._by_key.get(mine.key) is mine:
                del self._by_key[mine.key]
        mine.done.set()

    def _refuse_cycle(self, load: Load, me: int) -> None:
        chain = [load.key]
        link: Load | None = load
        while link is not None and link.owner != me:
            link = self._waiting.get(link.owner)
            if link is not None:
                chain.append(link.key)
        if link is not None:
            raise LoadCycleError([*chain, load.key])
