"""The public cache on L2, against bare redis-py doing GET and SET on the same server, in one run.

    python bench/bench_cache.py [--rounds 40]

An L2 hit is ``cache[key]`` of a key that L1 does not hold (dropped before, outside of the measured time): PTTL and
GET, decoding, and storing in L1 included. A write is ``cache.set(key, value)``: encoding, one script that stores,
numbers and publishes, and storing in L1; this process's own listener receives every message meanwhile. Sides take
turns; medians count, and on a machine that others use too, minima.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis

import nearcache
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
    sides = list(zip(*[(theirs(), ours()) for _ in range(rounds)], strict=True))
    line = f"{title:20}"
    for pick in (statistics.median, min):
        bare, cached = map(pick, sides)
        line += f"{bare:12.1f}{cached:12.1f}{cached / bare:8.2f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 1) as servers:
        path = servers.sockets[0]
        with redis.Redis(unix_socket_path=path) as bare, nearcache.open(f"unix://{path}") as cache:
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

                def hits(keys: list[str] = keys) -> float:
                    cache.drop_all()
                    return timed(cache.__getitem__, keys)

                compare(f"L2 hit, {name}", lambda keys=keys: timed(bare.get, keys), hits, rounds)


if __name__ == "__main__":
    main()
