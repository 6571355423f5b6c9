"""Write-through: the data first, then the cache, and no old value in between. On real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT, Cache, ShardUnavailableError, UnencodableValueError, Writer
from nearcache.loading import tags_named
from support.caches import Opener
from support.redis import Binary, RedisServer
from support.rows import Database
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def cache(open_cache: Opener, database: Database) -> Cache[Any, Any]:
    return open_cache(loader=database.load, writer=database)


def test_set_writes_first_and_then_everybody_reads_the_new_value(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """In this L1, in L2, and in other processes, whose copies are gone."""
    other = open_cache()
    other["k"] = "old"
    database.before_commit = lambda: wait_until(lambda: other.get("k") is None)  # on hold: neither value is there
    cache["k"] = "new"
    assert (database.rows, cache.peek("k")) == ({"k": "new"}, "new")
    assert other["k"] == "new"
    assert database.calls == [("write", {"k": "new"})]


def test_reader_within_the_window_cannot_put_the_old_value_back(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """It loaded before the commit, and gets what it loaded; nobody else does."""
    other = open_cache(loader=database.load)
    database.rows["k"] = "old"
    assert other["k"] == "old"
    loaded: list[Any] = []

    def read() -> None:
        wait_until(lambda: other.peek("k") is None)
        loaded.append(other["k"])

    database.before_commit = read
    cache["k"] = "new"
    assert (loaded, other.stats().loader.loads) == (["old"], 2)
    wait_until(lambda: other["k"] == "new")
    assert cache["k"] == "new"


@pytest.mark.parametrize("change", ["set", "set_many", "incr", "get_and_set", "add", "get_and_delete", "invalidate"])
def test_change_by_a_cache_without_a_writer_is_not_overwritten(
    cache: Cache[Any, Any], open_cache: Opener, database: Database, change: str
) -> None:
    """It comes before the writer has returned, and may be the later one: the next reader loads."""
    other = open_cache()
    arguments: dict[str, tuple[Any, ...]] = {
        "set": ("k", 2), "set_many": ({"k": 2, "j": 3},), "get_and_set": ("k", 2), "add": ("k", 2),
    }  # fmt: skip

    def overtake() -> None:
        database.rows["k"] = 2
        getattr(other, change)(*arguments.get(change, ("k",)))

    database.after_commit = overtake
    cache["k"] = 1
    assert cache.peek("k") is None
    assert other.get("k") is None
    assert cache["k"] == 2


def test_load_from_before_the_write_is_not_stored_after_it(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """Its lease was voided, however long it takes."""
    other = open_cache()

    def slow(key: Any) -> Any:
        value = database.rows.get(key, "nothing")
        cache[key] = "new"
        return value

    assert other.get_or_load("k", slow) == "nothing"
    assert other["k"] == "new"


def test_writer_that_raises_is_heard_and_leaves_no_value(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """The same exception, and nothing on hold: what there is, is loaded again."""
    other = open_cache(loader=database.load)
    cache["k"] = "old"
    assert other["k"] == "old"
    database.fails = error = ZeroDivisionError("no")
    for change in (
        lambda: cache.set("k", "new"),
        lambda: cache.set_many({"k": "new", "j": "new"}),
        lambda: cache.__delitem__("k"),
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            change()
        assert caught.value is error
        assert cache["k"] == "old"
        wait_until(lambda: cache["k"] == cache.peek("k") == "old")  # kept: the hold has ended
    wait_until(lambda: other["k"] == "old")


def test_value_that_cannot_be_stored_is_not_written(cache: Cache[Any, Any], database: Database) -> None:
    """It is an error before anything has happened."""
    with pytest.raises(UnencodableValueError):
        cache["k"] = object()
    with pytest.raises(UnencodableValueError):
        cache.set_many({"j": 1, "k": object()})
    assert database.calls == []


def test_writes_of_two_processes_at_once_leave_the_answer_to_the_data(
    cache: Cache[Any, Any], open_cache: Opener, database: Database
) -> None:
    """Nobody knows whose commit was the later, so neither value is kept."""
    other = open_cache(writer=database)

    def overtake() -> None:
        database.after_commit = lambda: None
        other["k"] = "later"

    database.after_commit = overtake
    cache["k"] = "earlier"
    assert database.rows["k"] == "later"
    assert (cache.get("k"), other.get("k")) == (None, None)
    assert cache["k"] == "later"


@pytest.mark.parametrize("many", [False, True])
def test_change_announced_during_a_write_is_not_undone_by_it(
    cache: Cache[Any, Any], open_cache: Opener, database: Database, many: bool
) -> None:
    """By who has changed the data in another way, after the writer. The hold ends all the same."""
    other = open_cache(loader=database.load)

    def overtake() -> None:
        database.rows["k"] = "later"
        other.invalidate("k")

    database.after_commit = overtake
    if many:
        cache.set_many({"k": "earlier", "j": "earlier"})
        assert other["j"] == "earlier"
    else:
        cache["k"] = "earlier"
    assert (cache.get("k"), other["k"]) == (None, "later")
    assert cache["k"] == "later"
    assert other.stats().loader.loads == 1  # what it has loaded is kept for all


@pytest.mark.parametrize("many", [False, True])
def test_tag_changed_during_a_write_ends_what_it_writes(
    cache: Cache[Any, Any], open_cache: Opener, database: Database, many: bool
) -> None:
    """The value is older than that change, whatever is known of the tag when it is stored."""
    other = open_cache(loader=database.load)

    def overtake() -> None:
        database.rows["k"] = "later"
        other.invalidate_tag("t")

    database.after_commit = overtake
    if many:
        cache.set_many({"k": "earlier", "j": "earlier"}, tags=["t"])
    else:
        cache.set("k", "earlier", tags=["t"])
    assert (other["k"], cache["k"]) == ("later", "later")


@pytest.mark.parametrize("many", [False, True])
def test_clear_during_a_write_is_not_undone_by_it(
    cache: Cache[Any, Any], open_cache: Opener, database: Database, many: bool
) -> None:
    """Whoever clears may have changed everything, after the writer. The hold ends all the same."""
    other = open_cache(loader=database.load)

    def overtake() -> None:
        database.rows["k"] = "later"
        other.clear()

    database.after_commit = overtake
    if many:
        cache.set_many({"k": "earlier", "j": "earlier"})
    else:
        cache["k"] = "earlier"
    assert (cache.get("k"), other["k"], cache["k"]) == (None, "later", "later")
    assert other.stats().loader.loads == 1


def test_tag_of_which_nobody_can_tell_is_no_obstacle_to_writing(server_binary: Binary, database: Database) -> None:
    """Whether the value is younger than its last change is not known then, so readers load it."""
    with (
        RedisServer(server_binary) as first,
        RedisServer(server_binary) as second,
        nearcache.open(f"unix://{first.path},{second.path}", loader=database.load, writer=database) as cache,
    ):
        key = next(key for key in range(50) if cache._tier.place(key)[0] == 0)
        tag = next(f"t{n}" for n in range(50) if tags_named(cache._tier, [f"t{n}"])[0].lane == 1)
        second.kill()
        cache.set(key, "new", tags=[tag])
        assert database.rows == {key: "new"}
        assert cache.get(key) is None
        assert cache[key] == "new"


def test_many_are_written_in_one_call_or_one_by_one(open_cache: Opener, database: Database) -> None:
    """Whatever the writer has."""
    values = {f"k{number}": number for number in range(300)}
    cache = open_cache(writer=database)
    cache.set_many(values, ttl=60)
    assert database.calls == [("write_many", values)]
    assert {key: cache.peek(key) for key in values} == values
    database.calls.clear()
    plain = open_cache(namespace="plain", writer=database.write)
    plain.update(a=1, b=2)
    assert database.calls == [("write", {"a": 1}), ("write", {"b": 2})]
    assert plain.get_many(["a", "b"]) == {"a": 1, "b": 2}
    writer = Writer(write_many=database.write_many, delete_many=database.calls.append)
    many = open_cache(namespace="many", writer=writer)
    many["c"] = 3
    many.set_many({})
    many.delete_many([])
    assert database.calls[2:] == [("write_many", {"c": 3})]


def test_deletions_reach_the_data_and_invalidations_do_not(cache: Cache[Any, Any], database: Database) -> None:
    """The first change the data; the others say that somebody else has."""
    cache.set_many({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
    database.calls.clear()
    del cache["a"]
    assert cache.pop("b") == 2
    cache.delete_many(["c", "d"])
    assert database.rows == {"e": 5}
    assert [call[1] for call in database.calls] == [{key: ABSENT} for key in "abcd"]
    cache.invalidate("e")
    cache.clear()
    cache.drop("e")
    assert database.rows == {"e": 5}
    assert cache["e"] == 5
    view = cache.view("v")
    view["k"] = 1
    assert database.rows["v", "k"] == 1
    del view["k"]
    assert set(database.rows) == {"e"}


@pytest.mark.parametrize("write_delay", [None, 0.01])
@pytest.mark.parametrize("side", ["thread", "task"])
def test_pop_deletes_data_that_the_cache_does_not_hold(
    open_cache: Opener, database: Database, write_delay: float | None, side: str
) -> None:
    """The default says only that no tier knew a value."""
    more = {} if write_delay is None else {"write_delay": write_delay}
    cache = open_cache(loader=database.load, writer=database, **more)
    database.rows.update(a=1, b=2)
    pop: Any = cache.pop if side == "thread" else lambda *args: asyncio.run(cache.aio.pop(*args))
    assert pop("a", None) is None
    with pytest.raises(KeyError, match=r"^'b'$"):
        pop("b")
    wait_until(lambda: database.rows == {})
    assert cache.get("a") is None


def test_writer_that_cannot_delete_says_so_and_nothing_happens(open_cache: Opener, database: Database) -> None:
    """A function of key and value; what drops copies only still works."""
    cache = open_cache(writer=database.write)
    cache["k"] = 1
    for refused in (lambda: cache.__delitem__("k"), lambda: cache.pop("k"), lambda: cache.delete_many(["k"])):
        with pytest.raises(TypeError, match=r"cannot delete.*Writer\(.*invalidate"):
            refused()
    assert cache["k"] == 1
    assert cache.invalidate("k")


def test_decorated_functions_results_are_not_written(cache: Cache[Any, Any], database: Database) -> None:
    """They are no data, and neither is what keeps them apart."""

    @cache.cached
    def double(number: int) -> int:
        return 2 * number

    assert double(2) == 4
    double.set(5, 2)
    double.cache_clear()
    assert double(2) == 4
    assert database.calls == []


def test_writer_is_given_the_users_key_and_value(open_cache: Opener, database: Database) -> None:
    """Not what ``key=`` makes of it, nor what ``isolation="copy"`` keeps."""
    cache = open_cache(namespace="keyed", writer=database, key=lambda key: key.lower(), isolation="copy")
    cache["K"] = [1]
    cache.set_many({"A": [2], "B": [3]})
    assert database.calls == [("write", {"K": [1]}), ("write_many", {"A": [2], "B": [3]})]
    assert cache["k"] == [1]


def test_shard_that_is_down_keeps_the_writer_from_being_called(
    cache: Cache[Any, Any], database: Database, redis_server: RedisServer
) -> None:
    """Copies elsewhere could not be told: the caller decides."""
    redis_server.kill()
    with pytest.raises(ShardUnavailableError):
        cache["k"] = 1
    with pytest.raises(ShardUnavailableError):
        del cache["k"]
    assert database.calls == []


def test_shard_that_goes_down_meanwhile_is_no_error(
    cache: Cache[Any, Any], database: Database, redis_server: RedisServer
) -> None:
    """It is written. No copy is left, and the invalidation is made up for."""
    database.after_commit = redis_server.kill
    cache["k"] = "new"
    assert database.rows == {"k": "new"}
    assert cache.peek("k") is None
    assert cache.stats().coherence.owed == 1


def test_hold_of_a_write_whose_shard_goes_down_is_ended_when_it_is_back(
    cache: Cache[Any, Any], database: Database, redis_server: RedisServer
) -> None:
    """The writer is back, so nobody needs it any more."""

    def lose() -> None:
        redis_server.save()
        redis_server.kill()

    for change in (lambda: cache.set("k", "new"), lambda: cache.delete_many(["k"])):
        database.after_commit = lose
        change()
        database.after_commit = lambda: None
        redis_server.start()
        with redis_server.client() as client:
            wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed)
            assert not client.exists("nc:{default:0}:l:sk")


def test_aio_takes_coroutine_functions_and_threads_refuse_them(open_cache: Opener) -> None:
    """The same steps; a thread could not await."""
    rows: dict[Any, Any] = {}

    async def write(key: Any, value: Any) -> None:
        await asyncio.sleep(0)
        rows[key] = value

    async def delete_many(keys: Any) -> None:
        for key in keys:
            del rows[key]

    cache = open_cache(writer=Writer(write=write, delete_many=delete_many))

    async def main() -> None:
        async with cache.aio as c:
            await c.set("a", 1)
            await c.set_many({"b": 2, "c": 3})
            assert rows == {"a": 1, "b": 2, "c": 3}
            assert cache.peek("a") == 1
            assert await c.pop("a") == 1
            await c.delete_many(["b"])
            assert rows == {"c": 3}
            with pytest.raises(TypeError, match=r"coroutine function: use cache\.aio"):
                cache["e"] = 1

    asyncio.run(main())


def test_write_of_a_thread_needs_no_loader_that_a_thread_can_call(open_cache: Opener, database: Database) -> None:
    """The loader may be a coroutine function: it is asked by those verbs only that decide by what is there."""

    async def load(key: Any) -> Any:
        return database.load(key)

    cache = open_cache(loader=load, writer=database)
    cache["k"] = 1
    cache.set_many({"m": 2})
    del cache["m"]
    assert database.rows == {"k": 1}
    with pytest.raises(TypeError, match=r"use cache\.aio for this verb"):
        cache.add("k", 2)


def test_cancelled_write_leaves_the_hold_to_its_time(
    open_cache: Opener, redis_server: RedisServer, database: Database
) -> None:
    """A thread may still be in the writer, and commit later: nothing can be loaded into the cache before."""
    begun = asyncio.Event()

    async def write(key: Any, value: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    cache = open_cache(writer=write, loader=database.load)

    async def main() -> None:
        task = asyncio.create_task(cache.aio.set("k", 1))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cache.aio.close()

    with redis_server.client() as client:
        asyncio.run(main())
        assert client.get("nc:{default:0}:l:sk").startswith(b"H")
