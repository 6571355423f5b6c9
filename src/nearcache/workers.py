"""Threads, and work for what nobody waits for. There are none while there is nothing to do."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ._reads import Event
from .errors import CacheError
from .logs import Recurring, log, log_not_renewed

#: Most threads of one cache, and most pieces of work that wait for one.
MOST_THREADS: Final = 4
MOST_WAITING: Final = 1000


def start_thread(name: str, work: Callable[..., object], *arguments: object) -> threading.Thread | None:
    """Return a daemon thread that has begun to do this; None: none can be had now, or the interpreter ends.

    None as well in a process that is to be forked while threads run: see :func:`is_to_fork`.
    """
    if is_to_fork():
        return None
    try:
        thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
        thread.start()
    except (RuntimeError, MemoryError):
        return None
    return thread


def refuse_greenlets() -> None:
    """Look whether threads are threads here: of greenlets, one that waits in C keeps all others waiting.

    Raises:
        CacheError: gevent or eventlet has put greenlets in their place.
    """
    origin = threading.get_ident.__module__.partition(".")[0]
    if origin in ("gevent", "eventlet"):
        raise CacheError(
            f"{origin} has put greenlets in the place of threads, and a cache on Redis needs real "
            "ones: use workers that are threads or processes, or memory://"
        )


def is_to_fork() -> bool:
    """Whether this process is uWSGI's master, or will be: it is neither a worker nor a mule nor the spooler.

    That forks in C, without the interpreter's lock and without Python's hooks. If a thread has the lock just then, the
    child waits for it for ever. So in the master there is to be no thread. It is asked each time, for without
    ``--master`` the process becomes a worker itself, and nothing tells of it.
    """
    uwsgi = sys.modules.get("uwsgi")
    asked = [getattr(uwsgi, name, None) for name in ("worker_id", "mule_id", "i_am_the_spooler")]
    return asked[0] is not None and not any(ask() for ask in asked if ask is not None)


def warn_of_pauses(namespace: str) -> None:
    """Say in the log that the threads of a cache run only while uWSGI has a request in hand, if that is so."""
    if not getattr(sys.modules.get("uwsgi"), "has_threads", True):
        text = (
            "namespace %s: between requests uWSGI lets no thread run here, so that L1 goes dark and what is written "
            "behind the cache waits: give it --enable-threads"
        )
        log(logging.WARNING, text, namespace)


class Helper:
    """Does something for a cache in a thread, which begins when the cache is first used: in a forked child, too.

    Attributes:
        thread: The thread; None: it has not begun.
    """

    _name: str

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._stopping = Event()
        self._started = threading.Lock()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, once. Cheap when already done."""
        if self.thread is None and not self._stopping.is_set() and self._started.acquire(blocking=False):
            self.thread = self._begin()
            if self.thread is None:
                self._started.release()  # the next call that needs more than L1 tries again

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stopping.set()
        self._join()

    def after_fork(self) -> None:
        """In the child: the thread is the parent's. :meth:`start` makes another one."""
        self._begin_anew()

    def _begin(self) -> threading.Thread | None:
        return start_thread(self._name, self._run)

    def is_at_work(self) -> bool:
        """Whether its thread runs, and is not the one that asks."""
        thread = self.thread
        return thread is not None and thread is not threading.current_thread() and thread.is_alive()

    def _join(self, longest_s: float | None = None) -> None:
        if self.thread is not None and self.is_at_work():
            self.thread.join(longest_s)

    def _run(self) -> None:
        raise NotImplementedError


class Workers:
    """Carries out work in daemon threads, at most ``threads`` at a time, each of which ends when nothing is left.

    Args:
        namespace: Whose values are loaded, for the log.
    """

    def __init__(self, namespace: str, threads: int = MOST_THREADS) -> None:
        self._namespace = namespace
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
        if start_thread("nearcache-refresh", self._work) is None:
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
                log_not_renewed(self._failures, self._namespace, keys, error)
