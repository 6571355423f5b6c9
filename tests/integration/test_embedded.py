"""Embedded servers shared by processes: started by the first, stopped by the last, alike for all between."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time

import pytest

from nearcache.embedded import EmbeddedServers, locks
from nearcache.errors import ClosedError, ConfigError, EmbeddedError, ServerNotFoundError
from support import processes
from support.embedded import USER, running, server_pid, supervisor_pid
from support.waiting import wait_until
from support.worker import WorkerError


def ping(servers: EmbeddedServers) -> list[bool]:
    """Return for each shard whether it answers."""
    return [locks.answers(path) for path in servers.sockets]


def gone(directory) -> bool:
    """Return whether neither the directory nor any process of it is left."""
    return not directory.exists() and not running(directory)


def whole_reply(servers: EmbeddedServers, command: bytes) -> bytes:
    """Return a reply of shard 0 that may be long."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(servers.sockets[0])
        link.sendall(command + b"QUIT\r\n")
        return b"".join(iter(lambda: link.recv(65536), b""))


def fake_server(tmp_path, does: str) -> str:
    """Make a program that passes for Redis when asked for its version, and otherwise does what it is told."""
    path = tmp_path / "redis-server"
    version = 'if [ "$1" = --version ]; then echo "Redis server v=7.0.0"; exit; fi'
    path.write_text(f"#!/bin/sh\n{version}\n{does}\n")
    path.chmod(0o755)
    return str(path)


class Gate:
    """A server program that starts only after :meth:`open`, and the environment that names it."""

    def __init__(self, tmp_path, program: str) -> None:
        self._path = tmp_path / "gate"
        wait = f"while [ ! -e '{self._path}' ]; do sleep 0.02; done"
        self.env = {"NEARCACHE_REDIS_SERVER": fake_server(tmp_path, f'{wait}; exec {program} "$@"')}

    def open(self) -> None:
        """Let all servers start, those that wait and those to come."""
        self._path.touch()


@pytest.fixture
def gated(tmp_path, newest_binary) -> Gate:
    """A real server program that waits at a gate."""
    return Gate(tmp_path, newest_binary.path)


def test_join_every_server_program_answers_and_last_leaver_stops_all(no_leaks, runtime_dir, server_binary, monkeypatch):
    """Any server program answers when join() returns; leave() ends it and removes the directory."""
    monkeypatch.setenv("NEARCACHE_REDIS_SERVER", server_binary.path)
    servers = EmbeddedServers.join("shop", 2)
    assert ping(servers) == [True, True]
    assert servers.names == ["0", "1"]
    assert servers.directory == runtime_dir / "nearcache" / "shop"
    assert servers.server_version == ".".join(map(str, server_binary.version))
    assert len(running(servers.directory)) == 4
    servers.leave()
    servers.leave()
    wait_until(lambda: gone(servers.directory))


def test_join_user_whose_locale_is_not_installed_gets_servers(runtime_dir, tmp_path, newest_binary, monkeypatch):
    """Servers since 7.2 end at once in such a locale, so they have another one."""
    picky = fake_server(tmp_path, f'[ "$LC_ALL" = C ] || exit 1; exec {newest_binary.path} "$@"')
    monkeypatch.setenv("NEARCACHE_REDIS_SERVER", picky)
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with EmbeddedServers.join("shop", 1) as servers:
        assert ping(servers) == [True]


def test_join_socket_and_directory_are_private(runtime_dir):
    """Nobody but the owner can reach a socket or read a log, and nothing listens on the network."""
    with EmbeddedServers.join("shop", 1) as servers:
        for path in (servers.directory, servers.directory.parent):
            assert path.stat().st_mode & 0o777 == 0o700
        assert os.stat(servers.sockets[0]).st_mode & 0o777 == 0o700
        assert b"tcp_port:0\r\n" in whole_reply(servers, b"INFO server\r\n")
        assert b"volatile-lru" in whole_reply(servers, b"CONFIG GET maxmemory-policy\r\n")


def test_join_two_processes_share_the_same_servers(runtime_dir, make_worker):
    """What one process writes the other reads; the servers stay until both have left."""
    first, second = make_worker(USER), make_worker(USER)
    state = first.call("join")
    assert second.call("join") == state
    assert first.call("ask", 1, "SET k v") == "+OK"
    first.call("leave")
    assert second.call("ask", 1, "STRLEN k") == ":1"
    assert second.call("state") == state
    second.call("leave")
    wait_until(lambda: gone(runtime_dir / "nearcache" / "shop"))


