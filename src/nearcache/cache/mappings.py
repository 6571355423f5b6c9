"""What caches and views are as mappings of what this process's L1 holds: by snapshots."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..changes import MISSING

K = TypeVar("K")
V = TypeVar("V")


class Enumerable(Generic[K, V]):
    """What caches and views have in common as mappings. Nothing here counts hits or calls the loader."""

    __slots__ = ()

    if TYPE_CHECKING:

        def l1_snapshot(self) -> list[tuple[K, V]]: ...
        def peek(self, key: K, default: Any = None) -> Any: ...
        def set_many(self, values: Mapping[K, V]) -> None: ...

    def items(self) -> ItemsView[K, V]:
        """The pairs in L1, who makes room next first (``lru``: the least recently used).

        All that takes one of its ``maxsize`` places, as ``len`` counts them: results of cached functions too, and on
        Redis the generation of each such function, under ``(name,)``.
        """
        return Items(cast("Mapping[K, V]", self))

    def values(self) -> ValuesView[V]:
        """The values in L1, in the order of :meth:`items`."""
        return Values(cast("Mapping[Any, V]", self))

    def update(self, other: Any = (), /, **more: V) -> None:
        """Store what a mapping, an iterable of pairs, or keywords hold, as ``dict.update`` takes them."""
        if values := merged(other, more):
            self.set_many(values)


class Items(ItemsView[K, V]):
    """Pairs of a snapshot: a view that went through ``cache[key]`` would count hits, and might load."""

    _mapping: Enumerable[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping.l1_snapshot())

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.peek(item[0], MISSING)
        return value is not MISSING and (value is item[1] or value == item[1])


class Values(ValuesView[V]):
    """Values of a snapshot, for the same reason."""

    _mapping: Enumerable[Any, V]

    def __iter__(self) -> Iterator[V]:
        return iter([value for _, value in self._mapping.l1_snapshot()])

    def __contains__(self, wanted: object) -> bool:
        return any(value is wanted or value == wanted for _, value in self._mapping.l1_snapshot())


def pairs_of(other: Any) -> Any:
    """What ``dict`` may be given, as something that it takes as pairs: never through the loader."""
    return other.l1_snapshot() if isinstance(other, Enumerable) else other


def merged(other: Any, more: dict[str, Any]) -> dict[Any, Any]:
    """Return what ``dict.update`` would store of these arguments."""
    return dict(pairs_of(other)) | more
