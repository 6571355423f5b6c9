"""Servers that die, pause, lie and come back: a specific error within the deadline, and nothing left behind."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from nearcache.errors import AuthenticationFailedError, EmbeddedError, ShardUnavailableError
from nearcache.l2 import BreakerSettings, Driver, Exchange, Reply, load_script
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk
from support.lanes import NONCE, endpoint_of, envelope, wid
from support.ordeal import SLACK_S
from support.redis import RedisServer
from support.waiting import wait_until

PREFIX = b"nc:{t:0}:"
KEYS = [PREFIX + b"v:sk", PREFIX + b"l:sk", PREFIX + b"L"]
READ = [Exchange(0, [("PTTL", "k"), ("GET", "k")])]
WRITE = [Exchange(0, [load_script("set").call(KEYS, [1, NONCE, wid(1), NONCE, "", 60_000, envelope(NONCE)])])]
INVALIDATE = [Exchange(0, [load_script("invalidate").call(KEYS, [1, NONCE, wid(2)])])]
START = [Exchange(0, [load_script("heartbeat").call(KEYS[2:], [1, NONCE])])]


@pytest.fixture
def driver(no_leaks: None, redis_server: RedisServer) -> Iterator[Driver]:
    """A driver for one server, with a connection in its pool."""
    driver = Driver([endpoint_of(redis_server)], timeout_s=1.0)
    assert isinstance(driver.execute(START)[0], Reply)
    yield driver
    driver.close()


def fake_driver(server: FakeServer) -> Driver:
    """Return a driver for a fake server."""
    return Driver([Endpoint("a", host="127.0.0.1", port=server.port)])


def unavailable(reply: object) -> ShardUnavailableError:
    """Return the error that must have come."""
    assert isinstance(reply, ShardUnavailableError), reply
    return reply


# -- killed and restarted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [READ, WRITE, INVALIDATE], ids=["read", "write", "invalidate"])
def test_server_restarted_between_calls_costs_no_error(
    driver: Driver, redis_server: RedisServer, request_: list[Exchange]
) -> None:
    """The dead connection is noticed, or the request repeated where that does no harm."""
    redis_server.kill()
    redis_server.start()
    assert isinstance(driver.execute(request_)[0], Reply)
    assert driver.status(0).breaker == "closed"


def test_server_restarted_with_many_idle_connections_costs_no_error(driver: Driver, redis_server: RedisServer) -> None:
    """All idle connections are as dead as the first."""
    threads = [
        threading.Thread(target=driver.execute, args=([Exchange(0, [("BLPOP", "x", "0.2")])],)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert driver.status(0).connections >= 6
    redis_server.kill()
    redis_server.start()
    for request in (READ, START, WRITE, INVALIDATE):
        assert isinstance(driver.execute(request)[0], Reply)
    assert driver.status(0).connections == 1


def test_server_killed_refuses_and_the_breaker_opens(driver: Driver, redis_server: RedisServer) -> None:
    """The first call says why, the next ones cost nothing, and with the server back it goes on."""
    redis_server.kill()
    first = unavailable(driver.execute(READ)[0])
    assert redis_server.path in str(first)
    assert driver.status(0).breaker == "open"
    second = unavailable(driver.execute(READ)[0])
    assert not second.sent
    assert "because" in str(second)
    redis_server.start()
    wait_until(lambda: isinstance(driver.execute(READ)[0], Reply), timeout=2.0)
    assert driver.status(0).breaker == "closed"
    assert driver.status(0).retry_in_ns == 0


def test_calls_while_the_breaker_is_open_say_all_the_same_and_keep_the_cause(redis_server: RedisServer) -> None:
    """Who collects errors by their text sees one; who looks for the reason finds its class, without any frames."""
    endpoint = endpoint_of(redis_server, username="nobody", password="wrong")
    driver = Driver([endpoint], breaker=BreakerSettings(first_delay_ns=60 * 10**9, longest_delay_ns=60 * 10**9))
    first = driver.execute(READ)[0]
    assert isinstance(first, AuthenticationFailedError)
    second, third = (unavailable(driver.execute(READ)[0]) for _ in range(2))
    assert str(second) == str(third)
    assert str(second).count("refused user 'nobody'") == 1
    assert isinstance(second.__cause__, AuthenticationFailedError)
    assert str(second.__cause__) == str(first) == driver.status(0).last_error
    assert second.__cause__.__traceback__ is None
    driver.close()


def test_server_killed_in_a_call_reports_it_as_sent(driver: Driver, redis_server: RedisServer) -> None:
    """Whoever waited for an answer is told that the request may have been executed."""
    replies: list[object] = []
    thread = threading.Thread(target=lambda: replies.extend(driver.execute([Exchange(0, [("BLPOP", "x", "9")])])))
    thread.start()
    wait_until(lambda: driver.status(0).in_use == 1)
    wait_until(lambda: "cmd=blpop" in str(redis_server.cli("CLIENT", "LIST")).lower())
    redis_server.kill()
    thread.join()
    assert unavailable(replies[0]).sent
    assert driver.status(0).connections == 0


def test_note_alive_closes_the_breaker(driver: Driver, redis_server: RedisServer) -> None:
    """The listener's reconnect is as good as a call's success."""
    redis_server.kill()
    for _ in range(8):
        driver.execute(READ)
    redis_server.start()
    driver.note_alive(0)
    assert isinstance(driver.execute(READ)[0], Reply)


def test_listener_connect_closes_the_breaker_and_a_failed_one_opens_it(
    driver: Driver, redis_server: RedisServer
) -> None:
    """Both are news of the same server."""
    redis_server.kill()
    with pytest.raises(ShardUnavailableError):
        driver.connect_listener(0)
    assert driver.status(0).breaker != "closed"
    redis_server.start()
    driver.connect_listener(0).close()
    assert driver.status(0).breaker == "closed"


@pytest.mark.parametrize("helps", [True, False])
def test_unreachable_hook_is_called_once_and_decides_on_one_more_try(
    no_leaks: None, redis_server: RedisServer, helps: bool
) -> None:
    """The embedded default starts its servers again there."""
    redis_server.kill()
    called: list[int] = []

    def hook(shard: int) -> bool:
        called.append(shard)
        if helps:
            redis_server.start()
        return helps

    driver = Driver([endpoint_of(redis_server)], on_unreachable=hook, timeout_s=5.0)
    assert isinstance(driver.execute(READ)[0], Reply) is helps
    assert called == [0]
    driver.close()


def test_unreachable_hook_that_fails_tells_why_in_the_shards_error(no_leaks: None, redis_server: RedisServer) -> None:
    """Its error does not take the place of the other shards' answers."""
    redis_server.kill()

    def hook(shard: int) -> bool:
        raise EmbeddedError("no server program any more")

    driver = Driver([endpoint_of(redis_server)], on_unreachable=hook)
    assert "no server program any more" in str(unavailable(driver.execute(READ)[0]))
    assert driver.status(0).breaker != "closed"
    driver.close()


