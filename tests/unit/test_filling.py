"""Loads driven by hand: what becomes of the lease and of the value, whatever the server answers. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import pytest

from nearcache import Writer
from nearcache.errors import ContentionError, ServerReplyError, ShardError, ShardUnavailableError, UnencodableValueError
from nearcache.flights import Load
from nearcache.l2 import Exchange, Reply
from nearcache.loading import MISSING, Loading, load, load_young, refresh
from nearcache.loading.aging import Due
from nearcache.loading.deciding import Source, take_through
from nearcache.loading.filling import renew
from nearcache.loading.gathering import Gathering, gather
from nearcache.loading.leasing import outlast
from nearcache.loading.steps import Await, Call, JoinLoad
from nearcache.loading.tier import hex_id
from nearcache.loading.writing import write
from support.interrupts import interrupted
from support.steps import EPOCH, GENERATION, IDENTITY, World
from support.tiers import Deaf

TOKEN = b"0123456789abcdef"
MS = 1_000_000


@pytest.fixture
def world() -> World:
    """See :class:`World`."""
    return World()


def scripts_in(request: Any) -> list[str]:
    """Return the names of the scripts that a request runs, or of the commands."""
    (exchange,) = request
    assert isinstance(exchange, Exchange)
    return [getattr(command[0], "name", command[0]) for command in exchange.commands]


def up_to_fill(world: World) -> tuple[Generator[Any, Any, Any], Any]:
    """Carry out a load up to its fill. Returns the steps and that request."""
    steps = load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))
    assert scripts_in(next(steps)) == [b"PTTL", b"GET"]
    assert scripts_in(steps.send([Reply([-2, None], IDENTITY)])) == ["lease"]
    request = steps.send([Reply([[0, hex_id(GENERATION), TOKEN]], IDENTITY)])
    assert isinstance(request, Call)
    return steps, steps.send(7)


def test_refused_fill_gives_its_lease_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """No memory on the server: who waits for the key is to load now, not when the lease runs out."""
    steps, request = up_to_fill(world)
    assert scripts_in(request) == ["fill"]
    request = steps.send([Reply([ServerReplyError("a", "OOM command not allowed")], IDENTITY)])
    assert scripts_in(request) == ["abort"]
    assert TOKEN in request[0].commands[0]
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([1], IDENTITY)])
    assert stop.value.value == 7
    assert world.store.peek("k") is None
    assert world.tier.counters.errors == 1
    (line,) = caplog.messages
    assert line.startswith(
        "namespace t: what was loaded is not kept: shard a: the server replied 'OOM command not allowed'"
    )


@pytest.mark.parametrize(
    ("error", "lines"),
    [(ServerReplyError("a", "OOM command not allowed"), 1), (ShardUnavailableError("a", "no answer in time"), 0)],
)
@pytest.mark.parametrize("several", [False, True])
def test_refused_lease_is_counted_and_logged(
    world: World, caplog: pytest.LogCaptureFixture, error: ShardError, lines: int, several: bool
) -> None:
    """The caller has its value, and nobody else would say that each miss loads. Of an outage the listener tells."""
    if several:
        steps = gather(world.tier, world.store, Gathering({"k": "k"}, lambda keys: {"k": 7}, 60_000))
        absent = Reply([-2, [None], [hex_id(GENERATION), None]], IDENTITY)
    else:
        steps = load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))
        absent = Reply([-2, None], IDENTITY)
    next(steps)
    assert scripts_in(steps.send([absent])) == ["lease"]
    assert isinstance(steps.send([error]), Call)
    with suppress(StopIteration):
        steps.send({"k": 7} if several else 7)
    assert world.tier.counters.errors == 1
    assert ["what was loaded is not kept" in line and str(error) in line for line in caplog.messages] == [True] * lines


def unanswered(cause: Exception) -> ShardUnavailableError:
    """What the driver says of a request that was sent, and not answered."""
    error = ShardUnavailableError("a", str(cause), sent=True)
    error.__cause__ = cause
    return error


def test_fill_without_an_answer_in_time_is_left_alone(world: World) -> None:
    """It may have been done, and the shard has had its time."""
    steps, _ = up_to_fill(world)
    assert ended(steps, [unanswered(TimeoutError("no answer in time"))]) == 7
    assert world.store.peek("k") is None


def test_fill_that_was_cut_off_gives_its_lease_up(world: World) -> None:
    """Perhaps it was not done, and all others would wait for the lease's end although the shard is well."""
    steps, _ = up_to_fill(world)
    request = steps.send([unanswered(ConnectionResetError("reset"))])
    assert scripts_in(request) == ["abort"]
    assert TOKEN in request[0].commands[0]
    assert ended(steps, [Reply([0], IDENTITY)]) == 7
    assert world.store.peek("k") is None


