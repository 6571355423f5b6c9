"""What a copy of a cache begins with."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..._store import Op, Store
from ...clocks import NEVER_NS, TICK_NS, monotonic_ns
from ...options import Settings, memory_options, parse
from ..base import K, V
from .base import LocalCache, Under
from .exchanging import IDENTITY, LOADED

if TYPE_CHECKING:
    from typing_extensions import Self

#: Attributes of one object that are made when they are first needed.
_MADE_LATER = frozenset({"_hub", "_answers", "aio"})

#: A key as it is held, its value, and the nanoseconds that it has left (``None``: no end).
Remaining: TypeAlias = tuple[K, V, int | None]


class CopyingCache(LocalCache[K, V]):
    """What :class:`MemoryCache` is made from: copying and pickling."""

    def copy(self) -> Self:
        """Return a cache of its own with the same class, settings and attributes, and the same entries for the rest of
        their time. What the entries are is shared, as by ``dict.copy``.

        Raises:
            ClosedError: This one is closed.
        """
        return copy.copy(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # What object.__reduce_ex__ gives for a class of Python's own; so __getstate__ and __setstate__ may be extended.
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]  # not in the stub

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``copy`` and ``pickle`` take along. Subclasses may add to it.

        Raises:
            ClosedError: There is nothing to copy.
        """
        self._use()
        entries = remaining(self)
        ours = self._attributes_begun() | _MADE_LATER
        return {
            "options": memory_options(self.settings),
            "entries": entries,
            "tags": self._tags_of(key for key, _, _ in entries),
            "attributes": {name: value for name, value in _attributes(self) if name not in ours},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the cache that ``__getstate__`` has described: the other half, for a new object only."""
        self._begin(parse("memory://", **state["options"]))
        for name, value in state["attributes"].items():
            object.__setattr__(self, name, value)
        self._restore(state["entries"], state["tags"])

    def _restore(self, entries: Iterable[Remaining[K, V]], tags: Mapping[K, Sequence[str]] | None = None) -> None:
        """Store pairs under the keys held (after ``key=``), each for some nanoseconds; ``None``: without an end."""
        for held, value, left_ns in entries:
            restore(self, held, value, left_ns, self.l1_measure(value), self._depend((tags or {}).get(held, ())))

    def _tags_of(self, keys: Iterable[K]) -> dict[K, list[str]]:
        """Return the tags of those keys whose entries have any; more than those, where too many are in use to tell."""
        known = self._derived.tags()
        found = {}
        for key in keys:
            terms = self.l1_terms(key)
            if terms is not None and (tags := known.get(terms[1][0])):
                found[key] = [tag.decode("utf-8", "surrogatepass") for tag in tags]
        return found

    def _attributes_begun(self) -> frozenset[str]:
        """Name the attributes that a cache is begun with, which belong to one object: all others are a subclass's.

        They are those of another object, of our class. Up to Python 3.12 an object's methods are slow to look up once
        something has asked for its dictionary, and with one that was asked for too early, ever after.
        """
        ours: Any = next(cls for cls in type(self).__mro__ if "_begin" in vars(cls))
        other = ours.__new__(ours)
        other._begin(self.settings)
        return frozenset(vars(other))

    # -- for the subclasses

    def _begin(self, settings: Settings) -> None:
        raise NotImplementedError


def remaining(cache: Store[K, V]) -> list[Remaining[K, V]]:
    """Return the valid pairs of L1, in its order, under the keys held, with nanoseconds left (``None``: no end)."""
    found: list[Remaining[K, V]] = []
    for key, value in cache.l1_snapshot():
        try:
            found.append((key, value, Store.remaining_ns(cache, key)))  # until it is old, where that is another end
        except KeyError:  # it has gone meanwhile
            continue
    return found


def restore(
    cache: Store[Any, Any], held: Any, value: Any, left_ns: int | None, size: int, under: Under | None = None
) -> None:
    """Store what :func:`remaining` gave."""
    op = Op(held, 0, wid=LOADED, write=True)
    cache.l1_open(op)
    until_ns = NEVER_NS if left_ns is None else monotonic_ns() + left_ns - TICK_NS
    cache.l1_finish(op, value, LOADED, until_ns, size, IDENTITY, under)


def _attributes(cache: CopyingCache[Any, Any]) -> Iterator[tuple[str, Any]]:
    """What an instance holds in its dictionary and in slots of subclasses, as pickling a plain object takes it."""
    yield from vars(cache).items()
    for cls in type(cache).__mro__:
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{cls.__name__.lstrip('_')}{slot}" if private else slot
            if slot not in ("__dict__", "__weakref__") and hasattr(cache, name):
                yield name, getattr(cache, name)
