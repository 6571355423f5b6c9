"""A listener whose lanes come and go: for client-side shards, whose list may change while everybody works."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..coherence import Lane
from ..placement import LaneNames
from .connection import Connection
from .follower import Followed
from .listener import Listener


class GrowingListener(Listener):
    """See the module. One connection for each lane."""

    def _begin_with(self, lanes: Sequence[Lane], names: Sequence[LaneNames]) -> None:
        super()._begin_with(lanes, names)
        self._changes: deque[Callable[[], None]] = deque()  # to be made in the listener's thread

    def follow(self, number: int, lane: Lane, names: LaneNames) -> None:
        """Follow one more lane, or another one of a number that is not followed any more."""
        connection = self._connection_for(Followed(number, lane, names))
        if self._observer is not None:
            connection.follower.report_to(self._observer)
        self._changes.append(lambda: self._add(connection))
        self._hasten()

    def leave(self, number: int) -> None:
        """Follow a lane no longer: its connection is closed, and nothing of it is served."""
        self._changes.append(lambda: self._leave(number))
        self._hasten()

    def _hasten(self) -> None:
        self._due_ns = 0
        self.wake()

    def _add(self, connection: Connection) -> None:
        if connection not in self._connections:
            self._connections.append(connection)

    def _leave(self, number: int) -> None:
        for connection in [each for each in self._connections if each.place == number]:
            connection.follower.lost("no shard any more")
            self._drop_link(connection)
            self._connections.remove(connection)
            self._outages.forget(number)

    def _take_arrivals(self) -> None:
        super()._take_arrivals()
        while self._changes:
            try:
                self._changes[0]()  # twice does no harm: a child may be forked in the middle of it
            finally:
                self._changes.popleft()
