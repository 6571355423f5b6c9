"""What caches count, for Prometheus: a collector for ``prometheus_client``, which asks them when it is asked.

>>> import nearcache, prometheus_client
>>> from nearcache.prometheus import CacheCollector
>>> registry = prometheus_client.CollectorRegistry()
>>> with nearcache.open("memory://") as cache:
...     registry.register(CacheCollector(products=cache))
...     cache["sku:1"] = "shoe"
...     _ = cache["sku:1"]
...     registry.get_sample_value("nearcache_l1_hits_total", {"cache": "products"})
1
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
from .cache.report import CoherenceStats, Durations, L1Stats, L2Stats, LaneStats, LoaderStats, Stats, WritingStats

__all__ = ["CacheCollector"]

Family = CounterMetricFamily | GaugeMetricFamily

_LANE: Final = tuple(name for name in LaneStats.__slots__ if name != "name")
#: Where numbers are in ``Stats``. Of what is counted by lanes the sums are left out.
_TIERS: Final[dict[str, tuple[str, ...]]] = {
    "l1": L1Stats.__slots__,
    "l2": L2Stats.__slots__,
    "loader": LoaderStats.__slots__,
    "coherence": tuple(name for name in CoherenceStats.__slots__ if name not in (*_LANE, "lanes")),
    "writing": tuple(name for name in WritingStats.__slots__ if name != "last_error"),
}
_DURATIONS: Final = ("lane_heartbeat", "lane_lag")
#: Numbers that go up and down; all the others are counts, and only grow.
_GAUGES: Final = (
    "l1_entries", "l1_size_bytes", "l1_maxsize", "l1_maxbytes", "loader_running", "writing_backlog", "writing_owned",
    "lane_owed", "lane_horizon_age_s", *_DURATIONS, "shard_ok",
)  # fmt: skip
_QUANTILES: Final = {"p50_ms": "0.5", "p99_ms": "0.99", "longest_ms": "1"}

#: A field, what stands in its labels beside the cache, and the number.
Number = tuple[str, tuple[str, ...], float]


class CacheCollector(Collector):
    """Reports ``stats()`` and ``health()`` of caches. Every metric is labelled ``cache``.

    ``stats().l1.hits`` is ``nearcache_l1_hits_total``, ``stats().loader.running`` is ``nearcache_loader_running``, and
    so on for every number of ``l1``, ``l2``, ``loader``, ``coherence`` and ``writing``. What is counted by lanes is
    labelled ``shard`` as well: ``nearcache_lane_gaps_total``, ``nearcache_lane_dark_seconds_total``,
    ``nearcache_lane_lag_seconds{quantile="0.99"}``. Of a Redis Cluster it is the sum of all lanes, and the worst of
    their ages and durations, without a shard: lanes go from node to node. ``nearcache_shard_ok`` is 1 for each server
    that ``health()`` finds well, else 0.

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

    def describe(self) -> Iterable[Family]:
        """Return all metrics there can be, without numbers: there may be none yet."""
        return _families().values()

    def collect(self) -> Iterable[Family]:
        """Return what there is to be said now."""
        families = _families()
        for name, cache in self._caches.items():
            stats, is_cluster = cache.stats(), cache.settings.scheme.endswith("+cluster")
            for field, labels, value in chain(_counted(stats), _by_shard(stats, is_cluster), _shards_ok(cache)):
                families[field].add_metric([name, *labels], value)
        return [family for family in families.values() if family.samples]


def _families() -> dict[str, Family]:
    made: dict[str, Family] = {}
    for tier, names in _TIERS.items():
        for name in names:
            made[f"{tier}_{name}"] = _family(f"{tier}_{name}", f"stats().{tier}.{name}")
    for name in _LANE:
        labels = ("shard", "quantile") if f"lane_{name}" in _DURATIONS else ("shard",)
        made[f"lane_{name}"] = _family(f"lane_{name}", f"stats().coherence.lanes[i].{name}", *labels)
    return made | {"shard_ok": _family("shard_ok", "health().shards[i].ok", "shard")}


def _family(field: str, source: str, *labels: str) -> Family:
    unit = "econds" if field.endswith("_s") else "_seconds" if field in _DURATIONS else ""
    kind = GaugeMetricFamily if field in _GAUGES else CounterMetricFamily
    return kind(f"nearcache_{field}{unit}", source, labels=["cache", *labels])


def _counted(stats: Stats) -> Iterator[Number]:
    for tier, names in _TIERS.items():
        for name in names:
            value = getattr(getattr(stats, tier), name)
            if value is not None:  # a bound that is none
                yield f"{tier}_{name}", (), value


def _by_shard(stats: Stats, is_cluster: bool) -> Iterator[Number]:
    by_shard: dict[str, list[LaneStats]] = {}
    for lane in stats.coherence.lanes:
        by_shard.setdefault("" if is_cluster else lane.name, []).append(lane)
    for shard, lanes in by_shard.items():
        for name in _LANE:
            values = [getattr(lane, name) for lane in lanes]
            if f"lane_{name}" in _DURATIONS:
                yield from ((f"lane_{name}", (shard, quantile), value) for quantile, value in _quantiles(values))
            elif None not in values:  # an age that is not known is the worst of all
                yield f"lane_{name}", (shard,), max(values) if name == "horizon_age_s" else sum(values)


def _quantiles(measured: list[Durations]) -> Iterator[tuple[str, float]]:
    for name, quantile in _QUANTILES.items():
        known = [getattr(each, name) for each in measured if each.count]
        if known:
            yield quantile, max(known) / 1000


def _shards_ok(cache: Cache[Any, Any]) -> Iterator[Number]:
    for shard in cache.health().shards:
        yield "shard_ok", (shard.name,), float(shard.ok)
