"""Where the master is: sentinels that agree, disagree, lie, refuse or are away. They are of the test's own making."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import (
    AuthenticationFailedError,
    NotRedisError,
    ServerReplyError,
    ShardUnavailableError,
    UnknownMasterError,
)
from nearcache.l2 import Driver, Exchange, Reply, load_script
from nearcache.l2.logins import NoPasswordError
from nearcache.l2.sentinel import Sentinels
from nearcache.options import parse
from support.fake import FakeServer, bulk
from support.pools import wanting_another
from support.redis import RedisServer
from support.waiting import wait_until

PING = [Exchange(0, [("PING",)])]
READ = [Exchange(0, [("PTTL", "k"), ("GET", "k")])]
START = [Exchange(0, [load_script("heartbeat").call([b"nc:{t:0}:L"], [1, b"%016x" % 1])])]


class Says:
    """A sentinel that names this server as master; ``None``: it knows no such master."""

    def __init__(self, server: RedisServer | None) -> None:
        self.server = server

    def __call__(self, command: list[bytes]) -> bytes:
        assert command == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"m1"]
        if self.server is None:
            return b"*-1\r\n"
        return b"*2\r\n" + bulk(self.server.host.encode()) + bulk(b"%d" % self.server.port)


@pytest.fixture
def started() -> Iterator[Callable[..., FakeServer]]:
    """Start sentinels that answer as they are told to; all end with the test."""
    with ExitStack() as stack:
        yield lambda answer, **options: stack.enter_context(FakeServer(answer, **options))


@pytest.fixture
def pair(make_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """A master and its replica."""
    master = make_redis(transport="tcp")
    replica = make_redis(transport="tcp", options={"replicaof": f"127.0.0.1 {master.port}"})
    wait_until(lambda: link_of(replica) == "up")
    return master, replica


def link_of(server: RedisServer) -> str:
    """Return how a replica's link to its master is."""
    with server.client() as client:
        return str(client.info("replication").get("master_link_status"))


