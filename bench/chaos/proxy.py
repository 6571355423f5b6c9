"""The network between the workers and the servers, with everything that can be wrong with one.

Every worker has an address of its own for every server, so that faults can concern some processes and not others. A
connection is a *subscription* from the moment that SUBSCRIBE is sent on it, and *data* before and otherwise. A
:class:`Rule` says which connections it concerns, in which direction, and what happens to their bytes; several rules
may hold at a time. The conductor adds and removes them while bytes flow.

Bytes of a TCP connection do not get lost and are not swapped, so neither happens here: a direction can be late, slow
or silent, and a connection can end, in an orderly way or by a reset, in the middle of an answer too. A silent
direction either comes to life again with all that was held, or its connection is reset, as after a partition. Whole
published messages, though, can be lost, repeated and swapped: that is what a server does whose replica took over, or
a proxy that knows the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from common.conversation import Conversation

from .frames import FrameError, Splitter, is_message

UP: Final = "up"  # from the client to the server
DOWN: Final = "down"
DATA: Final = "data"
SUBSCRIPTION: Final = "subscription"
_CHUNK: Final = 65_536
#: What one direction may hold back before the sender notices: little, so that a slow subscriber is one to its server.
_HELD: Final = 4_096
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time


@dataclass(frozen=True)
class Route:
    """One listening address: who it is for, and which server is behind it. Addresses: a path, or ``host:port``."""

    server: int
    worker: int
    listen: str
    target: str


@dataclass(frozen=True)
class Rule:
    """One fault.

    Attributes:
        servers, workers: Whose connections; empty: everybody's.
        kinds: ``data``, ``subscription``; empty: both.
        directions: ``up`` (to the server), ``down``; empty: both.
        delay_s, jitter_s: How late bytes arrive.
        bytes_per_s: How many pass; 0: any number.
        piece: Longest piece that is passed on at a time, with a pause after it; 0: whole.
        silent: Nothing passes.
        doomed: Concerned connections are reset when the rule goes.
        cut_after: Bytes after which the connection is closed in the middle; -1: never.
        reset: Whether such an end is a reset.
        lose, repeat, swap: Probability for each published message.
    """

    servers: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    directions: tuple[str, ...] = ()
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: int = 0
    piece: int = 0
    silent: bool = False
    doomed: bool = False
    cut_after: int = -1
    reset: bool = False
    lose: float = 0.0
    repeat: float = 0.0
    swap: float = 0.0

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Rule:
        """Return the rule that :func:`dataclasses.asdict` and JSON made this of."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def concerns(self, route: Route, kind: str, direction: str) -> bool:
        """Whether it holds for one direction of a connection."""
        return (
            (not self.servers or route.server in self.servers)
            and (not self.workers or route.worker in self.workers)
            and (not self.kinds or kind in self.kinds)
            and (not self.directions or direction in self.directions)
        )


def to_json(rule: Rule) -> dict[str, Any]:
    """Return a rule as JSON takes it."""
    return asdict(rule)


class Rules:
    """The faults of this moment."""

    def __init__(self) -> None:
        self.by_number: dict[int, Rule] = {}
        self.changed = asyncio.Event()

    def set(self, number: int, rule: Rule | None) -> None:
        """Add a rule, or take one away."""
        if rule is None:
            self.by_number.pop(number, None)
        else:
            self.by_number[number] = rule
        self.changed.set()
        self.changed = asyncio.Event()

    def holding(self, route: Route, kind: str, direction: str) -> list[tuple[int, Rule]]:
        """Return what concerns one direction of a connection."""
        return [(number, rule) for number, rule in self.by_number.items() if rule.concerns(route, kind, direction)]