def test_invalidation_lost_with_its_server_counts_as_sent(no_leaks: None) -> None:
    """The first try may have been executed, whatever became of the second."""
    with FakeServer(lambda command: b"+PONG\r\n" if command[0] == b"PING" else None) as server:
        driver = fake_driver(server)
        driver.execute([Exchange(0, [("PING",)])])
        server._answer = lambda command: server._listener.close()
        server._listener.shutdown(socket.SHUT_RDWR)
        assert unavailable(driver.execute(INVALIDATE)[0]).sent
        driver.close()


def test_connections_from_before_a_promotion_are_replaced(make_redis: Callable[..., RedisServer]) -> None:
    """A server that was demoted and promoted has another identity; old connections would have the old one for ever."""
    other, server = make_redis(transport="tcp"), make_redis()
    driver = Driver([endpoint_of(server)])
    before = driver.execute(READ)[0]
    server.cli("REPLICAOF", "127.0.0.1", other.port)
    with server.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    server.cli("REPLICAOF", "NO", "ONE")
    link = driver.connect_listener(0)
    after = driver.execute(READ)[0]
    assert isinstance(before, Reply)
    assert isinstance(after, Reply)
    assert before.identity != after.identity == link.identity
    link.close()
    driver.close()


# -- paused and slow ---------------------------------------------------------------------------------------------


