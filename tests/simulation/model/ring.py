"""Rings: keys that move from one server to another while everybody works (section 2.10, row 46).

A change of the server list takes four configurations, which processes adopt one after another, each when it likes::

    step    reads    invalidates            r of a lane: the newest step it has seen;
    0       old      old                    a script that comes with a step below r - 1
    1       old      old and new            is refused (NCTOPO)
    2       new      old and new
    3       new      new

Reads are plain GETs, which no lane can refuse. So a process that is too far behind finds out at its next heartbeat,
and till then, at most B, reads what the others may have ceased to invalidate: that much staleness is promised.

Messages are applied as they are sent: the lane model has what can go wrong there. The one key moves from the old to
the new owner.

Property: no read returns, from L1 or L2, a version older than the newest whose invalidation has returned, unless the
next heartbeat of that process will be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, Violation, put

OLD, NEW = 0, 1
READS = (OLD, OLD, NEW, NEW)
INVALIDATES = ((OLD,), (OLD, NEW), (OLD, NEW), (NEW,))
LAST = 3


class Bounds(NamedTuple):
    """How much may happen. ``first``: the step that all processes begin with."""

    writes: int = 0
    loads: int = 0
    beats: int = 0
    processes: int = 2
    first: int = 0


class Lane(NamedTuple):
    """One owner's part: newest step seen, version held (0: none), token of the lease (0: none)."""

    newest: int = 0
    value: int = 0
    token: int = 0


class Load(NamedTuple):
    """A miss under way; ``version`` 0: the source has not been read yet. It keeps the step that it began with."""

    step: int
    token: int
    version: int


class Write(NamedTuple):
    """An invalidation under way, and the lanes it has still to reach."""

    step: int
    version: int
    lanes: tuple[int, ...]


class Process(NamedTuple):
    """One process. ``told``: lanes it has told of its next step. ``entry``: None, or version and lane, in L1."""

    step: int = 0
    told: tuple[int, ...] = ()
    bypass: bool = False
    entry: tuple[int, int] | None = None
    load: Load | None = None
    write: Write | None = None


class State(NamedTuple):
    """Everything. ``floor``: newest version whose invalidation has returned."""

    source: int
    floor: int
    lanes: tuple[Lane, Lane]
    processes: tuple[Process, ...]
    tokens: int
    left: Bounds


Steps = Iterator[tuple[Label, State | Violation]]


