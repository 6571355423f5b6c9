"""Answers that promise more than anybody has memory for: an error of the shard, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2 import connection as connections
from nearcache.l2.aio import AsyncDriver
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk

ABSURD = [
    b"*4294967295\r\n",
    b"*2\r\n:1\r\n*4294967295\r\n",
    b"*99999999999999999999\r\n",
    b"*-7\r\n",
    b"$-7\r\n",
    b"$536870912\r\nx",
    b"$9223372036854775807\r\nx",
    b"$99999999999999999999\r\n",
]
GET = Exchange(0, [("GET", "k")])
TIMEOUT_S = 20.0
WAYS = ["alone", "beside another", "in a loop"]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(lambda command: bulk(b"whole")) as server:
        yield server


def asked(driver: Driver, way: str) -> Reply | Exception:
    """What comes of one request, in one of three ways."""
    if way == "in a loop":

        async def ask() -> Reply | Exception:
            aio = AsyncDriver(driver)
            try:
                return (await aio.execute([GET], timeout_s=TIMEOUT_S))[0]
            finally:
                aio.close_here()

        return asyncio.run(ask())
    return driver.execute([GET] if way == "alone" else [GET, GET], timeout_s=TIMEOUT_S)[0]


def is_whole(driver: Driver, way: str) -> bool:
    reply = asked(driver, way)
    return isinstance(reply, Reply) and reply.values == [b"whole"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answer", ABSURD)
def test_absurd_length_is_an_error_of_the_shard(answer: bytes, way: str, server: FakeServer) -> None:
    """The connection goes with it, and the next request is answered on another one. More is not waited for for long:
    the server hangs up."""
    driver = Driver([Endpoint("a", host="127.0.0.1", port=server.port)])
    good, server._answer = server._answer, lambda command: [answer, None]
    error = asked(driver, way)
    assert isinstance(error, ShardUnavailableError), error
    assert error.sent
    server._answer = good
    driver.note_alive(0)  # so that the breaker has forgotten
    before = server.connections
    assert is_whole(driver, "alone" if way == "in a loop" else way)
    assert server.connections > before
    driver.close()


@pytest.mark.parametrize("way", WAYS)
def test_answer_without_memory_for_it_is_an_error_of_the_shard(
    way: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the machine has: the parser finds none."""
    driver = Driver([Endpoint("a", host="127.0.0.1", port=server.port)])
    assert is_whole(driver, "alone")
    begun, gather = threading.Event(), connections.gather

    def answer(_: list[bytes]) -> bytes:
        begun.set()
        return b"%1\r\n"  # which compiled code leaves to the parser

    def gathered(*arguments: Any) -> bool:
        if begun.is_set():
            raise MemoryError
        return gather(*arguments)

    monkeypatch.setattr(connections, "gather", gathered)
    server._answer = answer
    error = asked(driver, way)
    assert isinstance(error, ShardUnavailableError)
    assert "memory" in str(error)
    assert isinstance(error.__cause__, MemoryError)
    driver.close()
