"""Pages through nearcache: the only module of the demo that imports it."""

from __future__ import annotations

import nearcache
from nearcache import CacheError
from nearcache.embedded import EmbeddedServers

from . import board
from .job import TTL_SECONDS, Job
from .services import UnavailableError
from .workload import Key, Loader

__all__ = ["CacheError", "Near", "start_servers"]

NAMESPACE = "pages"
#: No round trip through a socket, nor any page, is as fast as this; a read that is was answered by L1.
QUICK_NS = 10_000


def start_servers(name: str, shards: int) -> EmbeddedServers:
    """Start the embedded Redis servers; their ``leave`` stops them again."""
    return EmbeddedServers.join(name, shards)


class Near:
    """nearcache with the embedded default: L1, then the shards, then the loader."""

    quick_ns = QUICK_NS

    def __init__(self, job: Job, loader: Loader) -> None:
        self._loader = loader
        self._cache = nearcache.open(
            f"embedded://{job.name}?shards={len(job.sockets)}",
            namespace=NAMESPACE,
            loader=loader,
            maxsize=job.l1_pages,
            ttl=TTL_SECONDS,
            max_staleness=job.bound_s,
        )
        self.read = self._cache.__getitem__
        self.peek = self._cache.peek
        self._loads = 0
        self._l2_hits = 0

    def tier(self) -> int:
        """Return what answered the last read: the counter that has moved."""
        l2_hits = self._cache.stats().l2.hits
        if self._loader.calls != self._loads:
            tier = board.LOADER
        elif l2_hits != self._l2_hits:
            tier = board.L2
        else:
            tier = board.L1
        self._loads, self._l2_hits = self._loader.calls, l2_hits
        return tier

    def invalidate(self, key: Key) -> None:
        """Invalidate a page in every process."""
        try:
            self._cache.invalidate(key)
        except nearcache.ShardUnavailableError as error:
            raise UnavailableError(str(error)) from error

    def own_counters(self) -> dict[str, int]:
        """Return nearcache's own account of what it did."""
        stats = self._cache.stats()
        return {
            "L1 hits": stats.l1.hits,
            "L2 hits": stats.l2.hits,
            "revalidated": stats.l2.revalidated,
            "loads": stats.loader.loads,
            "messages": stats.coherence.received,
            "gaps": stats.coherence.gaps,
            "resyncs": stats.coherence.resyncs,
        }

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()
