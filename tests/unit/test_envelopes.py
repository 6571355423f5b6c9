"""What is done for one key in the usual case is what those do who know all cases."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._envelopes import opened, placed, sealed, text_payload
from nearcache.codecs import ValueCodec
from nearcache.codecs.envelope import pack, unpack
from nearcache.codecs.safe import SafeCodec
from nearcache.errors import UnencodableKeyError
from nearcache.keys import encode_key, slot_of

TABLE = bytes(slot % 7 for slot in range(16_384))


@pytest.mark.parametrize("key", ["sku:1", "\u00e9", b"x\0", 12, -(2**70), ("a", 1), None, "k" * 2000, 1.5, "\ud800"])
def test_placed_finds_the_lane_that_the_table_says(key: Any) -> None:
    """For every kind of key."""
    encoded = encode_key(key)
    assert placed(key, TABLE, encode_key) == (TABLE[slot_of(encoded)], encoded)


def test_placed_refuses_what_is_no_key_or_no_table() -> None:
    """As the codec of keys does."""
    with pytest.raises(UnencodableKeyError):
        placed(object(), TABLE, encode_key)
    with pytest.raises(ValueError, match="16384"):
        placed("a", b"", encode_key)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_200_000])
def test_sealed_is_what_pack_makes(size: int) -> None:
    """For every length of the length."""
    for numbers in ((1, 0, 0, 0, 0), (2**64 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1), (7, 8, 9, 10, 11)):
        wid, generation, ttl_ms, schema, soft_ms = numbers
        made = sealed(b"p" * size, wid, generation, ttl_ms, schema, 1, soft_ms)
        assert made == pack(wid, generation, ttl_ms, b"p" * size, schema, 1, soft_ttl_ms=soft_ms)
    assert unpack(made).raw_size == size


@pytest.mark.parametrize("value", ["text", "\u00e9", "", b"bytes", 5, -(2**80), 1.5, None, [1, {"a": "b"}]])
def test_opened_gives_what_the_codec_gives(value: Any) -> None:
    """For every kind of value."""
    codec = ValueCodec(SafeCodec(), 1000)
    data = codec.dumps(value, wid=5, generation=6, ttl_ms=7)
    assert codec.usual is not None
    assert opened(data, codec.usual) == (codec.loads(data)[0], 5, 6, 7)


def test_opened_leaves_what_is_not_usual_to_others() -> None:
    """Tags, a soft end, another codec, too long, cut off, or not to be decoded."""
    codec = ValueCodec(SafeCodec(), 1000)
    usual = codec.usual
    assert usual is not None
    payload = text_payload("x")
    for data in (
        pack(5, 6, 7, payload, tags=[(1, 2)]),
        pack(5, 6, 7, payload, soft_ttl_ms=1),
        pack(5, 6, 7, payload, codec_id=3),
        pack(5, 6, 7, text_payload("y" * 1000)),
        pack(5, 6, 7, payload)[:-1],
        pack(5, 6, 7, b"?"),
        pack(5, 6, 7, b"s\xff"),
        pack(5, 6, 7, text_payload("\ud800")),
        b"",
    ):
        assert opened(data, usual) is None


@pytest.mark.parametrize("text", ["", "ascii", "\u00e9", "\U0001f600", "\udc80", "x" * 100_000])
def test_text_payload_is_the_text_behind_its_letter(text: str) -> None:
    """Whatever it holds."""
    assert text_payload(text) == b"s" + text.encode("utf-8", "surrogatepass")
