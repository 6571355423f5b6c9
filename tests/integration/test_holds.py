"""Holds: while the data behind keys is being changed, nothing old can be put back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.coherence.journal import Journal
from support.redis import RedisServer
from support.threads import PATIENCE
from support.waiting import wait_until
from support.worker import Worker

HOLDER = """
import os
import nearcache
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def begin(keys, seconds):
    global held
    held = cache.hold(keys, seconds)
    held.__enter__()
def end():
    held.__exit__(None, None, None)
def load(key, value):
    return cache.get_or_load(key, lambda _key: value)
def fork(action):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        action()
    except BaseException:
        os._exit(1)
    os._exit(0)
def enter():
    with held:
        pass
"""


def exists(server: RedisServer, key: str, kind: str = "v") -> bool:
    """Whether L2 has the value, or the mark, of a text key."""
    return bool(server.cli("EXISTS", f"nc:{{default:0}}:{kind}:s{key}"))


@pytest.mark.every_server
def test_reader_inside_the_window_gets_its_value_and_stores_nothing(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], make_worker: Callable[..., Worker]
) -> None:
    """Whoever saw the state before the commit cannot put it back, in whatever process; afterwards all is as ever."""
    cache, other, worker = open_cache(), open_cache(), make_worker(HOLDER)
    worker.call("start", redis_server.url)
    cache["k"] = "old"
    with cache.hold(["k"]):
        for _ in range(2):
            assert other.get_or_load("k", lambda _key: "old again") == "old again"
            assert cache.get_or_load("k", lambda _key: "mine") == "mine"
            assert worker.call("load", "k", "theirs") == "theirs"
            assert other.peek("k") is None
            assert cache.peek("k") is None
        assert not exists(redis_server, "k")
        other["k"] = "written inside"
        other.set_many({"k": "written inside", "free": 1})
        assert not exists(redis_server, "k")
        assert other.peek("k") is None
        assert other["free"] == 1
    assert not exists(redis_server, "k", "l")
    assert other.get("k") is None
    assert other.get_or_load("k", lambda _key: "new") == "new"
    assert exists(redis_server, "k")
    assert cache["k"] == "new"


def test_load_that_began_before_the_window_is_not_stored(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """The lease of a load in progress is voided by the hold."""
    cache, other = open_cache(), open_cache()

    def loader(_key: str) -> str:
        with cache.hold(["k"]):
            pass
        return "old"

    assert other.get_or_load("k", loader) == "old"
    assert not exists(redis_server, "k")
    assert other.peek("k") is None


@pytest.mark.every_server
def test_holder_that_is_killed_lets_go_by_time(redis_server: RedisServer, make_worker: Callable[..., Worker]) -> None:
    """kill -9 between begin and end: the hold ends by itself."""
    holder, reader = make_worker(HOLDER), make_worker(HOLDER)
    for worker in (holder, reader):
        worker.call("start", redis_server.url)
    holder.call("begin", ["k"], 0.6)
    holder.kill()
    assert exists(redis_server, "k", "l")
    assert reader.call("load", "k", "inside") == "inside"
    wait_until(lambda: not exists(redis_server, "k", "l"))
    assert reader.call("load", "k", "after") == "after"
    assert exists(redis_server, "k")


def test_child_that_is_forked_inside_does_not_end_its_parents_hold(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """An error or ``sys.exit()`` in a child leaves the block too, while the parent is in the middle of its change."""
    worker, other = make_worker(HOLDER), make_worker(HOLDER)
    for each in (worker, other):
        each.call("start", redis_server.url)
    worker.call("begin", ["k"], 30)
    assert worker.eval("fork(end)") == 0
    assert other.call("load", "k", "old") == "old"
    assert not exists(redis_server, "k")
    worker.call("end")
    assert other.call("load", "k", "new") == "new"
    assert other.call("load", "k", "newer") == "new"


def test_object_that_parent_and_child_have_holds_for_each_by_itself(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """Made before a server forks its workers, say: the first to leave its block must not let go of the others' keys."""
    worker, other = make_worker(HOLDER), make_worker(HOLDER)
    for each in (worker, other):
        each.call("start", redis_server.url)
    worker.run("held = cache.hold(['k'], 30)")
    worker.run(
        """
def inside():
    held.__enter__()
    os._exit(0)
fork(inside)
"""
    )
    worker.call("enter")
    assert other.call("load", "k", "old") == "old"
    assert not exists(redis_server, "k")


