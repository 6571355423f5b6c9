"""Schema fingerprints of classes that other packages make, and a rolling deploy seen through every codec."""

from __future__ import annotations

import subprocess
import sys
import types
import typing
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from nearcache.codecs import SafeCodec
from nearcache.codecs.pickled import PickleCodec
from nearcache.codecs.schema import fingerprint, has_shape, type_fingerprint
from nearcache.codecs.typed import MsgspecCodec
from nearcache.errors import DecodeError

SHAPE = dict[str, Any]


def _dataclass(shape: SHAPE) -> type:
    return make_dataclass("Item", list(shape.items()), namespace={"__module__": "deployed"})


def _attrs(shape: SHAPE) -> type:
    return attrs.make_class("Item", {name: attrs.field(type=kind) for name, kind in shape.items()}, slots=True)


def _attrs_dict(shape: SHAPE) -> type:
    return attrs.make_class("Item", {name: attrs.field(type=kind) for name, kind in shape.items()}, slots=False)


def _pydantic(shape: SHAPE) -> type:
    return pydantic.create_model("Item", __module__="deployed", **{name: (kind, ...) for name, kind in shape.items()})


def _struct(shape: SHAPE) -> type:
    return msgspec.defstruct("Item", list(shape.items()), module="deployed")


def _named(shape: SHAPE) -> type:
    return typing.NamedTuple("Item", list(shape.items()))


MAKERS = [_dataclass, _attrs, _attrs_dict, _pydantic, _struct, _named]
CHANGES: list[SHAPE] = [
    {"a": int, "b": str, "c": int},
    {"a": int},
    {"a": int, "c": str},
    {"a": float, "b": str},
    {"b": str, "a": int},
]


@pytest.fixture
def deploy(monkeypatch):
    """Let a class be the one that its module has, as after a deploy."""
    module = types.ModuleType("deployed")
    monkeypatch.setitem(sys.modules, "deployed", module)

    def put(cls: type) -> type:
        cls.__module__ = "deployed"
        module.Item = cls  # type: ignore[attr-defined]  # made for this
        return cls

    return put


def instance(cls: type, shape: SHAPE) -> Any:
    return cls(**{name: kind(1) for name, kind in shape.items()})


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("changed", CHANGES)
def test_rolling_deploy_with_a_changed_class_reads_misses_both_ways(deploy, make, changed):
    """Old readers of new values, new readers of old ones, safe codec and pickle; a field, a type, an order."""
    shape: SHAPE = {"a": int, "b": str}
    old = deploy(make(shape))
    safe_old, pickle_old = SafeCodec([old]), PickleCodec()
    value = instance(old, shape)
    from_old = [codec.encode([value]) for codec in (safe_old, pickle_old)]
    for codec, payload in zip((safe_old, pickle_old), from_old, strict=True):
        assert codec.decode(*payload) == [value]
    new = deploy(make(changed))
    safe_new, pickle_new = SafeCodec([new]), PickleCodec()
    from_new = [codec.encode([instance(new, changed)]) for codec in (safe_new, pickle_new)]
    for codec, payload in zip((safe_new, pickle_new), from_old, strict=True):
        with pytest.raises(DecodeError, match="schema"):
            codec.decode(*payload)
    with pytest.raises(DecodeError, match="schema"):
        safe_old.decode(*from_new[0])
    deploy(old)
    with pytest.raises(DecodeError, match="schema"):
        PickleCodec().decode(*from_new[1])


@pytest.mark.parametrize("make", MAKERS)
def test_class_of_the_same_shape_has_the_same_fingerprint(deploy, make):
    """Another process that runs the same source reads what this one wrote."""
    shape: SHAPE = {"a": int, "b": list[str]}
    left, right = (deploy(make(shape)) for _ in range(2))
    assert left is not right
    assert fingerprint(left, "Item") == fingerprint(right, "Item")
    assert has_shape(left)


