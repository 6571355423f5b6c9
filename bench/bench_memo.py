"""``lru_cache``, ``ttl_cache`` and ``cache.cached`` against functools, cachetools and others: one call that hits.

First of a function of one argument, given by its place; then of a method of an object, of one whose class has a
``__cache_key__``, and by keyword.

python bench/bench_memo.py [--entries 10000] [--rounds 40]

All decorate the same function and get the same key objects in the same random order; they take turns, round by round.
The figure is the minimum over the rounds, the loop subtracted; the ratio is to ``functools.lru_cache``.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import nearcache
from common.turns import in_turns, uncollected

#: At most this, of functools' time, on a hit of a function of one argument.
WANTED = 0.9
#: At most this, of the time of cachebox' decorator, for that of a cache, whose results other processes may share.
WANTED_OF_CACHED = 0.5
#: The turn that asks nobody.
LOOP = "loop"


def identity(key: Any) -> Any:
    """What is decorated: next to nothing, for it is not called in what is timed."""
    return key


def decorators(maxsize: int) -> dict[str, Callable[[Any], Any]]:
    """Return what takes part, by name; who is not installed is named as absent."""
    found: dict[str, Callable[[Any], Any]] = {
        "functools.lru_cache": functools.lru_cache(maxsize),
        "nearcache.lru_cache": nearcache.lru_cache(maxsize),
        "nearcache.ttl_cache": nearcache.ttl_cache(maxsize, ttl=3600),
        "cache.cached": nearcache.open("memory://", maxsize=2 * maxsize, ttl=3600).cached,
    }
    makers: dict[str, tuple[str, Callable[[Any], Callable[[Any], Any]]]] = {
        "cachetools.func.lru_cache": ("cachetools.func", lambda m: m.lru_cache(maxsize)),
        "cachetools.func.ttl_cache": ("cachetools.func", lambda m: m.ttl_cache(maxsize, ttl=3600)),
        "cachebox.cached": ("cachebox", lambda m: m.cached(m.LRUCache(maxsize))),
        "lru-dict by hand": ("lru", lambda m: functools.partial(_by_hand, m.LRU(maxsize))),
    }
    for name, (module, make) in makers.items():
        try:
            found[name] = make(importlib.import_module(module))
        except ImportError:
            print(f"absent: {name} ({module} is not installed)")
    return found


def _by_hand(held: Any, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def remembered(key: Any) -> Any:
        value = held.get(key, held)
        if value is held:
            value = held[key] = function(key)
        return value

    return remembered


def _time(function: Callable[[Any], Any], keys: list[Any]) -> float:
    start = time.process_time_ns()
    for key in keys:
        function(key)
    return (time.process_time_ns() - start) / len(keys)


def _time_method(thing: Any, keys: list[Any]) -> float:
    start = time.process_time_ns()
    for key in keys:
        thing.method(key)
    return (time.process_time_ns() - start) / len(keys)


def _time_keyword(function: Callable[..., Any], keys: list[Any]) -> float:
    start = time.process_time_ns()
    for key in keys:
        function(key=key)
    return (time.process_time_ns() - start) / len(keys)


def _time_loop(keys: list[Any]) -> float:
    start = time.process_time_ns()
    for _ in keys:
        pass
    return (time.process_time_ns() - start) / len(keys)


def _as_method(decorate: Callable[[Any], Any]) -> Any:
    class Thing:
        @decorate
        def method(self, key: Any) -> Any:
            return key

    return Thing()


def _as_method_of_equals(decorate: Callable[[Any], Any]) -> Any:
    """The same of objects that are told apart by a number, each decorator in its own way."""

    class Thing:
        number = 7

        def __cache_key__(self) -> int:
            return self.number

        def __hash__(self) -> int:
            return hash(self.number)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Thing) and other.number == self.number

        @decorate
        def method(self, key: Any) -> Any:
            return key

    return Thing()


#: How it is called: what is made with a decorator, and what calls that.
WAYS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, list[Any]], float]]] = {
    "one argument": (lambda decorate: decorate(identity), _time),
    "a method": (_as_method, _time_method),
    "a method, __cache_key__": (_as_method_of_equals, _time_method),
    "by keyword": (lambda decorate: decorate(identity), _time_keyword),
}


def measure(keys: list[Any], rounds: int, way: str) -> dict[str, float]:
    """Return nanoseconds per hit, by name: minima, without the loop."""
    make, call = WAYS[way]
    contestants = {name: make(decorate) for name, decorate in decorators(len(keys)).items()}
    if way != "one argument":
        contestants.pop("lru-dict by hand", None)  # which takes one
    for function in contestants.values():
        call(function, keys)  # fills it
    turns: dict[str, Callable[[list[Any]], float]] = {LOOP: _time_loop}
    turns |= {name: functools.partial(call, function) for name, function in contestants.items()}
    best = dict.fromkeys(turns, float("inf"))
    with uncollected():
        for name, turn in in_turns(turns, rounds):
            best[name] = min(best[name], turn(keys))
    loop = best.pop(LOOP)
    return {name: value - loop for name, value in best.items()}


def main() -> int:
    """Measure, print, and say whether the aims are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    rng = random.Random(1)
    kinds: dict[str, list[Any]] = {
        "str of 24": [f"key:{number:020d}" for number in range(options.entries)],
        "int": [number * 7919 for number in range(options.entries)],
    }
    print(f"CPython {sys.version.split()[0]}, {options.entries:,} keys in random order, hits")
    texts, numbers = kinds
    for kind, way in [(texts, "one argument"), (numbers, "one argument"), *((texts, way) for way in [*WAYS][1:])]:
        keys = kinds[kind]
        rng.shuffle(keys)
        figures = measure(keys, options.rounds, way)
        base = figures["functools.lru_cache"]
        print(f"\n{f'{kind}, {way}':46} {'ns':>8} {'ratio':>7}")
        for name, value in figures.items():
            print(f"{name:46} {value:8.1f} {value / base:7.2f}")
        if way != "one argument":
            continue
        aims = [("nearcache.lru_cache", "functools.lru_cache", WANTED)]
        if "cachebox.cached" in figures:
            aims.append(("cache.cached", "cachebox.cached", WANTED_OF_CACHED))
        for ours, theirs, wanted in aims:
            ratio = figures[ours] / figures[theirs]
            print(f"aim: {ours} at most {wanted} of {theirs}: {ratio:.2f}, {'met' if ratio <= wanted else 'MISSED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
