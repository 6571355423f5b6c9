"""Real Redis servers, one set for each topology, straight and through the proxy."""

from __future__ import annotations

import re
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from nearcache.keys import encode_key, slot_of
from nearcache.placement import Placement
from support.cluster import RedisCluster
from support.redis import Binary, RedisServer, find_binaries
from support.sentinel import SentinelServer

from .faults import CLUSTER, SENTINEL, SHARDS, SINGLE
from .job import key_name, key_number
from .proxy import Route

_SHARDS: Final = {SINGLE: 1, SHARDS: 3}
#: Servers beside, which a change of the list of shards brings in and takes out again.
_SPARE: Final = {SINGLE: 0, SHARDS: 1}
#: Shard of a key whose place such a change may alter.
ROAMING: Final = -2
_VALUE: Final = re.compile(rb"(nc:\{.*\}:v:.*?)(key-\d+)$")
_PATIENCE_S: Final = 30.0
#: What Sentinels and replicas log in as, so that they alone can be locked out; others need a password as well.
ALLIES: Final = ("sentinel", "replica")


def _names(size: int) -> list[str]:
    return [f"shard-{number}" for number in range(size)]


class NoServerError(RuntimeError):
    """There is no server program, or the servers do not come up."""


def _binary() -> Binary:
    binaries = find_binaries()
    if not binaries:
        raise NoServerError("no redis-server on PATH: install one, or set NEARCACHE_REDIS_SERVER to its path")
    return binaries[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _options(binary: Binary) -> dict[str, str | list[str]]:
    return {"enable-debug-command": "yes"} if binary.version >= (7, 0, 0) else {}


class Plain:
    """One server, or several as client-side shards, on unix sockets behind the proxy.

    Attributes:
        servers: The servers, by number, which is the shard's too.
        sizes: How many of them, from the first on, make a list of shards: at the beginning, and after a change.
    """

    def __init__(self, topology: str) -> None:
        binary = _binary()
        self.directory = Path(tempfile.mkdtemp(prefix="nc-chaos-"))
        self.servers: list[RedisServer] = []
        try:
            for _ in range(_SHARDS[topology] + _SPARE[topology]):
                self.servers.append(RedisServer(binary, options=_options(binary)).start())
        except BaseException:
            self.close()
            raise
        self.sizes = tuple(range(_SHARDS[topology], len(self.servers) + 1))

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the servers and remove their files."""
        for server in self.servers:
            server.close()
        for path in self.directory.glob("*"):
            path.unlink()
        self.directory.rmdir()

    def routes(self, workers: int) -> list[Route]:
        """Return the proxy's addresses: one for each worker and server."""
        return [
            Route(number, worker, str(self.directory / f"{number}-{worker}.sock"), server.path)
            for number, server in enumerate(self.servers)
            for worker in range(workers)
        ]

    def urls(self, worker: int | None) -> list[str]:
        """Return the URL of each list of shards for a worker, through the proxy; None: straight."""
        if worker is None:
            paths = [server.path for server in self.servers]
        else:
            paths = [str(self.directory / f"{number}-{worker}.sock") for number in range(len(self.servers))]
        return [
            f"unix://{','.join(map(quote, paths[:size]))}?shard_names={','.join(_names(size))}" for size in self.sizes
        ]

    def find_keys(self, keys: int) -> tuple[list[int], str]:
        """Return the shard on which each key is found, and what precedes its name there. All must have been written."""
        shards, prefix = [-1] * keys, b""
        for number, server in enumerate(self.servers):
            with server.client() as client:
                for name in client.scan_iter(match="nc:*:v:*", count=1_000):
                    if match := _VALUE.search(name):
                        prefix = match[1]
                        shards[key_number(match[2].decode())] = number
        missing = [key for key, shard in enumerate(shards) if shard < 0]
        if missing:
            raise NoServerError(f"keys {missing[:5]} were written but are on no server")
        return shards, prefix.decode()

    def roaming(self, keys: int) -> list[bool]:
        """Return of each key whether a change of the list of shards alters its place."""
        placed = [(_names(size), Placement(_names(size)).table) for size in self.sizes]
        slots = [slot_of(encode_key(key_name(key))) for key in range(keys)]
        return [len({names[table[slot]] for names, table in placed}) > 1 for slot in slots]

    def place(self, names: Sequence[str]) -> list[int]:
        """Return the shard of each key, by the list of shards at the beginning."""
        table = Placement(_names(self.sizes[0])).table
        return [int(table[slot_of(encode_key(name))]) for name in names]

    def raw_addresses(self) -> list[dict[str, Any]]:
        """Return where the servers are, as redis-py takes it."""
        return [{"unix_socket_path": server.path} for server in self.servers]


class Nodes:
    """What Sentinel and Cluster have in common: servers on TCP ports that know each other, and no proxy.

    Attributes:
        servers: The data servers.
        sentinels: Those that watch; none in a cluster.
    """

    def __init__(self) -> None:
        self.binary = _binary()
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all servers."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def routes(self, workers: int) -> list[Route]:
        """None: the servers tell clients each other's addresses."""
        return []

    def url(self, worker: int | None) -> str:
        """Return the URL, the same for everybody."""
        raise NotImplementedError

    def urls(self, worker: int | None) -> list[str]:
        """Return it as the only one that there is."""
        return [self.url(worker)]

    def find_keys(self, keys: int) -> tuple[list[int], str]:
        """All keys count as one shard: a failover may concern any of them."""
        return [0] * keys, ""

    def roaming(self, keys: int) -> list[bool]:
        """None: it is one shard."""
        return [False] * keys

    def raw_addresses(self) -> list[dict[str, Any]]:
        """Return where the servers are, as redis-py takes it."""
        return [{"host": server.host, "port": server.port} for server in self.servers]

    def primaries(self) -> list[int]:
        """Return the numbers of the servers that say they are primaries; those that do not answer say nothing."""
        found = []
        for number, server in enumerate(self.servers):
            try:
                with server.client(socket_timeout=0.5) as client:
                    if client.execute_command("ROLE")[0] == b"master":
                        found.append(number)
            except (OSError, RuntimeError):
                continue
            except Exception as error:
                if type(error).__module__.split(".")[0] != "redis":
                    raise
        return found

    def await_primaries(self) -> None:
        """Wait until there are as many primaries as there should be.

        Raises:
            NoServerError: It does not come about.
        """
        wanted = 1 if self.sentinels else 3
        self.until(lambda: len(self.primaries()) == wanted, f"{wanted} primaries")

    def until(self, done: Any, what: str) -> None:
        """Wait until something is so.

        Raises:
            NoServerError: It does not come about.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise NoServerError(f"the servers do not come to this: {what}")
            time.sleep(0.05)


class Remembering(RedisServer):
    """A server that comes back with what Sentinels have written into its configuration, as real ones do."""

    _known = False

    def start(self) -> RedisServer:
        """Start it; see :class:`RedisServer`."""
        super().start()
        self._known = True
        return self

    def _config_lines(self) -> list[str]:
        if not self._known:
            return super()._config_lines()
        return (self.directory / "redis.conf").read_text().splitlines()


class Watched(Nodes):
    """A primary, two replicas, and three Sentinels."""

    name: Final = "chaos"

    def __init__(self) -> None:
        super().__init__()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        # Without the last two a primary that is cut off goes on taking writes that will be lost.
        options = _options(self.binary) | {"min-replicas-to-write": "1", "min-replicas-max-lag": "3"}
        options |= {"user": [f"{name} on >secret ~* &* +@all" for name in ALLIES]}
        options |= {"masteruser": "replica", "masterauth": "secret", "requirepass": "clients"}
        primary = Remembering(self.binary, transport="tcp", options=options).start()
        self.servers.append(primary)
        replica = {**options, "replicaof": f"127.0.0.1 {primary.port}"}
        for _ in range(2):  # one of them away must not stop all writes
            self.servers.append(Remembering(self.binary, transport="tcp", options=replica).start())
        lines = [
            f"sentinel monitor {self.name} 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds {self.name} 1000",
            f"sentinel failover-timeout {self.name} 5000",
            f"sentinel auth-user {self.name} sentinel",
            f"sentinel auth-pass {self.name} secret",
        ]
        for _ in range(3):
            self.sentinels.append(SentinelServer(self.binary, _free_port(), lines))
            self.sentinels[-1].start()
        self.until(self._agree, "three Sentinels that know each other and the replicas")

    def _agree(self) -> bool:
        for sentinel in self.sentinels:
            state = sentinel.cli("SENTINEL", "MASTER", self.name)
            facts = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
            facts = {_text(name): _text(value) for name, value in facts.items()}
            if int(facts.get("num-other-sentinels", 0)) < 2 or int(facts.get("num-slaves", 0)) < 2:
                return False
        return True

    def url(self, worker: int | None) -> str:
        """Return the URL, the same for everybody."""
        return f"redis+sentinel://:clients@{','.join(sentinel.address for sentinel in self.sentinels)}/{self.name}"


class Clustered(Nodes):
    """Three primaries with a replica each."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster = RedisCluster(self.binary, options={**_options(self.binary), "cluster-node-timeout": "2000"})
        self.servers = self._cluster.nodes
        try:
            self._cluster.__enter__()
        except AssertionError as error:
            self.close()
            raise NoServerError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all servers."""
        self._cluster.__exit__()

    def url(self, worker: int | None) -> str:
        """Return the URL, the same for everybody."""
        return self._cluster.url()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def start(topology: str) -> Plain | Watched | Clustered:
    """Return the running servers of a topology; a context manager.

    Raises:
        NoServerError: There is no server program, or the servers do not come up.
    """
    if topology == SENTINEL:
        return Watched()
    if topology == CLUSTER:
        return Clustered()
    return Plain(topology)
