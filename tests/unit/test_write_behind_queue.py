"""What an owner of a queue makes of the records that it is given."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import Writer
from nearcache.backlog import Backlog
from nearcache.cache.tiered.behind import CLOSE_S, Scribe
from nearcache.coherence import State
from nearcache.errors import BacklogFullError, BulkError
from nearcache.l2 import Reply
from nearcache.loading import (
    MISSING,
    Queues,
    Room,
    behind,
    delete_behind,
    queued,
    read,
    take_behind,
    write,
    write_many,
)
from nearcache.loading.steps import Await
from nearcache.loading.tier import hex_id
from nearcache.options import parse
from support.errors import WordlessError
from support.steps import GENERATION, IDENTITY, World


def test_record_that_somebody_has_deleted_is_passed_over() -> None:
    """The others are taken, each with the number of its owners; where that is not told, there was one."""
    world = World()
    backlog = Backlog(delay_ns=0, batch=10, attempts=3, chance=lambda: 0.0)
    queues = Queues(1, backlog)
    records = [[b"1-0", [b"k", b"a", b"e", b"x"]], [b"2-0", None], [b"3-0", [b"k", b"b", b"e", b"y"]]]
    steps = queues.fetch(world.tier)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([[1, 3, 0, records, [5], b"", 9]], IDENTITY)])
    assert stop.value.value == []
    taken = {change.encoded: change.deliveries for change in backlog.take(world.ns)}
    assert taken == {b"a": 5, b"b": 1}


def test_hurry_for_what_is_no_record_is_nobodys() -> None:
    """Whatever a stranger has put into the lane record: the records are taken, and wait for the end of their delay."""
    for urgent in (b"", b"soon", b"1", b"9" * 5000 + b"-0", b"\xff-0"):
        world = World()
        backlog = Backlog(delay_ns=60_000_000_000, batch=10, attempts=3, chance=lambda: 0.0)
        records = [[b"9-0", [b"k", b"a", b"e", b"x"]]]
        world.run(Queues(1, backlog).fetch(world.tier), [[1, 1, 1, records, [1], urgent, 9]])
        assert backlog.wait_ns(world.ns) == 60_000_000_000


def test_owner_whose_server_was_replaced_reads_its_queue_from_the_beginning() -> None:
    """The new one may have what was written and settled: as it was given out already, it is no news."""
    world = World()
    queues = Queues(1, Backlog(delay_ns=0, batch=10, attempts=3, chance=lambda: 0.0))

    def fetch(identity: int, records: list[Any]) -> bytes:
        steps = queues.fetch(world.tier)
        ((_, [command]),) = next(steps)
        with pytest.raises(StopIteration):
            steps.send([Reply([[1, 1, 0, records, [1] * len(records), b"", 9]], identity)])
        return bytes(command[-1])

    record = [[b"1-0", [b"k", b"a", b"e", b"x"]]]
    assert fetch(IDENTITY, record) == b"0"
    assert fetch(IDENTITY, []) == b"1-0"  # and now everything is known that was given out before
    assert fetch(IDENTITY, []) == b">"
    assert fetch(0, []) == b">"  # by a server that does not say who it is
    assert 0 in world.tier.queues
    queues.backlog.settle(queues.backlog.take(world.ns))
    assert fetch(IDENTITY + 1, []) == b">"
    assert 0 not in world.tier.queues
    assert fetch(IDENTITY + 1, record) == b"0"
    assert [change.encoded for change in queues.backlog.take(world.ns)] == [b"a"]


@pytest.mark.parametrize(("told_ms", "left_ms"), [
    (1_000, 60_000), (1_400, 59_600), (61_000, 0), (10**12, 0), (500, 60_000),
], ids=["at once", "soon", "as late as it is due", "for years", "made later than now"])  # fmt: skip
def test_change_is_due_its_delay_after_it_was_made_whenever_it_is_fetched(told_ms: int, left_ms: int) -> None:
    """By the server's clock, which the record's id tells; if that was set back, the delay begins now."""
    world = World()
    backlog = Backlog(delay_ns=60_000_000_000, batch=10, attempts=3, chance=lambda: 0.0)
    records = [[b"1000-0", [b"k", b"a", b"e", b"x"]]]
    world.run(Queues(1, backlog).fetch(world.tier), [[1, 1, 1, records, [1], b"", told_ms]])
    assert backlog.wait_ns(world.ns) == left_ms * 1_000_000


class Answering:
    """Carries out steps with an answer to each script that they run.

    Attributes:
        ran: The scripts' names and arguments.
    """

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.ran: list[tuple[str, Any]] = []

    def run(self, steps: Any) -> Any:
        try:
            request = next(steps)
            while True:
                request = steps.send([self._reply(exchange.commands[0]) for exchange in request])
        except StopIteration as stop:
            return stop.value

    def _reply(self, command: Any) -> Reply:
        self.ran.append((command[0].name, command[1:]))
        return Reply([self._answers[command[0].name]], IDENTITY)


def test_queue_found_to_be_anothers_in_the_middle_of_a_batch_nothing_more_of_it_is_written() -> None:
    """The values were written late, when another process had the queue, and perhaps later changes of the other keys."""
    world = World()
    called: list[Any] = []
    writer = Writer(write_many=lambda values: called.append(sorted(values)), delete_many=called.append)
    given = {b"sa": sealed(world, "a"), b"sb": sealed(world, "b"), b"sc": b"", b"sd": b""}
    records = [[b"%d-0" % place, [b"k", key, b"e", env]] for place, (key, env) in enumerate(given.items(), 1)]
    lost = [0, hex_id(GENERATION)]
    runner: Any = Answering(dequeue=[1, 4, 1, records, [1, 1, 1, 1], b"4-0", 9], written=lost)
    scribe = Scribe(world.tier, runner, writer, parse("redis://a", namespace="t", writer=writer, write_delay=60))
    scribe._turn()
    runner._answers["dequeue"] = [1, 4, 0, [], [], b"4-0", 9]
    scribe._turn()
    assert called == [["a", "b"]]


@pytest.mark.parametrize(("stood_still_s", "state", "is_owner", "expected"), [
    (0.9, State.LIVE, False, ["abc", "a", "b", "c"]),
    (1.1, State.LIVE, False, ["abc"]),
    (1.1, State.LIVE, True, ["abc", "a", "b", "c"]),
    (1.1, State.DOWN, True, ["abc", "a", "b", "c"]),
], ids=["a moment", "another's since", "prolonged", "prolonged by itself"])  # fmt: skip
def test_owner_that_stood_still_in_the_writer_prolongs_its_lock_before_it_begins_anything_else(
    stood_still_s: float, state: State, is_owner: bool, expected: list[str]
) -> None:
    """A call that raises after half of the lock's time, and after which every key would be tried alone."""
    world = World(lease_ms=2000)
    called: list[str] = []

    def write_many(values: Any) -> None:
        called.append("".join(sorted(values)))
        if len(values) > 1:
            world.ns += round(stood_still_s * 1e9)
            world.lane.state = state
            raise OSError("the connection was lost")

    writer = Writer(write_many=write_many)
    records = [[b"%d-0" % at, [b"k", b"s%c" % key, b"e", sealed(world, chr(key))]] for at, key in enumerate(b"abc", 1)]
    runner: Any = Answering(
        dequeue=[1, 3, 1, records, [1, 1, 1], b"3-0", 9],
        written=[1, hex_id(GENERATION), b"1", 0, 1],
        renew=int(is_owner),
    )
    scribe = Scribe(world.tier, runner, writer, parse("redis://a", namespace="t", writer=writer, write_delay=60))
    scribe._turn()
    runner._answers["dequeue"] = [1, 3, 0, [], [], b"3-0", 9]
    scribe._turn()
    assert called == expected
    lasting = {State.LIVE: b"2000", State.DOWN: b"10000"}[state]
    renewals = [arguments[-1] for name, arguments in runner.ran if name == "renew"]
    assert renewals == [lasting] * (stood_still_s > 1)  # once: then its end is far off again


