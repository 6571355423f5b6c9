"""Compression: smaller where it helps, and no bomb goes off."""

from __future__ import annotations

import builtins
import random
import struct
import sys
import tracemalloc
import zlib

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import SafeCodec, ValueCodec, pack, value_codec
from nearcache.codecs import compression as module
from nearcache.codecs.compression import MAX_RATIO, METHODS, Compressor, decompress
from nearcache.codecs.envelope import FLAG_COMPRESSED
from nearcache.codecs.plain import RawCodec
from nearcache.codecs.values import Encoded
from nearcache.errors import ConfigError, DecodeError, ValueTooLargeError
from nearcache.options import parse

NAMES = list(METHODS)
TEXT = ("the quick brown fox " * 500).encode()
NOISE = random.Random(1).randbytes(20_000)


def codec(method: str | None, above: int = 0, limit: int = 1 << 20) -> ValueCodec:
    return ValueCodec(RawCodec(), limit, compressor=Compressor(method, above) if method else None)


def dumps(values: ValueCodec, value: bytes) -> bytes:
    return values.dumps(value, wid=1, generation=2, ttl_ms=3)


def envelope(body: bytes, raw_size: int) -> bytes:
    return pack(1, 2, 3, body, 0, 0, flags=FLAG_COMPRESSED, raw_size=raw_size)


@pytest.mark.parametrize("method", NAMES)
@given(st.binary(max_size=200), st.integers(1, 60))
def test_compressed_value_comes_back(method, part, times):
    """Whatever it is, from whatever cache wrote it."""
    data = dumps(codec(method), part * times)
    for reader in (codec(None), codec("zlib"), codec(method)):
        assert reader.loads(data)[0] == part * times


@pytest.mark.parametrize("method", NAMES)
def test_compression_makes_long_values_smaller_and_says_so(method):
    """Flag, raw length, method."""
    data = dumps(codec(method), TEXT)
    assert len(data) < len(TEXT) / 5
    assert data[1] == FLAG_COMPRESSED
    value, found = codec(method).loads(data)
    assert value == TEXT
    assert (found.raw_size, bytes(found.payload)[0]) == (len(TEXT), METHODS[method])


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize(("value", "above"), [(b"", 0), (b"x", 0), (NOISE, 0), (TEXT, len(TEXT)), (bytes(1 << 19), 0)])
def test_value_stays_as_it_is_where_compression_does_not_help(method, value, above):
    """Short, incompressible, below the limit; or compressed so well that a reader would take it for a bomb."""
    data = dumps(codec(method, above), value)
    # Of the three, zstd alone makes so little of half a megabyte of zeros that it is not believed.
    assert (data[1] == 0) == (method == "zstd" or value != bytes(1 << 19))
    assert codec(None).loads(data)[0] == value


@pytest.mark.parametrize("method", NAMES)
def test_sizes_both_count_against_max_value(method):
    """Before compression when it is written; both when it is read."""
    with pytest.raises(ValueTooLargeError):
        codec(method, limit=len(TEXT) - 1).encode(TEXT)
    data = dumps(codec(method, limit=len(TEXT)), TEXT)
    with pytest.raises(DecodeError, match="max_value"):
        codec(method, limit=len(TEXT) - 1).loads(data)
    with pytest.raises(DecodeError, match="max_value"):
        codec(method, limit=100).loads(envelope(b"\1" + NOISE, 50))
    with pytest.raises(DecodeError, match="max_value"):
        codec(method, limit=10_000).loads(envelope(b"\1" + NOISE[:10_000], 50))


def bombs(size: int) -> list[bytes]:
    """Bodies that unfold to ``size`` zeros."""
    machine = zlib.compressobj(9)
    packed = b"".join(machine.compress(bytes(1 << 20)) for _ in range(size >> 20)) + machine.flush()
    frame = zstandard.ZstdCompressor(level=3).compress(bytes(size))
    stream = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(size))
    return [
        b"\1" + packed,
        b"\2" + lz4.block.compress(bytes(size), store_size=False),
        b"\3" + frame,
        b"\3" + stream,
        b"\3" + zstandard.ZstdCompressor().compress(b"x") + frame,
    ]


BOMBS = bombs(64 << 20)


