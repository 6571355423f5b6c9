"""Bulk reads: what compiled code does for many keys is what the rules say of each. No I/O."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from nearcache._shares import Share, deal
from nearcache._store import Store
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.errors import DecodeError, ServerReplyError, ShardUnavailableError, UnencodableKeyError
from nearcache.flights import ABANDONED, Read
from nearcache.keys import encode_key, slot_of
from nearcache.l2 import Reply
from nearcache.l2.task import pack
from nearcache.loading import read_many
from nearcache.loading.replies import HEADER_RANGE, TAGGED_RANGE
from nearcache.loading.tier import hex_id
from support.bulk import BOUND, GENERATION, IDENTITY, TTL_MS, WID, World

MISSING = object()


@pytest.fixture
def world() -> World:
    """See :class:`World`."""
    return World()


def share_of(names: list[Any]) -> Share:
    """All of the keys, on one lane."""
    (share,) = deal(names, bytes(16_384), encode_key)
    return share


# -- placing and asking


def test_deal_any_key_goes_where_encoding_and_slot_say() -> None:
    """The plain cases and all the others are placed alike."""
    rng = random.Random(5)
    names = list(dict.fromkeys([
        "", b"", "text", "ä", "\ud800", b"\xff\0", 0, -5, 2**70, 1.5, None, ("a", 1), "x" * 1023, "x" * 3000,
        b"y" * 3000, *(f"key {rng.random()}" for _ in range(300)),
    ]))  # fmt: skip
    table = bytes(rng.randrange(7) for _ in range(16_384))
    shares = deal(names, table, encode_key)
    encoded = [encode_key(name) for name in names]
    assert sorted(e for share in shares for e in share.encoded) == sorted(encoded)
    assert all(table[slot_of(e)] == share.lane for share in shares for e in share.encoded)


@pytest.mark.parametrize("name", [float("nan"), object(), "x" * 70_000, b"x" * 70_000, (["list"],)])
def test_deal_what_cannot_be_a_key_raises_what_encoding_raises(name: Any) -> None:
    """Nothing slips through the short way."""
    with pytest.raises(UnencodableKeyError):
        deal(["fine", name], bytes(16_384), encode_key)


def test_deal_table_of_another_length_is_refused() -> None:
    """A slot beyond it would be read from anywhere."""
    with pytest.raises(ValueError, match="16384"):
        deal(["key"], bytes(100), encode_key)


def test_commands_bytes_are_what_the_sequence_says(world: World) -> None:
    """Whoever carries them out one by one asks the same as a server that gets the bytes, suspects among them."""
    names = [f"key {number}" for number in range(20)]
    for name in names:
        world.put(name, name)
    world.read(names[::3])
    world.store.lane_suspect(0)
    share = share_of(names)
    share.open(world.store, 1)
    commands = share.ask(b"p:", b"lane", HEADER_RANGE, TAGGED_RANGE, 1)
    assert pack(commands) == commands.data == pack(list(commands))
    verbs = [command[0] for command in commands]
    assert (verbs.count(b"PTTL"), verbs.count(b"MGET"), verbs.count(b"GETRANGE"), verbs[-1]) == (20, 1, 7, b"HMGET")
    with pytest.raises(IndexError):
        commands[len(commands)]
    share.end(world.store, world.tier.lock)
    world.store.check_invariants()


# -- judging


def test_read_many_each_value_is_what_was_stored(world: World) -> None:
    """Whatever a value is, compiled code and the codec agree; all are kept."""
    values = {
        "text": "ä", "surrogate": "\ud800", "bytes": b"\0\xff", "empty": "", "none": b"", "yes": True, "no": False,
        "nothing": None, "float": 1.5, "list": [1, {"a": (2,)}],
    }  # fmt: skip
    values |= {f"int {n}": n for n in (0, 1, -1, 127, 128, -128, -129, 255, 2**31, 2**63 - 1, -(2**63), 2**63, 2**80)}
    for key, value in values.items():
        world.put(key, value)
    found, asked = world.read([*values, "absent"])
    assert found == values
    assert all(type(found[key]) is type(value) for key, value in values.items())
    assert len(asked) == 1
    assert world.store.l1_hit_dict(values, []) == values
    assert (world.tier.counters.hits, world.tier.counters.misses) == (len(values), 1)
    world.store.check_invariants()


def test_settle_any_flipped_bit_is_never_taken_for_a_value_that_the_codec_refuses() -> None:
    """What is settled in compiled code, the codec reads too, and as the same; the rest is left over."""
    codec = ValueCodec(SafeCodec(), 1 << 16)
    settled = 0
    for value in ("some text", b"data", 12_345, [1, 2]):
        sealed = codec.dumps(value, wid=WID, generation=GENERATION, ttl_ms=TTL_MS)
        torn = [sealed[:size] for size in range(len(sealed))]
        flipped = [
            sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
            for at in range(len(sealed))
            for bit in range(8)
        ]
        for data in [sealed, sealed + b"\0", *torn, *flipped]:
            store: Store[Any, Any] = Store(10)
            share, found = share_of(["key"]), dict[Any, Any]()
            share.open(store, 1)
            left, changed, _ = share.settle(
                store, [1000, [data], b"9"], GENERATION, IDENTITY, 1, 1000, 1, codec.usual, found, MISSING
            )
            assert not changed
            if left:
                assert not found
            else:
                settled += 1
                assert (codec.loads(data)[0], codec.loads(data)[1].generation) == (found["key"], GENERATION)
            share.end(store, world_lock())
    assert settled > 100  # bits of the payload, the wid and the lifetimes


def world_lock() -> Any:
    """A lock that nobody else wants."""
    return World().tier.lock


@pytest.mark.parametrize(
    "more",
    [{"tags": [(1, 2)]}, {"soft_ttl_ms": 5}, {"generation": 8}],
    ids=["tags", "a soft end", "another generation"],
)
def test_settle_what_is_not_usual_is_left_over(world: World, more: dict[str, Any]) -> None:
    """Others know the rules for it."""
    world.put("key", "value", **more)
    share = share_of(["key"])
    share.open(world.store, 1)
    names = world.tier.names[0]
    commands = share.ask(names.value_prefix, names.lane_key, HEADER_RANGE, TAGGED_RANGE, 1)
    values = [world._answer(*command) for command in commands]
    found: dict[Any, Any] = {}
    left, changed, counts = share.settle(
        world.store, values, GENERATION, IDENTITY, world.ns, 1000, 1, world.codec.usual, found, MISSING
    )
    assert (left, changed, set(counts), found) == ([0], [], {0}, {})
    share.resolve(world.tier.lock)
    assert share.reads[0].outcome is ABANDONED  # whoever waits is told nothing yet
    share.end(world.store, world.tier.lock)


@pytest.mark.parametrize(
    ("pttl_ms", "l1_ttl_ms", "life_ms"),
    [(-1, 70_000, TTL_MS), (-1, 1000, 1000), (500, 1000, 500), (70_000, 80_000, TTL_MS)],
)
def test_settle_copy_lives_until_the_first_of_its_ends(
    world: World, pttl_ms: int, l1_ttl_ms: int, life_ms: int
) -> None:
    """L2's (-1: it has none), that of the lifetime it was stored with, and L1's; less a tick of the clock."""
    world.put("key", "value")
    share = share_of(["key"])
    share.open(world.store, 1)
    values = [pttl_ms, list(world.held.values()), [hex_id(GENERATION), None]]
    share.settle(
        world.store, values, GENERATION, IDENTITY, world.ns, l1_ttl_ms, 7, world.codec.usual, {}, MISSING
    )  # fmt: skip
    assert world.store.remaining_ns("key") == life_ms * 10**6 - 7


def test_read_many_message_in_between_keeps_a_value_out_of_l1(world: World) -> None:
    """R2 holds for each of many reads: what a message has spoken against is returned, not kept."""
    for key in ("heard", "quiet"):
        world.put(key, key)
    steps = read_many(world.tier, world.store, ["heard", "quiet"])
    request = next(steps)
    world.store.lane_apply(0, 99, ["heard"])
    with pytest.raises(StopIteration) as stop:
        steps.send([world.reply(exchange) for exchange in request])
    assert stop.value.value == {"heard": "heard", "quiet": "quiet"}
    assert world.store.l1_hit_dict(["heard", "quiet"], []) == {"quiet": "quiet"}
    assert world.tier.counters.poisoned == 1


@pytest.mark.parametrize("pttl_ms", [-2, -3, -9_224_000_000_000, -(2**63)])
def test_read_many_without_an_expiry_that_is_known_keeps_nothing(world: World, pttl_ms: int) -> None:
    """A lifetime of -2 beside a value says that the two are of different instants; other such numbers say nothing."""
    world.put("key", "value")
    steps = read_many(world.tier, world.store, ["key"])
    (exchange,) = next(steps)
    values = world.reply(exchange).values
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([pttl_ms, *values[1:]], IDENTITY)])
    assert stop.value.value == {"key": "value"}
    assert len(world.store) == 0
    assert world.tier.deadline_ns(world.ns, pttl_ms, TTL_MS) == 0


def test_settle_a_lifetime_that_no_server_counts_does_nothing_at_all(world: World) -> None:
    """It is no answer to what was asked, so the reads before it are not settled either."""
    share = share_of(["a", "b"])
    share.open(world.store, 1)
    found: dict[Any, Any] = {}
    with pytest.raises(ValueError, match="not of the kind"):
        share.settle(
            world.store, [-2, 2**63, [None, None], b"9"], GENERATION, IDENTITY, 1, 1000, 1, world.codec.usual, found,
            MISSING,
        )  # fmt: skip
    assert world.store.l1_join("a") is share.reads[0]
    share.end(world.store, world.tier.lock)
    assert not found


@pytest.mark.parametrize("at", [0, 1, 2], ids=["lifetime", "values", "generation"])
def test_read_many_command_refused_is_that_shards_failure_alone(at: int) -> None:
    """An error reply in any place makes the share absent; nothing of it stays under way."""
    world = World(2)
    keys = [f"key {number}" for number in range(40)]
    for key in keys:
        world.put(key, key)
    steps = read_many(world.tier, world.store, keys)
    request = next(steps)
    replies = [world.reply(exchange) for exchange in request]
    place = (0, len(replies[0].values) - 2, len(replies[0].values) - 1)[at]
    replies[0].values[place] = ServerReplyError("shard 0", "NOPERM no")
    with pytest.raises(StopIteration) as stop:
        steps.send(replies)
    lost = request[0].shard
    assert stop.value.value == {key: key for key in keys if world.tier.place(key)[0] != lost}
    assert world.tier.counters.errors == 1
    assert world.store.l1_join(keys[0]) is None
    world.store.check_invariants()


# -- one shard slow


def test_read_many_slow_shard_keeps_nobody_waiting_for_the_others(world: World) -> None:
    """As soon as a shard has answered, its keys are in L1, and who waits for one of them has it."""
    world = World(2)
    keys = [f"key {number}" for number in range(40)]
    for key in keys:
        world.put(key, key)
    steps = read_many(world.tier, world.store, keys)
    request: Any = next(steps)
    quick = [key for key in keys if world.tier.place(key)[0] == request[1].shard]
    slow = next(key for key in keys if key not in quick)
    waiting, still = world.store.l1_join(quick[0]), world.store.l1_join(slow)
    assert isinstance(waiting, Read)
    told: list[str] = []
    waiting.add_done_callback(lambda: told.append("quick"), world.tier.lock)
    still.add_done_callback(lambda: told.append("slow"), world.tier.lock)
    request.on_reply(1, world.reply(request[1]))
    assert told == ["quick"]
    assert waiting.outcome == quick[0]
    assert still.outcome is ABANDONED
    assert world.store.l1_hit_dict(quick, []) == {key: key for key in quick}
    error = ShardUnavailableError("shard", "no answer in time", sent=True)
    with pytest.raises(StopIteration) as stop:
        steps.send([error, world.reply(request[1])])
    assert stop.value.value == {key: key for key in quick}
    assert told == ["quick", "slow"]
    assert world.tier.counters.hits == len(quick)  # and not twice


# -- suspects


def test_read_many_suspects_cost_a_header_and_are_served_again(world: World) -> None:
    """After a reconnect one round trip confirms what L2 still holds; what it does not is read, in one more."""
    keys = [f"key {number}" for number in range(100)]
    for key in keys:
        world.put(key, key)
    world.read(keys)
    world.store.lane_suspect(0)
    for key in keys[::4]:
        world.put(key, "new", wid=WID + 1)
    del world.held[world.tier.names[0].value(encode_key("key 1"))]
    found, asked = world.read(keys)
    assert found == {key: "new" if n % 4 == 0 else key for n, key in enumerate(keys) if n != 1}
    first, second = ([command[0] for command in exchanges[0].commands] for exchanges in asked)
    assert (first.count(b"GETRANGE"), b"MGET" in first) == (100, False)
    assert (second.count(b"PTTL"), second.count(b"MGET"), b"GETRANGE" in second) == (26, 1, False)
    # L1 held another write when the new one came (R4): it keeps neither, until somebody reads again.
    assert world.store.l1_hit_dict(keys, []) == {key: key for key in keys if found.get(key) == key}
    assert world.read(keys)[0] == found
    assert world.store.l1_hit_dict(keys, []) == found
    assert (world.tier.counters.revalidated, world.tier.counters.dropped) == (74, 26)
    world.store.check_invariants()


def test_read_many_suspects_of_a_generation_that_is_over_are_not_served_again(world: World) -> None:
    """A clear leaves the values in L2 and makes all of them void, whatever their write."""
    world.put("key", "value", generation=GENERATION - 1)
    op = Read("key", 0)
    world.store.l1_open(op)
    assert world.store.l1_finish(op, "value", WID, 2**62, 10, IDENTITY)
    world.store.lane_suspect(0)
    assert world.read(["key"])[0] == {}


def work_of(call: Any) -> int:
    """How many lines of Python are executed, and functions called, compiled ones included."""
    done = 0

    def count(*_: Any) -> Any:
        nonlocal done
        done += 1
        return count

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(count)
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return done


@pytest.mark.parametrize("tagged", [False, True], ids=["usual", "left over"])
def test_read_many_suspects_work_grows_with_their_number(tagged: bool) -> None:
    """Twice as many suspects that have all changed are twice as much work, however they are judged."""

    def work(count: int) -> int:
        world = World()
        keys = [f"key {number}" for number in range(count)]
        for key in keys:
            world.put(key, key)
        world.read(keys)
        world.store.lane_suspect(0)
        for key in keys:
            world.put(key, "new", wid=WID + 1, **({"soft_ttl_ms": TTL_MS - 1} if tagged else {}))
        steps = read_many(world.tier, world.store, keys)
        first = world_replies(world, next(steps))
        done: list[int] = []
        second: list[Any] = []
        done.append(work_of(lambda: second.extend(steps.send(first))))
        replies = world_replies(world, second)
        with pytest.raises(StopIteration):
            done.append(work_of(lambda: steps.send(replies)))
        return sum(done)

    few, many = work(100), work(400)
    assert many < 4.4 * few + 100


def world_replies(world: World, request: Any) -> list[Reply]:
    """What servers would say."""
    return [world.reply(exchange) for exchange in request]


# -- ends


def test_read_many_given_up_leaves_nothing_under_way(world: World) -> None:
    """Who waits is told to do it himself."""
    steps = read_many(world.tier, world.store, ["a", "b"])
    next(steps)
    waiting = world.store.l1_join("a")
    steps.close()
    assert waiting.outcome is ABANDONED
    assert waiting.wait(world.tier.lock, 0) is ABANDONED
    assert world.store.l1_join("a") is None
    world.store.check_invariants()


def test_read_many_key_that_is_owed_is_not_asked_for(world: World) -> None:
    """What L2 holds of it may be what this process meant to be rid of."""
    for key in ("a", "b"):
        world.put(key, key)
    world.tier.owe(0, [encode_key("a")])
    assert world.read(["a", "b"])[0] == {"b": "b"}
    assert world.read(["a"])[0] == {}


def test_codec_that_protects_has_no_usual_way(world: World) -> None:
    """A value without protection must not get in through it."""
    from nearcache.codecs.sealing import Signer

    assert ValueCodec(SafeCodec(), 100, guard=Signer([bytes(32)])).usual is None
    with pytest.raises(DecodeError):
        world.codec.loads(b"nonsense")


def test_read_many_who_waits_for_a_value_that_is_due_is_told(world: World) -> None:
    """A single read that joins it has it loaded anew, as if it had read by itself."""
    world.put("k", "v", soft_ttl_ms=TTL_MS // 2)
    steps = read_many(world.tier, world.store, ["k"])
    (asked,) = next(steps)
    waiting = world.store.l1_join("k")
    values = world.reply(asked).values
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([TTL_MS // 4, *values[1:]], IDENTITY)])
    assert stop.value.value == {"k": "v"}
    assert isinstance(waiting, Read)
    assert waiting.due


def test_read_many_what_was_answered_before_a_failure_is_no_stale_copy() -> None:
    """One key needs a second answer, which does not come; the other had all that it needed."""
    world = World(stale_ns=10**12)
    for key in ("a", "b"):
        world.put(key, key)
    world.read(["a"])
    world.store.lane_suspect(0)
    world.store.lane_vouch(0, world.ns + BOUND)
    world.put("b", "b", tags=((9, 1),))  # nothing is known of that tag
    steps = read_many(world.tier, world.store, ["a", "b"])
    request = next(steps)
    steps.send([world.reply(exchange) for exchange in request])
    with pytest.raises(StopIteration) as stop:
        steps.send([ShardUnavailableError("shard 0", "gone")])
    assert stop.value.value == {"a": "a"}
    assert world.tier.counters.stale == 0
    assert world.tier.counters.revalidated == 1
