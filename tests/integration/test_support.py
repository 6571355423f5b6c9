"""The test fixtures themselves: a broken one would make every other test lie."""

from __future__ import annotations

import os
import threading

import pytest
import redis as redis_py

from support import leaks, processes
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import WorkerError


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_redis_server_fresh_answers_and_is_gone_after_close(no_leaks, server_binary, transport):
    """A server answers as soon as it has been started, and close() leaves neither process nor directory."""
    with RedisServer(server_binary, transport=transport) as server:
        assert server.cli("SET", "k", "v") is True
        assert server.cli("GET", "k") == b"v"
        pid, directory = server.pid, server.directory
        with redis_py.Redis.from_url(server.url) as client:
            assert client.get("k") == b"v"
    assert not processes.is_alive(pid)
    assert not directory.exists()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("keep_data", [True, False])
def test_redis_server_restarted_keeps_address_and_data_as_asked(make_redis, transport, keep_data):
    """A restart changes the process, not the address; the data stay only when that is asked for."""
    server = make_redis(transport=transport)
    server.cli("SET", "k", "v")
    pid, address = server.pid, server.address
    server.restart(keep_data=keep_data)
    assert server.pid != pid
    assert server.address == address
    assert server.cli("GET", "k") == (b"v" if keep_data else None)


def test_redis_server_killed_starts_again_empty(redis_server):
    """After kill -9 nothing answers; a start brings back an empty server on the same socket."""
    redis_server.cli("SET", "k", "v")
    redis_server.kill()
    with pytest.raises(redis_py.ConnectionError):
        redis_server.cli("PING")
    redis_server.start()
    assert redis_server.cli("GET", "k") is None


def test_redis_server_paused_times_out_until_resumed(redis_server):
    """A paused server keeps its socket open and answers nobody."""
    redis_server.pause()
    with redis_server.client(socket_timeout=0.05) as client, pytest.raises(redis_py.TimeoutError):
        client.ping()
    redis_server.resume()
    assert redis_server.cli("PING")


def test_redis_server_options_password_and_acl_take_effect(make_redis):
    """Options reach the server; the helper logs in by itself, strangers are refused."""
    locked = make_redis(options={"requirepass": "secret", "maxmemory": "10mb"})
    with locked.client() as client:
        assert client.config_get("maxmemory") == {"maxmemory": "10485760"}
    with locked.client(username=None, password=None) as stranger, pytest.raises(redis_py.AuthenticationError):
        stranger.ping()
    ruled = make_redis(acl=["user reader on >pw ~open:* +get"])
    with ruled.client(username="reader", password="pw") as reader:
        assert reader.get("open:1") is None
        with pytest.raises(redis_py.ResponseError, match="permission"):
            reader.get("closed:1")


def test_redis_server_replica_follows_its_primary(make_redis):
    """A replica set up through options gets the primary's writes."""
    primary = make_redis(transport="tcp")
    replica = make_redis(transport="tcp", options={"replicaof": f"127.0.0.1 {primary.port}"})
    primary.cli("SET", "k", "v")
    wait_until(lambda: replica.cli("GET", "k") == b"v", timeout=10)


def test_redis_server_that_cannot_start_says_why(server_binary):
    """A refused configuration is an error that shows the server's own words."""
    with (
        pytest.raises(RuntimeError, match="no-such-option"),
        RedisServer(server_binary, options={"no-such-option": "1"}),
    ):
        pass


def test_worker_calls_return_values_and_exceptions(no_leaks, make_worker):
    """A worker's functions answer with their values; an exception arrives with its name and text."""
    worker = make_worker("def add(a, b):\n    print('noise', flush=True)\n    return a + b\n")
    assert worker.call("add", 2, b=3) == 5
    worker.run("x = 7")
    assert worker.eval("x * 6") == 42
    with pytest.raises(WorkerError) as caught:
        worker.call("add", 1, "a")
    assert caught.value.kind == "TypeError"
    assert "noise" in worker.errors()
    assert worker.finish() == 0


def test_worker_killed_reports_its_end(make_worker):
    """A dead worker is an error at the next request, never a hang."""
    worker = make_worker().ready()
    assert worker.eval("1") == 1
    worker.kill()
    with pytest.raises(WorkerError, match="ended with status -9"):
        worker.eval("1")


def test_leaks_held_things_are_named():
    """A thread, a descriptor and a child that outlive the snapshot are each reported."""
    before = leaks.holdings()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="left-over")
    thread.start()
    read, write = os.pipe()
    child = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
    try:
        found = "; ".join(leaks.leaked_since(before, grace=0))
        assert "left-over" in found
        assert f"{read} ->" in found
        assert str(child) in found
    finally:
        release.set()
        thread.join()
        os.close(read)
        os.close(write)
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert leaks.leaked_since(before) == []
