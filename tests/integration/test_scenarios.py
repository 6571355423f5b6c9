"""What other two-level caches promise and test, as scenarios of our own.

FusionCache, BentoCache, Hazelcast's near cache and cashews, as far as they are concerned with the same things.
Nodes are caches on one server, as processes would have them. Nobody sleeps: a node's ``selftest`` comes back when all
that was announced before it has been applied; before that, what a node reads of it is returned and need not be kept.
Where nearcache means to behave otherwise, docs/decisions.md says so.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import BulkError, CoherenceError, LoadTimeoutError
from support.redis import Binary, RedisServer
from support.threads import PATIENCE, together
from support.waiting import wait_until

Nodes = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def shared_server(newest_binary: Binary) -> Iterator[RedisServer]:
    """One server for all scenarios that do not harm it."""
    with RedisServer(newest_binary) as server:
        yield server


@pytest.fixture
def own_server(newest_binary: Binary) -> Iterator[RedisServer]:
    """A server that may be harmed."""
    with RedisServer(newest_binary) as server:
        yield server


def _opener(server: RedisServer, opened: list[Any]) -> Nodes:
    def opener(count: int = 3, **options: Any) -> list[Any]:
        made = [nearcache.open(server.url, **options) for _ in range(count)]
        opened.extend(made)
        return made

    return opener


@pytest.fixture
def nodes(shared_server: RedisServer) -> Iterator[Nodes]:
    """A function that opens some nodes on an empty server; they are closed at the end."""
    opened: list[Any] = []
    shared_server.client().flushall()
    yield _opener(shared_server, opened)
    for node in opened:
        node.close()


@pytest.fixture
def doomed(own_server: RedisServer) -> Iterator[Nodes]:
    """The same on a server that may be harmed, with bounds that are short enough to see it."""
    opened: list[Any] = []
    opener = _opener(own_server, opened)
    yield lambda count=3, **options: opener(count, **{"max_staleness": 0.4, "timeout": 0.3} | options)
    for node in opened:
        node.close()


def settle(*caches: Any) -> None:
    """Wait until these nodes have applied all that has been announced so far."""
    for cache in caches:
        assert cache.selftest(PATIENCE).ok


def recover(*caches: Any) -> None:
    """Wait until these nodes follow their server again, and owe it nothing."""
    for cache in caches:
        wait_until(lambda node=cache: node.health().ok and not node.stats().coherence.owed, 20, what="recovery")


# -- FusionCache: L1, L2 and backplane ---------------------------------------------------------------------------------


def test_fusioncache_update_on_one_node_is_seen_by_all(nodes: Nodes) -> None:
    """Backplane works: the others re-read what they had."""
    a, b, c = nodes()
    a["k"] = 21
    assert (b["k"], c["k"]) == (21, 21)
    b["k"] = 42
    settle(a, c)
    assert a.peek("k") is c.peek("k") is None
    assert (a["k"], c["k"]) == (42, 42)


def test_fusioncache_nodes_with_a_size_limit_stay_coherent(nodes: Nodes) -> None:
    """What made room is read again, and what is read is what is current."""
    a, b = nodes(2, maxsize=2, policy="lru")
    a.set_many({number: number for number in range(6)})
    assert b.get_many(range(6)) == {number: number for number in range(6)}
    a.set_many({number: -number for number in range(6)})
    settle(b)
    assert [b[number] for number in range(6)] == [0, -1, -2, -3, -4, -5]
    assert len(a) == len(b) == 2


def test_fusioncache_removal_on_one_node_removes_on_all(nodes: Nodes) -> None:
    """Remove and expire alike: there is no logically expired copy to fall back on."""
    a, b, c = nodes()
    a["k"] = 1
    assert b["k"] == c["k"] == 1
    assert b.invalidate("k")
    settle(a, c)
    assert [node.get("k") for node in (a, b, c)] == [None] * 3


def test_fusioncache_tag_removes_on_all_nodes_and_only_in_its_cache(nodes: Nodes) -> None:
    """Remove by tag: what has it goes everywhere, what has others stays, and another cache has tags of its own."""
    a, b = nodes(2, namespace="one")
    (other,) = nodes(1, namespace="two")
    for cache in (a, other):
        cache.set("x", 1, tags=["t", "u"])
        cache.set("y", 2, tags=["u"])
    assert b.get_many([*"xy"]) == {"x": 1, "y": 2}
    a.invalidate_tag("t")
    settle(b, other)
    assert b.get_many([*"xy"]) == a.get_many([*"xy"]) == {"y": 2}
    assert other.get_many([*"xy"]) == {"x": 1, "y": 2}


def test_fusioncache_clear_holds_for_nodes_that_start_later(nodes: Nodes) -> None:
    """Clear, with cold starts: a node that was not there then serves nothing of before."""
    a, b = nodes(2)
    a.set_many({"x": 1, "y": 2})
    assert b.get_many([*"xy"]) == {"x": 1, "y": 2}
    a.clear()
    a["y"] = 3
    (late,) = nodes(1)
    settle(b)
    assert [node.get_many([*"xy"]) for node in (a, b, late)] == [{"y": 3}] * 3


def test_fusioncache_value_of_one_node_is_loaded_by_no_other(nodes: Nodes) -> None:
    """L1 and L2: who comes second finds it in L2, and then in its own memory."""
    a, b, _ = nodes()
    assert a.get_or_load("k", lambda _: "loaded by a") == "loaded by a"
    assert b.get_or_load("k", lambda _: pytest.fail("b loads")) == "loaded by a"
    assert b.peek("k") == "loaded by a"


def test_fusioncache_memory_lives_no_longer_than_l2(nodes: Nodes) -> None:
    """Memory expiry aligned with L2's, and bounded by a duration of its own."""
    a, b = nodes(2)
    (brief,) = nodes(1, l1_ttl=5)
    a.set("k", 1, ttl=20)
    settle(b, brief)
    assert b["k"] == brief["k"] == 1
    assert 0 < b.remaining_ns("k") <= 20.1e9
    assert 0 < brief.remaining_ns("k") <= 5.1e9


