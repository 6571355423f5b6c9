"""The command line: which traces, which sizes, which policies."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import jobs, mixtures, peers, pictures, reference, replay, synthetic, tables, textplot
from .reference import LRU, MIN, Row
from .summary import standing, summarize

OUTPUT = Path(__file__).resolve().parents[2] / "build" / "hitratio"
#: Together they take seconds, and have a loop, a scan, popularity and a trap for those who distrust newcomers.
QUICK = (
    "lirs_2_pools",
    "lirs_cpp",
    "lirs_gli",
    "lirs_multi1",
    "lirs_scan",
    "web07",
    "corda_vault",
    "webcachesim_test",
    "weblog_a",
)
P3 = "arc_P3"
CLOUD = "cloudphysics_io"
REQUESTS = 1_000_000
MIXTURES = 30
Percent = dict[str, dict[tuple[str, int], float]]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="hitratio", description="Hit ratios of the store, beside what others reached."
    )
    parser.add_argument("--quick", action="store_true", help="some traces and mixtures only, in a minute")
    parser.add_argument("--traces", default="", help="beginnings of names; all of the reference table by default")
    parser.add_argument("--policies", default="", help="of those the store has; all by default")
    parser.add_argument("--curve-points", type=int, default=0, help="as many more sizes, for the curves")
    parser.add_argument("--no-synthetic", action="store_true", help="recorded traces only")
    parser.add_argument("--mixtures", type=int, help=f"as many of each kind; {MIXTURES} by default, 0 for none")
    parser.add_argument("--first-mixture", type=int, default=1, help="the number of the first one")
    parser.add_argument("--no-exact", action="store_true", help="without the exact counts on arc_P3 and by bytes")
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    parser.add_argument("--processes", type=int, default=jobs.PROCESSES)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the pictures go")
    options = parser.parse_args(arguments)
    if options.mixtures is None:
        options.mixtures = MIXTURES // 5 if options.quick else MIXTURES
    if options.mixtures < 0 or options.first_mixture < 0:
        parser.error("--mixtures and --first-mixture: must be 0 or more")
    options.policies = [name for name in options.policies.split(",") if name] or list(replay.policies())
    if unknown := set(options.policies) - set(replay.policies()):
        parser.error(f"--policies {', '.join(sorted(unknown))}: this store has {', '.join(replay.policies())}")
    return options


def show(lines: Iterable[str]) -> None:
    """Print, at once."""
    print("\n".join(lines), flush=True)


def between(sizes: Sequence[int], points: int) -> list[int]:
    """Return so many sizes between the least and the greatest, in equal proportions, and the given ones."""
    least, most = min(sizes), max(sizes)
    more = [round(least * (most / least) ** (number / (points + 1))) for number in range(1, points + 1)]
    return sorted({*sizes, *more})


def chosen_rows(rows: Sequence[Row], options: argparse.Namespace) -> list[Row]:
    """Return the rows of the traces that are asked for."""
    beginnings = tuple(name for name in options.traces.split(",") if name) or (QUICK if options.quick else ("",))
    return [row for row in rows if row.trace.startswith(beginnings)]


def replay_rows(rows: Sequence[Row], folder: Path, options: argparse.Namespace) -> Percent:
    """Return percent of requests answered, by policy, trace and size, for the rows and the points between."""
    sizes: dict[str, list[int]] = {}
    for row in rows:
        sizes.setdefault(row.trace, []).append(row.size)
    work = [
        jobs.Job(str(folder / trace), size, policy)
        for trace, given in sizes.items()
        for size in between(given, options.curve_points)
        for policy in options.policies
    ]
    return _percent(work, options.processes)


def _percent(work: Sequence[jobs.Job], processes: int) -> Percent:
    found: Percent = {}
    for job, (hits, count) in jobs.run_all(work, processes):
        found.setdefault(job.policy, {})[Path(job.workload).name, job.size] = 100 * hits / count
    return found


def replay_synthetic(options: argparse.Namespace) -> tuple[list[Row], Percent]:
    """Return the reference rows of the synthetic workloads, computed here, and ours."""
    count = REQUESTS // 5 if options.quick else REQUESTS
    work = [
        jobs.Job(name, size, policy, count)
        for name in synthetic.WORKLOADS
        for size in synthetic.sizes(synthetic.requests(name, count))
        for policy in (*options.policies, jobs.REFERENCE_LRU, jobs.MIN)
    ]
    found = _percent(work, options.processes)
    lru, best = found.pop(jobs.REFERENCE_LRU), found.pop(jobs.MIN)
    return [Row(name, size, {LRU: lru[name, size], MIN: best[name, size]}) for name, size in lru], found


def exact(text: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """Return whether the counts of LRU are the published ones: by entries on arc_P3, by bytes on cloudphysics_io."""
    counts, weighted = reference.parse_counts(text), reference.parse_weighted(text)
    work = [jobs.Job(str(folder / CLOUD), mebibytes << 20, replay.LRU, weighted=True) for mebibytes in weighted]
    if not options.quick:
        work += [jobs.Job(str(folder / P3), size, replay.LRU) for size in counts]
    hits: dict[int, int] = {}
    misses: dict[int, int] = {}
    for job, (answered, asked) in jobs.run_all(work, options.processes):
        if job.weighted:
            misses[job.size >> 20] = asked - answered
        else:
            hits[job.size] = answered
    lines = tables.exact_lines(f"misses of lru by bytes on {CLOUD}", weighted, misses)
    return lines + (tables.exact_lines(f"hits of lru on {P3}", counts, hits) if hits else [])


def curves(
    rows: Sequence[Row], found: Percent
) -> dict[str, tuple[dict[str, textplot.Curve], dict[str, textplot.Curve]]]:
    """Return by workload: our curves, and those of the others."""
    result: dict[str, tuple[dict[str, textplot.Curve], dict[str, textplot.Curve]]] = {}
    for trace in dict.fromkeys(row.trace for row in rows):
        ours: dict[str, textplot.Curve] = {
            f"{policy} (ours)": sorted((size, value) for (name, size), value in by.items() if name == trace)
            for policy, by in found.items()
        }
        mine = [row for row in rows if row.trace == trace]
        names = dict.fromkeys(name for row in mine for name in row.percent)
        others: dict[str, textplot.Curve] = {
            name: [(row.size, row.percent[name]) for row in mine if name in row.percent] for name in names
        }
        result[trace] = ours, others
    return result


def plots(rows: Sequence[Row], found: Percent, folder: Path) -> None:
    """Show the curves: as text, and as pictures where matplotlib is installed."""
    drawn = curves(rows, found)
    for title, (ours, others) in drawn.items():
        seen: Mapping[str, textplot.Curve] = {**ours, **{name: others[name] for name in (MIN,) if name in others}}
        best = [(row.size, max(row.peers.values())) for row in rows if row.trace == title and set(row.peers) - {LRU}]
        seen = {**seen, "best peer": best} if best else seen
        marks = dict(zip(seen, [*"LA"[: len(ours)], "m", "p"], strict=False))
        show(["", title, *textplot.plot(seen, marks, joined=ours)])
    try:
        paths = pictures.draw_all(drawn, folder)
    except ImportError as error:
        show(["", f"no pictures: {error}"])
    else:
        show(["", f"{len(paths)} pictures in {folder}"])


def recorded(options: argparse.Namespace) -> tuple[list[Row], Percent]:
    """Replay the recorded traces and say what came out; nothing without the traces folder."""
    folder = reference.traces_folder()
    if folder is None:
        show(["recorded traces are left out: set NEARCACHE_TRACES to the folder that holds them and their README"])
        return [], {}
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = chosen_rows(reference.parse_rows(text), options)
    if not rows:
        show([f"no row of the reference table begins with {options.traces!r}"])
        return [], {}
    start = time.perf_counter()
    found = replay_rows(rows, folder, options)
    show([*tables.rows_table(rows, found), ""])
    for policy in found:
        show(tables.summary_lines(policy, summarize(rows, found[policy])))
    if replay.LRU in found:
        show(tables.lru_lines(rows, found[replay.LRU]))
        if not options.no_exact:
            show(exact(text, folder, options))
    show([f"({time.perf_counter() - start:.0f} s)"])
    return rows, found


def unseen(kind: str, options: argparse.Namespace) -> list[str]:
    """Return how the policies of this store and the installed peers stand to each other on mixtures of one kind."""
    first, others = options.first_mixture, peers.installed()
    names = [f"{kind} {number}" for number in range(first, first + options.mixtures)]
    work = [
        jobs.Job(name, size, policy)
        for name in names
        for size in mixtures.sizes(mixtures.requests(name))
        for policy in (*options.policies, jobs.REFERENCE_LRU, *others)
    ]
    found = _percent(work, options.processes)
    theirs = {LRU: found.pop(jobs.REFERENCE_LRU), **{name: found.pop(name) for name in others}}
    rows = [Row(*at, {name: by_row[at] for name, by_row in theirs.items()}) for at in theirs[LRU]]
    contestants = {**{f"{name} (ours)": by_row for name, by_row in found.items()}, **theirs}
    return tables.standings_table({name: standing(rows, by_row) for name, by_row in contestants.items()})


def show_unseen(options: argparse.Namespace) -> None:
    """Replay the mixtures, and name the peers that are not here."""
    if absent := [name for name in peers.NAMES if name not in peers.installed()]:
        show(["", f"ABSENT from the mixtures: {', '.join(absent)} (pip install 'nearcache[bench]')"])
    for kind in (mixtures.MADE_UP, mixtures.PIECES) if reference.traces_folder() else (mixtures.MADE_UP,):
        show(["", f"== mixtures: {kind}, {options.mixtures} from {options.first_mixture} on =="])
        show(unseen(kind, options))


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what the command line asks for; 0 whether the figures please or not."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    absent = {replay.LRU, replay.ADAPTIVE} - set(replay.policies())
    show([f"policies of this store: {', '.join(replay.policies())}"] + [f"ABSENT: {name}" for name in sorted(absent)])
    rows, found = recorded(options)
    if not options.no_synthetic:
        made, ours = replay_synthetic(options)
        show(["", "== synthetic ==", *tables.rows_table(made, ours), *tables.lru_lines(made, ours.get(replay.LRU, {}))])
        rows = [*rows, *made]
        found = {policy: {**found.get(policy, {}), **by_row} for policy, by_row in ours.items()}
    if options.mixtures:
        show_unseen(options)
    if not options.no_plots and rows:
        plots(rows, found, options.output)
    return 0
