"""A thread of a cache's own, beside its listener."""

from __future__ import annotations

import threading

from ..._reads import Event


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
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread can be had now; the next call that needs more than L1 tries again
                self._started.release()
                return
            self.thread = thread

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._stopping.set()
        self._join()

    def after_fork(self) -> None:
        """In the child: the thread is the parent's. :meth:`start` makes another one."""
        self._begin_anew()

    def _join(self, longest_s: float | None = None) -> None:
        thread = self.thread
        if thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join(longest_s)

    def _run(self) -> None:
        raise NotImplementedError
