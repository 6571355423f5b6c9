"""No memory, at each point where the compiled modules of the wire ask the interpreter for some.

CPython can make the n-th allocation fail (``_testcapi``), and with a GIL it survives that. Run as a program, in a
process of its own, where nothing else allocates: each scene is played once for every n, and says afterwards whether
all is as it should be. Prints the names of the scenes that went well.

Nearly all that they do is done by compiled code: some CPythons leak a little where the frame of a Python function finds
no memory, and release too much where a function is to be made.
"""

from __future__ import annotations

import gc
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nearcache._asking import Line
from nearcache._envelopes import opened, placed, sealed, whole
from nearcache._getting import Get
from nearcache._hearing import Ear, Inbox
from nearcache._packing import pack
from nearcache._putting import Put, said
from nearcache._reads import Read
from nearcache._shares import deal
from nearcache._store import Store
from nearcache._watching import Echoes, Watch
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.coherence import pack_message
from nearcache.keys import decode_key, encode_key
from nearcache.l2.scripts import Script, load
from nearcache.placement import LaneNames

try:
    import _testcapi
except ImportError:  # then each scene is played once, and not disturbed
    _testcapi = None
# Without a GIL CPython 3.13 crashes where the making of a function, or bytes.join, finds no memory.
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    _testcapi = None

#: After so many in a row that did no harm, a scene has made all its allocations.
HARMLESS = 40
CODEC = ValueCodec(SafeCodec(), 1 << 20)
NAMES = LaneNames(b"nc:{t:0}:")
SET = load("set")
LOCK = threading.RLock()
SERVER, NOW, FAR = 7, 1000, 2**62
TABLE = bytes(16_384)
MISSING = object()
TEXTS = ["x" * 20_000, "\u00e9" * 10_000, b"y" * 20_000, ["z" * 20_000], "small"]
ENVELOPES = [CODEC.dumps(value, wid=5, generation=9, ttl_ms=60_000) for value in TEXTS]
COMMANDS: list[tuple[Any, ...]] = [(b"GET", "k", 12), (SET, 1, b"k", b"a"), ("SET", b"k", 1.5)]
#: Does what may fail, and says then whether all is as it should be: whether it was done is told to it.
Play = tuple[Callable[[], object], Callable[[bool], object]]


