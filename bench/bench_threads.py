"""Hits per second of one thread and of two, against ``functools.lru_cache`` and ``dict``, in one run.

    python bench/bench_threads.py [--keys 10000] [--rounds 15] [--threads 2] [--reads 200000]

Of interest on a free-threaded build; with a GIL it shows that threads add nothing. Three ways to share a cache:

own      each thread reads keys of its own, made by it, with values made by it; only the cache is common
shared   all threads read the same key objects and the same values
mixed    as own, nine reads to one write

``x[key]`` is what one writes. Where the interpreter counts a reference to ``x`` each time the loop names it (CPython
3.13 does), threads contend for that count whatever the cache does, so ``get(key)`` calls a bound method of the thread's
own (a ``partial`` for lru_cache, whose writes are not its own and are not measured), and writes by another. The
contestants take turns, round by round, and the best round of each counts.

``counting in C`` has nothing to do with Python: each thread sums up bytes of its own. How that scales is what the
machine has to give at that time, and ``of possible`` says how much of it a contestant takes. ``the loop alone`` asks
nobody for anything. On a busy machine many short rounds (``--reads 10000 --rounds 1000``) find the moments at which
all processors are there: each thread stays on one (where the system lets it), and they begin when each of them has it.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import random
import sys
import sysconfig
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import nearcache

Loop = Callable[[list[Any], Any], None]
READS, READS_PER_WRITE = 200_000, 9
ALONE, COUNTING = "the loop alone", "counting in C"
BYTES = bytes(64) * READS  # what counting in C goes over: as long as a round needs, and no longer
ROUND_US = 30_000
TOGETHER_NS = 10_000_000


def by_subscript(keys: list[str], mapping: Any) -> None:
    for key in keys:
        mapping[key]


def by_call(keys: list[str], function: Callable[[str], object]) -> None:
    for key in keys:
        function(key)


def nothing(keys: list[str], _: object) -> None:
    for key in keys:
        key  # noqa: B018  # it is looked at, as in the other loops


def nothing_mixed(plan: list[tuple[tuple[str, ...], str, object]], _: object) -> None:
    for keys, written, value in plan:
        for key in keys:
            key  # noqa: B018
        written, value  # noqa: B018


def counting(items: list[Any], block: memoryview) -> None:
    zlib.crc32(block[: 64 * len(items)])


def mixed_by_call(plan: list[tuple[tuple[str, ...], str, object]], methods: tuple[Any, Any]) -> None:
    get, put = methods
    for keys, written, value in plan:
        for key in keys:
            get(key)
        put(written, value)


def mixed(plan: list[tuple[tuple[str, ...], str, object]], mapping: Any) -> None:
    for keys, written, value in plan:
        for key in keys:
            mapping[key]
        mapping[written] = value


@dataclass
class Contestant:
    """Something that holds all keys. ``bind`` gives each thread the object that its loop uses; ``bind_mixed`` the two
    that reading and writing by calls do."""

    name: str
    fill: Callable[[str, object], object]
    loop: Loop
    bind: Callable[[], Any]
    mixed: Loop = mixed
    bind_mixed: Callable[[], Any] | None = None


@dataclass
class Material:
    """What a thread goes over: made by that thread, since who made an object counts its references faster."""

    reads: list[str]
    plan: list[tuple[tuple[str, ...], str, object]] = field(default_factory=list)


def make_pairs(owner: str, count: int) -> list[tuple[str, object]]:
    return [(f"{owner}:{index:016d}", [index]) for index in range(count)]


def make_material(pairs: list[tuple[str, object]], count: int, rng: random.Random) -> Material:
    reads = [key for key, _ in pairs] * max(1, count // len(pairs))
    rng.shuffle(reads)
    step = READS_PER_WRITE
    plan = [(tuple(reads[start : start + step]), *rng.choice(pairs)) for start in range(0, len(reads), step + 1)]
    return Material(reads, plan)


class Crew:
    """Threads that live as long as the measurement, so that what they made stays theirs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.jobs: list[SimpleQueue[Callable[[], object] | None]] = [SimpleQueue() for _ in range(count)]
        self.results: SimpleQueue[Any] = SimpleQueue()
        self.threads = [
            threading.Thread(target=self._work, args=(number, jobs), daemon=True)
            for number, jobs in enumerate(self.jobs)
        ]
        for thread in self.threads:
            thread.start()

    def _work(self, number: int, jobs: SimpleQueue[Callable[[], object] | None]) -> None:
        if hasattr(os, "sched_setaffinity"):
            processors = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(threading.get_native_id(), {processors[number % len(processors)]})
        while (job := jobs.get()) is not None:
            try:
                self.results.put(job())
            except BaseException as error:
                self.results.put(error)

    def run(self, jobs: list[Callable[[], Any]]) -> list[Any]:
        """Give the first threads one job each; return what they return, in the order in which they end."""
        for queue, job in zip(self.jobs, jobs, strict=False):
            queue.put(job)
        results = [self.results.get() for _ in jobs]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def close(self) -> None:
        for jobs in self.jobs:
            jobs.put(None)
        for thread in self.threads:
            thread.join()


def methods(mapping: Any) -> tuple[Loop, Callable[[], Any]]:
    """How to read and write by calls alone."""
    return mixed_by_call, lambda: (mapping.get, mapping.__setitem__)


