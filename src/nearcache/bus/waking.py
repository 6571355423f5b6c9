"""What a thread that waits for connections is woken with."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """A connection of this process with itself, one end of which is watched beside the others.

    Sockets, not a bare pipe: once closed they say so, where a file descriptor's number may be another's by then.

    Raises:
        OSError: There are no descriptors left.
    """

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to be watched."""
        return self._in.fileno()

    def wake(self) -> None:
        """Make the thread look round. For any thread."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
            self._out.send(b"!")

    def drain(self) -> None:
        """Wait for the next call of :meth:`wake` from now on."""
        with contextlib.suppress(BlockingIOError):
            while self._in.recv(4096):
                pass

    def close(self) -> None:
        """Let go of both ends. Idempotent."""
        self._in.close()
        self._out.close()
