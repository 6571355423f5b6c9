"""Absence that is kept, in ``memory://``: KeyError without asking the loader again, for its own time."""

from __future__ import annotations

import asyncio
import pickle
import time
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT
from nearcache.absence import Failure, raise_absent


class Source:
    """A loader that has nothing until it is told to."""

    def __init__(self, how: str = "raise") -> None:
        self.calls = 0
        self.how = how
        self.values: dict[str, int] = {}

    def __call__(self, key: str) -> Any:
        self.calls += 1
        return self.values[key] if self.how == "raise" else self.values.get(key, ABSENT)


@pytest.mark.parametrize("how", ["raise", "return"])
def test_absence_is_kept_and_read_as_a_miss(how: str) -> None:
    """By every way of reading; what is stored ends it at once."""
    source = Source(how)
    cache = nearcache.open("memory://", negative_ttl=60, loader=source)
    for _ in range(3):
        with pytest.raises(KeyError, match="'k'"):
            cache["k"]
        with pytest.raises(KeyError, match="'k'"):
            cache.get_or_load("k")
    assert cache.get("k", 7) == 7
    assert cache.get_many(["k"]) == {}
    assert "k" not in cache
    assert len(cache) == 0
    assert source.calls == 1
    cache["k"] = 5
    assert cache["k"] == 5
    del cache["k"]
    source.values["k"] = 6
    assert cache["k"] == 6


def test_remembered_error_has_the_frames_of_one_who_raises_it() -> None:
    """In the process whose loader raised it, it is one object for all who waited."""
    failure = Failure(lambda: ValueError("anew"), ValueError("of the loader"))
    depths = []
    for _ in range(3):
        with pytest.raises(ValueError, match="of the loader") as caught:
            raise_absent("k", failure)
        depths.append(len(caught.traceback))
    assert depths == [2, 2, 2]


def test_absence_ends_with_its_own_time_or_an_invalidation() -> None:
    """And the loader is asked again."""
    source = Source()
    cache = nearcache.open("memory://", ttl=1000, negative_ttl=0.01, loader=source)
    with pytest.raises(KeyError):
        cache["k"]
    source.values["k"] = 1
    deadline = time.monotonic() + 20
    while cache.get("k") is None and time.monotonic() < deadline:
        try:
            assert cache["k"] == 1
        except KeyError:
            continue
    assert cache["k"] == 1
    cache = nearcache.open("memory://", negative_ttl=60, loader=source)
    with pytest.raises(KeyError):
        cache["other"]
    source.values["other"] = 2
    cache.invalidate("other")
    assert cache["other"] == 2


@pytest.mark.parametrize("how", ["raise", "return"])
def test_absence_without_the_option_is_an_error_each_time(how: str) -> None:
    """Nothing is kept."""
    source = Source(how)
    cache = nearcache.open("memory://", loader=source)
    for _ in range(2):
        with pytest.raises(KeyError):
            cache["k"]
    assert source.calls == 2


def test_tasks_meet_absence_as_threads_do() -> None:
    """KeyError, one call."""
    source = Source()
    cache = nearcache.open("memory://", negative_ttl=60, loader=source)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(KeyError):
                await cache.aio.get_or_load("k")
        assert await cache.aio.get("k", 3) == 3

    asyncio.run(main())
    assert source.calls == 1


def test_none_is_a_value() -> None:
    """A loader that returns None has one."""
    cache = nearcache.open("memory://", negative_ttl=60, loader=lambda _: None)
    assert cache["k"] is None
    assert "k" in cache


def test_cached_functions_errors_are_their_own() -> None:
    """A KeyError of a decorated function is raised unchanged, and not kept."""
    cache = nearcache.open("memory://", negative_ttl=60)
    calls: list[int] = []

    @cache.cached
    def price(number: int) -> int:
        calls.append(number)
        return {1: 10}[number]

    for _ in range(2):
        with pytest.raises(KeyError, match=r"^2$"):
            price(2)
    assert price(1) == 10
    assert calls == [2, 2, 1]


def test_absent_is_one_object() -> None:
    """Also when it was pickled."""
    assert pickle.loads(pickle.dumps(ABSENT)) is ABSENT
    assert repr(ABSENT) == "nearcache.ABSENT"


@pytest.mark.parametrize("options", [{}, {"stale_if_error": 60, "ttl": 60}, {"error_ttl": {ValueError: 60}}])
def test_remembered_absence_is_nothing_that_could_be_removed(options: dict[str, Any]) -> None:
    """It goes; but there was no value, as ``in`` says too."""

    def fail(key: str) -> Any:
        raise (ValueError if "error_ttl" in options else KeyError)(key)

    cache = nearcache.open("memory://", negative_ttl=60, loader=fail, **options)
    for remove in (cache.invalidate, cache.drop, lambda key: asyncio.run(cache.aio.invalidate(key))):
        with pytest.raises((KeyError, ValueError)):
            cache["k"]
        assert remove("k") is False
    with pytest.raises((KeyError, ValueError)):
        cache["k"]
    with pytest.raises(KeyError, match="'k'"):
        del cache["k"]
    assert cache.get_or_load("k", lambda _: 1) == 1
    assert cache.invalidate("k") is True
