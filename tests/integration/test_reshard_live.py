"""Changing the list of shards under load, in several processes, with a checker of all that was written and read.

Every key has one process that writes it: it raises the key's number in a file that all share, which stands for a
database, and then invalidates. Whoever reads a number older than one whose invalidation had returned B before was
served stale.
"""

from __future__ import annotations

import mmap
import signal
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support.redis import Binary, RedisServer
from support.waiting import wait_until
from support.worker import Worker, WorkerError

B = 1.0
PROCESSES = 3
KEYS = 90

WORKER = """
import mmap, random, struct, threading, time
import nearcache

def start(path, url, names, number, processes, keys, bound):
    global cache, source, mine, every, under_way, writes, reads, errors, stopping
    with open(path, "r+b") as file:
        source = mmap.mmap(file.fileno(), 0)
    cache = nearcache.open(url, shard_names=names, max_staleness=bound, timeout=5.0, connect_timeout=10.0,
                           ttl=600)
    every, mine, under_way = range(keys), range(number, keys, processes), keys + number
    writes, reads, errors, stopping = [], [], [], threading.Event()

def load(key):
    return struct.unpack_from("q", source, 8 * key)[0]

def write():
    chance = random.Random(1)
    while not stopping.wait(0.002):
        key = chance.choice(mine)
        value = load(key) + 1
        struct.pack_into("q", source, 8 * under_way, key + 1)
        struct.pack_into("q", source, 8 * key, value)
        try:
            cache.invalidate(key)
        except nearcache.ShardError as error:
            errors.append(repr(error))
            continue
        finally:
            struct.pack_into("q", source, 8 * under_way, 0)
        writes.append((key, value, time.monotonic()))

def read():
    chance = random.Random(2)
    while not stopping.wait(0.0005):
        key = chance.choice(every)
        at = time.monotonic()
        reads.append((key, cache.get_or_load(key, load), at))

def begin():
    global threads
    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()

def made():
    return len(reads), len(writes)

def end():
    stopping.set()
    for thread in threads:
        thread.join()
    return writes, reads, errors

def version():
    return cache._membership.ring.version

def reshard(url, names, pause):
    return cache.reshard(url, shard_names=names, pause=pause).version

def invalidate(key):
    cache.invalidate(key)

def state():
    return {"version": version(), "owed": cache.stats().coherence.owed, "ok": cache.health().ok,
            "values": [cache.get_or_load(key, load) for key in every], "hits": cache.stats().l1.hits,
            "mismatches": cache.stats().coherence.mismatches}
"""


class Fleet(NamedTuple):
    """The processes, the servers by the names of their shards, and the numbers that all share."""

    workers: list[Worker]
    servers: dict[str, RedisServer]
    source: mmap.mmap

    def reshard(self, number: int, names: str, pause: float = B / 2) -> int:
        """Let one process change the list."""
        version: int = self.workers[number].call("reshard", self.url(names), list(names), pause)
        return version

    def url(self, names: str) -> str:
        """Return the URL of these shards."""
        return "unix://" + ",".join(self.servers[name].path for name in names)

    def start(self, worker: Worker, number: int, path: Path, names: str) -> None:
        """Open a process's cache."""
        worker.call("start", str(path), self.url(names), list(names), number, PROCESSES, KEYS, B)

    def follow(self, version: int) -> None:
        """Wait until all have come to a version."""
        for worker in self.workers:
            wait_until(lambda worker=worker: worker.call("version") == version, timeout=30, what="it follows")

    def make_up_for(self, number: int) -> None:
        """Invalidate what a process that was killed had changed and could not invalidate any more, as nobody knows."""
        (key,) = struct.unpack_from("q", self.source, 8 * (KEYS + number))
        if key:
            self.workers[0].call("invalidate", key - 1)

    def judge(self, *, most_errors: int = 0) -> None:
        """End the load when there is enough to look at, and look at all that was written and read."""

        def is_enough() -> bool:
            made = [worker.call("made") for worker in self.workers]
            return sum(read for read, _ in made) > 500 and sum(written for _, written in made) > 50

        wait_until(is_enough, timeout=60, what="enough has been read and written")
        with ThreadPoolExecutor() as pool:
            histories = list(pool.map(lambda worker: worker.call("end"), self.workers))
        written: dict[int, list[tuple[float, int]]] = {key: [] for key in range(KEYS)}
        for writes, _, errors in histories:
            assert len(errors) <= most_errors, errors[:3]
            for key, value, at in writes:
                written[key].append((at, value))
        stale, count = [], 0
        for _, reads, _ in histories:
            for key, value, at in reads:
                count += 1
                floor = max((number for end, number in written[key] if end <= at - B), default=0)
                if value < floor:
                    stale.append((key, value, floor, at))
        assert stale == []
        assert count > 500
        assert sum(map(len, written.values())) > 50
        self.settle()

    def settle(self) -> None:
        """In the end everybody reads what is true, and owes nothing."""

        def is_true(worker: Worker) -> bool:
            state = worker.call("state")
            return (
                state["values"] == list(struct.unpack(f"{KEYS}q", self.source[: 8 * KEYS]))
                and not state["owed"]
                and state["ok"]
            )

        for worker in self.workers:
            wait_until(lambda worker=worker: is_true(worker), timeout=60, what="all is true and vouched for")


