"""Versions of the list of shards: what each step reads and invalidates, what lanes record, and who is admitted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._store import Op, Store
from nearcache.coherence import pack_token, parse_token, version_of
from nearcache.errors import ConfigError, NotReplicatedError, ServerReplyError, ShardUnavailableError
from nearcache.keys import encode_key, slot_of
from nearcache.l2 import Exchange, Reply
from nearcache.loading import Tier
from nearcache.loading.acking import confirmed
from nearcache.loading.moving import Spread
from nearcache.loading.steps import Steps
from nearcache.options import Endpoint
from nearcache.rings import FIRST, SLOTS, Ring, Shards, admits, moved, shards_of, version_in
from support.tiers import tier_of

LIKE = Endpoint("", username="app", password="secret", db=3, tls=True)
NUMBERS = {"a": 0, "b": 1, "c": 2}


def shards(names: str, strategy: str = "rendezvous", **weights: int) -> Shards:
    """Return a list of shards of these one-letter names."""
    endpoints = tuple(Endpoint(name, f"{name}.example", 6379, weight=weights.get(name, 1)) for name in names)
    return shards_of(strategy, endpoints)


def versions() -> list[Ring]:
    """Return all versions of a change, with the lists' own before and after."""
    rings = [Ring(FIRST, shards("ab"))]
    rings.append(rings[0].begin(shards("abc")))
    while rings[-1].step:
        rings.append(rings[-1].following())
    return rings


def test_change_reads_and_invalidates_what_the_table_says() -> None:
    """The four configurations of the protocol."""
    old, new = shards("ab"), shards("abc")
    rings = versions()
    assert [ring.version for ring in rings] == [1, 2, 3, 4]
    assert [ring.step for ring in rings] == [0, 1, 2, 0]
    assert [ring.reads.names for ring in rings] == [old.names, old.names, new.names, new.names]
    assert [ring.also and ring.also.names for ring in rings] == [None, new.names, old.names, None]
    assert [[each.name for each in ring.endpoints] for ring in rings] == [["a", "b"], *[["a", "b", "c"]] * 3]


def test_texts_tell_versions_and_lists_apart() -> None:
    """A version means one list, or one change of lists."""
    rings = [
        *versions(),
        *[Ring(1, shards("ab", a=2)), Ring(1, shards("ab", "ring")), Ring(2, shards("ab"), shards("b"))],
    ]
    assert len({ring.text for ring in rings}) == len(rings)
    assert [version_in(ring.text)[0] for ring in versions()] == [1, 2, 3, 4]
    assert [ring.before() for ring in versions()[1:3]] == [ring.text for ring in versions()[:2]]
    assert [ring.before() for ring in versions()[::3]] == [b"", b""]


def test_list_of_one_shard_agrees_with_any_other_of_one() -> None:
    """One server may be reached by many addresses, and has all keys under each."""
    one, other = shards("a"), shards("b")
    assert one.agrees(other)
    assert not one.is_same(other)
    assert not shards("ab").agrees(shards("ac"))
    assert shards("ab").is_same(shards("ba"))


def test_shard_that_was_alone_takes_the_name_that_the_next_list_has_for_its_address() -> None:
    """Of one shard the name decides nothing; of several it does."""
    named = tuple(replace(endpoint, name=endpoint.name.upper()) for endpoint in shards("ab").endpoints)
    target = shards_of("rendezvous", named)
    alone = Ring(4, shards("a"))
    first = alone.begin(target)
    assert (first.old.names, first.before()) == (("A",), alone.text)
    assert Ring(4, shards("ab")).begin(target).old.names == ("a", "b")
    assert Ring(4, shards("c")).begin(target).old.names == ("c",)


@pytest.mark.parametrize("ring", versions(), ids=lambda ring: str(ring.version))
def test_record_is_read_back_without_secrets(ring: Ring) -> None:
    """Who follows knows where the shards are, and speaks to them as to its own."""
    recorded = ring.dump()
    found = Ring.load(recorded, LIKE)
    assert found.text == ring.text
    assert [endpoint.address for endpoint in found.endpoints] == [endpoint.address for endpoint in ring.endpoints]
    assert {(e.username, e.password, e.db, e.tls) for e in found.endpoints} == {("app", "secret", 3, True)}
    assert b"secret" not in Ring(1, shards_of("ring", (LIKE,))).dump()


