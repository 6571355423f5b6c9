"""Processes that start with other lists of shards than the rest are told, in whatever order they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.bus import GrowingListener
from nearcache.errors import ReshardError, ShardError, ShardListError
from nearcache.rings import Ring, version_in
from support.redis import RedisServer
from support.resharding import (
    KEYS,
    Servers,
    change,
    step,
    version,
)
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("names", "options", "mine"),
    [
        ("abc", {}, r"\[a, b, c\]"),
        ("a", {}, r"\[a\]"),
        ("bc", {}, r"\[b, c\]"),
        ("ab", {"shard_weights": (1, 2)}, r"\[a x1, b x2\]"),
        ("ab", {"placement": "ring"}, r"\[a, b\] by ring"),
    ],
)
def test_open_with_another_list_is_refused_by_name(
    open_at: Callable[..., Any], names: str, options: dict[str, Any], mine: str
) -> None:
    """Whether names, weights or strategy differ; the error says what this process has and what the others have."""
    first = open_at("ab")
    with pytest.raises(ShardListError, match=rf"started with {mine}, but shard [ab] has recorded version 1, \[a, b\]"):
        open_at(names, **options)
    first["k"] = 1
    assert first["k"] == 1
    assert open_at("ba")["k"] == 1


def test_reshard_of_weights_leaves_a_list_that_every_process_can_follow(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """Whoever comes to a shard first tells it the list, and has begun with other weights himself."""
    caches = [open_at("ab", shard_weights=(2, 1), max_staleness=0.4) for _ in range(4)]
    assert change(caches[0], servers, "ab", shard_weights=(1, 1)).version == 4
    for cache in caches:
        wait_until(lambda cache=cache: version(cache) == 4 and cache.health().ok, what="it has followed")
        cache["k"] = 1
    for shard in "ab":
        servers[shard].restart()
    wait_until(
        lambda: all(servers[shard].cli("HGET", "nc:{default:0}:L", "c") for shard in "ab"),
        what="they have been told anew",
    )
    for shard in "ab":
        assert servers[shard].client().hget("nc:{default:0}:L", "c") == caches[0]._membership.ring.dump()
    late = open_at("ab", shard_weights=(1, 1))
    late["k"] = 2
    assert (late["k"], late.health().ok) == (2, True)


def test_open_works_out_once_what_all_shards_have_recorded(
    open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables of a long list take long to make, and there are as many records as shards."""
    open_at("abc", placement="ring")
    made: list[Any] = []
    load = Ring.load
    monkeypatch.setattr(Ring, "load", lambda content, like: made.append(content) or load(content, like))
    open_at("bca", placement="ring")
    assert len(made) == 1


def test_open_late_with_the_list_before_or_after_a_change(servers: Servers, open_at: Callable[..., Any]) -> None:
    """In the middle of a change both are right; afterwards one is."""
    one = open_at("ab")
    step(one, servers, "abc", 3)
    old, new = open_at("ab"), open_at("abc")
    assert [version(cache) for cache in (old, new)] == [3, 3]
    one.set_many(dict.fromkeys(KEYS, 1))
    assert old.get_many(KEYS) == new.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    with pytest.raises(ShardListError, match=r"version 3, a change from \[a, b\] to \[a, b, c\]"):
        open_at("bc")
    change(old, servers, "abc")
    with pytest.raises(ShardListError, match=r"started with \[a, b\], but .* version 4, \[a, b, c\]"):
        open_at("ab")
    assert version(open_at("abc")) == 4


