"""What the listener needs of connections and of who makes them."""

from __future__ import annotations

import socket
from typing import Any, Protocol


class Link(Protocol):
    """A connection that this module reads: a socket, hiredis' parser, and what that returns when it needs more."""

    sock: socket.socket
    plain: bool  # the socket carries what the parser reads, as it is
    reader: Any
    more: object
    identity: int

    def send_some(self, data: memoryview) -> int:
        """Send without blocking; return how many bytes have gone. Raises OSError."""

    def receive(self) -> bytes | None:
        """Return what has come, ``b""`` at the end of the stream, None if nothing has. Raises OSError."""

    def close(self) -> None:
        """Close the descriptor. Idempotent."""


class Source(Protocol):
    """Makes connections."""

    def connect_listener(self, shard: int) -> Link:
        """Return a new RESP3 connection. May block as long as the connect time-out."""

    def note_alive(self, shard: int) -> None:
        """The shard has answered."""

    def name_of(self, shard: int) -> str:
        """Return its name, for people."""


class ClusterSource(Source, Protocol):
    """The same where lanes move between places."""

    def place_of(self, lane: int) -> int:
        """Return the place that a lane is believed to be at, or a negative number. Does not block."""

    def heed(self, place: int, reply: str) -> None:
        """A place has answered with an error. Does not block."""

    def search(self) -> None:
        """Find out anew where lanes are. May block as long as the connect time-out."""