def test_server_paused_is_given_up_at_the_deadline(driver: Driver, redis_server: RedisServer) -> None:
    """One call waits no longer than it may; two lost answers open the breaker; afterwards it goes on."""
    redis_server.pause()
    start = time.monotonic()
    error = unavailable(driver.execute(READ, timeout_s=0.2)[0])
    assert 0.18 < time.monotonic() - start < 0.2 + SLACK_S
    assert error.sent
    assert isinstance(error.__cause__, TimeoutError)
    assert driver.status(0).breaker == "closed"
    unavailable(driver.execute(READ, timeout_s=0.1)[0])
    assert driver.status(0).breaker == "open"
    redis_server.resume()
    wait_until(lambda: isinstance(driver.execute(READ)[0], Reply), timeout=2.0)


def test_large_batch_to_a_paused_server_ends_at_the_deadline(driver: Driver, redis_server: RedisServer) -> None:
    """Also when the request does not fit into the socket's buffer."""
    redis_server.pause()
    start = time.monotonic()
    error = unavailable(driver.execute([Exchange(0, [("SET", "k", bytes(20_000_000))])], timeout_s=0.2)[0])
    assert time.monotonic() - start < 0.2 + SLACK_S
    assert error.sent


def test_answer_that_trickles_ends_at_the_deadline(no_leaks: None) -> None:
    """Each piece in time does not make the whole in time."""

    def trickle(command: list[bytes]) -> Iterator[bytes]:
        yield b"$3000\r\n"  # a minute and a half
        for _ in range(3000):
            time.sleep(0.03)
            yield b"x"

    with FakeServer(trickle) as server:
        driver = fake_driver(server)
        start = time.monotonic()
        error = unavailable(driver.execute([Exchange(0, [("GET", "k")])], timeout_s=0.3)[0])
        assert 0.28 < time.monotonic() - start < 0.3 + SLACK_S
        assert error.sent
        driver.close()


def test_signals_do_not_extend_the_deadline(driver: Driver, redis_server: RedisServer) -> None:
    """An interrupted system call goes on with the time that was left."""
    redis_server.pause()
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        start = time.monotonic()
        unavailable(driver.execute(READ, timeout_s=0.3)[0])
        assert time.monotonic() - start < 0.3 + SLACK_S
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_keyboard_interrupt_in_a_call_closes_its_connection(driver: Driver, redis_server: RedisServer) -> None:
    """The answer that is still to come must not be taken for the next call's."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for commands in ([("BLPOP", "x", "5"), ("ECHO", "old")], [("BLPOP", "x", "5"), ("ECHO", bytes(100_000))]):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                driver.execute([Exchange(0, commands)], timeout_s=5)
            assert driver.status(0).connections == 0
            assert driver.execute([Exchange(0, [("ECHO", "new")])])[0].values == [b"new"]
    finally:
        signal.signal(signal.SIGALRM, before)


# -- answers that are cut, garbled or too long -------------------------------------------------------------------

ANSWER = b":5000\r\n$5\r\nvalue\r\n"


@pytest.mark.parametrize("cut", range(len(ANSWER)))
def test_answer_cut_at_each_byte_is_an_error_or_repeated(no_leaks: None, cut: int) -> None:
    """Nothing heard: a read is asked again. Something heard: what was answered, and an error for the rest."""
    answers: list[list[bytes | None]] = [[ANSWER[:cut], None], [ANSWER]]
    others = {b"PTTL": b"", b"PING": b"+PONG\r\n"}
    with FakeServer(lambda command: others[command[0]] if command[0] in others else answers.pop(0)) as server:
        driver = fake_driver(server)
        driver.execute([Exchange(0, [("PING",)])])
        reply = driver.execute(READ)[0]
        if cut == 0:
            assert isinstance(reply, Reply)
            assert reply.values == [5000, b"value"]
        else:
            if cut < len(b":5000\r\n"):
                error = unavailable(reply)
            else:
                assert isinstance(reply, Reply)
                first, error = reply.values
                assert first == 5000
            assert isinstance(error, ShardUnavailableError)
            assert error.sent
            again = driver.execute(READ)[0]
            assert isinstance(again, Reply)
            assert again.values == [5000, b"value"]
        assert driver.status(0).connections == 1
        assert server.connections == 2
        driver.close()


def test_answer_that_is_not_resp_is_an_error(no_leaks: None) -> None:
    """A connection out of step is closed."""
    with FakeServer(lambda command: b"what is this\r\n") as server:
        driver = fake_driver(server)
        error = unavailable(driver.execute(READ)[0])
        assert error.sent
        assert "protocol" in str(error)
        assert driver.status(0).connections == 0
        driver.close()


def test_answers_beyond_those_asked_for_end_the_connection(no_leaks: None) -> None:
    """A surplus answer would be taken for the next call's."""
    with FakeServer(lambda command: b":1\r\n" * (3 if command[0] == b"GET" else 1)) as server:
        driver = fake_driver(server)
        for _ in range(3):
            reply = driver.execute(READ)[0]
            assert isinstance(reply, Reply)
            assert reply.values == [1, 1]
            assert driver.status(0).connections == 0
        assert server.connections == 3
        driver.close()


