"""What ``await`` costs: hits of ``cache.aio`` against the synchronous hit, a coroutine over a dict, and cashews.

    python bench/bench_aio.py [--rounds 30]

prints nanoseconds per hit: minima over the rounds, with the loop around the call taken off, and their ratio to the
synchronous hit of the same rounds. Then the same for hits of L2 and batches of them, of keys that L1 does not hold
(dropped before, off the clock), where redis-py's asyncio client stands beside. Who is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import nearcache
from common.turns import in_turns, uncollected
from support.redis import RedisServer, find_binaries

KEYS = [f"product:{number:016}" for number in range(1000)]
#: The most that an awaited hit may cost, in synchronous hits.
WANTED = 5.0

Turn = Callable[[], Awaitable[None]]


async def main(rounds: int) -> None:
    """Print both tables."""
    with contextlib.closing(nearcache.open("memory://")) as cache:
        cache.set_many({key: [key] for key in KEYS})
        turns = hits(cache)
        turns |= await cashews_hits()
        spent = await best(turns, rounds)
    loop_ns = spent.pop("loop")
    base_ns = spent["cache.get, synchronous"] - loop_ns
    print(f"{'one hit in memory':34}{'ns':>10}{'x sync':>10}")
    for name, each_ns in spent.items():
        print(f"{name:34}{each_ns - loop_ns:10.1f}{(each_ns - loop_ns) / base_ns:10.2f}")
    ratio = (spent["await cache.aio.get"] - loop_ns) / base_ns
    print(
        f"an awaited hit: {ratio:.2f} synchronous ones, wanted at most {WANTED}: {'yes' if ratio <= WANTED else 'no'}\n"
    )
    with RedisServer(find_binaries()[0]) as server:
        await redis_hits(server, rounds)


def hits(cache: nearcache.Cache[str, Any]) -> dict[str, Turn]:
    """Return, by name, what goes once through all keys."""
    plain, view = dict.fromkeys(KEYS, 1), cache.aio

    async def look_up(key: str) -> int:
        return plain[key]

    async def loop() -> None:
        for _ in KEYS:
            pass

    async def synchronous() -> None:
        get = cache.get
        for key in KEYS:
            get(key)

    async def awaited() -> None:
        get = view.get
        for key in KEYS:
            await get(key)

    async def attribute() -> None:
        for key in KEYS:
            await cache.aio.get(key)

    async def loading() -> None:
        get = view.get_or_load
        for key in KEYS:
            await get(key)

    async def coroutine() -> None:
        for key in KEYS:
            await look_up(key)

    return {
        "loop": loop,
        "cache.get, synchronous": synchronous,
        "await cache.aio.get": awaited,
        "await cache.aio.get, cache looked up": attribute,
        "await cache.aio.get_or_load": loading,
        "await a coroutine over a dict": coroutine,
    }


async def cashews_hits() -> dict[str, Turn]:
    """Return the same for cashews, if it is there."""
    try:
        from cashews import Cache
    except ImportError:
        print("cashews is not installed")
        return {}
    cache = Cache()
    cache.setup("mem://?size=100000")
    for key in KEYS:
        await cache.set(key, [key], expire="1h")

    async def awaited() -> None:
        get = cache.get
        for key in KEYS:
            await get(key)

    return {"await cashews.Cache.get, mem://": awaited}


async def redis_hits(server: RedisServer, rounds: int) -> None:
    """Print what L2 costs by await."""
    client = redis.asyncio.Redis(unix_socket_path=server.path)
    with contextlib.closing(nearcache.open(server.url)) as cache:
        some, value = KEYS[:100], "x" * 100
        cache.set_many(dict.fromkeys(some, value))
        for key in some:
            await client.set(key, value)

        async def sync_each() -> None:
            for key in some:
                cache.get(key)

        async def each() -> None:
            for key in some:
                await cache.aio.get(key)

        async def client_each() -> None:
            for key in some:
                await client.get(key)

        def at_once(ask: Callable[[str], Awaitable[object]]) -> Turn:
            async def turn() -> None:
                await asyncio.gather(*map(ask, some))

            return turn

        async def many() -> None:
            await cache.aio.get_many(some)

        async def client_many() -> None:
            await client.mget(some)

        pairs = {
            "100 hits of L2, one by one": (client_each, each),
            "... by threads' means": (client_each, sync_each),
            "100 tasks at once": (at_once(client.get), at_once(cache.aio.get)),
            "... who write / SET": (
                at_once(lambda key: client.set(key, value, px=60_000)),
                at_once(lambda key: cache.aio.set(key, value, ttl=60)),
            ),
            "get_many of 100 / MGET": (client_many, many),
        }
        print(f"{'microseconds per key':34}{'redis-py':>10}{'nearcache':>11}{'ratio':>8}")
        for title, (theirs, ours) in pairs.items():
            spent = await best({"theirs": theirs, "ours": ours}, rounds, len(some), cache.drop_all)
            first, second = spent["theirs"] / 1e3, spent["ours"] / 1e3
            print(f"{title:34}{first:10.1f}{second:11.1f}{second / first:8.2f}", flush=True)
    await client.aclose()


async def best(
    turns: dict[str, Turn], rounds: int, each: int = len(KEYS), before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Return nanoseconds per key, minima over rounds in which all take turns; ``before`` each, off the clock."""
    spent = dict.fromkeys(turns, float("inf"))
    with uncollected():
        for name, turn in in_turns(turns, rounds):
            before()
            start = time.perf_counter_ns()
            await turn()
            spent[name] = min(spent[name], (time.perf_counter_ns() - start) / each)
    return spent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    asyncio.run(main(parser.parse_args().rounds))
