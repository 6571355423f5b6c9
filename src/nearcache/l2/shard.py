"""One shard as the driver sees it: its pool, its breaker, and what is known of it."""

from __future__ import annotations

import contextlib
import copy
import itertools
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._getting import Get
from .._putting import Put
from ..clocks import Clock
from ..errors import CacheError, ServerReplyError, ShardError, ShardUnavailableError
from ..options import Endpoint
from ..workers import start_thread
from . import handshake
from .breaker import Breaker, BreakerSettings
from .connection import Connection
from .logins import NoPasswordError
from .pool import AnyPool, Pool
from .scripts import Script
from .sentinel import Sentinels
from .shortage import Shortage, is_shortage

if TYPE_CHECKING:
    from .introduction import Introducing

#: A connection that idled for longer is looked at before use.
_IDLE_NS: Final = 1_000_000_000
#: How often the sentinels are asked whether the master is still the one in use, and a connection is tried if none is to
#: be had.
_VERIFY_NS: Final = 1_000_000_000
#: How often requests and a subscription that lead to two servers are brought together in vain, by a proxy say.
_PART_NS: Final = 30_000_000_000


class ShardStatus(NamedTuple):
    """How one shard is doing.

    Attributes:
        retry_in_ns: How long calls will still be refused.
        refused: Why no more connections can be made beside those that there are; empty: they can.
    """

    name: str
    breaker: str
    retry_in_ns: int
    last_error: str
    connections: int
    in_use: int
    refused: str
    identity: int
    version: str
    address: str
    guarded: bool


