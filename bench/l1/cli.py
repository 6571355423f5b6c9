"""The command line: which measurements, in which order."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import growth, memory, report
from .fresh import in_fresh_process
from .roster import OURS, TIERED, Contestant, choose, roll_call
from .scene import KINDS, Scene
from .timing import OPERATIONS, measure, most_of, rounds_of
from .wanted import Verdict, judge

NAMES = tuple(operation.name for operation in OPERATIONS)
SECTIONS = ("time", "memory", "growth")
GROWTH_RUNS = 3
#: (entries, keys, copies, operations) of a run of a few minutes, and what ``--full`` measures beside it.
USUAL = (
    (1_000, "str", False, ("hit",)),
    (10_000, "str", False, NAMES),
    (10_000, "str", True, ("hit",)),
    (10_000, "int", False, ("hit", "get", "in")),
    (10_000, "tuple", False, ("hit", "get", "in")),
    (100_000, "str", False, ("hit", "in", "insert")),
    (1_000_000, "str", False, ("hit", "get", "miss", "insert")),
)
FULL = (
    *((size, kind, False, NAMES) for size in (1_000, 10_000, 100_000, 1_000_000) for kind in KINDS),
    *((size, kind, True, ("hit", "get", "in")) for size in (10_000, 1_000_000) for kind in KINDS),
    (10_000_000, "str", False, NAMES),
    (10_000_000, "int", False, ("hit", "get", "in")),
)
USUAL_MEMORY = (10_000, 100_000, 1_000_000)
#: Whose growth is watched in a usual run.
USUAL_GROWTH = ("dict", "nearcache", "lru-dict", "cachebox LRUCache")


def _number(text: str) -> int:
    return int(float(text))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description="L1 against its peers, in one run.")
    parser.add_argument("--full", action="store_true", help="everything, up to 10,000,000 entries: an hour or two")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--entries", help="such as 1e4,1e6; with it, --keys and --operations count too")
    parser.add_argument("--keys", default="str", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--copies", action="store_true", help="ask with equal keys that are other objects")
    parser.add_argument("--operations", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--peers", default="", help="beginnings of names; dict always takes part")
    parser.add_argument("--rounds", type=int, help="by default 25, fewer for large caches")
    parser.add_argument(
        "--most", type=_number, help="keys in one turn; by default 100,000, or 400,000 for large caches"
    )
    parser.add_argument("--growth", type=_number, default=2_000_000, help="entries up to which growing is watched")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args(arguments)
    for name, allowed in (("only", SECTIONS), ("keys", KINDS), ("operations", NAMES)):
        if unknown := set(_listed(getattr(options, name))) - set(allowed):
            parser.error(f"--{name} {', '.join(sorted(unknown))}: choose from {', '.join(allowed)}")
    return options


def plan(options: argparse.Namespace) -> list[tuple[int, str, bool, tuple[str, ...]]]:
    """Return what is timed: entries, kind of keys, copies, operations."""
    if options.entries:
        operations = tuple(_listed(options.operations))
        sizes = [_number(size) for size in _listed(options.entries)]
        return [(size, kind, options.copies, operations) for size in sizes for kind in _listed(options.keys)]
    return list(FULL if options.full else USUAL)


def show(lines: Sequence[str]) -> None:
    """Print, at once."""
    print("\n".join(lines), flush=True)


def time_all(options: argparse.Namespace, present: list[Contestant], found: dict[str, Any]) -> list[Verdict]:
    """Time the operations; each plan in a process of its own."""
    verdicts: list[Verdict] = []
    for size, kind, copies, operations in plan(options):
        scene = Scene(size, kind, copies, options.most or most_of(size), options.seed)
        results = in_fresh_process(measure, scene, present, operations, options.rounds or rounds_of(size))
        show(report.times(results, scene))
        if left_out := [one.name for one in present if size > one.most]:
            show([f"  left out, too many entries for it: {', '.join(left_out)}"])
        if not copies:
            verdicts += judge(results, size, kind)
        name = f"{size} {kind}{' copies' * copies}"
        found[name] = {op: {who: asdict(series) for who, series in by.items()} for op, by in results.items()}
    return verdicts


def weigh_all(options: argparse.Namespace, present: list[Contestant], found: dict[str, Any]) -> list[Verdict]:
    """Weigh the caches."""
    sizes = [_number(size) for size in _listed(options.entries)] if options.entries else USUAL_MEMORY
    figures: dict[str, dict[int, float]] = {}
    for one in present:
        if one.name != TIERED:
            figures[one.name] = {size: in_fresh_process(memory.bytes_per_entry, one, size, "str") for size in sizes}
    show(report.memory(figures))
    found["bytes per entry"] = figures
    return report.memory_verdicts(figures, OURS)


def watch_all(options: argparse.Namespace, present: list[Contestant], found: dict[str, Any]) -> list[Verdict]:
    """Watch the caches grow."""
    everybody = options.full or options.peers
    figures: dict[str, list[growth.Insertion]] = {}
    for one in present:
        if one.name != TIERED and (everybody or one.name.startswith(USUAL_GROWTH)):
            runs = [in_fresh_process(growth.longest_insertions, one, options.growth, "str") for _ in range(GROWTH_RUNS)]
            figures[one.name] = growth.calmest(runs)
    show(report.growth(figures, options.growth))
    found["longest insertions, ns"] = {name: longest[: growth.SHOWN] for name, longest in figures.items()}
    return report.growth_verdicts(figures, OURS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements that the command line asks for; 0 whether the figures please or not."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        contestants = choose(_listed(options.peers))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    present, absent = roll_call(contestants)
    show(report.versions(present, absent))
    found: dict[str, Any] = {}
    verdicts: list[Verdict] = []
    for name, section in (("time", time_all), ("memory", weigh_all), ("growth", watch_all)):
        if name in _listed(options.only):
            verdicts += section(options, present, found)
    show(report.wanted(verdicts))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0
