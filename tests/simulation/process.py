"""One simulated process: the real store, tier and followers, and clients that carry out the real steps.

What a listener's thread and a driver do with sockets is done here with simulated connections. Everything that the
process does comes through :meth:`Process.post`, so that a process can be stopped and go on later, as by SIGSTOP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from nearcache.bus.follower import Followed, Follower
from nearcache.cache.tiered.cache import TieredCache
from nearcache.coherence import DERIVED, Horizon, OrderedHorizon
from nearcache.l2 import load_script
from nearcache.placement import Placement
from simulation.client import Client, Payer, Worker
from simulation.network import BusLink, DataLink, Pending
from simulation.parts import L1, Keeper, OldCopies
from simulation.server import SHARD_NAMES, Shard
from simulation.turns import Turns
from simulation.world import MS, US, World
from support.tiers import tier_of

if TYPE_CHECKING:
    from simulation.checkers import Checker
    from simulation.workload import Profile

_BACKOFF_FIRST_NS: Final = 50 * MS
_BACKOFF_MOST_NS: Final = 2_000 * MS
_CONNECT_NS: Final = 400 * US


class Process(Turns):
    """See the module.

    Attributes:
        number: Of the process.
        profile: The settings of the run.
        clients: Its threads.
        paused: Whether it has been stopped.
        slept_ns: For how long the machine has slept, which its monotonic clock does not count.
        stopped_ns: For how long, altogether, the process has been paused.
        renewing: How many of its renewals of leases and locks arrive.
        letters: The dead letters that it was told of last.
    """

    def __init__(self, world: World, checker: Checker, shards: list[Shard], number: int, profile: Profile) -> None:
        self.world = world
        self.checker = checker
        self.shards = list(shards)
        self.number = number
        self.profile = profile
        self.clients: list[Client] = []
        self.heartbeat = load_script("heartbeat")
        self.paused = False
        self.slept_ns = self.stopped_ns = 0
        self.placement = Placement([shard.name for shard in shards])
        self._pauses = 0
        self._paused_ns = 0
        self._is_asleep = False
        self.recent: list[deque[bytes]] = [deque(maxlen=8) for _ in shards]
        self.buses: list[BusLink | None] = [None] * len(shards)
        self.pools: list[list[DataLink]] = [[] for _ in shards]
        self._held_back: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._until_ns: dict[Any, int] = {}
        self._links = 0
        self.incarnation = 0
        self._random = world.stream(f"process {number}")
        self.payer = Payer(self)
        self.workers: list[Worker] = []
        self._workers_made = 0
        self._chance = world.stream(f"freshness {number}").random
        self.renewing = profile.renewing
        self._luck = world.stream(f"renewals {number}").random
        self.asides: list[Any] = []
        self.is_open = False
        self.opener: Callable[[Process], None] | None = None
        self.scribe: Any = None
        self.letters: list[str] = []
        if not profile.moves:
            self._open()
            self.is_open = True

    def __repr__(self) -> str:
        return f"p{self.number}"

    def _open(self) -> None:
        """What a process has after it has opened its cache."""
        count, profile = len(self.shards), self.profile
        most = 2 * len(SHARD_NAMES) if profile.moves else count
        self.store = L1(profile.maxsize, lanes=most + DERIVED, policy=profile.policy)
        self.store.clock, self.store.process = self.clock, self
        self.old_served: dict[int, int] = {}
        self.tier = tier_of(
            namespace="sim",
            placement=self.placement,
            most_lanes=most,
            bound_ns=profile.bound_ns,
            lease_ms=profile.lease_ms,
            has_queue=profile.behind is not None,
            ack_ms=profile.ack_ms,
            stale_ns=profile.stale_ns,
            freshness=replace(profile.freshness, chance=self._chance),
            clock=self.clock,
        )
        if profile.moves:
            self.tier.changing = {}  # type: ignore[assignment]  # when rubbish is collected no seed decides
        if self.tier.stale is not None:
            self.tier.stale = self.store.old = OldCopies(self.tier.lanes, profile.stale_ns, most, self)
        self._watched: dict[int, Callable[[], None]] = {}
        self.keeper = Keeper(self)
        self.horizon = self._horizon()
        self._renew_ns = 0
        self.followers = [self._follower(lane) for lane in range(count)]
        self.tier.ears = self
        self._failures = [0] * count
        self._following = set(range(count))
        self._tick_at: list[int | None] = [None] * count
        for lane in range(count):
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)
        if profile.behind is not None:
            self.scribe = profile.behind.start(self)

    def open_with(self, shards: Any, places: list[Shard]) -> None:
        """Begin with a list of shards; it is not open before the others have agreed."""
        self.is_open = False
        self.placement = shards.placement
        self.shards = list(places)
        self.recent = [deque(maxlen=8) for _ in places]
        self.buses = [None] * len(places)
        self.pools = [[] for _ in places]
        self._open()

    def opened(self) -> None:
        """They have agreed."""
        self.is_open = True
        for lane in self._following:
            self.hurry(lane)
        self._come_back()

    def shut(self) -> None:
        """They have not, and it is closed again."""
        self._leave_threads()

    def _follower(self, lane: int) -> Follower:
        return Follower(
            lambda: self.store,
            [Followed(lane, self.tier.lanes[lane], self.tier.names[lane])],
            self.heartbeat,
            uniform=self._random.uniform,
            nonce=lambda: b"%016x" % self._random.getrandbits(64),
            watched=self._watched,
            keeper=self.keeper,
            horizon=self.horizon,
            ring=lambda: self.tier.now.ring,
        )

    def _horizon(self) -> Horizon:
        parts = (lambda: self.store, self.tier.tags, self.tier.derived, self.clock)
        if not self.profile.ordered:
            return Horizon(*parts)
        ordered = OrderedHorizon(*parts, lanes=self.tier.lanes)
        self.tier.observe_with(ordered)
        return ordered

    # -- the listener's part

    def _connect_bus(self, lane: int, incarnation: int) -> None:
        if incarnation != self.incarnation or not self.is_open or lane not in self._following:
            return
        if self.buses[lane] is not None:
            return
        shard = self.shards[lane]
        if not shard.reaches(self.number, "bus"):
            self._back_off(lane)
            return
        self._links += 1
        link = BusLink(self.world, self, lane, self._links)
        self.buses[lane] = link
        link.introduce(lambda: self._subscribe(link))

    def _subscribe(self, link: BusLink) -> None:
        lane = link.lane
        if self.buses[lane] is not link:
            return
        if self._random.random() < self.profile.repeats:
            for data in list(self.recent[lane])[-3:]:
                link.repeat(data)
        self.followers[lane].connected(link.identity, self.clock())
        self._follow_up(lane)

    def heard(self, link: BusLink, data: bytes) -> None:
        """Bytes have come on a subscribed connection."""
        lane = link.lane
        if self.buses[lane] is not link:
            return
        follower = self.followers[lane]
        follower.received(data, self.clock())
        if follower.answered or follower.outgoing or follower.gave_up is not None:
            self._follow_up(lane)

    def hung_up(self, link: BusLink) -> None:
        """The other end has closed a subscribed connection."""
        lane = link.lane
        if self.buses[lane] is link:
            if link.introduced:
                self.followers[lane].lost("the server closed the connection")
                self._follow_up(lane)
            else:
                self.buses[lane] = None
                link.close()
                self._back_off(lane)

    def _tick(self, lane: int, when_ns: int) -> None:
        if lane not in self._following or self._tick_at[lane] != when_ns or self.buses[lane] is None:
            return
        self._tick_at[lane] = None
        self._renew_leases()
        self.followers[lane].tick(self.clock())
        self.store.l1_tend()
        self._follow_up(lane)

    def _follow_up(self, lane: int) -> None:
        follower, link = self.followers[lane], self.buses[lane]
        if link is None:
            return
        if follower.gave_up is not None:
            if self.world.lines is not None:
                self.world.say(f"{self} gives up the connection to {link.server.name}: {follower.gave_up}")
            link.close()
            self.buses[lane] = None
            self._tick_at[lane] = None
            self._back_off(lane)
            return
        if follower.outgoing:
            link.send(bytes(follower.outgoing))
            follower.outgoing.clear()
        if follower.answered:
            follower.answered = False
            self._failures[lane] = 0
        due = follower.due_ns()
        if due is not None:
            # Threads are woken late, mostly by little.
            when = max(self.world.now, due + self.slept_ns) + 50 * US + int(self._random.random() ** 8 * 30 * MS)
            if self._tick_at[lane] is None or when < self._tick_at[lane]:  # type: ignore[operator]  # mypy: list items
                self._tick_at[lane] = when
                self.world.at(when, self.post, self._tick, lane, when)

    def _renew_leases(self) -> None:
        """As the listener does it."""
        now = self.clock()
        if now >= self._renew_ns:
            renewals = self.keeper.renewals(now)
            self._renew_ns = now + self.keeper.renew_every_ns
            for lane, script, keys, arguments in renewals:
                if self.followers[lane].is_live and self._renews():
                    self.followers[lane].run(script, keys, arguments)
                    self._follow_up(lane)

    def _renews(self) -> bool:
        """Whether a renewal arrives."""
        return self.renewing == 1 or self._luck() < self.renewing

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """What the tier's ears do."""
        return self.followers[lane].await_key(lane, encoded, woken)

    def unawait(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Likewise."""
        if lane < len(self.followers):  # or it is one that has died who waits no longer
            self.followers[lane].unawait(lane, encoded, woken)

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Likewise."""
        self._watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        """Likewise."""
        self._watched.pop(wid, None)

    expect = staticmethod(lambda wid: None)  # to hear a message soon costs nobody anything here

    def fence(self, lane: int, woken: Callable[[], None]) -> bool:
        """Likewise."""
        if not self.followers[lane].is_live:
            return False
        self.followers[lane].fence(lane, self.clock(), woken)
        self._follow_up(lane)
        return True

    def place(self, lane: int) -> tuple[int, int, int] | None:
        """Likewise."""
        return self.followers[lane].place(lane)

    def _back_off(self, lane: int) -> None:
        self._failures[lane] += 1
        pause = min(_BACKOFF_MOST_NS, _BACKOFF_FIRST_NS * 2 ** min(self._failures[lane] - 1, 10))
        pause = int(pause * (0.5 + self._random.random() / 2))
        self.world.at(self.world.now + pause, self.post, self._connect_bus, lane, self.incarnation)

    def follow(self, lane: int) -> None:
        """Follow one more lane, or another one of a number."""
        self.followers[lane] = self._follower(lane)
        self._failures[lane] = 0
        self._following.add(lane)
        self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)

    def leave(self, lane: int) -> None:
        """Follow a lane no longer, if it is followed: of a step that could not be taken what is new is not."""
        if lane not in self._following:
            return
        self._following.remove(lane)
        self.followers[lane].lost("no shard any more")
        bus, self.buses[lane], self._tick_at[lane] = self.buses[lane], None, None
        if bus is not None:
            bus.close()

    def hurry(self, lane: int) -> None:
        """Try at once to connect to a lane that was away."""
        self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)

    def tardiness_ns(self) -> int:
        """How long a thread of its own waits for its first turn."""
        return int(self._random.random() * self.profile.bound_ns) if self.profile.tardy else 0

    def lane_of(self, shard: Shard) -> int | None:
        """The number by which a shard is known here, if it is."""
        return next((lane for lane in self.tier.active if self.shards[lane] is shard), None)

    # -- the driver's part

    def put_shard(self, number: int, shard: Shard) -> None:
        """Reach another shard by this number: one that is in no use any more, or the next one."""
        if number == len(self.shards):
            for each, new in (
                (self.shards, shard), (self.pools, []), (self.buses, None), (self.recent, deque(maxlen=8)),
                (self.followers, self._follower(number)), (self._failures, 0), (self._tick_at, None),
            ):  # fmt: skip
                each.append(new)  # type: ignore[attr-defined]  # lists of different things
            return
        self.rest_shard(number)
        self.shards[number] = shard
        self.recent[number].clear()

    def rest_shard(self, number: int) -> None:
        """Close the idle connections of a shard that is in no use any more."""
        pool, self.pools[number] = self.pools[number], []
        for link in pool:
            link.close()

    def send(self, pending: Pending) -> None:
        """Send an exchange over an idle connection, or a new one."""
        number = pending.lane
        pool, shard = self.pools[number], self.shards[number]
        while pool:
            link = pool.pop()
            if not link.closed:
                link.send(pending)
                return
        if not shard.reaches(self.number, "data"):
            self.world.at(self.world.now + _CONNECT_NS, self.post, pending.client.refused, pending, shard)
            return
        self._links += 1
        DataLink(self.world, self, number, self._links).open(pending, _CONNECT_NS)

    def release(self, link: DataLink) -> None:
        """A connection is idle again."""
        if link.shard in self.shards[link.lane : link.lane + 1]:
            self.pools[link.lane].append(link)
        else:  # the number has come to stand for another one
            link.close()

    def work(self, make: Callable[[], Any]) -> Worker:
        """Have steps carried out in the background."""
        worker = self.employ(lambda number: Worker(self, number))
        worker.begin(make)
        return worker

    def employ(self, make: Callable[[int], Any]) -> Any:
        """A worker, of any kind."""
        self._workers_made += 1
        worker = make(-1 - self._workers_made)
        self.workers.append(worker)
        return worker

    @property
    def is_busy(self) -> bool:
        """Whether something that will end goes on in the background."""
        return not all(worker.lasts for worker in self.workers)

    def data_links(self) -> list[DataLink]:
        """All open data connections."""
        return [
            link
            for shard in self.checker.shards
            for server in shard.servers
            for link in server.links
            if isinstance(link, DataLink) and link.process is self
        ]

    # -- life

    def fork(self) -> None:
        """Go on as a child of itself: threads and connections stay behind with the parent, memory comes along."""
        if not self.is_open:
            return
        self._leave_threads()
        self.checker.forked(self)
        # The cache's own method, on the parts of a cache that there are here.
        stand_in = SimpleNamespace(
            _driver=SimpleNamespace(after_fork=lambda: None),
            _tier=self.tier,
            _runner=SimpleNamespace(after_fork=lambda: None),
            _upkeep=self.keeper,
            _membership=self.store.membership,
            _endpoints=self.tier.active,
            _threads=[SimpleNamespace(after_fork=self._forget_watched), *([self.scribe] if self.scribe else [])],
            _horizon=self.horizon,
            l1_reset_pending=self.store.l1_reset_pending,
        )
        stand_in._tier = self.tier
        TieredCache._after_fork(stand_in)  # type: ignore[arg-type]  # as it says
        if self.scribe is not None:
            self.scribe.start()  # its clients go on using the cache
        self._come_back()
        self._failures = [0] * len(self.shards)
        self._tick_at = [None] * len(self.shards)
        for lane in self.tier.active:
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)

    def _forget_watched(self) -> None:
        self._watched.clear()
        for follower in self.followers:
            follower.after_fork()

    def restart(self) -> None:
        """Die, and be started anew with an empty store."""
        self._leave_threads()
        self.checker.gone(self)
        if self.opener is not None:
            self.opener(self)
            return
        self._open()
        self._come_back()

    def _leave_threads(self) -> None:
        self.incarnation += 1
        self.paused = False
        self._held_back = []
        for link in self.data_links():
            link.close()
        for lane, bus in enumerate(self.buses):
            if bus is not None:
                bus.close()
            self.buses[lane] = None
        self.pools = [[] for _ in self.shards]
        for client in [*self.clients, *self.workers, self.payer]:
            client.vanish()
        self.workers.clear()

    def _come_back(self) -> None:
        for client in self.clients:
            client.rest()
