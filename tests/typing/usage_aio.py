"""Checked by mypy and pyright, never run: what a type checker makes of ``cache.aio`` in a user's program."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import nearcache
from nearcache import Cache, DeadLetter, EntryEvent, Idle, MemoryCache, SelfTest, Subscription
from nearcache.aio import AsyncCache, AsyncView

prices: Cache[str, int] = nearcache.open("memory://", maxsize=100)
names: Cache[Any, str] = nearcache.open("memory://")
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


async def load_many(skus: list[str]) -> dict[str, int]:
    """A bulk loader that awaits."""
    return {sku: len(sku) for sku in skus}


@nearcache.conditional
async def load_newer(sku: str, old: nearcache.Old | None) -> int | nearcache.Unchanged:
    """A loader that is shown what is there."""
    return nearcache.UNCHANGED if old else len(sku)


class Repository:
    """Loaders that are methods."""

    @nearcache.conditional
    async def load_newer(self, sku: str, old: nearcache.Old[int] | None) -> int | nearcache.Unchanged:
        """Of an instance."""
        return nearcache.UNCHANGED if old else len(sku)


async def read_through() -> None:
    """As for threads."""
    c = prices.aio
    assert_type(await c.get_or_load_many(["a"], load_many, max_age=5), dict[str, int])
    assert_type(await c.get_many(["a"], max_age=5), dict[str, int])
    assert_type(await c.get("a", max_age=5), int | None)
    assert_type(await c.get_or_load("a", load, max_age=5), int)
    assert_type(await c.refresh("a", load_newer), int)
    assert_type(await c.refresh("a", Repository().load_newer), int)
    assert_type(await c.get_or_load("a", lambda sku: nearcache.Loaded(len(sku)), tags=["t"]), int)


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
    """A view's keys are its own, and its values are of the cache's type."""
    assert_type(prices.aio.view("users"), AsyncView[Any, int])
    assert_type(prices.aio.view("users").view("old"), AsyncView[Any, int])
    users: AsyncView[int, str] = names.aio.view("users")
    assert_type(await users.get_or_load(7, str), str)
    assert_type(await users.setdefault(7, "x"), str | None)
    assert_type(await users.get_many([7]), dict[int, str])
    await users.set("a", "b")  # type: ignore[arg-type]  # a key of another type
    assert_type(await users.get(7), str | None)
    assert_type(await users.get(7, 0), str | int)
    assert_type(await users.pop(7), str)
    assert_type(await users.incr(7), int)


async def use_verbs() -> None:
    """As for threads."""
    c = prices.aio
    assert_type(await c.add("a", 1, ttl=5, tags=["t"]), bool)
    assert_type(await c.replace("a", 1), bool)
    assert_type(await c.gets("a"), tuple[int | None, int])
    value, version = await c.gets("a", 0)
    assert_type(version, int)
    assert_type(await c.cas("a", value, version), bool)
    assert_type(await c.incr("a"), int)
    assert_type(await c.decr("a", 2, initial=1), int)
    assert_type(await c.compute("a", lambda there: int(there) + 1), int)
    assert_type(await c.append("a", b"x"), bool)
    assert_type(await c.prepend("a", "x"), bool)
    assert_type(await c.touch("a", Idle(5)), bool)
    await c.get_and_set("a", 1)
    await c.get_and_delete("a")
    await c.get_and_touch("a", 5)
    await c.compute("a", repr)  # type: ignore[arg-type]  # it makes a value of another type


async def use_listeners_and_queues() -> None:
    """A listener may be a coroutine function; what waits to be written is as for threads."""
    c = prices.aio

    async def note(event: EntryEvent) -> None:
        assert_type(event.has_value, bool)

    with c.listen(note, events=["created"], queue=10) as subscription:
        assert_type(subscription, Subscription)
    await c.flush(timeout=5)
    assert_type(await c.dead_letters(), list[DeadLetter])
    assert_type(await c.replay_dead_letters(), int)
    assert_type(await c.discard_dead_letters(["0-1-0"]), int)
