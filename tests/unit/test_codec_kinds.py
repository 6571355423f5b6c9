"""The codecs beside ``safe``: what comes back is what was stored, or it is refused when it is written."""

from __future__ import annotations

import enum
import math
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import ValueCodec, value_codec
from nearcache.codecs.pickled import PickleCodec
from nearcache.codecs.plain import JsonCodec, RawCodec
from nearcache.codecs.typed import MsgspecCodec
from nearcache.errors import ConfigError, DecodeError, UnencodableValueError
from nearcache.options import parse
from support.errors import WordlessError

KEY = bytes(range(32))
REDIS = "redis://a"


class Point(msgspec.Struct):
    x: int
    tags: set[str] = msgspec.field(default_factory=set)


class Opaque(msgspec.Struct, eq=False):
    x: float


class Colour(enum.Enum):
    RED = "red"


class Anything(msgspec.Struct):
    x: Any


@dataclass
class Pair:
    a: Any
    b: Any


class FurtherPair(Pair):
    pass


@dataclass(eq=False, slots=True, frozen=True)
class Slotted:
    number: float


@attrs.define(eq=False)
class Defined:
    number: float


@dataclass
class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise WordlessError


@dataclass
class Line:
    a: Point
    b: Point | None


def made(**options: Any) -> ValueCodec:
    return value_codec(parse(REDIS, **options))


def shown(value: Any) -> str:
    """The repr, since a NaN is not equal to itself. A Point's set has no order: its members are sorted."""
    if isinstance(value, Point):
        return f"{type(value)} {value.x!r} {type(value.tags)} {sorted(value.tags)}"
    return repr(value)


def through(codec, value):
    return codec.decode(*codec.encode(value))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(plain)
def test_json_plain_data_comes_back(value):
    """Types too: True is not 1, 1.0 is not 1, lone surrogates are text."""
    back = through(JsonCodec(), value)
    assert repr(back) == repr(value)


@given(plain | st.binary())
def test_msgspec_plain_data_comes_back(value):
    """Without a type. Text that UTF-8 cannot hold is refused."""
    try:
        payload = MsgspecCodec().encode(value)
    except UnencodableValueError:
        assert "\\ud" in ascii(value)
        return
    assert repr(MsgspecCodec().decode(*payload)) == repr(value)


@given(st.binary())
def test_raw_bytes_come_back_as_they_are(value):
    """And they are the payload."""
    assert RawCodec().encode(value) == (value, 0)
    assert through(RawCodec(), value) == value
    assert type(RawCodec().decode(memoryview(value), 0)) is bytes


@pytest.mark.parametrize("value", ["text", bytearray(b"x"), memoryview(b"x"), None, 1, [b"x"]])
def test_raw_anything_but_bytes_is_refused(value):
    """What came back would be something else."""
    with pytest.raises(UnencodableValueError, match="codec='raw' stores bytes"):
        RawCodec().encode(value)


@pytest.mark.parametrize(
    "value", [(1, 2), {"a": (1,)}, {1: "a"}, {1, 2}, b"x", math.nan, math.inf, object(), [object()], {None: 1}, 1j]
)
def test_json_value_that_would_change_is_refused(value):
    """Lists for tuples, text for other keys, nothing for sets."""
    with pytest.raises(UnencodableValueError):
        JsonCodec().encode(value)


class Level(enum.IntEnum):
    LOW = 1


