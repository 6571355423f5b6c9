"""Caches that are closed when a test has ended, however many it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nearcache
from nearcache import Cache

#: Opens one more cache; its keywords come before the usual options.
Opener = Callable[..., Cache[Any, Any]]


@contextmanager
def opening(url: str, **usual: Any) -> Iterator[Opener]:
    """Give a function that opens caches at this URL; at the end all of them are closed.

    Args:
        usual: Options of each cache, unless it is opened with others.
    """
    opened: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> Cache[Any, Any]:
        opened.append(nearcache.open(url, **usual | options))
        return opened[-1]

    try:
        yield opener
    finally:
        for cache in opened:
            cache.close()
