"""The scripts where the server refuses: memory is short, replicas, disks, rights. On every server found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nearcache.errors import ServerReplyError, ShardUnavailableError
from support.lanes import NO_WID, NONCE, Lane, envelope, wid
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.every_server

TOKEN = wid(0x70)

#: The least that a user of the cache needs, here in the namespace ``t``.
ACL = (
    "user nc on >secret ~nc:{t:* resetchannels &nc:{t:* "
    "+auth +hello +select +info +client|no-evict +ping +time +evalsha +eval "
    "+get +getrange +mget +pttl +exists +set +rename +unlink +persist +pexpire +hget +hmget +hset +publish "
    "+subscribe +unsubscribe"
)


@pytest.fixture
def lane(lane: Lane) -> Lane:
    """A lane with one value, ``sk``, and a lease on ``sj``."""
    lane.set(b"sk", write=wid(1))
    lane.run("lease", [b"sj"], TOKEN, 60_000, "")
    return lane


def refused(code: str, run: Callable[[], object]) -> None:
    """Check that ``run`` is refused by the server with this code."""
    with pytest.raises(ServerReplyError) as caught:
        run()
    assert caught.value.code == code


def refuse_all_writes(lane: Lane, code: str) -> None:
    """Check that every script that writes is refused, and that nothing was done or published."""
    with lane.listening() as heard:
        refused(code, lambda: lane.set(b"sk", write=wid(2)))
        refused(code, lambda: lane.run("invalidate", [b"sk"], wid(2)))
        refused(code, lambda: lane.run("clear", [], wid(2)))
        refused(code, lambda: lane.run("heartbeat", []))
        refused(code, lambda: lane.run("lease", [b"sx"], TOKEN, 1000, ""))
        refused(code, lambda: lane.run("fill", [b"sj"], wid(2), NONCE, TOKEN, 1000, b"x"))
    assert heard == []
    assert lane.position() == (1, wid(1))
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"sk", wid(1))


def test_full_server_lets_invalidations_pass(lane: Lane) -> None:
    """At maxmemory an invalidation is done and announced; it frees memory, and losing it would be wrong."""
    lane.client.config_set("maxmemory", 1)
    with lane.listening() as heard:
        assert lane.run("invalidate", [b"sk"], wid(2))[:3] == [1, NONCE, 1]
        assert lane.run("invalidate", [b"sabsent"], wid(3))[:3] == [1, NONCE, 0]
        assert lane.run("clear", [], wid(4))[:2] == [1, wid(4)]
        assert lane.run("heartbeat", []) == [NONCE, b"4", wid(4), wid(4), b"1", None]
    assert [(m.op, m.wid) for m in heard] == [("I", wid(2)), ("I", wid(3)), ("C", wid(4))]


def test_full_server_without_a_lane_record_lets_invalidations_pass(lane: Lane) -> None:
    """Making the record takes memory, and is let through all the same. What was there is dead without it."""
    lane.client.config_set("maxmemory", 1)
    lane.client.delete(lane.record)
    with lane.listening() as heard:
        assert lane.run("invalidate", [b"sk"], wid(2), nonce=wid(9))[:3] == [1, wid(9), 0]
        lane.client.delete(lane.record)
        assert lane.run("heartbeat", [], nonce=wid(8)) == [wid(8), b"0", NO_WID, wid(8), b"1", None]
    assert len(heard) == 1


def test_full_server_refuses_values_before_anything_is_announced(lane: Lane) -> None:
    """What is not stored is not announced, and the fence of a refused fill stays."""
    lane.client.config_set("maxmemory", 1)
    with lane.listening() as heard:
        refused("OOM", lambda: lane.set(b"sk", b"sj", write=wid(2)))
        large = envelope(NONCE, bytes(20_000))
        refused("OOM", lambda: lane.run_staged("set", [b"sk"], wid(2), [large], NONCE, "", 9000))
        refused("OOM", lambda: lane.run("lease", [b"sx"], TOKEN, 1000, ""))
        refused("OOM", lambda: lane.run("fill", [b"sj"], wid(2), NONCE, TOKEN, 1000, b"x"))
    assert heard == []
    assert lane.position() == (1, wid(1))
    lane.client.config_set("maxmemory", 0)
    assert lane.run("fill", [b"sj"], wid(2), NONCE, TOKEN, 1000, b"x")[:2] == [1, NONCE]


def test_replica_refuses_heartbeats_and_writes(make_redis: Callable[..., RedisServer]) -> None:
    """A demoted server vouches for nothing, on connections from before its demotion too."""
    primary, server = make_redis(transport="tcp"), make_redis(transport="tcp")
    lane = Lane(server)
    lane.start()
    lane.set(b"sk", write=wid(1))
    lane.run("lease", [b"sj"], TOKEN, 60_000, "")
    primary.cli("REPLICAOF", "127.0.0.1", server.port)  # so that the data stay what they are
    wait_until(lambda: primary.client().info("replication")["master_link_status"] == "up")
    server.cli("REPLICAOF", "127.0.0.1", primary.port)
    lane.bare = True  # the driver gives up connections that lead to a replica
    refuse_all_writes(lane, "READONLY")
    lane.bare = False
    with pytest.raises(ShardUnavailableError, match="replica"):
        lane.run("heartbeat", [])
    with pytest.raises(ShardUnavailableError, match="replica"):
        Lane(server).start()
    lane.close()


def test_primary_without_its_replicas_refuses_heartbeats_and_writes(lane: Lane) -> None:
    """An isolated old primary that was told to need replicas stops vouching."""
    lane.client.config_set("min-replicas-to-write", 1)
    refuse_all_writes(lane, "NOREPLICAS")


def test_primary_that_cannot_save_refuses_heartbeats_and_writes(lane: Lane) -> None:
    """A server that must not be written to, because its disk fails, is not relied on."""
    folder = lane.server.directory / "dump.rdb"
    (folder / "in the way").mkdir(parents=True)
    lane.client.config_set("save", "900 1")
    lane.client.bgsave()
    wait_until(lambda: lane.client.info("persistence")["rdb_last_bgsave_status"] == "err")
    refuse_all_writes(lane, "MISCONF")


def test_restricted_user_can_run_everything_in_its_namespace(make_redis: Callable[..., RedisServer]) -> None:
    """The documented rights suffice for all scripts and the reads."""
    server = make_redis(acl=[ACL])
    lane = Lane(server, username="nc", password="secret")
    lane.start()
    with lane.listening() as heard:
        assert lane.set(b"sk", b"sm", write=wid(1))[:2] == [1, NONCE]
        assert lane.set(b"sk", write=wid(1), mode="NX")[0] == 2
        assert lane.run("lease", [b"sk"], TOKEN, 60_000, "")[0] == 1
        assert lane.run("lease", [b"sj"], TOKEN, 60_000, "")[0] == 0
        assert lane.run("lease", [b"sj"], TOKEN, 90_000, "")[0] == 2
        assert lane.run("fill", [b"sj"], wid(2), NONCE, TOKEN, 60_000, envelope(NONCE))[:2] == [1, NONCE]
        large = envelope(NONCE, bytes(20_000))
        assert lane.run_staged("set", [b"sb"], wid(5), [large], NONCE, "", 9000)[:2] == [1, NONCE]
        assert lane.run("invalidate", [b"sk"], wid(3))[:3] == [1, NONCE, 1]
        assert lane.run("clear", [], wid(4))[:2] == [1, wid(4)]
        assert lane.run("lease", [b"sl"], TOKEN, 60_000, "")[0] == 0
        assert lane.run("lease", [b"sl"], TOKEN, 60_000, "")[0] == 2
        assert lane.run("abort", [b"sl"], wid(6), TOKEN) == 1
        assert lane.run("adopt", [], wid(7), wid(0xF1), nonce=wid(0xE1))[0] == 1
        assert lane.run("heartbeat", [])[1] == b"7"
    assert [m.op for m in heard] == ["S", "F", "S", "I", "C", "A", "E"]
    link = lane.driver.connect_listener(0)
    link.close()
    lane.close()


def test_restricted_user_is_refused_another_namespace(make_redis: Callable[..., RedisServer]) -> None:
    """Scripts do not lend rights."""
    server = make_redis(acl=[ACL])
    other = Lane(server, "other", username="nc", password="secret")
    refused("NOPERM", other.start)
    refused("NOPERM", lambda: other.run("invalidate", [b"sk"], wid(1)))
    assert server.cli("DBSIZE") == 0
    other.close()


def test_user_without_the_channel_advances_the_sequence(make_redis: Callable[..., RedisServer]) -> None:
    """A message that could not be published shows as a gap at the next heartbeat: never a silent loss."""
    server = make_redis(acl=[ACL.replace("&nc:{t:* ", "")])
    lane = Lane(server, username="nc", password="secret")
    lane.start()
    with pytest.raises(ServerReplyError):
        lane.run("invalidate", [b"sk"], wid(3))
    assert lane.run("heartbeat", [])[1:3] == [b"1", wid(3)]
    lane.close()
