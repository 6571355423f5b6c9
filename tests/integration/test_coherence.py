"""Coherence under real faults: what one process changes, no other serves; what was lost, is noticed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

BOUND = 0.4

pytestmark = pytest.mark.every_server

WRITER = """
import nearcache
cache = None
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def put(key, value):
    cache[key] = value
def get(key):
    return cache.get(key)
def invalidate(key):
    return cache.invalidate(key)
"""


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on one shard that are closed at the end."""
    with opening(redis_server.url, max_staleness=BOUND) as opener:
        yield opener


def lane_of(cache: Cache[Any, Any]) -> str:
    """State of the only lane."""
    return cache.health().shards[0].lane


def kill_subscribers(server: RedisServer) -> int:
    """Cut every connection that is subscribed, as an overflowing buffer or a failover does."""
    return int(server.cli("CLIENT", "KILL", "TYPE", "pubsub"))


# -- in health


def test_write_in_another_process_removes_the_copy(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """The one promise that everything else serves."""
    cache, worker = open_cache(), make_worker(WRITER)
    worker.call("start", redis_server.url)
    worker.call("put", "k", "old")
    assert cache.selftest().ok  # the message about this write has arrived
    assert cache["k"] == "old"
    assert cache.peek("k") == "old"
    worker.call("put", "k", "new")
    wait_until(lambda: cache.peek("k") is None)
    assert cache["k"] == "new"
    worker.call("invalidate", "k")
    wait_until(lambda: cache.peek("k") is None)
    assert "k" not in cache


def test_message_about_a_key_makes_nobody_read_it(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """However many have a copy, none of them asks again before somebody wants the value."""

    def reads() -> int:
        """Every read of a value asks for its lifetime too, and these scripts do not."""
        return int(redis_server.client().info("commandstats")["cmdstat_pttl"]["calls"])

    writer, *readers = [open_cache() for _ in range(4)]
    writer["k"] = 1
    wait_until(lambda: all(reader["k"] == 1 and reader.peek("k") == 1 for reader in readers))
    before = reads()
    writer["k"] = 2
    wait_until(lambda: all(reader.peek("k") is None for reader in readers))
    assert all(reader.selftest().ok for reader in readers)  # whatever follows from a message has been done by now
    assert reads() == before
    assert [reader["k"] for reader in readers] == [2, 2, 2]


def test_listener_asks_not_to_be_evicted_where_servers_do_that(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Redis 7 evicts clients when memory is short, and shows who has asked to stay."""
    assert open_cache().selftest().ok
    flags = [client["flags"] for client in redis_server.client().client_list() if client["cmd"] != "client|list"]
    if redis_server.binary.version >= (7, 0):
        assert any("P" in each and "e" in each for each in flags), flags
    else:
        assert any("P" in each for each in flags), flags


def test_own_write_keeps_its_copy(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The message about a write carries its id, so the writer's fresh copy stays."""
    cache = open_cache()
    for n in range(20):
        cache["k"] = n
        assert cache.selftest().ok  # every message sent before has arrived by now
        assert cache.peek("k") == n


def test_writes_of_two_caches_converge(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """However their messages cross, both end up with the value that Redis holds."""
    a, b = open_cache(), open_cache()
    for n in range(200):
        a["k"] = f"a{n}"
        b["k"] = f"b{n}"
    assert a.selftest().ok
    assert b.selftest().ok
    assert a["k"] == b["k"] == "b199"


# -- lost connections and messages


def test_cut_subscription_makes_entries_suspect_and_revalidates_them(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """What did not change costs a header, what did is read again: nothing is served unchecked."""
    cache, other = open_cache(), open_cache()
    cache.set_many({"same": "x" * 1000, "changed": "y" * 1000})
    resyncs = cache.stats().coherence.resyncs
    kill_subscribers(redis_server)
    wait_until(lambda: cache.stats().coherence.resyncs > resyncs)
    other["changed"] = "z"
    before = cache.stats().l2
    assert cache["same"] == "x" * 1000
    after = cache.stats().l2
    assert (after.revalidated - before.revalidated, after.bytes_read - before.bytes_read) == (1, 0)
    assert cache["changed"] == "z"
    assert cache.peek("same") == "x" * 1000


def test_suspects_are_revalidated_in_bulk(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """get_many after a reconnect fetches headers, and values only of what changed."""
    cache, other = open_cache(), open_cache()
    cache.set_many(dict.fromkeys(range(100), "x" * 500))
    resyncs = cache.stats().coherence.resyncs
    other.drop_all()
    kill_subscribers(redis_server)
    other.set_many(dict.fromkeys(range(10), "new"))
    wait_until(lambda: cache.stats().coherence.resyncs > resyncs)
    found = cache.get_many(range(100))
    assert found == {n: "new" if n < 10 else "x" * 500 for n in range(100)}
    assert cache.stats().l2.revalidated >= 80


def test_change_while_the_subscription_is_down_is_never_served_stale(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """From the moment the connection is lost, every read asks Redis until the lane is live again."""
    cache, worker = open_cache(), make_worker(WRITER)
    worker.call("start", redis_server.url)
    for n in range(15):
        worker.call("put", "k", n)
        wait_until(lambda n=n: cache["k"] == n)
        kill_subscribers(redis_server)
        wait_until(lambda: cache.peek("k") is None)
        worker.call("put", "k", -n)
        assert cache["k"] == -n


def test_lost_message_is_found_by_the_next_heartbeat(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """A step of the sequence without a message: nothing was delivered, and yet the cache finds out, and says so."""
    cache = open_cache()
    cache["k"] = "v"
    gaps = cache.stats().coherence.gaps
    lane = "nc:{default:0}:L"
    redis_server.cli("HINCRBY", lane, "s", 1)
    redis_server.cli("HSET", lane, "w", "00000000000000ff")
    wait_until(lambda: cache.stats().coherence.gaps == gaps + 1)
    wait_until(lambda: cache.peek("k") is None)  # it is counted first
    wait_until(lambda: cache["k"] == cache.peek("k") == "v")
    wait_until(lambda: caplog.messages)
    assert [line.split(": ")[2] for line in caplog.messages] == ["messages were lost, or its lane record"]


def test_bad_frame_on_the_channel_makes_the_lane_reconnect(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """What cannot be understood is never ignored."""
    cache = open_cache()
    cache["k"] = "v"
    resyncs = cache.stats().coherence.resyncs
    redis_server.cli("PUBLISH", "nc:{default:0}:i", "nonsense")
    wait_until(lambda: cache.stats().coherence.resyncs > resyncs)
    assert cache.stats().coherence.bad_frames == 1
    assert cache["k"] == "v"


def test_flushed_server_ends_every_copy(redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """FLUSHALL says nothing to subscribers; the heartbeat finds another epoch."""
    cache = open_cache()
    cache["k"] = "v"
    redis_server.cli("FLUSHALL")
    wait_until(lambda: cache.peek("k") is None)
    assert cache.get("k") is None
    cache["k"] = "w"
    assert cache["k"] == "w"


def test_lost_lane_record_ends_copies_read_after_the_next_message(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """A message of the new record tells that the old one is gone; values of its time are not kept from then on."""
    # A bound so long that no heartbeat comes in between.
    reader, writer = open_cache(max_staleness=60.0), open_cache(max_staleness=60.0)
    writer["old"] = 1
    assert reader.get("old") == 1
    (record,) = redis_server.cli("KEYS", "nc:*:L")
    redis_server.cli("DEL", record)
    writer["new"] = 2
    assert reader.selftest().ok  # what comes after the message has come, so the message has
    assert reader.get("old") is None
    assert reader.get("new") == 2


def test_value_evicted_from_l2_can_still_be_invalidated(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """A delete publishes whether or not L2 still had the key."""
    a, b = open_cache(), open_cache()
    a["k"] = "v"
    assert b.selftest().ok
    assert b["k"] == "v"
    redis_server.cli("UNLINK", "nc:{default:0}:v:sk")
    a.invalidate("k")
    wait_until(lambda: b.peek("k") is None)
    assert "k" not in b


# -- servers that stop, die and come back


def test_paused_server_makes_l1_dark_within_the_bound(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """No heartbeat is answered, no connection breaks: after B nothing is served from L1 any more."""
    cache = open_cache(timeout=0.2)
    cache["k"] = "v"
    assert cache["k"] == "v"
    redis_server.pause()
    stopped = time.monotonic()
    try:
        asked = stopped
        while cache.peek("k") is not None:
            assert asked < stopped + BOUND  # no heartbeat was sent later than that and answered
            asked = time.monotonic()
        assert cache.get("k") is None
    finally:
        redis_server.resume()
    wait_until(lambda: cache.get("k") == "v")
    wait_until(lambda: cache.peek("k") == "v" or cache.get("k") is None)


def test_killed_server_that_returns_empty_holds_no_old_value(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """L1 does not outlive what L2 forgot, and the cache works again by itself."""
    cache = open_cache(timeout=0.2)
    cache["k"] = "v"
    redis_server.kill()
    wait_until(lambda: cache.peek("k") is None)
    with pytest.raises(KeyError) as caught:
        cache["k"]
    assert isinstance(caught.value.__cause__, nearcache.ShardUnavailableError)
    with pytest.raises(nearcache.ShardUnavailableError):
        cache["k"] = "w"
    redis_server.start()
    wait_until(lambda: lane_of(cache) == "live")
    wait_until(lambda: cache.health().ok)
    assert cache.get("k") is None
    cache["k"] = "w"
    assert cache["k"] == "w"


def test_server_restarted_from_an_old_snapshot_is_noticed(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Same history, older state: nobody is served what L2 has rolled back, and who had changed it invalidates again."""
    cache, other = open_cache(timeout=0.2), open_cache(timeout=0.2)
    cache["k"], cache["kept"] = "old", "kept"
    redis_server.save()
    cache["k"] = "new"
    redis_server.kill()
    redis_server.start()
    wait_until(lambda: cache.health().ok and other.health().ok)
    assert cache.get("k") is None
    wait_until(lambda: other.get("k") is None)
    assert cache["kept"] == other["kept"] == "kept"


def test_primary_that_gets_its_first_replica_is_followed_on(make_redis: Callable[..., RedisServer]) -> None:
    """With it begins another history, which new connections alone see: L1 keeps what they bring all the same."""
    primary = make_redis(transport="tcp")
    with opening(primary.url, max_staleness=BOUND) as opener:
        writer, reader = opener(), opener()
        writer["k"] = "v"
        make_redis(options={"replicaof": f"{primary.host} {primary.port}"})
        with primary.client() as client:
            wait_until(lambda: client.info("replication")["connected_slaves"] == 1)
        primary.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # connections end some day
        for cache in (reader, writer):
            assert cache.get("absent") is None
        wait_until(lambda: reader.get("k") == reader.peek("k") == "v")
        writer["k"] = "w"
        wait_until(lambda: reader.get("k") == reader.peek("k") == "w")
        wait_until(lambda: writer.get("k") == writer.peek("k") == "w")


def test_cache_opened_while_the_server_is_down_works_later(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """A service must be able to start while its Redis is down; the loader stands in."""
    redis_server.kill()
    cache = open_cache(timeout=0.2, connect_timeout=0.2, loader=lambda key: key * 2)
    assert "namespace default: shard " in caplog.text
    assert "; starting without it" in caplog.text
    assert cache["k"] == "kk"
    assert not cache.health().ok
    redis_server.start()
    wait_until(lambda: cache.health().ok)
    wait_until(lambda: cache["k"] == cache.peek("k") == "kk")


# -- processes


def test_killed_writer_leaves_a_working_cache(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """kill -9 of one process concerns nobody else."""
    cache, worker = open_cache(), make_worker(WRITER)
    worker.call("start", redis_server.url)
    worker.call("put", "k", 1)
    assert cache["k"] == 1
    worker.kill()
    assert cache["k"] == 1
    cache["k"] = 2
    assert cache["k"] == 2
    assert cache.selftest().ok


def test_paused_process_does_not_serve_what_changed_meanwhile(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """A reader stopped for longer than B finds its horizon in the past when it goes on."""
    cache, reader = open_cache(), make_worker(WRITER)
    reader.call("start", redis_server.url, max_staleness=BOUND)
    cache["k"] = "old"
    assert reader.call("get", "k") == "old"
    reader.signal(signal.SIGSTOP)
    cache["k"] = "new"
    time.sleep(BOUND + 0.1)
    reader.send("get", "k")
    reader.signal(signal.SIGCONT)
    assert reader.receive() == "new"


FORKER = (
    WRITER
    + """
import os, json, time
def in_child(code):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            out = json.dumps(eval(code, globals()))
        except BaseException as error:
            out = json.dumps(repr(error))
        os.write(w, out.encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(answer)
def settle(wanted, timeout=5.0):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if cache.health().ok == wanted:
            return True
        time.sleep(0.005)
    return False
"""
)


def test_forked_child_vouches_for_nothing_until_it_listens(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """The child has the parent's L1 but not its listener, so it must ask; then it gets one of its own."""
    worker = make_worker(FORKER)
    worker.call("start", redis_server.url)
    worker.call("put", "k", "v")
    assert worker.call("in_child", "cache.peek('k')") is None
    assert worker.call("in_child", "[cache['k'], settle(True), cache['k'], cache.peek('k')]") == ["v", True, "v", "v"]
    assert worker.call("in_child", "[cache.invalidate('k'), settle(True), cache.selftest().ok]") == [True, True, True]
    wait_until(lambda: worker.eval("cache.get('k')") is None)  # the message may take a moment
    worker.call("put", "k", "w")
    assert worker.eval("[cache['k'], cache.selftest().ok, cache.health().ok]") == ["w", True, True]


def test_fork_while_threads_work_leaves_both_sides_working(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """A fork in the middle of reads and writes finds locks held and sockets in use."""
    worker = make_worker(
        FORKER
        + """
import threading
def storm():
    stop = threading.Event()
    failures = []
    def work(me):
        n = 0
        while not stop.is_set():
            n += 1
            try:
                cache[f"{me}-{n % 7}"] = n
                cache.drop(f"{me}-{n % 7}")
                if cache.get(f"{me}-{n % 7}") != n:
                    failures.append((me, n))
            except Exception as error:
                failures.append(repr(error))
    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads: thread.start()
    children = [in_child("[cache.get('fixed'), cache.invalidate('other'), cache.selftest().ok]") for _ in range(10)]
    stop.set()
    for thread in threads: thread.join()
    return [children, failures]
"""
    )
    worker.call("start", redis_server.url, timeout=5.0)
    worker.call("put", "fixed", "v")
    children, failures = worker.call("storm")
    assert failures == []
    assert all(child[0] == "v" and child[2] is True for child in children), children


def test_this_test_process_has_not_become_a_fork() -> None:
    """Guards the file: a child that returned into pytest would run the rest twice."""
    assert os.getpid() == PID


PID = os.getpid()
