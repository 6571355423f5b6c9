"""The key codec: canonical, reversible, strict."""

from __future__ import annotations

import enum
import json
import math
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import DecodeError, UnencodableKeyError
from nearcache.keys import MAX_KEY_BYTES, MAX_KEY_DEPTH, decode_key, encode_key, slot_of
from support.traces import read_trace

NAUGHTY = read_trace("blns.json")

numbers = st.one_of(st.integers(), st.integers(-3, 3), st.floats(allow_nan=False), st.booleans(), st.just(-0.0))
scalars = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    numbers,
    st.none(),
    st.integers(-(2**70), 2**70),
)
keys = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


class Colour(enum.IntEnum):
    RED = 3


class Word(str):
    __slots__ = ()


class Loud(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.upper() == self.upper()

    def __hash__(self) -> int:
        return hash(self.upper())


class Liar(int):
    def __int__(self) -> int:
        return 7

    def __index__(self) -> int:
        return 8

    def __repr__(self) -> str:
        return "9"


Point = namedtuple("Point", "x y")


@given(keys)
def test_key_encoded_and_decoded_is_equal(key):
    """decode(encode(k)) == k."""
    assert decode_key(encode_key(key)) == key


@given(keys)
def test_key_decoded_has_the_canonical_type(key):
    """What comes back is encoded alike and is of a plain type."""
    back = decode_key(encode_key(key))
    assert type(back) in (str, bytes, int, float, tuple, type(None))
    assert encode_key(back) == encode_key(key)


@given(keys, keys)
def test_keys_encode_alike_exactly_when_equal(left, right):
    """encode(a) == encode(b) if and only if a == b."""
    assert (encode_key(left) == encode_key(right)) == (left == right)


@given(numbers, numbers)
def test_numbers_encode_alike_exactly_when_equal(left, right):
    """Across int, float and bool too, at any size."""
    assert (encode_key(left) == encode_key(right)) == (left == right)


@given(st.integers(52, 1100))
def test_integral_float_beyond_53_bits_is_the_int_that_it_equals(bits):
    """2.0 ** n and 2 ** n are one key for as long as floats reach."""
    if bits < 1024:
        assert encode_key(2.0**bits) == encode_key(2**bits)
    assert decode_key(encode_key(2**bits + 1)) == 2**bits + 1


@given(
    st.binary(max_size=40) | st.builds(lambda t, b: t + b, st.sampled_from([b"s", b"i", b"x", b"f", b"("]), st.binary())
)
def test_any_bytes_decode_to_their_own_key_or_not_at_all(data):
    """Whatever is decoded is encoded to the same bytes; nothing but DecodeError is raised."""
    try:
        key = decode_key(data)
    except DecodeError:
        return
    assert encode_key(key) == data


@given(keys, st.data())
def test_damaged_encoding_decodes_to_another_key_or_not_at_all(key, data):
    """One changed byte never gives the same key back."""
    encoded = bytearray(encode_key(key))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        back = decode_key(bytes(encoded))
    except DecodeError:
        return
    assert back != key
    assert encode_key(back) == encoded


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("", b"s"),
        ("sku:1", b"ssku:1"),
        ("\0", b"s\0"),
        ("\ud800", b"s\xed\xa0\x80"),
        ("\udc80\U0001f600", b"s\xed\xb2\x80\xf0\x9f\x98\x80"),
        (b"", b"b"),
        (b"\xff\0", b"b\xff\0"),
        (0, b"i0"),
        (-0.0, b"i0"),
        (False, b"i0"),
        (1.0, b"i1"),
        (True, b"i1"),
        (-(2**63), b"i-9223372036854775808"),
        (2**63, b"x8000000000000000"),
        (-(2**63) - 1, b"x-8000000000000001"),
        (1e20, b"x56bc75e2d63100000"),
        (0.1, b"f0.1"),
        (5e-324, b"f5e-324"),
        (math.inf, b"finf"),
        (-math.inf, b"f-inf"),
        (None, b"n"),
        ((), b"()"),
        (("a", 1, None), b"(2:sa2:i11:n)"),
        ((((),),), b"(6:(2:()))"),
        (Colour.RED, b"i3"),
        (Word("a"), b"sa"),
        (Point(1, "b"), b"(2:i12:sb)"),
        (Liar(5), b"i5"),
    ],
)
def test_key_has_the_documented_encoding(key, encoded):
    """The wire format of keys is fixed."""
    assert encode_key(key) == encoded
    assert decode_key(encoded) == key


