"""Mocks, of which a program's tests give a cache its functions: they are called, and pass for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, call, create_autospec

import pytest

import nearcache
from nearcache import Cache
from support.caches import Opener, opening
from support.redis import RedisServer
from support.threads import PATIENCE

pytestmark = pytest.mark.usefixtures("no_leaks")


def load(key: str) -> str:
    """A loader."""
    return key


async def load_later(key: str) -> str:
    """One for tasks."""
    return key


@nearcache.conditional
def load_newer(key: str, old: Any) -> str:
    """One that is shown what is there."""
    return key


#: All the ways in which a mock may be made of a function.
MOCKS = {
    "Mock": Mock,
    "MagicMock": MagicMock,
    "Mock of a function": lambda **options: Mock(spec=load, **options),
    "MagicMock of a function": lambda **options: MagicMock(spec=load, **options),
    "Mock of a conditional one": lambda **options: Mock(spec=load_newer, **options),
    "autospec": lambda **options: create_autospec(load, **options),
}
ASYNC_MOCKS = {
    "AsyncMock": AsyncMock,
    "Mock of a coroutine function": lambda **options: Mock(spec=load_later, **options),
    "autospec of one": lambda **options: create_autospec(load_later, **options),
}


@pytest.fixture(params=["memory", "redis"])
def open_cache(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Opener]:
    """Open caches of either kind that are closed at the end."""
    with opening("memory://" if request.param == "memory" else redis_server.url) as opener:
        yield opener


@pytest.mark.parametrize("kind", MOCKS)
def test_mock_is_the_loader_that_it_is_given_as(open_cache: Opener, kind: str) -> None:
    """It is called with the key alone, by each way to load; with the keys, as the bulk loader."""
    loader: Any = MOCKS[kind](return_value=5)
    cache = open_cache(loader=loader)
    assert cache["a"] == cache.refresh("a") == cache.get_or_load("b", loader) == 5
    assert cache.view("v").get_or_load("c", loader) == 5
    assert loader.call_args_list == [call("a"), call("a"), call("b"), call("c")]
    load_many: Any = MOCKS[kind](return_value={"x": 6})
    assert cache.get_or_load_many(["x"], load_many) == {"x": 6}
    assert load_many.call_args_list == [call(["x"])]
    assert open_cache(load_many=load_many, namespace="many")["x"] == 6


@pytest.mark.parametrize("kind", [*MOCKS, *ASYNC_MOCKS])
def test_mock_is_the_loader_that_tasks_give(open_cache: Opener, kind: str) -> None:
    """As for threads; one of a coroutine function is awaited."""
    make: Callable[..., Any] = (MOCKS | ASYNC_MOCKS)[kind]
    loader, load_many = make(return_value=5), make(return_value={"x": 6})
    cache = open_cache()

    async def read() -> None:
        async with cache.aio as c:
            assert await c.get_or_load("a", loader) == await c.refresh("a", loader) == 5
            assert await c.view("v").get_or_load("c", loader) == 5
            assert await c.get_or_load_many(["x"], load_many) == {"x": 6}

    asyncio.run(read())
    assert loader.call_args_list == [call("a"), call("a"), call("c")]
    assert load_many.call_args_list == [call(["x"])]


@pytest.mark.parametrize("kind", MOCKS)
def test_mock_is_told_of_changes(open_cache: Opener, kind: str) -> None:
    """As a listener, and as what hears of removals; and it makes one."""
    heard, told = MOCKS[kind](return_value=None), Mock()
    cache = open_cache(on_removal=told)
    with cache.listen(heard) as handle:
        cache["a"] = 1
        assert cache.compute("a", MOCKS[kind](return_value=2), 0) == 2
        assert handle.flush(PATIENCE)
    assert [each.args[0].kind for each in heard.call_args_list] == ["created", "updated"]
    del cache["a"]
    assert told.called


@pytest.mark.parametrize("kind", MOCKS)
def test_mock_measures_values(kind: str) -> None:
    """As ``getsizeof``."""
    measure: Any = MOCKS[kind](return_value=5)
    with nearcache.open("memory://", maxbytes=100, getsizeof=measure) as cache:
        cache["a"] = 1
        assert measure.call_args_list == [call(1)]


@pytest.mark.parametrize("kind", MOCKS)
def test_mock_is_a_cached_function(open_cache: Opener, kind: str) -> None:
    """Called once for each of its arguments; so is one that names their part of the key."""
    function: Any = MOCKS[kind](return_value=7)
    function.__module__, function.__qualname__ = "m", "f"
    cached: Any = open_cache().cached(function, key=MOCKS[kind](return_value="k"), version=1)
    assert cached("a") == cached("a") == 7
    assert function.call_args_list == [call("a")]
    memo: Any = nearcache.lru_cache(MOCKS[kind](return_value=8))
    assert memo("a") == memo("a") == 8


class Store:
    """A writer with methods."""

    def write(self, key: str, value: Any) -> None:
        """Write one."""

    def delete(self, key: str) -> None:
        """Delete one."""


def configured() -> Any:
    """Return a mock that has been told what its method does."""
    mock = Mock()
    mock.write.return_value = None
    return mock


@pytest.mark.parametrize("kind", ["Mock", "MagicMock"])
def test_mock_is_the_function_that_writes(redis_server: RedisServer, kind: str) -> None:
    """Unless it has methods that write: by its specification, or because somebody has named them."""
    with opening(redis_server.url, loader=load) as open_cache:
        writer = MOCKS[kind](return_value=None)
        open_cache(writer=writer)["a"] = 1
        assert writer.mock_calls == [call("a", 1)]
        specified = [Mock(spec=Store), Mock(spec=["write", "delete"]), create_autospec(Store, instance=True)]
        for store in [*specified, configured()]:
            cache = open_cache(writer=store)
            cache["a"] = 1
            del cache["a"]
            assert store.mock_calls == [call.write("a", 1), call.delete("a")]


def test_mock_of_a_coroutine_function_writes_for_tasks(redis_server: RedisServer) -> None:
    """And is refused to threads."""
    with opening(redis_server.url, loader=load) as open_cache:
        writer = AsyncMock(return_value=None)
        cache: Cache[Any, Any] = open_cache(writer=writer)
        with pytest.raises(TypeError, match=r"use cache\.aio"):
            cache["a"] = 1
        asyncio.run(cache.aio.set("a", 1))
        assert writer.await_args_list == [call("a", 1)]
