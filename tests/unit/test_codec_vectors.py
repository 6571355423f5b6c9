"""Vectors of the other codecs, of compression and of protection: the bytes that other languages check themselves by.

A released vector never changes. ``describe()`` returns what a new one should be.
"""

from __future__ import annotations

import json
import pathlib

import msgspec
import pytest

from nearcache.codecs import ValueCodec
from nearcache.codecs.compression import Compressor, decompress
from nearcache.codecs.pickled import PickleCodec
from nearcache.codecs.plain import JsonCodec, RawCodec
from nearcache.codecs.sealing import Encrypter, Signer, key_id_of, scope_of
from nearcache.codecs.typed import MsgspecCodec
from nearcache.errors import ForgedError

VECTORS = json.loads((pathlib.Path(__file__).parents[1] / "data" / "sealed_1.json").read_text())

MASTER = bytes(range(32))
NAMESPACE, DB, KEY = "shop", 3, b"ssku:1"
NONCE = bytes(range(100, 112))
VALUE = {"sku": "1", "tags": ["a", "b"], "price": 2.5}
IDS = {"wid": 0x0123456789ABCDEF, "generation": 0xFEDCBA9876543210, "ttl_ms": 60_000}

GUARDS = {
    "signed": lambda: Signer([MASTER]),
    "encrypted": lambda: Encrypter([MASTER], lambda size: NONCE[:size]),
}
TEXT = b"abcabcabc" * 20


def sealed(name: str, *, compress: bool = False, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    codec = protected(name, compress=compress)
    encoded = codec.encode(TEXT.decode() if compress else VALUE)
    return codec.seal(encoded, **IDS, key=KEY, tags=tags, soft_ttl_ms=5, cost_ms=6)


def protected(name: str, *, compress: bool = False) -> ValueCodec:
    compressor = Compressor("lz4", 0) if compress else None
    return ValueCodec(JsonCodec(), 10_000, compressor=compressor, guard=GUARDS[name](), scope=scope_of(NAMESPACE, DB))


def describe() -> dict[str, object]:
    """Return the vectors of this version."""
    return {
        "format": 1,
        "payloads": {
            "raw": RawCodec().encode(b"\x00\xff")[0].hex(),
            "json": JsonCodec().encode({"a": [1, None, True, 1.5, "é"]})[0].hex(),
            "msgspec": MsgspecCodec().encode({"a": [1, None, True, 1.5, "é", b"\xff"]})[0].hex(),
            "pickle": PickleCodec().encode([1, "a"])[0].hex(),
        },
        "compressed": {name: Compressor(name, 0).compress(TEXT).hex() for name in ("zlib", "lz4", "zstd")},
        "keys": {"master": MASTER.hex(), "key id": key_id_of(MASTER)},
        "context": {"namespace": NAMESPACE, "db": DB, "key": KEY.hex(), "nonce": NONCE.hex()},
        "sealed": {
            "signed": sealed("signed").hex(),
            "signed, tagged": sealed("signed", tags=((7, 8),)).hex(),
            "signed, compressed": sealed("signed", compress=True).hex(),
            "encrypted": sealed("encrypted").hex(),
            "encrypted, tagged": sealed("encrypted", tags=((7, 8),)).hex(),
            "encrypted, compressed": sealed("encrypted", compress=True).hex(),
        },
    }


def test_payload_vectors_are_read_and_written():
    """Of the codecs that store plain data."""
    assert describe()["payloads"] == VECTORS["payloads"]
    raw = {name: bytes.fromhex(text) for name, text in VECTORS["payloads"].items()}
    assert JsonCodec().decode(raw["json"], 0) == {"a": [1, None, True, 1.5, "é"]}
    assert MsgspecCodec().decode(raw["msgspec"], 0) == msgspec.msgpack.decode(raw["msgspec"])
    assert PickleCodec().decode(raw["pickle"], 0) == [1, "a"]


@pytest.mark.parametrize("name", ["zlib", "lz4", "zstd"])
def test_compressed_vectors_are_read(name):
    """What a release of the package writes may differ; what it reads may not."""
    assert decompress(bytes.fromhex(VECTORS["compressed"][name]), len(TEXT)) == TEXT


@pytest.mark.parametrize("name", VECTORS["sealed"])
def test_sealed_vectors_are_read(name):
    """MAC, AEAD, key derivation, context: every byte is as it was released."""
    kind = name.partition(",")[0]
    data = bytes.fromhex(VECTORS["sealed"][name])
    value, envelope = protected(kind).loads(data, key=KEY)
    assert value == (TEXT.decode() if "compressed" in name else VALUE)
    assert envelope.key_id == VECTORS["keys"]["key id"] == key_id_of(MASTER)
    assert envelope.tags == (((7, 8),) if "tagged" in name else ())
    with pytest.raises(ForgedError):
        protected(kind).loads(data, key=KEY + b"x")


@pytest.mark.parametrize("name", ["signed", "signed, tagged", "encrypted", "encrypted, tagged"])
def test_sealed_vectors_are_written(name):
    """With the same nonce, the same bytes."""
    assert describe()["sealed"][name] == VECTORS["sealed"][name]