def test_pickled_class_that_is_gone_is_a_miss(deploy):
    """Or has become something else than a class."""
    shape: SHAPE = {"a": int}
    payload = PickleCodec().encode(instance(deploy(_dataclass(shape)), shape))
    module = sys.modules["deployed"]
    module.Item = 5
    with pytest.raises(DecodeError, match="no longer a class"):
        PickleCodec().decode(*payload)
    del module.Item
    with pytest.raises(DecodeError):
        PickleCodec().decode(*payload)


def test_pickled_enum_with_changed_members_is_a_miss(deploy):
    """Members and their values are its shape."""
    payload = PickleCodec().encode(deploy(Enum("Item", {"A": 1, "B": 2}, module="deployed")).A)
    deploy(Enum("Item", {"A": 2, "B": 1}, module="deployed"))
    with pytest.raises(DecodeError, match="schema"):
        PickleCodec().decode(*payload)


class Colour(Enum):
    RED = 1


class Inner(msgspec.Struct):
    colours: list[Colour]


@dataclass
class Middle:
    inner: dict[str, Inner] = field(default_factory=dict)


class Outer(msgspec.Struct):
    middle: Middle | None
    children: list[Outer]


def changed_inner(**kwargs: Any) -> Any:
    inner = msgspec.defstruct("Inner", [("colours", list[Colour])], module=__name__, **kwargs)
    middle = make_dataclass("Middle", [("inner", dict[str, inner])], namespace={"__module__": __name__})
    return msgspec.defstruct("Outer", [("middle", middle | None), ("children", list[int])], module=__name__)


def test_type_fingerprint_counts_every_class_that_a_type_refers_to():
    """However deep, through containers, unions and itself."""
    plain = type_fingerprint(changed_inner())
    assert plain == type_fingerprint(changed_inner())
    for change in ({"tag": True}, {"array_like": True}, {"rename": "upper"}, {"tag_field": "kind"}):
        assert type_fingerprint(changed_inner(**change)) != plain
    assert type_fingerprint(list[Outer]) != type_fingerprint(Outer)
    assert type_fingerprint(Outer) == type_fingerprint(Outer)


def test_msgspec_value_of_a_changed_struct_is_a_miss():
    """Even where msgspec could fill in a default."""
    old = msgspec.defstruct("Item", [("a", int)], module="deployed")
    new = msgspec.defstruct("Item", [("a", int), ("b", int, 0)], module="deployed")
    payload = MsgspecCodec(list[old]).encode([old(1)])
    assert msgspec.msgpack.decode(payload[0], type=list[new]) == [new(1, 0)]
    with pytest.raises(DecodeError, match="schema"):
        MsgspecCodec(list[new]).decode(*payload)


def test_typed_dict_counts_with_its_keys_and_what_is_required():
    """It is a plain dict in the payload, and a type all the same."""

    def made(total: bool, **keys: Any) -> Any:
        return typing.TypedDict("Row", keys, total=total)  # type: ignore[operator]  # the functional form

    shapes = [made(True, a=int), made(False, a=int), made(True, a=str), made(True, a=int, b=int)]
    assert len({type_fingerprint(shape) for shape in shapes}) == 4
    assert type_fingerprint(made(True, a=int)) == type_fingerprint(shapes[0])


def test_pydantic_model_keeps_what_was_set_through_the_safe_codec(deploy):
    """State of its own kind goes through its own __setstate__."""
    model: Any = deploy(pydantic.create_model("Item", __module__="deployed", a=(int, 1), b=(str, "x")))
    back = SafeCodec([model]).decode(*SafeCodec([model]).encode(model(b="y")))
    assert back == model(b="y")
    assert back.model_fields_set == {"b"}


def test_schema_does_not_import_what_the_user_has_not():
    """The packages are known by what they leave in a class."""
    code = (
        "import sys\nfrom nearcache.codecs import SafeCodec\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\n"
        "SafeCodec([A]).encode(A(1))\n"
        "print([name for name in ('attr', 'attrs', 'pydantic', 'msgspec', 'lz4', 'zstandard', 'cryptography', 'numpy')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
