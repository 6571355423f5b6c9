"""Leases and locks: one loader at a time, and of all verbs that decide by the data one at a time.

A lease ends by its time if nobody renews it: its loader was stopped for longer, or its messages do not arrive. Then
another one loads, and what the first brings is kept nowhere: only who has the lease that is in force fills.

A lock is had from before the loader until the writer has written. It may end by its time as well, with the primary that
gave it, and where memory is short. What is promised is that no server gives a lock away that is in force, that nobody
calls the writer whose lock had ended by its time when he asked for leave to, and that nobody lets go of it before he
has written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from simulation.history import NAMES, lease_key, value_key
from simulation.letters import Letters

if TYPE_CHECKING:
    from simulation.server import Server
    from simulation.world import World

_LOCK: Final = NAMES.lock_prefix


class Lock(NamedTuple):
    """What stands in a server about a lock: whose it is, and until which millisecond."""

    token: bytes
    end_ms: int


class Exclusion(Letters):
    """The part of the checker that knows of locks."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._locks: dict[tuple[Server, bytes], Lock] = {}
        self._lessees: dict[bytes, Any] = {}  # by the tokens that were given out
        self._decided: dict[str, list[tuple[int, Server]]] = {}

    # What the whole checker has.
    def fail(self, rule: str, text: str) -> None:
        raise NotImplementedError

    def count(self, rule: str) -> None:
        raise NotImplementedError

    def marked(self, server: Server, name: bytes) -> None:
        """Something that is no value or record has changed in a server; perhaps a lease or a hold."""
        if (key := lease_key(name)) is None:
            self.lock_changed(server, name)
            return
        database = server.database
        mark, end = database.data.get(name), database.expires.get(name, 0)
        if self.profile.lag_ns and mark is None and not database.published:  # evicted, and a hold no more
            server.history.least.pop(key, None)
        self.count("I6")
        if server.history.mark(key, mark, end, database.now_ms):
            self.fail("I6", f"{server.name} gives the lease of {key!r} away although it is in force")
        if mark is not None and mark[:1] == b"L":
            self._lessees.setdefault(mark[1:17], server.cause)
        if mark is not None and mark[:1] == b"H" and getattr(server.cause, "lock", None) is not None:
            giver, lock = server.cause.lock
            if any(giver in shard.servers and server in shard.servers for shard in self.shards):
                # By this server, if it knows: that which gave the lock may have been replaced.
                there = NAMES.lock(key)
                is_known = database.data.get(there, b"")[1:] == lock.token
                end_ms = database.expires.get(there, 0) if is_known else lock.end_ms
                server.cause.is_late = end_ms <= database.now_ms

    def filled_late(self, server: Server) -> bytes | None:
        """A loader's value is in L2, in the place of its lease. Returns its key, if that was not in force any more."""
        stored = [name for name in server.database.dirty if name in server.database.data]  # others had to make room
        for key in filter(None, map(value_key, stored)):
            mark, end_ms = server.history.marks.get(key, (b"", 0))
            self.count("I6")
            if end_ms <= server.database.now_ms or self._lessees.get(mark[1:17]) is not server.cause:
                return key
        return None

    def lock_changed(self, server: Server, name: bytes) -> None:
        """Something that is no value, lease or record has changed in a server; perhaps a lock."""
        if not name.startswith(_LOCK):
            self.queue_changed(server, name)
            return
        database, cause = server.database, server.cause
        mark, before = database.data.get(name), self._locks.pop((server, name), None)
        in_force = before is not None and before.end_ms > database.now_ms
        if mark is None:
            if in_force and before == getattr(cause, "lock", (None, None))[1]:
                cause.lock = None
            return
        lock = Lock(mark[1:], database.expires.get(name, 0))
        self._locks[server, name] = lock
        self.count("I6")
        if before is not None and before.token == lock.token:
            if cause is not None and getattr(cause, "lock", None) == (server, before):
                cause.lock = (server, lock)
            return  # asked for by others, or given for longer
        if in_force:
            self.fail("I6", f"{server.name} gives the lock {name!r} to {cause} although it is in force")
        if mark[:1] == b"L" and hasattr(cause, "lock"):  # or it is one of a replaced primary's, that somebody waits for
            cause.lock = (server, lock)

    def holds(self, server: Server, name: bytes, lock: Lock) -> bool:
        """Whether this lock is in force now."""
        there = self._locks.get((server, name))
        return there is not None and there.token == lock.token and there.end_ms > server.database.now_ms

    def decides(self, running: Any, key: str, server: Server, read: int | None, version: int) -> None:
        """Who has the lock has read a version of the source, and makes it another one: no verb has come in between.

        Args:
            read: The version; None, if it was not the source that was read.
        """
        decided = self._decided.setdefault(key, [])
        self.count("I13")
        for other, where in decided if read is not None else ():
            if where is server and read is not None and read < other:
                self.fail("I13", f"{running} has read version {read} of {key}, and another verb has made it {other}")
        decided.append((version, server))
