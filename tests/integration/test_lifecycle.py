"""From open to the end of the process: nothing is left behind, nothing is printed, nothing hangs."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker


def run_script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with all warnings shown."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_dropped_cache_ends_its_thread_and_connections(no_leaks: None, redis_server: RedisServer) -> None:
    """Whoever forgets close() leaks nothing: the listener holds the cache weakly."""
    cache = nearcache.open(redis_server.url, loader=str.upper)
    cache["a"]
    alive = weakref.ref(cache)
    del cache
    gc.collect()
    assert alive() is None
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("nearcache")])


def test_cache_that_holds_itself_is_collected(no_leaks: None, redis_server: RedisServer) -> None:
    """A cycle through a value, a loader and the cache."""
    cache = nearcache.open("memory://")
    cache["self"] = cache
    cache.get_or_load("loader", lambda key, held=cache: held)
    alive = weakref.ref(cache)
    del cache
    gc.collect()
    assert alive() is None


def test_interpreter_exit_without_close_is_silent(redis_server: RedisServer) -> None:
    """No warning, no traceback, no hang, also with work under way."""
    code = """
import sys, threading, nearcache
cache = nearcache.open(sys.argv[1])
cache["k"] = 1
def work():
    while True:
        cache.drop("k"); cache.get("k")
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
assert cache["k"] == 1
"""
    done = run_script(code, redis_server.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


ENDS = {"close": "cache.close(); cache.close()", "collected": "del cache; gc.collect()", "exit": ""}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_cache_that_ends_with_changes_owed_says_so_once(redis_server: RedisServer, end: str) -> None:
    """They end with it, and their shard will not hear of them: other processes may serve what was before."""
    code = """
import gc, sys, nearcache
cache = nearcache.open(sys.argv[1], namespace="shop", timeout=0.5)
for key in "ab":
    try:
        cache.invalidate(key)
    except nearcache.ShardUnavailableError:
        pass
"""
    redis_server.kill()
    done = run_script(code + end, redis_server.url)
    (said,) = [line for line in done.stderr.splitlines() if "closed, and its shards" in line]
    assert said.startswith("namespace shop: closed, and its shards do not know of 2 of its changes")
    assert done.returncode == 0


@pytest.mark.parametrize("anew", [0, 1])
def test_forked_child_that_exits_says_what_it_owes_itself(redis_server: RedisServer, anew: int) -> None:
    """What was owed before is the parent's to pay, which goes on."""
    code = """
import os, sys, nearcache
cache = nearcache.open(sys.argv[1], namespace="shop", timeout=0.5)
def owe(key):
    try:
        cache.invalidate(key)
    except nearcache.ShardUnavailableError:
        pass
owe("a")
child = os.fork()
if child == 0:
    for number in range(int(sys.argv[2])):
        owe(f"b{number}")
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("the child has ended", file=sys.stderr, flush=True)
"""
    redis_server.kill()
    done = run_script(code, redis_server.url, str(anew))
    childs, parents = done.stderr.split("the child has ended")
    assert childs.count("closed, and its shards do not know of") == anew
    assert "namespace shop: closed, and its shards do not know of 1 of its changes" in parents
    assert done.returncode == 0


def test_import_does_nothing_but_import() -> None:
    """No thread, no connection, and neither redis nor numpy."""
    code = """
import sys, threading, nearcache
heavy = {"redis", "hiredis", "numpy"} & set(sys.modules)
assert not heavy, heavy
assert threading.active_count() == 1
cache = nearcache.open("memory://")
cache["k"] = 1
heavy = {"redis", "hiredis", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_script(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_cache_on_redis_is_refused_where_threads_are_greenlets(redis_server: RedisServer) -> None:
    """Its listener would wait in C, in the only thread there is, and nothing else would ever run again."""
    code = """
import os, sys, threading, nearcache
before = nearcache.open(sys.argv[1])
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    before.close()
    sys.exit()

real = threading.get_ident
def get_ident():
    return real()
get_ident.__module__ = "gevent.thread"  # as its monkey.patch_all() does
threading.get_ident = get_ident

def refusal(call, *arguments):
    try:
        call(*arguments)
    except nearcache.CacheError as error:
        return str(error)

for refused in (refusal(nearcache.open, sys.argv[1]), refusal(nearcache.open, "embedded://greenlets"),
                refusal(before.get, "k")):
    assert refused and "gevent" in refused, refused
assert threading.active_count() == 1
with nearcache.open("memory://") as cache:
    cache["k"] = 1
