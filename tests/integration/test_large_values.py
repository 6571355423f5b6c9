"""Values that are received straight into what L1 keeps: through the public cache, from a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.caches import Opener
from support.waiting import wait_until

VALUES: dict[str, Any] = {
    "text": "x" * 100_000,
    "text of several bytes a character": "\u00e9\U0001f600" * 20_000,
    "text with half a character": "x" * 100_000 + "\ud800",
    "bytes": b"\xff" * 100_000,
    "list": ["x" * 60_000, b"y" * 60_000],
}


def test_large_value_of_any_kind_is_read_as_it_was_written(open_cache: Opener) -> None:
    """The whole envelope is counted, wherever its value was received."""
    cache, other = open_cache(), open_cache()
    for key, value in VALUES.items():
        cache[key] = value
        assert other[key] == value
    assert other.stats().l2.bytes_read == cache.stats().l2.bytes_written
    assert other.stats().l2.hits == len(VALUES)


def test_large_value_of_any_kind_is_read_in_a_loop(open_cache: Opener) -> None:
    """Several at a time, each as it was written."""
    cache, other = open_cache(), open_cache()
    cache.set_many(VALUES)

    async def read() -> list[Any]:
        async with other.aio as view:
            return await asyncio.gather(*map(view.get, VALUES))

    assert asyncio.run(read()) == [*VALUES.values()]


@pytest.mark.parametrize("codec", ["safe", "raw"])
def test_large_value_of_before_a_clear_is_absent(codec: str, open_cache: Opener) -> None:
    """It is still in Redis, with the generation of then: that it is a large one makes it no better."""
    cache, other = open_cache(codec=codec), open_cache(codec=codec)
    cache["k"] = b"x" * 100_000
    assert other["k"] == b"x" * 100_000
    cache.clear()
    assert cache.get("k") is None
    wait_until(lambda: other.get("k") is None)
    assert other.stats().l2.misses > 0
