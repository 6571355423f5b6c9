"""Many seeds one after the other, or on all cores, until there have been so many events."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.runs import Outcome, Plan, simulate
from simulation.shrink import Shrunk, kind_of

_log = logging.getLogger("nearcache")
#: Seeds that a worker takes at a time.
_BATCH = 20


@dataclass
class Totals:
    """What a campaign came to.

    Attributes:
        seeds, events: How many there have been.
        calls: How many of the events were a client's calls of the cache.
        seconds: From the campaign's beginning.
        processor_s: Processor time, of all processes together.
    """

    seeds: int = 0
    events: int = 0
    calls: int = 0
    seconds: float = 0.0
    processor_s: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count one run."""
        self.seeds += 1
        self.events += outcome.events
        self.calls += outcome.calls
        self.rules.update(outcome.counts)
        self.faults.update(outcome.faults)
        if outcome.failed:
            self.failed.append((seed, kind_of(outcome)))

    def merge(self, other: Totals) -> None:
        """Count what a worker did."""
        self.seeds += other.seeds
        self.events += other.events
        self.calls += other.calls
        self.processor_s += other.processor_s
        self.rules.update(other.rules)
        self.faults.update(other.faults)
        self.failed += other.failed

    @property
    def progress(self) -> str:
        """One line about how far it is."""
        per_million = self.processor_s / self.events * 1e6 if self.events else 0.0
        return (
            f"{self.seconds:.0f} s: {self.events:,} events, {self.calls:,} calls, {self.seeds:,} seeds, "
            f"{len(self.failed)} failures, {per_million:.1f} s of processor time per million events"
        )

    def __str__(self) -> str:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(self.rules.items(), key=lambda each: each[0]))
        faults = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.faults.items()))
        rate = self.events / self.seconds if self.seconds else 0.0
        return (
            f"{self.seeds:,} seeds, {self.events:,} events ({self.calls:,} of them calls) in {self.seconds:.0f} s "
            f"({rate:,.0f} a second), "
            f"{sum(self.faults.values()):,} faults, {len(self.failed)} failures\n"
            f"rules looked at: {rules}\nfaults: {faults}"
        )


def run(first: int, events: int, *, shards: int | None = None) -> Totals:
    """Run seeds from the first one on until there have been so many events, in this process."""
    _prepare()
    totals, start, processor, seed = Totals(), time.perf_counter(), time.process_time(), first
    while totals.events < events and len(totals.failed) < 3:
        totals.add(seed, simulate(Plan.of(seed, shards)))
        seed += 1
        if seed % 50 == 0:
            gc.collect()
    totals.seconds = time.perf_counter() - start
    totals.processor_s = time.process_time() - processor
    return totals


def run_on_all_cores(
    first: int, events: int, *, seconds: float = float("inf"), failures: int = 1, cores: int | None = None
) -> Iterator[Totals]:
    """The same with a process per core; yields the totals so far, now and then.

    Args:
        seconds: End after so long, too.
        failures: End when so many seeds have failed.
        cores: How many processes; None: one per core.
    """
    totals, start = Totals(), time.perf_counter()
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores, maxtasksperchild=50) as pool:
        starts = iter(range(first, 1 << 62, _BATCH))
        waiting = [pool.apply_async(_batch, (next(starts),)) for _ in range(2 * cores)]
        while totals.events < events and totals.seconds < seconds and len(totals.failed) < failures:
            totals.merge(waiting.pop(0).get())
            waiting.append(pool.apply_async(_batch, (next(starts),)))
            totals.seconds = time.perf_counter() - start
            yield totals
        pool.terminate()


def _prepare() -> None:
    """What has been imported is not searched for rubbish again and again, nor is a run that is not over.

    And nobody reads what the caches log of their faults, of which a campaign is made.
    """
    if not _log.handlers:
        _log.addHandler(logging.NullHandler())
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _batch(first: int) -> Totals:
    _prepare()
    totals, start = Totals(), time.process_time()
    for seed in range(first, first + _BATCH):
        totals.add(seed, simulate(Plan.of(seed)))
    totals.processor_s = time.process_time() - start
    return totals


def explain(seed: int, shards: int | None = None) -> str:
    """What is wrong with a seed: the smallest trace, and the command that shows it again."""
    plan = Plan.of(seed, shards)
    outcome = simulate(plan)
    if not outcome.failed:
        return f"seed {seed} does not fail"
    shrunk = Shrunk(plan, outcome)
    lines = shrunk.outcome.lines[-60:]
    if shrunk.outcome.crash is not None:
        lines += traceback.format_exception(shrunk.outcome.crash)
    return "\n".join(
        [
            f"seed {seed}: {outcome.violation or outcome.crash!r}",
            f"left of it: {len(shrunk.operations)} operations, {len(shrunk.faults)} faults",
            *lines,
            f"replay: {shrunk.command()}",
        ]
    )