class Name(str, enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Row(list):
    pass


SUBCLASSES = [
    (Level.LOW, "Level", r"value\.value"),
    (Name.RED, "Name", r"value\.value"),
    (Text("x"), "Text", r"str\(value\)"),
    (Number(3), "Number", r"int\(value\)"),
    (Real(2.5), "Real", r"float\(value\)"),
    (Row([1]), "Row", r"list\(value\)"),
    (Counter("a"), "collections.Counter", r"dict\(value\)"),
    (OrderedDict(a=1), "collections.OrderedDict", r"dict\(value\)"),
    (defaultdict(int, a=1), "collections.defaultdict", r"dict\(value\)"),
]


@pytest.mark.parametrize("wrap", [lambda part: part, lambda part: [0, part], lambda part: {"k": {"l": [part]}}])
@pytest.mark.parametrize(("value", "name", "remedy"), SUBCLASSES, ids=lambda part: part if type(part) is str else "")
def test_subclass_of_a_plain_type_is_refused_with_the_remedy(value, name, remedy, wrap):
    """It may compare equal to what comes back, and still do something else: a Counter has no KeyError."""
    with pytest.raises(UnencodableValueError, match=f"{remedy}.*, or use codec='safe'") as caught:
        JsonCodec().encode(wrap(value))
    assert name in caught.value.type_name
    with pytest.raises(UnencodableValueError, match="msgspec"):
        MsgspecCodec().encode(wrap(value))


@pytest.mark.parametrize("key", [Text("x"), Name.RED])
def test_key_of_a_subclass_of_text_is_refused(key):
    """As a value is."""
    for codec in (JsonCodec(), MsgspecCodec()):
        with pytest.raises(UnencodableValueError):
            codec.encode({"a": 1, key: 2})


@pytest.mark.parametrize("value", [[bytearray(b"x")], [memoryview(b"x")], [b"x", Level.LOW], ["\u0104", Level.LOW]])
def test_msgspec_what_passes_for_bytes_is_refused(value):
    """And what stands beside bytes, or text with the bytes that bytes begin with, is looked at as well."""
    with pytest.raises(UnencodableValueError):
        MsgspecCodec().encode(value)


def test_json_value_in_itself_is_refused():
    """By an error, not by the end of the stack."""
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(UnencodableValueError):
            JsonCodec().encode(value)


@pytest.mark.parametrize("value", [(1, 2), {"a": (1,)}, {1, 2}, Point(1), Line(Point(1), None), [Point(1)]])
def test_msgspec_value_that_would_change_is_refused_without_a_type(value):
    """The remedy is to say the type."""
    with pytest.raises(UnencodableValueError, match="type="):
        MsgspecCodec().encode(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Point, Point(1, {"a", "b"})),
        (list[Point], [Point(1), Point(2)]),
        (Line, Line(Point(1), None)),
        (dict[int, tuple[int, ...]], {1: (2, 3)}),
        (Line | None, None),
        (Opaque, Opaque(math.nan)),
        (list[float], [math.nan]),
        (list[Decimal], [Decimal("NaN")]),
        (set[float], {math.nan}),
        (tuple[Opaque, Pair], (Opaque(math.nan), Pair(1, {"c": [math.nan]}))),
        (list[Slotted], [Slotted(math.nan)]),
        (list[Defined], [Defined(math.nan)]),
    ],
)
def test_msgspec_value_of_the_type_comes_back(type_, value):
    """Structs, dataclasses, containers of them, unions."""
    back = through(MsgspecCodec(type_), value)
    assert type(back) is type(value)
    assert shown(back) == shown(value)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Point, {"x": 1}),
        (Point, 1),
        (list[Point], [1]),
        (int, "1"),
        (list[str], ["a", UUID(int=1)]),
        (list[list[int]], [[], [(1, 2)]]),
        (list[Pair], [{"a": 1, "b": math.nan}]),
        (list[Pair], [FurtherPair(1, math.nan)]),
        *((dict[str, Any], {"a": [part]}) for part in ((1, 2), {3}, Decimal("1.5"), date(2026, 1, 2), Colour.RED)),
        (Anything, Anything((1, 2))),
        (Pair, Pair((math.nan, 1), Opaque(1))),
        (list[Opaque], [Opaque([math.nan, (1,)])]),
        (Pair, Pair(1, Incomparable())),
    ],
)
def test_msgspec_value_of_another_type_is_refused(type_, value):
    """When it is written, not when somebody reads it: at any depth, and also where it is written as the same bytes."""
    with pytest.raises(UnencodableValueError):
        MsgspecCodec(type_).encode(value)


def test_msgspec_value_in_itself_is_refused():
    """By an error, not by the end of the stack."""
    loop = Anything([])
    loop.x.append(loop)
    with pytest.raises(UnencodableValueError):
        MsgspecCodec(Anything).encode(loop)


