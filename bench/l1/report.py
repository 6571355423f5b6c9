"""What the measurements look like on a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from demo.wording import NOTHING, columns

from .growth import SHOWN, Insertion
from .roster import DICT, Contestant
from .scene import Scene
from .timing import LOOP, OPERATIONS, Results, Series
from .wanted import MOST_BYTES, MOST_STALL_NS, Verdict

_TIME_HEAD = ("ns per key", "min", "median", "spread", "net", "x dict", "x dict median", "x dict net")


def versions(present: Iterable[Contestant], absent: Mapping[str, str]) -> list[str]:
    """Return who takes part, with versions, and who does not, and why."""
    lines = [f"{one.name}: {one.version}" for one in present]
    return [*lines, *(f"{name}: ABSENT, {why}" for name, why in absent.items())]


def spread(ns: Sequence[float]) -> float:
    """Return the distance between the quartiles as a part of the median: 0 on a machine of one's own."""
    if len(ns) < 2:
        return 0.0
    quarter, middle, three_quarters = statistics.quantiles(ns, n=4, method="inclusive")
    return (three_quarters - quarter) / middle


def _row(name: str, series: Series, compared: bool, loop: float) -> tuple[str, ...]:
    ns = series.ns
    cells = (f"{min(ns):.1f}", f"{statistics.median(ns):.1f}", f"{100 * spread(ns):.0f} %", f"{min(ns) - loop:.1f}")
    if not compared or name in (DICT, LOOP):
        return (name, *cells, "", "", "")
    paired = statistics.median(ours / dict_ for ours, dict_ in zip(ns, series.beside, strict=True))
    base = min(series.beside)
    net = (min(ns) - loop) / (base - loop)
    return (name, *cells, f"{min(ns) / base:.2f}", f"{paired:.2f}", f"{net:.2f}")


def times(results: Results, scene: Scene) -> list[str]:
    """Return a table for each operation."""
    which = "equal keys that are other objects" if scene.copies else "the very keys that are stored"
    lines = ["", f"== {scene.size:,} entries, {scene.kind} keys, asked for by {which} =="]
    for operation in OPERATIONS:
        series = results.get(operation.name)
        if series:
            loop = min(series[LOOP].ns) / (100 if operation.name == "many" else 1) if LOOP in series else 0.0
            rows = [_row(name, one, DICT in series, loop) for name, one in series.items()]
            lines += ["", f"{operation.name}: {operation.title}", *columns([_TIME_HEAD, *rows], "  ")]
    return lines


def memory(figures: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Return the table of bytes per entry."""
    sizes = sorted({size for by_size in figures.values() for size in by_size})
    rows = [("entries", *(f"{size:,}" for size in sizes))]
    for name, by_size in figures.items():
        rows.append((name, *(f"{by_size[size]:.1f}" if size in by_size else NOTHING for size in sizes)))
    return ["", "== resident bytes per entry of a full cache, beside keys and values ==", *columns(rows, "  ")]


def growth(figures: Mapping[str, Sequence[Insertion]], size: int) -> list[str]:
    """Return the table of the longest insertions."""
    rows = [("ms of processor time", *(f"{number}." for number in range(1, SHOWN + 1)), "longest by wall time")]
    for name, found in figures.items():
        longest = [f"{taken / 1e6:.3f}" for taken, _ in found[:SHOWN]]
        wall = f"{max(wall for _, wall in found) / 1e6:.3f}" if found else NOTHING
        rows.append((name, *longest, *[NOTHING] * (SHOWN - len(longest)), wall))
    return ["", f"== the longest single insertions from 0 to {size:,} entries ==", *columns(rows, "  ")]


def memory_verdicts(figures: Mapping[str, Mapping[int, float]], ours: Sequence[str]) -> list[Verdict]:
    """Return whether an entry of ours is small enough."""
    return [
        Verdict(f"bytes per entry: {name}, {size:,} entries", value, value, MOST_BYTES)
        for name in ours
        for size, value in figures.get(name, {}).items()
    ]


def growth_verdicts(figures: Mapping[str, Sequence[Insertion]], ours: Sequence[str]) -> list[Verdict]:
    """Return whether ours grows without a stall."""
    verdicts = []
    for name in ours:
        if name in figures:
            ms = max((taken for taken, _ in figures[name]), default=0) / 1e6
            verdicts.append(Verdict(f"longest insertion in ms: {name}", ms, ms, MOST_STALL_NS / 1e6))
    return verdicts


def wanted(verdicts: Sequence[Verdict]) -> list[str]:
    """Return what was aimed at, and whether it was met."""
    if not verdicts:
        return []
    rows = [("", "measured", "of medians", "wanted", "")]
    for one in verdicts:
        cells = (f"{one.ratio:.2f}", f"{one.median:.2f}", f"<= {one.most:.2f}", "met" if one.met else "MISSED")
        rows.append((one.text, *cells))
    met = sum(one.met for one in verdicts)
    return ["", "== wanted ==", *columns(rows, "  "), f"  {met} of {len(verdicts)} met"]
