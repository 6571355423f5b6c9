"""What ``flush`` and dead letters promise, beyond what is judged of every change that goes into a queue.

======  =========================================================================================================
``W4``  When ``flush`` has returned, what was acknowledged before it was called is in the file, or a later change of
        its key is, or it is a dead letter. After the faults it does return.
``W5``  What is given up becomes one dead letter, which is listed, and which nothing but ``replay`` and ``discard``
        removes. Put back, it is one record, while no other change of its key waits, and is judged as a change again;
        earlier ones of its key that were to be put back with it go.
======  =========================================================================================================

A letter that was put back is the newest change of its key from then on: W1 says that it must be written, or become a
letter once more, W2 that nothing older is written after it, and I1 that readers are given it while it waits. A server
that took over, or still answers although it was replaced, excuses what concerns it, as for other changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearcache.absence import ABSENT
from nearcache.loading import place_of
from simulation.history import NAMES
from simulation.written import Moved, Record, Written

if TYPE_CHECKING:
    from simulation.client import Client
    from simulation.server import Server
    from simulation.workload import Running

Place = tuple["Server", Any]


class Letters(Written):
    """The part of the checker that knows of dead letters and of flushes."""

    def __init__(self) -> None:
        super().__init__()
        self._dead: dict[Server, dict[Any, Record]] = {}
        self._buried: Moved | None = None  # as ``queued``

    # What the whole checker has.
    def fail(self, rule: str, text: str) -> None:
        raise NotImplementedError

    def count(self, rule: str) -> None:
        raise NotImplementedError

    # -- servers

    def began(self, server: Server) -> None:
        """See :meth:`Written.began`."""
        super().began(server)
        stream = server.database.data.get(NAMES.dead)
        if stream is not None:
            self._dead[server] = {place: self._read(fields) for place, fields in stream.records.items()}

    def queue_changed(self, server: Server, name: bytes) -> None:
        """See :meth:`Written.queue_changed`."""
        if name != NAMES.dead:
            super().queue_changed(server, name)
            return
        stream, before = server.database.data.get(NAMES.dead), self._dead.get(server, {})
        if stream is None:
            self._dead[server] = {}
            self.lose(server)
            return
        there = self._dead[server] = {
            place: before.get(place) or self._read(fields) for place, fields in stream.records.items()
        }
        self._buried = Moved(
            [record for place, record in there.items() if place not in before],
            [record for place, record in before.items() if place not in there],
        )

    def committed(self, server: Server) -> None:
        """All that one command has changed was looked at; what it did to both streams must fit together."""
        if self.queued is None and self._buried is None:
            return
        queued, buried = self.queued or Moved([], []), self._buried or Moved([], [])
        self.queued = self._buried = None
        if server.script == "buried":
            self._given_up(server, queued, buried)
        elif server.script == "requeue":
            self._put_back(server, queued, buried)
        elif buried.came or buried.went:
            self.count("W5")
            if buried.came or not hasattr(server.cause, "discarded"):
                self.fail("W5", f"{server.name} has {buried} dead letters by {server.cause}")
            server.cause.discarded += len(buried.went)

    def _given_up(self, server: Server, queued: Moved, buried: Moved) -> None:
        self.count("W5")
        if buried.went or buried.came != queued.went[-1:] or queued.came:
            self.fail("W5", f"{server.name} gives up {queued.went}, and {buried.came} are dead letters then")
        for key, number in buried.came:
            self.given_up(key, number)

    def _put_back(self, server: Server, queued: Moved, buried: Moved) -> None:
        self.count("W5")
        if not buried.went or queued.came != buried.went[-1:] or buried.came or queued.went:
            self.fail("W5", f"{server.name} puts {queued.came} back, and {buried.went} are dead letters no more")
        key, number = buried.went[-1]
        if any(each != key for each, _ in buried.went):
            self.fail("W5", f"{server.name} puts {key}={number} back, and {buried.went} are dead letters no more")
        if sum(each == key for each, _ in self._in_queue[server].values()) > 1:
            self.fail("W5", f"{server.name} puts {key}={number} back although a newer change of its key waits")
        self.acknowledge(self.queue(key, number))
        server.cause.put_back += len(buried.went)

    # -- those who ask

    def flushed(self, client: Client, since_ns: int) -> None:
        """A flush that was called then has returned, and this client has asked for it."""
        for key, changes in self.changes.items():
            lane = client.tier.place(key)[0]
            if client.asked.get(lane, []) != [self._shard(key).primary] * len(client.asked.get(lane, [])):
                continue  # one that was replaced has answered
            over = max((each.last_ns for each in changes if each.is_over), default=-1)
            for change in changes:
                if change.accepted_ns >= since_ns:
                    continue
                self.count("W4")
                if over < change.called_ns and not self._lossy(key, change.called_ns):
                    self.fail("W4", f"{client} has flushed, and {key}={change.number}, which was there, is not written")

    def letters_now(self) -> dict[Place, Record]:
        """All that are on a primary."""
        return {
            (shard.primary, place): record
            for shard in self.shards
            for place, record in self._dead.get(shard.primary, {}).items()
        }

    def moved(self, running: Running, number: int, told: int) -> None:
        """So many are dead letters no more, by a call that says how many that were."""
        self.count("W5")
        if told != number:
            self.fail("W5", f"{running} has moved {number} dead letters, and says that it was {told}")

    def listed(self, client: Client, before: dict[Place, Record], letters: list[Any]) -> None:
        """A process is told which dead letters there are: all that were there all the time, and as they are."""
        self.count("W5")
        told: dict[tuple[int, str], Record] = {}
        for letter in letters:
            lane, place = place_of(client.tier, letter.id)
            number = None if letter.is_deletion else int(letter.value)
            if letter.is_deletion != (letter.value is ABSENT):
                self.fail("W5", f"{client} cannot read {letter}")
            told[lane, place.decode()] = (letter.key, number)
        for (server, (first, second)), record in before.items():
            lane = client.tier.place(record[0])[0]
            is_there = (first, second) in self._dead.get(server, {})
            if is_there and set(client.asked.get(lane, [])) == {server}:
                found = told.get((lane, f"{first}-{second}"))
                if found != record:
                    self.fail("W5", f"{client} is told {found} where {server.name} has the dead letter {record}")
