"""A running cache says in the log that it has lost a shard, why, and that it has it again; else it says nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ShardUnavailableError
from nearcache.placement import CLUSTER_LANES, slot_of_lane
from support.cluster import RedisCluster
from support.redis import RedisServer
from support.resharding import Servers, change, lanes_live
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

RIGHTS = ("nc", "on", ">secret", "resetchannels", "~nc:*", "&nc:*", "+@all")


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """Keep what is no warning, too."""
    caplog.set_level(logging.INFO, "nearcache")


@contextmanager
def watched(url: str, **options: Any) -> Iterator[Cache[Any, Any]]:
    """A cache that notices soon, and is well."""
    usual = {"max_staleness": 0.4, "timeout": 0.5, "connect_timeout": 0.5}
    with nearcache.open(url, **usual | options) as cache:
        wait_until(lambda: cache.health().ok)
        yield cache


def lost_and_found(caplog: pytest.LogCaptureFixture, lose: Callable[[], object], find: Callable[[], object],
                   reason: str) -> None:  # fmt: skip
    """Lose the shard, wait for a line with the reason, bring it back, and wait for the line that says so."""
    caplog.clear()
    lose()
    wait_until(lambda: any(reason in line for line in caplog.messages), what=f"{reason} is logged")
    find()
    wait_until(lambda: "heard again" in caplog.text, what="the return is logged")
    *losses, end = caplog.records
    assert {record.levelname for record in losses} == {"WARNING"}
    assert end.levelname == "INFO"
    assert all("is not heard, and nothing of it is served" in record.getMessage() for record in losses)
    assert all(line.startswith("namespace ") for line in caplog.messages)


def test_shard_that_is_killed_is_logged_by_its_name_and_so_is_its_return(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With what the new connection meets, which says more than that the old one ended."""
    with watched(redis_server.url, shard_names=["left"]):
        lost_and_found(caplog, redis_server.kill, redis_server.start, "cannot connect")
    assert all("shard left" in line and line.count("left") == 1 for line in caplog.messages)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("SETUSER", "nc", "-subscribe"), "NOPERM"),
        (("SETUSER", "nc", "-evalsha"), "NOPERM"),
        (("SETUSER", "nc", "resetpass", ">another"), "WRONGPASS"),
        (("DELUSER", "nc"), "WRONGPASS"),
    ],
)
def test_user_that_may_no_more_is_logged(
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    change: tuple[str, ...],
    reason: str,
) -> None:
    """It is seen when the connection is made anew, at the latest."""
    redis_server.cli("ACL", "SETUSER", *RIGHTS)

    def lose() -> None:
        redis_server.cli("ACL", *change)
        redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")

    with watched(redis_server.url, username="nc", password="secret"):
        lost_and_found(caplog, lose, lambda: redis_server.cli("ACL", "SETUSER", *RIGHTS), reason)


def test_change_of_the_list_of_shards_is_not_logged(
    servers: Servers, open_at: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is that a cache is opened, used and closed. The pauses let the other follow, as they do by themselves."""
    one, other = open_at("ab"), open_at("ab")
    one["k"] = 1
    change(one, servers, "abc", pause=0.3)
    change(other, servers, "bc", pause=0.3)
    wait_until(lambda: len(one.health().shards) == 2, what="the other has followed")
    lanes_live(one, other)
    one.close()
    other.close()
    assert caplog.messages == []


def test_slot_that_moves_is_not_logged(redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture) -> None:
    """Its lane is looked for at once, and found."""
    slot = slot_of_lane(5)
    home = redis_cluster.owner_of(slot)
    away = next(node for node in redis_cluster.primaries() if node is not home)
    with watched(redis_cluster.url(), namespace="moves") as cache:
        for node in (away, home):
            redis_cluster.move(slot, node)
            wait_until(lambda: cache.health().ok and cache.selftest().ok, what="the lane is followed")
    assert caplog.messages == []


def test_cluster_that_is_down_is_logged_and_raised_as_what_it_is(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """All nodes are there and answer, so that nothing else would say what is the matter, and where to look."""
    home = redis_cluster.owner_of(1)  # no lane lies there, but it is one of those that the cluster has to cover

    def cover(value: str) -> None:
        for node in redis_cluster.nodes:
            redis_cluster.ask(node, "CONFIG", "SET", "cluster-require-full-coverage", value)

    with watched(redis_cluster.url(), namespace="down") as cache:
        try:
            cover("yes")
            for node in redis_cluster.nodes:
                redis_cluster.ask(node, "CLUSTER", "DELSLOTS", 1)
            wait_until(lambda: "CLUSTERDOWN" in caplog.text, what="it is logged")
            with pytest.raises(ShardUnavailableError, match=r"CLUSTERDOWN.*redis-cli --cluster check"):
                cache["k"] = 1
        finally:
            redis_cluster.ask(home, "CLUSTER", "ADDSLOTS", 1)
            wait_until(lambda: all(b"cluster_slots_assigned:16384" in redis_cluster.ask(node, "CLUSTER", "INFO")
                                   for node in redis_cluster.nodes))  # fmt: skip
            cover("no")
        wait_until(lambda: "heard again" in caplog.text, what="the return is logged")
    losses = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all("CLUSTERDOWN" in line and "redis-cli --cluster check" in line for line in losses)


def test_node_that_refuses_subscriptions_is_logged_once_for_all_of_its_lanes(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """There a refusal ends one lane's stay, and not the connection."""
    node, may = redis_cluster.primaries()[0], ("+ssubscribe", "+subscribe")
    for each in redis_cluster.nodes:
        redis_cluster.ask(each, "ACL", "SETUSER", *RIGHTS)

    def lose() -> None:
        redis_cluster.ask(node, "ACL", "SETUSER", "nc", "-ssubscribe", "-subscribe")
        redis_cluster.ask(node, "CLIENT", "KILL", "TYPE", "pubsub")

    try:
        with watched(redis_cluster.url(user="nc:secret@"), namespace="logged"):
            lost_and_found(caplog, lose, lambda: redis_cluster.ask(node, "ACL", "SETUSER", "nc", *may), "NOPERM")
    finally:
        for each in redis_cluster.nodes:
            redis_cluster.ask(each, "ACL", "DELUSER", "nc")
    assert len([line for line in caplog.messages if "NOPERM" in line]) == 1


def test_slots_that_nobody_serves_are_logged_once_for_all_of_their_lanes(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """CLUSTERDOWN is no move: nobody says where to go on, and a part of the cache is dark for as long as it lasts."""
    node = redis_cluster.primaries()[0]
    slots = [slot for slot in map(slot_of_lane, range(CLUSTER_LANES)) if redis_cluster.owner_of(slot) is node]
    try:
        with watched(redis_cluster.url(), namespace="unserved"):
            lose, find = (
                partial(redis_cluster.ask, node, "CLUSTER", verb, *slots) for verb in ("DELSLOTS", "ADDSLOTS")
            )
            lost_and_found(caplog, lose, find, "CLUSTERDOWN")
    finally:
        redis_cluster.await_well()
    assert len([line for line in caplog.messages if "CLUSTERDOWN" in line]) == 1
    assert "more of the kind" not in caplog.text
