"""Real code that blocks, as a part of the simulated world: its thread runs only while the world stands still.

What the code would block on, an exchange with servers, a lock or a pause, is handed over to the world as a request and
its answer comes back. So one of all threads runs at a time, and which one that is the seed decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from nearcache.flights import Signal
from nearcache.loading.steps import Await

#: Longer than any run.
_FOR_EVER_S: Final = 1e6
_local: Final = threading.local()


class _RunIsOver(BaseException):
    """Ends a thread that nobody waits for any more."""


class Handoff:
    """One such thread."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self._target = target
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._request: Any = None
        self._answer: Any = None
        self._is_over = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def steps(self) -> Iterator[Any]:
        """The requests of the code, as a client carries out steps; returns what it returns."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._resume(None)
        while self._thread is not None:
            answer = yield self._request
            self._resume(answer)
        if self._error is not None:
            raise self._error
        return self._value

    def end(self) -> None:
        """End the thread, if it has not ended."""
        self._is_over = True
        while self._thread is not None:
            self._resume(None)

    def _resume(self, answer: Any) -> None:
        assert self._thread is not None
        self._answer = answer
        self._turn.release()
        self._back.acquire()
        if self._request is None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        _local.handoff = self
        self._turn.acquire()
        try:
            self._value = self._target()
        except BaseException as error:
            self._error = error
        self._request = None
        self._back.release()

    def ask(self, request: Any) -> Any:
        """In the thread: hand a request over, and wait for the answer."""
        if self._is_over:
            raise _RunIsOver
        self._request = request
        self._back.release()
        self._turn.acquire()
        if self._is_over:
            raise _RunIsOver
        return self._answer


def here() -> Handoff:
    """The one whose thread this is."""
    found: Handoff = _local.handoff
    return found


class Lock:
    """Takes the place of a re-entrant lock."""

    def __init__(self) -> None:
        self._owner: int | None = None
        self._depth = 0
        self._waiting: list[Signal] = []

    def __enter__(self) -> None:
        me = threading.get_ident()
        while self._owner not in (None, me):
            self._waiting.append(Signal())
            here().ask(Await(self._waiting[-1], _FOR_EVER_S))
        self._owner = me
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            waiting, self._waiting = self._waiting, []
            for signal in waiting:
                signal.set()


class Event:
    """Takes the place of an event that is waited for in order to pause."""

    def __init__(self) -> None:
        self._signal = Signal()

    def set(self) -> None:
        """It happens."""
        self._signal.set()

    def clear(self) -> None:
        """It may happen once more."""
        self._signal = Signal()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._signal.is_set()

    def wait(self, seconds: float) -> bool:
        """Pause."""
        return bool(here().ask(Await(self._signal, seconds)))
