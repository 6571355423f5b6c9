"""What a hit costs, against ``dict`` and ``functools.lru_cache``, in one run.

    python bench/bench_l1_hit.py [--keys 10000] [--rounds 25]

24-character keys in random order; ttl, recency, lane checks and counters are on. The contestants take
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

from nearcache._store import Store

NEVER = 2**63 - 1


class Cache(Store):
    """As the public cache does: a Python subclass with hooks, which leaves the slots of a hit alone."""

    def _missing(self, key: str) -> object:
        raise AssertionError(f"the benchmark missed {key}")

    _missing_in = _missing

    def _missing_get(self, key: str, default: object) -> object:
        raise AssertionError(f"the benchmark missed {key}")


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


def contestants(keys: list[str]) -> dict[str, tuple[Callable[..., None], object]]:
    values = {key: index for index, key in enumerate(keys)}
    cache = Cache(len(keys), ttl_ns=3600 * 10**9)
    cache.lane_vouch(0, NEVER)
    for key, value in values.items():
        cache[key] = value
    memo = functools.lru_cache(maxsize=len(keys))(values.__getitem__)
    for key in keys:
        memo(key)
    return {
        "loop": (loop, None),
        "dict[key]": (subscript, values),
        "cache[key]": (subscript, cache),
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
    names = contestants(keys)
    order = keys * max(1, 100_000 // len(keys))
    random.Random(options.seed).shuffle(order)
    report(measure(names, order, options.rounds))


if __name__ == "__main__":
    main()