def test_join_names_are_separate(runtime_dir):
    """Each name has servers of its own."""
    with EmbeddedServers.join("one", 1) as one, EmbeddedServers.join("two", 1) as two:
        assert locks.ask(one.sockets[0], b"SET k v\r\n") == b"+OK\r\n"
        assert locks.ask(two.sockets[0], b"EXISTS k\r\n") == b":0\r\n"


def test_join_killed_user_is_no_leak(runtime_dir, make_worker):
    """A user that is killed counts no longer; when it was the last one, the servers end."""
    first, second = make_worker(USER), make_worker(USER)
    state = first.call("join")
    second.call("join")
    first.kill()
    assert second.call("ask", 0, "PING") == "+PONG"
    assert second.call("state") == state
    second.kill()
    wait_until(lambda: gone(runtime_dir / "nearcache" / "shop"))


def test_join_dropped_or_exiting_user_leaves_by_itself(no_leaks, runtime_dir, make_worker):
    """A handle that is collected, or whose process ends, gives its share back."""
    servers = EmbeddedServers.join("shop", 1)
    directory = servers.directory
    del servers
    gc.collect()
    wait_until(lambda: gone(directory))
    worker = make_worker(USER)
    worker.call("join")
    assert worker.finish() == 0
    assert worker.exited_quietly()
    wait_until(lambda: gone(directory))


@pytest.mark.slow
def test_join_eight_processes_at_once_start_one_supervisor(runtime_dir, make_worker):
    """However many processes start at the same time, they get one and the same set of servers."""
    workers = [make_worker(USER).ready() for _ in range(8)]
    for worker in workers:
        worker.send("join")
    states = [worker.receive() for worker in workers]
    assert all(state == states[0] for state in states)
    assert len(running(runtime_dir / "nearcache" / "shop")) == 4
    for worker in workers:
        worker.send("leave")
    for worker in workers:
        worker.receive()
    wait_until(lambda: gone(runtime_dir / "nearcache" / "shop"))


@pytest.mark.slow
def test_join_while_last_user_leaves_gets_servers_that_stay(runtime_dir):
    """Whatever moment of the end a joiner hits, the servers it gets go on running."""
    servers = EmbeddedServers.join("shop", 1)
    try:
        for step in range(20):
            servers.leave()
            time.sleep(step * 0.005)
            servers = EmbeddedServers.join("shop", 1)
            assert ping(servers) == [True]
            pid = server_pid(servers.directory, 0)
            time.sleep(0.02)
            assert server_pid(servers.directory, 0) == pid
            assert ping(servers) == [True]
    finally:
        servers.leave()


@pytest.mark.slow
def test_join_and_leave_of_many_processes_ends_clean(runtime_dir, make_worker):
    """Processes that come and go at random never meet dead servers, and leave nothing behind."""
    code = USER + (
        "import random, time\n"
        "def churn(seed, rounds):\n"
        "    generator = random.Random(seed)\n"
        "    for _ in range(rounds):\n"
        "        join('shop', 1)\n"
        "        assert ask(0, 'PING') == '+PONG'\n"
        "        time.sleep(generator.random() * 0.02)\n"
        "        assert ask(0, 'PING') == '+PONG'\n"
        "        leave()\n"
        "        time.sleep(generator.random() * 0.15)\n"
    )
    workers = [make_worker(code).ready() for _ in range(3)]
    for seed, worker in enumerate(workers):
        worker.send("churn", seed, 12)
    for worker in workers:
        worker.receive(timeout=60)
    wait_until(lambda: gone(runtime_dir / "nearcache" / "shop"))


def test_join_other_number_of_shards_is_error_naming_both(runtime_dir):
    """Processes that disagree on the number of shards would write to different places: one is refused."""
    with EmbeddedServers.join("shop", 2) as servers:
        with pytest.raises(ConfigError) as caught:
            EmbeddedServers.join("shop", 3)
        assert caught.value.option == "shards"
        assert caught.value.value == 3
        assert "shards=2" in str(caught.value)
        assert ping(servers) == [True, True]


