"""Runs of a cache that writes behind: the real queues, and the real thread that has what is in them written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final

from nearcache import workers as workers_module
from nearcache.absence import ABSENT
from nearcache.cache.tiered import behind as behind_module
from nearcache.cache.tiered.behind import Scribe
from nearcache.changes import MISSING
from nearcache.errors import BacklogFullError, BulkError, ContentionError, ShardError, ShardUnavailableError
from nearcache.freshness import Freshness
from nearcache.loading import behind as queues_module
from nearcache.loading import delete_behind, queued, swap, take_behind, write, write_many
from nearcache.writers import Writer
from simulation.client import Client
from simulation.flushing import ASKING
from simulation.further import _Swap as Swap
from simulation.handoff import Event, here
from simulation.process import Process
from simulation.promises import WriterFailed
from simulation.resharding import Aside
from simulation.workload import KINDS, Operation, Profile, Running, written
from simulation.world import START_NS
from simulation.written import Queued

#: Records that are given out at a time: so few that queues often have more.
_PAGE: Final = 3
#: Kind -> how often: all that is done in such a run.
BEHIND: Final = {
    "get": 30, "load": 40, "get_many": 4, "load_many": 4, "contains": 1, "clear": 0.5,
    "set_behind": 20, "set_behind_many": 4, "delete_behind": 3, "take_behind": 2, "compute_behind": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Behind:
    """The settings of such a run.

    Attributes:
        delay_s, batch, attempts, most: As ``write_delay``, ``write_batch``, ``write_attempts`` and ``max_backlog``.
        poison: Of so many values one cannot be written, until ``mended_ns``; 0: all can.
        flushers: So many processes flush after the faults.
    """

    delay_s: float
    batch: int
    attempts: int | None
    most: int
    poison: int = 0
    mended_ns: int = 0
    flushers: int = 0

    def start(self, process: Process) -> Pen:
        """Begin to write behind the cache of a process."""
        pen = Pen(process, self)
        pen.start()
        return pen


def lay_behind(profile: Profile, rng: random.Random, busy: Sequence[str], *, later: bool) -> None:
    """Make a run one that writes behind the cache, and does nothing that is not made for that.

    Args:
        later: Whether to flush, and to care for dead letters.
    """
    delay_ns = rng.choice([profile.bound_ns // 100, profile.bound_ns // 4, 2 * profile.bound_ns])
    profile.behind = Behind(delay_ns / 1e9, rng.choice([1, 3, 100]), rng.choice([None, 1, 3]), rng.choice([3, 10_000]))
    kinds = BEHIND | ASKING if later else BEHIND
    profile.weights = {
        kind: weight * rng.choice([0.2, 1, 1, 4]) * (8 if kind in busy else 1) for kind, weight in kinds.items()
    }
    profile.counters, profile.tags, profile.freshness = [], {}, Freshness()
    profile.stale_ns = profile.lag_ns = profile.ack_ms = 0
    profile.absences = 0.0
    profile.ordered = False
    if later:
        _poison(profile, rng)


def _poison(profile: Profile, rng: random.Random) -> None:
    """Let some values be such that the writer fails, for a time; and let processes flush in the end."""
    poison = rng.choice([0, 2, 3, 10]) if profile.behind.attempts is not None else 0
    mended_ns = START_NS + int((0.3 + 1.5 * rng.random()) * profile.length_ns)
    flushers = rng.choice([0, 1, profile.processes])
    profile.behind = replace(profile.behind, poison=poison, mended_ns=mended_ns, flushers=flushers)


# -- who writes


@dataclass(frozen=True)
class Rows:
    """A call of the writer: what is to be in the file. Answer: what it raises, or None."""

    values: Mapping[str, Any]


class Writing(Aside):
    """The thread of the scribe, as long as its process lives."""

    lasts = True

    def __init__(self, process: Process, number: int, target: Callable[[], Any], token: bytes) -> None:
        super().__init__(process, number, target)
        self.token = token

    def _perform(self, request: Any) -> None:
        if not isinstance(request, Rows):
            super()._perform(request)
            return
        took, change_at = self._takes()
        chance, failures = self._random.random(), self.process.profile.load_failures
        rows = list(request.values.items())
        sick = [key for key, value in rows if self._is_poison(value)]
        fails = chance < failures or bool(sick)
        if fails:  # some of it may have been written
            rows = [(key, value) for key, value in rows if key not in sick]
            rows = rows[: int(self._random.random() * (len(rows) + 1))]
        self.world.at(self.world.now + change_at, self.process.post, self._commit, self.turn, rows)
        self.world.at(self.world.now + took, self.process.post, self._written, self.turn, fails)

    def _is_poison(self, value: Any) -> bool:
        behind = self.process.profile.behind
        number = 0 if value is ABSENT else int(value)
        return bool(behind.poison) and self.world.now < behind.mended_ns and number % behind.poison == 1

    def _commit(self, turn: int, rows: list[tuple[str, Any]]) -> None:
        for key, value in rows if turn == self.turn else ():
            self.process.checker.write(self.process, key, None if value is ABSENT else int(value))

    def _written(self, turn: int, fails: bool) -> None:
        self._resume(turn, WriterFailed() if fails else None)


def _write(values: Mapping[str, Any]) -> None:
    error = here().ask(Rows(values))
    if error is not None:
        raise error


_WRITER: Final = Writer(
    write=lambda key, value: _write({key: value}),
    write_many=_write,
    delete=lambda key: _write({key: ABSENT}),
    delete_many=lambda keys: _write(dict.fromkeys(keys, ABSENT)),
)


class _Runner:
    """Carries out steps in the thread that asks."""

    def run(self, steps: Any) -> Any:
        """See :class:`nearcache.loading.ThreadRunner`."""
        move: Callable[[Any], Any] = steps.send
        answer: Any = None
        while True:
            try:
                request = move(answer)
            except StopIteration as stop:
                return stop.value
            answer = here().ask(request)


class Pen(Scribe):
    """The real scribe of a process."""

    _begin = workers_module.Helper._begin  # no interpreter ends with a process of the world's

    def __init__(self, process: Process, settings: Behind) -> None:
        given = SimpleNamespace(
            namespace="sim", write_delay=settings.delay_s, write_batch=settings.batch, write_attempts=settings.attempts,
            max_backlog=settings.most, timeout=process.profile.timeout_ns / 1e9, scheme="redis",
        )  # fmt: skip
        self.process = process
        super().__init__(process.tier, _Runner(), _WRITER, given, process.clock)  # type: ignore[arg-type]  # as good

    @property
    def token(self) -> bytes:
        """By which it owns queues."""
        return self._queues.token


class _Thread:
    """The scribe's thread."""

    def __init__(self, _name: str, target: Callable[[], None]) -> None:
        process: Process = target.__self__.process  # type: ignore[attr-defined]  # a method of the scribe's
        token = target.__self__.token  # type: ignore[attr-defined]  # as above
        writing: Writing = process.employ(lambda number: Writing(process, number, target, token))
        process.asides.append(writing.handoff)
        writing.begin(writing.handoff.steps)


