"""The asynchronous driver: the same exchanges as ``driver``'s, in the running event loop.

What is decided, it shares with the synchronous one: breakers, identities, when a request is repeated, what an answer
means. Connections it does not share: each loop has its own, for a socket is watched by one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .._getting import Get
from ..clocks import Clock
from ..errors import ClosedError, ShardError
from ..loops import PerLoop
from .driver import Driver
from .pipelines import Pipeline
from .pool_aio import LoopPool
from .shard import Shard
from .task import Exchange, Reply, Task, pack


class AsyncDriver:
    """See the module. Used from any number of event loops, in any threads.

    Args:
        driver: The synchronous driver of the same shards. Its settings hold here too.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._clock = driver.clock
        self._closed = False
        self._loops = PerLoop(self._begin)

    async def execute(
        self,
        exchanges: Sequence[Exchange],
        *,
        timeout_s: float,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> list[Reply | ShardError]:
        """Return one reply or error per exchange, in their order. See :meth:`Driver.execute`."""
        self._check_open()
        deadline_ns = self._clock() + int(timeout_s * 1e9)
        pools = self._loops.here()
        tasks = []
        for number, commands in exchanges:
            pool = pools.of(number, self._driver.shard(number))
            tasks.append(Task(pool.shard, commands, pack(commands), None, pool))
        return await self._finish(tasks, deadline_ns, on_reply)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the cache was closed")

    async def _finish(
        self,
        tasks: list[Task],
        deadline_ns: int,
        on_reply: Callable[[int, Reply | ShardError], None] | None = None,
    ) -> list[Reply | ShardError]:
        """Carry out tasks; return their results."""
        if len(tasks) == 1:
            await self._carry_out(tasks[0], deadline_ns)
        else:
            await self._carry_out_all(tasks, deadline_ns, on_reply)
        return [task.outcome() for task in tasks]

    def close(self) -> None:
        """Close the connections of all loops: of those that run elsewhere, as soon as they come to it. Idempotent."""
        self._closed = True
        self._loops.end_all()

    def close_here(self) -> None:
        """Close the connections of the running loop."""
        pools = self._loops.known()
        if pools is not None:
            pools.end(closed=False)

    def after_fork(self) -> None:
        """In the child: new connections; the parent's stay undisturbed."""
        self._loops.forget()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> _Pools:
        return _Pools(loop, self._driver.pool_size, self._clock)

    async def _carry_out_all(
        self, tasks: list[Task], deadline_ns: int, on_reply: Callable[[int, Reply | ShardError], None] | None
    ) -> None:
        """Each on a connection of its own, so that a shard that does not answer holds up no other.

        ``on_reply`` may add tasks to the list.
        """
        loop = asyncio.get_running_loop()

        async def carry_out(place: int, task: Task) -> None:
            await self._carry_out(task, deadline_ns)
            if on_reply is not None:
                known = len(tasks)
                on_reply(place, task.outcome())
                for further in range(known, len(tasks)):
                    await carry_out(further, tasks[further])

        parts = [loop.create_task(carry_out(place, task)) for place, task in enumerate(tasks)]
        try:
            await asyncio.gather(*parts)
        except BaseException:
            for part in parts:
                part.cancel()
            for task in tasks:
                task.abandon()  # now: nobody waits for the parts to do it
            raise

    async def _carry_out(self, task: Task, deadline_ns: int) -> None:
        """Give the task its result, over a connection of its own or along with others."""
        pool = _pool_of(task)
        while task.result is None and isinstance(task.commands, Get) and pool.is_crowded:
            task.result = await self._go_along(pool, task, deadline_ns)
        if task.result is None:
            await self._carry_out_alone(task, deadline_ns)

    async def _go_along(self, pool: LoopPool, task: Task, deadline_ns: int) -> Reply | ShardError | None:
        """Return the result; None where another's time was over, and not this one's."""
        pipeline = pool.forming
        if pipeline is None or not pipeline.takes(deadline_ns):
            pipeline = Pipeline(deadline_ns)
            pool.form(pipeline, self._set_off(pool, pipeline))
        return await pipeline.add(task, deadline_ns, pool.loop.create_future())

    async def _set_off(self, pool: LoopPool, pipeline: Pipeline) -> None:
        """Carry out what has come together until there is a connection for it."""
        shard, deadline_ns = pool.shard, pipeline.deadline_ns
        try:
            now = self._clock()
            if refusal := shard.refusal(deadline_ns - now):
                raise refusal
            connection = shard.take(now, pipeline.sample, pool) or await pool.connection(deadline_ns)
            pool.formed(pipeline)
            task = pipeline.joined()
            task.start_late(connection, deadline_ns - self._clock())
            if task.flow is not None:
                task.flow.on_step = pipeline.heed
            await self._carry_out_alone(task, deadline_ns)
            pipeline.tell(task.outcome(), self._clock())
        except ShardError as error:
            pipeline.tell(error, self._clock())
        except Exception as error:  # noqa: BLE001  whatever it is, it is raised where somebody waits
            pipeline.fail(error)

    async def _carry_out_alone(self, task: Task, deadline_ns: int) -> None:
        try:
            while task.result is None:
                if task.flow is None:
                    await self._start(task, deadline_ns)
                else:
                    await _pool_of(task).transfer(task.flow, deadline_ns)
                    task.settle(time_left=self._clock() < deadline_ns)
        except BaseException:
            task.abandon()
            raise

    async def _start(self, task: Task, deadline_ns: int) -> None:
        if not task.begin(self._clock(), deadline_ns):
            return
        try:
            connection = await _pool_of(task).connection(deadline_ns)
            task.start_late(connection, deadline_ns - self._clock())
        except ShardError as error:
            task.reject(error)


def _pool_of(task: Task) -> LoopPool:
    assert isinstance(task.pool, LoopPool)
    return task.pool


class _Pools:
    """The connections of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, clock: Clock) -> None:
        self.loop = loop
        self._size = size
        self._clock = clock
        self._by_shard: dict[int, LoopPool] = {}

    def of(self, number: int, shard: Shard) -> LoopPool:
        """Return the pool of a shard."""
        pool = self._by_shard.get(number)
        if pool is not None and pool.shard is not shard:  # the number is another shard's now
            pool.retire()
            pool = None
        if pool is None:
            pool = self._by_shard[number] = LoopPool(self.loop, shard, self._size, self._clock)
        return pool

    def end(self, *, closed: bool) -> None:
        """Close all connections; calls under way fail."""
        for pool in self._by_shard.values():
            pool.close(watched=not closed)

    def forget(self) -> None:
        """In a forked child: close its copies of the sockets, but leave the epoll alone, which is the parent's too."""
        self.end(closed=True)
        self._by_shard.clear()
