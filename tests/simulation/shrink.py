"""From a failing seed to the smallest run that still fails in the same way.

Faults are left out first, then operations, in ever smaller pieces (delta debugging). Every part of a run has randomness
of its own, so that what is left out changes little in the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from simulation.runs import Outcome, Plan, simulate

#: Most runs that shrinking may take, where they have no more events than this each. Longer ones count for several.
BUDGET = 150
_EVENTS = 50_000


class Shrunk:
    """The smallest failing run that was found.

    Attributes:
        operations, faults: Places in the seed's plan of what is left.
        outcome: With a trace.
    """

    def __init__(self, plan: Plan, outcome: Outcome, budget: int = BUDGET) -> None:
        self.plan = plan
        self.rule = kind_of(outcome)
        self.operations = list(range(len(plan.operations)))
        self.faults = list(range(len(plan.faults)))
        self._left = budget
        smaller = True
        while smaller and self._left > 0:
            before = len(self.operations) + len(self.faults)
            self.faults = self._reduce(self.faults, lambda kept: self._fails(self.operations, kept))
            self.operations = self._reduce(self.operations, lambda kept: self._fails(kept, self.faults))
            smaller = len(self.operations) + len(self.faults) < before
        self.outcome = simulate(plan.only(set(self.operations), set(self.faults)), verbose=True)

    def command(self) -> str:
        """How to see it again."""
        return (
            f"python tests/simulation replay {self.plan.seed} --shards {self.plan.profile.shards} "
            f"--operations {_listed(self.operations)} --faults {_listed(self.faults)}"
        )

    def _fails(self, operations: list[int], faults: list[int]) -> bool:
        outcome = simulate(self.plan.only(set(operations), set(faults)))
        self._left -= 1 + outcome.events // _EVENTS
        return kind_of(outcome) == self.rule

    def _reduce(self, places: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
        if places and self._left > 0 and fails([]):
            return []
        size = len(places) // 2
        while size and self._left > 0:
            start = 0
            while start < len(places) and self._left > 0:
                kept = places[:start] + places[start + size :]
                if fails(kept):
                    places = kept
                else:
                    start += size
            size //= 2
        return places


def kind_of(outcome: Outcome) -> str:
    """Which rule a run broke, or with what it crashed; empty for none."""
    if outcome.violation is not None:
        return outcome.violation.rule
    return type(outcome.crash).__name__ if outcome.crash is not None else ""


def places_in(text: str) -> set[int]:
    """The places that a command line names: ``3,7-9``; ``-`` alone: none."""
    places: set[int] = set()
    for part in text.split(",") if text not in ("", "-") else ():
        first, _, last = part.partition("-")
        places.update(range(int(first), int(last or first) + 1))
    return places


def _listed(places: list[int]) -> str:
    parts: list[str] = []
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] != places[end - 1] + 1:
            parts.append(f"{places[start]}-{places[end - 1]}" if end - start > 1 else f"{places[start]}")
            start = end
    return ",".join(parts) or "-"
