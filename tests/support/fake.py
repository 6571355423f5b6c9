"""A server of the test's own on loopback: it understands requests as Redis does, and answers what the test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from support.redis import TLS

INFO = (
    b"# Server\r\nredis_version:7.0.15\r\nrun_id:0123456789abcdef0123456789abcdef01234567\r\n"
    b"# Replication\r\nrole:master\r\nmaster_replid:89abcdef0123456789abcdef0123456789abcdef\r\n"
)

#: Gets a command, returns its answer: bytes, or pieces to be sent as they come. None hangs up; so does the end of
#: pieces that end in None.
Answer = Callable[[list[bytes]], bytes | Iterable[bytes | None] | None]


def tls_context() -> ssl.SSLContext:
    """Return the context of a server called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return context


def bulk(data: bytes) -> bytes:
    """Return a RESP bulk string."""
    return b"$%d\r\n%s\r\n" % (len(data), data)


class FakeServer:
    """Listens on 127.0.0.1; every connection has a thread. Use it as a context manager.

    Args:
        answer: Called for each command but those of the handshake, unless ``whole`` is set.
        whole: Let ``answer`` see the handshake too.
        raw: Instead of speaking RESP, send these bytes at once and ignore what comes.
        tls: Speak TLS with this context.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        whole: bool = False,
        raw: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer or (lambda command: b"+OK\r\n")
        self._whole = whole
        self._raw = raw
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self._links: set[socket.socket] = set()
        self._guard = threading.Lock()  # of the links, and of whether there may be more
        self._is_closed = False
        self._threads = [threading.Thread(target=self._accept, name="fake-server", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and hang up."""
        with self._guard:
            self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(5)

    def hang_up(self) -> None:
        """Close the connections there are."""
        with self._guard:
            for link in self._links:
                with contextlib.suppress(OSError):
                    # Not the method of a TLS socket, which pulls what its thread is using from under it.
                    socket.socket.shutdown(link, socket.SHUT_RDWR)

    def seen(self, name: bytes) -> int:
        """Return how many commands of this name have come."""
        return sum(command[0].upper() == name for command in self.commands)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(link,), name="fake-server-link", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        if self._tls is not None:
            try:  # the handshake comes later: it may have to be hung up on, too
                link = self._tls.wrap_socket(link, server_side=True, do_handshake_on_connect=False)
            except OSError:  # the client has gone
                link.close()
                return
        with self._guard, contextlib.suppress(OSError):
            self._links.add(link)
            if self._is_closed:
                socket.socket.shutdown(link, socket.SHUT_RDWR)
        try:
            with contextlib.suppress(OSError):
                if isinstance(link, ssl.SSLSocket):
                    link.do_handshake()
                if self._raw is None:
                    self._converse(link)
                else:
                    link.sendall(self._raw)
                    while link.recv(65536):
                        pass
        finally:
            with self._guard:
                self._links.discard(link)
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _converse(self, link: socket.socket) -> None:
        reader = hiredis.Reader()
        while data := link.recv(65536):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                self.commands.append(command)
                answer = self._handshake(command) or self._answer(command)
                for piece in [answer] if isinstance(answer, bytes) or answer is None else answer:
                    if piece is None:
                        return
                    link.sendall(piece)

    def _handshake(self, command: list[Any]) -> bytes | None:
        name = command[0].upper()
        if self._whole or name not in (b"INFO", b"HELLO", b"AUTH", b"SELECT", b"CLIENT"):
            return None
        return bulk(INFO) if name == b"INFO" else b"+OK\r\n"
