"""The listener: one thread per cache that receives invalidations and sends heartbeats.

It owns the subscribed connections, one for each place where lanes are, reads them all with one selector, and hands
what arrives to their followers, which decide. Making a connection can take as long as a time-out, so it happens in a
short-lived thread of its own: a shard that is dead never delays the heartbeats of those that live.

The store is the user's cache object, so it is held weakly. When the user drops it, or closes it, the thread ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from .._reads import Event
from .._store import Store
from .._watching import CHUNKS, MUCH, Echoes, Watch
from ..clocks import NS_PER_MS, Clock, monotonic_ns, suspended_ns
from ..coherence import Horizon, Lane
from ..logs import Recurring
from ..placement import LaneNames
from ..workers import Helper
from .connection import BACKOFF_FIRST_S, Connection
from .follower import Followed, Follower
from .keeping import Keeper, Script
from .links import Link, Source
from .observing import Observer
from .outages import Outages
from .waking import Waker

#: How often L1 is tended in a row, and the pause after a row that found much to do.
_TENDS: Final = 64
_TEND_SOON_NS: Final = 10_000_000
#: The machine slept if the clock that goes on meanwhile got ahead by more than this. The two are never read at once.
_SLEPT_NS: Final = 5_000_000


def _nonce() -> bytes:
    return os.urandom(8).hex().encode()


class Listener(Helper):
    """Follows every lane of one cache.

    Args:
        store: Weak reference to the store that hears the messages.
        source: Makes the connections.
        lanes: State machines, by the lane's number.
        names: What belongs to each lane in Redis.
        heartbeat: The script that tells where a lane stands.
        namespace: Whose lanes they are, for the log.
        horizon: What the lanes' actions are carried out on.
        keeper: Told what the followers' :class:`~nearcache.bus.keeping.Keeper` is, and asked for leases to renew.
        clock: Monotonic nanoseconds.
        slept: Returns for how long the machine has slept since it was started.
        ring: Returns the version of the list of shards that this process uses.
    Attributes:
        expect: See :class:`Echoes`.
    """

    _name = "nearcache-listener"
    _follower_type: Callable[..., Follower] = Follower

    def __init__(
        self,
        store: weakref.ref[Store[Any, Any]],
        source: Source,
        lanes: Sequence[Lane],
        names: Sequence[LaneNames],
        heartbeat: Script,
        *,
        namespace: str,
        horizon: Horizon,
        keeper: Keeper,
        ring: Callable[[], bytes],
        clock: Clock = monotonic_ns,
        slept: Callable[[], int] = suspended_ns,
    ) -> None:
        self._store = store
        self._source, self._namespace = source, namespace
        self._clock = clock
        self._slept = slept
        self._keeper = keeper
        self._watched: dict[int, Callable[[], None]] = {}
        self._make_follower = partial(
            self._follower_type, store, heartbeat=heartbeat, uniform=random.uniform, nonce=_nonce,
            watched=self._watched, keeper=keeper, horizon=horizon, ring=ring,
        )  # fmt: skip
        self._observer: Observer | None = None
        self._echoes = Echoes()
        self.expect: Callable[[int], None] = self._echoes.expect
        self._connections: list[Connection] = []
        self._followers: dict[int, Follower] = {}
        self._begin_with(lanes, names)
        self._tend_every_ns = lanes[0].heartbeat_ns
        super().__init__()

    def _begin_with(self, lanes: Sequence[Lane], names: Sequence[LaneNames]) -> None:
        """Follow these lanes: each at the place of its own number."""
        for number, (lane, own) in enumerate(zip(lanes, names, strict=True)):
            self._connections.append(self._connection_for(Followed(number, lane, own)))

    def _connection_for(self, each: Followed) -> Connection:
        connection = Connection(each.number, self._make_follower([each]))
        self._followers[each.number] = connection.follower
        return connection

    def _begin_anew(self) -> None:
        self._watch = Watch(self._store, self._echoes)
        self._by_descriptor: dict[int, Connection] = {}
        self._due_ns = 0
        self._tend_ns = 0
        self._renew_ns = 0
        self._slept_ns = self._slept()
        self._waker: Waker | None = None  # there with the thread: who becomes a daemon closes all that is open before
        self._arrivals: queue.SimpleQueue[tuple[Connection, Link | BaseException]] = queue.SimpleQueue()
        self._fences: deque[tuple[int, Callable[[], None]]] = deque()
        self._settled = Event()
        self._outages = Outages(self._source, self._namespace, self._clock)
        self._failures = Recurring()
        super()._begin_anew()

    # -- for the cache

    def _begin(self) -> threading.Thread | None:
        try:
            if self._waker is None:
                self._waker = Waker()
                self._watch.add(self._waker.fileno())
        except OSError:  # no socket can be had now; until there is one L1 serves nothing
            return None
        return super()._begin()

    def stop(self) -> None:
        """End the thread and close its connections. Idempotent; callable from any thread, the listener's included."""
        self._stopping.set()
        if self._started.acquire(blocking=False):  # nobody ever started it, so nobody else will close it
            self._close()
            return
        self.wake()
        self._join()

    def wake(self) -> None:
        """Make the thread look round."""
        if self._waker is not None:
            self._waker.wake()

    def hurry(self, place: int) -> None:
        """Try at once to connect to a place that was away: somebody has just reached it."""
        for connection in self._connections:
            if connection.place == place and connection.link is None:
                connection.retry_ns = 0
                self.wake()

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until every shard has either gone live or failed once. Returns whether that came in time.

        Without a thread it does not come, and is not waited for.
        """
        return self.thread is not None and self._settled.wait(timeout_s)

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Call ``seen`` in the listener's thread when a message with this write id arrives."""
        self._watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        """Forget a write id."""
        self._watched.pop(wid, None)

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """Call ``woken`` once, in the listener's thread, when a message names the key. See :class:`Follower`."""
        return self._followers[lane].await_key(lane, encoded, woken)

    def unawait(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Forget one registration of :meth:`await_key`, if it is still there."""
        self._followers[lane].unawait(lane, encoded, woken)

    def fence(self, lane: int, woken: Callable[[], None]) -> bool:
        """Call ``woken`` once, in the listener's thread, when all that is in the server by now has been applied.

        Returns:
            False if the lane is not being followed: ``woken`` will not be called, and nothing of it is served.
        """
        if not self._followers[lane].follows(lane):
            return False
        self._fences.append((lane, woken))
        self.wake()
        return True

    def place(self, lane: int) -> tuple[int, int, int] | None:
        """Where a lane stands, from when its last message begins to be applied. See :meth:`Follower.place`."""
        return self._followers[lane].place(lane)

    def report_to(self, observer: Observer) -> None:
        """Tell somebody from now on what the messages say. See :class:`~nearcache.bus.observing.Observer`."""
        self._observer = observer  # of lanes that come later, too
        for connection in self._connections:
            connection.follower.report_to(observer)

    def dropped(self, lane: int) -> int:
        """How many L1 entries messages of this lane have dropped."""
        return self._followers[lane].dropped[lane]

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets without a word on them. :meth:`start` makes new ones."""
        if self._waker is not None:
            self._waker.close()
        for connection in self._connections:
            connection.after_fork()
        self._watched.clear()
        super().after_fork()

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._turn()
                except BaseException as error:  # noqa: BLE001  whatever it was, somebody has to listen
                    self._recover(error)
        finally:
            self._stopping.set()
            self._close()

    def _turn(self) -> None:
        pause_ms = max(0, -((self._clock() - self._due_ns) // NS_PER_MS))
        ready = self._watch.wait(pause_ms)
        self._notice_sleep()
        for descriptor in ready:
            connection = self._by_descriptor.get(descriptor)
            if connection is None:
                assert self._waker is not None
                self._waker.drain()
                self._due_ns = 0
            else:
                self._receive(connection)
        # Not after every message: this thread and the user's take turns, so what it does not do, they need not wait
        # for.
        if self._clock() >= self._due_ns:
            self._keep_house()

    def _recover(self, error: BaseException) -> None:
        """Begin anew after what nobody expected: a thread that ended would leave L1 dark for good."""
        for connection in self._connections:
            connection.follower.lost(f"the listener failed: {error!r}")
            self._drop_link(connection)
        self._failures.log(logging.ERROR, "namespace %s: the listener begins anew", self._namespace, error=error)
        self._stopping.wait(BACKOFF_FIRST_S)

    def _notice_sleep(self) -> None:
        """Vouch for nothing after the machine slept: L1 reads a clock that stood still while others wrote."""
        slept_ns = self._slept()
        if slept_ns > self._slept_ns + _SLEPT_NS:
            now_ns = self._clock()
            self._keeper.suspended(now_ns)
            for connection in self._connections:
                connection.follower.suspended(now_ns)
            self._due_ns = 0
        self._slept_ns = max(slept_ns, self._slept_ns)

    def _keep_house(self) -> None:
        """Do what is due, and find out when to do it again. Whoever changes what is due sets ``_due_ns`` to 0."""
        if self._store() is None:
            self._stopping.set()
            return
        self._take_arrivals()
        self._connect_missing()
        now_ns = self._clock()
        self._renew_leases(now_ns)
        while self._fences:
            lane, woken = self._fences.popleft()
            self._followers[lane].fence(lane, now_ns, woken)
        for connection in self._connections:
            if connection.link is not None:
                connection.follower.tick(now_ns)
                self._follow_up(connection)
        self._tend()
        if not self._settled.is_set() and self._has_settled():
            self._settled.set()
        due = [self._renew_ns, self._tend_ns, *self._more_due()]
        for connection in self._connections:
            due_ns = connection.follower.due_ns()
            if connection.link is not None and due_ns is not None:
                due.append(due_ns)
            elif not connection.connecting:
                due.append(connection.retry_ns)
        self._due_ns = min(due)

    def _has_settled(self) -> bool:
        return all(c.follower.is_live or c.failures for c in self._connections)

    def _more_due(self) -> Iterable[int]:
        """When else there is something to do."""
        return ()

    def _connect_missing(self) -> None:
        now_ns = self._clock()
        for connection in self._connections:
            if connection.link is None and not connection.connecting and now_ns >= connection.retry_ns:
                connection.connecting = True
                name = f"nearcache-connect-{connection.place}"
                thread = threading.Thread(
                    target=self._connect, args=(connection, self._arrivals), name=name, daemon=True
                )
                try:
                    thread.start()
                except (RuntimeError, MemoryError) as error:  # no thread can be had now: no reason for this one to end
                    self._fail(connection, error)

    def _connect(self, connection: Connection, arrivals: queue.SimpleQueue[Any]) -> None:
        """Runs in a thread of its own."""
        try:
            arrivals.put((connection, self._source.connect_listener(connection.place)))
        except BaseException as error:  # noqa: BLE001  whatever it was, it has to be tried again
            arrivals.put((connection, error))
        self.wake()
        if self._stopping.is_set():
            self._discard_arrivals()

    def _take_arrivals(self) -> None:
        while True:
            try:
                connection, arrival = self._arrivals.get_nowait()
            except queue.Empty:
                return
            if isinstance(arrival, BaseException):
                self._fail(connection, arrival)
            else:
                connection.connecting = False
                if connection in self._connections:
                    self._subscribe(connection, arrival)
                else:  # its lanes were given up meanwhile, or look for another place
                    arrival.close()

    def _fail(self, connection: Connection, error: BaseException) -> None:
        connection.connecting = False
        for each in connection.follower.followed:
            each.lane.last_error = str(error)
        self._lose(connection, str(error) or repr(error))
        connection.back_off(self._clock())

    def _subscribe(self, connection: Connection, link: Link) -> None:
        connection.link = link
        link.sock.setblocking(False)
        self._by_descriptor[link.sock.fileno()] = connection
        follower = connection.follower
        if link.plain:
            self._watch.add(link.sock.fileno(), follower.inbox, follower.note)
        else:
            self._watch.add(link.sock.fileno())
        connection.follower.connected(link.identity, self._clock(), link.reader, link.more)
        self._follow_up(connection)

    def _lose(self, connection: Connection, reason: str) -> None:
        lanes = {each.number: each.lane for each in connection.follower.followed}
        self._outages.begin(connection.place, lanes, reason)

    def _renew_leases(self, now_ns: int) -> None:
        """Keep alive what the loaders of this process hold: a lease lasts only a little longer than a dead holder."""
        if now_ns < self._renew_ns:
            return
        renewals = self._keeper.renewals(now_ns)
        self._renew_ns = now_ns + self._keeper.renew_every_ns
        for lane, script, keys, arguments in renewals:
            follower = self._followers[lane]
            if follower.follows(lane):
                follower.run(script, keys, arguments)

    def _tend(self) -> None:
        """As often as there is a heartbeat, reclaim what has expired in L1: reading alone does not.

        A little at a time, because the interpreter's other threads wait meanwhile; soon again if there is more.
        """
        store, now_ns = self._store(), self._clock()
        if store is None or now_ns < self._tend_ns:
            return
        has_more = False
        for _ in range(_TENDS):
            has_more = store.l1_tend()
        self._tend_ns = now_ns + (_TEND_SOON_NS if has_more else self._tend_every_ns)

    # -- sending and receiving

    def _receive(self, connection: Connection) -> None:
        link, follower = connection.link, connection.follower
        if link is None:
            return
        try:
            count = self._take_in(link, follower)
        except OSError as error:
            follower.lost(f"cannot read: {error}")
        else:
            if count == 0:
                follower.lost("the server closed the connection")
        if follower.answered or follower.outgoing or follower.gave_up is not None:
            self._follow_up(connection)

    def _take_in(self, link: Link, follower: Follower) -> int:
        """Receive, and let the follower digest, until there is no more or it has been much. Returns 0 at the end."""
        if not link.plain:  # over TLS, "not yet" is an error of its own, and a selector does not see everything
            data = link.receive()
            if data:
                follower.received(data, self._clock())
            return -1 if data is None else len(data)
        if len(follower.inbox):  # what was heard up to here, and is for the follower
            follower.digest(self._clock())
        descriptor, count = link.sock.fileno(), -1
        for _ in range(CHUNKS):
            count = follower.inbox.fill(descriptor)
            if count > 0:
                follower.digest(self._clock())
            if count < MUCH or follower.gave_up is not None:
                break
        return count

    def _follow_up(self, connection: Connection) -> None:
        """Do what a follower wants done after an event."""
        link, follower = connection.link, connection.follower
        assert link is not None
        self._due_ns = 0
        try:
            while follower.gave_up is None and follower.outgoing:
                sent = link.send_some(memoryview(bytes(follower.outgoing)))
                if not sent:
                    break
                del follower.outgoing[:sent]
        except OSError as error:
            follower.lost(f"cannot send: {error}")
        if follower.gave_up is not None:
            self._lose(connection, follower.gave_up)
            self._drop_link(connection)
            return
        if bool(follower.outgoing) != connection.blocked:
            connection.blocked = not connection.blocked
            self._watch.want(link.sock.fileno(), connection.blocked)
        if follower.answered:
            follower.answered = False
            connection.failures = 0
            self._outages.end()
            self._source.note_alive(connection.place)

    # -- ending

    def _drop_link(self, connection: Connection) -> None:
        link, connection.link = connection.link, None
        if link is not None:
            with contextlib.suppress(ValueError):  # one that could not even be begun to watch
                self._watch.remove(link.sock.fileno())
            self._by_descriptor.pop(link.sock.fileno(), None)
            link.close()
            connection.blocked = False
            connection.back_off(self._clock())
            self._due_ns = 0

    def _close(self) -> None:
        for connection in self._connections:
            link, connection.link = connection.link, None
            if link is not None:
                link.close()
            connection.follower.lost("closed")
        if self._waker is not None:
            self._waker.close()
        self._discard_arrivals()
        self._settled.set()

    def _discard_arrivals(self) -> None:
        """Close connections that were made for nobody."""
        while True:
            try:
                _, arrival = self._arrivals.get_nowait()
            except queue.Empty:
                return
            if not isinstance(arrival, BaseException):
                arrival.close()
