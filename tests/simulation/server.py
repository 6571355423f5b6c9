"""Simulated servers: a primary with subscribers and a replica that lags, and what can happen to it.

The replica is not a server of its own: it is the state that the primary had some commands ago. A failover makes a new
server out of it. What the primary did since then is the lost tail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import hiredis

from nearcache.l2.scripts import Script
from simulation.database import Database, copied
from simulation.history import History
from simulation.scripting import RedisError
from simulation.world import MS, World

if TYPE_CHECKING:
    from simulation.network import BusLink, DataLink
    from simulation.process import Process

#: Of all shards that there may be.
SHARD_NAMES: Final = "abcd"
#: Most changes that the replica may be behind.
TAIL: Final = 24


class Change(NamedTuple):
    """What one command or script (by its name) did: keys with values and ends, and messages."""

    keys: tuple[tuple[bytes, Any, int | None], ...]
    published: tuple[tuple[bytes, bytes], ...]
    cause: Any
    script: str = ""


class Watcher(Protocol):
    """Who keeps the history of a server."""

    def changed(self, server: Server) -> None:
        """The server's ``database.dirty`` and ``published`` say what a command did."""

    def replaced(self, old: Server, new: Server, lost: list[Change]) -> None:
        """``new`` takes the place of ``old``, without having seen what was lost."""

    def began(self, server: Server) -> None:
        """That is all done, and it begins to answer."""


class Server:
    """One server process, from its start to its end.

    Attributes:
        identity: As a handshake computes it.
        running: Whether it answers.
        began_ns: The instant from which on it does.
        stopped_ns: The instant from which on it does not.
        known: Hashes of the scripts that it has been given.
        history: Kept by the watcher.
        changes: All that it has done, if somebody asked to keep that; else None.
        cause: The operation whose command is being carried out, as far as that is known.
        script: The name of the script that is being carried out, if it is one.
    """

    def __init__(self, world: World, watcher: Watcher, name: str) -> None:
        self.world = world
        self.watcher = watcher
        self.name = name
        self.identity = world.stream(f"identity {name}").getrandbits(64) | 1
        self.running = True
        self.began_ns = world.now
        self.stopped_ns = 1 << 62
        self.database = Database()
        self.known: set[bytes] = set()
        self.history = History()
        self.changes: list[Change] | None = None
        self.cause: Any = None
        self.script = ""
        self.subscribers: dict[bytes, list[BusLink]] = {}
        self.links: list[DataLink | BusLink] = []
        self._tail: deque[Change] = deque()
        self._replica = Database()
        self._has_replica = True
        self._confirmed = 0  # how many of the tail's changes the replica is known to have
        self._chance = world.stream(f"replica {name}").random

    def command(self, command: tuple[Any, ...], cause: Any) -> Any:
        """Carry out one command of a data connection; an error is returned as RedisError."""
        self.cause, self.script = cause, getattr(command[0], "name", "")
        database = self.database
        if command[0] == b"WAIT":
            return self._wait()
        database.now_ms = self.world.now // MS
        reply = database.command(command)
        if database.dirty or database.published:
            self.commit()
        return reply

    def _wait(self) -> int:
        """The number of replicas that have all that was done so far. Sometimes there is none in time."""
        if not self._has_replica or self._chance() < 0.1:
            return 0
        self._confirmed = len(self._tail)
        return 1

    def learn(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Scripts among these are sent in full."""
        self.known.update(command[0].sha for command in commands if command[0].__class__ is Script)

    def lacks(self, command: tuple[Any, ...]) -> bool:
        """Whether the command is a script that has to be sent in full."""
        return command[0].__class__ is Script and command[0].sha not in self.known

    def request(self, link: BusLink, words: list[bytes]) -> bytes:
        """Carry out one command of the bus's connection; the reply as RESP3."""
        name = words[0].upper()
        if name in (b"SUBSCRIBE", b"SSUBSCRIBE"):
            for channel in words[1:]:
                self.subscribers.setdefault(channel, []).append(link)
            return b"".join(encode_push(name.lower(), channel, n) for n, channel in enumerate(words[1:], 1))
        database = self.database
        database.now_ms = self.world.now // MS
        self.cause, self.script = None, ""
        try:
            if name in (b"EVAL", b"EVALSHA"):
                source = words[1] if name == b"EVAL" else link.sources.get(words[1], b"")
                sha = link.shas.get(source, words[1])
                if name == b"EVALSHA" and sha not in self.known:
                    raise RedisError("NOSCRIPT No matching script. Please use EVAL.")
                self.known.add(sha)
                reply = database.evaluate(source, int(words[2]), tuple(words[3:]))
            else:
                reply = database.execute(name, words[1:])
        except RedisError as error:
            reply = error
        self.commit()
        return encode(reply)

    def commit(self) -> None:
        """Tell the watcher, the replica and the subscribers what the last command did."""
        database = self.database
        if not database.dirty and not database.published:
            return
        data, expires = database.data, database.expires
        keys = tuple(
            (key, copied(value), expires.get(key)) for key, value in ((key, data.get(key)) for key in database.dirty)
        )
        change = Change(keys, tuple(database.published), self.cause, self.script)
        self._tail.append(change)
        if self.changes is not None:
            self.changes.append(change)
        if len(self._tail) > TAIL:
            _apply(self._replica, self._tail.popleft())
            self._confirmed = max(0, self._confirmed - 1)
        self.watcher.changed(self)
        published = database.published
        database.dirty = {}
        database.published = []
        for channel, payload in published:
            subscribers = self.subscribers.get(channel)
            if subscribers:
                data_out = encode_push(b"message", channel, payload)
                for link in list(subscribers):
                    link.push(data_out)

    # -- what happens to it

    def successor(self, name: str, lag: int) -> tuple[Server, list[Change]]:
        """A new server from the replica, which is that many changes behind; and what it has not seen."""
        tail = list(self._tail)
        keep = max(0, len(tail) - lag, self._confirmed)
        self._has_replica = False
        new = Server(self.world, self.watcher, name)
        for database in (new.database, new._replica):
            database.data = {key: copied(value) for key, value in self._replica.data.items()}
            database.expires = dict(self._replica.expires)
            for change in tail[:keep]:
                _apply(database, change)
        new.known = set(self.known)
        self.watcher.replaced(self, new, tail[keep:])
        self.watcher.began(new)
        return new, tail[keep:]

    def evict(self, keys: list[bytes]) -> None:
        """Remove keys as a server short of memory does: no message, but the replica follows."""
        self.cause, self.script = None, ""
        for key in keys:
            self.database.remove(key)
        self.commit()

    def stop(self) -> None:
        """Be gone. What is on its way from it still arrives."""
        self.running = False
        self.stopped_ns = self.world.now

    def resume(self) -> None:
        """Be reached again, with all that was there."""
        self.running = True
        self.stopped_ns = 1 << 62

    def forget(self, link: DataLink | BusLink) -> None:
        """A connection has ended on this side."""
        if link in self.links:
            self.links.remove(link)
        for subscribers in self.subscribers.values():
            if link in subscribers:
                subscribers.remove(link)  # type: ignore[arg-type]  # only one kind is ever in there


def _apply(database: Database, change: Change) -> None:
    for key, value, end in change.keys:
        if value is None:
            database.data.pop(key, None)
            database.expires.pop(key, None)
            continue
        database.data[key] = copied(value)
        if end is None:
            database.expires.pop(key, None)
        else:
            database.expires[key] = end


def encode(reply: Any) -> bytes:
    """A reply as RESP3."""
    if reply is None:
        return b"_\r\n"
    if isinstance(reply, RedisError):
        return b"-%s\r\n" % str(reply).encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(encode, reply))


