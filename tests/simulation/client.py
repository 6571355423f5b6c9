"""A simulated thread: it carries out the real steps, one operation after the other.

What :class:`nearcache.loading.ThreadRunner` does by blocking is done here by events: exchanges over simulated
connections, loaders that take virtual time, and waiting for others of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nearcache._asking import has_error
from nearcache.absence import ABSENT
from nearcache.errors import ShardError, ShardUnavailableError
from nearcache.flights import ABANDONED, Signal, strand
from nearcache.l2 import Reply
from nearcache.loading import pay
from nearcache.loading.moving import Spread, heed
from nearcache.loading.observing import Observing
from nearcache.loading.steps import Await, Call, JoinLoad, JoinRead, Spawn
from simulation.network import Pending
from simulation.promises import WriterFailed
from simulation.server import Server, Shard
from simulation.world import MS, START_NS, Violation

if TYPE_CHECKING:
    from simulation.process import Process
    from simulation.workload import Operation


class Client:
    """One thread of a process: it carries out operations one after the other.

    Attributes:
        tier: What the operation began with.
        turn: Counts what it has begun: answers of an earlier turn are nobody's.
        seen: By lane, the server that answered last and where its history stood.
        asked: By lane, all servers that have answered.
        told: By lane, the server that answered whoever was waited for.
        joined, joined_load: Whether the operation waited for another's read or load.
        was_failed: Whether a server has not answered it, or with an error.
        loading_ns: How long the operation's own loaders take.
        awaited_ns: How long it has waited for other processes' loaders.
    """

    #: Whether what servers answer is noted by the process.
    observes = True

    def __init__(self, process: Process, number: int, operations: list[Operation]) -> None:
        self.process = process
        self.world = process.world
        self.number = number
        self.operations = operations
        self.turn = 0
        self.done = 0
        self.tier: Any = None
        self.seen: dict[int, tuple[Server, int]] = {}
        self.told: dict[int, Server] = {}
        self.asked: dict[int, list[Server]] = {}
        self.current: Any = None  # the check of the operation under way
        self.steps: Any = None
        self.joined = False
        self.joined_load = False
        self.was_failed = False
        self.loading_ns = 0
        self.awaited_ns = 0
        self.last_loads: dict[str, Any] = {}
        self._left_ns = 0
        self._asked_ns = 0
        self._answers: list[Any] = []
        self._missing = 0
        self._on_reply: Any = None
        self._spread: Spread | None = None
        self._observing: Observing | None = None
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

    def answerers(self) -> dict[int, Server]:
        """By lane, who has answered last, to this client or to one that it waited for."""
        return self.told | {lane: server for lane, (server, _) in self.seen.items()}

    def vanish(self) -> None:
        """The thread is no more; what it had under way stays as it is, and is neither ended nor given up."""
        self.turn += 1
        if self.steps is not None:
            self._orphans.append(self.steps)
            self.steps = None
        self.current = None

    # -- an operation

    def _begin(self, turn: int) -> None:
        if turn != self.turn or not self.process.is_open:
            return
        operation = self.operations[self.done]
        self.done += 1
        self.turn += 1
        self.seen.clear()
        self.told = {}
        self.asked.clear()
        self.tier = self.process.tier
        self.joined = self.joined_load = self.was_failed = False
        self.loading_ns = self.awaited_ns = 0
        self._left_ns = self.process.profile.timeout_ns
        strand.set(self)  # a load is its client's from the call on
        self.current = operation.start(self)
        if self.current.steps is None:  # L1 had it all
            self._end(None, None)
            return
        self.steps = self.current.steps
        self._go_on(self.steps.send, None)

    def _go_on(self, move: Callable[[Any], Any], answer: Any) -> None:
        strand.set(self)  # all clients run in one thread, and flights tell threads apart
        try:
            request = move(answer)
        except StopIteration as stop:
            if self.observes:
                self.process.checker.observed(self)
            self._end(stop.value, None)
        except Violation:
            raise
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
        self._on_reply = getattr(request, "on_reply", None)
        if isinstance(request, list):
            self._observing = None
            self._ask(request)
        elif kind is Call and hasattr(self.current, "commit") and self.current.is_write(request):
            self._write()
        elif kind is Call:
            self._load(request)
        elif kind is JoinRead:
            self._join_read(request.read)
        elif kind is JoinLoad:
            self._join_load(request.load)
        elif kind is Await:
            self._await(request)
        elif kind is Spawn:
            self.process.work(request.make)
            self._later(self._resume, True)
        else:
            raise AssertionError(f"the simulation does not know how to do {request!r}")

    def _ask(self, request: list[Any]) -> None:
        """As the runner has it, which lets both owners of a key hear of a change."""
        tier = self.process.tier
        self._spread = None
        if tier.observed is not None:
            self._observing = Observing(tier, request)
            request = self._observing.exchanges
        if tier.is_changing:
            self._spread = Spread(tier, request)
            request = self._spread.exchanges
        self._send(request)

    def _send(self, request: list[Any]) -> None:
        deadline = self.world.now + self._left_ns
        self._answers = [None] * len(request)
        self._missing = len(request)
        for place, exchange in enumerate(request):
            pending = Pending(self, place, exchange.commands, deadline)
            pending.lane = exchange.shard
            self.process.send(pending)
        if not request:
            self._later(self._resume, [])

    def _heed(self) -> None:
        """All answers are there."""
        if self._spread is not None:
            self._answers = self._spread.gathered(self._answers)
        heed(self.process.tier, self._answers)

    def answered(self, pending: Pending, reply: Any, server: Server) -> None:
        """An exchange has its reply, or its error."""
        if pending.turn != self.turn:
            return
        if not all(getattr(command[0], "name", "") == "abort" for command in pending.commands):
            self.seen[pending.lane] = (server, pending.sequence)  # who gives something back learns nothing of its key
        self.asked.setdefault(pending.lane, []).append(server)
        if self._observing is not None and pending.place < len(self._observing.exchanges):
            reply = self._observing.heard(pending.place, reply)
        self.was_failed = self.was_failed or not isinstance(reply, Reply) or has_error(reply.values, ShardError)
        self._answers[pending.place] = reply
        if self._on_reply is not None and self._missing > 1 and self._spread is None and self._random.random() < 0.5:
            try:
                self._on_reply(pending.place, reply)
            except Exception as error:
                self.turn += 1  # what else is answered concerns nobody
                self._throw(self.turn, error)
                return
        self._missing -= 1
        if self._missing == 0:
            self._left_ns = max(0, self._left_ns - (self.world.now - self._asked_ns))
            if self.process.profile.moves:
                self._heed()
            if self._random.random() < 0.3:  # another thread of the process runs first
                self._later(self._resume, self._answers)
            else:
                self._resume(self.turn, self._answers)

    def refused(self, pending: Pending, shard: Shard) -> None:
        """Nobody listens there."""
        if not pending.done:
            pending.done = True
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
        checker = self.process.checker
        took, read_at = self._takes(is_load=True)
        keys = request.key if request.key.__class__ is list else [request.key]
        calls = [checker.load_begins(self, key) for key in keys]
        self.loading_ns += took
        self.last_loads.update(zip(keys, calls, strict=True))
        self.world.at(self.world.now + read_at, self.process.post, self._read_source, self.turn, calls)
        self.world.at(self.world.now + took, self.process.post, self._loaded, self.turn, request, calls)

    def _takes(self, *, is_load: bool = False) -> tuple[int, int]:
        """How long a call of the user's code takes, and after what time of that it reads, or changes, the source."""
        profile, chance = self.process.profile, self._random.random()
        took = int((0.5 + self._random.random()) * profile.load_ns * (20 if chance < 0.05 else 1))
        if is_load and profile.pondering and chance < 0.5 and self.world.now < START_NS + 2 * profile.bound_ns:
            took = int((2 + 4 * chance) * profile.bound_ns)
        return took, int(took * self._random.random())

    def _write(self) -> None:
        """A writer is called. It may fail before it has changed the source, and after that."""
        took, change_at = self._takes()
        self.loading_ns += took
        chance, failures = self._random.random(), self.process.profile.load_failures
        if chance >= failures / 2:
            self.world.at(self.world.now + change_at, self.process.post, self._change_source, self.turn)
        self.world.at(self.world.now + took, self.process.post, self._written, self.turn, chance < failures)

    def _change_source(self, turn: int) -> None:
        if turn == self.turn:
            self.current.commit(self)

    def _written(self, turn: int, fails: bool) -> None:
        if fails:
            self._throw(turn, WriterFailed())
        else:
            self._resume(turn, None)

    def _read_source(self, turn: int, calls: list[Any]) -> None:
        for call in calls if turn == self.turn else ():
            call.read()

    def _loaded(self, turn: int, request: Call, calls: list[Any]) -> None:
        if turn != self.turn or self.steps is None:
            return
        values = {call.key: call.end() for call in calls}
        error = next((value for value in values.values() if isinstance(value, Exception)), None)
        if error is not None:
            self._throw(turn, error)
        elif request.key.__class__ is list:  # a loader of many leaves out what there is not
            self._resume(turn, {key: value for key, value in values.items() if value is not ABSENT})
        else:
            self._resume(turn, values[request.key])

    # -- waiting for others of the process

    def _join_read(self, read: Any) -> None:
        turn, lock = self.turn, self.process.tier.lock
        asker = self.process.store.askers.get(read)
        self.joined = True

        def woken(_: Any = None) -> None:
            if turn == self.turn and not joined:
                joined.append(True)
                if asker is not None and read.outcome is not ABANDONED:
                    self.told.update(asker.answerers())
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
                self.told.update(load.owner.answerers())
                self._later(self._collect, load, woken)

        loads.join(load, woken)

    def _await(self, request: Any) -> None:
        turn, asked_ns = self.turn, self.world.now

        def woken() -> None:
            if turn == self.turn and not over:
                over.append(True)
                request.signal.remove_done_callback(woken)
                self.awaited_ns += self.world.now - asked_ns
                self._later(self._resume, request.signal.is_set())

        over: list[bool] = []
        self.world.at(asked_ns + int(request.seconds * 1e9), self.process.post, woken)
        request.signal.add_done_callback(woken)

    def _collect(self, turn: int, load: Any, woken: Callable[[], None]) -> None:
        if turn != self.turn or self.steps is None:
            return
        strand.set(self)
        self.process.tier.loads.leave(load, woken)
        try:
            value = load.outcome()
        except Exception as error:
            self._throw(turn, error)
        else:
            self._resume(turn, value)


