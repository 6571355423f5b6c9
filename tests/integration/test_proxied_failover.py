"""INFO is forbidden, so nobody says which server it is; and a proxy leads to two of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import nearcache
from support.redis import RedisServer
from support.switchboard import DATA, SUBSCRIPTION, Switchboard
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

OPTIONS = {"max_staleness": 0.4}


@pytest.fixture
def pair(make_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """A primary and its replica, in step."""
    primary = make_redis(transport="tcp")
    replica = make_redis(transport="tcp", options={"replicaof": f"127.0.0.1 {primary.port}"})
    wait_until(lambda: replica.cli("ROLE")[3] == b"connected", 20)
    return primary, replica


def test_value_from_the_old_primary_never_enters_l1(pair: tuple[RedisServer, RedisServer]) -> None:
    """The subscription leads to the new one, where changes are announced; data still come from the old one."""
    primary, replica = pair
    with Switchboard(primary, ["INFO"]) as proxy, nearcache.open(proxy.url, **OPTIONS) as cache:
        cache["k"] = "old"
        wait_until(lambda: cache["k"] == cache.peek("k") == "old")
        with primary.client() as client:
            client.set("marker", 1)
            assert client.execute_command("WAIT", 1, 9000) == 1
        replica.cli("REPLICAOF", "NO", "ONE")
        proxy.routes[SUBSCRIPTION] = replica
        resyncs = cache.stats().coherence.resyncs
        proxy.cut(SUBSCRIPTION)
        wait_until(lambda: cache.stats().coherence.resyncs > resyncs and cache.health().ok, 20)
        assert cache["k"] == "old"  # both have the same history so far
        with nearcache.open(replica.url, **OPTIONS) as other:
            other["k"] = "new"
            wait_until(lambda: cache.peek("k") is None)
            hits = cache.stats().l1.hits
            for _ in range(50):
                assert cache["k"] == "old"  # from the old primary, and no promise is made of that
                assert cache.get_many(["k"]) == {"k": "old"}
                assert cache.peek("k") is None
            assert cache.stats().l1.hits == hits
            proxy.routes[DATA] = replica
            proxy.cut(DATA)
            wait_until(lambda: cache.get("k") == cache.peek("k") == "new", 20)
            other["k"] = "newer"
            wait_until(lambda: cache["k"] == "newer")


def test_change_that_the_new_primary_lacks_is_invalidated_again(pair: tuple[RedisServer, RedisServer]) -> None:
    """Although others have written there since, so that the numbers do not tell."""
    primary, replica = pair
    with Switchboard(primary, ["INFO"]) as proxy, nearcache.open(proxy.url, **OPTIONS) as cache:
        cache["k"] = "old"
        with primary.client() as client:
            client.set("marker", 1)
            assert client.execute_command("WAIT", 1, 9000) == 1
        replica.cli("REPLICAOF", "NO", "ONE")
        cache["k"] = "lost"
        with Switchboard(replica, ["INFO"]) as straight, nearcache.open(straight.url, **OPTIONS) as other:
            assert other["k"] == "old"
            for number in range(9):
                other["n"] = number
            proxy.routes[DATA] = proxy.routes[SUBSCRIPTION] = replica
            proxy.cut(DATA)
            proxy.cut(SUBSCRIPTION)
            wait_until(lambda: other.get("k") is None and cache.get("k") is None, 20)
            assert other["n"] == cache["n"] == 8


def test_address_that_leads_to_an_empty_server_for_a_while_brings_no_own_change_back(
    make_redis: Callable[..., RedisServer],
) -> None:
    """A name, or a virtual address, moves to the wrong server and back. What was changed there is made up for here."""
    servers = [make_redis(transport="tcp") for _ in range(2)]
    with Switchboard(servers[0]) as proxy, nearcache.open(proxy.url, **OPTIONS) as cache:
        cache["k"], cache["kept"] = "old", "kept"
        for forks, server in enumerate(reversed(servers), 1):
            proxy.routes[DATA] = proxy.routes[SUBSCRIPTION] = server
            proxy.cut(DATA)
            proxy.cut(SUBSCRIPTION)
            wait_until(lambda forks=forks: cache.stats().coherence.forks == forks and cache.health().ok, 20)
            if server is servers[1]:
                assert cache.get("k") is None
                cache["k"] = "new"
        wait_until(lambda: cache.stats().coherence.replayed == 1 and not cache.stats().coherence.owed, 20)
        wait_until(lambda: cache.get("k") is None)
        assert cache["kept"] == "kept"
