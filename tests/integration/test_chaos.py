"""The chaos run as people start it: it holds, it finds sabotage; and the proxy does to bytes what its rules say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from chaos.proxy import DATA, DOWN, SUBSCRIPTION, UP, Route, Rule
from common.crew import Crew, Member
from demo.leftovers import marked_processes
from support.redis import RedisServer
from support.waiting import wait_until

CHAOS = Path(__file__).resolve().parents[2] / "bench" / "chaos"
MARK = "NEARCACHE_CHAOS_TEST"
PATIENCE = 20.0


# -- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """A function that carries out a run and returns its exit status and all that it printed; nothing may be left."""
    mark = uuid.uuid4().hex

    def chaos(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(CHAOS), "--out", str(tmp_path), *arguments], env={**os.environ, MARK: mark},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    yield chaos
    wait_until(lambda: not marked_processes(mark, MARK), what="all processes ended")


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["single", "shards"])
def test_chaos_short_run_breaks_no_promise(run: Callable[..., tuple[int, str]], topology: str) -> None:
    """Faults come, every call is judged, and none of the promises is broken."""
    status, printed = run("--topology", topology, "--seconds", "9", "--workers", "2", "--seed", "4")
    assert status == 0, printed
    assert "no promise was broken" in printed
    assert " 0 of " in printed


@pytest.mark.slow
def test_chaos_values_deleted_behind_the_caches_back_are_found_out(
    run: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Hits are too old, changes in the queues are never written, and the run says so, with the history."""
    status, printed = run("--seconds", "5", "--workers", "2", "--mute", "--only", "scripts lost")
    assert status == 1, printed
    assert "I1 BROKEN" in printed
    assert "I3 BROKEN" in printed
    assert "W1 BROKEN" in printed
    assert "invalidate" in printed[printed.index("I1 BROKEN") :]
    assert list((tmp_path / "history-single-1").glob("*.history"))


def test_only_a_child_that_does_not_end_in_its_time_is_killed_and_named(tmp_path: Path) -> None:
    """The run is told who hung; who was only slow is not accused."""
    entry = tmp_path / "child.py"
    entry.write_text("import signal, sys\nsys.stdin.read() if sys.argv[2] == 'ends' else signal.pause()\n")
    for role, patience_s, killed in (("ends", PATIENCE, []), ("hangs", 0.05, ["the child"])):
        crew = Crew(entry, patience_s=patience_s)
        crew.start("the child", role)
        assert crew.end(lambda: None) == killed


# -- the proxy ---------------------------------------------------------------------------------------------------


class Through:
    """The proxy in front of one server, for two workers."""

    def __init__(self, server: RedisServer, directory: Path) -> None:
        self._crew = Crew(CHAOS / "__main__.py", patience_s=PATIENCE)
        self._paths = [str(directory / f"{worker}.sock") for worker in (0, 1)]
        self._proxy: Member = self._crew.start("the proxy", "proxy")
        routes = [asdict(Route(0, worker, path, server.path)) for worker, path in enumerate(self._paths)]
        self._tell(routes=routes, seed=1)
        wait_until(lambda: bool(self._crew.hear(0.1)), PATIENCE, what="the proxy is ready")

    def _tell(self, **command: Any) -> None:
        import json

        self._proxy.tell(json.dumps(command))

    def set(self, rule: Rule | None, number: int = 1) -> None:
        """Add a rule, or take it away."""
        self._tell(do="set", number=number, rule=None if rule is None else asdict(rule))

    def cut(self, rule: Rule) -> None:
        """End connections."""
        self._tell(do="cut", number=0, rule=asdict(rule))

    def connect(self, worker: int = 0) -> socket.socket:
        """Return a connection through the proxy."""
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE)
        link.connect(self._paths[worker])
        return link

    def close(self) -> None:
        """End the proxy."""
        assert self._crew.end(lambda: None) == []


@pytest.fixture
def through(redis_server: RedisServer) -> Iterator[Through]:
    """The proxy in front of a fresh server."""
    proxy = Through(redis_server, redis_server.directory)
    yield proxy
    proxy.close()


def ask(link: socket.socket, words: str = "PING") -> bytes:
    """Send a command and return what comes first."""
    link.sendall(words.encode() + b"\r\n")
    return link.recv(4_096)


def silent(link: socket.socket, seconds: float = 0.3) -> bool:
    """Whether nothing comes for a while, though the connection stands."""
    link.settimeout(seconds)
    try:
        link.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        link.settimeout(PATIENCE)


