"""A lane record that somebody else has written into: reads go on, nothing but a CacheError is raised, and it heals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

import nearcache
from support.redis import RedisServer
from support.waiting import wait_until

LANE = "nc:{shop:0}:L"
DAMAGES: dict[str, tuple[str, ...]] = {
    "epoch": ("HSET", LANE, "e", "garbage"),
    "no epoch": ("HSET", LANE, "e", ""),
    "long epoch": ("HSET", LANE, "e", "f" * 17),
    "negative epoch": ("HSET", LANE, "e", "-1"),
    "generation": ("HSET", LANE, "g", "no number"),
    "no generation": ("HDEL", LANE, "g"),
    "long generation": ("HSET", LANE, "g", "f" * 17),
    "negative generation": ("HSET", LANE, "g", "-1"),
    "sequence": ("HSET", LANE, "s", "1e400"),
    "negative sequence": ("HSET", LANE, "s", "-5"),
    "wid": ("HSET", LANE, "w", "zz"),
    "long wid": ("HSET", LANE, "w", "f" * 17),
    "version": ("HSET", LANE, "r", "garbage"),
    "no version": ("HDEL", LANE, "r"),
    "list": ("HSET", LANE, "c", "{", "r", "2-0123456789abcdef"),
    "type": ("SET", LANE, "no hash"),
    "ends": ("HSET", LANE, "h", "a:b,c"),
}


@pytest.fixture
def escaped(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What threads of nearcache's own have ended with."""
    found: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda trouble: found.append(trouble.exc_value))
    return found


def test_damaged_record_costs_hits_and_refuses_writes_and_is_forgotten_with_it(
    redis_server: RedisServer, escaped: list[BaseException | None]
) -> None:
    """Reads give what the loader has, or nothing; errors are nearcache's own; without the record all is well again."""
    with nearcache.open(
        redis_server.url, namespace="shop", max_staleness=0.4, loader=lambda key: f"loaded {key}"
    ) as cache:
        for name, damage in DAMAGES.items():
            cache["k"] = name
            redis_server.cli(*damage)
            _read_everything(cache, name)
            writes: list[Callable[[], object]] = [
                lambda: cache.set("k", 1),
                lambda: cache.set("k", 1, tags=["red"]),
                lambda: cache.invalidate("k"),
                lambda: cache.set_many({"k": 1, "q": 2}),
                lambda: cache.delete_many(["k", "q"]),
                lambda: cache.get_and_delete("k"),
                lambda: cache.touch("k", ttl=5),
                lambda: cache.add("new", 1),
                lambda: cache.invalidate_tag("red"),
                cache.clear,
                lambda: cache.selftest(0.01),
            ]
            for write in writes:
                redis_server.cli(*damage)  # it may have been repaired: `clear` writes a generation
                with suppress(nearcache.CacheError):
                    write()
            _read_everything(cache, f"{name} again")
            redis_server.cli("DEL", LANE)
        wait_until(lambda: cache.health().ok)
        cache["k"] = "well"
        assert cache["k"] == "well"
    assert escaped == []


def _read_everything(cache: nearcache.Cache[str, object], name: str) -> None:
    """Some keys are new with each damage: a lease that was given under a generation that is none ends by time alone."""
    cache.get("k")
    assert cache["k"] is not None
    assert cache[f"missing {name}"] == f"loaded missing {name}"
    cache.get_many(["k", f"missing {name}"])
    assert cache.get_or_load(f"other {name}", lambda key: key) == f"other {name}"
    assert ("k" in cache) in (True, False)
