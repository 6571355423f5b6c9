"""What is said on a new connection before anything else: so that a server which took over begins a new epoch first.

The driver knows that there is something to say, not what. What it says is safe to say twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..clocks import Clock
from ..errors import ShardError
from .connection import Connection
from .task import Command, pack
from .transfer import Flow, run


class Introducing(Protocol):
    """What introduces a connection."""

    def make(self, shard: int, connection: Connection, deadline_ns: int, clock: Clock) -> None:
        """Say what is to be said first, blocking. Raises OSError when the connection fails meanwhile."""


class Introduction(NamedTuple):
    """What to say to a server.

    Attributes:
        commands: Returns the commands for a shard's server of this identity; none if it has heard them.
        heard: Called when it has answered them without an error.
    """

    commands: Callable[[int, int], list[Command]]
    heard: Callable[[int, int], None]

    def request(self, shard: int, identity: int) -> tuple[bytes, int]:
        """Return what to send, and how many replies there will be; zero: nothing."""
        commands = self.commands(shard, identity)
        return pack(commands, in_full=True), len(commands)

    def answered(self, shard: int, connection: Connection, values: list[Any]) -> None:
        """Take the replies. A refusal is not the connection's end: whoever needs more rights will hear of it."""
        connection.errors.clear()
        if not any(isinstance(value, ShardError) for value in values):
            self.heard(shard, connection.identity)

    def make(self, shard: int, connection: Connection, deadline_ns: int, clock: Clock) -> None:
        """Say it on a connection, blocking. Raises OSError when the connection fails meanwhile."""
        data, count = self.request(shard, connection.identity)
        if count:
            self.answered(shard, connection, say(connection, data, count, deadline_ns, clock))


def say(connection: Connection, data: bytes, count: int, deadline_ns: int, clock: Clock) -> list[Any]:
    """Return the answers to a request, blocking. Raises OSError when the connection fails meanwhile."""
    flow = Flow(connection, data, count)
    for _ in run([flow], deadline_ns, clock):
        pass
    if flow.failure is not None:
        raise OSError(f"no answer to the first request: {flow.failure}") from flow.failure
    return flow.values
