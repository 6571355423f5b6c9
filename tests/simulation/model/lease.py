"""Leases: one loader per key, and no stale set (sections 2.4, 2.7; rows 29, 30, 37, 38).

Two or more processes miss the same key. ``nc_miss`` gives the first a lease under a token and tells the others to
wait; ``nc_fill`` stores only under the live token; every write and invalidation voids it::

    miss:  value -> HIT      no lease -> L<token>, LEASE      L -> W (somebody waits), WAIT      H -> HOLD
    fill:  token differs, or H -> LOST     else the lease goes, the value comes, and F is published if anybody waits
    abort: the same without a value, and A is published

Source and L2 hold version numbers of the one value; a mutation is a new version and then an invalidation or a set.

Properties. I6: at most one loader at a time has a lease term that nothing has ended. I7: nothing is stored under a
lease whose term has ended; once an invalidation or a set of version n has returned, L2 never holds an older one. No
lost wake-up: nobody sleeps while there is nothing to wait for and nothing more to hear, and nobody sleeps for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, Violation, put

IDLE, ASKED, LOADING, READ, ASLEEP, DEAD = "idle", "asked", "loading", "read", "asleep", "dead"


class Bounds(NamedTuple):
    """How much may happen. ``pauses``: how often a holder stops renewing, though it lives."""

    gets: int = 0
    writes: int = 0
    deaths: int = 0
    pauses: int = 0
    failures: int = 0
    losses: int = 0
    processes: int = 2


class Process(NamedTuple):
    """One process.

    Attributes:
        wants: It has still to answer a reader.
        token: Of its lease.
        term: Nothing has ended that lease.
        paused: It does not renew.
        version: What its loader has read.
        told: A message came while the reply to its question was on the way.
        unaware: Its sleep may be longer than need be: a message was lost, or a lease ended in silence.
    """

    step: str = IDLE
    wants: bool = False
    token: int = 0
    term: bool = False
    paused: bool = False
    version: int = 0
    told: bool = False
    unaware: bool = False
    queue: tuple[str, ...] = ()


class State(NamedTuple):
    """Everything.

    Attributes:
        source: Newest version there is; they count from 1.
        value: Version that L2 holds; 0 for none.
        lease: None, or letter and token.
        floor: Newest version that L2 has been told of.
        mutations: Versions that L2 has not been told of yet.
    """

    source: int
    value: int
    lease: tuple[str, int] | None
    floor: int
    mutations: tuple[int, ...]
    processes: tuple[Process, ...]
    tokens: int
    left: Bounds


Steps = Iterator[tuple[Label, State | Violation]]


class Lease(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "exclusive": "2.4: a key with a lease gives no second one (row 29)",
        "fill_checks_token": "2.4: a fill under another token than the live one is LOST (rows 30, 37)",
        "invalidate_voids": "2.4: an invalidation takes the lease away (row 30)",
        "set_voids": "2.4: a set takes the lease away (row 30)",
        "renew": "2.7: a lease is renewed while its loader lives (row 37)",
        "renew_checks_token": "2.4: only the holder's token renews",
        "mark_waiting": "2.4: whoever has to wait turns L into W, so that the fill is announced",
        "abort_announces": "2.7: a loader that failed frees the lease and wakes who waits, with A (row 38)",
        "hear_invalidations": "2.7: I and S wake waiters as F and A do",
        "listen_first": "2.7: who waits listens before he asks, or the message may be past",
        "wake_at_end": "2.7: a waiter asks again when the lease has ended, message or not (row 37)",
    }
    EVENTS = frozenset({
        "change", "invalidate", "set", "lease ends", "get", "miss", "answer", "load", "fill", "abort", "die", "pause",
        "renew", "deliver", "lose", "poll",
    })  # fmt: skip

    def initial(self) -> State:
        return State(1, 0, None, 0, (), (Process(),) * self.bounds.processes, 0, self.bounds)

    def canonical(self, state: State) -> State:
        return state._replace(processes=tuple(sorted(state.processes, key=hash)))

    def wrong(self, state: State) -> str | None:
        if sum(process.term for process in state.processes) > 1:
            return "two loaders at a time, though nothing has ended the term of the first"
        if 0 < state.value < state.floor:
            return f"L2 holds version {state.value}, after version {state.floor} was invalidated or set"
        for process in state.processes:
            if process.step == ASLEEP and not process.queue and state.lease is None and not process.unaware:
                return "a process sleeps, with no lease to wait for and no message on its way"
        return None

    def wrong_at_rest(self, state: State) -> str | None:
        return "a process sleeps for ever" if any(p.step == ASLEEP for p in state.processes) else None

    def events(self, state: State) -> Steps:
        yield from self.change(state)
        yield from self.tell(state)
        yield from self.end(state)
        for index, process in enumerate(state.processes):
            if process.step != DEAD:
                yield from self.get(state, index, process)
                yield from self.answer(state, index, process)
                yield from self.load(state, index, process)
                yield from self.fill(state, index, process)
                yield from self.fail(state, index, process)
                yield from self.renew(state, index, process)
                yield from self.deliver(state, index, process)
                yield from self.poll(state, index, process)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    @staticmethod
    def publish(state: State, kind: str) -> State:
        """Send a message to every process."""
        return state._replace(
            processes=tuple(p if p.step == DEAD else p._replace(queue=(*p.queue, kind)) for p in state.processes)
        )

    @staticmethod
    def voided(state: State) -> State:
        """Take the lease away: the term of its holder is over."""
        return state._replace(lease=None, processes=tuple(p._replace(term=False) for p in state.processes))

    # -- the source and its writers

    def change(self, state: State) -> Steps:
        """The source gets a new version."""
        if state.left.writes:
            source = state.source + 1
            left = state.left._replace(writes=state.left.writes - 1)
            mutations = (*state.mutations, source)
            yield ("change", source), state._replace(source=source, mutations=mutations, left=left)

    def tell(self, state: State) -> Steps:
        """L2 is told of a new version: by an invalidation, or by a set of that version (``nc_inval``, ``nc_set``)."""
        if not state.mutations:
            return
        version = state.mutations[0]
        told = state._replace(mutations=state.mutations[1:], floor=version, value=0)
        yield ("invalidate", version), self.publish(self.voided(told) if "invalidate_voids" in self.on else told, "I")
        told = told._replace(value=version)
        yield ("set", version), self.publish(self.voided(told) if "set_voids" in self.on else told, "S")

    def end(self, state: State) -> Steps:
        """The time of a lease is over. If it is renewed, it is not, unless its holder died or was paused."""
        if state.lease is None:
            return
        holder = next((p for p in state.processes if p.step != DEAD and p.token == state.lease[1]), None)
        expected = holder is None or holder.paused
        if expected or "renew" not in self.on:
            ended = self.voided(state) if expected else state._replace(lease=None)
            processes = tuple(p._replace(unaware=True) if p.wants else p for p in ended.processes)
            yield ("lease ends",), ended._replace(processes=processes)

    # -- reading through

    def get(self, state: State, index: int, process: Process) -> Steps:
        """A reader comes; then ``nc_miss`` is executed. Who has waited asks again."""
        if process.step != IDLE:
            return
        if not process.wants:
            if state.left.gets:
                left = state.left._replace(gets=state.left.gets - 1)
                yield ("get", index), self.after(state, index, process._replace(wants=True), left=left)
            return
        process = process._replace(unaware=False, told=False)
        if state.value:
            yield ("miss", index, "HIT"), self.after(state, index, process._replace(wants=False))
        elif state.lease is not None and "exclusive" in self.on:
            kind, token = state.lease
            lease = ("W" if "mark_waiting" in self.on else kind, token)
            yield ("miss", index, "WAIT"), self.after(state, index, process._replace(step=ASKED), lease=lease)
        else:
            token = state.tokens + 1
            granted = process._replace(step=LOADING, token=token, term=True)
            yield (
                ("miss", index, "LEASE", token),
                self.after(state, index, granted, lease=("L", token), tokens=token),
            )

    def answer(self, state: State, index: int, process: Process) -> Steps:
        """The answer WAIT arrives. If a message came before it, what it says is out of date."""
        if process.step == ASKED:
            step = IDLE if process.told else ASLEEP
            yield ("answer", index), self.after(state, index, process._replace(step=step, told=False))

    def load(self, state: State, index: int, process: Process) -> Steps:
        """The loader reads the source."""
        if process.step == LOADING:
            loaded = process._replace(step=READ, version=state.source)
            yield ("load", index, state.source), self.after(state, index, loaded)

    def fill(self, state: State, index: int, process: Process) -> Steps:
        """``nc_fill``."""
        if process.step != READ:
            return
        lease, version = state.lease, process.version
        state = self.after(state, index, Process(queue=process.queue))
        if (lease is None or lease[1] != process.token) and "fill_checks_token" in self.on:
            yield ("fill", index, "LOST"), state
            return
        if not process.term:
            yield ("fill", index, version), Violation("a value was stored under a lease whose term had ended")
            return
        announced = state.value != 0 or (lease is not None and lease[0] == "W")
        state = state._replace(value=version, lease=None)
        yield ("fill", index, version), self.publish(state, "F") if announced else state

    def fail(self, state: State, index: int, process: Process) -> Steps:
        """The loader raises, its process dies, or it stops renewing."""
        if process.step not in (LOADING, READ):
            return
        left, lease = state.left, state.lease
        if left.failures:
            failed = Process(queue=process.queue)
            aborted = self.after(state, index, failed, left=left._replace(failures=left.failures - 1))
            if lease is not None and lease[1] == process.token:
                aborted = aborted._replace(lease=None)
                if lease[0] == "W" and "abort_announces" in self.on:
                    aborted = self.publish(aborted, "A")
            yield ("abort", index), aborted
        if left.deaths:
            dead = Process(step=DEAD)
            yield ("die", index), self.after(state, index, dead, left=left._replace(deaths=left.deaths - 1))
        if left.pauses and not process.paused:
            paused = process._replace(paused=True)
            yield ("pause", index), self.after(state, index, paused, left=left._replace(pauses=left.pauses - 1))

    def renew(self, state: State, index: int, process: Process) -> Steps:
        """``nc_renew`` by a holder that was paused: the lease may not be his any more."""
        if process.step in (LOADING, READ) and process.paused:
            lease, resumed = state.lease, process._replace(paused=False)
            if lease is not None and lease[1] != process.token and "renew_checks_token" not in self.on:
                lease = ("L", process.token)
            yield ("renew", index), self.after(state, index, resumed, lease=lease)

    # -- waiting

    def deliver(self, state: State, index: int, process: Process) -> Steps:
        """A message comes, or is lost."""
        if not process.queue:
            return
        kind, taken = process.queue[0], process._replace(queue=process.queue[1:])
        woken = taken
        if kind in "FA" or "hear_invalidations" in self.on:
            if process.step == ASLEEP:
                woken = taken._replace(step=IDLE)
            elif process.step == ASKED and "listen_first" in self.on:
                woken = taken._replace(told=True)
        yield ("deliver", index, kind), self.after(state, index, woken)
        if state.left.losses and process.wants:
            left = state.left._replace(losses=state.left.losses - 1)
            yield ("lose", index, kind), self.after(state, index, taken._replace(unaware=True), left=left)

    def poll(self, state: State, index: int, process: Process) -> Steps:
        """The time that the answer WAIT gave is over."""
        if process.step == ASLEEP and state.lease is None and "wake_at_end" in self.on:
            yield ("poll", index), self.after(state, index, process._replace(step=IDLE))


Lease.CASES = (
    Case("a change", Bounds(gets=3, writes=1)),
    Case("death, pause and failure", Bounds(gets=3, deaths=1, pauses=1, failures=1, losses=1)),
    Case("a change and a pause", Bounds(gets=3, writes=1, pauses=1)),
)
Lease.LONG_CASES = (
    Case("three processes", Bounds(gets=3, writes=1, deaths=1, failures=1, processes=3)),
    Case("everything twice", Bounds(gets=4, writes=2, deaths=1, pauses=1, failures=1, losses=1)),
)
Lease.WALKS = (Case("many", Bounds(gets=14, writes=5, deaths=2, pauses=4, failures=4, losses=4, processes=4)),)
Lease.MUTANTS = (
    Mutant("exclusive", Bounds(gets=2)),
    Mutant("fill_checks_token", Bounds(gets=2, writes=1)),
    Mutant("invalidate_voids", Bounds(gets=1, writes=1)),
    Mutant("set_voids", Bounds(gets=1, writes=1)),
    Mutant("renew", Bounds(gets=2)),
    Mutant("renew_checks_token", Bounds(gets=2, pauses=1)),
    Mutant("mark_waiting", Bounds(gets=2)),
    Mutant("abort_announces", Bounds(gets=2, failures=1)),
    Mutant("hear_invalidations", Bounds(gets=2, writes=1)),
    Mutant("listen_first", Bounds(gets=2)),
    Mutant("wake_at_end", Bounds(gets=2, deaths=1)),
)
