"""``ack="replica"``: a change returns when a replica has it, and says so if none does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

import nearcache
from nearcache import Cache
from support.redis import RedisServer
from support.waiting import wait_until


class Pair(NamedTuple):
    """A primary with its replica, and what opens caches on it."""

    primary: RedisServer
    replica: RedisServer
    open: Callable[..., Cache[Any, Any]]


@pytest.fixture
def pair(make_redis: Callable[..., RedisServer]) -> Iterator[Pair]:
    """A replica that is up to date."""
    primary = make_redis(transport="tcp", options={"repl-diskless-sync-delay": "0"})
    replica = make_redis(transport="tcp", options={"replicaof": f"127.0.0.1 {primary.port}"})
    with primary.client() as client:
        # One that is "online" may still be about to say, within a second, that commands can be sent to it.
        wait_until(lambda: client.set("warm", 1) and client.wait(1, 500) >= 1, timeout=20)
        client.delete("warm")
    opened: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> Cache[Any, Any]:
        opened.append(nearcache.open(primary.url, **{"ack": "replica", "timeout": 1.0} | options))
        return opened[-1]

    yield Pair(primary, replica, opener)
    replica.resume()
    for cache in opened:
        cache.close()


def change_everything(cache: Cache[Any, Any]) -> list[Callable[[], Any]]:
    """Every kind of change."""
    return [
        lambda: cache.set("k", 1),
        lambda: cache.set_many({"a": 1, "b": 2}),
        lambda: cache.incr("n"),
        lambda: cache.add("new", 1),
        lambda: cache.touch("k", 100),
        lambda: cache.get_and_delete("a"),
        lambda: cache.invalidate("k"),
        lambda: cache.delete_many(["b"]),
        lambda: cache.invalidate_tag("t"),
        cache.clear,
    ]


def test_ack_replica_has_what_has_returned(pair: Pair) -> None:
    """Whatever a call has changed is on the replica when the call returns, and needs no waiting there."""
    cache = pair.open()
    cache["k"] = "v"
    (name,) = pair.primary.cli("KEYS", "*:v:*")
    assert pair.replica.cli("EXISTS", name) == 1
    for change in change_everything(cache):
        change()
    assert pair.replica.cli("HGETALL", f"{name.split(b':v:')[0].decode()}:L") == pair.primary.cli(
        "HGETALL", f"{name.split(b':v:')[0].decode()}:L"
    )
    assert cache.stats().l2.unreplicated == 0


def is_confirmed(change: Callable[[], Any]) -> bool:
    """Make a change; a replica that is well may be slow all the same."""
    try:
        change()
    except nearcache.NotReplicatedError:
        return False
    return True


def test_ack_silent_replica_is_an_error_of_a_change_that_is_made(pair: Pair) -> None:
    """A change says so; the value is there, for this process and others, and nothing is owed."""
    cache, other = pair.open(timeout=0.8), pair.open(ack="primary")
    changes = change_everything(cache)
    for change in (*changes, lambda: cache.set("k", 0)):  # for the scripts and the generation to be known
        wait_until(partial(is_confirmed, change))
    before = cache.stats().l2.unreplicated
    pair.replica.pause()
    for change in changes[::2]:
        with pytest.raises(nearcache.NotReplicatedError, match=r"no replica has confirmed it within 0\.2 s"):
            change()
    with pytest.raises(nearcache.NotReplicatedError):
        cache["k"] = "v"
    assert cache.peek("k") == "v"
    assert other["k"] == "v"
    assert cache.stats().coherence.owed == 0
    assert cache.stats().l2.unreplicated - before == len(changes[::2]) + 1
    assert cache.get_or_load("loaded", lambda _key: 1) == 1  # a load changes nothing that anybody asked for


def test_ack_script_that_the_server_lacks_is_waited_for_too(pair: Pair) -> None:
    """Its WAIT goes behind the script, not before: else the answer would be about nothing."""
    cache = pair.open(timeout=4.0)
    cache["k"] = 1
    pair.replica.pause()
    pair.primary.cli("SCRIPT", "FLUSH")
    with pytest.raises(nearcache.NotReplicatedError):
        cache["k"] = 2
    assert cache["k"] == 2


def test_ack_queue_counts_what_no_replica_has_confirmed(pair: Pair) -> None:
    """Where a write during an outage is no error, neither is this."""
    cache = pair.open(timeout=0.8, on_error="queue")
    pair.replica.pause()
    cache["k"] = 1
    assert cache.stats().l2.unreplicated == 1
    assert cache["k"] == 1


def test_ack_coroutines_wait_and_say_so(pair: Pair) -> None:
    """The same from an event loop, which is not blocked meanwhile."""
    cache = pair.open(timeout=0.8)
    patient = pair.open(timeout=10)

    async def write() -> None:
        await patient.aio.set("k", 1)
        pair.replica.pause()
        with pytest.raises(nearcache.NotReplicatedError):
            await cache.aio.set("k", 2)

    asyncio.run(write())
    assert cache.peek("k") == 2


def test_ack_without_a_replica_is_told(redis_server: RedisServer) -> None:
    """Nobody can confirm anything there."""
    with nearcache.open(redis_server.url, ack="replica", timeout=0.8) as cache:
        with pytest.raises(nearcache.NotReplicatedError):
            cache["k"] = 1
        assert cache["k"] == 1
    with pytest.raises(nearcache.ConfigError, match="'primary', 'replica'"):
        nearcache.open(redis_server.url, ack="all")