def test_join_other_number_of_shards_after_last_left_is_taken(runtime_dir):
    """The number of shards may change from one set of servers to the next, at once."""
    for shards in (1, 2, 1):
        with EmbeddedServers.join("shop", shards) as servers:
            assert ping(servers) == [True] * shards


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"shards": 0}, "shards"),
        ({"shards": 65}, "shards"),
        ({"shards": True}, "shards"),
        ({"shards": 2.0}, "shards"),
        ({"maxmemory_mb": 1}, "maxmemory_mb"),
        ({"start_timeout": 0}, "start_timeout"),
        ({"start_timeout": float("nan")}, "start_timeout"),
        ({"start_timeout": "1"}, "start_timeout"),
        ({"name": "../x"}, "name"),
    ],
    ids=str,
)
def test_join_argument_out_of_range_is_config_error(runtime_dir, options, option):
    """A bad argument is refused by name before anything is made."""
    with pytest.raises(ConfigError) as caught:
        EmbeddedServers.join(**{"name": "shop", "shards": 1, **options})
    assert caught.value.option == option
    assert list(runtime_dir.iterdir()) == []


def test_join_symbolic_link_as_directory_is_refused(runtime_dir, tmp_path):
    """A directory that is a symbolic link is refused, and nothing is written where it points."""
    (runtime_dir / "nearcache").symlink_to(tmp_path)
    with pytest.raises(EmbeddedError, match="symbolic link"):
        EmbeddedServers.join("shop", 1)
    assert list(tmp_path.iterdir()) == []
    (runtime_dir / "nearcache").unlink()


