"""Who answers at an address, and what is said when it cannot be used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

import nearcache
from nearcache.errors import (
    AuthenticationFailedError,
    NotRedisError,
    ServerReplyError,
    ShardError,
    ShardUnavailableError,
    UnsupportedServerError,
)
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.options import Endpoint
from support.errors import everything_said
from support.fake import INFO, FakeServer, bulk, tls_context
from support.lanes import endpoint_of
from support.ordeal import SLACK_S
from support.redis import TLS, RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.every_server

READ = [Exchange(0, [("PTTL", "k"), ("GET", "k")])]
RIGHTS = "~* &* +@all"


def first_answer(endpoint: Endpoint, *, timeout_s: float = 1.0) -> Reply | ShardError:
    """Return what a fresh driver gets for a read."""
    driver = Driver([endpoint], timeout_s=timeout_s, connect_timeout_s=timeout_s)
    try:
        return driver.execute(READ)[0]
    finally:
        driver.close()


def listener_error(endpoint: Endpoint) -> ShardError:
    """Return why a listener cannot connect."""
    driver = Driver([endpoint])
    with pytest.raises(ShardError) as caught:
        driver.connect_listener(0)
    driver.close()
    return caught.value


def at(server: FakeServer) -> Endpoint:
    """Return where a fake server is."""
    return Endpoint("a", host="127.0.0.1", port=server.port)


@pytest.mark.parametrize("password", ["wrong", None], ids=["wrong", "none"])
def test_password_that_is_wrong_or_missing_is_said(no_leaks: None, redis_server: RedisServer, password: str) -> None:
    """On pooled and listener connections; the password itself is never shown."""
    redis_server.cli("CONFIG", "SET", "requirepass", "right")
    endpoint = Endpoint("a", path=redis_server.path, password=password)
    for error in (first_answer(endpoint), listener_error(endpoint)):
        assert isinstance(error, AuthenticationFailedError)
        assert "default user" in str(error)
        assert "wrong" not in str(error).replace("WRONGPASS", "")
    right = Endpoint("a", path=redis_server.path, password="right")
    assert isinstance(first_answer(right), Reply)
    driver = Driver([right])
    driver.connect_listener(0).close()
    driver.close()


@pytest.mark.parametrize(
    ("command", "meet", "kind"),
    [("HELLO", listener_error, UnsupportedServerError), ("AUTH", first_answer, AuthenticationFailedError)],
)
def test_password_is_not_shown_by_a_server_that_repeats_what_it_does_not_know(
    no_leaks: None,
    make_redis: Callable[..., RedisServer],
    caplog: pytest.LogCaptureFixture,
    command: str,
    meet: Callable[[Endpoint], object],
    kind: type[ShardError],
) -> None:
    """Old servers and proxies do. That it is among the arguments does not make it what is wrong, either."""
    user = f"user nc on >s3cret {RIGHTS}"
    server = make_redis(options={"rename-command": f'{command} ""'}, acl=[user], auth=("nc", "s3cret"))
    error = meet(Endpoint("a", path=server.path, username="nc", password="s3cret"))
    assert isinstance(error, kind)
    assert "unknown command" in str(error)
    assert "s3cret" not in everything_said(error)
    if command == "HELLO":
        with nearcache.open(server.url, username="nc", password="s3cret") as cache:
            wait_until(lambda: caplog.messages and "RESP3" in cache.health().shards[0].last_error, what="refused")
            assert "s3cret" not in caplog.text + str(cache.health())


def test_password_where_none_is_needed_is_said(redis_server: RedisServer) -> None:
    """A server without a password refuses one, and tells so."""
    endpoint = Endpoint("a", path=redis_server.path, password="needless")
    assert isinstance(first_answer(endpoint), AuthenticationFailedError)


def test_acl_user_is_let_in_with_the_right_password_only(make_redis: Callable[..., RedisServer]) -> None:
    """The message names the user."""
    server = make_redis(acl=[f"user nc on >secret {RIGHTS}"])
    assert isinstance(first_answer(Endpoint("a", path=server.path, username="nc", password="secret")), Reply)
    endpoint = Endpoint("a", path=server.path, username="nc", password="other")
    for error in (first_answer(endpoint), listener_error(endpoint)):
        assert isinstance(error, AuthenticationFailedError)
        assert "'nc'" in str(error)


def test_password_that_a_function_says_is_asked_for_each_connection(make_redis: Callable[..., RedisServer]) -> None:
    """The listener's too; and with the user's name, if it says that."""
    server = make_redis(acl=[f"user nc on >first {RIGHTS}", f"user other on >second {RIGHTS}"])
    tokens: list[Any] = [("other", "second"), "first", "wrong"]
    driver = Driver([Endpoint("a", path=server.path, username="nc", password=lambda: tokens.pop())])
    with pytest.raises(AuthenticationFailedError, match="'nc'"):
        driver.connect_listener(0)
    driver.connect_listener(0).close()
    assert driver.execute([Exchange(0, [("ACL", "WHOAMI")])])[0] == Reply([b"other"], driver.status(0).identity)
    assert not tokens
    driver.close()


@pytest.mark.parametrize("failing", [True, False], ids=["raises", "returns nothing"])
def test_function_that_says_no_password_is_named(redis_server: RedisServer, failing: bool) -> None:
    """By connections of both kinds."""

    def token() -> Any:
        if failing:
            raise LookupError("nobody at home")

    endpoint = Endpoint("a", path=redis_server.path, password=token)
    for error in (first_answer(endpoint), listener_error(endpoint)):
        assert isinstance(error, ShardUnavailableError if failing else AuthenticationFailedError)
        assert "token" in str(error)
        assert isinstance(error.__cause__, LookupError) == failing


def test_function_that_says_no_password_any_more_fails_no_call_that_has_a_connection(redis_server: RedisServer) -> None:
    """The service of tokens is away, not the server: nothing counts against that."""
    redis_server.cli("CONFIG", "SET", "requirepass", "right")
    tokens = ["right"]
    driver = Driver([Endpoint("a", path=redis_server.path, password=lambda: tokens.pop())])
    assert isinstance(driver.execute(READ)[0], Reply)
    for _ in range(5):
        with pytest.raises(ShardUnavailableError, match="raised IndexError"):
            driver.connect_listener(0)
    assert isinstance(driver.execute(READ)[0], Reply)
    driver.close()


def test_user_without_info_can_work_but_has_no_identity(make_redis: Callable[..., RedisServer]) -> None:
    """Identity 0 says "unknown": L2 works, and L1 keeps nothing that came over it."""
    server = make_redis(acl=[f"user nc on >secret {RIGHTS} -info"])
    driver = Driver([Endpoint("a", path=server.path, username="nc", password="secret")])
    reply = driver.execute(READ)[0]
    assert reply == Reply([-2, None], 0)
    link = driver.connect_listener(0)
    assert link.identity == 0
    link.close()
    assert driver.status(0).version == ""
    driver.close()


def test_info_without_ids_gives_no_identity() -> None:
    """A service that hides its run id can be used, but is not taken for the same server."""
    with FakeServer(lambda c: bulk(b"redis_version:7.0.0\r\nrole:master\r\n") if c[0] == b"INFO" else b"+OK\r\n",
                    whole=True) as server:  # fmt: skip
        reply = first_answer(at(server))
        assert isinstance(reply, Reply)
        assert reply.identity == 0


@pytest.mark.parametrize(
    "word", [b"BUSY Redis is busy running a script", b"LOADING in memory", b"MASTERDOWN link down"]
)
def test_info_refused_for_the_moment_is_no_connection_without_identity(no_leaks: None, word: bytes) -> None:
    """It would have none for as long as it lasts, and L1 would keep nothing: better to try again."""
    refusal = b"-" + word + b"\r\n"
    with FakeServer(lambda c: refusal if c[0] == b"INFO" else b"+OK\r\n", whole=True) as server:
        error = first_answer(at(server))
        assert isinstance(error, ShardUnavailableError)
        assert word.split()[0].decode() in str(error)
        assert isinstance(listener_error(at(server)), ShardUnavailableError)


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "raw", [HTTP, b"220 mail.example.com ESMTP\r\n", b"\0\xff\x13garbage\r\n" * 9, b"\x16\x03\x01"]
)
def test_server_that_speaks_something_else_is_not_redis(no_leaks: None, raw: bytes) -> None:
    """HTTP, mail, garbage."""
    with FakeServer(raw=raw) as server:
        for error in (first_answer(at(server)), listener_error(at(server))):
            assert isinstance(error, NotRedisError)
            assert str(server.port) in str(error)


def test_server_that_says_ok_to_everything_is_not_redis() -> None:
    """It speaks the protocol, but has no INFO."""
    with FakeServer(whole=True) as server:
        assert isinstance(first_answer(at(server)), NotRedisError)
    with FakeServer(lambda command: bulk(b"what?"), whole=True) as server:
        assert isinstance(first_answer(at(server)), NotRedisError)


def test_server_that_is_silent_is_unavailable_within_the_deadline(no_leaks: None) -> None:
    """A paused Redis is as silent as a foreign server, so this proves nothing; but the message asks."""
    with FakeServer(raw=b"") as server:
        start = time.monotonic()
        error = first_answer(at(server), timeout_s=0.2)
        assert time.monotonic() - start < 0.2 + SLACK_S
        assert isinstance(error, ShardUnavailableError)
        assert not error.sent
        assert "is it paused or overloaded, or no Redis, or on the other side of TLS?" in str(error)


def test_server_that_hangs_up_at_once_is_unavailable(no_leaks: None) -> None:
    """As a server does that is shutting down, or whose port wants TLS."""
    with FakeServer(lambda command: None, whole=True) as server:
        error = first_answer(at(server))
        assert isinstance(error, ShardUnavailableError)
        assert "hung up" in str(error)


def test_handshake_that_trickles_ends_at_the_deadline(no_leaks: None) -> None:
    """Each byte in time does not make the whole in time."""

    def trickle(command: list[bytes]) -> Iterator[bytes]:
        for byte in bulk(INFO) * 20:  # some minutes
            time.sleep(0.05)
            yield bytes((byte,))

    with FakeServer(trickle, whole=True) as server:
        start = time.monotonic()
        assert isinstance(first_answer(at(server), timeout_s=0.2), ShardUnavailableError)
        assert time.monotonic() - start < 0.2 + SLACK_S


@pytest.mark.parametrize("version", [b"6.0.16", b"5.0.7", b"2.8.0"])
def test_server_that_is_too_old_is_said(version: bytes) -> None:
    """With the version it has and the one it needs."""
    with FakeServer(lambda c: bulk(INFO.replace(b"7.0.15", version)), whole=True) as server:
        error = first_answer(at(server))
        assert isinstance(error, UnsupportedServerError)
        assert version.decode() in str(error)
        assert "6.2" in str(error)


def test_listener_of_a_server_without_resp3_is_said() -> None:
    """The listener's fence needs RESP3."""

    def old(command: list[bytes]) -> bytes:
        return b"-ERR unknown command `HELLO`\r\n" if command[0] == b"HELLO" else bulk(INFO)

    with FakeServer(old, whole=True) as server:
        assert isinstance(first_answer(at(server)), Reply)
        assert isinstance(listener_error(at(server)), UnsupportedServerError)