def _log(*_: Any, error: BaseException | None = None) -> None:
    """Nobody reads it, not of dead letters either; but that something went wrong is a failure."""
    if error is not None:
        raise error


def _lasting_ns(tier: Any) -> int:
    """What time it is for a machine that has slept, too."""
    now_ns: int = tier.clock.__self__.world.now  # a method of the process
    return now_ns


@contextmanager
def writing_by(chance: Callable[[], float]) -> Iterator[None]:
    """Within the block threads, time, chance and the log of writing behind are the world's, or this."""
    genuine = workers_module.start_thread, behind_module._chance, behind_module.log, queues_module._PAGE
    lasting_ns = queues_module._lasting_ns
    event = behind_module.Event  # type: ignore[attr-defined]  # as it sees it
    workers_module.start_thread = _Thread  # type: ignore[assignment]  # as good
    behind_module.Event = workers_module.Event = Event  # type: ignore[attr-defined]  # as they see it
    behind_module._chance = chance  # type: ignore[misc]  # final
    behind_module.log = _log  # type: ignore[attr-defined]  # as it sees it
    queues_module._PAGE = _PAGE  # type: ignore[misc]  # final
    queues_module._lasting_ns = _lasting_ns
    try:
        yield
    finally:
        workers_module.start_thread, behind_module._chance, behind_module.log = genuine[:3]  # type: ignore[misc]  # final
        behind_module.Event = workers_module.Event = event  # type: ignore[attr-defined]  # likewise
        queues_module._PAGE = genuine[3]  # type: ignore[misc]  # final
        queues_module._lasting_ns = lasting_ns


