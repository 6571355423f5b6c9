"""Errors of loaders that are remembered, by class, for the fleet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import Cache
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


class NotFoundError(Exception):
    """Says of a key that there is nothing, with arguments of its own."""

    def __init__(self, sku: str) -> None:
        super().__init__(f"no {sku}")
        self.sku = sku
        self.lock = threading.Lock()  # cannot be stored


class GoneError(NotFoundError):
    """Below a class that is listed."""


class Source:
    """A loader that counts, and raises what it is told to."""

    def __init__(self, error: Callable[[str], Exception] | None = None) -> None:
        self.calls = 0
        self.error = error

    def __call__(self, key: str) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error(key)
        return f"{key}{self.calls}"


@pytest.mark.parametrize("options", [{}, {"isolation": "copy"}, {"codec": "json"}, {"signing_keys": b"k" * 32}])
def test_error_is_raised_by_all_and_loaded_once(
    open_cache: Callable[..., Cache[Any, Any]], options: dict[str, Any]
) -> None:
    """The same class with the same attributes; for who does not load there is no value."""
    source = Source(GoneError)
    options = {"error_ttl": {NotFoundError: 60}, "loader": source, **options}
    a, b = open_cache(**options), open_cache(**options)
    for cache in (a, b):
        for _ in range(2):
            with pytest.raises(GoneError, match="no k") as caught:
                cache["k"]
            assert (type(caught.value), caught.value.args, caught.value.sku) == (GoneError, ("no k",), "k")
        with pytest.raises(GoneError):
            cache.get_or_load("k")
        assert cache.get("k", 7) == 7
        assert "k" not in cache
        assert cache.get_many(["k"]) == {}
        assert cache.peek("k", 7) == 7
        assert list(cache) == []
    assert source.calls == 1
    assert a.stats().loader.errors == 1


def test_l1_remembers_without_asking_l2(open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer) -> None:
    """Until it hears that something happened to the key."""
    source = Source(NotFoundError)
    cache, other = (open_cache(error_ttl={NotFoundError: 60}, loader=source) for _ in range(2))
    with pytest.raises(NotFoundError):
        cache["k"]
    before = cache.stats().l2
    for _ in range(3):
        with pytest.raises(NotFoundError):
            cache["k"]
    assert cache.stats().l2 == before
    source.error = None
    other.invalidate("k")
    wait_until(lambda: _loads(cache) == "k2")
    other["k"] = "set"
    wait_until(lambda: cache.get("k") == "set")
    assert cache["k"] == "set"


def _loads(cache: Cache[Any, Any]) -> Any:
    try:
        return cache["k"]
    except NotFoundError:
        return None


def test_write_replaces_a_remembered_error(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """By every verb: to all of them there is no value."""
    source = Source(NotFoundError)
    cache = open_cache(error_ttl={NotFoundError: 60}, loader=source)
    for write in (
        lambda: cache.set("k", 1),
        lambda: cache.setdefault("k", 1),
        lambda: cache.add("k", 1),
        lambda: cache.incr("k", 1),
    ):
        with pytest.raises(NotFoundError):
            cache["k"]
        assert not cache.touch("k", 10)
        assert not cache.replace("k", 5)
        write()
        assert cache["k"] == 1
        cache.invalidate("k")


def test_error_has_its_own_lifetime_and_ends_with_it(
    open_cache: Callable[..., Cache[Any, Any]], redis_server: RedisServer
) -> None:
    """By the nearest class that is listed."""
    source = Source(GoneError)
    cache = open_cache(error_ttl={NotFoundError: 3000, GoneError: 0.05}, loader=source)
    with pytest.raises(GoneError):
        cache["k"]
    source.error = None
    wait_until(lambda: _loads(cache) == "k2")
    source.error = NotFoundError
    with pytest.raises(NotFoundError):
        cache["j"]
    assert 2_900_000 < redis_server.cli("PTTL", "nc:{default:0}:v:sj") <= 3_000_000


def test_error_that_is_not_listed_or_cannot_be_stored_is_not_remembered(
    open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The second is said once."""
    source = Source(lambda key: OSError(key))
    cache = open_cache(error_ttl={NotFoundError: 60, ValueError: 60}, loader=source)
    for _ in range(2):
        with pytest.raises(OSError, match="k"):
            cache["k"]
    source.error = lambda key: ValueError(key, object())
    for _ in range(2):
        with pytest.raises(ValueError, match="k"):
            cache["k"]
    assert source.calls == 4
    assert len([each for each in caplog.records if "cannot be remembered" in each.message]) == 1