class Ring(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "refuse": "2.10: a lane refuses steps more than one behind the newest it has seen (NCTOPO)",
        "tell_first": "before a process begins a step it tells all lanes of both configurations",
        "both_at_1": "2.10: step 1 invalidates the next owner too",
        "old_at_1": "2.10: step 1 still reads the old owner",
        "both_at_2": "2.10: step 2 still invalidates the old owner",
        "moved_misses": "2.10: L1 entries whose lane changed are misses",
        "retry_refused": "2.10: a refused invalidation is done again under the next configuration",
        "refused_bypasses": "2.10: a process that was refused reads neither L1 nor L2 till it has caught up",
    }
    EVENTS = frozenset({
        "tell", "step", "heartbeat", "get", "miss", "load", "fill", "write", "invalidate", "return", "refused",
    })  # fmt: skip

    def initial(self) -> State:
        return State(1, 0, (Lane(), Lane()), (Process(step=self.bounds.first),) * self.bounds.processes, 0, self.bounds)

    def canonical(self, state: State) -> State:
        return state._replace(processes=tuple(sorted(state.processes, key=hash)))

    def wrong(self, state: State) -> str | None:
        return None  # reads are checked where they happen

    def events(self, state: State) -> Steps:
        for index, process in enumerate(state.processes):
            yield from self.advance(state, index, process)
            yield from self.heartbeat(state, index, process)
            yield from self.read(state, index, process)
            yield from self.fill(state, index, process)
            yield from self.write(state, index, process)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    def reads(self, step: int) -> int:
        """Return the owner that a step reads."""
        return NEW if step == 1 and "old_at_1" not in self.on else READS[step]

    def invalidates(self, step: int) -> tuple[int, ...]:
        """Return the owners that a step invalidates."""
        if step in (1, 2) and f"both_at_{step}" not in self.on:
            return (self.reads(step),)
        return INVALIDATES[step]

    def admits(self, lane: Lane, step: int) -> bool:
        """Whether a lane runs a script of this step."""
        return step >= lane.newest - 1 or "refuse" not in self.on

    # -- configurations

    def advance(self, state: State, index: int, process: Process) -> Steps:
        """Tell every lane of the next step, one after another, then take it."""
        if process.step == LAST:
            return
        following, lanes = process.step + 1, state.lanes
        for which in (OLD, NEW):
            if "tell_first" in self.on and which not in process.told:
                lane = lanes[which]._replace(newest=max(lanes[which].newest, following))
                told = process._replace(told=tuple(sorted((*process.told, which))))
                yield ("tell", index, which), self.after(state, index, told, lanes=put(lanes, which, lane))
        if len(process.told) == 2 or "tell_first" not in self.on:
            moved = process.entry is not None and process.entry[1] != self.reads(following)
            entry = None if moved and "moved_misses" in self.on else process.entry
            taken = process._replace(step=following, told=(), bypass=False, entry=entry)
            yield ("step", index, following), self.after(state, index, taken)

    def heartbeat(self, state: State, index: int, process: Process) -> Steps:
        """The lane that is read vouches, or refuses."""
        if not state.left.beats or process.bypass:
            return
        which = self.reads(process.step)
        lane = state.lanes[which]
        left = state.left._replace(beats=state.left.beats - 1)
        if self.admits(lane, process.step):
            lanes = put(state.lanes, which, lane._replace(newest=max(lane.newest, process.step)))
            yield ("heartbeat", index), self.after(state, index, process, lanes=lanes, left=left)
        else:
            refused = process._replace(bypass=True, entry=None)
            yield ("refused", index, "heartbeat"), self.after(state, index, refused, left=left)

    # -- reading

    def stale(self, state: State, process: Process, version: int) -> Violation | None:
        """Return what is wrong with returning this version, if anything."""
        knows = self.admits(state.lanes[self.reads(process.step)], process.step) or process.bypass
        if version < state.floor and knows:
            return Violation(f"step {process.step} has read version {version}, though {state.floor} was invalidated")
        return None

    def read(self, state: State, index: int, process: Process) -> Steps:
        """L1, then a plain GET, then a miss, which asks for a lease. Whoever was refused asks the source alone."""
        if process.load is not None or (process.bypass and "refused_bypasses" in self.on):
            return
        which = self.reads(process.step)
        lane = state.lanes[which]
        entry = process.entry
        if entry is not None:
            reason = self.stale(state, process, entry[0])
            if reason is not None:
                yield ("hit", index, entry[0]), reason
            return
        if lane.value:
            got = process._replace(entry=(lane.value, which))
            reason = self.stale(state, process, lane.value)
            yield ("get", index, lane.value), reason or self.after(state, index, got)
        elif state.left.loads:
            left = state.left._replace(loads=state.left.loads - 1)
            if not self.admits(lane, process.step):
                bypass = process._replace(bypass=True)
                yield ("refused", index, "miss"), self.after(state, index, bypass, left=left)
                return
            token = state.tokens + 1
            lanes = put(state.lanes, which, lane._replace(newest=max(lane.newest, process.step), token=token))
            loading = process._replace(load=Load(process.step, token, 0))
            yield ("miss", index), self.after(state, index, loading, lanes=lanes, tokens=token, left=left)

    def fill(self, state: State, index: int, process: Process) -> Steps:
        """The loader reads the source; then the fill, under the step that the miss had."""
        load = process.load
        if load is None:
            return
        if not load.version:
            loaded = process._replace(load=load._replace(version=state.source))
            yield ("load", index, state.source), self.after(state, index, loaded)
            return
        which = self.reads(load.step)
        lane, done = state.lanes[which], process._replace(load=None)
        if lane.token == load.token and self.admits(lane, load.step):
            lanes = put(state.lanes, which, lane._replace(value=load.version, token=0))
            yield ("fill", index, load.version), self.after(state, index, done, lanes=lanes)
        else:
            yield ("fill", index, "LOST"), self.after(state, index, done)

    # -- writing

    def write(self, state: State, index: int, process: Process) -> Steps:
        """Change the source; invalidate each owner, in any order; return."""
        write = process.write
        if write is None:
            if state.left.writes:
                version, left = state.source + 1, state.left._replace(writes=state.left.writes - 1)
                begun = process._replace(write=Write(process.step, version, self.invalidates(process.step)))
                yield ("write", index, version), self.after(state, index, begun, source=version, left=left)
            return
        if not write.lanes:
            floor = max(state.floor, write.version)
            yield ("return", index, write.version), self.after(state, index, process._replace(write=None), floor=floor)
            return
        for which in write.lanes:
            lane = state.lanes[which]
            rest = tuple(other for other in write.lanes if other != which)
            if self.admits(lane, write.step):
                yield from self.invalidate(state, index, process, which, write._replace(lanes=rest))
            elif "retry_refused" not in self.on:
                dropped = process._replace(write=write._replace(lanes=rest))
                yield ("refused", index, "invalidation"), self.after(state, index, dropped)
            elif process.step > write.step:
                again = Write(process.step, write.version, self.invalidates(process.step))
                yield ("refused", index, "invalidation"), self.after(state, index, process._replace(write=again))

    def invalidate(self, state: State, index: int, process: Process, which: int, write: Write) -> Steps:
        """``nc_inval`` on one owner: the value and the lease go, and every L1 hears of it."""
        lane = state.lanes[which]
        lanes = put(state.lanes, which, Lane(max(lane.newest, write.step)))
        state = self.after(state, index, process._replace(write=write), lanes=lanes)
        processes = tuple(
            p._replace(entry=None) if p.entry is not None and p.entry[1] == which else p for p in state.processes
        )
        yield ("invalidate", index, which), state._replace(processes=processes)


ONE = Bounds(writes=1, loads=1)
LATER = ONE._replace(first=1)
Ring.CASES = (
    Case("one write", ONE),
    Case("from step 1, a heartbeat", LATER._replace(beats=1)),
)
Ring.LONG_CASES = (
    Case("a heartbeat", ONE._replace(beats=1)),
    Case("two loads", ONE._replace(loads=2)),
    Case("two writes", ONE._replace(writes=2)),
    Case("three processes", Bounds(writes=1, loads=1, processes=3, first=1)),
)
Ring.WALKS = (Case("many", Bounds(writes=8, loads=10, beats=6, processes=4)),)
Ring.MUTANTS = (
    Mutant("refuse", ONE),
    Mutant("tell_first", ONE),
    Mutant("both_at_1", LATER),
    Mutant("old_at_1", ONE),
    Mutant("both_at_2", LATER),
    Mutant("moved_misses", LATER),
    Mutant("retry_refused", ONE),
    Mutant("refused_bypasses", LATER._replace(beats=1)),
)