def readers(size: int) -> list[Contestant]:
    """The contestants for reading, each filled on its own."""
    plain: dict[str, object] = {}
    cache: Any = nearcache.open("memory://", maxsize=size, ttl=3600)
    source: dict[str, object] = {}
    memo = functools.lru_cache(maxsize=size)(source.__getitem__)

    def remember(key: str, value: object) -> None:
        source[key] = value
        memo(key)

    return [
        Contestant(COUNTING, lambda *_: None, counting, lambda: memoryview(BYTES), counting),
        Contestant(ALONE, lambda *_: None, nothing, lambda: None, nothing_mixed),
        Contestant("cache[key]", cache.__setitem__, by_subscript, lambda: cache),
        Contestant("get(key), of the cache", cache.__setitem__, by_call, lambda: cache.get, *methods(cache)),
        Contestant("dict[key]", plain.__setitem__, by_subscript, lambda: plain),
        Contestant("get(key), of a dict", plain.__setitem__, by_call, lambda: plain.get, *methods(plain)),
        Contestant("lru_cache(key)", remember, by_call, lambda: memo),
        Contestant("get(key), of lru_cache", remember, by_call, lambda: functools.partial(memo)),
    ]


def writers(size: int) -> list[Contestant]:
    """The contestants for reading and writing."""
    return [each for each in readers(size) if each.loop in (by_subscript, nothing, counting) or each.bind_mixed]


def start(contestants: list[Contestant], crew: Crew, count: int, reads: int, *, shared: bool) -> list[Material]:
    """Let each thread make its keys and put them into every contestant; one thread makes them for all if shared."""
    common = make_pairs("all", count)
    made: list[Material | None] = [None] * crew.count

    def prepare(number: int) -> None:
        pairs = common if shared else make_pairs(f"{number:03d}", count // crew.count)
        for contestant in contestants:
            for key, value in pairs:
                contestant.fill(key, value)
        made[number] = make_material(pairs, reads, random.Random(number))

    crew.run([functools.partial(prepare, number) for number in range(crew.count)])
    return [material for material in made if material is not None]


def timed(crew: Crew, contestant: Contestant, materials: list[Material], share: float, *, write: bool) -> float:
    """Run the loop in one thread for each material, over a share of it; return operations per microsecond."""
    barrier = threading.Barrier(len(materials))
    here: list[None] = []

    def job(material: Material) -> tuple[int, int, int]:
        loop: Loop = contestant.mixed if write else contestant.loop
        items: list[Any] = material.plan if write else material.reads
        items = items[: max(10, int(len(items) * share))]
        subject = contestant.bind_mixed() if write and contestant.bind_mixed else contestant.bind()
        barrier.wait()
        here.append(None)
        patience = time.perf_counter_ns() + TOGETHER_NS
        while len(here) < len(materials) and time.perf_counter_ns() < patience:
            pass  # a thread that waits here has a processor, and keeps it
        begun = time.perf_counter_ns()
        loop(items, subject)
        return begun, time.perf_counter_ns(), len(items) * (READS_PER_WRITE + 1 if write else 1)

    results = crew.run([functools.partial(job, material) for material in materials])
    begun, ended = min(result[0] for result in results), max(result[1] for result in results)
    return sum(result[2] for result in results) / (ended - begun) * 1000


def affordable(crew: Crew, contestant: Contestant, materials: list[Material], *, write: bool) -> float:
    """The share of the material that takes about as long as a round should: locks may cost a thousand times a hit."""
    total = sum(len(material.reads) for material in materials)
    return min(1.0, ROUND_US * timed(crew, contestant, materials, 0.01, write=write) / total)


def measure(options: argparse.Namespace, *, shared: bool, write: bool) -> dict[str, tuple[float, float]]:
    """For each contestant the best throughput of one thread, and of all together."""
    crew = Crew(options.threads)
    try:
        contestants = writers(options.keys) if write else readers(options.keys)
        materials = start(contestants, crew, options.keys, options.reads, shared=shared)
        best = {each.name: (0.0, 0.0) for each in contestants}
        shares = {each.name: affordable(crew, each, materials, write=write) for each in contestants}
        for _ in range(options.rounds):
            for each in contestants:
                alone = timed(crew, each, materials[:1], 1.0, write=write)
                together = timed(crew, each, materials, shares[each.name], write=write)
                best[each.name] = (max(best[each.name][0], alone), max(best[each.name][1], together))
        return best
    finally:
        crew.close()


def report(title: str, best: dict[str, tuple[float, float]], threads: int) -> None:
    reference = best.get("lru_cache(key)", (0.0, 0.0))[1]
    together = f"{threads} threads"
    possible = best[COUNTING][1] / best[COUNTING][0]
    heading = f"{'1 thread':>12}{together:>12}{'scaling':>10}{'of possible':>13}{'to lru_cache':>14}"
    print(f"\n{title:26}{heading}    million per second")
    for name, (alone, all_of_them) in best.items():
        scaling = all_of_them / alone
        ratio = f"{all_of_them / reference:14.2f}" if reference else ""
        print(f"{name:26}{alone:12.1f}{all_of_them:12.1f}{scaling:10.2f}{scaling / possible:12.0%} {ratio}")


def build() -> str:
    """Which Python this is, and whether a GIL is in force."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        kind = "a build with a GIL: threads take turns"
    elif sys._is_gil_enabled():  # type: ignore[attr-defined]  # 3.13 has it
        kind = "a free-threaded build whose GIL was switched on: threads take turns"
    else:
        kind = "free-threaded, no GIL"
    return f"CPython {platform.python_version()}, {kind}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reads", type=int, default=READS, help="for each thread and round; at least one of each key")
    options = parser.parse_args()
    print(build())
    report("own", measure(options, shared=False, write=False), options.threads)
    report("shared", measure(options, shared=True, write=False), options.threads)
    report("mixed", measure(options, shared=False, write=True), options.threads)


if __name__ == "__main__":
    main()
