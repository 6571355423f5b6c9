"""What the counters on the board mean: one phase, one process, or all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import board as layout
from . import histogram
from .board import histogram_in


@dataclass(frozen=True)
class Evidence:
    """One read that broke the promise.

    Attributes:
        page: Number of the page.
        version: The version that was returned; 0 when it was not this page at all.
        current: The version of the source when the read was judged.
        began_ns: When the read began.
        superseded_ns: When the version was superseded; 0 when the read was wrong in itself.
    """

    page: int
    version: int
    current: int
    began_ns: int
    superseded_ns: int


@dataclass(frozen=True)
class WorkerReading:
    """What one worker, or all of them, have done in a phase.

    Attributes:
        tiers: Histogram of latencies for each tier that answered.
        loads: Calls of the loader.
        outdated: Reads that returned a superseded version.
        too_old: Those beyond the bound.
        wrong: Reads that returned something that cannot be.
        errors: Reads that raised.
        oldest_ns: The most that any read was outdated by.
        staleness: Histogram of that.
        lag: Histogram of invalidation lags.
        evidence: Some of the reads that broke the promise.
    """

    tiers: list[list[int]]
    loads: int = 0
    outdated: int = 0
    too_old: int = 0
    wrong: int = 0
    errors: int = 0
    oldest_ns: int = 0
    staleness: list[int] = field(default_factory=lambda: [0] * histogram.SIZE)
    lag: list[int] = field(default_factory=lambda: [0] * histogram.SIZE)
    evidence: list[Evidence] = field(default_factory=list)

    @classmethod
    def from_slot(cls, slot: Sequence[int]) -> WorkerReading:
        """Return what a worker's slot says."""
        words = list(slot)
        kept = words[layout.EVIDENCES]
        rows = range(layout.EVIDENCE, layout.EVIDENCE + kept * layout.EVIDENCE_WORDS, layout.EVIDENCE_WORDS)
        return cls(
            tiers=[histogram_in(words, tier) for tier in range(len(layout.TIERS))],
            loads=words[layout.LOADS],
            outdated=words[layout.OUTDATED],
            too_old=words[layout.TOO_OLD],
            wrong=words[layout.WRONG],
            errors=words[layout.ERRORS],
            oldest_ns=words[layout.OLDEST_NS],
            staleness=histogram_in(words, layout.STALENESS),
            lag=histogram_in(words, layout.LAG),
            evidence=[Evidence(*words[at : at + layout.EVIDENCE_WORDS]) for at in rows],
        )

    @classmethod
    def together(cls, readings: Sequence[WorkerReading]) -> WorkerReading:
        """Return the sum of several workers' readings."""
        return cls(
            tiers=[histogram.merged([each.tiers[tier] for each in readings]) for tier in range(len(layout.TIERS))],
            loads=sum(each.loads for each in readings),
            outdated=sum(each.outdated for each in readings),
            too_old=sum(each.too_old for each in readings),
            wrong=sum(each.wrong for each in readings),
            errors=sum(each.errors for each in readings),
            oldest_ns=max((each.oldest_ns for each in readings), default=0),
            staleness=histogram.merged([each.staleness for each in readings]),
            lag=histogram.merged([each.lag for each in readings]),
            evidence=[item for each in readings for item in each.evidence],
        )

    @property
    def requests(self) -> int:
        """Reads that were answered."""
        return sum(histogram.total(counts) for counts in self.tiers)

    def answered_by(self, tier: int) -> int:
        """Return how many reads a tier answered."""
        return histogram.total(self.tiers[tier])

    def share(self, tier: int) -> float | None:
        """Return the part of all reads that a tier answered; None before the first."""
        return self.answered_by(tier) / self.requests if self.requests else None

    @property
    def hit_ratio(self) -> float | None:
        """The part of all reads that needed no loader; None before the first."""
        return (self.requests - self.answered_by(layout.LOADER)) / self.requests if self.requests else None

    def outdated_by(self, fraction: float) -> int | None:
        """Return a percentile of what outdated reads were outdated by."""
        edge = histogram.percentile(self.staleness, fraction)
        return None if edge is None else min(edge, self.oldest_ns)

    def latency(self, fraction: float) -> int | None:
        """Return a percentile of all reads' latencies."""
        return histogram.percentile(histogram.merged(self.tiers), fraction)


@dataclass(frozen=True)
class ChangerReading:
    """What the changer has done in a phase.

    Attributes:
        changes: Changes whose invalidation was acknowledged.
        retries: Invalidations that had to be repeated.
        given_up: Changes whose invalidation was never acknowledged.
        longest_ns: The longest time from a change to its acknowledgement.
        waiting: Whether it is repeating one now.
        acknowledged: Histogram of those times.
    """

    changes: int
    retries: int
    given_up: int
    longest_ns: int
    waiting: bool
    acknowledged: list[int]

    @classmethod
    def from_slot(cls, slot: Sequence[int]) -> ChangerReading:
        """Return what the changer's slot says."""
        words = list(slot)
        return cls(
            changes=words[layout.CHANGES],
            retries=words[layout.RETRIES],
            given_up=words[layout.GIVEN_UP],
            longest_ns=words[layout.LONGEST_NS],
            waiting=bool(words[layout.WAITING]),
            acknowledged=histogram_in(words, layout.L1),
        )


@dataclass(frozen=True)
class PhaseReading:
    """What a phase has shown so far, or in all.

    Attributes:
        name: Of the phase.
        seconds: How long it has run.
        workers: One reading for each worker.
        changer: The changer's.
    """

    name: str
    seconds: float
    workers: list[WorkerReading]
    changer: ChangerReading

    @property
    def all(self) -> WorkerReading:
        """All workers together."""
        return WorkerReading.together(self.workers)
