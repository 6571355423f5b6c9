"""One shard is slow: what the others answer is of use at once, to L1 and to those who wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ShardUnavailableError
from nearcache.l2 import BreakerSettings, ClusterDriver, Driver, Exchange, Reply
from nearcache.l2.clustering_aio import AsyncClusterDriver
from nearcache.loading.exchanges import PORTION
from nearcache.options import Endpoint
from nearcache.placement import slot_of_lane
from support.caches import opening
from support.cluster import NODE_TIMEOUT_MS, RedisCluster
from support.fake import FakeServer
from support.lanes import endpoint_of
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Seconds; no call comes near it unless it waits for what is stopped.
PATIENCE = 20.0
KEYS = [f"key:{number}" for number in range(300)]
ASK = [Exchange(0, [("GET", "k")])]
Reader = Callable[[Cache[Any, Any]], dict[Any, Any]]


def by_thread(cache: Cache[Any, Any]) -> dict[Any, Any]:
    """Read all keys."""
    return cache.get_many(KEYS)


def by_task(cache: Cache[Any, Any]) -> dict[Any, Any]:
    """Read all keys in an event loop."""

    async def read() -> dict[Any, Any]:
        return await cache.aio.get_many(KEYS)

    return asyncio.run(read())


def check(
    cache: Cache[Any, Any], slow: RedisServer, lanes: set[int], read: Reader, prepare: Callable[[], object] = bool
) -> None:
    """While all keys are read and the slow server has not answered, those of the others are there already."""
    quick = [key for key in KEYS if cache._tier.place(key)[0] not in lanes]  # type: ignore[attr-defined]  # not public
    assert 0 < len(quick) < len(KEYS)
    cache.set_many(dict.fromkeys(KEYS, "v"))
    assert cache.selftest(PATIENCE).ok  # the messages of these writes have come: none meets the read
    for key in KEYS:
        cache.drop(key)
    found: dict[Any, Any] = {}
    reading = threading.Thread(target=lambda: found.update(read(cache)))
    prepare()
    slow.pause()
    try:
        reading.start()
        wait_until(lambda: all(cache.peek(key) == "v" for key in quick), PATIENCE, what="quick ones in L1")
        assert reading.is_alive()
    finally:
        slow.resume()
        reading.join(PATIENCE)
    assert found == dict.fromkeys(KEYS, "v")


@pytest.mark.parametrize("read", [by_thread, by_task])
def test_slow_shard_does_not_keep_the_others_answers_from_l1(
    two_shards: tuple[RedisServer, RedisServer], read: Reader
) -> None:
    """The call returns when all have answered; who asks for a quick key meanwhile has it."""
    url = ",".join(server.url.partition("://")[2] for server in two_shards)
    with opening(f"unix://{url}", timeout=PATIENCE, max_staleness=PATIENCE) as open_cache:
        cache = open_cache()
        wait_until(lambda: cache.health().ok)
        lanes = {lane for lane, shard in enumerate(cache.health().shards) if shard.address == two_shards[0].address}
        check(cache, two_shards[0], lanes, read)


@pytest.mark.parametrize("options", [{}, {"max_age": 60}], ids=["any", "of a greatest age"])
@pytest.mark.parametrize("by", ["thread", "task"])
def test_silent_shard_leaves_all_that_the_others_hold_however_many_are_read(
    two_shards: tuple[RedisServer, RedisServer], by: str, options: dict[str, Any]
) -> None:
    """They are asked for a portion at a time, and the silent one is not waited for until there is no time left."""
    silent, other = two_shards
    keys = [f"key:{number}" for number in range(5 * PORTION)]
    with opening(f"unix://{silent.path},{other.path}", timeout=4.0) as open_cache:
        cache: Any = open_cache()
        cache.set_many(dict.fromkeys(keys, "v"))
        for key in keys:
            cache.drop(key)
        lanes = {lane for lane, shard in enumerate(cache.health().shards) if shard.address == silent.path}
        there = [key for key in keys if cache._tier.place(key)[0] not in lanes]
        assert PORTION < len(there) < len(keys)

        async def read() -> dict[Any, Any]:
            found: dict[Any, Any] = await cache.aio.get_many(keys, **options)
            return found

        silent.pause()
        try:
            found = cache.get_many(keys, **options) if by == "thread" else asyncio.run(read())
        finally:
            silent.resume()
        assert found == dict.fromkeys(there, "v")


@contextmanager
def patient(cluster: RedisCluster) -> Iterator[None]:
    """The nodes do not take one that is stopped for lost."""
    for node in cluster.nodes:
        cluster.ask(node, "CONFIG", "SET", "cluster-node-timeout", 60_000)
    yield
    for node in cluster.nodes:
        cluster.ask(node, "CONFIG", "SET", "cluster-node-timeout", NODE_TIMEOUT_MS)


@pytest.mark.parametrize("read", [by_thread, by_task])
def test_slow_node_of_a_cluster_does_not_keep_the_others_answers_from_l1(
    redis_cluster: RedisCluster, read: Reader
) -> None:
    """An answer may lead elsewhere: there they are asked for while the slow one is waited for."""
    slow = redis_cluster.primaries()[0]
    options: dict[str, Any] = {"timeout": PATIENCE, "max_staleness": PATIENCE}
    with (
        patient(redis_cluster),
        nearcache.open(redis_cluster.url(nodes=6), namespace=f"slow-{read.__name__}", **options) as cache,
    ):
        wait_until(lambda: cache.health().ok)
        lanes = {lane for lane in range(64) if redis_cluster.owner_of(slot_of_lane(lane)) is slow}
        check(cache, slow, lanes, read)
        places = cache._driver.map.places

        def mistake() -> None:
            quick = [lane for lane in range(64) if lane not in lanes]
            one, other = {places[lane] for lane in quick}
            for lane in quick:
                places[lane] = one if places[lane] == other else other

        check(cache, slow, lanes, read, mistake)


def test_silent_server_that_the_listener_tries_is_not_tried_by_calls_too(redis_server: RedisServer) -> None:
    """A try of theirs would take its time-out, and tell no more. Those that have a connection still use it."""
    breaker = BreakerSettings(first_delay_ns=1, longest_delay_ns=60 * 10**9, share=1)  # calls try again at once
    driver = Driver([endpoint_of(redis_server)], timeout_s=0.2, connect_timeout_s=0.2, breaker=breaker)

    def listen_in_vain() -> None:
        for _ in range(2):  # the first one might be a mishap
            with pytest.raises(ShardUnavailableError):
                driver.connect_listener(0)

    assert isinstance(driver.execute(ASK)[0], Reply)
    redis_server.pause()
    listen_in_vain()
    assert getattr(driver.execute(ASK)[0], "sent", False)
    assert driver.status(0).connections == 0
    listen_in_vain()
    assert driver.status(0).retry_in_ns > 60 * 10**9
    assert "not asked again yet" in str(driver.execute(ASK)[0])
    redis_server.resume()
    driver.connect_listener(0).close()
    assert isinstance(driver.execute(ASK)[0], Reply)
    driver.close()


@pytest.mark.parametrize("by", ["thread", "task"])
def test_search_for_lanes_among_silent_nodes_takes_no_longer_than_connecting_may(by: str) -> None:
    """However much time the call has: ten minutes, which this test has not."""
    with FakeServer(lambda command: b"", whole=True) as silent:
        seed = Endpoint("seed", host="127.0.0.1", port=silent.port, clustered=True)
        driver = ClusterDriver([seed], [0], connect_timeout_s=0.2)
        view = AsyncClusterDriver(driver)
        exchange = [Exchange(0, [("GET", "k")])]
        if by == "thread":
            (reply,) = driver.execute(exchange, timeout_s=600)
        else:
            (reply,) = asyncio.run(view.execute(exchange, timeout_s=600))
        assert isinstance(reply, ShardUnavailableError)
        driver.close()