def test_holds_that_overlap_last_until_nobody_can_need_them(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """Whose is the last nobody can say, so that only time ends what two have held."""
    cache, other = open_cache(), open_cache()
    with cache.hold(["k"], 0.5):
        with other.hold(["k"], 0.4):
            pass
        assert cache.get_or_load("k", lambda _key: 1) == 1
        assert not exists(redis_server, "k")
    assert cache.get_or_load("k", lambda _key: 1) == 1
    assert not exists(redis_server, "k")
    wait_until(lambda: not exists(redis_server, "k", "l"))
    assert cache.get_or_load("k", lambda _key: 2) == 2
    assert exists(redis_server, "k")


def test_one_hold_used_twice_in_turn_ends_each_time(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """The object may be kept and used again."""
    cache = open_cache()
    hold = cache.hold(["a", "b"])
    for n in range(2):
        with hold:
            assert exists(redis_server, "a", "l")
        assert not exists(redis_server, "a", "l")
        cache["a"] = n
        assert exists(redis_server, "a")


def test_hold_within_itself_ends_with_the_outer_block(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """The blocks inside have one token, and the last that is left ends it."""
    cache = open_cache()
    hold = cache.hold(["k"])
    with hold:
        with hold:
            assert exists(redis_server, "k", "l")
        assert exists(redis_server, "k", "l")
    assert not exists(redis_server, "k", "l")


def test_exception_in_the_block_ends_the_hold_and_passes(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """KeyboardInterrupt too; the keys are invalidated in any case, for nobody knows what the block has done."""
    cache, other = open_cache(), open_cache()
    for error in (ValueError, KeyboardInterrupt):
        cache["k"] = 1
        assert other.get("k") == 1
        with pytest.raises(error), cache.hold(["k"]):
            raise error
        assert not exists(redis_server, "k", "l")
        assert other.selftest().ok
        assert other.get("k") is None


def test_hold_that_cannot_begin_does_not_enter_the_block(
    two_shards: tuple[RedisServer, RedisServer],
) -> None:
    """The error says which keys are held and which are not known to be; those that are end by time."""
    first, second = two_shards
    cache = nearcache.open(f"unix://{first.path},{second.path}", shard_names=["a", "b"], timeout=0.3)
    with cache:
        keys = [f"k{n}" for n in range(20)]
        second.kill()
        entered = False
        with pytest.raises(nearcache.BulkError) as caught, cache.hold(keys):
            entered = True
        assert not entered
        assert caught.value.stored
        assert caught.value.failed or caught.value.unknown
        second.start()


def test_stats_while_holds_are_made_up_for_are_counted_under_the_lock(
    open_cache: Callable[..., Cache[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To count what is owed is to go through it, and another thread may pay just then."""
    cache, free = open_cache(), []
    lock = cache._tier.lock  # type: ignore[attr-defined]  # of the class behind
    counted: Any = Journal.owed_count.fget  # type: ignore[attr-defined]  # mypy takes it for what it returns

    def watched(journal: Journal) -> int:
        def try_lock() -> None:
            free.append(taken := lock.acquire(blocking=False))
            if taken:
                lock.release()

        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join(PATIENCE)
        owed: int = counted(journal)
        return owed

    monkeypatch.setattr(Journal, "owed_count", property(watched))
    assert cache.stats().coherence.owed == 0
    assert set(free) == {False}


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_hold_that_a_stopped_server_begins_too_late_is_let_go_of(redis_server: RedisServer, kind: str) -> None:
    """The block was not entered, so nobody needs it: it ends when the server is back, and not by its time."""
    with nearcache.open(redis_server.url, timeout=0.3, max_staleness=0.6) as cache:

        async def enter() -> None:
            await cache.aio.set("k", 1)  # the loop has a connection from now on
            redis_server.pause()
            await cache.aio.hold(["k"], 60).__aenter__()

        cache["k"] = 1
        with pytest.raises(nearcache.BulkError) as caught:
            if kind == "task":
                asyncio.run(enter())
            else:
                redis_server.pause()
                cache.hold(["k"], 60).__enter__()
        assert set(caught.value.unknown) == {"k"}
        assert cache.stats().coherence.owed == 1
        redis_server.resume()
        wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed, what="the debt is paid")
        assert not exists(redis_server, "k", "l")
        assert cache.get_or_load("k", lambda _key: 2) == 2
        assert exists(redis_server, "k")


def test_hold_that_is_let_go_of_late_leaves_that_of_another_alone(redis_server: RedisServer) -> None:
    """Who was luckier with the same key holds it as long as he needs it."""
    url = redis_server.url
    with nearcache.open(url, timeout=0.3, max_staleness=0.6) as cache, nearcache.open(url, timeout=5.0) as other:
        with other.hold(["k"], 60):
            redis_server.pause()
            with pytest.raises(nearcache.BulkError):
                cache.hold(["k"], 60).__enter__()
            redis_server.resume()
            wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed, what="the debt is paid")
            assert exists(redis_server, "k", "l")
        assert cache.selftest().ok


def test_hold_whose_end_fails_is_ended_when_the_shard_is_back(redis_server: RedisServer) -> None:
    """And lingers from then on, if it was to."""
    with nearcache.open(redis_server.url, timeout=0.3, max_staleness=0.6) as cache:
        for linger in (0.0, 60.0):
            cache["k"] = 1
            with pytest.raises(nearcache.BulkError), cache.hold(["k"], 600, linger=linger):
                redis_server.save()
                redis_server.kill()
            assert cache.stats().coherence.owed == 1
            redis_server.start()
            wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed, what="the debt is paid")
            left_ms = redis_server.cli("PTTL", "nc:{default:0}:l:sk")
            assert left_ms == -2 if not linger else 0 < left_ms <= 60_000


def test_hold_or_bulk_verb_of_one_text_is_refused_with_the_remedy(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It would be of its characters."""
    cache = open_cache()
    for hold in (cache.hold, cache.aio.hold):
        with pytest.raises(TypeError, match=r"hold\('sku:1'\): give a list of keys, as in hold\(\['sku:1'\]\)"):
            hold("sku:1")
    for each in (cache, cache.view("v")):
        with pytest.raises(TypeError, match=r"delete_many\('sku:1'\): give a list"):
            each.delete_many("sku:1")
        with pytest.raises(TypeError, match=r"get_many\('sku:1'\): give a list"):
            each.get_many("sku:1")
    with pytest.raises(TypeError, match=r"delete_many\('sku:1'\): give a list"):
        asyncio.run(cache.aio.delete_many("sku:1"))


def test_hold_of_a_cache_that_queues_goes_on_in_an_outage_and_is_made_up_for(
    two_shards: tuple[RedisServer, RedisServer],
) -> None:
    """The block is entered, though nobody is kept from storing what is old; that ends when the shard is back."""
    first, second = two_shards
    url, names = f"unix://{first.path},{second.path}", ["a", "b"]
    keys = [f"k{n}" for n in range(20)]
    with nearcache.open(url, shard_names=names, timeout=0.3, max_staleness=0.6, on_error="queue") as cache:
        cache.set_many(dict.fromkeys(keys, "old"))
        second.save()
        second.kill()
        with cache.hold(keys):
            second.start()
            wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed, what="the shard is back")
            with nearcache.open(url, shard_names=names) as other:  # of the shard that was away, nothing is on hold
                for key in keys:
                    assert other.get_or_load(key, lambda _key: "old again") == "old again"
            assert {exists(first, key, "l") or exists(second, key) for key in keys} == {True}
            second.kill()
        second.start()
        wait_until(lambda: not cache.stats().coherence.owed and cache.health().ok, what="the debts are paid")
        assert cache.get_many(keys) == {}


def test_hold_of_bad_length_is_refused_with_the_range(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Before anything is sent."""
    cache = open_cache()
    for seconds in (0, -1, 3601, float("nan")):
        with pytest.raises(ValueError, match=r"give 0\.001 to 3600"):
            cache.hold(["k"], seconds)
