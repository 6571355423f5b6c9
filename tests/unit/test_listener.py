"""The listener on a socket pair: what the tests with real servers cannot make happen."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from typing import Any

import hiredis
import pytest

from nearcache._store import Store
from nearcache.clocks import monotonic_ns, suspended_ns
from nearcache.coherence import Lane, State, pack_message
from support.followers import listener_of

TIMEOUT = 20.0
EPOCH = 0xE


class FragileStore(Store[Any, Any]):
    """A store that runs out of memory when it is told to."""

    fails = False

    def lane_apply(self, lane: int, wid: int, keys: list[Any]) -> int:
        if self.fails:
            raise MemoryError
        return super().lane_apply(lane, wid, keys)


class OneLink:
    """Our end of a connection."""

    more = object()
    identity = 7

    def __init__(self, sock: socket.socket, source: Source) -> None:
        self.sock = sock
        self.source = source
        self.plain = source.plain
        self.reader = hiredis.Reader(notEnoughData=self.more)

    def send_some(self, data: memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def receive(self) -> bytes | None:
        self.source.received += 1
        try:
            return self.sock.recv(65536)
        except BlockingIOError:
            return None

    def close(self) -> None:
        self.sock.close()


class Source:
    """Hands out socket pairs; the test plays the server at their other ends."""

    def __init__(self) -> None:
        self.servers: list[socket.socket] = []
        self.connected = threading.Semaphore(0)
        self.alive = threading.Semaphore(0)
        self.slept_ns = 0
        self.plain = True
        self.received = 0

    def connect_listener(self, shard: int) -> OneLink:
        ours, theirs = socket.socketpair()
        theirs.settimeout(TIMEOUT)
        self.servers.append(theirs)
        self.connected.release()
        return OneLink(ours, self)

    def note_alive(self, shard: int) -> None:
        self.alive.release()

    def name_of(self, shard: int) -> str:
        return f"number {shard}"


@pytest.fixture
def scene() -> Any:
    """A running listener with a server that has answered its first heartbeat."""
    store = FragileStore(10)
    source, lane = Source(), Lane(60_000_000_000)
    listener = listener_of(store, source, [lane], slept=lambda: source.slept_ns)
    listener.start()
    answer(source, seq=0, wid=0)
    assert listener.wait_settled(TIMEOUT)
    yield store, source, lane, listener
    listener.stop()
    for server in source.servers:
        server.close()


def answer(source: Source, seq: int, wid: int) -> None:
    """Play the server: wait for a connection and its heartbeat, and answer that."""
    assert source.connected.acquire(timeout=TIMEOUT)
    reply(source, seq, wid)


def reply(source: Source, seq: int, wid: int) -> None:
    """Wait for a heartbeat on the newest connection and answer that."""
    server, heard = source.servers[-1], b""
    while b"EVALSHA" not in heard:
        more = server.recv(65536)
        assert more
        heard += more
    server.sendall(standing(seq, wid))


def standing(seq: int, wid: int) -> bytes:
    """A heartbeat's reply."""
    fields = [b"%016x" % EPOCH, b"%d" % seq, b"%016x" % wid, b"%016x" % 9, b"1"]
    return b"*5\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields)


def push(payload: bytes) -> bytes:
    """A message as RESP3 carries it."""
    parts = (b"message", b"nc:{t:0}:i", payload)
    return b">3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def test_listener_that_cannot_apply_a_message_gives_up_the_lane_and_reconnects(scene: Any) -> None:
    """Out of memory at the wrong moment: nothing may be vouched for, and nothing may end."""
    store, source, lane, listener = scene
    assert lane.state is State.LIVE
    store.fails = True
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 1, 0, 5, [b"sk"])))
    assert source.servers[-1].recv(1) == b""  # it has hung up
    assert store.lane_fresh_until(0) == 0
    assert "MemoryError" in lane.last_error
    store.fails = False
    seen = threading.Event()
    listener.watch(6, seen.set)
    answer(source, seq=1, wid=5)
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 2, 5, 6, [b"sk"])))
    assert seen.wait(TIMEOUT)
    assert lane.state is State.LIVE


