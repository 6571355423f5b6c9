"""Rows of the protocol's list of races and rules that no test of a part shows. See tests/simulation/COVERAGE.md."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nearcache._store import Op, Store
from nearcache.bus.links import Source
from nearcache.clocks import TICK_NS
from nearcache.coherence import Lane
from nearcache.freshness import ENDLESS_MS
from nearcache.l2 import Reply
from nearcache.loading import load, read, tags_named, write_many
from nearcache.loading.filling import Loading
from nearcache.loading.steps import Call
from nearcache.loading.writing import write
from support.followers import BOUND, START, Scene, listener_of, standing
from support.steps import GENERATION, IDENTITY, World

MS = 1_000_000


class Counted:
    """A key that counts how often anybody looks at one."""

    looks = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Counted.looks += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return isinstance(other, Counted) and other.number == self.number


def test_invalidation_costs_the_same_however_many_entries_there_are() -> None:
    """Row 13: a message looks at the keys that it names, and a gap at none."""
    looks = []
    for size in (10, 10_000):
        store: Store[Any, Any] = Store(None)
        store.l1_set_clock(1)
        store.lane_attach(0, 1)
        store.lane_vouch(0, 10)
        for number in range(size):
            op = Op(Counted(number), 0)
            store.l1_open(op)
            store.l1_finish(op, number, 3, 10, 0, 1)
        named = Counted(7)
        Counted.looks = 0
        assert store.lane_apply(0, 99, [named]) == 1
        looks.append(Counted.looks)
        store.lane_suspect(0)
        assert looks[-1] == Counted.looks
        assert store.peek(Counted(8)) is None
        assert len(store) == size - 1
    assert looks[0] <= 4
    assert looks[1] <= looks[0] + 2  # another hash may share its beginning


def test_written_value_is_in_l1_after_the_acknowledgement_and_not_before() -> None:
    """Row 3, R3: a reader who is quicker than the server is told of the old value, or of none."""
    world = World()
    begun = write(world.tier, world.store, "k", 1, 60_000)
    next(begun)
    assert world.store.peek("k") is None
    with pytest.raises(StopIteration):
        begun.send(reply(world.stored()))
    assert world.store.peek("k") == 1


@pytest.mark.parametrize(
    ("pttl_ms", "whole_ms", "l1_ttl_ms", "expected_ms"),
    [
        (500, 60_000, ENDLESS_MS, 500),
        (60_000, 500, ENDLESS_MS, 500),
        (60_000, 60_000, 500, 500),
        (-1, 500, ENDLESS_MS, 500),
    ],
    ids=["remaining", "refilled in between", "l1_ttl", "no expiry"],
)
def test_l1_copy_ends_no_later_than_l2(pttl_ms: int, whole_ms: int, l1_ttl_ms: int, expected_ms: int) -> None:
    """Row 10: by the lifetime that was left before the value was read, or the value's whole one."""
    world = World(l1_ttl_ms=l1_ttl_ms)
    world.lane.identity = IDENTITY
    assert world.run(read(world.tier, world.store, "k"), [pttl_ms, sealed(world, whole_ms)]) == "v"
    end_ns = world.ns + expected_ms * MS - TICK_NS
    world.store.l1_set_clock(end_ns - 1)
    assert world.store.peek("k") == "v"
    world.store.l1_set_clock(end_ns)
    assert world.store.peek("k") is None


def test_value_that_came_after_there_was_none_is_returned_and_not_kept() -> None:
    """Row 10: nobody knows how long it lives."""
    world = World()
    world.lane.identity = IDENTITY
    assert world.run(read(world.tier, world.store, "k"), [-2, sealed(world, 60_000)]) == "v"
    assert world.store.peek("k") is None


@pytest.mark.parametrize("elsewhere", [False, True], ids=["heard", "elsewhere"])
def test_value_with_a_tag_is_served_only_if_the_tag_was_read_where_its_changes_are_heard(elsewhere: bool) -> None:
    """Row 8, for tags: of two primaries at a time, one tells nobody who hears the other that a tag has changed."""
    for begin in (
        lambda world, tags: write(world.tier, world.store, "k", 1, 60_000, tags=tags),
        lambda world, tags: write_many(world.tier, world.store, {"k": 1}, 60_000, tags=tags),
    ):
        world = World()
        world.tier.derived.vouched(world.store, 0, world.ns + BOUND)
        begun: Any = begin(world, tags_named(world.tier, ["red"]))
        next(begun)
        begun.send([Reply(world.record(5), IDENTITY + elsewhere)])
        with pytest.raises(StopIteration):
            begun.send(reply(world.stored()))
        assert (world.store.peek("k") == 1) is not elsewhere
        assert (world.store.l1_suspect("k") is not None) is elsewhere


def test_loader_interrupted_leaves_nothing_pending_and_the_lease_given_back() -> None:
    """Row 55: an interrupt is no error of the loader's; the next one loads."""
    world = World()
    loading = load(world.tier, world.store, Loading("k", "k", lambda key: key, 1000))
    next(loading)
    loading.send(reply([-2, None]))
    assert isinstance(loading.send(reply([[0, b"%016x" % GENERATION, b"1" * 16]])), Call)
    aborting: Any = loading.throw(KeyboardInterrupt())
    assert aborting[0].commands[0][0].name == "abort"
    with pytest.raises(KeyboardInterrupt):
        loading.send(reply([1]))
    assert not world.tier.leases
    assert len(world.tier.loads) == 0
    assert world.store.l1_join("k") is None


def test_heartbeats_of_two_processes_fall_out_of_step() -> None:
    """2.5: each goes out a quarter of B after the last, give or take a tenth."""
    for share in (0.9, 1.1):
        scene = Scene()
        scene.follower._uniform = lambda low, high, share=share: share if low <= share <= high else 0
        scene.go_live()
        due_ns = scene.follower.due_ns()
        assert due_ns == START + int(BOUND // 4 * share)
        scene.follower.tick(due_ns)
        scene.follower.received(standing(0, 3), due_ns)
        assert scene.follower.due_ns() == due_ns + int(BOUND // 4 * share)


def test_connections_are_tried_again_after_pauses_that_grow_to_less_than_a_second() -> None:
    """2.5: the first after 25 to 50 ms, and never in step with others."""
    store: Store[Any, Any] = Store(10)
    nowhere = cast("Source", None)  # it is never started
    listener = listener_of(store, nowhere, [Lane(BOUND)], clock=lambda: 0)
    (connection,) = listener._connections
    pauses = []
    for _ in range(9):
        connection.back_off(0)
        pauses.append(connection.retry_ns / 1e9)
    longest = [min(0.8, 0.05 * 2**n) for n in range(9)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert len({round(pause / most, 6) for pause, most in zip(pauses, longest, strict=True)}) > 1
    listener.stop()


def sealed(world: World, ttl_ms: int) -> bytes:
    """An envelope of ``"v"`` with this whole lifetime."""
    content = world.tier.codec.encode("v")
    return world.tier.codec.seal(content, wid=3, generation=GENERATION, ttl_ms=ttl_ms, key=b"sk")


def reply(values: list[Any]) -> list[Reply]:
    """The answer to one exchange."""
    return [Reply(values, IDENTITY)]
