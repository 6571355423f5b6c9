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

from nearcache._store import Store
from nearcache.bus.follower import Followed, Follower
from nearcache.cache.tiered import TieredCache
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.coherence import DERIVED, Horizon
from nearcache.l2 import load_script
from nearcache.loading import Tier, Upkeep
from nearcache.loading.stale import StaleCopies
from simulation.client import Client, Payer, Worker
from simulation.network import BusLink, DataLink, Pending
from simulation.server import Shard
from simulation.world import MS, TICK_NS, US, World

if TYPE_CHECKING:
    from simulation.checkers import Checker
    from simulation.workload import Profile

_BACKOFF_FIRST_NS: Final = 50 * MS
_BACKOFF_MOST_NS: Final = 2_000 * MS
_CONNECT_NS: Final = 400 * US


class Process:
    """See the module.

    Attributes:
        number: Of the process.
        profile: The settings of the run.
        clients: Its threads.
        paused: Whether it has been stopped.
        slept_ns: For how long the machine has slept, which its monotonic clock does not count.
        stopped_ns: For how long, altogether, the process has been paused.
    """

    def __init__(self, world: World, checker: Checker, shards: list[Shard], number: int, profile: Profile) -> None:
        self.world = world
        self.checker = checker
        self.shards = shards
        self.number = number
        self.profile = profile
        self.clients: list[Client] = []
        self.heartbeat = load_script("heartbeat")
        self.paused = False
        self.slept_ns = 0
        self.stopped_ns = 0
        self._pauses = 0
        self._paused_ns = 0
        self._is_asleep = False
        self.recent: list[deque[bytes]] = [deque(maxlen=8) for _ in shards]
        self.buses: list[BusLink | None] = [None] * len(shards)
        self.pools: list[list[DataLink]] = [[] for _ in shards]
        self._held_back: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._links = 0
        self.incarnation = 0
        self._random = world.stream(f"process {number}")
        self.payer = Payer(self)
        self.workers: list[Worker] = []
        self._workers_made = 0
        self._chance = world.stream(f"freshness {number}").random
        self._open()

    def __repr__(self) -> str:
        return f"p{self.number}"

    def _open(self) -> None:
        """What a process has after it has opened its cache."""
        count, profile = len(self.shards), self.profile
        self.store = L1(profile.maxsize, lanes=count + DERIVED, policy=profile.policy)
        self.store.clock = self.clock
        self.old_served: dict[int, int] = {}
        self.tier = Tier(
            namespace="sim",
            shard_names=[shard.name for shard in self.shards],
            codec=ValueCodec(SafeCodec(), 1 << 20),
            ttl_ms=profile.ttl_ms,
            bound_ns=profile.bound_ns,
            lease_ms=profile.lease_ms,
            ack_ms=profile.ack_ms,
            stale_ns=profile.stale_ns,
            freshness=replace(profile.freshness, chance=self._chance),
            clock=self.clock,
        )
        if self.tier.stale is not None:
            self.tier.stale = self.store.old = OldCopies(self.tier.lanes, profile.stale_ns, self)
        self._watched: dict[int, Callable[[], None]] = {}
        self.keeper = Keeper(self)
        self.horizon = Horizon(lambda: self.store, self.tier.tags, self.tier.derived, self.clock)
        self._renew_ns = 0
        self.followers = [
            Follower(
                lambda: self.store,
                [Followed(lane, self.tier.lanes[lane], self.tier.names[lane])],
                self.heartbeat,
                uniform=self._random.uniform,
                nonce=lambda: b"%016x" % self._random.getrandbits(64),
                watched=self._watched,
                keeper=self.keeper,
                horizon=self.horizon,
            )
            for lane in range(count)
        ]
        self.tier.ears = self
        self._failures = [0] * count
        self._tick_at: list[int | None] = [None] * count
        for lane in range(count):
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)

    # -- time and turns

    def clock(self) -> int:
        """The precise monotonic clock of this machine."""
        return self.world.now - self.slept_ns

    def post(self, run: Callable[..., None], *arguments: Any) -> None:
        """Do this in the process, now, or when it goes on."""
        if self.paused:
            self._held_back.append((run, arguments))
            return
        self.set_clocks()
        run(*arguments)

    def set_clocks(self) -> None:
        """Let L1 read its coarse clock."""
        now = self.world.now - self.slept_ns
        now -= now % TICK_NS
        self.store.set_clock(now)
        self.tier.tags.set_clock(now)

    def pause(self, *, asleep: bool) -> int:
        """Stop; ``asleep``: with the whole machine, so that its clock stands still. Returns what to resume."""
        self.paused = True
        self._paused_ns = self.world.now
        self._pauses += 1
        self._is_asleep = asleep
        return self._pauses

    def resume(self, pause: int) -> None:
        """Go on: what has come meanwhile is dealt with by many threads, so in no particular order among them.

        After sleep the listener notices at its next turn, which comes before anything else here: that a hit may come
        first is a documented limit.
        """
        if not self.paused or pause != self._pauses:
            return
        self.paused = False
        stopped_ns = self.world.now - self._paused_ns
        self.stopped_ns += stopped_ns
        slept_ns = stopped_ns if self._is_asleep else 0
        self.slept_ns += slept_ns
        self.set_clocks()
        now = self.clock()
        if slept_ns:
            for follower in self.followers:
                follower.suspended(now)
            for lane in range(len(self.shards)):
                self._follow_up(lane)
        held, self._held_back = self._held_back, []
        at_ns: dict[Any, int] = {}
        for run, arguments in held:
            # What one connection or timer has brought stays in its order.
            source = getattr(run, "__self__", None)
            at_ns[source] = max(at_ns.get(source, 0), self.world.now + int(self._random.random() * 2 * MS))
            self.world.at(at_ns[source], self.post, run, *arguments)

    # -- the listener's part

    def _connect_bus(self, lane: int, incarnation: int) -> None:
        if incarnation != self.incarnation or self.buses[lane] is not None:
            return
        shard = self.shards[lane]
        if not shard.reaches(self.number, "bus"):
            self._back_off(lane)
            return
        self._links += 1
        link = BusLink(self.world, self, shard, self._links)
        self.buses[lane] = link
        link.introduce(lambda: self._subscribe(link))

    def _subscribe(self, link: BusLink) -> None:
        lane = link.shard.number
        if self.buses[lane] is not link:
            return
        if self._random.random() < self.profile.repeats:
            for data in list(self.recent[lane])[-3:]:
                link.repeat(data)
        self.followers[lane].connected(link.identity, self.clock())
        self._follow_up(lane)

    def heard(self, link: BusLink, data: bytes) -> None:
        """Bytes have come on a subscribed connection."""
        lane = link.shard.number
        if self.buses[lane] is not link:
            return
        follower = self.followers[lane]
        follower.received(data, self.clock())
        if follower.answered or follower.outgoing or follower.gave_up is not None:
            self._follow_up(lane)

    def hung_up(self, link: BusLink) -> None:
        """The other end has closed a subscribed connection."""
        lane = link.shard.number
        if self.buses[lane] is link:
            if link.introduced:
                self.followers[lane].lost("the server closed the connection")
                self._follow_up(lane)
            else:
                self.buses[lane] = None
                link.close()
                self._back_off(lane)

    def _tick(self, lane: int, when_ns: int) -> None:
        if self._tick_at[lane] != when_ns or self.buses[lane] is None:
            return
        self._tick_at[lane] = None
        self._renew_leases()
        self.followers[lane].tick(self.clock())
        self.store.tend()
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
            self._renew_ns = now + self.keeper.renew_every_ns
            for lane, script, keys, arguments in self.keeper.renewals(now):
                if self.followers[lane].is_live:
                    self.followers[lane].run(script, keys, arguments)
                    self._follow_up(lane)

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """What the tier's ears do."""
        return self.followers[lane].await_key(lane, encoded, woken)

    def unawait(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Likewise."""
        self.followers[lane].unawait(lane, encoded, woken)

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Likewise."""
        self._watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        """Likewise."""
        self._watched.pop(wid, None)

    def expect(self, wid: int) -> None:
        """No news is too early here: a simulated message takes no turn of anybody's."""

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

    # -- the driver's part

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
            self.world.at(self.world.now + _CONNECT_NS, self.post, pending.client.refused, pending)
            return
        self._links += 1
        DataLink(self.world, self, shard, self._links).open(pending, _CONNECT_NS)

    def release(self, link: DataLink) -> None:
        """A connection is idle again."""
        self.pools[link.shard.number].append(link)

    def work(self, make: Callable[[], Any]) -> Worker:
        """Have steps carried out in the background."""
        self._workers_made += 1
        worker = Worker(self, -1 - self._workers_made)
        self.workers.append(worker)
        worker.begin(make)
        return worker

    def data_links(self) -> list[DataLink]:
        """All open data connections."""
        return [
            link
            for shard in self.shards
            for server in shard.servers
            for link in server.links
            if isinstance(link, DataLink) and link.process is self
        ]

    # -- life

    def fork(self) -> None:
        """Go on as a child of itself: threads and connections stay behind with the parent, memory comes along."""
        self._leave_threads()
        self.checker.forked(self)
        # The cache's own method, on the parts of a cache that there are here.
        stand_in = SimpleNamespace(
            _driver=SimpleNamespace(after_fork=lambda: None),
            _tier=self.tier,
            _runner=SimpleNamespace(after_fork=lambda: None),
            _scribe=None,
            _upkeep=self.keeper,
            _membership=SimpleNamespace(after_fork=lambda: None),
            _endpoints=self.shards,
            _listener=SimpleNamespace(after_fork=self._forget_watched),
            _horizon=self.horizon,
            _sampling=None,
            reset_pending=self.store.reset_pending,
        )
        TieredCache._after_fork(stand_in)  # type: ignore[arg-type]  # as it says
        self._come_back()
        self._failures = [0] * len(self.shards)
        self._tick_at = [None] * len(self.shards)
        for lane in range(len(self.shards)):
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self.incarnation)

    def _forget_watched(self) -> None:
        self._watched.clear()
        for follower in self.followers:
            follower.after_fork()

    def restart(self) -> None:
        """Die, and be started anew with an empty store."""
        self._leave_threads()
        self.checker.gone(self)
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


