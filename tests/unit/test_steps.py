"""Steps driven by hand: interleavings of reads, writes and tags that no server can be made to show. No I/O."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearcache import Writer
from nearcache._store import Op, Store
from nearcache.coherence import DERIVED, pack_token
from nearcache.coherence.lane import Position
from nearcache.errors import BulkError, ShardUnavailableError
from nearcache.flights import Signal
from nearcache.l2 import Reply
from nearcache.loading import (
    MISSING,
    Upkeep,
    catch_up,
    find,
    invalidate_many,
    invalidate_tag,
    read,
    tags_named,
    take,
    write,
    write_many,
    write_through,
)
from nearcache.loading.exchanges import Exchanges
from nearcache.loading.scanning import Walk, scan
from nearcache.loading.steps import Await, Steps, course
from nearcache.loading.tagging import generations, known
from nearcache.loading.tasks import AsyncRunner
from nearcache.loading.through import HOLD_MS
from nearcache.loading.tier import TAGS_KEPT, hex_id
from nearcache.options import Endpoint
from nearcache.rings import Ring, shards_of
from support.steps import BOUND, EPOCH, GENERATION, IDENTITY, World
from support.threads import PATIENCE
from support.tiers import Deaf, tier_of


@pytest.fixture
def world() -> World:
    """See :class:`World`."""
    return World()


# -- a value that is in the way


def test_write_refused_because_of_a_value_that_cannot_be_read_owes_nothing(world: World) -> None:
    """Nothing was changed. The copy in L1, which may be older than that value, is gone all the same."""
    content = world.tier.codec.encode("there")
    sealed = world.tier.codec.seal(content, wid=5, generation=GENERATION, ttl_ms=1000, tags=((9, 1),))
    refused = [[2, hex_id(GENERATION), sealed, 1000]]
    error = ShardUnavailableError("a", "no answer in time", sent=True)
    steps = write(world.tier, world.store, "key", "new", 1000, absent_only=True)
    with pytest.raises(ShardUnavailableError, match="no answer"):
        world.run(steps, refused, error)
    assert not world.tier.journals[0].owes
    assert world.tier.counters.errors == 1
    assert len(world.store) == 0
    world.store.check_invariants()


# -- the time of a call


def test_course_what_is_a_part_has_half_of_the_time_that_is_left(world: World) -> None:
    """A shard that is silent takes no more of it, and the rest can still be asked of the others."""

    def steps() -> Steps[None]:
        yield Exchanges([], goes_on=True)
        yield Exchanges([])

    stages = course(world.tier, steps(), 4.0)
    assert next(stages) == ([], None, 2.0)
    _, _, left_s = stages.send([])
    assert 2.0 < left_s <= 4.0


# -- two servers


@pytest.mark.parametrize("is_there", [True, False])
def test_value_of_a_generation_that_is_not_known_is_asked_for_along_with_it(world: World, is_there: bool) -> None:
    """A failover between two questions: what the first server has cleared may be nothing that the second one has."""
    sealed = world.tier.codec.dumps("there", wid=5, generation=GENERATION - 1, ttl_ms=1_000)
    steps = read(world.tier, world.store, "key")
    next(steps)
    (exchange,) = steps.send([Reply([1_000, sealed], IDENTITY)])
    assert [command[0] for command in exchange.commands] == [b"PTTL", b"GET", b"HMGET"]
    record = [hex_id(GENERATION - 1), None]
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([1_000, sealed, record] if is_there else [-2, None, record], IDENTITY)])
    assert stop.value.value == ("there" if is_there else MISSING)
    assert world.tier.counters.misses == (not is_there)


def test_value_of_another_generation_than_was_stated_with_it_is_dead(world: World) -> None:
    """Nothing more has to be asked: no generation comes back but with another server, which has values of its own."""
    sealed = world.tier.codec.dumps("there", wid=5, generation=GENERATION - 1, ttl_ms=1_000)
    found = world.run(find(world.tier, world.store, "key"), [1_000, sealed, [hex_id(GENERATION), None]])
    assert (found.value, found.version, found.wid) == (MISSING, 0, None)


def test_value_that_was_looked_for_is_kept(world: World) -> None:
    """Whoever asks next need not."""
    sealed = world.tier.codec.dumps("there", wid=5, generation=GENERATION, ttl_ms=1_000)
    found = world.run(find(world.tier, world.store, "key"), [1_000, sealed, [hex_id(GENERATION), None]])
    assert (found.value, found.wid) == ("there", 5)
    assert world.store.peek("key") == "there"


# -- tags


def test_tag_is_known_since_its_answer_not_since_its_request(world: World) -> None:
    """A load that began between the two may be older than the generation that the answer tells."""
    tags = tags_named(world.tier, ["red"])
    steps = generations(world.tier, world.store, tags)
    next(steps)
    world.ns += 1_000
    load_began_ns = world.ns  # it reads the data; they change, and so does the tag; only then the server answers
    world.ns += 1_000
    with pytest.raises(StopIteration):
        steps.send([Reply(world.record(5), IDENTITY)])
    assert known(world.tier, tags, load_began_ns) is None
    answered_ns = world.ns
    for _ in range(2):  # to ask makes it no younger
        world.ns += 1_000
        assert known(world.tier, tags, answered_ns) == ((tags[0].hash, 5),)


def test_tag_that_was_changed_here_is_known_since_the_acknowledgement(world: World) -> None:
    """Another process may have changed it too while this one's request was on its way."""
    tags = tags_named(world.tier, ["red"])
    steps = invalidate_tag(world.tier, world.store, "red")
    next(steps)
    world.ns += 1_000
    load_began_ns = world.ns
    world.ns += 1_000
    with pytest.raises(StopIteration):
        steps.send([Reply(world.stored(), IDENTITY)])
    assert known(world.tier, tags, load_began_ns) is None
    assert known(world.tier, tags, world.ns) is not None