def test_replica_is_refused_and_its_primary_named(make_redis: Callable[..., RedisServer]) -> None:
    """What a lagging replica answers must not enter L1, so nothing is read from one."""
    primary = make_redis(transport="tcp")
    replica = make_redis(options={"replicaof": f"127.0.0.1 {primary.port}"})
    for error in (first_answer(endpoint_of(replica)), listener_error(endpoint_of(replica))):
        assert isinstance(error, ShardUnavailableError)
        assert f"127.0.0.1:{primary.port}" in str(error)


def test_server_with_too_many_clients_is_unavailable(redis_server: RedisServer) -> None:
    """It answers with an error and hangs up; the error is passed on."""
    with redis_server.client() as client:
        client.config_set("maxclients", 1)
        error = first_answer(endpoint_of(redis_server))
        assert isinstance(error, ShardUnavailableError)
        assert "max number of clients" in str(error)


def test_database_out_of_range_is_the_servers_error(redis_server: RedisServer) -> None:
    """Not an unavailable server: waiting does not help."""
    error = first_answer(endpoint_of(redis_server, db=99))
    assert isinstance(error, ServerReplyError)
    assert "DB index" in str(error)
    assert "db=99: give one below its number of databases" in str(error)
    assert error.reply == "ERR DB index is out of range"


