"""Views through ``cache.aio``: the same entries and names, awaited."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

import nearcache
from nearcache.aio import AsyncView
from nearcache.answers import for_key

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_async_view_methods_do_what_those_of_the_view_do() -> None:
    """Every method, on keys that begin with the view's name."""

    async def main() -> None:
        async with nearcache.open("memory://").aio as c:
            users: AsyncView[Any, Any] = c.view("users")
            await users.set(7, "Ada", ttl=60)
            assert await users.get(7) == await c.get(("users", 7)) == users.plain[7] == "Ada"
            assert await users.get(8, "none") == "none"
            assert (await users.contains(7), await users.contains(8)) == (True, False)
            assert await users.setdefault(7, "x") == "Ada"
            assert await users.setdefault(8, "Bob") == "Bob"
            await users.set_many({1: "a", 2: "b"}, tags=["t"])
            await users.update({3: "c"})
            await users.update()
            assert await users.get_many([1, 2, 3, 4]) == {1: "a", 2: "b", 3: "c"}
            await users.delete_many([1])
            assert await users.invalidate(2)
            assert (await users.pop(3), await users.pop(3, None)) == ("c", None)
            with pytest.raises(KeyError, match=r"^3$"):
                await users.pop(3)
            with pytest.raises(KeyError, match=r"^3$"):
                await users.get_or_load(3)
            assert (await users.get_or_load(7), await users.get_or_load(9, str)) == ("Ada", "9")
            await users.delete_many([9])
            assert sorted(users.plain) == [7, 8]
            assert repr(users).endswith(".view('users').aio")

    asyncio.run(main())


def test_async_view_verbs_and_clear_reach_what_the_view_holds() -> None:
    """Verbs name the view's keys, and what they store goes with the view's clear."""

    async def main() -> None:
        cache = nearcache.open("memory://")
        view, inner = cache.view("v").aio, cache.aio.view("v").view("w")
        assert await view.add("k", 1)
        value, version = await view.gets("k")
        assert await view.cas("k", value + 1, version)
        assert await view.incr("n") == 1
        assert await view.compute("c", lambda old: [*old, 1], []) == [1]
        assert await view.touch("k", 5)
        assert await view.get_and_touch("k", 5) == await view.get_and_set("k", 3) == 2
        assert await view.get_and_delete("c") == [1]
        await inner.set("k", 1)
        cache["k"] = "stays"
        await view.clear()
        assert await view.get_many(["k", "n"]) == await inner.get_many(["k"]) == {}
        assert cache["k"] == "stays"
        cache.close()

    asyncio.run(main())


def test_async_view_loaders_of_either_kind_get_the_key_of_the_view() -> None:
    """One that awaits, one that blocks, an object that is called, and the cache's own, which gets the cache's key."""

    async def load(key: Any) -> Any:
        await asyncio.sleep(0)
        return "awaited", key

    class Loader:
        async def __call__(self, key: Any) -> Any:
            return "object", key

    async def main() -> None:
        async with nearcache.open("memory://", loader=lambda key: ("own", key)).aio as c:
            view = c.view("v")
            assert await view.get_or_load(1, load) == ("awaited", 1)
            assert await view.get_or_load(2, lambda key: ("blocking", key)) == ("blocking", 2)
            assert await view.get_or_load(3, Loader()) == ("object", 3)
            assert await view.get_or_load(4) == ("own", ("v", 4))
            assert await view.get_or_load(1) == ("awaited", 1)
            assert await view.refresh(1) == ("own", ("v", 1))
            assert await view.refresh(1, load) == ("awaited", 1)
            await view.clear()
            assert await view.get(1) is None

    asyncio.run(main())


def test_async_view_hit_does_not_suspend() -> None:
    """What L1 holds is there at the first step."""
    cache = nearcache.open("memory://")
    cache.view("v")["k"] = 1
    with pytest.raises(StopIteration) as stop:
        cache.aio.view("v").get("k").send(None)
    assert stop.value.value == 1


def test_async_view_bulk_loads_get_the_views_keys_and_its_tag() -> None:
    """What a bulk loader brings through a view goes with the view's clear; whatever kind of function it is."""
    asked: list[list[Any]] = []

    def load(keys: list[Any]) -> dict[Any, Any]:
        asked.append(keys)
        return dict.fromkeys(keys, len(asked))

    async def load_later(keys: list[Any]) -> dict[Any, Any]:
        return load(keys)

    async def main() -> None:
        async with nearcache.open("memory://", load_many=load).aio as c:
            view: AsyncView[Any, Any] = c.view("v")
            assert await view.get_many([1]) == {1: 1}
            assert asked == [[("v", 1)]]
            assert await view.get_or_load_many([1, 2], load_later) == {1: 1, 2: 2}
            assert await view.get_or_load_many([1, 3], load) == {1: 1, 3: 3}
            assert asked[1:] == [[2], [3]]
            await view.clear()
            assert list(view.plain) == []

    asyncio.run(main())


def test_async_view_of_a_greatest_age_loads_anew() -> None:
    """As the view for threads does."""

    async def main() -> None:
        async with nearcache.open("memory://", ages=True).aio as c:
            view: AsyncView[Any, Any] = c.view("v")
            await view.set("k", "old")
            assert await view.get("k", max_age=60) == "old"
            assert await view.get("k", max_age=0) is None
            assert await view.get_many(["k"], max_age=0) == {}
            assert await view.get_or_load("k", lambda _key: "new", max_age=0) == "new"

    asyncio.run(main())


def test_async_view_conditional_loaders_are_shown_what_is_there() -> None:
    """Coroutine functions too, which stay what they are."""

    @nearcache.conditional
    async def load_later(key: Any, old: nearcache.Old | None) -> Any:
        return key if old is None else nearcache.UNCHANGED

    @nearcache.conditional
    def load(key: Any, old: nearcache.Old | None) -> Any:
        return key if old is None else nearcache.UNCHANGED

    async def main() -> None:
        cache = nearcache.open("memory://")
        view: AsyncView[Any, Any] = cache.aio.view("v")
        for key, loader in (("a", load), ("b", load_later)):
            assert await view.get_or_load(key, loader) == key
            assert await view.refresh(key, loader) == key
        assert cache.stats().loader.unchanged == 2
        assert inspect.iscoroutinefunction(for_key(load_later, "b"))
        await cache.aio.close()

    asyncio.run(main())
