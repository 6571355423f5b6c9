"""One simulation from its seed to its verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final

from simulation.behind import lay_behind, writing_by
from simulation.checkers import Checker
from simulation.faults import Fault, draw, draw_losses, draw_newest, draw_strays, heal, inflict
from simulation.flushing import flush_at_the_end
from simulation.further import enrich
from simulation.gathering import fill
from simulation.locking import decide
from simulation.process import Client, Process
from simulation.resharding import Operator, resharding
from simulation.server import SHARD_NAMES, Shard
from simulation.through import write_more
from simulation.workload import Operation, Profile
from simulation.world import MS, S, Violation, World

_MANY_KEYS: Final = 24
#: Longest time to recover in: what reconnecting may wait at most, and then some.
_RECOVERY_NS: Final = 4 * S
#: In one of four of the seeds from here on the list of shards changes.
MOVING_FROM: Final = 2_000_000
#: Two in three of the seeds from here on do more. Those below are as they were when some of them found something.
RICHER_FROM: Final = 1_000_000
#: In those from here on many keys are loaded at a time, too, and read by their age.
FULLER_FROM: Final = 80_000_000
#: In those from here on the whole source changes now and then.
IMPORTING_FROM: Final = 90_000_000
#: In those from here on the verbs of a cache that writes through ask the loader, under a lock; changes are confirmed by
#: replicas while the list of shards changes, too; and there are faults that others do not know.
NEWEST_FROM: Final = 300_000_000
#: In those from here on caches that write behind are flushed, and dead letters are put back; and in some of them leases
#: and locks are not renewed, or not always.
FLUSHING_FROM: Final = 500_000_000
#: In one of four of those from here on the cache is cleared often, and many answers are lost.
CLEARING_FROM: Final = 1_500_000_000
#: In those from here on addresses are led astray.
STRAYING_FROM: Final = 3_000_000_000
#: Among busy kinds of operations: under ``consistency="lane"``.
ORDERED: Final = "ordered"
#: Among busy kinds of operations: the list of shards changes often, and without a pause between the steps.
HASTY: Final = "hasty"
#: Likewise: many keys, so that each is changed seldom.
WIDE: Final = "wide"
#: Likewise: a process begins to follow up to B after it has learned that it is behind.
TARDY: Final = "tardy"
#: Likewise: at first loaders often take several times B.
PONDERING: Final = "pondering"
#: Likewise: with ``ack="replica"``.
CONFIRMED: Final = "confirmed"
#: Likewise: a cache that writes behind.
BEHIND: Final = "behind"
#: What is said of a run beside kinds of operations.
_SAID: Final = (ORDERED, HASTY, WIDE, TARDY, PONDERING, CONFIRMED)


@dataclass(frozen=True)
class Plan:
    """All that a seed determines beforehand.

    Attributes:
        seed: Of the run.
        profile: Its settings.
        operations: ``(process, client, operation)``, each client's in its order.
        faults: By time.
    """

    seed: int
    profile: Profile
    operations: list[tuple[int, int, Operation]]
    faults: list[Fault]

    @classmethod
    def of(cls, seed: int, shards: int | None = None, busy: Sequence[str] = ()) -> Plan:
        """Draw it; ``shards`` fixes their number; of ``busy`` kinds of operations there are many."""
        world = World(seed)
        profile = Profile.draw(world.stream("profile"))
        if WIDE in busy:
            profile.keys = [f"k{n}" for n in range(_MANY_KEYS)]
        if seed >= FULLER_FROM:
            fill(profile, world.stream("fuller"))
            write_more(profile, world.stream("through"), imports=seed >= IMPORTING_FROM)
        if seed >= NEWEST_FROM:
            decide(profile, world.stream("deciding"))
        if seed >= RICHER_FROM and (busy or seed % 3) and BEHIND not in busy:
            enrich(profile, world.stream("further"), [kind for kind in busy if kind not in _SAID])
            profile.ordered = ORDERED in busy if busy else world.stream("consistency").random() < 0.3
        if shards is not None:
            profile.shards = shards
        if "reshard" in busy or (seed >= MOVING_FROM and seed % 4 == 0 and BEHIND not in busy):
            profile.moves = True
            confirmed = CONFIRMED in busy if busy else world.stream("confirmed").random() < 0.5
            profile.ack_ms = 50 if seed >= NEWEST_FROM and confirmed else 0
            profile.length_ns = max(profile.length_ns, 5 * profile.bound_ns)
            profile.hasty, profile.tardy, profile.pondering = HASTY in busy, TARDY in busy, PONDERING in busy
        if seed >= NEWEST_FROM and not profile.moves:
            rng = world.stream("behind")
            if BEHIND in busy if busy else rng.random() < 0.2:
                lay_behind(profile, rng, busy, later=seed >= FLUSHING_FROM)
        if seed >= FLUSHING_FROM:
            rng = world.stream("renewing")
            profile.renewing = rng.choice([1.0, 1.0, 1.0, 0.5, 0.0])
            profile.pondering = profile.pondering or (profile.renewing < 1 and rng.random() < 0.5)
        clears = seed >= CLEARING_FROM and world.stream("clearing").random() < 0.25
        if clears:
            profile.weights["clear"] = 0.1 * sum(profile.weights.values())
        rng = world.stream("operations")
        operations = [
            (process, client, profile.operation(rng))
            for process in range(profile.processes)
            for client in range(profile.clients)
            for _ in range(profile.operations)
        ]
        faults = draw(world.stream("faults"), profile.faults, profile.length_ns, later=seed >= RICHER_FROM)
        if seed >= NEWEST_FROM and profile.faults:
            faults = sorted(faults + draw_newest(world.stream("newest faults"), profile.length_ns))
        if seed >= STRAYING_FROM and profile.faults:
            faults = sorted(faults + draw_strays(world.stream("strays"), profile.length_ns))
        if clears and profile.faults:
            faults = sorted(faults + draw_losses(world.stream("lost answers"), profile.length_ns))
        return cls(seed, profile, operations, _with_moves(seed, profile, faults))

    @classmethod
    def under(cls, seed: int, kinds: Sequence[str], busy: Sequence[str] = ()) -> Plan:
        """Draw a run under these kinds of faults only."""
        plan = cls.of(seed, busy=busy)
        rng = World(seed).stream("chosen faults")
        length = plan.profile.length_ns
        faults = sorted(
            fault._replace(kind=rng.choice(kinds))
            for fault in draw(rng, 12 if kinds else 0, length, later=seed >= RICHER_FROM)
            if kinds
        )
        return cls(seed, plan.profile, plan.operations, _with_moves(seed, plan.profile, faults))

    def only(self, operations: Collection[int], faults: Collection[int]) -> Plan:
        """The same with these operations and faults only, by their places."""
        return Plan(
            self.seed,
            self.profile,
            [each for place, each in enumerate(self.operations) if place in operations],
            [each for place, each in enumerate(self.faults) if place in faults],
        )


def _with_moves(seed: int, profile: Profile, faults: list[Fault]) -> list[Fault]:
    """The faults, and the changes of the list of shards."""
    if not profile.moves:
        return faults
    rng = World(seed).stream("moves")
    moves = [
        Fault(int(rng.random() ** 2 * profile.length_ns), "reshard", 0, 0, 0.0, rng.getrandbits(32))
        for _ in range(rng.choice([3, 4, 5] if profile.hasty else [1, 1, 2, 3]))
    ]
    return sorted(faults + moves)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        events: How many there were.
        calls: How many of them were calls of the cache.
        digest: Hash of all of them.
        violation: Which promise was broken; None if none was.
        crash: What else went wrong, in the simulation or in the code under it.
        counts: How often each rule was looked at.
        faults: How many of each kind there were.
        lines: The trace, if it was asked for.
    """

    events: int
    calls: int
    digest: int
    violation: Violation | None
    crash: Exception | None
    counts: dict[str, int]
    faults: dict[str, int]
    lines: list[str]

    @property
    def failed(self) -> bool:
        """Whether anything was wrong."""
        return self.violation is not None or self.crash is not None


