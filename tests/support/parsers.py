"""What the compiled parsers owe to any bytes: they say what the slow way says, or nothing.

Targets beside those of ``decoders``: replies, and envelopes among them (``_asking``), answers to a bulk read
(``_shares``), messages (``_hearing``).
"""

from __future__ import annotations

import socket
import threading
from typing import Any

import hiredis

from nearcache._asking import Line
from nearcache._envelopes import opened, sealed, whole
from nearcache._getting import Get
from nearcache._hearing import Ear, Inbox
from nearcache._shares import deal
from nearcache._store import Op, Store
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.coherence import pack_message, parse_message
from nearcache.keys import decode_key, encode_key

#: What ``L`` stands for: a value that is received into its own bytes.
LARGE = b"$9000\r\n" + b"v" * 9000 + b"\r\n"
#: The first of them, that is. All that is sent has to fit into the socket's buffer, for it is read only afterwards.
MOST_LARGE = 8
CHANNEL = b"nc:{t:0}:i"
#: What the header of a message says between operation and write id, if it is the second of epoch 1 and follows write 1.
CHAIN = b"%016x 2 %016x " % (1, 1)
CODEC = ValueCodec(SafeCodec(), 1 << 16)
GENERATION, WID, SERVER = 2, 1, 7
FAR = 2**62
MISSING = object()
_LOCK = threading.RLock()
_END = object()