def test_listener_whose_store_is_gone_ends(scene: Any) -> None:
    """It holds the store weakly; when it next looks round there is nothing to do."""
    _, _, _, listener = scene
    thread = listener.thread
    listener._store = lambda: None
    listener.wake()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def no_thread(monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception] = RuntimeError) -> threading.Event:
    """Let the next thread of this name not come to be. Returns what tells that it has happened."""
    refused, start = threading.Event(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name) and not refused.is_set():
            refused.set()
            raise error("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return refused


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_listener_outlives_a_lack_of_threads_to_connect_with(
    scene: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The process is at its limit for a moment: it tries again, instead of leaving L1 dark for ever."""
    _, source, lane, listener = scene
    refused = no_thread(monkeypatch, "nearcache-connect", error)
    source.servers[-1].close()
    assert refused.wait(TIMEOUT)
    answer(source, seq=0, wid=0)
    assert source.alive.acquire(timeout=TIMEOUT)
    assert source.alive.acquire(timeout=TIMEOUT)
    assert lane.state is State.LIVE
    assert listener.thread.is_alive()


def test_listener_outlives_what_nobody_expected(
    scene: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It drops its connections, says so, and begins anew: a thread that ended would leave L1 dark for good."""
    store, source, lane, listener = scene

    def tend() -> None:
        monkeypatch.undo()
        raise RuntimeError("out of order")

    monkeypatch.setattr(listener, "_tend", tend)
    listener.wake()
    assert source.servers[-1].recv(1) == b""  # it has hung up
    assert store.lane_fresh_until(0) == 0
    answer(source, seq=0, wid=0)
    assert source.alive.acquire(timeout=TIMEOUT)
    assert source.alive.acquire(timeout=TIMEOUT)
    assert lane.state is State.LIVE
    assert "out of order" in caplog.text


class Hostile(logging.Handler):
    """A handler of the user's that raises whatever is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_listener_outlives_a_log_that_cannot_be_written(
    scene: Any, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """In the moment in which it says that it begins anew, and whatever the reason for that was."""
    _, source, lane, listener = scene
    assert source.alive.acquire(timeout=TIMEOUT)
    hostile, log = Hostile(), logging.getLogger("nearcache")

    def tend() -> None:
        monkeypatch.undo()
        raise error("out of order")

    monkeypatch.setattr(listener, "_tend", tend)
    log.addHandler(hostile)
    try:
        listener.wake()
        answer(source, seq=0, wid=0)
        assert source.alive.acquire(timeout=TIMEOUT)
    finally:
        log.removeHandler(hostile)
    assert lane.state is State.LIVE
    assert listener.thread.is_alive()


@pytest.mark.parametrize("when", ["while it was made", "before it was read"])
def test_listener_outlives_a_connection_that_failed_in_a_way_of_its_own(
    scene: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """An exit in the thread that makes it, and a socket that somebody else has closed: another one is made."""
    _, source, lane, listener = scene
    assert source.alive.acquire(timeout=TIMEOUT)
    connect = source.connect_listener
    failed = threading.Event()

    def fail(shard: int) -> OneLink:
        monkeypatch.undo()
        try:
            if when == "while it was made":
                raise SystemExit
            link = connect(shard)
            assert source.connected.acquire(timeout=TIMEOUT)
            link.sock.close()
            return link
        finally:
            failed.set()

    monkeypatch.setattr(source, "connect_listener", fail)
    source.servers[-1].close()
    assert failed.wait(TIMEOUT)  # this thread is not to take the one that failed for the other
    answer(source, seq=0, wid=0)
    assert source.alive.acquire(timeout=TIMEOUT)
    assert lane.state is State.LIVE
    assert listener.thread.is_alive()


def test_listener_that_had_no_thread_is_started_by_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing it is no error either."""
    store, source = FragileStore(10), Source()
    listener = listener_of(store, source, [Lane(60_000_000_000)])
    refused = no_thread(monkeypatch, "nearcache-listener")
    listener.start()
    assert refused.is_set()
    listener.start()
    answer(source, seq=0, wid=0)
    assert listener.wait_settled(TIMEOUT)
    listener.stop()
    for server in source.servers:
        server.close()


def test_listener_reclaims_what_has_expired_when_a_heartbeat_is_due() -> None:
    """Somebody who only reads reclaims nothing. All of a burst goes, without waiting for a heartbeat each time."""
    gone: list[tuple[str, str]] = []
    done = threading.Event()
    ahead_ns = [0]

    def note(key: int, value: int, cause: str) -> None:
        gone.append((cause, threading.current_thread().name))
        if len(gone) == 3000:
            done.set()

    store: Store[int, int] = Store(None, ttl_ns=10**9, listener=note)
    store.l1_set_clock(0)
    source, lane = Source(), Lane(60_000_000_000)
    listener = listener_of(store, source, [lane], clock=lambda: monotonic_ns() + ahead_ns[0])
    listener.start()
    answer(source, seq=0, wid=0)
    assert listener.wait_settled(TIMEOUT)
    for n in range(3000):
        store[n] = n
    store.l1_set_clock(2 * 10**9)
    ahead_ns[0] = lane.heartbeat_ns
    listener.wake()
    assert done.wait(TIMEOUT)
    assert set(gone) == {("expired", "nearcache-listener")}
    assert len(store) == 0
    listener.stop()
    for server in source.servers:
        server.close()


class Tended(Store[int, int]):
    """A store that says when it has given back what it could."""

    done: threading.Event

    def l1_tend(self) -> bool:
        """Tend."""
        more = super().l1_tend()
        if not more and not len(self):
            self.done.set()
        return more


def test_listener_gives_the_tables_of_a_burst_back_without_waiting_for_heartbeats() -> None:
    """A million entries would take minutes at some thousand steps a heartbeat."""
    store, ahead_ns = Tended(None, ttl_ns=10**9, cores=1), [0]  # a small core keeps its tables
    store.done = threading.Event()
    store.l1_set_clock(0)
    source, lane = Source(), Lane(60_000_000_000)
    listener = listener_of(store, source, [lane], clock=lambda: monotonic_ns() + ahead_ns[0])
    listener.start()
    answer(source, seq=0, wid=0)
    assert listener.wait_settled(TIMEOUT)
    for n in range(40_000):
        store[n] = n
    full = sys.getsizeof(store)
    store.done.clear()
    store.l1_set_clock(2 * 10**9)
    ahead_ns[0] = lane.heartbeat_ns
    listener.wake()
    assert store.done.wait(TIMEOUT)
    listener.stop()
    assert sys.getsizeof(store) < full / 4
    for server in source.servers:
        server.close()


def test_listener_that_notices_a_sleep_vouches_for_nothing_until_the_next_heartbeat(scene: Any) -> None:
    """The clock that L1 reads stood still; only an answer to a question asked since then counts."""
    store, source, lane, listener = scene
    stamp = store.lane_stamp(0)
    assert source.alive.acquire(timeout=TIMEOUT)
    source.slept_ns = 3_600_000_000_000
    listener.wake()
    reply(source, seq=0, wid=0)  # it asks at once, not when it next would have
    assert source.alive.acquire(timeout=TIMEOUT)
    assert store.lane_stamp(0) == stamp + 1
    assert store.lane_fresh_until(0) > 0
    assert lane.counters.resyncs == 1


def test_listener_that_waits_between_two_clocks_suspects_no_sleep(scene: Any) -> None:
    """A difference read too late says too little, and is right again at the next turn."""
    store, source, _, listener = scene
    stamp = store.lane_stamp(0)
    seen = threading.Event()
    assert listener.await_key(0, b"sk", seen.set)
    source.slept_ns = -2_000_000_000
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 1, 0, 5, [b"sk"])))
    assert seen.wait(TIMEOUT)
    seen.clear()
    assert listener.await_key(0, b"sk", seen.set)
    source.slept_ns = 4_000_000
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 2, 5, 6, [b"sk"])))
    assert seen.wait(TIMEOUT)
    assert store.lane_stamp(0) == stamp
    assert store.lane_fresh_until(0) > 0


