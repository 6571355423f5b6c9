"""Connections that take longer to be made than a call has time for: they are there for the next one."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import pytest

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from nearcache.options import Endpoint
from support.fake import INFO, FakeServer, bulk
from support.threads import PATIENCE
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

PING = [Exchange(0, [("PING",)])]


def at(server: FakeServer) -> list[Endpoint]:
    """Return where a fake server is."""
    return [Endpoint("a", host="127.0.0.1", port=server.port)]


def answer(command: list[bytes]) -> bytes:
    """As a server does."""
    return bulk(INFO) if command[0] == b"INFO" else b"+PONG\r\n"


def slow_answer(now_ns: list[int], command: list[bytes]) -> bytes:
    """The same, but that by this clock the handshake takes long."""
    now_ns[0] += 600_000_000 * (command[:2] == [b"INFO", b"server"])
    return answer(command)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_connection_that_is_made_too_late_for_its_call_is_kept_for_the_next(asynchronous: bool) -> None:
    """A request with no time left for the answer would cost the connection, and the next call would be as late."""
    now_ns = [0]

    with FakeServer(partial(slow_answer, now_ns), whole=True) as server:
        driver = Driver(at(server), timeout_s=1.0, clock=lambda: now_ns[0])
        tasks = AsyncDriver(driver)

        async def two_calls() -> list[Any]:
            try:
                return [(await tasks.execute(PING, timeout_s=1.0))[0] for _ in range(2)]
            finally:
                tasks.close_here()

        late, reply = asyncio.run(two_calls()) if asynchronous else [driver.execute(PING)[0] for _ in range(2)]
        assert isinstance(late, ShardUnavailableError)
        assert not late.sent
        assert isinstance(reply, Reply)
        assert server.seen(b"PING") == server.connections == 1
        driver.close()


def test_connection_that_was_slow_in_the_beginning_is_not_so_for_ever() -> None:
    """Who waits for one that another call has may have less time than its first round trip took."""
    now_ns = [0]

    with FakeServer(partial(slow_answer, now_ns), whole=True) as server:
        driver = Driver(at(server), timeout_s=2.0, pool_size=1, clock=lambda: now_ns[0])
        assert isinstance(driver.execute(PING)[0], Reply)
        pool = driver.shard(0).pool
        only = pool.take_idle()
        assert only is not None
        replies: list[Any] = []
        thread = threading.Thread(target=lambda: replies.extend(driver.execute(PING, timeout_s=0.5)))
        thread.start()
        wait_until(lambda: pool._waiters)
        pool.put(only)
        thread.join(PATIENCE)
        assert isinstance(replies[0], Reply)
        driver.close()


def test_calls_that_have_less_time_than_connecting_takes_get_a_connection_in_the_end() -> None:
    """One that is made in its own time, and not in what a call has; and so whenever it is lost."""

    def slow(command: list[bytes]) -> bytes:
        time.sleep(0.3 * (command[:2] == [b"INFO", b"server"]))
        return answer(command)

    with FakeServer(slow, whole=True) as server:
        driver = Driver(at(server), timeout_s=0.1, connect_timeout_s=PATIENCE)
        for _ in range(2):
            assert isinstance(driver.execute(PING)[0], ShardUnavailableError)
            wait_until(lambda: isinstance(driver.execute(PING)[0], Reply), what="a call succeeds")
            driver.shard(0).demoted()
        driver.close()