def test_open_with_the_old_list_while_its_shards_were_away_is_refused_when_they_are_back(
    servers: Servers, open_at: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A service may start without its shards; then it is told as soon as it meets one."""
    one = open_at("ab")
    change(one, servers, "abc")
    one.set_many(dict.fromkeys(KEYS, 1))
    for server in servers.values():
        server.save()
        server.kill()
    late = open_at("ab", connect_timeout=0.2, timeout=0.5)
    for server in servers.values():
        server.start()
    wait_until(lambda: "started with [a, b]" in caplog.text, what="it is logged")
    assert late.get_many(KEYS) == {}
    with pytest.raises(ShardError):
        late["k"] = 1
    wait_until(lambda: one.get_many(KEYS) == dict.fromkeys(KEYS, 1), what="those with the right list go on")


def test_record_that_was_lost_is_made_anew_with_the_list(servers: Servers, open_at: Callable[..., Any]) -> None:
    """A flush makes nobody's list right that was wrong."""
    one = open_at("ab")
    wait_until(lambda: one.health().ok, what="it is live")
    servers["a"].cli("FLUSHALL")
    wait_until(lambda: servers["a"].cli("HGET", "nc:{default:0}:L", "c"), what="the list is recorded again")
    with pytest.raises(ShardListError):
        open_at("abc")


def test_records_that_were_removed_let_a_namespace_begin_anew(servers: Servers, open_at: Callable[..., Any]) -> None:
    """With another list, where nobody is left who uses the first one; and nothing of what was stored comes back."""
    first = open_at("ab")
    first.set_many(dict.fromkeys(KEYS, "old"))
    first.close()
    with pytest.raises(ShardListError, match=r"docs/operations\.md says how to begin anew"):
        open_at("ac")
    for name in "ab":
        servers[name].cli("DEL", "nc:{default:0}:L")
    second = open_at("ac")
    assert second.get_many(KEYS) == {}
    second.set_many(dict.fromkeys(KEYS, "new"))
    assert open_at("ca").get_many(KEYS) == dict.fromkeys(KEYS, "new")


@pytest.mark.parametrize("list_of", ["c", "cx"])
def test_reshard_with_a_server_of_another_list_is_refused_before_anybody_is_told(
    servers: Servers, open_at: Callable[..., Any], make_redis: Callable[..., RedisServer], list_of: str
) -> None:
    """Somebody has tried it alone, or it is in use elsewhere and further there: either would stop the change half-way,
    or lead everybody into that list. The error says what to do."""
    cache, other = open_at("ab"), open_at("ab")
    servers["x"] = make_redis(transport="unix")
    trial = open_at("c")
    trial["k"] = "old"
    if list_of != "c":
        change(trial, servers, list_of)
    trial.close()
    with pytest.raises(ReshardError, match=r"shard c has recorded .*: .* remove the record .*DEL 'nc:{default:0}:L'"):
        change(cache, servers, "abc")
    assert version(cache) == version(other) == 1
    assert [servers[name].cli("HGET", "nc:{default:0}:L", "r")[:2] for name in "ab"] == [b"1-", b"1-"]
    cache.set_many(dict.fromkeys(KEYS, "new"))
    servers["c"].cli("DEL", "nc:{default:0}:L")
    assert change(cache, servers, "abc").version == 4
    wait_until(lambda: version(other) == 4)
    assert "old" not in cache.get_many(["k", *KEYS]).values()


def test_reshard_takes_in_a_server_that_was_left_or_met_by_a_process_that_was_refused(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """The new list was given to a process too early, and it could not be opened."""
    cache = open_at("ab")
    with pytest.raises(ShardListError):
        open_at("abc")
    assert change(cache, servers, "abc").version == 4
    assert change(cache, servers, "ab").version == 7
    assert change(cache, servers, "abc").version == 10


def test_reshard_listens_to_a_shard_that_was_left_once_it_knows_that_it_is_back(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses who comes before, and the log would say that it was lost, for no time."""
    cache, follow, known = open_at("ab"), GrowingListener.follow, list[int]()
    change(cache, servers, "a")

    def followed(listener: GrowingListener, *lane: Any) -> None:
        known.append(version_in(servers["b"].cli("HGET", "nc:{default:0}:L", "r"))[0])
        follow(listener, *lane)

    monkeypatch.setattr(GrowingListener, "follow", followed)
    assert change(cache, servers, "ab").version == 7
    assert known == [5]


def test_one_shard_may_have_many_addresses(make_redis: Callable[..., RedisServer]) -> None:
    """What it is called decides nothing, as long as it is alone."""
    server = make_redis()
    with nearcache.open(server.url) as one, nearcache.open(server.url, shard_names=["x"]) as other:
        one["k"] = 1
        assert other["k"] == 1
