"""``stale_if_error``: what is served of a shard that is out, through every way of reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache
from nearcache.errors import ShardError
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until

BOUND = 0.3

pytestmark = pytest.mark.usefixtures("no_leaks")  # before the server, which tests start again


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on one shard that are closed at the end."""
    with opening(redis_server.url, max_staleness=BOUND, timeout=0.3) as opener:
        yield opener


def go_dark(cache: Cache[Any, Any]) -> None:
    """Wait until L1 vouches for nothing."""
    wait_until(lambda: not cache.health().shards[0].vouched)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_copies_are_served_while_the_shard_is_out(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], fault: str
) -> None:
    """By every way of reading, and counted; what was never held stays absent; loaders are spared."""
    loads: list[str] = []
    cache = open_cache(stale_if_error=60, loader=lambda key: loads.append(key) or f"loaded {key}")
    cache.set_many({"a": 1, "b": 2})
    redis_server.kill() if fault == "killed" else redis_server.pause()
    go_dark(cache)
    assert cache["a"] == 1
    assert cache.get("b") == 2
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
    assert cache.get_or_load("a") == 1
    assert "a" in cache
    assert "c" not in cache
    assert cache.peek("a") is None  # this is no hit: L1 itself still vouches for nothing
    assert loads == []
    assert cache.stats().l2.stale == 6
    assert cache["c"] == "loaded c"
    redis_server.start() if fault == "killed" else redis_server.resume()
    wait_until(lambda: cache.health().ok, 10)
    expected = "loaded a" if fault == "killed" else 1
    assert cache["a"] == expected  # asked again as soon as there is somebody to ask
    assert cache.stats().l2.stale == 6


def test_without_the_option_nothing_is_served(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """It is opt-in."""
    cache = open_cache()
    cache["a"] = 1
    redis_server.kill()
    go_dark(cache)
    assert cache.get("a") is None
    with pytest.raises(KeyError) as caught:
        cache["a"]
    assert isinstance(caught.value.__cause__, ShardError)
    assert cache.stats().l2.stale == 0


def test_time_that_is_over_ends_it(redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Then the loader is asked, or the key is absent."""
    cache = open_cache(stale_if_error=0.001)
    cache["a"] = 1
    redis_server.kill()
    go_dark(cache)
    wait_until(lambda: cache.get("a") is None)
    assert cache.get("a") is None


def test_change_that_was_heard_of_is_never_undone(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Neither another process's write, nor a clear, nor an own invalidation that failed, whose outcome is unknown."""
    cache, other = open_cache(stale_if_error=60), open_cache()
    cache.set_many({"kept": 1, "written": 1, "mine": 1})
    other["written"] = 2
    wait_until(lambda: cache.peek("written") is None)
    redis_server.pause()
    go_dark(cache)
    with pytest.raises(ShardError):
        cache.invalidate("mine")
    assert cache.get_many(["kept", "written", "mine"]) == {"kept": 1}
    redis_server.resume()
    wait_until(lambda: cache.health().ok and other.health().ok, 10)
    assert cache["kept"] == 1
    other.clear()
    assert cache.selftest().ok
    redis_server.kill()
    go_dark(cache)
    assert cache.get("kept") is None
