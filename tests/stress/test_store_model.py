"""200,000 random operations on the store and on a plain Python model of it, side by side.

The keys collide, raise, and reach back into the store from ``__hash__`` and ``__eq__``; values do from
``__del__``. What happens within ``__hash__`` and ``__eq__`` comes before the operation that asked, for that
begins again when the table has moved; what happens within ``__del__`` comes after it, for references are
released last.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Op, Store
from nearcache.errors import ValueTooLargeError
from support.store_model import NEVER, Lane, Model, Pending

SEEDS = (1, 2, 3, 4)
STEPS = 50_000
NAMES = 48
LANES = 3
SERVERS = (0, 11, 12)


class Boom(Exception):
    """What hostile keys raise."""


class Hostile:
    """A key that consults the world each time it is hashed or compared."""

    __slots__ = ("name", "world")

    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.name = name

    def __hash__(self) -> int:
        self.world.interfere(hashing=True)
        return collision(self.name)

    def __eq__(self, other: object) -> bool:
        self.world.interfere(hashing=False)
        return isinstance(other, Hostile) and other.name == self.name


class Tracked:
    """A value that acts when it dies."""

    __slots__ = ("number", "world")

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number

    def __del__(self) -> None:
        self.world.mourn()


def collision(name: int) -> int:
    return 1_000_003 + name % 3


def kin(name: int) -> list[int]:
    """The names whose keys have the hash of this one's."""
    if name % 4 in {0, 1}:
        return [name]
    return [other for other in range(NAMES) if other % 4 == name % 4 and collision(other) == collision(name)]


