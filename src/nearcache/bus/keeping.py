"""What followers are lent: the heartbeat's script, and who keeps what has to be done in Redis."""

from __future__ import annotations

from typing import Any, Protocol


class Script(Protocol):
    """The heartbeat's Lua script."""

    @property
    def source(self) -> bytes:
        """What EVAL takes."""

    @property
    def sha(self) -> bytes:
        """What EVALSHA takes."""


class Keeper(Protocol):
    """Who keeps what this process has to do in Redis because of what is heard."""

    def forked(self, lane: int, epoch: int, ends: dict[int, int] | None, seq: int) -> None:
        """The lane is in a new epoch: see :class:`~nearcache.coherence.Forked`."""

    def vouched(self, lane: int) -> None:
        """A heartbeat was answered as it should be."""

    def refused(self, lane: int) -> None:
        """A heartbeat was refused, because this process is behind the others' list of shards."""

    def suspended(self, now_ns: int) -> None:
        """The machine slept until now, while the clock stood still."""

    @property
    def renew_every_ns(self) -> int:
        """When to ask again, after :meth:`renewals`: they decide how long what they renew lasts."""

    def renewals(self, now_ns: int) -> list[tuple[int, Any, tuple[bytes, ...], tuple[bytes, ...]]]:
        """Leases to keep alive: lane, script, its keys and its arguments for each."""