def test_late_answer_does_not_date_a_tag_back(world: World) -> None:
    """Two reads of one tag, the older of which comes to its end in the middle of the newer."""
    tags = tags_named(world.tier, ["red"])
    world.tier.remember_tag(tags[0].key, 9_000)
    world.tier.remember_tag(tags[0].key, 8_000)
    assert world.tier.tags_since[tags[0].key] == 9_000


def test_process_that_only_invalidates_tags_does_not_remember_all_of_them(world: World) -> None:
    """A tag for each user, say: what is remembered is bounded."""
    for number in range(TAGS_KEPT + 10):
        world.run(invalidate_tag(world.tier, world.store, f"user:{number}"), world.stored(number + 1))
    assert len(world.tier.tags_since) <= TAGS_KEPT


def test_tag_whose_record_was_lost_takes_along_what_depends_on_it_here(world: World) -> None:
    """Who makes the record anew does not hear of it from others, who all take such values for absent."""
    world.tier.derived.vouched(world.store, 0, world.ns + BOUND)
    tags = tags_named(world.tier, ["red"])
    store = write(world.tier, world.store, "k", 1, 60_000, tags=tags)
    world.run(store, world.record(5), world.stored())
    assert world.store.peek("k") == 1
    world.tier.tags.drop_all()  # it does not fit any more, say
    (found,) = world.run(
        generations(world.tier, world.store, tags), [-2, b"", [hex_id(GENERATION), None]], world.stored(2)
    )
    assert found[1] not in (0, 5)
    assert world.store.peek("k") is None
    assert world.store.l1_suspect("k") is not None