@pytest.mark.parametrize(("slept_s", "is_asked"), [(0.9, False), (1.1, True)])
def test_owner_whose_machine_slept_asks_for_its_lock_before_it_begins_anything(
    monkeypatch: pytest.MonkeyPatch, slept_s: float, *, is_asked: bool
) -> None:
    """The monotonic clock stood still meanwhile, and the server's did not: another one may have the queue."""
    world = World(lease_ms=2000)
    queues = Queues(1, Backlog(delay_ns=0, batch=10, attempts=3, chance=lambda: 0.0))
    monkeypatch.setattr(behind, "suspended_ns", lambda: 5_000_000_000)
    world.run(queues.fetch(world.tier), [[1, 1, 1, [], [], b"", 9]])
    monkeypatch.setattr(behind, "suspended_ns", lambda: 5_000_000_000 + round(slept_s * 1e9))
    owned = world.run(queues.owned(world.tier, [0]), *([[0]] if is_asked else []))
    assert owned == (set() if is_asked else {0})


class Serving(Answering):
    """Has a queue as well: gives out what was not given out, and takes what was written."""

    def __init__(self, world: World, records: list[Any]) -> None:
        super().__init__()
        self._world, self._left, self._length, self._start_ns = world, records, len(records), world.ns

    def _reply(self, command: Any) -> Reply:
        script, keys, *words = command
        _ring, _nonce, _token, *arguments = words[keys:]
        if script.name == "written":
            self._length -= len(arguments) // 3  # of each a pair, and the one record that it stands for
            return Reply([[1, hex_id(GENERATION), b"1", 0, self._length]], IDENTITY)
        most = int(arguments[1])
        page, self._left = self._left[:most], self._left[most:]
        told_ms = (self._world.ns - self._start_ns) // 1_000_000
        return Reply([[1, self._length, 0, page, [1] * len(page), b"", told_ms]], IDENTITY)


