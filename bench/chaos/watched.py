"""The cache under test, opened through the public interface, with a way to tell whether L1 answered.

A hit runs no Python code; whatever L1 does not hold goes through one of three hooks. A subclass notes in which thread
a hook ran: a call during which none did was answered by L1, and nothing else is called a hit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import nearcache

from .job import NAMESPACE

_TRIES = 50


class _Below(threading.local):
    """Whether this thread's call has gone below L1."""

    reached = True


def opened(
    urls: Sequence[str],
    *,
    bound_s: float,
    timeout_s: float,
    loader: Callable[[Any], Any] | None,
    maxsize: int,
    **options: Any,
) -> Any:
    """Return a cache on the list of shards that is in use, and the note of its hooks.

    Raises:
        RuntimeError: A cold read did not go through a hook, so that hits could not be told.
    """
    cache: Any = open_any(
        urls, namespace=NAMESPACE, max_staleness=bound_s, timeout=timeout_s, connect_timeout=timeout_s, loader=loader,
        maxsize=maxsize, **options,
    )  # fmt: skip
    below = _Below()
    cache.__class__ = watched(type(cache), below)
    below.reached = False
    cache.get("never written")
    if not below.reached:
        raise RuntimeError("nearcache no longer calls _missing_get on a miss: hits cannot be told")
    return cache, below


def open_any(urls: Sequence[str], **options: Any) -> Any:
    """Return a cache on whichever list of shards is in use."""
    for _ in range(_TRIES):
        for url in urls:
            try:
                return nearcache.open(url, **options)
            except nearcache.ShardListError:  # it may have changed between the two
                continue
    raise RuntimeError("none of the lists of shards is in use")


def is_refused(cache: Any) -> bool:
    """Whether a cache was opened, while no shard answered, on a list that had been left when the first one did.

    It was told nothing at its start, and nothing but another start helps it: docs/operations.md.
    """
    return any(not shard.vouched and "NCTOPO" in shard.last_error for shard in cache.health().shards)


def watched(kind: type, below: _Below) -> type:
    """Return a subclass that notes when a call goes below L1."""

    class Watched(kind):  # type: ignore[misc]  # known at run time only
        __slots__ = ()

        def _missing(self, key: Any) -> Any:
            below.reached = True
            return super()._missing(key)

        def _missing_get(self, key: Any, default: Any) -> Any:
            below.reached = True
            return super()._missing_get(key, default)

    return Watched
