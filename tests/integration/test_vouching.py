"""What a cache says of its own coherence: refusing to open, statistics by lane, and the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.cache.tiered.cache import TieredCache
from nearcache.cache.tiered.selftest import require
from support.redis import RedisServer
from support.switchboard import Switchboard
from support.waiting import wait_until

RIGHTS = (
    "+auth +hello +select +info +ping +evalsha +eval +get +mget +getrange +pttl +exists +set +rename +unlink +persist "
    "+pexpire +hget +hmget +hset +publish +subscribe +unsubscribe"
)


def open_as(server: RedisServer, user: str, **options: Any) -> nearcache.Cache[Any, Any]:
    """Open a cache as a user with the password ``secret``."""
    return nearcache.open(f"redis://{user}:secret@127.0.0.1:{server.port}", namespace="t", **options)


# -- require_coherence


@pytest.mark.every_server
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"user nc on >secret ~nc:{{t:* resetchannels {RIGHTS}", "ACL|NOPERM|not subscribed|cannot publish"),
        (f"user nc on >secret ~nc:{{t:* resetchannels &nc:{{t:* {RIGHTS} -subscribe", "not subscribed"),
        (f"user nc on >secret ~nc:{{t:* resetchannels &nc:{{t:* {RIGHTS} -publish", "cannot publish"),
    ],
    ids=["channel", "subscribe", "publish"],
)
def test_user_who_lacks_a_right_for_messages_is_refused_with_the_reason(
    make_redis: Callable[..., RedisServer], line: str, reason: str
) -> None:
    """A cache that would never hear of a change does not open, and says what is missing; otherwise it opens."""
    server = make_redis(transport="tcp", acl=[line])
    with pytest.raises(nearcache.CoherenceError, match=reason) as caught:
        open_as(server, "nc", require_coherence=True, connect_timeout=0.5)
    assert "invalidations do not arrive" in str(caught.value)
    assert "secret" not in str(caught.value)
    with open_as(server, "nc", connect_timeout=0.5) as cache:
        assert not cache.selftest(timeout=0.3).ok


@pytest.mark.every_server
def test_user_with_all_rights_is_accepted(make_redis: Callable[..., RedisServer]) -> None:
    """The documented rights are enough."""
    server = make_redis(transport="tcp", acl=[f"user nc on >secret ~nc:{{t:* resetchannels &nc:{{t:* {RIGHTS}"])
    with open_as(server, "nc", require_coherence=True) as cache:
        cache["k"] = 1
        assert cache.peek("k") == 1


def test_server_that_is_down_is_refused(redis_server: RedisServer) -> None:
    """Without the option a service may start without its Redis."""
    redis_server.kill()
    with pytest.raises(nearcache.CoherenceError, match="cannot publish"):
        nearcache.open(redis_server.url, require_coherence=True, connect_timeout=0.2, timeout=0.2)
    with nearcache.open(redis_server.url, connect_timeout=0.2, timeout=0.2) as cache:
        assert not cache.health().ok


@pytest.mark.every_server
def test_requests_and_subscription_on_different_databases_are_told_apart(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy that forgets SELECT would have it: the message is heard, for channels are common to all databases."""
    run = TieredCache.selftest

    def led_astray(self: Any, timeout: float = 2.0) -> Any:
        for connection in list(self._driver._shards[0].pool._all):
            connection.sock.setblocking(True)
            connection.sock.sendall(b"*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n")
            assert connection.sock.recv(64) == b"+OK\r\n"
            connection.sock.setblocking(False)
        return run(self, 0.3)

    monkeypatch.setattr(TieredCache, "selftest", led_astray)
    with pytest.raises(nearcache.CoherenceError, match="different databases"):
        nearcache.open(redis_server.url, require_coherence=True)


def test_proxy_that_drops_messages_is_refused_by_what_it_does(redis_server: RedisServer) -> None:
    """Subscription and heartbeats pass: only a message that is published and waited for shows it."""
    with Switchboard(redis_server) as board:
        board.drops_messages = True
        with nearcache.open(board.url) as cache:
            assert cache.health().ok
            found = cache.selftest(timeout=0.1)
            assert "does a proxy drop pub/sub" in found.shards[0].problem
            with pytest.raises(nearcache.CoherenceError, match="published messages do not arrive"):
                require(found)


def test_every_shard_is_tested_and_the_bad_one_named(two_shards: tuple[RedisServer, RedisServer]) -> None:
    """One shard that does not answer is enough to refuse."""
    first, second = two_shards
    second.kill()
    url = f"unix://{first.path},{second.path}"
    with pytest.raises(nearcache.CoherenceError, match="shard bad: cannot publish") as caught:
        nearcache.open(url, shard_names=["good", "bad"], require_coherence=True, connect_timeout=0.2, timeout=0.2)
    assert "shard good: ok" in str(caught.value)


def test_record_made_anew_just_before_the_self_test_is_no_fault(redis_server: RedisServer) -> None:
    """Its epoch is unknown only until the next heartbeat, for which the self-test asks."""
    with nearcache.open(redis_server.url, max_staleness=60.0) as cache:
        redis_server.cli("FLUSHALL")
        assert cache.selftest().ok


# -- statistics


