"""The connections of one event loop to one shard.

They are made in a short-lived thread, because looking up names, TLS and the embedded servers' restart block; and not in
the loop's executor, where loaders might keep a connection waiting. From then on a connection stays registered with its
loop, so that a request costs no change of what the loop watches, and the loop sees when an idle one is closed by the
server.
"""

from __future__ import annotations

import asyncio
import copy
import select
import threading
from collections import deque
from collections.abc import Coroutine
from itertools import islice
from typing import Any, Final

from ..clocks import Clock
from ..errors import ClosedError, ShardError, ShardUnavailableError
from ..loops import wake
from .connection import Connection
from .pipelines import ALONE, Pipeline, own
from .pool import DIAL_NS, late
from .shard import Shard
from .shortage import SHORT_NS, is_shortage
from .transfer import Flow

_READ: Final = select.POLLIN
_WRITE: Final = select.POLLOUT
#: Connections of one pool that are made at the same time. Most who wait are served by one that is put back.
_DIALS: Final = 4


class LoopPool:
    """The connections of one loop to one shard. Used in the loop's thread only, so that it needs no lock.

    Attributes:
        idle: The connections not in use.
        shard: Whose they are.
        forming: What takes further calls along, until there is a connection for it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, shard: Shard, size: int, clock: Clock) -> None:
        self.idle: deque[Connection] = deque()
        self.shard = shard
        self.loop = loop
        self.forming: Pipeline | None = None
        self._pipelines: set[asyncio.Task[None]] = set()  # loops hold tasks weakly
        self._size = size
        self._clock = clock
        self._watched: dict[Connection, _Watched] = {}
        self._dialling = 0
        self._waiters: deque[tuple[int, asyncio.Future[Connection]]] = deque()  # numbered as they came
        self._came = 0
        self._short_until_ns = 0
        self._refusal: ShardError | None = None
        self._closed = self._retired = False

    @property
    def is_crowded(self) -> bool:
        """Whether so many use connections, or wait for one, that others had better go along with each other."""
        alone = len(self._watched) - len(self.idle) + len(self._waiters)
        return self.forming is not None or alone >= min(ALONE, self._size)

    def form(self, pipeline: Pipeline, course: Coroutine[Any, Any, None]) -> None:
        """Let others be taken along by a pipeline from now on, and have it carried out."""
        # Not by the loop's factory, which may be one that begins at once: others are still to come.
        work = asyncio.Task(course, loop=self.loop)
        work._log_destroy_pending = False  # type: ignore[attr-defined]  # its readers may all have gone before the loop
        self._pipelines.add(work)
        self.forming = pipeline

        def end(work: asyncio.Task[None]) -> None:  # which may have been cancelled before it began
            self._pipelines.discard(work)
            self.formed(pipeline)
            pipeline.release()

        work.add_done_callback(end)

    def formed(self, pipeline: Pipeline) -> None:
        """Let nobody else be taken along."""
        if self.forming is pipeline:
            self.forming = None

    async def transfer(self, flow: Flow, deadline_ns: int) -> None:
        """Carry out a flow on one of the pool's connections: until it is finished or has failed, or the deadline."""
        watched = self._watched.get(flow.connection)
        if watched is None:  # the server has hung up while it was handed over
            flow.failure = EOFError("the server closed the connection")
            return
        await watched.transfer(flow, (deadline_ns - self._clock()) / 1e9)

    async def connection(self, deadline_ns: int) -> Connection:
        """Return a new connection, or one that is put back, whichever there is first.

        Raises:
            ShardUnavailableError: None was free until the deadline.
            ShardError: As ``Shard.connect`` does.
            ClosedError: The pool was closed meanwhile.
        """
        if self._closed:
            raise ClosedError("the cache was closed")
        future: asyncio.Future[Connection] = self.loop.create_future()
        self._came += 1
        self._waiters.append((self._came, future))
        timer = self.loop.call_later(max(0.0, (deadline_ns - self._clock()) / 1e9), self._give_up, future)
        try:
            self._dial()
            return await future
        except BaseException:
            if not future.done() and not self.loop.is_closed():
                future.cancel()
            elif future.done() and not future.cancelled() and future.exception() is None:
                self.put(future.result())  # it came at the same time
            raise
        finally:
            timer.cancel()

    def _give_up(self, waiter: asyncio.Future[Connection]) -> None:
        if not waiter.done():
            waiter.set_exception(late(self.shard.name, len(self._watched), self._size, self._refusal))

    def put(self, connection: Connection) -> None:
        """Take back a connection on which nothing is due, and hand it to who has waited longest."""
        if connection not in self._watched:
            return  # it was closed meanwhile
        if self._waiters and not self.shard.is_current(connection):
            self.discard(connection)  # and another is made for them
            return
        while self._waiters:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self.idle.append(connection)
        if self._retired:
            self.flush()

    def discard(self, connection: Connection) -> None:
        """Close a connection that has failed, or whose state is not known."""
        self._drop(connection, watched=not self.loop.is_closed())
        self._dial()

    def flush(self) -> None:
        """Close the idle connections: the server they led to is gone."""
        while self.idle:
            self.discard(self.idle[-1])

    def retire(self) -> None:
        """Close the idle connections now and the others when they are put back. Who waits for one still gets it."""
        self._retired = True
        self.flush()

    def close(self, *, watched: bool) -> None:
        """Close all connections. ``watched``: the loop still watches them."""
        self._closed = True
        for connection in list(self._watched):
            self._drop(connection, watched=watched)
        if watched:
            self._refuse(ClosedError("the cache was closed"), self._came)

    def _drop(self, connection: Connection, *, watched: bool) -> None:
        known = self._watched.pop(connection, None)
        if known is not None and watched:
            known.end()
        if connection in self.idle:
            self.idle.remove(connection)
        connection.close()

    def _refuse(self, error: BaseException, last: int) -> None:
        """Let those who waited have an error."""
        while self._waiters and self._waiters[0][0] <= last:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(own(error))

    def _dial(self) -> None:
        """Make connections for those who wait, but not as many at once as there are of them."""
        most = min(self._size - len(self._watched), _DIALS)
        if self._dialling >= most or self._is_short():
            return
        waiting = (waiter for _, waiter in self._waiters if not waiter.done())
        wanted = sum(1 for _ in islice(waiting, most))  # not all: thousands may wait, and each of them comes by here
        while self._dialling < wanted and not self._closed:
            self._dialling += 1
            try:
                thread = threading.Thread(
                    target=self._dial_here, args=(self._came,), name="nearcache-dial", daemon=True
                )
                thread.start()
            except BaseException as error:
                self._dialling -= 1
                if not isinstance(error, (RuntimeError, MemoryError)):
                    raise
                if not self._watched and not self._dialling:  # else those who wait are served by what there is
                    self._refuse(ShardUnavailableError(self.shard.name, f"cannot connect: {error}"), self._came)
                return

    def _dial_here(self, last: int) -> None:
        """Make one, in a thread for that. It may take its time, whatever time its takers have.

        If that fails, those hear of it who had come when it began; who comes later may have come after the trouble.
        """
        outcome: Connection | BaseException
        try:
            outcome = self.shard.connect(self._clock() + DIAL_NS)
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised where somebody waits
            outcome = error
        if not wake(self.loop, self._dialled, outcome, last) and isinstance(outcome, Connection):
            outcome.close()

    def _dialled(self, outcome: Connection | BaseException, last: int) -> None:
        self._dialling -= 1
        if isinstance(outcome, BaseException):
            if isinstance(outcome, ShardError) and is_shortage(outcome):
                self._refusal = copy.copy(outcome)
                self._short_until_ns = self._clock() + SHORT_NS
            if not self._is_short():
                self._refuse(outcome, last)
            self._dial()
        elif self._closed or outcome.is_stale():  # stale: the server went away while the loop was busy
            outcome.close()
            self._dial()
        else:
            self._refusal = None
            self._watched[outcome] = _Watched(self.loop, self, outcome)
            self.put(outcome)
            self._dial()

    def _is_short(self) -> bool:
        """Whether those that there are have to do: no more could be made, a moment ago."""
        return bool(self._watched) and self._clock() < self._short_until_ns


