"""The live table, and the one-line form of it for output that is not a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from . import board as layout
from . import histogram
from .job import TIERS_OF
from .reading import PhaseReading, WorkerReading
from .wording import NOTHING, WIDTH, bar, columns, count, duration, fitting, percent

_PROCESS_HEAD = (
    "process", "requests", "per s", "from L1", "from L2", "loads", "p50", "p99", "lag p50", "lag p99", "oldest",
)  # fmt: skip
_TIER_NAMES = ("L1, a worker's memory", "L2, Redis", "the loader")


def live(
    reading: PhaseReading, number: int, phases: int, length_s: float, events: Sequence[str], width: int = WIDTH
) -> list[str]:
    """Return the table that is drawn again and again while a phase runs."""
    together = reading.all
    lines = [
        f"Phase {number} of {phases}: {reading.name}   {bar(reading.seconds / length_s)} "
        f"{min(reading.seconds, length_s):.0f} s of {length_s:.0f} s",
        "",
        *by_process(reading, width),
        "",
        *by_tier(together, TIERS_OF[reading.name]),
        "",
        changes(reading),
        *checked(together),
    ]
    if events:
        lines += ["", *events]
    return lines


def _share(worker: WorkerReading, tier: int, tiers: Sequence[int]) -> str:
    return percent(worker.share(tier)) if tier in tiers else NOTHING


def by_process(reading: PhaseReading, width: int) -> list[str]:
    """Return one row for each worker and one for all; on a narrow terminal, without what other lines say too."""
    named = [(f"worker {number}", worker) for number, worker in enumerate(reading.workers, 1)]
    named.append(("all", reading.all))
    tiers = TIERS_OF[reading.name]
    rows = [_PROCESS_HEAD, *(_process_row(name, worker, reading.seconds, tiers) for name, worker in named)]
    return fitting(rows, width, [_PROCESS_HEAD.index(name) for name in ("oldest", "from L2", "per s")])


def _process_row(name: str, worker: WorkerReading, seconds: float, tiers: Sequence[int]) -> tuple[str, ...]:
    return (
        name,
        count(worker.requests),
        count(worker.requests / seconds if seconds > 0 else None),
        _share(worker, layout.L1, tiers),
        _share(worker, layout.L2, tiers),
        count(worker.loads),
        duration(worker.latency(0.5)),
        duration(worker.latency(0.99)),
        duration(histogram.percentile(worker.lag, 0.5)),
        duration(histogram.percentile(worker.lag, 0.99)),
        duration(worker.oldest_ns if worker.outdated else None),
    )


def by_tier(worker: WorkerReading, tiers: Sequence[int]) -> list[str]:
    """Return one row for each tier that may answer."""
    rows = [("answered by", "requests", "share", "p50", "p99")]
    for tier in tiers:
        rows.append(
            (
                _TIER_NAMES[tier],
                count(worker.answered_by(tier)),
                percent(worker.share(tier)),
                duration(histogram.percentile(worker.tiers[tier], 0.5)),
                duration(histogram.percentile(worker.tiers[tier], 0.99)),
            )
        )
    return columns(rows)


def changes(reading: PhaseReading) -> str:
    """Return what the changer does, in one line."""
    changer = reading.changer
    text = f"changer: {count(changer.changes)} pages changed"
    if changer.retries:
        text += f", invalidations repeated {count(changer.retries)} times, longest wait {duration(changer.longest_ns)}"
    if changer.waiting:
        text += "; waits for a dead shard"
    return text


def checked(worker: WorkerReading) -> list[str]:
    """Return the state of the check; a second line only when there is real trouble."""
    text = f"checked: {count(worker.requests)} reads; outdated: {count(worker.outdated)}"
    if worker.outdated:
        text += f" (by at most {duration(worker.oldest_ns)})"
    text += f"; beyond the bound: {count(worker.too_old)}"
    trouble = [f"         {count(worker.wrong)} reads returned another page, {count(worker.errors)} raised an error"]
    return [text, *trouble * bool(worker.wrong or worker.errors)]


def plain(reading: PhaseReading, length_s: float) -> str:
    """Return the state of a phase in one line."""
    together = reading.all
    return (
        f"{reading.seconds:5.1f} of {length_s:.0f} s  {count(together.requests)} requests, "
        f"hits {percent(together.hit_ratio)} (L1 {percent(together.share(layout.L1))}), {count(together.loads)} loads, "
        f"p99 {duration(together.latency(0.99))}, {count(together.too_old)} too old"
    )
