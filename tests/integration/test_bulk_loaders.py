"""Bulk loaders on real servers: one call for all misses, and one load of each key in the whole fleet."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.clocks import TICK_NS
from support.redis import RedisServer
from support.tasks import until
from support.threads import PATIENCE
from support.waiting import wait_until
from support.worker import Worker

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")

LOADER = """
import nearcache, redis
def start(url, **options):
    global cache, client
    cache = nearcache.open(url, timeout=10.0, **options)
    client = redis.Redis(unix_socket_path=url.removeprefix("unix://"), socket_timeout=30)  # BLPOP waits for 20
def load_many(keys):
    client.rpush("loading", ",".join(keys))
    word = client.blpop("go", 20)[1].decode()
    return {key: word + key for key in keys}
def get(keys):
    return cache.get_or_load_many(keys, load_many)
"""


class Source:
    """A bulk loader that remembers what it was asked for, and waits when it is told to."""

    def __init__(self, **values: Any) -> None:
        self.asked: list[list[str]] = []
        self.values = values
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, keys: list[str]) -> dict[str, Any]:
        self.asked.append(keys)
        assert self.may_go.wait(TIMEOUT)
        return {key: self.values[key] for key in keys if key in self.values}


@pytest.fixture
def open_cache(two_shards: tuple[RedisServer, RedisServer]) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on two shards that are closed at the end."""
    opened: list[Cache[Any, Any]] = []
    url = "unix://" + ",".join(server.url.removeprefix("unix://") for server in two_shards)

    def opener(**options: Any) -> Cache[Any, Any]:
        opened.append(nearcache.open(url, **options))
        return opened[-1]

    yield opener
    for cache in opened:
        cache.close()


def leases(*servers: RedisServer) -> int:
    """Number of leases that anybody holds."""
    return sum(len(server.cli("KEYS", "nc:*:l:*")) for server in servers)


def requests(cache: Any) -> list[int]:
    """Count from now on, for each round trip, to how many shards it goes."""
    made: list[int] = []
    execute = cache._driver.execute

    def counted(exchanges: Any, **more: Any) -> Any:
        made.append(len(exchanges))
        return execute(exchanges, **more)

    cache._driver.execute = counted
    return made


def test_all_misses_are_loaded_by_one_call_and_one_round_trip_per_step(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """Look, lease, load, fill: three round trips to each shard for any number of keys. Others have them then."""
    source = Source(**{f"k{n}": n for n in range(40)})
    a, b = open_cache(load_many=source), open_cache(load_many=source)
    keys = [f"k{n}" for n in range(50)]
    a["k7"] = "mine"
    made = requests(a)
    found = a.get_many(keys)
    assert found == {f"k{n}": n for n in range(40)} | {"k7": "mine"}
    assert len(source.asked) == 1
    assert sorted(source.asked[0]) == sorted(set(keys) - {"k7"})
    # A fourth gives the leases of the keys back that have no value.
    assert made == [2, 2, 2, 2]
    assert a.peek("k3") == 3
    assert b.get_many(keys[:40]) == found
    assert len(source.asked) == 1
    assert a.stats().loader.loads == 1


def test_keys_of_partial_result_leave_no_lease(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Absent is no KeyError here, and the next who asks loads again, unless absence is kept."""
    source = Source(a=1)
    cache = open_cache(load_many=source)
    assert cache.get_many(["a", "b"]) == {"a": 1}
    assert leases(*two_shards) == 0
    assert cache.get_many(["a", "b"]) == {"a": 1}
    assert source.asked == [["a", "b"], ["b"]]
    keeping = open_cache(load_many=source, negative_ttl=60)
    for _ in range(2):
        assert keeping.get_many(["a", "c"]) == {"a": 1}
    assert source.asked[2:] == [["c"]]
    assert keeping.get("c", 7) == 7
    with pytest.raises(KeyError, match="'c'"):
        keeping["c"]
    assert len(source.asked) == 3


def test_single_key_goes_to_the_bulk_loader_if_there_is_no_other(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A list of one; ``get`` still calls none."""
    source = Source(a=1)
    cache = open_cache(load_many=source)
    assert cache.get("a") is None
    assert cache["a"] == 1
    with pytest.raises(KeyError, match="'b'"):
        cache["b"]
    source.values["a"] = 2
    assert cache.refresh("a") == 2
    assert source.asked == [["a"], ["b"], ["a"]]


@pytest.mark.parametrize("kind", [ValueError, KeyError])
def test_error_reaches_all_waiters_and_gives_up_all_leases(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer], kind: type[Exception]
) -> None:
    """Who waits for one of the keys, alone or with others, gets the error; nothing is kept."""
    failing = threading.Event()

    def load_many(keys: list[str]) -> dict[str, Any]:
        if not failing.is_set():
            failing.set()
            wait_until(lambda: cache._tier.loads.waiting >= 2, TIMEOUT)
            raise kind("the source is down")
        return dict.fromkeys(keys, 1)

    cache = open_cache(load_many=load_many, lease=30.0)
    errors: list[str] = []

    def read(work: Callable[[], Any]) -> None:
        try:
            work()
        except kind as error:
            errors.append(error.args[0])
        except BaseException as error:
            errors.append(repr(error))

    first = threading.Thread(target=read, args=(lambda: cache.get_many(["a", "b", "c"]),))
    first.start()
    assert failing.wait(TIMEOUT)
    others = [
        threading.Thread(target=read, args=(lambda: cache["a"],)),
        threading.Thread(target=read, args=(lambda: cache.get_many(["b", "c"]),)),
    ]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(TIMEOUT)
    assert errors == ["the source is down"] * 3
    assert leases(*two_shards) == 0
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 1}


