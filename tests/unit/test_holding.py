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

    def begin() -> None:
        raise refused

    def end() -> None:
        ended.append("thread")
        raise refused

    async def begin_later() -> None:
        begin()

    async def end_later() -> None:
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

    async def begin() -> None:
        done.append("begin")

    async def end() -> None:
        done.append("end")

    async def enter(held: AsyncHold) -> None:
        async with held:
            async with held:
                done.append("in")
            done.append("out")

    held = Hold(lambda: done.append("begin"), lambda: done.append("end"))
    for _ in range(2):
        with held:
            with held:
                done.append("in")
            done.append("out")
    asyncio.run(enter(AsyncHold(begin, end)))
    assert done == ["begin", "begin", "in", "out", "end"] * 3
