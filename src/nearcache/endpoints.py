"""The servers that a URL names: reading them, and hiding what is secret in it.

Part of ``options``, which checks the values of single options and puts everything together.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from .errors import ConfigError

SCHEMES: Final = (
    "embedded", "memory", "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster",
    "rediss+cluster",
)  # fmt: skip
#: What Valkey's own tools, and those who host it, call the first part of a scheme.
_OTHER_NAMES: Final = {"valkey": "redis", "valkeys": "rediss"}
#: Most servers of a list.
MOST_SHARDS: Final = 64
#: What namespaces, shards and embedded servers may be called.
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Longest path of a unix socket, in bytes: with the final zero 108 on Linux, and 104 on BSD.
MAX_SOCKET_PATH: Final = 107 if sys.platform == "linux" else 103
#: What can only be an IPv6 address, with its zone if it has one. Where it ends and a port begins, nobody can tell.
_BARE_IPV6: Final = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%.*)?")

Check = Callable[[str, Any], Any]
#: A text, or a function that returns it whenever a connection is made; or user name and password, as a pair.
Password: TypeAlias = str | Callable[[], str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis server. ``name`` is what placement hashes, so that a replacement host can keep its place; with
    ``weight`` it says which share of the keys the server has.

    With ``master``, the server is whichever the ``sentinels`` say is the master of that name; ``host`` and ``port`` are
    known from then on only. With ``clustered``, it is a node of a Redis Cluster.
    """

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    username: str | None = None
    password: Password | None = field(default=None, repr=False)
    tls: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    master: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_username: str | None = None
    sentinel_password: Password | None = field(default=None, repr=False)
    weight: int = 1
    clustered: bool = False

    @property
    def address(self) -> str:
        """Where the server listens, for messages to people; carries no secret."""
        if self.master and not self.host:
            return f"master {self.master} of " + ",".join(f"{host}:{port}" for host, port in self.sentinels)
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_endpoints(
    scheme: str, text: str, location: str, connection: dict[str, Any], check_db: Check
) -> tuple[Endpoint, ...]:
    """Return the servers that a URL names.

    Args:
        text: The whole URL, for messages.
        location: What stands between ``://`` and ``?``.
        connection: Options of connections that have been given; what the URL says beside is added to them.
        check_db: Checks the number of a database.
    Raises:
        ConfigError: The URL cannot be understood, or says otherwise than the options.
    """
    if scheme == "unix":
        return _unix(scheme, text, location, connection)
    if scheme.endswith("+cluster"):
        return _cluster(scheme, text, location, connection)
    if "+" in scheme:
        return _sentinel(scheme, text, location, connection)
    return _tcp(scheme, text, location, connection, check_db)


def _tcp(scheme: str, text: str, location: str, connection: dict[str, Any], check_db: Check) -> tuple[Endpoint, ...]:
    addresses, path = _authority(text, location, connection, 6379)
    if path:
        _fold(connection, {"db": check_db("db", path)})
    return _endpoints(
        [{"host": host, "port": port, "name": f"{host}:{port}"} for host, port in addresses],
        text, connection | {"tls": scheme == "rediss"},
    )  # fmt: skip


def _sentinel(scheme: str, text: str, location: str, connection: dict[str, Any]) -> tuple[Endpoint, ...]:
    sentinels, path = _authority(text, location, connection, 26379)
    masters = [unquote(name) for name in path.split(",")]
    if not all(NAME.fullmatch(name) for name in masters):
        raise ConfigError(
            "url",
            redact(text),
            f"name masters as the sentinels do, as in {scheme}://s1:26379,s2:26379/master1,master2",
        )
    return _endpoints(
        [{"name": name, "master": name, "sentinels": tuple(sentinels)} for name in masters],
        text, connection | {"tls": scheme.startswith("rediss")},
    )  # fmt: skip


def _cluster(scheme: str, text: str, location: str, connection: dict[str, Any]) -> tuple[Endpoint, ...]:
    """Return some nodes, from which the others are found."""
    addresses, path = _authority(text, location, connection, 6379)
    if path.strip("/") not in ("", "0"):
        raise ConfigError("url", redact(text), "leave out the database: a Redis Cluster has number 0 only")
    if connection.get("db"):
        raise ConfigError("db", connection["db"], "a Redis Cluster has database 0 only")
    return _endpoints(
        [{"host": host, "port": port, "name": f"{host}:{port}"} for host, port in addresses],
        text, connection | {"tls": scheme.startswith("rediss"), "clustered": True},
    )  # fmt: skip