def bulk(*words: bytes) -> bytes:
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def spoken(stream: bytes) -> tuple[socket.socket, socket.socket]:
    """A connection on which this has come, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.sendall(stream)
    return ours, theirs


def asking(place: int) -> Play:
    """Ask for a value; with a list, a number and a large value beside it."""
    stream = b":60000\r\n" + bulk(ENVELOPES[place]) + b"*2\r\n:1\r\n$2\r\nab\r\n" + bulk(b"w" * 20_000)
    line, request, values = Line(), Get(b"nc:", b"sk", None, CODEC.usual), list[Any]()
    ours, theirs = spoken(stream)

    def act() -> None:
        assert line.ask(ours.fileno(), request, 4, 5.0, values)

    def after(done: bool) -> None:
        ours.close()
        theirs.close()
        again, other = spoken(stream)
        found: list[Any] = []
        assert line.ask(again.fileno(), request, 4, 5.0, found)  # as on a connection of its own
        for heard in [found, values] if done else [found]:
            assert [heard[0], *heard[2:]] == [60_000, [1, b"ab"], b"w" * 20_000]
            assert whole(heard[1]) == ENVELOPES[place]
            assert opened(heard[1], CODEC.usual) == (TEXTS[place], 5, 9, 60_000)
        again.close()
        other.close()

    return act, after


def handing_out() -> Play:
    """Ask for what does not come whole."""
    line, rests = Line(), list[bytes]()
    ours, theirs = spoken(b":1\r\n" + bulk(ENVELOPES[0])[:15_000])

    def act() -> None:
        line.ask(ours.fileno(), Get(b"", b"k", None, CODEC.usual), 2, 0.0, [])
        rests.append(line.rest())

    def after(done: bool) -> None:
        assert not done or rests == [bulk(ENVELOPES[0])[:15_000]]
        ours.close()
        theirs.close()

    return act, after


def packing() -> Play:
    """Commands, a write, a read, a key, and what the server says of a write."""
    made: list[Any] = []

    def fallback(command: tuple[Any, ...]) -> bytes:
        return repr(command).encode()

    def act() -> None:
        put = Put("x" * 20_000, CODEC.plain)
        put.seal(NAMES, SET, b"1-0", b"sk", 5, 9, 1000, 0, b"", (16_384, 1000))
        made[:] = [
            pack(COMMANDS, Script, fallback), put.data, list(put), list(Get(b"p", b"k", b"L", None)),
            placed("key", TABLE, encode_key), sealed(b"stext", 5, 9, 1000, 0, 1, 0),
            opened(ENVELOPES[1], CODEC.usual), whole(ENVELOPES[1]),
            said(b"1 0000000000000009 000000000000000e 7 ").seq, said([2, b"9", b"v", 5]).envelope,
        ]  # fmt: skip

    def after(done: bool) -> None:
        before = list(made)
        act()
        for first, again in zip(before, made, strict=done):
            # What cannot be opened here, for whatever reason, is opened by those who know all of the rules.
            assert first == again or (first is None and isinstance(again, tuple))

    return act, after


def reading() -> Play:
    """Read keys together, one of them a suspect; end them whatever happened, as who reads them does."""
    store: Store[Any, Any] = Store(100)
    store.l1_set_clock(NOW)
    store.lane_attach(0, SERVER)
    store.lane_vouch(0, FAR)
    keys, found, woken = ["a", b"b", "c", "absent"], dict[Any, Any](), list[object]()
    answers = [60_000, -1, 60_000, -2, [ENVELOPES[4]] * 3 + [None], b"9"]

    def wake() -> None:
        woken.append(None)

    def act() -> None:
        (share,) = deal(keys, TABLE, encode_key)
        try:
            share.open(store, 1)
            for read in share.reads:
                read.add_done_callback(wake, LOCK)
            asked = share.ask(b"p", b"L", (b"0", b"35"), (b"0", b"99"), 1)
            assert len(asked) == len(answers)
            assert asked.data
            left, changed, _ = share.settle(
                store, answers, 9, SERVER, NOW, 60_000, 1, CODEC.usual, found, MISSING
            )  # fmt: skip
            assert changed == []
            if left:  # for those who decode it again, and find that there is no memory
                raise MemoryError
            share.resolve(LOCK)
        finally:
            share.end(store, LOCK)

    def after(done: bool) -> None:
        store.check_invariants()
        assert all(value == "small" for value in found.values())
        assert all(value == "small" for _, value in store.l1_snapshot())
        assert not done or (len(found) == 3 and len(store) == 3 and len(woken) == 4)
        if not done:
            act()
            assert len(found) == 3

    return act, after


def joining() -> Play:
    """A read that is waited for, by a callback and by a thread that has come too late."""
    store: Store[Any, Any] = Store(100)
    read = Read(("key", 1), 0, 1)
    heard: list[object] = []

    def hear() -> None:
        heard.append(None)

    def act() -> None:
        store.l1_open(read)
        try:
            read.add_done_callback(hear, LOCK)
        finally:
            store.l1_abandon(read, drop=False)
            read.resolve("outcome", LOCK)
        assert read.wait(LOCK, 0.0) == "outcome"

    def after(done: bool) -> None:
        store.check_invariants()
        store.l1_abandon(read, drop=False)  # there may have been no memory for the call
        assert store.l1_join(("key", 1)) is None
        read.resolve("outcome", LOCK)
        assert not done or heard == [None]

    return act, after


def hearing() -> Play:
    """Messages about keys of each kind, and one for others; fed, and received by a watch."""
    store: Store[Any, Any] = Store(100)
    keys: list[Any] = ["a", b"b", 7, "\u00e9"]
    for key in keys:
        store.l1_put(key, "old")
    ear, other = Ear(0, b"channel", {}), Ear(1, b"another", {})
    ear.aim(1, 1, 1)
    inbox = Inbox([other, ear], b"SFIA", decode_key, {})
    message = pack_message("I", 1, 2, 1, 2, [encode_key(key) for key in keys])
    stream = b">3\r\n" + bulk(b"message", b"channel", message) + b":1\r\n"
    ours, theirs = spoken(stream)
    notes: list[Any] = []
    watch = Watch(lambda: store, Echoes())

    def act() -> None:
        watch.add(ours.fileno(), inbox, notes.append)
        try:
            watch.wait(0)
            watch.want(ours.fileno(), False)
        finally:
            watch.remove(ours.fileno())
        inbox.feed(b"+OK\r\n")
        taken = inbox.take()
        if taken == stream[: -len(b":1\r\n")]:  # a key could not be decoded: the message is left to others
            raise MemoryError
        assert taken == b":1\r\n"

    def after(done: bool) -> None:
        store.check_invariants()
        assert not done or (len(store) == 0 and notes == [[ear]] and inbox.take() == b"+OK\r\n")
        assert dict(store.l1_snapshot()).items() <= dict.fromkeys(keys, "old").items()
        while inbox.take() is not None:
            pass
        watch.add(ours.fileno(), inbox, notes.append)  # it is in no list twice, or half
        watch.remove(ours.fileno())
        ours.close()
        theirs.close()

    return act, after


SCENES: dict[str, Callable[[], Play]] = {
    "text": lambda: asking(0),
    "text that is not ASCII": lambda: asking(1),
    "bytes": lambda: asking(2),
    "list": lambda: asking(3),
    "small": lambda: asking(4),
    "handing out": handing_out,
    "packing": packing,
    "reading": reading,
    "joining": joining,
    "hearing": hearing,
}


@contextmanager
def without_memory(number: int) -> Iterator[None]:
    """Let one allocation fail."""
    if _testcapi is not None:
        _testcapi.set_nomemory(number, number + 1)
    try:
        yield
    finally:
        if _testcapi is not None:
            _testcapi.remove_mem_hooks()


def play(scene: Callable[[], Play]) -> int:
    """Play a scene to its end, without memory at each point in turn. Returns how often there was none."""
    refused, number, last = 0, -1, 0
    while number - last < HARMLESS:
        number += 1
        act, after = scene()
        done = False
        try:
            with without_memory(number):
                act()
                done = True
        except MemoryError:
            refused, last = refused + 1, number
        after(done)
    return refused


def main() -> None:
    for name, scene in SCENES.items():
        refused = play(scene)
        for _ in range(5):  # the interpreter may keep something of the first times
            gc.collect()
            before = sys.getallocatedblocks()
            again = play(scene)
            gc.collect()
            leaked = sys.getallocatedblocks() - before
            if leaked <= 0:
                break
        else:
            raise SystemExit(f"{name}: {leaked} blocks of memory more after each time")
        assert (refused > 0) == (again > 0) == (_testcapi is not None), (name, refused, again)
        print(name)


if __name__ == "__main__":
    main()
