"""Forks: what a failover lost is replayed (section 2.9; rows 34, 40, 41, 48).

A primary writes a log of which its replicas have received a part. When a replica takes over, the rest is lost, and L2
holds values again that had been invalidated or overwritten. Each process keeps a journal of its own mutations with the
epoch and the number that their replies stated; whoever reaches a new primary first adopts it, which gives the lane a
new epoch and records where the old one ended::

    old primary   e1: 1 2 3 4 5        journal of p0: (e1, 2) (e1, 5)       5 > 3: replay
    replica       e1: 1 2 3 | adopt -> e2, history "e1:3" | 5 6 ...

The log is the lane's whole record here; epoch, number and history are read from it, so that they fork with it.
Several failovers may follow each other, each to a replica that is behind the one before, so that an adoption can be
lost as well. Versions count in the order of execution.

Property (I8): whenever every living process has connected to the primary and has replayed what it wanted to, L2 holds
no value older than any mutation that a living process has had acknowledged. What the dead have written may stay lost:
that is the residue which only the lifetime of values ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, put

NOWHERE = -1


class Bounds(NamedTuple):
    """How much may happen. ``history``: how many forks the lane remembers."""

    mutations: int = 0
    failovers: int = 0
    unknown: int = 0
    deaths: int = 0
    history: int = 2
    processes: int = 2


class Record(NamedTuple):
    """One step of the sequence. ``kind``: S set, I invalidation, X either of another key, E adoption.

    ``about``: the version; for E the fork.
    """

    kind: str
    about: int
    epoch: int


class Server(NamedTuple):
    """A primary. ``behind`` is what another replica, the next to be promoted, has received."""

    fork: int
    log: tuple[Record, ...]
    behind: int


class Journaled(NamedTuple):
    """A mutation of one's own. ``seq`` 0: its outcome is unknown."""

    epoch: int
    seq: int
    version: int
    kind: str


class Process(NamedTuple):
    """One process.

    Attributes:
        fork: Which server its connections lead to.
        under_way: A mutation executed whose reply is on its way.
        replays: Versions in the journal that it wants to invalidate again.
        promised: Newest version whose mutation was acknowledged. For the property.
    """

    alive: bool
    fork: int
    journal: tuple[Journaled, ...]
    under_way: Journaled | None
    replays: tuple[int, ...]
    promised: int


class State(NamedTuple):
    """Everything."""

    server: Server
    processes: tuple[Process, ...]
    versions: int
    epochs: int
    left: Bounds


Steps = Iterator[tuple[Label, State]]


def epoch_of(log: tuple[Record, ...]) -> int:
    """Return the epoch that the lane record states."""
    return log[-1].epoch if log else 0


def adopter_of(log: tuple[Record, ...]) -> int:
    """Return the fork that was adopted last (field ``f``)."""
    return next((record.about for record in reversed(log) if record.kind == "E"), 0)


def history_of(log: tuple[Record, ...], most: int) -> dict[int, int]:
    """Return where epochs ended (field ``h``), of the last forks."""
    ends = [(log[n - 1].epoch if n else 0, n) for n, record in enumerate(log) if record.kind == "E"]
    return dict(ends[-most:])


def value_in(log: tuple[Record, ...]) -> int:
    """Return the version that L2 holds, 0 for none."""
    last = next((record for record in reversed(log) if record.kind in "SI"), None)
    return last.about if last is not None and last.kind == "S" else 0