@pytest.mark.parametrize(
    "endpoint",
    [Endpoint("x", path="/run/x"), Endpoint("x", "::1", 7), Endpoint("x", master="m", sentinels=(("s", 1), ("t", 2)))],
)
def test_record_keeps_every_kind_of_address(endpoint: Endpoint) -> None:
    """Sockets, hosts, and masters of sentinels."""
    assert Ring.load(Ring(1, shards_of("ring", (endpoint,))).dump(), Endpoint("")).old.endpoints == (endpoint,)


@given(st.binary() | st.text().map(str.encode) | st.integers().map(lambda n: b"%d" % n))
def test_record_that_is_none_is_refused(junk: bytes) -> None:
    """Whoever may write to the server can write anything there."""
    with pytest.raises(ValueError, match="not a record of shards"):
        Ring.load(junk, LIKE)


@pytest.mark.parametrize(
    "junk",
    [
        b'{"version":1,"lists":[]}', b'{"version":0,"lists":[{"placement":"ring","shards":[["a",1,["/x"]]]}]}',
        b'{"version":2,"lists":[{"placement":"ring","shards":[["a",1,["/x"]]]}]}',
        b'{"version":1,"lists":[{"placement":"ring","shards":[["a",0,["/x"]]]}]}',
        b'{"version":1,"lists":[{"placement":"best","shards":[["a",1,["/x"]]]}]}',
        b'{"version":1,"lists":[{"placement":"ring","shards":[["a",1,[]]]}]}',
        b'{"version":1,"lists":[{"placement":"ring","shards":[["a",1]]}]}',
        b'{"version":1e999,"lists":[{"placement":"ring","shards":[["a",1,["/x"]]]}]}',
        b'{"version":1e18,"lists":[{"placement":"ring","shards":[["a",1,["/x"]]]}]}',
        b'{"version":1,"lists":[{"placement":"ring","shards":[["a",1e999,["/x"]]]}]}',
    ],
)  # fmt: skip
def test_record_that_makes_no_sense_is_refused(junk: bytes) -> None:
    """Nor is one half understood."""
    with pytest.raises(ValueError, match="not a record of shards"):
        Ring.load(junk, LIKE)


def record_of(shard: str) -> bytes:
    """Return the record of a list of one shard, given as JSON."""
    return b'{"version":1,"lists":[{"placement":"ring","shards":[' + shard.encode() + b"]}]}"


def test_records_that_are_refused_are_so_for_what_they_say_of_the_shard() -> None:
    """Without that they are read: a path may hold what is printed as a blank."""
    assert Ring.load(record_of('["a",1,["h",6379]]'), LIKE).old.names == ("a",)
    (endpoint,) = Ring.load(record_of('["a",1,["/x\\u00a0y"]]'), LIKE).old.endpoints
    assert endpoint.path == "/x\u00a0y"


@pytest.mark.parametrize("port", ["1e999", "6379.5", "100000000000000000000", "65536", "0", "-1", '"6379"', "null"])
@pytest.mark.parametrize("place", ['["h",%s]', '["m",[["s",%s]]]'], ids=["server", "sentinel"])
def test_record_of_a_port_that_is_none_is_refused(place: str, port: str) -> None:
    """The library that makes the socket would raise what nobody expects."""
    with pytest.raises(ValueError, match="not a record of shards"):
        Ring.load(record_of(f'["a",1,{place % port}]'), LIKE)


@pytest.mark.parametrize("text", ["", "a\nERROR forged", "a\0", "\udcff", "\u202e", "a" * 301, 5, None])
@pytest.mark.parametrize("shard", ["[{},1,['h',1]]", "['a',1,[{},1]]", "['a',1,[{}]]", "['a',1,[{},[['s',1]]]]"])
def test_record_of_a_name_that_nobody_can_read_is_refused(shard: str, text: object) -> None:
    """Errors and log lines show names and addresses, and nobody is to be taken in by them."""
    listed = shard.replace("'", '"').format(json.dumps(text))
    with pytest.raises(ValueError, match="not a record of shards"):
        Ring.load(record_of(listed), LIKE)


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1_0-aa", b" 4-aa", b"4-a\nERROR forged", b"4aa", b"9" * 400])
def test_version_that_no_script_writes_is_none(text: bytes) -> None:
    """It stands in errors and in the log as it is."""
    with pytest.raises(ValueError, match="not a version"):
        version_in(text)


