"""Tokens: reading in one process what another one has written."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, wire
from support.proxy import Proxy
from support.redis import RedisServer
from support.threads import PATIENCE
from support.waiting import wait_until
from support.worker import Worker

WRITER = """
import nearcache
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def put(key, value):
    cache[key] = value
    return cache.token()
def remove(key):
    cache.invalidate(key)
    return cache.token()
def wipe():
    cache.clear()
    return cache.token()
def read(key):
    return cache.get(key)
def wait(token, timeout=5.0):
    cache.wait_for(token, timeout)
"""


def test_times_to_wait_may_be_timedeltas(redis_server: RedisServer) -> None:
    """For tokens, messages and writers, of the cache and of its coroutines; ``inf`` is no time to wait."""
    longest = timedelta(seconds=PATIENCE)

    async def wait(cache: Cache[Any, Any], token: str) -> None:
        await cache.aio.wait_for(token, longest)
        await cache.aio.flush(longest)
        assert (await cache.aio.selftest(longest)).ok
        await cache.aio.close()

    other = nearcache.open(redis_server.url)
    with other, nearcache.open(redis_server.url, writer=print, write_delay=0.01) as cache, cache.listen(print) as heard:
        other["k"] = 1
        cache.wait_for(other.token(), longest)
        assert cache.get("k") == 1
        assert cache.selftest(longest).ok
        assert heard.flush(longest)
        cache.flush(longest)
        for call in (cache.flush, cache.selftest, heard.flush):
            with pytest.raises(ConfigError, match="timeout=inf"):
                call(float("inf"))
        asyncio.run(wait(cache, other.token()))


@pytest.mark.every_server
def test_reader_given_a_token_serves_nothing_older(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """A hundred times, at once after the write, without any waiting of the test's own: to and fro."""
    first, second = make_worker(WRITER), make_worker(WRITER)
    for worker in (first, second):
        worker.call("start", redis_server.url)
    writer, reader = first, second
    for n in range(100):
        token = writer.call("put", "k", n)
        reader.call("wait", token)
        assert reader.call("read", "k") == n
        writer, reader = reader, writer
    reader.call("wait", writer.call("remove", "k"))
    assert reader.call("read", "k") is None
    writer.call("put", "k", "again")
    reader.call("wait", writer.call("wipe"))
    assert reader.call("read", "k") is None


@pytest.mark.parametrize("how", ["refresh", "bulk", "old"])
def test_token_after_a_load_anew_names_it(redis_server: RedisServer, how: str) -> None:
    """Others have copies of the value that it replaces, and are told; who has been given the token has heard."""
    loads: dict[str, Callable[[Any, str], Any]] = {
        "refresh": lambda cache, key: cache.refresh(key, str.upper),
        "bulk": lambda cache, key: cache.get_or_load_many([key], lambda keys: {key: key.upper()}, max_age=0),
        "old": lambda cache, key: cache.get_or_load(key, str.upper, max_age=0),
    }
    with nearcache.open(redis_server.url) as first, nearcache.open(redis_server.url) as second:
        for number in range(150):
            key = f"k{number}"
            first[key] = key
            assert second[key] == key
            loads[how](first, key)
            second.wait_for(first.token(), timeout=5)
            assert second[key] == key.upper()


def test_token_of_two_shards_names_both(
    two_shards: tuple[RedisServer, RedisServer], make_worker: Callable[..., Worker]
) -> None:
    """One is enough, whatever shard the writes went to."""
    url = f"unix://{two_shards[0].path},{two_shards[1].path}"
    with nearcache.open(url, shard_names=["a", "b"]) as cache:
        worker = make_worker(WRITER)
        worker.call("start", url, shard_names=["a", "b"])
        for key in "abcdefgh":
            cache[key] = 1
            assert worker.call("read", key) in {1, None}
        for key in "abcdefgh":
            cache[key] = 2
        assert set(wire.parse_token(cache.token())) == {0, 1}
        worker.call("wait", cache.token())
        assert [worker.call("read", key) for key in "abcdefgh"] == [2] * 8