class Shard:
    """What the driver keeps per shard.

    A shard's *term* is counted up when another server is met, or the one there was turns out to be no master any more;
    connections of an older term are closed when they are next looked at. The identity alone would not do, for it may be
    unknown.

    A new term begins, too, when a change is given up that has been sent and not been answered. To close its connection
    does not take it back: what the kernel has, the server still reads, in its own time, and a later change would
    overtake it on another connection. So the connection is *doomed*: before anything is sent in the new term, the
    server is told to end it.
    """

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        *,
        connect_timeout_ns: int,
        pool_size: int,
        breaker: BreakerSettings,
        clock: Clock,
        on_unreachable: Callable[[int], bool] | None,
        introduction: Introducing | None = None,
        on_reached: Callable[[int], None] | None = None,
        namespace: str = "default",
    ) -> None:
        self.name = endpoint.name
        self.breaker = Breaker(breaker, clock=clock)
        self.pool = Pool(endpoint.name, pool_size, self.connect, clock)
        self._number = number
        self._endpoint = endpoint
        self._connect_timeout_ns = connect_timeout_ns
        self._clock = clock
        self._on_unreachable = on_unreachable
        self._introduction = introduction
        self._on_reached = on_reached
        self._sentinels = Sentinels(endpoint, clock) if endpoint.master else None
        self._terms = itertools.count(1)  # none is ever given twice, however many threads begin one
        self._term = 0
        self._doomed: set[tuple[str, int]] = set()
        self._verifying = threading.Lock()
        self._verify_ns = 0
        self._link: weakref.ref[Connection] | None = None
        # What calls have, in threads and event loops, by id(). Weak as a pool's own, but its refs are listed in one go.
        self._serving: weakref.WeakValueDictionary[int, Connection] = weakref.WeakValueDictionary()
        self._shortage = Shortage(namespace, endpoint.name, clock)
        self._parted = (0, 0)
        self._part_ns = 0
        self._failure: ShardError | None = None  # a copy: what was raised would keep its frames alive
        self._peer = handshake.Peer(0, "")

    @property
    def endpoint(self) -> Endpoint:
        """What it was made for."""
        return self._endpoint

    @property
    def host(self) -> str:
        """Where it is."""
        return self._endpoint.host

    @property
    def identity(self) -> int:
        """Of the server that was met last; 0: unknown."""
        return self._peer.identity

    def take(self, now: int, commands: Sequence[tuple[Any, ...]], pool: AnyPool | None = None) -> Connection | None:
        """Return an idle connection that is fit for use, if there is one, of the pool or of another that leads here."""
        pool = self.pool if pool is None else pool
        idle = pool.idle
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            # A server that was demoted and promoted again, without a restart, has another identity on new connections,
            # and what came over an old one could never be kept.
            current = connection.term == self._term and connection.identity == self._peer.identity
            young = now - connection.used_ns < _IDLE_NS and not _is_script(commands)
            if current and (young or not connection.is_stale()):
                connection.used_ns = now
                return connection
            pool.discard(connection)
        return None

    def connect(self, deadline_ns: int, *, resp3: bool = False) -> Connection:
        """Return a new connection, ready for use, and keep the breaker informed.

        Raises:
            ShardError: As ``handshake.connect`` does.
        """
        if self._clock() >= deadline_ns:
            raise ShardUnavailableError(self.name, "no time was left to connect")  # which says nothing of the server
        try:
            return self._connect(deadline_ns, resp3)
        except ShardUnavailableError as error:
            if self._can_do_without(error, resp3):
                raise
            if not self._revived(error):
                refused = isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError))
                self.fail(error, certain=refused)
                if resp3 and not refused and not self._open_count():
                    self.breaker.put_off(self._connect_timeout_ns)
                raise
        except ShardError as error:
            if not self._can_do_without(error, resp3):
                self.fail(error, certain=True)
            raise
        try:
            return self._connect(deadline_ns, resp3)
        except ShardError as error:
            self.fail(error, certain=True)
            raise

    def _can_do_without(self, error: ShardError, resp3: bool) -> bool:
        """Return whether calls can: who listens is refused or has no password, or there are other connections."""
        if resp3 and (isinstance(error, NoPasswordError) or isinstance(error.__cause__, ServerReplyError)):
            return True
        count = self._open_count()
        if not count or not is_shortage(error):
            return False
        if not resp3:  # else who listens tells
            self._shortage.begin(error, count)
        return True

    def _open_count(self) -> int:
        """Return how many connections calls have."""
        connections = filter(None, (reference() for reference in self._serving.valuerefs()))
        # One that was closed may still be at hand to whom it has failed.
        return sum(connection.sock.fileno() >= 0 for connection in connections)

    def _revived(self, error: ShardUnavailableError) -> bool:
        """Return whether the hook has done something about a server that could not be reached."""
        if self._on_unreachable is None:
            return False
        try:
            return self._on_unreachable(self._number)
        except CacheError as problem:
            worse = ShardUnavailableError(self.name, f"{error}; and {problem}")
            self.fail(worse, certain=True)
            raise worse from problem

    def _connect(self, deadline_ns: int, resp3: bool) -> Connection:
        soonest = min(deadline_ns, self._clock() + self._connect_timeout_ns)
        if self._sentinels is None:
            connection, peer = handshake.connect(self._endpoint, soonest, self._clock, resp3=resp3)
        else:
            connection, peer = self._sentinels.connect(soonest, resp3=resp3)
        news = peer.identity != self._peer.identity
        if resp3 and not peer.identity:
            news = True  # nobody can say whether it is another server; whatever leads to the one before is let go
        if news:
            self._term = next(self._terms)
        self._peer = peer
        connection.term = self._term
        connection.used_ns = self._clock()
        self._introduce(connection, soonest)
        if resp3:
            self._link = weakref.ref(connection)
        else:
            self._serving[id(connection)] = connection
        self._shortage.end()
        news = news or not self.breaker.quiet
        self.breaker.succeed()
        if news and not resp3 and self._on_reached is not None:
            self._on_reached(self._number)
        return connection

    def _introduce(self, connection: Connection, deadline_ns: int) -> None:
        try:
            self._kill_doomed(connection, deadline_ns)
            if self._introduction is not None:
                self._introduction.make(self._number, connection, deadline_ns, self._clock)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise ShardUnavailableError(self.name, str(error)) from error
            raise

    def _kill_doomed(self, connection: Connection, deadline_ns: int) -> None:
        """Have the server end the doomed connections that are its own. Where it refuses, nothing can be done."""
        doomed = self._doomed.copy()  # after the term was read: who dooms one does so before he begins another term
        if not doomed or connection.client is None:
            return
        here = connection.client[0]
        steps = {f"kill {number}": ("CLIENT", "KILL", "ID", number) for run_id, number in doomed if run_id == here}
        if steps:
            handshake.exchange(connection, steps, self._endpoint, deadline_ns, self._clock)
        self._doomed.difference_update(doomed)  # not before: another may be made meanwhile, and must not be earlier

    def note_alive(self) -> None:
        """The listener has had an answer from it. Does not block."""
        self.breaker.succeed()
        now = self._clock()
        link = None if self._link is None else self._link()
        if link is not None and link.identity != self._peer.identity:
            # Somebody has met another server since, or this one with another history: a primary begins one when its
            # first replica comes, and no connection is told. What is read there would be kept only once the
            # subscription is there too.
            self._part(link, self._peer.identity, now)
        is_due = (self._sentinels is not None or self._shortage.reason) and now >= self._verify_ns
        if is_due and self._verifying.acquire(blocking=False):
            self._verify_ns = now + _VERIFY_NS
            deadline_ns = now + self._connect_timeout_ns
            if start_thread("nearcache-verify", self._verify, self._verifying, deadline_ns) is None:
                self._verifying.release()  # the next answer tries again

    def _part(self, link: Connection, other: int, now: int) -> None:
        """Have the subscription made anew; but seldom where that has led to the same servers as before."""
        parted = (link.identity, other)
        if parted != self._parted or now >= self._part_ns:
            self._parted, self._part_ns = parted, now + _PART_NS
            _hang_up(link)

    def _verify(self, mine: threading.Lock, deadline_ns: int) -> None:
        """Leave a master that was replaced, although it still answers; see whether more connections can be made again.

        Runs in a thread of its own.
        """
        try:
            if self._shortage.reason:
                with contextlib.suppress(ShardError):
                    self.connect(deadline_ns).close()
            if self._sentinels is not None:
                self._follow_master(self._sentinels, deadline_ns)
        finally:
            mine.release()

    def _follow_master(self, sentinels: Sentinels, deadline_ns: int) -> None:
        if sentinels.has_moved(self._peer.address, deadline_ns):
            self.demoted()
            link = None if self._link is None else self._link()
            if link is not None:
                _hang_up(link)
        if self.pool.retired:
            sentinels.close()

    def close(self) -> None:
        """Close all connections; those in use when they are put back."""
        self.pool.close()
        self.retire()

    def retire(self) -> None:
        """It is in no use any more, but for calls under way: what they have is closed when it is put back."""
        self.pool.retire()
        if self._sentinels is not None and self._verifying.acquire(blocking=False):
            self._sentinels.close()  # else the thread that holds the lock does it
            self._verifying.release()

    def after_fork(self) -> None:
        """In a forked child: new locks, and connections of its own."""
        self.pool.after_fork()
        self.breaker.after_fork()
        self._verifying = threading.Lock()
        if self._sentinels is not None:
            self._sentinels.close()

    def demoted(self) -> None:
        """What the connections lead to takes no writes any more: let the next one be made anew, wherever that leads."""
        self._term = next(self._terms)
        self.pool.flush()

    def doom(self, connection: Connection) -> None:
        """A change was sent over it, and is given up: it must not be carried out after what is sent from now on."""
        if connection.client is not None:
            self._doomed.add(connection.client)
            self.demoted()

    def is_current(self, connection: Connection) -> bool:
        """Whether a call that begins now may use it: it is of this term."""
        return connection.term == self._term

    def wait(self, deadline_ns: int) -> Connection:
        """Return a connection of this term, as soon as there is one. Raises as ``Pool.wait``."""
        while not self.is_current(connection := self.pool.wait(deadline_ns)):
            self.pool.discard(connection)
        return connection

    def refusal(self, longest_ns: int) -> ShardUnavailableError | None:
        """Return the error of a call that the breaker refuses; None: go on."""
        if self.breaker.quiet or self.breaker.admit(longest_ns):
            return None
        reason = str(self._failure).removeprefix(f"shard {self.name}: ")
        error = ShardUnavailableError(self.name, f"not asked again yet, because: {reason}")
        error.__cause__ = self._failure
        return error

    def fail(self, error: ShardError, *, certain: bool) -> None:
        """Count a failure."""
        self._failure = copy.copy(error)
        self.breaker.fail(certain=certain)

    def status(self) -> ShardStatus:
        """Return what is known."""
        return ShardStatus(
            self.name, self.breaker.state, self.breaker.retry_in_ns(), str(self._failure or ""), len(self.pool),
            self.pool.in_use, self._shortage.reason, *self._peer,
        )  # fmt: skip


def _hang_up(link: Connection) -> None:
    """Let its reader see the end of the stream. Not TLS's own shutdown, which would disturb one that reads."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(link.sock, socket.SHUT_RDWR)


def _is_script(commands: Sequence[tuple[Any, ...]]) -> bool:
    """Whether a request may be one that cannot be sent a second time."""
    kind = commands.__class__
    return kind is Put or (kind is not Get and commands[0][0].__class__ is Script)
