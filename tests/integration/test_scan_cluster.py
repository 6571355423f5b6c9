"""scan() in a Redis Cluster: all keys of all lanes, whatever nodes they are at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.placement import CLUSTER_LANES, slot_of_lane
from support.caches import opening
from support.cluster import RedisCluster
from support.waiting import wait_until

MANY = 3_000
LANE = CLUSTER_LANES - 1
SLOT = slot_of_lane(LANE)


@pytest.fixture
def open_cache(redis_cluster: RedisCluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on the cluster, in a namespace of the test's own."""
    name = request.node.name[-60:].strip("[]")
    with opening(redis_cluster.url(), namespace=name, max_staleness=1.0, timeout=5.0) as opener:
        yield opener


def scans(cluster: RedisCluster) -> list[int]:
    """Return how often each primary has been asked to SCAN, and count anew."""
    counts = []
    for node in cluster.primaries():
        with node.client() as client:
            counts.append(client.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"])
            client.config_resetstat()
    return counts


def test_every_key_is_found_and_each_node_is_walked_through_once(
    redis_cluster: RedisCluster, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """However many lanes are on it. Nothing of another namespace is seen, even if its name begins alike."""
    cache = open_cache()
    keys = {f"k{number}" for number in range(MANY)} | {b"k", 1, ("k", 2.5), "", "}:v:"}
    cache.set_many(dict.fromkeys(keys, 1))
    for namespace in (cache.settings.namespace[:-1], cache.settings.namespace + "-1"):
        open_cache(namespace=namespace)["elsewhere"] = 1
    scans(redis_cluster)
    found = list(cache.scan())
    assert set(found) == keys
    held = [node.cli("DBSIZE") for node in redis_cluster.primaries()]
    assert all(count <= 2 * size // 512 + 2 for count, size in zip(scans(redis_cluster), held, strict=True))

    async def gather() -> set[Any]:
        return {key async for key in cache.aio.scan("k1")}

    assert asyncio.run(gather()) == {key for key in keys if isinstance(key, str) and key.startswith("k1")}
    cache.clear()
    assert list(cache.scan()) == []


def test_lane_that_moves_to_a_node_that_is_behind_is_found_there(
    redis_cluster: RedisCluster, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Its keys would be seen at neither node."""
    cache = open_cache()
    cache.set_many(dict.fromkeys(range(MANY), "x"))
    place: Any = cache._tier.place  # type: ignore[attr-defined]  # of the class behind
    home, target = (redis_cluster.owner_of(slot_of_lane(lane)) for lane in (LANE, 0))
    assert home is not target
    between = (redis_cluster.owner_of(slot_of_lane(lane)) for lane in range(CLUSTER_LANES))
    second = next(node for node in between if node not in (home, target))
    found, moved = set(), False
    try:
        for key in cache.scan():
            found.add(key)
            if not moved and redis_cluster.owner_of(slot_of_lane(place(key)[0])) is second:
                moved = True
                redis_cluster.move(SLOT, target)
        assert moved
        assert found == set(range(MANY))
        assert set(cache.scan()) == set(range(MANY))
    finally:
        redis_cluster.move(SLOT, home)
    wait_until(lambda: cache.health().ok)


def test_lane_that_begins_to_move_is_found_at_both_nodes(
    redis_cluster: RedisCluster, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """To a node that is behind, and it stays between the two."""
    cache = open_cache()
    cache.set_many(dict.fromkeys(range(MANY), "x"))
    place: Any = cache._tier.place  # type: ignore[attr-defined]  # of the class behind
    home, target = (redis_cluster.owner_of(slot_of_lane(lane)) for lane in (LANE, 0))
    found, begun = set(), False
    try:
        for key in cache.scan():
            found.add(key)
            if not begun and redis_cluster.owner_of(slot_of_lane(place(key)[0])) not in (home, target):
                begun = True
                redis_cluster.begin_move(SLOT, target)
                some = redis_cluster.ask(home, "CLUSTER", "GETKEYSINSLOT", SLOT, 10)
                redis_cluster.ask(home, "MIGRATE", target.host, target.port, "", 0, 2000, "KEYS", *some)
        assert begun
        assert found == set(range(MANY))
        assert set(cache.scan()) == set(range(MANY))
    finally:
        redis_cluster.move_keys(SLOT, home, target)
        redis_cluster.end_move(SLOT, home, target)
        redis_cluster.move(SLOT, home)
    wait_until(lambda: cache.health().ok)


def test_keys_of_nodes_that_answer_come_before_the_error_of_one_that_does_not(
    redis_cluster: RedisCluster, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Paused: it takes all the time of a call, and of no other."""
    cache = open_cache(timeout=0.5)
    keys = list(range(200))
    cache.set_many(dict.fromkeys(keys, 1))
    node = redis_cluster.owner_of(slot_of_lane(0))
    driver: Any = cache._driver  # type: ignore[attr-defined]  # of the class behind
    dead = {lane for lane in range(CLUSTER_LANES) if driver.place_of(lane) == driver.place_of(0)}
    tier: Any = cache._tier  # type: ignore[attr-defined]  # of the class behind
    found = []
    node.pause()
    try:
        with pytest.raises(nearcache.ShardUnavailableError):
            for key in cache.scan():
                found.append(key)
    finally:
        node.resume()
    assert set(found) == {key for key in keys if tier.place(key)[0] not in dead}
    redis_cluster.await_well()
    wait_until(lambda: cache.health().ok)
