"""The envelope of format 1: fixed offsets, strict bounds, limits of size."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import HEADER_SIZE, TTL_NONE, Own, SafeCodec, ValueCodec, pack, peek_ids, peek_tags, unpack
from nearcache.codecs.envelope import (
    CODEC_OWN,
    FLAG_NEGATIVE,
    FLAG_TAGGED,
    payload_offset,
    read_varint,
    varint,
)
from nearcache.codecs.plain import RawCodec
from nearcache.errors import DecodeError, UnencodableValueError, ValueTooLargeError
from nearcache.options import MOST_TAGS

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
wids = st.integers(1, 2**64 - 1)
VALUES = ValueCodec(SafeCodec(), 1000)


def put(data: bytes, offset: int, raw: bytes) -> bytes:
    return data[:offset] + raw + data[offset + len(raw) :]


@given(
    st.tuples(wids, u64, u32, u32, u32, u32),
    st.integers(0, 255),
    st.lists(st.tuples(u64, u64), max_size=5),
    st.binary(max_size=300),
)
def test_envelope_unpacks_to_what_was_packed(numbers, codec_id, tags, payload):
    """Every field, at any value."""
    wid, generation, ttl, soft, cost, schema = numbers
    data = pack(wid, generation, ttl, payload, schema, codec_id, soft_ttl_ms=soft, cost_ms=cost, tags=tags)
    envelope = unpack(data)
    flags = FLAG_TAGGED if tags else 0
    assert envelope == (*numbers, codec_id, flags, payload, 0, tuple(tags), len(payload), None)
    assert peek_ids(data[:HEADER_SIZE]) == (wid, generation, ttl)
    assert data[4:12].hex() == f"{wid:016x}"
    assert data[12:20].hex() == f"{generation:016x}"
    assert (len(data) - len(payload)) % 16 == payload_offset(len(payload))


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\xc1" + tail))
def test_any_bytes_unpack_or_are_refused(data):
    """Nothing but DecodeError."""
    for function in (unpack, peek_ids, VALUES.loads):
        try:
            function(data)
        except DecodeError:
            pass


@given(st.binary(max_size=200), st.lists(st.tuples(u64, u64), max_size=3))
def test_envelope_cut_or_extended_is_refused(payload, tags):
    """The raw length and the number of tags account for every byte."""
    data = pack(7, 8, 9, payload, tags=tags)
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            unpack(data[:size])
    with pytest.raises(DecodeError):
        unpack(data + b"\0")


@pytest.mark.parametrize(
    ("offset", "raw", "reason"),
    [
        (0, b"\xc2", "newer format"),
        (0, b"\x80", "not nearcache's"),
        (1, b"\x01", "flags"),
        (1, b"\x02", "flags"),
        (1, b"\x04", "flags"),
        (1, b"\x20", "validator"),
        (1, b"\x80", "flags"),
        (1, b"\x10", "tags"),
        (3, b"\x01", "key id"),
        (4, bytes(8), "wid 0"),
        (36, b"\x85\x00", "shortest"),
        (36, b"\xff" * 11, "shortest|longer"),
        (36, b"\x06", "promises"),
        (36, b"\x04", "promises"),
        (37, b"\x01", "tags without the flag"),
    ],
)
def test_envelope_with_a_damaged_field_is_refused(offset, raw, reason):
    """Each field that has a wrong value, with the reason."""
    with pytest.raises(DecodeError, match=reason):
        unpack(put(pack(1, 2, 3, b"spqrs"), offset, raw))


@pytest.mark.parametrize("count", [0, 2, 3, 16])
def test_envelope_with_a_damaged_number_of_tags_is_refused(count):
    """None in spite of the flag, or more than there are bytes."""
    data = pack(1, 2, 3, b"", tags=[(4, 5)])
    with pytest.raises(DecodeError):
        unpack(put(data, 37, bytes([count])))


def test_negative_flag_with_a_value_is_read_as_a_miss():
    """Who says that there is no value has none, but for an error where errors are remembered."""
    data = put(VALUES.dumps(None, wid=1, generation=2, ttl_ms=3), 1, bytes([FLAG_NEGATIVE]))
    assert unpack(data).flags == FLAG_NEGATIVE
    with pytest.raises(DecodeError, match="error_ttl"):
        VALUES.loads(data)


@pytest.mark.parametrize("data", [b"", b"\xc1" * 35, b"\xd1" + bytes(40), b"\xc1" + bytes(40)])
def test_peek_of_what_is_no_header_is_refused(data):
    """A GETRANGE of a foreign value."""
    with pytest.raises(DecodeError):
        peek_ids(data)


def test_ttl_beyond_32_bits_is_none():
    """49 days and more are "longer than this field can say"."""
    envelope = unpack(pack(1, 2, 1 << 40, b"", soft_ttl_ms=1 << 33, cost_ms=1 << 34))
    assert (envelope.ttl_ms, envelope.soft_ttl_ms, envelope.cost_ms) == (TTL_NONE, TTL_NONE, TTL_NONE)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 1, 1),
        (1 << 64, 1, 1),
        (-1, 1, 1),
        (1, 1 << 64, 1),
        (1, -1, 1),
        (1, 1, -1),
        (1, 1, 1, b"", -1),
        (1, 1, 1, b"", 1 << 32),
    ],
)
def test_pack_of_a_number_out_of_range_is_an_error(arguments):
    """A caller's mistake, not data."""
    with pytest.raises(ValueError, match=r"wid=|out of its range"):
        pack(*(arguments if len(arguments) > 3 else (*arguments, b"")))


