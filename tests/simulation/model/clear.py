"""Clearing: one new generation makes every value of a lane dead at once (section 2.8, decisions.md, row 21).

Two processes, one key, one lane whose record holds a random generation. An envelope of another generation counts as
absent. A reader compares it with the generation that its process knows of, which is told by clear messages and by
heartbeats, and asks the lane record when it knows of none. A process that has itself cleared drops its own
entries; so its own message need not make suspect what it has stored since (``Lane.expect_clear``).

Generations count in the order of the clears here, which only the properties make use of.

Properties: no read, from L1 or L2, returns a value of before a clear that this process has completed (its return is
the fence); no L1 hit is on one of before the last heartbeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, Violation, put

SENT, DONE = "sent", "done"


class Bounds(NamedTuple):
    """How much may happen."""

    clears: int = 0
    writes: int = 0
    reads: int = 0
    beats: int = 0
    losses: int = 0
    flushes: int = 0


class Server(NamedTuple):
    """The lane record and the key's value: ``(wid, generation)`` or None."""

    epoch: int
    seq: int
    generation: int
    value: tuple[int, int] | None


class Item(NamedTuple):
    """A message (S or C) or a heartbeat's reply (H). ``about``: the wid, or for H the generation.

    ``passed``: the own clears that had returned when the heartbeat was sent.
    """

    kind: str
    epoch: int
    seq: int
    about: int
    passed: tuple[int, ...] = ()


class Flight(NamedTuple):
    """A read. ``known`` is the generation it compares with, None to ask; ``floor`` what had been cleared before it."""

    known: int | None
    stamp: int
    clean: bool
    floor: int
    answer: tuple[int, int] | None = None
    answered: bool = False


class Process(NamedTuple):
    """One process. ``clearing``: None, or how far its clear is, and its id. ``own``: ids whose message is awaited.

    For the properties: ``cleared``, the newest clear that has returned here; ``fence``, the newest at a heartbeat.
    """

    queue: tuple[Item, ...]
    position: tuple[int, int]
    generation: int | None
    stamp: int
    entry: tuple[int, int, int] | None
    flight: Flight | None
    clearing: tuple[str, int] | None
    own: tuple[int, ...]
    cleared: int
    fence: int


class State(NamedTuple):
    """Everything."""

    server: Server
    processes: tuple[Process, ...]
    left: Bounds
    ids: int


Steps = Iterator[tuple[Label, State | Violation]]


