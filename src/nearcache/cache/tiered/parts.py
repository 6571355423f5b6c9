"""What a cache on Redis is made of, by its settings."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from ..._store import Store
from ...bus import GrowingListener, Listener, RoamingListener
from ...clocks import monotonic_ns
from ...codecs import ValueCodec
from ...coherence import Horizon, Lane, OrderedHorizon, State
from ...embedded import EmbeddedServers
from ...freshness import freshness_of
from ...l2 import NOWHERE, ClusterDriver, Command, Driver, Introduction, check_certificates, load_script
from ...loading import ENDLESS_MS, ThreadRunner, Tier, Upkeep
from ...loading.shards.host import Host
from ...loading.shards.membership import MOST_LANES
from ...options import Endpoint, Settings
from ...placement import CLUSTER_LANES, ClusterPlacement, slot_of_lane
from ...rings import Shards
from ..report import ShardHealth
from .behind import Scribe
from .changing import Changing, ChangingBehind, ChangingThrough


def changing_of(tier: Tier, runner: ThreadRunner, settings: Settings) -> tuple[Changing, Scribe | None]:
    """Return how changes are made, and who writes them behind the cache, if they are written so."""
    if settings.writer is None:
        return Changing(tier), None
    if settings.write_delay is None:
        return ChangingThrough(tier, settings.writer, settings.loader), None
    scribe = Scribe(tier, runner, settings.writer, settings)
    return ChangingBehind(tier, settings.writer, scribe.room), scribe


def servers_of(settings: Settings) -> tuple[EmbeddedServers | None, tuple[Endpoint, ...]]:
    """Return the servers to be looked after, if they are embedded ones, and where the shards are.

    Raises:
        ConfigError: A file that is named for TLS cannot be used.
    """
    if settings.scheme != "embedded":
        if settings.endpoints[0].tls:
            check_certificates(settings.endpoints[0])  # the others have the same
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

    def adopt(shard: int, identity: int) -> list[Command]:
        return tier.now.adopt_commands(shard, identity)  # an older version would be refused

    introduction = Introduction(adopt, tier.note_adopted)
    if endpoints[0].clustered:
        driver = ClusterDriver(
            endpoints,
            [slot_of_lane(lane) for lane in range(len(tier.lanes))],
            timeout_s=settings.timeout,
            connect_timeout_s=settings.connect_timeout,
            namespace=settings.namespace,
            pool_size=settings.pool_size,
            introduction=introduction,
            on_reached=hurry,
        )
        tier.name_at = driver.name_at
        return driver
    return Driver(
        endpoints,
        timeout_s=settings.timeout,
        connect_timeout_s=settings.connect_timeout,
        namespace=settings.namespace,
        pool_size=settings.pool_size,
        on_unreachable=None if servers is None else restart,
        introduction=introduction,
        on_reached=hurry,
    )


def lanes_of(endpoints: tuple[Endpoint, ...]) -> int:
    """Return how many lanes there are on these servers."""
    return CLUSTER_LANES if endpoints[0].clustered else MOST_LANES


def horizon_for(store: weakref.ref[Store[Any, Any]], tier: Tier, settings: Settings) -> Horizon:
    """Return what the lanes' actions are carried out on."""
    if settings.consistency == "key":
        return Horizon(store, tier.tags, tier.derived)
    ordered = OrderedHorizon(store, tier.tags, tier.derived, lanes=tier.lanes)
    tier.observe_with(ordered)
    return ordered


def listener_for(
    store: weakref.ref[Store[Any, Any]], driver: Driver, tier: Tier, keeper: Upkeep, horizon: Horizon
) -> Listener:
    """Return what follows the lanes of a cache."""
    kind = RoamingListener if isinstance(driver, ClusterDriver) else GrowingListener
    return kind(
        store,
        driver,
        tier.lanes,
        tier.names,
        load_script("heartbeat"),
        namespace=tier.namespace,
        horizon=horizon,
        keeper=keeper,
        ring=lambda: tier.now.ring,
    )


def host_for(
    cache: weakref.ref[Any],
    driver: Driver,
    listener: GrowingListener,
    settings: Settings,
    endpoints: dict[int, Endpoint],
) -> Host:
    """Return what the cache's membership has of it."""

    def install(tier: Tier) -> None:
        alive = cache()
        if alive is not None:
            alive._tier = tier

    return Host(settings.namespace, settings.write_delay is not None, cache, driver, listener, endpoints, install)


def health_of(driver: Driver, tier: Tier, endpoints: dict[int, Endpoint]) -> list[ShardHealth]:
    """Return the state of every server: of a cluster, of every node that has lanes."""
    if not isinstance(driver, ClusterDriver):
        active = [(shard, endpoints[shard]) for shard in tier.active]
        return [_health(driver, tier, shard, [shard], endpoint) for shard, endpoint in active]
    by_place: dict[int, list[int]] = {}
    for lane in range(len(tier.lanes)):
        by_place.setdefault(driver.place_of(lane), []).append(lane)
    return [_health(driver, tier, place, lanes, endpoints[0]) for place, lanes in sorted(by_place.items())]


def _health(driver: Driver, tier: Tier, place: int, numbers: list[int], endpoint: Endpoint) -> ShardHealth:
    now_ns = monotonic_ns()
    lanes = [tier.lanes[number] for number in numbers]
    until_ns = [lane.fresh_until_ns for lane in lanes]  # withholding what is behind is no illness
    ages = [now_ns - until + lane.bound_ns for lane, until in zip(lanes, until_ns, strict=True) if until]
    worst = _worst(lanes)
    if place == NOWHERE:
        name, address, breaker, refused = "nowhere", endpoint.address, "open", ""
        error = "no node is known to have these slots"
    else:
        status = driver.status(place)
        name, breaker, error, refused = status.name, status.breaker, status.last_error, status.refused
        address = status.address or (name if endpoint.clustered else endpoint.address)
    health = ShardHealth(
        name=name,
        address=address,
        lane=worst.state.value,
        vouched=all(lane.state is State.LIVE and now_ns < until for lane, until in zip(lanes, until_ns, strict=True)),
        horizon_age_s=max(ages) / 1e9 if len(ages) == len(lanes) else None,
        breaker=breaker,
        last_error=worst.last_error or refused or error,
        refused=refused,
    )
    return replace(health, last_error="") if health.ok else health  # they keep the newest trouble, however long ago


def _worst(lanes: list[Lane]) -> Lane:
    order = (State.DOWN, State.SYNC, State.LIVE)
    return min(lanes, key=lambda lane: (order.index(lane.state), not lane.last_error))


def tier_for(settings: Settings, shards: Shards, codec: ValueCodec, most_lanes: int) -> Tier:
    """Return the L2 side of a cache, without its I/O."""

    def milliseconds(seconds: float | None) -> int:
        return ENDLESS_MS if seconds is None else max(1, round(seconds * 1000))

    return Tier(
        namespace=settings.namespace,
        placement=ClusterPlacement() if shards.endpoints[0].clustered else shards.placement,
        most_lanes=most_lanes,
        db=shards.endpoints[0].db,
        clustered=shards.endpoints[0].clustered,
        codec=codec,
        l1_ttl_ms=milliseconds(settings.l1_ttl),
        lease_ms=milliseconds(settings.lease),
        forgives=settings.on_error == "queue",
        has_queue=settings.write_delay is not None,
        ack_ms=milliseconds(settings.timeout / 4) if settings.ack == "replica" else 0,
        bound_ns=round(settings.max_staleness * 1e9),
        freshness=freshness_of(settings),
        stale_ns=round((settings.stale_if_error or 0) * 1e9),
    )
