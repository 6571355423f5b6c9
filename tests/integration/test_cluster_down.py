"""A cluster of which a part is missing, and connections to a node that has left: by real servers alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nearcache.errors import ServerReplyError
from nearcache.keys import slot_of
from nearcache.l2 import Driver, Exchange, Reply, load_script
from nearcache.l2.clustering import ClusterDriver
from nearcache.options import Endpoint
from support.cluster import RedisCluster
from support.lanes import NONCE, wid
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

PREFIX = b"nc:{t:0}:"
SLOTS = 16_384


@pytest.mark.parametrize("reads", ["yes", "no"])
def test_write_while_the_cluster_is_down_says_so(make_redis: Callable[..., RedisServer], reads: str) -> None:
    """Also of a node that lets reads pass: there a script is begun, and refused with other words."""
    options = {"cluster-enabled": "yes", "cluster-allow-reads-when-down": reads, "databases": "1"}
    node = make_redis(transport="tcp", options=options)
    lane = PREFIX + b"L"
    slot = int(node.cli("CLUSTER", "KEYSLOT", lane))
    node.cli("CLUSTER", "ADDSLOTS", slot)
    wait_until(lambda: b"cluster_state:fail" in node.cli("CLUSTER", "INFO"), 20, what="it knows what is missing")
    driver = Driver([Endpoint("a", host=node.host, port=node.port, clustered=True)])
    wipe = load_script("invalidate").call([PREFIX + b"v:sk", PREFIX + b"l:sk", lane], [1, NONCE, wid(3)])
    (reply,) = driver.execute([Exchange(0, [wipe])])
    driver.close()
    assert isinstance(reply, Reply)
    (value,) = reply.values
    assert isinstance(value, ServerReplyError)
    assert value.code == "CLUSTERDOWN"


def test_connections_to_a_node_that_has_no_lanes_any_more_are_closed(redis_cluster: RedisCluster) -> None:
    """It may end, and nobody would look at them again; those in use, when they are put back. It may come back, too."""
    slot = 5
    home = redis_cluster.owner_of(slot)
    elsewhere = next(node for node in redis_cluster.primaries() if node is not home)
    driver = ClusterDriver([Endpoint("seed", host=home.host, port=home.port, clustered=True)], [slot])
    key = next(key for key in map(b"%d".__mod__, range(100 * SLOTS)) if slot_of(key) == slot)
    read = [Exchange(0, [(b"GET", key)])]
    try:
        assert isinstance(driver.execute(read)[0], Reply)
        left = driver.map.places[0]
        pool = driver.shard(left).pool
        in_use = pool.take_idle()
        assert in_use is not None
        assert isinstance(driver.execute(read)[0], Reply)
        assert len(pool) == 2
        redis_cluster.move(slot, elsewhere)
        assert isinstance(driver.execute(read)[0], Reply)
        assert driver.map.places[0] != left
        assert len(pool) == 1
        pool.put(in_use)
        assert len(pool) == driver.status(left).connections == 0
        redis_cluster.move(slot, home)
        assert isinstance(driver.execute(read)[0], Reply)
        assert (driver.map.places[0], driver.status(left).connections) == (left, 1)
    finally:
        driver.close()
        if redis_cluster.owner_of(slot) is not home:
            redis_cluster.move(slot, home)
