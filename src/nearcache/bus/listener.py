"""The listener: one thread per cache that receives invalidations and sends heartbeats.

It owns one subscribed connection per shard, reads them all with one selector, and hands what arrives to the lanes'
state machines (``coherence``), whose actions it carries out on the store. Making a connection can take as long as a
time-out, so it happens in a short-lived thread of its own: a shard that is dead never delays the heartbeats of those
that live.

The store is the user's cache object, so it is held weakly. When the user drops it, or closes it, the thread ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import socket
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import hiredis

from .._store import Store
from ..clocks import Clock, monotonic_ns
from ..coherence import Action, Apply, Attach, Detach, Lane, Reconnect, State, Suspect, Vouch
from ..errors import DecodeError, ServerReplyError
from ..keys import decode_key

#: Messages this close to each other are a stream, and this long a stream is let gather.
_STREAM_NS: Final = 100_000
_GATHER_S: Final = 0.0005
#: Longest pause when nothing is due.
_IDLE_NS: Final = 60_000_000_000
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MOST_S: Final = 2.0
#: How often L1 is tended in a row, and the pause after a row that found much to do.
_TENDS: Final = 64
_TEND_SOON_NS: Final = 10_000_000


class Link(Protocol):
    """A connection that this module reads: a socket, hiredis' parser, and what that returns when it needs more."""

    sock: socket.socket
    reader: Any
    more: object
    identity: int

    def receive(self) -> bytes | None:
        """Return what has come, ``b""`` at the end of the stream, None if nothing has. Raises OSError."""

    def close(self) -> None:
        """Close the descriptor. Idempotent."""


class Source(Protocol):
    """Makes connections."""

    def connect_listener(self, shard: int) -> Link:
        """Return a new RESP3 connection. May block as long as the connect time-out."""

    def note_alive(self, shard: int) -> None:
        """The shard has answered."""


class Script(Protocol):
    """The heartbeat's Lua script."""

    @property
    def source(self) -> bytes:
        """What EVAL takes."""

    @property
    def sha(self) -> bytes:
        """What EVALSHA takes."""


@dataclass(slots=True)
class _Subscription:
    """The connection of one shard, and when to try again without one."""

    shard: int
    lane: Lane
    link: Link | None = None
    connecting: bool = False
    retry_ns: int = 0
    failures: int = 0
    beat_ns: int = 0
    dropped: int = 0


def _pack(*words: bytes) -> bytes:
    pack: Any = hiredis.pack_command  # its stub knows tuples of one word only
    packed: bytes = pack(words)
    return packed


