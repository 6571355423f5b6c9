"""Numbers out of a judged history: per kind of fault, and in peace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from . import records as r
from .nemesis import Happening

PEACE: Final = "(peace)"
FRACTIONS: Final = (0.5, 0.99, 0.999)


@dataclass
class Row:
    """What happened while one kind of fault was there, its aftermath included; times in nanoseconds.

    Attributes:
        kind: Name of the kind.
        faults: How many came.
        lasted_ns: How long, together.
        reads, hits, calls: Counted.
        stale_ns: p50, p99, p99.9 and the most of how stale hits surely were.
        stale_hits: How many surely were.
        dark_ns: From the begin of each fault to the first process that stopped vouching.
        back_ns: From the end of each fault until everybody vouched again.
    """

    kind: str
    faults: int = 0
    lasted_ns: int = 0
    reads: int = 0
    hits: int = 0
    calls: int = 0
    stale_ns: tuple[int, ...] = (0, 0, 0, 0)
    stale_hits: int = 0
    dark_ns: list[int] = field(default_factory=list)
    back_ns: list[int] = field(default_factory=list)

    @property
    def hit_ratio(self) -> float | None:
        """Part of the reads that L1 answered."""
        return self.hits / self.reads if self.reads else None

    @property
    def calls_per_s(self) -> float | None:
        """Calls of all processes together."""
        return self.calls / self.lasted_ns * 1e9 if self.lasted_ns else None


def percentiles(values: np.ndarray) -> tuple[int, ...]:
    """Return p50, p99, p99.9 and the greatest; zeros of nothing."""
    if not len(values):
        return (0,) * (len(FRACTIONS) + 1)
    ordered = np.sort(values)
    at = [min(len(ordered) - 1, int(np.ceil(fraction * len(ordered))) - 1) for fraction in FRACTIONS]
    return (*(int(ordered[each]) for each in at), int(ordered[-1]))


def united(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return stretches that do not overlap and cover the same."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return found


def inside(times: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether each instant lies in one of some stretches that do not overlap."""
    if not spans:
        return np.zeros(len(times), bool)
    starts, stops = (np.array(column) for column in zip(*spans, strict=True))
    at = np.searchsorted(starts, times, "right") - 1
    return (at >= 0) & (times < stops[np.maximum(at, 0)])


def rows(
    history: np.ndarray, hits: np.ndarray, stale_ns: np.ndarray, happenings: Sequence[Happening],
    begun_ns: int, ended_ns: int, tail_ns: int,
) -> list[Row]:  # fmt: skip
    """Return the figures in peace, then those of every kind, in the order of their names.

    Args:
        history: All records.
        hits, stale_ns: From the verdict.
        happenings: The faults as they came.
        begun_ns, ended_ns: The time with faults.
        tail_ns: How long a fault is felt after its end.
    """
    felt: dict[str, list[tuple[int, int]]] = {}
    for each in happenings:
        felt.setdefault(each.kind, []).append((each.from_ns, min(each.to_ns + tail_ns, ended_ns)))
    trouble = united([span for spans in felt.values() for span in spans])
    edges = [begun_ns, *(edge for span in trouble for edge in span), ended_ns]
    peace = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]
    calls = history[np.isin(history["op"], r.READS[:3] + r.WRITES) & (history["end"] != r.INVOKED)]
    found = [_row(PEACE, 0, peace, calls, hits, stale_ns)]
    changes = health_changes(history)
    for kind in sorted(felt):
        mine = [each for each in happenings if each.kind == kind]
        row = _row(kind, len(mine), united(felt[kind]), calls, hits, stale_ns)
        for each in mine:
            dark_ns, back_ns = darkness(changes, each, tail_ns)
            row.dark_ns += [dark_ns] if dark_ns is not None else []
            row.back_ns += [back_ns] if back_ns is not None else []
        found.append(row)
    return found


def _row(
    kind: str, faults: int, spans: list[tuple[int, int]], calls: np.ndarray, hits: np.ndarray, stale_ns: np.ndarray
) -> Row:
    here = calls[inside(calls["from_ns"], spans)]
    stale = stale_ns[inside(hits["from_ns"], spans)]
    reads = here[np.isin(here["op"], (r.GET, r.ITEM))]
    return Row(
        kind=kind, faults=faults, lasted_ns=sum(stop - start for start, stop in spans), reads=len(reads),
        hits=int((reads["tier"] == r.L1).sum()), calls=len(here), stale_ns=percentiles(stale),
        stale_hits=int((stale > 0).sum()),
    )  # fmt: skip


def health_changes(history: np.ndarray) -> np.ndarray:
    """Return when shards went dark and came back, in order of time; how a process began is no change."""
    told = history[(history["op"] == r.HEALTH) & (history["tier"] == r.UNKNOWN)]
    told = told[np.argsort(told["from_ns"], kind="stable")]
    begun: set[tuple[int, int]] = set()
    keep = np.zeros(len(told), bool)
    for at, each in enumerate(told):
        who = int(each["process"]), int(each["key"])
        keep[at] = who in begun
        if each["value"]:
            begun.add(who)
    return told[keep]


def darkness(changes: np.ndarray, fault: Happening, tail_ns: int) -> tuple[int | None, int | None]:
    """Return when, after its begin, a fault darkened the first shard, and when, after its end, the last was back."""
    near = changes[(changes["from_ns"] >= fault.from_ns) & (changes["from_ns"] <= fault.to_ns + tail_ns)]
    dark = near[near["value"] == 0]
    if not len(dark):
        return None, None
    darkened = {(int(each["process"]), int(each["key"])) for each in dark}
    back = [
        int(each["from_ns"]) for each in near
        if each["value"] == 1 and (int(each["process"]), int(each["key"])) in darkened
    ]  # fmt: skip
    return int(dark["from_ns"][0]) - fault.from_ns, max(max(back) - fault.to_ns, 0) if back else None