def test_lease_whose_answer_was_cut_off_is_given_up_and_asked_for_anew(world: World) -> None:
    """Perhaps it was given out, to nobody. Under another name: if the first came late, it would void nothing."""
    steps = load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))
    next(steps)
    ((_, (first,)),) = steps.send([Reply([-2, None], IDENTITY)])
    ((_, (abort, second)),) = steps.send([unanswered(ConnectionResetError("reset"))])
    assert (abort[0].name, second[0].name) == ("abort", "lease")
    token = first[2 + first[1] + 2]
    assert token in abort
    assert token not in second
    assert isinstance(steps.send([Reply([1, [0, hex_id(GENERATION), TOKEN]], IDENTITY)]), Call)
    assert scripts_in(steps.send(7)) == ["fill"]
    assert ended(steps, filled()) == 7
    assert world.store.peek("k") == 7


def test_lease_that_is_cut_off_twice_leaves_the_load_without_one(world: World) -> None:
    """What is loaded then is returned, and kept nowhere."""
    steps = load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))
    next(steps)
    steps.send([Reply([-2, None], IDENTITY)])
    steps.send([unanswered(ConnectionResetError("reset"))])
    assert isinstance(steps.send([unanswered(ConnectionResetError("reset"))]), Call)
    with pytest.raises(StopIteration) as stop:
        steps.send(7)
    assert stop.value.value == 7
    assert world.store.peek("k") is None


def test_bulk_load_gives_up_what_was_cut_off(world: World) -> None:
    """Leases and fills, as a single load does."""
    wanted = Gathering({"a": "a", "b": "b"}, lambda keys: dict.fromkeys(keys, 7), 60_000)
    steps = gather(world.tier, world.store, wanted)
    next(steps)
    steps.send([Reply([-2, -2, [None, None], [hex_id(GENERATION), None]], IDENTITY)])
    reset = unanswered(ConnectionResetError("reset"))
    # One of the two was answered before the connection ended.
    request = steps.send([Reply([[0, hex_id(GENERATION), TOKEN], reset], IDENTITY)])
    assert scripts_in(request) == ["abort", "lease"]
    other = TOKEN[::-1]
    assert isinstance(steps.send([Reply([1, [0, hex_id(GENERATION), other]], IDENTITY)]), Call)
    assert scripts_in(steps.send({"a": 7, "b": 7})) == ["fill", "fill"]
    request = steps.send([Reply([filled()[0].values[0], reset], IDENTITY)])
    assert scripts_in(request) == ["abort"]
    assert other in request[0].commands[0]
    assert ended(steps, [Reply([0], IDENTITY)]) == {"a": 7, "b": 7}
    assert (world.store.peek("a"), world.store.peek("b")) == (7, None)