@pytest.mark.parametrize("number", range(len(BOMBS)))
@pytest.mark.parametrize("raw_size", [0, 1, 1000, 1 << 20, 4 << 20, 64 << 20, 1 << 62])
def test_bomb_is_refused_within_bounds_of_memory(number, raw_size):
    """Whatever length it announces: never more than that length, never more than max_value, is made."""
    body = BOMBS[number]
    values = codec(None, limit=4 << 20)
    data = envelope(body, raw_size)
    tracemalloc.start()
    with pytest.raises(DecodeError):
        values.loads(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_ratio_is_capped():
    """A thousand to one is the most that is believed."""
    body = b"\1" + zlib.compress(bytes(100_000), 9)
    raw_size = MAX_RATIO * (len(body) - 1) + 1
    with pytest.raises(DecodeError, match="out of proportion"):
        decompress(body, raw_size)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("change", [-1, 1, -len(TEXT) + 1, 100])
def test_raw_length_that_is_not_the_payloads_is_refused(method, change):
    """Neither more nor less."""
    encoded = codec(method).encode(TEXT)
    with pytest.raises(DecodeError):
        decompress(encoded.payload, encoded.raw_size + change)


@pytest.mark.parametrize("method", NAMES)
def test_compressed_envelope_damaged_anywhere_is_refused_or_of_the_right_length(method):
    """Each bit, each length, bytes behind the end."""
    data = dumps(codec(method), TEXT[:300])
    damaged = [data[:size] for size in range(len(data))] + [data + b"\0"]
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            damaged.append(bytes(flipped))
    for each in damaged:
        try:
            value, _ = codec(None, limit=10_000).loads(each)
        except DecodeError:
            continue
        assert len(value) == 300


@pytest.mark.parametrize("number", [0, 4, 255])
def test_unknown_method_is_refused(number):
    """A method of a later version is a miss."""
    with pytest.raises(DecodeError, match=f"method {number}"):
        decompress(bytes((number,)) + b"x" * 50, 50)


def test_frame_that_asks_for_a_large_window_is_refused():
    """A decoder allocates the window that a frame names."""
    # A frame header without single segment: window descriptor 0xA0 is 2**30 bytes, then a content size of 4 bytes.
    frame = struct.pack("<I", 0xFD2FB528) + b"\x80\xa0" + struct.pack("<I", 500) + b"\x01\x00\x00"
    with pytest.raises(DecodeError, match=r"more memory|damaged"):
        decompress(b"\3" + frame, 500)


@pytest.mark.parametrize(("name", "packages"), [("lz4", ["lz4"]), ("zstd", ["zstandard", "compression"])])
def test_missing_package_is_an_error_for_the_writer_and_a_miss_for_the_reader(monkeypatch, name, packages):
    """The error names the extra."""
    body = codec(name).encode(TEXT)
    real = builtins.__import__

    def refusing(wanted, *rest):
        if wanted.partition(".")[0] in packages:
            raise ImportError(wanted)
        return real(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", refusing)
    monkeypatch.setattr(module, "_loaded", {})
    with pytest.raises(ConfigError) as caught:
        value_codec(parse("redis://a", compress=name))
    assert f"nearcache[{name}]" in str(caught.value)
    with pytest.raises(DecodeError, match="not installed"):
        decompress(body.payload, body.raw_size)


def test_zstd_comes_from_python_where_python_has_it():
    """From 3.14 on; both read what either wrote."""
    makers = [module._zstd_of_package] + ([module._zstd_of_python] if sys.version_info >= (3, 14) else [])
    for writer in makers:
        for reader in makers:
            packed = writer().pack(TEXT)
            assert reader().unpack(packed, len(TEXT)) == TEXT


def test_compressed_value_is_compressed_once_and_sealed_twice():
    """A retry with another generation does not pay again."""
    values = ValueCodec(SafeCodec(), 1 << 20, compressor=Compressor("zlib", 0))
    encoded = values.encode("x" * 100)
    assert isinstance(encoded, Encoded)
    first, second = values.seal(encoded, 1, 2, 3), values.seal(encoded, 1, 3, 3)
    assert values.loads(first)[0] == values.loads(second)[0] == "x" * 100
