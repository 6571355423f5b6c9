"""A connection that ends at each byte of an answer or a message: whole answers or errors, and never an older value.

Each test goes on from byte to byte until everything has passed, so that none is left out.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import BulkError, ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from nearcache.options import Endpoint
from support.ordeal import Ordeal
from support.proxy import Proxy
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

TIMEOUT = 2.0
BOUND = 0.4
KEYS = ["a", "b", "c"]
#: In the orderly way or by RST, to a thread or to a task: each of the four once.
WAYS = pytest.mark.parametrize(("how", "by"), [("cut_after", "thread"), ("reset_after", "task")])
OTHER_WAYS = pytest.mark.parametrize(("how", "by"), [("reset_after", "thread"), ("cut_after", "task")])


@pytest.fixture
def cache(proxy: Proxy, redis_server: RedisServer) -> Iterator[Cache[Any, Any]]:
    """A cache whose every byte goes through the proxy; in the end it goes through the ordeal that others go through."""
    url = f"redis://127.0.0.1:{proxy.port}"
    with nearcache.open(url, timeout=TIMEOUT, connect_timeout=TIMEOUT, max_staleness=BOUND) as cache:
        yield cache
        mend(proxy, cache)
        wait_until(lambda: cache.health().ok)
        with Ordeal(cache, TIMEOUT, redis_server) as ordeal:
            ordeal.recover()


@pytest.fixture
def apart(redis_server: RedisServer) -> Iterator[Callable[..., dict[Any, Any]]]:
    """A function that reads what is in Redis."""
    with nearcache.open(redis_server.url) as other:

        def read(keys: list[str]) -> dict[Any, Any]:
            for key in keys:
                other.drop(key)
            return other.get_many(keys)

        yield read


@pytest.fixture
def calling(cache: Cache[Any, Any], by: str) -> Iterator[Callable[..., Any]]:
    """A function that calls a method of the cache, in this thread or in a task."""
    if by == "thread":
        yield lambda name, *arguments: getattr(cache, name)(*arguments)
        return
    loop = asyncio.new_event_loop()
    yield lambda name, *arguments: loop.run_until_complete(getattr(cache.aio, name)(*arguments))
    loop.close()


def mend(proxy: Proxy, cache: Cache[Any, Any]) -> None:
    """End the harm, and do not wait for the breaker each time."""
    proxy.mend()
    cache._driver.note_alive(0)  # type: ignore[attr-defined]  # not public


@WAYS
def test_connection_that_ends_at_each_byte_of_a_read_gives_no_wrong_answer(
    proxy: Proxy, redis_server: RedisServer, how: str, by: str
) -> None:
    """Whole answers, or errors. An end in the handshake of the second try is one more error."""
    redis_server.cli("SET", "k", "value", "PX", 1_000_000)
    driver = Driver([Endpoint("a", host="127.0.0.1", port=proxy.port)], timeout_s=TIMEOUT)
    view = AsyncDriver(driver)
    driver.attach(view)
    loop = asyncio.new_event_loop()
    exchange = [Exchange(0, [("GET", "k"), ("GETRANGE", "k", 0, 1)])]

    def read() -> Any:
        if by == "thread":
            return driver.execute(exchange)[0]
        return loop.run_until_complete(view.execute(exchange, timeout_s=TIMEOUT))[0]

    for count in itertools.count():
        wait_until(lambda: isinstance(read(), Reply))
        getattr(proxy, how)(count)
        reply = read()
        mend_driver(proxy, driver)
        if isinstance(reply, ShardUnavailableError):
            continue
        answers = [value for value in reply.values if not isinstance(value, ShardUnavailableError)]
        assert answers == [b"value", b"va"][: len(answers)]
        assert len(reply.values) == 2
        if len(answers) == 2:
            assert count == len(b"$5\r\nvalue\r\n$2\r\nva\r\n")
            break
    wait_until(lambda: driver.status(0).connections <= 1)
    driver.close()
    loop.close()


def mend_driver(proxy: Proxy, driver: Driver) -> None:
    """As :func:`mend`."""
    proxy.mend()
    driver.note_alive(0)


@WAYS
def test_connection_that_ends_at_each_byte_of_a_write_leaves_l1_and_l2_agreeing(
    cache: Cache[Any, Any], proxy: Proxy, apart: Callable[..., Any], calling: Callable[..., Any], how: str
) -> None:
    """The write has happened or is made up for by an invalidation; an older value is never read."""
    for count in itertools.count():
        wait_until(lambda: cache.health().ok)
        calling("set", "k", -1)  # over a connection that is there from then on
        getattr(proxy, how)(count)
        passed = False
        with suppress(ShardUnavailableError):
            calling("set", "k", count)
            passed = True
        mend(proxy, cache)
        assert calling("get", "k") in (None, count)
        # The end may have come before the request.
        wait_until(lambda count=count: apart(["k"]).get("k") in (None, count))
        if passed:
            assert count > 30
            break


@pytest.mark.slow
@OTHER_WAYS
def test_connection_that_ends_at_each_byte_of_many_writes_tells_of_each_key(
    cache: Cache[Any, Any], proxy: Proxy, apart: Callable[..., Any], calling: Callable[..., Any], how: str
) -> None:
    """What is said to be stored is; what is said not to be, is not; and nothing older than either comes back."""
    for count in itertools.count():
        wait_until(lambda: cache.health().ok)
        calling("set_many", dict.fromkeys(KEYS, -1))
        getattr(proxy, how)(count)
        stored, failed, unknown = set(KEYS), set[str](), set[str]()
        try:
            calling("set_many", dict.fromkeys(KEYS, count))
        except BulkError as error:
            stored, failed, unknown = set(error.stored), set(error.failed), set(error.unknown)
        mend(proxy, cache)
        assert stored | failed | unknown == set(KEYS)
        found = calling("get_many", KEYS)
        assert set(found.values()) <= {count}
        assert not found.keys() & failed
        wait_until(lambda count=count: set(apart(KEYS).values()) <= {count})
        if stored == set(KEYS):
            assert apart(KEYS) == dict.fromkeys(KEYS, count)
            break


@pytest.mark.slow
def test_connection_that_ends_at_each_byte_of_a_message_leaves_nothing_old(
    cache: Cache[Any, Any], proxy: Proxy, redis_server: RedisServer
) -> None:
    """Half a message is none: the lane is dark until a new connection has caught up. A whole one has done its work."""
    with nearcache.open(redis_server.url) as other:
        other["k"] = -1
        for count in itertools.count():
            old = count - 1
            wait_until(lambda old=old: cache.health().ok and cache.get("k") == old == cache.peek("k"))
            resyncs = cache.stats().coherence.resyncs
            proxy.reset_after(count)
            other["k"] = count
            wait_until(lambda old=old: cache.peek("k") != old)
            was_cut = not cache.health().shards[0].vouched
            mend(proxy, cache)
            wait_until(lambda: cache.health().ok)
            assert cache["k"] == count
            if not was_cut and cache.stats().coherence.resyncs == resyncs:
                break
