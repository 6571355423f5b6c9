"""A cache on a real Redis Cluster: every verb, two processes' worth of caches, and the URL at the door."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ConfigError, ShardUnavailableError, WrongTopologyError
from nearcache.keys import encode_key, slot_of
from nearcache.l2 import scripts
from nearcache.placement import CLUSTER_LANES, cluster_prefixes
from support.cluster import RedisCluster
from support.redis import CLIENT_TLS, Binary, RedisServer
from support.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = Path(scripts.__file__).parent
#: On a machine that is busy with other things.
PATIENCE = 10.0
Opener = Callable[..., Cache[Any, Any]]


@pytest.fixture
def open_cache(redis_cluster: RedisCluster, request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Open caches on the cluster, in a namespace of the test's own."""
    opened: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> Cache[Any, Any]:
        name = request.node.name.replace("[", ".").replace("]", "")[-64:]
        chosen = {"namespace": name, "timeout": PATIENCE, "connect_timeout": PATIENCE} | options
        opened.append(nearcache.open(redis_cluster.url(), **chosen))
        wait_until(lambda: opened[-1].health().ok, PATIENCE, what="live on all nodes")
        return opened[-1]

    yield opener
    for cache in opened:
        cache.close()


@pytest.fixture
def pair(open_cache: Opener) -> tuple[Cache[Any, Any], Cache[Any, Any]]:
    """Two caches of one namespace."""
    return open_cache(), open_cache()


def gone(cache: Cache[Any, Any], key: Any) -> None:
    """Wait until a cache has heard that a key changed."""
    wait_until(lambda: cache.peek(key, None) is None, PATIENCE, what=f"{key!r} gone from L1")


# -- names and places --------------------------------------------------------------------------------------------


def test_consistency_by_lane_catches_up_on_every_lane(open_cache: Opener) -> None:
    """Each of the lanes tells for itself where it stands, in the batch of its node."""
    ours, theirs = open_cache(consistency="lane"), open_cache(consistency="lane")
    keys = [f"key {number}" for number in range(200)]

    def are_served(cache: Cache[Any, Any], value: int) -> bool:
        return cache.get_many(keys) == dict.fromkeys(keys, value) and all(cache.peek(key) == value for key in keys)

    for value in range(3):
        ours.set_many(dict.fromkeys(keys, value))
        assert ours.get_many(keys) == dict.fromkeys(keys, value)
        theirs.wait_for(ours.token())
        assert theirs.get_many(keys) == dict.fromkeys(keys, value)
        wait_until(partial(are_served, ours, value))
        wait_until(partial(are_served, theirs, value))
    assert ours.health().ok


def test_names_every_key_of_a_lane_is_in_the_lanes_slot(redis_cluster: RedisCluster, open_cache: Opener) -> None:
    """The number in the name puts it there, as the servers count slots; keys go to a lane by their own slot."""
    cache = open_cache()
    keys = [f"key {number}" for number in range(300)]
    cache.set_many(dict.fromkeys(keys, "value"))
    prefixes = cluster_prefixes(cache.settings.namespace)
    node = redis_cluster.nodes[0]
    for lane in (0, 1, 31, 63):
        assert int(node.cli("CLUSTER", "KEYSLOT", prefixes[lane] + b"L")) == lane * 256
    for key in keys[:20]:
        encoded = encode_key(key)
        lane = slot_of(encoded) % CLUSTER_LANES
        with redis_cluster.owner_of(lane * 256).client() as client:
            assert client.execute_command("EXISTS", prefixes[lane] + b"v:" + encoded) == 1


def test_lanes_are_spread_over_all_nodes(redis_cluster: RedisCluster, open_cache: Opener) -> None:
    """Each of three primaries has about a third of them."""
    cache = open_cache()
    lanes = {shard.name for shard in cache.health().shards}
    assert lanes == {node.address for node in redis_cluster.primaries()}
    found = cache.selftest()
    assert found.ok
    assert len(found.shards) == CLUSTER_LANES


# -- the verbs ---------------------------------------------------------------------------------------------------


