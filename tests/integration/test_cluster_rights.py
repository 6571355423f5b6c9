"""What a user of a Redis Cluster may not do is said by whoever needs it, with the node; nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import nearcache
from support.cluster import RedisCluster
from support.waiting import wait_until

PATIENCE = 10.0
RIGHTS = ("on", ">secret", "resetchannels", "~*", "&*", "+@all")


@pytest.fixture
def mute(redis_cluster: RedisCluster) -> Iterator[str]:
    """Return the URL of a user who may listen, and neither publish nor wait for replicas."""
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "SETUSER", "mute", *RIGHTS, "-spublish", "-wait")
    yield redis_cluster.url(user="mute:secret@")
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "DELUSER", "mute")


def test_write_without_the_right_to_publish_fails_and_is_made_up_for(redis_cluster: RedisCluster, mute: str) -> None:
    """Nobody listens on the plain channels: what went out there would reach nobody, and nobody would say so."""
    options = {"namespace": "mute", "timeout": PATIENCE, "max_staleness": 0.4}
    with nearcache.open(redis_cluster.url(), **options) as reader, nearcache.open(mute, **options) as writer:
        reader["k"] = "old"
        wait_until(lambda: reader.get("k") == reader.peek("k", None) == "old", PATIENCE)
        with pytest.raises(nearcache.ServerReplyError, match="rights that a cache user needs"):
            writer["k"] = "new"
        for node in redis_cluster.nodes:
            redis_cluster.ask(node, "ACL", "SETUSER", "mute", "+spublish")
        wait_until(lambda: not writer.stats().coherence.owed, PATIENCE, what="made up for")
        writer["k"] = "newest"
        wait_until(lambda: reader.get("k") == "newest", PATIENCE, what="heard of it")


def test_what_is_said_of_a_lane_names_the_node_that_has_it(
    redis_cluster: RedisCluster, mute: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the opening and in errors: nobody knows where lane 5 is."""
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "SETUSER", "mute", "+spublish")
    primaries = {node.address for node in redis_cluster.primaries()}
    writer = nearcache.Writer(write=lambda key, value: None, delete=lambda key: None)
    options = {"namespace": "named", "timeout": PATIENCE, "writer": writer, "write_delay": 0.05}
    with nearcache.open(mute, **options) as cache:
        assert {shard.name.partition(" at ")[2] for shard in cache.selftest(PATIENCE).shards} == primaries
    told = [line for line in caplog.messages if "has no append-only file" in line]
    assert {line.split(" shard ")[1].split(" ")[0] for line in told} == primaries
    with (
        nearcache.open(mute, namespace="named", timeout=PATIENCE, ack="replica") as cache,
        pytest.raises(nearcache.NotReplicatedError) as caught,
    ):
        cache["k"] = 1
    assert caught.value.shard in primaries
