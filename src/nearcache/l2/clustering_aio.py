"""Redis Cluster for tasks: the same course of exchanges as threads take, in the running event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ShardError
from ..loops import wake
from .aio import AsyncDriver
from .clustering import ClusterDriver, leads_on
from .clustermap import NOWHERE
from .routing import Refresh, Send
from .task import Command, Exchange, Reply, Task, pack


class AsyncClusterDriver(AsyncDriver):
    """See :class:`AsyncDriver`.

    Args:
        driver: The synchronous driver of the same cluster. Its settings hold here too.
    """

    _driver: ClusterDriver

    def __init__(self, driver: ClusterDriver) -> None:
        super().__init__(driver)

    async def execute(
        self,
        exchanges: Sequence[Exchange],
        *,
        timeout_s: float,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> list[Reply | ShardError]:
        """Return one reply or error per exchange, in their order. See :meth:`ClusterDriver.execute`."""
        self._check_open()
        driver = self._driver
        deadline_ns = self._clock() + int(timeout_s * 1e9)
        answered, place = None, NOWHERE
        if len(exchanges) == 1:
            lane, commands = exchanges[0]
            place = driver.router.place_of(lane)
            if place != NOWHERE:
                tasks = [self._task(place, commands, pack(commands))]
                answered = (await self._finish(tasks, deadline_ns))[0]
                if not leads_on(answered):
                    return [answered]
        course = driver.router.course(exchanges, deadline_ns, answered, place, on_reply)
        answer: Any = None
        while True:
            try:
                request = course.send(answer)
            except StopIteration as stop:
                results: list[Reply | ShardError] = stop.value
                return results
            answer = None
            if isinstance(request, Send):
                answer = await self._send(request, deadline_ns)
            elif isinstance(request, Refresh):
                answer = await _in_thread(lambda: driver.refresh(deadline_ns))
            else:
                future = asyncio.get_running_loop().create_future()  # which nobody sets
                await asyncio.wait((future,), timeout=request.seconds)
                self._check_open()

    async def _send(self, request: Send, deadline_ns: int) -> list[Reply | ShardError]:
        tasks = [self._task(b.place, b.commands, b.data) for b in request.batches]

        def heard(number: int, answer: Reply | ShardError) -> None:
            tasks.extend(self._task(b.place, b.commands, b.data) for b in request.on_reply(number, answer))

        return await self._finish(tasks, deadline_ns, heard)

    def _task(self, place: int, commands: Sequence[Command], data: bytes) -> Task:
        pool = self._loops.here().of(place, self._driver.shard(place))
        return Task(pool.shard, commands, data, None, pool)


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Return what a blocking call returns. Not in the loop's executor, where loaders might keep it waiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(outcome: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)

    def run() -> None:
        try:
            outcome, error = work(), None
        except BaseException as raised:  # noqa: BLE001  whatever it is, it is raised where somebody waits
            outcome, error = None, raised
        wake(loop, tell, outcome, error)

    threading.Thread(target=run, name="nearcache-cluster", daemon=True).start()
    return await future
