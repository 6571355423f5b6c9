"""Messages applied off the buffer, and the same messages taken apart one by one, leave store and lanes alike."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._hearing import Inbox
from nearcache._store import Op, Store
from nearcache.bus import Followed, Follower
from nearcache.coherence import OPERATIONS, Lane, pack_message
from nearcache.keys import decode_key, encode_key
from nearcache.placement import LaneNames
from support.followers import Heartbeat, lent
from support.hearsay import EPOCH, bulk, ear_of, push

START, BOUND, FAR = 10_000_000_000, 2_000_000_000, 2**62
GENERATION = 0x9
KEYS: list[Any] = [
    "",
    "k",
    "ключ",
    "\ud800",
    b"",
    b"\xff",
    0,
    -1,
    7,
    10**18,
    -(10**19),
    2**63,
    0.5,
    None,
    (1, "a"),
    "x" * 2000,
]
DROPPING = sorted(OPERATIONS & set("SFIA"))


def standing(seq: int, wid: int) -> bytes:
    """A heartbeat's reply."""
    return b"*5\r\n" + bulk(b"%016x" % EPOCH, b"%d" % seq, b"%016x" % wid, b"%016x" % GENERATION, b"1")


class Side:
    """One of the two: a store and a follower of some lanes."""

    def __init__(self, lanes: int, *, blind: bool) -> None:
        self.store: Store[Any, Any] = Store(100, lanes=lanes)
        self.store.l1_set_clock(START)
        self.lanes = [Lane(BOUND) for _ in range(lanes)]
        self.names = [LaneNames(b"nc:{t:%d}:" % number) for number in range(lanes)]
        self.calls: list[Any] = []
        self.watched: dict[int, Callable[[], None]] = {}
        self.ops: list[Op] = []
        self.blind = blind
        self.follower = Follower(
            lambda: self.store,
            [Followed(number, lane, self.names[number]) for number, lane in enumerate(self.lanes)],
            Heartbeat(),
            uniform=lambda low, high: low,
            nonce=lambda: b"0" * 16,
            watched=self.watched,
            **lent(lambda: self.store, lanes),
        )

    def connect(self) -> None:
        """Subscribe on a new connection; nothing is answered yet."""
        self.follower.connected(7, START)
        self.follower.inbox.blind = self.blind
        self.follower.outgoing.clear()

    def prepare(self, seed: int) -> None:
        """Hold some entries, have some operations under way, wait for some keys and write ids."""
        chance = random.Random(seed)
        for key in KEYS:
            lane = chance.randrange(len(self.lanes))
            if chance.random() < 0.7:
                op = Op(key, lane)
                self.store.l1_open(op)
                self.store.l1_finish(op, chance.random(), chance.randrange(1, 60), FAR, identity=7)
            if chance.random() < 0.3:
                write = chance.random() < 0.5
                op = Op(key, lane, wid=chance.randrange(1, 60) * write, write=write, announced=write)
                self.store.l1_open(op)
                self.ops.append(op)
            if chance.random() < 0.1:
                self.follower.await_key(lane, encode_key(key), lambda key=key: self.calls.append(key))
        for wid in chance.sample(range(1, 60), 3):
            self.watched[wid] = lambda wid=wid: self.calls.append(wid)

    def state(self) -> Any:
        """All that can be seen of it."""
        lanes = [
            (lane.state, str(lane.position), lane.generation, str(lane.counters), lane.fresh_until_ns, lane.last_error)
            for lane in self.lanes
        ]
        numbers = range(len(self.lanes))
        suspects = {str(key): self.store.l1_suspect(key) for key in KEYS}
        stamps = [(self.store.lane_stamp(n), self.store.lane_fresh_until(n)) for n in numbers]
        ops = [(op.storable, op.joinable) for op in self.ops]
        entries = sorted(map(repr, self.store.l1_snapshot()))
        follower = self.follower
        self.store.check_invariants()
        return (
            lanes, suspects, stamps, ops, entries, self.calls, follower.gave_up, dict(follower.dropped),
            bytes(follower.outgoing), sorted(self.watched), self.store.l1_counters()["invalidated"],
        )  # fmt: skip


