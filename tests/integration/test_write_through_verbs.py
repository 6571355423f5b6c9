"""Write-through, and verbs that decide by what is there: the data decides, and one at a time. On real servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import ABSENT, Cache, ContentionError, LoadCycleError, Loaded, ShardUnavailableError, Writer
from support.caches import Opener
from support.redis import RedisServer
from support.rows import Database
from support.waiting import wait_until
from support.worker import Worker

pytestmark = pytest.mark.usefixtures("no_leaks")

#: A process whose writer never returns once it has begun.
STUCK = """
import threading, nearcache
begun = threading.Event()
def write(key, value):
    begun.set()
    threading.Event().wait()
def start(url):
    global cache
    cache = nearcache.open(url, loader=lambda key: 1, writer=write, lease=0.3)
    threading.Thread(target=cache.incr, args=("k",), daemon=True).start()
    assert begun.wait(30)
"""


@pytest.fixture
def cache(open_cache: Opener, database: Database) -> Cache[Any, Any]:
    return open_cache(loader=database.load, writer=database)


def is_locked(server: RedisServer, key: str = "k") -> bool:
    """Whether somebody has the lock on a text key."""
    return bool(server.cli("EXISTS", f"nc:{{default:0}}:x:s{key}"))


def is_waited_for(server: RedisServer, key: str = "k") -> bool:
    """Whether somebody waits for that lock."""
    return "W" in str(server.cli("GET", f"nc:{{default:0}}:x:s{key}"))


def test_verbs_decide_by_the_data_and_not_by_a_copy(cache: Cache[Any, Any], database: Database) -> None:
    """Another program has changed the rows and told nobody: L1 and L2 have what was there before."""
    cache.set_many({"n": 1, "gone": 1, "text": "a"})
    database.rows = {"n": 10, "text": "A", "new": 1}
    assert (cache["n"], cache["gone"], cache["text"]) == (1, 1, "a")
    assert cache.incr("n") == 11
    assert not cache.replace("gone", 2)
    assert cache.append("text", "b")
    assert not cache.add("new", 2)
    assert cache.setdefault("new", 3) == 1
    assert cache.compute("n", lambda value: value * 2) == 22
    assert cache.get_and_set("n", 5) == 22
    assert cache.get_and_delete("gone", "nothing") == "nothing"
    assert database.rows == {"n": 5, "text": "Ab", "new": 1}
    assert cache.get_many(["n", "gone"]) == {"n": 5}


def test_each_verb_writes_once_and_everybody_reads_the_result(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """In this L1, and in other processes, whose copies are gone."""
    other = open_cache(loader=database.load)
    verbs: list[tuple[Callable[[], object], object, object]] = [
        (lambda: cache.add("k", 1), True, 1),
        (lambda: cache.replace("k", 2), True, 2),
        (lambda: cache.incr("k", 5), 7, 7),
        (lambda: cache.decr("k"), 6, 6),
        (lambda: cache.get_and_set("k", "b"), 6, "b"),
        (lambda: cache.append("k", "c"), True, "bc"),
        (lambda: cache.prepend("k", "a"), True, "abc"),
        (lambda: cache.compute("k", lambda value: [value]), ["abc"], ["abc"]),
        (lambda: cache.cas("k", 8, cache.gets("k")[1]), True, 8),
        (lambda: cache.get_and_delete("k"), 8, None),
        (lambda: cache.setdefault("k", 9), 9, 9),
    ]
    for number, (verb, answer, left) in enumerate(verbs, 1):
        assert verb() == answer
        assert database.rows.get("k") == left
        assert len(database.calls) == number
        wait_until(lambda left=left: other.get_or_load("k", database.rows.get) == left)
        if left is None:  # to them it is a value by now
            other.invalidate("k")


def test_refused_change_writes_nothing_and_leaves_all_copies(cache: Cache[Any, Any], database: Database) -> None:
    """Nobody has to load again because of it."""
    cache["k"] = 1
    del database.calls[:]
    _, version = cache.gets("k")
    assert not cache.add("k", 2)
    assert not cache.cas("k", 2, version + 1)
    assert not cache.cas("k", 2, 0)
    assert not cache.append("nothing", "x")
    assert (cache.peek("k"), cache.gets("k")) == (1, (1, version))
    assert database.calls == []


def test_cas_goes_by_the_version_also_after_the_value_has_left_the_cache(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """``gets`` loads here: without a version nobody could ever compare."""
    other = open_cache(loader=database.load, writer=database)
    database.rows["k"] = 1
    value, version = cache.gets("k")
    assert (value, version != 0) == (1, True)
    other["k"] = 2
    assert not cache.cas("k", 3, version)
    value, version = cache.gets("k")
    assert cache.cas("k", value + 1, version)
    assert database.rows == {"k": 3}
    assert cache.gets("nothing", "default") == ("default", 0)
    assert cache.cas("nothing", 1, 0)
    assert not other.cas("nothing", 2, 0)


def test_of_many_at_once_each_sees_what_the_one_before_has_made(open_cache: Opener, database: Database) -> None:
    """Two processes' caches with two threads each: no sum is lost."""
    caches = [open_cache(loader=database.load, writer=database) for _ in range(2)]
    start = threading.Barrier(4)

    def count(cache: Cache[Any, Any]) -> None:
        start.wait(30)
        for _ in range(5):
            cache.incr("k")

    threads = [threading.Thread(target=count, args=(cache,)) for cache in caches * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert database.rows == {"k": 20}
    assert caches[0]["k"] == 20


def test_who_waits_for_the_lock_is_woken_by_a_message(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Time alone would let it wait for half a minute."""
    first, second = (open_cache(loader=database.load, writer=database, lease=30.0) for _ in range(2))
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(second.incr("k")))

    def begin() -> None:
        database.before_commit = lambda: None
        waiting.start()
        wait_until(lambda: is_waited_for(redis_server))

    database.before_commit = begin
    assert first.incr("k") == 1
    waiting.join(20)
    assert answers == [2]


def test_lock_that_ends_while_the_loader_runs_makes_the_verb_begin_anew(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Its process was stopped, say. Another verb may have written since, on which the next has to build."""
    other = open_cache(loader=database.load, writer=database)
    database.rows["k"] = 1
    loads: list[int] = []

    def load(key: str) -> int:
        loads.append(database.rows[key])
        if len(loads) == 1:
            redis_server.cli("DEL", "nc:{default:0}:x:sk")  # as its time does
            assert other.incr("k") == 2
        return loads[-1]

    late = open_cache(loader=load, writer=database)
    assert late.incr("k") == 3
    assert (loads, database.rows) == ([1, 2], {"k": 3})
    assert [value["k"] for _, value in database.calls] == [2, 3]
    assert not is_locked(redis_server)
    assert late["k"] == other["k"] == 3


def test_lock_that_ends_every_time_is_given_up_and_nothing_is_written(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Who cannot keep the lock for as long as the loader takes hears of it."""

    def load(key: str) -> int:
        redis_server.cli("DEL", "nc:{default:0}:x:sk")
        return 1

    cache = open_cache(loader=load, writer=database)
    with pytest.raises(ContentionError):
        cache.incr("k")
    with pytest.raises(ContentionError):
        cache.get_and_delete("k")
    assert database.calls == []
    assert cache["k"] == 1  # nothing is on hold, so that readers can load and keep it


def test_holder_that_is_killed_keeps_others_for_no_longer_than_a_lease(
    redis_server: RedisServer, open_cache: Opener, make_worker: Callable[..., Worker], database: Database
) -> None:
    """kill -9 in the writer: the lock is renewed no more, and the next has it."""
    worker = make_worker(STUCK)
    worker.call("start", redis_server.url)
    assert is_locked(redis_server)
    worker.kill()
    cache = open_cache(loader=database.load, writer=database, lease=0.3)
    assert cache.incr("k") == 1
    assert not is_locked(redis_server)


def test_what_raises_is_heard_and_leaves_no_lock(
    cache: Cache[Any, Any], database: Database, redis_server: RedisServer
) -> None:
    """Loader, function and writer alike; the row is as it was."""
    database.rows["k"] = "text"
    with pytest.raises(TypeError, match="the value is str"):
        cache.incr("k")
    with pytest.raises(ZeroDivisionError):
        cache.compute("k", lambda _value: 1 // 0)
    assert database.calls == []
    database.fails = error = OSError("disk")
    with pytest.raises(OSError, match="disk") as caught:
        cache.append("k", "s")
    assert caught.value is error
    database.fails = None
    assert not is_locked(redis_server)
    assert cache.append("k", "s")
    assert database.rows == {"k": "texts"}


def test_loader_that_raises_keeps_the_writer_from_being_called(open_cache: Opener, database: Database) -> None:
    """Nobody knows what is there; only KeyError, and ABSENT, say that nothing is."""

    def load(key: Any) -> Any:
        if key == "broken":
            raise OSError("down")
        return ABSENT if key == "absent" else Loaded(1, ttl=60)

    cache = open_cache(loader=load, writer=database)
    with pytest.raises(OSError, match="down"):
        cache.add("broken", 1)
    assert database.calls == []
    assert cache.add("absent", 1)
    assert cache.incr("present") == 2


def test_clear_does_not_end_the_lock(
    cache: Cache[Any, Any], open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """It changes no data, so who is between loading and writing is still alone."""
    other = open_cache(loader=database.load, writer=database)
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(other.incr("k")))

    def meanwhile() -> None:
        database.before_commit = lambda: None
        cache.clear()
        waiting.start()
        wait_until(lambda: is_waited_for(redis_server))
        assert answers == []

    database.before_commit = meanwhile
    assert cache.incr("k") == 1
    waiting.join(20)
    assert (answers, database.rows) == ([2], {"k": 2})


def test_verb_within_a_verb_of_the_same_key_is_a_cycle(cache: Cache[Any, Any], database: Database) -> None:
    """It would wait for itself. Other keys are free."""
    database.rows["k"] = 1
    with pytest.raises(LoadCycleError) as caught:
        cache.compute("k", lambda _value: cache.incr("k"))
    assert caught.value.chain == ("k", "k")
    assert cache.compute("k", lambda value: value + cache.incr("other")) == 2
    assert database.rows == {"k": 2, "other": 1}


def test_result_has_the_terms_of_the_call_or_those_of_the_loader(open_cache: Opener, database: Database) -> None:
    """``compute`` stores with its own; what ``incr`` made comes back with those that a loader gives it."""
    cache = open_cache(loader=database.load, writer=database, tags=["all"])
    assert cache.compute("a", lambda value: value, 1, ttl=60, tags=["some"]) == 1
    wait_until(lambda: cache.get("a") == cache.peek("a"))
    wait_until(lambda: cache.remaining_ns("a") <= 60e9)  # L1's clock goes by ticks
    assert 59e9 < cache.remaining_ns("a") <= 60e9
    cache.invalidate_tag("some")
    assert cache.get("a") is None
    assert cache.incr("b", ttl=60, tags=["some"]) == 1
    assert cache.get("b") is None
    assert cache["b"] == 1
    wait_until(lambda: cache["b"] == cache.peek("b"))
    cache.invalidate_tag("all")
    assert cache.get("b") is None


def test_without_a_loader_nobody_can_ask_the_data(open_cache: Opener, database: Database) -> None:
    """The error says what to do. What changes no value works."""
    cache = open_cache(writer=database)
    cache["k"] = 1
    for refused in (
        lambda: cache.add("k", 2),
        lambda: cache.cas("k", 2, 1),
        lambda: cache.incr("k"),
        lambda: cache.compute("k", lambda value: value + 1),
        lambda: cache.get_and_delete("k"),
        lambda: cache.setdefault("other", 1),
    ):
        with pytest.raises(TypeError, match=r"loader=.*cache\.hold\(keys\).*write_delay="):
            refused()
    assert cache.touch("k", 60)
    assert cache.gets("k")[0] == 1
    assert cache.setdefault("k", 5) == 1
    assert len(database.calls) == 1


def test_writer_that_cannot_delete_takes_nothing(open_cache: Opener, database: Database) -> None:
    """It is said before anything happens."""
    cache = open_cache(loader=database.load, writer=database.write)
    cache["k"] = 1
    with pytest.raises(TypeError, match="cannot delete"):
        cache.get_and_delete("k")
    assert cache.peek("k") == 1


def test_views_keys_and_private_copies_take_part(open_cache: Opener, database: Database) -> None:
    """The loader and the writer are given what the user gave, and the object is the reader's own."""
    cache = open_cache(
        loader=lambda key: database.rows[key], writer=database, key=lambda key: key.lower(), isolation="copy"
    )
    assert cache.compute("K", lambda value: [*value, 1], []) == [1]
    assert cache.get_and_set("K", [2]) == [1]
    cache["k"].append(3)
    assert cache.compute("K", lambda value: [*value, 4]) == [2, 4]
    assert database.rows == {"K": [2, 4]}
    plain = open_cache(loader=database.load, writer=database, namespace="views")
    view = plain.view("v")
    assert view.incr("n") == 1
    assert view.gets("n")[0] == 1
    assert database.rows["v", "n"] == 1


def test_shard_that_is_down_keeps_the_writer_from_being_called(
    cache: Cache[Any, Any], database: Database, redis_server: RedisServer
) -> None:
    """Nobody could be kept from changing the row at the same time."""
    redis_server.kill()
    with pytest.raises(ShardUnavailableError):
        cache.incr("k")
    assert database.calls == []


def test_aio_takes_coroutine_functions_and_threads_refuse_them(open_cache: Opener) -> None:
    """Tasks are in each other's way as threads are, and a task is told that it waits for itself."""
    rows: dict[Any, Any] = {}

    async def load(key: Any) -> Any:
        await asyncio.sleep(0)
        return rows[key]

    async def write(key: Any, value: Any) -> None:
        await asyncio.sleep(0)
        if value == "again":
            await cache.aio.replace(key, 1)
        rows[key] = value

    async def delete(key: Any) -> None:
        del rows[key]

    cache = open_cache(loader=load, writer=Writer(write=write, delete=delete))

    async def main() -> None:
        async with cache.aio as c:
            assert sorted(await asyncio.gather(*(c.incr("k") for _ in range(10)))) == list(range(1, 11))
            value, version = await c.gets("k")
            assert value == 10
            assert await c.cas("k", 11, version)
            with pytest.raises(LoadCycleError):
                await c.replace("k", "again")
            assert await c.setdefault("new", 2) == 2
            assert await c.get_and_delete("k") == 11
            assert rows == {"new": 2}
            for refused in (
                lambda: cache.incr("k"),
                lambda: cache.setdefault("z", 1),
                lambda: cache.get_and_delete("k"),
            ):
                with pytest.raises(TypeError, match=r"use cache\.aio"):
                    refused()

    asyncio.run(main())


def test_cancelled_verb_leaves_the_lock_to_its_time_and_others_go_on(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """A thread may still be in the writer. One that is cancelled while it waits keeps nobody."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def write(key: Any, value: Any) -> None:
        begun.set()
        await never.wait()
        database.rows[key] = value

    cache = open_cache(writer=write, loader=database.load, lease=0.2)

    async def main() -> None:
        async with cache.aio as c:
            first = asyncio.create_task(c.incr("k"))
            await begun.wait()
            second, third = asyncio.create_task(c.incr("k")), asyncio.create_task(c.incr("k"))
            await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert is_locked(redis_server)
            never.set()
            assert await third == 1

    asyncio.run(main())