def test_bulk_load_leaves_alone_what_somebody_has_stored_meanwhile(world: World) -> None:
    """Since it was looked for: its lease is answered with the value, and only the other key is asked of the loader."""
    wanted = Gathering({"a": "a", "b": "b"}, lambda keys: dict.fromkeys(keys, 7), 60_000)
    steps = gather(world.tier, world.store, wanted)
    next(steps)
    steps.send([Reply([-2, -2, [None, None], [hex_id(GENERATION), None]], IDENTITY)])
    sealed = world.tier.codec.dumps(6, wid=5, generation=GENERATION, ttl_ms=60_000)
    there = [1, hex_id(GENERATION), sealed, 60_000]
    request = steps.send([Reply([there, [0, hex_id(GENERATION), TOKEN]], IDENTITY)])
    assert isinstance(request, Call)
    assert request.key == ["b"]
    assert scripts_in(steps.send({"b": 7})) == ["fill"]
    assert ended(steps, filled()) == {"a": 6, "b": 7}


def test_bulk_load_takes_the_place_of_what_cannot_be_read(world: World) -> None:
    """By another schema, say: it is asked for once more, whatever is there."""
    steps = load_several(world)
    next(steps)
    assert scripts_in(steps.send([Reply([-2, [None], [hex_id(GENERATION), None]], IDENTITY)])) == ["lease"]
    request = steps.send([Reply([[1, hex_id(GENERATION), b"no envelope", 60_000]], IDENTITY)])
    assert scripts_in(request) == ["lease"]
    assert request[0].commands[0][-1] == b"REPLACE"
    assert isinstance(steps.send(leased()), Call)
    assert scripts_in(steps.send({"k": 7})) == ["fill"]
    assert ended(steps, filled()) == {"k": 7}


def test_bulk_load_raises_what_is_wrong_with_the_first_key(world: World) -> None:
    """Of several that cannot be stored: the one that an error of a single load would be about as well."""
    wanted = Gathering({"a": "a", "b": "b"}, lambda keys: {}, 60_000)
    steps = gather(world.tier, world.store, wanted)
    next(steps)
    steps.send([Reply([-2, -2, [None, None], [hex_id(GENERATION), None]], IDENTITY)])
    steps.send([Reply([[0, hex_id(GENERATION), token] for token in (TOKEN, TOKEN[::-1])], IDENTITY)])
    assert scripts_in(steps.send({"a": iter(()), "b": print})) == ["abort", "abort"]
    with pytest.raises(UnencodableValueError, match="iterator"):
        for _ in range(2):
            steps.send([Reply([1, 1], IDENTITY)])


def test_bulk_load_whose_end_is_interrupted_anywhere_leaves_nothing_under_way() -> None:
    """Else whoever asks for one of its keys would wait for ever, and its leases would be renewed."""
    for step in itertools.count(1):
        world = World()
        wanted = Gathering({"a": "a", "b": "b"}, lambda keys: dict.fromkeys(keys, 7), 60_000)
        steps = gather(world.tier, world.store, wanted)
        next(steps)
        steps.send([Reply([-2, -2, [None, None], [hex_id(GENERATION), None]], IDENTITY)])
        granted = [[0, hex_id(GENERATION), token] for token in (TOKEN, TOKEN[::-1])]
        assert isinstance(steps.send([Reply(granted, IDENTITY)]), Call)
        assert len(world.tier.loads) == len(world.tier.leases) == 2

        def fail(steps: Generator[Any, Any, Any] = steps) -> None:
            with suppress(StopIteration, OSError):
                request = steps.throw(OSError("of the loader"))
                while True:
                    request = steps.send([Reply([1] * len(each.commands), IDENTITY) for each in request])

        was_interrupted = interrupted(step, fail)
        steps.close()
        assert len(world.tier.loads) == len(world.tier.leases) == 0, step
        if not was_interrupted:
            return


# -- how long somebody else is waited for


class Hearing(Deaf):
    """Whoever waits for a key hears of it."""

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """It will be heard."""
        return True


def load_one(world: World) -> Any:
    """Load a key."""
    return load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))


def load_several(world: World) -> Any:
    """Load a key with others, though there are none."""
    return gather(world.tier, world.store, Gathering({"k": "k"}, lambda keys: dict.fromkeys(keys, 7), 60_000))