class Fork(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "replay_lost": "2.9: own mutations of an epoch behind the point where it ended are invalidated again",
        "replay_unknown": "2.9: so are those with unknown outcome (row 34)",
        "replay_unlisted": "so are those of an epoch that is neither the current one nor in the history",
        "journal_first": "a mutation stands in the journal before it is sent",
        "journal_kept": "what one fork has spared stays in the journal: the next one may begin further back",
        "until_replayed": "what is to be replayed stays in the journal until that is done",
        "journal_replays": "a replay is a mutation too, and is journaled as one",
        "new_epoch": "2.9: adopting gives the lane a new epoch (row 41)",
        "handshake_first": "2.9: nothing of one's own is written on a new primary before it is adopted",
    }
    EVENTS = frozenset({
        "replicate", "failover", "connect", "set", "invalidate", "write other", "acknowledge", "lose reply", "replay",
        "die",
    })  # fmt: skip

    def initial(self) -> State:
        process = Process(True, 0, (), None, (), 0)
        before = (Record("S", 1, 0),)  # a value of somebody who has gone
        return State(Server(0, before, 1), (process,) * self.bounds.processes, 1, 0, self.bounds)

    def canonical(self, state: State) -> State:
        return state._replace(processes=tuple(sorted(state.processes, key=hash)))

    def wrong(self, state: State) -> str | None:
        fork, newest = state.server.fork, 0
        for process in state.processes:
            if process.alive:
                if process.fork != fork or process.replays or process.under_way is not None:
                    return None
                newest = max(newest, process.promised)
        value = value_in(state.server.log)
        if 0 < value < newest:
            return f"L2 holds version {value} for good, though {newest} was acknowledged and its writer lives"
        return None

    def events(self, state: State) -> Steps:
        yield from self.replicate(state)
        yield from self.fail_over(state)
        for index, process in enumerate(state.processes):
            if process.alive:
                yield from self.connect(state, index, process)
                yield from self.mutate(state, index, process)
                yield from self.acknowledge(state, index, process)
                yield from self.replay(state, index, process)
                yield from self.die(state, index, process)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    # -- servers

    def replicate(self, state: State) -> Steps:
        """A replica receives the next record."""
        server = state.server
        if state.left.failovers and server.behind < len(server.log):
            yield ("replicate",), state._replace(server=server._replace(behind=server.behind + 1))

    def fail_over(self, state: State) -> Steps:
        """A replica takes over. Others may be behind it, and be promoted next."""
        if state.left.failovers:
            left = state.left._replace(failovers=state.left.failovers - 1)
            server = state.server
            for behind in range(server.behind + 1) if left.failovers else (server.behind,):
                new = Server(server.fork + 1, server.log[: server.behind], behind)
                yield ("failover", server.behind, behind), state._replace(server=new, left=left)

    # -- processes

    def connect(self, state: State, index: int, process: Process) -> Steps:
        """Meet the primary, adopt it unless somebody has (``nc_adopt``), and see what it has lost."""
        server, epochs = state.server, state.epochs
        if process.fork == server.fork:
            return
        if adopter_of(server.log) != server.fork:
            epoch = epoch_of(server.log)
            if "new_epoch" in self.on:
                epochs += 1
                epoch = epochs
            server = server._replace(log=(*server.log, Record("E", server.fork, epoch)))
        lost = self.lost(process, server.log)
        journal = process.journal
        if "until_replayed" not in self.on:
            journal = tuple(each for each in journal if each.version not in lost)
        if "journal_kept" not in self.on:
            journal = tuple(each for each in journal if each.version in lost)
        connected = process._replace(fork=server.fork, replays=lost, journal=journal)
        yield ("connect", index, lost), self.after(state, index, connected, server=server, epochs=epochs)

    def lost(self, process: Process, log: tuple[Record, ...]) -> tuple[int, ...]:
        """Return the versions of the journal that a log need not hold."""
        epoch, history = epoch_of(log), history_of(log, self.bounds.history)
        lost = []
        for each in process.journal:
            if each.seq == 0:
                rule, gone = "replay_unknown", True
            elif each.epoch in history:
                rule, gone = "replay_lost", each.seq > history[each.epoch]
            else:
                rule, gone = "replay_unlisted", each.epoch != epoch
            if gone and rule in self.on:
                lost.append(each.version)
        return tuple(lost)

    def mutate(self, state: State, index: int, process: Process) -> Steps:
        """Send a set or an invalidation, and have it executed."""
        server = state.server
        if not state.left.mutations or process.under_way is not None:
            return
        if process.fork != server.fork and "handshake_first" in self.on:
            return
        left = state.left._replace(mutations=state.left.mutations - 1)
        version, epoch = state.versions + 1, epoch_of(server.log)
        for name, kind in (("set", "S"), ("invalidate", "I"), ("write other", "X")):
            journal = process.journal
            if "journal_first" in self.on:
                journal = (*journal, Journaled(0, 0, version, kind))
            log = (*server.log, Record(kind, version, epoch))
            sent = process._replace(journal=journal, under_way=Journaled(epoch, len(log), version, kind))
            yield (
                (name, index, version),
                self.after(state, index, sent, server=server._replace(log=log), versions=version, left=left),
            )

    def acknowledge(self, state: State, index: int, process: Process) -> Steps:
        """The reply comes, whatever has happened to the server since; or it does not."""
        done = process.under_way
        if done is None:
            return
        if any(each.version == done.version for each in process.journal) or "journal_first" not in self.on:
            journal = (*(each for each in process.journal if each.version != done.version), done)
        else:  # it has been replayed meanwhile
            journal = process.journal
        promised = process.promised if done.kind == "X" else max(process.promised, done.version)
        known = process._replace(under_way=None, journal=journal, promised=promised)
        yield ("acknowledge", index, done.version), self.after(state, index, known)
        if state.left.unknown:
            # The caller is told that nobody knows; it counts as promised, since he may rely on the replay.
            left = state.left._replace(unknown=state.left.unknown - 1)
            unknown = process._replace(under_way=None, promised=promised)
            yield ("lose reply", index, done.version), self.after(state, index, unknown, left=left)

    def replay(self, state: State, index: int, process: Process) -> Steps:
        """Invalidate again what was lost."""
        server = state.server
        if not process.replays or process.fork != server.fork:
            return
        old, version, epoch = process.replays[0], state.versions + 1, epoch_of(server.log)
        kind = next((each.kind for each in process.journal if each.version == old), "I")
        kind = "X" if kind == "X" else "I"
        log = (*server.log, Record(kind, version, epoch))
        journal = tuple(each for each in process.journal if each.version != old)
        if "journal_replays" in self.on:
            journal = (*journal, Journaled(epoch, len(log), version, kind))
        replayed = process._replace(replays=process.replays[1:], journal=journal)
        yield (
            ("replay", index, old),
            self.after(state, index, replayed, server=server._replace(log=log), versions=version),
        )

    def die(self, state: State, index: int, process: Process) -> Steps:
        """A process ends, with its journal."""
        if state.left.deaths:
            left = state.left._replace(deaths=state.left.deaths - 1)
            yield ("die", index), self.after(state, index, Process(False, NOWHERE, (), None, (), 0), left=left)