def effective(through: Through, rule: Rule, is_so: Callable[[], bool]) -> None:
    """Set a rule and wait until it holds."""
    through.set(rule)
    wait_until(is_so, PATIENCE, what=str(rule))


def test_proxy_silent_direction_holds_bytes_and_gives_them_out_later(through: Through) -> None:
    """Requests are carried out and their answers wait; another worker notices nothing."""
    with through.connect(0) as link, through.connect(1) as other:
        assert ask(link) == ask(other) == b"+PONG\r\n"
        through.set(Rule(workers=(0,), directions=(DOWN,), silent=True))
        # The rule has arrived when an answer stays away.
        while not _unanswered(link):
            continue
        assert ask(other) == b"+PONG\r\n"
        through.set(None)
        assert link.recv(64).startswith(b"+PONG")


def _unanswered(link: socket.socket) -> bool:
    link.sendall(b"PING\r\n")
    return silent(link)


def test_proxy_half_open_connection_ends_with_the_fault(through: Through) -> None:
    """What was sent into the void is never answered: the connection is reset when the fault is over."""
    with through.connect() as link:
        assert ask(link) == b"+PONG\r\n"
        through.set(Rule(directions=(UP,), silent=True, doomed=True))
        while not _unanswered(link):
            continue
        through.set(None)
        assert ended(link)


def ended(link: socket.socket) -> bool:
    """Whether the stream ends, in order or by a reset."""
    try:
        while link.recv(4_096):
            continue
    except ConnectionError:
        pass
    return True


def test_proxy_cut_rule_ends_the_connections_of_its_kind(through: Through) -> None:
    """A subscription is known by what is sent on it."""
    with through.connect() as data, through.connect() as subscription:
        assert ask(data) == b"+PONG\r\n"
        assert b"subscribe" in ask(subscription, "SUBSCRIBE ch")
        through.cut(Rule(kinds=(SUBSCRIPTION,)))
        assert ended(subscription)
        assert ask(data) == b"+PONG\r\n"
        through.cut(Rule(kinds=(DATA,), reset=True))
        assert ended(data)


def test_proxy_answers_are_cut_in_the_middle(through: Through) -> None:
    """After so many bytes of a connection, and not before."""
    with through.connect(1) as early:
        assert ask(early) == b"+PONG\r\n"
        through.set(Rule(directions=(DOWN,), cut_after=10))
        received = b""
        with through.connect(1) as link:
            wait_until(lambda: not _answers(early), PATIENCE, what="the rule holds")
            link.sendall(b"PING\r\n" * 3)
            while data := link.recv(64):
                received += data
        assert received == b"+PONG\r\n+PO"


def _answers(link: socket.socket) -> bool:
    try:
        return ask(link) == b"+PONG\r\n"
    except ConnectionError:
        return False


def test_proxy_messages_are_lost_and_repeated_while_all_else_passes(
    through: Through, redis_server: RedisServer
) -> None:
    """Published messages vanish or double; the answers on the same connection come, in order."""
    with through.connect() as link:
        assert b"server" in ask(link, "HELLO 3")
        assert b"subscribe" in ask(link, "SUBSCRIBE ch")
        for rule, copies in ((Rule(kinds=(SUBSCRIPTION,), lose=1.0), 0), (Rule(kinds=(SUBSCRIPTION,), repeat=1.0), 2)):
            effective(through, rule, lambda copies=copies: published(link, redis_server) == copies)
            assert published(link, redis_server) == copies
        through.set(None)


def published(link: socket.socket, server: RedisServer) -> int:
    """Publish a message; return how many come before the answer to what is asked next."""
    server.cli("PUBLISH", "ch", "hello")
    link.sendall(b"ECHO fence\r\n")
    received = b""
    while not received.endswith(b"fence\r\n"):
        received += link.recv(4_096)
    return received.count(b"hello")


def test_proxy_late_bytes_come_whole_and_in_order(through: Through) -> None:
    """Delay, jitter, a narrow line and single bytes change when bytes come, and nothing else."""
    rule = Rule(delay_s=0.02, jitter_s=0.02, bytes_per_s=50_000, piece=3)
    through.set(rule)
    with through.connect() as link:
        expected = b"".join(b"$4\r\n%04d\r\n" % number for number in range(60))
        sender = threading.Thread(
            target=link.sendall, args=(b"".join(b"ECHO %04d\r\n" % number for number in range(60)),)
        )
        sender.start()
        received = b""
        while len(received) < len(expected):
            received += link.recv(4_096)
        sender.join(PATIENCE)
        assert received == expected
