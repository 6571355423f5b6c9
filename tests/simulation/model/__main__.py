"""Check the models: ``python tests/simulation/model [MODEL ...] [--mutants | --soak] [--minutes N] [--seed N]``.

Without an option: every model within its small bounds, exhaustively. ``--mutants``: every rule switched off alone, with
the trace that finds it out. ``--soak``: larger bounds for half of the time, then random walks with the largest for the
other half; the time is ``--minutes``, else ``SOAK_MINUTES``, else 30.

Exit status 1: a rule is not enough, or a mutant was not caught.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.model.catalogue import MODELS
from simulation.model.engine import Report, explore, walks

#: Searches end here, because a state costs memory.
MOST_STATES = 2_000_000
STEPS = 200


class Tally:
    """Prints reports and adds them up."""

    def __init__(self) -> None:
        self.searched = Report()
        self.walked = Report()
        self.failed = 0

    def note(self, title: str, report: Report, *, expected: bool = False) -> None:
        """Print one report. ``expected``: a violation is what was wanted."""
        print(f"{title}: {report}", flush=True)
        self.failed += (report.found is not None) != expected
        total = self.walked if report.walks else self.searched
        total.walks += report.walks
        total.states += report.states
        total.transitions += report.transitions

    def __str__(self) -> str:
        return (
            f"{self.searched.states} states and {self.searched.transitions} transitions searched, "
            f"{self.walked.walks} walks of {self.walked.transitions} steps, {self.failed} failed"
        )


def check(names: list[str], tally: Tally) -> None:
    """Search the small bounds."""
    for name in names:
        for case in MODELS[name].CASES:
            tally.note(f"{name}, {case.title}", explore(MODELS[name](case.bounds)))


def check_mutants(names: list[str], tally: Tally) -> None:
    """Switch each rule off."""
    for name in names:
        for mutant in MODELS[name].MUTANTS:
            report = explore(MODELS[name](mutant.bounds, [mutant.rule]))
            tally.note(f"{name} without {mutant.rule}", report, expected=True)


def soak(names: list[str], tally: Tally, seconds: float, seed: int) -> None:
    """Search larger bounds, then walk, each for its share of the time that is left."""
    middle = time.monotonic() + seconds / 2
    searches = [(name, case) for name in names for case in MODELS[name].LONG_CASES]
    for number, (name, case) in enumerate(searches):
        share = max(0.0, middle - time.monotonic()) / (len(searches) - number)
        report = explore(MODELS[name](case.bounds), most_states=MOST_STATES, seconds=share)
        tally.note(f"{name}, {case.title}", report)
    end = time.monotonic() + seconds / 2
    strolls = [(name, case) for name in names for case in MODELS[name].WALKS]
    for number, (name, case) in enumerate(strolls):
        share = max(0.0, end - time.monotonic()) / (len(strolls) - number)
        report = walks(MODELS[name](case.bounds), seed=seed, steps=STEPS, seconds=share)
        tally.note(f"{name}, {case.title}, seeds from {seed}", report)


def main() -> int:
    """Do what the command line asks for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python tests/simulation/model", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; all, if none is named")
    parser.add_argument("--mutants", action="store_true", help="switch each rule off and show how that is found out")
    parser.add_argument("--soak", action="store_true", help="larger bounds, then random walks")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("SOAK_MINUTES", "30")))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    unknown = set(given.models) - MODELS.keys()
    if unknown:
        parser.error(f"no such models: {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    names, tally = given.models or list(MODELS), Tally()
    if given.soak:
        soak(names, tally, given.minutes * 60, given.seed)
    elif given.mutants:
        check_mutants(names, tally)
    else:
        check(names, tally)
    print(f"models: {tally}")
    return int(tally.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
