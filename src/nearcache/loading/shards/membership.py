"""Which list of shards this process uses: agreeing with the others on one, and coming to another while all work.

The steps of a change are those of ``rings``. A process that takes one tells all lanes of both lists first. The lanes
record it, and the others see it in the answers to their heartbeats, or by being refused; they follow, each in its own
time, by telling all lanes and taking the step too. So it does not matter who leads, whether there are several, or
whether the leader dies: whoever calls :meth:`Membership.change` with the same list goes on from where the lanes stand.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..._reads import Event
from ...endpoints import MOST_SHARDS
from ...errors import CacheError, ClosedError, ReshardError, ShardError, ShardListError
from ...l2 import Exchange, Reply, load_script
from ...logs import Recurring
from ...rings import FIRST, Ring, Shards, gained, moved, version_in
from ...workers import start_thread
from .. import hex_id, new_id
from .emptying import Emptying
from .holds import repeat_holds
from .host import Host
from .leaving import Leaving
from .queues import left_behind, queue_question
from .records import Reader, Record, newest_of, unreadable

if TYPE_CHECKING:
    from ..._store import Store
    from .. import Tier

#: How many lanes a cache can have: twice the most shards, for a change from one list to another.
MOST_LANES: Final = 2 * MOST_SHARDS
#: How many complaints are remembered: of each lane its own, and what follows from them.
_TOLD: Final = 2 * MOST_LANES


class Membership:
    """See the module. One per cache; any thread.

    Attributes:
        ring: What this process uses.
        numbers: The lane of each shard of it, by name.
    """

    def __init__(self, host: Host, shards: Shards, tier: Tier) -> None:
        self._host, self._any_tier, self._namespace = host, tier, host.namespace
        self._reader = Reader(shards.endpoints[0])
        self._known = {endpoint.name: endpoint for endpoint in shards.endpoints}
        self._script = load_script("ring")
        self._lock = threading.RLock()
        self._stopping = Event()
        self._catching_up = self._is_due = False  # due: somebody wants it, and it has not been done since
        self._agreed = False
        self._leaving, self._clock = Leaving(tier.bound_ns, tier.most_lanes), tier.clock
        self._complaints, self._told = Recurring(tier.clock), deque[str](maxlen=_TOLD)
        self._outrun = False  # whether others were further ahead than this process was to be let
        self.ring = Ring(FIRST, shards)
        self.numbers = {name: number for number, name in enumerate(shards.names)}
        tier.outdated, tier.agreed = self.outdated, self.agree

    # -- for the cache

    def join(self, replies: Iterable[Reply | ShardError]) -> None:
        """Agree with those who use the namespace already. ``replies`` are those to :meth:`question`, of all shards.

        Raises:
            ShardListError: They use another list of shards.
        """
        records = self._records(zip(self.numbers, replies, strict=True))
        with self._lock:
            self._tier.ring = self.ring.text  # until now nothing of a list was said, which may be wrong
            self._agree(records)
            if not all(record.says(self.ring) for record in records):
                self._tell(self.ring, self.numbers, strict=False)

    def question(self, number: int) -> Exchange:
        """Return what is asked of a lane: which list of shards is in use there."""
        return Exchange(number, [(b"HMGET", self._tier.names[number].lane_key, b"r", b"c")])

    def outdated(self) -> None:
        """A lane does not say what this process does: find out, in a thread of its own. Cheap if that is under way."""
        self._is_due = True
        self._begin(self._catch_up)

    def agree(self) -> None:
        """A lane has what this process has: its list was right, and it may follow if others change it."""
        self._agreed = True
        if self._leaving.is_due(self._clock()):
            self._begin(self._remind)
        elif self._is_due or self._told:
            self._begin(self._catch_up)

    def stop(self) -> None:
        """Take no further step."""
        self._stopping.set()

    def after_fork(self) -> None:
        """In the child: what another thread of the parent was about is not carried on here."""
        self._lock = threading.RLock()
        self._catching_up = False
        was_stopping, self._stopping = self._stopping.is_set(), Event()
        if was_stopping:
            self._stopping.set()

    def change(self, target: Shards, pause_s: float) -> int:
        """Come to another list of shards, together with all other processes. Returns the version.

        Raises:
            ReshardError: A shard did not answer, or another change is under way, or has been made since this began.
        """
        has_begun = False
        while True:
            with self._lock:
                self._catch_up()
                ring = self.ring
                if ring.new is None and ring.old.is_same(target):
                    return ring.version
                if ring.new is not None and not ring.new.is_same(target):
                    raise ReshardError(
                        f"namespace {self._namespace}: {ring} is under way; finish it by reshard() with that list first"
                    )
                if ring.new is None:
                    if has_begun:  # beginning it again would put what was asked earlier in a newer list's place
                        raise ReshardError(
                            f"namespace {self._namespace}: the change to {target} was followed by a later one while "
                            f"this process was away; in use is {ring}: call reshard() again if it is to be undone"
                        )
                    self._check_queues(target)
                    self._advance(ring.begin(target))
                ring, has_begun = self.ring, True
            self._wait(pause_s)
            with self._lock:
                if self._is_behind() or self.ring is not ring:
                    continue  # somebody else has led: look anew where that is, it may be another change
                if ring.step == 1:
                    self._check_queues(target)  # once more: since all lanes have been told, nothing comes into one
                    try:
                        self._prepare(ring)
                    except ReshardError:
                        if not self._is_behind():
                            raise
                        continue  # it was refused for that, as it has to be
                    if self._is_behind():
                        continue
                self._advance(ring.following())

    def _check_queues(self, target: Shards) -> None:
        """Look whether the change would leave something behind that is to be written.

        Raises:
            ReshardError: So it would, or a shard did not answer.
        """
        names = self._tier.names
        exchanges = [Exchange(lane, queue_question(names[lane])) for lane in self.numbers.values()]
        for name, reply in zip(self.numbers, self._host.driver.execute(exchanges), strict=True):
            answers = [self._demand(name, reply, place) for place in range(4)]
            if trouble := left_behind(name, answers, leaves=name not in target.names):
                raise ReshardError(f"namespace {self._namespace}: {trouble}")

    # -- agreeing

    @property
    def _tier(self) -> Tier:
        self._alive()
        return self._any_tier.now

    def _alive(self) -> Store[Any, Any]:
        """Return the store.

        Raises:
            ClosedError: The cache was closed, or has gone.
        """
        store = self._host.store()
        if store is None or self._stopping.is_set():
            raise ClosedError("the cache was closed")
        return store

    def _agree(self, records: list[Record]) -> None:
        """Take the version in use, if it is one of a list that this process was started with."""
        mine = self.ring.old
        newest = newest_of(records)
        if newest is not None and newest.text != self.ring.text and version_in(newest.text)[1]:
            theirs = newest.ring
            if theirs is None or theirs.text != newest.text:
                raise self._refusal(newest.shard, newest.described)
            if not any(each is not None and mine.agrees(each) for each in (theirs.old, theirs.new)):
                raise self._refusal(newest.shard, newest.described)
            ring = theirs if theirs.new is not None else Ring(theirs.version, mine)
            if ring.new is not None:
                self._refuse_queues(ring)
            self._add_missing(ring)
            self._switch(self._surely(ring))
        self._agreed = self._agreed or bool(records)

    def _surely(self, ring: Ring) -> Ring:
        """Return the step of a change that this process may come in at: one that every lane has been told.

        Whoever told the lanes of the newest may have died over it. Those that know only of the step before let somebody
        work with them who is one step further behind, and invalidates nothing where the newest reads.
        """
        if ring.new is None:
            return ring
        try:
            self._tell(ring, [endpoint.name for endpoint in ring.endpoints], strict=True)
        except ReshardError:
            return ring.preceding()
        return ring

    def _refusal(self, shard: str, theirs: str) -> ShardListError:
        return ShardListError(self._namespace, shard, str(self.ring.old), theirs)

    def _records(self, answers: Iterable[tuple[str, Reply | ShardError]]) -> list[Record]:
        """Return what the lanes that answered, and have a record, said."""
        found = []
        for name, reply in answers:
            values = reply.values[0] if isinstance(reply, Reply) else None
            record = self._record(name, values) if isinstance(values, list) and values[0] is not None else None
            if record is not None:
                found.append(record)
        return found

    def _record(self, name: str, values: list[Any]) -> Record | None:
        """Return what a lane has recorded; None if nobody can tell: its shard takes no part until that is mended."""
        text, content = values
        if complaint := unreadable(name, self._tier.names[self.numbers[name]].lane_key, text):
            self._complain(f"namespace {self._namespace}: {complaint}")
            return None
        ring = None
        try:
            if content is not None:
                ring = self._reader.ring(content).at(self._known)  # where this process was told they are
        except ValueError as error:
            self._complain(f"namespace {self._namespace}: shard {name}: {error}")
        return Record(name, text, ring)

    def _look(self) -> list[Record]:
        """Ask all lanes which list is in use."""
        names, self._is_due = list(self.numbers), False
        replies = self._host.driver.execute([self.question(self.numbers[name]) for name in names])
        if not all(isinstance(reply, Reply) and isinstance(reply.values[0], list) for reply in replies):
            self._is_due = True
        return self._records(zip(names, replies, strict=True))

    # -- following

    def _begin(self, work: Callable[[], None]) -> None:
        if self._catching_up or self._stopping.is_set():
            return
        self._catching_up = True
        if start_thread("nearcache-follow", self._apart, work) is None:
            self._catching_up = False  # the next heartbeat tries again

    def _apart(self, work: Callable[[], None]) -> None:
        try:
            with self._lock:
                work()
        except ClosedError:
            return
        except CacheError as error:  # the next heartbeat tries again
            self._complain(str(error))
        finally:
            self._catching_up = False

    def _complain(self, text: str) -> None:
        """Log what keeps this process from the others: each once until all agree, and one a second at most."""
        if text not in self._told and self._complaints.log(logging.ERROR, "%s", text):
            self._told.append(text)

    def _catch_up(self) -> None:
        """Come to where the lanes are, in one step: in between nothing is done by this process."""
        records = self._look()
        before = self.ring
        if not self._agreed:
            self._agree(records)
        newest = newest_of(records)
        if newest is None:
            return
        version = version_in(newest.text)[0]
        if version > self.ring.version:
            ring = newest.whole
            if ring is None:
                raise self._refusal(newest.shard, newest.described)
            self._advance(ring, seen=newest.text == ring.text)
        elif version == self.ring.version and version_in(newest.text)[1] and newest.text != self.ring.text:
            raise self._refusal(newest.shard, newest.described)
        elif not all(record.says(self.ring) for record in records):
            self._tell(self.ring, self.numbers, strict=False)
        elif len(records) == len(self.numbers):
            self._told.clear()  # nothing is left to complain of; what comes back is news
        if self.ring is not before:
            self._hurry()

    def _remind(self) -> None:
        """Tell the shards that were left once more that they were, each over a new connection: see ``leaving``."""
        for number in self._leaving.take(self._clock()):
            self._host.driver.execute([self._telling(self.ring, self.ring.left, number)])
            self._host.driver.rest_shard(number)

    def _is_behind(self) -> bool:
        """Whether somebody has been quicker; then this process has caught up with that."""
        before = self.ring
        self._catch_up()
        return self.ring is not before

    def _hurry(self) -> None:
        for number in self.numbers.values():
            self._host.listener.hurry(number)

    # -- taking steps

    def _advance(self, ring: Ring, *, seen: bool = False) -> None:
        """Tell every lane of both lists, and take the step.

        Raises:
            ReshardError: One did not answer; or this process writes behind the cache.

        Args:
            seen: A lane that stays has been told by somebody else. Then the lanes that go have been, for they are told
                first; they may have been shut down since.
        """
        self._refuse_queues(ring)
        before = self.ring
        self._add_missing(ring)
        staying = {endpoint.name for endpoint in ring.endpoints}
        try:
            if before.new is None and ring.step == 1 and not seen:
                # A change to a list with a shard that nobody can reach could neither be finished nor taken back.
                self._meet(ring, staying)
                # Of two who begin a change at the same time one has to find out: both begin at the same lane.
                self._tell(ring, [min(ring.old.names)], strict=True)
            self._tell(ring, [name for name in self.numbers if name not in staying], strict=not seen)
            self._tell(ring, staying, strict=True)
        except BaseException:
            self._rest([name for name in self.numbers if name not in {each.name for each in before.endpoints}])
            raise
        tier = self._tier
        self._switch(ring)
        repeat_holds(tier, self._tier, self._host.driver)

    def _refuse_queues(self, ring: Ring) -> None:
        if self._host.has_queue:
            raise ReshardError(
                f"namespace {self._namespace}: a cache with write_delay= cannot come to {ring}, because its queues "
                "stay where they are: close it, and open it with the new list when the change is over"
            )

    def _tell(self, ring: Ring, names: Iterable[str], *, strict: bool) -> None:
        """Have lanes record a ring.

        One that is left and has lost its record meanwhile may have been told in passing, as those that stay are.

        Raises:
            ReshardError: One did not answer, though it is ``strict``; or has been told otherwise.
        """
        chosen, staying = list(names), {endpoint.name for endpoint in ring.endpoints}
        exchanges = [
            self._telling(ring, ring.text if name in staying else ring.left, self.numbers[name]) for name in chosen
        ]
        silent: dict[str, Exception] = {}
        for name, reply in zip(chosen, self._host.driver.execute(exchanges) if exchanges else [], strict=True):
            said = reply if isinstance(reply, ShardError) else reply.values[0]
            if isinstance(said, Exception):
                silent[name] = said
            elif said[0] == ring.text or (said[0] == ring.left and name not in staying):
                self._agreed = True
            elif (record := self._record(name, said)) is not None:
                self._compare(ring, record)
            else:
                silent[name] = ShardError(name, f"it has recorded {said[0]!r}, which is no version of a list of shards")
        self._is_due = self._is_due or bool(silent)
        if strict:
            self._check_silent(ring, silent)

    def _telling(self, ring: Ring, text: bytes, number: int) -> Exchange:
        arguments = (text, hex_id(new_id()), hex_id(new_id()), ring.before(), ring.dump())
        return Exchange(number, [(self._script, 1, self._tier.names[number].lane_key, *arguments)])

    def _meet(self, ring: Ring, names: Iterable[str]) -> None:
        """Look whether shards answer, are as many servers, and free to come, before anybody is told anything."""
        chosen = sorted(names)
        replies = self._host.driver.execute([self.question(self.numbers[name]) for name in chosen])
        said = {
            name: reply if isinstance(reply, ShardError) else reply.values[0]
            for name, reply in zip(chosen, replies, strict=True)
        }
        self._check_silent(ring, {name: each for name, each in said.items() if isinstance(each, Exception)})
        servers: dict[int, str] = {}
        for name, reply in zip(chosen, replies, strict=True):
            identity = reply.identity if isinstance(reply, Reply) else 0
            if identity and servers.setdefault(identity, name) != name:
                raise ReshardError(
                    f"namespace {self._namespace}: {ring} cannot be begun, because {servers[identity]} and {name} are "
                    "one server: leave every server that stays its name, and list each once"
                )
        for record in self._records(zip(chosen, replies, strict=True)):
            if record.shard not in ring.old.names and record.bars(ring):
                lane_key = self._tier.names[self.numbers[record.shard]].lane_key.decode()
                raise ReshardError(
                    f"namespace {self._namespace}: {ring} cannot be begun, because shard {record.shard} has recorded "
                    f"{record.described}: if nobody uses that any more, remove the record there (DEL {lane_key!r})"
                )

    def _check_silent(self, ring: Ring, silent: dict[str, Exception]) -> None:
        if silent:
            raise ReshardError(
                f"namespace {self._namespace}: {ring} cannot be begun, because every shard has to be told before, and "
                f"{', '.join(sorted(silent))} did not answer: {next(iter(silent.values()))}",
                sorted(silent),
            )

    def _compare(self, ring: Ring, record: Record) -> None:
        """Accept that a lane is further than what it was told, but not that it has been told otherwise."""
        there = record.described
        if version_in(record.text)[0] <= ring.version:
            if ring.version == FIRST:
                raise self._refusal(record.shard, there)
            raise ReshardError(f"namespace {self._namespace}: {ring} is refused, for shard {record.shard} has {there}")
        self._outrun = True

    def _switch(self, ring: Ring) -> None:
        """Use another ring from now on."""
        store, before = self._alive(), self._tier
        numbers = self.numbers
        tier = before.under(ring, numbers)
        come = set(tier.active) - set(before.active)
        for lane in come:  # no earlier: until it has been told, one that was left refuses whoever listens there
            self._host.listener.follow(lane, tier.lanes[lane], tier.names[lane])
        self._host.install(tier)
        # In this order: what begins before the tables change is not kept, and what begins later is placed by the new.
        for lane in {old for old, new in zip(before.table, tier.table, strict=True) if old != new}:
            tier.suspect(store, lane)
        if self._outrun or ring.version > self.ring.version + 1:
            tier.doubt()  # two steps behind nobody is to change anything, but a shard that was set back lets him
            self._outrun = False
        tier.owe_on(come)
        self.ring = ring
        if ring.new is None:
            left = [name for name in numbers if numbers[name] not in tier.active]
            for name in left:
                self._leaving.tell(numbers[name], self._clock())
            self._rest(left)

    def _add_missing(self, ring: Ring) -> None:
        """Know and reach every shard of a ring."""
        tier = self._tier
        for endpoint in ring.endpoints:
            if endpoint.name in self.numbers:
                continue
            number = self._leaving.number_for(endpoint.name, len(tier.lanes))
            tier.add_lane(number, endpoint.name)
            self._host.driver.put_shard(number, endpoint)
            self._host.endpoints[number] = endpoint
            self.numbers[endpoint.name] = number

    def _rest(self, names: Iterable[str]) -> None:
        """Follow lanes no longer that no ring has any more."""
        store, tier = self._alive(), self._tier
        for name in names:
            number = self.numbers.pop(name)
            self._host.listener.leave(number)
            tier.derived.leave(store, number)
            self._host.driver.rest_shard(number)
            self._leaving.rest(number, name)
            tier.resting.add(number)

    # -- cold starts

    def _prepare(self, ring: Ring) -> None:
        """Rid the shards that gain slots of what they have there from earlier times: nobody has invalidated it since.

        Nothing of these slots is stored there now, for all lanes have been told, and refuse those who would.
        """
        assert ring.new is not None
        gains, tier = {after for _, after in moved(ring.old, ring.new)}, self._tier.as_of(ring.before())
        for name in sorted(gains):
            number, demand = self.numbers[name], partial(self._demand, name)
            emptying = Emptying(self._namespace, tier, self._host.driver, number, demand, self._stopping)
            if name not in ring.old.names or not emptying.sweep(gained(ring.old, ring.new, name)):
                emptying.clear()

    def _demand(self, name: str, reply: Reply | ShardError, place: int = 0) -> Any:
        said = reply if isinstance(reply, ShardError) else reply.values[place]
        if isinstance(said, Exception):
            raise ReshardError(
                f"namespace {self._namespace}: {self.ring} cannot go on, because shard {name} did not answer: {said}",
                [name],
            ) from said
        return said

    def _wait(self, seconds: float) -> None:
        """Give the others the time to follow."""
        if self._stopping.wait(seconds):
            raise ClosedError("the cache was closed")
