"""Tags: one new generation makes every value with the tag dead, in L2 and L1 (section 2.8, row 56).

The tag's generation is a coherent key of its own, on a lane of its own. An envelope states the generation that the tag
had before its loader began, and is alive as long as that is equal to the present one. In L1 the tag's record is an
entry too, and tagged values lie under a derived stamp, which changes with every message about the tag and with every
suspicion of its lane; so that a hit compares nothing more than it does for other entries::

    read: stamp -> generation of the tag (L1, or L2, which makes a random one if there is none)
          -> value in L2 of this generation? else loader, fill(value, generation) -> L1, if the stamp is the same

Generations count up here, which only the properties make use of. The key's own messages are applied as they are sent:
the lane model has what can go wrong there.

Properties: after ``invalidate_tag`` has returned in a process, no read that begins there returns an older value, from
L1 or L2; elsewhere not after the next heartbeat on the tag's lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, Violation, put

TAG_KNOWN, L2_ASKED, LOADED = "tag known", "L2 asked", "loaded"


class Bounds(NamedTuple):
    """How much may happen. ``evictions``: of the tag's record in L2."""

    reads: int = 0
    invalidations: int = 0
    evictions: int = 0
    losses: int = 0
    beats: int = 0


class Value(NamedTuple):
    """A version of the source, and the tag's generation in its envelope."""

    version: int
    generation: int


class Read(NamedTuple):
    """A read that missed L1. ``floor``: the oldest version it may return."""

    step: str
    stamp: int
    generation: int
    version: int
    floor: int


class Item(NamedTuple):
    """On the tag's lane: a message with a new generation, or a heartbeat's reply (generation 0) with the fence."""

    seq: int
    generation: int
    fence: int


class Process(NamedTuple):
    """One process.

    Attributes:
        tag: The tag's generation in L1; 0 for none.
        entry: None, or version and derived stamp.
        invalidating: Version that its ``invalidate_tag`` is about, negative before execution; 0 for none.
        floor: Oldest version that its reads may return: for the property.
    """

    queue: tuple[Item, ...] = ()
    position: int = 0
    tag: int = 0
    stamp: int = 0
    entry: tuple[int, int] | None = None
    read: Read | None = None
    invalidating: int = 0
    floor: int = 0


class State(NamedTuple):
    """Everything. ``tag``: its generation in L2, 0 for none. ``told``: newest version with an invalidation executed."""

    source: int
    tag: int
    seq: int
    value: Value | None
    told: int
    processes: tuple[Process, ...]
    generations: int
    left: Bounds


Steps = Iterator[tuple[Label, State | Violation]]


