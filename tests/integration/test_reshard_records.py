"""What shards have recorded of the list of shards, and what becomes of it where servers forget."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache.errors import ReshardError, ServerReplyError, ShardError, ShardListError, ShardUnavailableError
from support.resharding import KEYS, Servers, change, freeze, lanes_live, step, version
from support.waiting import wait_until


@pytest.mark.parametrize("field", ["e", "w"])
def test_record_that_a_failover_set_back_is_told_anew(
    servers: Servers, open_at: Callable[..., Any], field: str
) -> None:
    """Every script brings the version along, but not the list: who came later would be refused for ever."""
    cache = open_at("ab")
    name = cache._tier.names[0].lane_key
    with servers["a"].client() as server:
        wait_until(lambda: server.hget(name, "c") is not None)
        before = server.hget(name, "c")
        change(cache, servers, "abc")
        lanes_live(cache)
        after = server.hget(name, "c")
        assert after != before
        # As the new primary has it when it has been adopted; or behind a proxy, when it has been written to.
        server.hset(name, mapping={"c": before, field: "1" * 16})
        wait_until(lambda: server.hget(name, "c") == after, what="the list is recorded again")


@pytest.mark.parametrize("hindrance", ["busy", "unanswered"])
def test_record_that_was_lost_is_told_anew_whatever_comes_between(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, hindrance: str
) -> None:
    """The thread that is to do it may be about something else when it is asked; or what it asks is not answered."""
    cache = open_at("ab", max_staleness=0.2)
    lanes_live(cache)
    name, real, failed = cache._tier.names[0].lane_key, cache._driver.execute, []

    def execute(exchanges: Any, *arguments: Any) -> Any:
        if failed or exchanges[0].commands[0][0] != b"HMGET":
            return real(exchanges, *arguments)
        failed.extend(exchanges)
        return [ShardUnavailableError("a", "no answer", sent=True) for _ in exchanges]

    with servers["a"].client() as server:
        wait_until(lambda: server.hget(name, "c") is not None)
        if hindrance == "busy":
            freeze(cache)
        else:
            monkeypatch.setattr(cache._driver, "execute", execute)
        server.delete(name)
        wait_until(lambda: server.hget(name, "r") is not None, what="a heartbeat makes a record")
        if hindrance == "busy":
            epoch = int(server.hget(name, "e"), 16)
            wait_until(lambda: cache._tier.lanes[0].epoch == epoch and not cache._upkeep._untold)
            cache._membership._catching_up = False
        wait_until(lambda: server.hget(name, "c") is not None, what="the list is recorded again")
        assert failed or hindrance == "busy"


@pytest.mark.parametrize("damage", ["x", "", "-1", None])
def test_damaged_record_is_said_and_contained_until_it_is_mended(
    servers: Servers, open_at: Callable[..., Any], caplog: pytest.LogCaptureFixture, damage: str | None
) -> None:
    """The shard takes no part, in a cache that was open and in one that comes later; nobody's thread ends over it."""
    cache = open_at("ab")
    lanes_live(cache)
    tier = cache._tier
    here, there = (next(key for key in KEYS if tier.place(key)[0] == lane) for lane in (0, 1))
    cache[here] = cache[there] = "old"
    name = tier.names[0].lane_key
    with servers["a"].client() as server:
        good = server.hget(name, "r")
        if damage is None:
            server.hdel(name, "r")
        else:
            server.hset(name, "r", damage)
        wait_until(lambda: cache.health().shards[0].lane != "live", what="nothing is vouched for")
        later = open_at("ab")
        for each in (cache, later):
            with pytest.raises(ServerReplyError, match=r"NCRECORD .* remove the lane record"):
                each[here] = "new"
            each[there] = "new"
            each._membership._catch_up()
        assert "nothing of it is served from memory" in caplog.text or damage is None
        with pytest.raises(ReshardError, match="a did not answer"):
            change(cache, servers, "abc")
        server.hset(name, "r", good)
        lanes_live(cache, later)
        wait_until(lambda: not any(each.stats().coherence.owed for each in (cache, later)), what="debts are paid")
        later[here] = "new"
        wait_until(lambda: cache.get(here) == "new")


@pytest.mark.parametrize(
    "listed", [b"garbage", b'{"version":2,"lists":[{"placement":"ring","shards":[["x",1e999,["x"]]]}]}']
)
def test_damaged_list_ends_no_thread_and_is_complained_of_once(
    servers: Servers, open_at: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    listed: bytes,
) -> None:  # fmt: skip
    """What follows from it is a complaint of its own; they take turns as long as it lies there."""
    ended: list[object] = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    cache = open_at("ab", max_staleness=0.2)
    lanes_live(cache)
    looks: list[object] = []
    real = cache._membership._look
    monkeypatch.setattr(cache._membership, "_look", lambda: looks.append(None) or real())
    with servers["a"].client() as server:
        server.hset(cache._tier.names[0].lane_key, mapping={"c": listed, "r": "2-0123456789abcdef"})
        wait_until(lambda: len(looks) > 8, what="it is looked at again and again")
    texts = [record.args for record in caplog.records if record.levelname == "ERROR"]
    assert texts
    assert len({arguments[0] for arguments in texts if isinstance(arguments, tuple)}) == len(texts)
    assert ended == []
    with pytest.raises(ShardListError, match="has recorded version 2-0123456789abcdef of some other list"):
        open_at("ab")


