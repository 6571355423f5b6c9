"""Answers to the request for a value that come in pieces, not at all, or as an error: in a loop and in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from nearcache._envelopes import opened
from nearcache._getting import Get
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.errors import ServerReplyError, ShardError, ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk

TIMEOUT_S = 20.0
CODEC = ValueCodec(SafeCodec(), 1 << 20)
ENVELOPE = CODEC.dumps("x" * 100_000, wid=5, generation=7, ttl_ms=1000)
GET = Exchange(0, Get(b"p:", b"sk", None, CODEC.usual))
WAYS = ["alone", "beside another", "in a loop"]


def asked(server: FakeServer, way: str) -> Reply | ShardError:
    """What comes of the request, in one of three ways; and the next one is answered on whatever connection is left."""
    driver = Driver([Endpoint("a", host="127.0.0.1", port=server.port)])

    async def ask() -> Reply | ShardError:
        aio = AsyncDriver(driver)
        try:
            return (await aio.execute([GET], timeout_s=TIMEOUT_S))[0]
        finally:
            aio.close_here()

    try:
        if way == "in a loop":
            return asyncio.run(ask())
        return driver.execute([GET] if way == "alone" else [GET, GET], timeout_s=TIMEOUT_S)[-1]
    finally:
        driver.close()


def answering(value: Iterable[bytes | None]) -> Any:
    """What a server says: a lifetime, then this."""
    return lambda command: b":60000\r\n" if command[0] == b"PTTL" else value


@pytest.mark.parametrize("way", WAYS)
def test_value_in_pieces_is_put_together(way: str) -> None:
    """Wherever it is cut."""
    whole = bulk(ENVELOPE)
    pieces = [whole[:3], whole[3:20], whole[20:50], whole[50:40_000], whole[40_000:-1], whole[-1:]]
    with FakeServer(answering(pieces)) as server:
        reply = asked(server, way)
    assert isinstance(reply, Reply)
    assert reply.values[0] == 60_000
    assert opened(reply.values[1], CODEC.usual) == ("x" * 100_000, 5, 7, 1000)


@pytest.mark.parametrize("way", WAYS)
def test_value_that_breaks_off_is_an_error_of_the_shard(way: str) -> None:
    """What was said before it is known."""
    with FakeServer(answering([bulk(ENVELOPE)[:70_000], None])) as server:
        reply = asked(server, way)
    assert isinstance(reply, Reply)
    assert reply.values[0] == 60_000
    assert isinstance(reply.values[1], ShardUnavailableError)


@pytest.mark.parametrize("way", WAYS)
def test_error_in_place_of_a_value_is_in_its_place(way: str) -> None:
    """As the server has put it."""
    with FakeServer(answering([b"-WRONGTYPE no\r\n"])) as server:
        reply = asked(server, way)
    assert isinstance(reply, Reply)
    assert isinstance(reply.values[1], ServerReplyError)
    assert reply.values[1].code == "WRONGTYPE"
