"""The Redis double against a real server: the same commands and scripts, the same answers, messages and data."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from nearcache.errors import ServerReplyError
from nearcache.l2 import Driver, Exchange, Reply, load_script
from nearcache.l2.scripts import NAMES, Script
from nearcache.placement import LaneNames, lane_prefix
from simulation.database import Database
from simulation.scripting import RedisError
from support.lanes import endpoint_of, envelope, wid
from support.redis import RedisServer

LANE: Final = LaneNames(lane_prefix("double"))
KEYS: Final = [b"sa", b"sb", b"i7"]
PLAIN: Final = [LANE.value(b"sa"), LANE.value(b"sb"), b"plain", b"other"]
STEPS: Final = 1_500
#: Milliseconds that a real server's clock may have gone on between two commands.
PAUSE_MS: Final = 20_000


class Real:
    """A real server's answers, in the double's terms."""

    def __init__(self, server: RedisServer) -> None:
        self.driver = Driver([endpoint_of(server)], timeout_s=5.0)
        self.pubsub = server.client().pubsub(ignore_subscribe_messages=True)
        self.pubsub.subscribe(LANE.channel)

    def command(self, command: tuple[Any, ...]) -> Any:
        """Carry out one command; an error is returned."""
        reply = self.driver.execute([Exchange(0, [command])])[0]
        assert isinstance(reply, Reply), reply
        return reply.values[0]

    def heard(self) -> list[bytes]:
        """The messages since the last call."""
        self.command((b"PUBLISH", LANE.channel, b"end"))
        found: list[bytes] = []
        while not found or found[-1] != b"end":
            message = self.pubsub.get_message(timeout=5)
            if message is not None:
                found.append(message["data"])
        return found[:-1]

    def close(self) -> None:
        """Close the connections."""
        self.pubsub.close()
        self.driver.close()


def plain_command(rng: random.Random) -> tuple[Any, ...]:
    """A command as steps and scripts use them, now and then one that fails."""
    key, other = rng.choice(PLAIN), rng.choice(PLAIN)
    lane = rng.choice([LANE.lane_key, b"hash", b"plain"])
    life = rng.choice([b"100000", b"500000", b"-1", b"0", b"x"])
    return rng.choice([
        (b"GET", key), (b"GET", lane), (b"MGET", key, other, lane), (b"STRLEN", key), (b"STRLEN", lane), (b"XLEN", key),
        (b"SET", key, rng.randbytes(rng.randrange(40))), (b"SET", key, b"v", b"PX", life),
        (b"SET", key, b"v", b"EX", b"100", b"NX"), (b"SET", key, b"v", b"XX"), (b"SET", key, b"v", b"PX"),
        (b"SET", key, b"v", b"NX", b"XX"), (b"PTTL", key), (b"PEXPIRE", key, life), (b"PERSIST", key),
        (b"PERSIST", lane), (b"EXISTS", key, other, key), (b"UNLINK", key, other), (b"DEL", key),
        (b"RENAME", key, other), (b"RENAME", lane, lane),
        (b"GETRANGE", key, str(rng.randrange(-45, 45)), str(rng.randrange(-45, 45))), (b"GETRANGE", lane, b"0", b"5"),
        (b"HSET", lane, rng.choice([b"a", b"s"]), rng.choice([b"1", b"x"])), (b"HSET", lane, b"a"),
        (b"HGET", lane, b"a"), (b"HMGET", lane, b"e", b"a", b"nothing"), (b"HDEL", lane, rng.choice([b"a", b"e"])),
        (b"HINCRBY", lane, b"s", rng.choice([b"1", b"-3", b"1.5"])), (b"NOTHING", key), (b"PING",), (b"GET",),
    ])  # fmt: skip


class Scripts:
    """Draws script calls whose arguments are sometimes right: ids and generations come from the lane as it stands."""

    def __init__(self, rng: random.Random, double: Database) -> None:
        self.rng = rng
        self.double = double
        self.tokens = [wid(1)]
        self.before: list[tuple[Any, ...]] = []  # commands to carry out first

    def draw(self) -> tuple[Any, ...]:
        """One call of one of the scripts."""
        rng = self.rng
        held = self.double.data.get(LANE.lane_key)
        held = held if isinstance(held, dict) else {}
        generation = held.get(b"g", wid(7)) if rng.random() < 0.8 else wid(rng.randrange(9))
        name = rng.choice(NAMES)
        keys = rng.sample(KEYS, rng.randint(1, len(KEYS)) if name in ("set", "invalidate") else 1)
        write = wid(rng.getrandbits(40))
        if name == "renew":
            return load_script(name).call([LANE.lease(keys[0])], [rng.choice(self.tokens[-4:]), b"300000"])
        arguments, keys, staging = self._arguments(name, keys, write, generation)
        names = [*map(LANE.value, keys), *map(LANE.lease, keys), *staging, LANE.lane_key]
        ring = rng.choice([b"1", b"2", b"3"]) if rng.random() < 0.05 else b"1"
        return load_script(name).call(names, [ring, wid(rng.getrandbits(40)), *arguments])

    def _arguments(self, name: str, keys: list[bytes], write: bytes, generation: bytes) -> tuple[Any, list[bytes], Any]:
        rng = self.rng
        staging = [LANE.prefix + b"s:1"] if rng.random() < 0.1 and name in ("set", "fill") else []
        envelopes = [envelope(generation, key, write) for key in keys]
        if staging:
            envelopes[0] = b""
            if rng.random() < 0.8:
                self.before.append((b"SET", staging[0], b"large", b"PX", b"100000"))
        token = rng.choice(self.tokens[-4:])
        if name == "set":
            mode = b"NX" if len(keys) == 1 and rng.random() < 0.3 else b""
            return [write, generation, mode, b"300000", *envelopes], keys, staging
        if name == "lease":
            self.tokens.append(write)
            return [write, b"60000", rng.choice([b"", b"", b"REPLACE"])], keys, []
        if name == "fill":
            return [write, generation, token, b"300000", *envelopes], keys, staging
        if name == "abort":
            return [write, token], keys, []
        if name == "invalidate":
            return [write, *rng.choice([(), (), (b"200000", token), (b"0", token)])], keys, []
        if name == "touch":
            return [write, rng.choice([b"100000", b"400000"]), rng.choice([b"-1", b"35"])], keys, []
        if name == "unchanged":
            held = self.double.data.get(LANE.value(keys[0]), b"")
            there = held[4:12].hex().encode() if isinstance(held, bytes) and rng.random() < 0.7 else wid(5)
            return [write, generation, token, there, b"300000"], keys, []
        if name == "take":
            return [write], keys, []
        if name == "adopt":
            return [write, wid(rng.randrange(3))], [], []
        return [write], [], []


def same(there: Any, here: Any, command: tuple[Any, ...]) -> bool:
    """Whether two answers are the same, but for the time that has passed and the words of an error."""
    if isinstance(here, RedisError) or isinstance(there, Exception):
        if not (isinstance(here, RedisError) and isinstance(there, ServerReplyError)):
            return False
        return str(here).split(" ", 1)[0] in str(there)  # Redis 6.2 puts a script's error into words of its own
    if isinstance(here, list) and isinstance(there, list):
        return len(there) == len(here) and all(same(a, b, command) for a, b in zip(there, here, strict=True))
    if isinstance(here, int) and isinstance(there, int) and here > 1_000:  # a lifetime
        return here - PAUSE_MS < there <= here
    return bool(there == here)


@pytest.mark.parametrize("seed", range(3))
def test_double_random_commands_answers_as_a_real_server(redis_server: RedisServer, seed: int) -> None:
    """Answers, errors, messages and what is left in the end are the same, with memory and without."""
    print(f"seed {seed}")
    rng, double, real = random.Random(f"double {seed}"), Database(), Real(redis_server)
    real.command((b"FLUSHALL",))
    scripts = Scripts(rng, double)
    for step in range(STEPS):
        if rng.random() < 0.02:
            double.full = not double.full
            real.command(("CONFIG", "SET", "maxmemory", "1" if double.full else "0"))
        command = plain_command(rng) if rng.random() < 0.4 else scripts.draw()
        before, scripts.before = scripts.before, []
        for each in [*before, command]:
            there, here = real.command(each), double.command(each)
            assert same(there, here, each), f"step {step}: {each}\nreal {there!r}\ndouble {here!r}"
    assert real.heard() == [payload for channel, payload in double.published if channel == LANE.channel]
    real.command(("CONFIG", "SET", "maxmemory", "0"))
    alive = [key for key in list(double.data) if double.live(key) is not None]
    assert sorted(real.command((b"KEYS", b"*"))) == sorted(alive)
    for key in list(double.data):
        held = double.data[key]
        found = real.command((b"HGETALL", key) if isinstance(held, dict) else (b"GET", key))
        if isinstance(held, dict):
            found = dict(zip(found[::2], found[1::2], strict=True))
        assert found == held
    real.close()


def test_double_nested_and_odd_replies_are_converted_as_redis_does(redis_server: RedisServer) -> None:
    """Numbers lose their fractions, nil ends an array, tables nest, errors and statuses are what they say."""
    real, double = Real(redis_server), Database()
    for text in (
        "return 3.99",
        "return {1, 'a', {2, {3}}, false, true}",
        "return {1, nil, 3}",
        "return redis.status_reply('FINE')",
        "return redis.error_reply('NCX reason')",
        "return true",
        "return false",
        "return redis.call('SET', 'odd', 1e15)",
        "return redis.call('GET', 'odd')",
        "return redis.call('HGET', 'odd', 'x')",
        "return nothing",
        "made = 1",
        "return redis.call('HMGET', 'none', 'a', 'b')",
        "return tostring(redis.pcall('HGET', 'odd', 'x').err ~= nil)",
    ):
        script = Script("odd", text.encode(), b"", False)
        there, here = real.command((script, 0)), double.command((script, 0))
        assert same(there, here, (script,)), f"{text}: real {there!r}, double {here!r}"
    real.close()
