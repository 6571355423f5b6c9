"""Classes of an imaginary application, of every kind that the ``safe`` codec takes when they are registered.

They say that they live in a module ``shop``, so that stored test vectors do not depend on where this file
lies.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple


@dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass(frozen=True)
class Article:
    sku: str
    related: Any = None
    tags: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int = 0


class Position(NamedTuple):
    article: Any
    count: int


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  (an alias)
    BLUE = "blue"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    GRANT = 8


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


class Basket(dict):
    pass


class Row(list):
    pass


class Marks(set):
    pass


class Count(int):
    pass


class Node:
    """An ordinary class with a ``__dict__``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.links: list[Any] = []


class Slotted:
    """A class with slots, one of them unset, and a base with a slot of its own."""

    __slots__ = ("__hidden", "left", "right")

    def __init__(self, left: Any) -> None:
        self.left = left
        self.__hidden = left

    def state(self) -> tuple[Any, Any]:
        return self.left, self.__hidden


class Sealed:
    """A class that writes and restores its own state."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getstate__(self) -> tuple[Any, ...]:
        return ("v1", self.value)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, self.value = state
        if version != "v1":
            raise ValueError(version)


class Called:
    """A class that is called to be made again."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Called, (self.value,)


class KeywordMade:
    """A class whose ``__new__`` takes keyword arguments."""

    def __new__(cls, *, value: Any) -> KeywordMade:
        self = super().__new__(cls)
        self.value = value
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {"value": self.value}


class OutOfStockError(Exception):
    pass


CLASSES: tuple[type, ...] = (
    Money,
    Article,
    Size,
    Position,
    Colour,
    Access,
    Level,
    Basket,
    Row,
    Marks,
    Count,
    Node,
    Slotted,
    Sealed,
    Called,
    KeywordMade,
    OutOfStockError,
    KeyError,
)

for _cls in CLASSES:
    if _cls.__module__ == __name__:
        _cls.__module__ = "shop"
