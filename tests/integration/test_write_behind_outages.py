"""Write-behind while a shard is out: its queue may hold what is newer than anything that the loader would give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache import Cache, ShardUnavailableError
from support.caches import Opener
from support.redis import RedisServer
from support.rows import Database, writing_behind
from support.waiting import wait_until

OUT: dict[str, Any] = {"timeout": 0.3, "max_staleness": 0.5, "write_delay": 60.0}
READS: dict[str, Callable[[Cache[Any, Any], Database], Any]] = {
    "[]": lambda cache, _: cache["k"],
    "get_or_load": lambda cache, rows: cache.get_or_load("k", rows.load),
    "max_age": lambda cache, rows: cache.get_or_load("k", rows.load, max_age=0),
    "refresh": lambda cache, rows: cache.refresh("k", rows.load),
    "many": lambda cache, rows: cache.get_or_load_many(["k"], lambda keys: {key: rows.load(key) for key in keys}),
    "task": lambda cache, rows: asyncio.run(cache.aio.get_or_load("k", rows.load)),
}


@pytest.fixture
def open_cache(redis_server: RedisServer, database: Database) -> Iterator[Opener]:
    """Open caches that write behind, and are closed at the end."""
    with writing_behind(redis_server.url, database) as opener:
        yield opener


@pytest.mark.parametrize("way", READS)
def test_outage_brings_no_old_value_back_while_the_new_one_waits(
    open_cache: Opener, database: Database, redis_server: RedisServer, way: str
) -> None:
    """Neither in the process that has changed it nor in another; and the new one is there as soon as the shard is."""
    cache, other = open_cache(**OUT), open_cache(**OUT)
    database.rows["k"] = "old"
    cache["k"] = "new"
    redis_server.pause()
    try:
        for each in (cache, other):
            each.drop_all()
            with pytest.raises(ShardUnavailableError):
                READS[way](each, database)
            assert each.get("k", "none") == "none"
    finally:
        redis_server.resume()
    wait_until(lambda: other.get("k") == cache.get("k") == "new")
    assert cache["k"] == "new"


def test_copies_that_are_vouched_for_are_served_in_an_outage(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """As ever, also for as long as ``stale_if_error`` says."""
    cache = open_cache(**OUT, stale_if_error=60)
    database.rows["k"] = "old"
    cache["k"] = "new"
    redis_server.pause()
    try:
        wait_until(lambda: not cache.health().ok)
        assert cache["k"] == "new"
    finally:
        redis_server.resume()


def test_without_a_queue_the_loader_is_asked_in_an_outage(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """What is written through is in the data when the call returns."""
    cache = open_cache(**OUT | {"write_delay": None})
    cache["k"] = "new"
    redis_server.pause()
    try:
        cache.drop_all()
        assert cache["k"] == "new"
    finally:
        redis_server.resume()


def test_full_server_has_told_what_waits_and_the_loader_is_asked(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """It refuses only to keep what is loaded."""
    cache = open_cache(**OUT)
    cache["k"] = "new"
    database.rows.update(k="old", j="row")
    redis_server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis_server.cli("CONFIG", "SET", "maxmemory", "1mb")
    cache.drop_all()
    assert (cache["j"], cache["k"]) == ("row", "new")
    assert cache.get_or_load_many(["j", "k"], lambda keys: {key: database.load(key) for key in keys}) == {
        "j": "row", "k": "new",
    }  # fmt: skip