class OldCopies(StaleCopies):
    """What may be served although nobody can be asked; what is served is told to the checker."""

    def __init__(self, lanes: list[Any], allowed_ns: int, process: Process) -> None:
        super().__init__(lanes, allowed_ns)
        self._process = process

    def find(self, store: Store[Any, Any], key: Any, lane: int, now_ns: int, default: Any) -> Any:
        """See :class:`StaleCopies`."""
        value = super().find(store, key, lane, now_ns, default)
        if value is not default:
            self._process.checker.old_copy(self._process, key, value)
        return value


class L1(Store[Any, Any]):
    """The store, with what a cache adds to it: a word with the old copies first. See :class:`TieredCache`."""

    old: StaleCopies | None = None
    clock: Callable[[], int]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kept_ns: dict[Any, int] = {}

    def finish(self, op: Any, *arguments: Any) -> bool:
        """See :class:`Store`. It is noted when."""
        self.kept_ns[op.key] = self.clock()
        return super().finish(op, *arguments)

    def lane_vouch(self, lane: int, until_ns: int) -> None:
        """See :class:`Store`."""
        if self.old is not None:
            self.old.vouched(lane, until_ns)
        super().lane_vouch(lane, until_ns)

    def lane_suspect(self, lane: int) -> None:
        """See :class:`Store`."""
        if self.old is not None:
            self.old.suspected(lane, self.lane_stamp(lane), self.clock())
        super().lane_suspect(lane)


class Keeper(Upkeep):
    """The cache's upkeep, which pays in the simulation's way of having threads."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.tier, None)  # type: ignore[arg-type]  # nobody runs anything with it
        self._process = process

    def vouched(self, lane: int) -> None:
        """The lane is well: pay what is owed on it."""
        if self._tier.journals[lane].owes:
            self._process.payer.pay(lane)