@pytest.mark.parametrize(
    ("mine", "seen", "expected"),
    [
        (b"4-aa", b"4-aa", True), (b"4-aa", b"4-bb", False), (b"4-aa", b"5-bb", True), (b"4-aa", b"6-bb", False),
        (b"4-aa", b"3-bb", True), (b"4-aa", b"1-bb", True), (b"4", b"4-bb", True), (b"4-aa", b"4", True),
        (b"1", b"4-aa", False), (b"4-aa", b"x", False), (b"10-aa", b"9-bb", True), (b"9-aa", b"11-bb", False),
    ],
)  # fmt: skip
def test_caller_is_admitted_unless_too_far_behind_or_of_another_list(mine: bytes, seen: bytes, expected: bool) -> None:
    """Neighbouring versions may meet; a bare version says nothing of the list."""
    assert admits(mine, seen) is expected


def test_errors_say_what_a_list_is() -> None:
    """With weights and strategy where they are not the usual ones."""
    assert str(Ring(1, shards("ab"))) == "version 1, [a, b]"
    assert str(versions()[1]) == "version 2, a change from [a, b] to [a, b, c]"
    assert str(shards("ab", "ring", b=2)) == "[a x1, b x2] by ring"
    with pytest.raises(ConfigError, match="has none"):
        shards("ab", "modulo", a=2)


def test_moved_counts_slots_by_their_way() -> None:
    """From whom to whom."""
    found = moved(shards("ab"), shards("abc"))
    assert {after for _, after in found} == {"c"}
    assert sum(found.values()) == shards("abc").placement.slots_of(2)


# -- what follows for a tier


def tier_at(version: int) -> Tier:
    """Return the tier of a version, and of all before it."""
    rings = versions()
    tier = tier_of("a", "b", most_lanes=8)
    tier.add_lane(2, "c")
    for ring in rings[:version]:
        tier = tier.under(ring, NUMBERS)
    return tier


@settings(max_examples=50)
@given(keys=st.lists(st.integers(0, 999), min_size=1, max_size=5, unique=True), version=st.integers(1, 4))
def test_change_of_keys_is_spread_to_their_other_owners(keys: list[int], version: int) -> None:
    """Each key once to each owner that its version invalidates, under the same id, whatever lane it shares."""
    tier = tier_at(version)
    ring = versions()[version - 1]
    by_lane: dict[int, list[bytes]] = {}
    for key in keys:
        lane, encoded = tier.place(key)
        by_lane.setdefault(lane, []).append(encoded)
    request = [tier.invalidate_exchange(lane, encoded, 7, b"500", b"f" * 16) for lane, encoded in by_lane.items()]
    spread = Spread(tier, request)
    told = {
        (lane, key) for lane, (command,) in spread.exchanges for key in command[2 : 2 + command[1]] if b":v:" in key
    }
    owners = [ring.reads, *([ring.also] if ring.also is not None else [])]
    expected = {
        (NUMBERS[each.owner(slot_of(encode_key(key)))], tier.names[0].value(encode_key(key)))
        for each in owners
        for key in keys
    }
    assert told == expected
    assert {command[2 + command[1] :][2:] for _, (command,) in spread.exchanges} == {(b"%016x" % 7, b"500", b"f" * 16)}
    assert spread.exchanges[: len(request)] == request