def test_complaint_that_was_mended_is_told_again_when_its_cause_comes_back(
    servers: Servers, open_at: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Once for as long as it lasts: the second time it is an accident of its own."""
    cache = open_at("ab", max_staleness=0.2)
    lanes_live(cache)
    name = cache._tier.names[0].lane_key
    with servers["a"].client() as server:
        wait_until(lambda: server.hget(name, "c") is not None)
        good = server.hget(name, "r")
        told = []
        for _ in range(2):
            server.hset(name, "r", "2-0123456789abcdef")
            wait_until(lambda: caplog.messages, what="it is complained of")
            told += caplog.messages
            caplog.clear()
            server.hset(name, "r", good)
            wait_until(lambda: not cache._membership._told, what="all agree again")
    first, second = (message.partition(" (and ")[0] for message in told)
    assert first == second
    assert first.count("namespace default: ") == 1
    assert "2-0123456789abcdef" in first


def test_shard_that_is_left_and_forgot_that_holds_nobody_up(servers: Servers, open_at: Callable[..., Any]) -> None:
    """A late heartbeat of one who knows the new version makes a record of its own there."""
    leader, other = open_at("ab"), open_at("ab")
    freeze(other)
    step(leader, servers, "a", 3)
    step(other, servers, "a", 3)
    assert version(other) == 3
    name, ring = leader._tier.names[0].lane_key, leader._membership.ring.following()
    step(leader, servers, "a", 4)
    with servers["b"].client() as server:
        server.delete(name)
        record = {"e": "1" * 16, "g": "2" * 16, "s": "0", "w": "0" * 16, "r": ring.text}
        server.hset(name, mapping=record)
    other._membership._catching_up = False
    other._membership.outdated()
    wait_until(lambda: version(other) == 4, what="the other follows")


@pytest.mark.parametrize("told", ["nothing", "in passing"])
def test_shard_that_is_left_and_was_set_back_is_told_again(
    servers: Servers, open_at: Callable[..., Any], told: str
) -> None:
    """It has been told as a replaced primary: who knows of no other shard would go on there for ever.

    What he changes there meanwhile is made up for where the others look.
    """
    leader, other = open_at("a", max_staleness=0.2), open_at("a", max_staleness=0.2)
    lanes_live(leader, other)
    name = leader._tier.names[0].lane_key
    with servers["a"].client() as server:
        wait_until(lambda: server.hget(name, "c") is not None)
        before = server.hgetall(name)
        freeze(other)
        change(leader, servers, "b")
        leader["k"] = "of the leader"
        wait_until(lambda: not leader._membership._catching_up, what="the leader has told it")
        freeze(leader)
        server.hset(name, mapping=before | {b"e": b"1" * 16, b"h": before[b"e"] + b":0"})
        if told == "nothing":
            wait_until(lambda: writes(other, "k"), what="the shard takes what it should not")
        leader._membership._catching_up = False
        if told != "nothing":
            server.hset(name, "r", leader._tier.ring)
        other._membership._catching_up = False
        wait_until(lambda: version(other) == 4, what="the other follows")
        assert server.hget(name, "r") == leader._tier.left
    assert leader._tier.adopt_commands(0, 1)[0][3] == leader._tier.left, "a new primary is told the same at first"
    if told == "nothing":
        wait_until(lambda: "k" not in leader.get_many(["k"]), what="the leader hears of what was changed")


def writes(cache: Any, key: str) -> bool:
    """Whether a cache is let."""
    try:
        cache[key] = "of one who is behind"
    except ShardError:
        return False
    return True


@pytest.mark.parametrize(("between", "moved_back"), [("a", "b"), ("abc", "b")], ids=["cleared", "swept"])
def test_shard_that_comes_back_as_it_was_before_it_was_emptied_is_emptied_again(
    servers: Servers, open_at: Callable[..., Any], between: str, moved_back: str
) -> None:
    """A failover loses that: what it had from the time before, and was changed elsewhere meanwhile, would be read."""
    cache = open_at("ab", timeout=0.5)
    lanes_live(cache)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    change(cache, servers, between)
    lanes_live(cache)
    cache.set_many(dict.fromkeys(KEYS, "new"))
    servers[moved_back].save()
    change(cache, servers, "ab")
    lanes_live(cache)
    servers[moved_back].kill()
    servers[moved_back].start()
    journal = cache._tier.journals[cache._membership.numbers[moved_back]]
    wait_until(lambda: journal.replayed > 0 and not journal.owes, what="the shard is emptied again")
    lanes_live(cache)
    assert "old" not in cache.get_many(KEYS).values()
