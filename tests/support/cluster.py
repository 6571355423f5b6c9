"""A Redis Cluster of real nodes on loopback: three primaries, each with a replica, quick to act."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import redis
from redis.exceptions import ConnectionError, ResponseError, TimeoutError  # noqa: A004  redis-py's names

from support.redis import Binary, RedisServer
from support.waiting import wait_until

PRIMARIES = 3
SLOTS = 16_384
#: How long a node may be silent before it is replaced.
NODE_TIMEOUT_MS = 1000
_OPTIONS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
    "cluster-replica-validity-factor": "0",
    "cluster-require-full-coverage": "no",
    "cluster-allow-replica-migration": "no",
    "repl-diskless-sync": "yes",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",
    "databases": "1",
}


class RedisCluster:
    """See the module. Use it as a context manager.

    Args:
        binary: The server program of all nodes.
        options: More configuration, of all of them.
        transport: ``"tcp"`` or ``"tls"``.
        acl, auth: As for :class:`RedisServer`.
        replicas: Of each primary: 1, or 0 where nothing is to fail.
    Attributes:
        nodes: The servers. At the start the first three are primaries, and the others their replicas in the same order.
    """

    def __init__(
        self,
        binary: Binary,
        *,
        options: dict[str, str] | None = None,
        transport: str = "tcp",
        acl: Iterable[str] = (),
        auth: tuple[str | None, str] | None = None,
        replicas: int = 1,
    ) -> None:
        self._binary = binary
        self._stack = ExitStack()
        self._clients: dict[int, redis.Redis] = {}
        more = {"tls-cluster": "yes"} if transport == "tls" else {}
        self.nodes = [
            RedisServer(binary, transport=transport, options=_OPTIONS | more | (options or {}), acl=acl, auth=auth)
            for _ in range((1 + replicas) * PRIMARIES)
        ]

    def __enter__(self) -> RedisCluster:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self._clients.values():
            client.close()
        self._stack.close()

    def ask(self, node: RedisServer, *command: Any) -> Any:
        """Return a node's answer as it comes, over a connection that is kept."""
        client = self._clients.get(node.port)
        if client is None:
            client = self._clients[node.port] = node.client(socket_timeout=2.0)
            client.response_callbacks.clear()
        return client.execute_command(*command)

    def _start(self) -> None:
        for node in self.nodes:
            node.port = _pair_of_ports()
            self._stack.enter_context(node)
        for number, node in enumerate(self.nodes):
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < PRIMARIES:
                first, last = slots_of(number)
                if self._binary.version >= (7, 0, 0):
                    self.ask(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
                else:
                    self.ask(node, "CLUSTER", "ADDSLOTS", *range(first, last + 1))
            for other in self.nodes[:number]:  # all pairs: waiting for gossip takes longer
                self.ask(node, "CLUSTER", "MEET", other.host, other.port)
        ids = [self.id_of(node) for node in self.nodes]
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            wait_until(lambda: self._took(node, "CLUSTER", "REPLICATE", ids[number]), 15, what="known", step=0.02)  # noqa: B023
        self.await_well()

    def _took(self, node: RedisServer, *command: Any) -> bool:
        try:
            self.ask(node, *command)
        except ResponseError:
            return False
        return True

    # -- what it is like

    def url(self, *, scheme: str = "redis+cluster", user: str = "", query: str = "", nodes: int = 2) -> str:
        """Return what ``nearcache.open`` takes: some of the nodes."""
        return f"{scheme}://{user}{','.join(node.address for node in self.nodes[:nodes])}{query}"

    def id_of(self, node: RedisServer) -> str:
        """Return a node's own id."""
        return _text(self.ask(node, "CLUSTER", "MYID"))

    def view_of(self, node: RedisServer) -> list[list[str]]:
        """Return what a node knows of all nodes: id, address, flags, primary, ... and slots, word by word."""
        return [line.split() for line in _text(self.ask(node, "CLUSTER", "NODES")).splitlines()]

    def info_of(self, node: RedisServer) -> dict[str, str]:
        """Return CLUSTER INFO and INFO replication of a node."""
        texts = [self.ask(node, "CLUSTER", "INFO"), self.ask(node, "INFO", "replication")]
        return dict(line.split(":", 1) for text in texts for line in _text(text).split("\r\n") if ":" in line)

    def owner_of(self, slot: int) -> RedisServer:
        """Return the node that says itself that it has a slot and is a primary.

        Raises:
            LookupError: There is none now.
        """
        for node in self.nodes:
            own = self._own_line(node)
            if own and "master" in own[2] and any(_covers(word, slot) for word in own[8:]):
                return node
        raise LookupError(f"no node says that it has slot {slot}")

    def primaries(self) -> list[RedisServer]:
        """Return the nodes that say that they are primaries and have slots."""
        lines = [(node, self._own_line(node)) for node in self.nodes]
        return [node for node, own in lines if own and "master" in own[2] and len(own) > 8]

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """Return a replica of a primary."""
        its = self.id_of(primary)
        lines = [(node, self._own_line(node)) for node in self.nodes]
        return next(node for node, own in lines if own and own[3] == its)

    def _own_line(self, node: RedisServer) -> list[str]:
        if not node.running:
            return []
        try:
            return next((line for line in self.view_of(node) if "myself" in line[2]), [])
        except (ConnectionError, TimeoutError):
            return []

    def is_well(self) -> bool:
        """Whether all nodes run, agree, and every primary has a replica in step."""
        views = []
        for node in self.nodes:
            if not node.running:
                return False
            try:
                lines = self.view_of(node)
                info = self.info_of(node)
            except (ConnectionError, TimeoutError):
                return False
            if info["cluster_state"] != "ok" or any("fail" in line[2] or "handshake" in line[2] for line in lines):
                return False
            if info["role"] == "slave" and info.get("master_link_status") != "up":
                return False
            views.append(sorted((line[0], line[3], *line[8:]) for line in lines))
        alike = all(view == views[0] for view in views)
        return alike and len(views[0]) == len(self.nodes) and len(self.primaries()) == PRIMARIES

    def await_well(self, timeout: float = 30.0) -> None:
        """Wait until :meth:`is_well`."""
        wait_until(self.is_well, timeout, what="a cluster that is well", step=0.05)

    # -- what is done to it

    def fail_over(self, primary: RedisServer) -> RedisServer:
        """Let the replica of a primary take over in the orderly way; return it."""
        replica = self.replica_of(primary)
        wait_until(lambda: self._took(replica, "CLUSTER", "FAILOVER"), 10, what="a failover can begin", step=0.05)
        wait_until(lambda: replica in self.primaries(), 15, what="taken over", step=0.02)
        return replica

    @contextmanager
    def killed(self, primary: RedisServer) -> Iterator[RedisServer]:
        """A primary is killed, and its replica, which is returned, has taken over. At the end all is well again."""
        replica = self.replica_of(primary)
        primary.kill()
        try:
            wait_until(lambda: replica in self.primaries(), 30, what="promoted", step=0.02)
            yield replica
        finally:
            primary.start()
            self.await_well()

    def begin_move(self, slot: int, target: RedisServer) -> RedisServer:
        """Open a slot on both sides, as ``redis-cli --cluster reshard`` does; return where it is."""
        source = self.owner_of(slot)
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, *, at_once: int = 100) -> None:
        """Send a slot's keys over."""
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, at_once):
            self.ask(source, "MIGRATE", target.host, target.port, "", 0, 2000, "KEYS", *keys)

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Give the slot away."""
        mine = self.id_of(target)
        for node in (target, source, *self.primaries()):
            self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", mine)

    def move(self, slot: int, target: RedisServer, between: Callable[[], object] = lambda: None) -> RedisServer:
        """Move a slot with its keys; return where it was. ``between`` is called when half of it has been done."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, source, target)
        between()
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)
        return source


def slots_of(primary: int) -> tuple[int, int]:
    """Return the first and the last slot that a primary has at the start."""
    share = SLOTS // PRIMARIES + 1
    return primary * share, min((primary + 1) * share, SLOTS) - 1


def _covers(word: str, slot: int) -> bool:
    if word.startswith("["):  # on its way
        return False
    first, _, last = word.partition("-")
    return int(first) <= slot <= int(last or first)


def _pair_of_ports() -> int:
    """Return a free port, such that the one for the nodes among themselves, 10,000 above, is free too.

    Both are below those that the system gives to connections.
    """
    for _ in range(1000):
        port = random.randrange(11_000, 22_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise RuntimeError("no two free ports were found")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
