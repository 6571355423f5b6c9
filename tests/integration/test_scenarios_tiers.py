"""What other two-level caches promise of time, failures and tiers, as scenarios of our own: see ``test_scenarios``.

Not here, because nearcache has no such thing: nodes that ignore what others announce, reads and writes that leave one
tier out, an "expired" state beside "removed", a near cache that is written to disk (Hazelcast's preloader).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache, LoadTimeoutError, ShardUnavailableError
from support.redis import RedisServer
from support.threads import PATIENCE
from support.waiting import wait_until

Opener = Callable[..., Cache[Any, Any]]


def settle(*caches: Cache[Any, Any]) -> None:
    """Wait until these nodes have applied all that has been announced so far."""
    for cache in caches:
        assert cache.selftest(PATIENCE).ok


def grow_old(server: RedisServer, *caches: Cache[Any, Any]) -> None:
    """Let time pass up to the last half minute of each value."""
    with server.client() as client:
        for name in client.keys("*:v:*"):
            client.pexpire(name, 30_000)
    for cache in caches:
        cache.drop_all()


class Codec:
    """A serialiser that counts."""

    codec_id = 200

    def __init__(self) -> None:
        self.dumped = self.loaded = 0

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Count a value that goes out."""
        self.dumped += 1
        return str(value).encode(), 0

    def decode(self, payload: Any, schema: int) -> Any:
        """Count one that comes in."""
        assert schema == 0
        self.loaded += 1
        return bytes(payload).decode()


# -- FusionCache ------------------------------------------------------------------------------------------------------


def test_fusioncache_background_completion_of_a_timed_out_factory_notifies_the_others(open_cache: Opener) -> None:
    """A refresh that took too long for its caller replaces the old value on all nodes when it is done."""
    a, b = open_cache(loader_timeout=0.05), open_cache()
    a["k"] = "old"
    assert b["k"] == "old"
    go = threading.Event()

    def slow(_: Any) -> str:
        assert go.wait(PATIENCE)
        return "new"

    with pytest.raises(LoadTimeoutError):
        a.get_or_load("k", slow, max_age=0)
    assert b["k"] == "old"
    go.set()
    wait_until(lambda: b["k"] == a["k"] == "new")


def test_fusioncache_soft_timeout_serves_the_old_value_while_the_factory_runs(
    open_cache: Opener, redis_server: RedisServer
) -> None:
    """Of an old value nobody waits at all, whatever the hard time-out."""
    go, calls = threading.Event(), []

    def load(key: Any) -> Any:
        calls.append(key)
        assert len(calls) == 1 or go.wait(PATIENCE)
        return len(calls)

    a, b = (open_cache(ttl=100, soft_ttl=60, loader=load, loader_timeout=PATIENCE) for _ in range(2))
    assert a["k"] == b["k"] == 1
    grow_old(redis_server, a, b)
    assert a["k"] == b["k"] == 1
    wait_until(lambda: len(calls) == 2)
    go.set()
    wait_until(lambda: a["k"] == b["k"] == 2)
    assert calls == ["k", "k"]


def test_fusioncache_eager_refresh_on_one_node_refreshes_all(open_cache: Opener, redis_server: RedisServer) -> None:
    """Before the end, in the background, once; the others drop their copy of the old value."""
    values = iter(range(1, 100))
    a, b = (open_cache(ttl=100, soft_ttl=60, loader=lambda _: next(values)) for _ in range(2))
    assert a["k"] == b["k"] == 1
    grow_old(redis_server, a)  # b still has a copy
    assert a["k"] == 1
    wait_until(lambda: b["k"] == 2)
    assert a["k"] == 2


def test_fusioncache_conditional_refresh_keeps_the_value_and_all_copies(
    open_cache: Opener, redis_server: RedisServer
) -> None:
    """NotModified: nothing is sent but that, and the value lives anew."""

    @nearcache.conditional
    def load(_key: Any, old: Any) -> Any:
        return nearcache.UNCHANGED if old and old.validator == "v1" else nearcache.Loaded([1], validator="v1")

    a, b = open_cache(ttl=100, loader=load), open_cache(ttl=100, loader=load)
    assert a["k"] == b["k"] == [1]
    with redis_server.client() as client:
        (name,) = client.keys("*:v:*")
        client.pexpire(name, 30_000)
        sealed, copy = client.get(name), b.peek("k")
        assert a.refresh("k") == [1]
        assert client.pttl(name) > 90_000
        assert client.get(name)[20:] == sealed[20:]
    settle(b)
    assert b.peek("k") is copy
    assert a.stats().loader.unchanged == 1


def test_fusioncache_separate_durations_of_memory_and_l2(open_cache: Opener, redis_server: RedisServer) -> None:
    """A node's copy may end long before the value does, and never after it."""
    a, b = open_cache(ttl=1000, l1_ttl=10), open_cache(ttl=1000)
    a["k"] = 1
    settle(b)
    assert b["k"] == 1
    assert a.remaining_ns("k") <= 11e9  # the clock of L1 lags where a host runs a machine late
    assert 900e9 < b.remaining_ns("k") <= 1001e9
    with redis_server.client() as client:
        assert client.pttl(client.keys("*:v:*")[0]) > 900_000


