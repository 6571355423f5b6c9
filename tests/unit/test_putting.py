"""One value on its way to L2: the commands, the bytes, and what the server says of it."""

from __future__ import annotations

import socket
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache._asking import Line
from nearcache._putting import Put, Said, said
from nearcache.codecs import ValueCodec
from nearcache.codecs.safe import SafeCodec
from nearcache.errors import UnencodableValueError, ValueTooLargeError
from nearcache.l2 import STAGE_BYTES, STAGING
from nearcache.l2.scripts import load, stage
from nearcache.l2.task import BEHIND, Extended, laid_out, pack, repeatable
from nearcache.placement import LaneNames

MOST = 100_000
CODEC = ValueCodec(SafeCodec(), MOST)
NAMES = LaneNames(b"nc:{shop:0}:")
SET = load("set")
RING = b"1-0123456789abcdef"
IDS = st.integers(1, 2**64 - 1)


def put(value: Any, wid: int = 5, generation: int = 7, ttl_ms: int = 1000, **more: Any) -> Put:
    made = Put(value, CODEC.plain)
    chosen = {"encoded": b"skey", "soft_ms": 0, "mode": b"", **more}
    made.seal(NAMES, SET, RING, chosen["encoded"], wid, generation, ttl_ms, chosen["soft_ms"], chosen["mode"], STAGING)
    return made


def spelled(value: Any, encoded: bytes, wid: int, generation: int, ttl_ms: int, soft_ms: int, mode: bytes) -> list[Any]:
    """The same in terms of the parts that general writes are made of."""
    sealed = CODEC.seal(CODEC.encode(value), wid, generation, ttl_ms, key=encoded, soft_ttl_ms=soft_ms)
    before, staging, envelopes = stage(NAMES.prefix, b"%016x" % wid, [sealed])
    keys = [NAMES.value(encoded), NAMES.lease(encoded), *staging, NAMES.lane_key]
    words = [RING, b"%016x" % wid, b"%016x" % wid, b"%016x" % generation, mode, b"%d" % ttl_ms]
    return [*before, (SET, len(keys), *keys, *words, *envelopes)]


@given(
    value=st.one_of(
        st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text()),
        st.integers(STAGE_BYTES - 60, STAGE_BYTES + 60).map(lambda size: "x" * size),
        st.integers(STAGE_BYTES - 60, STAGE_BYTES + 60).map(lambda size: b"y" * size),
        st.just("\u00e9" * STAGE_BYTES),
    ),
    encoded=st.binary(min_size=1, max_size=2000),
    wid=IDS,
    generation=st.integers(0, 2**64 - 1),
    ttl_ms=st.integers(1, 2**32 - 1),
    soft_ms=st.integers(0, 2**32 - 1),
    mode=st.sampled_from([b"", b"NX", b"CAS0123456789abcdef", b"HELD" + b"t" * 16]),
)  # fmt: skip
def test_put_any_value_is_what_general_writes_send(value: Any, **terms: Any) -> None:
    """The same commands, word by word, and the same bytes."""
    made = put(value, **terms)
    wanted = spelled(value, **terms)
    assert list(made) == wanted
    assert len(made) == len(wanted)
    assert made.data == pack(wanted)
    assert made.size_bytes == len(CODEC.seal(CODEC.encode(value), terms["wid"], 0, terms["ttl_ms"]))


def test_put_sealed_again_says_the_later_generation_and_mode() -> None:
    """What had been laid out before is forgotten."""
    made = put("x" * 20_000, generation=1)
    assert made[1][-4] == b"%016x" % 1
    made.seal(NAMES, SET, RING, b"skey", 5, 2, 1000, 0, b"NX", STAGING)
    assert list(made) == spelled("x" * 20_000, b"skey", 5, 2, 1000, 0, b"NX")
    assert made.data == pack(list(made))


def test_put_of_what_cannot_be_stored_is_refused_before_anything_is_sent() -> None:
    """As the codec refuses it, at the same size to the byte."""
    Put("x" * (MOST - 1), CODEC.plain)
    Put(b"x" * (MOST - 1), CODEC.plain)
    for value in ("x" * MOST, b"x" * MOST, "\u00e9" * MOST):
        with pytest.raises(ValueTooLargeError):
            Put(value, CODEC.plain)
    with pytest.raises(UnencodableValueError):
        Put(object(), CODEC.plain)


def test_put_that_is_not_sealed_says_so() -> None:
    """There is nothing to send, and nothing to look at."""
    made = Put("x", CODEC.plain)
    for look in (lambda: made.data, lambda: made[0], lambda: len(made), lambda: Line().ask(0, made, 1, 0.0, [])):
        with pytest.raises(ValueError, match=r"sealed|nothing to send"):
            look()


@pytest.mark.parametrize("value", [5, "y", b"y", "\u00e9"], ids=repr)
@pytest.mark.parametrize("before", ["x" * 100, b"x" * 100, 5], ids=repr)
def test_put_initialised_again_is_of_the_later_value(before: Any, value: Any) -> None:
    """And has nothing of the one before, which may be gone."""
    made = put(before)
    Put.__init__(made, value, CODEC.plain)
    made.seal(NAMES, SET, RING, b"skey", 5, 7, 1000, 0, b"", STAGING)
    assert list(made) == list(put(value))
    assert made.data == put(value).data


