"""Lists of shards that change: the real :class:`Membership` in every process, and an operator who asks for changes.

The operator is as good as people are who have read the documentation: of one change he does not begin another before
it is finished; what failed he asks for again, perhaps of another process; and processes that are started get the list
that he has written down, the new one as soon as the change has begun, or still the one before.
"""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from nearcache.bus import GrowingListener
from nearcache.endpoints import Endpoint
from nearcache.errors import CacheError, ShardListError
from nearcache.loading import upkeep as upkeep_module
from nearcache.loading.shards import membership as membership_module
from nearcache.loading.shards.host import Host
from nearcache.loading.shards.membership import Membership
from nearcache.rings import Shards, shards_of
from simulation.client import Worker
from simulation.handoff import Event, Handoff, Lock, here
from simulation.parts import apart
from simulation.process import Process
from simulation.server import SHARD_NAMES
from simulation.world import MS

if TYPE_CHECKING:
    from simulation.runs import Simulation
    from simulation.server import Shard

_ASKED_AGAIN: Final = 8  # bounds


def list_of(names: Sequence[str]) -> Shards:
    """The list of these shards."""
    return shards_of("rendezvous", tuple(Endpoint(name, host=name, port=6379) for name in names))


class Aside(Worker):
    """A thread in which code blocks. Each of its exchanges has the whole time to itself, and tells nothing of keys."""

    observes = False

    def __init__(self, process: Process, number: int, target: Callable[[], Any]) -> None:
        super().__init__(process, number)
        self.handoff = Handoff(target)

    def _ask(self, request: list[Any]) -> None:
        self._spread = None
        self._left_ns = self.process.profile.timeout_ns
        self._send(request)

    def _heed(self) -> None:
        """The runner does that; this is the driver."""

    def excuses(self, error: Exception) -> bool:
        """Whether it may end like this."""
        return isinstance(error, CacheError)


class Driver:
    """What membership has of a driver."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def execute(self, exchanges: Sequence[Any]) -> Any:
        """Perform exchanges."""
        return here().ask(list(exchanges))

    def put_shard(self, number: int, endpoint: Endpoint) -> None:
        """See :class:`nearcache.l2.Driver`."""
        self._process.put_shard(number, self._process.checker.shards[SHARD_NAMES.index(endpoint.name)])

    def rest_shard(self, number: int) -> None:
        """Likewise."""
        self._process.rest_shard(number)


class Listener(GrowingListener):
    """What membership has of a listener."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def follow(self, number: int, lane: Any, names: Any) -> None:
        """See :class:`GrowingListener`."""
        self._process.follow(number)

    def leave(self, number: int) -> None:
        """Likewise."""
        self._process.leave(number)

    def hurry(self, place: int) -> None:
        """Likewise."""
        self._process.hurry(place)


class Member(Membership):
    """One process' membership."""

    def __init__(self, process: Process, shards: Shards) -> None:
        host = Host(
            namespace="sim",
            has_queue=False,
            store=weakref.ref(process.store),
            driver=Driver(process),  # type: ignore[arg-type]  # all of it that is used
            listener=Listener(process),
            endpoints=dict(enumerate(shards.endpoints)),
            install=partial(setattr, process, "tier"),
        )
        super().__init__(host, shards, process.tier)
        self.process = process
        self.refused = False

    def begin(self) -> None:
        """Agree with the others, as an open cache has done."""
        numbers = self.numbers.values()
        self.join(here().ask([self.question(number) for number in numbers]))

    def _tell(self, ring: Any, names: Iterable[str], *, strict: bool) -> None:
        """In an order that hashes do not decide."""
        super()._tell(ring, sorted(names), strict=strict)

    def _rest(self, names: Iterable[str]) -> None:
        super()._rest(sorted(names))  # type: ignore[arg-type]  # as good as a set

    def _refusal(self, shard: str, theirs: str) -> ShardListError:
        self.refused = True
        return super()._refusal(shard, theirs)

    def _complain(self, text: str) -> None:
        """Nobody reads it."""


