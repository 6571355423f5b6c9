"""No more connections can be made to a shard, while those that there are serve: calls have to do with these.

The server takes no more clients, or has another password by now, or nobody says which; its certificate has expired;
nobody can say where it is; this process has no descriptors left. None of that says anything of the connections that
there are. But a process that loses them gets no others, so somebody should look.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import Final

from ..clocks import Clock
from ..errors import AuthenticationFailedError, ShardError, ShardUnavailableError, UnknownMasterError
from ..logs import Recurring, log
from .handshake import is_crowded
from .logins import NoPasswordError

#: How long no more connections are made where one was refused and others have to do.
SHORT_NS: Final = 1_000_000_000
_REFUSED: Final = (AuthenticationFailedError, NoPasswordError, UnknownMasterError)
_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE})


def is_shortage(error: ShardError) -> bool:
    """Return whether a connection could not be made for a reason that does not concern those that there are."""
    cause = error.__cause__
    if isinstance(error, _REFUSED) or is_crowded(cause):
        return True
    # Another error of the shard's as the cause is that of sentinels, of which none has answered. A server that takes no
    # more clients may hang up without a word: over TLS always, and else if it is in haste.
    if isinstance(cause, (socket.gaierror, ShardUnavailableError, ConnectionResetError, BrokenPipeError)):
        return True
    return type(cause).__module__ == "ssl" or getattr(cause, "errno", None) in _OWN


class Shortage:
    """Tells of a shard that no more connections can be made, of each reason once, and when they can be again.

    Attributes:
        reason: Why they cannot; empty: they can, as far as is known.
    """

    def __init__(self, namespace: str, shard: str, clock: Clock) -> None:
        self.reason = ""
        self._namespace, self._shard = namespace, shard
        self._told = ""
        self._warnings = Recurring(clock)

    def begin(self, error: ShardError, count: int) -> None:
        """One could not be made, or still not; there are so many."""
        self.reason = reason = str(error).removeprefix(f"shard {self._shard}: ")
        if reason == self._told:
            return
        text = "namespace %s: shard %s: no more connections can be made, and the %d there are have to do: %s"
        if self._warnings.log(logging.WARNING, text, self._namespace, self._shard, count, reason):
            self._told = reason

    def end(self) -> None:
        """One could be made."""
        told, self.reason, self._told = self._told, "", ""
        if told:
            text = "namespace %s: shard %s: connections can be made again"
            log(logging.INFO, text, self._namespace, self._shard)