def test_join_without_server_program_leaves_nothing(no_leaks, runtime_dir, monkeypatch):
    """Without a server program the error is specific, and no directory stays."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("nearcache.embedded.binary.importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("NEARCACHE_REDIS_SERVER", raising=False)
    with pytest.raises(ServerNotFoundError):
        EmbeddedServers.join("shop", 1)
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("does", "complaint"),
    [
        ("echo 'no luck today' >&2; exit 3", r"ended while starting[\s\S]*no luck today"),
        ("exec sleep 60", r"did not answer within"),
        ("kill -11 $$", r"ended while starting: signal 11"),
    ],
    ids=["ends", "hangs", "crashes"],
)
@pytest.mark.usefixtures("no_leaks")
def test_join_server_that_does_not_start_is_error_with_log(runtime_dir, tmp_path, monkeypatch, does, complaint):
    """A server that ends or never answers is an error in bounded time, in its own words; nothing stays."""
    monkeypatch.setenv("NEARCACHE_REDIS_SERVER", fake_server(tmp_path, does))
    with pytest.raises(EmbeddedError, match=complaint):
        EmbeddedServers.join("shop", 1, start_timeout=0.7)
    wait_until(lambda: gone(runtime_dir / "nearcache" / "shop"))


def test_join_starter_killed_while_it_waits_hands_over_to_the_next(runtime_dir, tmp_path, make_worker, gated):
    """A process killed during the start disturbs nobody: another one gets the servers it had begun."""
    entered = tmp_path / "entered"
    telling = (
        "from nearcache.embedded import servers as module\n"
        "enter = module._enter\n"
        "def telling(*arguments):\n"
        "    users = enter(*arguments)\n"
        f"    Path({str(entered)!r}).touch()\n"
        "    return users\n"
        "module._enter = telling\n"
    )
    first, second = make_worker(USER, env=gated.env), make_worker(USER + telling, env=gated.env)
    directory = runtime_dir / "nearcache" / "shop"
    first.send("join", shards=1)
    wait_until(lambda: (directory / "0.pid").exists())
    second.send("join", shards=1)
    wait_until(entered.exists)
    first.kill()
    gated.open()
    state = second.receive()
    assert second.call("ask", 0, "PING") == "+PONG"
    assert second.call("state") == state


@pytest.mark.parametrize("victim", ["0.pid", "supervisor"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_join_victim_of_a_signal_during_start_is_started_again(runtime_dir, make_worker, gated, victim, how):
    """A server or supervisor that is killed while it starts is started once more, and join() succeeds."""
    worker = make_worker(USER, env=gated.env)
    worker.send("join", shards=1)
    path = runtime_dir / "nearcache" / "shop" / victim
    pid = int(wait_until(lambda: path.exists() and path.read_text().split())[0])
    os.kill(pid, how)
    wait_until(lambda: not processes.is_alive(pid))
    gated.open()
    worker.receive()
    assert worker.call("ask", 0, "PING") == "+PONG"
    assert pid not in worker.call("state")


def test_join_starter_killed_alone_leaves_nothing(runtime_dir, make_worker, tmp_path):
    """When the only process is killed during the start, what it had begun ends by itself."""
    worker = make_worker(USER, env={"NEARCACHE_REDIS_SERVER": fake_server(tmp_path, "exec sleep 60")})
    worker.send("join", shards=1)
    directory = runtime_dir / "nearcache" / "shop"
    wait_until(lambda: (directory / "0.pid").exists())
    worker.kill()
    wait_until(lambda: gone(directory))


def test_join_in_process_with_strange_signals_works(runtime_dir, make_worker):
    """Signals that the starting process blocks or ignores do not carry over to supervisor and servers."""
    worker = make_worker(
        "import signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n" + USER
    )
    supervisor, _, _ = worker.call("join")
    os.kill(supervisor, signal.SIGTERM)
    directory = runtime_dir / "nearcache" / "shop"
    wait_until(lambda: not running(directory))
    worker.call("ensure")
    assert worker.call("ask", 0, "PING") == "+PONG"


def test_join_in_process_without_standard_streams_works(runtime_dir, make_worker):
    """A daemon that has closed descriptors 0, 1 and 2 can start servers: its locks may get those numbers."""
    worker = make_worker(USER + "for fd in (0, 1, 2):\n    os.close(fd)\n")
    state = worker.call("join")
    assert worker.call("ask", 1, "PING") == "+PONG"
    with EmbeddedServers.join("shop", 2) as servers:
        assert supervisor_pid(servers.directory) == state[0]
    worker.call("leave")


def test_join_fork_in_another_thread_meanwhile_keeps_no_lock(runtime_dir, make_worker, gated):
    """A child that is forked while its parent starts the servers does not block others while it lives."""
    code = (
        "import threading\n"
        "def begin():\n"
        "    global thread\n"
        "    thread = threading.Thread(target=join, kwargs={'shards': 1})\n"
        "    thread.start()\n"
        "def fork():\n"
        "    import warnings\n"
        "    global child\n"
        "    with warnings.catch_warnings():\n"
        "        warnings.simplefilter('ignore', DeprecationWarning)\n"
        "        child = os.fork()\n"
        "    if child == 0:\n"
        "        os.read(os.pipe()[0], 1)\n"
        "    return child\n"
        "def finish():\n"
        "    thread.join()\n"
    )
    directory = runtime_dir / "nearcache" / "shop"
    worker = make_worker(USER + code, env=gated.env)
    worker.call("begin")
    wait_until(lambda: (directory / "0.pid").exists())
    child = worker.call("fork")
    try:
        gated.open()
        worker.call("finish")
        with EmbeddedServers.join("shop", 1) as servers:
            assert ping(servers) == [True]
            os.kill(supervisor_pid(directory), signal.SIGKILL)
            wait_until(lambda: not running(directory))
            servers.ensure()
            assert ping(servers) == [True]
    finally:
        os.kill(child, signal.SIGKILL)
    worker.call("leave")


def test_join_start_is_no_child_of_the_user(runtime_dir):
    """The supervisor is nobody's child, so that a program which waits for its children never meets it."""
    with EmbeddedServers.join("shop", 1) as servers:
        assert supervisor_pid(servers.directory) not in processes.children_of(os.getpid())


def test_leave_then_ensure_is_closed_error(runtime_dir):
    """After leave() the share is gone for good."""
    servers = EmbeddedServers.join("shop", 1)
    servers.leave()
    with pytest.raises(ClosedError):
        servers.ensure()


def test_interrupt_in_terminal_ends_the_user_not_the_servers(runtime_dir, make_worker):
    """Ctrl-C reaches a whole foreground group; the servers that this group started serve the others on."""
    first, second = make_worker(USER, new_session=True), make_worker(USER, new_session=True)
    state = first.call("join")
    second.call("join")
    os.killpg(first.pid, signal.SIGINT)
    with pytest.raises(WorkerError, match="ended with status"):
        first.call("state")
    assert second.call("ask", 0, "PING") == "+PONG"
    assert second.call("state") == state