def test_more_changes_than_are_held_are_all_written_one_delay_after_they_were_made() -> None:
    """What could not be fetched before has waited as long as the rest."""
    world = World(lease_ms=10_000_000)
    sizes: list[int] = []
    writer = Writer(write_many=lambda values: sizes.append(len(values)))
    names = [str(number) for number in range(1200)]
    given = [[b"1-%d" % at, [b"k", b"s" + name.encode(), b"e", sealed(world, name)]] for at, name in enumerate(names)]
    settings = parse("redis://a", namespace="t", writer=writer, write_delay=60, write_batch=10)
    runner: Any = Serving(world, given)
    scribe = Scribe(world.tier, runner, writer, settings, lambda: world.ns)
    assert scribe._turn() < 1  # others may change something before that is due
    assert sizes == []
    world.ns += 60_001_000_000
    for _ in range(120):
        scribe._turn()
    assert sizes == [10] * 120


def test_writer_whose_error_cannot_be_told_is_called_again_and_others_are_written() -> None:
    """What it says is not worth the thread that writes."""
    world = World()
    called: list[Any] = []

    def write(key: Any, _value: Any) -> None:
        called.append(key)
        if key == "a":
            raise WordlessError

    records = [[b"%d-0" % at, [b"k", b"s%c" % key, b"e", sealed(world, chr(key))]] for at, key in enumerate(b"ab", 1)]
    runner: Any = Answering(dequeue=[1, 2, 1, records, [1, 1], b"2-0", 9], written=[1, hex_id(GENERATION), b"1", 0, 1])
    writer = Writer(write=write)
    scribe = Scribe(world.tier, runner, writer, parse("redis://a", namespace="t", writer=writer, write_delay=60))
    for _ in range(2):
        scribe._turn()
        runner._answers["dequeue"] = [1, 2, 0, [], [], b"2-0", 9]
    assert called == ["a", "b"]
    assert scribe.stats().retried == 1
    assert scribe.stats().last_error == "WordlessError: <its str() raised AttributeError>"


def test_turn_that_goes_wrong_is_counted_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever looks at the statistics is to see why nothing is written."""
    world, writer = World(), Writer(write=lambda _key, _value: None)
    runner: Any = Answering()
    scribe = Scribe(world.tier, runner, writer, parse("redis://a", namespace="t", writer=writer, write_delay=60))

    def turn() -> float:
        scribe._stopping.set()
        scribe.wake()
        raise LookupError("a mistake")

    monkeypatch.setattr(scribe, "_turn", turn)
    scribe._run()
    assert (scribe.stats().errors, scribe.stats().last_error) == (1, "LookupError: a mistake")
    assert caplog.messages == ["namespace t: writing behind the cache went wrong; it goes on"]


def test_end_of_a_writer_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked for: ``close()`` does so for its parts, and for those who leave the servers."""
    world, writer, waited = World(), Writer(write=lambda _key, _value: None), list[float]()
    runner: Any = Answering()
    settings = parse("redis://a", namespace="t", writer=writer, write_delay=60)
    scribe = Scribe(world.tier, runner, writer, settings, lambda: world.ns)

    def hang(longest_s: float) -> None:
        waited.append(longest_s)
        world.ns += round(longest_s * 1e9)

    monkeypatch.setattr(scribe, "_join", hang)
    for _ in range(3):
        scribe.stop()
    assert waited == [CLOSE_S, 0, 0]