@pytest.fixture
def fleet(newest_binary: Binary, make_worker: Callable[..., Worker], tmp_path: Path) -> Iterator[Fleet]:
    """Three processes at work on two shards, and a third server."""
    path = tmp_path / "source"
    path.write_bytes(bytes(8 * (KEYS + PROCESSES)))  # the numbers, and which of them a process is changing just now
    with (
        RedisServer(newest_binary) as a,
        RedisServer(newest_binary) as b,
        RedisServer(newest_binary) as c,
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as source,
    ):
        workers = [make_worker(WORKER, timeout=60) for _ in range(PROCESSES)]
        made = Fleet(workers, {"a": a, "b": b, "c": c}, source)
        for number, worker in enumerate(workers):
            made.start(worker, number, path, "ab")
        for worker in workers:
            worker.call("begin")
        yield made


@pytest.mark.slow
def test_reshard_grow_and_shrink_under_load_nothing_is_stale(fleet: Fleet) -> None:
    """Two to three and back to two: led by one process the first time, by all of them at once the second."""
    assert fleet.reshard(0, "abc") == 4
    fleet.follow(4)
    with ThreadPoolExecutor() as pool:
        assert set(pool.map(lambda number: fleet.reshard(number, "ab"), range(PROCESSES))) == {7}
    fleet.judge()


@pytest.mark.slow
def test_reshard_whose_leader_is_killed_is_finished_by_another(fleet: Fleet) -> None:
    """The others have followed to where it came, and work there until somebody calls again."""
    leader, *others = fleet.workers
    with ThreadPoolExecutor() as pool:
        leading = pool.submit(fleet.reshard, 0, "abc", 60.0)
        rest = Fleet(others, fleet.servers, fleet.source)
        rest.follow(2)
        leader.kill()
        with pytest.raises(WorkerError):
            leading.result()
    with pytest.raises(WorkerError, match="is under way; finish it"):
        rest.reshard(0, "a")
    assert rest.reshard(1, "abc") == 4
    rest.follow(4)
    rest.make_up_for(0)
    rest.judge()


@pytest.mark.slow
def test_reshard_while_a_process_is_paused_it_catches_up(fleet: Fleet) -> None:
    """It wakes up two steps behind: it is refused, and catches up; until its next heartbeat is due it may be B old."""
    sleeper = fleet.workers[2]
    sleeper.signal(signal.SIGSTOP)
    assert fleet.reshard(0, "abc", 0.1) == 4
    assert fleet.reshard(1, "c", 0.1) == 7
    sleeper.signal(signal.SIGCONT)
    fleet.follow(7)
    fleet.judge(most_errors=200)


@pytest.mark.slow
def test_reshard_with_a_shard_that_dies_in_the_middle_is_finished_later(fleet: Fleet) -> None:
    """The call names the shard; the same call finishes when it is back."""
    fleet.servers["c"].pause()
    with pytest.raises(WorkerError, match=r"ReshardError.*every shard has to be told before, and c did not answer"):
        fleet.reshard(0, "abc")
    fleet.servers["c"].resume()

    def finished() -> bool:
        with suppress(WorkerError):  # the breaker has not let anybody ask again yet
            return fleet.reshard(1, "abc") == 4
        return False

    wait_until(finished, timeout=20, what="it is finished")
    fleet.follow(4)
    fleet.judge()