class Following:
    """The thread in which a process catches up."""

    def __init__(self, _name: str, target: Callable[..., None], *arguments: Any) -> None:
        self._target = target
        self._arguments = arguments
        member: Member = target.__self__  # type: ignore[attr-defined]  # a method of the membership's
        process = member.process
        wait_ns = process.tardiness_ns()
        if not wait_ns:
            begin_aside(process, self._begun)
            return
        # The thread is there, and has not had its turn yet.
        process.world.at(process.world.now + wait_ns, process.post, self._late, process, process.incarnation)

    def _begun(self) -> None:
        self._target(*self._arguments)

    def _late(self, process: Process, incarnation: int) -> None:
        if process.incarnation == incarnation:
            begin_aside(process, self._begun)


def begin_aside(process: Process, target: Callable[[], Any]) -> Aside:
    """Have code that blocks run in a process."""
    aside: Aside = process.employ(lambda number: Aside(process, number, target))
    process.asides.append(aside.handoff)
    aside.begin(aside.handoff.steps)
    return aside


@contextmanager
def resharding() -> Iterator[None]:
    """Within the block threads of membership and upkeep are the world's."""
    genuine, event = upkeep_module.start_thread, membership_module.Event  # type: ignore[attr-defined]  # as they see it
    upkeep_module.start_thread = apart  # type: ignore[attr-defined]  # likewise
    membership_module.start_thread = Following  # type: ignore[attr-defined]  # likewise
    membership_module.threading = SimpleNamespace(RLock=Lock)  # type: ignore[assignment]  # no module
    membership_module.Event = Event  # type: ignore[attr-defined]  # as it sees it
    try:
        yield
    finally:
        upkeep_module.start_thread = membership_module.start_thread = genuine  # type: ignore[attr-defined]  # likewise
        membership_module.threading = threading
        membership_module.Event = event  # type: ignore[attr-defined]  # likewise


