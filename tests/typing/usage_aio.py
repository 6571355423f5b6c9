"""Checked by mypy, never run: what a type checker makes of ``cache.aio`` in a user's program."""

from __future__ import annotations

from typing_extensions import assert_type

import nearcache
from nearcache import Cache, Idle, MemoryCache, SelfTest
from nearcache.aio import AsyncCache, AsyncView

prices: Cache[str, int] = nearcache.open("memory://", maxsize=100)
assert_type(prices.aio, AsyncCache[str, int])
assert_type(MemoryCache[str, int]().aio, AsyncCache[str, int])


async def load(sku: str) -> int:
    """A loader that awaits."""
    return len(sku)


async def use_single_keys() -> None:
    """Reads and writes of one key know its type and the value's."""
    async with prices.aio as c:
        assert_type(c, AsyncCache[str, int])
        assert_type(c.cache, Cache[str, int])
        assert_type(await c.get("a"), int | None)
        assert_type(await c.get("a", 0), int)
        assert_type(await c.get("a", "none"), int | str)
        assert_type(await c.get_or_load("a"), int)
        assert_type(await c.get_or_load("a", load, ttl=5, tags=["t"]), int)
        assert_type(await c.get_or_load("a", len, tags=lambda key, value: [key, str(value)]), int)
        assert_type(await c.pop("a"), int)
        assert_type(await c.pop("a", None), int | None)
        assert_type(await c.setdefault("a", 1), int | None)
        assert_type(await c.invalidate("a"), bool)
        assert_type(await c.contains(1), bool)
        await c.set("a", 1, ttl=2.5, tags=("t",))
        assert_type(await c.get_or_load("a", load, ttl=Idle(60)), int)
        assert_type(await c.get_or_load("a", load, ttl=lambda key, value: len(key) + value), int)
        await c.set("a", 1, ttl=Idle(2.5))
        await c.set(1, 1)  # type: ignore[arg-type]  # a key of another type
        await c.set("a", "1")  # type: ignore[arg-type]  # a value of another type
        await c.get_or_load("a", str.upper)  # type: ignore[arg-type]  # a loader of other values


async def use_many_keys() -> None:
    """What comes in and goes out are mappings of the cache's types."""
    c = prices.aio
    assert_type(await c.get_many(["a"]), dict[str, int])
    await c.set_many({"a": 1}, ttl=None, tags=["t"])
    await c.set_many([("a", 1)])
    await c.delete_many(["a"])
    await c.update({"a": 1}, b=2)
    await c.clear()
    await c.invalidate_tag("t")
    async with c.hold(["a"], seconds=1):
        await c.wait_for(prices.token())
    assert_type(await c.selftest(), SelfTest)
    await c.close()


async def use_views() -> None:
    """A view's keys and values are its own."""
    users: AsyncView[int, str] = prices.aio.view("users")
    assert_type(await users.get_or_load(7, str), str)
    assert_type(await users.setdefault(7, "x"), str | None)
    assert_type(await users.get_many([7]), dict[int, str])
    await users.set("a", "b")  # type: ignore[arg-type]  # a key of another type
