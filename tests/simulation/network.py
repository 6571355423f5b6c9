"""Simulated connections: ordered queues with delays, and the ways in which they fail.

A data connection carries one request at a time, as the driver's do; commands of one batch need not be executed in one
piece. The bus's connection carries bytes both ways. Both are ordered each in itself, and not among each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import hiredis

from nearcache.errors import ServerReplyError, ShardUnavailableError
from nearcache.l2 import WAIT, Reply
from nearcache.l2.task import BEHIND, repeatable
from simulation.scripting import RedisError
from simulation.server import Server, commands_in
from simulation.world import MS, US, World

if TYPE_CHECKING:
    from simulation.client import Client
    from simulation.process import Process

_SPLIT: Final = 0.15  # how often a batch is executed in pieces


class Link:
    """One connection, seen from both ends.

    Attributes:
        lane: The number that its process knows the shard by.
        server: At the other end. A proxy may exchange it.
        identity: What the handshake said.
        deaf: Half open: nothing passes any more, and nobody is told.
        slow_until: Until when everything on it takes long.
    """

    kind = ""

    def __init__(self, world: World, process: Process, lane: int, number: int) -> None:
        self.world = world
        self.process = process
        self.lane = lane
        self.shard = shard = process.shards[lane]
        self.server: Server = shard.route(process.number, self.kind)
        self.identity = self.server.identity
        self.deaf = False
        self.closed = False
        self.slow_until = 0
        self.server.links.append(self)  # type: ignore[arg-type]  # the subclasses are what it holds
        self._random = world.stream(f"{self.kind} {process.number} {shard.number} {number}").random

    def delay(self) -> int:
        """How long something takes from one end to the other: mostly little, sometimes long."""
        chance = self._random()
        delay = 20 * US + int(300 * US * chance)
        if chance > 0.97:
            delay += int(20 * MS * self._random() ** 3)
        if self.slow_until > self.world.now:
            delay += int((self.slow_until - self.world.now) * self._random())
        return delay

    def greet(self, then: Callable[[], None]) -> bool:
        """Say what is said first on a new connection, and go on when it is answered; return whether there was anything.

        See :mod:`nearcache.l2.introduction`, of which this is the simulation.
        """
        commands = self.process.tier.adopt_commands(self.lane, self.identity)
        if commands:
            self.world.at(self.world.now + self.delay(), self._greeted, commands, then)
        else:
            then()
        return bool(commands)

    def _greeted(self, commands: list[Any], then: Callable[[], None]) -> None:
        if self.closed or self.deaf:
            return
        server = self.server
        if not server.running:
            self.reset()
            return
        server.known.update(command[0].sha for command in commands)
        refused = any(server.command(command, None).__class__ is RedisError for command in commands)
        self.world.at(self.world.now + self.delay(), self.process.post, self._heard_out, refused, then)

    def _heard_out(self, refused: bool, then: Callable[[], None]) -> None:
        if not self.closed:
            if not refused:
                self.process.tier.note_adopted(self.lane, self.identity)
            then()

    def reset(self) -> None:
        """End it; whoever waits is told."""
        raise NotImplementedError

    def move(self, server: Server) -> None:
        """A proxy connects its far end to another server, and tells nobody."""
        self.server.forget(self)  # type: ignore[arg-type]  # as above
        self.server = server
        server.links.append(self)  # type: ignore[arg-type]  # as above

    def close(self) -> None:
        """End it on both sides at once."""
        self.closed = True
        self.server.forget(self)  # type: ignore[arg-type]  # as above


class Pending:
    """One exchange on its way: whose it is, where its answer belongs, and when it is too late."""

    __slots__ = (
        "again",
        "cause",
        "client",
        "commands",
        "deadline_ns",
        "done",
        "lane",
        "place",
        "sequence",
        "turn",
        "values",
    )

    def __init__(self, client: Client, place: int, commands: list[Any], deadline_ns: int) -> None:
        self.client = client
        self.turn = client.turn
        self.cause = client.current
        self.place = place
        self.lane = 0
        self.commands = commands
        self.deadline_ns = deadline_ns
        self.done = False
        self.again = False
        self.values: list[Any] = [None] * len(commands)
        self.sequence = 0


class DataLink(Link):
    """A connection of the driver's pool."""

    kind = "data"

    def __init__(self, world: World, process: Process, lane: int, number: int) -> None:
        super().__init__(world, process, lane, number)
        self.pending: Pending | None = None
        self.lose_request = False
        self.lose_answer = False

    def send(self, pending: Pending) -> None:
        """Send an exchange."""
        self.pending = pending
        self._arrive_after(pending, 0, list(range(len(pending.commands))))

    def open(self, pending: Pending, takes_ns: int) -> None:
        """Send the first exchange, when the connection is there."""
        self.pending = pending
        places = list(range(len(pending.commands)))
        if self.greet(lambda: pending.done or self._arrive_after(pending, takes_ns, places)):
            self._drop(pending)  # at its deadline, if it is not done by then

    def reset(self) -> None:
        """End it; whoever waits is told."""
        if self.closed:
            return
        self.close()
        if self.pending is not None:
            at_ns = self.world.now + self.delay()
            self._mind(self.pending, at_ns)
            self.world.at(at_ns, self.process.post, self._failed, self.pending, "reset")

    # -- inside

    def _arrive_after(self, pending: Pending, before_ns: int, places: list[int]) -> None:
        at_ns = self.world.now + before_ns + self.delay()
        self._mind(pending, at_ns)
        self.world.at(at_ns, self._arrive, pending, places)

    def _mind(self, pending: Pending, at_ns: int) -> None:
        if at_ns > pending.deadline_ns:
            self._drop(pending)

    def _drop(self, pending: Pending) -> None:
        """Nothing more will come of it: there is only the deadline."""
        when = max(pending.deadline_ns, self.world.now)
        self.world.at(when, self.process.post, self._failed, pending, "no answer in time")

    def _arrive(self, pending: Pending, places: list[int]) -> None:
        if self.closed or pending.done:
            return
        if self.lose_request:
            self.lose_request, self.deaf = False, True
        if self.deaf:
            self._drop(pending)
            return
        server = self.server
        if not server.running:
            self.reset()
            return
        unknown = [place for place in places if server.lacks(pending.commands[place])]
        if unknown:  # as the driver has it: what waited behind a script waits again
            unknown += [place for place in places if place > unknown[0] and pending.commands[place][0] in BEHIND]
        if len(unknown) == len(places):  # now they come in full
            server.learn(pending.commands[place] for place in unknown)
            unknown = []
        whole = [place for place in places if place not in unknown]
        if len(whole) > 1 and self._random() < _SPLIT:
            cut = 1 + int(self._random() * (len(whole) - 1))
            self._execute(pending, whole[:cut])
            self._arrive_after(pending, 1, whole[cut:] + unknown)
            return
        self._execute(pending, whole)
        if unknown:
            server.learn(pending.commands[place] for place in unknown)
            self._arrive_after(pending, self.delay(), unknown)
            return
        self._reply(pending)

    def _execute(self, pending: Pending, places: list[int]) -> None:
        server = self.server
        for place in places:
            reply = server.command(pending.commands[place], pending.cause)
            if reply.__class__ is RedisError:
                reply = ServerReplyError(self.shard.name, str(reply))
            pending.values[place] = reply
            if pending.commands[place][0] != WAIT:  # which shows nothing
                pending.sequence = server.history.sequence

    def _reply(self, pending: Pending) -> None:
        if self.lose_answer:
            self.lose_answer, self.deaf = False, True
            if self._random() < 0.5:
                self.reset()
                return
        if self.deaf:
            self._drop(pending)
            return
        at_ns = self.world.now + self.delay()
        self._mind(pending, at_ns)
        self.world.at(at_ns, self.process.post, self._answer, pending, self.server)

    def _answer(self, pending: Pending, server: Server) -> None:
        if pending.done or self.closed:
            return
        pending.done = True
        self.pending = None
        self.process.release(self)
        if pending.turn == pending.client.turn:
            pending.client.answered(pending, Reply(pending.values, self.identity), server)

    def _failed(self, pending: Pending, why: str) -> None:
        if pending.done:
            return
        self.close()
        self.pending = None
        client = pending.client
        left = pending.deadline_ns > self.process.world.now
        if why == "reset" and left and not pending.again and repeatable(pending.commands):
            pending.again = True
            self.process.send(pending)
            return
        pending.done = True
        if pending.turn == client.turn:
            error = ShardUnavailableError(self.shard.name, why, sent=True)
            error.__cause__ = None if why == "reset" else TimeoutError()
            client.answered(pending, error, self.server)


