"""Changes that look at what is there first, while nobody can say what is there: pop and setdefault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache, ShardUnavailableError
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until

TIMEOUT = 0.4

#: How a cache, a view of it and their asynchronous sides are called: function of the cache, method and arguments.
SIDES: dict[str, Callable[..., Any]] = {
    "cache": lambda cache, method, *rest: getattr(cache, method)(*rest),
    "view": lambda cache, method, *rest: getattr(cache.view("v"), method)(*rest),
    "aio": lambda cache, method, *rest: asyncio.run(getattr(cache.aio, method)(*rest)),
    "aio view": lambda cache, method, *rest: asyncio.run(getattr(cache.aio.view("v"), method)(*rest)),
}
each_side = pytest.mark.parametrize("side", SIDES)


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on one shard that are closed at the end."""
    with opening(redis_server.url, max_staleness=0.4, timeout=TIMEOUT) as opener:
        yield opener


def _filled(open_cache: Callable[..., Cache[Any, Any]], server: RedisServer, side: str, **options: Any) -> Any:
    """Open a cache whose L1 is empty, with a value in Redis that outlives a kill; return it and how it is called."""
    cache = open_cache(**options)
    call = SIDES[side]
    call(cache, "set", "k", "old")
    cache.drop_all()
    server.save()
    server.kill()
    return cache, lambda method, *rest: call(cache, method, *rest)


def _recovered(cache: Cache[Any, Any]) -> bool:
    return cache.health().ok and not cache.stats().coherence.owed


@each_side
@pytest.mark.parametrize("default", [(), (None,)], ids=["none", "default"])
def test_pop_of_a_shard_that_is_out_raises_and_is_made_up_for(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], side: str, default: tuple[Any, ...]
) -> None:
    """As any removal. It must not look like success, for the value is there again when the shard is."""
    cache, call = _filled(open_cache, redis_server, side)
    with pytest.raises(ShardUnavailableError):
        call("pop", "k", *default)
    redis_server.start()
    wait_until(lambda: _recovered(cache))
    assert call("get", "k") is None


@each_side
def test_pop_of_what_is_owed_already_raises_as_the_first_did(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], side: str
) -> None:
    """Trying again is no success either."""
    _, call = _filled(open_cache, redis_server, side)
    for _ in range(2):
        with pytest.raises(ShardUnavailableError):
            call("pop", "k", None)
    with pytest.raises(ShardUnavailableError):
        call("set", "m", 1)
    with pytest.raises(ShardUnavailableError):
        call("pop", "m")


@each_side
def test_pop_of_what_l2_has_not_reaches_those_who_hold_or_load_it(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], side: str
) -> None:
    """As ``del`` does: a copy of a value that L2 has given up goes, and what was loaded before is not kept."""
    cache, other = open_cache(), open_cache()
    call = SIDES[side]
    key: Any = "k" if "view" not in side else ("v", "k")
    other[key] = 1
    (stored,) = redis_server.cli("KEYS", "nc:*:v:*")
    redis_server.cli("UNLINK", stored)
    assert other.peek(key) == 1
    assert call(cache, "pop", "k", None) is None
    wait_until(lambda: other.peek(key) is None)

    def load(_key: Any) -> str:
        assert call(cache, "pop", "k", None) is None
        return "old"

    assert other.get_or_load(key, load) == "old"
    assert (other.get(key), cache.get(key)) == (None, None)


@each_side
def test_pop_that_is_queued_counts_as_absent_and_says_why(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], side: str
) -> None:
    """The default, or a KeyError with the reason; and what was there goes when the shard is back."""
    cache, call = _filled(open_cache, redis_server, side, on_error="queue")
    with pytest.raises(KeyError, match=r"^'k'$") as caught:
        call("pop", "k")
    assert isinstance(caught.value.__cause__, ShardUnavailableError)
    assert call("pop", "k", 5) == 5
    redis_server.start()
    wait_until(lambda: _recovered(cache))
    assert call("get", "k") is None


