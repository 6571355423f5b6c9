"""The synchronous driver: carries out batches of commands on the shards, all shards at a time, under one deadline.

It knows nothing of what the commands mean. A failing shard gives its error in place of its reply, and the others
answer all the same. A request to one shard, by far the most frequent call, takes a short way: an idle connection, one
send, one receive. Whatever is not done then (several shards, a large batch, no idle connection, a server that went
away) goes through rounds.

A request is sent again, once and on a new connection, in two cases only: nothing of it was taken by the kernel, or it
is harmless to repeat (a read, or a script that says so) and the connection ended before any answer, as idle connections
do when a server restarts. Connections that idled for a while, and all connections before a request that cannot be
repeated, are looked at first, so that even writes rarely meet a dead one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from .._asking import keep_freed
from ..clocks import Clock, monotonic_ns
from ..errors import ClosedError, ShardError
from ..options import Endpoint
from .breaker import DEFAULTS, BreakerSettings
from .connection import MORE, Connection, TlsConnection
from .introduction import Introducing
from .opening import open_each
from .shard import Shard, ShardStatus
from .task import Command, Exchange, Reply, Task, laid_out, pack, repeatable
from .transfer import ask, run

#: Half of what the C library is to keep of the memory that values have had, for those that come next.
_KEPT_BYTES: Final = 4 * 2**20


class ListenerLink:
    """A RESP3 connection of its own for the bus, on which nothing has been subscribed yet.

    Attributes:
        sock: The socket, blocking without a time-out. Closing the link closes it; nothing else is said to the server.
        reader: A hiredis reader, to be fed with what ``receive`` returns. It returns ``more`` when it needs more
            bytes, pushes as ``hiredis.PushNotification``, and error replies as :class:`ServerReplyError`.
        identity: As in :class:`Reply`.
        plain: Whether the socket carries RESP as it is, and not TLS records.
    """

    __slots__ = ("_connection", "identity", "more", "plain", "reader", "sock")

    def __init__(self, connection: Connection) -> None:
        connection.sock.settimeout(None)
        self._connection = connection
        self.sock = connection.sock
        self.reader = connection.reader
        self.identity = connection.identity
        self.more = MORE
        self.plain = not isinstance(connection, TlsConnection)

    def send(self, *commands: Command) -> None:
        """Send commands in one piece, scripts among them as in :class:`Exchange`. The replies are the caller's to read.

        Raises:
            OSError: The connection is gone, or the socket's time-out has passed.
        """
        self.sock.sendall(pack(commands))

    def send_some(self, data: memoryview) -> int:
        """Send without blocking, on a non-blocking socket; return how many bytes the kernel took.

        Raises:
            OSError: The connection is gone.
        """
        return self._connection.send_some(data)

    def receive(self) -> bytes | None:
        """Return what has come, ``b""`` at the end of the stream, or None if nothing has. For a non-blocking socket.

        Reads TLS to the end of what has been decrypted, which no selector can see.

        Raises:
            OSError: The connection is gone.
        """
        data = self._connection.receive_some()
        while data and self._connection.has_buffered():
            data += self._connection.receive_some() or b""
        return data

    def close(self) -> None:
        """Close the file descriptor. Idempotent, and safe in a forked child."""
        self._connection.close()


class Part(Protocol):
    """What shares a driver's shards, and its life."""

    def close(self) -> None:
        """Close what it has opened."""

    def after_fork(self) -> None:
        """Become usable in a forked child."""


