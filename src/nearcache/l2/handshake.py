"""The first exchange on a connection: who are we, who is there, and is that a server we can work with.

All commands go out in one batch under one deadline. Data connections stay with RESP2, which every proxy speaks; the
listener's connection needs RESP3, where a subscribed connection still answers commands in order: its fence.

**Identity** is a 64-bit hash of ``run_id`` and ``master_replid``, so it changes when the server restarts, is promoted,
or is another one behind the same address. A value may enter L1 only when the connection it came over and the
subscription have the same identity (rule R3 of the protocol). Where INFO is forbidden or lacks the two, the identity is
0, *unknown*, which equals nothing, itself included; then every read proves by itself that it belongs to the messages
(``loading.proof``). The address would be no substitute: behind a virtual address, an old connection may still reach the
old primary while the subscription is on the new one, and nothing would ever announce what changes there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._packing import pack
from ..clocks import Clock
from ..errors import (
    AuthenticationFailedError,
    NotRedisError,
    ServerReplyError,
    ShardError,
    ShardUnavailableError,
    UnsupportedServerError,
    WrongTopologyError,
)
from .connection import Connection, dial
from .logins import logged_in
from .scripts import Script
from .transfer import Flow, run

if TYPE_CHECKING:
    from ..options import Endpoint

_OLDEST: Final = (6, 2)
_NEEDS: Final = "nearcache needs Redis 6.2, Valkey 7.2 or newer"
_COMPLAINT: Final = "wants a certificate of this client that it can trust: give ssl_certfile and ssl_keyfile"
_REFUSALS: Final = frozenset({"NOAUTH", "WRONGPASS", "DENIED"})
# Answers to INFO that say nothing of the user's rights: the server has no time for it now.
_NOT_NOW: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN"})


class Peer(NamedTuple):
    """Who answered.

    Attributes:
        identity: See the module; 0: unknown.
        version: The server's own, not the Redis' that it wants to be taken for; empty: unknown.
        address: Where it is.
        guarded: Whether it refuses writes while it has no replica that keeps up (``min-replicas-to-write``).
    """

    identity: int
    version: str
    address: str = ""
    guarded: bool = False


def connect(endpoint: Endpoint, deadline_ns: int, clock: Clock, *, resp3: bool = False) -> tuple[Connection, Peer]:
    """Return a connection that is ready for use, and who is at its other end.

    Raises:
        ShardUnavailableError: Nobody listens, no answer by the deadline, too many clients, a replica answers, or
            nobody says the password; ``__cause__`` tells the first from the others.
        AuthenticationFailedError, NotRedisError, UnsupportedServerError: As they say.
        ServerReplyError: The server refused something else, such as the database number.
    """
    endpoint = logged_in(endpoint, deadline_ns, clock)
    connection, answers = converse(endpoint, _steps(endpoint, resp3=resp3), deadline_ns, clock)
    try:
        peer = _peer(answers, endpoint)
    except BaseException:
        connection.close()
        raise
    connection.identity = peer.identity
    connection.client = _client(answers, endpoint)
    return connection, peer


def converse(
    endpoint: Endpoint, steps: Mapping[str, tuple[Any, ...]], deadline_ns: int, clock: Clock
) -> tuple[Connection, dict[str, Any]]:
    """Return a new connection, and what was answered to the commands of ``steps``, by their names.

    Raises:
        ShardError: As :func:`connect`; a refused step that can be done without is an answer.
    """
    seconds = max(0.001, (deadline_ns - clock()) / 1e9)
    try:
        connection = dial(endpoint, seconds)
    except TimeoutError as error:
        silent = "complete a TLS handshake within {:.3g} s; is TLS spoken there?"
        words = silent if endpoint.tls else "accept a connection within {:.3g} s"
        raise ShardUnavailableError(endpoint.name, f"{endpoint.address} did not {words.format(seconds)}") from error
    except OSError as error:
        raise _refused(endpoint, error) from error
    try:
        began_ns = clock()
        answers = exchange(connection, steps, endpoint, deadline_ns, clock)
        connection.trip_ns = clock() - began_ns
    except BaseException:
        connection.close()
        raise
    return connection, answers


def _is_complaint(error: BaseException | None) -> bool:
    """Return whether a TLS error is the server's answer to this client's certificate, or to there being none."""
    reason = str(getattr(error, "reason", None) or "")
    return "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE"))


def _is_end(error: OSError) -> bool:
    """Return whether the other side has closed a connection, in whatever way that shows."""
    import ssl

    return isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _refused(endpoint: Endpoint, error: OSError) -> ShardError:
    if endpoint.tls and _is_end(error):
        hint = "is it down behind a proxy, full (maxclients), or no TLS?"
        text = f"{endpoint.address} hung up instead of a TLS handshake ({error}): {hint}"
        return ShardUnavailableError(endpoint.name, text)
    if type(error).__module__ == "ssl":
        reason = str(getattr(error, "reason", None) or error)
        if _is_complaint(error):
            return ShardUnavailableError(endpoint.name, f"{endpoint.address} {_COMPLAINT} ({error})")
        if "CERTIFICATE" in reason or "PEM" in reason or "KEY" in reason:
            remedy = "check ssl_ca_certs, ssl_check_hostname, the server's certificate, and your own if you have one"
            return ShardUnavailableError(endpoint.name, f"{endpoint.address}: TLS failed ({error}): {remedy}")
        return NotRedisError(
            endpoint.name, f"{endpoint.address} does not speak TLS ({reason}): use redis://, or the server's TLS port"
        )
    return ShardUnavailableError(endpoint.name, f"cannot connect to {endpoint.address}: {error}")


def exchange(
    connection: Connection, steps: Mapping[str, tuple[Any, ...]], endpoint: Endpoint, deadline_ns: int, clock: Clock
) -> dict[str, Any]:
    """Return what is answered to the commands of ``steps``; raises as :func:`converse`."""
    import hiredis

    # Not by hiredis alone: it writes a number by its repr(), in which signal handlers run, and crashes if one raises.
    request = pack(list(steps.values()), Script, hiredis.pack_command)
    flow = Flow(connection, request, len(steps))
    for _ in run([flow], deadline_ns, clock):
        pass
    answers = dict(zip(steps, flow.values, strict=False))
    _refuse_errors(answers, endpoint)
    if flow.failure is not None:
        raise _broken(flow, endpoint) from flow.failure
    connection.errors.clear()
    return answers


def credentials(endpoint: Endpoint) -> dict[str, tuple[Any, ...]]:
    """Return the step that logs in, if there is anything to log in with."""
    if endpoint.username:
        return {"auth": ("AUTH", endpoint.username, endpoint.password or "")}
    # One argument where there is no user name: what servers and proxies without ACLs understand.
    return {"auth": ("AUTH", endpoint.password)} if endpoint.password is not None else {}


def _steps(endpoint: Endpoint, *, resp3: bool) -> dict[str, tuple[Any, ...]]:
    login = credentials(endpoint)
    steps: dict[str, tuple[Any, ...]] = {} if resp3 else login
    if resp3:
        secret = (endpoint.username or "default", endpoint.password or "")
        steps["hello"] = ("HELLO", 3, "AUTH", *secret) if login else ("HELLO", 3)
    if endpoint.db:
        steps["select"] = ("SELECT", endpoint.db)
    if resp3:
        # Where clients are evicted to save memory, let it be another one. Not every server has it.
        steps["no-evict"] = ("CLIENT", "NO-EVICT", "on")
    else:
        steps["client"] = ("CLIENT", "ID")
    steps["server"] = ("INFO", "server")
    steps["replication"] = ("INFO", "replication")
    if endpoint.master:
        # Sentinels may not have heard yet that the master has changed, and INFO may be forbidden.
        steps["role"] = ("ROLE",)
    return steps


def _refuse_errors(answers: dict[str, Any], endpoint: Endpoint) -> None:
    """Raise for an error reply that rules this server out. A refused INFO or CLIENT does not."""
    for step, answer in answers.items():
        if not isinstance(answer, ServerReplyError):
            continue
        text = str(answer)
        # Not for ever: else a connection that was made in such a moment would have no identity as long as it lasts.
        if is_crowded(answer) or answer.code in _NOT_NOW:
            if is_crowded(answer):
                text = f"the server takes no more clients (maxclients): {answer.reply}"
            raise ShardUnavailableError(endpoint.name, text) from answer
        if step == "auth" or answer.code in _REFUSALS or (step == "hello" and "AUTH" in text):
            who = f"user {endpoint.username!r}" if endpoint.username else "the default user"
            raise AuthenticationFailedError(
                endpoint.name, f"{endpoint.address} refused {who}: check user name and password ({text})"
            ) from answer
        if step == "hello":
            raise UnsupportedServerError(
                endpoint.name, f"{endpoint.address} does not speak RESP3 ({text}); {_NEEDS}"
            ) from answer
        if step == "select" and "out of range" in text:
            remedy = f" to db={endpoint.db}: give one below its number of databases (CONFIG GET databases), or db=0"
            raise ServerReplyError(endpoint.name, answer.reply, f"{remedy} and a namespace= of its own") from answer
        if step == "select":
            raise answer


def is_crowded(error: BaseException | None) -> bool:
    """Return whether a server has said that it takes no more clients (``maxclients``)."""
    return isinstance(error, ServerReplyError) and "max number of clients" in error.reply


def _broken(flow: Flow, endpoint: Endpoint) -> ShardError:
    """Return what a handshake that ended early means."""
    if _is_complaint(flow.failure):  # with TLS 1.3 it comes only after the handshake
        return ShardUnavailableError(endpoint.name, f"{endpoint.address} {_COMPLAINT} ({flow.failure})")
    if isinstance(flow.failure, (TimeoutError, EOFError, OSError)):
        # A stopped Redis is silent as well, so silence proves nothing.
        what, hint = f"hung up ({flow.failure})", "is it a Redis, and is it this side of TLS?"
        if isinstance(flow.failure, TimeoutError):
            what = "answered nothing in time"
            hint = "is it paused or overloaded, or no Redis, or on the other side of TLS?"
        hint = "" if flow.heard or endpoint.tls else f"; {hint}"
        return ShardUnavailableError(endpoint.name, f"{endpoint.address} accepted the connection but {what}{hint}")
    return NotRedisError(endpoint.name, f"{endpoint.address} does not speak the Redis protocol ({flow.failure})")


def _peer(answers: dict[str, Any], endpoint: Endpoint) -> Peer:
    server, replication = (_info(answers[section], endpoint) for section in ("server", "replication"))
    version = server.get("valkey_version") or server.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        raise UnsupportedServerError(endpoint.name, f"{endpoint.address} runs version {version}; {_NEEDS}")
    check_mode(endpoint, server.get("redis_mode", ""))
    role = answers.get("role")
    is_master = replication.get("role", _said_role(answers.get("hello"))) == "master"
    if not is_master or (isinstance(role, list) and role[:1] not in ([b"master"], ["master"])):
        host = replication.get("master_host")
        primary = f"{host}:{replication.get('master_port')}" if host else "not known"
        remedy = "" if endpoint.clustered else ", give that address"
        raise ShardUnavailableError(endpoint.name, f"{endpoint.address} is a replica; its primary is {primary}{remedy}")
    run_id, history = server.get("run_id"), replication.get("master_replid")
    identity = 0
    if run_id and history:
        identity = identity_of(run_id, history)
    return Peer(identity, version, endpoint.address, "min_slaves_good_slaves" in replication)


def _client(answers: dict[str, Any], endpoint: Endpoint) -> tuple[str, int] | None:
    """Return by what the server knows the connection, if it tells."""
    run_id, number = _info(answers["server"], endpoint).get("run_id"), answers.get("client")
    return (run_id, number) if run_id and isinstance(number, int) else None


def _said_role(hello: Any) -> str:
    """Return the role that an answer to HELLO states; a master's where there is none: its writes will tell."""
    role = hello.get(b"role", b"master") if isinstance(hello, dict) else b"master"
    return role.decode(errors="replace") if isinstance(role, bytes) else "master"