def test_get_and_delete_of_a_value_whose_removal_is_owed_returns_nothing(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """It is gone already for this process, though the shard that is back has it still."""
    cache: Any = open_cache()
    cache["k"] = 1
    lane, encoded = cache._tier.place("k")
    cache._tier.owe(lane, [encoded])
    assert cache.get_and_delete("k") is None


@pytest.mark.parametrize("isolation", ["shared", "copy"])
def test_pop_and_setdefault_return_what_is_there(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], isolation: str
) -> None:
    """From L2 as well as from L1, in whatever form L1 holds it."""
    cache = open_cache(isolation=isolation)
    for drops in (False, True):
        cache.set_many({"a": [1], "b": [2]})
        if drops:
            cache.drop_all()
        assert cache.setdefault("a", [9]) == [1]
        assert cache.setdefault("c", [3]) == [3]
        assert [cache.pop(key) for key in "abc"] == [[1], [2], [3]]
        assert cache.pop("a", 0) == 0
        assert not redis_server.cli("EXISTS", *(f"nc:{{default:0}}:v:s{key}" for key in "abc"))


@each_side
@pytest.mark.parametrize("method", ["pop", "setdefault"])
def test_call_that_reads_and_changes_has_one_deadline(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], side: str, method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Who waits for a paused server waits once: what the first step has used up the second has no more."""
    cache: Any = open_cache()
    SIDES[side](cache, "get", "k")
    driver = cache.aio._runner._driver if side.startswith("aio") else cache._driver
    execute, given = driver.execute, []

    def noting(exchanges: Any, *, timeout_s: float, **more: Any) -> Any:
        given.append(timeout_s)
        return execute(exchanges, timeout_s=timeout_s, **more)

    monkeypatch.setattr(driver, "execute", noting)
    redis_server.pause()
    with pytest.raises(ShardUnavailableError):
        SIDES[side](cache, method, "k")
    redis_server.resume()
    assert len(given) > 1
    assert given[1:] == pytest.approx([0.0] * (len(given) - 1), abs=TIMEOUT / 4)


READS: dict[str, Callable[[Any], Any]] = {
    "item": lambda cache: cache["k"],
    "view item": lambda cache: cache.view("v")["k"],
    "load": lambda cache: cache.get_or_load("k"),
    "view load": lambda cache: cache.view("v").get_or_load("k"),
    "young": lambda cache: cache.get_or_load("k", max_age=60),
    "view young": lambda cache: cache.view("v").get_or_load("k", max_age=60),
    "aio load": lambda cache: asyncio.run(cache.aio.get_or_load("k")),
    "aio young": lambda cache: asyncio.run(cache.aio.get_or_load("k", max_age=60)),
}


#: asyncio has no ``isolation="copy"``.
KINDS = [
    (name, isolation)
    for name in READS
    for isolation in ("shared", "copy")
    if isolation == "shared" or "aio" not in name
]


@pytest.mark.parametrize(("name", "isolation"), KINDS)
def test_key_error_has_the_key_that_was_asked_for_and_the_reason(
    redis_server: RedisServer, open_cache: Callable[..., Cache[Any, Any]], name: str, isolation: str
) -> None:
    """Users of a view know nothing of what the cache calls their keys. Where there is a value, it is returned."""
    read = READS[name]
    cache = open_cache(isolation=isolation)
    for mapping in (cache, cache.view("v")):
        mapping["k"] = [1]
    cache.drop_all()
    assert read(cache) == [1]
    with pytest.raises(KeyError) as missed:
        cache.view("v").get_or_load("none", max_age=60)
    assert (missed.value.args, missed.value.__cause__) == (("none",), None)
    redis_server.kill()
    wait_until(lambda: not cache.health().ok)
    cache.drop_all()
    with pytest.raises(KeyError, match=r"^'k'$") as caught:
        read(cache)
    assert isinstance(caught.value.__cause__, ShardUnavailableError)