def test_tag_whose_date_was_forgotten_is_dated_anew(world: World) -> None:
    """Else no load with such a tag would be kept as long as the tag itself is remembered."""
    tags = tags_named(world.tier, ["red"])
    world.run(generations(world.tier, world.store, tags), world.record(5))
    del world.tier.tags_since[tags[0].key]
    assert known(world.tier, tags, world.ns) is None
    assert known(world.tier, tags, world.ns) == ((tags[0].hash, 5),)


# -- what is heard


class _Ears(Deaf):
    """Somebody listens, and no message ever comes."""

    def __init__(self) -> None:
        self.watched: dict[int, Any] = {}

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        self.watched[wid] = seen

    def unwatch(self, wid: int) -> None:
        self.watched.pop(wid, None)


def test_writes_whose_messages_never_come_are_not_waited_for_without_end(world: World) -> None:
    """A shard that is out for a day: each write that fails would leave something behind."""
    world.tier.ears = ears = _Ears()
    for wid in range(1, 1000):
        world.ns += 1_000_000_000
        world.tier.expect_message(0, wid, world.ns)
    assert 999 in ears.watched
    assert len(ears.watched) < 100


def test_token_of_a_change_of_a_new_epoch_before_that_is_heard_makes_its_reader_ask(world: World) -> None:
    """A new primary has acknowledged a write, and the listener follows the old one. Nobody is ever in epoch 0."""
    world.lane.position = Position(EPOCH, 9, 5)
    world.tier.forked(0, EPOCH, {}, 0)
    world.tier.acknowledge(0, hex_id(EPOCH + 1), b"3", [b"sk"], world.tier.serial(0))
    assert world.tier.newest(0) == (0, 0)


def test_token_names_what_was_heard_once_the_epoch_of_the_own_changes_is_over(world: World) -> None:
    """Else every reader of the token would have to ask the server, for ever."""
    world.tier.forked(0, EPOCH, {}, 0)
    world.tier.acknowledge(0, hex_id(EPOCH), b"3", [b"sk"], world.tier.serial(0))
    world.tier.forked(0, EPOCH + 1, {EPOCH: 3}, 0)
    world.lane.position = Position(EPOCH + 1, 1, 5)
    assert world.tier.newest(0) == (EPOCH + 1, 1)


# -- what is owed


