"""The connections of one event loop to one shard, and who waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from nearcache.clocks import monotonic_ns
from nearcache.errors import ShardUnavailableError
from nearcache.l2.pool_aio import LoopPool
from support.threads import PATIENCE

TASKS = 2000


class Unreachable:
    """A shard that is not connected to while the gate is closed, nor afterwards."""

    name = "a"

    def __init__(self) -> None:
        self.gate = threading.Event()

    def connect(self, _deadline_ns: int) -> Any:
        """Raise, in the end."""
        assert self.gate.wait(PATIENCE)
        raise ShardUnavailableError(self.name, "nobody there")


class Asked(asyncio.Future[Any]):
    """A future that counts how often any of its kind is asked whether it is done."""

    times = 0

    def done(self) -> bool:
        Asked.times += 1
        return super().done()


def test_task_that_waits_for_a_connection_asks_after_a_few_others_only() -> None:
    """If each asked after all, thousands would keep their loop from everything else, for as long as they may wait."""
    shard: Any = Unreachable()
    Asked.times = 0

    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        loop.create_future = lambda: Asked(loop=loop)
        pool = LoopPool(loop, shard, 8, monotonic_ns)
        deadline_ns = monotonic_ns() + round(PATIENCE * 1e9)
        tasks = [asyncio.ensure_future(pool.connection(deadline_ns)) for _ in range(TASKS)]
        loop.call_soon(loop.call_soon, shard.gate.set)  # when all of them wait
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert {type(each) for each in outcomes} == {ShardUnavailableError}
    assert Asked.times < 20 * TASKS
