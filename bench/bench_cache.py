"""The public cache on L2, against bare redis-py doing GET and SET on the same server, in one run.

    python bench/bench_cache.py [--rounds 40]

An L2 hit is ``cache[key]`` of a key that L1 does not hold: PTTL and GET, decoding, and storing in L1 included. L1 was
emptied before, outside of the measured time; or it is full with half of the keys, which are read in turn, so that each
hit evicts another. GET lets go of its value at once, where L1 keeps it; in the rows that say so GET's values are kept
in a dict, which is emptied, or bounded, as L1 is.

A write is ``cache.set(key, value)``: encoding, one script that stores, numbers and publishes, and storing in L1; this
process's own listener receives every message meanwhile. Sides take turns; medians count, and on a machine that others
use too, minima.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import redis

import nearcache
from common.turns import in_turns, uncollected
from nearcache.embedded import EmbeddedServers

CALLS = 50
PAYLOADS = {"100 B": "x" * 100, "1 KB": "x" * 1_000, "100 KB": "x" * 100_000}


def timed(call: Callable[[Any], Any], arguments: list[Any]) -> float:
    """Microseconds per call."""
    start = time.perf_counter_ns()
    for argument in arguments:
        call(argument)
    return (time.perf_counter_ns() - start) / 1000 / len(arguments)


def compare(title: str, theirs: Callable[[], float], ours: Callable[[], float], rounds: int) -> None:
    """Let both sides take turns; print the medians and their ratio, and the same of the minima."""
    theirs(), ours()
    sides = {"theirs": theirs, "ours": ours}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    with uncollected():
        for name, side in in_turns(sides, rounds):
            spent[name].append(side())
    line = f"{title:20}"
    for pick in (statistics.median, min):
        bare, cached = map(pick, spent.values())
        line += f"{bare:12.1f}{cached:12.1f}{cached / bare:8.2f}"
    print(line, flush=True)


class Kept:
    """GET that keeps what it gets, of the last keys."""

    def __init__(self, get: Callable[[str], Any], most: int) -> None:
        self.get, self.most = get, most
        self.values: dict[str, Any] = {}

    def __call__(self, key: str) -> None:
        self.values[key] = self.get(key)
        if len(self.values) > self.most:
            del self.values[next(iter(self.values))]


def compare_hits(name: str, bare: redis.Redis, cache: Any, full: Any, rounds: int) -> None:
    """Read all keys, in the four ways that the module tells of. ``full``: a cache that has room for half of them."""
    keys = [f"key {n}" for n in range(CALLS)]
    kept, bounded = Kept(bare.get, CALLS), Kept(bare.get, CALLS // 2)

    def emptied(side: Any, reset: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            reset()
            return timed(side, keys)

        return run

    before = full.stats().l2.hits
    get, after = partial(timed, bare.get, keys), emptied(cache.__getitem__, cache.drop_all)
    evicting = partial(timed, full.__getitem__, keys)
    compare(f"L2 hit, {name}", get, after, rounds)
    compare("  GET keeps too", emptied(kept, kept.values.clear), after, rounds)
    compare("  L1 full", get, evicting, rounds)
    compare("  L1 full, GET keeps", partial(timed, bounded, keys), evicting, rounds)
    if full.stats().l2.hits - before != 2 * (rounds + 1) * CALLS:
        raise SystemExit("not all of that were L2 hits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 1) as servers:
        path = servers.sockets[0]
        url = f"unix://{path}"
        with redis.Redis(unix_socket_path=path) as bare, nearcache.open(url) as cache:
            print(
                f"{'microseconds':20}"
                + "".join(f"{'redis-py':>12}{'nearcache':>12}{how:>8}" for how in ("median", "min"))
            )
            for name, value in PAYLOADS.items():
                keys = [f"key {n}" for n in range(CALLS)]
                compare(
                    f"write, {name}",
                    lambda value=value, keys=keys: timed(lambda key: bare.set(key, value, px=3_600_000), keys),
                    lambda value=value, keys=keys: timed(lambda key: cache.set(key, value), keys),
                    rounds,
                )
                with nearcache.open(url, maxsize=CALLS // 2, policy="lru") as full:
                    compare_hits(name, bare, cache, full, rounds)


if __name__ == "__main__":
    main()