def test_reader_cut_off_silently_gives_nothing_rather_than_the_old_value(redis_server: RedisServer) -> None:
    """Its connections stand, but nothing comes over them any more, and B is long: the token ends that."""
    with Proxy(redis_server.path) as proxy, nearcache.open(redis_server.url) as writer:
        url = f"redis://127.0.0.1:{proxy.port}"
        with nearcache.open(url, max_staleness=60.0, timeout=0.3) as reader:
            writer["k"] = "old"
            assert reader.selftest().ok
            assert reader["k"] == "old"
            proxy.swallow("answers")
            writer["k"] = "new"
            assert reader["k"] == "old"  # within the bound, and nobody has asked for more
            reader.wait_for(writer.token(), timeout=0.05)
            assert reader.get("k") is None
            proxy.mend()
            wait_until(lambda: reader.get("k") == "new")


def test_reader_whose_messages_are_held_up_looks_at_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not been heard in time is looked at in L2, entry by entry, before it is served."""
    held, heard = threading.Event(), threading.Event()
    with nearcache.open(redis_server.url, max_staleness=60.0) as reader, nearcache.open(redis_server.url) as writer:
        writer["k"], writer["same"] = "old", "same"
        assert reader.selftest().ok
        assert (reader["k"], reader["same"]) == ("old", "same")
        listener = reader._listener
        follower_type = type(_followers(listener)[0])
        digest = follower_type.digest

        def stuck(self: Any, now_ns: int) -> None:
            if self in _followers(listener):
                heard.set()
                held.wait(PATIENCE)
            digest(self, now_ns)

        for follower in _followers(listener):
            follower.inbox.blind = True  # compiled code leaves every message to it
        monkeypatch.setattr(follower_type, "digest", stuck)
        try:
            writer["k"] = "new"
            assert heard.wait(PATIENCE)
            assert reader["k"] == "old"  # within the bound, and nobody has asked for more
            reader.wait_for(writer.token(), timeout=0.05)
            assert reader["k"] == "new"
            assert reader["same"] == "same"
        finally:
            held.set()


def _followers(listener: Any) -> list[Any]:
    return list(listener._followers.values())


def test_token_that_has_been_heard_costs_nothing(redis_server: RedisServer) -> None:
    """No request goes out, and what is in memory stays as it is."""
    with nearcache.open(redis_server.url) as cache:
        cache["k"] = "v"
        token = cache.token()
        assert cache.selftest().ok
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(cache._listener), "fence", lambda *_arguments: pytest.fail("a request was sent"))
            cache.wait_for(token)
        assert cache.peek("k") == "v"


@pytest.mark.every_server
def test_token_of_an_epoch_that_nobody_is_in_is_settled_by_a_fence(redis_server: RedisServer) -> None:
    """After a FLUSHALL, of which no message tells, one question to the server is enough."""
    with nearcache.open(redis_server.url, max_staleness=60.0) as cache:
        cache["k"] = "v"
        redis_server.cli("FLUSHALL")
        assert cache["k"] == "v"  # within the bound
        cache.wait_for("1.0-0-0", timeout=10.0)
        assert cache.get("k") is None


def test_token_after_a_write_in_an_epoch_not_yet_heard_of_covers_it(redis_server: RedisServer) -> None:
    """The answer to a write may tell of a new epoch before any message does."""
    with nearcache.open(redis_server.url, max_staleness=60.0) as cache:
        cache["k"] = 1
        before = wire.parse_token(cache.token())[0]
        cache._tier.acknowledge(0, b"00000000000000e2", b"1", [b"sk"], cache._tier.serial(0))
        (epoch, _) = wire.parse_token(cache.token())[0]
        assert epoch != before[0]


def test_token_of_other_shards_or_of_another_form_is_refused(redis_server: RedisServer) -> None:
    """Tokens come from outside."""
    with nearcache.open(redis_server.url) as cache:
        with pytest.raises(ValueError, match="are the shards the same"):
            cache.wait_for("1.0-a-1.1-b-2")
        with pytest.raises(ValueError, match="give what token"):
            cache.wait_for("nonsense")
        cache.wait_for("1")


def test_token_in_memory_is_empty_and_waits_for_nothing() -> None:
    """``memory://`` has one process only."""
    with nearcache.open("memory://") as cache:
        cache.wait_for(cache.token())
