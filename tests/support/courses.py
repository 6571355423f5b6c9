"""A cluster whose nodes answer as they are told, for the course of exchanges through it; no network, no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from nearcache.errors import ServerReplyError, ShardError
from nearcache.l2 import Exchange, Introduction, Reply, load_script
from nearcache.l2.clustermap import NOWHERE, ClusterMap
from nearcache.l2.routing import Batch, OnReply, Pause, Refresh, Router, Send
from nearcache.options import Endpoint

SECOND = 1_000_000_000
SCRIPT = load_script("clear")
READ = [(b"PTTL", b"k"), (b"GET", b"k")]
WRITE = [SCRIPT.call([b"L"], [b"1"])]


class Node:
    """What the router knows of a node, and what it answers."""

    def __init__(self, number: int, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.host = endpoint.host
        self.identity = 100 + number


class Scene:
    """A cluster of nodes ``a``, ``b``... at ports 1, 2..., and lanes 0, 1... in slots of the same number.

    ``answer`` is called with the name of a node and the command, and returns the reply; a ``ShardError`` instead of a
    reply is the node's.
    """

    def __init__(self, places: list[str], answer: Callable[[str, Any], Any], *, introduced: bool = True) -> None:
        self.now = 0
        self.nodes: list[Node] = []
        self.sent: list[tuple[str, list[Any]]] = []
        self.pauses: list[float] = []
        self.refreshed = 0
        self.after_refresh: list[str] | None = None
        self.heard: list[tuple[int, int]] = []
        self.introduced = introduced
        self._answer = answer
        seeds = [Endpoint(name="seed", host="seed", port=1, clustered=True)]
        self.map = ClusterMap(seeds, range(len(places)), self._add, lambda place: None, lambda: self.now)
        self._place(places)
        introduction = Introduction(self._commands, lambda lane, identity: self.heard.append((lane, identity)))
        self.router = Router(self.map, cast("Any", self.nodes), introduction, lambda: self.now)

    def _add(self, endpoint: Endpoint) -> int:
        self.nodes.append(Node(len(self.nodes), endpoint))
        return len(self.nodes) - 1

    def _place(self, places: list[str]) -> None:
        self.map.places[:] = [self.map.place_at(name, 7000) if name else NOWHERE for name in places]

    def _commands(self, lane: int, identity: int) -> list[Any]:
        known = self.introduced or (lane, identity) in self.heard
        return [] if known else [load_script("adopt").call([b"L%d" % lane], [b"1"])]

    def run(
        self, *exchanges: Exchange, seconds: float = 10.0, on_reply: OnReply | None = None
    ) -> list[Reply | ShardError]:
        """Carry out exchanges; return the results."""
        course = self.router.course(exchanges, self.now + int(seconds * SECOND), on_reply=on_reply)
        answer: Any = None
        while True:
            try:
                request = course.send(answer)
            except StopIteration as stop:
                return cast("list[Reply | ShardError]", stop.value)
            answer = None
            if isinstance(request, Send):
                answer = self._send(request)
            elif isinstance(request, Refresh):
                self.refreshed += 1
                if self.after_refresh is not None:
                    self._place(self.after_refresh)
            else:
                assert isinstance(request, Pause)
                self.pauses.append(request.seconds)
                self.now += int(request.seconds * SECOND)

    def _send(self, request: Send) -> list[Reply | ShardError]:
        """Answer batches in their order, but those that are added at once, as by nodes quicker than the others."""
        batches, answers = list(request.batches), dict[int, Reply | ShardError]()
        waiting = list(range(len(batches)))
        while waiting:
            number = waiting.pop(0)
            answers[number] = self._perform(batches[number])
            further = request.on_reply(number, answers[number])
            waiting[:0] = range(len(batches), len(batches) + len(further))
            batches += further
        return [answers[number] for number in range(len(batches))]

    def _perform(self, batch: Batch) -> Reply | ShardError:
        node = self.nodes[batch.place]
        self.sent.append((node.host, [command[0] for command in batch.commands]))
        values = []
        for command in batch.commands:
            value = self._answer(node.host, command)
            if isinstance(value, ShardError):
                return value
            values.append(ServerReplyError(node.name, value) if isinstance(value, str) else value)
        return Reply(values, node.identity)


def replies(results: list[Reply | ShardError]) -> list[Reply]:
    """All of the results, which are replies."""
    assert all(isinstance(result, Reply) for result in results)
    return cast("list[Reply]", results)