@pytest.mark.every_server
def test_statistics_of_lanes_are_filled(two_shards: tuple[RedisServer, RedisServer]) -> None:
    """By lane and in sum, after some traffic, a lost connection and a failover's like."""
    url = f"unix://{two_shards[0].path},{two_shards[1].path}"
    with (
        nearcache.open(url, shard_names=["a", "b"], max_staleness=0.4) as cache,
        nearcache.open(url, shard_names=["a", "b"]) as other,
    ):
        keys = range(40)
        for key in keys:
            cache[key] = key
        for key in keys:
            other[key] = -key
        assert cache.selftest().ok
        wait_until(lambda: all(lane.heartbeat.count for lane in cache.stats().coherence.lanes))
        stats = cache.stats().coherence
        assert [lane.name for lane in stats.lanes] == ["a", "b"]
        assert stats.received == sum(lane.received for lane in stats.lanes) >= 80
        assert stats.applied == sum(lane.applied for lane in stats.lanes) >= 40
        for lane in stats.lanes:
            assert lane.received
            assert lane.applied
            assert lane.heartbeats
            assert (lane.resyncs, lane.gaps, lane.bad_frames, lane.owed, lane.replayed, lane.forgotten) == (1,) + (
                0,
            ) * 5
            assert lane.heartbeat.p50_ms is not None
            assert lane.heartbeat.p99_ms is not None
            assert lane.heartbeat.longest_ms is not None
            assert 0 < lane.heartbeat.p50_ms <= lane.heartbeat.p99_ms <= lane.heartbeat.longest_ms
        wait_until(lambda: all(0 <= (lane.horizon_age_s or 60) < 0.4 for lane in cache.stats().coherence.lanes))
        assert sum(lane.lag.count for lane in stats.lanes) >= 1
        two_shards[0].cli("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: cache.stats().coherence.resyncs == 3)
        two_shards[0].cli("HINCRBY", "nc:{default:0}:L", "s", 1)
        wait_until(lambda: cache.stats().coherence.lanes[0].gaps == 1)
        first, second = cache.stats().coherence.lanes
        assert first.dark_s > 0
        assert (second.gaps, second.resyncs) == (0, 1)
        assert set(cache.stats().as_dict()["coherence"]["lanes"][0]) == set(type(first).__slots__)


def test_suspects_are_counted_by_what_became_of_them(redis_server: RedisServer) -> None:
    """Found good, or found gone: one that was evicted from L2, say."""
    with nearcache.open(redis_server.url) as cache:
        cache["same"], cache["gone"] = 1, 2
        cache._horizon.lane_suspect(0)
        redis_server.cli("UNLINK", "nc:{default:0}:v:sgone")
        assert cache["same"] == 1
        assert cache.get("gone") is None
        stats = cache.stats().coherence
        assert (stats.revalidated, stats.dropped) == (1, 1)
        assert (stats.lanes[0].revalidated, stats.lanes[0].dropped) == (1, 1)


# -- the sampler


@pytest.mark.parametrize("came", ["written", "read", "loaded", "in bulk"])
def test_sampler_finds_a_planted_mismatch(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, came: str
) -> None:
    """A process that applies no message serves what is long gone, and the sampler says so; it names no key.

    However the value has come into L1.
    """
    monkeypatch.setattr(TieredCache, "lane_apply", lambda *_arguments: 0, raising=False)
    with (
        nearcache.open(redis_server.url, sample_rate=200.0, max_staleness=0.2) as cache,
        nearcache.open(redis_server.url) as other,
    ):
        if came == "written":
            cache["secret"] = "old"
        elif came == "loaded":
            cache.get_or_load("secret", lambda _key: "old")
        elif came == "in bulk":
            cache.set_many({"secret": "old"})
        else:
            other["secret"] = "old"
            assert cache.selftest().ok
            assert cache["secret"] == "old"
        other["secret"] = "new"
        assert cache["secret"] == "old"
        wait_until(lambda: cache.stats().coherence.mismatches, 10.0)
    assert "served from memory past the staleness bound" in caplog.text
    assert "secret" not in caplog.text


def test_sampler_finds_nothing_where_nothing_is_wrong(redis_server: RedisServer) -> None:
    """Under writes by two processes' worth of caches, evictions in L2 and lost connections: checks, no mismatch."""
    with (
        nearcache.open(redis_server.url, sample_rate=500.0, max_staleness=0.2) as cache,
        nearcache.open(redis_server.url) as other,
    ):
        for key in range(20):
            cache[key] = 0
        seen = 0
        for n in range(1, 2000):
            (cache if n % 3 else other)[n % 20] = n
            assert cache.get(n % 20) is not None
            if n % 500 == 0:
                redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
                redis_server.cli("UNLINK", f"nc:{{default:0}}:v:i{n % 20}")
                cache[n % 20] = n
            seen = cache.stats().coherence.checks
            if n > 300 and seen > 100:
                break
        wait_until(lambda: cache.stats().coherence.checks > 50)
        assert cache.stats().coherence.mismatches == 0


def test_sampler_accuses_nobody_of_what_was_evicted_and_loaded_again(redis_server: RedisServer) -> None:
    """Neither is announced, so both processes have what they have loaded; another value would be another matter."""
    with (
        nearcache.open(redis_server.url, sample_rate=500.0, max_staleness=0.1) as cache,
        nearcache.open(redis_server.url) as other,
    ):
        for key, again in (("same", [1, 2]), ("changed", [1, 3])):
            assert cache.get_or_load(key, lambda _key: [1, 2]) == [1, 2]
            redis_server.cli("UNLINK", f"nc:{{default:0}}:v:s{key}")
            assert other.get_or_load(key, lambda _key, again=again: again) == again
            checks = cache.stats().coherence.checks
            if key == "same":
                wait_until(lambda checks=checks: cache.stats().coherence.checks > checks + 100)
                assert cache.stats().coherence.mismatches == 0
        assert cache.get("changed") == [1, 2]
        wait_until(lambda: cache.stats().coherence.mismatches)


def test_sampler_is_off_by_default(redis_server: RedisServer) -> None:
    """No thread, no request."""
    with nearcache.open(redis_server.url) as cache:
        cache["k"] = 1
        assert cache._threads == [cache._listener]
        assert cache.stats().coherence.checks == 0
