"""The cache with all its tiers: L1 in this process, L2 in Redis, the loader behind. Wiring and lifecycle."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from ..._store import own_get
from ...absence import Absent
from ...answers import DEFAULT, with_single
from ...bus import GrowingListener, Listener
from ...choices import Seconds, timeout_to_s
from ...clocks import monotonic_ns
from ...codecs import value_codec
from ...coherence import DERIVED
from ...embedded import EmbeddedServers
from ...errors import ConfigError, ShardError, ShardUnavailableError
from ...flights import Loads
from ...forks import tell, tell_no_more, tell_of_forks
from ...l2 import Driver
from ...loading import (
    MISSING,
    Sampler,
    ThreadRunner,
    Tier,
    Upkeep,
    catch_up,
    clear,
    contains,
    invalidate_tag,
    load,
    refresh,
    token_of,
)
from ...loading.shards.membership import Membership
from ...logs import log
from ...options import check_tags, parse
from ...rings import shards_of
from ...workers import Helper, is_to_fork, refuse_greenlets, warn_of_pauses
from ..base import K, Lifetime, V, closed, refuse_coroutines, store_options
from ..events.listening import Reporter, TieredHub
from ..holding import Hold
from ..memory.cache import MemoryCache
from ..memory.copying import remaining
from ..readthrough import found_or
from ..report import (
    Health,
    LaneStats,
    SelfTest,
    Stats,
    WritingStats,
    coherence_stats,
    durations,
    l1_stats,
    l2_stats,
    loader_stats,
)
from ..shards.moving import MovingCache
from .behind import Scribe
from .changing import ChangingBehind
from .checks import check_masters, check_queues
from .gathering import GatheringCache
from .holding import Holding
from .letters import QueueingCache
from .parts import (
    changing_of,
    driver_for,
    health_of,
    horizon_for,
    host_for,
    lanes_of,
    listener_for,
    servers_of,
    tier_for,
)
from .sampler import SamplerThread
from .selftest import require, run_selftest
from .swapping import SwappingCache

if TYPE_CHECKING:
    from ..aio import AsyncCache


@own_get
class TieredCache(MovingCache[K, V], GatheringCache[K, V], SwappingCache[K, V], QueueingCache[K, V]):
    """L1 in front of Redis.

    Args:
        url: As :func:`nearcache.options.parse` takes it; ``None``: ``NEARCACHE_URL`` or the embedded default.
        options: As the attributes of :class:`nearcache.options.Settings`.
    Raises:
        ConfigError: An option is unknown or out of range.
        AuthenticationFailedError, NotRedisError, UnsupportedServerError: What answers cannot be used.
        EmbeddedError: The embedded servers could not be started.
        CacheError: Threads are greenlets here.

    A shard that does not answer is no error here: a service must be able to start while its Redis is down. It is
    logged, and ``health()`` shows it.
    """

    _isolation = "shared"  # what this class does; nearcache.open() chooses it by the option

    def __init__(self, url: str | None = None, /, **options: Any) -> None:
        self.settings = settings = with_single(parse(url, **options))
        if settings.isolation != self._isolation:
            raise ConfigError("isolation", settings.isolation, "open such a cache with nearcache.open()")
        refuse_greenlets()
        warn_of_pauses(settings.namespace)
        this: weakref.ref[Any] = weakref.ref(self)
        codec = value_codec(settings, settings.endpoints[0].db if settings.endpoints else 0)
        self._servers, endpoints = servers_of(settings)
        lanes = lanes_of(endpoints)
        super().__init__(settings.maxsize, lanes=lanes + DERIVED, **store_options(settings, settings.on_removal))
        shards = shards_of(settings.placement, endpoints)
        self._endpoints = dict(enumerate(endpoints))
        self._tier = tier_for(settings, shards, codec, lanes)
        self._driver = driver_for(settings, endpoints, self._servers, self._tier, this)
        self._runner = ThreadRunner(self._driver, self._tier, settings.timeout)
        self._upkeep = Upkeep(self._tier, self._runner)
        self._horizon = horizon_for(this, self._tier, settings)
        self._listener = self._tier.ears = listener_for(this, self._driver, self._tier, self._upkeep, self._horizon)
        self._membership = None
        if isinstance(self._listener, GrowingListener):
            host = host_for(this, self._driver, self._listener, settings, self._endpoints)
            self._membership = Membership(host, shards, self._tier)
        sampling = self._sampler_thread(settings.sample_rate)
        self._changing, self._scribe = changing_of(self._tier, self._runner, settings)
        helpers = [helper for helper in (self._scribe, sampling) if helper is not None]
        self._threads = [self._listener, *helpers]
        self._end = weakref.finalize(self, _end, self._runner, self._driver, id(self))
        # At interpreter exit daemon threads may still be using the cache: it stops listening but is not closed to them.
        self._end.atexit = False
        self._exit = weakref.finalize(  # of a cache that is collected the newest is called first
            self, _depart, this, self._scribe, self._listener, self._servers, helpers, self._tier
        )
        tell_of_forks(self, TieredCache._after_fork)
        try:
            self._check_shards()
        except BaseException:
            self.close()
            raise
        self._listener.start()
        self._listener.wait_settled(settings.connect_timeout)
        if settings.require_coherence:
            try:
                self._require_coherence()
            except BaseException:
                self.close()
                raise
        for helper in helpers:
            helper.start()

    def _require_coherence(self) -> None:
        if is_to_fork():  # nothing listens here
            text = "namespace %s: require_coherence=True tests nothing in uWSGI's master: call selftest() in a worker"
            log(logging.WARNING, text, self.settings.namespace)
        else:
            require(self.selftest())

    def _sampler_thread(self, rate: float) -> SamplerThread | None:
        if not rate:
            return None
        self._tier.sampler = Sampler()
        return SamplerThread(weakref.ref(self), self._tier.sampler, self._tier, self._runner, rate)

    # -- hooks of the store: what L1 does not hold

    def _missing(self, key: K) -> V:
        if self.settings.loader is not None:
            loader = self.settings.loader
            return cast("V", self._loaded(key, None, self._load, key, loader, DEFAULT))
        return cast("V", found_or(DEFAULT, key, *self._read(key)))

    def _missing_get(self, key: K, default: Any) -> Any:
        found, _ = self._read(key)
        return default if found is MISSING else found

    def _missing_in(self, key: object) -> bool:
        try:
            return self._run(contains(self._tier, self, self._name(key)))
        except ShardError:
            return False

    def _read(self, key: Any) -> tuple[Any, ShardError | None]:
        try:
            found = self._run(self._reading(key))
            return MISSING if isinstance(found, Absent) else found, None
        except ShardError as error:
            return MISSING, error

    def _refresh(self, key: K, loader: Callable[[K], V], ttl: Lifetime, tags: Any) -> V:
        refuse_coroutines(loader)
        return self._present(key, self._run(refresh(self._tier, self, self._wanted(key, loader, ttl, tags))))

    def _flights(self) -> Loads:
        self._use()
        return self._tier.loads

    def _landed(self, key: K, value: Any) -> V:
        return self._present(key, self._given(value))

    def _load(self, key: K, loader: Callable[[K], V], ttl: Lifetime, tags: Any = DEFAULT) -> V:
        refuse_coroutines(loader)
        wanted = self._wanted(key, loader, ttl, tags)
        return self._present(key, self._run(load(self._tier, self, wanted)))

    # -- listening

    def _make_hub(self) -> TieredHub:
        return TieredHub(self.settings.on_removal, self._tier, self._listener)

    def _begin_telling(self, hub: TieredHub) -> None:
        this: weakref.ref[Any] = weakref.ref(self)

        def knows(name: Any) -> bool:
            cache = this()
            return cache is not None and cache.l1_terms(name) is not None

        reporter = Reporter(hub, knows, self._tier.scripts)
        self.l1_tell(hub.told)
        self._tier.share(witness=reporter)  # steps under an older version tell, too
        self._listener.report_to(reporter)

    # -- hooks of the listener, which tells the store what may be served

    def lane_vouch(self, lane: int, until_ns: int) -> None:
        """See :class:`Store`."""
        if self._tier.stale is not None:
            self._tier.stale.vouched(lane, until_ns)
        super().lane_vouch(lane, until_ns)

    def lane_suspect(self, lane: int) -> None:
        """See :class:`Store`."""
        if self._tier.stale is not None:
            self._tier.stale.suspected(lane, self.lane_stamp(lane), monotonic_ns())
        super().lane_suspect(lane)

    # -- single keys

    @classmethod
    def fromkeys(cls, keys: Iterable[K], value: Any = None) -> Any:  # noqa: ARG003
        """Not offered: a "new" cache would be the same namespace on the same servers as any other.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a cache on Redis has no fromkeys(); use set_many(dict.fromkeys(keys, value))")

    # -- many keys

    def clear(self) -> None:
        """Empty the namespace in every tier and every process. O(shards).

        Raises:
            ShardUnavailableError: Of the first shard that could not be told; the others have been cleared.
        """
        self._run(clear(self._tier, self))

    # -- groups, and changes elsewhere

    def invalidate_tag(self, tag: str) -> None:
        """Drop every copy of every value that has this tag, in every process. See :meth:`Cache.invalidate_tag`."""
        self._run(invalidate_tag(self._tier, self, *check_tags([tag])))

    def hold(self, keys: Iterable[K], seconds: Seconds = 5.0, *, linger: Seconds = 0.0) -> Hold:
        """Return a context in which the data behind these keys can be changed safely. See :meth:`Cache.hold`."""
        held = Holding(self, keys, seconds, linger)
        return Hold(
            lambda token: self._run(held.begin(token)),
            lambda token: self._run(held.end(token)),
            let_go=lambda token: self._run(held.let_go(token)),
            owe=held.owe,
        )

    def token(self) -> str:
        """Return a token of all that this process has changed and seen. See :meth:`Cache.token`."""
        self._use()
        return token_of(self._tier)

    def wait_for(self, token: str, timeout: Seconds = 1.0) -> None:
        """Serve nothing older than the token of another process. See :meth:`Cache.wait_for`."""
        self._run(catch_up(self._tier, self, token, timeout_to_s(timeout)))

    # -- observation

    def stats(self) -> Stats:
        """Return what happened in each tier since the cache was opened."""
        counted = self._tier.counted()
        return Stats(
            l1=l1_stats(self.l1_counters(), self.settings.maxsize, self.settings.maxbytes),
            l2=l2_stats(counted),
            loader=loader_stats(counted, len(self._tier.loads)),
            coherence=coherence_stats(counted, self._tier.sampler, [self._lane_stats(n) for n in self._tier.active]),
            writing=WritingStats() if self._scribe is None else self._scribe.stats(),
        )

    def _lane_stats(self, number: int) -> LaneStats:
        lane, journal = self._tier.lanes[number], self._tier.journals[number]
        until_ns, ordered = lane.fresh_until_ns, self._tier.observed
        with self._tier.lock:  # the keys are gone through, while others come and go
            owed = journal.owed_count
        return LaneStats(
            name=self._tier.shard_names[number],
            applied=self._listener.dropped(number),
            horizon_age_s=(monotonic_ns() - until_ns + lane.bound_ns) / 1e9 if until_ns else None,
            dark_s=self._horizon.dark_ns(number) / 1e9,
            withheld=0 if ordered is None else ordered.times(number),
            withheld_s=0.0 if ordered is None else ordered.withheld_ns(number) / 1e9,
            owed=owed,
            replayed=journal.replayed,
            forgotten=journal.forgotten,
            heartbeat=durations(lane.round_trips),
            lag=durations(self._tier.lags[number]),
            **asdict(lane.counters),
            **asdict(self._tier.judged[number]),
        )

    def health(self) -> Health:
        """Return the state of every shard, and whether L1 may serve its keys."""
        writing = WritingStats() if self._scribe is None else self._scribe.stats()
        return Health(tuple(health_of(self._driver, self._tier, self._endpoints)), writing, self._closed)

    def selftest(self, timeout: Seconds = 2.0) -> SelfTest:
        """Publish an invalidation on every shard and wait until it comes back. See :meth:`Cache.selftest`."""
        self._use()
        return run_selftest(self._tier, self._driver, self._listener, timeout_to_s(timeout))

    # -- life

    def copy(self) -> MemoryCache[K, V]:
        """Return a ``memory://`` cache of what L1 holds now, each entry for the rest of its time.

        It has the same ``maxsize``, ``policy`` and ``key``. It hears of no invalidation and has neither loader nor
        ``on_removal``; what is stored in it stays until it is evicted.
        """
        same = self.settings
        copied: MemoryCache[K, V] = MemoryCache(maxsize=same.maxsize, policy=same.policy, key=same.key)
        copied._restore(remaining(self))
        return copied

    def __reduce__(self) -> Any:
        """Neither pickled nor copied: connections, a thread and a place in a namespace cannot be.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"a cache on Redis cannot be pickled or copied: open another with the same URL and "
            f"namespace={self.settings.namespace!r}, or call copy() for a memory:// cache of what L1 holds"
        )

    def close(self) -> None:
        """Leave: end the listener, close connections, let go of L1; the last to leave embedded servers stops them.

        With ``write_delay=`` on embedded servers what waits is written first, as far as that takes no more than 5 s.
        """
        self._write_rest()
        if self._membership is not None:
            self._membership.stop()
        if self._hub is not None:
            self._hub.close()
        self._closed = True
        for each in (self._exit, self._end):
            ending = each.peek()
            if ending is not None:
                _, end, parts, _ = ending
                end(*parts)  # not by the finalizer: it is over at once, though an interrupt may end this in the middle
                each.detach()
        self.drop_all()

    def __del__(self) -> None:
        """Have written what ``close`` would have: here the writer is still there, and in a finalizer it is not."""
        self._write_rest()

    def _write_rest(self) -> None:
        """Have written behind the cache what would end with embedded servers, if nobody else uses them."""
        scribe = self._scribe
        if self._closed or scribe is None or not scribe.may_lose():
            return
        assert isinstance(self._changing, ChangingBehind)
        self._changing.end(closed(repr(self)), scribe.thread)  # what others change now would be acknowledged, and lost
        scribe.write_rest()

    def _async_view(self) -> AsyncCache[K, V]:
        from ..aio.tiered import AsyncTieredCache

        self._use()
        return AsyncTieredCache(self)

    def _check_shards(self) -> None:
        """Meet every server once: what can never work is an error at the door."""
        membership = self._membership
        if membership is None:
            replies = self._driver.meet(self.settings.connect_timeout)
        else:
            exchanges = [membership.question(shard) for shard in self._endpoints]
            replies = self._driver.execute(exchanges, timeout_s=self.settings.connect_timeout)
        for reply in replies:
            if isinstance(reply, ShardUnavailableError):
                log(logging.WARNING, "namespace %s: %s; starting without it", self.settings.namespace, reply)
            elif isinstance(reply, ShardError):
                raise reply
        if membership is not None:
            membership.join(replies)
        if self.settings.writer is not None:
            delayed = self._scribe is not None
            check_queues(self._driver, self._tier, self.settings.connect_timeout, delayed=delayed)
        check_masters(self._driver, self._tier.namespace, self._endpoints)

    def _after_fork(self) -> None:
        """In the child: keep L1, vouch for none of it, and touch nothing that is the parent's."""
        self._driver.after_fork()
        self._tier.after_fork()
        self._horizon.after_fork()
        self._upkeep.after_fork()
        self._runner.after_fork()
        if self._membership is not None:
            self._membership.after_fork()
        self.l1_reset_pending()
        for shard in self._tier.active:
            self._horizon.lane_attach(shard, 0)
            self._horizon.lane_dark(shard)
            self._horizon.lane_suspect(shard)
        for each in self._threads:
            tell(each.after_fork)


# -- parts -------------------------------------------------------------------------------------------------------


def _end(runner: ThreadRunner, driver: Driver, key: int) -> None:
    """Close the parts of a cache that has left: at ``close()``, or when the cache is collected."""
    tell_no_more(key)
    runner.close()
    driver.close()


def _depart(
    cache: weakref.ref[TieredCache[Any, Any]],
    scribe: Scribe | None,
    listener: Listener,
    servers: EmbeddedServers | None,
    helpers: Sequence[Helper],
    tier: Tier,
) -> None:
    """Take part no more: also at interpreter exit, and with a cache that is collected, whose writer may be gone, too.

    What is lost by it is said: nobody else knows what is owed, but for a parent that this process was forked from.
    """
    alive = cache()
    if alive is not None:
        alive._write_rest()
    elif scribe is not None and scribe.may_lose():
        scribe.write_rest()
    for helper in helpers:
        helper.stop()
    listener.stop()
    if servers is not None:
        with suppress(OSError):
            servers.leave()
    owed = tier.owed_alone()
    if owed:
        text = "namespace %s: closed, and its shards do not know of %d of its changes; others may serve what was before"
        log(logging.WARNING, text, tier.namespace, owed)
