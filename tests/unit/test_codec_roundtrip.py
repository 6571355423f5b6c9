"""The ``safe`` codec gives back what it was given: equal, of the same types, with the same identities."""

from __future__ import annotations

import datetime as dt
import gc
import json
import math
import pathlib
import struct
import subprocess
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import SafeCodec
from support import shop
from support.traces import read_trace

NAUGHTY = read_trace("blns.json")
DOCUMENTS = read_trace("nginxplus_docs_a.jsonl")

T = TypeVar("T")


@dataclass
class Page(Generic[T]):
    items: list[T]


CODEC = SafeCodec(shop.CLASSES)
BERLIN = ZoneInfo("Europe/Berlin")

text = st.text(st.characters(exclude_categories=()))
hashables = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)
values = st.recursive(
    hashables
    | st.builds(bytearray, st.binary())
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(dt.timezone.utc))
    | st.dates()
    | st.times(timezones=st.none() | st.just(dt.timezone(dt.timedelta(hours=2), "X")))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.complex_numbers(allow_nan=False)
    | st.builds(range, st.integers(), st.integers(), st.integers().filter(bool))
    | st.sampled_from([*shop.Colour, *shop.Level, shop.Access(0), shop.Access.READ | shop.Access.GRANT])
    | st.builds(shop.Size, st.integers(), st.integers())
    | st.integers().map(shop.Count),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.dictionaries(text, inner, max_size=3).map(OrderedDict)
        | st.dictionaries(text, inner, max_size=3).map(shop.Basket)
        | st.sets(hashables, max_size=4)
        | st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 5))
        | st.lists(inner, max_size=3).map(shop.Row)
        | st.builds(shop.Money, inner, inner)
        | st.builds(shop.Article, text, inner)
        | st.builds(shop.Position, inner, st.integers())
    ),
    max_leaves=15,
)


def through(value, codec=CODEC):
    payload, schema = codec.encode(value)
    return codec.decode(memoryview(payload), schema)


def types_of(value):
    """Return the types in a value, in an order that equal values share."""
    if isinstance(value, (list, tuple, deque)):
        return type(value), [types_of(item) for item in value]
    if isinstance(value, dict):
        return type(value), [types_of(item) for item in value.values()]
    return type(value)


@given(values)
def test_value_comes_back_equal_and_of_the_same_types(value):
    """Any admitted value survives, whatever it is nested in."""
    back = through(value)
    assert back == value
    assert types_of(back) == types_of(value)


@given(values)
def test_payload_of_what_came_back_reads_alike(value):
    """Encoding is stable: a second trip changes nothing."""
    assert through(through(value)) == value


@given(st.binary(min_size=8, max_size=8))
def test_float_keeps_every_bit(raw):
    """NaN payloads, signed zeros and subnormals included."""
    value = struct.unpack("<d", raw)[0]
    assert struct.pack("<d", through(value)) == struct.pack("<d", value)
    assert struct.pack("<d", through([value])[0]) == struct.pack("<d", value)


@pytest.mark.parametrize("value", [0, 1, -1, 127, 128, -128, -129, 255, 256, 2**63, -(2**63), 2**64, 1 << 9_000])
def test_int_of_any_size_comes_back(value):
    """Alone and in a container."""
    assert through(value) == value
    assert through([value]) == [value]


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime.min,
        dt.datetime.max,
        dt.time(23, 59, 59, 999_999, fold=1),
        dt.timezone(dt.timedelta(hours=-3, minutes=-30), "NST"),
        dt.timezone.utc,
        dt.timedelta.min,
        BERLIN,
        Decimal("-0E-999"),
        Decimal("1.50"),
        Decimal("-Infinity"),
        Decimal("1E+999999"),
        Fraction(-3, 7),
        UUID(int=5),
        pathlib.Path("/srv/a b"),
        pathlib.PurePosixPath("../x"),
        pathlib.PureWindowsPath("C:\\x\\y"),
        complex(-0.0, math.inf),
        range(10, 0, -3),
        Counter("abca"),
        defaultdict(list, {1: [2]}),
        defaultdict(None, {1: 2}),
        deque([1, 2, 3], 3),
        deque(maxlen=0),
        frozenset(),
        shop.Colour.CRIMSON,
        shop.Access.READ | shop.Access.WRITE,
        shop.Marks({1, 2}),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:40],
)
def test_object_comes_back_as_it_was(value):
    """Equal, of its type, and with the same text (which shows folds, names and exponents)."""
    back = through(value)
    assert (back, type(back), repr(back)) == (value, type(value), repr(value))


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-NaN123", "sNaN9"])
def test_decimal_nan_comes_back_with_its_payload(text):
    """Quiet and signalling."""
    assert str(through(Decimal(text))) == text


