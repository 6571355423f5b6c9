"""How a task carries out steps. Apart from ``steps``, because only those who use asyncio are to import it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from .._store import Store
from ..awaiting import LoadTasks, call_loader, wait_for_load, wait_for_read, wait_for_signal
from ..flights import Load, Many, renewal_of, strand, young_of
from ..l2.aio import AsyncDriver
from .filling import Loading, carry_out, carry_out_anew
from .gathering import Gathering, gather
from .replies import MISSING
from .steps import Await, Call, JoinLoad, JoinRead, Spawn, Steps, T, course
from .tier import Tier


class AsyncRunner:
    """Carries out steps in the running task, of whichever event loop.

    Args:
        driver: Performs the exchanges.
        timeout_s: One deadline for all network steps of one call. The user's loader has its time to itself.
    """

    def __init__(self, driver: AsyncDriver, tier: Tier, timeout_s: float) -> None:
        self._driver = driver
        self._tier = tier
        self._timeout_s = timeout_s
        self._tasks = LoadTasks(tier.namespace)

    async def run(self, steps: Steps[T]) -> T:
        """Return what the steps return; raise what they raise."""
        todo = course(self._tier, steps, self._timeout_s)
        try:
            request, on_reply, left_s = next(todo)
            while True:
                try:
                    if isinstance(request, list):
                        answer: Any = await self._driver.execute(request, timeout_s=left_s, on_reply=on_reply)
                    else:
                        answer = await self._perform(request, left_s)
                except BaseException as error:  # noqa: BLE001  a cancellation too: it is for the steps
                    request, on_reply, left_s = todo.throw(error)
                else:
                    request, on_reply, left_s = todo.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def run_alone(self, steps: Steps[T]) -> T:
        """The same, for steps that others may wait for: so that one is told who waits for itself."""
        if strand.get(None) is not None:
            return await self.run(steps)
        mine = strand.set(object())
        try:
            return await self.run(steps)
        finally:
            with suppress(ValueError):  # its loop has ended, and what unwinds it has another context
                strand.reset(mine)

    async def load(self, store: Store[Any, Any], wanted: Loading) -> Any:
        """The same as running ``load``, in a task of its own. See :meth:`LoadTasks.load`."""

        def work(mine: Load) -> Any:
            return self.run(carry_out(self._tier.now, store, wanted, mine))

        return await self._tasks.load(self._tier.loads, wanted.name, work)

    async def refresh(self, store: Store[Any, Any], wanted: Loading) -> Any:
        """The same as running ``refresh``, in a task of its own."""

        def work(mine: Load) -> Any:
            return self.run(carry_out_anew(self._tier.now, store, wanted, mine))

        value: Any = MISSING
        while value is MISSING:  # of a load in the background that left the work to another process
            value = await self._tasks.load(self._tier.loads, renewal_of(wanted.name), work)
        return value

    async def load_young(self, store: Store[Any, Any], wanted: Loading, limit_ns: int) -> Any:
        """The same as running ``load_young``, in a task of its own."""

        def work(mine: Load) -> Any:
            return self.run(carry_out_anew(self._tier.now, store, wanted, mine, limit_ns))

        return await self._tasks.load(self._tier.loads, young_of(wanted.name, limit_ns), work)

    async def gather(self, store: Store[Any, Any], wanted: Gathering) -> Any:
        """The same as running ``gather``, in a task of its own."""

        async def work(mine: Load) -> None:
            try:
                mine.value = await self.run(gather(self._tier.now, store, wanted))
            except Exception as error:
                mine.error = error
                raise
            finally:
                self._tier.loads.end(mine)

        return await self._tasks.load(self._tier.loads, Many(wanted.keys), work)

    def close(self) -> None:
        """Cancel the loads and close the connections of all loops."""
        self._tasks.end_all()
        self._driver.close()

    async def close_here(self) -> None:
        """Cancel the loads of this loop, and close its connections when they have ended."""
        await self._tasks.end_here()
        self._driver.close_here()

    def after_fork(self) -> None:
        """In the child: what the parent's loops had under way is not carried on here."""
        self._tasks.forget()
        self._driver.after_fork()

    async def _perform(self, request: Call | JoinRead | JoinLoad | Await | Spawn, left_s: float) -> Any:
        if isinstance(request, Call):
            return await call_loader(request.loader, request.key)
        if isinstance(request, JoinRead):
            return await wait_for_read(request.read, self._tier.lock, left_s)
        if isinstance(request, Await):
            return await wait_for_signal(request.signal, request.seconds)
        if isinstance(request, Spawn):
            self._tasks.spawn(lambda: self.run(request.make()), request.keys)
            return True
        return await wait_for_load(self._tier.loads, request.load)
