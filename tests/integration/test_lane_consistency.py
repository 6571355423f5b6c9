"""``consistency="lane"``: who has read something new of a shard is served nothing older of it from L1.

The reader's subscription is held back on its way, so that what it hears is as late as it can be, for as long as a test
wants. B is long, so that nothing ends meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, wire
from support.redis import RedisServer
from support.switchboard import SUBSCRIPTION, Switchboard
from support.waiting import wait_until

Reading = Callable[[Cache[Any, Any]], Any]


@pytest.fixture
def board(redis_server: RedisServer) -> Iterator[Switchboard]:
    """What is between the reader and the server."""
    with Switchboard(redis_server) as board:
        yield board


@pytest.fixture
def writer(redis_server: RedisServer) -> Iterator[Cache[Any, Any]]:
    """Another process, as far as the reader can tell."""
    with nearcache.open(redis_server.url) as cache:
        yield cache


@pytest.fixture
def reader(board: Switchboard) -> Iterator[Cache[Any, Any]]:
    """The cache under test."""
    with nearcache.open(board.url, consistency="lane", max_staleness=60.0, timeout=5.0) as cache:
        yield cache


def fill(reader: Cache[Any, Any], writer: Cache[Any, Any], **values: Any) -> None:
    """Let L1 of the reader hold values that another process has written, with all of its messages heard."""
    writer.set_many(values)
    reader.wait_for(writer.token())
    for key, value in values.items():
        assert reader[key] == value
    wait_until(lambda: all(reader.peek(key) == value for key, value in values.items()))


def asked(reader: Cache[Any, Any]) -> int:
    """How often the reader has asked L2."""
    l2 = reader.stats().l2
    return l2.hits + l2.misses


def get_async(reader: Cache[Any, Any]) -> Any:
    async def get() -> Any:
        return await reader.aio.get("second")

    return asyncio.run(get())


def get_many_async(reader: Cache[Any, Any]) -> Any:
    async def get() -> Any:
        return (await reader.aio.get_many(["second", "none"]))["second"]

    return asyncio.run(get())


READINGS: dict[str, Reading] = {
    "get": lambda reader: reader["second"],
    "get_many": lambda reader: reader.get_many(["second", "none"])["second"],
    "load": lambda reader: reader.get_or_load("second", loader=lambda _: "loaded"),
    "gets": lambda reader: reader.gets("second")[0],
    "add": lambda reader: reader.setdefault("second", "other"),
    "pop": lambda reader: reader.pop("second"),
    "aio get": get_async,
    "aio get_many": get_many_async,
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_value_read_new_forbids_older_copies_of_other_keys(
    board: Switchboard, reader: Cache[Any, Any], writer: Cache[Any, Any], reading: Reading
) -> None:
    """First one key is changed, then another. Who sees the second change sees the first."""
    fill(reader, writer, first="old", third="same")
    board.hold_back(SUBSCRIPTION)
    writer["first"] = "new"
    writer["second"] = "new"
    assert reader["first"] == "old"  # within the bound, and nothing newer has been seen
    assert reading(reader) == "new"
    assert reader["first"] == "new"
    assert reader["third"] == "same"
    assert reader.get_many(["first", "third"]) == {"first": "new", "third": "same"}
    assert reader.peek("first") is None
    withheld = reader.stats().coherence
    assert withheld.withheld == 1
    assert withheld.hits_withheld >= 2
    board.let_go(SUBSCRIPTION)
    wait_until(lambda: reader.peek("first") == "new" or reader["first"] is None)
    before = asked(reader)
    assert reader["first"] == "new"
    assert reader["third"] == "same"
    assert asked(reader) == before
    assert reader.stats().coherence.lanes[0].withheld_s > 0


def test_consistency_by_key_lets_other_keys_be_older(
    board: Switchboard, redis_server: RedisServer, writer: Cache[Any, Any]
) -> None:
    """The same with the default: that is what the option is for."""
    with nearcache.open(board.url, max_staleness=60.0) as reader:
        fill(reader, writer, first="old")
        board.hold_back(SUBSCRIPTION)
        writer["first"] = "new"
        writer["second"] = "new"
        assert reader["second"] == "new"
        assert reader["first"] == "old"
        assert reader.stats().coherence.withheld == 0
        board.let_go(SUBSCRIPTION)


CHANGES: dict[str, Reading] = {
    "set": lambda reader: reader.__setitem__("own", 1),
    "invalidate": lambda reader: reader.invalidate("own"),
    "set_many": lambda reader: reader.set_many({"own": 1, "other": 2}),
    "incr": lambda reader: reader.incr("own"),
    "absence": lambda reader: reader.get("none"),
    "contains": lambda reader: "none" in reader,
    "loaded": lambda reader: reader.get_or_load("none", loader=lambda _: 1),
    "tag": lambda reader: reader.invalidate_tag("some"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_own_change_or_news_of_absence_is_an_observation_too(
    board: Switchboard, reader: Cache[Any, Any], writer: Cache[Any, Any], change: Reading
) -> None:
    """Whatever the lane's shard is asked tells how far the lane is."""
    fill(reader, writer, first="old")
    board.hold_back(SUBSCRIPTION)
    writer["first"] = "new"
    change(reader)
    assert reader["first"] == "new"
    board.let_go(SUBSCRIPTION)
    wait_until(lambda: reader["first"] == "new" and reader.peek("first") == "new")


