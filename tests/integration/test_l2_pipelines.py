"""Tasks that read from one shard at the same time ask together, and each gets what it would have got alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

import nearcache
from nearcache._getting import Get
from nearcache.errors import ClosedError, ShardError, ShardUnavailableError
from nearcache.l2 import BreakerSettings, Driver, Exchange, Reply
from nearcache.l2.aio import AsyncDriver
from nearcache.l2.pipelines import ALONE
from nearcache.l2.pool_aio import LoopPool
from nearcache.options import Endpoint
from support.lanes import endpoint_of
from support.proxy import Proxy
from support.redis import RedisServer
from support.tasks import until
from support.threads import PATIENCE

pytestmark = pytest.mark.usefixtures("no_leaks")

MANY = 300
#: Task factories by which a program may have its tasks made. The eager one begins each at once.
FACTORIES = [None, *filter(None, [getattr(asyncio, "eager_task_factory", None)])]


class Reader:
    """An asynchronous driver of one server, and reads by it. The value of each key is its name in capitals."""

    def __init__(self, server: RedisServer, endpoint: Endpoint) -> None:
        self.server = server
        with server.client() as client:
            client.mset({name: name.upper() for name in map("key{}".format, range(MANY))})
        self._driver = Driver([endpoint], breaker=BreakerSettings(threshold=1000))
        self.tasks = AsyncDriver(self._driver)
        self._driver.attach(self.tasks)

    async def read(self, number: int, timeout_s: float = PATIENCE) -> bytes | ShardError | None:
        """Return the value of a key, or why there is none."""
        get = Get(b"key", str(number).encode(), None, None)
        (reply,) = await self.tasks.execute([Exchange(0, get)], timeout_s=timeout_s)
        if not isinstance(reply, Reply):
            return reply
        lifetime, value = reply.values
        assert lifetime == -1 or isinstance(value, ShardError)
        return value  # type: ignore[no-any-return]  # of Redis, so anything

    def start(self, numbers: range, timeout_s: float = PATIENCE) -> list[asyncio.Task[Any]]:
        """Have a task for each read."""
        return [asyncio.create_task(self.read(number, timeout_s)) for number in numbers]

    @property
    def pool(self) -> LoopPool:
        """The connections of the running loop."""
        pools = self.tasks._loops.known()
        assert pools is not None
        return pools._by_shard[0]

    async def until_all_have_asked(self) -> None:
        """Wait until nobody waits for a connection any more, and all others for an answer."""
        await until(lambda: self.pool.forming is None and not self.pool._waiters)

    def close(self) -> None:
        """Close all connections."""
        self._driver.close()


@pytest.fixture
def reader(redis_server: RedisServer) -> Iterator[Reader]:
    """Read from the server."""
    with closing(Reader(redis_server, endpoint_of(redis_server))) as reader:
        yield reader


@pytest.fixture
def proxied(redis_server: RedisServer) -> Iterator[tuple[Reader, Proxy]]:
    """Read from the server through a proxy."""
    with Proxy(redis_server.path) as proxy:
        endpoint = Endpoint("a", host="127.0.0.1", port=proxy.port)
        with closing(Reader(redis_server, endpoint)) as reader:
            yield reader, proxy


def run(work: Callable[[], Awaitable[None]], factory: Any = None) -> None:
    """Run a test's work in a loop of its own."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await work()

    asyncio.run(main())


def values(numbers: range) -> list[bytes]:
    """Return what reads of these keys find."""
    return [b"KEY%d" % number for number in numbers]


@pytest.mark.parametrize("factory", FACTORIES)
def test_each_of_many_tasks_gets_its_own_value_over_a_few_connections(reader: Reader, factory: Any) -> None:
    """They ask together as often as there is a connection for them, and not each over one of its own."""

    async def work() -> None:
        for _ in range(3):
            assert await asyncio.gather(*reader.start(range(MANY))) == values(range(MANY))
        assert len(reader.pool.idle) == len(reader.pool._watched) <= ALONE + MANY // 64 + 1
        assert not reader.pool._pipelines

    run(work, factory)


def test_tasks_of_a_cache_read_together(redis_server: RedisServer) -> None:
    """Values that are there, one that is not, and one that is too large for others to wait for it in vain."""
    with closing(nearcache.open(redis_server.url, namespace="together")) as cache:
        known = {f"key{number}": "x" * number for number in range(MANY)} | {"large": "y" * 1_000_000}
        cache.set_many(known)
        cache.drop_all()

        async def work() -> None:
            keys = [*known, "absent"]
            found = await asyncio.gather(*map(cache.aio.get, keys))
            assert dict(zip(keys, found, strict=True)) == {**known, "absent": None}

        run(work)


