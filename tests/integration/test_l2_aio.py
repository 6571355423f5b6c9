"""The asynchronous driver: the same exchanges, under the same deadlines, in any loop; and nothing is left of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from nearcache.errors import ClosedError, NotRedisError, ServerReplyError, ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply, load_script
from nearcache.l2.aio import AsyncDriver
from nearcache.l2.breaker import BreakerSettings
from nearcache.l2.connection import Connection
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk, tls_context
from support.lanes import endpoint_of
from support.leaks import holdings
from support.proxy import Proxy
from support.redis import TLS, RedisServer
from support.waiting import wait_until

PING = Exchange(0, [("PING",)])
NO_BREAKER = BreakerSettings(threshold=1000)
pytestmark = pytest.mark.usefixtures("no_leaks")


class Drivers:
    """Makes asynchronous drivers, each with its synchronous one, and closes them."""

    def __init__(self) -> None:
        self._made: list[Driver] = []

    def __call__(self, *endpoints: Endpoint, **options: Any) -> AsyncDriver:
        self._made.append(Driver(endpoints, **options))
        driver = AsyncDriver(self._made[-1])
        self._made[-1].attach(driver)
        return driver

    def close(self) -> None:
        for driver in self._made:
            driver.close()


@pytest.fixture
def drive() -> Iterator[Drivers]:
    """Make drivers that are closed at the end."""
    drivers = Drivers()
    yield drivers
    drivers.close()


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a test's work in a loop of its own."""

    async def main() -> Any:
        return await work()

    return asyncio.run(main())


async def one(driver: AsyncDriver, *commands: tuple[Any, ...], timeout_s: float = 10.0) -> Any:
    """Return the values of one exchange with the only shard, or its error."""
    reply = (await driver.execute([Exchange(0, list(commands))], timeout_s=timeout_s))[0]
    return reply.values if isinstance(reply, Reply) else reply


def connections(driver: AsyncDriver) -> int:
    """Return how many connections the running loop has to the first shard."""
    pools = driver._loops.known()
    return 0 if pools is None else sum(len(pool._watched) for pool in pools._by_shard.values())


def busy(driver: AsyncDriver) -> int:
    """Return how many of the running loop's connections, to any shard, have a request under way."""
    pools = driver._loops.known()
    known = [] if pools is None else pools._by_shard.values()
    return sum(watched._flow is not None for pool in known for watched in pool._watched.values())


def test_execute_returns_values_in_order_and_errors_in_place(drive: Drivers, redis_server: RedisServer) -> None:
    """As the synchronous driver does, over one connection."""
    driver = drive(endpoint_of(redis_server))

    async def work() -> None:
        assert await one(driver, ("SET", "k", b"\0\xff"), (b"GET", "k"), ("PTTL", "none")) == [b"OK", b"\0\xff", -2]
        wrong, right = await one(driver, ("LPUSH", "k", 1), ("GET", "k"))
        assert isinstance(wrong, ServerReplyError)
        assert right == b"\0\xff"
        assert await driver.execute([], timeout_s=1) == []
        with pytest.raises(TypeError):
            await one(driver, ("SET", "k", object()))
        assert await one(driver, ("GET", "k")) == [b"\0\xff"]
        assert connections(driver) == 1

    run(work)


def test_scripts_are_sent_in_full_where_they_are_not_known(drive: Drivers, redis_server: RedisServer) -> None:
    """Once, and again after the server has forgotten them."""
    driver, script = drive(endpoint_of(redis_server)), load_script("clear")

    async def work() -> None:
        command = (script, 1, b"nc:{t:0}:L", b"1", b"%016x" % 1, b"%016x" % 1)
        for _ in range(2):
            first, pong = await one(driver, command, ("PING",))
            assert int(first[0]) == 1
            assert pong == b"PONG"
        redis_server.cli("SCRIPT", "FLUSH")
        assert int((await one(driver, command))[0][0]) == 1

    run(work)


def test_large_exchanges_fill_both_directions(drive: Drivers, redis_server: RedisServer) -> None:
    """More than any buffer holds, both ways at once; the loop goes on meanwhile."""
    driver, value = drive(endpoint_of(redis_server)), bytes(1_000_000)

    async def work() -> None:
        turns = 0
        done = asyncio.Event()

        async def count() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert await one(driver, *[("ECHO", value)] * 20, timeout_s=60) == [value] * 20
        done.set()
        await counting
        assert turns > 20

    run(work)


