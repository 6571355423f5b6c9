"""What may be a conditional loader: a function, a method of any kind; and what is none, though it wraps one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import UNCHANGED, Loaded, Old, conditional
from support.caches import Opener, opening
from support.redis import RedisServer

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(params=["memory", "redis"])
def open_cache(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Opener]:
    """Open caches of either kind that are closed at the end."""
    with opening("memory://" if request.param == "memory" else redis_server.url) as opener:
        yield opener


def answer(key: str, old: Old | None) -> Any:
    """Return what a conditional loader answers."""
    return Loaded(key.upper(), validator="v1") if old is None else UNCHANGED


class Repository:
    """Conditional loaders that are methods."""

    name = "all"

    def __init__(self, name: str) -> None:
        self.name = name

    @conditional
    def load(self, key: str, old: Old | None) -> Any:
        """Of an instance."""
        return answer(self.name + key, old)

    @conditional
    async def load_later(self, key: str, old: Old | None) -> Any:
        """Of an instance, to be awaited."""
        return answer(self.name + key, old)

    @classmethod
    @conditional
    def load_class(cls, key: str, old: Old | None) -> Any:
        """Of the class."""
        return answer(cls.name + key, old)

    @conditional
    @classmethod
    def load_class_above(cls, key: str, old: Old | None) -> Any:
        """Of the class, decorated the other way round."""
        return answer(cls.name + key, old)

    @staticmethod
    @conditional
    def load_static(key: str, old: Old | None) -> Any:
        """Of nothing."""
        return answer(key, old)

    @conditional
    @staticmethod
    async def load_static_later(key: str, old: Old | None) -> Any:
        """Of nothing, to be awaited, decorated the other way round."""
        return answer(key, old)


@pytest.mark.parametrize(
    ("loader", "prefix"),
    [
        (Repository("one").load, "ONE"),
        (Repository.load_class, "ALL"),
        (Repository("one").load_class_above, "ALL"),
        (Repository.load_static, ""),
    ],
)
def test_method_is_shown_what_is_there(open_cache: Opener, loader: Callable[..., Any], prefix: str) -> None:
    """As the cache's loader, as one for a call, as one in a view, and where nothing is known of what is there."""
    cache = open_cache(loader=loader)
    assert cache["k"] == cache.refresh("k") == f"{prefix}K"
    assert cache.get_or_load("j", loader) == cache.refresh("j", loader) == f"{prefix}J"
    view = cache.view("v")
    assert view.get_or_load("k", loader) == view.refresh("k", loader) == f"{prefix}K"
    assert cache.stats().loader.unchanged == 3
    assert loader("other") == Loaded(f"{prefix}OTHER", validator="v1")


@pytest.mark.parametrize("name", ["load", "load_later", "load_class", "load_static", "load_static_later"])
def test_method_is_shown_what_is_there_to_tasks(open_cache: Opener, name: str) -> None:
    """Coroutine functions, and others, which run in a thread."""
    cache, loader = open_cache(), getattr(Repository("x"), name)

    async def read() -> None:
        async with cache.aio as c:
            assert await c.get_or_load("k", loader) == await c.refresh("k", loader)
            assert await c.view("v").get_or_load("k", loader) == await c.view("v").refresh("k", loader)
            assert cache.stats().loader.unchanged == 2

    asyncio.run(read())


def test_isolated_cache_shows_a_method_a_value_of_its_own(redis_server: RedisServer) -> None:
    """What a method makes of it is not what the cache holds."""

    class Changer:
        @conditional
        def load(self, key: str, old: Old | None) -> Any:
            if old is None:
                return Loaded([key], validator="v1")
            old.value.append("changed")
            return UNCHANGED

    with opening(redis_server.url) as open_cache:
        cache = open_cache(loader=Changer().load, isolation="copy")
        assert cache["k"] == cache.refresh("k") == ["k"]


@pytest.mark.parametrize("decorated", [conditional(answer), Repository("").load])
def test_decorator_above_is_called(open_cache: Opener, decorated: Callable[..., Any]) -> None:
    """It gets the key alone, and so does what it wraps: nothing is shown past it."""
    calls: list[Any] = []

    @functools.wraps(decorated)
    def counted(key: str) -> Any:
        calls.append(key)
        return decorated(key)

    cache = open_cache(loader=counted)
    assert cache["k"] == cache.refresh("k") == "K"
    assert calls == ["k", "k"]
    assert cache.stats().loader.unchanged == 0


def test_decorator_below_is_shown_what_is_there(open_cache: Opener) -> None:
    """Whatever it passes on."""
    calls: list[Any] = []

    @conditional
    @functools.wraps(answer)
    def counted(*args: Any) -> Any:
        calls.append(args)
        return answer(*args)

    cache = open_cache(loader=counted)
    assert cache["k"] == cache.refresh("k") == "K"
    assert calls == [("k", None), ("k", Old("K", "v1"))]
