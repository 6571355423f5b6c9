"""``loader_timeout``: nobody waits longer, and the load goes on; in every kind of cache, for threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import nearcache
from nearcache import Cache, CacheError, LoadCycleError, LoadTimeoutError
from support.redis import RedisServer
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(params=["memory", "redis"])
def open_cache(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches of either kind that are closed at the end."""
    opened: list[Cache[Any, Any]] = []
    url = "memory://" if request.param == "memory" else redis_server.url

    def opener(*, aged: bool = False, **options: Any) -> Cache[Any, Any]:
        if aged and request.param == "memory":  # others know ages in any case
            options["ages"] = True
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


@pytest.mark.parametrize("options", [{}, {"max_age": 60}])
def test_loader_that_hangs_has_one_thread_however_many_ask(
    open_cache: Callable[..., Cache[Any, Any]], options: dict[str, float]
) -> None:
    """Who finds a load under way waits in his own thread, which is there already."""
    may_end, running, calls = threading.Event(), threading.Event(), []

    def loader(key: str) -> list[str]:
        calls.append(key)
        running.set()
        assert may_end.wait(TIMEOUT)
        return [key]

    cache = open_cache(loader=loader, loader_timeout=0.002, aged=bool(options))
    with pytest.raises(LoadTimeoutError):
        cache.get_or_load("k", **options)
    assert running.wait(TIMEOUT)
    for _ in range(20):
        with pytest.raises(LoadTimeoutError, match=r"'k'.*0\.002"):
            cache.get_or_load("k", **options)
        assert [thread.name for thread in threading.enumerate()].count("nearcache-load") == 1
    may_end.set()
    wait_until(lambda: cache.peek("k") == ["k"])
    assert calls == ["k"]


class Asked:
    """Four threads that ask for one key: the first one's loader answers when the others have come to wait.

    Attributes:
        outcomes: What they got.
    """

    def __init__(self, opener: Callable[..., Cache[Any, Any]], answer: Any, **options: Any) -> None:
        self.outcomes: list[Any] = []
        self._answer = answer
        self._may_end, self._running = threading.Event(), threading.Event()
        self._cache = opener(loader=self._load, loader_timeout=TIMEOUT, **options)
        threads = [threading.Thread(target=self._ask) for _ in range(4)]
        threads[0].start()
        assert self._running.wait(TIMEOUT)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: self._cache._flights().waiting == 3)
        self._may_end.set()
        for thread in threads:
            thread.join(TIMEOUT)

    def _load(self, key: str) -> Any:
        self._running.set()
        assert self._may_end.wait(TIMEOUT)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def _ask(self) -> None:
        try:
            self.outcomes.append(self._cache["k"])
        except (KeyError, ValueError) as error:
            self.outcomes.append(error)


@pytest.mark.parametrize("answer", ["value", nearcache.ABSENT, ValueError("of the source")])
def test_load_under_way_brings_the_others_what_it_brings_its_own(
    open_cache: Callable[..., Cache[Any, Any]], answer: Any
) -> None:
    """A value, a word that there is none, an error."""
    wanted = KeyError("k") if answer is nearcache.ABSENT else answer
    assert [repr(outcome) for outcome in Asked(open_cache, answer).outcomes] == [repr(wanted)] * 4


def test_load_under_way_brings_each_a_copy_of_his_own(redis_server: RedisServer) -> None:
    """Where a cache gives copies."""
    with ExitStack() as ending:

        def opener(**options: Any) -> Cache[Any, Any]:
            return ending.enter_context(nearcache.open(redis_server.url, **options))

        outcomes = Asked(opener, ["value"], isolation="copy").outcomes
    assert outcomes == [["value"]] * 4
    assert len(set(map(id, outcomes))) == 4


def test_thread_that_cannot_be_had_is_said_to_be_the_reason(
    open_cache: Callable[..., Cache[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader is not called: in the caller's own thread nothing would end the wait."""
    calls: list[str] = []
    cache = open_cache(loader=calls.append, loader_timeout=TIMEOUT)

    usual = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "nearcache-load":
            raise RuntimeError("can't start new thread")
        usual(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(CacheError, match=r"'k' was not loaded: loader_timeout= needs a thread"):
        cache["k"]
    assert calls == []


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
