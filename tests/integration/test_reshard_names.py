"""One server by several names, while the list of shards changes: what is refused, and what works without a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.errors import ReshardError
from support.redis import RedisServer
from support.resharding import KEYS, B, Servers, change, lanes_live, step, url, version
from support.waiting import wait_until

ALL = dict.fromkeys(KEYS, 1)


def at(servers: Servers, places: str, names: list[str]) -> dict[str, Any]:
    """Return what ``reshard`` and ``open`` take for servers under these names."""
    return {"url": url(servers, places), "shard_names": names}


@pytest.mark.parametrize(
    ("places", "names"),
    [("ab", ["x", "y"]), ("ab", ["x", "b"]), ("ba", ["x", "a"]), ("abb", ["a", "b", "x"]), ("b", ["x"])],
)
def test_reshard_server_that_stays_by_another_name_is_refused_before_anybody_is_told(
    servers: Servers, open_at: Callable[..., Any], places: str, names: list[str]
) -> None:
    """All of it would move to where it is already, and who knows it by the old name would be told that it is none."""
    one, other = open_at("ab"), open_at("ab")
    one.set_many(ALL)
    lanes_live(one, other)
    lane_key = one._tier.names[0].lane_key
    before = [servers[name].cli("HGETALL", lane_key) for name in "ab"]
    with pytest.raises(ReshardError, match="are one server: leave every server that stays its name"):
        one.reshard(**at(servers, places, names), pause=0.0)
    after = [servers[name].cli("HGETALL", lane_key) for name in "ab"]
    assert [record[b"r"] for record in after] == [record[b"r"] for record in before]
    assert one.get_many(KEYS) == other.get_many(KEYS) == ALL
    assert change(other, servers, "abc").version == 4


@pytest.mark.parametrize("places", ["a", "ab"])
def test_reshard_names_a_shard_that_was_alone(servers: Servers, open_at: Callable[..., Any], places: str) -> None:
    """Of one shard the name decides nothing yet, so it takes the one that it is given, and keeps what it has."""
    one, other = open_at("a", shard_names=["first"]), open_at("a", shard_names=["second"])
    one.set_many(ALL)
    done = one.reshard(**at(servers, places, list(places)), pause=0.0)
    assert (done.version, done.shards) == (4, tuple(places))
    assert done.moved < 0.6
    assert (one.get_many(KEYS) == ALL) == (places == "a")
    wait_until(lambda: version(other) == 4, what="the other has followed")
    lanes_live(one, other)
    assert other.get_many(KEYS) == one.get_many(KEYS)
    assert [shard.name for shard in other.health().shards] == list(places)
    other.set_many(ALL)
    assert one.get_many(KEYS) == open_at(places).get_many(KEYS) == ALL


@pytest.mark.parametrize("steps", [1, 2])
def test_process_with_another_name_of_a_shard_that_was_alone_follows_and_is_no_harm(
    servers: Servers, open_at: Callable[..., Any], steps: int
) -> None:
    """It takes the name for one that is in the list no more; the server knows better, for it has been told in full."""
    leader, other = open_at("a"), open_at("a", shard_names=["second"])
    step(leader, servers, "ab", steps + 1)
    late = open_at("a", shard_names=["third"])
    for each in (leader, late):
        each._membership._catching_up = False
    change(leader, servers, "ab")
    caches = (leader, other, late)
    wait_until(lambda: [version(cache) for cache in caches] == [4] * 3, what="all have followed")
    lanes_live(*caches)
    for cache in caches:
        cache.set_many(ALL)
        assert open_at("ab").get_many(KEYS) == ALL
    lane_key = leader._tier.names[0].lane_key
    assert {servers[name].cli("HGET", lane_key, "r") for name in "ab"} == {leader._membership.ring.text}


def test_shard_that_comes_back_by_another_name_is_not_told_that_it_left(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """Whoever was there when it left reminds it of that for a minute."""
    one, other = open_at("ab", max_staleness=0.2), open_at("ab", max_staleness=0.2)
    change(one, servers, "a")
    wait_until(lambda: version(other) == 4, what="the other has followed")
    one.reshard(**at(servers, "ab", ["a", "x"]), pause=0.0)
    wait_until(lambda: version(other) == 7, what="the other has followed")
    reminded: list[Any] = []
    for cache in (one, other):
        membership = cache._membership
        real = membership._remind
        membership._remind = lambda real=real: (real(), reminded.append(1))
    wait_until(lambda: len(reminded) > 3, what="it is told again")
    lanes_live(one, other)
    for cache in (one, other):
        cache.set_many(ALL)
        assert open_at("ab", shard_names=["a", "x"]).get_many(KEYS) == ALL
    assert servers["b"].cli("HGET", one._tier.names[0].lane_key, "r") == one._membership.ring.text


@pytest.mark.parametrize("first", ["stays", "left"])
def test_lane_that_is_told_that_it_stays_and_that_it_was_left_stays(
    servers: Servers, open_at: Callable[..., Any], first: str
) -> None:
    """In either order; but not where nobody has told it in full that it stays."""
    cache = open_at("ab")
    membership, number, lane_key = cache._membership, 0, cache._tier.names[0].lane_key
    ring = membership.ring.begin(membership.ring.old)
    texts = [ring.text, ring.left] if first == "stays" else [ring.left, ring.text]
    for text in texts:
        cache._driver.execute([membership._telling(ring, text, number)])
    assert servers["a"].cli("HGET", lane_key, "r") == ring.text
    with servers["a"].client() as client:
        client.hset(lane_key, "m", "1")
    cache._driver.execute([membership._telling(ring, ring.left, number)])
    assert servers["a"].cli("HGET", lane_key, "r") == ring.left


def test_reshard_other_address_of_a_server_is_refused(make_redis: Callable[..., RedisServer]) -> None:
    """As ``localhost`` and ``127.0.0.1`` are, which are two names as long as none are given."""
    a, b = (make_redis(transport="tcp") for _ in range(2))
    with nearcache.open(f"redis://{a.address}", max_staleness=B) as cache:
        with pytest.raises(ReshardError, match=f"{a.address} and localhost:{a.port} are one server"):
            cache.reshard(f"redis://localhost:{a.port},{a.address},{b.address}", pause=0.0)
        cache["k"] = 1
        assert cache.reshard(f"redis://{a.address},{b.address}", pause=0.0).version == 4
