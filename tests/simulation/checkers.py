"""The promises, checked at every step: I1 to I12 of the coherence protocol, and I13 to I18 beyond.

======  ==========================================================================================================
``I1``  A hit was current, on the server that the lane follows, at some instant within the last B.
``I2``  Nothing is served after ``fresh_until``, nor after its own expiry.
``I3``  A process reads its own writes: after a write or invalidation returned, nothing older is read.
``I4``  Per key and process, reads never go back, whichever thread reads.
``I5``  When the faults are over, every lane recovers and every entry of L1 is what L2 holds.
``I6``  One loader at a time has the lease of a key (where there are leases).
``I7``  What was loaded before an invalidation never reaches L2 after it.
``I8``  What a failover lost of a living writer is announced again within B + 5 s.
``I9``  After a clear returned, nothing older is read.
``I10`` A read raises only what the loader raised.
``I11`` L1 keeps its bounds, and the store its invariants.
``I12`` Every call returns by its deadline.
``I13`` A change is made of what it replaces: no update is lost, and what is taken is given to one caller.
``I14`` After a process has waited for a token, it reads nothing older than what the token's maker had changed.
``I15`` Old copies are served no longer than allowed, and what is due to be loaded anew no longer than a lease.
``I16`` With ``ack="replica"``, what has returned is not lost with the primary, where that replica takes over.
``I17`` With ``consistency="lane"``, a process that has seen something of a lane reads nothing older, whatever its key.
``I18`` With ``max_age``, what is read was stored no longer ago than that when it was asked for.
======  ==========================================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nearcache.absence import ABSENT
from nearcache.codecs import SafeCodec, ValueCodec, peek_absence, peek_ids, peek_times
from nearcache.coherence import TAG_KEY, State
from nearcache.keys import encode_key
from simulation.everywhere import Everywhere
from simulation.history import NAMES, History, generation_of, is_lane, lease_key, only_makes_records, value_key
from simulation.promises import COUNTED, LoaderFailed, Promises
from simulation.server import Change, Server, Shard
from simulation.world import MS, START_NS, TICK_NS, Violation, World
from simulation.written import SETTLING

if TYPE_CHECKING:
    from simulation.process import Client, Process
    from simulation.workload import Profile

_CODEC: Final = ValueCodec(SafeCodec(), 1 << 20)
_ALIVE: Final = (1 << 62, 0, False)

Floor = tuple[Server, int]


class Value(NamedTuple):
    """Where a value comes from: every one is unique."""

    key: str
    version: int | None  # of the source, where it was loaded


class LoaderCall:
    """One call of the loader, which reads the source at some instant between its begin and its end."""

    def __init__(self, checker: Checker, client: Client, key: str, fails: bool) -> None:
        self.checker = checker
        self.client = client
        self.key = key
        self.fails = fails
        self.is_absent = False
        self.version = 0

    def read(self) -> None:
        """Read the source."""
        self.version = self.checker.version_at(self.key)

    def end(self) -> Any:
        """The loader's value, or what it raises."""
        self.checker.loading[self.key].remove(self)
        if self.fails:
            return LoaderFailed(self.key)
        if self.is_absent:
            return ABSENT
        if self.key in self.checker.profile.counters:
            return 0
        return self.checker.make(self.key, self.version)


