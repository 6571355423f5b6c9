"""A listener whose lanes come and go: for client-side shards, whose list may change while everybody works."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..coherence import Lane
from ..placement import LaneNames
from .connection import Connection
from .follower import Followed, Follower
from .listener import Listener, _nonce
from .observing import Observer


class GrowingListener(Listener):
    """See the module. One connection for each lane; arguments as for :class:`Listener`."""

    def __init__(self, store: Any, source: Any, lanes: Any, names: Any, heartbeat: Any, **options: Any) -> None:
        super().__init__(store, source, lanes, names, heartbeat, **options)
        self._changes: deque[Callable[[], None]] = deque()  # to be made in the listener's thread
        self._observer: Observer | None = None
        self._make_follower = partial(
            Follower,
            store,
            heartbeat=heartbeat,
            uniform=random.uniform,
            nonce=_nonce,
            watched=self._watched,
            keeper=self._keeper,
            horizon=options.get("horizon"),
            ring=options["ring"],
        )

    def report_to(self, observer: Observer) -> None:
        """See :class:`Listener`. Of lanes that come later too."""
        self._observer = observer
        super().report_to(observer)

    def follow(self, number: int, lane: Lane, names: LaneNames) -> None:
        """Follow one more lane, or another one of a number that is not followed any more."""
        connection = Connection(number, self._make_follower([Followed(number, lane, names)]))
        if self._observer is not None:
            connection.follower.report_to(self._observer)
        self._followers[number] = connection.follower
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

    def _take_arrivals(self) -> None:
        super()._take_arrivals()
        while self._changes:
            try:
                self._changes[0]()  # twice does no harm: a child may be forked in the middle of it
            finally:
                self._changes.popleft()