def check_mode(endpoint: Endpoint, mode: str) -> None:
    """Compare what INFO calls ``redis_mode``, if it says anything, with the URL.

    Raises:
        WrongTopologyError: One means a cluster, and the other does not.
    """
    if mode == "cluster" and not endpoint.clustered:
        scheme = "rediss+cluster" if endpoint.tls else "redis+cluster"
        text = f"{endpoint.address} is a node of a Redis Cluster: open it as {scheme}://{endpoint.address}"
        raise WrongTopologyError(endpoint.name, text)
    if mode not in ("", "cluster") and endpoint.clustered:
        scheme = "rediss" if endpoint.tls else "redis"
        text = f"{endpoint.address} is not a node of a Redis Cluster: open it as {scheme}://{endpoint.address}"
        raise WrongTopologyError(endpoint.name, text)


def identity_of(run_id: str, history: str) -> int:
    """Return the identity of a server with this ``run_id`` and ``master_replid``."""
    digest = hashlib.blake2b(f"{run_id} {history}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def _info(answer: Any, endpoint: Endpoint) -> dict[str, str]:
    """Return the fields of an INFO reply; none if the server refused it."""
    if isinstance(answer, ServerReplyError):
        return {}
    if not isinstance(answer, (bytes, str)):
        raise NotRedisError(endpoint.name, f"{endpoint.address} answered INFO with {str(answer)[:60]!r}")
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if not fields:
        raise NotRedisError(endpoint.name, f"{endpoint.address} answered INFO with {text[:60]!r}")
    return fields