def test_other_owner_that_fails_fails_the_change_and_is_owed() -> None:
    """One of the two is not enough; an acknowledgement is remembered for a failover."""
    tier = tier_at(2)
    key = next(key for key in range(999) if tier.other is not None and tier.other[slot_of(encode_key(key))] == 2)
    lane, encoded = tier.place(key)
    acknowledged = [1, b"0" * 16, 0, b"%016x" % 5, b"3"]
    spread = Spread(tier, [tier.invalidate_exchange(lane, [encoded], 7)])
    assert [exchange.shard for exchange in spread.exchanges] == [lane, 2]
    gone = ShardUnavailableError("c", "gone")
    (reply,) = spread.gathered([Reply([list(acknowledged)], 1), gone])
    assert isinstance(reply, Reply)
    (error,) = reply.values
    assert isinstance(error, ShardUnavailableError)
    assert error.sent  # for the first owner has made it
    assert error.shard == "c"
    assert error.__cause__ is gone
    assert tier.is_owed(2, encoded)
    refused = ServerReplyError(tier.shard_names[lane], "OOM")
    (reply,) = spread.gathered([Reply([refused], 1), gone])
    assert reply == Reply([refused], 1)
    (reply,) = spread.gathered([Reply([list(acknowledged)], 1), Reply([list(acknowledged)], 1)])
    assert reply == Reply([acknowledged], 1)
    assert tier.newest(2) == (5, 3)
    spread = Spread(tier, [tier.invalidate_exchange(lane, [encoded], 8)])
    spread.interrupted()
    assert tier.is_owed(2, encoded)


def test_change_that_waits_for_a_replica_waits_at_both_owners() -> None:
    """It is confirmed when both are, and the error names the shard whose replica has said nothing."""
    tier = tier_at(2)
    tier.ack_ms = 100
    key = next(key for key in range(999) if tier.other is not None and tier.other[slot_of(encode_key(key))] == 2)
    lane, encoded = tier.place(key)
    change = tier.invalidate_exchange(lane, [encoded], 7)

    def made(own: Any, others: Any) -> Any:
        steps = asked_for(tier, change)
        spread = Spread(tier, next(steps))
        assert [[str(command[0]) for command in commands[1:]] for _, commands in spread.exchanges] == [["b'WAIT'"]] * 2
        acknowledged = [1, b"0" * 16, 0, b"%016x" % 5, b"3"]
        replies = [Reply([list(acknowledged), number], 1) for number in (own, others)]
        with pytest.raises(StopIteration) as stop:
            steps.send(spread.gathered(replies))
        return stop.value.value

    assert made(1, 1) == [Reply([[1, b"0" * 16, 0, b"%016x" % 5, b"3"]], 1)]
    for own, others, shard in ((1, 0, "c"), (0, 1, tier.shard_names[lane]), (0, 0, "c")):
        with pytest.raises(NotReplicatedError) as caught:
            made(own, others)
        assert caught.value.shard == shard
    refused = ServerReplyError("c", "NOPERM no WAIT here")
    with pytest.raises(NotReplicatedError) as caught:
        made(1, refused)
    assert caught.value.__cause__ is refused
    assert not tier.is_owed(2, encoded)


@confirmed
def asked_for(tier: Tier, exchange: Exchange) -> Steps[Any]:
    """Send one exchange; return the replies."""
    return (yield [exchange])


def test_fill_is_spread_as_what_it_may_replace_can_be_at_the_other_owner() -> None:
    """A loader has brought something newer than what somebody keeps there; the copy of its own id is spared."""
    tier = tier_at(2)
    lane, encoded = next(place for place in map(tier.place, range(99)) if tier.other[slot_of(place[1])] != place[0])
    arguments = (b"%016x" % 7, b"1", b"f" * 16, b"1000", b"envelope")
    fill = tier.call(tier.scripts.fill, tier.write_keys(lane, [encoded]), *arguments)
    _, extra = Spread(tier, [Exchange(lane, [fill])]).exchanges
    invalidate = tier.call(tier.scripts.invalidate, tier.write_keys(2, [encoded]), arguments[0])
    assert extra == Exchange(2, [invalidate])


def test_reads_and_leases_are_spread_to_nobody() -> None:
    """What does not make a copy old concerns its own lane only."""
    tier = tier_at(2)
    names = tier.names[0]
    keys = [names.value(b"sk"), names.lease(b"sk"), names.lane_key]
    commands = [
        (b"GET", keys[0]),
        tier.call(tier.scripts.lease, keys, b"0" * 16, b"1", b""),
        tier.call(tier.scripts.clear, keys[2:], b"0" * 16),
    ]
    assert Spread(tier, [Exchange(0, commands)]).exchanges == [Exchange(0, commands)]


