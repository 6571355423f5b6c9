"""Who listens to a cache: a bounded queue and a thread for each, so that a slow listener delays nobody but itself."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..._reads import Event
from ...choices import Seconds, timeout_to_s
from ...events import WHOLE, EntryEvent
from ...logs import Recurring, log
from ...workers import Helper
from ..scanning import under

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_numbers = itertools.count(1)
#: Ends the thread that takes it from the queue.
_END: Final = None
#: How often somebody who waits for a thread looks whether it is still there.
_LOOK_S: Final = 0.5


class Hub(Protocol):
    """What a subscription belongs to. See :mod:`.listening`."""

    @property
    def namespace(self) -> str:
        """The cache's, for the log."""

    def leave(self, subscription: Subscription) -> None:
        """Tell it nothing more."""

    def catch_up(self, until: float | None) -> bool:
        """Wait until what has been changed so far is known here."""


class Over(Exception):
    """What a listener raises when it can be called no more: its event loop has ended, say."""


class Subscription:
    """What ``listen`` returns. The function is called until :meth:`close`, or until the cache is closed or collected.

    It is called by a thread of its own, for one event after the other, in the order in which they came. No lock of the
    cache is held meanwhile, so that it may take its time and use the cache. Of those that come while ``queue`` events
    wait, none is kept: they are counted, and before the next one the function is told that it ``missed`` some.

    Attributes:
        kinds: The kinds of events that were asked for.
        limit: Most events that wait.
    """

    def __init__(
        self,
        function: Callable[[EntryEvent], object],
        kinds: frozenset[str],
        limit: int,
        path: tuple[Any, ...],
        hub: Hub,
    ) -> None:
        self.kinds = kinds
        self.limit = limit
        self._function = function
        self._path = path
        self._hub = hub
        self._closed = False
        self._has_gap = False
        # Re-entrant: an event may come from within a collection, which may begin anywhere.
        self._lock = threading.RLock()
        self._dropped = 0
        self._delivered = 0
        self._errors = 0
        self._failures = Recurring()
        self._begin()

    def _begin(self) -> None:
        self._delivery = Delivery(self)
        self._queue = self._delivery.queue
        self._delivery.start()

    @property
    def _thread(self) -> threading.Thread | None:
        return self._delivery.thread

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.pending} pending"
        return f"<Subscription of {self._function!r}: {state}, {self._dropped} dropped, {self._errors} errors>"

    # -- what has become of the events

    @property
    def pending(self) -> int:
        """Events that wait."""
        return self._queue.qsize()

    @property
    def delivered(self) -> int:
        """Events that the function was called with."""
        return self._delivered

    @property
    def dropped(self) -> int:
        """Events that found the queue full."""
        return self._dropped

    @property
    def errors(self) -> int:
        """Calls that raised. That is logged, once a second at most, and nothing else comes of it."""
        return self._errors

    def flush(self, timeout: Seconds | None = None) -> bool:
        """Wait until the function has returned from all that was changed before; False: not in so many seconds.

        On Redis each shard is asked first whether a message is still to come, of this process or another. One that
        does not answer is not waited for any more when its lane is lost, which is told as ``missed``.
        """
        until = None if timeout is None else time.monotonic() + timeout_to_s(timeout)
        if self._closed or threading.current_thread() is self._thread:
            return True
        if not self._hub.catch_up(until):
            return False
        self._delivery.start()
        if self._thread is None:  # in uWSGI's master, which has none
            return not self.pending
        reached = Event()
        self._queue.put(reached)
        return await_thread(self._thread, reached, until)

    # -- life

    def close(self) -> None:
        """Call the function no more; what waits is let go of. A call that is under way goes on. Idempotent."""
        self._closed = True
        self._hub.leave(self)
        self._queue.put(_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the cache, and for the thread

    def put(self, event: EntryEvent) -> None:
        """Have the function called with an event, if it concerns the part of the cache that is listened to."""
        self._delivery.start()
        if self._path and event.kind not in WHOLE:
            if not under(self._path, event.key):
                return
            event = EntryEvent(event.kind, event.key[-1], event.value, event.has_value, event.cause, event.origin)
        if self._queue.qsize() >= self.limit:
            self._drop()
            return
        if self._has_gap:
            self._has_gap = False
            if "missed" in self.kinds:
                self._queue.put(EntryEvent("missed", None, None, False, "overflow", "local"))
        self._queue.put(event)

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
            self._has_gap = True
            is_first = self._dropped == 1
        if is_first:
            log(
                logging.WARNING,
                "namespace %s: a listener is too slow for its queue of %d events: %r",
                self._hub.namespace,
                self.limit,
                self._function,
            )

    def take(self, event: EntryEvent) -> bool:
        """Call the function with an event. Returns whether it is to be called again."""
        if self._closed:
            return False
        try:
            self._function(event)
        except Over:
            self.close()
            return False
        except BaseException as error:  # noqa: BLE001  a thread has nobody else to tell
            self._errors += 1
            text = "namespace %s: a listener failed: %r"
            self._failures.log(logging.ERROR, text, self._hub.namespace, self._function, error=error)
        self._delivered += 1
        return not self._closed

    def after_fork(self) -> None:
        """In the child: the thread is not here, and the lock may have been held. What waited is the parent's."""
        self._lock = threading.RLock()
        if not self._closed:
            self._begin()


def await_thread(thread: threading.Thread, reached: Event, until: float | None) -> bool:
    """Wait until a thread has set an event, or has ended. False: neither, by then (``time.monotonic``)."""
    while not reached.wait(_LOOK_S if until is None else min(_LOOK_S, max(0.0, until - time.monotonic()))):
        if not thread.is_alive():
            break
        if until is not None and time.monotonic() >= until:
            return False
    return True


class Delivery(Helper):
    """Calls a listener in a thread of its own. While it waits it holds nothing: the listener may refer to the cache."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__()
        # A SimpleQueue may be put to from anywhere, a destructor included.
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ends: Callable[[Any], None] = self.queue.put
        self._subscription = weakref.ref(subscription, lambda _: ends(_END))
        self._name = f"nearcache-events-{next(_numbers)}"

    def _run(self) -> None:
        events = self.queue
        while True:
            event = events.get()
            if isinstance(event, Event):
                event.set()
                continue
            listening = None if event is _END else self._subscription()
            if listening is None or not listening.take(event):
                _let_go(events)
                return
            del event, listening


def _let_go(events: queue.SimpleQueue[Any]) -> None:
    """Nobody is to be told of the rest; but nobody waits for it either."""
    while not events.empty():
        event = events.get()
        if isinstance(event, Event):
            event.set()