class Driver:
    """See the module. Safe to use from many threads.

    ``on_unreachable(shard)`` is called, without locks and perhaps from several threads, when a connection could not be
    made; if it returns True, making it is tried once more. A ``CacheError`` that it raises becomes part of the shard's.
    ``introduction`` is made on every new connection.
    ``on_reached(shard)`` is called in the same way when one could be made after trouble, or leads to another server
    than the one before.
    ``namespace`` is whose shards they are, for the log.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        timeout_s: float = 1.0,
        connect_timeout_s: float = 1.0,
        pool_size: int = 16,
        breaker: BreakerSettings = DEFAULTS,
        clock: Clock = monotonic_ns,
        on_unreachable: Callable[[int], bool] | None = None,
        introduction: Introducing | None = None,
        on_reached: Callable[[int], None] | None = None,
        namespace: str = "default",
    ) -> None:
        keep_freed(_KEPT_BYTES)
        self.clock = self._clock = clock
        self.pool_size = pool_size
        self._parts: list[Part] = []
        self._timeout_ns = int(timeout_s * 1e9)
        self._connect_timeout_ns = int(connect_timeout_s * 1e9)
        self._closed = False
        self._make_shard = partial(
            Shard,
            connect_timeout_ns=self._connect_timeout_ns,
            pool_size=pool_size,
            breaker=breaker,
            clock=clock,
            on_unreachable=on_unreachable,
            introduction=introduction,
            on_reached=on_reached,
            namespace=namespace,
        )
        self._shards = [self._make_shard(number, endpoint) for number, endpoint in enumerate(endpoints)]

    def execute(
        self,
        exchanges: Sequence[Exchange],
        *,
        timeout_s: float | None = None,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> list[Reply | ShardError]:
        """Return one reply or error per exchange, in their order.

        Args:
            exchanges: Usually one per shard; several of one shard go over as many connections, in no order.
            timeout_s: When to give up, from now; None: the driver's ``timeout_s``.
            on_reply: Called with an exchange's place and what came of it, as soon as that is there, while others are
                waited for. Not of every one: only where there is something to wait for.
        Raises:
            ClosedError: The driver was closed.
            TypeError: A command holds something that cannot be sent; nothing has been.
        Errors in place: ``ShardUnavailableError`` when the shard could not be reached, did not answer in time, or is
        still loading its data; other ``ShardError`` when what is there cannot be used at all.
        Cost: one round trip to the slowest shard.
        """
        now = self._clock()
        deadline_ns = now + (self._timeout_ns if timeout_s is None else int(timeout_s * 1e9))
        if len(exchanges) == 1:
            shard, commands = exchanges[0]
            return [self._short(self._shards[shard], commands, now, deadline_ns)]
        tasks = [Task(self._shards[shard], commands, pack(commands), None) for shard, commands in exchanges]
        self._rounds(tasks, deadline_ns, on_reply)
        return [task.outcome() for task in tasks]

    def meet(self, timeout_s: float) -> list[Reply | ShardError]:
        """Say hello to every server; return what each answered."""
        return self.execute([Exchange(shard, [(b"PING",)]) for shard in self.one_each()], timeout_s=timeout_s)

    def one_each(self) -> Sequence[int]:
        """Return the numbers by which exchanges reach every server once."""
        return range(len(self._shards))

    def connect_listener(self, shard: int) -> ListenerLink:
        """Return a new connection for the bus, not one of the pool's.

        Raises:
            ShardError: As ``handshake.connect`` does.
        """
        if self._closed:
            raise ClosedError("the cache was closed")
        return ListenerLink(self._shards[shard].connect(self._clock() + self._connect_timeout_ns, resp3=True))

    def put_shard(self, number: int, endpoint: Endpoint) -> None:
        """Reach another shard by this number: one that is in no use any more, or the next one."""
        shard = self._make_shard(number, endpoint)
        if number == len(self._shards):
            self._shards.append(shard)
        else:
            before, self._shards[number] = self._shards[number], shard
            before.retire()
        if self._closed:
            shard.close()

    def rest_shard(self, number: int) -> None:
        """Close a shard's idle connections: it is in no use any more, except for calls that are under way."""
        self._shards[number].demoted()

    def shard(self, number: int) -> Shard:
        """Return a shard, for another driver to share."""
        return self._shards[number]

    def attach(self, part: Part) -> None:
        """Close another driver's part along with this one, and tell it of forks.

        Raises:
            ClosedError: This driver was closed.
        """
        self._parts.append(part)
        if self._closed:
            raise ClosedError("the cache was closed")

    def note_alive(self, shard: int) -> None:
        """Close the shard's breaker: somebody has had an answer from it."""
        self._shards[shard].note_alive()

    def name_of(self, shard: int) -> str:
        """Return the shard's name."""
        return self._shards[shard].name

    def status(self, shard: int) -> ShardStatus:
        """Return how the shard is doing, from what is known; nothing is sent."""
        return self._shards[shard].status()

    def after_fork(self) -> None:
        """Make the driver usable in a forked child: new locks, new connections; the parent's stay undisturbed."""
        for shard in self._shards:
            shard.after_fork()
        for part in self._parts:
            part.after_fork()

    def close(self) -> None:
        """Close all connections and wake who waits for one; calls under way end first. Idempotent."""
        self._closed = True
        for shard in self._shards:
            shard.close()
        for part in self._parts:
            part.close()

    def _short(self, shard: Shard, commands: Sequence[Command], now: int, deadline_ns: int) -> Reply | ShardError:
        """Carry out one exchange: the short way if possible, else through ``_rounds``."""
        data = laid_out(commands)
        task = None
        if shard.breaker.quiet:
            connection = None
            try:
                connection = shard.take(now, commands)
                if connection is not None:
                    answer = ask(connection, data, len(commands), (deadline_ns - now) / 1e9)
                    if isinstance(answer, list):
                        # From here on it may be another thread's, and is not to be closed by an interrupt of this one.
                        free, connection = connection, None
                        shard.pool.put(free)
                        return Reply(answer, free.identity)
                    task = Task(shard, commands, pack(commands), answer)
            except BaseException:
                if connection is not None:
                    if not repeatable(commands):
                        shard.doom(connection)
                    shard.pool.discard(connection)
                raise
        task = task or Task(shard, commands, pack(commands), None)
        self._rounds([task], deadline_ns)
        return task.outcome()

    def _rounds(
        self,
        tasks: list[Task],
        deadline_ns: int,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> None:
        """Give every task its result.

        A round never waits for a connection while it holds others: two calls that hold what the other waits for would
        both wait until their deadlines. So a task that finds its pool exhausted is left for the next round. So are
        tasks that ``on_reply`` adds to the list.
        """
        pending = tasks
        while pending:
            known = len(tasks)
            try:
                self._begin(pending, deadline_ns)
                under_way = {task.flow: task for task in pending if task.flow is not None}
                for flow in run(list(under_way), deadline_ns, self._clock):
                    # At once: a slow shard must not keep the others' connections from their pools.
                    task = under_way[flow]
                    task.settle(time_left=self._clock() < deadline_ns)
                    if on_reply is not None and task.result is not None:
                        on_reply(tasks.index(task), task.result)
                        if len(tasks) > known:
                            break  # those under way go on with the next round
            except BaseException:
                for task in tasks:
                    task.abandon()
                raise
            pending = [task for task in tasks if task.result is None]

    def _begin(self, pending: list[Task], deadline_ns: int) -> None:
        """Send what can be sent now: on idle connections first, so that those are answered while others are made."""
        now = self._clock()
        cold = []
        for task in pending:
            if task.flow is not None:
                continue  # begun by the short way, or a script to be sent in full
            if task.begin(now, deadline_ns):
                cold.append(task)
        full = []
        opened = open_each([task.shard.pool for task in cold], deadline_ns, self._clock) if cold else []
        for task, outcome in zip(cold, opened, strict=True):
            if isinstance(outcome, ShardError):
                task.reject(outcome)
            elif outcome is None:
                full.append(task)
            else:
                task.start_late(outcome, deadline_ns - self._clock())
        if full and not any(task.flow is not None for task in pending):
            try:
                full[0].start_late(full[0].shard.wait(deadline_ns), deadline_ns - self._clock())
            except ShardError as error:
                full[0].reject(error)
