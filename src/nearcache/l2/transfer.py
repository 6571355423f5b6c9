"""Several requests at once on as many connections, from one thread: whichever socket is ready is served.

Sending and receiving are interleaved, so that neither side can wait for the other with both buffers full, however
large the batch; and one deadline holds for everything.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import hiredis

from .._asking import Line, Pieces
from ..clocks import NS_PER_MS, Clock
from .connection import CHUNK, Connection

#: What a parser raises at what is no answer. MemoryError: it believes in any length; or there really is no memory.
UNREADABLE: Final = (hiredis.HiredisError, MemoryError)
#: Chunks read from one socket before the others get their turn and the deadline is looked at.
_TURN: Final = 64


class Flow:
    """One request on its way.

    Attributes:
        connection: Where it goes.
        data: What is to be sent.
        sent: How much of it has been.
        count: How many replies it has.
        values: The replies so far.
        line: What receives them as long as they are as usual; None: the parser does.
        heard: Whether a byte of an answer has come.
        unparsed: How many bytes have come since the last whole reply, where the parser receives.
        on_step: Called, in an event loop, when more has come and it is not finished.
        failure: Why it cannot be completed: ``TimeoutError`` (the deadline), ``EOFError`` (the server closed the
            connection), ``OSError``, or one of :data:`UNREADABLE`. The connection is of no use then.
    """

    __slots__ = ("connection", "count", "data", "failure", "heard", "line", "on_step", "sent", "unparsed", "values")

    def __init__(self, connection: Connection, data: bytes, count: int) -> None:
        self.connection = connection
        self.line: Line | None = None
        self.data = memoryview(data)
        self.sent = 0
        self.count = count
        self.values: list[Any] = []
        self.heard = False
        self.unparsed = 0
        self.on_step: Callable[[Flow], None] | None = None
        self.failure: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more can come of it, for better or worse."""
        return self.failure is not None or len(self.values) == self.count

    @property
    def events(self) -> int:
        """What to wait for."""
        if self.sent < len(self.data) or self.connection.wants_write:
            return select.POLLIN | select.POLLOUT
        return select.POLLIN

    def push(self) -> None:
        """Send what the kernel takes now."""
        connection = self.connection
        try:
            if connection.seconds != 0:
                connection.set_timeout(0)
            while self.sent < len(self.data):
                taken = connection.send_some(self.data[self.sent :])
                if not taken:
                    return
                self.sent += taken
        except OSError as error:
            self.failure = error

    def expect(self, request: Pieces) -> None:
        """Let compiled code receive the replies to a request, of which it knows what they are."""
        self.line = self.connection.line
        if self.line is not None:
            self.line.expect(request)

    def pull(self) -> None:
        """Receive what is there now."""
        connection = self.connection
        try:
            if self.line is not None and not self._is_for_others(self.line):
                return
            for turn in range(_TURN):
                chunk = connection.receive_some()
                if chunk is None:
                    return
                self.take(chunk)
                if self.finished or ((len(chunk) < CHUNK or turn == _TURN - 1) and not connection.has_buffered()):
                    return
        except (OSError, *UNREADABLE) as error:
            self.failure = error

    def _is_for_others(self, line: Line) -> bool:
        """Whether there is something that compiled code leaves to the parser, which has the beginning of it then."""
        going = line.go_on(self.connection.sock.fileno(), self.count, self.values)
        self.heard = line.heard
        if going is not None:
            return False
        self.line = None
        if rest := line.rest():
            self.take(rest)
        if line.ended and not self.finished:
            self.take(b"")
        return not self.finished

    def take(self, chunk: bytes) -> None:
        """Parse received bytes; ``b""`` is the end of the stream."""
        if not chunk:
            self.failure = EOFError("the server closed the connection")
            return
        self.heard = True
        known = len(self.values)
        self.connection.reader.feed(chunk)
        self.connection.parse(self.values, self.count)
        self.unparsed = self.unparsed + len(chunk) if len(self.values) == known else 0

    def step(self, events: int) -> None:
        """Serve the socket after ``poll`` said ``events``."""
        if events & select.POLLOUT:
            self.push()
        # Also after a failed send: there may be an answer that says why the server hung up.
        failure, self.failure = self.failure, None
        self.pull()
        self.failure = self.failure or failure


