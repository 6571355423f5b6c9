"""The demo's command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import job, pages

MOST_SECONDS = 90.0


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        seconds: Measured time of the three phases together.
        workers: Number of worker processes.
        shards: Number of Redis servers.
        seed: Of requests and changes.
        trace: Path of a trace, or None for pydoc pages.
        load_ms: Duration of the trace's synthetic loader.
        pages: Number of pydoc pages.
        l1_pages: Pages that one process's L1 holds; 0 means three quarters of all, or a fifth of a trace's keys.
        max_staleness: The bound, in seconds.
        changes_per_s: Pages changed per second.
        faults: Whether a shard is killed.
        invalidating: False to leave out every invalidation.
    """

    seconds: float
    workers: int
    shards: int
    seed: int
    trace: str | None
    load_ms: float
    pages: int
    l1_pages: int
    max_staleness: float
    changes_per_s: float
    faults: bool
    invalidating: bool

    def lengths(self) -> dict[str, float]:
        """Return how long each phase is measured: the more there is to see, the longer."""
        return {
            job.NO_CACHE: 0.15 * self.seconds,
            job.REDIS: 0.35 * self.seconds,
            job.NEARCACHE: 0.5 * self.seconds,
        }


def _number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:g} to {high:g}")
        return value

    parse.__name__ = "number"
    return parse


def parse(arguments: Sequence[str]) -> Options:
    """Return the options; exits with status 2 and a message if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Serve slow pages from several processes through nearcache, while pages change and a shard "
        "dies; check every read. Exit status: 0 all well, 1 a read broke the bound, 2 wrong usage, 3 other trouble.",
    )
    add = parser.add_argument
    add("--seconds", type=_number(float, 3, MOST_SECONDS), help="measured time, all phases together (default 60)")
    add("--workers", type=_number(int, 1, 64), default=4, help="worker processes (default 4)")
    add("--shards", type=_number(int, 1, 16), default=2, help="Redis servers (default 2)")
    add("--seed", type=int, default=1, help="of requests and changes (default 1)")
    add("--trace", metavar="FILE", help="replay an access trace: NAME.keys.u64.xz, NAME.start.u64.xz, NAME.tsv.xz")
    add("--load-ms", type=_number(float, 0, 1000), default=3.0, help="time of a trace's stand-in loader (default 3)")
    add("--l1-pages", type=_number(int, 1, 10**9), default=0, help="pages in one process's L1 (default: most of them)")
    add("--max-staleness", type=_number(float, 0.1, 60), default=2.0, help="the bound, in seconds (default 2)")
    add("--changes", type=_number(float, 0.1, 100), default=3.0, help="pages changed per second (default 3)")
    add("--no-faults", action="store_true", help="do not kill a shard")
    add("--no-invalidation", action="store_true", help="claim invalidations but make none: the check must fail")
    add("--quick", action="store_true", help="few pages and short phases: about 15 s in all")
    given = parser.parse_args(arguments)
    return Options(
        seconds=given.seconds or (10.0 if given.quick else 60.0),
        workers=given.workers,
        shards=given.shards,
        seed=given.seed,
        trace=given.trace,
        load_ms=given.load_ms,
        pages=pages.PAGES // 4 if given.quick else pages.PAGES,
        l1_pages=given.l1_pages,
        max_staleness=given.max_staleness,
        changes_per_s=given.changes,
        faults=not given.no_faults,
        invalidating=not given.no_invalidation,
    )
