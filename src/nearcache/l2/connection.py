"""One connection to one server: a socket and a parser.

redis-py makes the socket, because unix sockets and TLS have many particulars and it knows them. Everything after
that is ours: redis-py spends more time around a GET than Redis and the kernel do with it.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._asking import Line, is_readable
from .._reads import gather
from ..errors import ServerReplyError, ShardError

if TYPE_CHECKING:
    import socket

    from ..options import Endpoint

#: Bytes asked of the kernel at a time.
CHUNK: Final = 65536
# The most that one TLS record holds. OpenSSL does not say how much of a longer write has gone out when it cannot go on.
_RECORD: Final = 16384
# Load balancers and address translation forget a connection that is silent for some minutes, and tell nobody. So TCP
# asks the other end after one; seconds, seconds and times. On macOS the first has another name.
_KEEP_ALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
#: What the parser hands out when it needs more bytes. Not False, which is a reply in RESP3.
MORE: Final = object()

# Redis 6.2 and its kin wrap an error raised inside a script; Redis 7 and Valkey report it as it is.
_WRAPPED: Final = re.compile(r"ERR Error running script .*?: -([A-Z]+ .*)", re.DOTALL)
# What they say of a script's first write with cluster-allow-reads-when-down; without it the script is not begun at all.
_DOWN: Final = "while the cluster is down"


class Connection:
    """A connected socket with its parser. Not safe for two threads at a time.

    Attributes:
        sock: The socket.
        reader: The hiredis parser; error replies come out of it as :class:`ServerReplyError`.
        errors: The error replies parsed since the list was last cleared.
        client: The ``run_id`` of the server process, and the number that it gave this connection; None: unknown.
        identity: 64-bit number of the server process and its replication history; 0: unknown.
        seconds: The time-out in force on the socket; 0 is non-blocking.
        used_ns: When it was last taken out of the pool.
        trip_ns: How long the first exchange took, which is a round trip at least; 0 once that has been heeded.
        term: Which of the shard's servers, in the order they were met, it leads to (see ``shard``).
        line: What carries out the usual exchange; None: the socket does not carry RESP as it is.
        once: Most bytes that a blocking send may be given: a send that blocks until all has gone might never end.
    """

    __slots__ = (
        "__weakref__", "client", "errors", "identity", "line", "reader", "seconds", "sock", "term", "trip_ns",
        "used_ns", "wants_write",
    )  # fmt: skip

    once: int = 2**62

    def __init__(self, sock: socket.socket, shard: str) -> None:
        self.sock = sock
        import hiredis

        self.errors: list[ServerReplyError] = []
        self.reader = hiredis.Reader(replyError=_collector(shard, self.errors), notEnoughData=MORE)
        self.client: tuple[str, int] | None = None
        self.identity = 0
        self.seconds = -1.0
        self.used_ns = 0
        self.term = 0
        self.trip_ns = 0
        self.wants_write = False
        self.line: Line | None = Line()

    def set_timeout(self, seconds: float) -> None:
        """Let the next blocking operations take so long each; 0 makes the socket non-blocking."""
        self.sock.settimeout(seconds)
        self.seconds = seconds

    def is_stale(self) -> bool:
        """Return True when an idle connection is of no use: closed by the server, or out of step with it.

        Nothing is due on an idle connection, so anything readable is an end-of-file, an error, or foreign.
        """
        return is_readable(self.sock.fileno())

    def send_some(self, data: memoryview) -> int:
        """Send without blocking; return how many bytes the kernel took."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def receive_some(self) -> bytes | None:
        """Receive without blocking: up to :data:`CHUNK` bytes, ``b""`` at the end of the stream, None for not yet."""
        try:
            return self.sock.recv(CHUNK)
        except BlockingIOError:
            return None

    def has_buffered(self) -> bool:
        """Return whether bytes wait where ``poll`` cannot see them."""
        return False

    def parse(self, values: list[Any], count: int) -> bool:
        """Move complete replies from the parser to ``values``; return whether there are ``count`` now.

        Raises:
            hiredis.ProtocolError: What came is not RESP.
        """
        return gather(self.reader.gets, MORE, values, count)

    def close(self) -> None:
        """Close the file descriptor. No protocol traffic, so that a forked child leaves its parent's session alone."""
        self.sock.close()

    def __del__(self) -> None:
        # An interrupt can strike where no name holds the connection yet; then nobody else is left to close it. It can
        # also strike before there is a socket.
        sock = getattr(self, "sock", None)
        if sock is not None:
            sock.close()


class TlsConnection(Connection):
    """A connection over TLS, whose reads and writes have more ways to say "not yet"."""

    __slots__ = ()

    once = _RECORD

    def __init__(self, sock: socket.socket, shard: str) -> None:
        super().__init__(sock, shard)
        self.line = None

    def send_some(self, data: memoryview) -> int:
        import ssl

        try:
            return self.sock.send(data[:_RECORD])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def receive_some(self) -> bytes | None:
        import ssl

        self.wants_write = False
        try:
            return self.sock.recv(CHUNK)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return None

    def has_buffered(self) -> bool:
        return bool(self.sock.pending())  # type: ignore[attr-defined]  # a TLS socket has it, and only such get here