def test_decimal_is_written_the_same_way_in_any_context():
    """A context that writes a small e does not make the value unreadable."""
    import decimal

    with decimal.localcontext() as context:
        context.capitals = 0
        payload = CODEC.encode(Decimal("1E+30"))
    assert CODEC.decode(*payload) == Decimal("1E+30")


def test_timezone_utc_is_the_one_object():
    """`tz is timezone.utc` keeps working."""
    assert through([dt.timezone.utc])[0] is dt.timezone.utc


def test_identity_within_a_value_is_kept():
    """One object in two places is one object again."""
    shared, money = [1], shop.Money(Decimal(1))
    back = through([shared, shared, money, money, shop.Colour.RED])
    assert back[0] is back[1]
    assert back[2] is back[3]
    assert back[4] is shop.Colour.RED


@pytest.mark.parametrize("kind", [list, deque, shop.Row])
def test_sequence_that_contains_itself_comes_back(kind):
    """Plain and two-phase ones."""
    value = kind()
    value.append(value)
    back = through(value)
    assert type(back) is kind
    assert back[0] is back


@pytest.mark.parametrize("kind", [dict, OrderedDict, defaultdict, shop.Basket])
def test_mapping_that_contains_itself_comes_back(kind):
    """Plain and two-phase ones."""
    value = kind()
    value["self"] = value
    back = through(value)
    assert type(back) is kind
    assert back["self"] is back


def test_tuple_in_a_cycle_comes_back():
    """The pickler writes it twice and drops one; both forms are part of the dialect."""
    value = ([], shop.Position([], 1))
    value[0].append(value)
    value[1].article.append(value[1])
    back = through(value)
    assert back[0][0] is back
    assert back[1].article[0] is back[1]


def test_objects_that_refer_to_each_other_come_back():
    """Cycles through registered classes."""
    left, right = shop.Node("left"), shop.Node("right")
    left.links, right.links = [right, left], [left]
    back = through(left)
    assert back.links[0].name == "right"
    assert back.links[0].links[0] is back
    assert back.links[1] is back


def test_long_chain_of_objects_comes_back():
    """Objects that refer to the one before, in a flat list, are not nested."""
    chain = [shop.Node("0")]
    for number in range(1, 1000):
        chain.append(shop.Node(str(number)))
        chain[-1].links.append(chain[-2])
    assert through(chain)[-1].links[0].links[0].name == "997"


def test_slots_come_back_and_unset_ones_stay_unset():
    """Private names too."""
    back = through(shop.Slotted([1]))
    assert back.state() == ([1], [1])
    assert not hasattr(back, "right")


@pytest.mark.parametrize("kind", [shop.Sealed, shop.Called])
def test_class_with_its_own_protocol_comes_back(kind):
    """__getstate__/__setstate__, and __reduce__ that calls the class."""
    assert through(kind([1, 2])).value == [1, 2]


def test_class_with_keyword_arguments_comes_back():
    """__getnewargs_ex__."""
    assert through(shop.KeywordMade(value=(1,))).value == (1,)


