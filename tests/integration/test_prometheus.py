"""What caches on Redis count, as Prometheus reads it."""

from __future__ import annotations

import prometheus_client

from nearcache.prometheus import CacheCollector
from support.caches import Opener
from support.redis import RedisServer
from support.waiting import wait_until


def test_shard_that_is_lost_and_found_again_is_told(open_cache: Opener, redis_server: RedisServer) -> None:
    """With the lag of invalidations, and how long L1 did not serve."""
    cache = open_cache(namespace="shop")
    registry = prometheus_client.CollectorRegistry()
    registry.register(CacheCollector(cache))
    labels = {"cache": "shop", "shard": cache.health().shards[0].name}

    def read(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"nearcache_{name}", labels | more)

    wait_until(lambda: read("shard_ok") == 1)
    cache["k"] = 1
    wait_until(lambda: (read("lane_lag_seconds", quantile="0.99") or 0) > 0)
    assert registry.get_sample_value("nearcache_l2_writes_total", {"cache": "shop"}) == 1
    assert read("lane_resyncs_total") == 1
    redis_server.stop()
    wait_until(lambda: read("shard_ok") == 0)
    redis_server.start()
    wait_until(lambda: read("shard_ok") == 1)
    assert (read("lane_dark_seconds_total") or 0) > 0
    assert (read("lane_resyncs_total") or 0) > 1
