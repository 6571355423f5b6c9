"""The longest single insertion while a cache grows from nothing: what a table that moves all at once costs.

Each insertion is timed on its own, with the collector off, in a fresh process. A machine that lets somebody else run
meanwhile makes an insertion look long, never short: of several runs the one with the shortest maximum counts.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack
from time import perf_counter_ns
from typing import Any

from . import loops
from .roster import Contestant
from .scene import make_keys

SHOWN = 5
#: What takes less is not kept: there are millions of them.
NOTEWORTHY_NS = 20_000


def longest_insertions(one: Contestant, size: int, kind: str) -> list[int]:
    """Return the longest insertions on the way to so many entries, in nanoseconds, longest first."""
    keys = make_keys(kind, 0, size)
    with ExitStack() as stack:
        cache = one.make(size, stack)
        gc.collect()
        gc.freeze()
        gc.disable()
        long = _watch(_storing(one, cache), keys)
        gc.unfreeze()
    return sorted(long, reverse=True)[:SHOWN]


def _storing(one: Contestant, cache: Any) -> Any:
    """Return the function that stores, bound."""
    if one.write is loops.insert_ttl:
        return lambda key, value: cache.insert(key, value, loops.TTL_S)
    if one.write is None:
        return lambda key, value: cache(key)
    return cache.set if one.write is loops.set_ else cache.__setitem__


def _watch(store: Any, keys: list[Any]) -> list[int]:
    value = object()
    long = []
    for key in keys:
        start = perf_counter_ns()
        store(key, value)
        taken = perf_counter_ns() - start
        if taken > NOTEWORTHY_NS:
            long.append(taken)
    return long
