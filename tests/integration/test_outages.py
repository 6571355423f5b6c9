"""What could not be done is made up for: debts, replays, and what is served meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.coherence import Journal
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

BOUND = 0.4

PEER = """
import nearcache
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def put(key, value):
    cache[key] = value
def invalidate(key):
    return cache.invalidate(key)
def clear():
    cache.clear()
def invalidate_tag(tag):
    cache.invalidate_tag(tag)
def tag(key, value, tag):
    cache.set(key, value, tags=[tag])
def get(key):
    return cache.get(key)
def well():
    return cache.health().ok
def owed():
    coherence = cache.stats().coherence
    return [coherence.owed, coherence.replayed]
"""


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on one shard that are closed at the end."""
    with opening(redis_server.url, max_staleness=BOUND, timeout=0.3) as opener:
        yield opener


def recovered(*caches: Cache[Any, Any]) -> bool:
    """Whether all are well and owe nothing."""
    return all(cache.health().ok and not cache.stats().coherence.owed for cache in caches)


# -- writes during an outage


def test_queue_returns_during_an_outage_and_is_made_up_for(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """A write, an invalidation and a clear of tags are no errors; when the server is back, everybody hears."""
    cache, other = open_cache(on_error="queue"), open_cache()
    cache["written"], cache["removed"], cache["kept"] = "old", "old", "kept"
    assert [other.get(key) for key in ("written", "removed", "kept")] == ["old", "old", "kept"]
    redis_server.save()
    redis_server.kill()
    cache["written"] = "new"
    cache.invalidate("removed")
    assert cache.get("written") is None  # neither the old value nor one that nobody else can see
    assert cache.stats().coherence.owed == 2
    redis_server.start()
    wait_until(lambda: recovered(cache) and other.health().ok)
    assert cache.stats().l2.errors >= 2
    for each in (cache, other):
        assert each.selftest().ok
        assert each.get("written") is None
        assert each.get("removed") is None
        assert each["kept"] == "kept"


def test_raise_raises_and_is_made_up_for_too(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """The error says that it is not known to be done; until it is, the key is owed."""
    cache, worker = open_cache(), make_worker(PEER)
    worker.call("start", redis_server.url, max_staleness=BOUND, timeout=0.3)
    cache["k"] = "old"
    assert worker.call("get", "k") == "old"
    redis_server.save()
    redis_server.kill()
    with pytest.raises(nearcache.ShardUnavailableError):
        cache.invalidate("k")
    with pytest.raises(nearcache.ShardUnavailableError):
        cache["j"] = 1
    assert cache.stats().coherence.owed == 2
    redis_server.start()
    wait_until(lambda: recovered(cache))
    wait_until(lambda: worker.call("well"))
    wait_until(lambda: worker.call("get", "k") is None)


def test_owed_key_is_not_read_from_redis_meanwhile(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there may be what this process meant to be rid of: neither reads, nor a loader's fill, believe it."""
    cache = open_cache(on_error="queue")
    cache.set_many({"k": "old", "other": "good"})
    redis_server.save()
    redis_server.kill()
    cache.invalidate("k")
    monkeypatch.setattr(Journal, "due", lambda _self: None)  # nothing is paid for the moment
    redis_server.start()
    wait_until(lambda: cache.health().ok)
    assert redis_server.cli("EXISTS", "nc:{default:0}:v:sk") == 1
    assert cache.get("k") is None
    assert cache.get_many(["k", "other"]) == {"other": "good"}
    assert cache.get_or_load("k", lambda _key: "loaded") == "loaded"
    assert cache.stats().coherence.owed == 1
    monkeypatch.undo()
    wait_until(lambda: recovered(cache))
    assert cache.selftest().ok  # the message about the payment has arrived
    assert cache.get_or_load("k", lambda _key: "at last") == "at last"
    assert cache.get("k") == "at last"


def test_more_debts_than_can_be_listed_become_a_clear(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """No debt is forgotten; a clear takes what was not owed with it."""
    cache, other = open_cache(on_error="queue"), open_cache()
    cache._tier.journals[0]._limit = 10
    cache["kept"] = "kept"
    redis_server.save()
    redis_server.kill()
    cache.delete_many(range(11))
    assert cache.stats().coherence.owed == 1
    redis_server.start()
    wait_until(lambda: recovered(cache) and other.health().ok)
    assert other.selftest().ok
    assert other.get("kept") is None


# -- a server that comes back older


def test_restart_from_an_old_snapshot_replays_what_each_process_had_changed(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """A write, a deletion and a tag, each made by another process after the snapshot, are made again by that one."""
    workers = [make_worker(PEER) for _ in range(3)]
    for worker in workers:
        worker.call("start", redis_server.url, max_staleness=BOUND, timeout=0.3)
    writer, remover, tagger = workers
    writer.call("put", "written", "old")
    writer.call("put", "removed", "old")
    writer.call("put", "kept", "kept")
    tagger.call("tag", "tagged", "old", "red")
    redis_server.save()
    writer.call("put", "written", "new")
    remover.call("invalidate", "removed")
    tagger.call("invalidate_tag", "red")
    redis_server.kill()
    redis_server.start()
    for worker in workers:
        wait_until(lambda worker=worker: worker.call("well") and worker.call("owed") == [0, 1])
    for worker in workers:
        for key in ("written", "removed", "tagged"):
            wait_until(lambda worker=worker, key=key: worker.call("get", key) is None)
        assert worker.call("get", "kept") == "kept"


def test_restart_from_a_snapshot_before_a_clear_clears_again(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """The generation that the snapshot brings back is ended once more."""
    workers = [make_worker(PEER) for _ in range(2)]
    for worker in workers:
        worker.call("start", redis_server.url, max_staleness=BOUND, timeout=0.3)
    workers[0].call("put", "k", "old")
    redis_server.save()
    workers[1].call("clear")
    redis_server.kill()
    redis_server.start()
    wait_until(lambda: workers[1].call("well") and workers[1].call("owed") == [0, 1])
    for worker in workers:
        wait_until(lambda worker=worker: worker.call("get", "k") is None)


def test_records_that_are_lost_and_restored_replay_what_was_changed_meanwhile(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """FLUSHALL by mistake, then a dump: the record is back as it began, without what is younger or came between."""
    cache, other = open_cache(), open_cache()
    for key in ("kept", "younger", "between"):
        cache[key] = "old"
    with redis_server.client() as client:
        dump = {key: (client.dump(key), max(0, client.pttl(key))) for key in client.scan_iter()}
        cache["younger"] = "new"
        client.flushall()
        wait_until(lambda: cache.stats().coherence.forks == 1 and recovered(cache, other))
        cache["between"] = "new"
        with client.pipeline() as restoring:
            restoring.flushall()
            for key, (value, ttl) in dump.items():
                restoring.restore(key, ttl, value)
            restoring.execute()
    wait_until(lambda: cache.stats().coherence.replayed == 2 and recovered(cache, other))
    for each in (cache, other):
        wait_until(lambda each=each: each.get("younger") is None and each.get("between") is None)
        assert each["kept"] == "old"


def test_restart_that_lost_nothing_replays_nothing(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Where the epoch ended is in the record, so nobody invalidates what is there."""
    cache, other = open_cache(), open_cache()
    cache["k"] = "v"
    redis_server.save()
    redis_server.kill()
    redis_server.start()
    wait_until(lambda: recovered(cache, other))
    wait_until(lambda: cache.stats().coherence.forks >= 1)
    assert cache["k"] == other["k"] == "v"
    assert cache.stats().coherence.replayed == 0
