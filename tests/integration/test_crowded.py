"""No more connections can be made, or none for a listener: what a process has of them has to do, and does."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest

import nearcache
from nearcache.errors import AuthenticationFailedError, ShardUnavailableError, UnsupportedServerError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from support.lanes import endpoint_of
from support.pools import wanting_another
from support.redis import RedisServer
from support.threads import PATIENCE, together
from support.waiting import wait_until

pytestmark = [pytest.mark.every_server, pytest.mark.usefixtures("no_leaks")]

READ = Exchange(0, [("PTTL", "k"), ("GET", "k")])
MANY = 8


@contextmanager
def full_house(server: RedisServer) -> Iterator[None]:
    """Let the server take no more clients than it has."""
    with server.client() as client:
        client.config_set("maxclients", len(client.client_list()))
        try:
            yield
        finally:
            client.config_set("maxclients", 1000)


@contextmanager
def another_password(server: RedisServer) -> Iterator[None]:
    """Change the password. Who has logged in stays so."""
    with server.client() as client:
        client.config_set("requirepass", "another")
        try:
            yield
        finally:
            client.config_set("requirepass", "")


@contextmanager
def trouble(error: OSError, _server: RedisServer) -> Iterator[None]:
    """Have a connection fail in this way when it is made."""
    with mock.patch("nearcache.l2.handshake.dial", side_effect=error):
        yield


EXPIRED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"
#: How it comes that no more connections are made, and what is said of that.
SHUT = {
    "full": (full_house, "the server takes no more clients (maxclients)"),
    "password": (another_password, "refused the default user"),
    "certificate": (partial(trouble, ssl.SSLCertVerificationError(1, EXPIRED)), EXPIRED),
    "resolver": (partial(trouble, socket.gaierror(-3, "Temporary failure in name resolution")), "Temporary failure"),
    "descriptors": (partial(trouble, OSError(errno.EMFILE, "Too many open files")), "Too many open files"),
}


@pytest.fixture(params=SHUT)
def reason(request: pytest.FixtureRequest) -> str:
    """What is said when no more connections are made."""
    return SHUT[request.param][1]


@pytest.fixture
def shut(request: pytest.FixtureRequest, reason: str, redis_server: RedisServer) -> AbstractContextManager[None]:
    """While it is entered, no more connections are made, for that reason."""
    return next(close(redis_server) for close, said in SHUT.values() if said == reason)


@pytest.fixture
def driver(redis_server: RedisServer) -> Iterator[Driver]:
    """A driver with one connection of the many that it may have."""
    driver = Driver([endpoint_of(redis_server)], pool_size=MANY, timeout_s=PATIENCE)
    assert isinstance(driver.execute([READ])[0], Reply)
    yield driver
    driver.close()


def test_threads_wait_for_what_there_is_and_nothing_counts_against_the_server(
    driver: Driver, shut: AbstractContextManager[None]
) -> None:
    """The refusal of one connection more says nothing about those that there are."""
    wrong: list[object] = []

    def work(_number: int) -> None:
        answers = [driver.execute([READ])[0] for _ in range(20)]
        wrong.extend(answer for answer in answers if not isinstance(answer, Reply))

    with shut:
        together(work, MANY)
        assert wrong == []
        assert (driver.status(0).breaker, driver.status(0).connections) == ("closed", 1)


def test_threads_that_wait_in_vain_hear_what_is_in_the_way(
    driver: Driver, shut: AbstractContextManager[None], reason: str
) -> None:
    """Not that the pool is too small."""
    with shut:
        error = wanting_another(driver, [READ], timeout_s=0.1)
        assert "all 1 connections stayed busy; " in str(error)
        assert reason in str(error)
        assert str(error.__cause__).endswith(str(error).partition("; ")[2])
        assert isinstance(driver.execute([READ])[0], Reply)


def test_tasks_wait_for_what_there_is(driver: Driver, shut: AbstractContextManager[None]) -> None:
    """As threads do."""
    tasks = AsyncDriver(driver)
    driver.attach(tasks)

    async def main() -> None:
        async def one() -> Any:
            return (await tasks.execute([READ], timeout_s=PATIENCE))[0]

        assert isinstance(await one(), Reply)
        with shut:
            answers = [await asyncio.gather(*[one() for _ in range(MANY)]) for _ in range(20)]
            assert [each for turn in answers for each in turn if not isinstance(each, Reply)] == []
            assert driver.status(0).breaker == "closed"
        tasks.close_here()

    asyncio.run(main())


def test_cache_that_gets_no_more_connections_says_so_until_it_gets_them(
    redis_server: RedisServer, shut: AbstractContextManager[None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It serves, but it will not when it loses what it has: somebody should look. Nobody has to call it for the end."""
    caplog.set_level(logging.INFO, "nearcache")
    with nearcache.open(redis_server.url, namespace="shop", max_staleness=0.4, timeout=0.3) as cache:
        wait_until(lambda: cache.health().ok)
        pool = cache._driver.shard(0).pool  # type: ignore[attr-defined]  # not public
        with shut:
            only = pool.take_idle()
            with pytest.raises(ShardUnavailableError, match="all 1 connections stayed busy"):
                cache["k"] = 1
            pool.put(only)
            cache["k"] = 2
            health = cache.health()
            (shard,) = health.shards
            assert not health.ok
            assert (shard.vouched, shard.breaker, shard.refused) == (True, "closed", shard.last_error)
            assert reason in shard.refused
            who = f"namespace shop: shard {shard.name}"
            assert caplog.messages == [
                f"{who}: no more connections can be made, and the 1 there are have to do: {shard.refused}"
            ]
        wait_until(lambda: cache.health().ok, what="connections can be made again")
        assert cache.health().shards[0].refused == ""
    assert caplog.messages[1:] == [f"{who}: connections can be made again"]


def test_last_connection_that_ends_while_no_other_can_be_made_is_an_outage(
    driver: Driver, redis_server: RedisServer
) -> None:
    """There is nothing to wait for, and calls are spared the way."""
    with redis_server.client() as client:
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
    assert isinstance(driver.execute([READ])[0], AuthenticationFailedError)
    assert driver.status(0).breaker == "open"


def test_listener_that_is_refused_hinders_no_writes(make_redis: Callable[..., RedisServer]) -> None:
    """Where HELLO is forbidden L1 keeps nothing, and everything else goes on."""
    server = make_redis(options={"rename-command": 'HELLO ""'})
    driver = Driver([endpoint_of(server)], timeout_s=PATIENCE)
    for _ in range(3):
        with pytest.raises(UnsupportedServerError):
            driver.connect_listener(0)
        assert isinstance(driver.execute([READ])[0], Reply)
    assert driver.status(0).breaker == "closed"
    driver.close()
    with nearcache.open(server.url, max_staleness=0.4) as cache:
        for turn in range(3):
            wait_until(lambda: "RESP3" in cache.health().shards[0].last_error, what="refused")
            cache[turn] = turn
            assert cache[turn] == turn
            assert cache.peek(turn, None) is None
