"""The store in plain Python, slow and obvious: the reference of the model test.

It knows keys by name, so that it never asks a hostile key anything. Values are represented by their
numbers. The order in which timers are looked at for expiry is modelled too: all times of the test lie within one unit
of the timing wheel, where it is a queue. A timer belongs to the place of an entry, and outlives it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

NEVER = 2**63 - 1
FAR = 2**20  # from here on an entry waits elsewhere


@dataclass
class Lane:
    fresh_until: int = 0
    identity: int = 0
    stamp: int = 0


@dataclass
class Entry:
    value: int
    wid: int
    deadline: int
    stamp: int
    lane: int
    size: int


@dataclass(eq=False)
class Pending:
    name: int
    lane: int
    wid: int
    is_write: bool
    stamp0: int = 0
    identity0: int = 0
    storable: bool = True
    joinable: bool = True
    overtaken: bool = False
    listed: bool = False

    def poison(self) -> None:
        self.storable = self.joinable = False


@dataclass
class Counters:
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expirations: int = 0
    invalidated: int = 0
    suspects: int = 0
    stored: int = 0
    too_large: int = 0


@dataclass
class Places:
    """Where entries lie, and the timers of the places. The place that was left last is taken first, of the lowest ones:
    those whose number, less one, has the fewest bits.
    """

    used: int = 0
    free: dict[int, list[int]] = field(default_factory=dict)  # by the bits
    deadline: dict[int, int] = field(default_factory=dict)  # what each place's entry had last
    queue: list[int] = field(default_factory=list)  # timers, the next to be looked at first
    elsewhere: set[int] = field(default_factory=set)  # those that are far away

    def take(self) -> int:
        for _, places in sorted(self.free.items()):
            if places:
                return places.pop()
        self.used += 1
        return self.used

    def leave(self, place: int, deadline: int) -> None:
        self.deadline[place] = deadline
        self.free.setdefault((place - 1).bit_length(), []).append(place)

    def stop(self, place: int) -> None:
        self.elsewhere.discard(place)
        if place in self.queue:
            self.queue.remove(place)

    def start(self, place: int, deadline: int) -> None:
        if deadline < FAR:
            self.queue.append(place)
        elif deadline != NEVER:
            self.elsewhere.add(place)

    def schedule(self, place: int, before: int, deadline: int) -> None:
        """There is another deadline. A timer that is put off stays where it is."""
        is_timed = place in self.elsewhere or place in self.queue
        if not is_timed or deadline < before or deadline == NEVER:
            self.stop(place)
            self.start(place, deadline)


@dataclass
class Model:
    maxsize: int
    maxbytes: int
    lanes: list[Lane]
    now: int = 0
    entries: OrderedDict[int, Entry] = field(default_factory=OrderedDict)  # least recently used first
    pending: dict[int, list[Pending]] = field(default_factory=dict)  # newest first
    places: Places = field(default_factory=Places)
    at: dict[int, int] = field(default_factory=dict)  # name -> place
    counters: Counters = field(default_factory=Counters)

    # -- pieces

    def valid(self, entry: Entry) -> bool:
        lane = self.lanes[entry.lane]
        return self.now < entry.deadline and entry.stamp == lane.stamp and self.now < lane.fresh_until

    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries.values())

    def remove(self, name: int) -> None:
        self.places.leave(self.at.pop(name), self.entries.pop(name).deadline)

    def sweep(self, steps: int) -> int:
        """Look at up to so many timers, until the first one of an entry seen alive comes round again."""
        found, alive = 0, None
        queue, names = self.places.queue, {place: name for name, place in self.at.items()}
        for _ in range(min(steps, self.places.used)):
            if not queue or queue[0] == alive:
                break
            place = queue.pop(0)
            if place not in names:
                continue
            deadline = self.entries[names[place]].deadline
            if deadline <= self.now:
                self.remove(names.pop(place))
                self.counters.expirations += 1
                found += 1
            else:
                self.places.start(place, deadline)
                if deadline < FAR and alive is None:
                    alive = place
        return found

    def make_room(self, name: int, size: int) -> None:
        old = self.entries.get(name)
        others = [key for key in self.entries if key != name]
        room = self.bytes() - (old.size if old else 0) + size
        count = len(others) + 1
        for victim in others:
            if count <= self.maxsize and room <= self.maxbytes:
                break
            room -= self.entries[victim].size
            count -= 1
            self.remove(victim)
            self.counters.evictions += 1

    def place(self, name: int, value: int, *, wid: int, deadline: int, lane: int, size: int) -> None:
        old = self.entries.get(name)
        if old is None:
            self.sweep(3)
        self.make_room(name, size)
        self.entries[name] = Entry(value, wid, deadline, self.lanes[lane].stamp, lane, size)
        self.entries.move_to_end(name)
        if old is None:
            self.at[name] = self.places.take()
        place = self.at[name]
        self.places.schedule(place, self.places.deadline.get(place, 0) if old is None else old.deadline, deadline)
        self.counters.stored += 1
        if old is not None:
            self.sweep(3)

    # -- the mapping

    def read(self, name: int) -> int | None:
        entry = self.entries.get(name)
        if entry is None:
            self.counters.misses += 1
            return None
        if self.valid(entry):
            self.entries.move_to_end(name)
            self.counters.hits += 1
            return entry.value
        self.counters.misses += 1
        if self.now < entry.deadline:
            self.counters.suspects += 1
        else:
            self.counters.expirations += 1
            self.remove(name)
        return None

    def peek(self, name: int) -> int | None:
        entry = self.entries.get(name)
        return entry.value if entry is not None and self.valid(entry) else None

    def overtake(self, name: int) -> None:
        for op in self.pending.get(name, []):
            op.poison()
            op.overtaken = True

    def put(self, name: int, value: int, ttl: int, size: int) -> bool:
        """False: too large."""
        if size > self.maxbytes:
            return False
        self.overtake(name)
        self.place(name, value, wid=0, deadline=self.now + ttl if ttl else NEVER, lane=0, size=size)
        return True

    def drop(self, name: int) -> tuple[bool, bool]:
        """(was there, was valid)."""
        self.overtake(name)
        entry = self.entries.get(name)
        if entry is None:
            return False, False
        was_valid = self.valid(entry)
        self.remove(name)
        return True, was_valid

    def drop_all(self) -> int:
        for name in self.pending:
            self.overtake(name)
        count = len(self.entries)
        self.entries.clear()
        self.at.clear()
        self.places = Places()
        return count

    def pop_next(self) -> tuple[int, int] | None:
        for name, entry in list(self.entries.items()):
            if self.valid(entry):
                self.remove(name)
                return name, entry.value
            if self.now >= entry.deadline:
                self.remove(name)
                self.counters.expirations += 1
        return None

    def snapshot(self) -> list[tuple[int, int]]:
        return [(name, entry.value) for name, entry in self.entries.items() if self.valid(entry)]

    # -- operations in flight

    def open(self, op: Pending) -> None:
        op.stamp0, op.identity0, op.listed = self.lanes[op.lane].stamp, self.lanes[op.lane].identity, True
        op.joinable = not op.is_write
        others = self.pending.setdefault(op.name, [])
        if op.is_write:
            for other in others:
                other.poison()
        others.insert(0, op)

    def marks(self, op: Pending) -> tuple[bool, bool]:
        current = op.stamp0 == self.lanes[op.lane].stamp
        return op.storable and current, op.joinable and current

    def join(self, name: int) -> Pending | None:
        for op in self.pending.get(name, []):
            if not op.is_write and self.marks(op)[1]:
                return op
        return None

    def close(self, op: Pending) -> None:
        if op.listed:
            op.listed = False
            others = self.pending[op.name]
            others.remove(op)
            for other in others:
                other.poison()
            if not others:
                del self.pending[op.name]
        op.poison()

    def admits(self, op: Pending, identity: int) -> bool:
        return (
            op.listed
            and self.marks(op)[0]
            and op.identity0 != 0
            and op.identity0 == identity == self.lanes[op.lane].identity
        )

    def contradicts(self, op: Pending, wid: int) -> bool:
        entry = self.entries.get(op.name)
        if entry is None or (wid != 0 and entry.wid == wid):
            return False
        return not (op.overtaken and entry.wid == 0)

    def invalidate(self, name: int) -> None:
        self.remove(name)
        self.counters.invalidated += 1

    def finish(self, op: Pending, value: int, wid: int, *, deadline: int, size: int, identity: int) -> bool:
        admitted = wid != 0 and self.admits(op, identity) and size <= self.maxbytes and self.now < deadline
        self.counters.too_large += wid != 0 and size > self.maxbytes
        if self.contradicts(op, wid) and not (admitted and op.is_write):
            self.invalidate(op.name)
            admitted = False
        if admitted:
            self.place(op.name, value, wid=wid, deadline=deadline, lane=op.lane, size=size)
        self.close(op)
        return admitted

    def refresh(self, op: Pending, wid: int, deadline: int, identity: int) -> bool:
        entry = self.entries.get(op.name)
        refreshed = False
        if self.contradicts(op, wid):
            self.invalidate(op.name)
        elif entry is not None and wid != 0 and entry.wid == wid:
            refreshed = self.admits(op, identity) and self.now < deadline
            if refreshed:
                self.places.schedule(self.at[op.name], entry.deadline, deadline)
                entry.deadline, entry.lane, entry.stamp = deadline, op.lane, self.lanes[op.lane].stamp
                self.entries.move_to_end(op.name)
        self.close(op)
        return refreshed

    def abandon(self, op: Pending, drop: bool) -> None:
        if drop and op.name in self.entries:
            self.invalidate(op.name)
        self.close(op)

    def suspect(self, name: int) -> tuple[int, int] | None:
        entry = self.entries.get(name)
        if entry is None or self.now >= entry.deadline or self.valid(entry):
            return None
        return entry.wid, entry.value

    def apply(self, wid: int, names: list[int]) -> int:
        before = self.counters.invalidated
        for name in names:
            for op in self.pending.get(name, []):
                if not (wid != 0 and op.is_write and op.wid == wid):
                    op.poison()
            entry = self.entries.get(name)
            if entry is not None and (wid == 0 or entry.wid != wid):
                self.invalidate(name)
        return self.counters.invalidated - before

    def distrust(self, names: list[int]) -> None:
        """A comparison failed: these are the names that it may have been about."""
        for name in names:
            for op in self.pending.get(name, []):
                op.poison()
            if name in self.entries:
                self.invalidate(name)

    def reset_pending(self) -> None:
        for ops in self.pending.values():
            for op in ops:
                op.poison()
                op.listed = False
        self.pending.clear()
