"""A whole cache behind a network that is slow, cuts, resets and loses; and names that come to mean another address."""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.options import Endpoint
from support.ordeal import Ordeal, codes
from support.proxy import Proxy
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")  # before the servers, which some tests start again

TIMEOUT = 0.4


@pytest.fixture
def cache(proxy: Proxy) -> Iterator[Cache[Any, Any]]:
    """A cache whose every byte goes through the proxy."""
    url = f"redis://127.0.0.1:{proxy.port}"
    with nearcache.open(url, timeout=TIMEOUT, connect_timeout=TIMEOUT, max_staleness=0.4) as cache:
        yield cache


@pytest.fixture
def ordeal(cache: Cache[Any, Any], redis_server: RedisServer) -> Iterator[Ordeal]:
    """What is asked of the cache meanwhile."""
    with Ordeal(cache, TIMEOUT, redis_server) as ordeal:
        yield ordeal


def test_slow_answers_are_given_up_in_time(ordeal: Ordeal, proxy: Proxy) -> None:
    """Every byte in time does not make the whole in time; with the network quick again, all is well."""
    proxy.slow_down(0.05)
    for _ in range(3):
        assert codes(ordeal.attempt()) == {"ShardUnavailableError"}
    proxy.mend()
    ordeal.recover()


@pytest.mark.parametrize("what", ["requests", "answers"])
def test_loss_one_way_makes_l1_dark_and_calls_fail_in_time(
    cache: Cache[Any, Any], ordeal: Ordeal, proxy: Proxy, what: str
) -> None:
    """Nothing is disconnected. A write whose answer is lost has happened, and is reported as perhaps having."""
    proxy.swallow(what)
    wait_until(lambda: not cache.health().shards[0].vouched)
    errors = ordeal.attempt()
    assert codes(errors) == {"ShardUnavailableError"}
    proxy.mend()
    ordeal.recover()


def test_lost_answer_of_a_write_leaves_no_older_value_behind(
    cache: Cache[Any, Any], proxy: Proxy, redis_server: RedisServer
) -> None:
    """The write is in Redis although its caller got an error, until the invalidation that makes up for it is there."""
    cache["k"] = "old"
    proxy.swallow("answers")
    with pytest.raises(ShardUnavailableError) as caught:
        cache["k"] = "new"
    assert caught.value.sent
    assert cache.peek("k") is None
    proxy.mend()
    assert cache.get("k") in ("new", None)
    wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed, 20)
    assert cache.get("k") in ("new", None)
    cache["k"] = "newest"
    assert cache["k"] == "newest"


def test_server_away_behind_a_proxy_that_accepts(ordeal: Ordeal, redis_server: RedisServer) -> None:
    """As behind a load balancer: connections are made, and end at once."""
    redis_server.kill()
    for _ in range(3):
        assert codes(ordeal.attempt()) == {"ShardUnavailableError"}
    redis_server.start()
    ordeal.recover()


# -- one connection overtakes another -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["thread", "task"])
def test_answer_that_a_message_overtakes_is_not_kept(
    cache: Cache[Any, Any], proxy: Proxy, redis_server: RedisServer, by: str
) -> None:
    """An old value is on its way when the message comes that ends it. The caller may have it, L1 may not."""
    with nearcache.open(redis_server.url) as other:
        other["k"] = "old value"
        assert cache.selftest(20).ok  # its message has come
        proxy.hold(b"old value")
        read = (lambda: cache.get("k")) if by == "thread" else (lambda: asyncio.run(cache.aio.get("k")))
        found: list[Any] = []
        reading = threading.Thread(target=lambda: found.append(read()))
        reading.start()
        assert proxy.held.wait(20)
        applied = cache.stats().coherence.received
        other["k"] = "new value"
        wait_until(lambda: cache.stats().coherence.received > applied)
        proxy.mend()
        reading.join()
        assert found[0] in ("old value", None)  # None: it came after the time that the call had
        assert cache.peek("k") is None
        assert cache["k"] == "new value"


