"""The fixtures that every test may use; ``tests/conftest.py`` registers them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nearcache.cache.memory import exchanging
from nearcache.cache.memory.aging import AgingMemoryCache
from nearcache.clocks import monotonic_ns
from support import leaks, processes
from support.caches import Opener, opening
from support.cluster import RedisCluster
from support.lanes import Lane
from support.proxy import Proxy
from support.redis import NO_SERVER, Binary, RedisServer, fetched_binaries, find_binaries
from support.waiting import wait_until
from support.worker import Worker

__all__ = [
    "clock",
    "lane",
    "make_redis",
    "make_worker",
    "newest_binary",
    "no_leaks",
    "open_cache",
    "open_sharded",
    "proxy",
    "redis_cluster",
    "redis_server",
    "runtime_dir",
    "server_binary",
    "two_shards",
]

BINARIES = find_binaries()
CHOICE = os.environ.get("NEARCACHE_TEST_SERVERS", "")
if CHOICE == "oldest":  # a second Python need not see every server again
    BINARIES = BINARIES[-1:]
#: The server programs that only tests marked ``every_server`` use, and all of them.
OTHERS = [] if CHOICE == "oldest" else [*BINARIES[1:], *fetched_binaries()]
EVERY = list({binary.label: binary for binary in [*BINARIES[:1], *OTHERS]}.values())


def binaries_for(definition: pytest.Item) -> list[Binary]:
    """Return the server programs that a test is to be run with: one, or all where the server may make a difference."""
    wanted = CHOICE == "all" or definition.get_closest_marker("every_server") is not None
    return EVERY if wanted else BINARIES[:1]


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> Binary:
    """The server programs of :func:`binaries_for` in turn; failure when there is none."""
    return _required(request.param)


@pytest.fixture(scope="session")
def newest_binary() -> Binary:
    """The newest server program: for tests in which the version makes no difference."""
    return _required(BINARIES[0] if BINARIES else None)


@pytest.fixture(scope="session")
def redis_cluster(newest_binary: Binary) -> Iterator[RedisCluster]:
    """A cluster of six nodes, the same for all tests: whoever changes it puts it back."""
    with RedisCluster(newest_binary) as cluster:
        yield cluster


@pytest.fixture
def make_redis(server_binary: Binary) -> Iterator[Callable[..., RedisServer]]:
    """A function that starts one more server (arguments as for ``RedisServer``); all end with the test."""
    started: list[RedisServer] = []

    def make(**options: object) -> RedisServer:
        server = RedisServer(server_binary, **options)  # type: ignore[arg-type]  # the class checks them
        started.append(server)
        return server.start()

    yield make
    for server in started:
        server.close()


@pytest.fixture
def redis_server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """A fresh, empty server on a unix socket."""
    return make_redis()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy(redis_server.path) as proxy:
        yield proxy


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Opener]:
    """A function that opens a cache on this server; all are closed at the end of the test."""
    with opening(redis_server.url) as opener:
        yield opener


@pytest.fixture
def two_shards(make_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Two fresh, empty servers on unix sockets."""
    return make_redis(), make_redis()


@pytest.fixture
def open_sharded(two_shards: tuple[RedisServer, RedisServer]) -> Iterator[Opener]:
    """A function that opens a cache on two shards; all are closed at the end of the test."""
    with opening("unix://" + ",".join(server.path for server in two_shards)) as opener:
        yield opener


@pytest.fixture
def lane(redis_server: RedisServer) -> Iterator[Lane]:
    """A lane whose epoch and generation are NONCE."""
    lane = Lane(redis_server)
    lane.start()
    yield lane
    lane.close()


@pytest.fixture
def make_worker() -> Iterator[Callable[..., Worker]]:
    """A function that starts one more ``Worker`` (same arguments); all are killed at the end of the test."""
    started: list[Worker] = []

    def make(code: str = "", **options: object) -> Worker:
        worker = Worker(code, **options)  # type: ignore[arg-type]  # the class checks them
        started.append(worker)
        return worker

    yield make
    for worker in started:
        worker.close()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test leaves no thread, file descriptor or child process behind. Name it before other fixtures."""
    before = leaks.holdings()
    yield
    left = leaks.leaked_since(before)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own (``XDG_RUNTIME_DIR``), in which embedded servers live.

    At the end of the test nothing may be left in it, and no process that has it in its command line.
    """
    with tempfile.TemporaryDirectory(prefix="nc-run-") as name:
        path = Path(name).resolve()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield path
        try:
            wait_until(lambda: not processes.mentioning(str(path)) and not _files(path), what="all ended")
        except AssertionError:
            left = processes.mentioning(str(path))
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"left behind: processes {left}, files {_files(path)}")


def _files(path: Path) -> list[str]:
    return [str(each) for each in path.rglob("*")]


def _required(binary: Binary | None) -> Binary:
    if binary is None:
        pytest.fail(NO_SERVER, pytrace=False)
    return binary


#: Sets the time for an aging ``memory://`` cache, in seconds from the start of the test.
Clock = Callable[[Any, float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A function that lets time pass for caches: it sets the time, in seconds from the start of the test."""
    start_ns = monotonic_ns()
    now = [start_ns]
    monkeypatch.setattr(exchanging, "monotonic_ns", lambda: now[0])

    def at(cache: Any, seconds: float) -> None:
        now[0] = start_ns + round(seconds * 1e9)
        cache.l1_set_clock(now[0])
        if isinstance(cache, AgingMemoryCache):
            cache._old.l1_set_clock(now[0])

    return at
