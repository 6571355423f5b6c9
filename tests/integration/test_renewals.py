"""What takes the place of an old value unasked: nothing is lost by it that the value was stored with."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import nearcache
from nearcache import Cache
from nearcache.flights import renewal_of
from nearcache.options import MOST_TAGS
from support.caches import Opener, grow_old, opening
from support.redis import RedisServer
from support.tasks import until
from support.threads import PATIENCE
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


class World(NamedTuple):
    """Caches of one kind: how to open one whose values are old for most of their lives, and how to make them so."""

    open: Opener
    age: Callable[[Cache[Any, Any]], object]


@contextmanager
def worlds(kind: str, server: RedisServer) -> Iterator[World]:
    """Give one; at the end its caches are closed."""
    usual = {"ttl": 100, "soft_ttl": 10}
    if kind == "memory":
        with opening("memory://", **usual) as opener:
            yield World(opener, lambda cache: cache.expire(time.monotonic() + 20))
    else:
        with opening(server.url, **usual, isolation=kind) as opener:
            yield World(opener, lambda cache: grow_old(server, cache))


@pytest.fixture(params=["memory", "shared", "copy"])
def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Each kind in turn."""
    with worlds(request.param, redis_server) as found:
        yield found


def renewing(cache: Any) -> Any:
    """What is being loaded anew in the background."""
    return cache._tier.renewing if hasattr(cache, "_tier") else cache._renewing


def counting() -> Callable[[Any], int]:
    """A loader that brings one more each time."""
    numbers = itertools.count(1)
    return lambda _key: next(numbers)


