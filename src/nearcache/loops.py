"""Something for each event loop, which ends with the loop.

A loop tells nobody that it is closed. But when it is, it lets go of its timers; and so a timer that is never due, and
is the only one to hold an object, turns the end of the loop into the end of that object. The same happens when a loop
is collected that nobody has closed. Here such an object, the guard, holds what is kept for a loop, and everybody else
refers to that weakly: it may hold connections and tasks, which hold the loop, without keeping the loop alive.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

#: Seconds until a timer is due that is only to hold something: longer than nearly every loop lives.
NEVER_S: Final = 1e8


class Kept(Protocol):
    """What is kept for a loop."""

    loop: asyncio.AbstractEventLoop

    def end(self, *, closed: bool) -> None:
        """Let go of everything, in the loop's thread, or ``closed``, after its end. Idempotent."""

    def forget(self) -> None:
        """In a forked child: let go of everything without touching what the parent still uses, such as its epoll."""


T = TypeVar("T", bound=Kept)


class PerLoop(Generic[T]):
    """One object per running event loop, made when it is first asked for.

    Args:
        make: Makes one, given the loop.
    """

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], T]) -> None:
        self._make = make
        self._by_loop: dict[int, weakref.ref[T]] = {}

    def here(self) -> T:
        """Return the object of the running loop."""
        return self.known() or self._begin(asyncio.get_running_loop())

    def known(self) -> T | None:
        """Return the object of the running loop, if it has been asked for."""
        loop = asyncio.get_running_loop()
        reference = self._by_loop.get(id(loop))
        kept = None if reference is None else reference()
        return kept if kept is not None and kept.loop is loop else None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> T:
        kept = self._make(loop)
        key, by_loop = id(loop), self._by_loop

        def gone(reference: weakref.ref[T]) -> None:
            if by_loop.get(key) is reference:  # else a newer loop has come to the same address
                del by_loop[key]

        by_loop[key] = weakref.ref(kept, gone)
        _remain(_Guard(kept))
        return kept

    def end_all(self) -> None:
        """End the objects of all loops: of those that run elsewhere, as soon as they come to it."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for reference in list(self._by_loop.values()):
            kept = reference()
            if kept is None or kept.loop.is_closed():
                continue
            if kept.loop is here or not kept.loop.is_running():
                kept.end(closed=False)
            else:
                _tell(kept)

    def forget(self) -> None:
        """In a forked child: the parent's loops do not run here."""
        for reference in list(self._by_loop.values()):
            kept = reference()
            if kept is not None:
                kept.forget()
        self._by_loop.clear()


class _Guard:
    """Held by a timer of the loop alone. See the module."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def __del__(self) -> None:
        self.kept.end(closed=True)


def _remain(guard: _Guard) -> None:
    guard.kept.loop.call_later(NEVER_S, _remain, guard)


def _tell(kept: Kept) -> None:
    def end() -> None:
        kept.end(closed=False)

    wake(kept.loop, end)


def wake(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *arguments: Any) -> bool:
    """Have a loop call something, from any thread. Returns False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
