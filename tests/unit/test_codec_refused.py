"""What the ``safe`` codec refuses to write, and how it says so; what cannot be registered."""

from __future__ import annotations

import array
import contextlib
import enum
import pickle
import re
import sys
import types
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from nearcache import ABSENT
from nearcache._pickle_scan import MAX_HASH_DEPTH
from nearcache.codecs import SafeCodec, safe
from nearcache.errors import ConfigError, DecodeError, UnencodableValueError
from support import shop

CODEC = SafeCodec()


class Unknown:
    pass


class UnknownDict(dict):
    pass


class UnknownTuple(tuple):
    __slots__ = ()


class SubMoney(shop.Money):
    pass


async def _coroutine() -> None:
    pass


def _with_attribute(container):
    container.note = 1
    return container


@pytest.mark.parametrize(
    ("value", "name", "remedy"),
    [
        (Unknown(), "Unknown", r"classes=\(Unknown, \.\.\.\) on nearcache.open\(\)"),
        (shop.Money(1), "shop.Money", r"classes=\(Money, \.\.\.\)"),
        (shop.Colour.RED, "shop.Colour", "member's name"),
        (shop.Level.LOW, "shop.Level", "member's name"),
        (shop.Position(1, 2), "shop.Position", r"tuple\(value\)"),
        (UnknownDict(a=1), "UnknownDict", r"dict\(value\)"),
        (UnknownTuple((1,)), "UnknownTuple", r"tuple\(value\)"),
        (lambda: 1, "function", "store the data"),
        (print, "builtin_function_or_method", "store the data"),
        ([].append, "builtin_function_or_method", "store the data"),
        (contextlib.nullcontext().__exit__, "method", "store the data"),
        (sys, "module", "store the data"),
        (int, "type", "store its name"),
        (Unknown, "type", "store its name"),
        (type(None), "type", "store its name"),
        ((n for n in ()), "generator", "list"),
        (iter([1]), "list_iterator", "list"),
        (map(str, [1]), "map", "list"),
        ({}.keys(), "dict_keys", "a list"),
        (memoryview(b"a"), "memoryview", "bytes"),
        (slice(1), "slice", "convert"),
        (..., "ellipsis", "convert"),
        (NotImplemented, "NotImplementedType", "convert"),
        (object(), "object", "convert"),
        (ValueError(1), "ValueError", "classes="),
        (types.SimpleNamespace(a=1), "SimpleNamespace", "classes="),
        (pickle.PickleBuffer(b"a"), "pickle.PickleBuffer", r"bytes\(\)"),
        (defaultdict(Unknown), "collections.defaultdict", r"dict\(value\)"),
        (_with_attribute(OrderedDict()), "collections.OrderedDict", "attributes"),
        (_with_attribute(Counter()), "collections.Counter", "attributes"),
        (Fraction(1, 1 << 70_000), "fractions.Fraction", "tuple of ints"),
        (np.array([object()]), "numpy.ndarray", "without objects"),
        (np.ma.array([1]), "numpy.ma.MaskedArray", r"cannot be registered as it is \(.*_mareconstruct.*plain data"),
        (np.recarray((1,), [("a", "i4")]), "recarray", r"cannot be registered as it is \(.*store plain data"),
        (np.dtype("i4"), "ype", r"cannot be registered as it is \(.*store plain data"),
        (re.compile("a"), "re.Pattern", r"cannot be registered as it is \(cannot pickle.*\); store plain data"),
        (array.array("i", [1]), "array.array", r"cannot be registered as it is \(.*store plain data"),
        (safe.rebuild, "function", "written"),
        (ABSENT, "nearcache.absence.Absent", r"what a loader returns where there is none.* del cache\[key\]"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_value_that_could_not_be_read_back_is_refused_with_the_remedy(value, name, remedy):
    """At write time, naming the class and what to do, at any depth."""
    with pytest.raises(UnencodableValueError, match=remedy) as caught:
        CODEC.encode(value)
    assert name in caught.value.type_name
    with pytest.raises(UnencodableValueError):
        CODEC.encode({"a": [value]})


def test_coroutine_is_refused():
    """It would be a loader whose result was not awaited."""
    coroutine = _coroutine()
    with pytest.raises(UnencodableValueError, match="coroutines cannot be stored"):
        CODEC.encode(coroutine)
    coroutine.close()


def test_zone_without_a_key_is_refused():
    """A ZoneInfo read from a file of one's own cannot be found again."""
    import zoneinfo

    for folder in zoneinfo.TZPATH:
        with contextlib.suppress(OSError), open(f"{folder}/Europe/Berlin", "rb") as file:
            zone = ZoneInfo.from_file(file)
            break
    else:
        from importlib.resources import files

        with (files("tzdata.zoneinfo.Europe") / "Berlin").open("rb") as file:
            zone = ZoneInfo.from_file(file)
    with pytest.raises(UnencodableValueError, match="ZoneInfo"):
        CODEC.encode(zone)


def test_subclass_of_a_registered_class_is_refused():
    """Registration is for exactly that class: a subclass would come back as its base."""
    with pytest.raises(UnencodableValueError, match="SubMoney"):
        SafeCodec([shop.Money]).encode(SubMoney(1))


def test_value_nested_too_deeply_is_refused():
    """The pickler's recursion limit comes out as our error."""
    value: list[object] = []
    for _ in range(200_000):
        value = [value]
    with pytest.raises(UnencodableValueError, match="nest"):
        CODEC.encode(value)
    while value:
        value = value.pop()


def test_key_that_takes_too_long_to_hash_is_refused_when_written():
    """The verifier runs on both sides, so that what is written can be read."""
    key: tuple[object, ...] = ()
    for _ in range(24):
        key = (key, key)
    plain = [key, "x" * 10_000]
    assert CODEC.decode(*CODEC.encode(plain))[1] == plain[1]
    with pytest.raises(UnencodableValueError, match="out of proportion"):
        CODEC.encode([{key: 1}, "x" * 10_000])


def test_short_plain_stream_is_never_refused_by_the_verifier():
    """Streams that the writer does not verify nest within bounds, keys included: two bytes for each tuple."""
    deepest = b"p\x80\x05})" + b"\x85\x94" * 4_990 + b"Ns."
    assert len(deepest) < 2 * MAX_HASH_DEPTH
    assert len(CODEC.decode(deepest, 0)) == 1


def test_error_in_the_users_getstate_is_the_cause():
    """An exception of the class's own is chained, not hidden."""

    class Failing:
        def __getstate__(self):
            raise ZeroDivisionError("state")

    with pytest.raises(UnencodableValueError, match="state") as caught:
        SafeCodec([Failing]).encode([Failing()])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_keyboard_interrupt_while_encoding_passes():
    """Only Exceptions are translated."""

    class Interrupting:
        def __getstate__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SafeCodec([Interrupting]).encode(Interrupting())


class _Foreign:
    def __reduce__(self):
        return eval, ("1",)


class _Named:
    def __reduce__(self):
        return "name"


class _OddState:
    def __getstate__(self):
        return 5


class _Setter:
    def __reduce__(self):
        return _Setter, (), {}, None, None, print


class _Items:
    def __reduce_ex__(self, protocol):
        import copyreg

        return copyreg.__newobj__, (_Items, 1)


@pytest.mark.parametrize(
    ("cls", "remedy"),
    [
        (_Foreign, "calls eval"),
        (_Named, "names a global"),
        (_OddState, "__setstate__"),
        (_Setter, "__setstate__"),
        (_Items, "does not take arguments"),
    ],
)
def test_class_that_could_not_be_put_together_again_is_refused(cls, remedy):
    """What the reader would not do for it is said at write time."""
    with pytest.raises(UnencodableValueError, match=remedy):
        SafeCodec([cls]).encode(cls())


def test_flag_with_unnamed_bits_is_refused():
    """The reader admits combinations of members only."""

    class Bits(enum.IntFlag):
        A = 1

    with pytest.raises(UnencodableValueError, match="no flag"):
        SafeCodec([Bits]).encode(Bits(5))


@dataclass
class Twin:
    value: int


def _twin() -> type:
    @dataclass
    class Twin:
        value: int

    Twin.__qualname__ = "Twin"
    return Twin


@pytest.mark.parametrize(
    ("classes", "remedy"),
    [
        ([1], "classes is expected"),
        (["shop.Money"], "classes is expected"),
        ([list[int]], "classes is expected"),
        ([dict], "without registration|builtins"),
        ([OrderedDict], "without registration"),
        ([Fraction], "without registration"),
        ([np.ndarray], "without registration"),
        ([type], "builtins"),
        ([enum.EnumMeta], "builtins|classes of classes"),
        ([Twin, _twin()], "two classes are called"),
    ],
)
def test_registration_of_what_is_no_class_of_the_users_is_refused(classes, remedy):
    """A ConfigError that names the option, the value and the remedy."""
    with pytest.raises(ConfigError, match=remedy) as caught:
        SafeCodec(classes)
    assert caught.value.option == "classes"
    assert caught.value.value is classes[-1]


@pytest.mark.parametrize("classes", [shop.Money, shop.Colour, "shop.Money", None, 5])
def test_registration_of_no_iterable_of_classes_is_refused(classes):
    """One class without the comma is the usual slip."""
    with pytest.raises(ConfigError, match="iterable of classes") as caught:
        SafeCodec(classes)
    assert caught.value.value is classes


def test_class_registered_twice_is_registered_once():
    """The same class in a list twice is no conflict."""
    codec = SafeCodec([Twin, Twin])
    assert codec.decode(*codec.encode(Twin(1))) == Twin(1)


def test_payload_given_to_plain_pickle_is_refused_by_our_function():
    """The one global exists, and does nothing but say so."""
    payload, _ = CODEC.encode([Fraction(1, 2)])
    with pytest.raises(DecodeError, match="plain pickle"):
        pickle.loads(payload[1:])
