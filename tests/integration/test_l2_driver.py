"""The driver at work: replies, scripts, batches of any size, several shards, pools. On every server found."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

from nearcache.errors import ClosedError, ServerReplyError, ShardUnavailableError
from nearcache.l2 import Driver, Exchange, ListenerLink, Reply, load_script
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk
from support.lanes import NONCE, endpoint_of, wid
from support.redis import RedisServer
from support.waiting import wait_until

PREFIX = b"nc:{t:0}:"
READ = Exchange(0, [("PTTL", "k"), ("GET", "k")])
#: Threads that make the first connection of a process, one after the other while what they need is being imported.
DIALLERS = """
import threading, time
from nearcache.l2.connection import dial
from nearcache.options import parse

failures = []

def run(place, nowhere=parse("redis://127.0.0.1:1").endpoints[0]):
    time.sleep(place * 0.015)
    try:
        dial(nowhere, 1.0)
    except OSError:
        pass
    except BaseException as error:
        failures.append(repr(error))

threads = [threading.Thread(target=run, args=(place,)) for place in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures)
"""


@pytest.fixture
def driver(no_leaks: None, redis_server: RedisServer) -> Iterator[Driver]:
    """A driver for one server."""
    driver = Driver([endpoint_of(redis_server)])
    yield driver
    driver.close()


def values(reply: object) -> list[object]:
    """Return the values of a reply that must have come."""
    assert isinstance(reply, Reply), reply
    return reply.values


def test_execute_returns_values_in_order(driver: Driver) -> None:
    """One reply per exchange, one value per command; texts, bytes and numbers are sent as they are."""
    reply = driver.execute([Exchange(0, [("SET", "k", b"\0\xff"), ("SET", b"n", 12, "PX", 50_000), (b"GET", "k")])])[0]
    assert values(reply) == [b"OK", b"OK", b"\0\xff"]
    assert values(driver.execute([READ])[0]) == [-1, b"\0\xff"]
    assert values(driver.execute([Exchange(0, [("GET", "nothing"), ("PTTL", "nothing")])])[0]) == [None, -2]
    assert driver.execute([]) == []


def test_execute_puts_error_replies_in_place(driver: Driver) -> None:
    """One refused command does not take the others' answers with it."""
    reply = driver.execute([Exchange(0, [("SET", "k", 1), ("LPUSH", "k", 1), ("GET", "k"), ("NONSENSE",)])])[0]
    first, second, third, fourth = values(reply)
    assert (first, third) == (b"OK", b"1")
    assert isinstance(second, ServerReplyError)
    assert second.code == "WRONGTYPE"
    assert isinstance(fourth, ServerReplyError)
    assert fourth.shard == "a"
    assert values(driver.execute([READ])[0]) == [-1, b"1"]
    assert driver.status(0).connections == 1


def test_execute_of_what_cannot_be_sent_raises_and_sends_nothing(driver: Driver) -> None:
    """A mistake of the caller is the caller's, not the shard's."""
    with pytest.raises(TypeError):
        driver.execute([Exchange(0, [("SET", "k", object())])])
    assert values(driver.execute([READ])[0]) == [-2, None]


def test_identity_is_the_same_on_all_connections_of_a_server(driver: Driver, redis_server: RedisServer) -> None:
    """Pooled, listener's, or another driver's; and it is never 0 where INFO tells it."""
    reply = driver.execute([READ])[0]
    link = driver.connect_listener(0)
    other = Driver([endpoint_of(redis_server)])
    assert isinstance(reply, Reply)
    assert reply.identity == link.identity == driver.status(0).identity != 0
    assert other.execute([READ])[0] == reply
    link.close()
    other.close()


def test_identity_changes_when_the_server_restarts(driver: Driver, redis_server: RedisServer) -> None:
    """Another process with the same address is another server."""
    before = driver.execute([READ])[0]
    redis_server.restart()
    after = driver.execute([READ])[0]
    assert isinstance(before, Reply)
    assert isinstance(after, Reply)
    assert before.identity != after.identity


