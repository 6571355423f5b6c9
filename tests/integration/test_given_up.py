"""A change that was given up, by its deadline or its caller, is not carried out after what was changed later.

The network has it still when the connection is closed, and lets it through when it likes.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.l2.breaker import BreakerSettings
from nearcache.l2.introduction import Introduction
from nearcache.options import Endpoint
from support.caches import Opener, opening
from support.fake import FakeServer, bulk
from support.proxy import Proxy
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def open_behind(proxy: Proxy) -> Iterator[Opener]:
    """Open caches whose every byte goes through the proxy."""
    with opening(f"redis://127.0.0.1:{proxy.port}", max_staleness=0.4) as opener:
        yield opener


def in_time(cache: Cache[Any, Any], proxy: Proxy, later: Callable[[Any], Any]) -> None:
    """A thread's call ends by its deadline; a later one is answered."""
    several(lambda number: cache.set(f"w{number}", 1))
    proxy.hold(b"too early", "requests")
    with pytest.raises(ShardUnavailableError) as caught:
        cache["k"] = "too early"
    assert caught.value.sent
    later(cache)


def interrupted(cache: Cache[Any, Any], proxy: Proxy, later: Callable[[Any], Any]) -> None:
    """A thread's call ends by an exception out of nowhere, as Ctrl-C raises one."""
    several(lambda number: cache.set(f"w{number}", 1))
    proxy.hold(b"too early", "requests")
    main = threading.get_ident()
    interrupting = threading.Thread(target=lambda: proxy.held.wait(20) and signal.pthread_kill(main, signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        cache["k"] = "too early"
    interrupting.join()
    later(cache)


def cancelled(cache: Cache[Any, Any], proxy: Proxy, later: Callable[[Any], Awaitable[Any]]) -> None:
    """A task's call is cancelled, with other connections of its loop idle."""

    async def work() -> None:
        await asyncio.gather(*[cache.aio.set(f"w{number}", 1) for number in range(3)])
        proxy.hold(b"too early", "requests")
        early = asyncio.create_task(cache.aio.set("k", "too early"))
        while not proxy.held.is_set():
            await asyncio.sleep(0.001)
        early.cancel()
        with suppress(asyncio.CancelledError):
            await early
        await later(cache.aio)

    asyncio.run(work())


def several(call: Callable[[int], object]) -> None:
    """Call it in some threads at the same time, which leaves connections behind."""
    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


#: How a change is given up, and what time it has for itself.
WAYS = pytest.mark.parametrize(
    ("give_up", "timeout"),
    [(in_time, 0.4), (interrupted, 20), (cancelled, 20)],
    ids=["deadline", "interrupt", "cancel"],
)


def let_through(proxy: Proxy) -> None:
    """Let what was held go on its way; return when the server has it."""
    assert proxy.held.is_set()
    proxy.mend()
    assert proxy.passed.wait(20)


@WAYS
@pytest.mark.parametrize("change", ["set", "invalidate", "delete_many"])
def test_change_that_was_given_up_does_not_come_after_a_later_one(
    open_behind: Opener,
    proxy: Proxy,
    redis_server: RedisServer,
    give_up: Callable[..., None],
    timeout: float,
    change: str,
) -> None:
    """Everybody sees what was acknowledged last, and goes on doing so."""
    arguments: dict[str, tuple[Any, ...]] = {"set": ("k", "later"), "invalidate": ("k",), "delete_many": (["k"],)}
    cache = open_behind(timeout=timeout)
    give_up(cache, proxy, lambda side: getattr(side, change)(*arguments[change]))
    let_through(proxy)
    with nearcache.open(redis_server.url) as other:
        # None also after a set: the invalidation that is owed for the first may come last, and then it is a miss.
        allowed = ("later", None) if change == "set" else (None,)
        assert other.get("k") in allowed
        wait_until(lambda: cache.get("k") == other.get("k"))
        assert cache.get("k") in allowed


@WAYS
def test_change_behind_the_cache_that_was_given_up_is_not_written_after_a_later_one(
    open_behind: Opener, proxy: Proxy, give_up: Callable[..., None], timeout: float
) -> None:
    """The database has the order in which callers were answered."""
    rows: dict[str, Any] = {}
    cache = open_behind(timeout=timeout, writer=rows.__setitem__, write_delay=0.01)
    give_up(cache, proxy, lambda side: side.set("k", "later"))
    let_through(proxy)
    cache["another"] = 1
    wait_until(lambda: "another" in rows)
    assert rows["k"] == "later"


@WAYS
@pytest.mark.parametrize("right", ["-client|kill", "-client"])
def test_server_that_refuses_to_end_connections_is_worked_with_all_the_same(
    open_behind: Opener,
    proxy: Proxy,
    redis_server: RedisServer,
    give_up: Callable[..., None],
    timeout: float,
    right: str,
) -> None:
    """The order is not certain then, but nothing fails for that."""
    redis_server.cli("ACL", "SETUSER", "nc", "on", ">secret", "resetchannels", "~*", "&*", "+@all", right)
    cache = open_behind(timeout=timeout, username="nc", password="secret")
    give_up(cache, proxy, lambda side: side.set("k", "later"))
    let_through(proxy)
    wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed)
    assert cache.get("k") in ("too early", "later", None)


def test_connections_are_ended_before_anything_is_said_and_only_by_their_own_server() -> None:
    """Numbers of connections are a process's own: after a restart they may be somebody else's."""
    numbers = itertools.count(1)
    run_id = [b"a" * 40]

    def answer(command: list[bytes]) -> bytes | tuple[bytes, ...]:
        if command[0] == b"INFO":
            return bulk(b"run_id:%s\r\nrole:master\r\nmaster_replid:%s\r\n" % (run_id[0], b"b" * 40))
        if command[:2] == [b"CLIENT", b"ID"]:
            return b":%d\r\n" % next(numbers)
        return () if command[0] == b"SET" else b"+OK\r\n"

    with FakeServer(answer, whole=True) as server:
        endpoint = Endpoint("a", host="127.0.0.1", port=server.port)
        first_words = Introduction(lambda *_: [(b"ECHO", b"x")], lambda *_: None)
        driver = Driver([endpoint], introduction=first_words, breaker=BreakerSettings(threshold=1000))

        def given_up(count: int) -> None:
            driver.execute([Exchange(0, [("SET", "k", 1)])] * count, timeout_s=0.1)

        def said() -> list[list[bytes]]:
            """What a new connection says behind the handshake, up to its first request."""
            del server.commands[:]
            assert isinstance(driver.execute([Exchange(0, [("PING",)])], timeout_s=20)[0], Reply)
            return [command for command in server.commands if command[0] != b"INFO" and command[1:] != [b"ID"]]

        given_up(2)
        *kills, introduction, request = said()
        assert sorted(kills) == [[b"CLIENT", b"KILL", b"ID", b"1"], [b"CLIENT", b"KILL", b"ID", b"2"]]
        assert [introduction, request] == [[b"ECHO", b"x"], [b"PING"]]
        given_up(1)
        run_id[0] = b"c" * 40
        assert said() == [[b"ECHO", b"x"], [b"PING"]]
        driver.shard(0).demoted()
        run_id[0] = b"a" * 40
        assert said() == [[b"ECHO", b"x"], [b"PING"]]
        driver.close()
