"""Faults of this process: no descriptors, clocks that jump, forks and the end of the interpreter in bad moments."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

import nearcache
from support.ordeal import Ordeal
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

STARVED = """
import os, resource
import nearcache
from support.ordeal import Ordeal

def start(url):
    global cache, ordeal
    cache = nearcache.open(url, max_staleness=0.4, timeout=0.5, connect_timeout=0.5)
    ordeal = Ordeal(cache, 0.5)  # all modules are loaded by now; what is left to open are sockets

usual = resource.getrlimit(resource.RLIMIT_NOFILE)
plugs = []

def starve():
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, usual[1]))

def attempt(room):
    cache._driver._shards[0].pool.flush()
    try:
        while True:
            plugs.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for _ in range(room):
            os.close(plugs.pop())
    return [str(error) for error in ordeal.attempt()]

def feed():
    for plug in plugs:
        os.close(plug)
    resource.setrlimit(resource.RLIMIT_NOFILE, usual)

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def recover():
    ordeal.recover()
"""


@pytest.mark.parametrize("room", [0, 1])
def test_process_out_of_descriptors_gets_errors_and_recovers(
    redis_server: RedisServer, make_worker: Callable[..., Worker], room: int
) -> None:
    """No connection can be made, or one; the loader still answers, nothing leaks, and later all is well."""
    worker = make_worker(STARVED)
    worker.call("start", redis_server.url)
    before = worker.call("descriptors")
    worker.call("starve")
    redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    for _ in range(5):
        errors = worker.call("attempt", room)
        assert all("Too many open files" in error for error in errors)
        assert errors or room
    worker.call("feed")
    worker.call("recover")
    wait_until(lambda: worker.call("descriptors") <= before + 1, what="descriptors let go")


def test_wall_clock_that_jumps_decides_nothing(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year forwards, two years back: no entry expires or lives longer, and the lane stays live."""
    real = time.time
    offset = [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + offset[0]) * 1e9))
    year = datetime.timedelta(days=365).total_seconds()
    with (
        nearcache.open(redis_server.url, ttl=60, max_staleness=0.4) as cache,
        Ordeal(cache, server=redis_server) as ordeal,
    ):
        cache["k"] = "v"
        cache.set("short", "v", ttl=0.2)
        for jump in (year, -year, 0.0):
            offset[0] = jump
            beats = cache.stats().coherence.heartbeats
            wait_until(lambda beats=beats: cache.stats().coherence.heartbeats > beats)
            assert cache.peek("k") == "v"
            assert ordeal.attempt() == []
        assert cache.stats().coherence.resyncs == 1
        assert cache.stats().coherence.gaps == 0
        wait_until(lambda: "short" not in cache)


FORKING = """
import os, signal, threading
import nearcache
from support.ordeal import Ordeal

def start(url):
    global cache, ordeal
    cache = nearcache.open(url, timeout=5.0)
    ordeal = Ordeal(cache, 5.0)
    cache["k"] = "v"
    cache["second"] = "w"

def fork_in_a_read():
    # A handler that forks is the one way to be a child in the middle of a read; the server is paused meanwhile.
    children = []
    def fork(*_):
        children.append(os.fork())
    signal.signal(signal.SIGALRM, fork)
    cache.drop("k")
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    value = cache.get("k")
    if children[0] == 0:
        # The read under way was the parent's: here it failed, or was repeated. Reads that follow are our own.
        status = 1
        try:
            right = value in (None, "v") and cache.get("k") == "v" and cache.get("second") == "w"
            Ordeal(cache, 5.0, name="child's ").recover()
            status = 0 if right else 2
        finally:
            os._exit(status)
    ordeal.recover()
    return [os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), value, cache.get("second")]
"""


