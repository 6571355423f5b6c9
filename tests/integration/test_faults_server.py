"""A whole cache on servers in every state that refuses: in each, an answer or a specific error, and then recovery."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import RedisError

import nearcache
from nearcache import Cache, ServerReplyError, ShardUnavailableError
from support.ordeal import OURS, Ordeal, codes
from support.redis import RedisServer
from support.waiting import wait_until

# The latter before the servers, which some tests start again.
pytestmark = [pytest.mark.every_server, pytest.mark.usefixtures("no_leaks")]

TIMEOUT = 0.5
RECORD = "nc:{default:0}:L"


@contextmanager
def ordeal_on(server: RedisServer, **options: Any) -> Iterator[tuple[Ordeal, Cache[Any, Any]]]:
    """A cache on this server that expects trouble."""
    options = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "max_staleness": 0.4} | options
    with nearcache.open(server.url, **options) as cache, Ordeal(cache, TIMEOUT, server) as ordeal:
        yield ordeal, cache


def dark(cache: Cache[Any, Any]) -> None:
    """Wait until L1 vouches for nothing."""
    wait_until(lambda: not cache.health().shards[0].vouched, 20)


# -- it is not there, or does not answer -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_server_that_is_away_and_comes_back(redis_server: RedisServer, fault: str) -> None:
    """Killed: empty afterwards. Stopped (SIGSTOP): connections stay, nothing answers, and everything is still there."""
    with ordeal_on(redis_server) as (ordeal, cache):
        redis_server.kill() if fault == "killed" else redis_server.pause()
        for _ in range(3):
            assert codes(ordeal.attempt()) == {"ShardUnavailableError"}
        dark(cache)
        assert cache.health().shards[0].last_error
        redis_server.start() if fault == "killed" else redis_server.resume()
        ordeal.recover()
        wait_until(lambda: cache.health().ok)
        assert cache.health().shards[0].last_error == ""


def test_server_that_is_loading_its_data(redis_server: RedisServer) -> None:
    """It accepts connections and answers LOADING; the data it then has are served, checked against its lane record."""
    with ordeal_on(redis_server) as (ordeal, _cache):
        with redis_server.client() as client:
            client.mset({f"filler:{n}": "x" * 160_000 for n in range(400)})  # it looks at its sockets every 2 MB
        redis_server.cli("CONFIG", "SET", "rdbcompression", "no")
        redis_server.save()
        redis_server.kill()
        redis_server.options |= {"key-load-delay": "6000", "rdbcompression": "no"}  # microseconds
        starting = threading.Thread(target=redis_server.start)
        starting.start()
        seen: set[str] = set()

        def loading() -> bool:
            seen.update("LOADING" if "LOADING" in str(error) else "other" for error in ordeal.attempt())
            return "LOADING" in seen

        wait_until(loading, 20)
        starting.join()
        ordeal.recover()


def test_server_without_room_for_clients(redis_server: RedisServer) -> None:
    """Connections are made and refused."""
    with ordeal_on(redis_server) as (ordeal, _cache), redis_server.client(client_name=OURS) as client:
        client.ping()
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub")
        assert codes(ordeal.attempt()) == {"ShardUnavailableError"}
        assert "max number of clients" in str(ordeal.errors[0])
        client.config_set("maxclients", 1000)
        ordeal.recover()


# -- it answers with an error ------------------------------------------------------------------------------------


def test_server_that_is_busy_with_a_script_until_it_is_killed(make_redis: Callable[..., RedisServer]) -> None:
    """BUSY, from reads too; nothing is vouched for, because heartbeats get no other answer. SCRIPT KILL ends it."""
    server = make_redis(options={"lua-time-limit": "20"})
    with ordeal_on(server) as (ordeal, cache):

        def run_for_ever() -> None:
            with suppress(RedisError), server.client(socket_timeout=60) as client:
                client.eval("while true do end", 0)

        running = threading.Thread(target=run_for_ever)
        running.start()
        wait_until(lambda: "BUSY" in codes(ordeal.attempt()), 20)
        dark(cache)
        assert codes(ordeal.attempt()) <= {"BUSY", "ShardUnavailableError"}
        server.cli("SCRIPT", "KILL")
        running.join()
        ordeal.recover()


def test_server_that_forgets_its_scripts(redis_server: RedisServer) -> None:
    """SCRIPT FLUSH costs a round trip, not an error; heartbeats and invalidations go on as well."""
    with ordeal_on(redis_server) as (ordeal, cache):
        for _ in range(5):
            redis_server.cli("SCRIPT", "FLUSH")
            assert ordeal.attempt() == []
        beats = cache.stats().coherence.heartbeats
        redis_server.cli("SCRIPT", "FLUSH")
        wait_until(lambda: cache.stats().coherence.heartbeats > beats + 1)
        assert cache.stats().coherence.resyncs == 1
        ordeal.recover()


RIGHTS = "user nc on >secret resetchannels ~nc:* &nc:* +@all"


def test_user_that_loses_its_rights_and_gets_them_back(make_redis: Callable[..., RedisServer]) -> None:
    """NOPERM, and an end to vouching; no need to open anew when the rights are back."""
    server = make_redis(acl=[RIGHTS])
    with ordeal_on(server, username="nc", password="secret") as (ordeal, cache):
        server.cli("ACL", "SETUSER", "nc", "-@all", "+hello", "+auth", "+info", "+client")
        assert "NOPERM" in codes(ordeal.attempt())
        dark(cache)
        server.cli("ACL", "SETUSER", "nc", "+@all")
        ordeal.recover()


def test_password_that_is_rotated_is_asked_for_again(make_redis: Callable[..., RedisServer]) -> None:
    """Connections outlive the token that they were made with; those that the server ends are made with the next one."""
    server = make_redis(acl=[RIGHTS])
    tokens = ["secret"]
    with ordeal_on(server, username="nc", password=lambda: tokens[-1]) as (ordeal, cache):
        for number in range(5):
            tokens.append(f"token {number}")
            server.cli("ACL", "SETUSER", "nc", f"<{tokens[-2]}", f">{tokens[-1]}")
            assert ordeal.attempt() == []
            resyncs = cache.stats().coherence.resyncs
            server.cli("CLIENT", "KILL", "USER", "nc")
            wait_until(lambda resyncs=resyncs: cache.stats().coherence.resyncs > resyncs)
            ordeal.recover()
            assert ordeal.attempt() == []


def test_user_that_is_deleted_and_made_again(make_redis: Callable[..., RedisServer]) -> None:
    """Its connections are cut, and new ones refused; a shard to wait for, once the cache is open."""
    server = make_redis(acl=[RIGHTS])
    with ordeal_on(server, username="nc", password="secret") as (ordeal, cache):
        server.cli("ACL", "DELUSER", "nc")
        # The error itself, or as the reason for which the breaker is open.
        wait_until(lambda: any("refused user 'nc'" in str(error) for error in ordeal.attempt()), 20)
        dark(cache)
        server.cli("ACL", "SETUSER", *RIGHTS.split()[1:])
        ordeal.recover()


def test_full_server_refuses_values_and_passes_the_rest(redis_server: RedisServer) -> None:
    """Reads, invalidations and heartbeats go on: L1 may go on vouching. What the loader brings is not stored."""
    with ordeal_on(redis_server) as (ordeal, cache):
        redis_server.cli("CONFIG", "SET", "maxmemory", "1")
        cache["kept"]
        assert codes(ordeal.attempt()) == {"OOM"}
        assert cache.get("kept") == "kept"
        cache.invalidate("other")
        assert cache.health().ok
        redis_server.cli("CONFIG", "SET", "maxmemory", "0")
        ordeal.recover()


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (lambda cache: cache.get_or_load("k", str), "what was loaded is not kept"),
        (
            lambda cache: cache.get_or_load_many(["k", "l"], lambda keys: dict.fromkeys(keys, 1)),
            "what was loaded is not kept",
        ),
        (lambda cache: cache.set("k", 1), "a change was refused"),
        (lambda cache: cache.set_many({"k": 1, "l": 2}), "a change was refused"),
    ],
    ids=["load", "load several", "set", "set several"],
)
def test_full_server_is_told_of_where_nobody_gets_an_error(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, use: Callable[[Any], object], line: str
) -> None:
    """The cache answers, and is well: only the log and a counter say that it keeps nothing."""
    with nearcache.open(redis_server.url, on_error="queue") as cache:
        wait_until(lambda: cache.health().ok)
        redis_server.cli("CONFIG", "SET", "maxmemory", "1")
        use(cache)
        assert cache.stats().l2.errors >= 1
        assert any(text.startswith(f"namespace default: {line}") and "OOM" in text for text in caplog.messages)
        redis_server.cli("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    ("use", "denied", "line"),
    [
        (lambda cache: cache["k"], "-get", "what was loaded is not kept"),
        (lambda cache: cache.invalidate("k"), "-publish", "a change was refused"),
        (lambda cache: cache.pop("k", None), "-publish", "a change was refused"),
        (lambda cache: cache.clear(), "-publish", "a change was refused"),
        (lambda cache: cache.invalidate_tag("t"), "-publish", "a change was refused"),
    ],
    ids=["read", "invalidate", "pop", "clear", "invalidate_tag"],
)
def test_refusal_is_told_of_where_nobody_gets_an_error(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, use: Callable[[Any], object], denied: str, line: str
) -> None:
    """Whatever the server refuses: others go on serving the old value, or each miss loads."""
    with nearcache.open(redis_server.url, on_error="queue", loader=str) as cache:
        wait_until(lambda: cache.health().ok)
        redis_server.cli("ACL", "SETUSER", "default", denied)
        use(cache)
        assert any(
            text.startswith(f"namespace default: {line}") and "the server replied" in text for text in caplog.messages
        )
        redis_server.cli("ACL", "SETUSER", "default", "+@all")


def test_loader_that_is_not_asked_is_not_said_to_be(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the newest value may wait in the queue, the caller gets the error, and nothing has been loaded."""
    with nearcache.open(redis_server.url, loader=str, writer=lambda _key, _value: None, write_delay=5) as cache:
        wait_until(lambda: cache.health().ok)
        redis_server.cli("ACL", "SETUSER", "default", "-set")
        with pytest.raises(ServerReplyError, match="rights that a cache user needs"):
            cache["k"]
        redis_server.cli("ACL", "SETUSER", "default", "+@all")
        assert cache.stats().l2.errors >= 1
        assert not any("is not kept" in text for text in caplog.messages)


