"""What caches count, as Prometheus reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import nearcache
from nearcache import MemoryCache
from nearcache.cache.report import CoherenceStats, Durations, Health, LaneStats, ShardHealth, Stats
from nearcache.prometheus import CacheCollector

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(*caches: Any, **named: Any) -> Samples:
    """What a server would read: values by name and labels."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(CacheCollector(*caches, **named))
    text = prometheus_client.generate_latest(registry).decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    read = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in found}
    assert len(read) == len(found)
    return read


@pytest.fixture
def cache() -> Iterator[MemoryCache[Any, Any]]:
    """One in memory."""
    with nearcache.open("memory://", maxsize=2) as cache:
        yield cache


class Told:
    """A cache that says this of itself."""

    def __init__(self, scheme: str, lanes: tuple[LaneStats, ...], shards: tuple[ShardHealth, ...]) -> None:
        self.settings = SimpleNamespace(scheme=scheme, namespace="t")
        self.lanes, self._shards = lanes, shards

    def stats(self) -> Stats:
        with nearcache.open("memory://") as empty:
            return replace(empty.stats(), coherence=CoherenceStats(gaps=7, lanes=self.lanes))

    def health(self) -> Health:
        return Health(self._shards)


def lane(name: str, **numbers: Any) -> LaneStats:
    """What one lane has counted: zeros, but for these."""
    zeros: dict[str, Any] = dict.fromkeys(LaneStats.__slots__, 0)
    nothing = Durations(0, None, None, None)
    return LaneStats(**zeros | {"name": name, "heartbeat": nothing, "lag": nothing, "horizon_age_s": None} | numbers)


def test_every_number_is_reported_once_and_under_its_own_name(cache: MemoryCache[Any, Any]) -> None:
    """Counts end in ``_total``; nothing that a cache counts is left out."""
    cache.update({1: "a", 2: "b", 3: "c"})
    cache.get_or_load(4, str)
    assert (cache.get(4), cache.get(5)) == ("4", None)
    told = cache.stats().as_dict()
    read = scraped(products=cache)
    assert {labels for _, labels in read} == {(("cache", "products"),)}
    numbers = {f"{tier}_{name}": told[tier][name] for tier in told for name in told[tier]}
    of_lanes = {f"coherence_{name}" for name in LaneStats.__slots__}
    wanted = {name: value for name, value in numbers.items() if isinstance(value, int) and name not in of_lanes}
    assert {
        name.removeprefix("nearcache_").removesuffix("_total"): value for (name, _), value in read.items()
    } == wanted
    assert wanted["l1_evictions"] == 2
    assert wanted["loader_loads"] == 1


def test_what_may_fall_is_no_counter(cache: MemoryCache[Any, Any]) -> None:
    """Nothing named ``_total`` is ever less than before."""
    cache[1] = "a"
    before = scraped(cache)
    cache.clear()
    after = scraped(cache)
    fallen = {name for name, labels in before if after[name, labels] < before[name, labels]}
    assert fallen == {"nearcache_l1_entries"}


def test_caches_are_told_apart_by_name(cache: MemoryCache[Any, Any]) -> None:
    """By namespace, unless they are given others."""
    with nearcache.open("memory://", namespace="users") as users:
        users[1] = 1
        read = scraped(users, products=cache)
    assert read["nearcache_l1_entries", (("cache", "users"),)] == 1
    assert read["nearcache_l1_entries", (("cache", "products"),)] == 0
    with pytest.raises(ValueError, match="two caches called 'default'"):
        CacheCollector(cache, cache)
    with pytest.raises(ValueError, match="no cache"):
        CacheCollector()


def test_lanes_of_a_cluster_are_summed_and_told_by_the_worst_of_them() -> None:
    """They go from node to node, so that what is counted by nodes would fall. Which nodes are well is told of each."""
    lanes = (
        lane("lane 0", gaps=1, dark_s=0.5, horizon_age_s=0.25, lag=Durations(2, 1.0, 2.0, 4.0)),
        lane("lane 1", gaps=2, dark_s=0.25, horizon_age_s=0.125, lag=Durations(1, 3.0, 3.0, 3.0)),
    )
    shards = tuple(ShardHealth(name, "", "live", name == "a", 0.1, "closed", "") for name in "ab")
    read = scraped(shop=Told("redis+cluster", lanes, shards))
    of_lanes = {
        (name, dict(labels).get("quantile")): value for (name, labels), value in read.items() if "_lane_" in name
    }
    assert of_lanes["nearcache_lane_gaps_total", None] == 3
    assert of_lanes["nearcache_lane_dark_seconds_total", None] == 0.75
    assert of_lanes["nearcache_lane_horizon_age_seconds", None] == 0.25
    lags = {quantile: value for (name, quantile), value in of_lanes.items() if name == "nearcache_lane_lag_seconds"}
    assert lags == {"0.5": 0.003, "0.99": 0.003, "1": 0.004}
    assert {shard: read["nearcache_shard_ok", (("cache", "shop"), ("shard", shard))] for shard in "ab"} == {
        "a": 1,
        "b": 0,
    }


def test_lanes_of_shards_are_told_each_by_its_name_and_an_unknown_age_is_none() -> None:
    """The sums over all lanes are left out: they are twice as easily counted twice."""
    read = scraped(shop=Told("redis", (lane("a", gaps=1, horizon_age_s=0.5), lane("b", gaps=2)), ()))
    assert [read["nearcache_lane_gaps_total", (("cache", "shop"), ("shard", shard))] for shard in "ab"] == [1, 2]
    assert [labels for name, labels in read if "horizon_age" in name] == [(("cache", "shop"), ("shard", "a"))]
    assert not any("coherence_gaps" in name or "lag_seconds" in name for name, _ in read)


def test_metric_can_be_asked_for_by_name_before_it_has_a_number(cache: MemoryCache[Any, Any]) -> None:
    """A registry learns the names when the collector is registered."""
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    told = Told("redis", (), ())
    registry.register(CacheCollector(shop=told))
    told.lanes = (lane("a", lag=Durations(1, 1.0, 1.0, 1.0)),)
    chosen = registry.restricted_registry(["nearcache_lane_lag_seconds"])
    assert (
        b'nearcache_lane_lag_seconds{cache="shop",quantile="1",shard="a"} 0.001'
        in prometheus_client.generate_latest(chosen)
    )


def test_missing_client_library_is_named_with_the_remedy() -> None:
    """It is no dependency of the cache itself."""
    script = "import sys; sys.modules['prometheus_client'] = None; import nearcache; import nearcache.prometheus"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'nearcache[prometheus]'" in done.stderr
