"""Two ways to serve pages without nearcache: none at all, and Redis as it is used by hand.

A service belongs to one process and one thread. ``read`` is what is timed; ``tier`` tells afterwards what answered it,
and need not be asked for reads faster than ``quick_ns``, which only L1 can have answered.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import board
from .workload import Key, Loader


class UnavailableError(Exception):
    """The page could not be invalidated now; try again."""


class Service(Protocol):
    """One way to serve pages.

    Attributes:
        quick_ns: Reads faster than this came from L1.
    """

    quick_ns: int

    def read(self, key: Key) -> bytes:
        """Return a page."""

    def tier(self) -> int:
        """Return what answered the last read."""

    def peek(self, key: Key) -> bytes | None:
        """Return what L1 would serve now; None where there is no such L1 or page."""

    def invalidate(self, key: Key) -> None:
        """Make the change of a page known. Raises UnavailableError."""

    def own_counters(self) -> dict[str, int]:
        """Return what the cache itself has counted, if it counts."""

    def close(self) -> None:
        """Let go of every connection."""


class NoCache:
    """Every request renders its page."""

    quick_ns = 0

    def __init__(self, loader: Loader) -> None:
        self.read = loader

    def tier(self) -> int:
        """Return the loader: nothing else answers."""
        return board.LOADER

    def peek(self, key: Key) -> None:
        """Return None: there is no L1."""
        return

    def invalidate(self, key: Key) -> None:
        """Do nothing: there is nothing to invalidate."""

    def own_counters(self) -> dict[str, int]:
        """Return nothing: there is no cache."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class RedisAlone:
    """GET, and on a miss the loader and SET with a lifetime; DEL when a page changes. The way it is written by hand.

    Connection errors mean that the page is rendered. Retries are off, in favour of Redis: redis-py's own would sleep
    between them while a shard is dead.
    """

    quick_ns = 0

    def __init__(self, sockets: list[str], loader: Loader, ttl_seconds: int) -> None:
        self._shards = [
            redis.Redis(unix_socket_path=path, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) for path in sockets
        ]
        self._loader = loader
        self._ttl_seconds = ttl_seconds
        self._tier = board.L2

    def _place(self, key: Key) -> tuple[redis.Redis, str]:
        name = f"page:{key}"
        return self._shards[zlib.crc32(name.encode()) % len(self._shards)], name

    def read(self, key: Key) -> bytes:
        """Return a page from Redis, or else render it and put it there."""
        shard, name = self._place(key)
        try:
            page = shard.get(name)
        except redis.RedisError:
            page = None
        if isinstance(page, bytes):
            self._tier = board.L2
            return page
        self._tier = board.LOADER
        page = self._loader(key)
        try:
            shard.set(name, page, ex=self._ttl_seconds)
        except redis.RedisError:
            return page
        return page

    def tier(self) -> int:
        """Return what answered the last read."""
        return self._tier

    def peek(self, key: Key) -> None:
        """Return None: there is no L1."""
        return

    def invalidate(self, key: Key) -> None:
        """Delete a page from its shard."""
        shard, name = self._place(key)
        try:
            shard.delete(name)
        except redis.RedisError as error:
            raise UnavailableError(str(error)) from error

    def own_counters(self) -> dict[str, int]:
        """Return nothing: it does not count."""
        return {}

    def close(self) -> None:
        """Close the connections."""
        for shard in self._shards:
            shard.close()