os._exit(0)
"""
    done = run_script(code, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")


def test_cache_opened_before_threads_became_greenlets_is_refused_at_its_next_miss_or_write(
    redis_server: RedisServer,
) -> None:
    """Its threads are real, but whatever waits for them, or for Redis, would keep all greenlets waiting."""
    code = """
import os, sys, threading, nearcache
cache = nearcache.open(sys.argv[1])
cache["k"] = 1

real = threading.get_ident
def get_ident():
    return real()
get_ident.__module__ = "gevent.thread"  # as its monkey.patch_all() does
threading.get_ident = get_ident

for call in (lambda: cache["missing"], lambda: cache.set("k", 2), cache.clear, lambda: cache.aio):
    try:
        call()
    except nearcache.CacheError as error:
        assert "gevent" in str(error), error
    else:
        raise AssertionError
threading.get_ident = real
assert cache["k"] == 1
cache.close()
"""
    done = run_script(code, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")


def test_embedded_default_is_shared_and_stopped_by_the_last(
    runtime_dir: object, make_worker: Callable[..., Worker]
) -> None:
    """open() without arguments: two processes, one cache; the directory and the servers go with the last."""
    code = "import nearcache\ncache = nearcache.open('embedded://life?shards=2')\n"
    a, b = make_worker(code), make_worker(code)
    a.run("cache['k'] = 'from a'")
    assert b.eval("cache['k']") == "from a"
    a.run("cache['k'] = 'again'")
    wait_until(lambda: b.eval("cache.get('k')") == "again")
    assert a.finish() == 0
    assert b.eval("[cache['k'], cache.selftest().ok]") == ["again", True]
    assert b.finish() == 0


def test_embedded_server_that_is_killed_comes_back(runtime_dir: object, make_worker: Callable[..., Worker]) -> None:
    """The supervisor restarts it; the cache reconnects by itself and serves no old value."""
    worker = make_worker(
        """
import os, signal, time, nearcache
cache = nearcache.open('embedded://life', timeout=0.3, max_staleness=0.4)
def server_pid():
    import redis
    with redis.Redis(unix_socket_path=cache.health().shards[0].address) as client:
        return client.info('server')['process_id']
def kill_server():
    os.kill(server_pid(), signal.SIGKILL)
def recovered():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            cache['probe'] = 1
            if cache.selftest().ok and cache.health().ok:
                return True
        except nearcache.CacheError:
            pass
        time.sleep(0.01)
    return False
"""
    )
    worker.run("cache['k'] = 1")
    worker.call("kill_server")
    assert worker.call("recovered")
    assert worker.eval("cache.get('k')") is None
    worker.run("cache['k'] = 2")
    assert worker.eval("cache['k']") == 2


def test_close_from_another_thread_ends_a_waiting_call(redis_server: RedisServer) -> None:
    """A call in progress ends with an answer or an error, not with a hang."""
    cache = nearcache.open(redis_server.url, timeout=5.0)
    redis_server.pause()
    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(cache.get("k"))
        except nearcache.CacheError as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    closer = threading.Thread(target=cache.close)
    closer.start()
    redis_server.resume()
    for thread in (reader, closer):
        thread.join(20)
        assert not thread.is_alive()
    assert len(outcome) == 1


def test_many_caches_can_be_opened_and_closed(no_leaks: None, redis_server: RedisServer) -> None:
    """No thread, descriptor or memory of one remains for the next."""
    for n in range(30):
        with nearcache.open(redis_server.url, namespace=f"n{n % 3}") as cache:
            cache["k"] = n
            assert cache["k"] == n


@pytest.mark.parametrize("how", ["close", "drop"])
def test_cache_closed_inside_a_loader_does_not_hang(no_leaks: None, redis_server: RedisServer, how: str) -> None:
    """Odd, but it must end."""
    cache = nearcache.open(redis_server.url)

    def loader(key: str) -> str:
        if how == "close":
            cache.close()
        else:
            cache.drop_all()
        return "value"

    try:
        assert cache.get_or_load("k", loader) == "value"
    except nearcache.CacheError:
        assert how == "close"
    cache.close()


def test_close_stops_each_thread_once_before_the_connections_are_closed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the end of a cache that is collected does. Closed again, it does nothing."""
    cache: Any = nearcache.open(redis_server.url, writer=print, write_delay=60, sample_rate=0.5)
    stopped: list[tuple[Any, bool]] = []
    for part in cache._threads:
        true = part.stop

        def stop(part: Any = part, true: Any = true) -> None:
            stopped.append((part, cache._driver._closed))
            true()

        monkeypatch.setattr(part, "stop", stop)
    cache.close()
    cache.close()
    assert sorted(map(str, stopped)) == sorted(str((part, False)) for part in cache._threads)