def test_fusioncache_l2_failure_is_no_failure_of_reads_and_is_told_to_writers(
    open_cache: Opener, redis_server: RedisServer
) -> None:
    """The factory answers; a breaker spares the calls that follow, and closes by itself."""
    a = open_cache(timeout=0.3, max_staleness=0.4, loader=lambda key: f"loaded {key}")
    redis_server.kill()
    assert a["k"] == "loaded k"
    assert a.get("other", "default") == "default"
    with pytest.raises(ShardUnavailableError):
        a["k"] = 1
    assert a.health().shards[0].breaker != "closed"
    redis_server.start()
    wait_until(lambda: a.health().ok)
    a["k"] = 1
    assert a["k"] == 1


def test_fusioncache_removal_by_many_tags_keeps_values_of_others(open_cache: Opener) -> None:
    """A value goes with any of its tags, on every node; the tags may be used again at once."""
    a, b = open_cache(), open_cache()
    for number in range(6):
        a.set(number, number, tags=[f"mod2:{number % 2}", f"mod3:{number % 3}"])
    assert b.get_many(range(6)) == {number: number for number in range(6)}
    a.invalidate_tag("mod2:1")
    a.invalidate_tag("mod3:2")
    settle(b)
    assert a.get_many(range(6)) == b.get_many(range(6)) == {0: 0, 4: 4}
    a.set(1, "again", tags=["mod2:1"])
    assert b[1] == "again"


def test_fusioncache_expiry_in_the_middle_of_an_operation_is_a_miss(
    open_cache: Opener, redis_server: RedisServer
) -> None:
    """Between finding a value suspect and asking for it, it ends: the factory is asked, on one node."""
    calls: list[Any] = []
    a, b = (open_cache(loader=lambda key: calls.append(key) or len(calls)) for _ in range(2))
    assert a["k"] == b["k"] == 1
    for cache in (a, b):
        cache.lane_suspect(0)  # type: ignore[attr-defined]  # as after a lost message
    with redis_server.client() as client:
        client.delete(*client.keys("*:v:*"))
    assert (a["k"], b["k"]) == (2, 2)
    assert calls == ["k", "k"]


# -- BentoCache -------------------------------------------------------------------------------------------------------


def test_bentocache_errors_of_l2_are_suppressed_or_not_as_one_likes(
    open_cache: Opener, redis_server: RedisServer
) -> None:
    """``suppressL2Errors`` both ways."""
    loud = open_cache(timeout=0.3)
    quiet = open_cache(timeout=0.3, on_error="queue")
    redis_server.kill()
    for change in (lambda c: c.set("k", 1), lambda c: c.invalidate("k"), lambda c: c.delete_many(["k"])):
        with pytest.raises(nearcache.CacheError):
            change(loud)
        change(quiet)
    assert quiet.stats().coherence.owed == 1


def test_bentocache_one_tier_alone_does_what_both_do(open_cache: Opener) -> None:
    """Memory without L2, and L2 without memory to speak of."""
    for cache in (nearcache.open("memory://"), open_cache(maxsize=1)):
        cache.set_many({"a": None, "b": 2})
        assert cache.get_many(["a", "b", "c"]) == {"a": None, "b": 2}
        assert cache.get_or_load("c", lambda _: 3) == 3
        assert cache.invalidate("a")
        assert (cache.get("a", "gone"), cache["b"]) == ("gone", 2)


# -- Hazelcast --------------------------------------------------------------------------------------------------------


def test_hazelcast_execute_on_key_is_seen_by_every_near_cache(open_cache: Opener) -> None:
    """An entry processor is ``compute``: where it runs, copies elsewhere go."""
    nodes = [open_cache() for _ in range(3)]
    nodes[0]["k"] = 1
    assert [node["k"] for node in nodes] == [1, 1, 1]
    assert nodes[1].compute("k", lambda value: value + 1) == 2
    settle(*nodes)
    assert [node["k"] for node in nodes] == [2, 2, 2]


def test_hazelcast_serialization_count_is_one_each_way(open_cache: Opener) -> None:
    """A value is encoded where it is stored and decoded once where it is first read; hits do neither."""
    ours, theirs = Codec(), Codec()
    a, b = open_cache(codec=ours), open_cache(codec=theirs)
    a["k"] = "v"
    settle(b)
    for _ in range(3):
        assert (a["k"], b["k"]) == ("v", "v")
    assert (ours.dumped, ours.loaded, theirs.dumped, theirs.loaded) == (1, 0, 0, 1)


def test_hazelcast_stale_read_detector_never_serves_an_entry_of_a_lost_sequence(open_cache: Opener) -> None:
    """A gap makes all of the partition suspect: what is still right costs a header, what is not is read anew."""
    a, b = open_cache(), open_cache()
    a.set_many({"same": 1, "changed": 1})
    settle(b)
    assert b.get_many(["same", "changed"]) == {"same": 1, "changed": 1}
    before = b.stats()
    b.lane_suspect(0)  # type: ignore[attr-defined]  # what a gap does
    a["changed"] = 2
    settle(b)
    assert (b["same"], b["changed"]) == (1, 2)
    after = b.stats()
    assert after.l2.revalidated - before.l2.revalidated == 1