class Script:
    """A random stream of one connection: mostly what it should carry, now and then what it should not."""

    def __init__(self, chance: random.Random, lanes: int, oddness: float) -> None:
        self.chance = chance
        self.oddness = oddness
        self.places = [[0, 3] for _ in range(lanes)]  # sequence, write id

    def frames(self, count: int) -> list[bytes]:
        """Replies to the first heartbeats, then messages."""
        first = [standing(seq, wid) for seq, wid in self.places]
        return first + [self.frame() for _ in range(count)]

    def frame(self) -> bytes:
        """The next one."""
        lane = self.chance.randrange(len(self.places))
        channel = b"nc:{t:%d}:i" % lane
        if self.chance.random() < self.oddness:
            return self.odd(lane, channel)
        place = self.places[lane]
        payload = self.message(self.chance.choice(DROPPING), place[0] + 1, place[1])
        place[0] += 1
        return push(channel, payload)

    def message(self, operation: str, seq: int, prev: int, *, epoch: int = EPOCH) -> bytes:
        """A message with some keys; the lane stands at its write id then."""
        wid = self.chance.randrange(1, 60)
        for place in self.places:
            if place == [seq - 1, prev]:
                place[1] = wid
                break
        keys = self.chance.choices(KEYS, k=self.chance.choice([0, 1, 1, 1, 1, 2, 5]))
        return pack_message(operation, epoch, seq, prev, wid, [encode_key(key) for key in keys])

    def odd(self, lane: int, channel: bytes) -> bytes:
        """Something that the short way must leave to the long way."""
        seq, wid = self.places[lane]
        good = pack_message("S", EPOCH, seq + 1, wid, 5, [b"sk"])
        return self.chance.choice([
            push(channel, pack_message("S", EPOCH, seq + 3, wid, 5, [b"sk"])),
            push(channel, pack_message("I", EPOCH + 1, seq + 1, wid, 5, [b"sk"])),
            push(channel, pack_message("F", EPOCH, seq + 1, wid + 1, 5, [b"sk"])),
            push(channel, pack_message("C", EPOCH, seq + 1, wid, 6, [])),
            push(channel, pack_message("S", EPOCH, seq + 1, wid, 5, [b"sk", b"!own"])),
            push(channel, pack_message("S", EPOCH, seq + 1, wid, 5, [b"sk", b"i007"])),
            push(channel, pack_message("S", EPOCH, seq + 1, wid, 5, [b"sk", b""])),
            push(channel, pack_message("S", EPOCH, seq + 1, wid, 5, [b"s" + b"x" * 70_000])),
            push(channel, good[:-1]),
            push(channel, good + b"7"),
            push(channel, good.replace(b"2:sk", b"02:sk")),
            push(channel, good.replace(b" %d " % (seq + 1), b" 0%d " % (seq + 1))),
            push(channel, good.replace(b"5\n", b"F\n")),
            push(channel, good.replace(b"5\n", b"5 \n")),
            push(channel, b"X" + good[1:]),
            push(channel, b""),
            push(channel + b"x", good),
            b">3\r\n" + bulk(b"subscribe", channel) + b":1\r\n",
            b">3\r\n" + bulk(b"message", channel) + b":1\r\n",
            standing(seq, wid),
            b"-ERR something\r\n",
            b"*-1\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"nonsense\r\n",
        ])  # fmt: skip


