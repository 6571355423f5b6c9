"""uvloop's loops do as asyncio's own: they carry exchanges, plain and over TLS, and let go of all at their end."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop

import nearcache
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk
from support.leaks import holdings
from support.redis import RedisServer
from support.waiting import wait_until

TLS = Path(__file__).parents[1] / "data" / "tls"
TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("libuv", "no_leaks")


@pytest.fixture(scope="module")
def libuv() -> None:
    """What libuv opens once per process is open."""
    run(asyncio.sleep(0))


def run(work: Any) -> Any:
    """Run a coroutine in a loop of uvloop's, and close that."""
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def test_uvloop_carries_what_the_cache_does(redis_server: RedisServer) -> None:
    """Values, loads by many tasks, several loops one after the other; no socket outlives its loop."""
    cache = nearcache.open(redis_server.url)
    calls: list[str] = []

    async def loader(key: str) -> str:
        calls.append(key)
        await asyncio.sleep(0.01)
        return key.upper()

    async def use(key: str) -> None:
        value = bytes(3_000_000)
        await cache.aio.set("large", value)
        cache.drop("large")
        assert await cache.aio.get("large") == value
        assert await asyncio.gather(*[cache.aio.get_or_load(key, loader) for _ in range(16)]) == [key.upper()] * 16
        assert await cache.aio.get(key) == key.upper()

    before = holdings().files
    for key in ("a", "b", "c"):
        run(use(key))
    assert calls == ["a", "b", "c"]
    wait_until(lambda: holdings().files <= before)
    cache.close()


def test_uvloop_that_is_closed_in_the_middle_leaves_the_load_to_others() -> None:
    """As for asyncio's loops: closing it is enough."""
    cache = nearcache.open("memory://")
    entered, results = threading.Event(), list[Any]()

    async def hang(key: str) -> str:
        entered.set()
        await asyncio.Event().wait()
        return "never"

    async def begin() -> None:
        task = asyncio.ensure_future(cache.aio.get_or_load("k", hang))
        while not cache._loads.waiting:  # type: ignore[attr-defined]  # a MemoryCache has them
            await asyncio.sleep(0)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # this one is the test's own

    def wait() -> None:
        assert entered.wait(TIMEOUT)
        results.append(cache.get_or_load("k", str.upper))

    thread = threading.Thread(target=wait)
    thread.start()
    run(begin())
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert results == ["K"]
    cache.close()


def test_uvloop_carries_tls() -> None:
    """Large exchanges, both ways at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    value = bytes(1_000_000)
    with FakeServer(lambda command: bulk(command[1]), tls=context) as server:
        driver = Driver([
            Endpoint("a", host="localhost", port=server.port, tls=True, ssl_ca_certs=str(TLS / "cert.pem"))
        ])  # fmt: skip
        aio = AsyncDriver(driver)
        driver.attach(aio)
        reply = run(aio.execute([Exchange(0, [("ECHO", value)] * 10)], timeout_s=60))[0]
        assert isinstance(reply, Reply)
        assert reply.values == [value] * 10
        driver.close()
