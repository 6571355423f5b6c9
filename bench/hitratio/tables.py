"""What the measurements look like on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demo.wording import NOTHING, columns

from .reference import MIN, Row
from .summary import Measured, Standing, Summary, best_peer, differing, regret


def _cell(percent: float | None) -> str:
    return NOTHING if percent is None else f"{percent:.2f}"


def rows_table(rows: Sequence[Row], measured: Mapping[str, Measured]) -> list[str]:
    """Return the reference table with our columns in front; the regret is that of our last policy."""
    names = list(dict.fromkeys(name for row in rows for name in row.percent))
    head = ("trace", "size", *(f"{policy} (ours)" for policy in measured), *names, "best", "regret")
    judged = list(measured)[-1]
    table = [head]
    for row in rows:
        at = row.trace, row.size
        if at in measured[judged]:
            ours = (_cell(by_row.get(at)) for by_row in measured.values())
            best = best_peer(row)[0] if row.peers else NOTHING
            behind = f"{round(regret(row, measured[judged][at]), 2) + 0.0:+.2f}" if row.peers else NOTHING
            table.append((row.trace, str(row.size), *ours, *(_cell(row.percent.get(n)) for n in names), best, behind))
    return columns(table)


def summary_lines(policy: str, summary: Summary | None) -> list[str]:
    """Return a summary in words."""
    if summary is None:
        return [f"{policy}: no row to compare"]
    place = "{0} at {1:,}: {2:+.2f}".format
    return [
        f"{policy} against the best column but {MIN}, {summary.rows} rows, in points:",
        f"  mean regret {summary.mean_regret:.2f}; {summary.mean_signed:+.2f} if rows where it is ahead count too",
        f"  worst regret  {place(*summary.worst_regret)}",
        f"  worst loss to LRU  {place(*summary.worst_to_lru)}",
        f"  ahead of every column but {MIN} in {summary.better_than_all} rows",
    ]


def standings_table(standings: Mapping[str, Standing]) -> list[str]:
    """Return how policies stand to each other, the least regret first."""
    head = ("policy", "mean regret", "worst", "mean to LRU", "worst loss to LRU", "rows > 1 behind LRU", "of")
    table = [head]
    for name, one in sorted(standings.items(), key=lambda item: item[1].mean_regret):
        regrets = f"{one.mean_regret:.2f}", f"{one.worst_regret:.1f}"
        to_lru = f"{one.mean_to_lru:+.2f}", f"{one.worst_to_lru:.1f}", str(one.below_lru)
        table.append((name, *regrets, *to_lru, str(one.rows)))
    return columns(table)


def lru_lines(rows: Sequence[Row], measured: Measured) -> list[str]:
    """Return whether our LRU is the reference's."""
    wrong = differing(rows, measured)
    compared = sum((row.trace, row.size) in measured for row in rows)
    lines = [f"lru equals the reference in {compared - len(wrong)} of {compared} rows"]
    return lines + [
        f"  DIFFERS: {trace} at {size:,}: {ours:.4f}, reference {theirs:.2f}" for trace, size, ours, theirs in wrong
    ]


def exact_lines(title: str, expected: Mapping[int, int], found: Mapping[int, int]) -> list[str]:
    """Return whether counts are the published ones, to the last request."""
    wrong = {size: count for size, count in found.items() if count != expected[size]}
    lines = [f"{title}: {len(found) - len(wrong)} of {len(found)} exactly as published"]
    return lines + [f"  DIFFERS at {size:,}: {count}, published {expected[size]}" for size, count in wrong.items()]
