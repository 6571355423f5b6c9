"""The way of exchanges through a Redis Cluster. No I/O here: a generator says what to send where, and is told the rest.

Exchanges are named by lane. Those whose lanes are at one node go to it in one batch. What a node answers may be that it
does not have the slot any more (MOVED: ask there), that it is giving it away (ASK: ask there, this once; TRYAGAIN: some
of the keys are still here, and the others there already). In each case the command was not executed, so it can be sent
again, whatever it does; a reading of several keys is taken apart, for each by itself is in one place. Where nobody has
a slot for now (CLUSTERDOWN), the caller is told at once, as when a server is away.

While a slot is on its way, a script, which names a value, its lease and the lane's record, meets only TRYAGAIN, on both
sides. So scripts wait until the slot has arrived, but not again and again for one that stays open. Reads follow ASK;
what they bring is given to the caller, but has no identity, so that L1 does not keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ..errors import ServerReplyError, ShardError, ShardUnavailableError
from .clustermap import NOWHERE, ClusterMap
from .scripts import Script
from .task import BEHIND, WAIT, Command, Exchange, Reply, pack, repeatable

if TYPE_CHECKING:
    from ..clocks import Clock
    from .introduction import Introduction
    from .shard import Shard

#: How long, at most, commands are sent again and again because a slot is on its way. That is for all who come by: a
#: slot that nobody goes on with stays so, and who waits for it keeps others waiting, in a batch or behind a worker.
_PATIENCE_NS: Final = 1_000_000_000
#: After so long without one that came by, it may be another time that the slot is on its way.
_FORGET_NS: Final = 3_000_000_000
_PAUSE_FIRST_NS: Final = 2_000_000
_PAUSE_MOST_NS: Final = 50_000_000
#: Redirections in a row that are followed without a pause, as other clients do; then nodes are asked who has what.
_HOPS: Final = 5
#: Answers that say that a command was not executed, and may be elsewhere or later.
_WAITS: Final = frozenset({"ASK", "TRYAGAIN"})
REDIRECTS: Final = _WAITS | {"MOVED", "CLUSTERDOWN"}
_ASKING: Final[Command] = (b"ASKING",)


class Batch(NamedTuple):
    """Commands for one node, and how they are sent.

    Attributes:
        told: The lanes whose introduction stands in front.
        identity: Whom that was meant for.
        shares: Whose the others are: a leg, positions of its commands, and where in the batch they begin.
    """

    place: int
    commands: Sequence[Command]
    data: bytes
    told: list[int]
    identity: int
    shares: list[tuple[_Leg, list[int], int]]

    @property
    def legs(self) -> list[_Leg]:
        """Whose commands these are, each once."""
        return list(dict.fromkeys(leg for leg, _, _ in self.shares))


@dataclass(frozen=True, slots=True)
class Send:
    """Carry out these at the same time. Answer: a Reply or ShardError for each, and for those that were added.

    Attributes:
        on_reply: May be called with the number of a batch and its answer as soon as that is there. Returns batches
            that are to be carried out beside those that are under way, and are counted on from them.
    """

    batches: list[Batch]
    on_reply: Callable[[int, Reply | ShardError], list[Batch]]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Have the map asked for. Answer: why nobody could tell, or None."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long."""

    seconds: float


Request: TypeAlias = Send | Refresh | Pause
Course: TypeAlias = "Generator[Request, Any, list[Reply | ShardError]]"
#: Gets the place of what was asked in its list, and the answer.
OnReply: TypeAlias = "Callable[[int, Reply | ShardError], None]"


