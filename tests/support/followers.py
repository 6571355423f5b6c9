"""A follower by itself: some lanes, and what a server would see and say."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hiredis

from nearcache._store import Op, Store
from nearcache.bus import Followed, Follower, Listener
from nearcache.coherence import Derived, Horizon, Lane, pack_message
from nearcache.placement import LaneNames
from support.hearsay import bulk

EPOCH, GENERATION = 0xE, 0x9
BOUND = 2_000_000_000
START = 10_000_000_000
NOSCRIPT = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"

AnyListener = TypeVar("AnyListener", bound=Listener)


class Heartbeat:
    """Stands for the script."""

    source = b"return 1"
    sha = b"5" * 40


class NoKeeper:
    """There is nothing to keep."""

    renew_every_ns = 60_000_000_000

    def forked(self, lane: int, epoch: int, ends: dict[int, int] | None, seq: int) -> None:
        """Nothing is owed."""

    def vouched(self, lane: int) -> None:
        """Nothing is to be paid."""

    def refused(self, lane: int) -> None:
        """There is one list of shards."""

    def suspended(self, now_ns: int) -> None:
        """Nobody asks how old anything is."""

    def renewals(self, now_ns: int) -> list[Any]:
        """There are no leases."""
        return []


def lent(store: Callable[[], Store[Any, Any] | None], lanes: int = 1) -> dict[str, Any]:
    """What followers and listeners of so many lanes work with, where no value has tags and there is nothing to keep."""
    horizon = Horizon(store, Store(10, lanes=lanes), Derived(lanes))
    return {"horizon": horizon, "keeper": NoKeeper(), "ring": lambda: b"1"}


def listener_of(
    store: Store[Any, Any], source: Any, lanes: Sequence[Lane], kind: type[AnyListener] = Listener, **options: Any
) -> AnyListener:
    """A listener of these lanes, which are named by their numbers."""
    names = [LaneNames(b"nc:{t:%d}:" % number) for number in range(len(lanes))]
    here = weakref.ref(store)
    return kind(here, source, lanes, names, Heartbeat(), namespace="t", **lent(here, len(lanes)), **options)


class Scene:
    """A follower of some lanes, and what a server would see and say."""

    def __init__(self, lanes: int = 1) -> None:
        self.store: Store[Any, Any] = Store(100, lanes=lanes)
        self.store.l1_set_clock(START)
        self.lanes = [Lane(BOUND) for _ in range(lanes)]
        self.names = [LaneNames(b"nc:{t:%d}:" % number) for number in range(lanes)]
        self.watched: dict[int, Callable[[], None]] = {}
        self.nonces = iter(range(1, 1000))
        self.follower = Follower(
            lambda: self.store,
            [Followed(number, lane, self.names[number]) for number, lane in enumerate(self.lanes)],
            Heartbeat(),
            uniform=lambda low, high: (low + high) / 2,
            nonce=lambda: b"%016x" % next(self.nonces),
            watched=self.watched,
            **lent(lambda: self.store, lanes),
        )

    def sent(self) -> list[list[bytes]]:
        """Take what the follower wants to send, as commands."""
        reader = hiredis.Reader()
        reader.feed(bytes(self.follower.outgoing))
        self.follower.outgoing.clear()
        commands = []
        while (command := reader.gets()) is not False:
            commands.append(command)
        return commands

    def go_live(self) -> None:
        """Connect, subscribe, answer the first heartbeats; hold a value under ``"k"``, written as 3."""
        self.follower.connected(7, START)
        self.sent()
        self.follower.received(b"".join(standing(0, 3) for _ in self.lanes), START)
        assert self.follower.is_live


def standing(seq: int, wid: int) -> bytes:
    """A heartbeat's reply."""
    return b"*5\r\n" + bulk(b"%016x" % EPOCH, b"%d" % seq, b"%016x" % wid, b"%016x" % GENERATION, b"1")


def push(lane: int, operation: str, seq: int, prev: int, wid: int, *keys: bytes) -> bytes:
    """A message as RESP3 carries it."""
    payload = pack_message(operation, EPOCH, seq, prev, wid, list(keys))
    return b">3\r\n" + bulk(b"message", b"nc:{t:%d}:i" % lane, payload)


def names_of(commands: list[list[bytes]]) -> list[bytes]:
    """The commands' own names."""
    return [command[0] for command in commands]


def fill(store: Store[Any, Any], key: Any, value: Any, wid: int = 1, lane: int = 0) -> None:
    """Store a result as a reader would."""
    op = Op(key, lane)
    store.l1_open(op)
    assert store.l1_finish(op, value, wid, 2**62, identity=7)
