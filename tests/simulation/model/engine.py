"""The checker: exhaustive breadth-first search and seeded random walks over the events of a model.

A model says how a state may go on (`Model.events`, a list of named events with the state after each) and what must
hold in every state (`Model.wrong`). Everything is a tuple of small numbers, so that a state is its own hash.

::

    initial --event--> state --event--> state ...       explore: every state within the bounds, each once
                                                         walk:    one event after another, drawn from a seed

The search keeps 64-bit hashes instead of states, and for each the hash it was reached from; the trace of a violation
is found by following these back and running the events again. It is a shortest one. A walk's trace is shrunk: events
are left out as long as what remains can be replayed and still ends in a violation.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

#: A name and what the event is about: ``("deliver", 0, message)``.
Label = tuple[Any, ...]
#: What an event leads to: a state, or what a property says against it.
State = Any


class Violation(str):
    """A property that does not hold, in words. Stands where an event would have a state."""

    __slots__ = ()


class Mutant(NamedTuple):
    """A rule switched off, and bounds within which that must be found out."""

    rule: str
    bounds: Any


class Case(NamedTuple):
    """Bounds within which all rules together must hold."""

    title: str
    bounds: Any


class Model:
    """What the models have in common: rules that can be switched off one by one.

    Args:
        bounds: How much of everything may happen.
        off: Names of the rules that do not apply.
    """

    #: Name of a rule -> what it says, and where it stands in the specification.
    RULES: ClassVar[dict[str, str]] = {}
    #: Kinds of events; a search in which one of them never happens has not looked at everything.
    EVENTS: ClassVar[frozenset[str]] = frozenset()
    #: Searched in every test run, searched in long runs, walked in long runs.
    CASES: ClassVar[tuple[Case, ...]] = ()
    LONG_CASES: ClassVar[tuple[Case, ...]] = ()
    WALKS: ClassVar[tuple[Case, ...]] = ()
    MUTANTS: ClassVar[tuple[Mutant, ...]] = ()

    def __init__(self, bounds: Any, off: Iterable[str] = ()) -> None:
        unknown = set(off) - self.RULES.keys()
        if unknown:
            raise ValueError(f"no such rules: {sorted(unknown)}; there are {sorted(self.RULES)}")
        self.bounds = bounds
        self.on = frozenset(self.RULES) - frozenset(off)

    def initial(self) -> State:
        """Return the state in which everything begins."""
        raise NotImplementedError

    def events(self, state: State) -> Iterator[tuple[Label, State | Violation]]:
        """Yield everything that may happen next."""
        raise NotImplementedError

    def wrong(self, state: State) -> str | None:
        """Return what is wrong with a state, if anything."""
        raise NotImplementedError

    def wrong_at_rest(self, state: State) -> str | None:
        """Return what is wrong with a state in which nothing more can happen."""
        return None

    def canonical(self, state: State) -> State:
        """Return one state for all that differ only in the names of processes."""
        return state


@dataclass
class Found:
    """A property that was violated, and how to get there."""

    reason: str
    trace: list[Label]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2d}. {say(label)}" for number, label in enumerate(self.trace, 1))
        return f"{self.reason}, after\n{steps}"


@dataclass
class Report:
    """What a search or some walks came to.

    Attributes:
        states: Different states met; for walks, states passed.
        transitions: Events carried out.
        depth: Most events in a row.
        complete: Whether nothing within the bounds was left out.
        found: The violation that ended it.
        kinds: How often each kind of event happened.
    """

    states: int = 0
    transitions: int = 0
    depth: int = 0
    walks: int = 0
    complete: bool = False
    found: Found | None = None
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        if self.walks:
            text = f"{self.walks} walks, {self.transitions} steps, longest {self.depth}"
        else:
            whole = "all" if self.complete else "not all, but"
            text = f"{whole} {self.states} states, {self.transitions} transitions, depth {self.depth}"
        text += f", {self.seconds:.1f} s"
        return f"{text}: {self.found}" if self.found else f"{text}: no violation"


def say(label: Label) -> str:
    """Return a label as text."""
    name, *about = label
    return " ".join([name, *(str(part) for part in about)])


def explore(model: Model, *, most_states: int = 50_000_000, seconds: float | None = None) -> Report:
    """Search every state within the model's bounds, breadth first, until a violation is found."""
    started = time.monotonic()
    report = Report()
    events, wrong, canonical, kinds = model.events, model.wrong, model.canonical, report.kinds
    first = canonical(model.initial())
    came_from: dict[int, int] = {hash(first): 0}
    level = [first]
    while level:
        following = []
        for state in level:
            here = hash(state)
            resting = True
            for label, target in events(state):
                resting = False
                report.transitions += 1
                kinds[label[0]] += 1
                if type(target) is Violation:
                    return _ended(report, came_from, started, _violated(model, came_from, here))
                target = canonical(target)
                there = hash(target)
                if there not in came_from:
                    came_from[there] = here
                    reason = wrong(target)
                    if reason is not None:
                        return _ended(report, came_from, started, Found(reason, _trace(model, came_from, there)[0]))
                    following.append(target)
            reason = model.wrong_at_rest(state) if resting else None
            if reason is not None:
                return _ended(report, came_from, started, Found(reason, _trace(model, came_from, here)[0]))
        level = following
        report.depth += bool(level)
        if len(came_from) > most_states or (seconds is not None and time.monotonic() - started > seconds):
            return _ended(report, came_from, started, None)
    report.complete = True
    return _ended(report, came_from, started, None)


