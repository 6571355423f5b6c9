"""One simulated process: the real store, tier and followers, and clients that carry out the real steps.

What a listener's thread and a driver do with sockets is done here with simulated connections. Everything that the
process does comes through :meth:`Process.post`, so that a process can be stopped and go on later, as by SIGSTOP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from nearcache._store import Store
from nearcache.bus.follower import Followed, Follower
from nearcache.cache.tiered import TieredCache
from nearcache.clocks import TICK_NS
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.errors import ShardUnavailableError
from nearcache.l2 import load_script
from nearcache.loading import Tier
from nearcache.loading.steps import Call, JoinLoad, JoinRead
from simulation.network import BusLink, DataLink, Pending
from simulation.server import Server, Shard
from simulation.world import MS, US, World

if TYPE_CHECKING:
    from simulation.checkers import Checker
    from simulation.workload import Operation, Profile

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
        self.recent: list[deque[bytes]] = [deque(maxlen=8) for _ in shards]
        self.buses: list[BusLink | None] = [None] * len(shards)
        self.pools: list[list[DataLink]] = [[] for _ in shards]
        self._held_back: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._links = 0
        self._incarnation = 0
        self._random = world.stream(f"process {number}")
        self._open()

    def __repr__(self) -> str:
        return f"p{self.number}"

    def _open(self) -> None:
        """What a process has after it has opened its cache."""
        count, profile = len(self.shards), self.profile
        self.store: Store[Any, Any] = Store(profile.maxsize, lanes=count, policy=profile.policy)
        self.tier = Tier(
            namespace="sim",
            shard_names=[shard.name for shard in self.shards],
            codec=ValueCodec(SafeCodec(), 1 << 20),
            ttl_ms=profile.ttl_ms,
            bound_ns=profile.bound_ns,
            clock=self.clock,
        )
        self.followers = [
            Follower(
                lambda: self.store,
                [Followed(lane, self.tier.lanes[lane], self.tier.names[lane])],
                self.heartbeat,
                uniform=self._random.uniform,
                nonce=lambda: b"%016x" % self._random.getrandbits(64),
                watched={},
            )
            for lane in range(count)
        ]
        self._failures = [0] * count
        self._tick_at: list[int | None] = [None] * count
        for lane in range(count):
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self._incarnation)

    # -- time and turns

    def clock(self) -> int:
        """The precise monotonic clock of this machine."""
        return self.world.now - self.slept_ns

    def post(self, run: Callable[..., None], *arguments: Any) -> None:
        """Do this in the process, now, or when it goes on."""
        if self.paused:
            self._held_back.append((run, arguments))
            return
        now = self.world.now - self.slept_ns
        self.store.set_clock(now - now % TICK_NS)
        run(*arguments)

    def pause(self) -> None:
        """Stop."""
        self.paused = True

    def resume(self, slept_ns: int = 0, stopped_ns: int = 0) -> None:
        """Go on: what has come meanwhile is dealt with by many threads, so in no particular order among them.

        Args:
            slept_ns: For how long the monotonic clock stood still meanwhile. The listener notices at its next turn,
                which comes before anything else here: that a hit may come first is a documented limit.
            stopped_ns: For how long the process was paused.
        """
        if not self.paused:
            return
        self.paused = False
        self.stopped_ns += stopped_ns
        self.slept_ns += slept_ns
        now = self.clock()
        self.store.set_clock(now - now % TICK_NS)
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
        if incarnation != self._incarnation or self.buses[lane] is not None:
            return
        shard = self.shards[lane]
        if shard.unreachable or not shard.route(self.number, "bus").running:
            self._back_off(lane)
            return
        self._links += 1
        link = BusLink(self.world, self, shard, self._links)
        self.buses[lane] = link
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
            self.followers[lane].lost("the server closed the connection")
            self._follow_up(lane)

    def _tick(self, lane: int, when_ns: int) -> None:
        if self._tick_at[lane] != when_ns or self.buses[lane] is None:
            return
        self._tick_at[lane] = None
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

    def _back_off(self, lane: int) -> None:
        self._failures[lane] += 1
        pause = min(_BACKOFF_MOST_NS, _BACKOFF_FIRST_NS * 2 ** min(self._failures[lane] - 1, 10))
        pause = int(pause * (0.5 + self._random.random() / 2))
        self.world.at(self.world.now + pause, self.post, self._connect_bus, lane, self._incarnation)

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
        if shard.unreachable or not shard.route(self.number, "data").running:
            self.world.at(self.world.now + _CONNECT_NS, self.post, pending.client.refused, pending)
            return
        self._links += 1
        DataLink(self.world, self, shard, self._links).send(pending, _CONNECT_NS)

    def release(self, link: DataLink) -> None:
        """A connection is idle again."""
        self.pools[link.shard.number].append(link)

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
        # The cache's own method, on the parts of a cache that there are here.
        stand_in = SimpleNamespace(
            _driver=SimpleNamespace(after_fork=lambda: None),
            _tier=self.tier,
            _endpoints=self.shards,
            _listener=SimpleNamespace(after_fork=lambda: [follower.after_fork() for follower in self.followers]),
            reset_pending=self.store.reset_pending,
            lane_attach=self.store.lane_attach,
            lane_dark=self.store.lane_dark,
            lane_suspect=self.store.lane_suspect,
        )
        TieredCache._after_fork(stand_in)  # type: ignore[arg-type]  # as it says
        self._come_back()
        self._failures = [0] * len(self.shards)
        self._tick_at = [None] * len(self.shards)
        for lane in range(len(self.shards)):
            self.world.at(self.world.now + 1, self.post, self._connect_bus, lane, self._incarnation)

    def restart(self) -> None:
        """Die, and be started anew with an empty store."""
        self._leave_threads()
        self.checker.gone(self)
        self._open()
        self._come_back()

    def _leave_threads(self) -> None:
        self._incarnation += 1
        self.paused = False
        self._held_back = []
        for link in self.data_links():
            link.close()
        for lane, bus in enumerate(self.buses):
            if bus is not None:
                bus.close()
            self.buses[lane] = None
        self.pools = [[] for _ in self.shards]
        for client in self.clients:
            client.vanish()

    def _come_back(self) -> None:
        for client in self.clients:
            client.rest()


class Client:
    """One thread of a process: it carries out operations one after the other.

    Attributes:
        turn: Counts what it has begun: answers of an earlier turn are nobody's.
        seen: By lane, the server that answered last and where its history stood.
        joined, joined_load: Whether the operation waited for another's read or load.
        loading_ns: How long the operation's own loaders take.
    """

    def __init__(self, process: Process, number: int, operations: list[Operation]) -> None:
        self.process = process
        self.world = process.world
        self.number = number
        self.operations = operations
        self.turn = 0
        self.done = 0
        self.seen: dict[int, tuple[Server, int]] = {}
        self.current: Any = None  # the check of the operation under way
        self.steps: Any = None
        self.joined = False
        self.joined_load = False
        self.loading_ns = 0
        self._left_ns = 0
        self._asked_ns = 0
        self._answers: list[Any] = []
        self._missing = 0
        self._orphans: list[Any] = []
        self._random = self.world.stream(f"client {process.number} {number}")
        self.rest()

    def __repr__(self) -> str:
        return f"{self.process}.{self.number}"

    def rest(self) -> None:
        """Think, and begin the next operation."""
        if self.done < len(self.operations):
            think = self.operations[self.done].think_ns
            self.world.at(self.world.now + think, self.process.post, self._begin, self.turn)

    def vanish(self) -> None:
        """The thread is no more; what it had under way stays as it is, and is neither ended nor given up."""
        self.turn += 1
        if self.steps is not None:
            self._orphans.append(self.steps)
            self.steps = None
        self.current = None

    # -- an operation

    def _begin(self, turn: int) -> None:
        if turn != self.turn:
            return
        operation = self.operations[self.done]
        self.done += 1
        self.turn += 1
        self.seen.clear()
        self.joined = self.joined_load = False
        self.loading_ns = 0
        self._left_ns = self.process.profile.timeout_ns
        self.current = operation.start(self)
        if self.current.steps is None:  # L1 had it all
            self._end(None, None)
            return
        self.steps = self.current.steps
        self._go_on(self.steps.send, None)

    def _go_on(self, move: Callable[[Any], Any], answer: Any) -> None:
        try:
            request = move(answer)
        except StopIteration as stop:
            self._end(stop.value, None)
        except Exception as error:
            self._end(None, error)
        else:
            self._perform(request)

    def _end(self, value: Any, error: Exception | None) -> None:
        self.steps = None
        self.turn += 1
        current, self.current = self.current, None
        current.finish(self, value, error)
        self.rest()

    def _perform(self, request: Any) -> None:
        self._asked_ns = self.world.now
        kind = request.__class__
        if kind is list:
            deadline = self.world.now + self._left_ns
            self._answers = [None] * len(request)
            self._missing = len(request)
            for place, exchange in enumerate(request):
                pending = Pending(self, place, exchange.commands, deadline)
                pending.lane = exchange.shard
                self.process.send(pending)
            if not request:
                self._later(self._resume, [])
        elif kind is Call:
            self._load(request)
        elif kind is JoinRead:
            self._join_read(request.read)
        elif kind is JoinLoad:
            self._join_load(request.load)
        else:
            raise AssertionError(f"the simulation does not know how to do {request!r}")

    def answered(self, pending: Pending, reply: Any, server: Server) -> None:
        """An exchange has its reply, or its error."""
        if pending.turn != self.turn:
            return
        self.seen[pending.lane] = (server, pending.sequence)
        self._answers[pending.place] = reply
        self._missing -= 1
        if self._missing == 0:
            self._left_ns = max(0, self._left_ns - (self.world.now - self._asked_ns))
            if self._random.random() < 0.3:  # another thread of the process runs first
                self._later(self._resume, self._answers)
            else:
                self._resume(self.turn, self._answers)

    def refused(self, pending: Pending) -> None:
        """Nobody listens there."""
        if not pending.done:
            pending.done = True
            shard = self.process.shards[pending.lane]
            error = ShardUnavailableError(shard.name, "nobody listens", sent=pending.again)
            self.answered(pending, error, shard.primary)

    def _later(self, run: Callable[..., None], *arguments: Any) -> None:
        delay = 1 + int(self._random.random() ** 6 * 5 * MS)
        self.world.at(self.world.now + delay, self.process.post, run, self.turn, *arguments)

    def _resume(self, turn: int, answer: Any) -> None:
        if turn == self.turn and self.steps is not None:
            self._go_on(self.steps.send, answer)

    def _throw(self, turn: int, error: Exception) -> None:
        if turn == self.turn and self.steps is not None:
            self._go_on(self.steps.throw, error)

    # -- loaders

    def _load(self, request: Call) -> None:
        checker, chance = self.process.checker, self._random.random()
        took = int((0.5 + self._random.random()) * self.process.profile.load_ns * (20 if chance < 0.05 else 1))
        read_at = int(took * self._random.random())
        call = checker.load_begins(self, request.key, took)
        self.world.at(self.world.now + read_at, self.process.post, self._read_source, self.turn, call)
        self.world.at(self.world.now + took, self.process.post, self._loaded, self.turn, call)

    def _read_source(self, turn: int, call: Any) -> None:
        if turn == self.turn:
            call.read()

    def _loaded(self, turn: int, call: Any) -> None:
        if turn != self.turn or self.steps is None:
            return
        value = call.end()
        if isinstance(value, Exception):
            self._throw(turn, value)
        else:
            self._resume(turn, value)

    # -- waiting for others of the process

    def _join_read(self, read: Any) -> None:
        turn, lock = self.turn, self.process.tier.lock
        self.joined = True

        def woken(_: Any = None) -> None:
            if turn == self.turn and not joined:
                joined.append(True)
                self._left_ns = max(0, self._left_ns - (self.world.now - self._asked_ns))
                self._later(self._resume, read.outcome)

        joined: list[bool] = []
        self.world.at(self.world.now + self._left_ns, self.process.post, woken, None)
        read.add_done_callback(woken, lock)

    def _join_load(self, load: Any) -> None:
        turn, loads = self.turn, self.process.tier.loads
        self.joined = self.joined_load = True

        def woken() -> None:
            if turn == self.turn:
                loads.leave(load, woken)
                self._later(self._collect, load)

        loads.join(load, woken)

    def _collect(self, turn: int, load: Any) -> None:
        if turn != self.turn or self.steps is None:
            return
        try:
            value = load.outcome()
        except Exception as error:
            self._throw(turn, error)
        else:
            self._resume(turn, value)