def test_scripts_unknown_to_the_server_are_sent_in_full_once(driver: Driver, redis_server: RedisServer) -> None:
    """NOSCRIPT is answered by one EVAL per script, whatever the number of its uses; everything else stays in place."""
    lane = PREFIX + b"L"
    beat = load_script("heartbeat").call([lane], [1, NONCE])
    wipe = load_script("invalidate").call([PREFIX + b"v:sk", PREFIX + b"l:sk", lane], [1, NONCE, wid(3)])
    redis_server.cli("CONFIG", "RESETSTAT")
    replies = values(driver.execute([Exchange(0, [("SET", "k", "v"), beat, beat, ("GET", "k"), wipe, wipe])])[0])
    assert [replies[0], replies[3]] == [b"OK", b"v"]
    assert replies[1][0] == replies[2][0] == NONCE
    assert replies[4][:3] == replies[5][:3] == [1, NONCE, 0]
    assert values(driver.execute([Exchange(0, [beat])])[0])[0][1] == b"2"
    stats = redis_server.client().info("commandstats")
    assert stats["cmdstat_eval"]["calls"] == 2
    assert driver.status(0).connections == 1


def test_large_batch_goes_both_ways(driver: Driver) -> None:
    """50 MB out and 50 MB in, in one exchange."""
    value = bytes(2_000_000)
    commands = [("SET", f"big{number}", value) for number in range(25)]
    reads = [("GET", f"big{number}") for number in range(25)]
    reply = driver.execute([Exchange(0, [*commands, *reads])], timeout_s=30)[0]
    assert values(reply) == [b"OK"] * 25 + [value] * 25
    assert values(driver.execute([READ])[0]) == [-2, None]


def test_large_batch_to_a_server_that_waits_for_its_reader_does_not_deadlock(no_leaks: None) -> None:
    """The server reads on only when its answers have been taken, and all buffers between are full."""
    value = bytes(1_000_000)
    with FakeServer(lambda command: bulk(command[1])) as server:
        driver = Driver([Endpoint("a", host="127.0.0.1", port=server.port)])
        reply = driver.execute([Exchange(0, [("ECHO", value)] * 50)], timeout_s=30)[0]
        assert values(reply) == [value] * 50
        driver.close()


def test_large_value_comes_in_pieces_over_the_short_way(driver: Driver) -> None:
    """A small request may have a large answer."""
    value = bytes(range(256)) * 40_000
    driver.execute([Exchange(0, [("SET", "k", value)])])
    for _ in range(3):
        assert values(driver.execute([READ])[0]) == [-1, value]
    assert driver.status(0).connections == 1


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_asked_at_the_same_time(make_redis: Callable[..., RedisServer], count: int) -> None:
    """All requests are out before the first answer is awaited: each is answered once all have arrived."""
    servers = [make_redis() for _ in range(count)]
    driver = Driver([endpoint_of(server, str(number)) for number, server in enumerate(servers)])

    def answer() -> None:
        wait_until(lambda: all(server.cli("INFO", "clients")["blocked_clients"] for server in servers))
        for number, server in enumerate(servers):
            server.cli("LPUSH", "list", number)

    answering = threading.Thread(target=answer)
    answering.start()
    replies = driver.execute([Exchange(shard, [("BLPOP", "list", 0)]) for shard in range(count)], timeout_s=20)
    answering.join()
    assert [values(reply) for reply in replies] == [[[b"list", b"%d" % shard]] for shard in range(count)]
    driver.close()


def test_many_threads_share_a_small_pool(driver: Driver, redis_server: RedisServer) -> None:
    """Every caller gets its own answers, and there are never more connections than allowed."""
    small = Driver([endpoint_of(redis_server)], pool_size=3, timeout_s=20)
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(200):
            mark = f"{number}:{turn}".encode()
            reply = small.execute([Exchange(0, [("ECHO", mark), ("ECHO", number)])])[0]
            if not isinstance(reply, Reply) or reply.values != [mark, b"%d" % number]:
                wrong.append(reply)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= small.status(0).connections <= 3
    assert small.status(0).in_use == 0
    small.close()


