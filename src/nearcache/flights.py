"""Flights: work that is done once in this process, however many threads and tasks ask for it.

Two kinds. A :class:`Read` is a pending L2 read, known to the store by rules R1 to R5; others may join it while
nothing has happened to its key. A :class:`Load` is one call of the user's loader; it spans the read, the loader and
the write to L2.

A thread waits by blocking. A task must not, so it leaves a callback, which is called in whatever thread ends the
flight.

A load can be waited for by somebody whose own load is waited for in turn, and so on round to itself. That would be a
deadlock, so before anybody waits, the loads that they would wait for are followed; a cycle is an error that shows the
keys. Who "somebody" is, a *token* says: a thread's is its number, and a load that a task carries out has one of its
own, which the loader's own tasks and worker threads inherit with their context (see :data:`strand`). A thread that
blocks keeps everything waiting that it carries, such as the tasks of its event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from ._reads import ABANDONED, Event, Read
from ._store import Op
from .errors import LoadCycleError

__all__ = [
    "ABANDONED", "AnyLock", "Callback", "Load", "Loads", "Many", "Read", "Signal", "change_of",
    "renewal_of", "strand", "young_of",
]  # fmt: skip

#: The token of the load on whose behalf this context runs. Unset: the thread is its own token.
strand: Final[ContextVar[Hashable]] = ContextVar("nearcache_strand")

#: See :func:`renewal_of`.
_RENEWAL: Final = object()
_YOUNG: Final = object()
_CHANGE: Final = object()

Callback = Callable[[], object]
AnyLock = AbstractContextManager[Any]


def renewal_of(name: Hashable) -> Hashable:
    """Return what a load that was asked for whatever is there is known as: who merely reads does not wait for it."""
    return _RENEWAL, name


def young_of(name: Hashable, limit_ns: int) -> Hashable:
    """Return what a load is known as that was asked for unless the value is of at most this age."""
    return _YOUNG, name, limit_ns


def change_of(name: Hashable) -> Hashable:
    """Return what a change is known as that depends on what is there: one at a time."""
    return _CHANGE, name


def named(key: Hashable) -> Hashable:
    """Return the name of what is known as this."""
    is_marked = type(key) is tuple and len(key) > 1 and any(key[0] is mark for mark in (_RENEWAL, _YOUNG, _CHANGE))
    return key[1] if is_marked else key  # type: ignore[index]  # then it is a tuple


class Many:
    """What a load of many keys is known as. It is nobody else's, though its keys may be."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Any]) -> None:
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return repr(self._keys)