def test_old_value_outlives_an_error(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A refresh that fails takes nothing away."""
    source = Source()
    cache = open_cache(error_ttl={NotFoundError: 60}, loader=source)
    assert cache["k"] == "k1"
    source.error = NotFoundError
    with pytest.raises(NotFoundError):
        cache.refresh("k")
    assert cache["k"] == "k1"


def test_who_was_not_told_of_the_class_loads(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A process of an older deployment: what it cannot read is a miss."""
    source = Source(NotFoundError)
    a, b = open_cache(error_ttl={NotFoundError: 60}, loader=source), open_cache(loader=source)
    c = open_cache(error_ttl={ZeroDivisionError: 60}, loader=source)
    with pytest.raises(NotFoundError):
        a["k"]
    assert (b.get("k"), c.get("k")) == (None, None)
    source.error = None
    assert b["k"] == "k2"
    wait_until(lambda: a.get("k") == "k2")


def test_key_errors_mean_absence_unless_they_are_listed(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The nearest class decides."""

    class NoSuchThing(KeyError):
        """Says more than KeyError."""

    source = Source(NoSuchThing)
    plain = open_cache(error_ttl={LookupError: 60}, negative_ttl=60, loader=source, namespace="a")
    listed = open_cache(error_ttl={NoSuchThing: 60}, negative_ttl=60, loader=source, namespace="b")
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            plain["k"]
        assert type(caught.value) is KeyError
        with pytest.raises(NoSuchThing):
            listed["k"]
    assert source.calls == 2


def test_tags_invalidate_remembered_errors(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """As they do values."""
    source = Source(NotFoundError)
    cache = open_cache(error_ttl={NotFoundError: 60}, loader=source, tags=["shop"])
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cache["k"]
    assert source.calls == 1
    cache.invalidate_tag("shop")
    source.error = None
    assert cache["k"] == "k2"


def test_error_whose_class_shares_its_name_with_another_is_not_remembered(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """By its name alone nobody could tell which of the two to raise."""

    def namesake() -> type[NotFoundError]:
        class Same(NotFoundError):
            pass

        return Same

    error, _other = namesake(), namesake()
    source = Source(error)
    cache = open_cache(error_ttl={NotFoundError: 60}, loader=source)
    for _ in range(2):
        with pytest.raises(error):
            cache["k"]
    assert source.calls == 2


def test_listener_hears_of_no_remembered_error(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It is told of values."""
    told: list[Any] = []
    source = Source(NotFoundError)
    cache = open_cache(error_ttl={NotFoundError: 60}, loader=source, on_removal=lambda *what: told.append(what))
    with pytest.raises(NotFoundError):
        cache["k"]
    cache["k"] = 1
    cache["k"] = 2
    assert told == [("k", 1, "replaced")]


def test_tasks_raise_what_was_remembered(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """By coroutine functions as by threads."""
    calls: list[str] = []

    async def loader(key: str) -> str:
        calls.append(key)
        raise NotFoundError(key)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(NotFoundError, match="no k"):
                await cache.aio.get_or_load("k", loader)
        assert await cache.aio.get("k", 7) == 7
        await cache.aio.close()

    cache = open_cache(error_ttl={NotFoundError: 60})
    asyncio.run(main())
    assert calls == ["k"]
