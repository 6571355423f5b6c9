"""Flights, for tasks: waiting without blocking the loop, and loads that outlive the task which asked first.

A load that a task begins runs in a task of its own, so that a cancellation of whoever waits, the first one included,
concerns nobody else. It ends with its loop at the latest; whoever waits in other loops and threads then takes over.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

from .answers import is_coroutine_loader
from .coroutines import carried
from .errors import ClosedError
from .flights import ABANDONED, AnyLock, Callback, Load, Loads, Read, Signal, strand
from .logs import Recurring, log_not_renewed
from .loops import NEVER_S, PerLoop, wake


async def wait_for_read(read: Read, lock: AnyLock, timeout_s: float) -> Any:
    """Return the outcome of another's read, or ABANDONED if it is not there within the time."""
    with _promise() as (future, tell):
        read.add_done_callback(tell, lock)
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:
            read.remove_done_callback(tell, lock)
    return read.outcome


async def wait_for_signal(signal: Signal, timeout_s: float) -> bool:
    """Return whether it happened within the time."""
    with _promise() as (future, tell):
        signal.add_done_callback(tell)
        try:
            await asyncio.wait((future,), timeout=timeout_s)
        finally:
            signal.remove_done_callback(tell)
    return signal.is_set()


async def wait_for_load(loads: Loads, load: Load) -> Any:
    """Return the value of another's load, or ABANDONED, or raise what its loader raised.

    Raises:
        LoadCycleError: See :meth:`Loads.wait`.
    """
    with _promise() as (future, tell):
        loads.join(load, tell)
        try:
            await future
        finally:
            loads.leave(load, tell)
    return load.outcome()


async def call_loader(loader: Callable[[Any], Any], key: Any) -> Any:
    """Return a loader's value. A coroutine function runs in this task; any other callable in a worker thread."""
    if is_coroutine_loader(loader):
        return await loader(key)
    value = await asyncio.to_thread(carried, loader, key)
    return await value if inspect.isawaitable(value) else value


class LoadTasks:
    """The loads that tasks have begun, in all event loops, each in a task of its own.

    Args:
        namespace: Whose loads, for the log.
    """

    def __init__(self, namespace: str) -> None:
        self._crews: PerLoop[_Crew] = PerLoop(partial(_Crew, namespace))

    async def load(self, loads: Loads, key: Any, work: Callable[[Load], Coroutine[Any, Any, Any]]) -> Any:
        """Return the value of a key's load: the one under way, or one that is begun here.

        Args:
            loads: The loads under way in this process.
            key: What is to be loaded.
            work: Carries out the load it is given, and ends it. Runs to its end even if the caller is cancelled.
        Raises:
            Whatever ``work`` does.
            LoadCycleError: See :meth:`Loads.wait`.
            ClosedError: The cache was closed meanwhile.
        """
        while True:
            mine = Load(key)
            mine.owner = object()
            task = crew = None
            try:
                load = loads.begin(mine)
                if load is mine:
                    crew = self._crews.here()
                    task = crew.start(loads, mine, work)
            finally:
                if task is None:
                    loads.end(mine)
            value = await wait_for_load(loads, load)
            if value is not ABANDONED:
                return value
            if task is not None and crew is not None:
                return await crew.result(task)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, Any]], keys: Any) -> None:
        """Have values of keys loaded anew, in a task of its own that nobody waits for."""
        self._crews.here().spawn(work(), keys)

    def end_all(self) -> None:
        """Cancel all loads."""
        self._crews.end_all()

    async def end_here(self) -> None:
        """Cancel the loads of this loop, and wait until they have ended; but not one that this is called in."""
        crew = self._crews.known()
        if crew is None:
            return
        tasks = crew.others()
        crew.end(closed=False)
        if tasks:
            await asyncio.wait(tasks)

    def forget(self) -> None:
        """In a forked child: none of them will get on here."""
        self._crews.forget()


class _Work(NamedTuple):
    """What a task does: on behalf of whom (see ``strand``), and the load that ends with it, or what it loads anew."""

    token: Hashable
    loads: Loads | None = None
    load: Load | None = None
    keys: Any = None

    def end(self) -> None:
        """End the load. Harmless if it has ended."""
        if self.loads is not None and self.load is not None:
            self.loads.end(self.load)


class _Crew:
    """The load tasks of one loop. The loop itself does not keep a task from being collected, so this does."""

    def __init__(self, namespace: str, loop: asyncio.AbstractEventLoop) -> None:
        self._namespace, self.loop = namespace, loop
        self.tasks: dict[asyncio.Task[Any], _Work] = {}
        self._ended = False
        self._failures = Recurring()

    def spawn(self, work: Coroutine[Any, Any, Any], keys: Any) -> None:
        """Have values of keys loaded anew by work that sees to its own loads."""
        self._begin(work, _Work(object(), keys=keys))

    def start(self, loads: Loads, load: Load, work: Callable[[Load], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Let a load that has begun be carried out in a task, whose context tells it from others."""
        return self._begin(work(load), _Work(load.owner, loads, load))

    def _begin(self, steps: Coroutine[Any, Any, Any], work: _Work) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(strand.set, work.token)
        task: asyncio.Task[Any] = context.run(self.loop.create_task, steps)
        self.tasks[task] = work
        task.add_done_callback(self._over)
        return task

    def others(self) -> list[asyncio.Task[Any]]:
        """The tasks but the one on whose behalf this is called: a loader that closes the cache comes to its own end."""
        mine = strand.get(None)
        return [task for task, work in self.tasks.items() if work.token is not mine]

    async def result(self, task: asyncio.Task[Any]) -> Any:
        """Return or raise what became of a task."""
        await asyncio.wait((task,))
        if self._ended and task.cancelled():
            raise ClosedError("the cache was closed while a value was loaded")
        return task.result()

    def end(self, *, closed: bool) -> None:
        """Cancel the tasks; in a loop that is closed already, unwind them here, for nobody else will."""
        if not closed:
            self._ended = True
            for task in self.others():
                task.cancel()
            return
        while self.tasks:
            task, work = self.tasks.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather does
            try:
                task.get_coro().close()
            except Exception as error:  # noqa: BLE001  of the user's loader, with nobody above
                self.loop.call_exception_handler({
                    "message": "a loader did not end with its event loop", "exception": error, "task": task,
                })  # fmt: skip
            finally:
                work.end()

    def forget(self) -> None:
        """In a forked child: the tasks stay as they are, for unwinding them here would run their owners' code twice."""

    def _over(self, task: asyncio.Task[Any]) -> None:
        work = self.tasks.pop(task)
        work.end()  # for a task that was cancelled before it had begun
        if not task.cancelled():
            error = task.exception()  # those who wait have it; if nobody does any more, that is no event to report
            if error is not None and work.load is None:
                log_not_renewed(self._failures, self._namespace, work.keys, error)


@contextmanager
def _promise() -> Iterator[tuple[asyncio.Future[None], Callback]]:
    """A future of this loop, and what sets it from any thread.

    Whoever is waited for keeps the latter, which must not keep a loop that is left behind: its own loads end only when
    it is closed or collected. So it is the loop that holds the future, and who waits for it, by a timer.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(NEVER_S, future.done)
    its_loop, promised = weakref.ref(loop), weakref.ref(future)

    def settle() -> None:
        held = promised()
        if held is not None and not held.done():
            held.set_result(None)

    def tell() -> None:
        held = its_loop()
        if held is not None:
            wake(held, settle)  # a closed loop has nobody who waits

    try:
        yield future, tell
    finally:
        timer.cancel()