def test_put_is_a_request_like_others() -> None:
    """It may be packed whole, with sources, and with a question behind it; it cannot be repeated."""
    made = put("x" * 20_000)
    question = (b"HMGET", b"L", b"e", b"s")
    assert laid_out(made) is made
    assert pack(Extended(made, question)) == made.data + hiredis.pack_command(question)
    assert pack(made) == made.data
    assert SET.source in pack(list(made), in_full=True)
    assert not repeatable(made)
    assert made[1][0] not in BEHIND


@pytest.mark.parametrize("value", ["small", "x" * 100_000, b"y" * 100_000, ["z" * 40_000]])
def test_ask_sends_a_put_from_where_it_lies(value: Any) -> None:
    """All of it in order, whether it is in one piece or in three."""
    codec = ValueCodec(SafeCodec(), 1 << 20)
    made = Put(value, codec.plain)
    made.seal(NAMES, SET, RING, b"skey", 5, 7, 1000, 0, b"", STAGING)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        values: list[Any] = []
        line = Line()
        theirs.sendall(b"+OK\r\n")
        assert line.ask(ours.fileno(), made, 1, 5.0, values)
        assert (values, line.sent) == ([b"OK"], len(made.data))
        ours.close()
        assert b"".join(iter(lambda: theirs.recv(65536), b"")) == made.data


def test_ask_that_cannot_send_all_of_a_put_says_how_much_it_could() -> None:
    """What was taken is a beginning of it; the rest of the same bytes is for others to send."""
    codec = ValueCodec(SafeCodec(), 1 << 24)
    made = Put("x" * (1 << 23), codec.plain)
    made.seal(NAMES, SET, RING, b"skey", 5, 7, 1000, 0, b"", STAGING)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        line = Line()
        assert not line.ask(ours.fileno(), made, 1, 0.0, [])
        assert 0 < line.sent < len(made.data)
        ours.close()
        assert b"".join(iter(lambda: theirs.recv(65536), b"")) == made.data[: line.sent]


# -- answers


def fields(heard: Said) -> tuple[Any, ...]:
    return (
        heard.status, heard.generation, heard.epoch, heard.seq, set(heard.held), heard.envelope, heard.pttl_ms,
        heard.existed, heard.length,
    )  # fmt: skip


@given(IDS, IDS, st.integers(0, 2**53), st.sets(st.integers(1, 200)), st.none() | st.integers(0, 200))
def test_said_of_what_is_stored_gives_every_word(
    generation: int, epoch: int, seq: int, held: set[int], existed: int | None
) -> None:
    """With and without keys on hold, and what a queued call says beside."""
    listed = "".join(f"{number}," for number in sorted(held))
    text = f"1 {generation:016x} {epoch:016x} {seq} {listed}" + ("" if existed is None else f" {existed}")
    assert fields(said(text.encode())) == (1, generation, epoch, seq, held, None, -2, existed or 0, 0)


def test_said_of_what_is_not_stored_gives_the_reason() -> None:
    """Another generation, a value in the way or none, and no room."""
    assert fields(said(b"0 00000000000000ff")) == (0, 255, 0, 0, set(), None, -2, 0, 0)
    assert fields(said([2, b"00000000000000ff", b"envelope", 70])) == (2, 255, 0, 0, set(), b"envelope", 70, 0, 0)
    assert fields(said([2, b"00000000000000ff", None, -2])) == (2, 255, 0, 0, set(), None, -2, 0, 0)
    assert fields(said(b"3 00000000000000ff 12")) == (3, 255, 0, 0, set(), None, -2, 0, 12)


STORED = b"1 00000000000000ff 00000000000000fe 12 "


@pytest.mark.parametrize(
    "answer",
    [b"", b"x", b"1", b"1 zz", b"1 00000000000000ff", b"1 " + b"f" * 17 + b" 1 2 ", STORED[:-1],
     STORED.replace(b"12", b"x"), STORED.replace(b"12", b"9" * 20), None, 7, "1", [], [2, b"ff"], [1, None]],
)  # fmt: skip
def test_said_of_anything_else_is_an_error_that_shows_it(answer: Any) -> None:
    """A server that answers something else has not said that anything is stored."""
    with pytest.raises(ValueError, match=r"not what the script set answers|invalid literal"):
        said(answer)


def test_said_of_an_answer_that_is_cut_or_changed_never_takes_other_bytes_for_it() -> None:
    """Every shorter beginning, and every single byte replaced: an error, or what the words say."""
    for at in range(len(STORED)):
        for byte in (b"", b" ", b"\xff", b"G"):
            cut = STORED[:at] + byte + STORED[at + 1 :] if byte else STORED[:at]
            try:
                heard = said(cut)
            except ValueError:
                continue
            words = cut.split(b" ")
            assert heard.generation == int(words[1], 16)
            if heard.status == 1:
                assert (heard.epoch, heard.seq) == (int(words[2], 16), int(words[3]))