@dataclass(slots=True, eq=False)
class _Leg:
    """One exchange on its way.

    Attributes:
        values: The answers so far.
        due: Positions of the commands that are to be sent.
        asks: Of those, where they are to be sent this once.
        identity: Of the connection that has answered; 0: of several.
        fresh: Whether nothing has been answered yet.
        place: Where it was sent last.
        last: The newest redirection.
        failure: Why the place did not answer, until it has been looked for another.
        sent: Whether a try that failed may have been executed.
        whole: The commands as they were given, where some have been taken apart.
        pieces: Of those, by their positions, where the parts stand.
    """

    lane: int
    commands: Sequence[Command]
    values: list[Any] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    asks: dict[int, int] = field(default_factory=dict)
    identity: int = 0
    fresh: bool = True
    place: int = NOWHERE
    last: ServerReplyError | None = None
    failure: ShardError | None = None
    sent: bool = False
    result: Reply | ShardError | None = None
    whole: Sequence[Command] | None = None
    pieces: dict[int, range] = field(default_factory=dict)

    @property
    def is_harmless(self) -> bool:
        """Whether what has been answered may be executed once more. A plain SET is: it is an envelope on its way."""
        done = [command for at, command in enumerate(self.commands) if at not in self.due]
        return repeatable([command for command in done if command[0] not in (b"SET", "SET")])

    def end(self, error: ShardError) -> None:
        """Take an error as the answer to all that is still due."""
        if self.sent and isinstance(error, ShardUnavailableError):
            error.sent = True  # by a try before
        if self.fresh:
            self.result = error
            return
        for at in self.due:  # what was answered is known
            self.values[at] = error
        self.finish(0)

    def finish(self, identity: int) -> None:
        """All has been answered."""
        for at, parts in self.pieces.items():
            found = [_part(self.values[part]) for part in parts]
            self.values[at] = next((value for value in found if isinstance(value, ShardError)), found)
        self.result = Reply(self.values if self.whole is None else self.values[: len(self.whole)], identity)

    def take_apart(self, at: int) -> list[int]:
        """Ask for each key of a command by itself: they are not all at one node. Returns where that stands."""
        if self.whole is None:
            self.whole, self.commands = self.commands, list(self.commands)
        first = len(self.commands)
        self.commands = [*self.commands, *((b"GET", name) for name in self.commands[at][1:])]
        parts = self.pieces[at] = range(first, len(self.commands))
        self.values += [None] * len(parts)
        place = self.due.index(at)
        self.due = [*self.due[:place], *parts, *self.due[place + 1 :]]  # what stands behind it stays behind
        return list(parts)

    def restart(self) -> None:
        """Begin anew: nothing has been answered."""
        if self.whole is not None:
            self.commands, self.whole = self.whole, None
            self.pieces.clear()
        self.values = [None] * len(self.commands)
        self.due = list(range(len(self.commands)))
        self.asks.clear()
        self.fresh = True


class _Early:
    """Tells of exchanges that have their result before all have."""

    def __init__(self, legs: list[_Leg], on_reply: OnReply) -> None:
        self._places = {id(leg): place for place, leg in enumerate(legs)}
        self._on_reply = on_reply

    def all_done(self, legs: list[_Leg]) -> None:
        """Tell of those among these that have been answered; others are on their way to somewhere else."""
        for leg in legs:
            if leg.result is not None:
                self._on_reply(self._places[id(leg)], leg.result)