class Checker(Promises, Everywhere):
    """Watches servers and processes; raises :class:`Violation`.

    Attributes:
        source: Key -> version: the source of truth that loaders read.
        values: Every value that was ever made.
        counts: How often each rule has been looked at.
    """

    def __init__(self, world: World, profile: Profile) -> None:
        Promises.__init__(self)
        Everywhere.__init__(self)
        self.world = world
        self.profile = profile
        self.shards: list[Shard] = []
        self.source: dict[str, int] = {}
        self.changed_ns: dict[str, list[int]] = {}
        self.values: list[Value] = [Value("", None)]
        self.loading: dict[str, list[LoaderCall]] = {}
        self.counts: dict[str, int] = {}
        self.encoded = {key: encode_key(key) for key in profile.keys + profile.counters}
        self._names = {encoded: key for key, encoded in self.encoded.items()}
        self._absences: dict[int, int] = {}
        self._floors: dict[tuple[Process, str], Floor] = {}
        self._cleared: dict[tuple[Process, int], Floor] = {}
        self._versions: dict[tuple[Process, str], tuple[Server, int]] = {}
        self._random = world.stream("loader")
        self.lost: list[tuple[Process, int, bytes, int, int]] = []

    def fail(self, rule: str, text: str) -> None:
        """Raise a violation."""
        self.world.say(f"{rule} is violated: {text}")
        raise Violation(rule, text, self.world.now - START_NS)

    def count(self, rule: str) -> None:
        """Note that a rule was looked at."""
        self.counts[rule] = self.counts.get(rule, 0) + 1

    def make(self, key: str, version: int | None = None) -> Any:
        """A new value of a key, as the cache is given it: its number, sometimes in a lot of paper."""
        self.values.append(Value(key, version))
        number = len(self.values) - 1
        return f"{number}".ljust(17_000) if self.profile.large and number % 16 == 0 else number

    # -- servers

    def changed(self, server: Server) -> None:
        """A command has changed a server's data, or published."""
        now, history, database = self.world.now, server.history, server.database
        late = self.filled_late(server) if server.script == "fill" else None
        values = []
        before = {key: history.live(key, now) for key in filter(None, map(value_key, database.dirty))}
        for _, payload in database.published:
            self._announced(server, payload)
        for name in database.dirty:
            key = value_key(name)
            if key is not None:
                values.append((key, name))
            elif is_lane(name):
                self.recorded(server, is_there=name in database.data)
            else:
                self.marked(server, name)
        for key, name in values:
            envelope = database.data.get(name)
            if envelope is None:
                history.current.pop(key, None)
                continue
            number = self._number_in(server, key, envelope)
            if history.store(key, number, database.expires.get(name), now):
                self._born(server, key, number, envelope, before[key])
        if late is not None:
            self.fail("I6", f"{server.name} takes {late!r} of {server.cause}, whose lease is not in force")
        self.committed(server)
        if self.profile.moves:
            self.emptied(server)

    def _announced(self, server: Server, payload: bytes) -> None:
        history = server.history
        operation, keys = history.announce(payload, self.world.now)
        versions = getattr(server.cause, "before" if operation == "C" else "versions", None)
        if operation in "SIC" and versions:
            for key in keys or versions:
                history.least[key] = max(history.least.get(key, 0), versions.get(key, 0))
        if self.world.lines is not None:
            self.world.say(f"  {server.name} announces {payload[:1].decode()} {keys} for {server.cause}")

    def _number_in(self, server: Server, key: bytes, envelope: bytes) -> int:
        """Which value an envelope holds."""
        if key.startswith(TAG_KEY):
            return peek_ids(envelope)[0]
        if peek_absence(envelope):
            return self._absence_in(server, key, peek_ids(envelope)[0])
        number = int(_CODEC.loads(envelope)[0])
        return number + COUNTED if self._names[key] in self.profile.counters else number

    def _absence_in(self, server: Server, key: bytes, wid: int) -> int:
        """All absences look the same, so they are told apart by the ids of their writes."""
        if wid not in self._absences:
            call = server.cause.client.last_loads[self._names[key]]
            self.values.append(Value(call.key, call.version))
            self._absences[wid] = len(self.values) - 1
            self.is_absence(key, self._absences[wid])
        return self._absences[wid]

    def _born(self, server: Server, key: bytes, number: int, envelope: bytes, before: int | None) -> None:
        if key.startswith(TAG_KEY):
            self.tag_changed(server, number)
            return
        value, least = self._value(number), server.history.least.get(key, 0)
        if self.world.lines is not None:
            self.world.say(f"  {server.name} holds {value.key}={number} (version {value.version})")
        self.count("I7")
        if value.version is not None and value.version < least:
            self.fail(
                "I7", f"{server.name} takes {value.key}={number} of version {value.version}, invalidated by {least}"
            )
        whole_ms, soft_ms, _ = peek_times(envelope)
        if soft_ms:
            server.history.is_due(number, self.world.now + soft_ms * MS, (whole_ms - soft_ms) * MS)
        self.states(server, key, number, envelope)
        if self.profile.moves:
            self.stored_somewhere(self._names[key], number, server)
        self.replaces(server, key, number, before)

    def replaced(self, old: Server, new: Server, lost: list[Change]) -> None:
        """A replica that has not seen what was lost is primary now."""
        now, data = self.world.now, new.database.data
        history = new.history = old.history.fork()
        generation = data.get(_lane_name(data), {}).get(b"g")
        there: dict[bytes, int] = {}
        for name, envelope in data.items():
            leased = lease_key(name)
            if leased is not None:
                history.marks[leased] = (envelope, new.database.expires.get(name, 0))
            key = value_key(name)
            if key is not None and generation_of(envelope) == generation:
                there[key] = self._number_in(old, key, envelope)
        if generation != history.generation:
            history.generation = generation
            history.kill_all(now)
        for change in lost:
            self.count("I16")
            self.emptied_in_vain(old, change.cause, change.script, [name for name, *_ in change.keys])
            confirmed = getattr(change.cause, "is_confirmed", False) and change.script not in change.cause.unconfirmed
            if confirmed and not only_makes_records(change):
                self.fail("I16", f"{new.name} has not heard of {change.cause}, which a replica had confirmed")
            for _, payload in change.published:
                for key in history.unsay(payload):
                    for value in list(history.alive.get(key, ())):
                        history.kill(key, value, now)
        history.lost = history.killed.keys() - old.history.killed.keys()
        for key, number in there.items():
            history.store(key, number, None, now)
            end_ms = new.database.expires.get(NAMES.value(key))
            if end_ms is None:
                history.ends.pop(number, None)
            else:  # what was lost may have given it another life
                history.gives_life(number, (end_ms + 1) * MS, now)
        self.owed_again(new, lost, there)
        if self.profile.moves and lost:
            told = [History().announce(payload, 0) for change in lost for _, payload in change.published]
            keyless = any(operation == "C" or (keys and keys[0].startswith(TAG_KEY)) for operation, keys in told)
            self.lost_somewhere(set(self._names) if keyless else {key for _, keys in told for key in keys})

    def owed_again(self, new: Server, lost: list[Change], there: dict[bytes, int]) -> None:
        """Note what the writers who live have to announce again: what they had ended is there once more."""
        for change in lost:
            process = getattr(getattr(change.cause, "client", None), "process", None)
            if process is None or process.incarnation != change.cause.incarnation:  # it has died since, or forked
                continue
            if change.script in SETTLING:  # lost together with what it settled, which waits again
                continue
            for _, payload in change.published:
                operation, keys = History().announce(payload, 0)
                if operation in "SI":
                    self.lost += [
                        (process, process.incarnation, key, there[key], self.world.now) for key in keys if key in there
                    ]

    # -- what a process has seen

    def floor(self, process: Process, key: str) -> Floor | None:
        """What a read that begins now must not fall below."""
        own = self._floors.get((process, key))
        if self._cleared:
            cleared = self._cleared.get((process, process.tier.place(key)[0]))
            if cleared is not None and (own is None or own[0] is not cleared[0] or own[1] < cleared[1]):
                return cleared
        return own

    def raise_floor(self, process: Process, key: Any, server: Server, sequence: int, *, own: bool = False) -> None:
        """The process has seen this state of a key, or of a tag, or made it."""
        if own:
            self._written[process, key] = (server, sequence)
        held = self._floors.get((process, key))
        if held is None or held[0] is not server or held[1] < sequence:
            self._floors[process, key] = (server, sequence)

    def cleared(self, process: Process, lane: int, server: Server, sequence: int) -> None:
        """The process has cleared a lane."""
        self._cleared[process, lane] = (server, sequence)

    def version_floor(self, process: Process, key: str) -> tuple[Server, int] | None:
        """The version of the source that the process has invalidated older ones of."""
        return self._versions.get((process, key))

    def invalidated(self, process: Process, key: str, server: Server, version: int) -> None:
        """The process has announced a change of the source."""
        held = self._versions.get((process, key))
        if held is None or held[0] is not server or held[1] < version:
            self._versions[process, key] = (server, version)

    def gone(self, process: Process) -> None:
        """A process has died; the next under its number knows nothing."""
        for memory in (self._floors, self._cleared, self._versions, self._written, self._promised, self._lanes):
            for known in [known for known in memory if known[0] is process]:
                del memory[known]  # type: ignore[attr-defined]  # dicts of different keys

    # -- reads

    def hit(self, process: Process, key: str, value: Any) -> int:
        """L1 has answered."""
        lane = process.tier.place(key)[0]
        number = self.number(key, value)
        store, now = process.store, process.clock()
        self.count("I1")
        if store.lane_fresh_until(lane) <= now - now % TICK_NS:
            self.fail("I2", f"{process} serves {key}={number} although nothing of the lane is vouched for")
        server, believed = self.followed(process, lane), self.believed(process, lane)
        history = server.history
        killed = believed.history.killed.get(number)
        if killed is not None and self.world.now - killed[0] > self.profile.bound_ns:
            late = (self.world.now - killed[0]) / MS
            self.fail("I1", f"{process} serves {key}={number}, dead on {believed.name} for {late:.3f} ms")
        end = history.ends.get(number)
        self.not_overdue(process, key, number, history)
        self.tags_hit(process, key, number)
        if end is not None and self.world.now > end and not self._is_shortened(history, number):
            self.fail("I2", f"{process} serves {key}={number} {(self.world.now - end) / MS:.3f} ms after its expiry")
        floor = self.floor(process, key)
        self.not_below(process, key, number, floor, server)
        if self.profile.moves:
            self.current_somewhere(process, key, number, believed, self.world.now)
        self.not_before(process, key, number, self.lane_floors(process).get(lane), server)
        if number in history.born:
            self.raise_floor(process, key, server, history.born[number])
        return number

    def not_below(self, process: Process, key: str, number: int, floor: Floor | None, server: Server) -> None:
        """A value must not be older than what the process had seen when it asked."""
        self.count("I4")
        if floor is None or floor[0] is not server:
            return
        killed = server.history.killed.get(number)
        if killed is not None and killed[1] <= floor[1]:
            rule = "I9" if self._cleared.get((process, process.tier.place(key)[0])) == floor else "I4"
            rule = "I14" if self._promised.get((process, key)) == floor else rule
            self.fail(
                rule, f"{process} reads {key}={number}, ended by change {killed[1]}, after it had seen {floor[1]}"
            )

    def read(
        self,
        client: Client,
        key: str,
        value: Any,
        since_ns: int,
        floor: Floor | None,
        tag_floors: dict[Any, Floor],
    ) -> int:
        """L2 has answered, to this client or to one that it waited for."""
        process = client.process
        number, lane = self.number(key, value), client.tier.place(key)[0]
        seen = client.seen.get(lane)
        if seen is not None:  # of two servers one has had the value, and the other has been asked about it
            server = max(client.asked[lane], key=lambda each: each.history.killed.get(number, _ALIVE)[0])
            self._given_by[process, number] = server
        else:  # somebody else has asked, and perhaps another server than the one that is heard
            server = client.told.get(lane) or self._given_by.get((process, number)) or self.followed(process, lane)
            floor = floor if server is process.shards[lane].primary else None  # which has answered, perhaps
        history, killed = server.history, server.history.killed.get(number)
        # What a process knows of a generation it knows from messages, which may be late; and so may another's read be.
        trusts = seen is None or client.joined or (killed is not None and killed[2])
        oldest = since_ns - self.profile.bound_ns if trusts else since_ns
        self.count("I3")
        is_old = process.old_served.get(number, 0) >= since_ns  # that has been looked at
        self.tags_read(client, key, number, since_ns, tag_floors, is_old=is_old)
        if killed is not None and killed[0] < oldest and not client.joined_load and not is_old:
            late = (since_ns - killed[0]) / MS
            self.fail("I1", f"{client} reads {key}={number}, dead on {server.name} {late:.3f} ms before it asked")
        if self.profile.moves and not client.joined_load and not is_old:
            self.current_somewhere(process, key, number, server, since_ns)
        self.not_below(process, key, number, floor, server)
        if number in history.born:
            self.raise_floor(process, key, server, history.born[number])
        return number

    def loaded(self, client: Client, key: str, value: Any, least: tuple[Server, int] | None) -> None:
        """A load has returned: its version is not older than what this process had announced when it asked."""
        number, process = self.number(key, value), client.process
        version = None if self.profile.lag_ns else self._version(number)
        lane = client.tier.place(key)[0]
        if least is not None and version is not None and least[0] is process.shards[lane].primary:
            self.count("I3")
            server = client.seen.get(lane, least)[0]
            if version < least[1] and server is least[0]:
                self.fail(
                    "I3", f"{client} loads {key}={number} of version {version} after it invalidated for {least[1]}"
                )

    def followed(self, process: Process, lane: int) -> Server:
        """The server whose history counts for the process."""
        bus = process.buses[lane]
        if bus is not None and bus.server.running:
            return bus.server
        return process.shards[lane].primary

    def number(self, key: str, value: Any) -> int:
        """Which value this is, of those that belong to the key."""
        number = int(value)
        if key in self.profile.counters:
            self.world.note(number & 0xFFFF)
            return number + COUNTED
        if self.values[number].key != key:
            self.fail("I4", f"{key} has the value {number}, which belongs to {self.values[number].key}")
        self.world.note(number)
        return number

    def _value(self, number: int) -> Value:
        return self.values[number] if number < COUNTED else Value("a counter", None)

    def _version(self, number: int) -> int | None:
        return self._value(number).version

    def version_at(self, key: str) -> int:
        """The version that a reader of the source sees, which may be a lagging replica of it."""
        if not self.profile.lag_ns:
            return self.source.get(key, 0)
        return sum(when <= self.world.now - self.profile.lag_ns for when in self.changed_ns.get(key, ()))

    # -- loaders

    def load_begins(self, client: Client, key: str) -> LoaderCall:
        """A loader is called."""
        call = LoaderCall(self, client, key, self._random.random() < self.profile.load_failures)
        call.is_absent = bool(self.profile.absences) and self._random.random() < self.profile.absences
        under_way = self.loading.setdefault(key, [])
        under_way.append(call)
        return call

    # -- the end

    def quiet(self, processes: list[Process]) -> None:
        """The faults are over, and there was time to recover."""
        for process in processes:
            now = process.clock()
            process.set_clocks()
            process.store.check_invariants()
            for client in process.clients:
                if client.current is not None or client.done < len(client.operations):
                    self.fail("I12", f"{client} has not come back from {client.current}")
            if len(process.tier.loads):
                self.fail("I12", f"{process} still has loads under way")
            for lane in process.tier.active:
                shard = process.shards[lane]
                if process.tier.lanes[lane].state is not State.LIVE or process.store.lane_fresh_until(lane) <= now:
                    self.fail("I5", f"{process} does not follow {shard.name}: {process.tier.lanes[lane].last_error}")
                if process.tier.journals[lane].owes:
                    self.fail("I8", f"{process} still owes an invalidation on {shard.name}")
            for key in self.encoded:
                self._agrees(process, key)
        self._is_repaired()
        if self.profile.moves:
            self.settled_everywhere(processes)

    def _is_repaired(self) -> None:
        for process, incarnation, key, number, when in self.lost:
            if process.incarnation != incarnation:
                continue  # the writer has died since, or forked, and its journal with it
            self.count("I8")
            lane = process.tier.lane_of(key)
            server = process.shards[lane].primary
            if number in server.history.alive.get(key, {}) and self.in_l2(server, process, key) == number:
                since = (self.world.now - when) / MS
                self.fail(
                    "I8",
                    f"{server.name} holds {key!r}={number}, which {process} had ended, {since:.0f} ms after a failover",
                )

    def in_l2(self, server: Server, process: Process, encoded: bytes) -> int | None:
        """The value that a server holds and that is not void by its generation."""
        envelope = server.database.live(process.tier.names[0].value(encoded))
        if envelope is None or generation_of(envelope) != server.history.generation:
            return None
        return self._number_in(server, encoded, envelope)

    def _agrees(self, process: Process, key: str) -> None:
        held = process.store.peek(key)
        self.count("I5")
        if held is None:
            return
        lane, encoded = process.tier.place(key)
        server = process.shards[lane].primary
        number = self.number(key, held)
        if number in server.history.killed:
            self.fail("I5", f"{process} still holds {key}={number}, dead on {server.name}")
        self.tags_alive(process, key, number)
        there = self.in_l2(server, process, encoded)
        if there is not None and there not in server.history.alive.get(encoded, {}):
            self.fail("I5", f"{server.name} holds {key}={there}, which its history does not know")


def _lane_name(data: dict[bytes, Any]) -> bytes:
    return next((name for name in data if is_lane(name)), b"")
