"""Lane scripts as tests use them: run through the real driver, their messages read by a subscriber of redis-py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from nearcache.errors import ShardError
from nearcache.l2 import Command, Driver, Exchange, load_script, stage
from nearcache.l2.connection import dial
from nearcache.l2.task import pack
from nearcache.options import Endpoint
from nearcache.placement import lane_prefix
from support.redis import RedisServer

#: The first generation and epoch of a lane in these tests.
NONCE = b"%016x" % 0xA0
NO_WID = b"0" * 16


def endpoint_of(server: RedisServer, name: str = "a", **options: Any) -> Endpoint:
    """Return where a test server is, as the driver takes it."""
    if server.auth:
        options = {"username": server.auth[0], "password": server.auth[1]} | options
    if server.transport == "unix":
        return Endpoint(name, path=server.path, **options)
    return Endpoint(name, host=server.host, port=server.port, **options)


def wid(number: int) -> bytes:
    """Return an id as Redis holds it."""
    return b"%016x" % number


def envelope(gen: bytes, payload: bytes = b"value", write: bytes = NONCE) -> bytes:
    """Return bytes that have write id and generation where an envelope has them."""
    return b"\xc1\0\1\0" + bytes.fromhex((write + gen).decode()) + bytes(16) + payload


def elements(said: Any) -> Any:
    """The elements of an answer that comes as one text, its counts as numbers; any other answer as it is."""
    if not isinstance(said, bytes):
        return said
    status, *rest = said.split(b" ")
    counts = 1 if status == b"3" else 4
    return [int(status), *rest[:counts], *map(int, rest[counts:])]


class Message(NamedTuple):
    """One published message, taken apart."""

    op: str
    epoch: bytes
    seq: int
    prev: bytes
    wid: bytes
    keys: list[bytes]

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Read the wire format; AssertionError when it is not as documented."""
        head, newline, rest = data.partition(b"\n")
        assert newline
        op, epoch, seq, prev, write = head.split(b" ")
        assert all(len(each) == 16 for each in (epoch, prev, write))
        keys = []
        while rest:
            size, _, rest = rest.partition(b":")
            keys.append(rest[: int(size)])
            rest = rest[int(size) :]
        return cls(op.decode(), epoch, int(seq), prev, write, keys)


class Lane:
    """One lane on one server, and who listens to it.

    Args:
        server: A running server.
        namespace: Of the lane.
        options: Of the endpoint, such as ``db`` or ``username``.

    Attributes:
        bare: Whether :meth:`run` goes to the server itself, past the driver.
    """

    def __init__(self, server: RedisServer, namespace: str = "t", **options: Any) -> None:
        self.server = server
        self.prefix = lane_prefix(namespace, db=options.get("db", 0))
        self.record = self.prefix + b"L"
        self.channel = self.prefix + b"i"
        self.driver = Driver([endpoint_of(server, **options)], timeout_s=5.0)
        self.client = server.client(db=options.get("db", 0))
        self.bare = False

    def close(self) -> None:
        """Close the connections."""
        self.driver.close()
        self.client.close()

    def value(self, key: bytes) -> bytes:
        """Name of a value."""
        return self.prefix + b"v:" + key

    def lease(self, key: bytes) -> bytes:
        """Name of a lease or hold."""
        return self.prefix + b"l:" + key

    def run(
        self,
        name: str,
        keys: Sequence[bytes],
        *arguments: Any,
        ring: int = 1,
        nonce: bytes = NONCE,
        more: Sequence[bytes] = (),
    ) -> Any:
        """Run a script on keys of the user, ``more`` of the lane's, and its record. Error replies are raised."""
        names = [*map(self.value, keys), *map(self.lease, keys), *(self.prefix + each for each in more), self.record]
        call = load_script(name).call(names, [ring, nonce, *arguments])
        if self.bare:
            return self._run_bare(call)
        reply = self.driver.execute([Exchange(0, [call])])[0]
        if isinstance(reply, ShardError):
            raise reply
        if isinstance(reply.values[0], Exception):
            raise reply.values[0]
        return elements(reply.values[0])

    def _run_bare(self, call: Command) -> Any:
        connection = dial(endpoint_of(self.server), 5.0)
        connection.set_timeout(5.0)
        connection.sock.sendall(pack([call], in_full=True))
        values: list[Any] = []
        while not connection.parse(values, 1):
            connection.reader.feed(connection.sock.recv(65536))
        connection.close()
        if isinstance(values[0], Exception):
            raise values[0]
        return elements(values[0])

    def start(self, generation: bytes = NONCE) -> None:
        """Make the lane record, with this epoch and generation."""
        self.run("heartbeat", [], nonce=generation)

    def set(
        self, *keys: bytes, write: bytes, gen: bytes = NONCE, mode: str = "", ttl: int = 60_000, **options: Any
    ) -> Any:
        """Store an envelope under each key; its payload is the key."""
        envelopes = [envelope(gen, key, write) for key in keys]
        return self.run("set", keys, write, gen, mode, ttl, *envelopes, **options)

    def run_staged(self, name: str, keys: Sequence[bytes], write: bytes, envelopes: list[bytes], *middle: Any) -> Any:
        """Run ``set`` or ``fill`` with the large envelopes staged; ``middle`` stands between wid and envelopes."""
        before, staging, rest = stage(self.prefix, write, envelopes)
        names = [*map(self.value, keys), *map(self.lease, keys), *staging, self.record]
        script = load_script(name).call(names, [1, NONCE, write, *middle, *rest])
        reply = self.driver.execute([Exchange(0, [*before, script])])[0]
        if isinstance(reply, ShardError):
            raise reply
        for value in reply.values:
            if isinstance(value, Exception):
                raise value
        return elements(reply.values[-1])

    def position(self) -> tuple[int, bytes]:
        """Return sequence and last wid of the lane record."""
        seq, last = self.client.hmget(self.record, "s", "w")
        return int(seq), last

    @contextmanager
    def listening(self) -> Iterator[list[Message]]:
        """Collect, at the end of the block, all messages that were published within it."""
        heard: list[Message] = []
        with self.server.client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(self.channel)
            while pubsub.get_message(timeout=5) is not None:
                pass
            yield heard
            client.publish(self.channel, b"end")
            while True:
                message = pubsub.get_message(timeout=5)
                if message is None:
                    continue
                if message["data"] == b"end":
                    return
                heard.append(Message.parse(message["data"]))
