"""What steps ask for, and how a thread carries it out.

The logic of reads, writes and loads stands in generators ("steps") that do no I/O: they yield a :data:`Request` and
are sent its answer. One loop here performs the requests for threads; another driver can perform the same steps for
an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..answers import is_coroutine_loader
from ..errors import ShardError
from ..flights import Load, Read, Signal
from ..l2 import Driver, Exchange, Reply
from ..workers import Workers
from .exchanges import Exchanges
from .moving import Spread, heed
from .observing import Observing
from .tier import Tier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """Call the user's loader. Answer: its value; what it raises is raised in the steps."""

    loader: Callable[[Any], Any]
    key: Any


@dataclass(frozen=True, slots=True)
class JoinRead:
    """Wait for another thread's read. Answer: its outcome, or ABANDONED."""

    read: Read


@dataclass(frozen=True, slots=True)
class JoinLoad:
    """Wait for another thread's load. Answer: its value, or ABANDONED."""

    load: Load


@dataclass(frozen=True, slots=True)
class Await:
    """Wait for a signal. Answer: whether it came within the time. Time spent here is not the network's."""

    signal: Signal
    seconds: float


@dataclass(frozen=True, slots=True)
class Spawn:
    """Carry out other steps, in the background: nobody waits. Answer: whether they will be; they may be refused.

    Attributes:
        make: Makes the steps, when their time has come.
        loader: What they will call.
    """

    make: Callable[[], Steps[Any]]
    loader: Callable[..., Any]


#: A list of exchanges is answered by a list of the same length: a Reply each, or the ShardError that came instead.
Request = list[Exchange] | Call | JoinRead | JoinLoad | Await | Spawn
Steps = Generator[Request, Any, T]


class ThreadRunner:
    """Carries out steps in the calling thread.

    Args:
        driver: Performs the exchanges.
        timeout_s: One deadline for all network steps of one call. The user's loader has its time to itself.
    """

    def __init__(self, driver: Driver, tier: Tier, timeout_s: float) -> None:
        self._driver = driver
        self._tier = tier
        self._timeout_s = timeout_s
        self._workers = Workers()

    def after_fork(self) -> None:
        """In the child: what the parent had in the background is not carried on here."""
        self._workers = Workers()

    def close(self) -> None:
        """Begin nothing more in the background."""
        self._workers.close()

    def run(self, steps: Steps[T]) -> T:
        """Return what the steps return; raise what they raise."""
        left_s = self._timeout_s
        try:
            request = next(steps)
            while True:
                start = time.monotonic()
                try:
                    if isinstance(request, list):  # nearly every request
                        exchange = self._exchange if self._tier.observed is None else self._observe
                        answer = exchange(request, left_s)
                    else:
                        answer = self._perform(request, left_s)
                except BaseException as error:  # noqa: BLE001  an interrupt too: the steps have something to undo
                    request = steps.throw(error)
                else:
                    if isinstance(request, (list, JoinRead)):
                        left_s = max(0.0, left_s - (time.monotonic() - start))
                    request = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _observe(self, request: list[Exchange], left_s: float) -> list[Reply | ShardError]:
        observing = Observing(self._tier, request)
        return observing.taken(self._exchange(observing.exchanges, left_s))

    def _perform(self, request: Call | JoinRead | JoinLoad | Await | Spawn, left_s: float) -> Any:
        if isinstance(request, Call):
            return request.loader(request.key)
        if isinstance(request, JoinRead):
            return request.read.wait(self._tier.lock, left_s)
        if isinstance(request, Await):
            return request.signal.wait(request.seconds)
        if isinstance(request, Spawn):
            if is_coroutine_loader(request.loader):  # no thread can call it
                return False
            return self._workers.submit(lambda: self.run(request.make()))
        return self._tier.loads.wait(request.load)

    def _exchange(self, request: list[Exchange], left_s: float) -> list[Reply | ShardError]:
        on_reply = request.on_reply if isinstance(request, Exchanges) else None
        if not self._tier.is_changing:
            replies = self._driver.execute(request, timeout_s=left_s, on_reply=on_reply)
        else:
            spread = Spread(self._tier, request)
            if spread.adds:  # what one owner says of a change means nothing yet
                on_reply = None
            try:
                given = self._driver.execute(spread.exchanges, timeout_s=left_s, on_reply=on_reply)
                replies = spread.gathered(given)
            except BaseException:
                spread.interrupted()
                raise
        heed(self._tier, replies)
        return replies
