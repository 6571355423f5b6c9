"""What all rows together say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .reference import LRU, Row

#: (trace, size): percent of requests answered by the store.
Measured = Mapping[tuple[str, int], float]


@dataclass(frozen=True)
class Summary:
    """A policy of ours against the reference columns, in points (percent of all requests).

    Attributes:
        rows: Lines compared: those for which there is a peer other than LRU.
        mean_regret: How far behind the best column, rows where it is ahead counting as 0.
        mean_signed: The same, rows where it is ahead counting as less than 0.
        worst_regret: Where it is farthest behind the best column, and by how much.
        worst_to_lru: Where it is farthest behind LRU, and by how much; not above 0 if nowhere.
        better_than_all: In how many rows it is ahead of every column but MIN.
    """

    rows: int
    mean_regret: float
    mean_signed: float
    worst_regret: tuple[str, int, float]
    worst_to_lru: tuple[str, int, float]
    better_than_all: int


@dataclass(frozen=True)
class Standing:
    """A policy, ours or another's, among all others over the same rows, in points (percent of all requests).

    Attributes:
        mean_regret: How far behind the best of the others, rows where it is ahead counting as 0.
        worst_regret: The most of that.
        mean_to_lru: How far ahead of LRU.
        worst_to_lru: How far behind LRU where it is farthest.
        below_lru: In how many rows it is more than a point behind LRU.
        rows: Lines compared.
    """

    mean_regret: float
    worst_regret: float
    mean_to_lru: float
    worst_to_lru: float
    below_lru: int
    rows: int


def standing(rows: Sequence[Row], measured: Measured) -> Standing:
    """Return how a policy stands to the columns of these rows, all of which it has been measured on."""
    regrets = [max(0.0, regret(row, measured[row.trace, row.size])) for row in rows]
    gains = [measured[row.trace, row.size] - row.percent[LRU] for row in rows]
    return Standing(
        mean_regret=statistics.fmean(regrets),
        worst_regret=max(regrets),
        mean_to_lru=statistics.fmean(gains),
        worst_to_lru=max(0.0, -min(gains)),
        below_lru=sum(gain < -1.0 for gain in gains),
        rows=len(rows),
    )


def best_peer(row: Row) -> tuple[str, float]:
    """Return the best column but MIN, the leftmost of equal ones."""
    return max(row.peers.items(), key=lambda item: item[1])


def regret(row: Row, percent: float) -> float:
    """Return by how many points the best column is better; less than 0 if it is not."""
    return best_peer(row)[1] - percent


def _worst(found: Sequence[tuple[str, int, float]]) -> tuple[str, int, float]:
    return max(found, key=lambda item: item[2])


def summarize(rows: Sequence[Row], measured: Measured) -> Summary | None:
    """Return the summary over the rows that were measured and can be compared; None if there are none."""
    compared = [row for row in rows if (row.trace, row.size) in measured and set(row.peers) - {LRU}]
    if not compared:
        return None
    # Two decimals, as the reference has: a difference below that is none.
    ours = [round(measured[row.trace, row.size], 2) for row in compared]
    regrets = [(row.trace, row.size, round(regret(row, own), 2)) for row, own in zip(compared, ours, strict=True)]
    losses = [
        (row.trace, row.size, round(row.peers[LRU] - own, 2))
        for row, own in zip(compared, ours, strict=True)
        if LRU in row.peers
    ]
    behind = [points for _, _, points in regrets]
    return Summary(
        rows=len(compared),
        mean_regret=statistics.fmean(max(0.0, points) for points in behind),
        mean_signed=statistics.fmean(behind),
        worst_regret=_worst(regrets),
        worst_to_lru=_worst(losses) if losses else ("", 0, 0.0),
        better_than_all=sum(points < 0 for points in behind),
    )


def differing(rows: Sequence[Row], measured: Measured) -> list[tuple[str, int, float, float]]:
    """Return the rows where our LRU is not the reference's to two decimals: trace, size, ours, theirs."""
    found = []
    for row in rows:
        ours = measured.get((row.trace, row.size))
        if ours is not None and LRU in row.percent and abs(ours - row.percent[LRU]) > 0.005 + 1e-9:
            found.append((row.trace, row.size, ours, row.percent[LRU]))
    return found
