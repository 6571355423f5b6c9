"""Caches that are closed when a test has ended, however many it opens; and what all kinds of them refuse alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from support.redis import RedisServer

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


def refuse_loaders_that_cannot_be_called(cache: Any) -> None:
    """Require of a cache, or a view, that it says what cannot be called, to threads and to tasks."""
    for call in ("get_or_load", "refresh"):
        for options in ({}, {"max_age": 5.0}) if call == "get_or_load" else ({},):
            with pytest.raises(TypeError, match=r"loader=5 cannot be called: give a function that takes the key"):
                getattr(cache, call)("x", 5, **options)
            with pytest.raises(TypeError, match=r"loader=5 cannot be called: give a function that takes the key"):
                asyncio.run(getattr(cache.aio, call)("x", 5, **options))
    with pytest.raises(TypeError, match=r"load_many=5 cannot be called: give a function that takes a list"):
        cache.get_or_load_many(["x"], 5)
    with pytest.raises(TypeError, match=r"load_many=5 cannot be called: give a function that takes a list"):
        asyncio.run(cache.aio.get_or_load_many(["x"], 5))


def grow_old(server: RedisServer, *caches: Cache[Any, Any]) -> None:
    """Let all the time pass that remains until the soft end: in L2 by its clock, in L1 by the copies' going."""
    with server.client() as client:
        for name in client.keys("*:v:*") or client.keys("*"):
            if client.type(name) == b"string":
                client.pexpire(name, 50_000)
    for cache in caches:
        cache.drop_all()