def test_bytes_that_come_while_idle_end_the_connection(no_leaks: None) -> None:
    """Before a write every connection is looked at."""
    with FakeServer(lambda command: b":1\r\n") as server:
        driver = fake_driver(server)
        driver.execute([Exchange(0, [("PING",)])])
        link = next(iter(server._links))
        link.sendall(b":7\r\n")
        wait_until(lambda: driver._shards[0].pool.idle[0].is_stale())
        reply = driver.execute(INVALIDATE)[0]
        assert isinstance(reply, Reply)
        assert reply.values == [1]
        assert server.connections == 2
        driver.close()


@pytest.mark.parametrize(
    ("request_", "times"), [(READ, 2), (INVALIDATE, 2), (START, 2), (WRITE, 1)],
    ids=["read", "invalidate", "heartbeat", "set"],
)  # fmt: skip
def test_request_that_got_no_answer_is_repeated_only_if_harmless(
    no_leaks: None, request_: list[Exchange], times: int
) -> None:
    """A repeated set could bring an older value back over a later one; the others leave what one of them leaves."""
    with FakeServer(lambda command: b"+PONG\r\n" if command[0] == b"PING" else None) as server:
        driver = fake_driver(server)
        driver.execute([Exchange(0, [("PING",)])])
        error = unavailable(driver.execute(request_)[0])
        assert error.sent
        name = b"PTTL" if request_ is READ else b"EVALSHA"
        assert server.seen(name) == times
        assert server.connections == times
        driver.close()


def test_server_that_is_loading_is_unavailable(no_leaks: None) -> None:
    """Nothing has been executed, and waiting helps."""
    with FakeServer(lambda command: b"-LOADING Redis is loading the dataset in memory\r\n") as server:
        driver = fake_driver(server)
        error = unavailable(driver.execute(READ)[0])
        assert "LOADING" in str(error)
        assert not error.sent
        driver.execute(READ)
        assert driver.status(0).breaker == "open"
        driver.close()


def test_server_that_is_busy_answers_with_an_error_in_place(no_leaks: None) -> None:
    """Other error replies are the caller's to judge."""
    with FakeServer(lambda command: b"-BUSY Redis is busy running a script\r\n") as server:
        driver = fake_driver(server)
        reply = driver.execute(READ)[0]
        assert isinstance(reply, Reply)
        assert [value.code for value in reply.values] == ["BUSY", "BUSY"]
        assert driver.status(0).breaker == "closed"
        driver.close()


def test_script_that_stays_unknown_is_an_error_in_place(no_leaks: None) -> None:
    """It is sent in full once, not for ever."""
    with FakeServer(lambda command: b"-NOSCRIPT No matching script\r\n") as server:
        driver = fake_driver(server)
        reply = driver.execute(WRITE)[0]
        assert isinstance(reply, Reply)
        assert reply.values[0].code == "NOSCRIPT"
        assert [command[0] for command in server.commands[-2:]] == [b"EVALSHA", b"EVAL"]
        driver.close()


