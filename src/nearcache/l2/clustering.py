"""Redis Cluster for threads. ``clustermap`` knows where lanes are, ``routing`` decides, the drivers do the I/O.

An exchange's ``shard`` is a lane here. Nodes have numbers of their own, their *places*: they come and go, lanes do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._reads import Event
from ..clocks import Clock, monotonic_ns
from ..errors import ClosedError, ServerReplyError, ShardError
from ..options import Endpoint
from .breaker import DEFAULTS, BreakerSettings
from .clustermap import NOWHERE, ClusterMap
from .connection import Connection
from .driver import Driver
from .introduction import Introduction, say
from .routing import REDIRECTS, Batch, Refresh, Router, Send
from .task import Exchange, Reply, Task, pack


class ClusterDriver(Driver):
    """See :class:`Driver`. Methods that take a shard's number take a place's; exchanges name lanes.

    Args:
        seeds: Some nodes.
        slots: The slot of each lane.
        introduction: What is said to a server first, for each lane that it has.
        on_reached: Called with a place.
    """

    def __init__(
        self,
        seeds: Sequence[Endpoint],
        slots: Sequence[int],
        *,
        timeout_s: float = 1.0,
        connect_timeout_s: float = 1.0,
        pool_size: int = 16,
        breaker: BreakerSettings = DEFAULTS,
        clock: Clock = monotonic_ns,
        introduction: Introduction | None = None,
        on_reached: Callable[[int], None] | None = None,
        namespace: str = "default",
    ) -> None:
        self.map = ClusterMap(seeds, slots, self._add, self._leave, clock)
        super().__init__(
            (),
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            pool_size=pool_size,
            breaker=breaker,
            clock=clock,
            introduction=None if introduction is None else _ByNode(self.map, introduction),
            on_reached=on_reached,
            namespace=namespace,
        )
        self.router = Router(self.map, self._shards, introduction, clock)
        self._closing = Event()

    def _add(self, endpoint: Endpoint) -> int:
        place = len(self._shards)
        self._shards.append(self._make_shard(place, endpoint))
        return place

    def _leave(self, place: int) -> None:
        """Begin anew with a node, should it come back: nobody would notice that it has closed its connections."""
        self.put_shard(place, self._shards[place].endpoint)

    def execute(
        self,
        exchanges: Sequence[Exchange],
        *,
        timeout_s: float | None = None,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> list[Reply | ShardError]:
        """See :meth:`Driver.execute`. Cost: one round trip to each node concerned, all at once."""
        now = self._clock()
        deadline_ns = now + (self._timeout_ns if timeout_s is None else int(timeout_s * 1e9))
        answered, place = None, NOWHERE
        if len(exchanges) == 1:
            lane, commands = exchanges[0]
            place = self.router.place_of(lane)
            if place != NOWHERE:
                answered = self._short(self._shards[place], commands, now, deadline_ns)
                if not leads_on(answered):
                    return [answered]
        course = self.router.course(exchanges, deadline_ns, answered, place, on_reply)
        answer: Any = None
        while True:
            try:
                request = course.send(answer)
            except StopIteration as stop:
                results: list[Reply | ShardError] = stop.value
                return results
            if isinstance(request, Send):
                answer = self._send(request, deadline_ns)
            elif isinstance(request, Refresh):
                answer = self.refresh(deadline_ns)
            elif self._closing.wait(request.seconds):
                raise ClosedError("the cache was closed")

    def _send(self, request: Send, deadline_ns: int) -> list[Reply | ShardError]:
        tasks = list(map(self._task, request.batches))

        def heard(number: int, answer: Reply | ShardError) -> None:
            tasks.extend(map(self._task, request.on_reply(number, answer)))

        self._rounds(tasks, deadline_ns, heard)
        return [task.outcome() for task in tasks]

    def _task(self, batch: Batch) -> Task:
        return Task(self._shards[batch.place], batch.commands, batch.data, None)

    def refresh(self, deadline_ns: int) -> ShardError | None:
        """Have the nodes asked where lanes are. Takes no longer than connecting may, whatever time the call has.

        Blocks. Returns why nobody could tell.
        """
        return self.map.refresh(min(deadline_ns, self._clock() + self._connect_timeout_ns))

    def meet(self, timeout_s: float) -> list[Reply | ShardError]:
        """Find the nodes that have lanes, and say hello to each."""
        error = self.map.refresh(self._clock() + int(timeout_s * 1e9))
        if error is not None:
            return [error]
        return super().meet(timeout_s)

    def one_each(self) -> Sequence[int]:
        """Return a lane of each node that has some."""
        return sorted({place: lane for lane, place in enumerate(self.map.places) if place != NOWHERE}.values())

    def place_of(self, lane: int) -> int:
        """Return the place that a lane is believed to be at, or :data:`NOWHERE`."""
        return self.map.places[lane]

    def name_at(self, lane: int) -> str:
        """Return the name of the node that a lane is believed to be at; of the lane, where that is none."""
        place = self.map.places[lane]
        return f"lane {lane}" if place == NOWHERE else self.name_of(place)

    def heed(self, place: int, reply: str) -> None:
        """A place has answered the bus with an error: it may say where a lane has gone."""
        self.map.heed(reply, self._shards[place].host)

    def search(self) -> None:
        """Have the nodes asked where lanes are, unless somebody has just done so. Blocks."""
        self.map.refresh(self._clock() + self._connect_timeout_ns)

    def after_fork(self) -> None:
        """See :meth:`Driver.after_fork`."""
        self._closing = Event()
        self.map.after_fork()
        super().after_fork()

    def close(self) -> None:
        """See :meth:`Driver.close`."""
        self._closing.set()
        super().close()


def leads_on(answer: Reply | ShardError) -> bool:
    """Return whether an answer is not the last word: the lane may be elsewhere."""
    if isinstance(answer, ShardError):
        return True
    return any(value.__class__ is ServerReplyError and value.code in REDIRECTS for value in answer.values)


class _ByNode:
    """Introduces a connection to a node: as many times as the node has lanes."""

    def __init__(self, where: ClusterMap, introduction: Introduction) -> None:
        self._map = where
        self._introduction = introduction

    def make(self, shard: int, connection: Connection, deadline_ns: int, clock: Clock) -> None:
        """See :class:`~nearcache.l2.introduction.Introducing`."""
        identity = connection.identity
        said = [
            (lane, command)
            for lane in self._map.lanes_at(shard)
            for command in self._introduction.commands(lane, identity)
        ]
        if not said:
            return
        data = pack([command for _, command in said], in_full=True)
        values = say(connection, data, len(said), deadline_ns, clock)
        connection.errors.clear()
        refused = {lane for (lane, _), value in zip(said, values, strict=True) if isinstance(value, ShardError)}
        for lane in dict(said):
            if lane not in refused:
                self._introduction.heard(lane, identity)