class Link:
    """One connection through the proxy."""

    def __init__(self, route: Route, rules: Rules, choose: random.Random) -> None:
        self.route = route
        self.kind = DATA
        self._rules = rules
        self._choose = choose
        self._doom: set[int] = set()
        self._allowed: dict[tuple[int, str], int] = {}
        self._splitter: Splitter | None = None
        self._kept_back: bytes | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def run(self, client: tuple[Any, Any], server: tuple[Any, Any]) -> None:
        """Pass bytes on until either side ends."""
        self._writers = [client[1], server[1]]
        self.tasks = [
            asyncio.create_task(self._pump(client[0], server[1], UP)),
            asyncio.create_task(self._pump(server[0], client[1], DOWN)),
        ]
        try:
            await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.end(reset=False)
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def end(self, *, reset: bool) -> None:
        """End both sides."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            if reset and connection is not None and connection.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if reset:
                writer.transport.abort()
            else:
                writer.close()
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def rule_gone(self, number: int) -> None:
        """A rule has been taken away; a connection that was doomed with it ends."""
        if number in self._doom:
            self.end(reset=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        """Read, find out when, write. Reading stops while a direction is silent, so the sender's buffers fill."""
        late: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(maxsize=64)
        feeder = asyncio.create_task(self._feed(reader, late, direction))
        loop = asyncio.get_running_loop()
        try:
            while (item := await late.get()) is not None:
                due, data = item
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                await self._wait_for_sound(direction)
                if not await self._send(writer, data, direction):
                    return
            await self._wait_for_sound(direction)  # the end of a stream is not heard through silence either
        except (ConnectionError, OSError):
            return
        finally:
            feeder.cancel()

    async def _feed(
        self, reader: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes] | None], direction: str
    ) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(_CHUNK):
                if direction == UP and self.kind == DATA and b"SUBSCRIBE" in data.upper():
                    self.kind = SUBSCRIPTION
                rules = [rule for _, rule in self._rules.holding(self.route, self.kind, direction)]
                wait_s = sum(rule.delay_s + self._choose.random() * rule.jitter_s for rule in rules)
                rate = min((rule.bytes_per_s for rule in rules if rule.bytes_per_s), default=0)
                due = max(due, loop.time() + wait_s) + (len(data) / rate if rate else 0.0)
                await late.put((due, data))
        await late.put(None)

    async def _wait_for_sound(self, direction: str) -> None:
        while True:
            changed = self._rules.changed
            silent = [(n, rule) for n, rule in self._rules.holding(self.route, self.kind, direction) if rule.silent]
            if not silent:
                return
            self._doom.update(number for number, rule in silent if rule.doomed)
            await changed.wait()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, direction: str) -> bool:
        """Write what the rules leave of it; return whether the connection goes on."""
        holding = self._rules.holding(self.route, self.kind, direction)
        if direction == DOWN and self.kind == SUBSCRIPTION:
            data = self._tamper(data, [rule for _, rule in holding])
        for number, rule in holding:
            if rule.cut_after < 0:
                continue
            left = self._allowed.setdefault((number, direction), rule.cut_after)
            self._allowed[number, direction] = left - len(data)
            if left < len(data):
                writer.write(data[:left])
                with contextlib.suppress(ConnectionError, OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(writer.drain(), 0.2)
                self.end(reset=rule.reset)
                return False
        piece = min((rule.piece for _, rule in holding if rule.piece), default=0)
        for at in range(0, len(data), piece or len(data) or 1):
            writer.write(data[at : at + piece] if piece else data)
            await writer.drain()
            if piece:
                await asyncio.sleep(0.002)
        return True

    def _tamper(self, data: bytes, rules: list[Rule]) -> bytes:
        """Lose, repeat and swap published messages. Frames are cut from the first time that a rule asks for it."""
        wanted = [rule for rule in rules if rule.lose or rule.repeat or rule.swap]
        if self._splitter is None:
            if not wanted:
                return data
            self._splitter = Splitter()
        try:
            frames = self._splitter.feed(data)
        except FrameError:
            # The rule came in the middle of a frame. Another connection will begin at its beginning.
            self._splitter = None
            self.end(reset=True)
            return b""
        passed: list[bytes] = []
        for frame in frames:
            passed += self._fate(frame, wanted) if is_message(frame) else [frame]
        if self._kept_back is not None and not wanted:
            passed.append(self._kept_back)
            self._kept_back = None
        return b"".join(passed)

    def _fate(self, frame: bytes, rules: Iterable[Rule]) -> list[bytes]:
        copies, back = [frame], self._kept_back
        self._kept_back = None
        for rule in rules:
            drawn = self._choose.random()
            if drawn < rule.lose:
                copies = []
            elif drawn < rule.lose + rule.repeat:
                copies = [frame, frame]
            elif drawn < rule.lose + rule.repeat + rule.swap and back is None:
                self._kept_back = frame
                copies = []
        return copies if back is None else [*copies, back]


class Proxy:
    """All listening addresses and their connections."""

    def __init__(self, routes: list[Route], seed: int) -> None:
        self.rules = Rules()
        self._routes = routes
        self._choose = random.Random(f"proxy/{seed}")
        self._links: set[Link] = set()
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Listen everywhere."""
        for route in self._routes:
            self._servers.append(await self._listen(route))

    async def _listen(self, route: Route) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(route, reader, writer)

        if route.listen.startswith("/"):
            return await asyncio.start_unix_server(accept, route.listen)
        host, _, port = route.listen.rpartition(":")
        return await asyncio.start_server(accept, host, int(port))

    async def _connected(self, route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await _connect(route.target)
        except OSError:
            writer.close()
            return
        link = Link(route, self.rules, self._choose)
        self._links.add(link)
        try:
            await link.run((reader, writer), server)
        finally:
            self._links.discard(link)

    def set(self, number: int, rule: Rule | None) -> None:
        """Add a rule, or take one away."""
        self.rules.set(number, rule)
        if rule is None:
            for link in list(self._links):
                link.rule_gone(number)

    def cut(self, rule: Rule) -> int:
        """End the connections that a rule concerns, at once; return how many."""
        ended = [link for link in self._links if any(rule.concerns(link.route, link.kind, way) for way in (UP, DOWN))]
        for link in ended:
            link.end(reset=rule.reset)
        return len(ended)

    async def close(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.end(reset=False)
        while self._links:  # each takes itself off when its tasks have ended
            await asyncio.sleep(0.01)


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target, limit=_HELD)
    host, _, port = target.rpartition(":")
    return await asyncio.open_connection(host, int(port), limit=_HELD)


def main(conversation: Conversation) -> int:
    """Run as a child: take routes, then rules, until told to end."""
    line = conversation.hear_line()
    if line is None:
        return 0
    job = json.loads(line)
    asyncio.run(_serve(conversation, [Route(**fields) for fields in job["routes"]], job["seed"]))
    return 0


async def _serve(conversation: Conversation, routes: list[Route], seed: int) -> None:
    proxy = Proxy(routes, seed)
    await proxy.open()
    conversation.say("ready")
    loop = asyncio.get_running_loop()
    while (command := await loop.run_in_executor(None, conversation.hear)) is not None:
        rule = None if command["rule"] is None else Rule.from_dict(command["rule"])
        if command["do"] == "cut" and rule is not None:
            proxy.cut(rule)
        else:
            proxy.set(command["number"], rule)
    await proxy.close()