def test_late_value_of_one_key_is_not_kept_and_the_others_are(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """An invalidation by another process while the loader runs concerns its key alone."""
    source = Source(a=1, b=2)
    cache, other = open_cache(), open_cache()
    source.may_go.clear()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(cache.get_or_load_many(["a", "b"], source)))
    thread.start()
    wait_until(lambda: source.asked, TIMEOUT)
    other.invalidate("a")
    source.may_go.set()
    thread.join(TIMEOUT)
    assert found == [{"a": 1, "b": 2}]
    assert (other.get("a"), other.get("b")) == (None, 2)
    assert cache.peek("a") is None
    assert cache.stats().l2.fills_refused == 1


def test_keys_on_hold_are_loaded_and_not_kept(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """As single ones are."""
    source = Source(a=1, b=2)
    cache, other = open_cache(load_many=source), open_cache()
    with other.hold(["a"]):
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert (other.get("a"), other.get("b")) == (None, 2)


def test_dead_shard_costs_the_caching_not_the_values(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Values of the other shard are kept."""
    keys = [f"k{n}" for n in range(20)]
    source = Source(**dict.fromkeys(keys, 1))
    cache = open_cache(load_many=source, timeout=5.0)
    two_shards[0].kill()
    assert cache.get_many(keys) == dict.fromkeys(keys, 1)
    assert len(source.asked) == 1
    assert cache.get_many(keys) == dict.fromkeys(keys, 1)
    assert 0 < len(source.asked[1]) < 20


def test_lifetimes_and_tags_are_each_values_own(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Functions of key and value, names, and what the loader itself says."""
    cache = open_cache(ttl=100)
    cache.invalidate_tag("t:a")  # tags that are known before a load
    cache.invalidate_tag("own")
    assert cache.selftest(PATIENCE).ok  # their own messages have been heard, and end nothing that comes later

    def load_many(keys: list[str]) -> dict[str, Any]:
        return {key: nearcache.Loaded(key, ttl=50, tags=["own"]) if key == "c" else key for key in keys}

    cache.get_or_load_many(["a", "b", "c"], load_many, ttl=lambda _key, value: 10 if value == "a" else 20)
    for key, seconds in {"a": 10, "b": 20, "c": 50}.items():
        assert seconds * 0.9e9 < cache.remaining_ns(key) <= seconds * 1e9 + TICK_NS
    cache.invalidate_tag("own")
    assert cache.get_many([*"abc"]) == {"a": "a", "b": "b"}
    cache.clear()
    cache.get_or_load_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1), tags=["t:a"])
    assert cache.get_many([*"ab"]) == {"a": 1, "b": 1}
    cache.invalidate_tag("t:a")
    assert cache.get_many([*"ab"]) == {}


