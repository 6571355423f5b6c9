"""Bulk reads of many keys: a portion at a time. No I/O."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.coherence import State
from nearcache.errors import ShardUnavailableError
from nearcache.flights import Read
from nearcache.loading import read_many, read_young
from nearcache.loading.exchanges import PORTION
from support.bulk import BOUND, World


def test_read_many_asks_each_shard_for_a_portion_at_a_time() -> None:
    """Whoever else wants something of a shard gets his turn in between; what is not asked for yet is nobody's read."""
    world = World(2)
    keys = [f"key {number}" for number in range(5 * PORTION)]
    for key in keys:
        world.put(key, key)
    steps, asked = read_many(world.tier, world.store, keys), []
    request: Any = next(steps)
    assert isinstance(world.store.l1_join(keys[0]), Read)
    assert world.store.l1_join(keys[-1]) is None
    with pytest.raises(StopIteration) as stop:
        while True:
            asked.append([len(exchange.commands) for exchange in request])
            goes_on = request.goes_on
            request = steps.send([world.reply(exchange) for exchange in request])
    assert stop.value.value == {key: key for key in keys}
    assert [len(counts) for counts in asked] == [2, 2, 2]
    assert sum(map(sum, asked)) == len(keys) + 2 * 6
    assert max(map(max, asked)) < 1.2 * PORTION
    assert not goes_on
    assert world.store.l1_hit_dict(keys, []) == stop.value.value
    world.store.check_invariants()


@pytest.mark.parametrize("young", [False, True], ids=["any", "of a greatest age"])
def test_read_many_shard_that_fails_is_not_asked_for_the_rest(young: bool) -> None:
    """The others are, in the half of the time that was left to them."""
    world = World(2)
    keys = [f"key {number}" for number in range(5 * PORTION)]
    for key in keys:
        world.put(key, key)
    steps = read_young(world.tier, world.store, keys, BOUND * 60) if young else read_many(world.tier, world.store, keys)
    request: Any = next(steps)
    lost = request[0].shard
    error, asked = ShardUnavailableError("shard", "no answer in time", sent=True), []
    with pytest.raises(StopIteration) as stop:
        while True:
            asked.append(([exchange.shard for exchange in request], request.goes_on))
            request = steps.send([error if each.shard == lost else world.reply(each) for each in request])
    assert asked == [([lost, 1 - lost], True), ([1 - lost], True), ([1 - lost], False)]
    assert stop.value.value == {key: key for key in keys if world.tier.place(key)[0] != lost}
    assert world.tier.counters.errors == 1
    assert all(world.store.l1_join(key) is None for key in keys)
    world.store.check_invariants()


def test_read_many_shard_that_fails_leaves_stale_copies_of_the_rest_too() -> None:
    """They are served as if it had been asked for all of them."""
    world = World(stale_ns=10**12)
    keys = [f"key {number}" for number in range(2 * PORTION)]
    for key in keys:
        world.put(key, key)
    world.read(keys)
    assert world.tier.stale is not None
    world.tier.stale.vouched(0, world.ns + BOUND)
    world.tier.lanes[0].state = State.DOWN
    world.tier.stale.suspected(0, world.store.lane_stamp(0), world.ns)
    world.store.lane_suspect(0)
    steps = read_many(world.tier, world.store, keys)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send([ShardUnavailableError("shard 0", "gone")])
    assert stop.value.value == {key: key for key in keys}
