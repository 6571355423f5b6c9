"""Embedded servers when things die: a server, the supervisor, the directory; and when a process forks."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearcache.cache.tiered.parts import driver_for
from nearcache.embedded import EmbeddedServers, locks
from nearcache.l2 import Exchange, Reply
from nearcache.options import parse
from support import processes
from support.embedded import USER, running, server_pid, supervisor_pid
from support.lanes import endpoint_of
from support.redis import RedisServer
from support.tiers import tier_of
from support.waiting import wait_until


@pytest.fixture
def servers(no_leaks, runtime_dir):
    """Two servers that this process uses."""
    with EmbeddedServers.join("shop", 2) as joined:
        yield joined


def answering(servers: EmbeddedServers) -> bool:
    """Return whether all shards answer."""
    return all(locks.answers(path) for path in servers.sockets)


def test_server_killed_is_restarted_on_its_socket(servers):
    """A crashed server comes back by itself, empty, on the same socket; the other one notices nothing."""
    for command in (b"SET k v\r\n", b"SET k v\r\n"):
        assert locks.ask(servers.sockets[0], command) == b"+OK\r\n"
    assert locks.ask(servers.sockets[1], b"SET k v\r\n") == b"+OK\r\n"
    old, neighbour = server_pid(servers.directory, 0), server_pid(servers.directory, 1)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: server_pid(servers.directory, 0) != old and answering(servers))
    assert locks.ask(servers.sockets[0], b"EXISTS k\r\n") == b":0\r\n"
    assert locks.ask(servers.sockets[1], b"EXISTS k\r\n") == b":1\r\n"
    assert server_pid(servers.directory, 1) == neighbour


def test_server_killed_again_and_again_still_comes_back(servers):
    """A server that crashes three times in a row is started a fourth time, after a pause."""
    for _ in range(3):
        old = server_pid(servers.directory, 0)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda old=old: server_pid(servers.directory, 0) != old and answering(servers), timeout=10)


def test_supervisor_killed_takes_servers_along_and_ensure_recovers(servers):
    """When the supervisor dies its servers die too; ensure() brings both back on the same sockets."""
    old = supervisor_pid(servers.directory)
    sockets = list(servers.sockets)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not running(servers.directory), what="servers and watcher follow")
    servers.ensure()
    assert servers.sockets == sockets
    assert answering(servers)
    assert supervisor_pid(servers.directory) != old
    assert len(running(servers.directory)) == 4


def test_supervisor_killed_many_threads_and_processes_ensure_at_once(servers, make_worker):
    """Everybody may call ensure() at the same time: one supervisor comes of it."""
    workers = [make_worker(USER) for _ in range(3)]
    for worker in workers:
        worker.call("join")
    os.kill(supervisor_pid(servers.directory), signal.SIGKILL)
    wait_until(lambda: not running(servers.directory))
    errors = []

    def ensure():
        try:
            servers.ensure()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for worker in workers:
        worker.send("ensure")
    for worker in workers:
        worker.receive()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(running(servers.directory)) == 4
    assert {worker.call("state")[0] for worker in workers} == {supervisor_pid(servers.directory)}


def test_supervisor_killed_and_no_ensure_last_leaver_cleans_up(no_leaks, runtime_dir):
    """Without a supervisor the last user to leave removes the directory itself."""
    servers = EmbeddedServers.join("shop", 1)
    os.kill(supervisor_pid(servers.directory), signal.SIGKILL)
    wait_until(lambda: not running(servers.directory))
    servers.leave()
    assert not servers.directory.exists()


def test_supervisor_killed_with_its_last_user_leaves_nothing_that_disturbs(runtime_dir, make_worker):
    """What a dead set left in the directory binds nobody: the next one may have another number of shards."""
    worker = make_worker(USER)
    supervisor = worker.call("join")[0]
    worker.signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    worker.kill()
    directory = runtime_dir / "nearcache" / "shop"
    wait_until(lambda: not running(directory))
    assert (directory / "settings").exists()
    with EmbeddedServers.join("shop", 1) as servers:
        assert answering(servers)


def test_supervisor_terminated_stops_servers_and_ensure_recovers(servers):
    """SIGTERM ends supervisor and servers in good order, and is no obstacle to a new start."""
    old = supervisor_pid(servers.directory)
    os.kill(old, signal.SIGTERM)
    wait_until(lambda: not running(servers.directory))
    assert not any(os.path.exists(path) for path in servers.sockets)
    servers.ensure()
    assert answering(servers)


def test_supervisor_terminated_and_no_ensure_last_leaver_cleans_up(no_leaks, runtime_dir):
    """Whether the last user leaves before, during or after the supervisor's end, nothing stays."""
    for when in ("before", "after"):
        servers = EmbeddedServers.join("shop", 1)
        os.kill(supervisor_pid(servers.directory), signal.SIGTERM)
        if when == "after":
            wait_until(lambda here=servers.directory: not running(here))
        servers.leave()
        wait_until(lambda here=servers.directory: not here.exists() and not running(here))