def test_fusioncache_value_of_another_wire_version_is_a_miss(nodes: Nodes, shared_server: RedisServer) -> None:
    """It is loaded and replaced, and nobody sees an error."""
    (a,) = nodes(1, namespace="wire")
    a["k"] = "current"
    a.drop("k")
    name = b"nc:{wire:0}:v:sk"
    shared_server.client().set(name, b"\xc9" + shared_server.client().get(name)[1:], px=60_000)
    assert a.get("k") is None
    assert a.get_or_load("k", lambda _: "new") == "new"
    assert a.stats().l2.undecodable > 0


def test_fusioncache_removal_in_the_middle_of_a_load_wins(nodes: Nodes) -> None:
    """What a node was loading when another removed the key is returned and kept nowhere."""
    a, b = nodes(2)
    loading, go = threading.Event(), threading.Event()
    answers: list[Any] = []

    def load(_: Any) -> str:
        loading.set()
        assert go.wait(PATIENCE)
        return "old"

    thread = threading.Thread(target=lambda: answers.append(a.get_or_load("k", load)))
    thread.start()
    assert loading.wait(PATIENCE)
    b.invalidate("k")
    go.set()
    thread.join(PATIENCE)
    assert answers == ["old"]
    settle(a)
    assert (a.get("k"), b.get("k")) == (None, None)


def test_fusioncache_stampede_calls_one_factory_on_many_nodes(nodes: Nodes) -> None:
    """However many threads of however many nodes ask at once."""
    members, calls, answers = nodes(), [], []

    def load(key: Any) -> Any:
        calls.append(key)
        return object.__name__

    together(lambda number: answers.append(members[number % 3].get_or_load("k", load)), 9)
    assert (calls, answers) == (["k"], ["object"] * 9)


