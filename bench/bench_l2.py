"""L2 against bare redis-py, in one run: the driver's reads, writes and batches.

    python bench/bench_l2.py [--rounds 15]

starts two servers and prints one line per comparison: medians of both sides and their ratio. The sides take turns in
short rounds, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from common.turns import in_turns, uncollected
from nearcache.errors import ShardError
from nearcache.l2 import Driver, Exchange, Reply, load_script, stage
from nearcache.loading.replies import STORED, answer
from nearcache.options import Endpoint
from nearcache.placement import lane_prefix
from support.redis import RedisServer, find_binaries

PREFIX = lane_prefix("bench")
NONCE = b"%016x" % 1
SIZES = (100, 1_000, 100_000)
TTL_MS = 3_600_000


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(RedisServer(find_binaries()[0])) for _ in range(2)]
        clients = [redis.Redis(unix_socket_path=server.path) for server in servers]
        driver = Driver([Endpoint(str(number), path=server.path) for number, server in enumerate(servers)])
        for client in clients:
            stack.callback(client.close)
        stack.callback(driver.close)
        driver.execute([Exchange(shard, [beat()]) for shard in range(2)])
        print(f"{servers[0].binary.label}, redis-py {redis.__version__}, unix sockets, microseconds per call (median)")
        print(f"{'':34}{'redis-py':>10}{'nearcache':>11}{'ratio':>8}")
        for title, count, theirs, ours in comparisons(clients, driver):
            compare(title, count, theirs, ours, rounds)


def comparisons(
    clients: list[redis.Redis], driver: Driver
) -> Iterator[tuple[str, int, Callable[[], Any], Callable[[], Any]]]:
    """Yield title, calls per round, and the two sides; each side is checked once."""
    key = PREFIX + b"v:sread"
    for size in SIZES:
        value = envelope(size)
        count = 400 if size < 100_000 else 150
        clients[0].set(key, value, px=TTL_MS)
        read = [Exchange(0, [("PTTL", key), ("GET", key)])]
        assert answer(driver.execute(read)[0]).values[1] == clients[0].get(key) == value
        yield (
            f"GET / PTTL+GET, {size} B",
            count,
            lambda: clients[0].get(key),
            lambda r=read: driver.execute(r),
        )
        write = [Exchange(0, store([b"swrite"], value))]
        assert is_stored(driver.execute(write)[0])
        yield (
            f"SET PX / set script, {size} B",
            count,
            lambda v=value: clients[0].set("w", v, px=TTL_MS),
            lambda w=write: driver.execute(w),
        )
    yield from batches(clients, driver)


def batches(
    clients: list[redis.Redis], driver: Driver
) -> Iterator[tuple[str, int, Callable[[], Any], Callable[[], Any]]]:
    """Yield comparisons of many keys over two shards: pipelines of redis-py run one after the other."""
    for total in (10, 100, 1000):
        value = envelope(100)
        keys = [PREFIX + b"v:s%d" % number for number in range(total // 2)]

        def pipelines(keys: list[bytes] = keys) -> None:
            for client in clients:
                pipeline = client.pipeline(transaction=False)
                for key in keys:
                    pipeline.get(key)
                pipeline.execute()

        reads = [Exchange(shard, [c for key in keys for c in (("PTTL", key), ("GET", key))]) for shard in range(2)]

        def writes(keys: list[bytes] = keys, value: bytes = value) -> None:
            for client in clients:
                pipeline = client.pipeline(transaction=False)
                for key in keys:
                    pipeline.set(key, value, px=TTL_MS)
                pipeline.execute()

        names = [key[len(PREFIX) + 2 :] for key in keys]
        stores = [Exchange(shard, store(names, value)) for shard in range(2)]
        assert all(map(is_stored, driver.execute(stores)))
        yield f"get {total} keys, 2 shards", max(2, 4000 // total), pipelines, lambda r=reads: driver.execute(r)
        yield f"set {total} keys, 2 shards", max(2, 4000 // total), writes, lambda s=stores: driver.execute(s)


def is_stored(reply: Reply | ShardError) -> bool:
    """Whether the script of a write says so: its text begins with the status."""
    return int(answer(reply).values[-1].partition(b" ")[0]) == STORED


def compare(title: str, count: int, theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> None:
    """Print one line."""
    sides = {"theirs": theirs, "ours": ours}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    with uncollected():
        for name, side in in_turns(sides, rounds):
            start = time.perf_counter()
            for _ in range(count):
                side()
            spent[name].append((time.perf_counter() - start) / count * 1e6)
    first, second = map(statistics.median, spent.values())
    print(f"{title:34}{first:10.1f}{second:11.1f}{second / first:8.2f}", flush=True)


def envelope(size: int) -> bytes:
    """Return an envelope of the lane's generation with this much payload."""
    return b"\xc1\0\1\0" + bytes.fromhex((NONCE * 2).decode()) + bytes(16) + bytes(size)


def beat() -> Any:
    """The command that makes the lane's record."""
    return load_script("heartbeat").call([PREFIX + b"L"], [1, NONCE])


def store(names: list[bytes], value: bytes) -> list[Any]:
    """The commands that write the value under each name."""
    before, staging, envelopes = stage(PREFIX, NONCE, [value] * len(names))
    keys = [PREFIX + kind + name for kind in (b"v:", b"l:") for name in names]
    arguments = [1, NONCE, NONCE, NONCE, "", TTL_MS, *envelopes]
    return [*before, load_script("set").call([*keys, *staging, PREFIX + b"L"], arguments)]


if __name__ == "__main__":
    main()
