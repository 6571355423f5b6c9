"""Changing the list of shards: every step, what each pair of neighbouring steps has to keep, and what may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache.errors import ConfigError, ReshardError, ServerReplyError, ShardListError
from nearcache.rings import Ring, admits, shards_of
from support.resharding import KEYS, B, Servers, change, freeze, lanes_live, step, url, version
from support.waiting import wait_until

# -- the change


def test_reshard_grow_and_shrink_moves_a_share_and_keeps_the_rest(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """What moves starts cold, what stays is still there, and the other process follows by itself."""
    one, other = open_at("ab"), open_at("ab")
    one.set_many(dict.fromkeys(KEYS, "first"))
    grown = change(one, servers, "abc")
    assert (grown.version, grown.shards) == (4, ("a", "b", "c"))
    assert 0.3 < grown.moved < 0.37
    wait_until(lambda: version(other) == 4, what="the other has followed")
    kept = one.get_many(KEYS)
    assert set(kept) == {key for key in KEYS if one._tier.shard_names[one._tier.place(key)[0]] != "c"}
    assert other.get_many(KEYS) == kept
    other.set_many(dict.fromkeys(KEYS, "second"))
    wait_until(lambda: one.get_many(KEYS) == dict.fromkeys(KEYS, "second"), timeout=B, what="the write is seen")
    assert servers["c"].cli("DBSIZE") > 1
    shrunk = change(other, servers, "ab")
    assert (shrunk.version, shrunk.shards) == (7, ("a", "b"))
    wait_until(lambda: version(one) == 7, what="the first has followed")
    lanes_live(one, other)
    assert [shard.name for shard in one.health().shards] == ["a", "b"]
    assert one.selftest().ok
    assert other.get_many(KEYS) == one.get_many(KEYS) == dict.fromkeys(kept, "second")


def test_reshard_then_a_cache_that_writes_behind_empties_its_queues(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """It joins at the version of then, and says so to the queues as well."""
    change(open_at("ab"), servers, "abc")
    rows: dict[str, int] = {}
    cache = open_at("abc", writer=rows.__setitem__, write_delay=0.01)
    cache.set_many(dict.fromkeys(KEYS, 1))
    cache.flush(10)
    assert rows == dict.fromkeys(KEYS, 1)
    assert cache.stats().writing.last_error == ""
    cache.close()
    assert [servers[name].cli("EXISTS", f"nc:{{default:{lane}}}:o") for lane, name in enumerate("abc")] == [0, 0, 0]


def test_reshard_to_the_list_of_now_does_nothing(servers: Servers, open_at: Callable[..., Any]) -> None:
    """Whoever comes late finds it done."""
    cache = open_at("ab")
    assert change(cache, servers, "ab").version == 1
    assert change(cache, servers, "ba").version == 1


def test_reshard_weights_and_strategy_may_change_as_well(servers: Servers, open_at: Callable[..., Any]) -> None:
    """A list is names, weights and strategy."""
    one, other = open_at("ab"), open_at("ab")
    assert change(one, servers, "ab", shard_weights=(3, 1)).moved == pytest.approx(0.25, abs=0.03)
    wait_until(lambda: version(other) == 4, what="the other has followed")
    assert change(other, servers, "ab", shard_weights=(3, 1), placement="round_robin").version == 7
    wait_until(lambda: version(one) == 7, what="the first has followed")
    one["k"] = 1
    assert other["k"] == 1
    assert one._tier.table == other._tier.table
    assert one._tier.table.count(0) == 12_288
    servers["a"].restart()
    wait_until(lambda: servers["a"].cli("HGET", "nc:{default:0}:L", "f"), what="it is adopted by the version of now")


def test_reshard_values_of_an_earlier_stay_are_dead(servers: Servers, open_at: Callable[..., Any]) -> None:
    """A key that goes and comes back does not bring back what it was when it went; nor do tags."""
    one = open_at("ab", tags=lambda key, _: [f"tag {key}"])
    for key in KEYS:
        one.get_or_load(key, lambda _: "old")
    change(one, servers, "abc")
    one.delete_many(KEYS)
    for key in KEYS:
        one.invalidate_tag(f"tag {key}")
    change(one, servers, "ab")
    assert one.get_many(KEYS) == {}
    assert {one.get_or_load(key, lambda _: "new") for key in KEYS} == {"new"}


def test_reshard_without_the_right_to_scan_starts_the_shard_cold(servers: Servers, open_at: Callable[..., Any]) -> None:
    """What cannot be looked through is cleared as a whole."""
    one = open_at("ab")
    one.set_many(dict.fromkeys(KEYS, "old"))
    change(one, servers, "abc")
    one.delete_many(KEYS)
    one.set_many(dict.fromkeys(KEYS, "new"))
    for name in "ab":
        servers[name].cli("ACL", "SETUSER", "default", "-scan")
    change(one, servers, "ab")
    assert one.get_many(KEYS) == {}


def test_reshard_replaces_every_shard(servers: Servers, open_at: Callable[..., Any]) -> None:
    """The old ones may be switched off then, and refuse those who still come with the old list."""
    one, other = open_at("a"), open_at("a")
    other["k"] = 1
    assert change(one, servers, "bc").moved == 1.0
    wait_until(lambda: version(other) == 4, what="the other has followed")
    with pytest.raises(ShardListError, match=r"started with \[a\], but shard a has recorded version 4, \[b, c\]"):
        open_at("a")
    servers["a"].kill()
    other["k"] = 2
    assert one["k"] == 2
    lanes_live(one, other)


def test_reshard_of_the_asynchronous_view(servers: Servers, open_at: Callable[..., Any]) -> None:
    """The loop goes on meanwhile, and what it does is spread to both owners."""
    one, other = open_at("ab"), open_at("ab")

    async def work() -> int:
        task = asyncio.ensure_future(one.aio.reshard(url(servers, "abc"), shard_names=list("abc"), pause=B / 3))
        number = 0
        while not task.done():
            number += 1
            await other.aio.set_many(dict.fromkeys(KEYS, number))
            await other.aio.invalidate(KEYS[0])
            await asyncio.sleep(0.01)
        assert (await task).version == 4
        await other.aio.set_many(dict.fromkeys(KEYS, "last"))
        await one.aio.wait_for(other.token(), 5.0)
        assert await one.aio.get_many(KEYS) == dict.fromkeys(KEYS, "last")
        await one.aio.close()
        await other.aio.close()
        return number

    assert asyncio.run(work()) > 1


# -- two processes, one step apart


WRITES: dict[str, Callable[[Any], Any]] = {
    "set": lambda cache: [cache.set(key, "new") for key in KEYS],
    "set_many": lambda cache: cache.set_many(dict.fromkeys(KEYS, "new")),
    "invalidate": lambda cache: [cache.invalidate(key) for key in KEYS],
    "delete_many": lambda cache: cache.delete_many(KEYS),
    "get_and_delete": lambda cache: [cache.get_and_delete(key, None) for key in KEYS],
    "compute": lambda cache: [cache.compute(key, lambda _: "new") for key in KEYS],
    "invalidate_tag": lambda cache: cache.invalidate_tag("all"),
    "clear": lambda cache: cache.clear(),
    "load anew": lambda cache: [cache.get_or_load(key, lambda _: "new", max_age=0) for key in KEYS],
    "load many anew": lambda cache: cache.get_or_load_many(KEYS, lambda keys: dict.fromkeys(keys, "new"), max_age=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("names", ["abc", "b"])
def test_write_of_a_neighbouring_step_leaves_nothing_old(
    servers: Servers, open_at: Callable[..., Any], names: str
) -> None:
    """Whoever is a step ahead or behind reads nothing from before the write, from Redis or from memory."""
    reader, writer = open_at("ab"), open_at("ab")
    for at in (1, 2, 3):
        for behind, ahead in ((reader, writer), (writer, reader)):
            step(behind, servers, names, at)
            step(ahead, servers, names, at + 1)
            lanes_live(reader, writer)
            for name, write in WRITES.items():
                for cache in (behind, ahead):
                    for key in KEYS:
                        cache.get_or_load(key, lambda _: "old", tags=["all"])
                write(writer)
                seen = f"{name} at {version(writer)} is seen at {version(reader)}"
                wait_until(lambda: "old" not in reader.get_many(KEYS).values(), timeout=B, what=seen)
                assert set(writer.get_many(KEYS).values()) <= {"new"}, seen
                writer.clear()
                wait_until(lambda: not reader.get_many(KEYS), timeout=B, what="a clear is seen")


def test_hold_of_a_neighbouring_step_keeps_old_loads_out(servers: Servers, open_at: Callable[..., Any]) -> None:
    """Nothing can be stored under a held key, at either owner."""
    loading, holding = open_at("ab"), open_at("ab")
    for behind, ahead in ((2, 2), (2, 3), (3, 3)):
        step(loading, servers, "abc", behind)
        step(holding, servers, "abc", ahead)
        with holding.hold(KEYS):
            for key in KEYS:
                assert loading.get_or_load(key, lambda _: "old") == "old"
        assert loading.get_many(KEYS) == holding.get_many(KEYS) == {}


@pytest.mark.parametrize("ahead", [2, 3])
def test_hold_from_before_a_change_goes_on_at_the_new_owner(
    servers: Servers, open_at: Callable[..., Any], ahead: int
) -> None:
    """Until its end, or until its time ends: its process may be killed, and nobody else knows of it."""
    loading, holding = open_at("ab"), open_at("ab")
    with holding.hold(KEYS, 60):
        step(holding, servers, "abc", 2)
        step(loading, servers, "abc", ahead)
        for key in KEYS:
            assert loading.get_or_load(key, lambda _: "old") == "old"
        assert loading.get_many(KEYS) == {}
    for key in KEYS:
        assert loading.get_or_load(key, lambda _: "new") == "new"
    assert loading.get_many(KEYS) == dict.fromkeys(KEYS, "new")


def test_hold_that_ends_while_it_is_repeated_at_the_new_owner_ends_there_too(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever comes first there: else nothing could be stored for a minute."""
    cache = open_at("ab")
    hold = cache.hold(KEYS, 60)
    hold.__enter__()
    real, repeated = cache._driver.execute, list[Any]()

    def execute(exchanges: Any, **options: Any) -> Any:
        if not repeated and getattr(exchanges[0].commands[0][0], "name", "") == "invalidate":
            repeated.extend(exchanges)
            hold.__exit__(None, None, None)
        return real(exchanges, **options)

    monkeypatch.setattr(cache._driver, "execute", execute)
    step(cache, servers, "abc", 3)
    assert repeated
    keys = [key for key in KEYS if cache._tier.place(key)[0] == 2]
    wait_until(lambda: not cache.stats().coherence.owed, what="its end is made up for")
    for key in keys:
        cache.get_or_load(key, lambda _: "new")
    assert cache.get_many(keys) == dict.fromkeys(keys, "new")