def test_exhausted_pool_makes_callers_wait_until_their_deadline(driver: Driver, redis_server: RedisServer) -> None:
    """A caller gets a connection as soon as one is put back, or is told that all stayed busy."""
    small = Driver([endpoint_of(redis_server)], pool_size=1, timeout_s=5)
    slow = threading.Thread(target=small.execute, args=([Exchange(0, [("BLPOP", "nothing", "0.4")])],))
    slow.start()
    wait_until(lambda: small.status(0).in_use == 1)
    reply = small.execute([READ], timeout_s=0.05)[0]
    assert isinstance(reply, ShardUnavailableError)
    assert "pool_size" in str(reply)
    assert not reply.sent
    assert small.status(0).breaker == "closed"
    assert values(small.execute([READ])[0]) == [-2, None]
    slow.join()
    small.close()


def test_calls_to_the_same_shards_in_other_orders_do_not_wait_for_each_other(
    make_redis: Callable[..., RedisServer],
) -> None:
    """With one connection per shard, who holds the first must not wait for who holds the second."""
    driver = Driver([endpoint_of(make_redis(), str(number)) for number in range(2)], pool_size=1, timeout_s=10)
    orders = [
        [Exchange(0, [("PING",)]), Exchange(1, [("PING",)])],
        [Exchange(1, [("PING",)]), Exchange(0, [("PING",)])],
    ]
    failed: list[object] = []

    def work(exchanges: list[Exchange]) -> None:
        for _ in range(150):
            failed.extend(reply for reply in driver.execute(exchanges) if not isinstance(reply, Reply))

    start = time.monotonic()
    threads = [threading.Thread(target=work, args=(order,)) for order in orders * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert time.monotonic() - start < 8
    driver.close()


def test_close_wakes_waiters_and_is_idempotent(no_leaks: None, redis_server: RedisServer) -> None:
    """A caller that waits for a connection gets ClosedError; the call under way gets its answer."""
    driver = Driver([endpoint_of(redis_server)], pool_size=1, timeout_s=5)
    answers: list[object] = []
    errors: list[Exception] = []

    def wait() -> None:
        try:
            driver.execute([READ])
        except ClosedError as error:
            errors.append(error)

    busy = threading.Thread(target=lambda: answers.extend(driver.execute([Exchange(0, [("BLPOP", "x", "0.5")])])))
    busy.start()
    wait_until(lambda: driver.status(0).in_use == 1)
    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: driver._shards[0].pool._waiters == 1)
    driver.close()
    driver.close()
    waiter.join()
    busy.join()
    assert len(errors) == 1
    assert values(answers[0]) == [None]
    with pytest.raises(ClosedError):
        driver.execute([READ])
    with pytest.raises(ClosedError):
        driver.connect_listener(0)


def test_listener_answers_come_after_the_messages_before_them(driver: Driver) -> None:
    """The subscribed connection answers commands, and the answer is a fence behind earlier messages."""
    lane = PREFIX + b"L"
    driver.execute([Exchange(0, [load_script("heartbeat").call([lane], [1, NONCE])])])
    link = driver.connect_listener(0)
    link.sock.setblocking(False)
    assert link.receive() is None
    link.send(("SUBSCRIBE", PREFIX + b"i"))
    got = read_items(link, 1)
    driver.execute([Exchange(0, [("PUBLISH", PREFIX + b"i", number) for number in range(3)])])
    link.send(load_script("heartbeat").call([lane], [1, NONCE]))
    got += read_items(link, 4)
    assert all(isinstance(item, hiredis.PushNotification) for item in got[:4])
    assert [item[2] for item in got[1:4]] == [b"0", b"1", b"2"]
    assert got[4][:5] == [NONCE, b"0", b"0" * 16, NONCE, b"1"]
    link.close()
    link.close()


