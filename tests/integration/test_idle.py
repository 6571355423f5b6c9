"""Idle times on Redis: a reading in any process keeps a value alive in L2, seldom, and never another value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import ConfigError, Idle
from support.redis import RedisServer
from support.threads import PATIENCE

WHOLE_MS = 90_001


class Shop:
    """Two caches on one server, and what the server says of a value's lifetime."""

    def __init__(self, server: RedisServer, caches: list[Any]) -> None:
        self.client = server.client()
        self.ours, self.theirs = caches

    def left_ms(self, key: str) -> int:
        """What the value has left in L2."""
        return int(self.client.pttl(f"nc:{{idle:0}}:v:s{key}"))

    def wear(self, key: str, left_ms: int) -> None:
        """Let time pass for a value, in L2 and as far as copies are concerned."""
        assert self.client.pexpire(f"nc:{{idle:0}}:v:s{key}", left_ms)
        assert self.ours.selftest(PATIENCE).ok  # else a message under way could keep the next reading out of memory
        assert self.theirs.selftest(PATIENCE).ok
        self.ours.drop(key)
        self.theirs.drop(key)


@pytest.fixture
def shop(redis_server: RedisServer) -> Iterator[Shop]:
    """Caches whose values live for a minute after they were last read."""
    caches = [nearcache.open(redis_server.url, namespace="idle", ttl=Idle(60)) for _ in range(2)]
    yield Shop(redis_server, caches)
    for cache in caches:
        cache.close()


READS: dict[str, Callable[[Any], Any]] = {
    "[]": lambda cache: cache["k"],
    "get": lambda cache: cache.get("k"),
    "get_or_load": lambda cache: cache.get_or_load("k", lambda _: 9),
    "get_many": lambda cache: cache.get_many(["k", "other"])["k"],
    "gets": lambda cache: cache.gets("k")[0],
    "get_and_touch": lambda cache: cache.get_and_touch("k"),
    "aio": lambda cache: asyncio.run(cache.aio.get("k")),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_gives_the_value_its_whole_lifetime_again(shop: Shop, read: Callable[[Any], Any]) -> None:
    """In whatever way, in whatever process; and the copy that is taken ends after half the idle time."""
    shop.ours["k"] = 1
    assert WHOLE_MS - 5_000 < shop.left_ms("k") <= WHOLE_MS
    assert 0 < shop.ours.remaining_ns("k") <= 31e9
    shop.wear("k", 20_000)
    assert read(shop.theirs) == 1
    assert shop.left_ms("k") > WHOLE_MS - 5_000
    assert shop.theirs.peek("k", 1) == 1


def test_reading_soon_after_another_sends_nothing_and_takes_a_shorter_copy(shop: Shop) -> None:
    """Who comes then still has the idle time before them at the end of their copy."""
    shop.ours["k"] = 1
    shop.wear("k", 80_000)
    assert shop.theirs["k"] == 1
    assert shop.left_ms("k") <= 80_000
    assert 0 < shop.theirs.remaining_ns("k") <= 21e9


def test_looking_keeps_nothing_alive(shop: Shop) -> None:
    """``in`` is no use of a value."""
    shop.ours["k"] = 1
    shop.wear("k", 20_000)
    assert "k" in shop.theirs
    assert shop.left_ms("k") <= 20_000


def test_what_others_have_written_meanwhile_keeps_its_own_lifetime(shop: Shop) -> None:
    """The script compares the write's id."""
    shop.ours.set("k", 1, ttl=5)
    script, tier = shop.ours._tier.scripts.extend, shop.ours._tier
    keys = [tier.names[0].value(b"sk"), tier.names[0].lane_key]
    assert shop.client.eval(script.source, 2, *keys, 1, "0" * 16, f"{1:016x}", 90_000) == 0
    assert shop.left_ms("k") <= 5_000
    assert shop.client.eval(script.source, 2, *keys, 1, "0" * 16, f"{shop.ours.l1_wid('k'):016x}", 1_000) == 1
    assert 1_000 < shop.left_ms("k") <= 5_000


def test_verbs_pass_the_idle_time_on(shop: Shop) -> None:
    """What incr makes of it lives by use as well; what has seconds has seconds; touch wants seconds."""
    assert shop.ours.add("n", 1)
    shop.wear("n", 20_000)
    assert shop.theirs.incr("n") == 2
    assert shop.left_ms("n") > WHOLE_MS - 5_000
    shop.wear("n", 20_000)
    assert shop.ours["n"] == 2
    assert shop.left_ms("n") > WHOLE_MS - 5_000
    shop.ours.set("n", 3, ttl=50)
    shop.wear("n", 20_000)
    assert shop.theirs["n"] == 3
    assert shop.left_ms("n") <= 20_000
    with pytest.raises(ConfigError, match="touch"):
        shop.ours.touch("n", Idle(5))


def test_suspect_whose_value_is_worn_is_read_anew(shop: Shop) -> None:
    """To look at its header would be no use of the value."""
    shop.ours["k"] = 1
    assert shop.client.pexpire("nc:{idle:0}:v:sk", 20_000)
    shop.ours.lane_suspect(0)
    assert shop.ours["k"] == 1
    assert shop.left_ms("k") > WHOLE_MS - 5_000
    shop.ours.lane_suspect(0)
    assert shop.ours.get_many(["k"]) == {"k": 1}


def test_suspect_that_its_header_finds_good_lives_on(shop: Shop) -> None:
    """What is only a little worn need not be sent again, and is used all the same."""
    shop.ours["k"] = 1
    assert shop.client.pexpire("nc:{idle:0}:v:sk", 70_000)
    shop.ours.lane_suspect(0)
    assert shop.ours["k"] == 1
    assert shop.left_ms("k") > WHOLE_MS - 5_000


def test_loaded_value_with_tags_lives_by_use_and_ends_with_its_tag(shop: Shop) -> None:
    """As any other."""
    assert shop.ours.get_or_load("k", lambda _: 1, tags=["t"]) == 1
    shop.wear("k", 20_000)
    assert shop.theirs["k"] == 1
    assert shop.left_ms("k") > WHOLE_MS - 5_000
    shop.ours.invalidate_tag("t")
    assert shop.ours.get("k") is None


def test_idle_lifetime_that_the_loader_gives_is_kept_in_redis(shop: Shop) -> None:
    """As one of the cache's own; in one load for many keys too."""
    loaded = nearcache.Loaded("v", ttl=Idle(600))
    assert shop.ours.get_or_load("k", lambda _key: loaded) == "v"
    assert shop.ours.get_or_load_many(["m"], lambda _keys: {"m": loaded}) == {"m": "v"}
    assert all(WHOLE_MS < shop.left_ms(key) <= 900_001 for key in "km")