def test_fusioncache_fail_safe_serves_the_old_value_when_the_factory_fails(nodes: Nodes) -> None:
    """Between the soft end and the hard one, and the failure is counted."""
    (a,) = nodes(1, ttl=3600, soft_ttl=1800)
    failed = threading.Event()

    def fail(_: Any) -> Any:
        failed.set()
        raise ZeroDivisionError

    a["k"] = "old"
    a.drop("k")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nearcache.freshness.Freshness.due_ms", lambda *_: 0)
        assert a.get_or_load("k", fail) == "old"
        assert failed.wait(PATIENCE)
        wait_until(lambda: a.stats().loader.errors == 1)
        assert a.get("k") == "old"


def test_fusioncache_hard_timeout_leaves_the_factory_running(nodes: Nodes) -> None:
    """Nobody waits longer, and what it brings in the end is kept for all nodes."""
    a, b = nodes(2, loader_timeout=0.05)
    go = threading.Event()

    def slow(_: Any) -> int:
        assert go.wait(PATIENCE)
        return 1

    with pytest.raises(LoadTimeoutError):
        a.get_or_load("k", slow)
    go.set()
    assert wait_until(lambda: b.get("k")) == 1


def test_fusioncache_adaptive_caching_takes_the_duration_from_the_value(nodes: Nodes) -> None:
    """Each value may live as long as it says."""
    a, b = nodes(2)
    for name, seconds in (("short", 5), ("long", 500)):
        a.get_or_load(name, lambda _, s=seconds: {"lives": s}, ttl=lambda _, value: value["lives"])
    assert b.get_many(["short", "long"])["long"] == {"lives": 500}
    assert b.remaining_ns("short") <= 5.1e9 < b.remaining_ns("long")


def test_fusioncache_auto_recovery_makes_up_for_what_an_outage_swallowed(
    doomed: Nodes, own_server: RedisServer
) -> None:
    """L2 and backplane are out: reads go on, changes are no errors, and afterwards all nodes agree."""
    a, b = doomed(2, on_error="queue")
    a["k"] = 1
    assert b["k"] == 1
    own_server.pause()
    try:
        a["k"] = 2
        assert a.get_or_load("other", lambda _: "loaded") == "loaded"
    finally:
        own_server.resume()
    recover(a, b)
    settle(a, b)
    assert (a.get("k"), b.get("k")) in [(None, None), (2, 2)]


# -- BentoCache: tiers and bus ----------------------------------------------------------------------------------------


def test_bentocache_null_is_a_value_in_both_tiers(nodes: Nodes) -> None:
    """It is stored, found, and not loaded again."""
    a, b = nodes(2)
    assert a.get_or_load("k", lambda _: None) is None
    assert b.get_or_load("k", lambda _: pytest.fail("None is no miss")) is None
    assert ("k" in b, b.peek("k", "default")) == (True, None)


def test_bentocache_bus_carries_any_key(nodes: Nodes) -> None:
    """UTF-8, bytes, numbers, tuples: what one node changes the other drops."""
    a, b = nodes(2)
    keys = ["żółć", "🚀" * 40, "", "a\0b\r\n", b"\xff\x00", 2**70, -1, 1.5, None, ("t", 1, (b"x",))]
    a.set_many(dict.fromkeys(keys, 1))
    assert len(b.get_many(keys)) == len(keys)
    for key in keys:
        a[key] = 2
    settle(b)
    assert [b.peek(key) for key in keys] == [None] * len(keys)
    assert b.get_many(keys) == dict.fromkeys(keys, 2)


def test_bentocache_namespaces_are_cleared_apart(nodes: Nodes) -> None:
    """Views in one cache, and caches with namespaces of their own."""
    a, b = nodes(2)
    (other,) = nodes(1, namespace="other")
    a.view("users")[1] = a.view("carts")[1] = other["k"] = 1
    assert b.view("users")[1] == b.view("carts")[1] == 1
    a.view("users").clear()
    settle(b, other)
    assert (b.view("users").get(1), b.view("carts").get(1), other["k"]) == (None, 1, 1)
    a.clear()
    settle(b, other)
    assert (b.view("carts").get(1), other["k"]) == (None, 1)


