"""MIN: the hits of a cache that knows the future (L. A. Belady, 1966).

What is asked for is always stored, as it is in the caches compared with it, and the entry whose next use lies farthest
ahead makes room for it.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np


def next_uses(keys: Sequence[int]) -> list[int]:
    """Return for each request when the same key is asked for next; ``len + position`` if it never is.

    Numbers instead of one infinity, so that each names its request.
    """
    numbers = np.asarray(keys, dtype=np.int64)
    count = len(numbers)
    order = np.argsort(numbers, kind="stable")
    following = np.arange(count, 2 * count, dtype=np.int64)
    same = numbers[order[:-1]] == numbers[order[1:]]
    following[order[:-1][same]] = order[1:][same]
    return following.tolist()  # type: ignore[no-any-return]  # numpy's stub says Any


def belady_hits(keys: Sequence[int], following: Sequence[int], size: int) -> int:
    """Return the number of hits of MIN.

    Args:
        keys: What is asked for, as small numbers.
        following: ``next_uses(keys)``.
        size: Entries.
    Cost: O(log size) per request.
    """
    count = len(keys)
    resident: set[int] = set()
    # The farthest next use first. An entry that has been used since is named by a time that has passed, and so lies
    # behind all others: it never comes up while there is any of the others.
    farthest: list[int] = []
    hits = 0
    for key, then in zip(keys, following, strict=True):
        if key in resident:
            hits += 1
        else:
            if len(resident) == size:
                victim = -heapq.heappop(farthest)
                resident.remove(keys[victim - count if victim >= count else victim])
            resident.add(key)
        heapq.heappush(farthest, -then)
    return hits


def lru_hits(keys: Iterable[int], size: int) -> int:
    """Return the number of hits of LRU, by a program that has nothing in common with the store."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            if len(held) == size:
                held.popitem(last=False)
            held[key] = None
    return hits
