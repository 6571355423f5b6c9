"""Many keys at once, against redis-py's pipelines and against single calls, in one run.

    python bench/bench_batch.py [--rounds 25]

Keys of 100-byte texts on four servers; what is compared with nearcache gets the very same names on the very same
servers. **Reading**: four pipelines of GETs, one after the other, whose answers are thrown away; ``get_many`` of keys
that L1 does not hold (dropped before, off the clock), decoded and kept in L1. Then the same keys by single reads, in
one loop, and by twenty threads that share them. **Writing**: one pipeline of SETs with an expiry against ``set_many``
on one server, the numbering and publishing of invalidations included; this process's own listener receives them
meanwhile. **A slow shard**: what a reader of a quick shard's key waits while a ``get_many`` of all shards waits for a
stopped one.

Sides take turns, round by round; ratios are those of the minima, so that whatever else the machine does counts little.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import redis

import nearcache
from common.turns import in_turns, uncollected
from nearcache.embedded import EmbeddedServers

SHARDS = 4
READERS = 20
VALUE = "x" * 100
TTL_MS = 3_600_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", SHARDS) as servers:
        clients = [redis.Redis(unix_socket_path=path) for path in servers.sockets]
        with nearcache.open("unix://" + ",".join(servers.sockets), namespace="bench") as cache:
            print(f"{'milliseconds, minima':52}{'other':>10}{'nearcache':>11}{'ratio':>8}{'aim':>8}")
            for count in (100, 1000):
                compare_reads(cache, clients, count, rounds)
            slow_shard(cache, clients)
        for count in (100, 1000):
            compare_writes(f"unix://{servers.sockets[0]}", clients[0], count, rounds)
        for client in clients:
            client.close()


def compare_reads(cache: Any, clients: list[Any], count: int, rounds: int) -> None:
    """Print what reading so many keys takes."""
    keys = [f"key {number}" for number in range(count)]
    cache.set_many(dict.fromkeys(keys, VALUE))
    names = [
        [
            name
            for name in client.scan_iter("nc:{bench:0}:v:skey *", 1000)
            if name.partition(b":v:s")[2].decode() in keys
        ]
        for client in clients
    ]
    assert sum(map(len, names)) == count

    def pipelines() -> None:
        for client, own in zip(clients, names, strict=True):
            pipeline = client.pipeline(transaction=False)
            for name in own:
                pipeline.get(name)
            assert None not in pipeline.execute()

    def many() -> None:
        assert len(cache.get_many(keys)) == count

    def loop() -> None:
        for key in keys:
            cache[key]

    parts = [keys[number::READERS] for number in range(READERS)]
    with ThreadPoolExecutor(READERS) as pool:

        def threads() -> None:
            for _ in pool.map(lambda part: [cache[key] for key in part], parts):
                pass

        sides: dict[str, Callable[[], None]] = {
            f"{SHARDS} pipelines in turn": pipelines, "single reads, one loop": loop, f"{READERS} threads": threads,
        }  # fmt: skip
        ours, others = measure(many, list(sides.values()), rounds, cache.drop_all)
    for (title, _), other, aim in zip(sides.items(), others, ("<= 0.5", "<= 0.33", "<= 0.33"), strict=True):
        show(f"get_many({count}) over {SHARDS} shards / {title}", other, ours, aim)


def compare_writes(url: str, client: Any, count: int, rounds: int) -> None:
    """Print what writing so many keys takes."""
    values = {f"key {number}": VALUE for number in range(count)}
    names = [f"bare:{number:020}" for number in range(count)]  # as long as ours

    def pipeline() -> None:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.set(name, VALUE, px=TTL_MS)
        pipeline.execute()

    with nearcache.open(url, namespace="writes") as cache:
        ours, (theirs,) = measure(lambda: cache.set_many(values), [pipeline], rounds, lambda: None)
    show(f"set_many({count}) on one shard / one pipeline", theirs, ours, "<= 1.5")


def measure(
    ours: Callable[[], None], others: list[Callable[[], None]], rounds: int, before: Callable[[], Any]
) -> tuple[float, list[float]]:
    """Return the milliseconds that each side takes at least; ``before`` each, off the clock, something is prepared."""
    sides = {str(number): side for number, side in enumerate((ours, *others))}
    best = dict.fromkeys(sides, float("inf"))
    with uncollected():
        for name, side in in_turns(sides, rounds):
            before()
            start = time.perf_counter()
            side()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    first, *rest = best.values()
    return first, rest


def slow_shard(cache: Any, clients: list[Any]) -> None:
    """Print how long who wants a key of a quick shard waits for a bulk read of which another shard is stopped."""
    keys = [f"key {number}" for number in range(100)]
    cache.set_many(dict.fromkeys(keys, VALUE))
    slow = next(client for client in clients if any(client.scan_iter("nc:{bench:0}:v:skey 0", 1000)))
    held = {name.partition(b":v:s")[2].decode() for name in slow.scan_iter("nc:{bench:0}:v:skey *", 1000)}
    quick = [key for key in keys if key not in held]
    cache.selftest()  # a late message of what has just been stored would keep out of L1 what is read
    cache.drop_all()
    with stopped(slow.info("server")["process_id"]):
        bulk = threading.Thread(target=cache.get_many, args=(keys,))
        start = time.perf_counter()
        bulk.start()
        while len(cache.l1_hit_dict(quick, [])) < len(quick):
            assert bulk.is_alive()
            time.sleep(0.0005)
        took = (time.perf_counter() - start) * 1e3
    bulk.join()
    print(f"{'the quick shards keys in L1 while one is stopped':52}{'':10}{took:11.2f}")


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """A server that neither answers nor goes away."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def show(title: str, other: float, ours: float, aim: str) -> None:
    """Print one line."""
    print(f"{title:52}{other:10.2f}{ours:11.2f}{ours / other:8.2f}{aim:>8}", flush=True)


if __name__ == "__main__":
    main()