def read_items(link: ListenerLink, count: int) -> list[object]:
    """Return the next replies and pushes from a link."""
    items: list[object] = []

    def more() -> bool:
        data = link.receive()
        if data:
            link.reader.feed(data)
        while len(items) < count and (item := link.reader.gets()) is not link.more:
            items.append(item)
        return len(items) == count

    wait_until(more)
    return items


def test_connection_of_an_earlier_term_is_not_given_to_who_waits(redis_server: RedisServer) -> None:
    """What is sent from now on goes over a new one, also if the only one is put back meanwhile."""
    driver = Driver([endpoint_of(redis_server)], timeout_s=30, pool_size=1)
    shard, ids = driver.shard(0), [("CLIENT", "ID")]
    seen: list[int] = []

    def ask(*more: tuple[object, ...]) -> None:
        seen.append(values(driver.execute([Exchange(0, [*ids, *more])])[0])[0])

    threads = [threading.Thread(target=ask, args=(("BLPOP", "gate", 20),)), threading.Thread(target=ask)]
    threads[0].start()
    wait_until(lambda: "cmd=blpop" in str(redis_server.cli("CLIENT", "LIST")).lower())
    shard.demoted()
    threads[1].start()
    wait_until(lambda: shard.pool._waiters == 1)
    redis_server.cli("LPUSH", "gate", 1)
    for thread in threads:
        thread.join(30)
    assert len(set(seen)) == 2
    driver.close()


def test_database_of_the_endpoint_is_selected(redis_server: RedisServer) -> None:
    """On pooled connections and the listener's alike."""
    driver = Driver([endpoint_of(redis_server, db=3)])
    assert values(driver.execute([Exchange(0, [("SET", "k", "three")])])[0]) == [b"OK"]
    assert values(driver.execute([READ])[0]) == [-1, b"three"]
    with redis_server.client(db=3) as client:
        assert client.get("k") == b"three"
    link = driver.connect_listener(0)
    link.send(("GET", "k"))
    assert read_items(link, 1) == [b"three"]
    link.close()
    driver.close()


def test_tcp_transport_works_like_unix(make_redis: Callable[..., RedisServer]) -> None:
    """The same over 127.0.0.1, and by host name."""
    server = make_redis(transport="tcp")
    for host in ("127.0.0.1", "localhost"):
        driver = Driver([Endpoint("a", host=host, port=server.port)])
        assert values(driver.execute([READ])[0]) == [-2, None]
        driver.close()


def test_idle_tcp_connections_are_kept_known_to_what_lies_between(make_redis: Callable[..., RedisServer]) -> None:
    """Load balancers forget who is silent for minutes: the next call goes nowhere. The listener's is one of them."""
    driver = Driver([endpoint_of(make_redis(transport="tcp"))])
    driver.execute([READ])
    link = driver.connect_listener(0)
    shard: Any = driver._shards[0]
    idle = getattr(socket, "TCP_KEEPIDLE", None) or vars(socket)["TCP_KEEPALIVE"]  # macOS has the latter
    for sock in (shard.pool.idle[0].sock, link.sock):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        options = (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [60, 10, 3]
    link.close()
    driver.close()


def test_status_tells_what_is_known(driver: Driver, redis_server: RedisServer) -> None:
    """Before and after the first call."""
    assert driver.status(0) == ("a", "closed", 0, "", 0, 0, "", 0, "", "", False)
    driver.execute([READ])
    status = driver.status(0)
    assert (status.connections, status.in_use) == (1, 0)
    assert status.version == ".".join(map(str, redis_server.binary.version))
    assert (status.address, status.guarded) == (redis_server.path, False)


def test_first_connections_of_many_threads_find_all_of_redis_py() -> None:
    """Threads that import parts of a package at the same time may find them half made, or each waiting for another."""
    done = subprocess.run([sys.executable, "-c", DIALLERS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
