"""Format 1 as it was released: the bytes of yesterday are read today, and written today.

A released vector never changes. A new kind of value gets a new vector, from what :func:`describe` returns.
"""

from __future__ import annotations

import datetime as dt
import json
import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from nearcache.codecs import SafeCodec, ValueCodec, pack, peek_ids, unpack
from nearcache.keys import decode_key, encode_key, slot_of
from support import shop

VECTORS = json.loads((pathlib.Path(__file__).parents[1] / "data" / "format_1.json").read_text())
CODEC = SafeCodec(shop.CLASSES)

KEYS = {
    "empty text": "",
    "text": "sku:1",
    "text beyond ASCII": "naïve \U0001f600",
    "lone surrogate": "\ud800",
    "bytes": b"\x00\xff",
    "zero": 0,
    "largest 64-bit int": 2**63 - 1,
    "smallest 64-bit int": -(2**63),
    "int beyond 64 bits": 2**63,
    "negative int beyond 64 bits": -(2**64),
    "float": -0.1,
    "infinity": float("-inf"),
    "none": None,
    "empty tuple": (),
    "tuple": ("sku", 1, (None, b"x"), 2.5),
}

VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "int 0": 0,
    "int 128": 128,
    "int -128": -128,
    "int 2**70": 2**70,
    "float": -1.5,
    "text": "naïve",
    "lone surrogate": "\udc80",
    "bytes": b"\x00\xff",
    "document": {"a": [1, -2, 300, 70_000, 2.5, None, True], "b": {"c": "x"}, "d": (), "e": (1, "a")},
    "sets": [{1}, frozenset([2]), bytearray(b"z")],
    "date": [dt.date(2026, 11, 23)],
    "time": [dt.time(1, 2, 3, 4, fold=1)],
    "datetime": [dt.datetime(2026, 11, 23, 1, 2, 3, 4)],
    "datetime in UTC": [dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)],
    "datetime in a named offset": [dt.datetime(2026, 11, 23, tzinfo=dt.timezone(dt.timedelta(hours=-3), "X"))],
    "timedelta": [dt.timedelta(-1, 2, 3)],
    "zone": [ZoneInfo("Europe/Berlin")],
    "decimal": [Decimal("-1.50")],
    "fraction": [Fraction(-1, 3)],
    "complex": [1 - 2j],
    "range": [range(1, 10, 3)],
    "uuid": [UUID(int=1)],
    "path": [pathlib.PurePosixPath("/a/b")],
    "ordered dict": [OrderedDict(b=1, a=2)],
    "defaultdict": [defaultdict(list, a=[1])],
    "counter": [Counter("aab")],
    "deque": [deque([1, 2], 3)],
    "dataclass": shop.Money(Decimal(1)),
    "dataclass with slots": shop.Size(1, 2),
    "named tuple": shop.Position("a", 1),
    "enum": [shop.Colour.RED, shop.Level.HIGH],
    "flag": shop.Access.READ | shop.Access.GRANT,
    "dict subclass": shop.Basket(a=1),
    "called class": shop.Called(1),
    "keyword class": shop.KeywordMade(value=1),
    "array": np.arange(3, dtype="<i2"),
    "arrays": [
        np.asfortranarray(np.arange(6, dtype="<i4").reshape(2, 3)),
        np.array([], "<f8"),
        np.array(["ab"], "<U2"),
    ],
    "structured array": np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")]),
    "numpy scalar": [np.float32(1.5), np.datetime64("2026-11-23", "D")],
}

ENVELOPES = {
    "small": {"wid": 1, "generation": 2, "ttl_ms": 60_000, "payload": b"T"},
    "every field": {
        "wid": 0x0123456789ABCDEF,
        "generation": 0xFEDCBA9876543210,
        "ttl_ms": 2**32 - 1,
        "payload": b"s" + b"x" * 200,
        "schema": 0x01020304,
        "codec_id": 1,
        "soft_ttl_ms": 5,
        "cost_ms": 6,
        "tags": [(7, 8), (2**64 - 1, 0)],
    },
    "a function's generation": {
        "wid": 1,
        "generation": 2,
        "ttl_ms": 2**32 - 1,
        "payload": b"0123456789abcdef",
        "codec_id": 127,
    },
}


def describe() -> dict[str, dict[str, object]]:
    """Return the vectors of this version."""
    values = {name: CODEC.encode(value) for name, value in VALUES.items()}
    return {
        "keys": {name: [encode_key(key).hex(), slot_of(encode_key(key))] for name, key in KEYS.items()},
        "values": {name: [payload.hex(), schema] for name, (payload, schema) in values.items()},
        "envelopes": {name: pack(**fields).hex() for name, fields in ENVELOPES.items()},
    }


def unified(value):
    """Return a value in a form that `==` compares, types included."""
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.dtype), value.shape, value.tobytes(), value.flags.f_contiguous
    if type(value) in (list, tuple):
        return type(value), [unified(item) for item in value]
    return type(value), vars(value) if isinstance(value, (shop.Called, shop.KeywordMade)) else value


@pytest.mark.parametrize("name", KEYS)
def test_key_vector_of_format_1_holds(name):
    """Bytes, slot and back."""
    raw, slot = VECTORS["keys"][name]
    assert encode_key(KEYS[name]).hex() == raw
    assert slot_of(bytes.fromhex(raw)) == slot
    assert decode_key(bytes.fromhex(raw)) == KEYS[name]


@pytest.mark.parametrize("name", VALUES)
def test_value_vector_of_format_1_is_read(name):
    """Payloads of every kind, with the schema they were written with."""
    raw, schema = VECTORS["values"][name]
    assert unified(CODEC.decode(bytes.fromhex(raw), schema)) == unified(VALUES[name])


@pytest.mark.parametrize("name", VALUES)
def test_value_vector_of_format_1_is_written(name):
    """The same bytes on every supported version of Python, so that processes of different versions share
    values."""
    assert [CODEC.encode(VALUES[name])[0].hex(), CODEC.encode(VALUES[name])[1]] == VECTORS["values"][name]


@pytest.mark.parametrize("name", ENVELOPES)
def test_envelope_vector_of_format_1_holds(name):
    """Every field at its offset, both ways."""
    fields, raw = ENVELOPES[name], bytes.fromhex(VECTORS["envelopes"][name])
    assert pack(**fields) == raw
    envelope = unpack(raw)
    assert all(getattr(envelope, field) == value for field, value in fields.items() if field != "tags")
    assert envelope.tags == tuple(fields.get("tags", ()))
    assert peek_ids(raw[:36]) == (fields["wid"], fields["generation"], fields["ttl_ms"])


def test_vectors_are_all_used():
    """No vector is forgotten, none is left out of the file."""
    assert {kind: list(VECTORS[kind]) for kind in ("keys", "values", "envelopes")} == {
        "keys": list(KEYS), "values": list(VALUES), "envelopes": list(ENVELOPES),
    }  # fmt: skip


def test_sealed_vector_is_read_as_a_whole():
    """Envelope and payload together."""
    payload, schema = VECTORS["values"]["dataclass"]
    data = pack(1, 2, 3, bytes.fromhex(payload), schema)
    assert ValueCodec(CODEC, 1000).loads(data)[0] == shop.Money(Decimal(1))