@pytest.mark.parametrize("on_error", ["raise", "queue"])
def test_full_server_lets_tags_be_invalidated(redis_server: RedisServer, on_error: str) -> None:
    """As it does keys: what has the tag is absent, in every process, and can be stored again when there is room."""
    options: dict[str, Any] = {"max_staleness": 0.4, "on_error": on_error}
    with nearcache.open(redis_server.url, **options) as cache, nearcache.open(redis_server.url, **options) as other:
        cache.set("k", 1, tags=("t",))
        cache.set("untouched", 1, tags=("u",))
        assert other["k"] == 1
        redis_server.cli("CONFIG", "SET", "maxmemory", "1")
        cache.invalidate_tag("t")
        assert cache.get("k") is None
        wait_until(lambda: other.get("k") is None)
        with nearcache.open(redis_server.url, **options) as third:  # which has not asked for the tag yet
            assert list(third.scan()) == ["untouched"]
        assert other.get_or_load("k", lambda key: 2, tags=("t",)) == 2
        assert asyncio.run(cache.aio.get("untouched")) == other["untouched"] == 1
        redis_server.cli("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: not cache.stats().coherence.owed)

        def is_stored() -> bool:
            cache.set("k", 3, tags=("t",))
            return bool(cache.get("k") == 3 == other.get("k"))

        wait_until(is_stored)


def test_server_whose_disk_is_full_is_not_relied_on(redis_server: RedisServer) -> None:
    """MISCONF: it refuses to write, heartbeats too; reads come from it until it can save again."""
    with ordeal_on(redis_server) as (ordeal, cache):
        obstacle = redis_server.directory / "dump.rdb" / "in the way"
        obstacle.mkdir(parents=True)
        redis_server.cli("CONFIG", "SET", "save", "900 1")
        redis_server.cli("BGSAVE")
        wait_until(lambda: redis_server.client().info("persistence")["rdb_last_bgsave_status"] == "err", 20)
        assert codes(ordeal.attempt()) == {"MISCONF"}
        dark(cache)
        assert cache.get("kept") == "kept"
        obstacle.rmdir()
        obstacle.parent.rmdir()
        redis_server.cli("BGSAVE")
        wait_until(lambda: redis_server.client().info("persistence")["rdb_last_bgsave_status"] == "ok", 20)
        ordeal.recover()


@pytest.mark.parametrize("stale", ["yes", "no"])
def test_server_that_becomes_a_replica_and_a_primary_again(redis_server: RedisServer, stale: str) -> None:
    """READONLY ends the connections that lead there, and so does MASTERDOWN; its data may be anybody's by then."""
    redis_server.cli("CONFIG", "SET", "replica-serve-stale-data", stale)
    with ordeal_on(redis_server) as (ordeal, cache):
        redis_server.cli("REPLICAOF", "127.0.0.1", "1")
        assert codes(ordeal.attempt()) == {"ShardUnavailableError"}
        assert "is a replica" in str(ordeal.errors[-1]) or "because" in str(ordeal.errors[-1])
        dark(cache)
        redis_server.cli("REPLICAOF", "NO", "ONE")
        ordeal.recover()


# -- it forgets --------------------------------------------------------------------------------------------------


def test_flushed_server_costs_no_errors(redis_server: RedisServer) -> None:
    """What is gone is gone, and nothing of it is served once the next heartbeat has told."""
    with ordeal_on(redis_server) as (ordeal, cache):
        for _ in range(3):
            cache["k"] = "v"
            redis_server.cli("FLUSHALL")
            assert ordeal.attempt() == []
            wait_until(lambda: cache.peek("k") is None)
            assert "k" not in cache
        ordeal.recover()


def test_eviction_of_values_and_of_the_lane_record_brings_nothing_back(redis_server: RedisServer) -> None:
    """A new record has another epoch and generation: what was stored under the old one stays dead."""
    with ordeal_on(redis_server) as (ordeal, cache), redis_server.client(client_name=OURS) as client:
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", used + 2_000_000)
        epochs = {client.hget(RECORD, "e")}
        number = 0

        def record_lost() -> bool:
            nonlocal number
            for _ in range(20):
                number += 1
                with suppress(ServerReplyError):
                    cache[f"filler:{number % 100}"] = "x" * 100_000
            assert codes(ordeal.attempt()) <= {"OOM"}
            epoch = client.hget(RECORD, "e")
            if epoch is not None:
                epochs.add(epoch)
            return len(epochs) > 2

        wait_until(record_lost, 60, what="the record evicted twice")
        assert client.info("stats")["evicted_keys"] > 2
        client.config_set("maxmemory", 0)
        ordeal.recover()


CHANGES: dict[str, Callable[[Cache[Any, Any]], object]] = {
    "set": lambda cache: cache.set("k", 2),
    "touch": lambda cache: cache.touch("k", 5),
    "clear": lambda cache: cache.clear(),
    "incr": lambda cache: cache.incr("k"),
    "get_and_delete": lambda cache: cache.get_and_delete("k"),
    "invalidate_tag": lambda cache: cache.invalidate_tag("t"),
}


@pytest.mark.parametrize("consistency", ["key", "lane"])
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "first"])
def test_change_that_a_replica_refuses_names_the_primary(
    redis_server: RedisServer, consistency: str, *, is_known: bool
) -> None:
    """Whichever it is, though its script be new to the server: it is tried where the name leads."""
    for name, change in CHANGES.items():
        with nearcache.open(redis_server.url, consistency=consistency, namespace=name) as cache:
            cache["k"] = 1
            if not is_known:
                redis_server.cli("SCRIPT", "FLUSH")
            else:
                change(cache)
            redis_server.cli("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(ShardUnavailableError, match=r"is a replica; its primary is 127\.0\.0\.1:1"):
                change(cache)
            redis_server.cli("REPLICAOF", "NO", "ONE")