class _Ways:
    """How far the legs of one round have come.

    Attributes:
        hops: Of each leg, how often it was sent on before the others had been answered.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self.hops: dict[_Leg, int] = {}
        self._under_way: dict[_Leg, int] = {}
        for batch in batches:
            for leg in batch.legs:
                self.hops[leg] = 0
                self._under_way[leg] = self._under_way.get(leg, 0) + 1

    def taken(self, batch: Batch) -> list[_Leg]:
        """A batch was answered. Returns its legs, or none if some of them are in other batches too."""
        if any(self._under_way[leg] != 1 for leg in batch.legs):
            return []
        for leg in batch.legs:
            self._under_way[leg] = 0
        return batch.legs

    def taken_up(self, batch: Batch) -> None:
        """Its legs are sent on."""
        for leg in batch.legs:
            self.hops[leg] += 1
            self._under_way[leg] = 1


class Router:
    """Where exchanges go.

    Args:
        shards: The nodes, by place.
        introduction: What is said to a server before anything else, lane by lane.
    """

    def __init__(
        self, where: ClusterMap, shards: Sequence[Shard], introduction: Introduction | None, clock: Clock
    ) -> None:
        self.map = where
        self._shards = shards
        self._introduction = introduction
        self._clock = clock
        self._awaited: dict[int, tuple[int, int]] = {}  # lane -> since when it is waited for; when one came by last

    def place_of(self, lane: int) -> int:
        """Return where a lane's exchange can go as it is; :data:`NOWHERE`: it has to take its course."""
        place = self.map.places[lane]
        return NOWHERE if place != NOWHERE and self._first(lane, place) else place

    def course(
        self,
        exchanges: Sequence[Exchange],
        deadline_ns: int,
        answered: Reply | ShardError | None = None,
        place: int = NOWHERE,
        on_reply: OnReply | None = None,
    ) -> Course:
        """Carry out exchanges; returns one reply or error for each.

        Args:
            answered, place: What a single exchange has been answered already, and where.
            on_reply: Called with an exchange's place and what came of it, while other nodes are waited for.
        """
        legs = [_Leg(lane, commands) for lane, commands in exchanges]
        for leg in legs:
            leg.restart()
        pending = list(legs)
        if answered is not None:
            legs[0].place = place
            self._take(legs[0], legs[0].due, answered, place)
            pending = [leg for leg in legs if leg.result is None]
        yield from self._look_round(pending, 0)
        pause_ns, hops = _PAUSE_FIRST_NS, 0
        waits: list[_Leg] = []
        tell = None if on_reply is None else _Early(legs, on_reply)
        while pending:
            yield from self._round(pending, tell)
            pending = [leg for leg in pending if leg.result is None]
            for leg in waits:
                if leg not in pending:
                    self._awaited.pop(leg.lane, None)
            if not pending:
                break
            hops += 1
            waits = yield from self._look_round(pending, hops)
            late = [leg for leg in waits if self._clock() + pause_ns >= min(deadline_ns, self._patient_until(leg.lane))]
            pending = [leg for leg in pending if leg not in late]
            waits = [leg for leg in waits if leg not in late]
            if self._clock() >= deadline_ns:
                break
            if waits:
                yield Pause(pause_ns / 1e9)
                pause_ns = min(2 * pause_ns, _PAUSE_MOST_NS)
        return [leg.result or self._given_up(leg) for leg in legs]

    # -- sending

    def _round(self, pending: list[_Leg], tell: _Early | None) -> Generator[Request, Any, None]:
        """Send what is due of each leg, and take the answers."""
        by_place: dict[int, list[tuple[_Leg, list[int]]]] = {}
        asking: dict[int, list[tuple[_Leg, list[int]]]] = {}
        for leg in pending:
            place = leg.place = self.map.places[leg.lane]
            elsewhere = [at for at in leg.due if at in leg.asks]
            here = [at for at in leg.due if at not in leg.asks]
            if here and place != NOWHERE:
                by_place.setdefault(place, []).append((leg, here))
            for at in elsewhere:
                asking.setdefault(leg.asks[at], []).append((leg, [at]))
        batches = [self._batch(place, shares) for place, shares in by_place.items()]
        batches += [_asking_batch(place, shares) for place, shares in asking.items()]
        if not batches:
            return
        dealt: set[int] = set()
        ways = _Ways(batches)

        def deal_out(number: int, answer: Reply | ShardError) -> None:
            if number not in dealt:
                dealt.add(number)
                self._deal_out(batches[number], answer)

        def deal_out_early(number: int, answer: Reply | ShardError) -> list[Batch]:
            # Of a leg that is in several batches, what one of them says means something only beside the others.
            legs = ways.taken(batches[number])
            if not legs:
                return []
            deal_out(number, answer)
            if tell is not None:
                tell.all_done(legs)
            further = self._follow([leg for leg in legs if ways.hops[leg] < _HOPS])
            for batch in further:
                ways.taken_up(batch)
            batches.extend(further)
            return further

        answers = yield Send(list(batches), deal_out_early)
        for number, answer in enumerate(answers):
            deal_out(number, answer)

    def _follow(self, legs: list[_Leg]) -> list[Batch]:
        """Return what sends on those that are led elsewhere, while others are waited for."""
        by_place: dict[int, list[tuple[_Leg, list[int]]]] = {}
        asking: dict[int, list[tuple[_Leg, list[int]]]] = {}
        for leg in legs:
            if leg.result is not None or leg.failure is not None or leg.last is None:
                continue
            place, there = self.map.places[leg.lane], set(leg.asks.values())
            if leg.last.code == "MOVED" and not leg.asks and place not in (NOWHERE, leg.place):
                leg.place = place
                by_place.setdefault(place, []).append((leg, list(leg.due)))
            elif len(there) == 1 and len(leg.asks) == len(leg.due):
                asking.setdefault(there.pop(), []).append((leg, list(leg.due)))
        batches = [self._batch(place, shares) for place, shares in by_place.items()]
        return batches + [_asking_batch(place, shares) for place, shares in asking.items()]

    def _batch(self, place: int, shares: list[tuple[_Leg, list[int]]]) -> Batch:
        identity = self._shards[place].identity
        first: list[Command] = []
        told = []
        for leg, _ in shares:
            words = self._first(leg.lane, place)
            if words and leg.lane not in told:
                first += words
                told.append(leg.lane)
        commands, parts = list(first), []
        for leg, due in shares:
            parts.append((leg, due, len(commands)))
            commands += [leg.commands[at] for at in due if leg.commands[at][0] != WAIT]
        # One for all, behind all: it speaks of everything that went over this connection.
        commands += [leg.commands[at] for leg, due in shares for at in due if leg.commands[at][0] == WAIT][-1:]
        # In full: a script that the server does not know would be executed behind the others.
        data = pack(first, in_full=True) + pack(commands[len(first) :])
        return Batch(place, commands, data, told, identity, parts)

    def _first(self, lane: int, place: int) -> list[Command]:
        """What a lane's server has to be told before anything else, if it was met without the lane."""
        introduction = self._introduction
        return [] if introduction is None else introduction.commands(lane, self._shards[place].identity)

    # -- taking answers

    def _deal_out(self, batch: Batch, answer: Reply | ShardError) -> None:
        step = 2 if batch.commands[:1] == [_ASKING] else 1
        if batch.told and isinstance(answer, Reply) and self._introduction is not None:
            said = answer.values[: batch.shares[0][2]]
            if answer.identity == batch.identity and not any(isinstance(value, ShardError) for value in said):
                for lane in batch.told:
                    self._introduction.heard(lane, answer.identity)
        for leg, due, start in batch.shares:
            if isinstance(answer, Reply):
                waits = [at for at in due if step == 1 and leg.commands[at][0] == WAIT]
                own = len(due) - len(waits)
                values = answer.values[start : start + step * own][step - 1 :: step] + answer.values[-1:] * len(waits)
                self._take(leg, due, Reply(values, 0 if step == 2 else answer.identity), batch.place)
            else:
                self._take(leg, due, answer, batch.place)

    def _take(self, leg: _Leg, due: list[int], answer: Reply | ShardError, place: int) -> None:
        """Take what a place has answered to some commands of a leg; those that are to be sent again stay due."""
        if isinstance(answer, ShardError):
            self._failed(leg, answer)
            return
        leg.last = None
        again: list[int] = []
        answered = False
        for at, value in zip(due, answer.values, strict=True):
            leg.asks.pop(at, None)
            if again and leg.commands[at][0] in BEHIND:
                again.append(at)  # behind a command that was not executed it says nothing
            elif not isinstance(value, ServerReplyError) or value.code not in REDIRECTS:
                leg.values[at], answered = value, True
            elif value.code == "CLUSTERDOWN":
                leg.values[at], answered = ShardUnavailableError(value.shard, str(value)), True
            elif value.code == "TRYAGAIN" and leg.commands[at][0] == b"MGET":
                leg.last = value
                again += leg.take_apart(at)
            else:
                again.append(at)
                self._redirected(leg, at, value, place)
        leg.identity = answer.identity if leg.fresh and not again else 0
        leg.fresh = leg.fresh and not answered
        leg.due = [at for at in leg.due if at not in due or at in again]
        if not leg.due:
            leg.finish(leg.identity)
        elif leg.last is not None and leg.last.code == "MOVED" and not leg.asks and leg.is_harmless:
            # All of it anew, where the rest is: what one server has answered as a whole, L1 may keep.
            leg.restart()

    def _redirected(self, leg: _Leg, at: int, error: ServerReplyError, place: int) -> None:
        leg.last = error
        there = self.map.heed(error.reply, self._shards[place].host)
        if error.code == "ASK" and there != NOWHERE and leg.commands[at][0].__class__ is not Script:
            leg.asks[at] = there

    def _failed(self, leg: _Leg, error: ShardError) -> None:
        """A node did not answer. What it did not get, or what may be repeated, is tried at another, if there is one."""
        may_be_done = isinstance(error, ShardUnavailableError) and error.sent
        leg.sent = leg.sent or may_be_done
        final = not isinstance(error, ShardUnavailableError) or (may_be_done and not repeatable(leg.commands))
        if final or not leg.is_harmless:
            leg.end(error)
        else:
            leg.failure = error
            leg.restart()

    # -- going on

    def _look_round(self, pending: list[_Leg], hops: int) -> Generator[Request, Any, list[_Leg]]:
        """Find out where to go on. Returns those for which that is better done a little later."""
        lost = [leg for leg in pending if leg.failure is not None]
        homeless = [leg for leg in pending if self.map.places[leg.lane] == NOWHERE]
        if lost or homeless or hops > _HOPS:
            error = yield Refresh()
            for leg in lost:
                if leg.failure is not None and self.map.places[leg.lane] in (leg.place, NOWHERE):
                    leg.end(leg.failure)  # nobody has taken over yet: the caller need not wait for that
                leg.failure = None
            for leg in homeless:
                if leg.result is None and self.map.places[leg.lane] == NOWHERE:
                    text = f"no node of the cluster has the slot of lane {leg.lane}"
                    leg.end(error or ShardUnavailableError(self.map.endpoint.name, text))
            pending[:] = [leg for leg in pending if leg.result is None]
        if hops > _HOPS:
            return list(pending)
        return [leg for leg in pending if leg.last is not None and leg.last.code in _WAITS and not leg.asks]

    def _patient_until(self, lane: int) -> int:
        """Return until when a lane whose slot is on its way is waited for; the first who comes by begins that."""
        now = self._clock()
        since, last = self._awaited.get(lane, (now, now))
        if now >= last + _FORGET_NS:
            since = now
        self._awaited[lane] = since, now
        return since + _PATIENCE_NS

    def _given_up(self, leg: _Leg) -> Reply | ShardError:
        name = self.map.endpoint.name if leg.place == NOWHERE else self._shards[leg.place].name
        error = ShardUnavailableError(name, f"lane {leg.lane} stayed out of reach: {leg.last or 'no time was left'}")
        error.__cause__ = leg.last
        leg.end(error)
        assert leg.result is not None
        return leg.result


def _part(value: Any) -> Any:
    """Return what MGET would say of a key that GET was asked for."""
    return None if isinstance(value, ServerReplyError) and value.code == "WRONGTYPE" else value


def _asking_batch(place: int, shares: list[tuple[_Leg, list[int]]]) -> Batch:
    commands: list[Command] = []
    parts = []
    for leg, due in shares:
        parts.append((leg, due, len(commands)))
        for at in due:
            commands += [_ASKING, leg.commands[at]]
    return Batch(place, commands, pack(commands), [], 0, parts)