def test_clocks_of_this_machine_say_for_how_long_it_slept() -> None:
    """Two readings in a row, without a sleep between them, agree or say less."""
    most = max(suspended_ns() for _ in range(100))
    assert suspended_ns() <= most + 5_000_000


def test_listener_whose_server_reads_slowly_sends_the_rest_when_it_can(scene: Any) -> None:
    """What does not fit into the socket at once is kept, in order."""
    _, source, lane, listener = scene
    assert source.alive.acquire(timeout=TIMEOUT)
    follower = listener._followers[0]
    replies: list[Any] = []
    answered = threading.Event()

    def on_reply(answer: Any, now_ns: int) -> None:
        replies.append(answer)
        answered.set()

    def ask() -> None:
        follower.request(b"x" * 4_000_000, on_reply)

    assert listener.await_key(0, b"sk", ask)  # runs where the follower may be driven from
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 1, 0, 5, [b"sk"])))
    heard = 0
    while heard < 4_000_000:
        heard += len(source.servers[-1].recv(65536))
    source.servers[-1].sendall(b"+PONG\r\n")
    assert answered.wait(TIMEOUT)
    assert replies == [b"PONG"]
    assert lane.state is State.LIVE


def test_listener_over_tls_reads_what_the_link_has_decrypted() -> None:
    """There the socket's own bytes are not the protocol's."""
    store: Store[Any, Any] = Store(10)
    source, lane = Source(), Lane(60_000_000_000)
    source.plain = False
    listener = listener_of(store, source, [lane])
    listener.start()
    answer(source, seq=0, wid=0)
    assert listener.wait_settled(TIMEOUT)
    seen = threading.Event()
    listener.watch(5, seen.set)
    source.servers[-1].sendall(push(pack_message("S", EPOCH, 1, 0, 5, [b"sk"])))
    assert seen.wait(TIMEOUT)
    assert source.received > 0
    source.servers[-1].close()
    assert source.connected.acquire(timeout=TIMEOUT)  # it noticed, and connects again
    listener.stop()
    for server in source.servers:
        server.close()
