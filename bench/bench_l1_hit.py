"""What a hit costs, against ``dict`` and ``functools.lru_cache``, in one run.

    python bench/bench_l1_hit.py [--keys 10000] [--rounds 25]

24-character keys in random order. ``cache`` is what ``nearcache.open`` gives on two real shards, ``memory`` what it
gives for ``memory://``; ttl, recency, coherence checks and counters are on, and the listener runs. The contestants take
turns, round by round, and the minimum over the rounds counts, so that a disturbance hits one round of
everybody and not one of them. The loop's own cost is measured the same way and is shown subtracted ("net")
and included ("gross").
"""

from __future__ import annotations

import argparse
import functools
import random
import time
from collections.abc import Callable
from uuid import uuid4

import nearcache
from nearcache.embedded import EmbeddedServers


def loop(keys: list[str], _: object) -> None:
    for _key in keys:
        pass


def subscript(keys: list[str], mapping: dict[str, int]) -> None:
    for key in keys:
        mapping[key]


def get(keys: list[str], mapping: dict[str, int]) -> None:
    fetch = mapping.get
    for key in keys:
        fetch(key)


def get_method(keys: list[str], mapping: dict[str, int]) -> None:
    for key in keys:
        mapping.get(key)


def contains(keys: list[str], mapping: dict[str, int]) -> None:
    for key in keys:
        key in mapping  # noqa: B015


def call(keys: list[str], function: Callable[[str], int]) -> None:
    for key in keys:
        function(key)


def contestants(keys: list[str], url: str) -> dict[str, tuple[Callable[..., None], object]]:
    values = {key: index for index, key in enumerate(keys)}
    cache = nearcache.open(url, maxsize=len(keys), max_staleness=60.0)
    cache.set_many(values)
    memory = nearcache.open("memory://", maxsize=len(keys), ttl=3600)
    memory.update(values)
    assert len(cache) == len(memory) == len(keys)
    memo = functools.lru_cache(maxsize=len(keys))(values.__getitem__)
    for key in keys:
        memo(key)
    return {
        "loop": (loop, None),
        "dict[key]": (subscript, values),
        "cache[key]": (subscript, cache),
        "memory[key]": (subscript, memory),
        "dict.get": (get_method, values),
        "cache.get": (get_method, cache),
        "get = dict.get": (get, values),
        "get = cache.get": (get, cache),
        "in dict": (contains, values),
        "in cache": (contains, cache),
        "lru_cache": (call, memo),
    }


def measure(names: dict[str, tuple[Callable[..., None], object]], keys: list[str], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(names, float("inf"))
    for _ in range(rounds):
        for name, (run, subject) in names.items():
            start = time.perf_counter_ns()
            run(keys, subject)
            best[name] = min(best[name], (time.perf_counter_ns() - start) / len(keys))
    return best


def report(best: dict[str, float]) -> None:
    against = {
        "cache[key]": "dict[key]",
        "memory[key]": "dict[key]",
        "cache.get": "dict.get",
        "get = cache.get": "get = dict.get",
        "in cache": "in dict",
        "lru_cache": "dict[key]",
    }
    print(f"{'':18}{'gross ns':>10}{'net ns':>10}{'gross ratio':>13}{'net ratio':>11}")
    for name, gross in best.items():
        net = gross - best["loop"]
        line = f"{name:18}{gross:10.1f}{net:10.1f}"
        if name in against:
            base = best[against[name]]
            line += f"{gross / base:13.2f}{net / (base - best['loop']):11.2f}   against {against[name]}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    keys = [f"product:{index:016d}" for index in range(options.keys)]
    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 2) as servers:
        names = contestants(keys, "unix://" + ",".join(servers.sockets))
        order = keys * max(1, 100_000 // len(keys))
        random.Random(options.seed).shuffle(order)
        report(measure(names, order, options.rounds))


if __name__ == "__main__":
    main()
