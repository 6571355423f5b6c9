"""What ``items`` and ``values`` of a cache return."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, ValuesView
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from .base import Cache

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Final[Any] = object()


class Items(ItemsView[K, V]):
    """Pairs of a snapshot: a view that went through ``cache[key]`` would count hits, and might load."""

    _mapping: Cache[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.snapshot())

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.peek(item[0], _NOTHING)
        return value is not _NOTHING and (value is item[1] or value == item[1])


class Values(ValuesView[V]):
    """Values of a snapshot, for the same reason."""

    _mapping: Cache[Any, V]

    def __iter__(self) -> Iterator[V]:
        return iter([value for _, value in self._mapping.snapshot()])

    def __contains__(self, wanted: object) -> bool:
        return any(value is wanted or value == wanted for _, value in self._mapping.snapshot())