ON_A_FULL_DISK = """
import resource
from nearcache import EmbeddedError
from nearcache.embedded import EmbeddedServers

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    EmbeddedServers.join("shop", 1)
except EmbeddedError as error:
    print(error)
"""


def test_supervisor_on_a_full_disk_says_what_it_could_not_do(no_leaks, runtime_dir):
    """In the error: nothing can be added to its log."""
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"did not start: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}" in done.stdout


def test_ensure_all_well_changes_nothing(servers):
    """While the supervisor lives ensure() returns at once and touches nothing."""
    before = running(servers.directory)
    for _ in range(100):
        servers.ensure()
    assert running(servers.directory) == before


def test_ensure_keeps_the_memory_limit_of_the_first_start(runtime_dir, make_worker):
    """A restart by another process does not change what the servers were started with."""
    worker = make_worker(USER)
    with EmbeddedServers.join("shop", 1, maxmemory_mb=32) as servers:
        worker.call("join", shards=1, maxmemory_mb=64)
        os.kill(supervisor_pid(servers.directory), signal.SIGKILL)
        wait_until(lambda: not running(servers.directory))
        worker.call("ensure")
        assert str(32 << 20).encode() in locks.ask(servers.sockets[0], b"CONFIG GET maxmemory\r\n")


def test_directory_deleted_ensure_makes_it_anew_and_old_servers_end(servers):
    """When the directory is deleted behind our back, ensure() starts a new set and the old one ends."""
    old = running(servers.directory)
    shutil.rmtree(servers.directory)
    servers.ensure()
    assert answering(servers)
    wait_until(lambda: not any(processes.is_alive(pid) for pid in old))
    assert answering(servers)


def test_directory_deleted_old_servers_end_without_any_call(servers):
    """Servers whose directory is gone end by themselves, so that no process goes on with a set of its own."""
    old = running(servers.directory)
    shutil.rmtree(servers.directory)
    wait_until(lambda: not any(processes.is_alive(pid) for pid in old), timeout=10)
    servers.ensure()
    assert answering(servers)


def test_watcher_killed_is_replaced(no_leaks, runtime_dir):
    """Without its watcher the supervisor would outlive its users: it starts another one."""
    servers = EmbeddedServers.join("shop", 1)
    supervisor = supervisor_pid(servers.directory)
    ours = {supervisor, server_pid(servers.directory, 0)}
    watcher = next(pid for pid in running(servers.directory) if pid not in ours)
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: set(running(servers.directory)) - ours - {watcher})
    servers.leave()
    wait_until(lambda: not servers.directory.exists() and not running(servers.directory))


def test_server_that_ignores_its_end_is_killed(no_leaks, runtime_dir):
    """A server that does not end on SIGTERM (here: stopped) is killed, and nothing stays."""
    servers = EmbeddedServers.join("shop", 1)
    os.kill(server_pid(servers.directory, 0), signal.SIGSTOP)
    servers.leave()
    wait_until(lambda: not servers.directory.exists() and not running(servers.directory), timeout=10)


