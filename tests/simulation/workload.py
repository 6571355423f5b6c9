"""What the clients do, drawn from the seed, and what each operation has to show for itself when it is over.

The application is a well-behaved one: it changes the source of truth first and invalidates then. Every value is unique,
and every loaded one says which version of the source it was loaded from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple

from nearcache.absence import ABSENT
from nearcache.errors import BulkError, LoadTimeoutError, NotReplicatedError, ShardError
from nearcache.freshness import Freshness
from nearcache.loading import (
    ENDLESS_MS,
    MISSING,
    Loading,
    clear,
    contains,
    invalidate,
    invalidate_many,
    load,
    look,
    read,
    read_many,
    tags_named,
    write,
    write_many,
)
from nearcache.loading.steps import Await
from simulation.checkers import LoaderFailed
from simulation.client import Client, Worker
from simulation.world import MS, US, S

#: Between two turns of a process some time passes that no deadline knows of.
_SLACK_NS: Final = 200 * MS
_NOTHING: Final = object()

#: What changes nothing that was asked for, so that nobody waits for a replica.
_UNCONFIRMED: Final = frozenset({
    "get", "load", "get_many", "contains", "refresh", "token", "wait_for",
    "load_many", "young_load_many", "young_many", "young_load",
})  # fmt: skip
#: What is done with counters too.
_ALSO_COUNTERS: Final = frozenset({"get", "contains", "take", "touch"})

#: Kind -> how often, before the seed has its way.
WEIGHTS: Final = {
    "get": 60,
    "load": 25,
    "update": 10,
    "set": 10,
    "setdefault": 3,
    "get_many": 6,
    "set_many": 3,
    "update_many": 3,
    "held_update": 3,
    "contains": 1,
    "clear": 0.5,
}


@dataclass
class Profile:
    """The settings of one run. Durations in nanoseconds, lifetimes in milliseconds."""

    shards: int
    processes: int
    clients: int
    operations: int
    bound_ns: int
    timeout_ns: int
    length_ns: int
    ttl_ms: int
    maxsize: int | None
    policy: str
    keys: list[str]
    load_ns: int
    lease_ms: int
    load_failures: float
    large: bool
    repeats: float
    faults: int
    weights: dict[str, float] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)
    freshness: Freshness = field(default_factory=Freshness)
    stale_ns: int = 0
    patience_ns: int = 0
    absences: float = 0.0
    lag_ns: int = 0
    ack_ms: int = 0
    moves: bool = False
    hasty: bool = False
    tardy: bool = False
    pondering: bool = False
    ordered: bool = False
    behind: Any = None
    renewing: float = 1.0
    _kinds: list[str] = field(default_factory=list)
    _sums: list[float] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: random.Random) -> Profile:
        """Every run has other settings: some kinds of operation and of fault are frequent in it, others absent."""
        bound = rng.choice([100 * MS, 200 * MS, 500 * MS, 2 * S])
        operations = rng.choice([40, 80, 120])
        return cls(
            shards=rng.choice([1, 1, 2, 3]),
            processes=rng.randint(2, 4),
            clients=rng.randint(1, 3),
            operations=operations,
            bound_ns=bound,
            timeout_ns=rng.choice([bound // 2, bound, 3 * bound]),
            length_ns=rng.randint(2, 8) * bound,
            ttl_ms=rng.choice([ENDLESS_MS, ENDLESS_MS, 3 * bound // MS, bound // MS // 4]),
            maxsize=rng.choice([None, 100, 2]),
            policy=rng.choice(["lru", "adaptive"]),
            keys=[f"k{n}" for n in range(rng.choice([1, 2, 4, 6]))],
            load_ns=rng.choice([200 * US, 5 * MS, bound // 4]),
            lease_ms=rng.choice([2 * bound // MS, 2_000]),
            load_failures=rng.choice([0, 0.05]),
            large=rng.random() < 0.1,
            repeats=rng.choice([0, 0.5]),
            faults=rng.choice([0, 2, 5, 10, 20]),
            weights={kind: weight * rng.choice([0.2, 1, 1, 4]) for kind, weight in WEIGHTS.items()},
        )

    def operation(self, rng: random.Random) -> Operation:
        """Draw one operation."""
        if not self._kinds:
            self._kinds[:] = self.weights
            self._sums[:] = accumulate(self.weights.values())
        (kind,) = rng.choices(self._kinds, cum_weights=self._sums)
        many = kind.endswith("_many")
        many = many or kind == "held_change"
        keys = rng.sample(self.keys, rng.randint(1, len(self.keys))) if many else [rng.choice(self.keys)]
        if self.counters and (kind == "incr" or (kind in _ALSO_COUNTERS and rng.random() < 0.2)):
            keys = self.counters
        think = 0 if rng.random() < 0.3 else rng.expovariate(1) * self.length_ns / self.operations
        return Operation(int(think), kind, tuple(keys))


class Operation(NamedTuple):
    """One call of the cache, after a pause."""

    think_ns: int
    kind: str
    keys: tuple[str, ...]

    def start(self, client: Client) -> Running:
        """Begin; what L1 answers is answered here."""
        running = KINDS[self.kind](client, self)
        running.begin(client)
        return running


class Running:
    """An operation under way.

    Attributes:
        steps: What the client has to carry out; None if that is nothing.
        ends: The keys whose values from before are over when it returns.
        versions: For invalidations: which version of the source makes them necessary, by encoded key.
        incarnation: Which life of the process it belongs to.
        tier: What it began with.
        unconfirmed: Scripts of whose changes it does not say whether a replica has them.
    """

    unconfirmed: tuple[str, ...] = ()

    def __init__(self, client: Client, operation: Operation) -> None:
        process = client.process
        self.client = client
        self.operation = operation
        self.incarnation = process.incarnation
        self.tier = client.tier
        self.begun_ns = process.world.now
        self.stopped_ns = process.stopped_ns
        self.steps: Any = None
        self.is_confirmed = False
        self.versions: dict[bytes, int] = {}
        self.ends: Iterable[str] = ()
        checker = process.checker
        self.floors = {key: checker.floor(process, key) for key in operation.keys}
        self.tag_floors = checker.tag_floors(process) if process.profile.tags else {}
        self.lane_floors = checker.lane_floors(process)

    def __repr__(self) -> str:
        return f"{self.client} {self.operation.kind}({', '.join(self.operation.keys)})"

    def begin(self, client: Client) -> None:
        """Set ``steps``."""
        raise NotImplementedError

    def succeed(self, client: Client, value: Any) -> None:
        """Check a result."""
        raise NotImplementedError

    def excused(self, client: Client, error: Exception) -> bool:
        """Whether the operation may fail like this."""
        return isinstance(error, (ShardError, BulkError))

    def fail(self, client: Client) -> None:
        """Look at what an excused failure leaves."""

    def finish(self, client: Client, value: Any, error: Exception | None) -> None:
        """Check the end."""
        process, checker, world = client.process, client.process.checker, client.world
        if world.lines is not None:
            world.say(f"{self} -> {'L1' if self.steps is None else error if error is not None else value!r}")
        took = world.now - self.begun_ns - (process.stopped_ns - self.stopped_ns)
        checker.count("I12")
        if took > self.allowed_ns(client) + _SLACK_NS and not client.joined_load:
            checker.fail("I12", f"{self} took {took / MS:.3f} ms")
        if isinstance(error, NotReplicatedError):
            checker.count("I16")
        elif error is None:
            self.is_confirmed = process.profile.ack_ms > 0 and self.operation.kind not in _UNCONFIRMED
            self.succeed(client, value)
            if self.ends and process.profile.moves:
                checker.ended_everywhere(self, client)
        elif not self.excused(client, error):
            checker.count("I10")
            checker.fail("I10", f"{self} raised {error!r}")
        else:
            world.note(len(str(error)))
            self.fail(client)
            if self.versions and process.profile.moves:
                checker.owed_everywhere(self, client)

    def allowed_ns(self, client: Client) -> int:
        """How long it may take."""
        return client.process.profile.timeout_ns + client.loading_ns + client.awaited_ns

    def floor_here(self, client: Client, key: str) -> tuple[Any, int]:
        """The server that has answered for a key, and where its history stood."""
        return client.seen[client.tier.place(key)[0]]

    def check_read(self, client: Client, key: str, value: Any) -> None:
        """Check what L2 has answered."""
        checker = client.process.checker
        if client.process.profile.behind is not None and checker.read_behind(self, client, key, value):
            return
        if value is ABSENT:
            checker.absent(client, key, checker.encoded[key], self.begun_ns)
        else:
            number = checker.read(client, key, value, self.begun_ns, self.floors[key], self.tag_floors)
            checker.in_order(client, key, number, self.begun_ns, self.lane_floors)

    def wanted(self, key: str) -> Loading:
        """The request to load a key."""
        profile = self.client.process.profile
        tags: Any = profile.tags.get(key, ())
        if key.endswith("1"):  # found out after the load
            tags = lambda _key, _value, names=tags: names  # noqa: E731
        return Loading(key, key, _called_by_the_simulation, profile.ttl_ms, tags)


class _Get(Running):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        value = process.store.l1_hit(key, _NOTHING)
        if value is _NOTHING and process.tier.freshness.renews:
            self.steps = look(process.tier, process.store, self.wanted(key))
        elif value is _NOTHING:
            self.steps = read(process.tier, process.store, key)
        else:
            process.checker.hit(process, key, value)

    def succeed(self, client: Client, value: Any) -> None:
        (key,) = self.operation.keys
        if self.steps is not None and value is not MISSING:
            self.check_read(client, key, value)


class _Load(_Get):
    worker: Worker | None = None

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.least = process.checker.version_floor(process, key)
        value = process.store.l1_hit(key, _NOTHING)
        if value is _NOTHING:
            self.steps = self.loading(lambda: load(process.tier, process.store, self.wanted(key)))
        else:
            process.checker.hit(process, key, value)

    def loading(self, make: Callable[[], Any]) -> Any:
        """The steps, or where nobody waits for long, those that wait for a worker which carries them out."""
        patience_ns = self.client.process.profile.patience_ns
        return self._impatient(make, patience_ns) if patience_ns else make()

    def _impatient(self, make: Callable[[], Any], patience_ns: int) -> Any:
        worker = self.worker = self.client.process.work(make)
        done = yield Await(worker.ended, patience_ns / 1e9)
        if not done:
            raise LoadTimeoutError(self.operation.keys[0], patience_ns / 1e9)
        if worker.error is not None:
            raise worker.error
        return worker.value

    def succeed(self, client: Client, value: Any) -> None:
        actor = self.worker if self.worker is not None else client
        super().succeed(actor, value)
        (key,) = self.operation.keys
        if self.steps is not None and value is not ABSENT:
            client.process.checker.loaded(actor, key, value, self.least)

    def excused(self, client: Client, error: Exception) -> bool:
        if isinstance(error, ShardError):  # which loaders make up for, unless a queue may have what is newer
            actor = self.worker or client
            return client.tier.has_queue and (actor.was_failed or actor.joined or actor.joined_load)
        return isinstance(error, (LoaderFailed, KeyError)) or (
            self.worker is not None and isinstance(error, LoadTimeoutError)
        )


class _Set(Running):
    nx = False

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.value = process.checker.make(key)
        self.process, self.encoded = process, {process.checker.encoded[key]}
        if self.nx:
            self.made_of = {int(self.value): None}
        tier, ttl_ms = process.tier, process.profile.ttl_ms
        tags = tags_named(tier, process.profile.tags.get(key, ()))
        self.steps = write(tier, process.store, key, self.value, ttl_ms, tags=tags, absent_only=self.nx)

    def succeed(self, client: Client, value: Any) -> None:
        (key,) = self.operation.keys
        if value is MISSING:
            self.ends = self.operation.keys
            written(self, client, key, self.value)
        else:
            self.check_read(client, key, value)


class _SetDefault(_Set):
    nx = True


class _Update(Running):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.ends = self.operation.keys
        change_source(self, client, self.operation.keys)
        self.steps = invalidate(process.tier, process.store, key)

    def succeed(self, client: Client, value: Any) -> None:
        process, checker = client.process, client.process.checker
        for key in self.operation.keys:
            server, sequence = self.floor_here(client, key)
            checker.raise_floor(process, key, server, sequence, own=True)
            checker.invalidated(process, key, server, self.versions[checker.encoded[key]])

    def fail(self, client: Client) -> None:
        owed(self, client)


class _HeldUpdate(_Update):
    """Invalidation in two phases: nothing may be filled in while the source is being changed."""

    def begin(self, client: Client) -> None:
        self.steps = self._phases(client)

    def _phases(self, client: Client) -> Any:
        process, keys = client.process, self.operation.keys
        token = b"%016x" % (self.operation.think_ns ^ process.number << 32 ^ client.number << 40 ^ client.turn)
        hold_ms = process.profile.bound_ns // MS
        yield from invalidate_many(process.tier, process.store, keys, hold=(b"%d" % hold_ms, token))
        client.tier = process.tier
        change_source(self, client, keys)
        yield from invalidate_many(process.tier, process.store, keys, hold=(b"0", token), is_end=True)


class _UpdateMany(_Update):
    def begin(self, client: Client) -> None:
        process = client.process
        self.ends = self.operation.keys
        change_source(self, client, self.operation.keys)
        self.steps = invalidate_many(process.tier, process.store, self.operation.keys)


class _GetMany(Running):
    def begin(self, client: Client) -> None:
        process = client.process
        missed: list[str] = []
        for key, value in process.store.l1_hit_dict(self.operation.keys, missed).items():
            process.checker.hit(process, key, value)
        if missed:
            self.steps = read_many(process.tier, process.store, missed)

    def succeed(self, client: Client, value: Any) -> None:
        if self.steps is not None:
            for key, each in value.items():
                self.check_read(client, key, each)

    def excused(self, client: Client, error: Exception) -> bool:
        return False


class _SetMany(Running):
    def begin(self, client: Client) -> None:
        process = client.process
        self.values = {key: process.checker.make(key) for key in self.operation.keys}
        self.ends = self.operation.keys
        self.steps = write_many(process.tier, process.store, self.values, process.profile.ttl_ms)

    def succeed(self, client: Client, value: Any) -> None:
        for key, each in self.values.items():
            written(self, client, key, each)


class _Contains(Running):
    def begin(self, client: Client) -> None:
        self.steps = contains(client.process.tier, client.process.store, self.operation.keys[0])

    def succeed(self, client: Client, value: Any) -> None:
        client.world.note(int(value))


class _Clear(Running):
    def begin(self, client: Client) -> None:
        self.ends = client.process.checker.encoded
        if not client.process.profile.lag_ns:  # who clears may have changed everything
            checker = client.process.checker
            self.before = {checker.encoded[key]: version for key, version in checker.source.items()}
        self.steps = clear(client.process.tier, client.process.store)

    def succeed(self, client: Client, value: Any) -> None:
        for lane, (server, sequence) in client.seen.items():
            client.process.checker.cleared(client.process, lane, server, sequence)


def written(running: Running, client: Client, key: str, value: Any) -> None:
    """A write has been acknowledged."""
    server, _ = running.floor_here(client, key)
    checker = client.process.checker
    number = checker.number(key, value)
    if number not in server.history.born:
        # It may have been on hold on a primary that was replaced since.
        asked = client.asked[client.tier.place(key)[0]]
        if not any(each.history.held.get(checker.encoded[key]) for each in asked):
            checker.fail("I3", f"{running} was acknowledged by {server.name}, which has never held it")
        return
    checker.raise_floor(client.process, key, server, server.history.born[number], own=True)


def change_source(running: Running, client: Client, keys: Iterable[str]) -> None:
    """The application changes the source of truth."""
    checker = client.process.checker
    for key in keys:
        version = checker.source[key] = checker.source.get(key, 0) + 1
        checker.changed_ns.setdefault(key, []).append(client.world.now)
        running.versions[checker.encoded[key]] = version


def owed(running: Running, client: Client) -> None:
    """What the source has become is announced, or owed; until that is paid the process takes nothing older."""
    process = client.process
    for key in running.operation.keys:
        version = running.versions.get(process.checker.encoded[key])
        if version is None:
            continue
        lane, encoded = process.tier.place(key)
        server = process.shards[lane].primary
        if not process.tier.is_owed(lane, encoded) and lane in client.seen:
            server, _ = client.seen[lane]  # it is announced, by one who has been replaced perhaps
        process.checker.invalidated(process, key, server, version)


def _called_by_the_simulation(key: Any) -> Any:
    raise AssertionError("the client carries out the calls of loaders")


KINDS: Final[dict[str, type[Running]]] = {
    "get": _Get,
    "load": _Load,
    "update": _Update,
    "set": _Set,
    "setdefault": _SetDefault,
    "get_many": _GetMany,
    "set_many": _SetMany,
    "update_many": _UpdateMany,
    "held_update": _HeldUpdate,
    "contains": _Contains,
    "clear": _Clear,
}
