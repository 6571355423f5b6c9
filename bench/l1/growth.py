"""The longest single insertion while a cache grows from nothing: what a table that moves all at once costs.

Each insertion is timed on its own, with the collector off, in a fresh process: by the thread's processor time, since
on a shared machine the longest wall time of millions of insertions is that of being preempted, and by wall time too,
for the rest of the truth. Of several runs the one with the shortest maximum counts.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter_ns, thread_time_ns
from typing import Any

from . import loops
from .roster import Contestant
from .scene import make_keys

SHOWN = 5
#: What takes less wall time is not kept: there are millions of them.
NOTEWORTHY_NS = 20_000

#: Processor time and wall time of one insertion, in nanoseconds.
Insertion = tuple[int, int]


def longest_insertions(one: Contestant, size: int, kind: str) -> list[Insertion]:
    """Return the noteworthy insertions on the way to so many entries, the longest by processor time first."""
    keys = make_keys(kind, 0, size)
    with ExitStack() as stack:
        cache = one.make(size, stack)
        gc.collect()
        gc.freeze()
        gc.disable()
        long = _watch(_storing(one, cache), keys)
        gc.unfreeze()
    return sorted(long, reverse=True)


def calmest(runs: Sequence[list[Insertion]]) -> list[Insertion]:
    """Return the run whose longest insertion is shortest; one without any is the calmest."""
    return min(runs)


def _storing(one: Contestant, cache: Any) -> Any:
    """Return the function that stores, bound."""
    if one.write is loops.insert_ttl:
        return lambda key, value: cache.insert(key, value, loops.TTL_S)
    if one.write is None:
        return lambda key, value: cache(key)
    return cache.set if one.write is loops.set_ else cache.__setitem__


def _watch(store: Any, keys: list[Any]) -> list[Insertion]:
    value = object()
    long = []
    for key in keys:
        start = perf_counter_ns()
        processor = thread_time_ns()
        store(key, value)
        taken = thread_time_ns() - processor
        wall = perf_counter_ns() - start
        if wall > NOTEWORTHY_NS:
            long.append((taken, wall))
    return long
