"""One loader in the whole fleet: leases between real processes, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import nearcache
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker, WorkerError

#: Processes that load. They tell what they do by lists in Redis, and their loaders wait there for leave to go on.
LOADER = """
import asyncio, os, threading, time
import nearcache, redis
def start(url, **options):
    global cache, client
    cache = nearcache.open(url, timeout=10.0, **options)
    client = redis.Redis(unix_socket_path=url.removeprefix("unix://"), socket_timeout=30)  # BLPOP waits for 20
    call = cache._tier.call
    def counted(script, keys, *arguments):
        if script.name == "lease":
            client.rpush("asked", os.getpid())
        return call(script, keys, *arguments)
    cache._tier.call = counted
def loader(key):
    client.rpush("loading", os.getpid())
    word = client.blpop("go", 20)[1].decode()
    if word == "fail":
        raise ValueError("the loader says no")
    return word
def load(key="k"):
    return cache.get_or_load(key, loader)
def storm(threads, tasks):
    results = []
    def work():
        try:
            results.append(load())
        except ValueError as error:
            results.append(str(error))
    async def wait(key):
        return await asyncio.to_thread(loader, key)
    async def many():
        got = await asyncio.gather(*(cache.aio.get_or_load("k", wait) for _ in range(tasks)), return_exceptions=True)
        results.extend(map(str, got))
    crowd = [threading.Thread(target=work) for _ in range(threads)]
    if tasks:
        crowd.append(threading.Thread(target=lambda: asyncio.run(many())))
    for each in crowd: each.start()
    while cache._tier.loads.waiting < threads - 1 and any(each.is_alive() for each in crowd): time.sleep(0.001)
    client.rpush("crowded", os.getpid())  # all but one wait for that one, or have done so
    for each in crowd: each.join()
    return results
def counted():
    stats = cache.stats()
    return [stats.loader.loads, stats.l2.fills_refused]
"""


def length(server: RedisServer, name: str) -> int:
    """Number of entries of a list."""
    return int(server.cli("LLEN", name))


def loading(server: RedisServer, workers: list[Worker]) -> Worker:
    """Wait until somebody loads; return who."""
    wait_until(lambda: length(server, "loading"), 20.0)
    pid = int(server.cli("LINDEX", "loading", -1))
    return next(worker for worker in workers if worker.pid == pid)


def started(server: RedisServer, make_worker: Callable[..., Worker], count: int, **options: object) -> list[Worker]:
    """Start so many processes with a cache each."""
    workers = [make_worker(LOADER, timeout=60.0) for _ in range(count)]
    for worker in workers:
        worker.send("start", server.url, **options)
    for worker in workers:
        worker.receive()
    return workers


@pytest.mark.every_server
def test_cold_key_is_loaded_once_by_all_processes_threads_and_tasks(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """Eight processes of sixteen threads, one with sixteen tasks: one call, one value, and nobody asks twice."""
    workers = started(redis_server, make_worker, 8, lease=30.0)
    for number, worker in enumerate(workers):
        worker.send("storm", 16, 0 if number else 16)
    # The holder has asked once, and so has each other process: they wait for the message.
    wait_until(lambda: length(redis_server, "asked") == 8, 90.0)
    loading(redis_server, workers)
    time.sleep(0.5)  # long enough for anybody who would look again every so often
    assert length(redis_server, "asked") == 8
    redis_server.cli("RPUSH", "go", "value")
    answers = [worker.receive() for worker in workers]
    assert [len(answer) for answer in answers] == [32] + [16] * 7
    assert {value for answer in answers for value in answer} == {"value"}
    assert length(redis_server, "loading") == 1
    assert length(redis_server, "asked") == 8
    assert sum(worker.call("counted")[0] for worker in workers) == 1


@pytest.mark.every_server
def test_killed_holder_is_replaced_when_its_lease_runs_out(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """kill -9 of the process that loads costs the others the rest of its lease."""
    workers = started(redis_server, make_worker, 2, lease=0.5)
    for worker in workers:
        worker.send("load")
    holder = loading(redis_server, workers)
    (other,) = (worker for worker in workers if worker is not holder)
    wait_until(lambda: length(redis_server, "asked") == 2)
    holder.kill()
    # A blocked BLPOP of the dead process could take what is meant for the other.
    wait_until(lambda: length(redis_server, "loading") == 2)
    redis_server.cli("RPUSH", "go", "value")
    assert other.receive() == "value"
    assert other.call("counted") == [1, 0]


def test_loader_that_raises_tells_its_own_process_and_another_tries(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """The error belongs to who waits beside it; the next process has a loader of its own."""
    workers = started(redis_server, make_worker, 2, lease=30.0)
    for worker in workers:
        worker.send("storm", 8, 0)
    holder = loading(redis_server, workers)
    (other,) = (worker for worker in workers if worker is not holder)
    wait_until(lambda: length(redis_server, "asked") == 2)
    wait_until(lambda: length(redis_server, "crowded") == 2)  # who comes later has a load of their own
    wait_until(lambda: str(redis_server.cli("GET", "nc:{default:0}:l:sk"))[2:3] == "W")
    redis_server.cli("RPUSH", "go", "fail")
    assert holder.receive() == ["the loader says no"] * 8
    wait_until(lambda: length(redis_server, "loading") == 2)
    redis_server.cli("RPUSH", "go", "value")
    assert other.receive() == ["value"] * 8
    assert (holder.call("counted")[0], other.call("counted")[0]) == (1, 1)


def test_loader_slower_than_its_lease_keeps_it(redis_server: RedisServer, make_worker: Callable[..., Worker]) -> None:
    """The lease of a running loader is renewed, so that nobody else begins and its value is stored."""
    workers = started(redis_server, make_worker, 2, lease=2.0)
    for worker in workers:
        worker.send("load")
    holder = loading(redis_server, workers)
    wait_until(lambda: length(redis_server, "asked") == 3)  # again, when the lease would have ended
    assert length(redis_server, "loading") == 1
    redis_server.cli("RPUSH", "go", "value")
    assert [worker.receive() for worker in workers] == ["value"] * 2
    assert holder.call("counted") == [1, 0]
    assert redis_server.cli("EXISTS", "nc:{default:0}:v:sk") == 1


def test_value_loaded_before_a_change_elsewhere_is_returned_and_not_stored(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """An invalidation by another process voids the lease, and the fill comes too late."""
    (worker,) = started(redis_server, make_worker, 1)
    worker.send("load")
    loading(redis_server, [worker])
    with nearcache.open(redis_server.url) as cache:
        cache.invalidate("k")
        redis_server.cli("RPUSH", "go", "late")
        assert worker.receive() == "late"
        assert worker.call("counted") == [1, 1]
        assert cache.get("k") is None
    redis_server.cli("RPUSH", "go", "new")
    assert worker.call("load") == "new"  # nor did it stay in that process's memory
    assert worker.call("counted") == [2, 1]


def test_error_of_a_loader_passes_unchanged(redis_server: RedisServer, make_worker: Callable[..., Worker]) -> None:
    """With nobody waiting the lease is given back, so that the next call loads at once."""
    (worker,) = started(redis_server, make_worker, 1, lease=30.0)
    redis_server.cli("RPUSH", "go", "fail", "value")
    with pytest.raises(WorkerError) as caught:
        worker.call("load")
    assert (caught.value.kind, caught.value.message) == ("ValueError", "the loader says no")
    assert redis_server.cli("EXISTS", "nc:{default:0}:l:sk") == 0
    assert worker.call("load") == "value"