def take_one(world: World) -> Any:
    """Remove a key behind the cache by what it is."""
    source = Source(lambda _: 7, Writer(write=lambda _key, _value: None, delete=lambda _: None))
    return take_through(world.tier, world.store, source, "k", "k")


@pytest.mark.parametrize("ask", [load_one, load_several, take_one])
def test_wait_for_somebody_else_is_over_after_a_minute_however_long_he_may_go_on(
    world: World, ask: Callable[[World], Any]
) -> None:
    """Of what is left of his lease, or his lock, only what is left of the minute is waited for."""
    world.tier.ears = Hearing()
    answers = {
        b"PTTL": -2, b"GET": None, b"MGET": [None], b"HMGET": [hex_id(GENERATION), None],
        "lease": [2, hex_id(GENERATION), b"60000"], "lock": [0, hex_id(GENERATION), b"60000"], "abort": 0,
    }  # fmt: skip
    steps = ask(world)
    waits: list[float] = []
    request = next(steps)
    with suppress(ContentionError):
        while not isinstance(request, Call) and len(waits) < 5:
            if isinstance(request, Await):
                waits.append(request.seconds)
                world.ns += 59_500_000_000 if len(waits) == 1 else round(request.seconds * 1e9)
                request = steps.send(False)
            else:
                request = steps.send([Reply([answers[name] for name in scripts_in(request)], IDENTITY)])
    assert waits == [60, 0.5]


def test_refresh_that_waited_for_a_renewal_which_left_the_work_to_others_does_it_itself(world: World) -> None:
    """In the background nobody waits for another process: there is no value then, and none must be returned."""
    wanted = Loading("k", "k", lambda _: 7, 60_000)
    renewal = renew(world.tier, world.store, wanted, Due(5))
    assert scripts_in(next(renewal)) == ["lease"]
    refreshing = refresh(world.tier, world.store, wanted)
    assert isinstance(next(refreshing), JoinLoad)
    with pytest.raises(StopIteration):
        renewal.send([Reply([[2, hex_id(GENERATION), b"60000"]], IDENTITY)])
    assert scripts_in(refreshing.send(MISSING)) == ["lease"]


@pytest.mark.parametrize("is_over", [True, False])
def test_error_of_who_has_the_lease_is_no_matter_of_who_waits_for_its_end(*, is_over: bool) -> None:
    """He asks again then. What happens before that end is his own."""
    holder = Load("k")
    steps = outlast(holder)
    assert isinstance(next(steps), JoinLoad)
    if is_over:
        holder.done.set()
    with pytest.raises(StopIteration if is_over else OSError):
        steps.throw(OSError("of the loader, or of the one who waits"))


# -- who asks for a greatest age while another such load is under way


def young(world: World, limit_ms: int) -> Generator[Any, Any, Any]:
    """Begin a load of what is not older."""
    return load_young(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000), limit_ms * MS)


def held(world: World, age_ms: int, wid: int = 5) -> list[Reply]:
    """What is answered to who reads a value that was stored so long ago, under this id."""
    sealed = world.tier.codec.seal(world.tier.codec.encode(6), wid=wid, generation=GENERATION, ttl_ms=60_000)
    return [Reply([60_000 - age_ms, sealed, [hex_id(GENERATION), None]], IDENTITY)]


def leased() -> list[Reply]:
    """What is answered to who is to load."""
    return [Reply([[0, hex_id(GENERATION), TOKEN]], IDENTITY)]


def filled() -> list[Reply]:
    """What a fill is answered that was done, and announced to nobody."""
    return [Reply([[1, hex_id(GENERATION), hex_id(EPOCH), b"0"]], IDENTITY)]


def ended(steps: Generator[Any, Any, Any], answer: list[Reply]) -> Any:
    """Give steps their last answer; return what they return."""
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    return stop.value.value