def test_surplus_keys_are_left_out_and_counted(
    open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody holds their lease, so nobody could tell whether they are still right when they arrive."""
    cache = open_cache()
    for _ in range(2):
        assert cache.get_or_load_many(["a"], lambda _: {"a": 1, "b": 2, "c": 3}) == {"a": 1}
        cache.invalidate("a")
    assert cache.get("b") is None
    assert cache.stats().loader.surplus == 4
    assert len([record for record in caplog.records if "not asked for" in record.message]) == 1


def test_what_is_no_mapping_is_an_error_and_leaves_no_lease(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Both kinds: no mapping at all, and a value that cannot be stored."""
    cache = open_cache()
    with pytest.raises(TypeError, match="mapping"):
        cache.get_or_load_many(["a"], lambda keys: [1])
    with pytest.raises(nearcache.UnencodableValueError):
        cache.get_or_load_many(["a", "b"], lambda keys: {"a": 1, "b": object()})
    assert leases(*two_shards) == 0
    with pytest.raises(TypeError, match="load_many="):
        cache.get_or_load_many(["a"])


@pytest.mark.parametrize("by_tasks", [False, True])
@pytest.mark.parametrize("fault", ["value", "lifetime"])
def test_row_that_cannot_be_kept_costs_the_others_nothing(
    open_cache: Callable[..., Cache[Any, Any]],
    two_shards: tuple[RedisServer, RedisServer],
    fault: str,
    by_tasks: bool,
) -> None:
    """They are kept, in every tier; the error is that of the key, and comes again to who asks for it."""
    keys = [f"k{n}" for n in range(6)]
    calls: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, Any]:
        calls.append(keys)
        return {key: object() if fault == "value" and key == "k2" else key for key in keys}

    def ttl(key: str, value: Any) -> float:
        return -3 if key == "k2" else 60

    async def load_in_tasks(keys: list[str]) -> dict[str, Any]:
        return load_many(keys)

    async def ask(cache: Cache[Any, Any], keys: list[str]) -> dict[str, Any]:
        async with cache.aio as tasks:
            return await tasks.get_or_load_many(keys, load_in_tasks, ttl=ttl)

    cache, other = open_cache(), open_cache()
    error = nearcache.UnencodableValueError if fault == "value" else nearcache.ConfigError
    with pytest.raises(error) as caught:
        asyncio.run(ask(cache, keys)) if by_tasks else cache.get_or_load_many(keys, load_many, ttl=ttl)
    if isinstance(caught.value, nearcache.UnencodableValueError):
        assert caught.value.key == "k2"
    good = {key: key for key in keys if key != "k2"}
    assert other.get_many(keys) == good
    if not by_tasks:
        assert {key: cache.peek(key) for key in good} == good
    assert calls == [keys]
    assert leases(*two_shards) == 0