def test_verbs_single_keys_do_what_they_do_elsewhere(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """And what one cache does, the other sees."""
    ours, theirs = pair
    ours["k"] = 1
    assert theirs["k"] == 1
    ours.set("k", 2, ttl=60)
    gone(theirs, "k")
    assert theirs.get("k") == 2
    assert "k" in theirs
    value, version = theirs.gets("k")
    assert (value, theirs.cas("k", 3, version), theirs.cas("k", 4, version)) == (2, True, False)
    gone(ours, "k")
    assert ours.add("k", 9) is False
    assert ours.add("new", 9) is True
    assert ours.replace("new", 10) is True
    assert [ours.incr("n"), theirs.incr("n", 5)] == [1, 6]
    gone(ours, "n")
    assert ours["n"] == 6
    assert ours.touch("k", ttl=30)
    assert ours.get_and_set("k", "x") == 3
    assert ours.get_and_delete("k") == "x"
    gone(theirs, "k")
    assert theirs.get("k") is None
    assert theirs.setdefault("k", 5) == 5
    assert ours.pop("k") == 5
    del theirs["new"]
    gone(ours, "new")
    with pytest.raises(KeyError):
        ours["new"]


def test_verbs_many_keys_over_all_lanes(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """One request for each node, whatever the number of lanes."""
    ours, theirs = pair
    values = {("k", number): f"value {number}" for number in range(500)}
    ours.set_many(values)
    assert theirs.get_many([*values, "missing"]) == values
    ours.delete_many(list(values)[:250])
    wait_until(lambda: all(theirs.peek(key, None) is None for key in list(values)[:250]), PATIENCE, what="heard of all")
    assert theirs.get_many(values) == dict(list(values.items())[250:])


def test_scan_walks_through_every_lane(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """Each node is asked for the keys of its lanes, and for those only."""
    cache, other = pair
    keys = {f"walked {n}" for n in range(150)}
    cache.set_many(dict.fromkeys(keys, 1))
    cache["another"] = 1
    assert set(other.scan("walked ")) == keys
    assert {"another", *keys} <= set(other.scan())


def test_verbs_large_values_pass_through_staging(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """The staged key lies in the lane's slot too."""
    ours, theirs = pair
    ours.set_many({"a": b"x" * 300_000, "b": b"y" * 20_000, "c": b"z"})
    assert [len(theirs[key]) for key in "abc"] == [300_000, 20_000, 1]


def test_clear_empties_every_lane(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """Of every node, in every process."""
    ours, theirs = pair
    values = dict.fromkeys(range(200), "old")
    ours.set_many(values)
    assert theirs.get_many(values) == values
    ours.clear()
    wait_until(lambda: not theirs.get_many(values), PATIENCE, what="cleared elsewhere")
    assert ours.get_many(values) == {}
    ours[1] = "new"
    assert theirs[1] == "new"


def test_tags_end_values_on_all_nodes(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """The tag's record is on one node, and the values on all."""
    ours, theirs = pair
    values = dict.fromkeys(range(100), "tagged")
    ours.set_many(values, tags=("catalogue",))
    ours["other"] = "stays"
    assert theirs.get_many(values) == values
    ours.invalidate_tag("catalogue")
    assert ours.get_many(values) == {}
    wait_until(lambda: not theirs.get_many(values), PATIENCE, what="invalidated elsewhere")
    assert theirs["other"] == "stays"


def test_loader_one_load_for_all(open_cache: Opener) -> None:
    """The lease, its renewal and the message that wakes who waits pass through the cluster."""
    calls: list[Any] = []

    def load(key: Any) -> str:
        calls.append(key)
        return f"loaded {key}"

    ours, theirs = open_cache(loader=load), open_cache(loader=load)
    assert [ours["a"], theirs["a"], ours.get_or_load("a")] == ["loaded a"] * 3
    assert calls == ["a"]
    ours.invalidate("a")
    gone(theirs, "a")
    assert theirs["a"] == "loaded a"
    assert calls == ["a", "a"]


def test_hold_keeps_values_out(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """While the data behind keys on several nodes change, nothing is stored under them."""
    ours, theirs = pair
    keys = list(range(10))
    ours.set_many(dict.fromkeys(keys, "old"))
    with ours.hold(keys):
        assert theirs.get_many(keys) == {}
        theirs.set_many(dict.fromkeys(keys, "too early"))
        assert theirs.get_many(keys) == {}
    theirs.set_many(dict.fromkeys(keys, "new"))
    assert ours.get_many(keys) == dict.fromkeys(keys, "new")


def test_token_makes_another_cache_catch_up(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """A token names the lanes that were changed."""
    ours, theirs = pair
    keys = list(range(50))
    for round_number in range(3):
        ours.set_many(dict.fromkeys(keys, round_number))
        theirs.wait_for(ours.token())
        assert theirs.get_many(keys) == dict.fromkeys(keys, round_number)


def test_aio_does_the_same(open_cache: Opener) -> None:
    """Over the same nodes, with connections of its own."""
    cache, other = open_cache(), open_cache()

    async def scenario() -> None:
        view = cache.aio
        await view.set("k", 1)
        assert await view.get("k") == 1
        assert await other.aio.get("k") == 1
        await view.set_many({number: number for number in range(200)})
        assert await other.aio.get_many(range(200)) == {number: number for number in range(200)}
        other.drop_all()
        assert await asyncio.gather(*map(other.aio.get, range(200))) == list(range(200))
        assert await view.incr("n") == 1
        await view.set("t", 1, tags=("tag",))
        await view.invalidate_tag("tag")
        assert await view.get("t") is None
        async with view.hold(["k"]):
            assert await view.get("k") is None
        calls: list[Any] = []

        async def load(key: Any) -> str:
            calls.append(key)
            return "loaded"

        found = await asyncio.gather(*(view.get_or_load("cold", loader=load) for _ in range(20)))
        assert (found, calls) == (["loaded"] * 20, ["cold"])
        await view.invalidate("cold")
        await view.clear()
        assert await view.get_many(range(200)) == {}

    asyncio.run(scenario())


def test_cache_closed_leaves_nothing_behind(redis_cluster: RedisCluster, no_leaks: None) -> None:
    """No thread, no connection, to whichever node."""
    with nearcache.open(redis_cluster.url(), namespace="leaks", timeout=PATIENCE) as cache:
        cache.set_many(dict.fromkeys(range(100), 1))
        asyncio.run(cache.aio.get_many(range(100)))


def test_rights_of_a_cache_user_suffice(redis_cluster: RedisCluster) -> None:
    """The documented line, and what the documentation adds for a cluster."""
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ACL SETUSER app (.*)$", text, re.MULTILINE)
    (few, more) = re.findall(r"A cache user needs `(\+cluster.*?)` beside .*?`(\+spublish.*?)`", text)[0]
    rights = [*line.replace(">PASSWORD", ">secret").split(), *few.split(), *more.split()]
    for node in redis_cluster.nodes:
        redis_cluster.ask(node, "ACL", "SETUSER", "app", *rights)
        redis_cluster.ask(node, "ACL", "LOG", "RESET")
    try:
        url = redis_cluster.url(user="app:secret@")
        with nearcache.open(url, namespace="rights", require_coherence=True, timeout=PATIENCE) as cache:
            cache.set_many({"a": 1, "large": b"x" * 100_000}, tags=("t",))
            assert cache.get_or_load("b", lambda key: key) == "b"
            with cache.hold(["a"]):
                assert cache.get("a") is None
            assert cache.incr("n") == 1
            assert cache.touch("n", ttl=10)
            for node in redis_cluster.nodes:
                redis_cluster.ask(node, "ACL", "SETUSER", "app", "+scan")
            assert set(cache.scan()) == {"large", "b", "n"}
            cache.invalidate_tag("t")
            cache.clear()
        refused = [redis_cluster.ask(node, "ACL", "LOG") for node in redis_cluster.nodes]
        assert not any(b"client|no-evict" not in entry for log in refused for entry in log)
    finally:
        for node in redis_cluster.nodes:
            redis_cluster.ask(node, "ACL", "DELUSER", "app")


def test_invalidation_by_redis_cli_finds_the_node(redis_cluster: RedisCluster, open_cache: Opener) -> None:
    """The same file, with the names of the key's lane."""
    cache = open_cache(namespace="shop")
    cache["sku:1"] = "a"
    node = next(node for node in redis_cluster.primaries() if node is not redis_cluster.owner_of(49 * 256))
    prefix = "nc:{shop:49-24828}:"  # as docs/wire.md has it
    keys = [f"{prefix}v:ssku:1", f"{prefix}l:ssku:1", f"{prefix}L", ",", "1", "00000000000000a1", "00000000000000a2"]
    cli = shutil.which("redis-cli") or str(Path(node.binary.path).with_name("redis-cli"))
    command = [cli, "-c", "-h", node.host, "-p", str(node.port), "--eval", str(SCRIPTS / "cli_invalidate.lua")]
    subprocess.run([*command, *keys], check=True, capture_output=True, timeout=30)
    gone(cache, "sku:1")
    assert cache.get("sku:1") is None
    assert cache.selftest().ok


# -- the door ----------------------------------------------------------------------------------------------------


def test_url_of_a_cluster_without_its_scheme_is_refused(redis_cluster: RedisCluster) -> None:
    """It would answer half of all keys with MOVED."""
    address = redis_cluster.nodes[0].address
    with pytest.raises(WrongTopologyError, match=rf"redis\+cluster://{address}"):
        nearcache.open(f"redis://{address}")


def test_url_of_a_cluster_for_a_single_server_is_refused(make_redis: Callable[..., RedisServer]) -> None:
    """The error says how to open it."""
    server = make_redis(transport="tcp")
    with pytest.raises(WrongTopologyError, match=f"redis://{server.address}"):
        nearcache.open(f"redis+cluster://{server.address}")


@pytest.mark.parametrize(("url", "options"), [("/3", {}), ("", {"db": 3}), ("?db=1", {}), ("/shop", {})])
def test_url_database_other_than_0_is_refused(url: str, options: dict[str, Any]) -> None:
    """A cluster has one only."""
    with pytest.raises(ConfigError, match="database"):
        nearcache.open(f"redis+cluster://localhost{url}", **options)


def test_open_without_any_node_starts_dark(caplog: pytest.LogCaptureFixture) -> None:
    """As with every topology: a service can start while its Redis is down."""
    with (
        caplog.at_level(logging.WARNING, "nearcache"),
        nearcache.open("redis+cluster://127.0.0.1:1", connect_timeout=0.2, timeout=0.2) as cache,
    ):
        assert "no node of the cluster answered" in caplog.text
        assert cache.get("k") is None
        with pytest.raises(ShardUnavailableError):
            cache["k"] = 1
        assert not cache.health().ok


# -- other servers, other ways in --------------------------------------------------------------------------------


@pytest.mark.slow
def test_oldest_server_messages_go_by_plain_publish(server_binary: Binary, newest_binary: Binary) -> None:
    """Where there are no sharded messages, invalidations arrive all the same."""
    if server_binary == newest_binary:
        return  # all the other tests
    with (
        RedisCluster(server_binary) as cluster,
        nearcache.open(cluster.url(), require_coherence=True, timeout=PATIENCE) as ours,
        nearcache.open(cluster.url(), require_coherence=True, timeout=PATIENCE) as theirs,
    ):
        ours.set_many(dict.fromkeys(range(100), "old"))
        assert len(theirs.get_many(range(100))) == 100
        ours.set_many(dict.fromkeys(range(100), "new"))
        wait_until(lambda: set(theirs.get_many(range(100)).values()) == {"new"}, PATIENCE, what="heard of all")
        slot = 5 * 256
        cluster.move(slot, next(node for node in cluster.primaries() if node is not cluster.owner_of(slot)))
        wait_until(lambda: theirs.selftest().ok and ours.selftest().ok, 10, what="followed")
        assert set(theirs.get_many(range(100)).values()) == {"new"}


@pytest.mark.slow
def test_tls_and_password_reach_every_node(newest_binary: Binary) -> None:
    """What the URL says of one node holds for all."""
    options = {"requirepass": "s3cret", "masterauth": "s3cret"}
    with RedisCluster(newest_binary, transport="tls", options=options, replicas=0) as cluster:
        url = cluster.url(scheme="rediss+cluster", user=":s3cret@", nodes=1)
        files = {**CLIENT_TLS, "ssl_check_hostname": False, "timeout": PATIENCE, "connect_timeout": PATIENCE}
        with nearcache.open(url, require_coherence=True, **files) as cache:
            cache.set_many(dict.fromkeys(range(100), "safe"))
            assert len(cache.get_many(range(100))) == 100
            assert len(cache.health().shards) == 3
        tokens = ["s3cret"] * 50
        with nearcache.open(url.replace(":s3cret@", ""), password=tokens.pop, **files) as cache:
            assert len(cache.get_many(range(100))) == 100
            assert cache.selftest().ok
            assert len(tokens) < 50 - 3  # of each node, and by whoever looks for them
        with pytest.raises(nearcache.AuthenticationFailedError):
            nearcache.open(url.replace("s3cret", "wrong"), **files)


def test_changes_are_written_through_and_behind_on_every_lane(open_cache: Opener) -> None:
    """Value, record and mark of a key lie in one slot, whichever; verbs, deletions and dead letters as elsewhere."""
    rows: dict[Any, Any] = {}

    def save(key: Any, value: Any) -> None:
        if value == "poison":
            raise ValueError(value)
        rows[key] = value

    writer = nearcache.Writer(write=save, delete=lambda key: rows.pop(key, None))
    keys = [f"k{number}" for number in range(200)]
    cache = open_cache(writer=writer, write_delay=0.05, write_attempts=1)
    cache.set_many(dict.fromkeys(keys, 1))
    assert cache.incr(keys[0]) == 2
    del cache[keys[1]]
    cache["bad"] = "poison"
    cache.flush(30)
    assert rows == dict.fromkeys(keys[2:], 1) | {keys[0]: 2}
    (letter,) = cache.dead_letters()
    assert cache.discard_dead_letters([letter.id]) == 1
    through = open_cache(writer=writer, namespace="through")
    through.set_many(dict.fromkeys(keys, 3))
    assert rows == dict.fromkeys(keys, 3)
    assert through.get_many(keys) == rows


def test_seed_that_was_taken_out_of_the_cluster_is_passed_over(
    redis_cluster: RedisCluster, make_redis: Callable[..., RedisServer]
) -> None:
    """It answers, and knows of nobody; the other seed does."""
    left = make_redis(transport="tcp", options={"cluster-enabled": "yes"})
    url = redis_cluster.url().replace("://", f"://{left.address},")
    with nearcache.open(url, namespace="left", timeout=PATIENCE) as cache:
        for key in range(100):
            cache[key] = key
        assert cache.get_many(range(100)) == dict(zip(range(100), range(100), strict=True))