@pytest.mark.parametrize(
    "data",
    [
        b"", b"!", b"!selftest", b"z", b"S", b"n0", b"i", b"i-0", b"i007", b"i+1", b"i 1", b"i1 ", b"i1_0",
        b"i1\n", b"i1.0", "i\u0661".encode(), b"i9223372036854775808", b"i-9223372036854775809", b"x", b"x1",
        b"x-1", b"x08000000000000000", b"x7fffffffffffffff", b"x-8000000000000000", b"xABCDEF0123456789A",
        b"x0x10000000000000000", b"x1_0000000000000000", b"f", b"f1.0", b"f0.10", b"f1e5", b"f1E-7", b"fnan",
        b"f-nan", b"fInf", b"finfinity", b"f 0.5", b"f.5", b"f0.5 ", b"f1_0.5",
        b"f0.1000000000000000055511151231257827", b"s\xff", b"s\xc0\x80", b"s\xed\xa0", b"s\xf4\x90\x80\x80",
        b"(", b")", b"(n)", b"(1:n", b"(1:n))", b"(01:n)", b"(0:)", b"(2:n)", b"(1:n1)", b"(:n)", b"(+1:n)",
        b"(1 :n)", b"(9:i1)", b"(1:!)", b"(5:i007)", b"(4:f1.0)", b"(99999999999:n)", b"()x", b"(3:(1:)",
        b"(1:n)(1:n)",
    ],
)  # fmt: skip
def test_decode_of_what_is_not_canonical_is_refused(data):
    """One key has one encoding, so anything else is damage."""
    with pytest.raises(DecodeError):
        decode_key(data)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        (math.nan, "use None or a str"),
        ((1, (math.nan,)), "use None or a str"),
        (np.float64(1.5), r"float\(key\)"),
        (np.str_("a"), r"str\(key\)"),
        (np.int64(1), r"key.item\(\)"),
        (Loud("a"), r"str\(key\)"),
        (1j, "key="),
        ([1], "key="),
        (bytearray(b"a"), "key="),
        (frozenset(), "key="),
        (object(), "key="),
        (enum.Enum("E", "A").A, "key="),
        (("a", {"b"}), "key="),
        ("a" * MAX_KEY_BYTES, "digest"),
        (b"a" * MAX_KEY_BYTES, "digest"),
        (("a" * 40_000, "b" * 40_000), "digest"),
    ],
)
def test_key_that_cannot_be_encoded_is_refused_with_the_remedy(key, remedy):
    """The error names the key and what to do."""
    with pytest.raises(UnencodableKeyError, match=remedy) as caught:
        encode_key(key)
    assert caught.value.key is key
    assert str(caught.value).startswith("key ")
    assert len(str(caught.value)) < 400


def test_int_too_long_to_print_is_refused_by_our_error():
    """The interpreter's own error about digits does not get in the way of ours."""
    with pytest.raises(UnencodableKeyError, match="digest"):
        encode_key(1 << 4 * MAX_KEY_BYTES)


def test_key_of_exactly_the_limit_is_accepted():
    """65,536 encoded bytes pass, one more does not."""
    longest = "a" * (MAX_KEY_BYTES - 1)
    assert decode_key(encode_key(longest)) == longest
    with pytest.raises(DecodeError, match="limit"):
        decode_key(b"s" + b"a" * MAX_KEY_BYTES)


def test_int_beyond_the_interpreters_digit_limit_is_a_key():
    """Hexadecimal has no limit on digits."""
    key = 7**10_000
    assert decode_key(encode_key(key)) == key
    assert decode_key(encode_key(-key)) == -key


def test_tuple_nested_as_deep_as_allowed_is_accepted():
    """32 tuples in each other pass, 33 do not, in both directions."""
    key: tuple[object, ...] = ()
    for _ in range(MAX_KEY_DEPTH - 1):
        key = (key,)
    encoded = encode_key(key)
    assert decode_key(encoded) == key
    with pytest.raises(UnencodableKeyError, match="flat tuple"):
        encode_key((key,))
    with pytest.raises(DecodeError, match="deep"):
        decode_key(b"(%d:%b)" % (len(encoded), encoded))


def test_tuple_that_shares_its_parts_is_refused_early():
    """Written out it would have 2**31 items; the limit stops that at once."""
    key: tuple[object, ...] = ()
    for _ in range(MAX_KEY_DEPTH - 1):
        key = (key, key)
    with pytest.raises(UnencodableKeyError, match="digest"):
        encode_key(key)


def test_key_whose_repr_fails_is_still_reported():
    """An error about a key does not depend on the key's repr."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(UnencodableKeyError, match=r"Broken"):
        encode_key(Broken())


@pytest.mark.parametrize(("encoded", "slot"), [(b"123456789", 0x31C3), (b"", 0), (b"suser:1", 14073)])
def test_slot_is_that_of_redis_cluster(encoded, slot):
    """CRC16/XMODEM modulo 16,384; 0x31C3 is the check value of the cluster specification."""
    assert slot_of(encoded) == slot


if NAUGHTY is not None:

    def test_naughty_strings_are_keys():
        """Every string of the big list of naughty strings survives, alone and in a tuple."""
        for text in json.loads(NAUGHTY):
            assert decode_key(encode_key(text)) == text
            assert decode_key(encode_key((text, text.encode(), 1))) == (text, text.encode(), 1)
