"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .faults import BY_NAME, TOPOLOGIES


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        topology: Which servers.
        seconds: Time during which there are faults.
        workers: Number of processes.
        threads: Of each.
        keys: Number of keys.
        calls_per_s: Of each thread.
        bound_s: ``max_staleness``.
        timeout_s: Of calls.
        seed: Of the faults and of what the workers do.
        only: Kinds of faults; empty: all.
        mute: Sabotage: values are deleted behind nearcache's back, which must be found out.
        out: Where the picture and what was found go.
    """

    topology: str
    seconds: float
    workers: int
    threads: int
    keys: int
    calls_per_s: float
    bound_s: float
    timeout_s: float
    seed: int
    only: tuple[str, ...]
    mute: bool
    out: Path


def parse(arguments: Sequence[str]) -> Options:
    """Return the options; exits with status 2 and a message if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="chaos",
        description="Break everything around processes that use nearcache, record every call, and judge the history. "
        "Exit status: 0 nothing found, 1 a promise was broken, 2 wrong usage, 3 other trouble.",
    )
    add = parser.add_argument
    add("--topology", choices=TOPOLOGIES, default="single", help="which servers (default single)")
    add("--minutes", type=float, default=2.0, help="time with faults (default 2)")
    add("--seconds", type=float, help="the same in seconds")
    add("--workers", type=int, default=4, help="processes (default 4)")
    add("--threads", type=int, default=3, help="threads of each (default 3)")
    add("--keys", type=int, default=400, help="keys (default 400)")
    add("--rate", type=float, default=300.0, help="calls per second of each thread (default 300)")
    add("--max-staleness", type=float, default=1.0, help="the bound B, in seconds (default 1)")
    add("--timeout", type=float, default=0.5, help="of nearcache's calls, in seconds (default 0.5)")
    add("--seed", type=int, default=1, help="of the faults and of what workers do (default 1)")
    add("--only", action="append", default=[], choices=sorted(BY_NAME), metavar="KIND", help="only this kind of fault")
    add("--mute", action="store_true", help="delete values behind nearcache's back: the judge must find out")
    add("--out", type=Path, default=Path("build/chaos"), help="directory for the picture (default build/chaos)")
    given = parser.parse_args(arguments)
    seconds = given.minutes * 60 if given.seconds is None else given.seconds
    if not 1 <= seconds <= 86_400 or not 1 <= given.workers <= 64 or not 1 <= given.threads <= 100:
        parser.error("give 1 second to a day, 1 to 64 workers, 1 to 100 threads")
    if not 1 <= given.keys <= 100_000 or not 1 <= given.rate <= 100_000 or not 0.1 <= given.max_staleness <= 60:
        parser.error("give 1 to 100,000 keys and calls per second, and a bound of 0.1 to 60 seconds")
    if given.mute and given.topology not in ("single", "shards"):
        parser.error("--mute needs the topology single or shards")
    return Options(
        topology=given.topology, seconds=seconds, workers=given.workers, threads=given.threads, keys=given.keys,
        calls_per_s=given.rate, bound_s=given.max_staleness, timeout_s=given.timeout, seed=given.seed,
        only=tuple(given.only), mute=given.mute, out=given.out,
    )  # fmt: skip