def test_attributes_of_container_subclasses_come_back():
    """A registered dict subclass keeps items and attributes."""
    basket = shop.Basket(a=1)
    basket.owner = "x"
    back = through(basket)
    assert (back, back.owner) == ({"a": 1}, "x")


def test_exception_comes_back_with_arguments_and_attributes():
    """A registered exception of one's own, and a builtin one."""
    error = shop.OutOfStockError("sku", 3)
    error.shelf = 4
    back = through([error, KeyError("k")])
    assert (type(back[0]), back[0].args, back[0].shelf) == (shop.OutOfStockError, ("sku", 3), 4)
    assert (type(back[1]), back[1].args) == (KeyError, ("k",))


def test_frozen_dataclass_is_a_dict_key():
    """Objects are complete before they are hashed."""
    value = {shop.Article("a", (1, 2)): 1, shop.Size(1, 2): 2}
    assert through(value) == value


def test_object_of_a_generic_class_comes_back_without_what_typing_left_in_it():
    """The parameters that it was made with are in none of its fields, and change nothing that it does."""
    codec = SafeCodec([Page])
    page = Page[int]([1])
    back = codec.decode(*codec.encode([page]))
    assert back == [page]
    assert vars(back[0]) == {"items": [1]}
    assert page.__orig_class__ == Page[int]


def test_negative_complement_of_an_intflag_comes_back():
    """Before Python 3.11 it stays negative."""
    import enum

    class Bits(enum.IntFlag):
        A = 1
        B = 2

    assert through(~Bits.A, SafeCodec([Bits])) == ~Bits.A


def test_nothing_is_left_to_the_garbage_collector():
    """Encoding and decoding make no reference cycles that would keep values alive."""
    gc.collect()
    gc.disable()
    try:
        back = through([shop.Node("a"), Decimal(1), OrderedDict(a=1)])
        gone = weakref.ref(back[0])
        del back
        assert gone() is None
    finally:
        gc.enable()


def test_payload_is_read_from_bytes_and_from_views():
    """The envelope hands over a view, other callers may hand over bytes."""
    for value in ("a", b"a", 1, 1.5, None, [1], {"a": Decimal(1)}, shop.Size(1)):
        payload, schema = CODEC.encode(value)
        for form in (payload, memoryview(payload), memoryview(b"xx" + payload)[2:]):
            assert CODEC.decode(form, schema) == value


def test_codec_is_usable_from_many_threads():
    """Calls share the codec and nothing else."""
    from concurrent.futures import ThreadPoolExecutor

    codec = SafeCodec(shop.CLASSES)
    sample = [{"n": n, "m": shop.Money(Decimal(n)), "d": dt.date(2026, 1, 1), "u": UUID(int=n)} for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda value: through(value, codec), sample)) == sample


def test_import_of_the_codec_imports_no_heavy_modules():
    """numpy, decimal, zoneinfo and the like are imported when a value needs them."""
    code = (
        "import logging, sys; before = set(sys.modules); import nearcache.codecs\n"  # from 3.15 on it brings pathlib
        "heavy = {'numpy', 'decimal', 'fractions', 'uuid', 'zoneinfo', 'pathlib', 'redis'}\n"
        "print(*sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, env=_env())
    assert (done.stdout.strip(), done.stderr) == ("", "")


def _env():
    import os

    import nearcache.codecs

    root = str(pathlib.Path(nearcache.codecs.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root}


if NAUGHTY is not None:

    def test_naughty_strings_come_back():
        """Alone, as keys and as values."""
        strings = json.loads(NAUGHTY)
        assert [through(item) for item in strings] == strings
        assert through({item: [item] for item in strings}) == {item: [item] for item in strings}


if DOCUMENTS is not None:

    def test_real_documents_come_back():
        """Nested JSON documents of a web server, all of them."""
        for line in DOCUMENTS.splitlines():
            document = json.loads(line)
            assert through(document) == document
