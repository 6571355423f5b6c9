"""Threads that ask, hear and read many keys at the same instant: what each of them uses alone, and what they share.

The tests run on every build, and mean most on one without a GIL, with ThreadSanitizer (``make tsan``). Operations are
counted, never timed.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import pytest

from nearcache._asking import Line, is_readable
from nearcache._hearing import Ear, Inbox
from nearcache._shares import Share, deal
from nearcache._store import Store
from nearcache._watching import Echoes, Watch
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.coherence import pack_message
from nearcache.flights import ABANDONED, Read
from nearcache.keys import decode_key, encode_key
from support.store_kit import NEVER, SERVER
from support.threads import PATIENCE, Background, together

THREADS = 4
EPOCH, GENERATION, TTL_MS = 0xE, 0x9, 60_000
CHANNEL = b"nc:{t:0}:i"
NAMES = [f"key {number}" for number in range(60)]
MISSING = object()

pytestmark = pytest.mark.usefixtures("eager_switching")


def wid_of(seq: int) -> int:
    """The id of the message with this number, so that one tells the other."""
    return seq * 0x10001


def message(seq: int, keys: list[str]) -> bytes:
    """A message of the lane, as the connection carries it."""
    encoded = [encode_key(key) for key in keys]
    payload = pack_message("S", EPOCH, seq, wid_of(seq - 1), wid_of(seq), encoded)
    words = (b"message", CHANNEL, payload)
    return b">3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def attached() -> Store[Any, Any]:
    """A store whose lane is vouched for, with as many cores as the build has."""
    store: Store[Any, Any] = Store(1000, lanes=1)
    store.l1_set_clock(1000)
    store.lane_vouch(0, NEVER)
    store.lane_attach(0, SERVER)
    return store


# -- asking


def answer_all(theirs: socket.socket) -> None:
    """Play the server: a request is a line; the answer is it, its length, and much or little more."""
    with theirs.makefile("rb") as requests:
        for request in requests:
            body = request[:-1]
            large = body * (1000 if body.endswith(b"7") else 1)
            theirs.sendall(b"*2\r\n$%d\r\n%s\r\n:%d\r\n$%d\r\n%s\r\n" % (len(body), body, len(body), len(large), large))


@contextmanager
def pool(size: int) -> Iterator[SimpleQueue[tuple[socket.socket, Line]]]:
    """Connections, each with its line, that are taken by whoever needs one."""
    idle: SimpleQueue[tuple[socket.socket, Line]] = SimpleQueue()
    threads = []
    with ExitStack() as ends:
        for _ in range(size):
            ours, theirs = socket.socketpair()
            ends.enter_context(theirs)
            threads.append(threading.Thread(target=answer_all, args=(theirs,)))
            threads[-1].start()
            idle.put((ours, Line()))
        try:
            yield idle
        finally:
            for _ in range(size):
                idle.get(timeout=PATIENCE)[0].close()
            for thread in threads:
                thread.join(PATIENCE)


def test_ask_through_one_pool_each_thread_gets_the_answers_to_its_own_requests() -> None:
    """Lines go from thread to thread, and carry nothing over."""
    with pool(THREADS - 1) as idle:

        def worker(number: int) -> None:
            for turn in range(300):
                body = b"thread %d turn %d" % (number, turn)
                ours, line = idle.get(timeout=PATIENCE)
                try:
                    assert not is_readable(ours.fileno())
                    values: list[Any] = []
                    assert line.ask(ours.fileno(), body + b"\n", 2, PATIENCE, values)
                    assert values == [[body, len(body)], body * (1000 if turn % 10 == 7 else 1)]
                    assert line.rest() == b""
                finally:
                    idle.put((ours, line))

        together(worker, THREADS)


# -- hearing


class Hearing:
    """One lane on a socket pair: what a listener's thread has, and the other end."""

    def __init__(self, store: Store[Any, Any]) -> None:
        self.store = store
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.awaited: dict[bytes, Any] = {}
        self.watched: dict[int, Any] = {}
        self.ear = Ear(0, CHANNEL, self.awaited)
        self.ear.aim(EPOCH, 0, 0)
        self.inbox = Inbox([self.ear], b"AFIS", decode_key, self.watched)
        self.echoes = Echoes()
        self.heard = 0
        self.watch = Watch(lambda: store, self.echoes)
        self.watch.add(self.ours.fileno(), self.inbox, self.note)

    def note(self, ears: list[Ear]) -> None:
        """What a follower does."""
        for ear in ears:
            self.heard += ear.take()[2]

    def listen(self, count: int) -> None:
        """The thread: until so many messages have been applied."""
        while self.heard < count:
            for _ in self.watch.wait(50):
                # Others' turn: a key or a write id that somebody waits for stands in front.
                self.awaited.clear()
                self.watched.clear()
                heard = self.inbox.hear(self.store)
                if heard is not None:
                    self.note(heard)

    def close(self) -> None:
        """Both ends."""
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def hearing() -> Iterator[Hearing]:
    made = Hearing(attached())
    yield made
    made.close()