def test_msgspec_value_of_another_schema_is_a_miss():
    """Plain data is not read as a type, nor a type as plain data."""
    with pytest.raises(DecodeError, match="schema"):
        MsgspecCodec(Point).decode(*MsgspecCodec().encode({"x": 1}))
    with pytest.raises(DecodeError, match="schema"):
        MsgspecCodec().decode(*MsgspecCodec(Point).encode(Point(1)))


def test_pickle_any_object_comes_back():
    """Classes, functions, cycles; nothing has to be registered."""
    loop: list[Any] = [Line(Point(1), None), math.sqrt, enum.Enum, {1: {2}}]
    loop.append(loop)
    back = through(PickleCodec(), loop)
    assert back[:4] == loop[:4]
    assert back[4] is back


@pytest.mark.parametrize("value", [lambda: 1, sys._getframe(), [object.__reduce__, lambda: 1]])
def test_pickle_object_that_cannot_be_pickled_is_refused(value):
    """With what pickle says about it."""
    with pytest.raises(UnencodableValueError, match="pickled"):
        PickleCodec().encode(value)


@pytest.mark.parametrize("codec", [JsonCodec(), MsgspecCodec(), MsgspecCodec(list[Point]), RawCodec(), PickleCodec()])
@given(st.binary(max_size=60), st.sampled_from([0, 0, 0, 7]))
def test_any_bytes_are_data_or_refused(codec, payload, schema):
    """Decoders are total. (Pickle gets no such bytes, but for the mistakes of somebody with the key.)"""
    if isinstance(codec, PickleCodec):
        payload = b"\0" + payload[:2]
    try:
        codec.decode(payload, schema)
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "payload", [b"[" * 100_000, b"\xff", b"NaN", b"[1", b"", b"1 2", b"-Infinity", b'"\\', b"9" * 100_000]
)
def test_json_payload_that_is_none_is_refused(payload):
    """Deep, cut, foreign."""
    with pytest.raises(DecodeError):
        JsonCodec().decode(payload, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\x91" * 90_000,
    ],
)
def test_msgspec_giant_lengths_and_deep_nesting_are_refused(payload):
    """They ask for no memory."""
    with pytest.raises(DecodeError):
        MsgspecCodec().decode(payload, 0)


# -- options -----------------------------------------------------------------------------------------------------


class Custom:
    codec_id = 200

    def encode(self, value):
        return repr(value).encode(), 0

    def decode(self, payload, schema):
        return payload


class Numberless(Custom):
    codec_id = None


class Mute:
    codec_id = 200


def test_codec_by_name_or_object_writes_its_number():
    """The third byte of the envelope."""
    given = {"raw": 0, "safe": 1, "msgspec": 2, "json": 3, "pickle": 4}
    for name, number in given.items():
        value = b"x" if name == "raw" else "x"
        keys = {"signing_keys": KEY} if name == "pickle" else {}
        codec = made(codec=name, **keys)
        data = codec.dumps(value, wid=1, generation=1, ttl_ms=1)
        assert data[2] == number
        assert codec.loads(data)[0] == value
    assert made(codec=Custom()).dumps(1, wid=1, generation=1, ttl_ms=1)[2] == 200
    assert made(codec=JsonCodec()).dumps(1, wid=1, generation=1, ttl_ms=1)[2] == 3


