"""``consistency="lane"``: nothing of a lane is served while this process has seen more of it than it has applied."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._store import Op, Store
from nearcache.clocks import TICK_NS
from nearcache.coherence import DERIVED, NOWHERE, Derived, Lane, OrderedHorizon
from nearcache.errors import ShardUnavailableError
from nearcache.flights import Load, Loads, strand
from nearcache.l2 import Exchange, Reply
from nearcache.loading import Loading, load, read
from nearcache.loading.exchanges import Exchanges
from nearcache.loading.gathering import Gathering, gather
from nearcache.loading.observing import Observing
from nearcache.loading.steps import JoinLoad, JoinRead
from nearcache.loading.writing import write
from support import steps

BOUND = 1_000_000_000
FAR = 1 << 60


class World:
    """A horizon over two lanes at (7, 10), live and vouched for, and its clock."""

    def __init__(self) -> None:
        self.now = 5 * BOUND
        self.store: Store[Any, Any] = Store(100, lanes=2 + DERIVED)
        self.store.l1_set_clock(self.now)
        self.tags: Store[bytes, int] = Store(100, lanes=2)
        self.tags.l1_set_clock(self.now)
        self.lanes = [Lane(BOUND), Lane(BOUND)]
        self.derived = Derived(2)
        self.horizon = OrderedHorizon(lambda: self.store, self.tags, self.derived, lambda: self.now, lanes=self.lanes)
        for lane in (0, 1):
            self.horizon.lane_attach(lane, 1)
            self.heartbeat(lane, 10, sent=self.now)

    def heartbeat(self, lane: int, seq: int, *, sent: int, epoch: int = 7) -> None:
        """A heartbeat is answered, as the follower does it."""
        self.horizon.lane_vouch(lane, sent + BOUND - TICK_NS)
        self.applied(lane, seq, epoch)

    def applied(self, lane: int, seq: int, epoch: int = 7) -> None:
        """Messages up to this number have been carried out."""
        self.lanes[lane].applied = (epoch, seq)
        self.horizon.caught_up(lane)

    def enter(self, key: str, lane: int = 0) -> None:
        """Let L1 hold a value."""
        op = Op(key, lane)
        self.store.l1_open(op)
        assert self.store.l1_finish(op, key, 3, FAR, 0, 1)

    def serves(self, key: str = "k") -> bool:
        """Whether L1 does."""
        return self.store.peek(key) is not None


@pytest.fixture
def world() -> World:
    """With an entry of each lane."""
    world = World()
    world.enter("k")
    world.enter("other", 1)
    return world


def test_what_is_applied_already_withholds_nothing(world: World) -> None:
    """Nearly always the follower has been quicker."""
    world.horizon.observe(0, (7, 10))
    world.horizon.observe(0, (7, 3))
    assert world.serves()
    assert world.horizon.times(0) == 0


def test_observation_ahead_withholds_the_lane_until_the_messages_have_caught_up(world: World) -> None:
    """The entries stay, and are served as they are when the lane is vouched for again."""
    world.horizon.observe(0, (7, 12))
    assert not world.serves()
    assert world.serves("other")
    assert world.tags.lane_fresh_until(0) == 0
    world.applied(0, 11)
    assert not world.serves()
    world.now += 30
    assert world.horizon.withheld_ns(0) == 30
    world.applied(0, 12)
    assert world.serves()
    assert world.tags.lane_fresh_until(0) > world.now
    assert (world.horizon.times(0), world.horizon.withheld_ns(0)) == (1, 30)


def test_the_newest_of_several_observations_counts(world: World) -> None:
    """An older one that comes later changes nothing, not even the time."""
    world.horizon.observe(0, (7, 15))
    seen = world.horizon.seen_ns(0)
    world.now += 1
    world.horizon.observe(0, (7, 12))
    assert world.horizon.seen_ns(0) == seen
    assert world.horizon.newest(0) == (7, 15)
    world.applied(0, 14)
    assert not world.serves()
    world.applied(0, 15)
    assert world.serves()
    assert world.horizon.newest(0) is None


def test_heartbeat_does_not_vouch_for_what_is_withheld(world: World) -> None:
    """It was sent before; what it proves is older than what has been seen."""
    sent = world.now - 1
    world.horizon.observe(0, (7, 12))
    world.heartbeat(0, 11, sent=sent)
    assert not world.serves()
    world.applied(0, 12)
    assert world.store.lane_fresh_until(0) == sent + BOUND - TICK_NS


@pytest.mark.parametrize("place", [(7, 12), (8, 1), NOWHERE], ids=["behind", "other epoch", "unknown"])
def test_heartbeat_sent_later_that_knows_nothing_of_it_makes_the_lane_suspect(
    world: World, place: tuple[int, int]
) -> None:
    """The followed server has lost it, or never had it: its messages will not tell."""
    world.horizon.observe(0, place)
    world.heartbeat(0, 11, sent=world.now)  # in the same instant: nobody knows which was first
    assert not world.serves()
    world.now += 1
    world.heartbeat(0, 11, sent=world.now)
    assert not world.serves()
    assert world.store.l1_suspect("k") is not None
    assert world.store.lane_fresh_until(0) > world.now
    world.enter("new")
    assert world.serves("new")


def test_places_of_two_epochs_are_not_compared(world: World) -> None:
    """Reaching one of them says nothing about the other."""
    world.horizon.observe(0, (8, 2))
    world.horizon.observe(0, (7, 12))
    world.applied(0, 12)
    assert not world.serves()
    assert world.horizon.newest(0) == NOWHERE
    world.applied(0, 2, epoch=8)
    assert not world.serves()
    world.now += 1
    world.heartbeat(0, 3, sent=world.now, epoch=8)
    assert world.store.lane_fresh_until(0) > world.now


def test_derived_lanes_are_withheld_too(world: World) -> None:
    """An entry whose tag lies on the lane depends on it."""
    op = Op("tagged", 1)
    world.store.l1_open(op)
    under = world.derived.assign(world.store, 1, [(b"!t:1", 0)])
    assert world.store.l1_finish(op, "v", 3, FAR, 0, 1, under)
    assert world.serves("tagged")
    world.horizon.observe(0, (7, 11))
    assert not world.serves("tagged")
    world.applied(0, 11)
    assert world.serves("tagged")


def test_lane_that_is_lost_comes_back_withheld(world: World) -> None:
    """A disconnection is no catching up."""
    world.horizon.observe(0, (7, 12))
    world.lanes[0].applied = None
    world.horizon.lane_dark(0)
    world.horizon.caught_up(0)
    assert world.store.lane_fresh_until(0) == 0
    world.heartbeat(0, 11, sent=world.now)
    assert world.store.lane_fresh_until(0) == 0
    world.applied(0, 12)
    assert world.store.lane_fresh_until(0) > world.now


def test_lane_that_was_lost_is_not_vouched_for_by_what_was_heard_before(world: World) -> None:
    """That nothing is withheld any more makes no lane fresh which is not heard."""
    world.horizon.observe(0, (7, 12))
    world.horizon.lane_dark(0)
    world.applied(0, 12)
    assert not world.horizon.is_ahead(0)
    assert world.store.lane_fresh_until(0) == 0


def test_child_of_a_fork_has_observed_nothing(world: World) -> None:
    """All it has is suspect."""
    world.horizon.observe(0, (7, 12))
    world.horizon.after_fork()
    assert not world.horizon.is_ahead(0)


@given(st.lists(st.tuples(st.sampled_from(["see", "hear", "beat", "late beat"]), st.integers(0, 3)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_order_of_events_never_serves_what_is_older_than_what_was_seen(events: list[tuple[str, int]]) -> None:
    """The rule itself, against a plain account of it; and a heartbeat that knows all ends every waiting."""
    world = World()
    world.enter("k")
    here = seen = there = 10
    sent: list[int] = []
    for kind, more in events:
        world.now += 1
        if kind == "see":
            there += more
            seen = there
            world.horizon.observe(0, (7, seen))
        elif kind == "hear":
            here = min(there, here + more)
            world.applied(0, here)
        elif kind == "beat":
            sent.append(world.now)
        elif sent:
            here = there
            world.heartbeat(0, here, sent=sent.pop(0))
        assert world.serves() == (here >= seen)
        assert world.store.l1_suspect("k") is None or here < seen
    world.now += 1
    world.heartbeat(0, there, sent=world.now)
    assert world.serves()


# -- who may wait for whom


def test_load_from_before_an_observation_is_not_joined() -> None:
    """It may bring what is older; one that will yet ask may be."""
    seen = {"k": 100}
    loads = Loads(seen.__getitem__)
    first, second, third, fourth = (Load("k") for _ in range(4))
    for each in (first, second, third, fourth):
        each.owner = object()
    assert loads.begin(first) is first
    assert loads.begin(second) is first
    first.rests_on(Op("k"), 100)
    assert loads.begin(third) is third
    third.rests_on(Op("k"), 101)
    assert loads.begin(fourth) is third


def following(world: steps.World) -> OrderedHorizon:
    """A tier that observes its lane, which is live at number 10."""
    ordered = OrderedHorizon(
        lambda: world.store, world.tier.tags, world.tier.derived, lambda: world.ns, lanes=world.tier.lanes
    )
    world.tier.observe_with(ordered)
    world.lane.applied = (steps.EPOCH, 10)
    return ordered


BEGUN: dict[str, Any] = {
    "read": lambda world: read(world.tier, world.store, "k"),
    "load": lambda world: load(world.tier, world.store, Loading("k", "k", lambda key: key, 1000)),
    "gather": lambda world: gather(world.tier, world.store, Gathering({"k": "k"}, lambda keys: {"k": 1}, 1000)),
}


@pytest.mark.parametrize("begin", BEGUN.values(), ids=BEGUN)
def test_work_begun_before_an_observation_is_not_waited_for(begin: Any) -> None:
    """It may bring what is older than that, and nothing has told of its key yet."""
    world = steps.World()
    ordered = following(world)
    under_way = []

    def begun() -> Any:
        """What somebody else asks for first."""
        world.ns += 1
        strand.set(object())
        under_way.append(begin(world))
        return next(under_way[-1])

    def carried_out() -> None:
        assert isinstance(begun(), list)
        assert isinstance(begun(), (JoinRead, JoinLoad))
        ordered.observe(0, (steps.EPOCH, 11))
        assert isinstance(begun(), list)
        assert isinstance(begun(), (JoinRead, JoinLoad))

    copy_context().run(carried_out)
    for each in reversed(under_way):
        each.close()


def test_generation_that_was_heard_is_not_trusted_while_the_lane_is_ahead() -> None:
    """A clear may be among what has not been heard."""
    world = steps.World()
    ordered = following(world)
    assert world.tier.known_generation(0) == steps.GENERATION
    ordered.observe(0, (steps.EPOCH, 11))
    assert world.tier.known_generation(0) is None
    assert next(read(world.tier, world.store, "k"))[0].commands[-1][0] == b"HMGET"


def test_own_change_is_an_observation() -> None:
    """Also one that was made on the lane of a key's other owner, while the list of shards changes."""
    world = steps.World()
    ordered = following(world)
    world.run(write(world.tier, world.store, "k", 1, 1000), world.stored(11))
    assert ordered.newest(0) == (steps.EPOCH, 11)
    assert world.store.peek("k") is None
    world.lane.applied = (steps.EPOCH, 11)
    ordered.lane_vouch(0, world.ns + steps.BOUND)
    ordered.caught_up(0)
    assert world.store.peek("k") == 1