def test_script_that_there_is_no_more_time_to_send_in_full_is_not_done(no_leaks: None) -> None:
    """What is to be told is the end of the connection, or of the time; that the server did not know it is no reason."""
    answers = [[b"-NOSCRIPT No matching script\r\n"], [None]]
    with FakeServer(lambda command: answers.pop(0)) as server:
        driver = fake_driver(server)
        reply = driver.execute([Exchange(0, [*WRITE[0].commands, *INVALIDATE[0].commands])])[0]
        assert isinstance(reply, Reply)
        first, second = map(unavailable, reply.values)
        assert str(first) == str(second)
        assert (first.sent, second.sent) == (False, True)
        driver.close()


# -- several shards, some of them out ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_three_shards_answer_while_the_fourth_is_out(
    no_leaks: None, make_redis: Callable[..., RedisServer], fault: str
) -> None:
    """The error stands in the place of the shard that failed, and the others' connections are back in their pools."""
    servers = [make_redis() for _ in range(4)]
    driver = Driver([endpoint_of(server, str(number)) for number, server in enumerate(servers)], timeout_s=0.6)
    exchanges = [Exchange(shard, [("ECHO", shard)]) for shard in range(4)]
    assert all(isinstance(reply, Reply) for reply in driver.execute(exchanges))
    servers[1].kill() if fault == "killed" else servers[1].pause()
    for _ in range(4):
        start = time.monotonic()
        replies = driver.execute(exchanges)
        assert time.monotonic() - start < 0.6 + SLACK_S
        assert [isinstance(reply, Reply) for reply in replies] == [True, False, True, True]
        assert unavailable(replies[1]).shard == "1"
        assert [driver.status(shard).in_use for shard in range(4)] == [0] * 4
    assert driver.status(1).breaker != "closed"
    driver.close()


def test_dead_host_at_the_start_leaves_time_for_the_others(no_leaks: None, redis_server: RedisServer) -> None:
    """A connection that is not made may not use up the time of those that are."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        # Who listens without accepting has a queue, and when that is full, further connections hang.
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        dead = Endpoint("dead", host="127.0.0.1", port=listener.getsockname()[1])
        driver = Driver([dead, endpoint_of(redis_server, "live")], timeout_s=0.6)
        replies = driver.execute([Exchange(0, [("PING",)]), Exchange(1, [("PING",)])])
        unavailable(replies[0])
        assert isinstance(replies[1], Reply)
        driver.close()
        for filler in fillers:
            filler.close()


def test_failing_calls_leave_no_descriptors(no_leaks: None, make_redis: Callable[..., RedisServer]) -> None:
    """Fault after fault, on pooled and new connections; the fixture counts."""
    server = make_redis()
    driver = Driver([endpoint_of(server)], timeout_s=0.05, connect_timeout_s=0.05)
    for _ in range(5):
        driver.execute(READ)
        server.pause()
        driver.execute(READ)
        server.kill()
        driver.execute(READ)
        server.start()
        driver.note_alive(0)
    with FakeServer(raw=b"HTTP/1.1 200 OK\r\n\r\n") as fake:
        for _ in range(5):
            wrong = fake_driver(fake)
            wrong.execute(READ)
            wrong.close()
    driver.close()


def test_answer_that_had_begun_is_not_mixed_with_the_next_one(no_leaks: None) -> None:
    """What had been read of it goes with its connection."""
    with FakeServer(lambda command: bulk(bytes(100_000))[:70_000]) as server:
        driver = fake_driver(server)
        assert unavailable(driver.execute([Exchange(0, [("GET", "k")])], timeout_s=0.1)[0]).sent
        server._answer = lambda command: bulk(b"whole")
        reply = driver.execute([Exchange(0, [("GET", "k")])])[0]
        assert isinstance(reply, Reply)
        assert reply.values == [b"whole"]
        driver.close()