def test_debts_are_owed_wherever_the_version_invalidates() -> None:
    """What an old owner refused is to be done at the new one; a clear at a lane that joins."""
    tier = tier_at(1)
    keys = [encode_key(key) for key in range(40)]
    for key in keys:
        tier.owe(tier.lane_of(key), [key])
    later = tier.under(versions()[1], NUMBERS)
    later.owe_on({2})
    moving = {key for key in keys if later.other is not None and later.other[slot_of(key)] == 2}
    assert moving
    assert set(tier.journals[2].owed_keys()) == moving
    tier.owe_clear(0)
    later.owe_on({2})
    assert tier.journals[2].owes_clear


def test_hold_that_is_to_be_ended_is_ended_wherever_its_keys_are_now() -> None:
    """Both owners may have it."""
    tier = tier_at(1)
    later = tier.under(versions()[1], NUMBERS)
    assert later.other is not None
    key = next(key for key in map(encode_key, range(99)) if later.other[slot_of(key)] == 2 != later.lane_of(key))
    tier.owe(tier.lane_of(key), [key], (b"0", b"token"))
    assert later.journals[2].owed_holds() == {(b"0", b"token"): [key]}


def test_debt_of_an_operation_that_fails_after_its_version_is_owed_where_keys_are_now() -> None:
    """It began before the change and was refused after it: on the lane that it named nobody pays any more."""
    tier = tier_at(1)
    later = tier.under(versions()[1], NUMBERS).under(versions()[2], NUMBERS).under(versions()[3], NUMBERS)
    later.owe_on(())  # what the change itself passes on
    key = next(key for key in map(encode_key, range(99)) if later.lane_of(key) == 2)
    tier.owe(tier.lane_of(key), iter([key]))
    assert later.is_owed(2, key)
    tier.owe_clear(0)
    assert all(later.journals[lane].owes_clear for lane in later.active)


def test_result_of_an_owner_that_was_left_is_not_kept() -> None:
    """A tag's record that was read there is of no use to this version."""
    tier = tier_at(2)
    tags: Store[bytes, int] = tier.tags
    key = next(b"!t:%016x" % n for n in range(99) if versions()[3].reads.owner(slot_of(b"!t:%016x" % n)) == "c")
    for lane in range(3):
        tags.lane_attach(lane, 1)
        tags.lane_vouch(lane, 2**62)

    def read(lane: int) -> int:
        op = Op(key, lane, wid=9)
        tags.l1_open(op)
        tags.l1_finish(op, 9, 9, 2**62, 0, 1)
        return tags.l1_hit(key, 0)

    assert read(tier.lane_of(key)) == 9
    later = tier.under(versions()[2], NUMBERS)
    tags.l1_erase(key)
    assert read(tier.lane_of(key)) == 0
    assert read(later.lane_of(key)) == 9


def test_operation_of_an_older_version_keeps_it() -> None:
    """It says what it was placed by, and reads nothing on the word of heartbeats that speak for another."""
    tier = tier_at(2)
    later = tier.under(versions()[2], NUMBERS)
    assert (tier.ring, later.ring) == (versions()[1].text, versions()[2].text)
    assert tier.table != later.table
    assert tier.now is later
    assert tier.known_generation(0) is None
    assert set(tier.changing) == {tier.ring, later.ring}
    del tier
    assert set(later.changing) == {later.ring}


def test_tables_of_lanes_follow_the_numbers_not_the_order() -> None:
    """A shard that was added has the next number, wherever it stands in the list."""
    tier = tier_at(4)
    assert all(shards("abc").owner(slot) == "abc"[tier.table[slot]] for slot in range(0, SLOTS, 97))


def test_token_says_the_version_unless_it_is_the_first() -> None:
    """What a lane's number means depends on it."""
    assert pack_token({0: (1, 2)}) == "1.0-1-2"
    assert pack_token({0: (1, 2)}, 4) == "1r4.0-1-2"
    assert parse_token("1r4.0-1-2") == {0: (1, 2)}
    assert [version_of(token) for token in ("1", "1.0-1-2", "1r4", "1r4.0-1-2")] == [1, 1, 4, 4]
    with pytest.raises(ValueError, match="give what token"):
        version_of("1r.0-1-2")
