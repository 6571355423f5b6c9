"""The end of the demo: three phases side by side, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from . import board as layout
from . import histogram
from .job import NEARCACHE, NO_CACHE, REDIS, TIERS_OF
from .reading import Evidence, PhaseReading, WorkerReading
from .wording import NOTHING, columns, count, duration, factor, percent
from .workload import Key

_EVIDENCE_SHOWN = 3


def comparison(phases: Sequence[PhaseReading], bound_s: float) -> list[str]:
    """Return the phases as columns of one table."""
    together = {phase.name: phase.all for phase in phases}

    def row(title: str, of: Callable[[PhaseReading, WorkerReading], str]) -> list[str]:
        return [title, *(of(phase, together[phase.name]) for phase in phases)]

    def share(tier: int) -> Callable[[PhaseReading, WorkerReading], str]:
        return lambda phase, worker: percent(worker.share(tier)) if tier in TIERS_OF[phase.name] else NOTHING

    def lag(fraction: float) -> Callable[[PhaseReading, WorkerReading], str]:
        return lambda phase, worker: duration(histogram.percentile(worker.lag, fraction))

    rows = [
        ["", *(phase.name for phase in phases)],
        row("measured for", lambda phase, worker: f"{phase.seconds:.1f} s"),
        row("requests", lambda phase, worker: count(worker.requests)),
        row("requests per second", lambda phase, worker: count(worker.requests / phase.seconds)),
        row("hit ratio", lambda phase, worker: percent(worker.hit_ratio)),
        row("  answered by L1", share(layout.L1)),
        row("  answered by L2", share(layout.L2)),
        row("latency, half below (p50)", lambda phase, worker: duration(worker.latency(0.5))),
        row("latency, 99 % below (p99)", lambda phase, worker: duration(worker.latency(0.99))),
        row("loader calls", lambda phase, worker: count(worker.loads)),
        row("pages changed", lambda phase, worker: count(phase.changer.changes)),
        row("invalidation lag p50", lag(0.5)),
        row("invalidation lag p99", lag(0.99)),
        row("outdated reads", lambda phase, worker: count(worker.outdated)),
        row("  by, 99 % below", lambda phase, worker: duration(worker.outdated_by(0.99))),
        row("  by, at most", lambda phase, worker: duration(worker.oldest_ns if worker.outdated else None)),
        row(f"reads outdated by > {bound_s:g} s", lambda phase, worker: count(worker.too_old)),
    ]
    return columns(rows, indent="  ")


def gain(phases: Sequence[PhaseReading]) -> list[str]:
    """Return how many times the others' requests nearcache answered in the same time."""
    rates = {phase.name: phase.all.requests / phase.seconds for phase in phases}
    lines = [
        f"nearcache answered {factor(rates[NEARCACHE] / rates[other])} times as many requests per second as {other}."
        for other in (NO_CACHE, REDIS)
        if rates.get(other) and NEARCACHE in rates
    ]
    if any(phase.name == REDIS and phase.all.too_old for phase in phases):
        lines.append(
            "Redis alone kept old pages: a page that was being rendered while it changed was stored after the DEL."
        )
    return lines


def listing(counters: Mapping[str, int]) -> str:
    """Return counters in one line."""
    return ", ".join(f"{name} {total:,}" for name, total in counters.items())


def verdict(phase: PhaseReading, keys: Sequence[Key], bound_s: float) -> tuple[bool, list[str]]:
    """Return whether the phase kept the promise, and the words for it."""
    worker = phase.all
    if worker.too_old or worker.wrong:
        late = f"{count(worker.too_old)} of {count(worker.requests)} reads"
        lines = [f"FAILED: {late} returned a version superseded more than {bound_s:g} s before."]
        if worker.wrong:
            lines.append(f"{count(worker.wrong)} reads returned something that is not the page asked for.")
        for number, each in enumerate(phase.workers, 1):
            for item in each.evidence[:_EVIDENCE_SHOWN]:
                lines += _describe(number, item, keys)
        return False, lines
    if worker.outdated:
        oldest = f"The oldest was superseded {duration(worker.oldest_ns)} before the read began."
    else:
        oldest = "None was outdated at all."
    passed = f"PASSED: all {count(worker.requests)} reads were checked; none broke the bound of {bound_s:g} s."
    return True, [passed, oldest]


def _describe(number: int, item: Evidence, keys: Sequence[Key]) -> list[str]:
    what = (
        f"  worker {number} asked for {keys[item.page]!r}, got version {item.version}; the source has {item.current}."
    )
    began = f"The read began at {item.began_ns / 1e9:.6f} s"
    if not item.superseded_ns:
        return [what, f"    {began}. There never was such a version."]
    late = duration(item.began_ns - item.superseded_ns)
    return [what, f"    {began}, {late} after that version was superseded (at {item.superseded_ns / 1e9:.6f} s)."]
