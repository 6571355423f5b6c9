"""What can be said on the command line: see README.md beside this file."""

from __future__ import annotations

import argparse

from simulation import campaign, shrink
from simulation.runs import Plan, simulate


def main() -> int:
    """Do what the command line says; the exit status is 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python tests/simulation", description="Deterministic simulation of nearcache."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "seeds in this process"), ("soak", "seeds on all cores")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--first", type=int, default=0, help="the first seed")
        command.add_argument("--events", type=float, default=1e6, help="end when there have been so many")
    command.add_argument("--minutes", type=float, default=float("inf"), help="end after so long, too")
    command.add_argument("--failures", type=int, default=1, help="end when so many seeds have failed")
    command.add_argument("--processes", type=int, help="how many; one per core otherwise")
    for name, text in (("replay", "show what a seed does"), ("explain", "shrink a failing seed")):
        command = commands.add_parser(name, help=text)
        command.add_argument("seed", type=int)
        command.add_argument("--shards", type=int, help="fix the number of shards")
        command.add_argument("--operations", help="only these: 3,7-9 (- for none)")
        command.add_argument("--faults", help="likewise")
    options = parser.parse_args()
    if options.command == "replay":
        return replay(options)
    if options.command == "explain":
        print(campaign.explain(options.seed, options.shards))
        return 0
    totals = campaign.run(options.first, int(options.events)) if options.command == "run" else soak(options)
    print(totals)
    for seed, _ in totals.failed[:3]:
        print(campaign.explain(seed))
    return int(bool(totals.failed))


def soak(options: argparse.Namespace) -> campaign.Totals:
    """Run seeds on all cores, and say now and then how far that is."""
    totals, said, failed = campaign.Totals(), 0, 0
    for totals in campaign.run_on_all_cores(
        options.first,
        int(options.events),
        seconds=options.minutes * 60,
        failures=options.failures,
        cores=options.processes,
    ):
        for seed, kind in totals.failed[failed:]:
            print(f"seed {seed} fails: {kind}", flush=True)
        failed = len(totals.failed)
        if totals.events // 1_000_000 > said // 1_000_000:
            said = totals.events
            print(totals.progress, flush=True)
    return totals


def replay(options: argparse.Namespace) -> int:
    """Show the trace of one run."""
    plan = Plan.of(options.seed, options.shards)
    operations, faults = set(range(len(plan.operations))), set(range(len(plan.faults)))
    if options.operations is not None:
        operations = shrink.places_in(options.operations)
    if options.faults is not None:
        faults = shrink.places_in(options.faults)
    outcome = simulate(plan.only(operations, faults), verbose=True)
    print("\n".join(outcome.lines))
    print(f"{outcome.events:,} events, digest {outcome.digest:016x}: {shrink.kind_of(outcome) or 'nothing wrong'}")
    if outcome.violation is not None:
        print(outcome.violation)
    elif outcome.crash is not None:
        raise outcome.crash
    return int(outcome.failed)
