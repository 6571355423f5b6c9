"""What the newest runs do besides: the verbs of a cache that writes through. The data decides, under the key's lock."""

from __future__ import annotations

import random
from typing import Any, Final

from nearcache.changes import MISSING, Change, adding, at_version, computing
from nearcache.errors import BulkError, ShardError
from nearcache.loading import Source, find, swap_through, tags_named, take_through
from simulation.checkers import LoaderFailed
from simulation.client import Client
from simulation.promises import WriterFailed
from simulation.through import _WRITER as WRITER
from simulation.through import _WriteThrough as WriteThrough
from simulation.workload import KINDS, Operation, Profile, Running
from simulation.workload import _called_by_the_simulation as called_by_the_simulation

#: Kind -> how often.
DECIDING: Final = {"swap_through": 5, "keep_through": 2, "add_through": 2, "cas_through": 2, "take_through": 1}
_SOURCE: Final = Source(called_by_the_simulation, WRITER)


def decide(profile: Profile, rng: random.Random) -> None:
    """Give a run these kinds of operations, too."""
    profile.weights |= {kind: weight * rng.choice([0.2, 1, 1, 4]) for kind, weight in DECIDING.items()}


class _Deciding(WriteThrough):
    """A verb that asks the loader and calls the writer, under a lock.

    Attributes:
        lock: The server that has given the lock, and what stands there; None before that, and when it is given back.
        has_read: Whether the loader was called.
        is_late: Whether the lock had ended when the key was put on hold for the writer.
    """

    lock: tuple[Any, Any] | None = None
    keeps = False
    is_late = False
    unconfirmed = ("lock", "abort")

    def __init__(self, client: Client, operation: Operation) -> None:
        super().__init__(client, operation)
        self.has_read = False

    def begin(self, client: Client) -> None:
        process, profile, (key,) = client.process, client.process.profile, self.operation.keys
        self.client, self.ends = client, self.operation.keys
        tags = tags_named(process.tier, profile.tags.get(key, ()))
        change = self.change()
        self.steps = swap_through(
            process.tier, process.store, _SOURCE, key, key, change, lambda _: profile.ttl_ms, tags
        )

    def change(self) -> Change:
        """What is to become of the data."""
        return computing(lambda _: self.make(), MISSING)

    def make(self) -> Any:
        """A new value."""
        (key,) = self.operation.keys
        self.values = {key: self.client.process.checker.make(key)}
        return self.values[key]

    def is_write(self, request: Any) -> bool:
        """Whether this is a call of the writer. The lock has to be had for both."""
        process, (key,) = self.client.process, self.operation.keys
        if self.lock is None:
            process.checker.fail("I13", f"{self} calls loader or writer without the lock of {key}")
        is_load = request.loader is called_by_the_simulation
        self.has_read = self.has_read or is_load
        if self.is_late and not is_load:
            process.checker.fail("I13", f"{self} calls the writer, and its lock of {key} had ended before")
        return not is_load

    def commit(self, client: Client) -> None:
        checker, (key,) = client.process.checker, self.operation.keys
        super().commit(client)
        if self.lock is None:
            checker.fail("I13", f"{self} has given back the lock of {key} before it has written")
            return
        server, lock = self.lock
        encoded = checker.encoded[key]
        read = client.last_loads[key].version if self.has_read else None
        if checker.holds(server, client.tier.names[client.tier.lane_of(encoded)].lock(encoded), lock):
            checker.decides(self, key, server, read, self.versions[encoded])

    def excused(self, client: Client, error: Exception) -> bool:
        return isinstance(error, (ShardError, BulkError, WriterFailed, LoaderFailed))

    def succeed(self, client: Client, value: Any) -> None:
        if not value.stored:
            self.ends, self.is_confirmed = (), False
            return
        if self.keeps:  # it is written, and kept nowhere
            self.values = {}
        super().succeed(client, value)


class _KeepThrough(_Deciding):
    keeps = True

    def change(self) -> Change:
        return super().change()._replace(keeps=True)


class _AddThrough(_Deciding):
    def change(self) -> Change:
        return adding(self.make())


class _CasThrough(_Deciding):
    """Look, and change it if nobody has changed it since by the cache."""

    def begin(self, client: Client) -> None:
        super().begin(client)
        self.steps = self._phases(client)

    def _phases(self, client: Client) -> Any:
        process, profile, (key,) = client.process, client.process.profile, self.operation.keys
        there = yield from find(process.tier, process.store, key)
        self.tier = client.tier = process.tier
        tags = tags_named(process.tier, profile.tags.get(key, ()))
        change = at_version(self.make(), there.version)
        return (
            yield from swap_through(
                process.tier, process.store, _SOURCE, key, key, change, lambda _: profile.ttl_ms, tags
            )
        )


class _TakeThrough(_Deciding):
    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.client, self.ends = client, self.operation.keys
        self.steps = take_through(process.tier, process.store, _SOURCE, key, key)

    def succeed(self, client: Client, value: Any) -> None:
        if value is not MISSING:
            WriteThrough.succeed(self, client, value)
            return
        (key,) = self.operation.keys
        server, sequence = self.floor_here(client, key)
        client.process.checker.raise_floor(client.process, key, server, sequence, own=True)


NEW: Final[dict[str, type[Running]]] = {
    "swap_through": _Deciding,
    "keep_through": _KeepThrough,
    "add_through": _AddThrough,
    "cas_through": _CasThrough,
    "take_through": _TakeThrough,
}
KINDS.update(NEW)