class Signal:
    """Something that happens once, and wakes who waits for it: threads by blocking, tasks by a callback."""

    __slots__ = ("_callbacks", "_happened", "_lock")

    def __init__(self) -> None:
        self._happened = Event()
        self._callbacks: list[Callback] = []
        self._lock = threading.RLock()  # a collection may end who waits

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._happened.is_set()

    def set(self) -> None:
        """It happens. Once is enough."""
        with self._lock:
            self._happened.set()
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback()
        self._callbacks.clear()  # not before: an interrupt must not lose any

    def wait(self, timeout_s: float) -> bool:
        """Block until it happens; return whether it did within the time."""
        return self._happened.wait(timeout_s)

    def add_done_callback(self, callback: Callback) -> None:
        """Have it called, in whatever thread, when it happens; at once if it has."""
        with self._lock:
            happened = self._happened.is_set()
            if not happened:
                self._callbacks.append(callback)
        if happened:
            callback()

    def remove_done_callback(self, callback: Callback) -> None:
        """Forget a callback, if it is not being called already."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


class Load:
    """One call of a loader.

    Attributes:
        key: What is loaded.
        owner: The token of whoever carries it out: one that waits for something does not get on with its loads.
        carrier: The thread without which it cannot end, and which is a token too.
        op: What the store knows of it at this moment: the read, later the fill. None: nothing yet, or never.
        done: Set at the end.
        value: At the end, or :data:`ABANDONED`.
        error: What the loader raised.
        trace: Its traceback as it was at the end: everybody raises the same object, and is not to add to the others'.
        beside: What it has in common with the others of one bulk load; None: it is alone.
        due: The value that was found, if it is to be loaded anew in the background; else None.
        is_shared: Whether somebody has come to wait for it.
        since_ns: When what ``op`` stands for began: what it brings may be as old.
    """

    __slots__ = (
        "beside", "callbacks", "carrier", "done", "due", "error",
        "is_shared", "key", "op", "owner", "since_ns", "trace", "value",
    )  # fmt: skip

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.carrier = threading.get_ident()
        self.owner: Hashable = strand.get(self.carrier)
        self.op: Op | None = None
        self.done = Event()
        self.callbacks: list[Callback] = []
        self.value: Any = ABANDONED
        self.error: Exception | None = None
        self.trace: TracebackType | None = None
        self.due: Any = None
        self.since_ns = 0
        self.beside: object = None
        self.is_shared = False

    def rests_on(self, op: Op, since_ns: int) -> None:
        """From now on it is a matter of this operation, which began at that instant."""
        self.op = op
        self.since_ns = since_ns

    @property
    def joinable(self) -> bool:
        """Whether who comes now may take its value: nobody has written or invalidated the key since it began."""
        return self.op is None or self.op.storable

    def outcome(self) -> Any:
        """Return the value, or :data:`ABANDONED`, or raise what the loader raised. After the end."""
        if self.error is not None:
            raise self.error.with_traceback(self.trace)
        return self.value


class Loads:
    """The loads under way in this process.

    The pattern of use, in which an interrupt at any point frees the waiters::

        mine = Load(key)
        try:
            load = loads.begin(mine)
            if load is not mine:
                return loads.wait(load)
            mine.value = loader(key)
        except Exception as error:
            mine.error = error
            raise
        finally:
            loads.end(mine)

    Args:
        oldest: Given a name, returns the instant from before which no load will do for those who come now; None: any.
    """

    def __init__(self, oldest: Callable[[Hashable], int] | None = None) -> None:
        self.oldest = oldest
        # Re-entrant, because comparing keys of a memory:// cache may run any code, this cache included.
        self._lock = threading.RLock()
        self._by_key: dict[Hashable, Load] = {}
        self._waiting: dict[Hashable, list[Load]] = {}  # token -> the loads it waits for

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def waiting(self) -> int:
        """Number of tokens that wait for a load."""
        return len(self._waiting)

    def begin(self, mine: Load) -> Load:
        """Return the load of the key: ``mine`` if the caller is to carry it out, else the one to :meth:`wait` for.

        One that has been overtaken by a write is only waited for by those who came before, and by its own loader,
        which must be told that it asks for itself.
        """
        with self._lock:
            load = self._by_key.setdefault(mine.key, mine)
            if load is not mine and not self._suits(load) and load.owner != mine.owner:
                load = self._by_key[mine.key] = mine
            if load is not mine:
                load.is_shared = True
            return load

    def _suits(self, load: Load) -> bool:
        """Whether who comes now may wait for it."""
        if self.oldest is not None and load.op is not None and load.since_ns <= self.oldest(named(load.key)):
            return False
        return load.joinable

    def close(self, load: Load) -> None:
        """Its result is known, and newer ones may come from now on: nobody else is to wait for it."""
        with self._lock:
            if self._by_key.get(load.key) is load:
                del self._by_key[load.key]

    def close_all(self) -> None:
        """The same for all of them."""
        with self._lock:
            self._by_key.clear()

    def under_way(self, key: Hashable) -> Load | None:
        """Return the load of a key, if there is one."""
        with self._lock:
            return self._by_key.get(key)

    def joinable(self, key: Hashable) -> Load | None:
        """Return the load of a key that who comes now may wait for, if there is one."""
        with self._lock:
            load = self._by_key.get(key)
            return load if load is not None and self._suits(load) else None

    def wait(self, load: Load) -> Any:
        """Block until another load is over; return its value, :data:`ABANDONED`, or raise what its loader raised.

        Raises:
            LoadCycleError: As for :meth:`outlast`.
        """
        self.outlast(load)
        return load.outcome()

    def outlast(self, load: Load, timeout_s: float | None = None) -> bool:
        """Block until another load is over, or for so many seconds; return whether it is over.

        Raises:
            LoadCycleError: Waiting would be for ever, because that load waits, through others, for this thread.
        """
        me = threading.get_ident()
        tokens = {me, strand.get(me)}
        self._enlist(load, tokens)
        try:
            return load.done.wait(timeout_s)
        finally:
            self._dismiss(load, tokens)

    def join(self, load: Load, callback: Callback) -> None:
        """Wait without blocking: have the callback called, in whatever thread, when the load is over, or is already.

        The caller asks for ``load.outcome()`` then, and in any case calls :meth:`leave` in the same context.

        Raises:
            LoadCycleError: As for :meth:`wait`.
        """
        self._enlist(load, _own_tokens())
        with self._lock:
            over = load.done.is_set()
            if not over:
                load.callbacks.append(callback)
        if over:
            callback()

    def leave(self, load: Load, callback: Callback) -> None:
        """Wait no longer."""
        self._dismiss(load, _own_tokens())
        with self._lock:
            if callback in load.callbacks:
                load.callbacks.remove(callback)

    def end(self, mine: Load) -> None:
        """Finish a load. Harmless for one that :meth:`begin` never took, and the second time.

        An ``Exception`` reaches every waiter. Anything else (an interrupt, an exit, a cancellation) concerns one
        thread or task only: the waiters find the load abandoned, and the first of them to come back takes it over.
        """
        if mine.done.is_set() and not mine.callbacks:
            return
        with self._lock:
            if self._by_key.get(mine.key) is mine:
                del self._by_key[mine.key]
            if mine.error is not None and not mine.done.is_set():
                mine.trace = mine.error.__traceback__
            mine.done.set()
            callbacks = tuple(mine.callbacks)
        for callback in callbacks:
            callback()
        mine.callbacks.clear()  # not before: whoever calls this again after an interrupt calls those that are left

    def _enlist(self, load: Load, tokens: set[Hashable]) -> None:
        with self._lock:
            self._refuse_cycle(load, tokens)
            for token in tokens:
                self._waiting.setdefault(token, []).append(load)

    def _dismiss(self, load: Load, tokens: set[Hashable]) -> None:
        with self._lock:
            for token in tokens:
                loads = self._waiting.get(token, [])
                if load in loads:
                    loads.remove(load)
                if not loads:
                    self._waiting.pop(token, None)

    def _refuse_cycle(self, load: Load, tokens: set[Hashable]) -> None:
        """Follow what would be waited for, by every way: a loader may wait for several loads at a time."""
        if not tokens:  # who keeps nobody waiting is in no circle
            return
        ways: list[tuple[Load, ...]] = [(load,)]
        seen = {load}
        while ways:
            way = ways.pop()
            link = way[-1]
            if link.owner in tokens or link.carrier in tokens:
                own = link.owner in tokens
                chain = (*way, *self._begun_within(link, tokens), load)
                raise LoadCycleError([named(step.key) for step in chain], same_thread=not own)
            for token in {link.owner, link.carrier}:
                for beyond in self._waiting.get(token, ()):
                    # Who waits for one that is over will be woken, and does not know yet.
                    if beyond not in seen and not beyond.done.is_set():
                        seen.add(beyond)
                        ways.append((*way, beyond))

    def _begun_within(self, outer: Load, tokens: set[Hashable]) -> list[Load]:
        """Return the loads that the loader of ``outer`` has begun and is in the middle of, the innermost last."""
        begun = [load for load in self._by_key.values() if load.owner in tokens]
        inner = begun[begun.index(outer) + 1 :] if outer in begun else []
        return [load for load in inner if outer.beside is None or load.beside is not outer.beside]


def _own_tokens() -> set[Hashable]:
    """The tokens of a task. One that runs on behalf of no load keeps nobody waiting."""
    own = strand.get(None)
    return set() if own is None else {own}
