"""What a copy of a cache begins with."""

from __future__ import annotations

from typing import TypeVar

from .._store import Store

K = TypeVar("K")
V = TypeVar("V")


def remaining(cache: Store[K, V]) -> list[tuple[K, V, int | None]]:
    """Return the valid pairs of L1, in its order, under the keys held, with nanoseconds left (``None``: no end)."""
    found: list[tuple[K, V, int | None]] = []
    for key, value in cache.snapshot():
        try:
            found.append((key, value, cache.remaining_ns(key)))
        except KeyError:  # it has gone meanwhile
            continue
    return found