def encode_push(kind: bytes, channel: bytes, last: bytes | int) -> bytes:
    """A push of three items as RESP3."""
    return b">3\r\n" + encode(kind) + encode(channel) + encode(last)


def commands_in(reader: hiredis.Reader, data: bytes) -> list[list[bytes]]:
    """The commands that are complete with these bytes."""
    reader.feed(data)
    found = []
    while (words := reader.gets()) is not False:
        found.append(words)
    return found


class Departure(NamedTuple):
    """An address leads elsewhere for a while.

    Attributes:
        old: The server that it led to before, and will lead to again.
        stray: The other one.
        known: Who had heard of the first one's record: processes, each with its incarnation.
    """

    old: Server
    stray: Server
    known: set[tuple[Process, int]]


class Shard:
    """One place of the placement: who is primary there, and who still talks to the one before.

    Attributes:
        primary: The server that counts.
        zombie: The old primary, cut off from the others but not from everybody; or None.
        misled: Numbers of the processes whose new connections of a kind (``data``, ``bus``) reach the zombie.
        left: From where, and whereto, the address was led astray; None: it is not.
        servers: All that there have been.
        cut_off: Numbers of the processes that reach none of them.
    """

    def __init__(self, world: World, watcher: Watcher, number: int) -> None:
        self.number = number
        self.name = SHARD_NAMES[number]
        self.primary = Server(world, watcher, f"{self.name}0")
        self.zombie: Server | None = None
        self.misled: set[tuple[int, str]] = set()
        self.left: Departure | None = None
        self.servers = [self.primary]
        self.unreachable = False
        self.cut_off: set[int] = set()

    def reaches(self, process: int, kind: str) -> bool:
        """Whether a new connection of a process finds somebody who listens."""
        return not self.unreachable and process not in self.cut_off and self.route(process, kind).running

    def route(self, process: int, kind: str) -> Server:
        """The server that a new connection reaches."""
        if self.zombie is not None and (process, kind) in self.misled:
            return self.zombie
        return self.primary

    def fail_over(self, lag: int) -> tuple[Server, Server, list[Change]]:
        """Promote the replica: ``(old, new, lost)``. What becomes of the old one is the caller's business."""
        old = self.primary
        new, lost = old.successor(f"{self.name}{len(self.servers)}", lag)
        self.servers.append(new)
        self.primary = new
        return old, new, lost
