"""The lane: how L1 copies of one key stay coherent (sections 2.5 to 2.7 of the protocol, rules R1 to R7).

Two processes, one cached key, other keys on the same lane, one primary with an asynchronous replica::

    process 0 --flight, write-->  primary (log: ids in commit order)  ~~copies~~>  replica
              <--messages, heartbeat replies, in order--                            (after a failover: the primary)

Ids of writes count in commit order, which nobody in the model but the properties makes use of. A heartbeat is
executed at the instant it is sent, and what had been committed then is the fence that hits are measured by.

Properties, on every hit that L1 could give: it is not older than the last fence; nor than a write whose message has
been heard (of the same server); nor than what this process has written itself (read-your-writes); nor than what it has
already returned (monotonic reads). And of every read from L2: it is not older than what the process knew when the
reader came.

``announced`` in the bounds chooses how R5 and R7 treat a write of one's own (docs/decisions.md): True as the code
does, where messages heard before the own one are older and spare it; False as the specification first had it. There has
been one write when everything begins; ``warm`` says whether L1 holds it, in both processes. ``proxied`` makes failovers
that keep every connection open, of which no identity tells (row 43).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from . import lane_cases
from .engine import Label, Model, Violation, put, without
from .lane_state import (
    HEARD,
    NOWHERE,
    SPARED,
    UNHEARD,
    Beat,
    Entry,
    Flight,
    Message,
    Process,
    Server,
    State,
    Write,
    dirty,
    newest,
    unfit,
    value_in,
)

Steps = Iterator[tuple[Label, State | Violation]]


class Lane(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "poison": "R2: a message for the key keeps flights on it out of L1 (row 1)",
        "hear_own": "R7: messages are heeded whoever caused them (row 2)",
        "stamp_on_reconnect": "2.5: whatever was cached before a disconnect is suspect after it (row 14)",
        "chain": "2.4: messages and heartbeats are compared by write id, not by number alone (rows 41, 43)",
        "no_tolerance": "2.5: any gap makes the lane suspect (row 18)",
        "compare_heartbeat": "2.5: a heartbeat that disagrees makes the lane suspect (rows 18, 22)",
        "primary_reads": "L1 is filled from the primary only (row 7)",
        "store_after_ack": "R3: L1 takes a write after its acknowledgement (row 3)",
        "disagreement": "R4: a read that meets an entry of another write drops it and is not stored (row 4)",
        "completion": "R2: the completion of one operation keeps the others on the key out of L1 (row 4)",
        "flight_stamp": "R3: a flight is stored only under the stamp it began with (row 5)",
        "write_stamp": "R3: a write is stored only under the stamp it began with (row 5)",
        "write_poison": "R2: start and acknowledgement of a local write keep flights out of L1 (row 6)",
        "joinable": "R2: a flight that lost its marks is not joined (row 6)",
        "identity": "R3: the reply is from the server whose messages are heard (row 8)",
        "always_announce": "2.4: a delete is announced whether or not L2 held the key (row 9)",
        "write_heeds": "R5: a write that has been followed by another's message is not stored (row 2)",
        "heard_ends_sparing": "R5, R7: once its own message is heard, others are newer (decisions.md)",
        "fence_ends_sparing": "R5, R7: at a heartbeat, what was spared but is still unheard is dropped",
        "compare_wid": "2.6: a suspect is current only if L2 holds the same write id (decision 10)",
        "refresh_marks": "2.6: a suspect is made current under the conditions of R3",
    }
    EVENTS = frozenset({
        "replicate", "evict", "failover", "write other", "execute stray", "deliver", "lose", "heartbeat",
        "zombie heartbeat", "disconnect", "reconnect", "read", "join", "header", "get", "finish", "start", "execute",
        "give up", "acknowledge", "lose reply",
    })  # fmt: skip

    CASES = lane_cases.CASES
    LONG_CASES = lane_cases.LONG_CASES
    WALKS = lane_cases.WALKS
    MUTANTS = lane_cases.MUTANTS

    def initial(self) -> State:
        entry = Entry(1, 0, 0, HEARD) if self.bounds.warm else None
        process = Process(0, (), (1, 1), 0, True, entry, (), (), (0, 0), (0, 0), (0, 0), (0, 0))
        return State(Server(0, ((1, "W"),), 1, True, 0), (process,) * 2, self.bounds, 1, ())

    def canonical(self, state: State) -> State:
        first, second = state.processes
        if hash(first) > hash(second) and "hear_own" in self.on:
            return state._replace(processes=(second, first))
        return state

    def wrong(self, state: State) -> str | None:
        for process in state.processes:
            if self.is_hit(process):
                reason = self.wrong_hit(state, process)
                if reason is not None:
                    return reason
        return None

    def is_hit(self, process: Process) -> bool:
        """Whether L1 would answer a read."""
        entry = process.entry
        return entry is not None and process.live and entry.stamp == process.stamp

    def wrong_hit(self, state: State, process: Process) -> str | None:
        """Return what a hit on this entry would break."""
        entry, fork = process.entry, state.server.fork
        assert entry is not None
        same = entry.fork == fork
        if entry.wid > state.ids:
            return f"a hit on write {entry.wid}, which no server has acknowledged"
        if process.fence[0] == fork and (same or self.bounds.proxied) and entry.wid < process.fence[1]:
            return f"a hit on write {entry.wid}, but a heartbeat has passed write {process.fence[1]}"
        if same and process.told[0] == fork and entry.wid < process.told[1]:
            return f"a hit on write {entry.wid}, but a message about write {process.told[1]} has been heard"
        if same and process.own[0] == fork and entry.wid < process.own[1]:
            return f"a hit on write {entry.wid}, but this process has itself written {process.own[1]}"
        if same and process.seen[0] == fork and entry.wid < process.seen[1]:
            return f"a hit on write {entry.wid}, but this process has already returned {process.seen[1]}"
        return None

    def events(self, state: State) -> Steps:
        yield from self.replicate(state)
        yield from self.evict(state)
        yield from self.fail_over(state)
        yield from self.write_other(state)
        yield from self.execute_stray(state)
        for index, process in enumerate(state.processes):
            yield from self.deliver(state, index, process)
            yield from self.heartbeat(state, index, process)
            yield from self.disconnect(state, index, process)
            yield from self.reconnect(state, index, process)
            yield from self.read(state, index, process)
            for number, flight in enumerate(process.flights):
                yield from self.ask(state, index, process, number, flight)
                yield from self.finish(state, index, process, number, flight)
            yield from self.start(state, index, process)
            for number, write in enumerate(process.writes):
                yield from self.execute(state, index, process, number, write)
                yield from self.acknowledge(state, index, process, number, write)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    # -- the server

    def replicate(self, state: State) -> Steps:
        """The replica receives the next mutation."""
        server = state.server
        matters = state.left.failovers or "primary_reads" not in self.on
        if matters and server.copied < len(server.log):
            yield ("replicate",), state._replace(server=server._replace(copied=server.copied + 1))

    def evict(self, state: State) -> Steps:
        """L2 loses the value (row 10)."""
        server = state.server
        if state.left.evictions and value_in(server.log, server.present):
            left = state.left._replace(evictions=state.left.evictions - 1)
            yield ("evict",), state._replace(server=server._replace(present=False), left=left)

    def fail_over(self, state: State) -> Steps:
        """The replica takes over; what it had not received is lost (rows 40 to 43)."""
        if not state.left.failovers:
            return
        old, processes = state.server, state.processes
        server = Server(old.fork + 1, old.log[: old.copied], old.copied, old.present, 0)
        if self.bounds.proxied:
            processes = tuple(p if p.fork != old.fork else p._replace(fork=server.fork) for p in processes)
        left = state.left._replace(failovers=state.left.failovers - 1)
        yield ("failover",), state._replace(server=server, processes=processes, left=left)

    def commit(self, state: State, kind: str, writer: int) -> State:
        """Execute a mutation: one step of the sequence, one message to whoever listens here (row 19)."""
        server, wid = state.server, state.ids + 1
        if kind == "D" and "always_announce" not in self.on and not value_in(server.log, server.present):
            return state._replace(server=server._replace(silent=wid), ids=wid)
        log = (*server.log, (wid, kind))
        prev = server.log[-1][0] if server.log else 0
        message = Message(len(log), prev, wid, kind, writer if "hear_own" not in self.on else 0)
        return state._replace(
            server=server._replace(log=log, present=server.present or kind != "X"),
            processes=tuple(
                p._replace(queue=(*p.queue, message)) if p.fork == server.fork else p for p in state.processes
            ),
            ids=wid,
        )

    def write_other(self, state: State) -> Steps:
        """Somebody writes another key of the lane."""
        if state.left.others:
            state = state._replace(left=state.left._replace(others=state.left.others - 1))
            yield ("write other",), self.commit(state, "X", NOWHERE)

    def execute_stray(self, state: State) -> Steps:
        """A write is executed that its process has given up (row 34)."""
        for number, (kind, writer) in enumerate(state.strays):
            yield (
                ("execute stray", kind),
                self.commit(state._replace(strays=without(state.strays, number)), kind, writer),
            )

    # -- the connection that messages come on

    def deliver(self, state: State, index: int, process: Process) -> Steps:
        """The next thing in the queue arrives, or a message is lost in silence."""
        if not process.queue:
            return
        item, taken = process.queue[0], process._replace(queue=process.queue[1:])
        heard = self.hear(taken, item, index) if isinstance(item, Message) else self.fence(taken, item)
        yield ("deliver", index, item), self.after(state, index, heard)
        if state.left.losses and isinstance(item, Message):
            left = state.left._replace(losses=state.left.losses - 1)
            yield ("lose", index, item), self.after(state, index, taken, left=left)

    def hear(self, process: Process, message: Message, index: int) -> Process:
        """Apply a message: the chain first, then the key."""
        if process.position is not None:
            seq, last = process.position
            follows = message.seq == seq + 1 and (message.prev == last or "chain" not in self.on)
            if not follows and "no_tolerance" in self.on:
                process = process._replace(stamp=process.stamp + 1)
            process = process._replace(position=(message.seq, message.wid))
        if message.kind == "X":
            return process
        if not self.bounds.proxied:  # else nobody knows which server it came from
            process = process._replace(told=(process.fork, message.wid))
        if "poison" in self.on:
            process = process._replace(flights=dirty(process.flights))
        own = message.writer == index and "hear_own" not in self.on
        return process._replace(
            writes=tuple(self.write_hears(write, message.wid) for write in process.writes),
            entry=process.entry if own or process.entry is None else self.entry_hears(process.entry, message.wid),
        )

    def write_hears(self, write: Write, wid: int) -> Write:
        """R5: ``pending_hear``."""
        if write.wid == wid:
            return write._replace(heard=HEARD) if "heard_ends_sparing" in self.on else write
        if write.heard != HEARD:
            return write._replace(heard=SPARED)
        return write._replace(clean=False) if "write_heeds" in self.on else write

    def entry_hears(self, entry: Entry, wid: int) -> Entry | None:
        """R7: ``apply_one``."""
        if entry.wid == wid:
            return entry._replace(heard=HEARD) if "heard_ends_sparing" in self.on else entry
        return entry._replace(heard=SPARED) if entry.heard != HEARD else None

    def heartbeat(self, state: State, index: int, process: Process) -> Steps:
        """A heartbeat is executed; or an old primary answers, which knows nothing new (row 42)."""
        server = state.server
        if not state.left.beats or process.fork == NOWHERE:
            return
        left = state.left._replace(beats=state.left.beats - 1)
        latest = max(newest(server.log), server.silent)
        if process.fork == server.fork:
            beat = Beat(len(server.log), server.log[-1][0] if server.log else 0, server.fork, latest, False)
            yield (
                ("heartbeat", index),
                self.after(state, index, process._replace(queue=(*process.queue, beat)), left=left),
            )
        elif process.position is not None:
            beat = Beat(0, 0, server.fork, latest, True)
            yield (
                ("zombie heartbeat", index),
                self.after(state, index, process._replace(queue=(*process.queue, beat)), left=left),
            )

    def fence(self, process: Process, beat: Beat) -> Process:
        """Take a heartbeat's reply: it comes after every message that the server sent before it."""
        process = process._replace(live=True, fence=(beat.fork, beat.newest))
        if beat.zombie:
            return process
        there = (beat.seq, beat.wid)
        if process.position is None:
            process = process._replace(position=there)
        elif self.disagrees(process.position, there):
            process = process._replace(position=there, stamp=process.stamp + 1)
        if "fence_ends_sparing" in self.on:
            entry = process.entry
            process = process._replace(
                entry=None if entry is not None and entry.heard == SPARED else entry,
                writes=tuple(w._replace(clean=False) if w.heard == SPARED else w for w in process.writes),
            )
        return process

    def disagrees(self, here: tuple[int, int], there: tuple[int, int]) -> bool:
        """Whether a heartbeat shows that something was missed."""
        return "compare_heartbeat" in self.on and (here != there if "chain" in self.on else here[0] != there[0])

    def disconnect(self, state: State, index: int, process: Process) -> Steps:
        """The connection ends. One to a server that is not the primary any more ends for nothing."""
        gone = process.fork != state.server.fork
        if process.fork == NOWHERE or not (gone or state.left.cuts):
            return
        process = process._replace(fork=NOWHERE, queue=(), position=None, live=False)
        left = state.left if gone else state.left._replace(cuts=state.left.cuts - 1)
        yield ("disconnect", index), self.after(state, index, process, left=left)

    def reconnect(self, state: State, index: int, process: Process) -> Steps:
        """A new subscription begins; the first heartbeat will be its baseline (row 20)."""
        if process.fork != NOWHERE:
            return
        server = state.server
        if "stamp_on_reconnect" in self.on:
            process = process._replace(fork=server.fork, stamp=process.stamp + 1)
        else:
            here = (len(server.log), server.log[-1][0] if server.log else 0)
            process = process._replace(fork=server.fork, position=here, live=True)
        yield ("reconnect", index), self.after(state, index, process)

    # -- reading

    def may_store(self, process: Process, op: Flight | Write) -> bool:
        """R3, ``core_admits``: nothing spoke against the operation, from its beginning to now."""
        return (
            op.clean
            and (
                op.stamp == process.stamp
                or ("flight_stamp" if isinstance(op, Flight) else "write_stamp") not in self.on
            )
            and op.live
            and (self.bounds.proxied or op.fork == process.fork or "identity" not in self.on)
        )

    def read(self, state: State, index: int, process: Process) -> Steps:
        """A reader misses L1: it joins a flight, or begins one (R1)."""
        if not state.left.reads or self.is_hit(process):
            return
        left = state.left._replace(reads=state.left.reads - 1)
        floor = max(process.seen, process.own)
        for number, flight in enumerate(process.flights):
            if (flight.clean and flight.stamp == process.stamp) or "joinable" not in self.on:
                joined = put(process.flights, number, flight._replace(floor=floor))
                yield ("join", index), self.after(state, index, process._replace(flights=joined), left=left)
                return
        if len(process.flights) < 2:
            suspect = process.entry.wid if process.entry is not None else 0
            live = process.position is not None
            flight = Flight(suspect, False, 0, 0, process.stamp, live, True, floor)
            begun = process._replace(flights=(*process.flights, flight))
            yield ("read", index), self.after(state, index, begun, left=left)

    def ask(self, state: State, index: int, process: Process, number: int, flight: Flight) -> Steps:
        """The server answers: with the header if there is a suspect, with the value if that is another's (2.6)."""
        if flight.answered:
            return
        server = state.server
        log = server.log if "primary_reads" in self.on else server.log[: server.copied]
        wid = value_in(log, server.present)
        if not flight.suspect:
            name, answer = "get", flight._replace(answered=True, wid=wid, fork=server.fork)
        elif wid == flight.suspect or "compare_wid" not in self.on:
            name, answer = "header", flight._replace(answered=True, wid=flight.suspect, fork=server.fork)
        else:
            name, answer = "header", flight._replace(suspect=0)
        flights = put(process.flights, number, answer)
        yield (name, index, number, wid), self.after(state, index, process._replace(flights=flights))

    def finish(self, state: State, index: int, process: Process, number: int, flight: Flight) -> Steps:
        """A flight completes: ``settle``, or ``restamp`` if it was about a suspect."""
        if not flight.answered:
            return
        entry, wid = process.entry, flight.wid
        if flight.floor[0] == flight.fork and 0 < wid < flight.floor[1]:
            reason = f"a read has returned write {wid}, but began or was joined after write {flight.floor[1]}"
            yield ("finish", index, number), Violation(reason)
            return
        storable = wid != 0 and self.may_store(process, flight)
        if flight.suspect and "refresh_marks" not in self.on:
            storable = True
        if entry is not None and entry.wid != wid and "disagreement" in self.on:
            entry = None
        elif storable and (entry is not None or not flight.suspect):
            entry = Entry(wid, process.stamp, flight.fork, HEARD)
        flights, writes = without(process.flights, number), process.writes
        if "completion" in self.on:  # close_op
            flights, writes = dirty(flights), unfit(writes)
        seen = max(process.seen, (flight.fork, wid)) if wid else process.seen
        done = process._replace(entry=entry, seen=seen, flights=flights, writes=writes)
        yield ("finish", index, number), self.after(state, index, done)

    # -- writing

    def start(self, state: State, index: int, process: Process) -> Steps:
        """A write or a delete begins (R1, R2)."""
        if not state.left.writes or len(process.writes) >= self.bounds.threads:
            return
        left = state.left._replace(writes=state.left.writes - 1)
        flights = dirty(process.flights) if "write_poison" in self.on else process.flights
        for kind in "WD":
            heard = UNHEARD if kind == "W" and self.bounds.announced else HEARD
            write = Write(kind, 0, NOWHERE, process.stamp, process.position is not None, True, heard)
            entry = process.entry if kind == "W" else None
            if kind == "W" and "store_after_ack" not in self.on:
                entry = Entry(state.ids + 1, process.stamp, state.server.fork, heard)
            begun = process._replace(flights=flights, writes=(*unfit(process.writes), write), entry=entry)
            yield ("start", index, kind), self.after(state, index, begun, left=left)

    def execute(self, state: State, index: int, process: Process, number: int, write: Write) -> Steps:
        """The server executes a write; or the process gives it up first, and it may be executed later (row 34)."""
        if write.wid:
            return
        wid, fork = state.ids + 1, state.server.fork
        writes = put(process.writes, number, write._replace(wid=wid, fork=fork))
        began = self.after(state, index, process._replace(writes=writes))
        yield ("execute", index, write.kind, wid), self.commit(began, write.kind, index)
        if state.left.timeouts:
            left = state.left._replace(timeouts=state.left.timeouts - 1)
            strays = (*state.strays, (write.kind, index if "hear_own" not in self.on else 0))
            given_up = self.end_unknown(process, number)
            yield ("give up", index, write.kind), self.after(state, index, given_up, left=left, strays=strays)

    def end_unknown(self, process: Process, number: int) -> Process:
        """R6: nobody knows whether the write was executed."""
        return self.end_write(process._replace(entry=None), number)

    def end_write(self, process: Process, number: int) -> Process:
        """Take a write off the list; the other operations on the key lose their marks (R2)."""
        flights = dirty(process.flights) if "write_poison" in self.on else process.flights
        return process._replace(flights=flights, writes=unfit(without(process.writes, number)))

    def acknowledge(self, state: State, index: int, process: Process, number: int, write: Write) -> Steps:
        """The reply of an executed write arrives, or is lost."""
        if not write.wid:
            return
        done = (write.fork, write.wid)
        entry = process.entry
        if write.kind == "W" and self.may_store(process, write):
            entry = Entry(write.wid, process.stamp, write.fork, write.heard)
        elif entry is not None and (write.kind == "D" or entry.wid != write.wid):
            entry = None
        seen = max(process.seen, done) if write.kind == "W" else process.seen
        ended = self.end_write(process._replace(entry=entry, own=max(process.own, done), seen=seen), number)
        yield ("acknowledge", index, write.kind, write.wid), self.after(state, index, ended)
        yield ("lose reply", index, write.wid), self.after(state, index, self.end_unknown(process, number))
