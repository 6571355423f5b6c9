"""Bytes per entry of a full cache, keys and values not counted.

A fresh process makes the keys and one value, then fills caches with them; what its resident memory grew by is theirs.
Small caches are made several times over, since memory grows by pages.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from . import loops
from .roster import Contestant, lru_cache_of
from .scene import make_keys

#: So many entries in all, at least, are held when the memory is read.
ENOUGH = 400_000


def _resident_bytes(field: str) -> int:
    """Return a field of the kernel's own account; it is exact, where /proc/self/statm lags by some pages a thread."""
    _trim()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/smaps_rollup has no line {field}")


def _trim() -> None:
    """Give freed memory back, where the C library can."""
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def bytes_per_entry(one: Contestant, size: int, kind: str) -> float:
    """Return resident bytes per entry. Meant for a fresh process.

    Raises:
        OSError: The kernel keeps no such account (this is not Linux).
    """
    count = max(1, ENOUGH // size)
    keys = make_keys(kind, 0, size)
    values = [object()] * size
    if one.hit is loops.call:
        # Its values are what the function returns: here, one and the same for all keys.
        one = replace(one, make=partial(lru_cache_of, bool))
    with ExitStack() as stack:
        warm = one.make(size, stack)  # imports, and code that runs for the first time
        one.fill(warm, keys[:100], values[:100])
        gc.collect()
        before = _resident_bytes("Rss:")
        caches = [one.make(size, stack) for _ in range(count)]
        for cache in caches:
            one.fill(cache, keys, values)
        gc.collect()
        return (_resident_bytes("Rss:") - before) / (count * size)
