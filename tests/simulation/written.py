"""Writing behind the cache, judged as ``bench/chaos`` judges it: against the file that the writers have written.

======  =========================================================================================================
``W1``  What was acknowledged is in the file in the end, or a later change of its key is, or it is a dead letter.
``W2``  A later change of a key is never followed by an earlier one in the file; the same one may come twice.
``W3``  Nothing is written that nobody changed, or whose change was reported as not done.
======  =========================================================================================================

``letters`` adds what ``flush`` and dead letters promise (W4, W5).

A change is later than another if it was called after the other had returned. What a failover loses or brings back is a
documented limit, so a server that took over excuses what lies before that; and so does a queue that was another's by
then, for who is stopped inside the writer for longer than his lock is late.

Beside the file: readers are given what waits (I1), nothing that was loaded is stored meanwhile, nor what is older
afterwards (I7), a queue that is in force is given to nobody else, and who has lost it settles nothing there (I6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nearcache.absence import ABSENT
from nearcache.codecs import SafeCodec, ValueCodec
from simulation.history import NAMES
from simulation.world import MS, World

if TYPE_CHECKING:
    from simulation.client import Client
    from simulation.process import Process
    from simulation.server import Server, Shard
    from simulation.workload import Profile, Running

_CODEC: Final = ValueCodec(SafeCodec(), 1 << 20)
_NEVER: Final = 1 << 62
#: Scripts that take records out of a queue.
SETTLING: Final = frozenset({"written", "buried"})


@dataclass(eq=False)
class Queued:
    """One change that goes into a queue.

    Attributes:
        number: The value's; None: a deletion.
        called_ns: When it began.
        last_ns: By when it was surely done: acknowledged, or in the file.
        is_acknowledged, is_refused: Whether it was reported as done, or as certainly not done.
        left_ns: When it was last seen to leave a queue.
        version: Which one it has made of the source first; 0: none yet.
        is_over: Whether it is written, or a dead letter.
        accepted_ns: When it was acknowledged.
    """

    key: str
    number: int | None
    called_ns: int
    last_ns: int = _NEVER
    is_acknowledged: bool = False
    is_refused: bool = False
    left_ns: int = 0
    version: int = 0
    is_over: bool = False
    accepted_ns: int = _NEVER


Record = tuple[str, "int | None"]


@dataclass
class Moved:
    """What one command has done to a stream: key and number of the records that have come and gone."""

    came: list[Record]
    went: list[Record]


class Written:
    """The part of the checker that knows of queues and of the file."""

    world: World
    profile: Profile
    shards: list[Shard]
    source: dict[str, int]
    encoded: dict[str, bytes]

    def __init__(self) -> None:
        self.changes: dict[str, list[Queued]] = {}
        self._numbered: dict[int, Queued] = {}
        self._newest: dict[str, Queued] = {}  # of those in the file, the one that was called last
        self._owners: dict[Server, tuple[bytes, int]] = {}
        self._in_queue: dict[Server, dict[Any, Record]] = {}
        self.queued: Moved | None = None  # by the command that is looked at
        self._losses: list[tuple[Server, int]] = []
        self._gone_ns: dict[tuple[Any, Record], int] = {}  # when a record first left a queue

    # What the whole checker has.
    def fail(self, rule: str, text: str) -> None:
        raise NotImplementedError

    def count(self, rule: str) -> None:
        raise NotImplementedError

    def _version(self, number: int) -> int | None:
        raise NotImplementedError

    # -- changes

    def queue(self, key: str, number: int | None) -> Queued:
        """A change has been called."""
        change = Queued(key, number, self.world.now)
        self.changes.setdefault(key, []).append(change)
        if number is not None:
            self._numbered[number] = change
        return change

    def acknowledge(self, change: Queued) -> None:
        """It has returned."""
        change.is_acknowledged = True
        change.accepted_ns = self.world.now
        change.last_ns = min(change.last_ns, self.world.now)

    # -- servers

    def began(self, server: Server) -> None:
        """A server takes over, with what it has of another's queue."""
        database = server.database
        stream, mark = database.data.get(NAMES.queue), database.data.get(NAMES.owner)
        if stream is not None:
            self._in_queue[server] = {place: self._read(fields) for place, fields in stream.records.items()}
        if mark is not None:
            self._owners[server] = _owner(mark)

    def queue_changed(self, server: Server, name: bytes) -> None:
        """Something about a queue has changed, perhaps."""
        if name == NAMES.owner:
            self._owner_changed(server)
        elif name == NAMES.queue:
            self._records_changed(server)

    def _owner_changed(self, server: Server) -> None:
        database = server.database
        mark, before = database.data.get(NAMES.owner), self._owners.pop(server, None)
        if mark is None:
            return
        self._owners[server] = _owner(mark)
        self.count("I6")
        if before is not None and before[0] != self._owners[server][0] and before[1] > database.now_ms:
            self.fail("I6", f"{server.name} gives its queue away although it is somebody's")

    def _records_changed(self, server: Server) -> None:
        stream, before = server.database.data.get(NAMES.queue), self._in_queue.get(server, {})
        there: dict[Any, Record] = {}
        for place, fields in stream.records.items() if stream is not None else ():
            there[place] = before.get(place) or self._read(fields)
        self._in_queue[server] = there
        places = [(place, record) for place, record in before.items() if place not in there]
        for each in places:
            self._gone_ns.setdefault(each, self.world.now)
        gone = [record for _, record in places]
        left = [change for _, number in gone if number is not None and (change := self._numbered.get(number))]
        for change in left:  # whoever has asked before may be given it
            change.left_ns = self.world.now
        if stream is None:
            self.lose(server)
            return
        self.queued = Moved([record for place, record in there.items() if place not in before], gone)
        if gone and server.script in SETTLING:
            self._is_settled_by_its_owner(server)
        for change in left:
            encoded, least = self.encoded[change.key], server.history.least
            least[encoded] = max(least.get(encoded, 0), change.version)

    def _is_settled_by_its_owner(self, server: Server) -> None:
        """Who has lost a queue to another one, or to time, may have written; but he takes nothing out of it."""
        self.count("I6")
        owner, writing = self._owners.get(server), server.cause.client
        if owner is None or owner[0] != writing.token:
            self.fail("I6", f"{server.name} lets {writing} take records out of a queue that is not his any more")

    def lose(self, server: Server) -> None:
        """A server has lost something of what waits, or of dead letters."""
        self._losses.append((server, self.world.now))

    def given_up(self, key: str, number: int | None) -> None:
        """A change is a dead letter. Of several deletions it is not known which this one was."""
        for each in self.changes.get(key, ()):
            each.is_over = each.is_over or each.number == number

    def _read(self, fields: list[bytes]) -> Record:
        _, encoded, _, envelope = fields[:4]
        key = next(key for key, each in self.encoded.items() if each == encoded)
        return key, int(_CODEC.loads(envelope)[0]) if envelope else None

    def waits(self, server: Server, encoded: bytes) -> bool:
        """Whether a change of a key waits in a server's queue."""
        return any(self.encoded[key] == encoded for key, _ in self._in_queue.get(server, {}).values())

    def stored_over(self, server: Server, encoded: bytes, number: int) -> None:
        """A value has come into L2. One that was loaded must not, as long as a change of its key waits."""
        if server in self._in_queue and self._version(number) is not None:
            self.count("I7")
            if self._is_to_come(server, encoded):
                self.fail("I7", f"{server.name} takes {encoded!r}={number}, which was loaded, and a change of it waits")

    def _is_to_come(self, server: Server, encoded: bytes) -> bool:
        """Whether a change of a key waits which a failover has not just brought back: no mark of the key names that."""
        return any(
            self.encoded[record[0]] == encoded and self._gone_ns.get((place, record), _NEVER) >= server.began_ns
            for place, record in self._in_queue.get(server, {}).items()
        )

    @property
    def is_all_written(self) -> bool:
        """Whether no queue of a server that counts has anything in it."""
        return not any(self._in_queue.get(shard.primary) for shard in self.shards)

    def _lossy(self, key: str, from_ns: int) -> bool:
        """Whether the shard of a key has lost, or brought back, something since then."""
        shard = self._shard(key)
        return (
            any(server.began_ns >= from_ns for server in shard.servers[1:])
            or any(server.stopped_ns >= from_ns for server in shard.servers if server is not shard.primary)
            or any(server in shard.servers and when >= from_ns for server, when in self._losses)
        )

    def _shard(self, key: str) -> Shard:
        process = self.a_process
        return process.shards[process.tier.place(key)[0]]

    a_process: Process

    # -- the file

    def write(self, process: Process, key: str, number: int | None) -> None:
        """The writer has written a value, or deleted one."""
        now = self.world.now
        version = self.source[key] = self.source.get(key, 0) + 1
        self.count("W3")
        if self.world.lines is not None:
            self.world.say(f"  {process} writes {key}={number} (version {version})")
        if number is None:
            candidates = [each for each in self.changes.get(key, ()) if each.number is None]
        else:
            candidates = [each for each in self.changes.get(key, ()) if each.number == number]
        if not any(not each.is_refused for each in candidates):
            self.fail("W3", f"{process} writes {key}={number}, which is nobody's change")
        self.count("W2")
        newest = self._newest.get(key)
        if (
            newest is not None
            and all(each.last_ns < newest.called_ns for each in candidates)
            and self._is_owner(process, key)
            and not self._lossy(key, min(each.called_ns for each in candidates) - self.profile.lease_ms * MS)
        ):
            self.fail("W2", f"{process} writes {key}={number} after {newest.number}, which is later")
        for change in candidates:
            change.is_over, change.version = True, change.version or version
        if number is not None or len(candidates) == 1:  # of several deletions it is not known which this one is
            change = candidates[-1]
            change.last_ns = min(change.last_ns, now)
            if newest is None or change.called_ns > newest.called_ns:
                self._newest[key] = change

    def _is_owner(self, process: Process, key: str) -> bool:
        """Whether the queue is the process's by now; if not, it has ended while its writer wrote."""
        server = self._shard(key).primary
        token, end_ms = self._owners.get(server, (b"", 0))
        return token == process.scribe.token and end_ms > self.world.now // MS

    def settle_queues(self) -> None:
        """At the end everything is written."""
        for key, changes in self.changes.items():
            if self.waits(self._shard(key).primary, self.encoded[key]):
                self.fail("W1", f"a change of {key} still waits in a queue")
            over = [each.last_ns for each in changes if each.is_over]
            for change in changes:
                self.count("W1")
                if (
                    change.is_acknowledged
                    and not any(last_ns >= change.called_ns for last_ns in over)
                    and not self._lossy(key, change.called_ns)
                ):
                    self.fail("W1", f"{key}={change.number} was acknowledged, and has not been written")

    # -- readers

    def _has(self, version: int, key: str, change: Queued) -> bool:
        """Whether this version of the source has a change, or a later one; or that was given up."""
        return any(
            each.is_over and each.version <= version and each.last_ns >= change.called_ns for each in self.changes[key]
        )

    def read_behind(self, running: Running, client: Client, key: str, value: Any) -> bool:
        """Somebody has asked L2, and is given a value. Returns whether it was one that waited.

        If so, it need not be in the cache any more. If it was loaded, the source must have had all that had been
        queued, whatever did not answer.
        """
        since_ns, number = running.begun_ns - self.profile.bound_ns, -1 if value is ABSENT else int(value)
        if value is ABSENT:  # loaders always have a value
            candidates = [each for each in self.changes.get(key, ()) if each.number is None]
            if not any(not each.is_refused for each in candidates):
                self.fail("I1", f"{running} is told that {key} is to be deleted, which nobody has asked for")
            return True
        change, version = self._numbered.get(number), self._version(number)
        self.count("I1")
        for later in self.changes.get(key, ()):
            if not later.is_acknowledged or later.last_ns >= since_ns:
                continue
            if change is not None:  # who joins a load gets what it was given, as of a value that does not wait
                is_old = change.last_ns < later.called_ns and not client.joined_load
            else:
                is_known = not (client.joined or client.joined_load)
                is_old = version is not None and is_known and not self._has(version, key, later)
            if is_old and not self._lossy(key, later.called_ns if change is None else change.called_ns):
                self.fail("I1", f"{running} is given {key}={number}, and {later.number} was queued after it")
        if change is None:
            return False
        # Whoever waited for another's load is given what had been there when that one asked.
        asked_ns = since_ns if client.joined_load else running.begun_ns
        asked = [server for server in self._shard(key).servers if server.stopped_ns >= asked_ns]
        waits = any((key, number) in self._in_queue.get(server, {}).values() for server in asked)
        return waits or change.left_ns >= asked_ns


def _owner(mark: bytes) -> tuple[bytes, int]:
    """Whose a queue is, and until when, in milliseconds."""
    token, end_ms = mark[1:].split(b" ")
    return token, int(end_ms)
