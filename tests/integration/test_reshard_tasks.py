"""After the list of shards has changed, tasks go by the new one, though their view of the cache is from before."""

from __future__ import annotations

import asyncio
from typing import Any

import nearcache
from support.redis import RedisServer
from support.waiting import wait_until

KEYS = [f"k{number}" for number in range(16)]


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
