"""The object behind ``with cache.hold(...)``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..choices import Seconds, plain_seconds
from ..errors import CacheError

if TYPE_CHECKING:
    from types import TracebackType


def several(verb: str, keys: Iterable[Any]) -> list[Any]:
    """Return the keys that a verb was given as a list.

    Raises:
        TypeError: It is one text or bytes, whose characters nobody means: the key itself would stay as it is.
    """
    refuse_text(verb, keys)
    return list(keys)


def refuse_text(verb: str, keys: Iterable[Any]) -> None:
    """Raise as :func:`several` does, and leave the keys to whoever walks through them."""
    if isinstance(keys, (str, bytes, bytearray)):
        raise TypeError(f"{verb}({keys!r:.80}): give a list of keys, as in {verb}([{keys!r:.80}])")


def hold_to_ms(seconds: Seconds) -> int:
    """Check how long a hold may last; return milliseconds.

    Raises:
        ValueError: It is out of range.
    """
    held = plain_seconds(seconds)
    if not 0.001 <= held <= 3600.0:
        raise ValueError(f"seconds={seconds!r}: give 0.001 to 3600, the longest that the change will take")
    return round(held * 1000)


def linger_to_ms(seconds: Seconds) -> int:
    """Check for how long a hold goes on after its end; return milliseconds.

    Raises:
        ValueError: It is out of range.
    """
    lingering = plain_seconds(seconds)
    if not 0 <= lingering <= 3600.0:
        raise ValueError(f"linger={seconds!r}: give 0 to 3600, as long as loaders may still read the old state")
    return round(lingering * 1000)


class Hold:
    """Keys whose data is about to change: nothing is stored under them until it has.

    Args:
        begin: Invalidates the keys and holds them, under the token that it is given.
        end: Invalidates them again and ends what is held under the token.
        let_go: Ends what is held of a hold that could not be begun; None: as ``end``.
        owe: Has that done later; asks no server.

    ``with`` begins and ends it. If ``begin`` fails, the block is not entered, and what may be held all the same is let
    go of, now or as soon as its shard answers; if ``end`` fails, hold and invalidation are owed likewise. One that is
    entered again begins anew, its time too, and ends when the last block is left. A forked child that leaves a block
    which its parent has entered invalidates the keys, and leaves the hold to the parent.
    """

    def __init__(
        self,
        begin: Callable[[bytes], Any],
        end: Callable[[bytes], Any],
        *,
        let_go: Callable[[bytes], Any] | None = None,
        owe: Callable[[bytes], None] | None = None,
    ) -> None:
        self._begin = begin
        self._end = end
        self._let_go = end if let_go is None else let_go
        self._owe = owe
        self._depth = Depth()

    def __enter__(self) -> Hold:
        token = self._depth.enter()
        try:
            self._begin(token)
        except BaseException as failure:
            if self._depth.leave():
                if isinstance(failure, CacheError):
                    with suppress(CacheError):  # what is held by now would be held to the end of its time
                        self._let_go(token)
                elif self._owe is not None:  # an interrupt is to wait for no server
                    self._owe(token)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if token := self._depth.leave():
            self._end(token)


class Depth:
    """How many blocks are inside one hold, in whatever threads and tasks of this process, and under which token.

    Whoever is first has a new token: others that hold the same keys by now, a forked process with the same object among
    them, are others to the server too, and do not end by this one's end.
    """

    def __init__(self) -> None:
        self._forget()

    def enter(self) -> bytes:
        """One more. Returns the token."""
        self._look()
        with self._lock:
            if not self._count:
                self._token = _new_token()
            self._count += 1
            return self._token

    def leave(self) -> bytes | None:
        """One less. Returns the token if it was the last, one that nothing is held under if it was the parent's."""
        self._look()
        with self._lock:
            if not self._count:
                return _new_token()
            self._count -= 1
            return None if self._count else self._token

    def _look(self) -> None:
        if self._pid != os.getpid():
            self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a thread that is not here may have held the other one
        self._count = 0
        self._token = b""


def _new_token() -> bytes:
    return os.urandom(8).hex().encode("ascii")