@pytest.mark.parametrize(
    ("options", "option", "remedy"),
    [
        ({"codec": "yaml"}, "codec", "'safe', 'json'"),
        ({"codec": None}, "codec", "'safe', 'json'"),
        ({"codec": JsonCodec}, "codec", "an object that is a codec"),
        ({"codec": Numberless()}, "codec", "128 to 255"),
        ({"codec": Mute()}, "codec", "encode"),
        ({"codec": 3}, "codec", "128 to 255"),
        ({"codec": "pickle"}, "codec", "signing_keys="),
        ({"codec": PickleCodec()}, "codec", "signing_keys="),
        ({"codec": "json", "classes": (Line,)}, "classes", "only codec='safe'"),
        ({"codec": "pickle", "classes": (Line,), "signing_keys": KEY}, "classes", "only codec='safe'"),
        ({"type": Point}, "type", "only codec='msgspec'"),
        ({"codec": "msgspec", "type": object()}, "type", "msgspec can decode"),
        ({"compress": "bzip2"}, "compress", "'zlib'"),
        ({"compress_above": 10}, "compress_above", "give compress= too"),
        ({"compress": "zlib", "compress_above": -1}, "compress_above", "whole number"),
        ({"isolation": "deep"}, "isolation", "'shared', 'copy'"),
        ({"signing_keys": KEY, "encryption_keys": KEY}, "signing_keys", "or encryption_keys="),
    ],
)
def test_options_that_make_no_sense_are_refused_at_the_door(options, option, remedy):
    """Each with its name and the remedy."""
    with pytest.raises(ConfigError) as caught:
        made(**options)
    assert caught.value.option == option
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("msgspec", {"codec": "msgspec"}, "nearcache[msgspec]"),
        ("cryptography.exceptions", {"encryption_keys": KEY}, "nearcache[crypto]"),
    ],
)
def test_missing_package_is_refused_with_the_extra_that_brings_it(monkeypatch, module, options, extra):
    """At the door, not at the first value."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as caught:
        made(**options)
    assert extra in str(caught.value)


def test_pickle_codec_is_refused_without_keys_even_when_it_is_put_together_by_hand():
    """Nothing unpickles what nobody signed."""
    with pytest.raises(ConfigError, match="signing_keys="):
        ValueCodec(PickleCodec(), 1000)
    assert pickle.loads(PickleCodec().encode(1)[0][1:]) == 1


class Picky:
    """A codec that raises what it likes over bytes that it did not write."""

    codec_id = 201
    error: BaseException = ValueError("no")

    def encode(self, value: object) -> tuple[bytes, int]:
        """Write whatever it is."""
        return b"1", 0

    def decode(self, payload: object, schema: int) -> object:
        """Raise."""
        raise self.error


@pytest.mark.parametrize("isolation", ["shared", "copy"])
@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), RecursionError("no"), DecodeError("no")])
def test_custom_codec_whatever_it_raises_in_reading_is_a_miss(isolation, error):
    """Not an exception in the face of who reads; the cause is there for who looks."""
    data = made(codec="raw").dumps(b"1", wid=1, generation=1, ttl_ms=1)
    data = data[:2] + b"\xc9" + data[3:]
    codec = Picky()
    codec.error = error
    reader = made(codec=codec, isolation=isolation)
    with pytest.raises(DecodeError, match="no") as caught:
        reader.loads(data)
    assert error in (caught.value, caught.value.__cause__)
    if isolation == "shared":
        assert reader.usual[0] == 201
        with pytest.raises(DecodeError, match="no"):
            reader.usual[1](b"1", 0)


class Unwritable:
    """What cannot be pickled, nor can it be said why."""

    def __reduce__(self) -> Any:
        raise WordlessError


def test_errors_that_cannot_be_told_are_what_others_are_in_reading_and_writing():
    """Else who reads would have whatever their ``str()`` raises instead of a miss."""
    codec = Picky()
    codec.error = WordlessError()
    with pytest.raises(DecodeError, match=r"WordlessError: <its str\(\) raised AttributeError>"):
        made(codec=codec).usual[1](b"1", 0)
    with pytest.raises(UnencodableValueError, match=r"cannot be pickled: <its str\(\) raised AttributeError>"):
        PickleCodec().encode(Unwritable())


@pytest.mark.parametrize("error", [MemoryError("no"), KeyboardInterrupt("no")])
def test_custom_codec_what_says_nothing_of_the_bytes_is_raised(error):
    """Short memory, and interrupts."""
    codec = Picky()
    codec.error = error
    with pytest.raises(type(error)):
        made(codec=codec).usual[1](b"1", 0)


@pytest.mark.parametrize("returned", [b"1", ("1", 0), (b"1", -1), (b"1", 1 << 32), (b"1", "0"), (b"1", 0, 0), None])
def test_custom_codec_that_returns_something_else_is_told_so(returned):
    """Where the value is written, and before anything is sent."""
    codec = Picky()
    codec.encode = lambda value: returned
    with pytest.raises(UnencodableValueError, match=r"codec 201 returned .*: let it return bytes"):
        made(codec=codec).encode(1)