class Clear(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "compare_generation": "2.7: an envelope of another generation is a miss",
        "message_suspects": "2.7: another's clear message makes the lane suspect",
        "return_suspects": "2.8: a process that has cleared drops its own entries",
        "unheard_hides": "the generation is unknown until the message of one's own clear has been heard",
        "own_message_early": "the message of one's own clear makes the lane suspect unless the clear has returned",
        "compare_heartbeat": "2.5: a heartbeat that disagrees makes the lane suspect (row 21: the message may be lost)",
        "random_restart": "row 22: a lost lane record comes back with a generation that never was",
    }
    EVENTS = frozenset({
        "write", "flush", "clear", "execute clear", "clear returns", "clear fails", "deliver", "lose", "heartbeat",
        "read", "get", "finish",
    })  # fmt: skip

    def initial(self) -> State:
        process = Process((), (0, 0), 0, 0, None, None, None, (), 0, 0)
        return State(Server(0, 0, 0, None), (process,) * 2, self.bounds, 0)

    def canonical(self, state: State) -> State:
        first, second = state.processes
        return state._replace(processes=(second, first)) if hash(first) > hash(second) else state

    def wrong(self, state: State) -> str | None:
        for process in state.processes:
            entry = process.entry
            if entry is not None and entry[2] == process.stamp:
                if entry[1] < process.cleared:
                    return f"a hit on a value of generation {entry[1]}, but this process has cleared: {process.cleared}"
                if entry[1] < process.fence:
                    return f"a hit on a value of generation {entry[1]}, but a heartbeat has passed {process.fence}"
        return None

    def events(self, state: State) -> Steps:
        yield from self.write(state)
        yield from self.flush(state)
        for index, process in enumerate(state.processes):
            yield from self.clear(state, index, process)
            yield from self.deliver(state, index, process)
            yield from self.heartbeat(state, index, process)
            yield from self.read(state, index, process)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    # -- the server

    def publish(self, state: State, kind: str, about: int, server: Server) -> State:
        """One step of the sequence, one message."""
        server = server._replace(seq=server.seq + 1)
        item = Item(kind, server.epoch, server.seq, about)
        return state._replace(
            server=server, processes=tuple(p._replace(queue=(*p.queue, item)) for p in state.processes)
        )

    def write(self, state: State) -> Steps:
        """Somebody stores a value, sealed under the generation of the lane (``set`` refuses any other)."""
        if state.left.writes:
            wid, server = state.ids + 1, state.server
            state = state._replace(ids=wid, left=state.left._replace(writes=state.left.writes - 1))
            yield ("write", wid), self.publish(state, "S", wid, server._replace(value=(wid, server.generation)))

    def flush(self, state: State) -> Steps:
        """The lane record is lost, the values are not."""
        if state.left.flushes:
            generation = state.ids + 1 if "random_restart" in self.on else 0
            server = state.server._replace(epoch=state.server.epoch + 1, seq=0, generation=generation)
            left = state.left._replace(flushes=state.left.flushes - 1)
            yield ("flush", generation), state._replace(server=server, ids=state.ids + 1, left=left)

    # -- clearing

    def clear(self, state: State, index: int, process: Process) -> Steps:
        """Send, execute, return: ``loading/writing.py``, ``clear``. The id is fixed at execution, to count in order."""
        if process.clearing is None:
            if state.left.clears:
                left = state.left._replace(clears=state.left.clears - 1)
                yield ("clear", index), self.after(state, index, process._replace(clearing=(SENT, 0)), left=left)
            return
        step, wid = process.clearing
        if step == SENT:
            wid = state.ids + 1
            process = process._replace(clearing=(DONE, wid), own=(*process.own, wid))
            executed = self.after(state, index, process, ids=wid)
            yield (
                ("execute clear", index, wid),
                self.publish(executed, "C", wid, state.server._replace(generation=wid)),
            )
            return
        ended = process._replace(clearing=None)
        if "return_suspects" in self.on:
            ended = ended._replace(entry=None, stamp=process.stamp + 1)
        ended = ended._replace(generation=None)  # decisions.md; not enough by itself, see "unheard_hides"
        yield ("clear returns", index, wid), self.after(state, index, ended._replace(cleared=max(process.cleared, wid)))
        yield ("clear fails", index, wid), self.after(state, index, ended)

    # -- hearing

    def deliver(self, state: State, index: int, process: Process) -> Steps:
        """The next thing in the queue arrives, or a message is lost."""
        if not process.queue:
            return
        item, taken = process.queue[0], process._replace(queue=process.queue[1:])
        yield ("deliver", index, item), self.after(state, index, self.hear(taken, item))
        if state.left.losses and item.kind != "H":
            left = state.left._replace(losses=state.left.losses - 1)
            yield ("lose", index, item), self.after(state, index, taken, left=left)

    def hear(self, process: Process, item: Item) -> Process:
        """The chain, then what the message asks for: ``_follow``, ``_heed``, ``heartbeat_reply``."""
        here = (item.epoch, item.seq)
        if item.kind == "H":
            process = process._replace(fence=max(process.fence, item.about), generation=item.about)
            process = process._replace(own=tuple(wid for wid in process.own if wid not in item.passed))
            if here != process.position and "compare_heartbeat" in self.on:
                process = self.suspect(process)
            return process._replace(position=here)
        if here != (process.position[0], process.position[1] + 1):
            process = self.suspect(process)
        process = process._replace(position=here)
        if item.kind == "S":
            entry, flight = process.entry, process.flight
            return process._replace(
                entry=entry if entry is None or entry[0] == item.about else None,
                flight=flight if flight is None else flight._replace(clean=False),
            )
        process = process._replace(generation=item.about)
        if item.about not in process.own:
            return self.suspect(process) if "message_suspects" in self.on else process
        returned = process.clearing is None or process.clearing[1] != item.about
        process = process._replace(own=tuple(wid for wid in process.own if wid != item.about))
        return process if returned or "own_message_early" not in self.on else self.suspect(process)

    @staticmethod
    def suspect(process: Process) -> Process:
        """Everything of the lane is suspect; entries that are have no part in this model any more."""
        return process._replace(stamp=process.stamp + 1, entry=None)

    def heartbeat(self, state: State, index: int, process: Process) -> Steps:
        """The server says where the lane stands."""
        if state.left.beats:
            server = state.server
            busy = process.clearing[1] if process.clearing is not None else 0
            passed = tuple(wid for wid in process.own if wid != busy)
            item = Item("H", server.epoch, server.seq, server.generation, passed)
            left = state.left._replace(beats=state.left.beats - 1)
            beaten = process._replace(queue=(*process.queue, item))
            yield ("heartbeat", index), self.after(state, index, beaten, left=left)

    # -- reading

    def read(self, state: State, index: int, process: Process) -> Steps:
        """A read from L2: begin, be answered, finish: ``loading/reading.py``."""
        flight = process.flight
        if flight is None:
            if state.left.reads:
                hidden = "unheard_hides" in self.on and process.own
                known = None if hidden else process.generation
                begun = process._replace(flight=Flight(known, process.stamp, True, process.cleared))
                left = state.left._replace(reads=state.left.reads - 1)
                yield ("read", index, known), self.after(state, index, begun, left=left)
        elif not flight.answered:
            value = state.server.value
            # What differs from the generation known is compared once more with the one in the record (2.7).
            known = {flight.known, state.server.generation} if flight.known is not None else {state.server.generation}
            if value is not None and value[1] not in known and "compare_generation" in self.on:
                value = None
            answered = process._replace(flight=flight._replace(answer=value, answered=True))
            yield ("get", index, value), self.after(state, index, answered)
        else:
            yield from self.finish(state, index, process, flight)

    def finish(self, state: State, index: int, process: Process, flight: Flight) -> Steps:
        """The read returns, and L1 may keep its value."""
        value, entry = flight.answer, process.entry
        if value is not None and value[1] < flight.floor:
            reason = f"a read returned a value of generation {value[1]}; this process had cleared: {flight.floor}"
            yield ("finish", index), Violation(reason)
            return
        if entry is not None and (value is None or entry[0] != value[0]):
            entry = None
        elif value is not None and flight.clean and flight.stamp == process.stamp:
            entry = (*value, process.stamp)
        yield ("finish", index), self.after(state, index, process._replace(flight=None, entry=entry))


