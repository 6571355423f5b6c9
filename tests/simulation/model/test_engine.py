"""The checker finds what is wrong, and says how to get there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from simulation.model.engine import Label, Model, Violation, explore, replay, shrink, walk, walks


class Counters(NamedTuple):
    """Two counters that must not both be three."""

    left: int
    right: int


class Toy(Model):
    """Counts up and down, as far as its bounds. ``both``: the counters may both be three; ``jump``: an odd event."""

    RULES: ClassVar[dict[str, str]] = {"both": "may both be three", "jump": "no jump", "rest": "may stop"}

    def initial(self) -> Counters:
        return Counters(0, 0)

    def canonical(self, state: Counters) -> Counters:
        return Counters(*sorted(state))

    def wrong(self, state: Counters) -> str | None:
        return "both are three" if state == (3, 3) and "both" not in self.on else None

    def wrong_at_rest(self, state: Counters) -> str | None:
        return "stopped" if "rest" not in self.on else None

    def events(self, state: Counters) -> Iterator[tuple[Label, Counters | Violation]]:
        for side in (0, 1):
            if state[side] < self.bounds:
                yield ("up", side), Counters(state.left + (side == 0), state.right + (side == 1))
            if 0 < state[side] < self.bounds:
                yield ("down", side), Counters(state.left - (side == 0), state.right - (side == 1))
        if sorted(state) == [0, 2] and "jump" not in self.on:
            yield ("jump",), Violation("jumped")


def test_explore_nothing_wrong_counts_every_state_once() -> None:
    """With five values a side and symmetry there are 15 states."""
    report = explore(Toy(4))
    assert (report.complete, report.found, report.states, report.depth) == (True, None, 15, 8)
    assert set(report.kinds) == {"up", "down"}
    assert "all 15 states" in str(report)


def test_explore_violation_has_a_shortest_trace() -> None:
    """Breadth first: no way to the violation is shorter; and it can be replayed."""
    model = Toy(4, ["both"])
    found = explore(model).found
    assert found is not None
    assert (found.reason, len(found.trace)) == ("both are three", 6)
    assert replay(model, found.trace) == (found.trace, found.reason)
    assert "6. up" in str(found)


def test_explore_violation_in_an_event_ends_with_that_event() -> None:
    """What is wrong need not be a state."""
    found = explore(Toy(4, ["jump"])).found
    assert found is not None
    assert (found.reason, found.trace[-1], len(found.trace)) == ("jumped", ("jump",), 3)


def test_explore_state_without_events_is_looked_at() -> None:
    """Where nothing more can happen, something may have been left undone."""
    found = explore(Toy(2, ["rest"])).found
    assert found is not None
    assert (found.reason, len(found.trace)) == ("stopped", 4)


def test_explore_limit_leaves_the_search_incomplete() -> None:
    """A search that was broken off does not claim to have seen everything."""
    report = explore(Toy(9), most_states=5)
    assert not report.complete
    assert report.found is None
    assert "not all" in str(report)


def test_walk_same_seed_same_walk() -> None:
    """A seed is all that is needed to see a walk again."""
    model = Toy(9)
    assert walk(model, 5, 50) == walk(model, 5, 50)
    assert walk(model, 5, 50) != walk(model, 6, 50)


def test_walks_violation_is_shrunk() -> None:
    """Nothing is left in the trace that could be left out."""
    report = walks(Toy(9, ["both"]), count=200, steps=200)
    assert report.found is not None
    assert len(report.found.trace) == 6


def test_walks_nothing_wrong_makes_as_many_as_asked_for() -> None:
    """The count is kept, and what happened is added up."""
    report = walks(Toy(9), count=7, steps=10)
    assert (report.walks, report.transitions, report.depth, report.found) == (7, 70, 10, None)


def test_shrink_keeps_the_last_event_of_a_violation() -> None:
    """Detours go, the way stays."""
    detour: list[Label] = [("up", 0), ("up", 1), ("down", 0), ("up", 0), ("down", 0), ("up", 1), ("jump",)]
    found = shrink(Toy(9, ["jump"]), detour)
    assert (found.reason, len(found.trace), found.trace[-1]) == ("jumped", 3, ("jump",))


def test_replay_what_cannot_be_done_is_no_violation() -> None:
    """Nor is what goes well."""
    assert replay(Toy(9), [("jump",)]) is None
    assert replay(Toy(9), [("up", 0)]) is None