def _authority(text: str, location: str, connection: dict[str, Any], port: int) -> tuple[list[tuple[str, int]], str]:
    """Return addresses and path; user name and password are folded into ``connection``."""
    hosts, _, path = location.partition("/")
    if "@" in path:
        raise ConfigError("url", redact(text), "write / in a user name or password as %2F")
    userinfo, at, hosts = hosts.rpartition("@")
    if "," in userinfo.partition("@")[2]:
        raise ConfigError("url", redact(text), "write user and password once, before all hosts; @ in a password as %40")
    if at:
        user, colon, password = userinfo.partition(":")
        given = {"username": unquote(user) or None, "password": unquote(password) if colon else None}
        _fold(connection, {option: value for option, value in given.items() if value is not None})
    return [_host(text, host, port) for host in hosts.split(",")], path


def _unix(scheme: str, text: str, location: str, connection: dict[str, Any]) -> tuple[Endpoint, ...]:
    paths = [unquote(path) for path in location.split(",")]
    for path in paths:
        if not path.startswith("/") or not path.isprintable():
            remedy = f"give absolute socket paths of printable characters, as in {scheme}:///run/redis.sock"
            raise ConfigError("url", redact(text), remedy)
        if len(path.encode("utf-8", "surrogatepass")) > MAX_SOCKET_PATH:
            raise ConfigError("url", redact(text), f"a socket's path has at most {MAX_SOCKET_PATH} bytes here")
    return _endpoints([{"path": path, "name": path} for path in paths], text, connection)


def _endpoints(places: list[dict[str, Any]], text: str, connection: dict[str, Any]) -> tuple[Endpoint, ...]:
    names = connection.pop("shard_names", None)
    if names is not None:
        if len(names) != len(places):
            raise ConfigError("shard_names", names, f"give one name for each of the {len(places)} shards")
        places = [place | {"name": name} for place, name in zip(places, names, strict=True)]
    weights = connection.pop("shard_weights", None)
    if weights is not None:
        if len(weights) != len(places):
            raise ConfigError("shard_weights", weights, f"give one weight for each of the {len(places)} shards")
        places = [place | {"weight": weight} for place, weight in zip(places, weights, strict=True)]
    if len({place["name"] for place in places}) != len(places):
        raise ConfigError("url", redact(text), "name every shard once")
    if len(places) > MOST_SHARDS:
        raise ConfigError("url", redact(text), f"give at most {MOST_SHARDS} servers")
    return tuple(Endpoint(**place, **connection) for place in places)


def _fold(connection: dict[str, Any], given: dict[str, Any]) -> None:
    for option, value in given.items():
        if connection.setdefault(option, value) != value:
            raise ConfigError(option, redact_value(option, value), "it is given twice, with different values")


def _host(text: str, host: str, default: int) -> tuple[str, int]:
    remedy = f"write hosts as HOST:PORT,HOST:PORT (port {default} when left out; IPv6 addresses in brackets)"
    if _BARE_IPV6.fullmatch(host):
        remedy = f"write the IPv6 address in brackets: [{host}], and a port behind them: [{host}]:{default}"
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("url", redact(text), remedy) from None
    if not name or port == 0 or " " in host or not unquote(host).isprintable():
        raise ConfigError("url", redact(text), remedy)
    if ":" in name:  # the zone of an IPv6 address stands behind an escaped % (RFC 6874)
        name = unquote(name)
    return name, default if port is None else port


def scheme_of(name: str) -> str:
    """Return which of :data:`SCHEMES` a URL's is, if it is one."""
    server, plus, found_by = name.partition("+")
    return _OTHER_NAMES.get(server, server) + plus + found_by


def redact(text: str) -> str:
    """Take out of a URL, however malformed, all that may be secret.

    That is what stands before an @, values of options, and what stands where a port should, if it cannot be a mistyped
    one: whoever forgets the host leaves the password there.
    """
    scheme, marker, rest = text.partition("://")
    if scheme_of(scheme) not in SCHEMES:
        scheme, marker, rest = "", "", text
    _, at, location = rest.rpartition("@")
    location, question, query = location.partition("?")
    location = re.sub(r"(^|,)(\[[^\],/]*\]?|[^:,/\[\]]*):(?![^:,/]{0,5}(?:[,/]|$))[^,/]+", r"\1\2:***", location)
    return scheme + marker + at.replace("@", "***@") + location + question + re.sub("=[^&]*", "=***", query)


def redact_value(option: str, value: object) -> object:
    """Return the value, or asterisks if the option's name says that it is secret."""
    return "***" if re.search("pass|pasw|pwd|secret|token|auth|signing|encrypt|user", option, re.IGNORECASE) else value
