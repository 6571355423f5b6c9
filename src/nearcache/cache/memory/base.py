"""What the parts of a cache of one process have in common."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...coherence.derived import Derived
from ...errors import ValueTooLargeError, with_key
from ...forks import notice
from ...freshness import Freshness
from ..base import Cache, K, V, closed


class Under(NamedTuple):
    """What an entry with tags is entered under: a lane, its stamp as of then, and the tags that it stands for."""

    lane: int
    stamp: int
    tags: tuple[str, ...]


class LocalCache(Cache[K, V]):
    """What :class:`MemoryCache` is made from. Its attributes are set there."""

    _closed: bool
    _derived: Derived
    _freshness: Freshness
    _counting: threading.RLock
    _counted: Counter[str]

    def _use(self) -> None:
        notice()
        if self._closed:
            raise closed(repr(self))

    def _count(self, **amounts: int) -> None:
        with self._counting:
            for name, amount in amounts.items():
                self._counted[name] += amount

    def _depend(self, tags: Sequence[str]) -> Under | None:
        """Return what an entry with these tags is to be entered under."""
        if not tags:
            return None
        each = tuple(sorted(set(tags)))
        return Under(*self._derived.assign(self, 0, [(tag.encode("utf-8", "surrogatepass"), 0) for tag in each]), each)

    def _fitting_size_of(self, key: Any, value: V) -> int:
        """Return the size of a value that is to be stored. Raises ValueTooLargeError if there can be no room for it."""
        size, most = self.l1_measure(value), self.settings.maxbytes
        if most is not None and size > most:
            raise with_key(ValueTooLargeError(size, most, "maxbytes"), key)
        return size
