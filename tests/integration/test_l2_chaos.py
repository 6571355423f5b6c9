"""Threads at work while their servers are killed, paused and cut off: late or no answers, never somebody else's."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver, Exchange, Reply
from support.lanes import endpoint_of
from support.redis import RedisServer
from support.waiting import wait_until

SEED = 20_240_611
SECONDS = 3.0


def test_answers_are_never_mixed_up_while_servers_fail(no_leaks: None, make_redis: Callable[..., RedisServer]) -> None:
    """Each answer is the one asked for; every error says that the shard is unavailable; afterwards all is well."""
    print("seed", SEED)
    servers = [make_redis(), make_redis()]
    driver = Driver([endpoint_of(server, str(n)) for n, server in enumerate(servers)], timeout_s=0.3, pool_size=4)
    end = time.monotonic() + SECONDS
    wrong: list[object] = []
    counts = {"answers": 0, "errors": 0}

    def work(number: int) -> None:
        chance = random.Random(SEED + number)
        while time.monotonic() < end:
            marks = [b"%d:%d:" % (number, chance.getrandbits(32)) + bytes(chance.choice((0, 0, 0, 200_000)))] * 2
            shards = chance.choice(([0], [1], [0, 1], [1, 0]))
            replies = driver.execute([Exchange(shard, [("ECHO", mark) for mark in marks]) for shard in shards])
            for reply in replies:
                if isinstance(reply, Reply) and reply.values == marks:
                    counts["answers"] += 1
                elif isinstance(reply, ShardUnavailableError) or broken_off(reply, marks):
                    counts["errors"] += 1
                else:
                    wrong.append(reply)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    torment(servers, end)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert counts["answers"] > 100
    assert counts["errors"] > 0
    ping = [Exchange(shard, [("PING",)]) for shard in range(2)]
    wait_until(lambda: all(isinstance(reply, Reply) for reply in driver.execute(ping, timeout_s=1.0)), timeout=2.5)
    assert [driver.status(shard).in_use for shard in range(2)] == [0, 0]
    assert all(driver.status(shard).connections <= 4 for shard in range(2))
    driver.close()


def broken_off(reply: object, marks: list[bytes]) -> bool:
    """The connection ended after the first answer, which is the right one."""
    if not isinstance(reply, Reply) or len(reply.values) != len(marks):
        return False
    return bool(reply.values[0] == marks[0]) and isinstance(reply.values[1], ShardUnavailableError)


def torment(servers: list[RedisServer], end: float) -> None:
    """Do harm to the servers until then, and leave them running."""
    chance = random.Random(SEED)
    while time.monotonic() < end:
        server = chance.choice(servers)
        harm = chance.choice(("kill", "pause", "cut", "cut"))
        if harm == "kill":
            server.kill()
            time.sleep(0.05)
            server.start()
        elif harm == "pause":
            server.pause()
            time.sleep(0.4)
            server.resume()
        else:
            server.cli("CLIENT", "KILL", "TYPE", "normal")
        time.sleep(0.1)
