"""Reads that ask for a greatest age, and loaders that find a value unchanged, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import UNCHANGED, Cache, ConfigError, Loaded, Old, conditional
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")
NAME = "nc:{default:0}:v:sk"


class Source:
    """A loader that counts its versions, and knows them again."""

    def __init__(self) -> None:
        self.version = 1
        self.shown: list[Old | None] = []

    def __call__(self, key: str) -> str:
        self.version += 1
        return f"{key}{self.version}"

    def since(self, key: str, old: Old | None) -> Any:
        """A conditional loader."""
        self.shown.append(old)
        etag = f"v{self.version}"
        if old is not None and old.validator == etag:
            return UNCHANGED
        return Loaded(f"{key}{self.version}", ttl=100, validator=etag)


def grow(server: RedisServer, seconds: int, name: str = NAME) -> None:
    """Let a value be older by so many seconds: in L2 that much of its lifetime has passed."""
    server.cli("PEXPIRE", name, int(server.cli("PTTL", name)) - seconds * 1000)


# -- max_age


def test_older_value_is_loaded_anew_for_who_asks(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """Others go on with it until they hear of the new one."""
    cache, other = open_cache(ttl=1000, loader=Source()), open_cache(ttl=1000)
    cache["k"] = "old"
    grow(redis_server, 100)
    assert other.get("k", max_age=200) == "old"
    assert other.get("k", max_age=50) is None
    assert other.get("k") == "old"
    assert other.get_many(["k", "j"], max_age=50) == {}
    assert other.get_many(["k", "j"], max_age=200) == {"k": "old"}
    assert cache.get_or_load("k", max_age=200) == "old"
    assert cache.get_or_load("k", max_age=50) == "k2"
    assert cache.get_or_load("k", max_age=50) == "k2"
    wait_until(lambda: other.get("k") == "k2")
    assert other.get("k", max_age=50) == "k2"


def test_l1_answers_when_it_knows_the_age(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """The first read looks at L2; from then on the age is known, and a plain hit costs what it did."""
    cache = open_cache(ttl=1000)
    cache["k"] = "v"
    assert cache.selftest().ok  # or the message about it would come while the age is read
    assert cache.get("k", max_age=300) == "v"
    before = cache.stats().l2
    for _ in range(3):
        assert cache.get("k", max_age=300) == "v"
        assert cache.get_or_load("k", max_age=300) == "v"
        assert cache.get_many(["k"], max_age=300) == {"k": "v"}
    assert cache.stats().l2 == before
    assert cache.get("k", max_age=0) is None
    assert cache.stats().l2 != before
    cache["k"] = "new"
    assert cache.get("k", max_age=300) == "new"


def test_age_that_l1_knows_is_forgotten_when_the_machine_has_slept(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """The clock by which it was known stood still meanwhile; Redis' did not."""
    cache = open_cache(ttl=1000, max_staleness=0.2)
    cache["k"] = "v"
    assert cache.get("k", max_age=50) == "v"
    grow(redis_server, 100)
    assert cache.get("k", max_age=50) == "v"  # nobody has told that its lifetime was changed
    stamp = cache.lane_stamp(0)
    cache._listener._slept = lambda: 100_000_000_000
    wait_until(lambda: cache.lane_stamp(0) > stamp)
    wait_until(lambda: cache.get("k") == cache.l1_hit("k", None) == "v")  # L1 has found that it is still the same
    assert cache.get("k", max_age=50) is None
    assert cache.get("k", max_age=200) == "v"