def test_bentocache_delete_many_clears_its_own_memory_when_l2_fails(doomed: Nodes, own_server: RedisServer) -> None:
    """It says which keys, and this node serves none of them."""
    (a,) = doomed(1)
    a.set_many({"x": 1, "y": 2, "z": 3})
    own_server.pause()
    try:
        with pytest.raises(BulkError):
            a.delete_many(["x", "y"])
        assert [a.peek(key) for key in "xy"] == [None, None]
    finally:
        own_server.resume()
    recover(a)
    assert a.get_many([*"xyz"]) == {"z": 3}


def test_bentocache_retries_bring_nodes_together_that_wrote_apart(doomed: Nodes, own_server: RedisServer) -> None:
    """Three nodes write one key while nothing passes; afterwards none of them has what the others have not."""
    members = doomed(3, on_error="queue")
    own_server.pause()
    try:
        together(lambda number: members[number].set("k", number), 3)
    finally:
        own_server.resume()
    recover(*members)
    settle(*members)
    assert len({member.get("k") for member in members}) == 1


# -- Hazelcast: near cache and its invalidations -----------------------------------------------------------------------


def test_hazelcast_own_change_does_not_drop_the_own_copy(nodes: Nodes) -> None:
    """The writer keeps what it wrote; of two writers the later one's value stands in both."""
    a, b = nodes(2)
    a["k"] = 1
    settle(a)
    assert a.peek("k") == 1
    b["k"] = 2
    settle(a, b)
    assert (a.peek("k"), b.peek("k")) == (None, 2)


def test_hazelcast_near_cache_is_filled_by_reads_and_own_writes_only(nodes: Nodes) -> None:
    """A put elsewhere pushes no value, and a key that nobody here has costs nothing."""
    a, b = nodes(2)
    a.set_many({"x": 1, "y": 2})
    settle(b)
    assert len(b) == 0
    assert b["x"] == 1
    assert list(b) == ["x"]


def test_hazelcast_batches_of_invalidations_reach_every_key(nodes: Nodes) -> None:
    """More keys than a message holds, stored and deleted at once."""
    a, b = nodes(2)
    keys = [f"key {number}" for number in range(1000)]
    a.set_many(dict.fromkeys(keys, 1))
    settle(b)
    assert len(b.get_many(keys)) == len(b) == 1000
    a.set_many(dict.fromkeys(keys[:500], 2))
    a.delete_many(keys[500:])
    settle(b)
    assert len(b) == 0
    assert b.get_many(keys) == dict.fromkeys(keys[:500], 2)


def test_hazelcast_lost_invalidations_are_found_and_every_key_agrees_in_the_end(
    doomed: Nodes, own_server: RedisServer
) -> None:
    """Random changes while subscriptions are cut at random, and messages are forged: then each node tells the truth."""
    members, chance = doomed(3), random.Random(20)
    client = own_server.client()
    truth: dict[int, int] = {}
    for step in range(400):
        node, key = chance.choice(members), chance.randrange(40)
        if chance.random() < 0.5:
            node[key] = truth[key] = step
        elif chance.random() < 0.2:
            node.invalidate(key)
            truth.pop(key, None)
        else:
            node.get(key)
        if step % 50 == 25:
            client.client_kill_filter(_type="pubsub")
        elif step % 50 == 49:
            client.publish("nc:{default:0}:i", f"I {0:016x} 7 {0:016x} {step:016x}\n")
    recover(*members)
    settle(*members)
    for member in members:
        assert {key: member.get(key) for key in range(40)} == {key: truth.get(key) for key in range(40)}


