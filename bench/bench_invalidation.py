"""Write in one process, gone in another: how long the other one's L1 still serves the old value.

Two processes on one machine share CLOCK_MONOTONIC. The writer notes the instant *before* it writes (so the time
includes the write's own round trip) and the instant when the write was acknowledged; the reader polls its L1 and notes
when the copy is gone. The polling pause is part of what is measured: it makes the figures larger, never smaller.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

ROUNDS = 1500
POLL_S = 0.00002

_READER = f"""
import json, sys, time
import nearcache
cache = nearcache.open(sys.argv[1], namespace="bench")
gone = object()
print("ready", flush=True)
for line in sys.stdin:
    key = json.loads(line)
    value = cache[key]
    while cache.peek(key, gone) is gone:  # the message about the write before may have come in between
        value = cache[key]
    print(json.dumps("held"), flush=True)
    while cache.peek(key, gone) is value:
        time.sleep({POLL_S})
    print(json.dumps(time.monotonic_ns()), flush=True)
"""


class Reader:
    """The other process."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def ask(self, key: Any) -> None:
        """Make it read a key."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(key) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        return line if line == "ready" else json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def percentiles(samples: list[float]) -> dict[str, float]:
    """The usual ones."""
    ordered = sorted(samples)
    return {f"p{p:g}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 99, 99.9)}


def test_write_to_gone_elsewhere(benchmark: Any, shard_url: str, report: Any) -> None:
    """Milliseconds from before the write, and from its acknowledgement, to the copy being gone."""
    import nearcache

    cache = nearcache.open(shard_url, namespace="bench")
    reader = Reader(shard_url)
    from_start: list[float] = []
    from_ack: list[float] = []
    numbers = iter(range(10**9))

    def once() -> None:
        number = next(numbers)
        key = f"key {number % 100}"
        cache[key] = number
        reader.ask(key)
        assert reader.answer() == "held"
        time.sleep(0.0005)  # let it poll
        start = time.monotonic_ns()
        cache[key] = -number
        acknowledged = time.monotonic_ns()
        gone = reader.answer()
        from_start.append((gone - start) / 1e6)
        from_ack.append((gone - acknowledged) / 1e6)

    try:
        benchmark.pedantic(once, rounds=ROUNDS, warmup_rounds=50)
    finally:
        reader.close()
        cache.close()
    for name, samples in (("write started -> gone elsewhere", from_start), ("acknowledged -> gone", from_ack)):
        figures = percentiles(samples)
        report(f"{name}: " + ", ".join(f"{p} {value:.3f} ms" for p, value in figures.items()))
        benchmark.extra_info[name] = figures
