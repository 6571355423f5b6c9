"""A server that takes no more clients, or refuses a listener: what a process has of connections has to do, and does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nearcache
from nearcache.errors import ShardUnavailableError, UnsupportedServerError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from support.lanes import endpoint_of
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


@pytest.fixture
def driver(redis_server: RedisServer) -> Iterator[Driver]:
    """A driver with one connection of the many that it may have."""
    driver = Driver([endpoint_of(redis_server)], pool_size=MANY, timeout_s=PATIENCE)
    assert isinstance(driver.execute([READ])[0], Reply)
    yield driver
    driver.close()


def test_threads_wait_for_what_there_is_and_nothing_counts_against_the_server(
    driver: Driver, redis_server: RedisServer
) -> None:
    """The refusal of one connection more says nothing about those that there are."""
    wrong: list[object] = []

    def work(_number: int) -> None:
        answers = [driver.execute([READ])[0] for _ in range(20)]
        wrong.extend(answer for answer in answers if not isinstance(answer, Reply))

    with full_house(redis_server):
        together(work, MANY)
        assert wrong == []
        assert (driver.status(0).breaker, driver.status(0).connections) == ("closed", 1)


def test_threads_that_wait_in_vain_hear_what_is_in_the_way(driver: Driver, redis_server: RedisServer) -> None:
    """Not that the pool is too small."""
    pool = driver.shard(0).pool
    with full_house(redis_server):
        only = pool.take_idle()
        assert only is not None
        error = driver.execute([READ], timeout_s=0.1)[0]
        pool.put(only)
        assert isinstance(error, ShardUnavailableError)
        assert "all 1 connections stayed busy; the server takes no more clients (maxclients)" in str(error)
        assert isinstance(driver.execute([READ])[0], Reply)


def test_tasks_wait_for_what_there_is(driver: Driver, redis_server: RedisServer) -> None:
    """As threads do."""
    tasks = AsyncDriver(driver)
    driver.attach(tasks)

    async def main() -> None:
        async def one() -> Any:
            return (await tasks.execute([READ], timeout_s=PATIENCE))[0]

        assert isinstance(await one(), Reply)
        with full_house(redis_server):
            answers = [await asyncio.gather(*[one() for _ in range(MANY)]) for _ in range(20)]
            assert [each for turn in answers for each in turn if not isinstance(each, Reply)] == []
            assert driver.status(0).breaker == "closed"
        tasks.close_here()

    asyncio.run(main())


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
