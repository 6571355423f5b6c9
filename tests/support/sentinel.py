"""A master, its replica and three sentinels, all real, on loopback; the sentinels are quick to act."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from redis.exceptions import ConnectionError, ResponseError  # noqa: A004  redis-py's name

from support.redis import SERVER_TLS, Binary, RedisServer, _free_port
from support.waiting import wait_until

#: Name of the master.
MASTER = "m1"
DOWN_AFTER_MS = 500
FAILOVER_TIMEOUT_MS = 2000


class SentinelServer(RedisServer):
    """One sentinel process; what it knows at the start are these lines of configuration."""

    def __init__(self, binary: Binary, port: int, lines: list[str], transport: str = "tcp") -> None:
        super().__init__(binary, transport=transport)
        self.port = port
        self._lines = lines

    def _command(self) -> list[str]:
        return [*super()._command(), "--sentinel"]

    def _config_lines(self) -> list[str]:
        written = self.directory / "redis.conf"
        if written.exists():  # it was here before, and has noted what it knows
            return written.read_text().splitlines()
        ports = [f"port {self.port}"]
        if self.transport == "tls":
            ports = ["port 0", f"tls-port {self.port}", *(f"{option} {value}" for option, value in SERVER_TLS.items())]
        return [f"bind {self.host}", *ports, f"dir {self.directory}", "daemonize no", *self._lines]


class Guarded:
    """See the module. Use it as a context manager.

    Args:
        binary: The server program of all five.
        options: Configuration of master and replica.
        sentinel_lines: Configuration of the sentinels.
        transport: ``"tcp"`` or ``"tls"``.
    """

    def __init__(
        self,
        binary: Binary,
        *,
        options: dict[str, str] | None = None,
        sentinel_lines: list[str] | None = None,
        transport: str = "tcp",
    ) -> None:
        self._binary = binary
        self._options = options or {}
        self._transport = transport
        self._more = sentinel_lines or []
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Guarded:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        master = self._run(RedisServer(self._binary, transport=self._transport, options=self._options))
        replica = self._run(
            RedisServer(
                                self._binary,
                transport=self._transport,

                options={"replicaof": f"127.0.0.1 {master.port}", "repl-ping-replica-period": "1"} | self._options,
            )
        )  # fmt: skip
        self.servers = [master, replica]
        wait_until(lambda: self.role(replica).get("master_link_status") == "up", 20, what="replica in step")
        # The master counts it only when it has heard so.
        wait_until(lambda: self.role(master).get("min_slaves_good_slaves", 1) > 0, 20, what="replica counted")
        # They are told of each other, which they would otherwise find out in seconds.
        ports = [_free_port() for _ in range(3)]
        ids = [secrets.token_hex(20) for _ in ports]
        for mine, port in enumerate(ports):
            lines = [
                f"sentinel myid {ids[mine]}",
                f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2",
                f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {MASTER} {FAILOVER_TIMEOUT_MS}",
                f"sentinel known-replica {MASTER} 127.0.0.1 {replica.port}",
                *(
                    f"sentinel known-sentinel {MASTER} 127.0.0.1 {ports[other]} {ids[other]}"
                    for other in range(3) if other != mine
                ),
                *self._more,
            ]  # fmt: skip
            self.sentinels.append(self._run(SentinelServer(self._binary, port, lines, self._transport)))

    def _run(self, server: Any) -> Any:
        return self._stack.enter_context(server)

    def url(self, *, scheme: str = "redis+sentinel", query: str = "") -> str:
        """Return what ``nearcache.open`` takes."""
        return f"{scheme}://{','.join(sentinel.address for sentinel in self.sentinels)}/{MASTER}{query}"

    @staticmethod
    def role(server: RedisServer) -> dict[str, Any]:
        """Return INFO replication; nothing where sentinels cut the connection, as they do when they change roles."""
        with server.client() as client:
            try:
                return dict(client.info("replication"))
            except ConnectionError:
                return {}

    def named(self, sentinel: RedisServer) -> int:
        """Return the port of the master as a sentinel names it."""
        return int(sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    @property
    def master(self) -> RedisServer:
        """Return the server that the first sentinel names."""
        port = self.named(self.sentinels[0])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Let the sentinels swap the roles, and wait until all of them name the new master."""
        old = self.master
        self._when_ready(lambda: self.sentinels[0].cli("SENTINEL", "FAILOVER", MASTER))
        self.await_other_than(old)

    def kill_master(self) -> RedisServer:
        """Kill the master, once the sentinels could replace it; return it. The election takes a second or two."""
        old = self.master
        self._when_ready(lambda: True)
        old.kill()
        return old

    def await_other_than(self, old: RedisServer) -> None:
        """Wait until all sentinels name another master than ``old``, and both servers know it."""
        wait_until(lambda: all(self.named(each) != old.port for each in self.sentinels), 30, what="elected")
        wait_until(lambda: self.role(self.master).get("role") == "master", 30, what="promoted")
        wait_until(lambda: not old.running or self.role(old).get("role") == "slave", 30, what="demoted")

    def _when_ready(self, act: Callable[[], Any]) -> None:
        def ready() -> bool:
            with self.sentinels[0].client() as client:
                known = client.execute_command("SENTINEL", "REPLICAS", MASTER)
            flags = [
                dict(zip(each[::2], each[1::2], strict=True)) if isinstance(each, list) else each for each in known
            ]
            fields = {_text(key): _text(value) for key, value in flags[0].items()} if flags else {}
            return fields.get("master-link-status") == "ok" and fields.get("flags") == "slave"

        wait_until(ready, 30, what="a replica that can be promoted")
        wait_until(lambda: self._quorum(), 30, what="a quorum of sentinels")
        act()

    def _quorum(self) -> bool:
        try:
            return "OK" in str(self.sentinels[0].cli("SENTINEL", "CKQUORUM", MASTER))
        except ResponseError:  # NOQUORUM
            return False


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