def test_hazelcast_member_that_is_lost_and_added_leaves_no_stale_entry(doomed: Nodes, own_server: RedisServer) -> None:
    """A server that comes back empty: nothing of before is served by anybody."""
    a, b = doomed(2)
    a.set_many({"x": 1, "y": 2})
    assert b.get_many([*"xy"]) == {"x": 1, "y": 2}
    own_server.kill()
    own_server.restart()
    recover(a, b)
    a["x"] = 3
    settle(a, b)
    assert [node.get_many([*"xy"]) for node in (a, b)] == [{"x": 3}] * 2


def test_hazelcast_clear_leaks_nothing(nodes: Nodes) -> None:
    """What was cleared elsewhere is let go of when it is met, and what is stored anew is all there is."""
    a, b = nodes(2)
    a.set_many({number: bytes(100) for number in range(200)})
    assert len(b.get_many(range(200))) == 200
    a.clear()
    settle(b)
    assert (len(a), list(b), b.get_many(range(200))) == (0, [], {})
    b["k"] = 1
    assert (len(b), list(b)) == (1, ["k"])


# -- cashews: client-side cache, through asyncio ----------------------------------------------------------------------


def test_cashews_set_rewrite_delete_and_none_reach_the_other_client(nodes: Nodes) -> None:
    """bcast set, rewrite, delete, none."""
    first, second = nodes(2)

    async def main() -> None:
        a, b = first.aio, second.aio
        await a.set("k", b"value", ttl=60)
        assert await b.get("k") == b"value"
        await b.set("k", b"new", ttl=60)
        await a.selftest()
        assert await a.get("k") == b"new"
        await a.invalidate("k")
        await b.selftest()
        assert await b.get("k") is None
        assert not await b.contains("k")
        await a.set("none", None)
        assert await b.contains("none")
        assert await b.get("none", "default") is None
        assert (await a.incr("n"), await b.incr("n")) == (1, 2)
        await a.selftest()
        assert await a.get("n") == 2

    asyncio.run(main())


def test_cashews_many_keys_and_a_group_of_them(nodes: Nodes) -> None:
    """get_many takes from memory what is there and the rest at once; a group goes by its view, without any scanning."""
    first, second = nodes(2)

    async def main() -> None:
        a, b = first.aio.view("key"), second.aio.view("key")
        await a.set_many({1: "test", 2: "test2"})
        await b.cache.selftest()
        assert await b.get(1) == "test"
        assert await b.get_many([1, 2, 3]) == {1: "test", 2: "test2"}
        assert b.plain.peek(2) == "test2"
        await a.clear()
        await b.cache.selftest()
        assert await b.get_many([1, 2, 3]) == {}

    asyncio.run(main())


def test_cashews_memory_overload_loses_copies_and_no_values(nodes: Nodes) -> None:
    """With room for one."""
    (a,) = nodes(1, maxsize=1)
    a["key1"] = a["key2"] = "test"
    a["key1"] = "test2"
    assert (a["key1"], a["key2"], len(a)) == ("test2", "test", 1)


def test_cashews_redis_that_is_down_is_no_error_unless_coherence_is_required() -> None:
    """A service starts without it, and loads; or it refuses to start, and says why."""
    nowhere = "redis://127.0.0.1:1"
    with nearcache.open(nowhere, timeout=0.2, connect_timeout=0.2) as cache:
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda _: 1) == 1
        assert not cache.health().ok
    with pytest.raises(CoherenceError):
        nearcache.open(nowhere, timeout=0.2, connect_timeout=0.2, require_coherence=True)


def test_cashews_tag_set_does_not_outlive_its_values(nodes: Nodes, shared_server: RedisServer) -> None:
    """There is no list of keys per tag that could grow or leak: one small record, however many values."""
    (a,) = nodes(1, namespace="tags")
    client = shared_server.client()
    for number in range(50):
        a.set(number, number, ttl=60, tags=["tag"])
    assert len(client.keys("nc:{tags:0}:v:!t:*")) == 1
    assert sum(client.memory_usage(name) or 0 for name in client.keys("nc:{tags:0}:v:!t:*")) < 500
    a.invalidate_tag("tag")
    assert a.get_many(range(50)) == {}