def cut(chance: random.Random, data: bytes) -> list[bytes]:
    """The data in pieces, as a network may deliver it."""
    most = max(chance.choice([1, 7, 100, 3000, 10**6]), len(data) // 500)
    pieces = []
    while data:
        size = chance.randrange(1, most + 1)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("oddness", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("seed", range(25))
def test_both_ways_any_stream_have_the_same_effect(seed: int, lanes: int, oddness: float) -> None:
    """However the bytes are cut, differently for the one and the other; over several connections."""
    chance = random.Random(f"{seed} {lanes} {oddness}")
    quick, slow = Side(lanes, blind=False), Side(lanes, blind=True)
    for round_ in range(3):
        script = Script(chance, lanes, oddness)
        data = b"".join(script.frames(chance.randrange(60)))
        if oddness > 0.1 and chance.random() < 0.5:
            data = mutate(chance, data)
        answers = sum(len(standing(0, 3)) for _ in range(lanes))
        for side in (quick, slow):
            side.connect()
            side.follower.received(data[:answers], START)
            side.prepare(seed + round_)
            for piece in cut(chance, data[answers:]):
                if side.follower.gave_up is None:
                    side.follower.received(piece, START)
        assert quick.state() == slow.state()


def mutate(chance: random.Random, data: bytes) -> bytes:
    """The data with some bytes other than they should be, or missing."""
    spoilt = bytearray(data)
    for _ in range(chance.choice([1, 3])):
        at = chance.randrange(len(spoilt))
        spoilt[at : at + chance.choice([0, 1, 1, 4])] = bytes(chance.choices(b"0123 \r\n:$>*SFICx\x00\xff", k=1))
    return bytes(spoilt)


# -- the short way alone


def test_hear_applies_a_run_of_messages_in_one_call() -> None:
    """And says where the lane stands then, how many they were, and how many entries they dropped."""
    store: Store[Any, Any] = Store(10)
    for key in ("a", b"b", 3):
        op = Op(key)
        store.lane_attach(0, 7)
        store.l1_open(op)
        store.l1_finish(op, "value", 1, FAR, identity=7)
    ear = ear_of()
    inbox = Inbox([ear], b"SFI", decode_key, {})
    for number, key in enumerate([b"sa", b"bb", b"i3", b"snone"]):
        inbox.feed(
            push(b"nc:{t:0}:i", pack_message("SFIS"[number], EPOCH, 5 + number, 0x10 + number, 0x11 + number, [key]))
        )
    assert inbox.hear(store) == [ear]
    assert ear.take() == (8, 0x14, 4, 3)
    assert ear.take() == (8, 0x14, 0, 0)
    assert (len(store), len(inbox)) == (0, 0)
    assert inbox.take() is None
    assert inbox.hear(store) is None


@pytest.mark.parametrize(("count", "left"), [(32_754, 0), (32_755, 1)])
def test_hear_leaves_a_message_that_is_too_long(count: int, left: int) -> None:
    """Whoever takes it apart says so; nothing of it is applied."""
    ear = ear_of()
    inbox = Inbox([ear], b"SFI", decode_key, {})
    payload = pack_message("S", EPOCH, 5, 0x10, 0x11, [b"sk"] * count)
    assert (len(payload) > 131_072) is bool(left)
    inbox.feed(push(b"nc:{t:0}:i", payload))
    inbox.hear(Store(10, lanes=1))
    assert (len(inbox) > 0, ear.take()[2]) == (bool(left), 1 - left)


def test_hear_leaves_what_somebody_waits_for() -> None:
    """The message itself stays in front; those before it are applied."""
    store: Store[Any, Any] = Store(10)
    watched: dict[int, Any] = {}
    awaited: dict[bytes, Any] = {b"sb": ()}
    ear = ear_of(awaited)
    inbox = Inbox([ear], b"SFI", decode_key, watched)
    second = push(b"nc:{t:0}:i", pack_message("S", EPOCH, 6, 0x11, 0x12, [b"sx", b"sb"]))
    inbox.feed(push(b"nc:{t:0}:i", pack_message("S", EPOCH, 5, 0x10, 0x11, [b"sa"])) + second)
    inbox.hear(store)
    assert ear.take() == (5, 0x11, 1, 0)
    assert len(inbox) == len(second)
    awaited.clear()
    watched[0x12] = ()
    assert inbox.hear(store) is None
    watched.clear()
    assert inbox.hear(store) == [ear]
    assert ear.take() == (6, 0x12, 1, 0)


def test_hear_deaf_ear_or_blind_inbox_leaves_everything() -> None:
    """Nobody knows where the lane stands, or whether a value has been begun elsewhere."""
    store: Store[Any, Any] = Store(10)
    ear = ear_of()
    inbox = Inbox([ear], b"SFI", decode_key, {})
    frame = push(b"nc:{t:0}:i", pack_message("S", EPOCH, 5, 0x10, 0x11, [b"sa"]))
    inbox.feed(frame)
    ear.deafen()
    assert inbox.hear(store) is None
    ear.aim(EPOCH, 2**63, 0x10)  # further than it counts
    assert inbox.hear(store) is None
    ear.aim(EPOCH, 4, 0x10)
    inbox.blind = True
    assert inbox.hear(store) is None
    assert inbox.take() == frame


class Sour:
    """A key that cannot be compared."""

    def __hash__(self) -> int:
        return hash("a")

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError


def test_hear_key_that_cannot_be_compared_raises_after_the_others() -> None:
    """Nothing that it might have meant is left, and the references are let go of."""
    store: Store[Any, Any] = Store(10)
    store.lane_attach(0, 7)
    for key in (Sour(), "b"):
        op = Op(key)
        store.l1_open(op)
        store.l1_finish(op, "value", 1, FAR, identity=7)
    inbox = Inbox([ear_of()], b"SFI", decode_key, {})
    inbox.feed(push(b"nc:{t:0}:i", pack_message("S", EPOCH, 5, 0x10, 0x11, [b"sa", b"sb"])))
    with pytest.raises(ZeroDivisionError):
        inbox.hear(store)
    assert len(store) == 0
    store.check_invariants()


def test_follower_key_that_cannot_be_compared_gives_up() -> None:
    """What could not be applied is not ignored."""
    side = Side(1, blind=False)
    side.connect()
    side.follower.received(standing(0, 3), START)
    op = Op(Sour())
    side.store.l1_open(op)
    assert side.store.l1_finish(op, "value", 1, FAR, identity=7)
    side.follower.received(push(b"nc:{t:0}:i", pack_message("S", EPOCH, 1, 3, 4, [b"sa"])), START)
    assert "ZeroDivisionError" in str(side.follower.gave_up)
    assert side.store.lane_fresh_until(0) == 0


def test_hear_a_value_that_closes_over_the_inbox_may_do_so() -> None:
    """References go last: what a destructor calls finds everything in order."""
    store: Store[Any, Any] = Store(10)
    store.lane_attach(0, 7)
    ear = ear_of()
    inbox = Inbox([ear], b"SFI", decode_key, {})
    seen: list[Any] = []

    class Curious:
        def __del__(self) -> None:
            seen.append((len(store), inbox.hear(store), inbox.take(), ear.take()))

    op = Op("a")
    store.l1_open(op)
    store.l1_finish(op, Curious(), 1, FAR, identity=7)
    del op
    inbox.feed(push(b"nc:{t:0}:i", pack_message("S", EPOCH, 5, 0x10, 0x11, [b"sa"])))
    inbox.hear(store)
    assert seen == [(0, None, None, (5, 0x11, 1, 1))]


def test_inbox_value_larger_than_a_chunk_comes_whole() -> None:
    """Piece by piece, and the memory for it is given back."""
    inbox = Inbox([ear_of()], b"SFI", decode_key, {})
    value = bulk(b"x" * 3_000_000)
    for at in range(0, len(value), 10_000):
        assert inbox.take() is None
        inbox.feed(value[at : at + 10_000])
    assert inbox.take() == value
    inbox.feed(b"+OK\r\n+PART")
    assert inbox.take() == b"+OK\r\n"
    assert inbox.take() is None
    inbox.feed(b"IAL\r\n")
    assert inbox.take() == b"+PARTIAL\r\n"


def test_inbox_what_is_no_value_is_handed_over_as_it_comes() -> None:
    """Somebody else will say what is wrong with it."""
    inbox = Inbox([ear_of()], b"SFI", decode_key, {})
    inbox.feed(b"?what")
    assert inbox.take() == b"?what"
    assert inbox.blind
    inbox.feed(b"+OK\r\n")
    assert inbox.take() == b"+OK\r\n"
    inbox.clear()
    assert not inbox.blind


def test_fill_takes_what_the_socket_has_and_never_waits() -> None:
    """-1 while there is nothing, 0 at the end, OSError when there is no such socket any more."""
    ours, theirs = socket.socketpair()
    inbox = Inbox([ear_of()], b"SFI", decode_key, {})
    assert inbox.fill(ours.fileno()) == -1
    theirs.sendall(b"+OK\r\n+O")
    assert inbox.fill(ours.fileno()) == 7
    assert inbox.take() == b"+OK\r\n"
    theirs.sendall(b"K\r\n")
    assert inbox.fill(ours.fileno()) == 3
    assert inbox.take() == b"+OK\r\n"
    theirs.close()
    assert inbox.fill(ours.fileno()) == 0
    descriptor = ours.fileno()
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        inbox.fill(descriptor)


def test_inbox_that_never_had_anything_hears_and_hands_out_nothing() -> None:
    """Nor does it when nothing is added, wherever that lies."""
    store: Store[Any, Any] = Store(10)
    inbox = Inbox([ear_of()], b"SFI", decode_key, {})
    for nothing in (None, b"", bytearray(), memoryview(b"")):
        if nothing is not None:
            inbox.feed(nothing)
        assert (inbox.hear(store), inbox.take(), len(inbox)) == (None, None, 0)
    inbox.feed(b"+OK\r\n")
    inbox.feed(b"")
    assert inbox.take() == b"+OK\r\n"
