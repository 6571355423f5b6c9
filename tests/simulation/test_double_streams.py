"""The streams of the Redis double against a real server: the same records, whatever their ids are."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from nearcache.errors import ServerReplyError
from nearcache.l2 import load_script
from simulation.database import Database
from simulation.scripting import RedisError
from simulation.test_double import LANE, Real
from support.lanes import envelope, wid
from support.redis import RedisServer

KEYS: Final = [b"sa", b"sb"]
STEPS: Final = 600
_QUEUE: Final = LANE.queue
#: Lifetimes: what has been left of them may differ.
_LIFE_MS: Final = 100_000


class Pair:
    """A server and the double, which give records different ids. Commands name them by those of the double."""

    def __init__(self, real: Real) -> None:
        self.real = real
        self.double = Database()
        seconds, microseconds = real.command((b"TIME",))
        self.double.now_ms = int(seconds) * 1000 + int(microseconds) // 1000  # and there it stays
        self.ids: dict[bytes, bytes] = {}  # the double's -> the server's

    def run(self, command: tuple[Any, ...]) -> None:
        """Have both carry out a command, and compare."""
        there = self.real.command(tuple(self._translated(word) for word in command))
        here = self.double.command(command)
        self._learn()
        if isinstance(here, RedisError) or isinstance(there, ServerReplyError):
            assert isinstance(here, RedisError), f"{command}: {there}, {here}"
            assert isinstance(there, ServerReplyError), f"{command}: {there}, {here}"
            return
        assert self._same(there, self._translated(here)), f"{command}: real {there!r}, double {here!r}"

    def _learn(self) -> None:
        """Which records are the same: those of both in their order."""
        for name in (_QUEUE, LANE.dead):
            there, here = (
                self.real.command((b"XRANGE", name, b"-", b"+")),
                self.double.command((b"XRANGE", name, b"-", b"+")),
            )
            assert len(there) == len(here)
            self.ids.update((mine[0], its[0]) for its, mine in zip(there, here, strict=True))

    def _translated(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._translated(each) for each in value]
        if isinstance(value, bytes) and value[:1] in (b"P", b"(") and value[1:] in self.ids:  # a mark, or a range's end
            return value[:1] + self.ids[value[1:]]
        return self.ids.get(value, value) if isinstance(value, bytes) else value

    def _same(self, there: Any, here: Any) -> bool:
        if isinstance(there, list) and isinstance(here, list):
            return len(there) == len(here) and all(map(self._same, there, here))
        if isinstance(there, int) and isinstance(here, int) and here > _LIFE_MS:  # what time it is
            return here <= there < here + _LIFE_MS
        if isinstance(there, int) and isinstance(here, int) and here > 1_000:
            return here - _LIFE_MS // 5 < there <= here
        return bool(there == here)


def _command(rng: random.Random, double: Database) -> tuple[Any, ...]:
    queue = double.data.get(_QUEUE)
    there = [b"%d-%d" % place for place in queue.records] if queue is not None else []
    dead = double.data.get(LANE.dead)
    letters = [b"%d-%d" % place for place in dead.records] if dead is not None else []
    record = rng.choice([*there[:4], b"1-1"])
    key, write, token = rng.choice(KEYS), wid(rng.getrandbits(40)), rng.choice([wid(1), wid(2)])
    held = double.data.get(LANE.lane_key) or {}
    generation = held.get(b"g", wid(7))
    mode = b"Q%d:" % rng.choice([3, 100]) + rng.choice([b"", b"", b"NX"])
    sealed = rng.choice([envelope(generation, key, write), envelope(generation, key, write), b""])
    nonce, one = wid(rng.getrandbits(40)), [LANE.value(key), LANE.lease(key)]

    def call(name: str, names: list[bytes], *arguments: bytes) -> tuple[Any, ...]:
        return load_script(name).call(names, [b"1", nonce, *arguments])

    life, after, wrote = b"%d" % _LIFE_MS, rng.choice([b"0", b">", record]), rng.choice([b"-", write])
    return rng.choice([
        call("set", [*one, _QUEUE, LANE.lane_key], write, generation, mode, life, sealed),
        call("set", [*one, _QUEUE, LANE.lane_key], write, generation, mode, life, sealed),
        call(
            "dequeue", [_QUEUE, LANE.owner, LANE.lane_key],
            token, life, rng.choice([b"0", b"2", b"500"]), rng.choice([b"1", b"4000000"]), after,
        ),
        call("written", [*one, _QUEUE, LANE.owner, LANE.lane_key], write, token, record, wrote, record),
        call("buried", [*one, _QUEUE, LANE.owner, LANE.dead, LANE.lane_key], write, token, b"why", b"3", record),
        call("requeue", [*one, LANE.dead, _QUEUE, LANE.lane_key], write, rng.choice([*letters[:3], b"1-1"])),
        call("lease", [*one, _QUEUE, LANE.lane_key], write, life, b""),
        call("abort", [LANE.value(b""), LANE.owner, LANE.lane_key], write, token),
        call("invalidate", [*one, LANE.lane_key], write),
        (b"UNLINK", LANE.value(key)),
        (b"XLEN", _QUEUE), (b"XLEN", LANE.lane_key), (b"XRANGE", _QUEUE, b"-", record, b"COUNT", b"1"),
        (b"XRANGE", _QUEUE, b"(" + record, b"+", b"COUNT", b"2"), (b"XREVRANGE", _QUEUE, b"+", b"-", b"COUNT", b"1"),
        (b"XDEL", _QUEUE, record), (b"XDEL", LANE.dead, b"1-1"), (b"GET", _QUEUE), (b"MGET", _QUEUE, LANE.value(key)),
        (b"XPENDING", _QUEUE, b"none", b"-", b"+", b"5"), (b"EXISTS", _QUEUE, LANE.owner),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_double_streams_answer_as_those_of_a_real_server(redis_server: RedisServer, seed: int) -> None:
    """Queues, their owners and dead letters: commands and scripts have the same answers, and leave the same."""
    print(f"seed {seed}")
    rng, real = random.Random(f"streams {seed}"), Real(redis_server)
    real.command((b"FLUSHALL",))
    pair = Pair(real)
    for _ in range(STEPS):
        pair.run(_command(rng, pair.double))
    for key in KEYS:
        pair.run((b"GET", LANE.lease(key)))
        pair.run((b"GET", LANE.value(key)))
    real.close()
