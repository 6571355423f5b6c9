"""The contestants take turns, round by round, so that a disturbance hits one round of everybody and not one of them.

In each round somebody else begins. The collector is off while the clock runs, and what exists before is frozen. The
clock is this process's own processor time, all threads together: on a machine that is shared, wall time is mostly a
measurement of the others.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from . import loops
from .roster import DICT, OURS, Contestant
from .scene import BATCH, Scene

LOOP = "(the loop)"
#: How often a turn of deleting deletes and stores again; only the deleting is timed.
DELETE_PASSES = 10
#: Up to this many entries all contestants stand side by side; beyond, each has memory and ``dict`` to itself.
MOST_TOGETHER = 2_000_000
#: A contestant that has taken so long for an operation has played enough, after some rounds at least.
ENOUGH_NS = 1_000_000_000
LEAST_ROUNDS = 3


@dataclass
class Series:
    """Nanoseconds per key of one contestant, one figure a round, and what ``dict`` took in the same rounds."""

    ns: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


Results = dict[str, dict[str, Series]]


def _when(condition: bool, loop: loops.Loop | None) -> loops.Loop | None:
    return loop if condition else None


def _get(loop: loops.Loop) -> Callable[[Contestant, Any], loops.Loop | None]:
    return lambda one, cache: _when(hasattr(cache, "get"), loop)


def _many(one: Contestant, cache: Any) -> loops.Loop | None:
    return loops.get_many if one.name in OURS else _when(one.name in (DICT, "lru-dict"), loops.comprehension)


def _miss(one: Contestant, cache: Any) -> loops.Loop | None:
    return _when(
        hasattr(cache, "get") and not one.name.endswith("2 shards"), loops.get_default if one.default else loops.get
    )


@dataclass(frozen=True)
class Operation:
    """One thing that is timed.

    Attributes:
        name: On the command line.
        title: In tables.
        turns: The attribute of a scene that holds its keys; one turn a round, then from the start again.
        loop: Which loop a contestant runs, ``None`` if it has no such operation.
        restores: Whether the keys of a turn are stored again after it, off the clock.
    """

    name: str
    title: str
    turns: str
    loop: Callable[[Contestant, Any], loops.Loop | None]
    restores: bool = False


def _insert(one: Contestant, cache: Any) -> loops.Loop | None:
    return _when(one.bounded, one.hit if one.hit is loops.call else one.write)


#: In the order of measuring: those that change what is stored come last.
OPERATIONS = (
    Operation("hit", "cache[key], a hit (without a subscript: get, or the call)", "resident", lambda one, _: one.hit),
    Operation("get", "cache.get(key), a hit", "resident", _get(loops.get)),
    Operation("bound", "get = cache.get; get(key), a hit", "resident", _get(loops.get_bound)),
    Operation("in", "key in cache, a hit", "resident",
              lambda one, cache: _when(hasattr(type(cache), "__contains__"), loops.contains)),
    Operation("miss", "cache.get(key, default), a miss", "absent", _miss),
    Operation("many", f"{BATCH} resident keys: get_many, or a list comprehension over cache[key]", "batches", _many),
    Operation("overwrite", "cache[key] = value, a key that is there", "resident", lambda one, _: one.write),
    Operation("delete", "del cache[key]", "halves", lambda one, _: one.delete, restores=True),
    Operation("insert", "cache[key] = value, a new key into a full cache", "passing", _insert),
)  # fmt: skip


@dataclass
class Player:
    """A contestant on one operation: its cache, and the loop to be timed."""

    one: Contestant
    cache: Any
    loop: loops.Loop
    spent_ns: int = 0

    def play(self, operation: Operation, keys: Sequence[Any]) -> float:
        """Return nanoseconds per key of one turn.

        Keys that are deleted go in an order in which they were not stored, the same for all contestants.
        """
        passes = DELETE_PASSES if operation.restores and len(keys) < 50_000 else 1
        spent = 0
        for number in range(passes):
            order = random.Random(number).sample(keys, len(keys)) if operation.restores else keys
            start = time.process_time_ns()
            self.loop(self.cache, order, None)
            spent += time.process_time_ns() - start
            if operation.restores and self.one.write is not None:
                self.one.write(self.cache, keys, None)
        self.spent_ns += spent
        count = len(keys) * BATCH if operation.name == "many" else len(keys)
        return spent / passes / count


def most_of(size: int) -> int:
    """Return how many keys are asked for in one turn unless the command line says otherwise.

    A turn on a large cache asks for more key objects than the processor's caches hold, so that they have to be fetched
    anew by each contestant, as in a program that does something between.
    """
    return 100_000 if size <= 100_000 else 400_000


def rounds_of(size: int) -> int:
    """Return how many rounds are played unless the command line says otherwise."""
    return 25 if size <= 100_000 else 9 if size <= MOST_TOGETHER else 5


def _players(operation: Operation, crew: dict[Contestant, Any]) -> list[Player]:
    players = [
        Player(one, cache, loop) for one, cache in crew.items() if (loop := operation.loop(one, cache)) is not None
    ]
    return [Player(Contestant(LOOP, "", lambda *_: None, write=None), None, loops.nothing), *players]


def _run(
    operation: Operation, scene: Scene, crew: dict[Contestant, Any], rounds: int, results: dict[str, Series]
) -> None:
    turns = getattr(scene, operation.turns)
    players = _players(operation, crew)
    gc.collect()
    for number in range(rounds):
        keys = turns[number % len(turns)]
        first = number % len(players)
        taken: dict[str, float] = {}
        for player in players[first:] + players[:first]:
            if number < LEAST_ROUNDS or player.spent_ns < ENOUGH_NS:
                taken[player.one.name] = player.play(operation, keys)
        for name, ns in taken.items():
            series = results.setdefault(name, Series())
            series.ns.append(ns)
            series.beside.append(taken.get(DICT, float("nan")))


def check(one: Contestant, cache: Any, scene: Scene) -> None:
    """Ask for every key once.

    Raises:
        RuntimeError: Not all of them are there, so that a hit would not be what is timed.
    """
    if one.hit is loops.subscript:
        found = [cache[key] for key in scene.stored]
    elif one.hit is loops.call:
        found = [cache(key) for key in scene.stored]
        if cache.cache_info().currsize != scene.size:
            raise RuntimeError(f"{one.name} holds {cache.cache_info().currsize} of {scene.size} entries")
        return
    else:
        found = [cache.get(key) for key in scene.stored]
    there = sum((value[0] if isinstance(value, tuple) else value) is not None for value in found)
    if there != scene.size:
        raise RuntimeError(f"{one.name} holds {there} of {scene.size} entries")


def _crew(contestants: Sequence[Contestant], scene: Scene, stack: ExitStack) -> dict[Contestant, Any]:
    crew: dict[Contestant, Any] = {}
    for one in contestants:
        if scene.size <= one.most:
            try:
                cache = one.make(scene.size, stack)
                one.fill(cache, scene.stored, scene.values)
                check(one, cache, scene)
            except Exception as error:  # one that cannot be filled must not take the others' figures along
                print(f"LEFT OUT: {one.name}, {type(error).__name__}: {error}", flush=True)
            else:
                crew[one] = cache
    return crew


def measure(scene: Scene, contestants: Sequence[Contestant], names: Sequence[str], rounds: int) -> Results:
    """Return a series for each operation and contestant. Meant for a fresh process: it switches the collector off."""
    gc.disable()
    reference = [one for one in contestants if one.name == DICT]
    others = [one for one in contestants if one.name != DICT]
    crews = [reference + others] if scene.size <= MOST_TOGETHER else [[*reference, one] for one in others]
    results: Results = {operation.name: {} for operation in OPERATIONS if operation.name in names}
    for members in crews:
        with ExitStack() as stack:
            crew = _crew(members, scene, stack)
            gc.freeze()
            for operation in OPERATIONS:
                if operation.name in names:
                    _run(operation, scene, crew, rounds, results[operation.name])
            gc.unfreeze()
            crew.clear()
    return results
