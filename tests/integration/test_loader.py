"""The loader behind real servers: once per process, fenced against invalidations, unharmed by dead shards."""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from support.redis import RedisServer
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run ``work`` in threads that start together; return results or exceptions."""
    results: list[Any] = []
    start = threading.Barrier(count, timeout=TIMEOUT)

    def run() -> None:
        start.wait()
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    return results


def test_cold_key_is_loaded_once_however_many_threads_ask(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """And all of them get the one object."""
    calls: list[Any] = []

    def loader(key: str) -> list[str]:
        calls.append(key)
        wait_until(lambda: cache._tier.loads.waiting == 15)
        return [key]

    cache = open_cache(loader=loader)
    results = in_threads(16, lambda: cache["cold"])
    assert calls == ["cold"]
    assert all(result is results[0] for result in results)
    assert cache.stats().loader.loads == 1


@pytest.mark.parametrize("load", ["get_or_load", "get_or_load_many"])
def test_load_between_its_read_and_its_lease_is_waited_for(
    open_cache: Callable[..., Cache[Any, Any]], monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    """Who asks in that instant does not begin a load of his own."""
    cache = open_cache()
    seen: list[bool] = []
    await_key = cache._tier.ears.await_key

    def looked_at(*arguments: Any) -> bool:
        seen.append(cache._tier.loads.under_way("k").joinable)
        return bool(await_key(*arguments))

    monkeypatch.setattr(cache._tier.ears, "await_key", looked_at)
    if load == "get_or_load":
        assert cache.get_or_load("k", str.upper) == "K"
    else:
        assert cache.get_or_load_many(["k"], lambda keys: {key: key.upper() for key in keys}) == {"k": "K"}
    assert seen == [True]


def test_loaded_value_reaches_l2_and_other_processes(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The next process does not load."""
    a, b = open_cache(loader=str.upper), open_cache(loader=lambda key: pytest.fail("loaded again"))
    assert a["k"] == "K"
    assert b["k"] == "K"