def test_message_that_an_answer_overtakes_does_not_bring_the_old_value_back(
    cache: Cache[Any, Any], proxy: Proxy, redis_server: RedisServer
) -> None:
    """The new value is read before its message has come; the message then spares it, for it is its own."""
    with nearcache.open(redis_server.url) as other:
        other["k"] = "old value"
        assert cache.selftest(20).ok
        proxy.hold(b"\n2:sk")  # how a message names the key
        other["k"] = "new value"
        assert cache["k"] == "new value"
        assert proxy.held.wait(20)
        proxy.mend()
        wait_until(lambda: cache.health().ok)
        assert cache["k"] == "new value"


# -- slow subscribers, names -------------------------------------------------------------------------------------


def test_slow_subscriber_that_is_disconnected_finds_out(
    make_redis: Callable[..., RedisServer], make_worker: Callable[..., Any]
) -> None:
    """The server drops who does not read; what it sent is lost, and nothing of it is served stale afterwards."""
    server = make_redis(options={"client-output-buffer-limit": "pubsub 64kb 32kb 1"})
    worker = make_worker(SLOW)
    worker.call("start", server.url)
    with nearcache.open(server.url) as cache, server.client() as client:
        cache["k"] = "old"
        worker.call("read", "k")
        worker.signal(signal.SIGSTOP)
        before = len(client.client_list(_type="pubsub"))
        cache["k"] = "new"
        keys = [f"{'x' * 500}{n}" for n in range(1000)]

        def overflow() -> bool:
            cache.delete_many(keys)
            return len(client.client_list(_type="pubsub")) < before

        wait_until(overflow, 30, what="the server hangs up on the one that does not read")
        worker.signal(signal.SIGCONT)
        assert worker.call("read", "k") == "new"
        worker.call("recover")
        assert worker.call("read", "k") == "new"


SLOW = """
import nearcache
from support.ordeal import Ordeal
def start(url):
    global cache, ordeal
    cache = nearcache.open(url, max_staleness=0.4)
    ordeal = Ordeal(cache)
def read(key):
    return cache.get(key)
def recover():
    ordeal.recover()
"""


def test_name_that_comes_to_mean_another_address_is_followed(
    make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are resolved for each connection. Nothing of the old server is served after the new one is reached."""
    first = make_redis(transport="tcp")
    second = RedisServer(first.binary, transport="tcp", options={"bind": "127.0.0.2"})
    second.host, second.port = "127.0.0.2", first.port
    with second:
        address = [first.host]
        resolve = socket.getaddrinfo

        def answer(host: Any, *arguments: Any, **options: Any) -> Any:
            return resolve(address[0] if host == "cache.test" else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        url = f"redis://cache.test:{first.port}"
        with (
            nearcache.open(url, timeout=TIMEOUT, max_staleness=0.4) as cache,
            Ordeal(cache, TIMEOUT) as ordeal,
        ):
            cache["only here"] = 1
            address[0] = second.host
            first.kill()
            ordeal.recover()
            assert cache.get("only here") is None
            assert second.cli("DBSIZE") > 0


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that takes no connection and does not refuse any: the queue of those that wait is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as waiting:
        while True:
            link = waiting.enter_context(socket.socket())
            link.setblocking(False)
            if link.connect_ex(server.getsockname()) and link not in select.select([], [link], [], 0.05)[1]:
                break
        yield server.getsockname()


def test_name_with_silent_addresses_in_front_of_the_good_one_takes_one_timeout_for_all(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its share of the time. If each had all of it, a call would take a multiple of its time-out."""
    with silent() as first, silent() as second:
        found = [first, second, ("127.0.0.1", proxy.port)]
        known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
        driver = Driver([Endpoint("a", host="a.example", port=1)], timeout_s=1.2, connect_timeout_s=1.2)
        try:
            assert isinstance(driver.execute([Exchange(0, [("PING",)])])[0], Reply)
        finally:
            driver.close()
