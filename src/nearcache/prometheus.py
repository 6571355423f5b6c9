"""What caches count, for Prometheus: a collector for ``prometheus_client``, which asks them when it is asked.

>>> import nearcache, prometheus_client
>>> from nearcache.prometheus import CacheCollector
>>> registry = prometheus_client.CollectorRegistry()
>>> with nearcache.open("memory://") as cache:
...     registry.register(CacheCollector(products=cache))
...     cache["sku:1"] = "shoe"
...     _ = cache["sku:1"]
...     registry.get_sample_value("nearcache_l1_hits_total", {"cache": "products"})
1.0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as cause:
    raise ImportError("nearcache.prometheus: install it with: pip install 'nearcache[prometheus]'") from cause

from .cache import Cache
from .cache.report import Durations, LaneStats, Stats

__all__ = ["CacheCollector"]

Family = CounterMetricFamily | GaugeMetricFamily

#: Numbers that go up and down; all the others are counts, and only grow.
_GAUGES: Final = frozenset({
    "l1_entries", "l1_size_bytes", "l1_maxsize", "l1_maxbytes", "loader_running", "writing_backlog", "writing_owned",
    "lane_owed", "lane_horizon_age_s", "lane_heartbeat_s", "lane_lag_s", "shard_ok",
})  # fmt: skip
_QUANTILES: Final = {"p50_ms": "0.5", "p99_ms": "0.99", "longest_ms": "1"}


class CacheCollector(Collector):
    """Reports ``stats()`` and ``health()`` of caches. Every metric is labelled ``cache``.

    ``stats().l1.hits`` is ``nearcache_l1_hits_total``, ``stats().loader.running`` is ``nearcache_loader_running``, and
    so on for every number of ``l1``, ``l2``, ``loader``, ``coherence`` and ``writing``. What is counted by lanes is
    labelled ``shard`` as well: ``nearcache_lane_gaps_total``, ``nearcache_lane_dark_seconds_total``,
    ``nearcache_lane_lag_seconds{quantile="0.99"}``. A node of a cluster has many: it is their sum, and the worst of
    their ages and durations. ``nearcache_shard_ok`` is 1 for each shard that ``health()`` finds well, else 0.

    Args:
        caches: Each is called by its namespace.
        named: Each is called by its keyword.
    Raises:
        ValueError: There is no cache, or two have one name.
    """

    def __init__(self, *caches: Cache[Any, Any], **named: Cache[Any, Any]) -> None:
        self._caches = named
        for cache in caches:
            name = cache.settings.namespace
            if name in named:
                raise ValueError(f"two caches called {name!r}: give them names, as in CacheCollector(products=cache)")
            named[name] = cache
        if not named:
            raise ValueError("no cache to report of: give at least one, as in CacheCollector(cache)")

    def collect(self) -> Iterable[Family]:
        """Return what there is to be said now."""
        families: dict[str, Family] = {}
        for name, cache in self._caches.items():
            for field, labels, value in chain(_numbers(cache.stats()), _shards_ok(cache)):
                _add(families, field, {"cache": name} | labels, value)
        return families.values()


Number = tuple[str, dict[str, str], float]


def _numbers(stats: Stats) -> Iterator[Number]:
    """Everything that a cache has counted: what it is, what it is of, how much."""
    lanes: dict[str, list[LaneStats]] = {}
    for lane in stats.coherence.lanes:
        lanes.setdefault(lane.name, []).append(lane)
    of_lanes = frozenset(LaneStats.__slots__)
    for tier in ("l1", "l2", "loader", "coherence", "writing"):
        counted = getattr(stats, tier)
        for field in counted.__slots__:
            value = getattr(counted, field)
            if isinstance(value, int) and not (tier == "coherence" and field in of_lanes):
                yield f"{tier}_{field}", {}, value
    for shard, several in lanes.items():
        for field in LaneStats.__slots__:
            values = [getattr(lane, field) for lane in several]
            yield from _of_shard(f"lane_{field}", {"shard": shard}, [each for each in values if each is not None])


def _of_shard(field: str, labels: dict[str, str], values: list[Any]) -> Iterator[Number]:
    """What the lanes of one shard say of the same thing."""
    if values and isinstance(values[0], Durations):
        for name, quantile in _QUANTILES.items():
            measured = [getattr(each, name) for each in values if each.count]
            if measured:
                yield f"{field}_s", labels | {"quantile": quantile}, max(measured) / 1000
    elif values and not isinstance(values[0], str):
        yield field, labels, max(values) if field.endswith("_age_s") else sum(values)


def _shards_ok(cache: Cache[Any, Any]) -> Iterator[Number]:
    ok: dict[str, bool] = {}
    for each in cache.health().shards:
        ok[each.name] = ok.get(each.name, True) and each.ok
    for shard, is_ok in ok.items():
        yield "shard_ok", {"shard": shard}, is_ok


def _add(families: dict[str, Family], field: str, labels: dict[str, str], value: float) -> None:
    name = "nearcache_" + (f"{field}econds" if field.endswith("_s") else field)
    if name not in families:
        kind = GaugeMetricFamily if field in _GAUGES else CounterMetricFamily
        families[name] = kind(name, f"See {field} in docs/operations.md.", labels=list(labels))
    families[name].add_metric(list(labels.values()), value)
