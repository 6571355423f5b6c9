"""The real store, asked for one key after the other: get, then put on a miss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nearcache._store import Store

LRU = "lru"
ADAPTIVE = "adaptive"
_NEVER_NS = 2**63 - 1


def _store(maxsize: int | None, policy: str, **options: Any) -> Store[Any, bool]:
    # A store that knows one policy only has no such option.
    chosen: dict[str, Any] = {} if policy == LRU and policies() == (LRU,) else {"policy": policy}
    store: Store[Any, bool] = Store(maxsize, **options, **chosen)
    store.lane_vouch(0, _NEVER_NS)
    return store


def _accepted(policy: str) -> bool:
    options: dict[str, Any] = {"policy": policy}
    try:
        Store(1, **options)
    except (TypeError, ValueError):
        return False
    return True


_known: tuple[str, ...] = ()


def policies() -> tuple[str, ...]:
    """Return the policies of the installed store, LRU first."""
    global _known
    if not _known:
        _known = (LRU, *(policy for policy in (ADAPTIVE,) if _accepted(policy)))
    return _known


def hits(keys: Sequence[Any], size: int, policy: str) -> int:
    """Return how many requests a store of so many entries answers."""
    store = _store(size, policy)
    get = store.get
    misses = 0
    for key in keys:
        if get(key) is None:
            store[key] = True
            misses += 1
    return len(keys) - misses


def misses_by_bytes(keys: Iterable[Any], sizes: Iterable[int], maxbytes: int, policy: str) -> int:
    """Return how many requests a store of so many bytes does not answer; an entry keeps the size it came with."""
    store = _store(None, policy, maxbytes=maxbytes)
    misses = 0
    for key, size in zip(keys, sizes, strict=True):
        if store.get(key) is None:
            store.l1_put(key, True, size=size)
            misses += 1
    return misses