# -- the question


class _Tier:
    """What of a tier is asked."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.observed = self
        self.names = [self, self]
        self.lane_key = b"L"

    def observe(self, lane: int, place: tuple[int, int]) -> None:
        """As the horizon does."""
        self.seen.append((lane, place))


def test_question_comes_behind_all_that_is_asked_and_before_a_wait() -> None:
    """And its answer is nobody else's."""
    tier: Any = _Tier()
    observing = Observing(tier, [Exchange(0, [(b"GET", b"k")]), Exchange(1, [(b"SET", b"k"), (b"WAIT", b"1", b"5")])])
    question = (b"HMGET", b"L", b"e", b"s")
    assert [list(exchange.commands) for exchange in observing.exchanges] == [
        [(b"GET", b"k"), question],
        [(b"SET", b"k"), question, (b"WAIT", b"1", b"5")],
    ]
    replies = [Reply([b"v", [b"000000000000000a", b"12"]], 3), Reply([b"OK", [b"0b", b"5"], 1], 4)]
    assert observing.taken(replies) == [Reply([b"v"], 3), Reply([b"OK", 1], 4)]
    assert tier.seen == [(0, (10, 12)), (1, (11, 5))]


@pytest.mark.parametrize("said", [[None, None], ShardUnavailableError("s", "gone", sent=True), b"odd", [b"x", b"1"]])
def test_answer_that_does_not_tell_counts_as_unknown(said: Any) -> None:
    """Rather ask once too often."""
    tier: Any = _Tier()
    Observing(tier, [Exchange(0, [(b"GET", b"k")])]).heard(0, Reply([b"v", said], 3))
    assert tier.seen == [(0, NOWHERE)]


def test_shard_that_did_not_answer_tells_nothing() -> None:
    """The failure is passed on as it is."""
    tier: Any = _Tier()
    failure = ShardUnavailableError("s", "gone", sent=False)
    assert Observing(tier, [Exchange(0, [(b"GET", b"k")])]).heard(0, failure) is failure
    assert tier.seen == []


def test_reply_that_is_dealt_with_early_is_noted_before() -> None:
    """What is kept in L1 at once was observed at once."""
    tier: Any = _Tier()
    told: list[Any] = []
    request = Exchanges([Exchange(1, [(b"GET", b"k")])], lambda place, reply: told.append((place, reply, *tier.seen)))
    observing = Observing(tier, request)
    assert isinstance(observing.exchanges, Exchanges)
    observing.exchanges.on_reply(0, Reply([b"v", [b"0a", b"1"]], 3))
    assert told == [(0, Reply([b"v"], 3), (1, (10, 1)))]
