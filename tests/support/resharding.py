"""What the tests of a changing list of shards share: three servers, caches on some of them, and steps one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from support.redis import Binary, RedisServer
from support.waiting import wait_until

B = 0.6
KEYS = [f"k{number}" for number in range(16)]
Servers = dict[str, RedisServer]


@pytest.fixture
def servers(newest_binary: Binary) -> Iterator[Servers]:
    """Three servers, by the names of their shards."""
    with RedisServer(newest_binary) as a, RedisServer(newest_binary) as b, RedisServer(newest_binary) as c:
        yield {"a": a, "b": b, "c": c}


@pytest.fixture
def open_at(servers: Servers) -> Iterator[Callable[..., Any]]:
    """A function that opens a cache on shards of these names; all are closed in the end."""
    opened: list[Any] = []

    def start(names: str, **options: Any) -> Any:
        options = {"max_staleness": B, "shard_names": list(names)} | options
        opened.append(nearcache.open(url(servers, names), **options))
        return opened[-1]

    yield start
    for cache in opened:
        cache.close()


def url(servers: Servers, names: str) -> str:
    """Return the URL of these shards."""
    return "unix://" + ",".join(servers[name].path for name in names)


def change(cache: Any, servers: Servers, names: str, **options: Any) -> Any:
    """Reshard, without pauses unless they are asked for."""
    return cache.reshard(url(servers, names), **{"shard_names": list(names), "pause": 0.0} | options)


def version(cache: Any) -> int:
    """Return the version that a cache uses."""
    return int(cache._membership.ring.version)


def freeze(cache: Any) -> None:
    """Let a cache follow nobody of its own accord."""
    cache._membership._catching_up = True


def step(cache: Any, servers: Servers, names: str, to: int) -> None:
    """Bring a cache alone to a version, by steps of its own."""
    freeze(cache)
    membership = cache._membership
    target = nearcache.cache.shards.moving._target(cache.settings, membership.ring.old, url(servers, names), None, {
        "shard_names": list(names),
    })  # fmt: skip
    while version(cache) < to:
        ring = membership.ring
        membership._advance(ring.begin(target) if ring.new is None else ring.following())


def lanes_live(*caches: Any) -> None:
    """Wait until L1 serves every lane."""
    wait_until(lambda: all(cache.health().ok for cache in caches), what="every lane vouched for")