def test_cancelled_task_takes_nothing_from_the_others(reader: Reader) -> None:
    """Their answers come over the same connections, which are of use afterwards."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        before = set(reader.pool._watched)
        reader.server.pause()
        tasks = reader.start(range(MANY))
        await reader.until_all_have_asked()
        together = tasks[ALONE:]
        for task in together[::2]:
            task.cancel()
        await asyncio.wait(together[::2], timeout=PATIENCE)
        reader.server.resume()
        assert await asyncio.gather(*together[1::2]) == values(range(ALONE + 1, MANY, 2))
        await asyncio.gather(*tasks[:ALONE])
        assert all(task.cancelled() for task in together[::2])
        assert before <= set(reader.pool._watched)

    run(work)


def test_time_that_is_over_for_the_first_is_not_over_for_those_who_came_along(reader: Reader) -> None:
    """They ask again, in the time that they have left; and whoever has less time than the first does not go with it."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        alone = reader.start(range(ALONE))
        hasty, patient = reader.start(range(1), 0.2), reader.start(range(1, 9))
        hastier = reader.start(range(1), 0.1)
        await asyncio.wait([*hasty, *hastier], timeout=PATIENCE)
        assert all(isinstance(task.result(), ShardUnavailableError) for task in (*hasty, *hastier))
        assert not any(task.done() for task in (*alone, *patient))
        reader.server.resume()
        assert await asyncio.gather(*patient) == values(range(1, 9))
        assert await asyncio.gather(*alone) == values(range(ALONE))

    run(work)


def test_each_gets_an_error_of_its_own(reader: Reader) -> None:
    """For who takes one may add to it."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        errors = await asyncio.gather(*reader.start(range(20), 0.2))
        reader.server.resume()
        assert all(isinstance(error, ShardUnavailableError) for error in errors)
        assert len(set(map(id, errors))) == 20

    run(work)


def test_shard_that_is_not_to_be_asked_is_not_asked_together_either(reader: Reader) -> None:
    """Nobody waits for what is not sent."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        alone = reader.start(range(ALONE))
        await until(lambda: reader.pool.is_crowded)
        reader.pool.shard.fail(ShardUnavailableError("a", "somebody else saw it go"), certain=True)
        errors = await asyncio.gather(*reader.start(range(20)))
        assert all("somebody else saw it go" in str(error) for error in errors)
        reader.server.resume()
        await asyncio.gather(*alone)

    run(work)


def test_connection_that_ends_in_the_middle_is_an_error_of_one_reader(proxied: tuple[Reader, Proxy]) -> None:
    """The answers that came before are given, and all but the first of the others ask again, as they would alone."""
    reader, proxy = proxied

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        with reader.server.client() as client:
            client.mset({f"key{number}": f"KEY{number}" * 100 for number in range(50)})
        proxy.cut_after(15_000)  # bytes of each connection: more than making one takes, or an answer
        found = await asyncio.gather(*reader.start(range(50)))
        failed = [place for place, value in enumerate(found) if isinstance(value, ShardUnavailableError)]
        assert ALONE < failed[0] < 49
        assert all(found[place] == b"KEY%d" % place * 100 for place in range(50) if place not in failed)
        assert len(failed) <= 3  # as many connections have ended as it took

    run(work)


@pytest.mark.parametrize("large", [ALONE, 30])
def test_nobody_waits_behind_a_large_value(proxied: tuple[Reader, Proxy], large: int) -> None:
    """Who is answered before it is told so, and who is behind it asks again, while it is still on its way."""
    reader, proxy = proxied

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        value = b"x" * 1_000_000 + b"HERE" * 50 + b"x" * 3_000_000
        with reader.server.client() as client:
            client.set(f"key{large}", value)
        proxy.hold(b"HERE")
        tasks = reader.start(range(50))
        others = [task for place, task in enumerate(tasks) if place != large]
        assert await asyncio.gather(*others) == [b"KEY%d" % place for place in range(50) if place != large]
        assert not tasks[large].done()
        proxy.mend()
        assert await tasks[large] == value

    run(work)


def test_loop_that_is_closed_with_a_pipeline_under_way_says_nothing(
    reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """All of the program's own tasks have ended by then."""
    loop = asyncio.new_event_loop()

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        tasks = reader.start(range(50))
        await reader.until_all_have_asked()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    loop.run_until_complete(work())
    loop.close()
    del loop
    gc.collect()
    reader.server.resume()
    assert not caplog.records


def test_closing_ends_those_who_wait_together(reader: Reader) -> None:
    """Each raises, none is left behind."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        tasks = reader.start(range(50))
        await reader.until_all_have_asked()
        reader.close()
        reader.server.resume()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ClosedError}

    run(work)


@pytest.mark.parametrize("turns", [0, 1])
def test_pipeline_that_somebody_cancels_is_left_by_its_readers(reader: Reader, turns: int) -> None:
    """Programs cancel whatever tasks there are: before they have begun, and while they wait."""

    async def work() -> None:
        await asyncio.gather(*reader.start(range(MANY)))
        reader.server.pause()
        tasks = reader.start(range(50))
        await asyncio.sleep(0)
        assert reader.pool.forming is not None
        for _ in range(turns):
            await asyncio.sleep(0)
        for work in list(reader.pool._pipelines):
            work.cancel()
        await asyncio.sleep(0)
        reader.server.resume()
        assert await asyncio.gather(*tasks) == values(range(50))
        assert reader.pool.forming is None

    run(work)