def driver_for(*ports: int, query: str = "", **options: Any) -> Driver:
    """Return a driver for the master that these sentinels name."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Driver(parse(f"redis+sentinel://{hosts}/m1{query}").endpoints, **options)


def swap(master: RedisServer, replica: RedisServer) -> None:
    """Exchange the roles, without a word to the clients."""
    replica.cli("REPLICAOF", "NO", "ONE")
    master.cli("REPLICAOF", replica.host, replica.port)


def test_master_is_asked_for_and_reached(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """Pooled and listener connections alike; the shard is called what the sentinels call the master."""
    sentinels = [started(Says(pair[0])) for _ in range(3)]
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    reply = driver.execute(READ)[0]
    assert isinstance(reply, Reply)
    status = driver.status(0)
    assert (status.name, status.address) == ("m1", pair[0].address)
    link = driver.connect_listener(0)
    assert link.identity == reply.identity != 0
    link.close()
    driver.close()


def test_sentinels_that_are_gone_leave_calls_the_connections_that_there_are(
    no_leaks: None, started: Callable[..., FakeServer], make_redis: Callable[..., RedisServer]
) -> None:
    """Nobody says where the master is, which is as well as it was."""
    master = make_redis(transport="tcp")
    sentinels = [started(Says(master)) for _ in range(3)]
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    assert isinstance(driver.execute(READ)[0], Reply)
    for sentinel in sentinels:
        sentinel.close()
    error = wanting_another(driver, READ, timeout_s=0.1)
    assert "stayed busy; no sentinel answered" in str(error)
    assert driver.status(0).breaker == "closed"
    assert isinstance(driver.execute(READ)[0], Reply)
    driver.close()


def test_one_sentinel_that_has_not_heard_of_the_failover_is_outvoted(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer], redis_server: RedisServer
) -> None:
    """What it names may well call itself a master still, as one does that has just come back."""
    stale = pair[0]
    current = pair[1]
    current.cli("REPLICAOF", "NO", "ONE")
    sentinels = [started(Says(stale)), started(Says(current)), started(Says(current))]
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    assert isinstance(driver.execute(READ)[0], Reply)
    assert driver.status(0).address == current.address
    driver.close()


def test_sentinels_that_still_name_a_replica_do_not_hide_the_master(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """In the middle of a failover only its leader knows; a replica says itself what it is."""
    master, replica = pair
    sentinels = [started(Says(replica)), started(Says(replica)), started(Says(master))]
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    assert isinstance(driver.execute(START)[0], Reply)
    assert driver.status(0).address == master.address
    driver.close()


def test_role_alone_keeps_out_a_replica_where_info_is_forbidden(
    no_leaks: None, started: Callable[..., FakeServer]
) -> None:
    """What cannot be asked one way is asked another."""

    def replica(command: list[bytes]) -> bytes:
        if command[0] == b"ROLE":
            return b"*5\r\n" + bulk(b"slave") + bulk(b"10.0.0.1") + b":6379\r\n" + bulk(b"connected") + b":0\r\n"
        return (
            b"-NOPERM this user has no permissions to run the 'info' command\r\n"
            if command[0] == b"INFO"
            else b"+OK\r\n"
        )

    server = started(replica, whole=True)

    def sentinel(command: list[bytes]) -> bytes:
        return b"*2\r\n" + bulk(b"127.0.0.1") + bulk(b"%d" % server.port)

    driver = driver_for(started(sentinel).port)
    error = driver.execute(PING)[0]
    assert isinstance(error, ShardUnavailableError)
    assert "is a replica" in str(error)
    driver.close()


@pytest.mark.parametrize("how", ["readonly", "killed"])
def test_write_after_a_failover_goes_to_the_new_master_in_the_same_call(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer], how: str
) -> None:
    """A demoted server answers READONLY, for which nothing was executed; from a dead one the connection is lost."""
    master, replica = pair
    says = Says(master)
    driver = driver_for(*(started(says).port for _ in range(3)))
    before = driver.execute(START)[0]
    if how == "readonly":
        swap(master, replica)
    else:
        master.kill()
        replica.cli("REPLICAOF", "NO", "ONE")
    says.server = replica
    after = driver.execute(START)[0]
    assert isinstance(before, Reply)
    assert isinstance(after, Reply)
    assert not isinstance(after.values[0], Exception)
    assert before.identity != after.identity
    assert driver.status(0).address == replica.address
    assert driver.status(0).connections == 1
    driver.close()


def test_exchange_of_which_a_part_was_executed_is_not_sent_again(
    no_leaks: None, started: Callable[..., FakeServer]
) -> None:
    """What a READONLY in the middle leaves behind is the caller's to judge; the connection is given up."""
    answers = {b"GET": bulk(b"x"), b"SET": b"-READONLY You can't write against a read only replica.\r\n"}

    def answer(command: list[bytes]) -> bytes:
        return answers.get(command[0], b"*1\r\n" + bulk(b"master"))

    server = started(answer)

    def sentinel(command: list[bytes]) -> bytes:
        return b"*2\r\n" + bulk(b"127.0.0.1") + bulk(b"%d" % server.port)

    driver = driver_for(started(sentinel).port)
    reply = driver.execute([Exchange(0, [("GET", "k"), ("SET", "k", "v")])])[0]
    assert isinstance(reply, Reply)
    assert reply.values[0] == b"x"
    assert isinstance(reply.values[1], ServerReplyError)
    assert server.seen(b"SET") == 1
    assert driver.status(0).connections == 0
    driver.close()


