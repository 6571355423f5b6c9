"""One value on its way from L2: the commands, and a large one that is received into itself."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache._asking import Line
from nearcache._envelopes import Opened, opened, whole
from nearcache._getting import Get
from nearcache.codecs import Codec, ValueCodec
from nearcache.codecs.plain import JsonCodec, RawCodec
from nearcache.codecs.safe import SafeCodec
from nearcache.l2.scripts import Script
from nearcache.l2.task import Extended, laid_out, pack, repeatable

MOST = 50_000
SAFE = ValueCodec(SafeCodec(), MOST)
RAW = ValueCodec(RawCodec(), MOST)
JSON = ValueCodec(JsonCodec(), MOST)


def get(codec: ValueCodec = SAFE, lane_key: bytes | None = None) -> Get:
    return Get(b"nc:{shop:0}:v:", b"skey", lane_key, codec.usual)


@given(prefix=st.binary(max_size=300), encoded=st.binary(max_size=2000), lane_key=st.none() | st.binary(max_size=300))
def test_get_is_what_the_commands_are_packed_to(prefix: bytes, encoded: bytes, lane_key: bytes | None) -> None:
    """Lifetime first, then the value, then what the lane record says."""
    made = Get(prefix, encoded, lane_key, None)
    expected = [(b"PTTL", prefix + encoded), (b"GET", prefix + encoded)]
    expected += [] if lane_key is None else [(b"HMGET", lane_key, b"g", b"r")]
    assert list(made) == expected
    assert len(made) == len(expected)
    assert made.data == pack(made) == b"".join(map(hiredis.pack_command, expected))


def test_get_is_a_request_like_others() -> None:
    """It may be sent again, and with a question behind it."""
    made = get()
    assert laid_out(made) is made
    assert repeatable(made)
    assert pack(Extended(made, (b"WAIT", 1, 1))) == made.data + hiredis.pack_command((b"WAIT", 1, 1))
    assert pack([*made]) == made.data
    assert not any(command[0].__class__ is Script for command in made)


def answered(request: Get, envelope: bytes, cut: int | None = None) -> tuple[bool, list[Any], Line, bytes]:
    """What a line makes of an answer with this envelope, cut off somewhere; and what was not sent."""
    stream = b":60000\r\n$%d\r\n%b\r\n" % (len(envelope), envelope)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(stream[:cut])
        line, values = Line(), list[Any]()
        usual = line.ask(ours.fileno(), request, 2, 5.0 if cut is None else 0.0, values)
        return usual, values, line, b"" if cut is None else stream[cut:]


LARGE: dict[str, tuple[ValueCodec, Any, bool]] = {
    "text": (SAFE, "x" * 20_000, True),
    "text that is not ASCII": (SAFE, "\u00e9" * 10_000, True),
    "text with its last character not ASCII": (SAFE, "x" * 20_000 + "\U0001f600", True),
    "text with half a character": (SAFE, "x" * 20_000 + "\ud800", False),
    "bytes": (SAFE, b"\xff" * 20_000, True),
    "raw bytes": (RAW, b"s" * 20_000, True),
    "a list": (SAFE, ["x" * 20_000], False),
    "JSON": (JSON, "x" * 20_000, False),
    "as long as allowed": (RAW, b"y" * MOST, True),
    "not large": (SAFE, "x" * 5_000, False),
}


@pytest.mark.parametrize("name", LARGE)
def test_ask_receives_a_large_value_as_what_it_is(name: str) -> None:
    """Texts and bytes; it says the same as the envelope that was sent, and knows it."""
    codec, value, is_opened = LARGE[name]
    envelope = codec.dumps(value, wid=5, generation=7, ttl_ms=1000)
    usual, values, _, _ = answered(get(codec), envelope)
    assert usual
    assert values[0] == 60_000
    assert isinstance(values[1], Opened) == is_opened
    assert len(values[1]) == len(envelope)
    assert whole(values[1]) == envelope
    assert opened(values[1], codec.usual) == opened(envelope, codec.usual)
    if is_opened:
        assert opened(values[1], codec.usual) == (value, 5, 7, 1000)


@pytest.mark.parametrize("name", ["text", "text with half a character", "raw bytes", "a list"])
def test_ask_of_a_large_value_that_is_cut_keeps_every_byte_for_others(name: str) -> None:
    """In front of the envelope, in its header, in the value, and behind it."""
    codec, value, _ = LARGE[name]
    envelope = codec.dumps(value, wid=5, generation=7, ttl_ms=1000)
    for cut in (8, 9, 15, 17, 30, 60, 80, 100, 9_000, 18_000, len(envelope) + 15, len(envelope) + 16):
        usual, values, line, unsent = answered(get(codec), envelope, cut)
        reader = hiredis.Reader()
        reader.feed(line.rest() + unsent)
        assert not usual
        assert values == [60_000]
        assert reader.gets() == envelope


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("first", [1, 20, 70, 9_000])
def test_go_on_takes_what_comes_piece_by_piece(name: str, first: int) -> None:
    """It never waits, and in the end it has what asking at once brings."""
    codec, value, _ = LARGE[name]
    envelope = codec.dumps(value, wid=5, generation=7, ttl_ms=1000)
    stream = b":60000\r\n$%d\r\n%b\r\n" % (len(envelope), envelope)
    size = len(stream)
    cuts = sorted({*range(0, 100, first), *(cut for cut in (4_000, 12_000) if cut < size), size - 1, size})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line, values = Line(), list[Any]()
        line.expect(get(codec))
        for start, end in pairwise(cuts):
            assert line.go_on(ours.fileno(), 2, values) is False
            theirs.sendall(stream[start:end])
        assert line.go_on(ours.fileno(), 2, values) is True
        assert (values[0], whole(values[1])) == (60_000, envelope)
        assert opened(values[1], codec.usual) == opened(envelope, codec.usual)


def test_go_on_of_what_is_not_usual_leaves_it_to_others() -> None:
    """An error, a stream that ends, and more than was asked for."""
    for stream, ends in ((b"-ERR no\r\n:1\r\n", False), (b"$20000\r\nabc", True), (b":1\r\n:2\r\n:3\r\n", False)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            line, values = Line(), list[Any]()
            line.expect(get())
            theirs.sendall(stream)
            if ends:
                theirs.shutdown(socket.SHUT_WR)
                line.go_on(ours.fileno(), 2, values)
            assert line.go_on(ours.fileno(), 2, values) is None
            assert (line.heard, line.ended) == (True, ends)
            assert stream.endswith(line.rest())


@given(st.integers(0, 47), st.integers(0, 255), st.sampled_from(["text", "bytes", "raw bytes", "a list"]))
def test_ask_of_a_damaged_envelope_never_takes_it_for_another(place: int, other: int, name: str) -> None:
    """Whatever is wrong with a header, what comes means what the bytes mean."""
    codec, value, _ = LARGE[name]
    envelope = bytearray(codec.dumps(value, wid=5, generation=7, ttl_ms=1000))
    envelope[place] = other
    usual, values, _, _ = answered(get(codec), bytes(envelope))
    assert usual
    assert whole(values[1]) == envelope
    assert opened(values[1], codec.usual) == opened(bytes(envelope), codec.usual)


def test_ask_takes_nothing_for_a_value_that_was_not_asked_for_as_such() -> None:
    """Longer than the limit, in another place, or where nobody knows how to open it, an envelope is bytes."""
    envelope = SAFE.dumps("x" * 20_000, wid=5, generation=7, ttl_ms=1000)
    small = ValueCodec(SafeCodec(), 20_000)
    for request in (get(small), Get(b"p", b"k", None, None), get(RAW)):
        _, values, _, _ = answered(request, envelope)
        assert values == [60_000, envelope]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"$%d\r\n%b\r\n:1\r\n" % (len(envelope), envelope))
        values = []
        assert Line().ask(ours.fileno(), get(), 2, 5.0, values)
        assert values == [envelope, 1]


def test_codecs_of_other_kinds_have_numbers_of_their_own() -> None:
    """The compiled code knows two of them by number."""
    codecs: list[Codec] = [RawCodec(), SafeCodec(), JsonCodec()]
    assert [codec.codec_id for codec in codecs] == [0, 1, 3]
