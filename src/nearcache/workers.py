"""Threads for what nobody waits for. There are none while there is nothing to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .logs import Recurring, log_not_renewed

#: Most threads of one cache, and most pieces of work that wait for one.
MOST_THREADS: Final = 4
MOST_WAITING: Final = 1000


class Workers:
    """Carries out work in daemon threads, at most ``threads`` at a time, each of which ends when nothing is left."""

    def __init__(self, threads: int = MOST_THREADS) -> None:
        self._most = threads
        self._running = 0
        self._waiting: deque[tuple[Callable[[], Any], Any]] = deque()
        self._lock = threading.RLock()  # a collection may close them in the middle
        self._closed = False
        self._failures = Recurring()

    def submit(self, work: Callable[[], Any], keys: Any) -> bool:
        """Have it called, some time. False if that is not going to happen: closed, or too much waits already.

        Args:
            work: Loads values anew.
            keys: Whose, for the log.
        """
        mine = (work, keys)
        with self._lock:
            if self._closed or len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(mine)
            if self._running >= self._most:
                return True
            self._running += 1
        try:
            threading.Thread(target=self._work, name="nearcache-refresh", daemon=True).start()
        except RuntimeError:  # the system has no more threads, or the interpreter ends
            with self._lock:
                self._running -= 1
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    return False
        return True

    def close(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                work, keys = self._waiting.popleft()
            try:
                work()
            except BaseException as error:  # noqa: BLE001  nobody else is there to be told
                log_not_renewed(self._failures, keys, error)
