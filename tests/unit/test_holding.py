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