class _Watched:
    """A connection that a loop watches."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: LoopPool, connection: Connection) -> None:
        self._loop = loop
        self._pool = pool
        self._connection = connection
        self._flow: Flow | None = None
        self._done: asyncio.Future[None] | None = None
        self._writing = False
        connection.set_timeout(0)
        loop.add_reader(connection.sock, self._readable)

    async def transfer(self, flow: Flow, seconds: float) -> None:
        """Carry out a flow; see :meth:`LoopPool.transfer`."""
        if not flow.finished:
            flow.push()
        if flow.failure is not None:
            flow.step(0)
        if flow.finished:
            return
        self._flow = flow
        self._done = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, seconds), self._late)
        self._watch_writing(flow.events)
        try:
            await self._done
        finally:
            timer.cancel()
            self._flow = self._done = None
            if self._writing:
                self._watch_writing(0)

    def end(self) -> None:
        """Watch no longer, and let a flow fail."""
        self._loop.remove_reader(self._connection.sock)
        self._watch_writing(0)
        if self._flow is not None and not self._flow.finished:
            self._flow.failure = EOFError("the connection was closed")
            self._tell()

    def _readable(self) -> None:
        flow = self._flow
        if flow is None:
            # Nothing is due, so it is an end-of-file, an error, or foreign.
            self._pool.discard(self._connection)
            return
        flow.step(_READ)
        self._stepped(flow)

    def _writable(self) -> None:
        if self._flow is not None:
            self._flow.step(_READ | _WRITE)
            self._stepped(self._flow)

    def _stepped(self, flow: Flow) -> None:
        if flow.finished:
            self._tell()
            return
        self._watch_writing(flow.events)
        if flow.on_step is not None:
            flow.on_step(flow)

    def _late(self) -> None:
        flow = self._flow
        if flow is not None and not flow.finished:
            flow.step(_READ)  # an answer that has arrived counts, even if the loop was too busy to look at it
            if not flow.finished:
                flow.failure = TimeoutError("no answer in time")
            self._tell()

    def _tell(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _watch_writing(self, events: int) -> None:
        wanted = bool(events & _WRITE)
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._connection.sock, self._writable)
            else:
                self._loop.remove_writer(self._connection.sock)