class BusLink(Link):
    """The subscribed connection of a follower."""

    kind = "bus"

    def __init__(self, world: World, process: Process, lane: int, number: int) -> None:
        super().__init__(world, process, lane, number)
        scripts = (process.heartbeat, process.tier.scripts.renew)  # all that a listener has run
        self.sources = {script.sha: script.source for script in scripts}
        self.shas = {script.source: script.sha for script in scripts}
        self.lose = 0
        self.introduced = False
        self._there_ns = 0
        self._here_ns = 0
        self._reader = hiredis.Reader()

    def send(self, data: bytes) -> None:
        """From the follower to the server."""
        self._there_ns = max(self._there_ns, self.world.now + self.delay())
        self.world.at(self._there_ns, self._arrive, data)

    def push(self, data: bytes) -> None:
        """A message, from the server to the follower."""
        if self.lose > 0:
            self.lose -= 1
            if self.world.lines is not None:
                self.world.say(f"  a message to {self.process} is lost: {data[-70:]!r}")
            return
        self.process.recent[self.lane].append(data)
        self._back(data)

    def repeat(self, data: bytes) -> None:
        """Deliver something that was delivered before."""
        self._back(data)

    def reset(self) -> None:
        """End it; the follower is told after what is on its way."""
        if self.closed:
            return
        self.server.forget(self)
        self._here_ns = max(self._here_ns, self.world.now + self.delay())
        self.world.at(self._here_ns, self.process.post, self._ended)

    def introduce(self, then: Callable[[], None]) -> None:
        """Have ``then`` called when the connection may be used. If that does not happen, the process is told."""

        def introduced() -> None:
            self.introduced = True
            then()

        if self.greet(introduced):
            self.world.at(self.world.now + self.process.profile.timeout_ns, self.process.post, self._impatient)

    # -- inside

    def _impatient(self) -> None:
        if not self.introduced and not self.closed:
            self.process.hung_up(self)

    def _arrive(self, data: bytes) -> None:
        if self.closed or self.deaf:
            return
        if not self.server.running:
            self.reset()
            return
        for words in commands_in(self._reader, data):
            self._back(self.server.request(self, words))

    def _back(self, data: bytes) -> None:
        if not self.deaf:
            self._here_ns = max(self._here_ns, self.world.now + self.delay())
            self.world.at(self._here_ns, self.process.post, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self.closed and not self.deaf:
            self.process.heard(self, data)

    def _ended(self) -> None:
        if not self.closed:
            self.process.hung_up(self)
