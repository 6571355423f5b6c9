"""Classes whose hashes or comparisons look at what they hold, and count how often they are asked; payloads that make
much of that.

A payload is written here as its author would: instruction by instruction, with objects that get their state when others
hold them already.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nearcache.codecs import SafeCodec
from nearcache.codecs.envelope import varint
from nearcache.codecs.schema import combine

#: Whether what is shared by way of tuples is hashed once, as from Python 3.14 on, and is no bomb.
TUPLES_KEEP_HASHES = sys.version_info >= (3, 14)
#: How often the classes here have been hashed or compared.
ASKED = [0]


@dataclass(frozen=True)
class Link:
    """The usual frozen dataclass, hashed by all that it holds."""

    name: Any
    related: Any = None

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash((self.name, self.related))


@dataclass(frozen=True, slots=True)
class Slim(Link):
    """One with slots, whose state goes through a ``__setstate__``."""

    more: Any = None

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash((self.name, self.related))


@dataclass(frozen=True)
class Alike:
    """Its hash is shallow, its comparison is not."""

    name: Any
    related: Any = field(default=None, hash=False)

    def __eq__(self, other: object) -> bool:
        ASKED[0] += 1
        return type(other) is Alike and (self.name, self.related) == (other.name, other.related)

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash(self.name)


class Row:
    """One that hashes the items of a list."""

    def __init__(self, *related: Any) -> None:
        self.related = list(related)

    def __eq__(self, other: object) -> bool:
        ASKED[0] += 1
        return type(other) is Row and self.related == other.related

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash(tuple(self.related))


class Peer:
    """One with a name, and peers that neither its hash nor its comparison looks at."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.peers: Any = []

    def __eq__(self, other: object) -> bool:
        ASKED[0] += 1
        return isinstance(other, Peer) and self.name == other.name

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash(self.name)


@dataclass(frozen=True)
class Vertex:
    """A frozen dataclass that leaves its edges out of the hash."""

    name: str
    edges: list[Vertex] = field(default_factory=list, hash=False, compare=False, repr=False)


@dataclass(frozen=True)
class Child:
    """A tree whose nodes know their parents, and are hashed with them."""

    name: str
    parent: Child | None = None
    children: list[Child] = field(default_factory=list, hash=False, compare=False, repr=False)


class Called:
    """One that is called to be made again, and hashes what it was given."""

    def __init__(self, related: Any) -> None:
        self.related = related

    def __reduce__(self) -> tuple[Any, ...]:
        return Called, (self.related,)

    def __eq__(self, other: object) -> bool:
        ASKED[0] += 1
        return type(other) is Called and self.related == other.related

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash(tuple(self.related))


class Kept:
    """One whose ``__new__`` keeps what it makes."""

    made: list[Kept] = []  # noqa: RUF012

    def __new__(cls) -> Kept:
        self = super().__new__(cls)
        cls.made.append(self)
        return self

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        ASKED[0] += 1
        return hash(vars(self)["related"])


class Plain:
    """One that is hashed by its identity."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: Any = []


class Final(Peer):
    """One that wants no subclasses."""

    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("Final is final")


class Pair(NamedTuple):
    left: Any
    right: Any


class Table(dict[Any, Any]):
    pass


class Marks(set[Any]):
    pass


CLASSES = (Link, Slim, Alike, Row, Peer, Final, Vertex, Child, Called, Kept, Plain, Pair, Table, Marks)
CODEC = SafeCodec(CLASSES)
NUMBERS = {cls: number for number, cls in enumerate(CLASSES)}


class Program:
    """A pickle in the making. What is named stays in the memo and can be put anywhere with :meth:`get`."""

    def __init__(self) -> None:
        self.code = bytearray(b"\x80\x05")
        self.names: dict[object, int] = {}
        self.named = 0

    def name(self, name: object) -> Program:
        """Remember what lies on top of the stack."""
        self.names[name] = self.named
        self.named += 1
        self.code += b"\x94"
        return self

    def get(self, name: object) -> bytes:
        return b"j" + self.names[name].to_bytes(4, "little")

    def add(self, code: bytes) -> Program:
        self.code += code
        return self

    def make(self, name: object, cls: type, *, keep: bool = False) -> Program:
        """Make an empty object, and leave it on the stack or not."""
        return self.add(call(32, b"K" + bytes([NUMBERS[cls]]) + b")N\x87")).name(name).add(b"" if keep else b"0")

    def fill(self, name: object, state: bytes) -> Program:
        """Give an object its state."""
        return self.add(REBUILD + self.get(name) + state + b"NN\x87\x86R0")

    def payload(self) -> tuple[bytes, int]:
        """Return payload and schema, with what is on the stack as the value."""
        names = [f"{cls.__module__}.{cls.__qualname__}".encode() for cls in CLASSES]
        table = varint(len(names)) + b"".join(varint(len(name)) + name for name in names)
        code = bytes(self.code) + b"."
        schema = combine(CODEC._by_name[name.decode()].fingerprint for name in names)
        return b"q" + table + b"\0" + varint(len(code)) + b"\0" + code, schema


def text(value: str) -> bytes:
    """Return the instruction that makes a short text."""
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


REBUILD = text("nearcache.codecs.safe") + text("rebuild") + b"\x93"


def call(tag: int, data: bytes) -> bytes:
    """Return the call that makes an object."""
    return REBUILD + b"K" + bytes([tag]) + data + b"\x86R"


def attributes(**values: bytes) -> bytes:
    """Return the instructions that make the state of an object with a ``__dict__``."""
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"