def ask(connection: Connection, data: bytes | Pieces, count: int, seconds: float) -> list[Any] | Flow:
    """Send a request and return its replies, if all goes as usual; else the flow as it stands.

    As usual means: sent in one piece, answered in time, no error among the replies.
    """
    line = connection.line
    if line is None:
        return _ask_reader(connection, whole(data), count, seconds)
    values: list[Any] = []
    failure: Exception | None = None
    try:
        if line.ask(connection.sock.fileno(), data, count, seconds, values):
            return values
    except (OSError, MemoryError) as error:
        failure = error
    flow = Flow(connection, whole(data), count)
    flow.sent, flow.heard, flow.values, flow.failure = line.sent, line.heard, values, failure
    if failure is None:
        _resume(flow, line.rest(), ended=line.ended)
    return flow


def whole(data: bytes | Pieces) -> bytes:
    """Return a request in one piece."""
    return data.data if isinstance(data, Pieces) else data


def _resume(flow: Flow, rest: bytes, *, ended: bool) -> None:
    """Let a flow go on with what has come and was not understood."""
    try:
        if rest:
            flow.take(rest)
        if ended and not flow.finished:
            flow.take(b"")
    except UNREADABLE as error:
        flow.failure = error


def _ask_reader(connection: Connection, data: bytes, count: int, seconds: float) -> list[Any] | Flow:
    """The same, where only the socket's own methods can be used."""
    flow = None
    values: list[Any] = []
    sent = 0
    heard = False
    start = time.monotonic()
    try:
        # What the last call left is near enough in most cases, and costs no system call.
        if not 0.9 * seconds <= connection.seconds <= 1.02 * seconds:
            connection.set_timeout(max(seconds, 0.001))
        sock = connection.sock
        sent = sock.send(data) if len(data) <= connection.once else 0
        if sent == len(data):
            while chunk := sock.recv(CHUNK):
                heard = True
                connection.reader.feed(chunk)
                if connection.parse(values, count):
                    if not connection.errors and not connection.reader.has_data():
                        return values
                    break
                left = start + seconds - time.monotonic()
                if left <= 0 or connection.has_buffered():
                    break
                connection.set_timeout(left)  # a large answer takes several; one that drips must not take for ever
            flow = Flow(connection, data, count)
            if not chunk:
                flow.take(chunk)
    except (OSError, *UNREADABLE) as error:
        flow = Flow(connection, data, count)
        flow.failure = error
    flow = flow or Flow(connection, data, count)
    flow.sent = sent
    flow.heard = heard
    flow.values = values
    return flow


def run(flows: list[Flow], deadline_ns: int, clock: Clock) -> Iterator[Flow]:
    """Carry out all ``flows``; yield each as soon as it is finished or has failed, at the deadline at the latest.

    Answers that have arrived by the deadline count, even when reading starts after it.
    """
    poller = select.poll()
    waiting: dict[int, Flow] = {}
    for flow in flows:
        if not flow.finished:
            flow.push()
            if flow.failure is not None:
                flow.step(0)
        if flow.finished:
            yield flow
        else:
            waiting[flow.connection.sock.fileno()] = flow
            poller.register(flow.connection.sock, flow.events)
    while waiting:
        remaining_ms = max(0, -((clock() - deadline_ns) // NS_PER_MS))
        ready = poller.poll(remaining_ms)
        for descriptor, events in ready:
            flow = waiting[descriptor]
            flow.step(events)
            if flow.finished:
                poller.unregister(descriptor)
                del waiting[descriptor]
                yield flow
            else:
                poller.modify(descriptor, flow.events)
        if clock() >= deadline_ns:
            break
    for flow in waiting.values():
        flow.failure = TimeoutError("no answer in time")
        yield flow