class World:
    """A store, its model, and the hazards."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.model = Model(20, 200, [Lane() for _ in range(LANES)])
        self.store: Store[Any, Any] = Store(20, maxbytes=200, lanes=LANES)
        self.ops: list[tuple[Op, Pending]] = []
        self.number = 0
        self.armed = False  # an operation is under way whose keys may interfere
        self.mourning = False  # and one whose values may
        self.raised_in_hash = False
        self.mourned: list[Callable[[], None]] = []  # what the model has yet to do
        self.reached = {"hash": 0, "eq": 0, "del": 0, "raised": 0}
        self.refreshed = 0
        self.set_clock(1000)

    # -- keys, values, clock

    def key(self, name: int) -> Any:
        """A new object each time, so that equality has to be asked."""
        kind = name % 4
        if kind == 0:
            return f"key {name}"
        if kind == 1:
            return name * (2**40)
        return Hostile(self, name) if kind == 2 else ("tuple", Hostile(self, name))

    @staticmethod
    def name_of(key: Any) -> int:
        if isinstance(key, str):
            return int(key[4:])
        if isinstance(key, int):
            return key // 2**40
        hostile = key if isinstance(key, Hostile) else key[1]
        name: int = hostile.name
        return name

    def value(self) -> Tracked:
        self.number += 1
        return Tracked(self, self.number)

    def set_clock(self, now: int) -> None:
        self.model.now = now
        self.store.l1_set_clock(now)

    # -- hazards

    def interfere(self, *, hashing: bool) -> None:
        if not self.armed or self.rng.random() > 0.08:
            return
        self.reached["hash" if hashing else "eq"] += 1
        if self.rng.random() < 0.3:
            self.reached["raised"] += 1
            self.raised_in_hash = hashing
            raise Boom
        self.armed, armed = False, self.armed
        self.mourning, mourning = False, self.mourning
        try:
            self.inner()()
        finally:
            self.armed, self.mourning = armed, mourning

    def mourn(self) -> None:
        if not self.mourning or self.rng.random() > 0.2:
            return
        self.reached["del"] += 1
        self.armed, armed = False, self.armed
        self.mourning = False
        try:
            self.mourned.append(self.inner())
        finally:
            self.armed, self.mourning = armed, True

    def inner(self) -> Callable[[], None]:
        """Do something to the store at once; what is returned does it to the model and compares."""
        rng, store, model = self.rng, self.store, self.model
        choice, name = rng.random(), rng.randrange(NAMES)
        if choice < 0.4:
            value, ttl, size = self.value(), rng.choice((0, 5, 50)), rng.randrange(30)
            number = value.number
            store.l1_put(self.key(name), value, ttl, size)
            return lambda: expect(model.put(name, number, ttl, size), True)
        if choice < 0.6:
            dropped = store.drop(self.key(name))
            return lambda: expect(model.drop(name)[0], dropped)
        if choice < 0.65:
            count = store.drop_all()
            return lambda: expect(model.drop_all(), count)
        if choice < 0.75:
            found = number_of(store.l1_hit(self.key(name), None))
            return lambda: expect(model.read(name), found)
        if choice < 0.85:
            applied = store.lane_apply(0, 0, [self.key(name)])
            return lambda: expect(model.apply(0, [name]), applied)
        if choice < 0.9:
            lane = rng.randrange(LANES)
            store.lane_suspect(lane)
            return lambda: setattr(model.lanes[lane], "stamp", model.lanes[lane].stamp + 1)
        swept = store.l1_sweep(7)
        return lambda: expect(model.sweep(7), swept)

    # -- one step

    def step(self) -> None:
        name = self.rng.randrange(NAMES)
        action: Callable[[int], None] = self.rng.choices(ACTIONS, WEIGHTS)[0].__get__(self)
        action(name)
        for settle in self.mourned:
            settle()
        self.mourned.clear()

    def attempt(self, call: Callable[[], Any], *, mourning: bool = True) -> Any:
        """The outcome of a call on the store: a result, or the exception that it raised."""
        self.armed, self.mourning = True, mourning
        try:
            return call()
        except (KeyError, ValueTooLargeError, Boom) as error:
            return type(error)
        finally:
            self.armed = self.mourning = False

    # -- actions: the call on the store first, since what interferes with it comes earlier

    def read(self, name: int) -> None:
        key = self.key(name)
        how = self.rng.randrange(3)
        store = self.store
        call = (
            lambda: store[key],
            lambda: store.get(key),
            lambda: store.l1_hit(key, None),
        )[how]
        found = self.attempt(call)
        if found is Boom:
            return
        expected = self.model.read(name)
        expect(KeyError if expected is None and how == 0 else expected, number_of(found))

    def look(self, name: int) -> None:
        key = self.key(name)
        if self.rng.random() < 0.5:
            found = self.attempt(lambda: key in self.store)
            if found is not Boom:
                expect(self.model.peek(name) is not None, found)
            return
        found = self.attempt(lambda: self.store.peek(key))
        if found is not Boom:
            expect(self.model.peek(name), number_of(found))

    def put(self, name: int) -> None:
        key, ttl, size = self.key(name), self.rng.choice((0, 0, 10, 100)), self.rng.randrange(40)
        if self.rng.random() < 0.01:
            size = 201
        number = self.number + 1
        if self.rng.random() < 0.5:
            ttl = size = 0
            found = self.attempt(lambda: self.store.__setitem__(key, self.value()))
        else:
            found = self.attempt(lambda: self.store.l1_put(key, self.value(), ttl, size))
        if found is not Boom:
            expect(self.model.put(name, number, ttl, size), found is None)

    def delete(self, name: int) -> None:
        key = self.key(name)
        if self.rng.random() < 0.5:
            found = self.attempt(lambda: self.store.drop(key))
            if found is not Boom:
                expect(self.model.drop(name)[0], found)
            return
        found = self.attempt(lambda: self.store.__delitem__(key))
        if found is not Boom:
            expect(self.model.drop(name)[1], found is None)

    def rarities(self, name: int) -> None:
        choice = self.rng.random()
        if choice < 0.3:
            pair = self.attempt(self.store.l1_pop_next, mourning=False)
            expected = self.model.pop_next()
            found = pair if pair is KeyError else (self.name_of(pair[0]), number_of(pair[1]))
            expect(KeyError if expected is None else expected, found)
        elif choice < 0.4:
            expect(self.model.drop_all(), self.attempt(self.store.drop_all))
        elif choice < 0.45:
            self.store.l1_reset_pending()
            self.model.reset_pending()
        else:
            steps = self.rng.randrange(30)
            found = self.attempt(lambda: self.store.l1_sweep(steps))
            expect(self.model.sweep(steps), found)

    def time(self, name: int) -> None:
        self.set_clock(self.model.now + self.rng.choice((0, 1, 7, 30)))

    def lane(self, name: int) -> None:
        index = self.rng.randrange(LANES)
        lane, choice = self.model.lanes[index], self.rng.random()
        if choice < 0.6:
            lane.fresh_until = self.rng.choice((NEVER, NEVER, self.model.now + 20))
            self.store.lane_vouch(index, lane.fresh_until)
        elif choice < 0.7:
            lane.fresh_until = 0
            self.store.lane_dark(index)
        elif choice < 0.85:
            lane.stamp += 1
            self.store.lane_suspect(index)
        else:
            lane.identity = self.rng.choice((11, 11, 11, *SERVERS))
            self.store.lane_attach(index, lane.identity)

    def begin(self, name: int) -> None:
        written = [other for other, entry in self.model.entries.items() if entry.wid]
        if written and self.rng.random() < 0.6:  # something to confirm
            name = self.rng.choice(written)
        write = self.rng.random() < 0.4
        lane, wid = name % LANES, self.rng.randrange(1, 6) if write else 0
        key = self.key(name)
        op = self.attempt(lambda: Op(key, lane, wid=wid, write=write))
        if op is Boom:
            return
        if self.attempt(lambda: self.store.l1_open(op)) is Boom:
            return
        pending = Pending(name, lane, wid, write)
        self.model.open(pending)
        self.ops.append((op, pending))

    def end(self, name: int) -> None:
        if not self.ops:
            return
        index = self.rng.randrange(len(self.ops)) if self.rng.random() < 0.3 else len(self.ops) - 1
        op, pending = self.ops[index] if self.rng.random() < 0.05 else self.ops.pop(index)
        wid = pending.wid if pending.is_write and self.rng.random() < 0.8 else self.rng.randrange(6)
        identity = self.model.lanes[pending.lane].identity if self.rng.random() < 0.8 else self.rng.choice(SERVERS)
        deadline = self.model.now + self.rng.choice((0, 10, 100, NEVER // 2))
        size, number, drop = self.rng.choice((0, 5, 201)), self.number + 1, self.rng.random() < 0.5
        how = self.rng.randrange(6)
        held = self.model.entries.get(pending.name)
        if 3 <= how < 5 and held is not None and self.rng.random() < 0.7:
            wid, identity = held.wid, self.model.lanes[pending.lane].identity
        if how < 3:
            found = self.attempt(
                lambda: self.store.l1_finish(op, self.value(), wid, deadline, size, identity), mourning=False
            )
        elif how < 5:
            found = self.attempt(lambda: self.store.l1_confirm(op, wid, deadline, identity), mourning=False)
        else:
            found = self.attempt(lambda: self.store.l1_abandon(op, drop=drop), mourning=False)
        if found is Boom:
            self.distrust(pending.name, pending)
        elif how < 3:
            expected = self.model.finish(pending, number, wid, deadline=deadline, size=size, identity=identity)
            expect(expected, found)
        elif how < 5:
            expect(self.model.refresh(pending, wid, deadline, identity), found)
            self.refreshed += bool(found)
        else:
            self.model.abandon(pending, drop)

    def message(self, name: int) -> None:
        wid, lane, clear = self.rng.randrange(6), self.rng.randrange(LANES), self.rng.random() < 0.02
        if clear:
            self.store.lane_suspect(lane)
            self.model.lanes[lane].stamp += 1
        if self.rng.random() < 0.5:
            names = [self.rng.randrange(NAMES) for _ in range(self.rng.randrange(12))]
            found = self.store.lane_apply(lane, wid, [self.key(other) for other in names])
        else:
            names = [name]
            key = self.key(name)
            found = self.attempt(lambda: self.store.lane_apply(lane, wid, [key]), mourning=False)
        if found is not Boom:
            expect(self.model.apply(wid, names), found)
        elif not self.raised_in_hash:  # a key whose hash is unknown has dropped nothing
            self.distrust(name)

    def distrust(self, name: int, closed: Pending | None = None) -> None:
        """A comparison has failed. Then both sides begin anew with empty tables.

        For the order in which such entries go is the index's secret, and with it that of the free positions.
        """
        self.model.distrust(kin(name))
        if closed is not None:
            self.model.close(closed)
        self.compare()
        expect(self.model.drop_all(), self.store.drop_all())

    def ask(self, name: int) -> None:
        key = self.key(name)
        if self.rng.random() < 0.5:
            found = self.attempt(lambda: self.store.l1_join(key))
            if found is not Boom:
                expected = self.model.join(name)
                expect(None if expected is None else id(expected), self.pending_of(found))
            return
        found = self.attempt(lambda: self.store.l1_suspect(key))
        if found is not Boom:
            expect(self.model.suspect(name), found and (found[0], number_of(found[1])))

    def pending_of(self, found: Op | None) -> int | None:
        return next((id(pending) for op, pending in self.ops if op is found), None)

    # -- comparing everything

    def compare(self) -> None:
        store, model = self.store, self.model
        store.check_invariants()
        expect(model.snapshot(), [(self.name_of(key), value.number) for key, value in store.l1_snapshot()])
        expect([name for name, _ in model.snapshot()], [self.name_of(key) for key in store])
        expected = {**vars(model.counters), "bytes": model.bytes(), "entries": len(model.entries)}
        found = store.l1_counters()
        expect(expected, {name: found[name] for name in expected})
        for op, pending in self.ops:
            expect(model.marks(pending), (op.storable, op.joinable))


ACTIONS = (
    World.read,
    World.look,
    World.put,
    World.delete,
    World.rarities,
    World.time,
    World.lane,
    World.begin,
    World.end,
    World.message,
    World.ask,
)
WEIGHTS = (30, 6, 20, 4, 1, 6, 3, 12, 12, 4, 4)


def number_of(value: Any) -> Any:
    return value.number if isinstance(value, Tracked) else value


def expect(expected: object, found: object) -> None:
    assert found == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_store_under_hostile_keys_equals_its_model(seed: int) -> None:
    """Every result, every counter, the order, the marks: 50,000 steps for each of four seeds."""
    print(f"seed {seed}")
    world = World(seed)
    for step in range(STEPS):
        try:
            world.step()
            if step % 10 == 0:
                world.compare()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, step {step}: {error}") from error
    world.compare()
    assert min(world.reached.values()) > 500, world.reached
    assert world.refreshed > 10, world.refreshed