class Payer(Client):
    """The thread that makes up for what the process owes."""

    def __init__(self, process: Process) -> None:
        super().__init__(process, -1, [])
        self.lane: int | None = None

    def __repr__(self) -> str:
        return f"{self.process}'s payer"

    def rest(self) -> None:
        """Be at nobody's call."""

    def vanish(self) -> None:
        super().vanish()
        self.lane = None

    def pay(self, lane: int) -> None:
        """Pay what is owed on a lane, unless that is happening."""
        if self.lane is None:
            self.lane = lane
            self._later(self._start)

    def _start(self, turn: int) -> None:
        if turn != self.turn or self.lane is None:
            return
        self.turn += 1
        self._left_ns = self.process.profile.timeout_ns
        self.steps = pay(self.process.tier.now, self.lane)
        self._go_on(self.steps.send, None)

    def _end(self, value: Any, error: Exception | None) -> None:
        self.steps = None
        self.turn += 1
        lane, self.lane = self.lane, None
        if lane is not None:
            self.process.keeper.paid(lane)
        if error is not None:
            raise error
        self.world.say(f"{self} has {'paid' if value else 'not paid'} on lane {lane}")


class Errand:
    """What a worker does, in the place of an operation."""

    def __init__(self, worker: Worker) -> None:
        self.client = worker
        self.incarnation = worker.process.incarnation
        self.versions: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"{self.client}"