def test_many_tasks_share_few_connections(drive: Drivers, redis_server: RedisServer) -> None:
    """Those who find none wait, and are served in turn."""
    driver = drive(endpoint_of(redis_server), pool_size=3)

    async def work() -> None:
        words = [f"{number}".encode() for number in range(200)]
        assert await asyncio.gather(*[one(driver, ("ECHO", word)) for word in words]) == [[word] for word in words]
        assert 1 <= connections(driver) <= 3

    run(work)


def test_pool_that_stays_busy_is_an_error_with_the_remedy(drive: Drivers, redis_server: RedisServer) -> None:
    """And says nothing about the server."""
    driver = drive(endpoint_of(redis_server), pool_size=1)

    async def work() -> None:
        long = asyncio.create_task(one(driver, ("BLPOP", "nothing", 0)))
        while not connections(driver):
            await asyncio.sleep(0)
        error = await one(driver, ("PING",), timeout_s=0.05)
        assert "all 1 connections stayed busy; raise pool_size" in str(error)
        assert driver._driver.status(0).breaker == "closed"
        redis_server.cli("LPUSH", "nothing", "x")
        assert await long == [[b"nothing", b"x"]]

    run(work)


def test_shards_are_asked_at_the_same_time(
    drive: Drivers, make_redis: Callable[..., RedisServer], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """One that is stopped and one that is not there hold up nobody; each has its error in its place."""
    paused, fine = two_shards
    gone = make_redis()
    servers = (paused, "paused"), (fine, "fine"), (gone, "gone")
    driver = drive(*[_named(server, name) for server, name in servers])

    async def work() -> None:
        everywhere = [Exchange(shard, [("PING",), ("DBSIZE",)]) for shard in (0, 1, 2, 1)]
        assert all(isinstance(reply, Reply) for reply in await driver.execute(everywhere, timeout_s=10))
        gone.kill()
        paused.pause()
        first, second, third, fourth = await driver.execute(everywhere, timeout_s=0.3)
        paused.resume()
        assert isinstance(first, ShardUnavailableError)
        assert first.shard == "paused"
        assert first.sent
        assert isinstance(third, ShardUnavailableError)
        assert third.shard == "gone"
        assert second.values == fourth.values == [b"PONG", 0]  # type: ignore[union-attr]  # it is a Reply

    run(work)


def _named(server: RedisServer, name: str) -> Endpoint:
    return Endpoint(name=name, path=server.path)


def test_server_that_answers_nothing_is_a_time_out(drive: Drivers, redis_server: RedisServer) -> None:
    """Within the time given, both on a connection there is and on one to be made; then all is well again."""
    driver = drive(endpoint_of(redis_server), breaker=NO_BREAKER, connect_timeout_s=0.2)

    async def work() -> None:
        assert await one(driver, ("PING",)) == [b"PONG"]
        redis_server.pause()
        started = time.monotonic()
        first = await one(driver, ("PING",), timeout_s=0.1)
        second = await one(driver, ("PING",), timeout_s=0.1)
        assert time.monotonic() - started < 5
        redis_server.resume()
        assert isinstance(first, ShardUnavailableError)
        assert "no answer in time" in str(first)
        assert isinstance(second, ShardUnavailableError)
        assert first.sent
        assert not second.sent
        assert await one(driver, ("PING",)) == [b"PONG"]

    run(work)


def test_answer_that_came_while_the_loop_was_busy_counts(drive: Drivers, redis_server: RedisServer) -> None:
    """It was in time; the loop was not."""
    driver = drive(endpoint_of(redis_server))

    async def work() -> None:
        await one(driver, ("PING",))
        asking = asyncio.create_task(one(driver, ("ECHO", "x"), timeout_s=0.05))
        await asyncio.sleep(0)
        time.sleep(0.2)  # something that should have been done in a thread
        assert await asking == [b"x"]

    run(work)


@pytest.mark.parametrize("shards", [1, 2])
def test_cancelled_exchange_leaves_no_half_used_connection(drive: Drivers, two_shards: Any, shards: int) -> None:
    """What would be answered later must not be taken for the answer to something else."""
    driver = drive(*[_named(server, f"s{number}") for number, server in enumerate(two_shards)])

    async def work() -> None:
        exchanges = [Exchange(shard, [("BLPOP", "q", 0)]) for shard in range(shards)]
        task = asyncio.create_task(driver.execute(exchanges, timeout_s=10))
        while busy(driver) < shards:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert busy(driver) == connections(driver) == 0
        echoes = await driver.execute([Exchange(shard, [("ECHO", shard)]) for shard in range(2)], timeout_s=10)
        assert [echo.values for echo in echoes] == [[b"0"], [b"1"]]  # type: ignore[union-attr]  # they are replies

    run(work)


def test_task_that_is_cancelled_while_connecting_leaves_the_connection_to_others(
    drive: Drivers, redis_server: RedisServer
) -> None:
    """It was made, so it is kept."""
    driver = drive(endpoint_of(redis_server))

    async def work() -> None:
        task = asyncio.create_task(one(driver, ("PING",)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not connections(driver):
            await asyncio.sleep(0)
        assert await one(driver, ("PING",)) == [b"PONG"]
        assert connections(driver) == 1

    run(work)


def test_server_that_restarts_is_met_again_without_an_error(drive: Drivers, redis_server: RedisServer) -> None:
    """The loop has seen that its idle connections are gone, or sees it when it tries."""
    driver = drive(endpoint_of(redis_server))

    async def work() -> None:
        await asyncio.gather(*[one(driver, ("PING",)) for _ in range(4)])
        redis_server.restart()
        assert await one(driver, ("PING",)) == [b"PONG"]
        redis_server.restart()
        await asyncio.sleep(0.05)  # the loop looks
        assert connections(driver) == 0
        assert await one(driver, ("SET", "k", 1)) == [b"OK"]

    run(work)


def test_server_that_is_away_opens_the_breaker_of_threads_and_tasks(drive: Drivers, redis_server: RedisServer) -> None:
    """What one has found out, the other need not."""
    driver = drive(endpoint_of(redis_server), breaker=BreakerSettings(first_delay_ns=60_000_000_000))

    async def work() -> None:
        redis_server.kill()
        refused = await asyncio.gather(*[one(driver, ("PING",)) for _ in range(20)])
        assert all(isinstance(error, ShardUnavailableError) and not error.sent for error in refused)
        assert len(set(map(id, refused))) == 20
        assert driver._driver.status(0).breaker == "open"
        assert "not asked again" in str(driver._driver.execute([PING])[0])
        assert "not asked again" in str(await one(driver, ("PING",)))

    run(work)


def test_connection_that_is_cut_in_an_answer_is_an_error_for_a_write_and_none_for_a_read(
    drive: Drivers, redis_server: RedisServer
) -> None:
    """What may have been done is not done again."""
    with Proxy(redis_server.path) as proxy:
        driver = drive(Endpoint("a", host="127.0.0.1", port=proxy.port), breaker=NO_BREAKER)

        async def work() -> None:
            assert await one(driver, ("SET", "k", "v" * 100)) == [b"OK"]
            proxy.cut_after(20)
            error = await one(driver, ("GETSET", "k", "w"))
            assert isinstance(error, ShardUnavailableError)
            assert error.sent
            proxy.mend()
            assert await one(driver, ("GET", "k")) == [b"w"]

        run(work)


def test_every_loop_has_connections_of_its_own(drive: Drivers, redis_server: RedisServer) -> None:
    """One after the other, and several at the same time; none outlives its loop."""
    driver = drive(endpoint_of(redis_server))
    before = holdings().files
    for _ in range(3):
        run(lambda: asyncio.gather(*[one(driver, ("PING",)) for _ in range(3)]))
    wait_until(lambda: holdings().files <= before)  # a surplus connection may just be being made

    results: list[Any] = []
    barrier = threading.Barrier(3, timeout=20)

    async def work() -> None:
        await one(driver, ("PING",))
        barrier.wait()
        results.append(await asyncio.gather(*[one(driver, ("ECHO", f"{number}")) for number in range(50)]))

    threads = [threading.Thread(target=run, args=(work,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[[b"%d" % number] for number in range(50)]] * 3
    wait_until(lambda: holdings().files <= before)


def test_loop_that_is_closed_in_the_middle_leaves_no_socket(drive: Drivers, redis_server: RedisServer) -> None:
    """Neither a used one nor one that is just being made."""
    driver = drive(endpoint_of(redis_server))
    before = holdings().files
    for connected in (True, False):
        loop = asyncio.new_event_loop()
        if connected:
            loop.run_until_complete(one(driver, ("PING",)))
        waiting = loop.create_task(one(driver, ("BLPOP", "nothing", 0), timeout_s=30))
        loop.run_until_complete(asyncio.sleep(0))
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # this one is the test's own
        loop.close()
        del waiting
        wait_until(lambda: holdings().files <= before)


def test_close_ends_what_waits_in_every_loop(drive: Drivers, redis_server: RedisServer) -> None:
    """From another thread: calls under way fail, and later ones are refused."""
    driver = drive(endpoint_of(redis_server), pool_size=1)
    waiting = threading.Event()
    outcomes: list[Any] = []

    async def work() -> None:
        tasks = [asyncio.create_task(one(driver, ("BLPOP", "nothing", 0))) for _ in range(2)]
        while not connections(driver):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.set()
        outcomes.extend(await asyncio.gather(*tasks, return_exceptions=True))
        with pytest.raises(ClosedError):
            await one(driver, ("PING",))

    thread = threading.Thread(target=run, args=(work,))
    thread.start()
    assert waiting.wait(20)
    driver._driver.close()
    thread.join(20)
    assert not thread.is_alive()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ClosedError", "ShardUnavailableError"]


@pytest.mark.parametrize("which", ["in use", "being made"])
def test_connection_of_an_earlier_term_is_not_given_to_who_waits(
    drive: Drivers, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """What is sent from now on goes over a new one, whether the only one is put back or finished meanwhile."""
    driver = drive(endpoint_of(redis_server), pool_size=1)
    shard = driver._driver.shard(0)
    made: list[Connection] = []
    ready, go_on = threading.Event(), threading.Event()
    connect = shard.connect

    def connect_slowly(deadline_ns: int) -> Connection:
        made.append(connect(deadline_ns))
        ready.set()
        assert which == "in use" or go_on.wait(20)
        return made[-1]

    async def work() -> None:
        before = asyncio.create_task(one(driver, ("BLPOP", "gate", 20), timeout_s=30))
        while not (ready.is_set() and (busy(driver) or which == "being made")):
            await asyncio.sleep(0.001)
        shard.demoted()
        if which == "being made":
            before.cancel()
            await asyncio.wait([before])
        later = asyncio.create_task(one(driver, ("CLIENT", "ID")))
        await asyncio.sleep(0)  # so far it goes by itself
        go_on.set()
        redis_server.cli("LPUSH", "gate", 1)
        (number,) = await later
        await asyncio.wait([before])
        first, second = (connection.client for connection in made)
        assert first is not None
        assert first != second == (first[0], number)

    monkeypatch.setattr(shard, "connect", connect_slowly)
    run(work)


@pytest.mark.parametrize("trouble", [RuntimeError("can't start new thread"), MemoryError()], ids=["thread", "memory"])
def test_connection_that_no_thread_can_make_is_an_error_and_others_serve(
    drive: Drivers, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """Who finds no connection hears why, at once; who finds one at work waits for it; and nothing is lost."""
    driver = drive(endpoint_of(redis_server), pool_size=2)
    start = threading.Thread.start

    def start_none(thread: threading.Thread) -> None:
        if thread.name == "nearcache-dial":
            raise trouble
        start(thread)

    async def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_none)
            for _ in range(3):
                error = await one(driver, ("PING",))
                assert isinstance(error, ShardUnavailableError)
                assert str(trouble) in str(error)
        assert await one(driver, ("PING",)) == [b"PONG"]
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_none)
            assert await asyncio.gather(*[one(driver, ("PING",)) for _ in range(4)]) == [[b"PONG"]] * 4

    run(work)


def test_tls_carries_small_and_large_exchanges(drive: Drivers) -> None:
    """Large ones both ways at once."""
    value = bytes(1_000_000)
    with FakeServer(lambda command: bulk(command[1]), tls=tls_context()) as server:
        driver = drive(
            Endpoint("a", host="localhost", port=server.port, tls=True, ssl_ca_certs=str(TLS / "cert.pem")),
            connect_timeout_s=30,
        )

        async def work() -> None:
            assert await one(driver, ("ECHO", "x"), ("ECHO", "y")) == [b"x", b"y"]
            assert await one(driver, *[("ECHO", value)] * 20, timeout_s=60) == [value] * 20
            words = [b"%d" % number for number in range(50)]
            assert await asyncio.gather(*[one(driver, ("ECHO", word)) for word in words]) == [[word] for word in words]

        run(work)


def test_tls_that_is_refused_is_said(drive: Drivers, make_redis: Callable[..., RedisServer]) -> None:
    """An unknown certificate, and a port without TLS."""
    plain = make_redis(transport="tcp")
    with FakeServer(tls=tls_context()) as server:

        async def work(port: int, ca: str | None) -> Any:
            return await one(drive(Endpoint("a", host="localhost", port=port, tls=True, ssl_ca_certs=ca)), ("PING",))

        error = asyncio.run(work(server.port, None))
        assert isinstance(error, ShardUnavailableError)
        assert "check ssl_ca_certs" in str(error)
        assert isinstance(asyncio.run(work(plain.port, str(TLS / "cert.pem"))), (NotRedisError, ShardUnavailableError))