def test_load_that_lasts_through_a_change_is_kept_nowhere(servers: Servers, open_at: Callable[..., Any]) -> None:
    """It began when the old owners were read; by now nobody invalidates there."""
    one = open_at("ab")
    moving = [f"k{n}" for n in range(99) if _shard_after(one, servers, f"k{n}") == "c"]

    def load(_: str) -> str:
        if version(one) == 1:
            change(one, servers, "abc")
        return "old"

    assert one.get_or_load(moving[0], load) == "old"
    assert version(one) == 4
    assert one.get(moving[0]) is None
    name = one._tier.names[0].value(nearcache.keys.encode_key(moving[0]))
    assert [servers[shard].cli("EXISTS", name) for shard in "abc"] == [0, 0, 0]


def _shard_after(cache: Any, servers: Servers, key: str) -> str:
    ring = cache._membership.ring
    endpoints = [*ring.old.endpoints, nearcache.options.Endpoint("c", path=servers["c"].path)]
    return shards_of("rendezvous", tuple(endpoints)).owner(nearcache.keys.slot_of(nearcache.keys.encode_key(key)))


def test_process_two_steps_behind_is_refused_and_what_it_owes_is_paid_where_it_counts(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """It does not read what nobody invalidates for it; its invalidation is made up for at the new owner."""
    ahead, behind = open_at("ab"), open_at("ab", timeout=2.0)
    freeze(behind)
    change(ahead, servers, "abc")
    ahead.set_many(dict.fromkeys(KEYS, "old"))
    for key in KEYS:
        with pytest.raises(ServerReplyError, match=r"NCTOPO 4-.* another list of shards than this process"):
            behind.invalidate(key)
    wait_until(lambda: behind.health().ok is False, what="its lanes are down")
    assert behind.get_many(KEYS) == {}
    assert behind.get(KEYS[0], "nothing") == "nothing"
    assert behind.get_or_load(KEYS[0], lambda _: "loaded") == "loaded"
    behind._membership._catching_up = False
    wait_until(lambda: version(behind) == 4, what="it has caught up")
    wait_until(lambda: behind.stats().coherence.owed == 0, what="all is paid")
    assert ahead.get_many(KEYS) == {}


def test_token_of_another_version_still_lets_nothing_older_through(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """All lanes are asked then."""
    one, other = open_at("ab"), open_at("ab")
    freeze(other)
    step(one, servers, "abc", 2)
    lanes_live(one, other)
    one.set_many(dict.fromkeys(KEYS, 1))
    assert other.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    one.set_many(dict.fromkeys(KEYS, 2))
    token = one.token()
    assert token.startswith("1r2.")
    other.wait_for(token, 5.0)
    assert other.get_many(KEYS) == dict.fromkeys(KEYS, 2)


# -- what may go wrong


def test_reshard_new_shard_that_is_down_is_named_and_the_call_repeated(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """Nothing is lost meanwhile, in this process or another."""
    one, other = open_at("ab", timeout=2.0), open_at("ab", timeout=2.0)
    servers["c"].kill()
    with pytest.raises(ReshardError, match="every shard has to be told before, and c did not answer") as raised:
        change(one, servers, "abc")
    assert raised.value.shards == ("c",)
    one.set_many(dict.fromkeys(KEYS, 1))
    assert other.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    with pytest.raises(ReshardError, match="c did not answer"):
        change(other, servers, "abc")
    servers["c"].start()
    wait_until(lambda: _tried(other, servers), what="the shard is reached again")
    wait_until(lambda: version(one) == 4, what="the other has followed")


def _tried(cache: Any, servers: Servers, names: str = "abc") -> bool:
    try:
        return change(cache, servers, names).version == 4
    except ReshardError:
        return False


@pytest.mark.parametrize("at", [2, 3])
def test_reshard_old_shard_that_goes_down_in_the_middle_stops_the_change_not_the_rest(
    servers: Servers, open_at: Callable[..., Any], at: int
) -> None:
    """Keys of other shards go on; once it is back the same call finishes."""
    one, other = open_at("ab", timeout=2.0), open_at("ab", timeout=2.0)
    step(one, servers, "bc", at)
    one._membership._catching_up = False
    wait_until(lambda: version(other) == at, what="the other has followed")
    servers["a"].kill()
    with pytest.raises(ReshardError, match="a did not answer"):
        change(one, servers, "bc")
    staying = [key for key in KEYS if {one._tier.table[_slot(key)], one._tier.other[_slot(key)]} <= {1, 2}]
    one.set_many(dict.fromkeys(staying, 1))
    assert other.get_many(staying) == dict.fromkeys(staying, 1)
    servers["a"].start()
    wait_until(lambda: _tried(other, servers, "bc"), what="the shard is reached again")
    wait_until(lambda: version(one) == 4, what="the other has followed")


def _slot(key: str) -> int:
    return nearcache.keys.slot_of(nearcache.keys.encode_key(key))


def test_reshard_while_another_change_is_under_way_is_refused(servers: Servers, open_at: Callable[..., Any]) -> None:
    """The error says which; that one can be finished by anybody."""
    one, other = open_at("ab"), open_at("ab")
    step(one, servers, "abc", 2)
    with pytest.raises(ReshardError, match=r"version 2, a change from \[a, b\] to \[a, b, c\] is under way; finish it"):
        change(other, servers, "a")
    assert change(other, servers, "abc").version == 4
    assert change(other, servers, "a").version == 7


def test_reshard_of_two_at_once_one_is_taken(servers: Servers, open_at: Callable[..., Any]) -> None:
    """Both begin at the same lane, so one of them finds out there."""
    one, other = open_at("ab"), open_at("ab")
    freeze(one), freeze(other)
    ring = other._membership.ring
    step(one, servers, "abc", 2)
    target = nearcache.cache.shards.moving._target(
        other.settings, ring.old, url(servers, "b"), None, {"shard_names": ["b"]}
    )
    with pytest.raises(
        ReshardError, match=r"is refused, for shard a has version 2, a change from \[a, b\] to \[a, b, c\]"
    ):
        other._membership._advance(ring.begin(target))
    assert version(other) == 1


def test_reshard_shard_that_was_left_comes_back_with_the_next_change(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """Whoever regrets a change can undo it: that a shard was left by a version is no other list of that version."""
    cache = open_at("ab")
    assert change(cache, servers, "a").version == 4
    assert change(cache, servers, "ab").version == 7
    assert cache.selftest().ok


def test_reshard_that_somebody_else_finishes_meanwhile_is_finished(
    servers: Servers, open_at: Callable[..., Any]
) -> None:
    """Two lead the same change, and one is so slow that it comes back when all has been done."""
    one, other = open_at("ab"), open_at("ab")
    freeze(one)
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        if not pauses:
            change(other, servers, "abc")
        pauses.append(seconds)

    one._membership._wait = wait
    assert change(one, servers, "abc").version == 4
    assert version(one) == version(other) == 4


@pytest.mark.parametrize(
    ("before", "asked", "newer"), [("_wait", "abc", "a"), ("_wait", "abc", "ab"), ("_check_queues", "a", "ab")]
)
def test_reshard_that_comes_back_after_a_later_one_leaves_the_newer_list(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, before: str, asked: str, newer: str
) -> None:
    """Its own change was finished by somebody else, and followed or undone. It says so, and which list is in use."""
    slow, other = open_at("ab"), open_at("ab")
    freeze(slow)
    meant = iter([asked, newer])
    monkeypatch.setattr(slow._membership, before, lambda *_: [change(other, servers, names) for names in meant])
    with pytest.raises(ReshardError, match=r"to \[a.*\] was followed by a later one .* is version 7, \[a"):
        change(slow, servers, asked)
    assert version(slow) == version(other) == 7


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_reshard_that_stalls_removes_nothing_that_was_stored_since_another_has_led(
    servers: Servers, open_at: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, names: str, steps: int
) -> None:
    """Just before it rids a shard of old values the process is stopped; it goes on when the new owner is in use."""
    slow, other = open_at("ab"), open_at("ab")
    if names == "ab":  # what leaves the third shard again is swept out of the two, else the third is cleared
        slow.set_many(dict.fromkeys(KEYS, "old"))
        change(slow, servers, "abc")
        wait_until(lambda: version(other) == 4)
    freeze(slow)
    before, real, done = version(other), slow._driver.execute, list[str]()

    def execute(exchanges: Any, *arguments: Any) -> Any:
        ((command, *_), *_) = (exchange.commands for exchange in exchanges)
        what = getattr(command[0], "name", command[0])
        if what in ("clear", "invalidate", b"UNLINK") and not done:
            done.append(what)
            step(other, servers, names, before + steps)
            other.set_many(dict.fromkeys(KEYS, "new"))
        return real(exchanges, *arguments)

    monkeypatch.setattr(slow._driver, "execute", execute)
    assert change(slow, servers, names).version == before + 3
    assert done
    assert open_at(names).get_many(KEYS) == dict.fromkeys(KEYS, "new")


@pytest.mark.parametrize(
    ("given", "options", "named"),
    [
        ("redis://a,b", {}, "opened with unix://; so must this be"),
        ("unix:///tmp/x", {"shard_names": ["a"]}, "shard_names='a': it is at .*, and to be at /tmp/x"),
        ("unix:///tmp/x?db=3", {}, "db='\\*\\*\\*': it is what the cache was opened with"),
        ("unix:///tmp/x", {"pause": -1}, "pause=-1: give seconds"),
        ("unix:///tmp/x,/tmp/y", {"shard_weights": (1, 2), "placement": "modulo"}, "shard_weights"),
    ],
)
def test_reshard_bad_input_is_refused_at_the_door(
    open_at: Callable[..., Any], given: str, options: dict[str, Any], named: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=named):
        open_at("ab").reshard(given, **options)


def test_reshard_of_other_caches_is_refused() -> None:
    """They have no shards."""
    with nearcache.open("memory://") as cache, pytest.raises(ConfigError, match="only a cache with client-side shards"):
        cache.reshard("redis://a")


def test_scripts_admit_versions_as_the_module_says(servers: Servers) -> None:
    """The rule stands in two places: in Lua for what writes, in Python for what reads."""
    heartbeat = nearcache.l2.load_script("heartbeat")
    shards = [shards_of("rendezvous", tuple(nearcache.options.Endpoint(n) for n in names)) for names in ("ab", "xy")]
    texts = [b"1", b"2", b"4"] + [Ring(number, each).text for number in (1, 4, 7) for each in shards]
    texts += [Ring(number, *shards).text for number in (2, 3, 5)]
    with servers["a"].client() as client:
        for seen in texts:
            for mine in texts:
                client.delete("L")
                client.hset("L", mapping={"e": "0" * 16, "s": 0, "w": "0" * 16, "g": "0" * 16, "r": seen})
                pipeline = client.pipeline(transaction=False)
                pipeline.eval(heartbeat.source, 1, "L", mine, "0" * 16)
                (answer,) = pipeline.execute(raise_on_error=False)
                assert ("NCTOPO" not in str(answer)) == admits(mine, seen), (mine, seen)