class Worker(Client):
    """A thread for what goes on in the background: one piece of work, and then it ends.

    Attributes:
        lasts: Whether it does not end before its process.
        ended: Set when it is over.
        value, error: What came of it.
    """

    lasts = False

    def __init__(self, process: Process, number: int) -> None:
        super().__init__(process, number, [])
        self.ended = Signal()
        self.value: Any = None
        self.error: Exception | None = None

    def __repr__(self) -> str:
        return f"{self.process}'s worker {self.number}"

    def rest(self) -> None:
        """It has one piece of work only."""

    def excuses(self, error: Exception) -> bool:
        """Whether it may end like this."""
        return self.process.checker.may_fail(error)

    def begin(self, make: Callable[[], Any]) -> None:
        """Start the thread."""
        self._later(self._start, make)

    def _start(self, turn: int, make: Callable[[], Any]) -> None:
        if turn != self.turn:
            return
        self.turn += 1
        self._left_ns = self.process.profile.timeout_ns
        self.current = Errand(self)
        self.tier = self.process.tier
        strand.set(self)
        self.steps = make()
        self._go_on(self.steps.send, None)

    def _end(self, value: Any, error: Exception | None) -> None:
        self.steps = self.current = None
        self.turn += 1
        self.process.workers.remove(self)
        self.value, self.error = value, error
        if error is not None and not self.excuses(error):
            raise error
        self.ended.set()
