"""The short ways of scripts: where the commonest calls return early, they leave what the rest would have left."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from nearcache.l2 import Script, load_script
from nearcache.l2.scripts import NAMES
from simulation.database import Database
from simulation.scripting import RedisError
from simulation.test_double import LANE, Scripts, plain_command
from support.lanes import envelope, wid

#: What leads into a short way, and what keeps every call out of it.
LONG: Final = {
    b"if not m[1] or m[4] ~= ARGV[1] then\n": b"if true then\n",
    b"if n == 1 and #KEYS == 3 and ": b"if false and ",
    b"if found[1] and found[5] == ARGV[1] then return found end\n": b"\n",
    b"if not found[1] or found[3] ~= ARGV[1] then\n": b"if true then\n",
}
STEPS: Final = 1_500
V, MARK, GENERATION = LANE.value(b"sa"), LANE.lease(b"sa"), wid(7)


def the_long_way(script: Script) -> Script:
    """The script without its short ways."""
    source = script.source
    for short, long in LONG.items():
        source = source.replace(short, long)
    return Script(script.name, source, b"", script.repeatable)


def test_each_short_way_is_known_here() -> None:
    """Otherwise both sides of the comparison below would go the same way."""
    found = [sum(short in load_script(name).source for name in NAMES) for short in LONG]
    assert found == [len(NAMES) - 6, 1, 1, 1]
    unchanged = {name for name in NAMES if the_long_way(load_script(name)).source == load_script(name).source}
    assert unchanged == {"renew", "extend", "ring", "hurry"}


def one_write(scripts: Scripts) -> tuple[Any, ...]:
    """The commonest call, of a lane as it stands."""
    held = scripts.double.data.get(LANE.lane_key)
    fields = held if isinstance(held, dict) else {}
    key, write = scripts.rng.choice([b"sa", b"sb", b"i7"]), wid(scripts.rng.getrandbits(40))
    generation = fields.get(b"g", GENERATION)
    arguments = [write, generation, b"", b"300000", envelope(generation, key, write)]
    names = [LANE.value(key), LANE.lease(key), LANE.lane_key]
    return load_script("set").call(names, [fields.get(b"r", b"1"), wid(9), *arguments])


@pytest.mark.parametrize("seed", range(3))
def test_short_and_long_way_leave_the_same(seed: int) -> None:
    """Answers, errors, messages and data, whatever was there: leases, holds, other generations, a full server."""
    print(f"seed {seed}")
    rng, short, long = random.Random(f"short {seed}"), Database(), Database()
    scripts = Scripts(rng, short)
    for step in range(STEPS):
        short.now_ms = long.now_ms = 1_000 * step  # else all keys are on hold in the end, and nothing is stored
        if rng.random() < 0.02:
            short.full = long.full = not short.full
        kind = rng.random()
        command = plain_command(rng) if kind < 0.2 else one_write(scripts) if kind < 0.4 else scripts.draw()
        before, scripts.before = scripts.before, []
        for each in [*before, command]:
            other = (the_long_way(each[0]), *each[1:]) if isinstance(each[0], Script) else each
            here, there = short.command(each), long.command(other)
            assert _said(here) == _said(there), f"step {step}: {each}"
        assert short.published == long.published, f"step {step}: {command}"
        assert (short.data, short.expires) == (long.data, long.expires), f"step {step}: {command}"
    assert sum(payload.startswith(b"S ") for _, payload in short.published) > STEPS // 20


def _said(reply: Any) -> Any:
    # Where Lua itself fails, on a record that somebody has spoilt, the text names the line.
    return str(reply).split(" ", 1)[0] if isinstance(reply, RedisError) else reply


class Counted(Database):
    """A database that notes which commands a script runs."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def execute(self, name: bytes, words: list[bytes]) -> Any:
        """Carry it out, and note it."""
        self.ran.append(name.decode())
        return super().execute(name, words)

    def run(self, name: str, *arguments: bytes) -> list[str]:
        """Run a script on the key; return its commands."""
        names = [LANE.lane_key] if name == "heartbeat" else [V, MARK, LANE.lane_key]
        reply = self.command(load_script(name).call(names, [b"1", GENERATION, *arguments]))
        assert not isinstance(reply, RedisError), reply
        ran, self.ran = self.ran, []
        return ran


def test_commonest_calls_run_these_commands_and_no_others() -> None:
    """Each command costs a server more than all of Lua around it."""
    data = Counted()
    data.run("heartbeat")
    sealed = envelope(GENERATION, b"sa", wid(1))
    assert data.run("heartbeat") == ["PERSIST", "HMGET"]
    assert data.run("set", wid(1), GENERATION, b"", b"1000", sealed) == ["HMGET", "GET", "SET", "HSET", "PUBLISH"]
    assert data.run("lease", wid(2), b"1000", b"") == ["HMGET", "GETRANGE", "GET", "PTTL"]
    assert data.run("invalidate", wid(2)) == ["PERSIST", "HMGET", "GETRANGE", "UNLINK", "GET", "HSET", "PUBLISH"]
    assert data.run("lease", wid(3), b"1000", b"") == ["HMGET", "GETRANGE", "GET", "SET"]
    filled = data.run("fill", wid(4), GENERATION, wid(3), b"1000", sealed)
    assert filled == ["HMGET", "GET", "EXISTS", "SET", "UNLINK"]