def test_loader_that_asks_for_its_own_keys_is_told_the_chain(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Alone, among others, anew, or by age: it would wait for itself for ever."""

    def load_many(keys: list[str]) -> dict[str, Any]:
        return {key: ask(key) for key in keys}

    asks: list[Callable[[str], Any]] = [
        lambda key: cache[key],
        lambda key: cache.get_many([key, "z"]),
        lambda key: cache.refresh(key),
        lambda key: cache.get_or_load(key, max_age=0),
    ]
    cache = open_cache(load_many=load_many)
    for ask in asks:  # noqa: B007  the loader reads it
        with pytest.raises(nearcache.LoadCycleError) as caught:
            cache.get_many(["a", "b"])
        assert caught.value.chain[0] == caught.value.chain[-1]
        assert caught.value.chain[0] in {"a", "z"}


def test_key_error_of_a_bulk_loader_is_an_error_to_tasks_that_joined_as_well(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """It says nothing of the keys: those that have no value, a bulk loader leaves out."""

    async def load_many(_keys: list[str]) -> dict[str, Any]:
        asked.set()
        await until(lambda: cache._tier.loads.under_way("a").is_shared)
        raise KeyError("a column")

    async def main() -> list[Any]:
        first = asyncio.ensure_future(cache.aio.get_many(["a", "b"]))
        await until(asked.is_set)
        return await asyncio.gather(first, cache.aio.get_many(["a"]), return_exceptions=True)

    asked = threading.Event()
    cache: Any = open_cache(load_many=load_many)
    assert list(map(repr, asyncio.run(main()))) == ["KeyError('a column')"] * 2


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_tasks_load_many_too(open_cache: Callable[..., Cache[Any, Any]], kind: str) -> None:
    """And find cycles; who is cancelled leaves the load to the others."""
    asked: list[list[str]] = []

    async def later(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        if "cycle" in keys:
            await cache.aio.get_or_load("cycle")
        await gate.wait()
        return dict.fromkeys(keys, 1)

    def at_once(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return dict.fromkeys(keys, 1)

    async def main() -> None:
        nonlocal gate
        gate = asyncio.Event()
        c = cache.aio
        first = asyncio.ensure_future(c.get_many(["a", "b"]))
        while not asked:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(c.get_many(["b", "c"]))
        if kind == "coroutine":
            while len(asked) < 2:
                await asyncio.sleep(0)
            first.cancel()
        gate.set()
        assert await second == {"b": 1, "c": 1}
        assert await c.get_or_load("a") == 1
        assert asked == [["a", "b"], ["c"]]
        if kind == "coroutine":
            with pytest.raises(nearcache.LoadCycleError, match="cycle"):
                await c.get_many(["cycle", "d"])
        await asyncio.gather(first, return_exceptions=True)
        await c.close()

    gate: Any = None
    cache = open_cache(load_many=later if kind == "coroutine" else at_once)
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_bulk_loads_of_processes_share_their_keys(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """Each loads what it was first to ask for, and waits by message for the rest."""
    one, two = make_worker(LOADER, timeout=60.0), make_worker(LOADER, timeout=60.0)
    for worker in (one, two):
        worker.call("start", redis_server.url, lease=30.0)
    one.send("get", ["a", "b"])
    wait_until(lambda: int(redis_server.cli("LLEN", "loading")) == 1, TIMEOUT)
    two.send("get", ["b", "c"])
    wait_until(lambda: int(redis_server.cli("LLEN", "loading")) == 2, TIMEOUT)
    redis_server.cli("RPUSH", "go", "1")
    redis_server.cli("RPUSH", "go", "2")
    first, second = one.receive(), two.receive()
    assert first["b"] == second["b"]
    assert sorted(first) == ["a", "b"]
    assert sorted(second) == ["b", "c"]
    assert redis_server.cli("LRANGE", "loading", 0, -1) == [b"a,b", b"c"]


def test_killed_bulk_loader_is_replaced(redis_server: RedisServer, make_worker: Callable[..., Worker]) -> None:
    """Its keys are loaded by who waits for them, when the leases run out."""
    one, two = make_worker(LOADER, timeout=60.0), make_worker(LOADER, timeout=60.0)
    for worker in (one, two):
        worker.call("start", redis_server.url, lease=1.0)  # long enough to be renewed on a busy machine
    one.send("get", ["a", "b"])
    wait_until(lambda: int(redis_server.cli("LLEN", "loading")) == 1, TIMEOUT)
    two.send("get", ["a", "b"])
    wait_until(lambda: str(redis_server.cli("GET", "nc:{default:0}:l:sa"))[2:3] == "W", TIMEOUT)
    one.kill()
    wait_until(lambda: int(redis_server.cli("LLEN", "loading")) == 2, TIMEOUT)
    redis_server.cli("RPUSH", "go", "x", "x")  # the server may not know yet that the first who waited has gone
    assert two.receive() == {"a": "xa", "b": "xb"}


def test_large_load_keeps_its_leases_at_little_cost(redis_server: RedisServer) -> None:
    """While the loader runs they are renewed, many by one call; all values are stored, and nobody loads them again."""
    count, passes = 20_000, queue.SimpleQueue[int]()
    keys = [f"k{n}" for n in range(count)]

    def calls() -> int:
        stats = redis_server.client().info("commandstats")
        return int(stats["cmdstat_eval"]["calls"] + stats["cmdstat_evalsha"]["calls"])

    def load_many(asked: list[str]) -> dict[str, int]:
        before, begun_ns = calls(), tier.clock()
        for _ in range(2):
            while passes.get(timeout=PATIENCE) < begun_ns:
                pass
        assert calls() - before < count / 10
        return dict.fromkeys(asked, 1)

    # Long enough for a busy machine.
    usual: dict[str, Any] = {"timeout": TIMEOUT, "lease": 4.0, "max_staleness": 20.0, "maxsize": 2 * count}
    with nearcache.open(redis_server.url, load_many=load_many, **usual) as cache:
        tier: Any = cache._tier  # type: ignore[attr-defined]  # of a cache on Redis
        renewals = tier.renewals

        def heard(now_ns: int) -> Any:
            passes.put(now_ns)
            return renewals(now_ns)

        tier.renewals = heard
        assert len(cache.get_many(keys)) == count
        assert cache.stats().l2.fills_refused == 0
        cache.drop_all()
        assert len(cache.get_many(keys)) == count
        assert cache.stats().loader.loads == 1


def test_isolated_readers_share_no_loaded_object(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """As with a loader of single keys."""
    cache = open_cache(isolation="copy", load_many=lambda keys: {key: [key] for key in keys})
    first = cache.get_many(["a", "b"])
    first["a"].append(1)
    assert cache.get_many(["a"]) == {"a": ["a"]}


def test_several_spellings_of_one_key_are_loaded_once(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """With ``key=``; each spelling has the value."""
    asked: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return dict.fromkeys(keys, 1)

    cache = open_cache(load_many=load_many, key=str.lower)
    assert cache.get_many(["A", "a", "b"]) == {"A": 1, "a": 1, "b": 1}
    assert asked == [["A", "b"]]


def test_view_loads_with_its_own_keys(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """And its clear reaches what was loaded."""
    asked: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return dict.fromkeys(keys, 1)

    cache = open_cache()
    view = cache.view("shop")
    assert view.get_or_load_many(["a", "b"], load_many) == {"a": 1, "b": 1}
    assert asked == [["a", "b"]]
    view.clear()
    assert view.get_many(["a", "b"]) == {}