def test_hear_while_others_use_what_it_tells_them_nothing_is_torn(hearing: Hearing) -> None:
    """A lane's place is that of one message; what was there before a message is not found after it."""
    store, total = hearing.store, 1500
    applied = threading.Event()

    def write(rng: random.Random) -> None:
        for seq in range(1, total + 1):
            if rng.random() < 0.5:
                hearing.echoes.expect(wid_of(seq))
            if rng.random() < 0.02:
                hearing.awaited[encode_key(rng.choice(NAMES))] = None
                hearing.watched[wid_of(seq)] = None
            hearing.theirs.sendall(message(seq, rng.sample(NAMES, 3)))

    def look() -> None:
        last = 0
        while not applied.is_set():
            for epoch, seq, wid in filter(None, [hearing.ear.place() for _ in range(100)]):
                assert (epoch, wid) == (EPOCH, wid_of(seq))
                assert seq >= last
                last = seq

    def read(rng: random.Random) -> None:
        while not applied.is_set():
            key = rng.choice(NAMES)
            value = store.get(key)
            assert value is None or value == key
            read = Read(key, 0)
            store.l1_open(read)
            store.l1_finish(read, key, rng.randrange(1, 1000), NEVER, identity=SERVER)

    def worker(number: int) -> None:
        rng = random.Random(number)
        if number == 0:
            write(rng)
        elif number == 1:
            try:
                hearing.listen(total)
            finally:
                applied.set()
        elif number == 2:
            look()
        else:
            read(rng)

    together(worker, THREADS)
    assert hearing.ear.place() == (EPOCH, total, wid_of(total))
    store.check_invariants()
    hearing.theirs.sendall(message(total + 1, NAMES))
    hearing.listen(total + 1)
    assert len(store) == 0


# -- many keys


class Bulk:
    """What a bulk read needs, and a server that holds every key."""

    def __init__(self) -> None:
        self.store = attached()
        self.codec = ValueCodec(SafeCodec(), 1 << 16)
        self.lock = threading.RLock()

    def answers(self, share: Share, wid: int) -> list[Any]:
        """To what the share asks; each value is its key's encoded form."""
        bodies, headers = [], []
        for place, encoded in enumerate(share.encoded):
            sealed = self.codec.dumps(encoded, wid=wid, generation=GENERATION, ttl_ms=TTL_MS)
            if share.suspect(place) is None:
                bodies.append(sealed)
            else:
                headers.append(sealed[:36])
        return [*[TTL_MS] * len(share), *([bodies] if bodies else []), *headers, [b"9", None]]

    def read(self, names: list[str], wid: int, *, fails: bool) -> dict[str, bytes]:
        """Read these keys, as the steps do."""
        found: dict[str, bytes] = {}
        (share,) = deal(names, bytes(16_384), encode_key)
        try:
            share.open(self.store, 1)
            values = self.answers(share, wid)
            if not fails:
                self.settle(share, values, found)
        finally:
            share.end(self.store, self.lock)
        return found

    def settle(self, share: Share, values: list[Any], found: dict[str, bytes]) -> None:
        """Take what the server said."""
        left, _, _ = share.settle(
            self.store, values, GENERATION, SERVER, 1000, TTL_MS, 1, self.codec.usual, found, MISSING
        )
        assert left == []
        share.resolve(self.lock)


def test_read_many_in_many_threads_at_once_who_waits_gets_what_was_read() -> None:
    """Reads of the same keys, joined by others, spoken against by messages, given up now and then."""
    bulk = Bulk()
    store = bulk.store

    def disturb() -> None:
        rng = random.Random(9)
        while not background.stopping.is_set():
            if rng.random() < 0.1:
                store.lane_suspect(0)
                store.lane_vouch(0, NEVER)
            store.lane_apply(0, rng.randrange(1, 1000), rng.sample(NAMES, 5))

    def join(rng: random.Random) -> None:
        name = rng.choice(NAMES)
        read = store.l1_join(name)
        if read is None:
            return
        assert isinstance(read, Read)
        told = threading.Event()
        call: Callable[[], object] = told.set
        read.add_done_callback(call, bulk.lock)
        outcome = read.wait(bulk.lock, PATIENCE)
        assert outcome is ABANDONED or outcome == encode_key(name)
        assert told.wait(PATIENCE)
        assert read.outcome is outcome or outcome is ABANDONED
        read.remove_done_callback(call, bulk.lock)

    def worker(number: int) -> None:
        rng = random.Random(number)
        for turn in range(300):
            if number % 2:
                join(rng)
                continue
            names = rng.sample(NAMES, 20)
            fails = rng.random() < 0.1
            found = bulk.read(names, number * 1000 + turn + 1, fails=fails)
            assert all(value == encode_key(name) for name, value in found.items())
            value = store.get(names[0])
            assert value is None or value == encode_key(names[0])

    background = Background(disturb)
    background.start()
    try:
        together(worker, THREADS)
    finally:
        background.end()
    store.check_invariants()
    assert all(store.l1_join(name) is None for name in NAMES)
