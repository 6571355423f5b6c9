"""``loader_timeout``: nobody waits longer, and the load goes on; in every kind of cache, for threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, LoadCycleError, LoadTimeoutError
from support.redis import RedisServer
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(params=["memory", "redis"])
def open_cache(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches of either kind that are closed at the end."""
    opened: list[Cache[Any, Any]] = []
    url = "memory://" if request.param == "memory" else redis_server.url

    def opener(**options: Any) -> Cache[Any, Any]:
        opened.append(nearcache.open(url, **options))
        return opened[-1]

    yield opener
    for cache in opened:
        cache.close()


def test_slow_load_goes_on_and_fills(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Callers get the error, by either way of loading; the second begins no load of its own."""
    may_end, calls = threading.Event(), []

    def loader(key: str) -> str:
        calls.append(key)
        assert may_end.wait(TIMEOUT)
        return key.upper()

    cache = open_cache(loader=loader, loader_timeout=0.05)
    for read in (lambda: cache["k"], lambda: cache.get_or_load("k")):
        with pytest.raises(LoadTimeoutError, match=r"'k'.*0\.05") as caught:
            read()
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.key, caught.value.seconds) == ("k", 0.05)
    may_end.set()
    wait_until(lambda: cache.peek("k") == "K")
    assert cache["k"] == "K"
    assert calls == ["k"]


def test_load_in_time_is_as_ever(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Values and errors arrive, a TimeoutError of the loader's own too; a load that needs itself is found out."""

    def loader(key: str) -> Any:
        if key == "late":
            raise TimeoutError("of the source")
        return cache[key] if key == "self" else key.upper()

    cache = open_cache(loader=loader, loader_timeout=TIMEOUT)
    assert cache["k"] == "K"
    with pytest.raises(TimeoutError, match="of the source") as caught:
        cache["late"]
    assert not isinstance(caught.value, LoadTimeoutError)
    with pytest.raises(LoadCycleError):
        cache["self"]


def test_tasks_do_not_wait_longer_either(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The load goes on in its own task."""
    calls: list[str] = []

    async def main() -> None:
        may_end = asyncio.Event()

        async def loader(key: str) -> str:
            calls.append(key)
            await may_end.wait()
            return key.upper()

        for _ in range(2):
            with pytest.raises(LoadTimeoutError):
                await cache.aio.get_or_load("k", loader)
        may_end.set()
        while cache.peek("k") != "K":
            await asyncio.sleep(0)
        assert await cache.aio.get_or_load("k", loader) == "K"
        await cache.aio.close()

    cache = open_cache(loader_timeout=0.05)
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    assert calls == ["k"]