def test_scripts_that_the_server_has_forgotten_are_no_way_round(
    board: Switchboard, redis_server: RedisServer, reader: Cache[Any, Any], writer: Cache[Any, Any]
) -> None:
    """What asks where the lane stands is asked again behind a script that had to be sent in full."""
    fill(reader, writer, first="old")
    board.hold_back(SUBSCRIPTION)
    writer["first"] = "new"
    redis_server.cli("SCRIPT", "FLUSH")
    reader.touch("none", 60.0)
    assert reader["first"] == "new"
    board.let_go(SUBSCRIPTION)


def test_tagged_copies_are_withheld_with_the_lane_of_their_tag(
    board: Switchboard, reader: Cache[Any, Any], writer: Cache[Any, Any]
) -> None:
    """A tag that was invalidated before what has been seen has ended its values."""
    writer.set("first", "old", tags=["t"])
    reader.wait_for(writer.token())
    assert reader["first"] == "old"
    wait_until(lambda: reader.peek("first") == "old")
    board.hold_back(SUBSCRIPTION)
    writer.invalidate_tag("t")
    writer["second"] = "new"
    assert reader["first"] == "old"
    assert reader["second"] == "new"
    assert reader.get("first") is None
    board.let_go(SUBSCRIPTION)


def test_clear_that_was_seen_through_another_key_ends_what_l2_still_has(
    board: Switchboard, reader: Cache[Any, Any], writer: Cache[Any, Any]
) -> None:
    """The reader does not judge by the generation that it last heard of."""
    fill(reader, writer, first="old")
    writer["unread"] = "old"
    reader.wait_for(writer.token())
    board.hold_back(SUBSCRIPTION)
    writer.clear()
    writer["second"] = "new"
    assert reader["second"] == "new"
    assert reader.get("first") is None
    assert reader.get("unread") is None
    board.let_go(SUBSCRIPTION)


def test_other_lanes_go_on(make_redis: Callable[..., RedisServer]) -> None:
    """The promise is one of each shard by itself, and so is its price."""
    near, far = make_redis(transport="tcp"), make_redis(transport="tcp")
    with (
        Switchboard(near) as board,
        nearcache.open(f"redis://127.0.0.1:{near.port},127.0.0.1:{far.port}", shard_names=["a", "b"]) as writer,
        nearcache.open(
            f"redis://127.0.0.1:{board.port},127.0.0.1:{far.port}",
            shard_names=["a", "b"],
            consistency="lane",
            max_staleness=60.0,
        ) as reader,
    ):
        by_lane: dict[int, list[str]] = {0: [], 1: []}
        for number in range(40):
            by_lane[reader._tier.place(f"k{number}")[0]].append(f"k{number}")
        (mine, news, *_), (others, *_) = by_lane.values()
        fill(reader, writer, **{mine: "old", others: "old"})
        board.hold_back(SUBSCRIPTION)
        writer[mine] = "new"
        writer[news] = "new"
        assert reader[news] == "new"
        assert reader.peek(mine) is None
        assert reader.peek(others) == "old"
        assert [lane.withheld for lane in reader.stats().coherence.lanes] == [1, 0]
        assert reader.health().ok
        board.let_go(SUBSCRIPTION)


def test_record_that_is_gone_makes_the_lane_suspect_and_then_it_is_served_again(
    board: Switchboard, redis_server: RedisServer, reader: Cache[Any, Any], writer: Cache[Any, Any]
) -> None:
    """Nobody can tell how far a lane without a record is. A heartbeat that is sent afterwards settles it."""
    fill(reader, writer, first="old")
    board.hold_back(SUBSCRIPTION)
    redis_server.cli("FLUSHALL")
    assert reader.get("second") is None
    assert reader.get("first") is None
    board.let_go(SUBSCRIPTION)
    writer["first"] = "new"
    assert reader.selftest().ok  # asks for a heartbeat
    wait_until(lambda: reader["first"] == "new" and reader.peek("first") == "new")


def test_token_names_what_was_only_observed(
    board: Switchboard, reader: Cache[Any, Any], writer: Cache[Any, Any]
) -> None:
    """Who is given the token of a reader sees what the reader has seen."""
    fill(reader, writer, first="old")
    board.hold_back(SUBSCRIPTION)
    writer["first"] = "new"
    assert wire.parse_token(reader.token()) != wire.parse_token(writer.token())
    writer["second"] = "new"
    assert reader["second"] == "new"
    assert wire.parse_token(reader.token()) == wire.parse_token(writer.token())
    board.let_go(SUBSCRIPTION)


def test_memory_cache_takes_the_option() -> None:
    """There is one copy of everything, so there is nothing to do."""
    cache: Cache[str, int] = nearcache.open("memory://", consistency="lane")
    cache["k"] = 1
    assert cache["k"] == 1