def test_get_or_load_takes_its_own_loader_and_ttl(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Without one, and without the cache's, a miss is a KeyError."""
    cache = open_cache()
    assert cache.get_or_load("k", str.upper, ttl=0.15) == "K"
    assert cache.get_or_load("k", lambda key: "again") == "K"
    wait_until(lambda: cache.get("k") is None)
    with pytest.raises(KeyError):
        cache.get_or_load("k")


def test_get_in_and_pop_never_load(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Only [] and get_or_load do, as with __missing__."""
    cache = open_cache(loader=lambda key: pytest.fail("called the loader"))
    assert cache.get("k") is None
    assert "k" not in cache
    assert cache.pop("k", 1) == 1
    assert cache.get_many(["k"]) == {}
    assert cache.setdefault("k", 2) == 2


def test_loader_that_raises_reaches_every_thread_and_stores_nothing(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """Its own exception, unchanged; the next call tries again."""
    wait = threading.Event()

    def loader(key: str) -> str:
        wait.wait(0.2)
        raise LookupError(f"no row {key}")

    cache = open_cache(loader=loader)
    results = in_threads(8, lambda: cache["k"])
    assert all(type(result) is LookupError for result in results)
    assert "k" not in cache
    assert cache.get_or_load("k", lambda key: "better") == "better"


def test_loader_interrupted_frees_the_other_threads(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """KeyboardInterrupt is one thread's; another loads."""
    calls = threading.Semaphore(0)
    lock = threading.Lock()
    count = [0]

    def loader(key: str) -> str:
        with lock:
            count[0] += 1
            mine = count[0]
        if mine == 1:
            calls.acquire(timeout=0.2)
            raise KeyboardInterrupt
        return "value"

    cache = open_cache(loader=loader)
    results = in_threads(6, lambda: cache["k"])
    assert count[0] == 2
    assert sorted(str(result) for result in results if not isinstance(result, KeyboardInterrupt)) == ["value"] * 5


def test_interrupt_in_the_main_thread_during_a_load_leaves_no_trace(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """Ctrl-C while the loader runs: the key can be loaded again at once."""
    cache = open_cache()

    def loader(key: str) -> str:
        _thread.interrupt_main()
        for _ in range(1000):
            threading.Event().wait(0.001)
        return "never"

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_load("k", loader)
    assert cache.get_or_load("k", lambda key: "value") == "value"


def test_loader_may_use_the_cache_but_not_wait_for_itself(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Another key is fine; its own is an error that shows the chain, not a deadlock."""
    cache = open_cache(loader=lambda key: key if key == "b" else [cache["b"]] if key == "a" else cache[key])
    assert cache["a"] == ["b"]
    with pytest.raises(nearcache.LoadCycleError, match="'self' -> 'self'"):
        cache["self"]


def test_refresh_whose_loader_asks_for_the_same_key_anew_is_a_cycle(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """The lease that the inner load waits for is that of its own process, and of its own thread."""
    cache = open_cache()
    with pytest.raises(nearcache.LoadCycleError):
        cache.refresh("k", lambda key: cache.get_or_load(key, lambda _key: "inner", max_age=0))


def test_value_loaded_before_an_invalidation_is_not_stored_after_it(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """The classic stale set: the loader read the old row, then the row changed. Neither tier may keep it."""
    loading, other = open_cache(), open_cache()

    def slow(key: str) -> str:
        other.invalidate(key)  # the source changed after we read it
        return "old"

    assert loading.get_or_load("k", slow) == "old"
    assert loading.stats().l2.fills_refused == 1
    assert loading.peek("k") is None
    assert "k" not in other
    assert loading.get_or_load("k", lambda key: "new") == "new"


@pytest.mark.parametrize("by_another_process", [False, True])
def test_reader_after_an_invalidation_does_not_join_a_load_from_before(
    open_cache: Callable[..., Cache[Any, Any]], by_another_process: bool
) -> None:
    """Who asks after ``invalidate`` has returned, or its message has come, gets what the source says since."""
    running, may_end = threading.Event(), threading.Event()
    source = ["old"]

    def loader(_key: str) -> str:
        seen = source[0]
        if seen == "old":
            running.set()
            assert may_end.wait(TIMEOUT)
        return seen

    cache, other = open_cache(loader=loader), open_cache()
    first: list[str] = []
    thread = threading.Thread(target=lambda: first.append(cache["k"]))
    thread.start()
    assert running.wait(TIMEOUT)
    source[0] = "new"
    (other if by_another_process else cache).invalidate("k")
    assert cache.selftest().ok  # what comes after the message has come, so the message has
    assert cache["k"] == "new"
    may_end.set()
    thread.join(TIMEOUT)
    assert first == ["old"]
    assert cache["k"] == "new"


def test_value_written_during_a_load_wins(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Own process or another, the write is newer than the load."""
    a, b = open_cache(), open_cache()
    for writer in (a, b):
        for cache in (a, b):
            cache.drop("k")

        def slow(key: str, writer: Cache[Any, Any] = writer) -> str:
            writer[key] = "written"
            return "loaded"

        a.invalidate("k")
        assert a.get_or_load("k", slow) == "loaded"
        assert a.get("k") == "written"
        assert b.get("k") == "written"


def test_clear_during_a_load_keeps_the_value_out(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A value loaded under an old generation belongs to what was cleared."""
    a, b = open_cache(), open_cache()

    def slow(key: str) -> str:
        b.clear()
        return "old"

    assert a.get_or_load("k", slow) == "old"
    assert a.get("k") is None


def test_undecodable_value_is_loaded_over(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged value is a miss that is counted and logged, never an exception and never a wrong value."""
    cache = open_cache()
    cache["k"] = {"a": [1, 2, 3]}
    name = "nc:{default:0}:v:sk"
    with redis_server.client() as client:
        data = client.get(name)
        client.set(name, data[:-3], ex=60)
    cache.drop("k")
    assert cache.get("k", "default") == "default"
    assert cache.stats().l2.undecodable == 1
    assert caplog.messages[-1].startswith("namespace default: key 'k': ")
    assert cache.get_or_load("k", lambda key: "repaired") == "repaired"
    cache.drop("k")
    assert cache["k"] == "repaired"


def test_dead_shard_costs_the_caching_not_the_value(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """The loader stands in, once per call, and the error is counted."""
    cache = open_cache(loader=str.upper, timeout=0.2)
    redis_server.kill()
    assert cache["k"] == "K"
    assert cache["k"] == "K"
    assert cache.stats().l2.errors >= 1


def test_shard_that_dies_during_a_load_costs_the_caching_not_the_value(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """The value is there; that it could not be stored is nobody's error."""
    cache = open_cache(timeout=0.2)

    def slow(key: str) -> str:
        redis_server.kill()
        return "value"

    assert cache.get_or_load("k", slow) == "value"


def test_loaded_value_of_an_unregistered_class_is_refused(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The caller learns at the first load, not at the first L2 hit of another process."""
    cache = open_cache()
    with pytest.raises(nearcache.UnencodableValueError, match="object"):
        cache.get_or_load("k", lambda key: object())


@pytest.mark.parametrize("isolation", ["shared", "copy"])
def test_loaded_value_over_max_value_is_returned_and_kept_nowhere(
    open_cache: Callable[..., Cache[Any, Any]],
    redis_server: RedisServer,
    isolation: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cache that has no room for a value costs the caching, no value, nor those beside it; writes are refused."""
    large = ["x" * 2000]

    def load_many(keys: list[str]) -> dict[str, Any]:
        return {key: large if key == "large" else [key] for key in keys}

    cache = open_cache(loader=lambda key: large, load_many=load_many, max_value=1000, isolation=isolation)
    assert cache.get_many(["a", "large", "b"]) == {"a": ["a"], "large": large, "b": ["b"]}
    assert cache["large"] == cache.get_or_load("large", lambda key: large) == large
    assert cache.cached(version=1)(lambda key: large)("large") == large
    assert "namespace default: what was loaded is not kept: value of 20" in caplog.text
    assert "(key 'large')" in caplog.text
    assert (cache.peek("a"), cache.peek("large"), "large" in cache) == (["a"], None, False)
    assert cache.stats().l2.fills_too_large == 4
    assert not redis_server.cli("KEYS", "nc:*:l:*")
    for write in (lambda: cache.set("a", large), lambda: cache.set_many({"a": large})):
        with pytest.raises(nearcache.ValueTooLargeError, match="max_value=1000"):
            write()
    assert cache["a"] == ["a"]


def test_loaded_value_over_max_value_ends_the_older_one(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Nobody is given what was there before, in place of what is known to have followed it."""
    cache = open_cache(max_value=1000)
    large = "x" * 2000
    cache.set_many({"a": 1, "b": 2})
    assert cache.refresh("a", lambda key: large) == large
    assert cache.get_or_load_many(["b"], lambda keys: {"b": large}, max_age=0) == {"b": large}
    assert cache.get_many(["a", "b"]) == {}


def test_loaded_value_over_max_value_is_returned_to_tasks(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """As to threads."""
    cache = open_cache(max_value=1000)
    large = "x" * 2000

    async def load(key: str) -> str:
        return large

    async def load_many(keys: list[str]) -> dict[str, str]:
        return {key: large if key == "a" else key for key in keys}

    async def main() -> None:
        async with cache.aio as tasks:
            assert await tasks.get_or_load("k", load) == large
            assert await tasks.get_or_load_many(["a", "b"], load_many) == {"a": large, "b": "b"}
            assert cache.peek("k") is None

    asyncio.run(main())


def stop(_wanted: Any) -> Any:
    """A loader of one key or of many, or what a value is made of, that is out of values."""
    raise StopIteration


def leave(_wanted: Any) -> Any:
    """The same, that ends as a generator does which is closed."""
    raise GeneratorExit


@pytest.mark.parametrize("function", [stop, leave])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [("get_or_load", "k"), ("get_or_load_many", ["k"]), ("compute", "k")],
    ids=["one", "many", "made"],
)
@pytest.mark.parametrize("where", ["memory", "redis"])
def test_function_that_raises_what_generators_end_by_is_the_same_error_everywhere(
    redis_server: RedisServer, where: str, name: str, wanted: Any, function: Callable[[Any], Any]
) -> None:
    """It is what the interpreter makes of a StopIteration in a coroutine: generators and futures carry none."""
    error = StopIteration if function is stop else GeneratorExit
    url = "memory://" if where == "memory" else redis_server.url
    with nearcache.open(url) as cache, redis_server.client() as client:

        async def in_task() -> None:
            await asyncio.wait_for(getattr(cache.aio, name)(wanted, function), TIMEOUT)

        for ask in (lambda: getattr(cache, name)(wanted, function), lambda: asyncio.run(in_task())):
            with pytest.raises(RuntimeError, match=rf"^<function \w+ at \w+> raised {error.__name__}$") as raised:
                ask()
            assert isinstance(raised.value.__cause__, error)
            assert client.keys("*:l:*") == []  # a lease would keep others waiting
        assert cache.get_or_load("k", lambda _key: 1) == 1