# -- who changes


class _Behind(Running):
    """A change that goes into a queue."""

    def __init__(self, client: Client, operation: Operation) -> None:
        super().__init__(client, operation)
        self.changes: list[Queued] = []
        self.error: Exception | None = None

    def changes_to(self, key: str, number: int | None) -> None:
        """Note what is about to be changed."""
        self.changes.append(self.client.process.checker.queue(key, number))

    def excused(self, client: Client, error: Exception) -> bool:
        self.error = error
        return isinstance(error, (ShardError, BulkError, BacklogFullError, ContentionError))

    def succeed(self, client: Client, value: Any) -> None:
        for change in self.changes:
            client.process.checker.acknowledge(change)

    def fail(self, client: Client) -> None:
        error = self.error
        for change in self.changes:
            if isinstance(error, BulkError) and change.key in error.stored:
                client.process.checker.acknowledge(change)
                continue
            own = error.failed.get(change.key) if isinstance(error, BulkError) else error
            unsent = isinstance(own, ShardUnavailableError) and not own.sent
            change.is_refused = isinstance(own, BacklogFullError) or unsent


class _SetBehind(_Behind):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.value = process.checker.make(key)
        self.changes_to(key, int(self.value))
        way = queued(process.scribe.room)
        self.steps = write(process.tier, process.store, key, self.value, process.profile.ttl_ms, way=way)

    def succeed(self, client: Client, value: Any) -> None:
        super().succeed(client, value)
        written(self, client, self.operation.keys[0], self.value)


class _SetBehindMany(_Behind):
    def begin(self, client: Client) -> None:
        process = client.process
        self.values = {key: process.checker.make(key) for key in self.operation.keys}
        for key, value in self.values.items():
            self.changes_to(key, int(value))
        way = queued(process.scribe.room)
        self.steps = write_many(process.tier, process.store, self.values, process.profile.ttl_ms, (), way)

    def succeed(self, client: Client, value: Any) -> None:
        super().succeed(client, value)
        for key, each in self.values.items():
            written(self, client, key, each)


class _DeleteBehind(_Behind):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.changes_to(key, None)
        self.steps = delete_behind(process.tier, process.store, key, queued(process.scribe.room))

    def succeed(self, client: Client, value: Any) -> None:
        super().succeed(client, value)
        (key,) = self.operation.keys
        server, sequence = self.floor_here(client, key)
        client.process.checker.raise_floor(client.process, key, server, sequence, own=True)


class _TakeBehind(_DeleteBehind):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.changes_to(key, None)
        self.steps = take_behind(process.tier, process.store, key, queued(process.scribe.room))

    def succeed(self, client: Client, value: Any) -> None:
        if value is not MISSING:
            super().succeed(client, value)


class _ComputeBehind(_Behind, Swap):
    """A verb that makes a new value of the one that is there, or waits."""

    def swapping(self, client: Client, key: str) -> Any:
        process, profile = client.process, client.process.profile
        way = queued(process.scribe.room)
        change, life = self.change(client), lambda _: profile.ttl_ms
        return (yield from swap(process.tier, process.store, key, change, life, way=way))

    def make(self, there: Any) -> Any:
        (key,) = self.operation.keys
        new = super().make(there)
        self.made_of.clear()  # what waits may come back into L2 just before
        for change in self.changes:  # somebody else was quicker
            change.is_refused = True
        self.changes_to(key, int(new))
        return new

    def succeed(self, client: Client, value: Any) -> None:
        if value.stored:
            client.process.checker.acknowledge(self.changes[-1])
            written(self, client, self.operation.keys[0], value.new)


KINDS.update(
    {
        "set_behind": _SetBehind,
        "set_behind_many": _SetBehindMany,
        "delete_behind": _DeleteBehind,
        "take_behind": _TakeBehind,
        "compute_behind": _ComputeBehind,
    }
)