def test_numbers_are_not_left_to_hiredis_to_write(
    no_leaks: None, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packing crashes where a signal handler raises meanwhile, as that of a time limit does."""

    def refuse(words: tuple[object, ...]) -> bytes:
        raise AssertionError(words)

    monkeypatch.setattr(hiredis, "pack_command", refuse)
    driver = Driver([endpoint_of(redis_server, db=3)])
    assert isinstance(driver.execute(READ)[0], Reply)
    shard: Any = driver._shards[0]
    shard.doom(shard.pool.idle[0])
    assert isinstance(driver.execute(READ)[0], Reply)
    assert not shard._doomed
    driver.connect_listener(0).close()
    driver.close()


def test_host_names_that_do_not_exist_are_unavailable() -> None:
    """Unresolvable, and impossible ones."""
    for host in ("nothing.invalid", "a..b", "x" * 80):
        error = first_answer(Endpoint("a", host=host, port=1), timeout_s=5)
        assert isinstance(error, ShardUnavailableError)
        assert host in str(error)


def test_unix_socket_that_does_not_exist_is_unavailable() -> None:
    """The message has the path."""
    error = first_answer(Endpoint("a", path="/nonexistent/redis.sock"))
    assert isinstance(error, ShardUnavailableError)
    assert "/nonexistent/redis.sock" in str(error)


# -- TLS ---------------------------------------------------------------------------------------------------------


def over_tls(server: FakeServer, *, host: str = "localhost", ca: str | None = str(TLS / "cert.pem")) -> Endpoint:
    """Return where a fake server is, for TLS."""
    return Endpoint("a", host=host, port=server.port, tls=True, ssl_ca_certs=ca)


def test_tls_carries_small_and_large_exchanges(no_leaks: None) -> None:
    """Large ones both ways at once, and through the short way too."""
    value = bytes(1_000_000)
    with FakeServer(lambda command: bulk(command[1]), tls=tls_context()) as server:
        driver = Driver([over_tls(server)])
        assert driver.execute([Exchange(0, [("ECHO", "x"), ("ECHO", "y")])])[0].values == [b"x", b"y"]
        assert driver.execute([Exchange(0, [("ECHO", value)] * 20)], timeout_s=30)[0].values == [value] * 20
        assert driver.execute([Exchange(0, [("ECHO", "x")])])[0].values == [b"x"]
        assert driver.status(0).connections == 1
        driver.close()


def test_tls_listener_reads_all_that_was_decrypted(no_leaks: None) -> None:
    """One TLS record may hold more than one ``recv`` asks for; no selector would tell of the rest."""

    def answer(command: list[bytes]) -> bytes:
        return bulk(INFO) if command[0] == b"INFO" else b"+OK\r\n" * (100_000 if command[0] == b"MANY" else 1)

    with FakeServer(answer, whole=True, tls=tls_context()) as server:
        driver = Driver([over_tls(server)])
        link = driver.connect_listener(0)
        link.sock.settimeout(5)
        link.send(("MANY",))
        size = 0
        while size < 500_000:
            size += len(link.receive() or b"")
        assert size == 500_000
        link.close()
        driver.close()


def test_tls_with_an_unknown_certificate_is_refused() -> None:
    """Without the authority that signed it nothing is sent, the password least of all."""
    with FakeServer(tls=tls_context()) as server:
        error = first_answer(over_tls(server, ca=None))
        assert isinstance(error, ShardUnavailableError)
        assert "ssl_ca_certs" in str(error)
        assert server.commands == []


def test_tls_with_another_host_name_is_refused() -> None:
    """The certificate must be this host's."""
    with FakeServer(tls=tls_context()) as server:
        error = first_answer(over_tls(server, host="127.0.0.2"))
        assert isinstance(error, ShardUnavailableError)
        assert server.commands == []


def test_tls_to_a_port_without_it_is_said(redis_server: RedisServer, make_redis: Callable[..., RedisServer]) -> None:
    """A Redis without TLS hangs up on a TLS greeting, another server answers in its own way."""
    with FakeServer(raw=HTTP) as server:
        assert isinstance(first_answer(over_tls(server)), NotRedisError)
    plain = make_redis(transport="tcp")
    error = first_answer(Endpoint("a", host="localhost", port=plain.port, tls=True, ssl_ca_certs=str(TLS / "cert.pem")))
    assert isinstance(error, (NotRedisError, ShardUnavailableError))
