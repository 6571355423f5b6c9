"""A TCP proxy in front of a server, which does harm to connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType

_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and forgets what was not sent


@dataclass(frozen=True)
class _Harm:
    """What is done to what passes. A new one begins its count anew on each connection.

    Attributes:
        allowed: Bytes of answers that pass before the connection ends; -1: all.
        reset: Whether it then ends by RST, not in the orderly way.
        pause_s: Answers go out byte by byte, with so long a pause before each; 0: at once.
        swallow: ``"requests"`` or ``"answers"``: those never arrive.
    """

    allowed: int = -1
    reset: bool = False
    pause_s: float = 0.0
    swallow: str = ""


class Proxy:
    """Passes bytes on, both ways, between clients of its own port and a unix socket.

    Args:
        path: The server's unix socket. While nobody listens there, clients are accepted and hung up on.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._harm = _Harm()
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._reset: set[socket.socket] = set()
        self._late = b""
        self._released = threading.Event()
        self._late_kind = "answers"
        self.held = threading.Event()
        self.passed = threading.Event()
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def cut_after(self, count: int) -> None:
        """Let this many more bytes of answers through on each connection, and close it when there are more."""
        self._harm = _Harm(allowed=count)

    def reset_after(self, count: int) -> None:
        """The same, but the connection ends by RST."""
        self._harm = _Harm(allowed=count, reset=True)

    def slow_down(self, pause_s: float) -> None:
        """Pass answers on byte by byte, with a pause before each."""
        self._harm = _Harm(pause_s=pause_s)

    def swallow(self, what: str) -> None:
        """Let nothing through one way, ``"requests"`` or ``"answers"``; connections stay as they are."""
        self._harm = _Harm(swallow=what)

    def hold(self, part: bytes, what: str = "answers") -> None:
        """Keep back ``what`` from one that contains ``part`` on, on its connection; all else passes and overtakes it.

        ``held`` is set when it has come; :meth:`mend` lets it go. Requests then reach the server even if who sent them
        has closed the connection, as if the kernel had had them; ``passed`` is set when they have.
        """
        self._released.clear()
        self.held.clear()
        self.passed.clear()
        self._late, self._late_kind = part, what

    def mend(self) -> None:
        """Pass everything on again."""
        self._harm = _Harm()
        self._late = b""
        self._released.set()

    def close(self) -> None:
        """Close everything and wait for the threads."""
        self._closing.set()
        self._released.set()
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
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._path)
            except OSError:
                client.close()
                server.close()
                continue
            self._sockets += [client, server]
            if self._closing.is_set():  # who closes may have seen the list before
                client.close()
                server.close()
                return
            self._start(self._pass_on, client, server, "requests")
            self._start(self._pass_on, server, client, "answers")

    def _pass_on(self, source: socket.socket, target: socket.socket, what: str) -> None:
        harm, left, late = self._harm, self._harm.allowed, False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._harm is not harm:
                    harm, left = self._harm, self._harm.allowed
                if harm.swallow == what:
                    continue
                if self._late and what == self._late_kind and self._late in data:
                    late = True
                    self.held.set()
                    self._released.wait()
                allowed = min(left, len(data)) if what == "answers" and left >= 0 else len(data)
                left -= allowed if left >= 0 else 0
                self._send(target, data[:allowed], harm if what == "answers" else _Harm())
                if allowed < len(data):
                    break
        if late:
            self.passed.set()
        if harm.reset and what == "answers":
            self._reset.add(target)
            with contextlib.suppress(OSError):
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
                target.shutdown(socket.SHUT_RD)  # says nothing, but ends the other thread's recv, which keeps it open
            target.close()
        for each in (source, target):
            if each not in self._reset:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _send(self, target: socket.socket, data: bytes, harm: _Harm) -> None:
        if not harm.pause_s:
            target.sendall(data)
            return
        for place in range(len(data)):
            if self._harm is not harm:  # mended: the rest need not wait
                target.sendall(data[place:])
                return
            self._closing.wait(harm.pause_s)
            target.sendall(data[place : place + 1])
