"""The public caches. ``TieredCache`` is imported by :func:`open` only: it needs redis-py, ``memory://`` does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..backlog import DeadLetter
from ..options import chosen_url, parse
from .base import Cache
from .memory.cache import MemoryCache, is_aging
from .report import (
    CacheInfo,
    CoherenceStats,
    Durations,
    Health,
    L1Stats,
    L2Stats,
    LaneStats,
    LoaderStats,
    Resharded,
    SelfTest,
    ShardHealth,
    ShardTest,
    Stats,
    WritingStats,
)
from .views import View

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..keywords import Options

__all__ = [
    "Cache",
    "CacheInfo",
    "CoherenceStats",
    "DeadLetter",
    "Durations",
    "Health",
    "L1Stats",
    "L2Stats",
    "LaneStats",
    "LoaderStats",
    "MemoryCache",
    "Resharded",
    "SelfTest",
    "ShardHealth",
    "ShardTest",
    "Stats",
    "View",
    "WritingStats",
    "open",
]


def open(url: str | None = None, /, **options: Unpack[Options]) -> Cache[Any, Any]:  # noqa: A001  nearcache.open, as io.open
    """Open a cache.

    Args:
        url: ``embedded://NAME`` (real Redis servers on this machine, started for you and shared by all processes of
            this user that give the same name), ``redis://HOST:PORT,HOST:PORT/DB`` (client-side shards),
            ``rediss://`` (TLS), ``redis+sentinel://HOST:PORT,HOST:PORT/MASTER,MASTER``, ``rediss+sentinel://``,
            ``redis+cluster://HOST:PORT,HOST:PORT`` (some nodes of a Redis Cluster), ``rediss+cluster://``,
            ``unix:///PATH``, or ``memory://`` (this process alone); ``valkey`` and ``valkeys`` mean the same as
            ``redis`` and ``rediss``. ``None``: the environment variable ``NEARCACHE_URL``, or else
            ``embedded://default``.
        options: ``namespace``, ``maxsize``, ``maxbytes``, ``policy``, ``ttl``, ``l1_ttl``, ``max_staleness``,
            ``consistency``, ``loader``, ``key``, ``on_removal``, ``codec``, ``classes``, ``timeout`` and others: see
            :class:`nearcache.options.Settings`, and :func:`nearcache.options.parse` for those of connections. They
            may stand in the URL's query as well, but for those that take Python objects (functions, classes,
            ``tags``, ``error_ttl``, ``writer``) and the keys that sign or encrypt, because URLs end in logs.
    Returns:
        A mapping, and a context manager that closes itself.
    Raises:
        ConfigError: An option or the URL is wrong; the message says what is allowed.
        AuthenticationFailedError, NotRedisError, UnsupportedServerError: A server that can never be used.
        WrongTopologyError: A server belongs to a Redis Cluster and the URL does not say so, or the other way round.
        UnknownMasterError: The sentinels that answer watch no master of this name.
        ShardListError: A shard has recorded another list of shards than this one.
        CoherenceError: With ``require_coherence=True``, a shard's invalidations do not arrive.
        EmbeddedError, ServerNotFoundError: The embedded servers could not be started.
        CacheError: Threads are greenlets here (gevent, eventlet), and the URL is not ``memory://``.
    """
    chosen = chosen_url(url)
    if isinstance(chosen, str) and chosen.startswith("memory:"):
        if is_aging(parse(url, **options)):
            from .memory.idling import IdlingMemoryCache

            return IdlingMemoryCache(chosen, **options)
        return MemoryCache(chosen, **options)
    from .tiered.cache import TieredCache
    from .tiered.isolated import IsolatedCache

    if parse(url, **options).isolation == "copy":
        return IsolatedCache(chosen, **options)
    return TieredCache(chosen, **options)