def bulk(*words: bytes) -> bytes:
    """Words as RESP carries them."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def by_hiredis(data: bytes) -> list[Any]:
    """What a stream says, up to where it is no protocol any more, or ends."""
    said: list[Any] = []
    reader = hiredis.Reader(notEnoughData=_END, replyError=str)
    reader.feed(data)
    try:
        while (value := reader.gets()) is not _END:
            said.append(value)
    except (hiredis.ProtocolError, MemoryError):  # it believes in a list of four thousand million
        said.append(hiredis.ProtocolError)
    return said


def check_replies(data: bytes) -> None:
    """Asking: what is said to be usual is what hiredis reads; else the values and what is handed out are, together."""
    count, stream = (data[0] % 4 + 1, data[1:].replace(b"L", LARGE, MOST_LARGE)) if data else (1, b"")
    line, values = Line(), list[Any]()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(stream)
        theirs.shutdown(socket.SHUT_WR)
        usual = line.ask(ours.fileno(), b"?", count, 5.0, values)
        unread = line.rest()
        while more := ours.recv(65_536):
            unread += more
    assert not usual or (len(values) == count and not unread)
    assert repr(values + by_hiredis(unread)) == repr(by_hiredis(stream))


def check_received(data: bytes) -> None:
    """Asking for an envelope: what is received into a value means what the bytes mean, and knows them.

    ``data``: where the beginning of the envelope is damaged, and how; then a payload, which is made a large one.
    """
    if len(data) < 4:
        return
    place, change, payload = data[0] % 64, data[1], data[2:3] + data[3:] * (1 + 20_000 // len(data[3:]))
    envelope = bytearray(sealed(payload, WID, GENERATION, 5, 0, CODEC.usual[0], 0))
    envelope[place] ^= change
    line, values = Line(), list[Any]()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b":1\r\n$%d\r\n%b\r\n" % (len(envelope), envelope))
        usual = line.ask(ours.fileno(), Get(b"", b"", None, CODEC.usual), 2, 5.0, values)
    assert usual
    assert whole(values[1]) == envelope
    assert repr(opened(values[1], CODEC.usual)) == repr(opened(bytes(envelope), CODEC.usual))


def check_answers(data: bytes) -> None:
    """A bulk read: an answer is refused, left over, or read as the codec reads it; nothing stays under way."""
    said = by_hiredis(b"*2\r\n:%d\r\n%s" % (int.from_bytes(data[:9], "little", signed=True), data[9:]))
    pttl_ms, body = said[0] if said and isinstance(said[0], list) else (60_000, data)
    store: Store[Any, Any] = Store(10)
    store.l1_set_clock(1000)
    store.lane_attach(0, SERVER)
    store.lane_vouch(0, FAR)
    (share,) = deal(["key"], bytes(16_384), encode_key)
    found: dict[Any, Any] = {}
    share.open(store, 1)
    try:
        left, changed, _ = share.settle(
            store, [pttl_ms, [body], b"9"], GENERATION, SERVER, 1000, 60_000, 1, CODEC.usual, found, MISSING
        )
    except ValueError:
        assert not isinstance(body, bytes | None) or not -(2**63) <= pttl_ms < 2**63
        assert not found
    else:
        assert changed == []
        assert not (left and found)
        if found:
            value, envelope = CODEC.loads(body)
            assert repr(value) == repr(found["key"])
            assert envelope.generation == GENERATION
        assert len(store) == 0 or (pttl_ms >= -1 and found)
        assert all(until_ns <= 1000 + 60_000 * 1_000_000 for until_ns in _ends(store))
    finally:
        share.end(store, _LOCK)
    store.check_invariants()


def _ends(store: Store[Any, Any]) -> list[int]:
    terms = store.l1_terms("key")
    return [] if terms is None else [terms[0]]


def check_heard(data: bytes) -> None:
    """Hearing: what is applied is what the slow way reads; what is not is handed out, and none of it is lost."""
    for stream in (data, b">3\r\n" + bulk(b"message", CHANNEL, data[:2] + CHAIN + data[2:])):
        store: Store[Any, Any] = Store(10)
        store.l1_set_clock(1000)
        store.lane_attach(0, SERVER)
        store.lane_vouch(0, FAR)
        for key in ("a", 1, b"b"):
            op = Op(key, 0)
            store.l1_open(op)
            store.l1_finish(op, key, 77, FAR, identity=SERVER)
        ear = Ear(0, CHANNEL, {})
        ear.aim(1, 1, 1)
        inbox = Inbox([ear], b"AFIS", decode_key, {})
        cut = len(stream) // 2
        for part in (stream[:cut], stream[cut:]):
            inbox.feed(part)
            inbox.hear(store)
        epoch, seq, wid = ear.place() or (0, 0, 0)
        assert epoch == 1
        if seq > 1:
            _check_applied(stream, store)
        assert seq > 1 or (wid == 1 and len(store) == 3)
        unread = b""
        while taken := inbox.take():
            unread += taken
        unread += b"" if seq > 1 else stream[len(unread) :]
        assert seq > 1 or unread == stream
        store.check_invariants()


def _check_applied(stream: bytes, store: Store[Any, Any]) -> None:
    """The first message at least was applied: the slow way takes it for the next one, and its keys are gone."""
    reader = hiredis.Reader(notEnoughData=_END)
    reader.feed(stream)
    pushed = reader.gets()
    assert pushed[:2] == [b"message", CHANNEL] or pushed[:2] == [b"smessage", CHANNEL]
    message = parse_message(pushed[2])
    assert (message.epoch, message.seq, message.prev) == (1, 2, 1)
    for encoded in message.keys:
        assert decode_key(encoded) not in dict(store.l1_snapshot())


TARGETS = {"replies": check_replies, "received": check_received, "answers": check_answers, "heard": check_heard}


def seeds(target: str) -> list[bytes]:
    """Return well-formed inputs to begin with."""
    if target == "replies":
        said = [b":0\r\n", b"+OK\r\n", b"$-1\r\n", b"$5\r\na\r\nbc\r\n", b"*-1\r\n", b"-ERR no\r\n"]
        said += [b"*3\r\n:1\r\n$2\r\nab\r\n*2\r\n$-1\r\n+x\r\n", b"L:1\r\n"]
        return [b"\0" + one for one in said] + [b"\3" + b"".join(said[:4])]
    if target == "received":
        return [bytes(2) + payload for payload in (b"stext", "s\u00e9".encode(), b"s\xed\xa0\x80", b"bdata", b"pN.")]
    if target == "answers":
        values = ["text", b"data", 12_345, None, 1.5, [1, {"a": 2}]]
        sealed = [CODEC.dumps(value, wid=WID, generation=GENERATION, ttl_ms=5) for value in values]
        return [
            number.to_bytes(9, "little", signed=True) + bulk(one) for one in sealed for number in (5, -1, -2, 2**63)
        ]
    messages = [pack_message(operation, 1, 2, 1, 3, [b"sa", b"i1", b"bb"]) for operation in "SFIAC"]
    pushed = [b">3\r\n" + bulk(b"message", CHANNEL, one) for one in messages]
    moved = pushed[1].replace(b"message", b"smessage").replace(b"$7", b"$8")
    return [*pushed, pushed[0] + b":1\r\n", moved, messages[0]]
