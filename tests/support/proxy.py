"""A TCP proxy in front of a server, which cuts connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Proxy:
    """Passes bytes on, both ways, between clients of its own port and a unix socket.

    Args:
        path: The server's unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut: tuple[int, int] = (0, -1)  # which order to cut, and after how many bytes; -1: none
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def cut_after(self, count: int) -> None:
        """Let this many more bytes of answers through on each connection, and close it when there are more."""
        self._cut = (self._cut[0] + 1, count)

    def mend(self) -> None:
        """Pass everything on again."""
        self._cut = (self._cut[0] + 1, -1)

    def close(self) -> None:
        """Close everything and wait for the threads."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]  # a method
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
            except OSError:
                return
            self._sockets += [client, server]
            self._start(self._pass_on, client, server, False)
            self._start(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        order, left = self._cut
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._cut[0] != order:
                    order, left = self._cut
                allowed = min(left, len(data)) if answers and left >= 0 else len(data)
                left -= allowed if left >= 0 else 0
                target.sendall(data[:allowed])
                if allowed < len(data):
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