def test_nothing_is_younger_than_the_question(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """max_age=0 is answered by the loader, also for a value that was stored in the same millisecond."""
    writer, reader = open_cache(ttl=1000), open_cache(ttl=1000)
    for number in range(50):
        writer[number] = "held"
        assert reader.get_or_load(number, lambda _: "loaded", max_age=0) == "loaded"
        assert reader.get(number, max_age=0) is None


@pytest.mark.parametrize("options", [{}, {"signing_keys": b"k" * 32}])
def test_touched_value_is_of_no_known_age(open_cache: Callable[..., Cache[Any, Any]], options: dict[str, Any]) -> None:
    """A longer life is no younger age. It stays readable, signed as well."""
    cache, other = open_cache(ttl=60, **options), open_cache(ttl=60, **options)
    cache["k"] = "v"
    assert cache.get("k", max_age=30) == "v"
    assert cache.touch("k", 600)
    assert other.get("k") == "v"
    assert other.get("k", max_age=30) is None
    assert other.get("k", max_age=3000) is None
    assert other.refresh("k", str.upper) == "K"
    assert other.get("k", max_age=30) == "K"


def test_bulk_load_renews_what_is_too_old(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """And leaves the rest; one call."""
    asked: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return dict.fromkeys(keys, "new")

    cache = open_cache(ttl=1000, load_many=load_many)
    cache.set_many({"k": "old", "j": "old"})
    grow(redis_server, 100)
    assert cache.get_many(["k", "j", "i"], max_age=50) == {"k": "new", "j": "old", "i": "new"}
    assert asked == [["k", "i"]]
    assert cache.get_many(["k", "j", "i"], max_age=50) == {"k": "new", "j": "old", "i": "new"}
    assert len(asked) == 1


def test_tasks_ask_for_ages_too(open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer) -> None:
    """Every method that takes it."""
    asked: list[Any] = []

    async def loader(key: str) -> str:
        asked.append(key)
        return "new"

    async def load_many(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        return dict.fromkeys(keys, "newer")

    async def main() -> None:
        c = cache.aio
        assert await c.get("k", max_age=200) == "old"
        assert await c.get("k", 7, max_age=50) == 7
        assert await c.get_many(["k"], max_age=50) == {}
        assert await c.get_or_load("k", loader, max_age=50) == "new"
        assert await c.get_or_load("k", loader, max_age=50) == "new"
        assert await c.get_or_load_many(["k", "j"], load_many, max_age=50) == {"k": "new", "j": "newer"}
        assert await c.get_or_load_many(["k"], load_many, max_age=0) == {"k": "newer"}
        await c.close()

    cache = open_cache(ttl=1000)
    cache["k"] = "old"
    grow(redis_server, 100)
    asyncio.run(main())
    assert asked == ["k", ["j"], ["k"]]


def test_age_that_makes_no_sense_is_refused(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """At the door."""
    cache = open_cache()
    for wrong in (-1, float("nan"), "5", True):
        with pytest.raises(ConfigError, match="max_age"):
            cache.get("k", max_age=wrong)


def test_dead_shard_has_nothing_of_a_known_age(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """The loader is asked, and what it brings is kept nowhere."""
    cache = open_cache(ttl=1000, loader=Source(), stale_if_error=60)
    cache["k"] = "v"
    redis_server.kill()
    assert cache.get("k", max_age=50) is None
    assert cache.get_or_load("k", max_age=50) == "k2"


# -- unchanged


@pytest.mark.parametrize("options", [{}, {"isolation": "copy"}, {"signing_keys": b"k" * 32}, {"tags": ["t"]}])
def test_unchanged_value_lives_once_more_and_does_not_travel(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer, options: dict[str, Any]
) -> None:
    """The loader is shown value and validator; L2 extends the lifetime, and copies elsewhere stay."""
    source = Source()
    load = conditional(source.since)
    cache, other = open_cache(loader=load, **options), open_cache(loader=load, **options)
    assert cache["k"] == other["k"] == "k1"
    assert source.shown == [None]
    envelope = redis_server.cli("GET", NAME)
    grow(redis_server, 60)
    written = cache.stats().l2.bytes_written
    assert cache.refresh("k") == "k1"
    assert source.shown[1] == Old("k1", "v1")
    assert redis_server.cli("GET", NAME) == envelope
    assert redis_server.cli("PTTL", NAME) > 90_000
    assert cache.remaining_ns("k") > 90e9
    assert cache.stats().l2.bytes_written == written
    assert cache.stats().loader.unchanged == 1
    assert other.peek("k") == "k1"
    assert cache.get("k", max_age=50) == "k1"  # found right just now
    source.version = 2
    assert other.refresh("k") == "k2"
    wait_until(lambda: cache.get("k") == "k2")


def test_value_that_changed_during_the_load_is_not_extended(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """What the loader found unchanged was another one."""
    cache, other = open_cache(ttl=100), open_cache(ttl=100)
    cache["k"] = "old"

    @conditional
    def load(key: str, old: Old | None) -> Any:
        if old is None:
            return "loaded"
        other.set("k", "newer", ttl=50)
        return UNCHANGED

    assert cache.refresh("k", load) == "old"
    assert redis_server.cli("PTTL", NAME) <= 50_000
    wait_until(lambda: cache.get("k") == "newer")
    assert cache.stats().l2.fills_refused == 1
    other.invalidate("k")
    wait_until(lambda: cache.get("k") is None)
    assert cache.get_or_load("k", load) == "loaded"


def test_who_waits_for_an_unchanged_value_reads_it(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """In other processes: the message about the lease's end wakes them."""
    import threading

    cache, other = open_cache(ttl=100, lease=30.0), open_cache(ttl=100, lease=30.0)
    cache["k"] = "v"
    mark = NAME.replace(":v:", ":l:")
    found: list[Any] = []

    @conditional
    def load(key: str, old: Old | None) -> Any:
        waiting.start()
        wait_until(lambda: redis_server.cli("GET", mark)[:1] == b"W", 20.0)
        return UNCHANGED

    waiting = threading.Thread(target=lambda: found.append(other.refresh("k", lambda _: "other")))
    assert cache.refresh("k", load) == "v"
    waiting.join(20.0)
    assert found == ["v"]


def test_answer_without_a_question_is_an_error(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """UNCHANGED where there is no old value, or by a loader that asked for none."""
    cache = open_cache()
    with pytest.raises(TypeError, match="UNCHANGED"):
        cache.get_or_load("k", lambda _: UNCHANGED)
    with pytest.raises(TypeError, match="UNCHANGED"):
        cache.get_or_load("k", conditional(lambda _key, _old: UNCHANGED))
    assert cache.get("k") is None


def test_tasks_find_values_unchanged(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A coroutine function stays one."""
    shown: list[Old | None] = []

    @conditional
    async def load(key: str, old: Old | None) -> Any:
        shown.append(old)
        return Loaded("v", validator="1") if old is None else UNCHANGED

    async def main() -> None:
        assert await cache.aio.get_or_load("k", load) == "v"
        assert await cache.aio.refresh("k", load) == "v"
        await cache.aio.close()

    cache = open_cache()
    asyncio.run(main())
    assert shown == [None, Old("v", "1")]


def test_old_value_is_renewed_in_the_background_if_it_is_unchanged(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """It is new again from then on."""
    source = Source()
    cache = open_cache(loader=conditional(source.since), soft_ttl=0.5)
    assert cache["k"] == "k1"
    grow(redis_server, 60)
    cache.drop_all()
    assert cache["k"] == "k1"
    wait_until(lambda: cache.stats().loader.unchanged == 1)
    wait_until(lambda: redis_server.cli("PTTL", NAME) > 90_000)
    cache.drop_all()
    assert cache["k"] == "k1"
    assert len(source.shown) == 2
