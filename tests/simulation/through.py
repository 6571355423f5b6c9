"""What the fullest runs do besides: writing through to the source, by the cache.

The writer changes the source at some instant of its call, and may fail before or after that. A value that is written
says of which version it makes the source.
"""

from __future__ import annotations

import random
from typing import Any, Final

from nearcache.errors import BulkError, ShardError
from nearcache.loading import delete_through, tags_named, write_through
from nearcache.writers import Writer
from simulation.checkers import Value
from simulation.client import Client
from simulation.promises import WriterFailed
from simulation.workload import KINDS, Operation, Profile, Running, change_source, owed, written
from simulation.workload import _Clear as Clear

#: Kind -> how often.
THROUGH: Final = {"write_through": 5, "write_through_many": 2, "delete_through": 2}


def write_more(profile: Profile, rng: random.Random, *, imports: bool) -> None:
    """Give a run these kinds of operations, too."""
    profile.weights |= {kind: weight * rng.choice([0.2, 1, 1, 4]) for kind, weight in THROUGH.items()}
    if imports:
        profile.weights["import"] = 1


def _called_by_the_simulation(*_: Any) -> Any:
    raise AssertionError("the client carries out the calls of writers")


_WRITER: Final = Writer(*[_called_by_the_simulation] * 4)


class _WriteThrough(Running):
    def __init__(self, client: Client, operation: Operation) -> None:
        super().__init__(client, operation)
        self.values: dict[str, Any] = {}

    def begin(self, client: Client) -> None:
        process, profile = client.process, client.process.profile
        self.ends = self.operation.keys
        self.values = {key: process.checker.make(key) for key in self.operation.keys}
        names = {key: key for key in self.values}
        given = {profile.tags.get(key, ()) for key in self.values}
        tags = tags_named(process.tier, sorted({tag for each in given for tag in each}))
        self.steps = write_through(process.tier, process.store, _WRITER, names, self.values, profile.ttl_ms, tags)

    def is_write(self, request: Any) -> bool:
        """Whether this is a call of the writer."""
        return True

    def commit(self, client: Client) -> None:
        """The source changes."""
        checker = client.process.checker
        change_source(self, client, self.operation.keys)
        for key, value in self.values.items():
            checker.values[int(value)] = Value(key, self.versions[checker.encoded[key]])

    def excused(self, client: Client, error: Exception) -> bool:
        return isinstance(error, (ShardError, BulkError, WriterFailed))

    def succeed(self, client: Client, value: Any) -> None:
        process, checker = client.process, client.process.checker
        for key in self.operation.keys:
            lane, encoded = process.tier.place(key)
            if process.tier.is_owed(lane, encoded):  # it is written, and readers are not known to be told yet
                self.ends, self.is_confirmed = (), False
                self.fail(client)
                return
        for key in self.operation.keys:
            server, sequence = self.floor_here(client, key)
            if key in self.values:
                written(self, client, key, self.values[key])
            else:
                checker.raise_floor(process, key, server, sequence, own=True)
            checker.invalidated(process, key, server, self.versions[checker.encoded[key]])

    def fail(self, client: Client) -> None:
        owed(self, client)


class _DeleteThrough(_WriteThrough):
    def begin(self, client: Client) -> None:
        process = client.process
        self.ends = self.operation.keys
        self.steps = delete_through(process.tier, process.store, _WRITER, {key: key for key in self.operation.keys})


class _Import(Clear):
    """The whole source changes, and then the cache is cleared."""

    def begin(self, client: Client) -> None:
        change_source(self, client, client.process.profile.keys)
        self.versions.clear()  # a clear that fails is not owed
        super().begin(client)


NEW: Final[dict[str, type[Running]]] = {
    "write_through": _WriteThrough,
    "write_through_many": _WriteThrough,
    "delete_through": _DeleteThrough,
    "import": _Import,
}
KINDS.update(NEW)