class Operator:
    """See the module.

    Attributes:
        lists: Those that are written down, the newest first.
    """

    def __init__(self, simulation: Simulation, names: str) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._random = simulation.world.stream("operator")
        self.lists = [list_of(names)]
        self._wanted: list[str] = []
        self._asked: list[tuple[Aside, int]] = []
        self._is_awake = self._is_told = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._wanted and not self._asked and all(map(self._is_well, self._simulation.processes))

    def is_left(self, shard: Shard) -> bool:
        """Whether a shard is in no list, or somebody has come to the new one, and it is not in that.

        If it forgets that, a process that is behind knows no better, and nobody can tell it: a documented limit.
        """
        if not self._simulation.profile.moves or shard.name in self.lists[0].names:
            return False
        return self._has_come() or not any(shard.name in each.names for each in self.lists)

    def want(self, choice: int) -> None:
        """Ask for another list; which one a number decides."""
        rng = random.Random(choice)
        names = rng.sample(SHARD_NAMES, rng.randint(1, 3))
        self._wanted.append("".join(names))
        self.wake()

    def wake(self) -> None:
        """Look from now on."""
        if not self._is_awake:
            self._is_awake = True
            self._look()

    def _look(self) -> None:
        """Look how far it is."""
        self._is_told = self._is_told or any(aside.ended.is_set() and aside.error is None for aside, _ in self._asked)
        if self._is_told and self._is_reached():
            self._is_told = False
            self.lists = self.lists[:1]
            self._asked.clear()
            self._world.say(f"== the list of shards is [{', '.join(self.lists[0].names)}]")
            self._wanted.pop(0)
        elif self._is_told and self._is_undone():
            self._is_told = False
        for aside, _ in self._asked:
            if aside.ended.is_set() and aside.error is not None:
                self._world.say(f"== {aside.process} could not change the list: {aside.error}")
        now, bound_ns = self._world.now, self._simulation.profile.bound_ns
        self._asked = [(aside, until) for aside, until in self._asked if now < until and not aside.ended.is_set()]
        if self._wanted and not self._asked and not self._is_told:  # all others follow by themselves
            self._ask(self._wanted[0])
        self._lead_back()
        self._world.at(now + bound_ns // 2, self._look)

    def _is_reached(self) -> bool:
        """Whether all use the list that was asked for: a process that was begun with it may not know of the others."""
        rings = [process.store.membership.ring for process in self._simulation.processes if process.is_open]
        return all(ring.new is None and ring.old.is_same(self.lists[0]) for ring in rings)

    def _is_undone(self) -> bool:
        """Whether all are back at the list of before: somebody who had been asked for that went on with it."""
        rings = [process.store.membership.ring for process in self._simulation.processes if process.is_open]
        return all(ring.new is None and ring.old.is_same(self.lists[-1]) for ring in rings)

    def _ask(self, names: str) -> None:
        target = list_of(names)
        if not self.lists[0].is_same(target):
            self.lists = [target, self.lists[0]]
        able = [process for process in self._simulation.processes if not process.paused and process.is_open]
        leaders = self._random.sample(able, min(len(able), 1 if self._random.random() < 0.7 else 2))
        profile = self._simulation.profile
        pauses = [0.0] if profile.hasty else [1] if profile.tardy else [0, 0.25, 1]
        pause_s = self._random.choice(pauses) * profile.bound_ns / 1e9
        until = self._world.now + _ASKED_AGAIN * self._simulation.profile.bound_ns
        for process in leaders:
            self._world.say(f"== {process} is asked for the shards [{', '.join(target.names)}]")
            member = process.store.membership
            self._asked.append((begin_aside(process, lambda member=member: member.change(target, pause_s)), until))

    def _is_well(self, process: Process) -> bool:
        return process.is_open and not process.store.membership.refused

    def _lead_back(self) -> None:
        """Start those anew that were started with a list which is not in use any more."""
        for process in self._simulation.processes:
            if process.is_open and not process.paused and not self._is_well(process):
                self._world.say(f"== {process} has the wrong list of shards, and is started anew")
                process.restart()

    # -- processes that are started

    def opens(self, process: Process) -> None:
        """A process has been started, or starts."""
        known = self.lists if self._has_begun() else self.lists[-1:]
        place = int(self._random.random() * len(known)) if process.incarnation else 0
        self._open(process, process.incarnation, known[place])

    def _has_come(self) -> bool:
        """Whether anybody uses the newest list, and no other."""
        rings = [process.store.membership.ring for process in self._simulation.processes if process.is_open]
        return any(ring.new is None and ring.old.is_same(self.lists[0]) for ring in rings)

    def _has_begun(self) -> bool:
        """Whether shards have been told of the new list: new ones that know of none tell nobody."""
        rings = [process.store.membership.ring for process in self._simulation.processes if process.is_open]
        return any(ring.new is not None or ring.old.is_same(self.lists[0]) for ring in rings)

    def _open(self, process: Process, incarnation: int, shards: Shards) -> None:
        if incarnation != process.incarnation:
            return
        process.open_with(shards, [self._simulation.shards[SHARD_NAMES.index(name)] for name in shards.names])
        member = process.store.membership = Member(process, shards)
        aside = begin_aside(process, member.begin)

        def begun() -> None:
            if incarnation != process.incarnation:
                return
            if isinstance(aside.error, ShardListError):
                process.shut()
                known = self.lists if self._has_begun() else self.lists[-1:]
                # Never a list that has not begun to count: whoever uses it then is heard by nobody else.
                others = [each for each in known if not each.is_same(shards)] or known
                self._world.at(self._world.now + 10 * MS, self._open, process, process.incarnation, others[0])
            else:
                process.opened()

        aside.ended.add_done_callback(begun)
