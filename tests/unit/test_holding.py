"""Holds that cannot be begun."""

from __future__ import annotations

import asyncio

import pytest

from nearcache.cache.aio import AsyncHold
from nearcache.cache.holding import Hold
from nearcache.errors import BulkError, ShardUnavailableError


def test_hold_that_begins_in_part_is_given_up_whole() -> None:
    """Of two shards one is out: the other's keys must not be held for the whole time, for nobody."""
    refused = BulkError(["a"], {"b": ShardUnavailableError("s", "refused")}, {})
    ended: list[str] = []

    def begin(_token: bytes) -> None:
        raise refused

    def end(_token: bytes) -> None:
        ended.append("thread")
        raise refused

    async def begin_later(token: bytes) -> None:
        begin(token)

    async def end_later(_token: bytes) -> None:
        ended.append("task")

    async def enter() -> None:
        async with AsyncHold(begin_later, end_later):
            raise AssertionError("it was entered")

    with pytest.raises(BulkError), Hold(begin, end):
        raise AssertionError("it was entered")
    with pytest.raises(BulkError):
        asyncio.run(enter())
    assert ended == ["thread", "task"]


def test_hold_that_is_entered_again_ends_with_the_outer_block() -> None:
    """A function that holds what its caller holds must not let go of it."""
    done: list[str] = []

    async def begin(_token: bytes) -> None:
        done.append("begin")

    async def end(_token: bytes) -> None:
        done.append("end")

    async def enter(held: AsyncHold) -> None:
        async with held:
            async with held:
                done.append("in")
            done.append("out")

    held = Hold(lambda _token: done.append("begin"), lambda _token: done.append("end"))
    for _ in range(2):
        with held:
            with held:
                done.append("in")
            done.append("out")
    asyncio.run(enter(AsyncHold(begin, end)))
    assert done == ["begin", "begin", "in", "out", "end"] * 3


def test_hold_has_a_token_of_its_own_each_time() -> None:
    """Who enters while another thread is about to end it must not be ended with it; blocks inside share the token."""
    tokens: list[tuple[str, bytes]] = []
    held = Hold(lambda token: tokens.append(("begin", token)), lambda token: tokens.append(("end", token)))
    for _ in range(2):
        with held, held:
            pass
    assert [what for what, _ in tokens] == ["begin", "begin", "end"] * 2
    first, second = ({token for _, token in part} for part in (tokens[:3], tokens[3:]))
    assert len(first) == len(second) == 1
    assert first != second
