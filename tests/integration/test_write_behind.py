"""Write-behind: what was acknowledged is written, once at least, in order, by somebody. On real servers."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT, Cache, ConfigError, ServerReplyError, ShardUnavailableError, Writer
from support.redis import RedisServer
from support.rows import Database, writing_behind
from support.threads import PATIENCE
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

Opener = Callable[..., Cache[Any, Any]]
QUEUE, DEAD, OWNER = "nc:{default:0}:w", "nc:{default:0}:d", "nc:{default:0}:o"


@pytest.fixture
def open_cache(redis_server: RedisServer, database: Database) -> Iterator[Opener]:
    """Open caches that write behind, and are closed at the end."""
    with writing_behind(redis_server.url, database) as opener:
        yield opener


def test_set_returns_before_the_writer_and_everybody_reads_the_new_value(
    open_cache: Opener, database: Database
) -> None:
    """From L1, from L2 and in other processes; the data follow."""
    cache, other = open_cache(), open_cache()
    database.gate.clear()
    cache["k"] = "new"
    assert (cache.peek("k"), other["k"], database.rows) == ("new", "new", {})
    database.gate.set()
    cache.flush(10)
    assert (database.rows, other["k"]) == ({"k": "new"}, "new")


def test_changes_of_a_key_within_the_delay_are_written_once(open_cache: Opener, database: Database) -> None:
    """The last one, together with those of other keys."""
    cache = open_cache(write_delay=60)
    for number in range(20):
        cache["k"] = number
        cache[f"other {number % 3}"] = number
    assert database.calls == []
    cache.flush(10)
    ((call, values),) = database.calls
    assert (call, values) == ("write_many", {"k": 19, "other 0": 18, "other 1": 19, "other 2": 17})
    stats = cache.stats().writing
    assert (stats.written, stats.batches, stats.coalesced, stats.backlog) == (4, 1, 36, 0)


def test_value_that_left_l2_before_it_was_written_is_read_from_the_queue(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """By expiry, eviction, clear or invalidation: the loader would bring the old one back."""
    database.rows["k"] = "old"
    cache, other = open_cache(write_delay=60), open_cache(write_delay=60)
    reader = open_cache(writer=None, write_delay=None)  # it has no writer, and is told all the same
    with redis_server.client() as client:
        for lose in (
            lambda: client.delete("nc:{default:0}:v:sk"),
            cache.clear,
            lambda: cache.invalidate("k"),
            lambda: cache.invalidate_tag("t"),
        ):
            cache.set("k", "new", tags=["t"])
            lose()
            for process in (cache, other, reader):
                process.drop("k")
                assert process["k"] == "new"
                assert process.peek("k") is None  # it is the queue's, and not to be kept
        assert reader.stats().loader.loads == 0
        cache.flush(10)
        assert database.rows["k"] == reader["k"] == "new"
        assert client.exists("nc:{default:0}:l:sk") == 0


def test_deleted_key_is_absent_until_it_is_deleted_and_afterwards(open_cache: Opener, database: Database) -> None:
    """The row is still there, and must not come back."""
    cache, other = open_cache(write_delay=60), open_cache(write_delay=60)
    database.rows.update(a=1, b=2, c=3, d=4)
    assert other.get_or_load("a") == 1
    del cache["a"]
    assert cache["b"] == 2
    assert cache.pop("b") == 2
    cache.delete_many(["c", "d"])
    cache.delete_many([])
    wait_until(lambda: "a" not in other)
    for key in "abcd":
        for process in (cache, other):
            with pytest.raises(KeyError):
                process[key]
    assert len(database.rows) == 4
    cache.flush(10)
    assert database.rows == {}
    with pytest.raises(KeyError):
        other["a"]


def test_verbs_are_written_behind(open_cache: Opener, database: Database, redis_server: RedisServer) -> None:
    """What they make of the value is a change like any other, even of one that was evicted while it waited."""
    cache = open_cache(write_delay=60)
    assert cache.add("n", 5)
    assert not cache.add("n", 6)
    with redis_server.client() as client:
        client.delete("nc:{default:0}:v:sn")
    assert cache.incr("n") == 6
    with redis_server.client() as client:
        client.delete("nc:{default:0}:v:sn")
    assert not cache.add("n", 7)
    assert cache.setdefault("m", 1) == 1
    assert cache.compute("m", lambda value: value + 1) == 2
    assert cache.get_and_set("x", 1) is None
    assert cache.get_and_delete("x") == 1
    assert cache.get_and_delete("x", "gone") == "gone"
    cache.flush(10)
    assert database.rows == {"n": 6, "m": 2}
    assert database.calls[-1] == ("delete", {"x": ABSENT})


def test_many_are_queued_and_written_in_batches(open_cache: Opener, database: Database) -> None:
    """Of at most ``write_batch`` keys."""
    cache = open_cache(write_delay=60, write_batch=40)
    values = {f"k{number}": number for number in range(300)}
    cache.set_many(values)
    assert {key: cache.peek(key) for key in values} == values
    cache.flush(20)
    assert database.rows == values
    assert {call for call, _ in database.calls} == {"write_many"}
    assert max(len(written) for _, written in database.calls) == 40


def test_flush_does_not_wait_for_the_delay_of_whichever_process_writes(open_cache: Opener, database: Database) -> None:
    """It is told through Redis. A later change waits as ever."""
    first = open_cache(write_delay=60)
    first["a"] = 1
    wait_until(lambda: first.stats().writing.owned == 1)
    second = open_cache(write_delay=60)
    second["b"] = 2
    second.flush(20)
    assert (database.rows, second.stats().writing.written) == ({"a": 1, "b": 2}, 0)
    first["a"] = 3
    wait_until(lambda: first.stats().writing.owned == 1)
    assert database.rows == {"a": 1, "b": 2}
    first.flush(20)
    assert database.rows == {"a": 3, "b": 2}


def test_change_that_has_waited_long_enough_is_written_by_the_next_owner_at_once(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Its delay begins when it is made, not when a process takes over the queue."""
    with open_cache(write_delay=3600) as cache:
        cache["old"] = 1
    with redis_server.client() as client:
        ((_, fields),) = client.xrange(QUEUE)
        client.delete(QUEUE)
        client.xadd(QUEUE, fields, id=f"{now_ms(client) - 3_600_000}-0")
    later = open_cache(write_delay=3600)
    later["new"] = 2
    wait_until(lambda: database.rows)
    assert database.rows == {"old": 1}


