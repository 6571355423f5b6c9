"""Time spans given as ``timedelta``: wherever seconds are, and as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ConfigError
from nearcache.options import parse

REDIS = "redis://a"
SPAN = timedelta(seconds=1.5)


@pytest.mark.parametrize(
    "option",
    ["ttl", "l1_ttl", "jitter", "soft_ttl", "negative_ttl", "loader_timeout", "max_staleness", "timeout",
     "connect_timeout", "lease", "stale_if_error"],
)  # fmt: skip
def test_option_in_seconds_may_be_a_timedelta(option: str) -> None:
    """And is the number of seconds afterwards."""
    assert getattr(parse(REDIS, **{option: SPAN}), option) == 1.5


def test_spans_of_remembered_errors_and_of_write_delay_may_be_timedeltas() -> None:
    """Those that stand in a dict, and those that need another option."""
    assert parse(REDIS, error_ttl={OSError: SPAN}).error_ttl == {OSError: 1.5}
    assert parse(REDIS, writer=print, write_delay=SPAN).write_delay == 1.5


WAITS: dict[str, Callable[[Cache[Any, Any], Any], object]] = {
    "wait_for": lambda cache, timeout: cache.wait_for(cache.token(), timeout),
    "wait_for of aio": lambda cache, timeout: asyncio.run(cache.aio.wait_for(cache.token(), timeout)),
    "selftest": lambda cache, timeout: cache.selftest(timeout),
    "flush": lambda cache, timeout: cache.flush(timeout),
    "flush of a subscription": lambda cache, timeout: cache.listen(print).flush(timeout),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_time_that_a_call_may_wait_is_a_number_or_a_timedelta(wait: Callable[[Cache[Any, Any], Any], object]) -> None:
    """Whether there is anything to wait for or not; what is out of range is said, as of an option."""
    with nearcache.open("memory://") as cache:
        for right in (0, 1.5, SPAN):
            wait(cache, right)
        for wrong in (float("inf"), float("nan"), -1, timedelta(days=60), "soon", True):
            with pytest.raises(ConfigError, match="timeout="):
                wait(cache, wrong)


@pytest.mark.parametrize("option", ["maxsize", "beta", "sample_rate", "max_value"])
def test_what_is_no_time_is_no_timedelta(option: str) -> None:
    """A number is not taken for seconds."""
    with pytest.raises(ConfigError, match=option):
        parse(REDIS, **{option: SPAN})


@pytest.mark.parametrize("option", ["jitter", "soft_ttl"])
def test_timedelta_is_never_taken_for_a_fraction(option: str) -> None:
    """Below a second it would be read as one."""
    with pytest.raises(ConfigError, match="fraction"):
        parse(REDIS, **{option: timedelta(milliseconds=500)})
    assert getattr(parse(REDIS, **{option: 0.5}), option) == 0.5


@pytest.mark.parametrize("span", [timedelta(0), timedelta(days=-1), timedelta(days=60)])
def test_timedelta_out_of_range_is_refused(span: timedelta) -> None:
    """As the number would be."""
    with pytest.raises(ConfigError, match="ttl="):
        parse(REDIS, ttl=span)
    with nearcache.open("memory://") as cache, pytest.raises(ConfigError, match="ttl="):
        cache.set("key", 1, ttl=span)


def lifetimes() -> list[Any]:
    """All kinds of a minute."""
    minute = timedelta(minutes=1)
    return [minute, lambda _key, _value: minute, nearcache.Idle(minute)]


@pytest.mark.parametrize("ttl", lifetimes())
def test_single_calls_take_timedeltas(ttl: Any) -> None:
    """As lifetime of one value, and as what a function says of it."""
    with nearcache.open("memory://", ttl=nearcache.Idle(1)) as cache:
        cache.set("key", 1, ttl=ttl)
        assert 20e9 < cache.remaining_ns("key") <= 61e9


def test_ages_holds_and_loaded_values_take_timedeltas() -> None:
    """``max_age`` counts as the number does; a hold lasts; a loader may say how long."""
    loaded = nearcache.Loaded(2, ttl=timedelta(minutes=1))
    with nearcache.open("memory://", ages=True, loader=lambda _: loaded) as cache:
        cache["key"] = 1
        assert cache.get("key", max_age=timedelta(minutes=1)) == 1
        assert cache.get_or_load("key", max_age=timedelta(0)) == 2
        assert 50e9 < cache.remaining_ns("key") <= 61e9
        with cache.hold(["key"], timedelta(minutes=1), linger=timedelta(0)):
            assert "key" not in cache
        with pytest.raises(ValueError, match="seconds"), cache.hold(["key"], timedelta(0)):
            pass


def test_ttl_cache_takes_a_timedelta() -> None:
    """Of no length: nothing is kept, as with 0."""
    for ttl, hits in ((timedelta(minutes=1), 1), (timedelta(0), 0)):
        remembered = nearcache.ttl_cache(ttl=ttl)(str)
        assert remembered(1) == remembered(1) == "1"
        assert remembered.cache_info().hits == hits


def test_lifetime_that_is_too_long_is_told_the_longest_in_days() -> None:
    """Nobody reads an exponent."""
    with pytest.raises(ConfigError, match=r"from 0\.001 to 4294967 \(49\.7 days\), or None for no expiry"):
        parse("redis://a", ttl=90 * 86_400)
