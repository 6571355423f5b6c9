"""What steps ask for, and how a thread carries it out.

The logic of reads, writes and loads stands in generators ("steps") that do no I/O: they yield a :data:`Request` and
are sent its answer. :func:`course` decides what has to be sent and how long it may take; a driver for threads, here,
and one for event loops perform that, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

from ..answers import is_coroutine_loader
from ..coroutines import carried
from ..errors import ShardError
from ..flights import Load, Read, Signal
from ..l2 import Driver, Exchange, Reply
from ..workers import Workers
from .exchanges import Exchanges, OnReply
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
        keys: What it will be called with, for the log.
    """

    make: Callable[[], Steps[Any]]
    loader: Callable[..., Any]
    keys: Any


#: A list of exchanges is answered by a list of the same length: a Reply each, or the ShardError that came instead.
Request = list[Exchange] | Call | JoinRead | JoinLoad | Await | Spawn
Steps = Generator[Request, Any, T]

#: The requests whose time is the network's.
_ON_NETWORK: Final = (list, JoinRead)

#: What a driver is to perform: a request, who hears of each of its replies at once, and how long the network may take.
Stage = tuple[Request, OnReply | None, float]


def course(tier: Tier, steps: Steps[T], timeout_s: float) -> Generator[Stage, Any, T]:
    """Carry out steps: yield all that is to be performed, and return what the steps return. No I/O here either.

    Args:
        timeout_s: One deadline for all network steps. What else there is to wait for has its time to itself.
    """
    left_s = timeout_s
    try:
        request = next(steps)
        while True:
            start = monotonic()
            on_reply, most_s = None, left_s
            if isinstance(request, Exchanges):
                on_reply, most_s = request.on_reply, left_s / 2 if request.goes_on else left_s
            try:
                if not isinstance(request, list):
                    answer = yield request, None, left_s
                elif tier.observed is None and not tier.is_changing:  # nearly every request
                    answer = yield request, on_reply, most_s
                    heed(tier, answer)
                else:
                    answer = yield from _extended(tier, request, most_s)
            except BaseException as error:  # noqa: BLE001  an interrupt too: the steps have something to undo
                request = steps.throw(error)
            else:
                if isinstance(request, _ON_NETWORK):
                    rest_s = left_s - (monotonic() - start)
                    left_s = rest_s if rest_s > 0.0 else 0.0
                request = steps.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _extended(
    tier: Tier, request: list[Exchange], left_s: float
) -> Generator[Stage, list[Reply | ShardError], list[Reply | ShardError]]:
    """A request where lanes are observed, or where a change has two owners: more is sent than the steps know of."""
    observing = None if tier.observed is None else Observing(tier, request)
    asked = request if observing is None else observing.exchanges
    on_reply = asked.on_reply if isinstance(asked, Exchanges) else None
    if not tier.is_changing:
        replies = yield asked, on_reply, left_s
    else:
        spread = Spread(tier, asked)
        try:  # what one owner says of a change means nothing yet
            replies = spread.gathered((yield spread.exchanges, None if spread.adds else on_reply, left_s))
        except BaseException:
            spread.interrupted()
            raise
    heed(tier, replies)
    return replies if observing is None else observing.taken(replies)


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
        self._workers = Workers(self._tier.namespace)

    def after_fork(self) -> None:
        """In the child: what the parent had in the background is not carried on here."""
        self._workers = Workers(self._tier.namespace)

    def close(self) -> None:
        """Begin nothing more in the background."""
        self._workers.close()

    def run(self, steps: Steps[T]) -> T:
        """Return what the steps return; raise what they raise."""
        todo = course(self._tier, steps, self._timeout_s)
        try:
            request, on_reply, left_s = next(todo)
            while True:
                try:
                    if isinstance(request, list):
                        answer: Any = self._driver.execute(request, timeout_s=left_s, on_reply=on_reply)
                    else:
                        answer = self._perform(request, left_s)
                except BaseException as error:  # noqa: BLE001  whatever it is, it is for the steps
                    request, on_reply, left_s = todo.throw(error)
                else:
                    request, on_reply, left_s = todo.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _perform(self, request: Call | JoinRead | JoinLoad | Await | Spawn, left_s: float) -> Any:
        if isinstance(request, Call):
            return carried(request.loader, request.key)
        if isinstance(request, JoinRead):
            return request.read.wait(self._tier.lock, left_s)
        if isinstance(request, Await):
            return request.signal.wait(request.seconds)
        if isinstance(request, Spawn):
            if is_coroutine_loader(request.loader):  # no thread can call it
                return False
            return self._workers.submit(lambda: self.run(request.make()), request.keys)
        return self._tier.loads.wait(request.load)