def dial(endpoint: Endpoint, seconds: float) -> Connection:
    """Return a connection on which nothing has been said yet.

    Args:
        endpoint: Where to.
        seconds: Longest that connecting, to all addresses of a name together, and the TLS handshake may take. Looking
            the name up takes as long as the resolver takes; only what is left is for the rest.
    Raises:
        OSError: Nobody listens, no answer in time, TLS refused. What redis-py raises of its own comes as ``OSError``.
    """
    if endpoint.path and endpoint.tls:
        # Other processes' lists of shards may name one. Whoever listens there would be told the password.
        raise OSError("a unix socket shows no certificate, and this process speaks TLS alone")
    makers = _makers()
    # redis-py's own handshake is left out, so of its many options only these matter.
    options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "protocol": 2}
    maker: Any
    if endpoint.path:
        maker = makers.local(path=endpoint.path, **options)
    else:
        options |= {"host": endpoint.host, "port": endpoint.port}
        maker = makers.tls(**_tls(endpoint), **options) if endpoint.tls else makers.plain(**options)
    try:
        sock = maker._connect()
    except (makers.failure, UnicodeError) as error:  # UnicodeError: a host name that DNS cannot express
        raise OSError(str(error)) from error
    except OSError as error:
        if endpoint.tls:
            _close_half_made(error)
        raise
    return TlsConnection(sock, endpoint.name) if endpoint.tls else Connection(sock, endpoint.name)


class _Makers(NamedTuple):
    """redis-py's makers of sockets, and what they raise of their own; its types are partly missing."""

    plain: Any
    tls: Any
    local: Any
    failure: type[Exception]


@cache
def _makers() -> _Makers:
    # As a whole: of two threads that import different parts of a package first, one may be given a part half made.
    import redis

    known: Any = redis.connection

    class Plain(known.Connection):  # type: ignore[misc]  # types are partly missing there
        """It gives each address of a name all the time there is, one after the other; here they share it."""

        def _connect(self) -> Any:
            return _connected(self, time.monotonic() + self.socket_connect_timeout)

    class Tls(known.SSLConnection, Plain):  # type: ignore[misc]  # the same
        """The handshake is redis-py's."""

    return _Makers(Plain, Tls, known.UnixDomainSocketConnection, redis.RedisError)


def _connected(maker: Any, until_s: float) -> socket.socket:
    """Return a socket that is connected to one of the addresses of a host, with the time that is left as its time-out.

    Raises:
        OSError: None of them took a connection, each in its share of the time.
    """
    import socket

    addresses = socket.getaddrinfo(maker.host, maker.port, maker.socket_type, socket.SOCK_STREAM)
    failure = OSError(f"{maker.host} has no address")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in _KEEP_ALIVE.keys() & vars(socket).keys():
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEP_ALIVE[name])
            sock.settimeout(max(0.001, (until_s - time.monotonic()) / (len(addresses) - place)))
            sock.connect(address)
            sock.settimeout(max(0.001, until_s - time.monotonic()))
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
    raise failure


def _close_half_made(error: OSError) -> None:
    """Close the socket that ``SSLSocket._create`` leaves open where the other end hangs up before the handshake."""
    import ssl

    for frame, _ in traceback.walk_tb(error.__traceback__):
        half_made = frame.f_locals.get("self")
        if isinstance(half_made, ssl.SSLSocket):
            half_made.close()


def _tls(endpoint: Endpoint) -> dict[str, Any]:
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = getattr(endpoint, option)
        if path and not os.access(path, os.R_OK):  # OpenSSL does not say which
            raise FileNotFoundError(f"{option}={path!r} cannot be read")
    return {
        "ssl_ca_certs": endpoint.ssl_ca_certs,
        "ssl_certfile": endpoint.ssl_certfile,
        "ssl_keyfile": endpoint.ssl_keyfile,
        "ssl_password": "",  # else OpenSSL asks the terminal for one, if the key was replaced by an encrypted one
        "ssl_check_hostname": endpoint.ssl_check_hostname,
        "ssl_cert_reqs": "required",
    }


def _collector(shard: str, errors: list[ServerReplyError]) -> Any:
    """Return what the parser calls for an error reply. A closure without the connection in it: no reference cycle."""

    def collect(text: str) -> ShardError:
        wrapped = _WRAPPED.match(text)
        reply = wrapped.group(1) if wrapped else text
        error = ServerReplyError(shard, f"CLUSTERDOWN {reply}" if _DOWN in reply else reply)
        errors.append(error)
        return error

    return collect