Clear.CASES = (
    Case("two clears", Bounds(clears=2, writes=1, reads=1)),
    Case("a lost message", Bounds(clears=1, writes=1, reads=1, beats=1, losses=1)),
    Case("a lost record", Bounds(clears=1, writes=1, reads=1, beats=1, flushes=1)),
)
Clear.LONG_CASES = (
    Case("two clears and a heartbeat", Bounds(clears=2, writes=1, reads=1, beats=1)),
    Case("two clears, two writes", Bounds(clears=2, writes=2, reads=1)),
    Case("two reads", Bounds(clears=2, writes=1, reads=2)),
    Case("everything", Bounds(clears=1, writes=1, reads=1, beats=1, losses=1, flushes=1)),
)
Clear.WALKS = (Case("many", Bounds(clears=5, writes=5, reads=8, beats=6, losses=3, flushes=2)),)
Clear.MUTANTS = (
    Mutant("compare_generation", Bounds(clears=1, writes=1, reads=1)),
    Mutant("message_suspects", Bounds(clears=1, writes=1, reads=1, beats=1)),
    Mutant("return_suspects", Bounds(clears=1, writes=1, reads=1)),
    Mutant("unheard_hides", Bounds(clears=2, writes=1, reads=1)),
    Mutant("own_message_early", Bounds(clears=1, writes=1, reads=1, beats=1)),
    Mutant("compare_heartbeat", Bounds(clears=1, writes=1, reads=1, beats=1, losses=1)),
    Mutant("random_restart", Bounds(clears=1, writes=1, reads=1, beats=1, flushes=1)),
)
