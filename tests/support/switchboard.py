"""A managed service in front of Redis: it forbids commands, and decides anew for each connection where that leads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

import hiredis

from support.redis import RedisServer

#: The two kinds of connections, told apart by what is said first: only listeners speak RESP3.
DATA: Final = "data"
SUBSCRIPTION: Final = "subscription"
_FORBIDDEN: Final = hiredis.pack_command((b"FORBIDDEN-HERE",))  # the server's own answer to it is an error, in order


class Switchboard:
    """Passes on what clients of its own port and a server say. Use it as a context manager.

    Args:
        server: Where connections lead at first.
        forbidden: Commands that are answered with an error, as names in capitals.
    Attributes:
        routes: Where new connections lead, by kind.
        asked: Names of the commands that were forbidden to somebody.
    """

    def __init__(self, server: RedisServer, forbidden: Iterable[str] = ()) -> None:
        self.routes = {DATA: server, SUBSCRIPTION: server}
        self.asked: set[str] = set()
        self._forbidden = frozenset(forbidden)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[str, socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._flows = {DATA: threading.Event(), SUBSCRIPTION: threading.Event()}
        self.let_go(DATA)
        self.let_go(SUBSCRIPTION)
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What ``nearcache.open`` takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, kind: str) -> None:
        """Close all connections of a kind."""
        for each, *ends in list(self._pairs):
            if each == kind:
                self._hang_up(*ends)

    def hold_back(self, kind: str) -> None:
        """Keep what servers say on connections of a kind, until it is let go."""
        self._flows[kind].clear()

    def let_go(self, kind: str) -> None:
        """Pass it on, in order."""
        self._flows[kind].set()

    def __enter__(self) -> Switchboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up(self._listener)
        self.let_go(DATA)
        self.let_go(SUBSCRIPTION)
        self.cut(DATA)
        self.cut(SUBSCRIPTION)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        for _, *ends in self._pairs:
            for end in ends:
                end.close()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hang_up(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._start(self._requests, self._listener.accept()[0])

    def _requests(self, client: socket.socket) -> None:
        reader, server = hiredis.Reader(), None
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    name = command[0].decode().upper()
                    if server is None:
                        server = self._connect(client, SUBSCRIPTION if name == "HELLO" else DATA)
                    if name in self._forbidden:
                        self.asked.add(name)
                    server.sendall(_FORBIDDEN if name in self._forbidden else hiredis.pack_command(tuple(command)))
        self._hang_up(client, *([server] if server else []))

    def _connect(self, client: socket.socket, kind: str) -> socket.socket:
        target = self.routes[kind]
        if target.transport == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.connect(target.path)
        else:
            server = socket.create_connection((target.host, target.port))
        for end in (client, server):
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((kind, client, server))
        self._start(self._answers, kind, server, client)
        return server

    def _answers(self, kind: str, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                self._flows[kind].wait()
                client.sendall(data)
        self._hang_up(client, server)