def test_large_values_and_odd_keys_are_written_as_they_are(open_cache: Opener, database: Database) -> None:
    """Through the queue and back: bytes, tuples, numbers, a megabyte, under encryption."""
    cache = open_cache(encryption_keys=b"k" * 32, isolation="copy")
    values = {"": None, b"\0\xff": b"\n", ("a", 1): [1, {"b": 2}], 7: "x" * 1_000_000, "{}": "y" * 20_000}
    for key, value in values.items():
        cache[key] = value
    cache.flush(10)
    assert database.rows == values


def test_one_process_writes_at_a_time_and_the_next_goes_on_in_order(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """When the first leaves with work undone, another does it; no key goes back to an older value."""
    first, second = open_cache(write_delay=0), open_cache(write_delay=0)
    for number in range(100):
        (first, second)[number % 2]["k"] = number
    wait_until(lambda: first.stats().writing.written + second.stats().writing.written > 0)
    first.close()
    second["last"] = 1
    second.flush(20)
    written = [values["k"] for _, values in database.calls if "k" in values]
    assert written == sorted(written)
    assert database.rows == {"k": 99, "last": 1}


def test_close_waits_for_the_call_under_way_and_begins_no_other(open_cache: Opener, database: Database) -> None:
    """What it writes is settled, so nobody writes it again; the rest is another process's at once."""
    calls: list[Any] = []
    begun, gate = threading.Event(), threading.Event()

    def write(key: Any, _value: Any) -> None:
        calls.append(key)
        begun.set()
        gate.wait(20)

    first: Any = open_cache(writer=write, write_delay=0.05)
    first.set_many({number: number for number in range(5)})
    assert begun.wait(20)
    closing = threading.Thread(target=first.close)
    closing.start()
    try:
        wait_until(first._scribe._stopping.is_set)
        assert closing.is_alive()
    finally:
        gate.set()
        closing.join()
    assert len(calls) == 1
    open_cache().flush(20)
    assert database.rows == {number: number for number in range(5) if number not in calls}


def now_ms(client: Any) -> int:
    """The server's time in milliseconds."""
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def test_lost_lock_leaves_the_settling_to_the_new_owner(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Who was too slow has written, but may not say so: the record is written again."""
    cache = open_cache()
    database.gate.clear()
    cache["k"] = 1
    wait_until(lambda: database.calls)
    with redis_server.client() as client:
        client.set(OWNER, f"L{'f' * 16} {now_ms(client) + 300}")
        database.gate.set()
        wait_until(lambda: database.rows)
        assert client.xlen(QUEUE) == 1
    cache.flush(20)
    assert database.calls == [("write", {"k": 1})] * 2


def test_flushed_server_leaves_no_mark_that_blocks(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """A mark whose record is gone says nothing; the queue is made anew."""
    cache = open_cache(write_delay=60)
    with redis_server.client() as client:
        cache["k"] = "lost"
        wait_until(lambda: cache.stats().writing.owned)
        client.delete(QUEUE, "nc:{default:0}:v:sk")
        database.rows["k"] = "row"
        cache.drop("k")
        assert cache["k"] == "row"
        cache["k"] = "new"
        cache.flush(10)
    assert database.rows["k"] == "new"


def test_hold_does_not_take_the_waiting_value_away(open_cache: Opener, database: Database) -> None:
    """It is going to be written over whatever the hold announces."""
    database.rows["k"] = "old"
    cache = open_cache(write_delay=60)
    cache["k"] = "new"
    with cache.hold(["k"]):
        assert cache["k"] == "new"
    assert cache["k"] == "new"
    with cache.hold(["held"]):
        cache["held"] = 1  # not kept, but written
        assert cache.get("held") is None
    cache.flush(10)
    assert database.rows == {"k": "new", "held": 1}
    assert cache["held"] == 1


def test_outage_is_never_forgiven(open_cache: Opener, redis_server: RedisServer) -> None:
    """With ``on_error="queue"`` either: what is in no queue is not written."""
    cache = open_cache(on_error="queue")
    redis_server.kill()
    for change in (lambda: cache.set("k", 1), lambda: cache.__delitem__("k")):
        with pytest.raises(ShardUnavailableError):
            change()
    with pytest.raises(nearcache.BulkError):
        cache.set_many({"k": 1})
    assert cache.invalidate("k") is False


def test_coroutine_functions_write_behind_and_aio_flushes(open_cache: Opener) -> None:
    """In an event loop of the writing thread, whoever made the change."""
    rows: dict[Any, Any] = {}
    loops = set()

    async def write_many(values: Mapping[Any, Any]) -> None:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        if "bad" in values:
            raise ValueError("bad")
        rows.update(values)

    cache = open_cache(writer=Writer(write_many=write_many), write_attempts=1)
    cache["a"] = 1

    async def main() -> None:
        async with cache.aio as c:
            await c.set("b", 2)
            await c.set_many({"c": 3, "bad": 4})
            assert await c.incr("n") == 1
            await c.flush(20)
            assert rows == {"a": 1, "b": 2, "c": 3, "n": 1}
            (letter,) = await c.dead_letters()
            assert await c.discard_dead_letters([letter.id]) == 1
            assert await c.replay_dead_letters() == 0
            with pytest.raises(TypeError, match="cannot delete"):
                await c.delete_many(["a"])

    asyncio.run(main())
    assert len(loops) == 1


def test_memory_cache_and_cache_without_queue_have_nothing_to_flush(open_cache: Opener) -> None:
    """The calls are there, and do nothing."""
    for cache in (nearcache.open("memory://"), open_cache(write_delay=None)):
        cache["k"] = 1
        cache.flush()
        assert cache.dead_letters() == []
        assert cache.replay_dead_letters() == cache.discard_dead_letters([]) == 0
        assert cache.stats().writing == cache.health().writing == nearcache.WritingStats()
        cache.close()


def test_writer_slower_than_its_lock_stays_the_owner(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """The listener renews it: nobody else begins the same."""
    lease_s = 2.0
    cache, other = open_cache(lease=lease_s), open_cache(lease=lease_s)
    database.gate.clear()
    cache["k"] = 1
    wait_until(lambda: database.calls)
    for _ in range(2):
        owned = redis_server.cli("GET", OWNER)
        wait_until(partial(lambda before: redis_server.cli("GET", OWNER) > before, owned), what="renewed")
        assert redis_server.cli("PTTL", OWNER) == -1  # else the server might evict it
    other["j"] = 2
    wait_until(lambda: other.stats().writing.backlog == 2, what="told how many wait, hence not the owner")
    assert len(database.calls) == 1
    database.gate.set()
    cache.flush(20)
    assert database.rows == {"k": 1, "j": 2}


def test_server_that_may_evict_the_queue_is_refused(open_cache: Opener, redis_server: RedisServer) -> None:
    """What was acknowledged is not to be lost for want of memory."""
    redis_server.cli("CONFIG", "SET", "maxmemory", "100mb")
    redis_server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match=r"write_delay.*allkeys-lru.*volatile-lru or noeviction"):
        open_cache()
    open_cache(write_delay=None)["k"] = 1
    redis_server.cli("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    open_cache()


@pytest.mark.parametrize(
    ("policy", "delayed", "through"),
    [
        ("volatile-ttl", "evicts locks first", "evicts locks first"),
        ("volatile-random", "evict", "evicts locks as well"),
        ("allkeys-random", "evict", "evicts locks as well"),
        ("volatile-lfu", "evict", "evicts locks as well"),
        ("allkeys-lfu", "evict", "evicts locks as well"),
    ],
)
def test_server_that_evicts_locks_is_refused_with_a_writer(
    open_cache: Opener, redis_server: RedisServer, policy: str, delayed: str, through: str
) -> None:
    """First or among much else: two processes would write at once, behind the cache or through it, or two increments
    begin from the same number. Without a writer it only loads twice.
    """
    redis_server.cli("CONFIG", "SET", "maxmemory-policy", policy)
    open_cache()  # without a limit nothing is evicted
    redis_server.cli("CONFIG", "SET", "maxmemory", "100mb")
    with pytest.raises(ConfigError, match=rf"write_delay='{policy}'.*{delayed}"):
        open_cache()
    with pytest.raises(ConfigError, match=rf"writer='{policy}'.*{through}"):
        open_cache(write_delay=None)
    open_cache(write_delay=None, writer=None)["k"] = 1


def test_full_server_still_lets_the_queue_be_written(
    open_cache: Opener, redis_server: RedisServer, database: Database
) -> None:
    """Nothing else would make room: taken, settled, given up and waited for without more memory."""
    cache = open_cache(write_delay=60.0)
    cache.set_many({f"k{number}": "x" * 1000 for number in range(50)})
    redis_server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis_server.cli("CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(ServerReplyError, match="OOM"):
        cache["more"] = 1
    cache.flush(20)
    assert len(database.rows) == 50


def test_dropped_cache_ends_its_writer(open_cache: Opener, redis_server: RedisServer, database: Database) -> None:
    """Without close: no thread holds the cache, and none is left. What waits is the next one's."""
    cache = nearcache.open(redis_server.url, writer=database, write_delay=60)
    cache["k"] = 1
    wait_until(lambda cache=cache: cache.stats().writing.owned)
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    open_cache().flush(20)
    assert database.rows == {"k": 1}


def test_writer_that_refers_to_the_cache_keeps_nothing_alive(open_cache: Opener, redis_server: RedisServer) -> None:
    """As a method of what owns the cache does. What waits is the next one's."""

    class Shop:
        def __init__(self) -> None:
            self.written: dict[Any, Any] = {}
            self.cache = nearcache.open(redis_server.url, writer=self.write, write_delay=0.02)

        def write(self, key: Any, value: Any) -> None:
            self.written[key] = value

    shop = Shop()
    shop.cache["k"] = 1
    shop.cache.flush(10)
    assert shop.written == {"k": 1}
    gone, thread = weakref.ref(shop), shop.cache._scribe.thread
    del shop
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_listeners_are_told_of_queued_changes_as_of_others(open_cache: Opener) -> None:
    """Stored, replaced, deleted, by whom; the end of a record is no change."""
    cache, other = open_cache(), open_cache()
    seen: list[Any] = []
    told: list[Any] = []
    with (
        cache.listen(lambda event: seen.append((event.kind, event.key, event.origin))) as mine,
        other.listen(lambda event: told.append((event.kind, event.key, event.origin))) as theirs,
    ):
        cache["k"] = 1
        cache["k"] = 2
        cache.incr("k")
        del cache["k"]
        cache.delete_many(["j"])
        cache.flush(10)
        other["end"] = 1
        wait_until(lambda: ("created", "end", "remote") in seen)
        wait_until(lambda: ("created", "end", "local") in told)
        assert mine.flush(10)
        assert theirs.flush(10)
    assert [event for event in seen if event[1] != "end"] == [
        ("created", "k", "local"),
        ("updated", "k", "local"),
        ("updated", "k", "local"),
        ("removed", "k", "local"),
        ("removed", "j", "local"),
    ]
    assert [event[0] for event in told if event[1] == "k"][-1] == "removed"
