"""Schema fingerprints: a changed class reads the values of its predecessor as misses."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import typing
from collections import namedtuple
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from pathlib import Path

import pytest

import nearcache.codecs
from nearcache.codecs import SafeCodec
from nearcache.codecs.schema import annotation_text, combine, fingerprint
from nearcache.errors import DecodeError
from support import shop


def versions(name, *shapes):
    """Return dataclasses of one name and of different shapes."""
    return [make_dataclass(name, shape, namespace={"__module__": "app"}) for shape in shapes]


def enums(*members):
    return [enum.Enum("State", pairs, module="app", qualname="State") for pairs in members]


def named(*shapes):
    tuples = [typing.NamedTuple("Place", shape) for shape in shapes]
    for cls in tuples:
        cls.__module__ = "app"
    return tuples


def first(cls):
    return next(iter(cls)) if issubclass(cls, enum.Enum) else cls(*([1] * len(cls.__annotations__)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        versions("Item", [("a", int)], [("a", int), ("b", int)]),
        versions("Item", [("a", int)], [("b", int)]),
        versions("Item", [("a", int)], [("a", float)]),
        versions("Item", [("a", int), ("b", int)], [("b", int), ("a", int)]),
        named([("x", int)], [("x", int), ("y", int)]),
        named([("x", int)], [("x", str)]),
        enums([("A", 1)], [("A", 1), ("B", 2)]),
        enums([("A", 1)], [("A", 2)]),
    ],
)
def test_value_of_a_changed_class_is_a_miss(old, new):
    """Fields, their order and types, members and their values all count; in both directions."""
    before, after = SafeCodec([old]), SafeCodec([new])
    for writer, reader, value in ((before, after, first(old)), (after, before, first(new))):
        with pytest.raises(DecodeError, match="schema"):
            reader.decode(*writer.encode([value]))
        assert writer.decode(*writer.encode([value])) == [value]


def test_value_of_an_unregistered_class_is_a_miss_that_names_it():
    """The reader says which class it lacks."""
    with pytest.raises(DecodeError, match=r"shop\.Money"):
        SafeCodec().decode(*SafeCodec([shop.Money]).encode(shop.Money(Decimal(1))))


def test_schema_is_zero_without_registered_classes():
    """Plain values do not depend on what is registered."""
    codec = SafeCodec(shop.CLASSES)
    for value in (1, "a", [1], Decimal(1), {"a": (1,)}):
        assert codec.encode(value)[1] == 0


def test_schema_depends_only_on_the_classes_that_occur():
    """A new class in the registry leaves the values of others readable."""
    few, many = SafeCodec([shop.Money]), SafeCodec(shop.CLASSES)
    payload = few.encode(shop.Money(Decimal(1)))
    assert many.decode(*payload) == shop.Money(Decimal(1))
    assert many.encode(shop.Money(Decimal(1))) == payload


def test_schema_does_not_depend_on_the_order_of_the_classes():
    """Neither of appearance nor of registration."""
    codec, other = SafeCodec(shop.CLASSES), SafeCodec(reversed(shop.CLASSES))
    left, right = shop.Money(Decimal(1)), shop.Size(1)
    assert codec.encode([left, right])[1] == codec.encode([right, left])[1] == other.encode([left, right])[1]


def test_combined_fingerprint_of_something_is_never_zero():
    """0 means that no class is involved."""
    assert combine([]) == 0
    assert all(combine([number]) for number in range(2000))


def test_wrong_schema_number_is_refused():
    """A number that does not belong to the payload is damage, for every kind of payload."""
    codec = SafeCodec([shop.Money])
    for value in (1, "a", [1], [Decimal(1)], shop.Money(1)):
        payload, schema = codec.encode(value)
        with pytest.raises(DecodeError):
            codec.decode(payload, schema ^ 1)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("int | None", "int | None"),
        (int, "int"),
        (None, "None"),
        (Decimal, "decimal.Decimal"),
        (typing.Any, "typing.Any"),
        (int | None, "int | None"),
        (typing.Optional[int], "int | None"),  # noqa: UP045
        (typing.Union[int, str], "int | str"),  # noqa: UP007
        (list[int], "list[int]"),
        (typing.List[int], "list[int]"),  # noqa: UP006
        (dict[str, list[Decimal]], "dict[str, list[decimal.Decimal]]"),
        (typing.Literal["a", 1], "Literal['a', 1]"),
        (typing.Annotated[int, object()], "int"),
        (typing.ForwardRef("Later"), "Later"),
    ],
)
def test_annotation_text_does_not_depend_on_spelling_or_process(annotation, text):
    """Addresses do not enter, and Optional[int] is int | None."""
    assert annotation_text(annotation) == text


def test_fingerprint_of_an_enum_with_objects_as_values_is_stable():
    """Neither addresses nor the order of sets enter."""
    code = (
        "import enum\n"
        "class V: pass\n"
        "class Broken:\n"
        "    def __repr__(self): raise ValueError\n"
        "class State(enum.Enum):\n"
        "    A = V()\n"
        "    B = frozenset({'x', 'y', 'z'})\n"
        "    C = (1, {'k', 'l'})\n"
        "    D = Broken()\n"
        "from nearcache.codecs.schema import fingerprint\n"
        "print(fingerprint(State, 'State'))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(nearcache.codecs.__file__).parents[2])}
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


def test_fingerprint_of_an_untyped_namedtuple_counts_its_fields():
    """collections.namedtuple has no annotations."""
    left, right = (namedtuple("Pair", fields) for fields in ("a b", "a c"))
    assert fingerprint(left, "Pair") != fingerprint(right, "Pair")


def test_fingerprint_of_an_ordinary_class_is_its_name():
    """What state it will have is not known beforehand."""

    @dataclass
    class Shaped:
        a: int

    class Plain:
        pass

    assert fingerprint(Plain, "x") != fingerprint(Plain, "y")
    assert fingerprint(Plain, "x") != fingerprint(Shaped, "x")