#: What finds an old value under the key ``("v", "k")``, and returns it. The last would have stored it with other tags.
READS: dict[str, Callable[[Cache[Any, Any]], Any]] = {
    "view.get": lambda cache: cache.view("v").get("k"),
    "view[]": lambda cache: cache.view("v")["k"],
    "view.get_many": lambda cache: cache.view("v").get_many(["k"])["k"],
    "view.setdefault": lambda cache: cache.view("v").setdefault("k"),
    "get": lambda cache: cache.get(("v", "k")),
    "[]": lambda cache: cache["v", "k"],
    "get_many": lambda cache: cache.get_many([("v", "k")])["v", "k"],
    "get_or_load": lambda cache: cache.get_or_load(("v", "k"), tags=["other"]),
}
TASKS: dict[str, Callable[[Cache[Any, Any]], Any]] = {
    "view.get": lambda cache: cache.view("v").aio.get("k"),
    "view.get_many": lambda cache: cache.view("v").aio.get_many(["k"]),
    "get": lambda cache: cache.aio.get(("v", "k")),
    "get_many": lambda cache: cache.aio.get_many([("v", "k")]),
    "get_or_load": lambda cache: cache.aio.get_or_load(("v", "k"), tags=["other"]),
}
#: What ends a value that was stored through the view ``v`` with the tag ``t``.
ENDS: dict[str, Callable[[Cache[Any, Any]], None]] = {
    "clear": lambda cache: cache.view("v").clear(),
    "tag": lambda cache: cache.invalidate_tag("t"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", READS)
def test_renewed_value_has_the_tags_of_the_one_before(world: World, way: str, end: str) -> None:
    """Whoever reads it: those of the view that it was stored through, and those that it was given. So has the next."""
    cache = world.open(loader=counting())
    view = cache.view("v")
    assert view.get_or_load("k", tags=["t"]) == 1

    def renew(number: int) -> None:
        world.age(cache)
        assert READS[way](cache) == number
        wait_until(lambda: view.peek("k") == number + 1)

    renew(1)
    renew(2)
    ENDS[end](cache)
    assert view.get("k") is None


def test_value_renewed_by_chance_has_the_tags_of_the_one_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``beta``: here every value that is read is due."""
    monkeypatch.setattr("nearcache.freshness.Freshness.due_ms", lambda *_: 0)
    cache = world.open(loader=counting(), soft_ttl=None, beta=1.0)
    view = cache.view("v")
    assert view.get_or_load("k", tags=["t"]) == 1

    def is_renewed() -> bool:
        world.age(cache)
        return (view.get("k") or 0) > 1

    wait_until(is_renewed)
    monkeypatch.undo()  # nothing is due any more
    wait_until(lambda: not renewing(cache))
    view.clear()
    assert view.get("k") is None


@pytest.mark.parametrize("way", TASKS)
@pytest.mark.parametrize("kind", ["memory", "shared"])
def test_value_that_a_task_renews_has_the_tags_of_the_one_before(
    redis_server: RedisServer, kind: str, way: str
) -> None:
    """As by threads."""

    async def main() -> None:
        assert await view.get_or_load("k", tags=["t"]) == 1
        age(cache)
        await TASKS[way](cache)
        await until(lambda: view.plain.peek("k") == 2)
        await view.clear()
        assert await view.get("k") is None
        await cache.aio.close()

    with worlds(kind, redis_server) as (opener, age):
        cache = opener(loader=counting())
        view = cache.aio.view("v")
        asyncio.run(asyncio.wait_for(main(), TIMEOUT))


@pytest.mark.parametrize("tag", ["a", "b"])
def test_values_that_one_call_renews_have_each_its_own_tags(world: World, tag: str) -> None:
    """With a bulk loader, which is given no others."""
    numbers = itertools.count(1)
    cache = world.open(load_many=lambda keys: dict.fromkeys(keys, next(numbers)))
    cache.set("a", 0, tags=["a"])
    cache.set("b", 0, tags=["b"])
    world.age(cache)
    assert cache.get_many(["a", "b"]) == {"a": 0, "b": 0}
    wait_until(lambda: cache.peek("a") and cache.peek("b"))
    cache.invalidate_tag(tag)
    assert cache.get_or_load_many(["a", "b"], lambda keys: {}).keys() == {"a", "b"} - {tag}


@pytest.mark.parametrize("tag", ["stored", "told"])
def test_renewal_adds_the_tags_that_it_is_told(world: World, tag: str) -> None:
    """By a function for ``tags``, or by the loader."""
    cache = world.open(loader=lambda _: nearcache.Loaded(2, tags=["loader"]), tags=lambda _key, _value: ["told"])
    wait_until(lambda: cache.refresh("other") and "other" in cache)  # on Redis new tags have to be met first
    cache.set("k", 1, tags=["stored"])
    world.age(cache)
    assert cache["k"] == 1
    wait_until(lambda: cache.peek("k") == 2)
    cache.invalidate_tag(tag)
    assert cache.get("k") is None


def test_old_value_goes_where_its_tags_and_the_new_ones_are_too_many(world: World) -> None:
    """None is lost, and nobody gets an error: the next reader has it loaded, with the new ones alone."""
    cache = world.open(loader=lambda _: nearcache.Loaded(2, tags=["loader"]))
    wait_until(lambda: cache.refresh("other") and "other" in cache)
    cache.set("k", 1, tags=[str(number) for number in range(MOST_TAGS)])
    world.age(cache)
    assert cache["k"] == 1
    wait_until(lambda: "k" not in cache)
    assert cache["k"] == 2
    assert "k" in cache
    assert not cache.stats().loader.errors


@pytest.mark.parametrize("answer", ["KeyError", "ABSENT", "load_many"])
def test_old_value_stays_though_its_renewal_finds_none(world: World, answer: str) -> None:
    """Absence is kept of what is not there, and in the place of what somebody asked anew for."""

    def load(key: str) -> Any:
        return {}[key] if answer == "KeyError" else nearcache.ABSENT

    loader: Any = {"load_many": lambda _keys: {}} if answer == "load_many" else {"loader": load}
    cache = world.open(**loader, negative_ttl=50)
    cache.set("k", 1)
    world.age(cache)
    assert cache.get_many(["k"]) == {"k": 1}
    wait_until(lambda: cache.stats().loader.loads == 1 and not renewing(cache))
    world.age(cache)
    assert cache.get("k") == 1
    with pytest.raises(KeyError):
        cache.refresh("k")
    assert cache.get("k") is None


def joined(cache: Any) -> bool:
    """Whether somebody waits for what is being loaded anew of ``k``."""
    load = cache._flights().under_way(renewal_of("k"))
    return load is not None and load.is_shared


def test_refresh_that_waits_for_a_renewal_without_a_value_asks_again(world: World) -> None:
    """For the old value stays in what nobody has asked for, and goes in what somebody has."""
    begun, awaited = threading.Event(), threading.Event()

    def load(key: str) -> Any:
        begun.set()
        awaited.wait(PATIENCE)
        return {}[key]

    cache = world.open(loader=load, negative_ttl=50)
    cache.set("k", 1)
    world.age(cache)
    assert cache["k"] == 1
    assert begun.wait(PATIENCE)
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(cache.refresh, "k")
        wait_until(lambda: joined(cache))
        awaited.set()
        with pytest.raises(KeyError):
            asking.result(PATIENCE)
    assert cache.get("k") is None
    assert cache.stats().loader.loads == 2


@pytest.mark.parametrize("kind", ["memory", "shared"])
def test_refresh_of_a_task_that_waits_for_a_renewal_without_a_value_asks_again(
    redis_server: RedisServer, kind: str
) -> None:
    """As in threads."""

    async def main() -> None:
        awaited = asyncio.Event()

        async def load(key: str) -> Any:
            await awaited.wait()
            return {}[key]

        assert await cache.aio.get_or_load("k", load) == 1
        await until(lambda: cache._flights().under_way(renewal_of("k")) is not None)
        asking = asyncio.create_task(cache.aio.refresh("k", load))
        await until(lambda: joined(cache))
        awaited.set()
        with pytest.raises(KeyError):
            await asking
        assert await cache.aio.get("k") is None
        assert cache.stats().loader.loads == 2
        await cache.aio.close()

    with worlds(kind, redis_server) as (opener, age):
        cache = opener(negative_ttl=50)
        cache.set("k", 1)
        age(cache)
        asyncio.run(asyncio.wait_for(main(), TIMEOUT))


@pytest.mark.parametrize("is_renewal", [False, True])
def test_tag_that_changes_during_a_load_ends_what_that_brings(world: World, is_renewal: bool) -> None:
    """It is returned to who waits, and served to nobody."""

    def load(_key: str) -> int:
        cache.invalidate_tag("t")
        return 1

    cache = world.open(loader=load)
    if is_renewal:
        cache.set("k", 0, tags=["t"])
        world.age(cache)
        assert cache["k"] == 0
        wait_until(lambda: cache.stats().loader.loads == 1 and not renewing(cache))
    else:
        assert cache.get_or_load("k", tags=["t"]) == 1
    assert "k" not in cache
    assert cache.get("k") is None


def test_copies_know_the_tags_of_old_values() -> None:
    """What is renewed in a copy of a ``memory://`` cache has those that it had in the first."""
    with nearcache.open("memory://", ttl=100, soft_ttl=10, loader=counting()) as first:
        first.set("k", 0, tags=["t"])
        first.expire(time.monotonic() + 20)
        with first.copy() as cache:
            assert cache["k"] == 0
            wait_until(lambda: cache.peek("k") == 1)
            cache.invalidate_tag("t")
            assert "k" not in cache