def test_leftover_server_without_supervisor_is_ended_by_sweep(runtime_dir, newest_binary):
    """Where the kernel does not end servers with their supervisor, whoever cleans up asks them to end."""
    directory = runtime_dir / "nearcache" / "shop"
    directory.mkdir(parents=True)
    (directory / "users").touch()
    lock = locks.open_lock(str(directory / "0.pid"), create=True)
    assert locks.try_lock(lock)
    path = locks.socket_path(str(directory), 0)
    command = [newest_binary.path, "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, pass_fds=[lock], stdout=subprocess.DEVNULL) as server:
        os.close(lock)
        wait_until(lambda: locks.answers(path))
        locks.sweep(str(directory))
        assert server.wait(5) == 0
    assert not directory.exists()


# -- fork ----------------------------------------------------------------------------------------------------

FORK = (
    USER
    + """
def fork(child_leaves):
    global child
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        if child_leaves:
            servers.leave()
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os._exit(0 if child_leaves or ask(0, "PING") == "+PONG" else 1)
    os.read(ready[0], 1)
    globals()["go"] = go[1]
    return child

def end_child():
    os.write(go, b"1")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
)


def test_fork_child_counts_as_user_while_it_lives(runtime_dir, make_worker):
    """A forked child keeps the servers alive after its parent has left; they end with it."""
    directory = runtime_dir / "nearcache" / "shop"
    worker = make_worker(FORK)
    state = worker.call("join")
    worker.call("fork", False)
    worker.call("leave")
    with EmbeddedServers.join("shop", 2) as servers:
        assert supervisor_pid(directory) == state[0]
        assert answering(servers)
    assert worker.call("end_child") == 0
    wait_until(lambda: not directory.exists() and not running(directory))


def test_fork_child_that_leaves_takes_nothing_from_its_parent(runtime_dir, make_worker):
    """leave() in a child gives back the child's share only; the same when the child ends."""
    worker = make_worker(FORK)
    state = worker.call("join")
    worker.call("fork", True)
    assert worker.call("ask", 0, "PING") == "+PONG"
    assert worker.call("end_child") == 0
    assert worker.call("ask", 0, "PING") == "+PONG"
    assert worker.call("state") == state


def test_fork_child_outlives_killed_parent_with_its_share(runtime_dir, make_worker):
    """A child whose parent was killed is a user like any other."""
    directory = runtime_dir / "nearcache" / "shop"
    worker = make_worker(FORK)
    state = worker.call("join")
    child = worker.call("fork", False)
    try:
        worker.kill()
        assert set(state) <= set(running(directory))
        assert locks.answers(locks.socket_path(str(directory), 0))
    finally:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: not directory.exists() and not running(directory))


DAEMON = """
import os, signal
import nearcache
from support.threads import PATIENCE
from support.lanes import endpoint_of
from support.redis import RedisServer
from support.tiers import tier_of
from support.waiting import wait_until

def is_heard():
    served = cache.stats().l1.hits
    return cache.get("k") == "v" and cache.stats().l1.hits > served

def daemon(tmp_path):
    os.closerange(3, 256)
    files = [open(f"{tmp_path}/{number}", "w") for number in range(64)]
    cache["k"] = "v"
    wait_until(is_heard)
    cache.close()
    for file in files:
        file.write("mine")
        file.close()

def become_daemon(tmp_path):
    global cache
    cache = nearcache.open("embedded://shop")
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))
        status = 1
        try:
            daemon(tmp_path)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    cache.close()
    return status
"""


def test_daemon_that_closed_all_descriptors_has_an_l1_and_keeps_its_own_files(runtime_dir, tmp_path, make_worker):
    """Their numbers are those of the program's files by then, which are none of the cache's business."""
    assert make_worker(DAEMON).call("become_daemon", str(tmp_path)) == 0
    assert {path.read_text() for path in tmp_path.glob("[0-9]*")} == {"mine"}


def test_embedded_server_that_is_gone_is_started_and_asked_at_once(redis_server: RedisServer) -> None:
    """The call that finds it gone ends well."""
    redis_server.kill()
    servers: Any = SimpleNamespace(ensure=redis_server.start)
    endpoints = (endpoint_of(redis_server),)
    driver = driver_for(parse("embedded://"), endpoints, servers, tier_of(), cast("Any", lambda: None))
    assert isinstance(driver.execute([Exchange(0, [("PING",)])])[0], Reply)
    driver.close()