def sealed(world: World, key: str) -> bytes:
    """An envelope of a value."""
    content = world.tier.codec.encode("value")
    return world.tier.codec.seal(content, wid=1, generation=GENERATION, ttl_ms=60_000, key=b"s" + key.encode())


def test_bulk_write_that_waits_for_room_asks_less_and_less_often() -> None:
    """Each pause is up to twice as long as the one before, to a tenth of a second, as for single keys."""
    world = World()
    room = Room(most=1, patience_ns=60_000_000_000, wake=lambda: None)
    steps = write_many(world.tier, world.store, {"a": 1}, 60_000, (), queued(room))
    request, pauses = next(steps), []
    while len(pauses) < 12:
        if isinstance(request, Await):
            pauses.append(request.seconds)
            request = steps.send(False)
        else:
            request = steps.send([Reply([b"3 %s 1" % hex_id(GENERATION)], IDENTITY)])
    steps.close()
    assert pauses[0] <= 0.0075
    assert all(pause >= 0.05 for pause in pauses[6:])


@pytest.mark.parametrize("write_one", [True, False])
def test_write_behind_wakes_the_writer_when_it_is_queued_and_when_there_is_no_room(*, write_one: bool) -> None:
    """Else it looks when it would anyway. For room one waits as long as was said, and no shorter."""
    world, woken = World(), []
    way = queued(Room(most=1, patience_ns=9_000_000_000, wake=lambda: woken.append(world.ns)))

    def begin() -> Any:
        if write_one:
            return write(world.tier, world.store, "a", 1, 60_000, way=way)
        return write_many(world.tier, world.store, {"a": 1}, 60_000, (), way)

    world.run(begin(), [world.stored()[0]])
    assert len(woken) == 1
    full = [Reply([b"3 %s 1" % hex_id(GENERATION)], IDENTITY)]
    steps = begin()
    next(steps)
    assert isinstance(steps.send(full), Await)
    assert len(woken) == 2
    world.ns += 8_999_000_000
    steps.send(False)
    assert isinstance(steps.send(full), Await)
    world.ns += 1_000_000
    steps.send(False)
    with pytest.raises((BacklogFullError, BulkError)):
        steps.send(full)


@pytest.mark.parametrize(("is_here", "existed"), [(False, 0), (False, 1), (True, 0)])
def test_deletion_behind_the_cache_says_whether_there_was_a_value(is_here: bool, existed: int) -> None:
    """In L2 or in this L1; of what nobody has, ``del`` raises KeyError."""
    world = World()
    way = queued(Room(most=1, patience_ns=0, wake=lambda: None))
    if is_here:
        world.run(write(world.tier, world.store, "k", 1, 60_000), world.stored())
    there = world.run(delete_behind(world.tier, world.store, "k", way), [[*world.stored(2)[0], existed]])
    assert there == (is_here or existed > 0)
    assert world.store.peek("k") is None


def test_taking_behind_the_cache_what_nobody_has_queues_nothing() -> None:
    """The writer need not delete it."""
    world, way = World(), queued(Room(most=1, patience_ns=0, wake=lambda: None))
    nothing = [-2, None, [hex_id(GENERATION), None]]
    assert world.run(take_behind(world.tier, world.store, "k", way), nothing) is MISSING


def test_value_read_before_its_deletion_behind_the_cache_is_not_kept_after_it() -> None:
    """The message of one's own deletion may come much later."""
    world, way = World(), queued(Room(most=1, patience_ns=0, wake=lambda: None))
    world.lane.identity = IDENTITY
    reading = read(world.tier, world.store, "k")
    next(reading)
    world.run(delete_behind(world.tier, world.store, "k", way), [[*world.stored()[0], 1]])
    with pytest.raises(StopIteration):
        reading.send([Reply([60_000, sealed(world, "k")], IDENTITY)])
    assert world.store.peek("k") is None