def _ended(report: Report, came_from: dict[int, int], started: float, found: Found | None) -> Report:
    report.states = len(came_from)
    report.seconds = time.monotonic() - started
    report.found = found
    return report


def _violated(model: Model, came_from: dict[int, int], last: int) -> Found:
    """Return the violation that an event in this state is."""
    trace, state = _trace(model, came_from, last)
    for label, target in model.events(state):
        if type(target) is Violation:
            return Found(target, [*trace, label])
    raise AssertionError("the canonical form hides a violation")


def _trace(model: Model, came_from: dict[int, int], last: int) -> tuple[list[Label], State]:
    """Return the labels on the way to a state, by running its predecessors again, and the state."""
    hashes = [last]
    while came_from[hashes[-1]]:
        hashes.append(came_from[hashes[-1]])
    state, labels = model.initial(), []
    for wanted in reversed(hashes[:-1]):
        for label, target in model.events(state):
            if type(target) is not Violation and hash(model.canonical(target)) == wanted:
                labels.append(label)
                state = target  # not the canonical one: a process is to keep its name
                break
    return labels, state


def walk(model: Model, seed: int, steps: int) -> tuple[list[Label], str | None]:
    """Return the events of one random walk, and what was wrong at its end."""
    draw = random.Random(seed)
    state, trace = model.initial(), []
    for _ in range(steps):
        choices = list(model.events(state))
        if not choices:
            return trace, model.wrong_at_rest(state)
        label, target = choices[int(draw.random() * len(choices))]
        trace.append(label)
        if type(target) is Violation:
            return trace, target
        reason = model.wrong(target)
        if reason is not None:
            return trace, reason
        state = target
    return trace, None


def replay(model: Model, trace: Sequence[Label]) -> tuple[list[Label], str] | None:
    """Return the part of a trace up to its violation, and the violation; None if it has none or cannot be replayed.

    Where an event is not possible, one of the same name and process is taken: ids differ once something is left out.
    """
    state = model.initial()
    done: list[Label] = []
    for wanted in trace:
        possible = list(model.events(state))
        chosen = next((each for each in possible if each[0] == wanted), None)
        chosen = chosen or next((each for each in possible if each[0][:2] == wanted[:2]), None)
        if chosen is None:
            return None
        label, target = chosen
        done.append(label)
        reason = target if type(target) is Violation else model.wrong(target)
        if reason is not None:
            return done, reason
        state = target
    at_rest = model.wrong_at_rest(state) if not any(True for _ in model.events(state)) else None
    return (done, at_rest) if at_rest is not None else None


def shrink(model: Model, trace: Sequence[Label]) -> Found:
    """Return a violation with a trace from which no run of events, and no two of them, can be left out."""
    kept, reason = replay(model, trace) or (list(trace), "cannot be replayed")
    length = len(kept)
    while length := length // 2:
        start = 0
        while start + length <= len(kept):
            shorter = replay(model, kept[:start] + kept[start + length :])
            if shorter is None:
                start += 1
            else:
                kept, reason = shorter
    again = True
    while again:
        again = False
        for first, second in combinations(range(len(kept)), 2):
            shorter = replay(model, without(without(tuple(kept), second), first))
            if shorter is not None:
                (kept, reason), again = shorter, True
                break
    return Found(reason, kept)


def walks(
    model: Model, *, seed: int = 0, count: int | None = None, steps: int = 150, seconds: float | None = None
) -> Report:
    """Make random walks with seeds counted up from ``seed`` until one finds a violation, or enough have been made."""
    started = time.monotonic()
    report = Report()
    while (count is None or report.walks < count) and (seconds is None or time.monotonic() - started < seconds):
        trace, reason = walk(model, seed + report.walks, steps)
        report.walks += 1
        report.transitions += len(trace)
        report.depth = max(report.depth, len(trace))
        report.kinds.update(label[0] for label in trace)
        if reason is not None:
            report.found = shrink(model, trace)
            break
    report.states = report.transitions
    report.seconds = time.monotonic() - started
    return report


def put(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    """Return the tuple with another item at an index."""
    return (*items[:index], item, *items[index + 1 :])


def without(items: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """Return the tuple without the item at an index."""
    return items[:index] + items[index + 1 :]