def test_envelope_with_more_tags_than_a_value_can_have_is_refused():
    """By who has it whole as by who has as much of it as so many tags need: for neither there is a value."""
    data = pack(1, 2, 3, b"", tags=[(4, 5)] * MOST_TAGS)
    for read in (unpack, peek_tags):
        assert read(data)
        with pytest.raises(DecodeError, match="17 tags"):
            read(put(data, 37, bytes([MOST_TAGS + 1])) + bytes(16))


def test_pack_of_too_many_tags_is_an_error():
    """Readers fetch no more with a header."""
    assert len(unpack(pack(1, 2, 3, b"", tags=[(1, 1)] * MOST_TAGS)).tags) == MOST_TAGS
    with pytest.raises(ValueError, match="17 tags"):
        pack(1, 2, 3, b"", tags=[(1, 1)] * (MOST_TAGS + 1))


@given(st.integers(0, 2**63 - 1))
def test_varint_comes_back(number):
    """And says where it ends."""
    raw = varint(number)
    assert read_varint(b"x" + raw + b"y", 1) == (number, 1 + len(raw))


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x80\x00", b"\xff\x80\x00", b"\xff" * 9, b"\x80" * 9 + b"\x01"])
def test_varint_that_is_cut_off_or_not_shortest_is_refused(raw):
    """One number has one form."""
    with pytest.raises(DecodeError):
        read_varint(raw, 0)


def test_value_is_encoded_once_and_sealed_twice():
    """What a retry with the right generation needs."""
    encoded = VALUES.encode({"a": 1})
    first, second = VALUES.seal(encoded, 5, 6, 7), VALUES.seal(encoded, 5, 8, 7)
    assert VALUES.loads(first)[0] == VALUES.loads(second)[0] == {"a": 1}
    assert (unpack(first).generation, unpack(second).generation) == (6, 8)
    assert VALUES.dumps({"a": 1}, wid=5, generation=6, ttl_ms=7) == first


def test_loads_gives_value_and_envelope():
    """Both are needed to store a value in L1."""
    value, envelope = VALUES.loads(VALUES.dumps("é", wid=5, generation=6, ttl_ms=7))
    assert value == "é"
    assert (envelope.wid, envelope.generation, envelope.ttl_ms) == (5, 6, 7)


def test_value_at_the_limit_passes_and_one_byte_more_does_not():
    """The encoded payload counts; the error names size, limit and option."""
    assert VALUES.loads(VALUES.dumps(b"x" * 999, wid=1, generation=1, ttl_ms=1))[0] == b"x" * 999
    with pytest.raises(ValueTooLargeError, match="max_value=1000") as caught:
        VALUES.encode(b"x" * 1000)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (1001, 1000)


def test_value_over_the_readers_limit_is_refused_before_it_is_decoded():
    """A process with a smaller limit reads a larger value as a miss."""
    data = ValueCodec(SafeCodec(), 10_000).dumps(b"x" * 2000, wid=1, generation=1, ttl_ms=1)
    with pytest.raises(DecodeError, match="max_value"):
        VALUES.loads(data)


def test_value_that_cannot_be_encoded_is_refused():
    """The codec's error comes through."""
    with pytest.raises(UnencodableValueError):
        VALUES.dumps(object(), wid=1, generation=1, ttl_ms=1)


@pytest.mark.parametrize(
    ("codec_id", "name"),
    [
        (0, "codec='raw'"),
        (2, "codec='msgspec'"),
        (3, "codec='json'"),
        (4, "codec='pickle'"),
        (5, "codec 5"),
        (255, "codec 255"),
    ],
)  # fmt: skip
def test_value_of_another_codec_is_not_decoded(codec_id, name):
    """The id is compared first: whoever writes a value does not choose what reads it."""

    class Watched:
        codec_id = 1

        def encode(self, value):
            raise AssertionError

        def decode(self, payload, schema):
            raise AssertionError

    with pytest.raises(DecodeError, match=f"written with {name}, this cache reads codec='safe'"):
        ValueCodec(Watched(), 100).loads(pack(1, 2, 3, b"p", codec_id=codec_id))


def test_text_of_nearcaches_own_goes_past_the_codec():
    """Whatever the cache's codec takes, it is UTF-8 under a number of its own, and comes back as what it was."""
    values = ValueCodec(RawCodec(), 100)
    data = values.dumps(Own("caf\u00e9"), wid=1, generation=2, ttl_ms=3)
    assert (data[2], unpack(data).payload) == (CODEC_OWN, "caf\u00e9".encode())
    assert values.loads(data)[0] == "caf\u00e9"
    assert type(values.loads(data)[0]) is str  # as keys it is compared at once, which others are not
    with pytest.raises(DecodeError, match="UTF-8"):
        values.loads(pack(1, 2, 3, b"\xff", codec_id=CODEC_OWN))


def test_header_has_the_documented_offsets():
    """A script in another language reads it with these offsets."""
    wid, generation, ttl, schema = 0x0102030405060708, 0x1112131415161718, 0x21222324, 0x51525354
    data = pack(wid, generation, ttl, b"N", schema, soft_ttl_ms=0x31323334, cost_ms=0x41424344)
    assert data[:4] == b"\xc1\0\x01\0"
    assert struct.unpack_from(">QQ", data, 4) == (0x0102030405060708, 0x1112131415161718)
    assert struct.unpack_from("<IIII", data, 20) == (0x21222324, 0x31323334, 0x41424344, 0x51525354)
    assert data[36:] == b"\x01\x00N"
