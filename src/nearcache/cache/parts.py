"""What a cache on Redis is made of, by its settings."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from ..codecs import ValueCodec
from ..embedded import EmbeddedServers
from ..freshness import freshness_of
from ..l2 import Driver, Introduction
from ..loading import ENDLESS_MS, ThreadRunner, Tier
from ..options import Endpoint, Settings
from ..rings import Shards
from .behind import Scribe
from .changing import Changing, ChangingBehind, ChangingThrough


class Helper(Protocol):
    """A thread of a cache's own."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End. Idempotent."""


def changing_of(tier: Tier, runner: ThreadRunner, settings: Settings) -> tuple[Changing, Scribe | None]:
    """Return how changes are made, and who writes them behind the cache, if they are written so."""
    if settings.writer is None:
        return Changing(tier), None
    if settings.write_delay is None:
        return ChangingThrough(tier, settings.writer), None
    scribe = Scribe(tier, runner, settings.writer, settings)
    return ChangingBehind(tier, settings.writer, scribe.room), scribe


def servers_of(settings: Settings) -> tuple[EmbeddedServers | None, tuple[Endpoint, ...]]:
    """Return the servers to be looked after, if they are embedded ones, and where the shards are."""

    if settings.scheme != "embedded":
        return None, settings.endpoints
    servers = EmbeddedServers.join(settings.embedded_name, settings.shards, maxmemory_mb=settings.maxmemory_mb)
    pairs = zip(servers.names, servers.sockets, strict=True)
    return servers, tuple(Endpoint(name=name, path=path) for name, path in pairs)


def driver_for(
    settings: Settings,
    endpoints: tuple[Endpoint, ...],
    servers: EmbeddedServers | None,
    tier: Tier,
    cache: weakref.ref[Any],
) -> Driver:
    """Return what talks to the shards of a cache."""

    def restart(_shard: int) -> bool:
        assert servers is not None
        servers.ensure()
        return True

    def hurry(shard: int) -> None:
        alive = cache()
        if alive is not None:
            alive._listener.hurry(shard)

    return Driver(
        endpoints,
        timeout_s=settings.timeout,
        connect_timeout_s=settings.connect_timeout,
        pool_size=settings.pool_size,
        on_unreachable=None if servers is None else restart,
        introduction=Introduction(tier.adopt_commands, tier.note_adopted),
        on_reached=hurry,
    )


def tier_for(settings: Settings, shards: Shards, codec: ValueCodec, most_lanes: int) -> Tier:
    """Return the L2 side of a cache, without its I/O."""

    def milliseconds(seconds: float | None) -> int:
        return ENDLESS_MS if seconds is None else max(1, round(seconds * 1000))

    return Tier(
        namespace=settings.namespace,
        shard_names=shards.names,
        placement=shards.placement,
        most_lanes=most_lanes,
        db=shards.endpoints[0].db,
        codec=codec,
        l1_ttl_ms=milliseconds(settings.l1_ttl),
        lease_ms=milliseconds(settings.lease),
        forgives=settings.on_error == "queue",
        bound_ns=round(settings.max_staleness * 1e9),
        freshness=freshness_of(settings),
        stale_ns=round((settings.stale_if_error or 0) * 1e9),
    )
