"""A cache that uWSGI's master opens, which forks without Python's hooks and without the interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.redis import RedisServer

#: As uWSGI's own module: who asks is the master, until a fork makes it a worker.
UWSGI = """
import ctypes, logging, os, signal, sys, threading, time, types
uwsgi, worker = types.ModuleType("uwsgi"), 0
uwsgi.worker_id, uwsgi.mule_id, uwsgi.i_am_the_spooler = lambda: worker, lambda: 0, lambda: None
uwsgi.has_threads = 1
sys.modules["uwsgi"] = uwsgi
import nearcache

def save(key, value):
    with open(sys.argv[2], "a") as rows:
        print(key, value, file=rows)

def fork(work):
    global worker
    child = ctypes.PyDLL(None).fork()
    if child:
        return os.waitpid(child, 0)[1]
    worker = 1
    signal.alarm(30)
    try:
        work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
"""


def run(code: str, *arguments: str) -> tuple[int, str]:
    """Return the exit status of a program in uWSGI's master, and what it printed as errors."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", UWSGI + code, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("shards", [1, 2])
def test_master_has_no_threads_and_its_workers_have_all(
    shards: int, two_shards: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """The master may use the cache too, over Redis alone; the worker begins what is to run at its first call."""
    code = """
logging.getLogger("nearcache").setLevel(logging.ERROR)  # the server has no append-only file
cache = nearcache.open(sys.argv[1], writer=save, write_delay=0.0, sample_rate=0.5)
cache["master"] = 1
assert cache["master"] == 1 and cache.peek("master") is None
assert threading.active_count() == 1, threading.enumerate()

def work():
    assert cache["master"] == 1
    assert cache.selftest().ok
    cache["worker"] = 2
    cache.flush()
    assert cache.peek("worker") == 2
    names = {thread.name for thread in threading.enumerate()}
    assert len(names) == 4, names

for _ in range(2):
    assert fork(work) == 0
cache.close()
"""
    rows = tmp_path / "rows"
    servers = two_shards[:shards]
    assert run(code, "unix://" + ",".join(server.path for server in servers), str(rows)) == (0, "")
    assert sorted(set(rows.read_text().splitlines())) == ["master 1", "worker 2"]


@pytest.mark.parametrize("scheme", ["memory", "redis"])
def test_master_that_listens_or_limits_loads_has_no_threads_either(redis_server: RedisServer, scheme: str) -> None:
    """Each worker is told of its own events, and waits for loads no longer than it is to."""
    code = """
cache = nearcache.open(sys.argv[1], loader_timeout=0.05)
told, never = [], threading.Event()
listening = cache.listen(lambda event: told.append(event.key), events=["created"])
assert cache.get_or_load("master", lambda key: 1) == cache.get_or_load_many(["master"], lambda keys: {})["master"] == 1
assert threading.active_count() == 1, threading.enumerate()

def work():
    assert cache.selftest().ok
    cache["worker"] = 2
    assert listening.flush(20) and told[-1] == "worker", told
    try:
        cache.get_or_load("slow", lambda key: never.wait(20))
    except nearcache.LoadTimeoutError:
        return
    raise AssertionError("it was waited for")

for _ in range(2):
    assert fork(work) == 0
assert told == []
cache.close()
"""
    assert run(code, redis_server.url if scheme == "redis" else "memory://") == (0, "")


def test_master_without_a_master_becomes_a_worker_itself(redis_server: RedisServer) -> None:
    """No fork tells of it: with ``--master`` left out the process that loaded the program answers requests."""
    code = """
cache = nearcache.open(sys.argv[1])
assert threading.active_count() == 1
worker = 1
assert cache.selftest().ok
cache.close()
"""
    assert run(code, redis_server.url) == (0, "")


def test_coherence_that_the_master_cannot_test_is_said_in_the_log(redis_server: RedisServer) -> None:
    """Nothing listens there, so that a test would find every shard deaf."""
    code = """
cache = nearcache.open(sys.argv[1], namespace="shop", require_coherence=True)
assert not cache.selftest(0.1).ok
"""
    status, errors = run(code, redis_server.url)
    assert (status, errors.count("\n")) == (0, 1)
    assert errors.startswith("namespace shop: ")
    assert "require_coherence" in errors