class Tags(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "capture_first": "2.8: the tag's generation is read before the loader begins",
        "compare": "2.8: an envelope with another generation of the tag is a miss",
        "random": "2.8: a tag's record that was lost comes back with a generation that never was",
        "message_stamps": "a message about the tag changes the derived stamp",
        "message_drops": "R7: a message about the tag drops its record in L1",
        "suspicion_stamps": "a suspicion of the tag's lane changes the derived stamp",
        "suspicion_drops": "a suspicion of the tag's lane makes its record in L1 suspect",
        "return_stamps": "a process that has invalidated a tag changes its own derived stamp",
        "return_drops": "a process that has invalidated a tag drops its own record of it",
        "stamp_first": "R3: the value is stored only under the derived stamp of before the tag was looked up",
        "compare_heartbeat": "2.5: a heartbeat that disagrees makes the tag's lane suspect",
    }
    EVENTS = frozenset({
        "change", "invalidate", "return", "evict", "deliver", "lose", "heartbeat", "read", "find", "load", "fill",
    })  # fmt: skip

    def initial(self) -> State:
        return State(1, 0, 0, None, 0, (Process(),) * 2, 0, self.bounds)

    def canonical(self, state: State) -> State:
        first, second = state.processes
        return state._replace(processes=(second, first)) if hash(first) > hash(second) else state

    def wrong(self, state: State) -> str | None:
        for process in state.processes:
            if self.is_hit(process) and process.entry is not None and process.entry[0] < process.floor:
                return f"a hit on version {process.entry[0]}; the tag was invalidated for {process.floor}"
        return None

    def events(self, state: State) -> Steps:
        if state.left.evictions and state.tag:
            left = state.left._replace(evictions=state.left.evictions - 1)
            yield ("evict",), state._replace(tag=0, left=left)
        for index, process in enumerate(state.processes):
            yield from self.invalidate(state, index, process)
            yield from self.deliver(state, index, process)
            yield from self.heartbeat(state, index, process)
            yield from self.read(state, index, process)
            yield from self.load(state, index, process)
            yield from self.fill(state, index, process)

    @staticmethod
    def after(state: State, index: int, process: Process, **changes: object) -> State:
        """Return the state in which a process has become this."""
        return state._replace(processes=put(state.processes, index, process), **changes)

    @staticmethod
    def is_hit(process: Process) -> bool:
        """Whether L1 would answer a read."""
        return process.entry is not None and process.entry[1] == process.stamp

    # -- the tag

    def invalidate(self, state: State, index: int, process: Process) -> Steps:
        """The source changes; then the tag gets a new generation in L2; then ``invalidate_tag`` returns."""
        if not process.invalidating:
            if state.left.invalidations:
                source = state.source + 1
                left = state.left._replace(invalidations=state.left.invalidations - 1)
                begun = process._replace(invalidating=-source)
                yield ("change", index, source), self.after(state, index, begun, source=source, left=left)
            return
        if process.invalidating < 0:
            version, generation, seq = -process.invalidating, state.generations + 1, state.seq + 1
            executed = self.after(state, index, process._replace(invalidating=version))
            item = Item(seq, generation, 0)
            processes = tuple(p._replace(queue=(*p.queue, item)) for p in executed.processes)
            told = max(state.told, version)
            yield ("invalidate", index, generation), executed._replace(
                processes=processes, tag=generation, seq=seq, generations=generation, told=told
            )  # fmt: skip
            return
        returned = process._replace(
            invalidating=0,
            floor=max(process.floor, process.invalidating),
            stamp=process.stamp + ("return_stamps" in self.on),
            tag=0 if "return_drops" in self.on else process.tag,
        )
        yield ("return", index), self.after(state, index, returned)

    def deliver(self, state: State, index: int, process: Process) -> Steps:
        """The next thing on the tag's lane arrives, or a message is lost."""
        if not process.queue:
            return
        item, taken = process.queue[0], process._replace(queue=process.queue[1:])
        yield ("deliver", index, item), self.after(state, index, self.hear(taken, item))
        if state.left.losses and item.generation:
            left = state.left._replace(losses=state.left.losses - 1)
            yield ("lose", index, item), self.after(state, index, taken, left=left)

    def hear(self, process: Process, item: Item) -> Process:
        """The chain, then the message."""
        if item.generation == 0:
            if item.seq != process.position and "compare_heartbeat" in self.on:
                process = self.suspect(process)
            return process._replace(position=item.seq, floor=max(process.floor, item.fence))
        if item.seq != process.position + 1:
            process = self.suspect(process)
        tag = 0 if process.tag != item.generation and "message_drops" in self.on else process.tag
        stamp = process.stamp + ("message_stamps" in self.on)
        return process._replace(position=item.seq, tag=tag, stamp=stamp)

    def suspect(self, process: Process) -> Process:
        """A message about the tag may have been lost."""
        stamp = process.stamp + ("suspicion_stamps" in self.on)
        return process._replace(stamp=stamp, tag=0 if "suspicion_drops" in self.on else process.tag)

    def heartbeat(self, state: State, index: int, process: Process) -> Steps:
        """The server says where the tag's lane stands."""
        if state.left.beats:
            left = state.left._replace(beats=state.left.beats - 1)
            beaten = process._replace(queue=(*process.queue, Item(state.seq, 0, state.told)))
            yield ("heartbeat", index), self.after(state, index, beaten, left=left)

    # -- reading

    def tag_of(self, state: State, process: Process) -> tuple[int, int, int]:
        """Return the tag's generation for a reader, that in L2 then, and how many there have been."""
        if process.tag:
            return process.tag, state.tag, state.generations
        if state.tag:
            return state.tag, state.tag, state.generations
        fresh = state.generations + 1 if "random" in self.on else 1
        return fresh, fresh, max(fresh, state.generations)

    def read(self, state: State, index: int, process: Process) -> Steps:
        """A reader misses L1 and looks up the tag."""
        if process.read is None and state.left.reads and not self.is_hit(process):
            left = state.left._replace(reads=state.left.reads - 1)
            generation, tag, generations = self.tag_of(state, process)
            begun = process._replace(tag=generation, read=Read(TAG_KNOWN, process.stamp, generation, 0, process.floor))
            yield (
                ("read", index, generation),
                self.after(state, index, begun, tag=tag, generations=generations, left=left),
            )

    def load(self, state: State, index: int, process: Process) -> Steps:
        """L2 has a value of this generation; or the loader reads the source."""
        read = process.read
        if read is None:
            return
        if read.step == TAG_KNOWN:
            value = state.value
            if value is not None and (value.generation == read.generation or "compare" not in self.on):
                yield ("find", index, value), self.finish(state, index, process, value.version)
            else:
                asked = process._replace(read=read._replace(step=L2_ASKED))
                yield ("find", index, None), self.after(state, index, asked)
        elif read.step == L2_ASKED:
            loaded = process._replace(read=read._replace(step=LOADED, version=state.source))
            yield ("load", index, state.source), self.after(state, index, loaded)

    def fill(self, state: State, index: int, process: Process) -> Steps:
        """L2 takes the value, and whoever holds another of the key hears of it."""
        read = process.read
        if read is None or read.step != LOADED:
            return
        generation, tag, generations = read.generation, state.tag, state.generations
        if "capture_first" not in self.on:
            generation, tag, generations = self.tag_of(state, process)
        processes = tuple(
            p._replace(entry=None) if p.entry is not None and p.entry[0] != read.version else p for p in state.processes
        )
        filled = state._replace(
            value=Value(read.version, generation), tag=tag, generations=generations, processes=processes
        )
        yield ("fill", index, filled.value), self.finish(filled, index, filled.processes[index], read.version)

    def finish(self, state: State, index: int, process: Process, version: int) -> State | Violation:
        """The read returns, and L1 may keep its value."""
        read = process.read
        assert read is not None
        if version < read.floor:
            return Violation(f"a read returned version {version}; the tag had been invalidated for {read.floor}")
        entry = process.entry
        if read.stamp == process.stamp or "stamp_first" not in self.on:
            entry = (version, process.stamp)
        return self.after(state, index, process._replace(read=None, entry=entry))


