"""Processes and servers that are killed while changes wait to be written: nothing acknowledged is lost, nor undone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ShardUnavailableError, Writer
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

pytestmark = pytest.mark.usefixtures("no_leaks")

SEED = 20260
KEYS = 7

#: Writes numbers under a few keys, and notes each that was acknowledged. What is behind its cache is a file.
CODE = """
import os
import threading
import nearcache

def open_cache(url, rows, **options):
    out = os.open(rows, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write_many(values):
        for key, value in values.items():
            os.write(out, f"{key} {value}\\n".encode())

    writer = nearcache.Writer(write_many=write_many)
    return nearcache.open(url, writer=writer, write_delay=0.01, write_batch=5, lease=0.3, **options)

def endlessly(url, rows, acks, number, keys):
    out = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    cache = open_cache(url, rows)
    while True:
        key = f"k{number % keys}"
        cache[key] = number
        os.write(out, f"{key} {number}\\n".encode())
        number += 1

def fork_and_write(url, rows):
    cache = open_cache(url, rows)
    cache["parent"] = 1
    child = os.fork()
    if not child:
        try:
            cache["child"] = 2
            cache.flush(20)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    cache["parent"] = 3
    cache.flush(20)
    cache.close()
    return status

def fork_where_nothing_can_be_sampled(url, rows):
    cache = open_cache(url, rows, sample_rate=1.0)
    start, parent = threading.Thread.start, os.getpid()

    def refuse(thread):
        if os.getpid() != parent and thread.name == "nearcache-sampler":
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = refuse
    child = os.fork()
    if not child:
        cache.get("k")
        os._exit(0 if cache._scribe.thread.is_alive() else 1)
    threading.Thread.start = start
    status = os.waitpid(child, 0)[1]
    cache.close()
    return status

def fork_and_do_nothing(url, rows):
    cache = open_cache(url, rows, sample_rate=1.0)
    child = os.fork()
    if not child:
        names = {thread.name for thread in threading.enumerate()}
        os._exit(0 if names == {"MainThread"} else 1)
    status = os.waitpid(child, 0)[1]
    cache.close()
    return status

def open_without_threads(url, rows):
    start, refused = threading.Thread.start, set()

    def refuse(thread):
        if thread.name in ("nearcache-writer", "nearcache-sampler") and thread.name not in refused:
            refused.add(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = refuse
    cache = open_cache(url, rows, sample_rate=1.0)
    assert len(refused) == 2
    cache["k"] = 1
    cache.flush(20)
    names = {thread.name for thread in threading.enumerate()}
    cache.close()
    return sorted(names & refused)
"""


def lines(path: Path) -> list[tuple[str, int]]:
    """Return what a worker has noted."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return [(key, int(number)) for key, number in (line.split() for line in whole)]


def appending(path: Path) -> Writer:
    """A writer as the workers have it."""

    def write_many(values: Any) -> None:
        with path.open("a") as out:
            out.writelines(f"{key} {value}\n" for key, value in values.items())

    return Writer(write_many=write_many)


@pytest.mark.slow
def test_killed_processes_lose_and_undo_nothing_acknowledged(
    redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """At random points, one after the other; the next ones finish what the last one left."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    rows, acks = tmp_path / "rows", tmp_path / "acks"
    for _ in range(3):
        worker = make_worker(CODE)
        noted = lines(acks)
        enough = len(noted) + chance.randint(10, 150)
        begin = noted[-1][1] + 2 if noted else 0  # one may have been stored and not noted
        worker.ready().send("endlessly", redis_server.url, str(rows), str(acks), begin, KEYS)
        wait_until(lambda enough=enough: len(lines(acks)) >= enough, 20)
        worker.kill()
    with nearcache.open(redis_server.url, writer=appending(rows), write_delay=0.01) as cache:
        cache.flush(20)
        assert cache.dead_letters() == []
    written: dict[str, list[int]] = {}
    for key, number in lines(rows):
        written.setdefault(key, []).append(number)
    for key, number in dict(lines(acks)).items():
        assert written[key][-1] in (number, number + KEYS)  # or the one that was not noted
    for numbers in written.values():
        assert numbers == sorted(numbers)


def test_server_that_is_killed_and_restarted_keeps_the_queue(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """With an append-only file that is synced: what was acknowledged is written, what was refused is not."""
    server = make_redis(options={"appendonly": "yes", "appendfsync": "always"})
    rows = tmp_path / "rows"
    with nearcache.open(server.url, writer=appending(rows), write_delay=60) as cache:
        for number in range(20):
            cache[f"k{number}"] = number
        server.kill()
        with pytest.raises(ShardUnavailableError):
            cache["refused"] = 1
        server.start()
        wait_until(lambda: _stores(cache, "after", 100), 10)
        cache.flush(20)
    assert dict(lines(rows)) == {f"k{number}": number for number in range(20)} | {"after": 100}


def _stores(cache: Cache[Any, Any], key: str, value: Any) -> bool:
    try:
        cache[key] = value
    except ShardUnavailableError:
        return False
    return True


def test_forked_child_writes_what_it_changes(
    redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Parent and child take turns at one queue, each with a thread of its own."""
    rows = tmp_path / "rows"
    assert make_worker(CODE).call("fork_and_write", redis_server.url, str(rows)) == 0
    assert dict(lines(rows)) == {"parent": 3, "child": 2}


def test_forked_child_that_does_not_use_the_cache_has_no_writer(
    redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """It would write with what it has from its parent: a connection to the database, say."""
    assert make_worker(CODE).call("fork_and_do_nothing", redis_server.url, str(tmp_path / "rows")) == 0


def test_cache_for_which_no_threads_can_be_had_has_them_later(
    redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The process is at its limit for a moment: that is no reason not to open, as for the listener."""
    rows = tmp_path / "rows"
    names = make_worker(CODE).call("open_without_threads", redis_server.url, str(rows))
    assert names == ["nearcache-sampler", "nearcache-writer"]
    assert dict(lines(rows)) == {"k": 1}


def test_forked_child_writes_though_another_thread_of_the_cache_could_not_begin(
    redis_server: RedisServer, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """One that fails keeps none of the others from beginning."""
    worker = make_worker(CODE)
    assert worker.call("fork_where_nothing_can_be_sampled", redis_server.url, str(tmp_path / "rows")) == 0