class Simulation:
    """A world with its shards and processes."""

    def __init__(self, plan: Plan, *, verbose: bool = False) -> None:
        self.plan = plan
        self.profile = profile = plan.profile
        self.world = world = World(plan.seed, verbose=verbose)
        self.checker = Checker(world, profile)
        count = len(SHARD_NAMES) if profile.moves else profile.shards
        self.shards = self.checker.shards = [Shard(world, self.checker, number) for number in range(count)]
        used = self.shards[: profile.shards]
        self.processes = [Process(world, self.checker, used, n, profile) for n in range(profile.processes)]
        self.checker.a_process = self.processes[0]
        self.operator = Operator(self, SHARD_NAMES[: profile.shards])
        for process in self.processes if profile.moves else ():
            process.opener = self.operator.opens
            process.opener(process)
        for process in self.processes:
            for number in range(profile.clients):
                mine = [each for p, c, each in plan.operations if (p, c) == (process.number, number)]
                process.clients.append(Client(process, number, mine))
        for fault in plan.faults:
            world.at(world.now + fault.at_ns, inflict, self, fault)

    def later(self, span_ns: int, run: Callable[..., None], *arguments: Any) -> None:
        """Do something after a while."""
        self.world.at(self.world.now + span_ns, run, *arguments)

    def run(self) -> None:
        """Run to the end. Raises Violation."""
        world, profile = self.world, self.profile
        start = world.now
        world.run(start + profile.length_ns)
        world.say("== the faults are over")
        heal(self)
        flush_at_the_end(self.processes)
        limit = world.now + 12 * profile.bound_ns + _RECOVERY_NS
        while world.now < limit and not self._is_done():
            world.run(world.now + profile.bound_ns)
            heal(self)
        for more_ns in (60 * S, 600 * S):  # much writing takes its time
            if not self._is_done():
                world.run(limit + more_ns)
        # What is stale may be served for B more, and must be gone then.
        for _ in range(20):
            world.run(world.now + profile.bound_ns + 1 + MS)
            if self._is_calm():
                break
        self.checker.quiet(self.processes)
        self.checker.settle_queues()

    def end(self) -> None:
        """Leave no thread behind."""
        for process in self.processes:
            for handoff in process.asides:
                handoff.end()

    def _is_done(self) -> bool:
        return (
            all(
                client.current is None and client.done == len(client.operations)
                for process in self.processes
                for client in process.clients
            )
            and not any(process.paused or process.is_busy or not process.is_open for process in self.processes)
            and (not self.profile.moves or self.operator.is_done)
            and self.checker.is_all_written
        )

    def _is_calm(self) -> bool:
        return all(
            process.store.lane_fresh_until(lane) > process.clock() and not process.tier.journals[lane].owes
            for process in self.processes
            for lane in process.tier.active
        )


def simulate(plan: Plan, *, verbose: bool = False) -> Outcome:
    """Carry out a plan."""
    violation: Violation | None = None
    crash: Exception | None = None
    with resharding(), writing_by(World(plan.seed).stream("scribes").random):
        simulation = Simulation(plan, verbose=verbose)
        world = simulation.world
        with world.in_charge():
            try:
                copy_context().run(simulation.run)
            except Violation as error:
                violation = error
            except Exception as error:
                crash = error
            simulation.end()
    faults: dict[str, int] = {}
    for fault in plan.faults:
        faults[fault.kind] = faults.get(fault.kind, 0) + 1
    return Outcome(
        events=world.events,
        calls=sum(client.done for process in simulation.processes for client in process.clients),
        digest=world.digest,
        violation=violation,
        crash=crash,
        counts=simulation.checker.counts,
        faults=faults,
        lines=world.lines or [],
    )