Fork.CASES = (
    Case("an unknown outcome", Bounds(mutations=2, failovers=1, unknown=1)),
    Case("two failovers, a short history", Bounds(mutations=1, failovers=2, history=1)),
    Case("a writer dies", Bounds(mutations=2, failovers=1, deaths=1)),
)
Fork.LONG_CASES = (
    Case("two failovers", Bounds(mutations=2, failovers=2)),
    Case("two failovers, a short history", Bounds(mutations=2, failovers=2, history=1)),
    Case("three failovers", Bounds(mutations=1, failovers=3, unknown=1)),
    Case("three mutations", Bounds(mutations=3, failovers=1, unknown=1, deaths=1)),
    Case("three processes", Bounds(mutations=2, failovers=1, processes=3, deaths=1)),
)
Fork.WALKS = (Case("many", Bounds(mutations=12, failovers=5, unknown=3, deaths=1, processes=3, history=3)),)
ONCE = Bounds(mutations=1, failovers=1)
TWICE = Bounds(mutations=1, failovers=2)
Fork.MUTANTS = (
    Mutant("replay_lost", ONCE),
    Mutant("replay_unknown", ONCE._replace(unknown=1)),
    Mutant("replay_unlisted", TWICE),
    Mutant("journal_first", ONCE),
    Mutant("journal_kept", TWICE),
    Mutant("until_replayed", TWICE),
    Mutant("journal_replays", TWICE),
    Mutant("new_epoch", TWICE._replace(mutations=2)),
    Mutant("handshake_first", ONCE._replace(mutations=2)),
)
