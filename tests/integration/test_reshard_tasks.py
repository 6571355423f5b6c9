"""What is under way, or holds a view of the cache from before, goes on when the list of shards has changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nearcache
from support.redis import RedisServer
from support.resharding import KEYS, Servers, change, lanes_live
from support.threads import PATIENCE
from support.waiting import wait_until


def test_reshard_tasks_that_load_many_or_young_values_go_by_the_new_list(
    two_shards: tuple[RedisServer, RedisServer],
) -> None:
    """What they load is kept where everybody looks, and found there by the next."""
    one, both = (",".join(server.path for server in two_shards[:count]) for count in (1, 2))
    loads: list[Any] = []

    def load_many(keys: list[Any]) -> dict[Any, Any]:
        loads.append(keys)
        return dict.fromkeys(keys, 1)

    with nearcache.open(f"unix://{one}", shard_names=["a"], max_staleness=0.6) as cache:

        async def read() -> list[Any]:
            many = [await cache.aio.get_or_load_many(KEYS, load_many) for _ in range(2)]
            cache.drop_all()
            many.append(await cache.aio.get_or_load_many(KEYS, load_many, max_age=60))
            return [*many, await cache.aio.get_or_load("young", lambda key: loads.append(key) or 2, max_age=60)]

        assert cache.aio  # from before the change
        cache.reshard(f"unix://{both}", shard_names=["a", "b"], pause=0.0)
        wait_until(lambda: cache.health().ok, what="every lane vouched for")
        assert asyncio.run(read()) == [dict.fromkeys(KEYS, 1)] * 3 + [2]
        assert loads == [KEYS, "young"]
        assert cache.get("young") == 2
        assert cache.get_many(KEYS) == dict.fromkeys(KEYS, 1)
        assert cache.stats().l2.errors == 0


@pytest.mark.parametrize("way", ["thread", "task"])
def test_read_that_is_about_to_connect_while_its_shard_goes_and_comes_back_is_no_error(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The number of its lane is given to the shard anew; only a cache that was closed says that it was."""
    cache = open_at("ab", timeout=PATIENCE)
    lanes_live(cache)
    key = next(key for key in KEYS if cache._tier.place(key)[0] == 1)
    cache[key] = 1
    cache.drop_all()
    connecting, changed, goes_on = (threading.Event() for _ in range(3))
    shard = cache._driver.shard(1)
    real = shard.connect

    def connect(deadline_ns: int, **options: Any) -> Any:
        if not connecting.is_set():
            connecting.set()
            assert goes_on.wait(PATIENCE)
        return real(deadline_ns, **options)

    async def read() -> Any:
        waiting = asyncio.ensure_future(cache.aio.get(key))
        await asyncio.to_thread(changed.wait, PATIENCE)
        await cache.aio.get(key)  # of the shard that has the number now
        goes_on.set()
        return await waiting

    shard.demoted()
    monkeypatch.setattr(shard, "connect", connect)
    monkeypatch.setattr(shard.pool, "_connect", connect)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(cache.get, key) if way == "thread" else threads.submit(asyncio.run, read())
        assert connecting.wait(PATIENCE)
        change(cache, servers, "a")
        change(cache, servers, "ab")
        changed.set()
        if way == "thread":
            goes_on.set()
        assert found.result(PATIENCE) in (None, 1)
    assert cache._driver.shard(1) is not shard