@pytest.mark.parametrize("code", ["READONLY", "MASTERDOWN"])
def test_refusal_of_a_replica_everywhere_is_told_once_asked_again(
    no_leaks: None, started: Callable[..., FakeServer], code: str
) -> None:
    """Two tries, no more; then the error stands in the answer's place."""

    def answer(command: list[bytes]) -> bytes:
        return b"*1\r\n" + bulk(b"master") if command[0] == b"ROLE" else b"-%b no\r\n" % code.encode()

    server = started(answer)

    def sentinel(command: list[bytes]) -> bytes:
        return b"*2\r\n" + bulk(b"127.0.0.1") + bulk(b"%d" % server.port)

    driver = driver_for(started(sentinel).port)
    reply = driver.execute([Exchange(0, [("SET", "k", "v")])])[0]
    assert isinstance(reply, Reply)
    assert reply.values[0].code == code
    assert server.seen(b"SET") == 2
    driver.close()


def test_dead_sentinels_are_passed_over_and_asked_last_from_then_on(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """The order is remembered, so that a dead one costs once."""
    silent = started(None, raw=b"")
    living = [started(Says(pair[0])) for _ in range(2)]
    driver = driver_for(silent.port, *(sentinel.port for sentinel in living), connect_timeout_s=2.0)
    assert isinstance(driver.execute(PING, timeout_s=2.0)[0], Reply)
    assert silent.connections == 1
    driver.connect_listener(0).close()
    assert silent.connections == 1
    driver.close()


def test_no_sentinel_at_all_is_an_unavailable_shard(no_leaks: None, pair: tuple[RedisServer, RedisServer]) -> None:
    """Each of them is named, with what is wrong."""
    driver = driver_for(1, 2)
    error = driver.execute(PING)[0]
    assert isinstance(error, ShardUnavailableError)
    assert "127.0.0.1:1" in str(error)
    assert "127.0.0.1:2" in str(error)
    driver.close()


def test_master_that_cannot_be_reached_opens_the_breaker_at_once(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """As a refused connection does anywhere: the sentinels have not replaced it yet."""
    sentinels = [started(Says(pair[0])) for _ in range(3)]
    pair[0].kill()
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    error = driver.execute(PING)[0]
    assert isinstance(error, ShardUnavailableError)
    assert str(pair[0].port) in str(error)
    assert driver.status(0).breaker == "open"
    driver.close()


def test_master_that_no_sentinel_knows_is_said(no_leaks: None, started: Callable[..., FakeServer]) -> None:
    """A misspelt name never gets better by waiting."""
    driver = driver_for(*(started(Says(None)).port for _ in range(2)), 1)
    assert isinstance(driver.execute(PING)[0], ShardUnavailableError)  # the third may know it
    driver.close()
    driver = driver_for(*(started(Says(None)).port for _ in range(2)))
    error = driver.execute(PING)[0]
    assert isinstance(error, UnknownMasterError)
    assert "m1" in str(error)
    driver.close()


def test_server_that_is_no_sentinel_is_said(no_leaks: None, pair: tuple[RedisServer, RedisServer]) -> None:
    """The port of the master itself is an easy mistake."""
    driver = driver_for(pair[0].port)
    error = driver.execute(PING)[0]
    assert isinstance(error, NotRedisError)
    assert "no sentinel" in str(error)
    driver.close()


def test_sentinel_that_answers_nonsense_is_said(no_leaks: None, started: Callable[..., FakeServer]) -> None:
    """Whatever it names has to be an address."""
    for answer in (b"+OK\r\n", b"*1\r\n:1\r\n", b"*2\r\n" + bulk(b"a") + bulk(b"b")):
        driver = driver_for(started(lambda command, answer=answer: answer).port)
        assert isinstance(driver.execute(PING)[0], NotRedisError)
        driver.close()


@pytest.mark.parametrize("asked_for", [False, True], ids=["texts", "functions"])
def test_sentinels_get_credentials_of_their_own(
    no_leaks: None, make_redis: Callable[..., RedisServer], asked_for: bool
) -> None:
    """Those of the URL are the masters', and sentinels never see them."""
    server = make_redis(transport="tcp", acl=["user app on >data ~* &* +@all"])
    asked: list[list[bytes]] = []

    def sentinel(command: list[bytes]) -> bytes:
        asked.append(command)
        return b"+OK\r\n" if command[0] == b"AUTH" else Says(server)(command)

    with FakeServer(sentinel, whole=True) as fake:
        url = f"redis+sentinel://app:data@127.0.0.1:{fake.port}/m1?sentinel_username=watch&sentinel_password=other"
        given: dict[str, Any] = {}
        if asked_for:
            url = url.replace(":data", "").replace("&sentinel_password=other", "")
            given = {"password": lambda: "data", "sentinel_password": lambda: "other"}
        driver = Driver(parse(url, **given).endpoints)
        assert isinstance(driver.execute(READ)[0], Reply)
        driver.close()
    assert asked[0] == [b"AUTH", b"watch", b"other"]
    assert not any(b"data" in part for command in asked for part in command)


def test_sentinel_that_refuses_the_password_is_said(no_leaks: None, started: Callable[..., FakeServer]) -> None:
    """It is told apart from the master's refusal by the address, and by the options to look at."""
    fake = started(lambda command: b"-WRONGPASS invalid username-password pair\r\n", whole=True)
    driver = driver_for(fake.port, query="?sentinel_password=wrong")
    error = driver.execute(PING)[0]
    assert isinstance(error, AuthenticationFailedError)
    assert f"sentinel 127.0.0.1:{fake.port} refused the default user" in str(error)
    assert "check sentinel_username and sentinel_password" in str(error)
    assert "WRONGPASS" in str(error)
    driver.close()


def test_sentinels_that_fail_in_different_ways_are_told_together(
    no_leaks: None, started: Callable[..., FakeServer]
) -> None:
    """One refuses, and another knows no such master."""
    refuses = started(lambda command: b"-WRONGPASS invalid username-password pair\r\n", whole=True)
    knows = started(lambda command: b"+OK\r\n" if command[0] == b"AUTH" else b"*-1\r\n", whole=True)
    driver = driver_for(refuses.port, knows.port, query="?sentinel_password=one")
    error = driver.execute(PING)[0]
    assert isinstance(error, ShardUnavailableError)
    assert "refused the default user" in str(error)
    assert "knows no master called m1" in str(error)
    driver.close()


@pytest.mark.parametrize("option", ["password", "sentinel_password"])
@pytest.mark.parametrize(
    ("function", "kind", "what"),
    [(dict, AuthenticationFailedError, "dict, returned dict"), (len, NoPasswordError, "len, raised TypeError")],
)
def test_function_that_says_no_password_is_named(
    no_leaks: None, started: Callable[..., FakeServer], option: str, function: Any, kind: type[Exception], what: str
) -> None:
    """As without sentinels: it has been asked before anybody was, so nobody has refused, or not answered."""
    sentinel = started(lambda _: b"*2\r\n" + bulk(b"127.0.0.1") + bulk(b"1"))
    driver = Driver(parse(f"redis+sentinel://127.0.0.1:{sentinel.port}/m1", **{option: function}).endpoints)
    error = driver.execute(PING)[0]
    assert isinstance(error, kind)
    assert str(error).startswith(f"shard m1: the function given as password, {what}")
    driver.close()


def test_sentinels_that_do_not_answer_are_said_in_the_same_words_each_time(
    no_leaks: None, started: Callable[..., FakeServer]
) -> None:
    """They are asked in another order, for those that were well come first; which is no news to a log."""
    sentinels = [started(lambda command: None) for _ in range(3)]
    driver = driver_for(*(sentinel.port for sentinel in sentinels))
    known: Any = driver.shard(0)._sentinels
    said = set()
    for _ in sentinels:
        known._order = (*known._order[1:], known._order[0])
        with pytest.raises(ShardUnavailableError, match="no sentinel answered") as caught:
            driver.connect_listener(0)
        said.add(str(caught.value))
    assert len(said) == 1
    driver.close()


def test_on_reached_is_called_when_another_server_is_met(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """The listener need not wait for its own turn then."""
    master, replica = pair
    says = Says(master)
    met: list[int] = []
    driver = driver_for(started(says).port, on_reached=met.append)
    driver.execute(START)
    assert met == [0]
    driver.execute(START)
    assert met == [0]
    swap(master, replica)
    says.server = replica
    driver.execute(START)
    assert met == [0, 0]
    driver.close()


def test_master_that_was_replaced_but_still_answers_is_left(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """As one does for seconds after a commanded failover: connections and subscription end, and lead elsewhere."""
    master, replica = pair
    says = Says(master)
    sentinels = [started(says) for _ in range(3)]
    now = [0]
    driver = driver_for(*(sentinel.port for sentinel in sentinels), clock=lambda: time.monotonic_ns() + now[0])
    driver.execute(START)
    link = driver.connect_listener(0)
    link.sock.settimeout(10)
    connections = sum(sentinel.connections for sentinel in sentinels)
    driver.note_alive(0)
    wait_until(lambda: not verifying(driver))
    now[0] += 2_000_000_000
    driver.note_alive(0)
    wait_until(lambda: not verifying(driver))
    assert sum(sentinel.connections for sentinel in sentinels) == connections + 2  # two are asked, and kept
    assert driver.status(0).connections == 1
    replica.cli("REPLICAOF", "NO", "ONE")
    says.server = replica
    now[0] += 2_000_000_000
    driver.note_alive(0)
    assert link.receive() == b""
    link.close()
    wait_until(lambda: not verifying(driver))
    assert driver.status(0).connections == 0
    driver.execute(START)
    assert driver.status(0).address == replica.address
    driver.close()


@pytest.mark.parametrize("others", [[], ["dead"], ["stale"]])
def test_master_is_left_only_if_two_sentinels_say_so(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer], others: list[str]
) -> None:
    """One that has not heard, or lies, moves nobody; a sentinel that is the only one is believed."""
    master, other = pair[0], pair[1]
    says = Says(master)
    ports = [started(says).port]
    ports += [1 if each == "dead" else started(Says(master)).port for each in others]
    driver = driver_for(*ports)
    driver.execute(START)
    says.server = other
    driver.note_alive(0)
    wait_until(lambda: not verifying(driver))
    assert driver.status(0).connections == (1 if others else 0)
    driver.close()


def test_replaced_master_is_left_though_the_first_sentinel_is_silent(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """Its host is gone, perhaps with the master's: the others are asked in the same time."""
    silent, living = started(None, raw=b""), [started(Says(pair[1])) for _ in range(2)]
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in (silent, *living))
    (endpoint,) = parse(f"redis+sentinel://{hosts}/m1").endpoints
    sentinels = Sentinels(endpoint, time.monotonic_ns)
    assert sentinels.has_moved(pair[0].address, time.monotonic_ns() + 2_000_000_000)
    assert silent.connections == 1
    sentinels.close()


def verifying(driver: Driver) -> bool:
    """Return whether the sentinels are being asked just now."""
    return driver._shards[0]._verifying.locked()


def test_asyncio_view_follows_the_master_as_well(
    no_leaks: None, started: Callable[..., FakeServer], pair: tuple[RedisServer, RedisServer]
) -> None:
    """Its connections are its own, and what ends them is the same."""
    master, replica = pair
    says = Says(master)
    hosts = ",".join(f"127.0.0.1:{started(says).port}" for _ in range(3))

    async def work(cache: Cache[Any, Any]) -> None:
        await cache.aio.set("k", 1)
        swap(master, replica)
        says.server = replica
        await cache.aio.set("k", 2)
        assert await cache.aio.get("k") == 2
        assert replica.cli("EXISTS", "nc:{default:0}:v:sk") == 1

    with nearcache.open(f"redis+sentinel://{hosts}/m1") as cache:
        asyncio.run(work(cache))
