"""What a user of a Redis Cluster may not do is said by whoever needs it, and nothing is lost in silence."""

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
    """Return the URL of a user who may listen, and may not publish."""
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "SETUSER", "mute", *RIGHTS, "-spublish")
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