class Listener:
    """Follows every lane of one cache.

    Args:
        store: Weak reference to the store that the actions are carried out on.
        source: Makes the connections.
        lanes: State machines, one per shard.
        prefix: What the names of this namespace in Redis begin with.
        heartbeat: The script that tells where a lane stands.
    """

    def __init__(
        self,
        store: weakref.ref[Store[Any, Any]],
        source: Source,
        lanes: list[Lane],
        prefix: bytes,
        heartbeat: Script,
        *,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._subscriptions = [_Subscription(shard, lane) for shard, lane in enumerate(lanes)]
        self._heartbeat = heartbeat
        self._lane_key = prefix + b"L"
        self._prefix = prefix
        self._watched: dict[int, Callable[[], None]] = {}
        self._renew()

    def _renew(self) -> None:
        self._poll = select.poll()
        self._by_descriptor: dict[int, _Subscription] = {}
        self._woken_ns = 0
        self._due_ns = 0
        self._tend_ns = 0
        # Sockets, not a bare pipe: once closed they say so, where a file descriptor's number may be another's by then.
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poll.register(self._wake_in, select.POLLIN)
        self._arrivals: queue.SimpleQueue[tuple[_Subscription, Link | Exception]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None

    # -- for the cache

    def start(self) -> None:
        """Begin to listen, once. Cheap when already done."""
        if self._thread is None and not self._stopping.is_set() and self._started.acquire(blocking=False):
            self._thread = threading.Thread(target=self._run, name="nearcache-listener", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connections. Idempotent; callable from any thread, the listener's included."""
        self._stopping.set()
        if self._started.acquire(blocking=False):  # nobody ever started it, so nobody else will close it
            self._close()
            return
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def wake(self) -> None:
        """Make the thread look round."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._wake_out.send(b"!")

    def hurry(self, shard: int) -> None:
        """Try at once to connect to a shard that was away: somebody has just reached it."""
        if self._subscriptions[shard].link is None:
            self._subscriptions[shard].retry_ns = 0
            self.wake()

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until every shard has either gone live or failed once. Returns whether that came in time."""
        return self._settled.wait(timeout_s)

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Call ``seen`` in the listener's thread when a message with this write id arrives."""
        self._watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        """Forget a write id."""
        self._watched.pop(wid, None)

    def dropped(self, shard: int) -> int:
        """How many L1 entries messages of this shard have dropped."""
        return self._subscriptions[shard].dropped

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets without a word on them. :meth:`start` makes new ones."""
        self._wake_in.close()
        self._wake_out.close()
        for subscription in self._subscriptions:
            if subscription.link is not None:
                subscription.link.sock.close()
            subscription.link = None
            subscription.connecting = False
            subscription.retry_ns = 0
        self._watched.clear()
        self._renew()

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                pause_ms = max(0, -((self._clock() - self._due_ns) // 1_000_000))
                ready = self._poll.poll(pause_ms)
                self._moderate()
                for descriptor, _ in ready:
                    subscription = self._by_descriptor.get(descriptor)
                    if subscription is None:
                        self._drain_wake()
                    else:
                        self._receive(subscription)
                # Not after every message: this thread and the user's take turns, so what it does not do, they need
                # not wait for.
                if self._clock() >= self._due_ns:
                    self._keep_house()
        finally:
            self._stopping.set()
            self._close()

    def _moderate(self) -> None:
        """Under a stream of messages, let some gather, as a network card does with interrupts.

        Waking for each of them costs the user's threads, in turns of the interpreter lock, more than applying them
        does. A message that comes alone is not delayed.
        """
        now_ns = self._clock()
        if now_ns - self._woken_ns < _STREAM_NS:
            self._stopping.wait(_GATHER_S)
            now_ns = self._clock()
        self._woken_ns = now_ns

    def _keep_house(self) -> None:
        """Do what is due, and find out when to do it again. Whoever changes what is due sets ``_due_ns`` to 0."""
        if self._store() is None:
            self._stopping.set()
            return
        self._take_arrivals()
        self._connect_missing()
        self._beat()
        self._tend()
        if not self._settled.is_set() and all(s.lane.state is State.LIVE or s.failures for s in self._subscriptions):
            self._settled.set()
        due = [self._clock() + _IDLE_NS, self._tend_ns]
        for s in self._subscriptions:
            if s.link is not None:
                due.append(s.beat_ns)
                deadline_ns = s.lane.deadline_ns()
                if deadline_ns is not None:
                    due.append(deadline_ns)
            elif not s.connecting:
                due.append(s.retry_ns)
        self._due_ns = min(due)

    def _connect_missing(self) -> None:
        now_ns = self._clock()
        for subscription in self._subscriptions:
            if subscription.link is None and not subscription.connecting and now_ns >= subscription.retry_ns:
                subscription.connecting = True
                threading.Thread(
                    target=self._connect,
                    args=(subscription, self._arrivals),
                    name=f"nearcache-connect-{subscription.shard}",
                    daemon=True,
                ).start()

    def _connect(self, subscription: _Subscription, arrivals: queue.SimpleQueue[Any]) -> None:
        """Runs in a thread of its own."""
        try:
            arrivals.put((subscription, self._source.connect_listener(subscription.shard)))
        except Exception as error:  # noqa: BLE001  whatever it was, it has to be tried again
            arrivals.put((subscription, error))
        self.wake()
        if self._stopping.is_set():
            self._discard_arrivals()

    def _take_arrivals(self) -> None:
        while True:
            try:
                subscription, arrival = self._arrivals.get_nowait()
            except queue.Empty:
                return
            subscription.connecting = False
            if isinstance(arrival, Exception):
                subscription.lane.last_error = str(arrival)
                self._back_off(subscription)
            else:
                self._subscribe(subscription, arrival)

    def _subscribe(self, subscription: _Subscription, link: Link) -> None:
        subscription.link = link
        link.sock.setblocking(False)
        self._by_descriptor[link.sock.fileno()] = subscription
        self._poll.register(link.sock, select.POLLIN)
        self._perform(subscription, subscription.lane.connected(link.identity))
        channel = self._prefix + b"i"
        if self._send(subscription, _pack(b"SUBSCRIBE", channel)):
            self._send_heartbeat(subscription)

    def _back_off(self, subscription: _Subscription) -> None:
        subscription.failures += 1
        pause_s = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2 ** min(subscription.failures - 1, 10))
        subscription.retry_ns = self._clock() + int(pause_s * random.uniform(0.5, 1.0) * 1e9)

    def _tend(self) -> None:
        """As often as there is a heartbeat, reclaim what has expired in L1: reading alone does not.

        A little at a time, because the interpreter's other threads wait meanwhile; soon again if there was much.
        """
        store, now_ns = self._store(), self._clock()
        if store is None or now_ns < self._tend_ns:
            return
        held = len(store)
        for _ in range(_TENDS):
            store.tend()
        has_much = held - len(store) >= _TENDS
        self._tend_ns = now_ns + (_TEND_SOON_NS if has_much else self._subscriptions[0].lane.heartbeat_ns)

    # -- heartbeats

    def _beat(self) -> None:
        now_ns = self._clock()
        for subscription in self._subscriptions:
            if subscription.link is None:
                continue
            if subscription.lane.overdue(now_ns):
                self._lose(subscription, "no reply to a heartbeat")
            elif now_ns >= subscription.beat_ns:
                self._send_heartbeat(subscription)

    def _send_heartbeat(self, subscription: _Subscription, *, whole: bool = False) -> None:
        command, script = (b"EVAL", self._heartbeat.source) if whole else (b"EVALSHA", self._heartbeat.sha)
        now_ns = self._clock()
        subscription.lane.heartbeat_sent(now_ns)
        spread = random.uniform(0.9, 1.1)
        subscription.beat_ns = now_ns + int(subscription.lane.heartbeat_ns * spread)
        nonce = os.urandom(8).hex().encode()
        self._send(subscription, _pack(command, script, b"1", self._lane_key, b"1", nonce))

    def _send(self, subscription: _Subscription, data: bytes) -> bool:
        assert subscription.link is not None
        try:
            sent = subscription.link.sock.send(data)
        except OSError as error:
            self._lose(subscription, f"cannot send: {error}")
            return False
        if sent != len(data):  # a few bytes do not fit into an empty buffer: nobody reads there
            self._lose(subscription, "the server does not read")
            return False
        return True

    # -- receiving

    def _receive(self, subscription: _Subscription) -> None:
        link = subscription.link
        if link is None:
            return
        try:
            data = link.receive()  # over TLS, "not yet" is an error of its own, and a selector does not see everything
        except OSError as error:
            self._lose(subscription, f"cannot read: {error}")
            return
        if data is None:
            return
        if not data:
            self._lose(subscription, "the server closed the connection")
            return
        try:
            link.reader.feed(data)
            while subscription.link is link:
                item = link.reader.gets()
                if item is link.more:
                    return
                self._take(subscription, item)
        except hiredis.ProtocolError as error:
            self._lose(subscription, f"not the Redis protocol: {error}")
        except Exception as error:  # noqa: BLE001  no memory, say: what was not applied cannot be vouched for
            self._lose(subscription, f"a message could not be applied: {error!r}")

    def _take(self, subscription: _Subscription, item: Any) -> None:
        lane = subscription.lane
        if isinstance(item, hiredis.PushNotification):
            kind = item[0]
            if kind == b"message":
                self._perform(subscription, lane.message(item[2]))
                if self._watched and lane.position is not None:
                    self._notice(lane.position.wid)
            elif kind != b"subscribe":
                self._lose(subscription, f"the server sent {kind!r}")
        elif isinstance(item, ServerReplyError) and item.code == "NOSCRIPT":
            lane.forget_heartbeat()
            self._send_heartbeat(subscription, whole=True)
        else:
            self._perform(subscription, lane.heartbeat_reply(item))
            self._due_ns = 0
            if lane.state is State.LIVE:
                subscription.failures = 0
                self._source.note_alive(subscription.shard)

    def _notice(self, wid: int) -> None:
        seen = self._watched.pop(wid, None)
        if seen is not None:
            seen()

    def _perform(self, subscription: _Subscription, actions: list[Action]) -> None:
        store = self._store()
        if store is None:
            return
        shard = subscription.shard
        for action in actions:
            if isinstance(action, Apply):
                try:
                    keys = [decode_key(key) for key in action.keys]
                except DecodeError as error:
                    self._perform(subscription, subscription.lane.bad_frame(str(error)))
                    return
                subscription.dropped += store.apply(shard, action.wid, keys)
            elif isinstance(action, Vouch):
                store.lane_vouch(shard, action.until_ns)
            elif isinstance(action, Suspect):
                store.lane_suspect(shard)
            elif isinstance(action, Attach):
                store.lane_attach(shard, action.identity)
            elif isinstance(action, Detach):
                store.lane_attach(shard, 0)
                store.lane_dark(shard)
            elif isinstance(action, Reconnect):
                self._drop_link(subscription)

    # -- ending

    def _lose(self, subscription: _Subscription, reason: str) -> None:
        self._perform(subscription, subscription.lane.lost(reason))
        self._drop_link(subscription)

    def _drop_link(self, subscription: _Subscription) -> None:
        link, subscription.link = subscription.link, None
        if link is not None:
            self._poll.unregister(link.sock)
            del self._by_descriptor[link.sock.fileno()]
            link.close()
            self._back_off(subscription)
            self._due_ns = 0

    def _drain_wake(self) -> None:
        self._due_ns = 0
        with contextlib.suppress(BlockingIOError):
            while self._wake_in.recv(4096):
                pass

    def _close(self) -> None:
        for subscription in self._subscriptions:
            link, subscription.link = subscription.link, None
            if link is not None:
                link.close()
            store = self._store()
            if store is not None:
                self._perform(subscription, subscription.lane.lost("closed"))
        self._wake_in.close()
        self._wake_out.close()
        self._discard_arrivals()
        self._settled.set()

    def _discard_arrivals(self) -> None:
        """Close connections that were made for nobody."""
        while True:
            try:
                _, arrival = self._arrivals.get_nowait()
            except queue.Empty:
                return
            if not isinstance(arrival, Exception):
                arrival.close()