def test_payment_without_a_thread_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is at its limit for a moment: the next heartbeat pays."""
    paying = threading.Event()

    class Runner:
        def run(self, steps: Any) -> None:
            steps.close()
            paying.set()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    upkeep = Upkeep(world.tier, Runner())  # type: ignore[arg-type]  # as far as it is used
    world.tier.owe(0, [b"sk"])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        upkeep.vouched(0)
    assert not paying.is_set()
    upkeep.vouched(0)
    assert paying.wait(20.0)


def test_new_epoch_of_a_lane_that_was_met_before_is_told_the_list_of_shards(world: World) -> None:
    """The server may have set back what it was told, and who comes later is to find it. Once, and not at the first."""
    asked: list[bool] = []
    world.tier.outdated = lambda: asked.append(True)
    upkeep = Upkeep(world.tier, None)  # type: ignore[arg-type]  # nothing is paid
    upkeep.forked(0, EPOCH, {}, 0)
    upkeep.vouched(0)
    assert not asked
    upkeep.forked(0, EPOCH + 1, {EPOCH: 3}, 0)
    upkeep.vouched(0)
    upkeep.vouched(0)
    assert asked == [True]


def test_lane_that_has_lost_messages_is_told_the_list_of_shards(world: World) -> None:
    """Behind a proxy another primary may have taken over in the same epoch, and not have what was told. Once."""
    asked: list[bool] = []
    world.tier.outdated = lambda: asked.append(True)
    upkeep = Upkeep(world.tier, None)  # type: ignore[arg-type]  # nothing is paid
    upkeep.vouched(0)
    assert not asked
    world.lane.counters.gaps += 1
    upkeep.vouched(0)
    upkeep.vouched(0)
    assert asked == [True]


def test_token_is_waited_for_until_it_is_applied(world: World) -> None:
    """The listener has taken its message in, and is about to drop what that names."""

    class Ears(Deaf):
        fenced = 0

        def fence(self, lane: int, woken: Callable[[], None]) -> bool:
            self.fenced += 1
            return False

    world.tier.ears = ears = Ears()
    world.lane.position, world.lane.applied = Position(EPOCH, 5, 1), (EPOCH, 4)
    world.run(catch_up(world.tier, world.store, pack_token({0: (EPOCH, 5)}), 1.0))
    assert ears.fenced == 1
    world.lane.applied = (EPOCH, 5)
    world.run(catch_up(world.tier, world.store, pack_token({0: (EPOCH, 5)}), 1.0))
    assert ears.fenced == 1


def test_token_of_many_lanes_asks_all_of_them_before_it_waits() -> None:
    """One round trip for all; who does not answer in time is made suspect, and nobody else."""
    tier = tier_of("a", "b", "c", bound_ns=10**9)
    store: Store[Any, Any] = Store(10, lanes=3 + DERIVED)
    fenced: list[int] = []

    class Ears(Deaf):
        def fence(self, lane: int, woken: Callable[[], None]) -> bool:
            fenced.append(lane)
            return lane != 1  # which is not followed, so nothing of it is served

    tier.ears = Ears()
    stamps = [store.lane_stamp(lane) for lane in range(3)]
    steps = catch_up(tier, store, pack_token(dict.fromkeys(range(3), (EPOCH, 5))), 1.0)
    assert isinstance(next(steps), Await)
    assert fenced == [0, 1, 2]
    assert isinstance(steps.send(False), Await)
    with pytest.raises(StopIteration):
        steps.send(True)
    assert [store.lane_stamp(lane) > before for lane, before in enumerate(stamps)] == [True, False, False]


@pytest.mark.parametrize("change", [take, lambda tier, store, key: invalidate_many(tier, store, [key])])
def test_removal_that_is_done_leaves_no_operation_behind(world: World, change: Any) -> None:
    """The store would remember it for good."""
    key = "removed"
    gone = [1, hex_id(GENERATION), None if change is take else 0, hex_id(EPOCH), b"1"]
    world.run(change(world.tier, world.store, key), [gone])
    assert not unfinished(key)


def test_hold_that_may_have_begun_is_ended_before_its_error_is_told(world: World) -> None:
    """The writer is not called then, and nobody is to wait for the end of a hold that is for nothing."""
    writer = Writer(write=lambda _key, _value: pytest.fail("it is not to be called"))
    steps = write_through(world.tier, world.store, writer, {"k": "k"}, {"k": 1}, 9_000)
    ((_, [begun]),) = cast("Any", next(steps))
    lost = ShardUnavailableError("a", "no answer in time", sent=True)
    ((_, [ended]),) = cast("Any", steps.send([lost]))
    assert begun[0].name == ended[0].name == "invalidate"
    assert begun[-2] == HOLD_MS
    assert ended[-2:] == (b"0", begun[-1])
    with pytest.raises(ShardUnavailableError):
        steps.send([Reply([[1, hex_id(GENERATION), 0, hex_id(EPOCH), b"1"]], IDENTITY)])


# -- walks


def test_walk_through_lanes_that_are_left_is_planned_anew(world: World) -> None:
    """The list of shards has changed meanwhile: nobody answers there any more, and the keys are at others."""
    walk = Walk()
    steps = scan(world.tier, world.store, walk, b"s")
    next(steps)
    with pytest.raises(StopIteration):
        steps.send([Reply([[b"7", []]], IDENTITY)])
    assert walk.goes_on(world.tier)
    assert walk.cursor == b"7"
    assert walk.goes_on(cast("Any", SimpleNamespace(active=[1])))
    assert walk.cursor is None


# -- many keys


def unfinished(key: str) -> list[Op]:
    """Return the operations of a key that are there still: a store holds those that have not been finished."""
    return [each for each in gc.get_objects() if type(each) is Op and each.key == key]


@pytest.mark.parametrize("forgives", [False, True])
def test_bulk_write_whose_tags_cannot_be_asked_for_writes_nothing(forgives: bool) -> None:
    """The values are owed an invalidation; where the cache forgives, that is all, as for a single one."""
    world = World(forgives=forgives)
    steps = write_many(world.tier, world.store, {"k": 1}, 1_000, tags_named(world.tier, ["red"]))
    refused = ShardUnavailableError("a", "refused")
    if forgives:
        world.run(steps, refused)
    else:
        with pytest.raises(BulkError) as caught:
            world.run(steps, refused)
        assert caught.value.failed == {"k": refused}
    assert world.tier.counters.errors == 1
    assert world.tier.is_owed(0, b"sk")


def test_bulk_write_keeps_none_of_the_keys_that_are_on_hold(world: World) -> None:
    """L2 has none of them either; it says by their numbers which they are."""
    stored = [1, hex_id(GENERATION), hex_id(EPOCH), b"1", b"2,"]
    names = ["first", "on hold", "third"]
    world.run(write_many(world.tier, world.store, dict.fromkeys(names, 7), 60_000), [stored])
    assert [world.store.peek(name) for name in names] == [7, None, 7]
    assert not unfinished("on hold")


# -- tags whose change has an unknown outcome, and interruptions


def test_change_of_a_tag_that_comes_after_it_was_given_up_is_heard(world: World) -> None:
    """The server was stopped, and carries it out later: what has been loaded meanwhile is dead in L2, and so in L1."""
    tier = world.tier
    steps = invalidate_tag(tier, world.store, "red")
    (exchange,) = next(steps)
    wid = int(exchange.commands[0][-6], 16)
    with pytest.raises(ShardUnavailableError):
        steps.send([ShardUnavailableError("a", "no answer", sent=True)])
    (tag,) = tags_named(tier, ["red"])
    derived, stamp = tier.derived.assign(world.store, 0, [(tag.key, tag.lane)])
    tier.derived.heard(world.store, wid, [tag.key])
    assert world.store.lane_stamp(derived) != stamp


def test_tag_changes_in_the_middle_of_an_assignment(world: World) -> None:
    """As when a collection ends steps that an event loop has left behind."""
    derived, store = world.tier.derived, world.store

    class Interrupted(bytes):
        def __hash__(self) -> int:
            derived.changed(store, b"!t:1")
            return super().__hash__()

    done = threading.Thread(target=derived.assign, args=(store, 0, [(Interrupted(b"!t:1"), 0)]), daemon=True)
    done.start()
    done.join(20.0)
    assert not done.is_alive()


def test_change_of_a_tag_is_no_secret_between_versions_of_the_shard_list(world: World) -> None:
    """Who reads under the new version does not join a read that began before a change under the old one."""
    endpoint = Endpoint(name="a", host="a", port=1)
    newer = world.tier.under(Ring(2, shards_of("rendezvous", (endpoint,))), {"a": 0})
    world.run(invalidate_tag(world.tier, world.store, "t"), world.stored())
    assert newer.overtaken_ns == world.tier.overtaken_ns == world.ns


# -- carried out by a task


def test_task_unwound_after_the_end_of_its_loop_ends_in_silence() -> None:
    """Its context is gone: what closes it, the collector say, has another one."""
    tier: Any = SimpleNamespace(namespace="t")
    runner = AsyncRunner(cast("Any", None), tier, 1.0)
    loop = asyncio.new_event_loop()

    def steps() -> Any:
        yield Await(Signal(), PATIENCE)

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(runner.run_alone(steps()))
        await asyncio.sleep(0)
        return task

    task: Any = loop.run_until_complete(begin())
    task._log_destroy_pending = False
    loop.close()
    task.get_coro().close()