def test_fork_in_the_middle_of_a_read_gives_both_their_own_answers(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """The parent's answer is on the way when the child begins to exist."""
    worker = make_worker(FORKING)
    worker.call("start", redis_server.url)
    redis_server.cli("CLIENT", "PAUSE", "400", "ALL")
    assert worker.call("fork_in_a_read") == [0, "v", "w"]


def test_close_that_was_interrupted_is_finished_by_the_next(
    no_leaks: None, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Ctrl-C in the middle nothing is left open for good."""
    cache = nearcache.open(redis_server.url)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(cache._listener, "stop", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.close()
    thread = cache._listener.thread
    assert thread.is_alive()
    cache.close()
    assert not thread.is_alive()
    assert not cache._end.alive


HOOKED = """
import os, signal, threading
import nearcache
from support.threads import PATIENCE

cache = url = None
begun = {}

def program_hook():
    # The program's own, which the interpreter runs before any that is registered when a cache is opened.
    if cache is not None:
        signal.alarm(int(PATIENCE))
        begun["value"] = cache.get_or_load("other", lambda key: "child's")
        begun["running"] = cache.stats().loader.running
        begun["new"] = nearcache.open(url, namespace="new")
        begun["new"]["k"] = "new"
        begun["loads"] = [cache._flights(), begun["new"]._flights()]

os.register_at_fork(after_in_child=program_hook)

def start(where):
    global cache, url
    cache, url = nearcache.open(where, timeout=5.0), where
    cache["v"] = "v"

def fork_in_a_load():
    inside, go_on = threading.Event(), threading.Event()
    def slow(key):
        inside.set()
        assert go_on.wait(PATIENCE)
        return "parent's"
    thread = threading.Thread(target=cache.get_or_load, args=("k", slow))
    thread.start()
    assert inside.wait(PATIENCE)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            # What had begun in the program's hook is not begun anew by that of the caches.
            same = begun["loads"] == [cache._flights(), begun["new"]._flights()]
            alone = begun["value"] == "child's" and not begun["running"]
            right = begun["new"]["k"] == "new" and cache["v"] == "v"
            status = 0 if same and alone and right else 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    go_on.set()
    thread.join()
    return [status, cache["v"]]
"""


@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "redis"])
def test_hook_of_the_program_that_runs_first_in_the_child_can_use_the_cache(
    redis_server: RedisServer, make_worker: Callable[..., Worker], is_shared: bool
) -> None:
    """It neither waits for the parent's loads nor speaks on the parent's connections."""
    worker = make_worker(HOOKED)
    worker.call("start", redis_server.url if is_shared else "memory://")
    assert worker.call("fork_in_a_load") == [0, "v"]


ENDING = """
import sys, threading, nearcache
cache = nearcache.open(sys.argv[1], timeout=20.0)
begun = threading.Event()
def work(number):
    n = 0
    while True:
        n += 1
        begun.set()
        cache[f"k{number}"] = n
for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
begun.wait()
print("working", flush=True)
sys.stdin.readline()
"""


ENDING_TASKS = """
import asyncio, sys, nearcache
cache = nearcache.open(sys.argv[1], timeout=20.0)
async def work(number, begun):
    n = 0
    while True:
        n += 1
        begun.set()
        await cache.aio.set(f"k{number}", n)
async def main():
    begun = asyncio.Event()
    working = [asyncio.ensure_future(work(number, begun)) for number in range(3)]
    await begun.wait()
    print("working", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


#: What is said of writes that were cancelled, and of which nobody knows whether they were done.
LOST = "closed, and its shards do not know of 3 of its changes; others may serve what was before"


@pytest.mark.parametrize(
    ("code", "paused", "said"),
    [(ENDING, False, ""), (ENDING, True, ""), (ENDING_TASKS, True, f"namespace default: {LOST}\n")],
    ids=["threads", "threads-paused", "tasks-paused"],
)
def test_interpreter_that_ends_in_the_middle_of_writes_is_quick_and_says_only_what_is_lost(
    redis_server: RedisServer, code: str, paused: bool, said: str
) -> None:
    """Also while nobody answers the writes, of threads and of tasks. What was written is whole."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, redis_server.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        if paused:
            redis_server.pause()
        out, errors = process.communicate("end\n", timeout=15)  # less than the writes' own time-out
        assert (process.returncode, out, errors) == (0, "", said)
    finally:
        process.kill()
        if paused:
            redis_server.resume()
    with nearcache.open(redis_server.url) as cache, Ordeal(cache, server=redis_server) as ordeal:
        for number in range(3):
            assert cache.get(f"k{number}") is None or cache.get(f"k{number}") > 0
        ordeal.recover()  # none of its connections is left


def test_threads_that_end_in_the_middle_of_calls_leave_the_pool_whole(
    no_leaks: None, redis_server: RedisServer
) -> None:
    """``close`` while many threads write: each gets an error or an answer, and ends."""
    cache = nearcache.open(redis_server.url)
    cache["k"] = 0
    ended: list[type[BaseException]] = []

    def work() -> None:
        n = 0
        try:
            while True:
                n += 1
                cache["k"] = n
        except nearcache.CacheError as error:
            ended.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: cache.stats().l2.writes > 200)
    cache.close()
    for thread in threads:
        thread.join(20)
    assert len(ended) == 6
    assert set(ended) <= {nearcache.ClosedError, nearcache.ShardUnavailableError}
