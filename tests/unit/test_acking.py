"""``ack="replica"`` in steps whose answers a test gives: what is waited for, and when nobody has confirmed it."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import NotReplicatedError, Writer
from nearcache.changes import Change
from nearcache.keys import encode_key
from nearcache.l2 import Reply
from nearcache.loading import MISSING, delete_behind, delete_through, swap, touch, write, write_through
from nearcache.loading.steps import Call
from nearcache.loading.tier import hex_id
from nearcache.loading.ways import Room, queued
from support.steps import EPOCH, GENERATION, IDENTITY, World

NOBODY = 0  # what WAIT answers if no replica has confirmed
GONE = [1, hex_id(GENERATION), 0, hex_id(EPOCH), b"1"]  # what an invalidation answers
FULL = [3, hex_id(GENERATION), 9]


@pytest.fixture
def world() -> World:
    """A tier that waits for a replica."""
    return World(ack_ms=100)


def test_change_that_was_refused_has_nothing_to_be_confirmed(world: World) -> None:
    """Nothing was changed, so it is no matter what replicas say."""
    assert world.run(touch(world.tier, world.store, "k", 9, whole=False), [[0, hex_id(GENERATION)], NOBODY]) == (
        False,
        MISSING,
    )
    assert world.tier.counters.unreplicated == 0


def test_change_made_at_the_second_try_counts_as_that_try_was_confirmed(world: World) -> None:
    """There was no room in the queue at first; that is not held against the change."""
    way = queued(Room(9, 10**12, lambda: None))
    steps = write(world.tier, world.store, "k", 1, 9_000, way=way)
    next(steps)
    steps.send([Reply([FULL, NOBODY], IDENTITY)])
    steps.send(False)
    with pytest.raises(StopIteration):
        steps.send([Reply([*world.stored(), 1], IDENTITY)])
    assert world.tier.counters.unreplicated == 0


def test_deletion_behind_the_cache_is_waited_for(world: World) -> None:
    """As any other change."""
    way = queued(Room(9, 10**12, lambda: None))
    answer = [*world.stored()[0], 0]
    with pytest.raises(NotReplicatedError):
        world.run(delete_behind(world.tier, world.store, "k", way), [answer, NOBODY])


def test_write_through_goes_on_where_no_replica_confirms_the_hold(world: World) -> None:
    """The writer is called, and the error comes when its word is true: the change is made."""
    written: dict[Any, Any] = {}
    writer = Writer(write=written.__setitem__)
    steps = write_through(world.tier, world.store, writer, {"k": "k"}, {"k": 1}, 9_000)
    next(steps)
    call = steps.send([Reply([GONE, NOBODY], IDENTITY)])
    assert isinstance(call, Call)
    steps.send(call.loader(call.key))
    with pytest.raises(NotReplicatedError):
        steps.send([Reply([*world.stored(2), NOBODY], IDENTITY)])
    assert written == {"k": 1}
    assert world.store.peek("k") == 1


def test_invalidation_that_is_paid_first_is_not_taken_for_the_change(world: World) -> None:
    """What is owed is made up for, and then the swap is made."""
    world.tier.owe(0, [encode_key("k")])
    steps = swap(world.tier, world.store, "k", Change(lambda old, version: 5), lambda value: 9_000)
    nothing = [-2, None, [hex_id(GENERATION), None]]
    assert world.run(steps, [GONE, NOBODY], nothing, [*world.stored(2), 1]).stored


def test_delete_through_says_that_no_replica_confirms_when_it_is_done(world: World) -> None:
    """Not before; and where the writer raises, that is what the caller is told."""
    rows = {"k": 1}
    writer = Writer(write=rows.__setitem__, delete=rows.__delitem__)
    for error in (NotReplicatedError, KeyError):
        steps = delete_through(world.tier, world.store, writer, {"k": "k"})
        next(steps)
        call = steps.send([Reply([GONE, NOBODY], IDENTITY)])
        assert isinstance(call, Call)
        if error is KeyError:
            steps.throw(KeyError("k"))
        else:
            steps.send(call.loader(call.key))
        with pytest.raises(error):
            steps.send([Reply([GONE, NOBODY], IDENTITY)])
    assert rows == {}