@pytest.mark.parametrize("several", [False, True])
def test_old_value_goes_where_nobody_knows_whether_the_new_one_is_stored(world: World, *, several: bool) -> None:
    """Others may read the new one in L2 by now, and who loaded it has it. Until then the old one was served."""
    world.run(write(world.tier, world.store, "k", 6, 60_000), world.stored())
    wid = world.store.l1_wid("k")
    assert wid is not None
    wanted = Gathering({"k": "k"}, lambda keys: {"k": 7}, 60_000, limit_ns=0)
    steps = gather(world.tier, world.store, wanted) if several else young(world, 0)
    next(steps)
    assert scripts_in(steps.send(held(world, age_ms=9, wid=wid))) == ["lease"]
    assert isinstance(steps.send(leased()), Call)
    assert scripts_in(steps.send({"k": 7} if several else 7)) == ["fill"]
    assert world.store.peek("k") == 6
    assert ended(steps, [unanswered(TimeoutError("no answer in time"))]) == ({"k": 7} if several else 7)
    assert world.store.peek("k") is None


def test_value_is_not_for_who_asks_while_it_is_being_stored(world: World) -> None:
    """It may have been stored before they asked. Who asks while it is being loaded waits for it."""
    first = young(world, 0)
    next(first)
    assert scripts_in(first.send(held(world, age_ms=0))) == ["lease"]
    assert isinstance(first.send(leased()), Call)
    assert isinstance(next(young(world, 0)), JoinLoad)
    assert scripts_in(first.send(7)) == ["fill"]
    assert not isinstance(next(young(world, 0)), JoinLoad)
    assert ended(first, [Reply([[1, hex_id(GENERATION), hex_id(1), b"1", b""]], IDENTITY)]) == 7


@pytest.mark.parametrize("has_slept", [False, True])
def test_value_is_young_enough_for_all_who_wait_for_it(world: World, *, has_slept: bool) -> None:
    """Who came last may have asked when the answer was on its way; and then the machine may have slept."""
    first = young(world, 20)
    next(first)
    world.ns += 8 * MS
    assert isinstance(next(young(world, 20)), JoinLoad)
    if has_slept:
        world.tier.births.slept(world.ns)
        assert scripts_in(first.send(held(world, age_ms=1))) == ["lease"]
    else:
        assert scripts_in(first.send(held(world, age_ms=15))) == ["lease"]


def test_value_is_young_enough_if_it_was_when_it_was_asked_for(world: World) -> None:
    """However long the answer takes, where nobody else has asked meanwhile; or it was even at the answer."""
    alone = young(world, 20)
    next(alone)
    world.ns += 8 * MS
    assert ended(alone, held(world, age_ms=15)) == 6
    first = young(world, 20)
    next(first)
    world.ns += 8 * MS
    assert isinstance(next(young(world, 20)), JoinLoad)
    assert ended(first, held(world, age_ms=10)) == 6


def test_value_that_was_read_for_its_age_is_known_to_be_as_young_afterwards(world: World) -> None:
    """So L1 can answer who asks for the same age again, for as long as it is."""
    steps = young(world, 20)
    next(steps)
    assert ended(steps, held(world, age_ms=10)) == 6
    assert world.tier.births.is_young("k", 5, world.ns - 20 * MS)
    assert not world.tier.births.is_young("k", 5, world.ns - 10 * MS)
    assert not world.tier.births.is_young("k", 4, world.ns - 20 * MS)


def test_value_that_is_loaded_where_ages_are_asked_for_is_known_to_be_as_young_as_its_fill(world: World) -> None:
    """Where nobody ever asks, it would be remembered for nothing."""
    for asked in (False, True):
        steps = young(world, 0) if asked else load_one(world)
        next(steps)
        steps.send(held(world, age_ms=9) if asked else [Reply([-2, None], IDENTITY)])
        steps.send(leased())
        steps.send(7)
        assert ended(steps, filled()) == 7
        wid = world.store.l1_wid("k")
        assert wid is not None
        assert world.tier.births.is_young("k", wid, world.ns) is asked