Tags.CASES = (
    Case("one invalidation", Bounds(reads=2, invalidations=1, beats=1)),
    Case("a lost message", Bounds(reads=2, invalidations=1, losses=1, beats=1)),
    Case("a lost record", Bounds(reads=3, invalidations=1, evictions=1)),
)
Tags.LONG_CASES = (
    Case("two invalidations", Bounds(reads=2, invalidations=2)),
    Case("three reads", Bounds(reads=3, invalidations=2, beats=1)),
    Case("everything", Bounds(reads=3, invalidations=2, evictions=1, losses=1, beats=1)),
)
Tags.WALKS = (Case("many", Bounds(reads=12, invalidations=6, evictions=3, losses=3, beats=6)),)
BEATS = Bounds(reads=2, invalidations=1, beats=1)
Tags.MUTANTS = (
    Mutant("capture_first", Bounds(reads=2, invalidations=1)),
    Mutant("compare", Bounds(reads=2, invalidations=1)),
    Mutant("random", Bounds(reads=2, invalidations=1, evictions=1)),
    Mutant("message_stamps", BEATS),
    Mutant("message_drops", BEATS),
    Mutant("suspicion_stamps", BEATS._replace(losses=1)),
    Mutant("suspicion_drops", BEATS._replace(losses=1)),
    Mutant("return_stamps", Bounds(reads=1, invalidations=1)),
    Mutant("return_drops", Bounds(reads=2, invalidations=1)),
    Mutant("stamp_first", BEATS),
    Mutant("compare_heartbeat", BEATS._replace(losses=1)),
)
