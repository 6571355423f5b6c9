"""An invalidation from a shell, by the real redis-cli: every L1 obeys."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import nearcache
from nearcache import wire
from nearcache.l2 import scripts
from support.lanes import envelope
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(scripts.__file__).parent
FILE = SCRIPTS / "cli_invalidate.lua"

pytestmark = pytest.mark.every_server

READER = """
import nearcache
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def get(key):
    return cache.get(key)
def held(key):
    return cache.peek(key)
def gaps():
    return cache.stats().coherence.gaps
"""


def find_cli(server: RedisServer) -> str:
    """Return the redis-cli of this server, or the one on PATH."""
    folder = Path(server.binary.path).resolve().parent
    beside = [folder / name for name in ("redis-cli", "valkey-cli")]
    found = [str(path) for path in beside if path.exists()]
    found += [path for path in map(shutil.which, ("redis-cli", "valkey-cli")) if path]
    if not found:
        pytest.fail(f"no redis-cli beside {server.binary.path} or on PATH: install redis-tools")
    return found[0]


def run_cli(server: RedisServer, *words: str) -> str:
    """Run redis-cli against the server and return what it prints."""
    where = ["-s", server.path] if server.transport == "unix" else ["-h", server.host, "-p", str(server.port)]
    command = [find_cli(server), "--no-auth-warning", *where, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def test_file_is_prelude_and_script_in_one() -> None:
    """It cannot drift from what nearcache itself sends: behind a heading that changes nothing it is the same text."""
    text = FILE.read_bytes()
    heading = text.removesuffix(scripts.load("invalidate").source)
    assert heading != text
    assert b"call" not in heading


_GOOD = ["nc:{shop:0}:v:sk", "nc:{shop:0}:l:sk", "nc:{shop:0}:L", ",", "1", "00000000000000a1", "00000000000000a2"]


_MISTYPED: list[tuple[list[str], str]] = [
    ([], "the last key is the lane record"),
    ([*_GOOD[:3], *_GOOD[4:]], "the last key is the lane record"),  # the comma was forgotten
    ([_GOOD[0], _GOOD[1], *_GOOD[3:]], "the last key is the lane record"),
    ([*_GOOD[1:]], "as many marks"),
    ([_GOOD[0], *_GOOD[2:]], "as many marks"),
    ([*_GOOD[2:]], "as many marks"),
    ([_GOOD[1], _GOOD[0], *_GOOD[2:]], "not the name of a value on this lane"),
    (["nc:{shop:0}:v:k", "nc:{shop:0}:l:k", *_GOOD[2:]], "ssku:1 for sku:1"),  # no tag in front of the key
    (["nc:{other:0}:v:sk", "nc:{other:0}:l:sk", *_GOOD[2:]], "not the name of a value on this lane"),
    ([_GOOD[0], "nc:{shop:0}:l:sK", *_GOOD[2:]], "the mark of nc:{shop:0}:v:sk is nc:{shop:0}:l:sk, not"),
    ([*_GOOD[:4], "one", *_GOOD[5:]], "1 if it was never changed"),
    (_GOOD[:4], "1 if it was never changed"),
    (_GOOD[:6], "16 digits"),
    ([*_GOOD[:5], "A1", _GOOD[6]], "16 digits"),
    ([*_GOOD[:6], "00000000000000A2"], "16 digits"),
    ([*_GOOD[:6], "0000000000000000"], "16 digits"),
    ([*_GOOD, "5s", "00000000000000a3"], "length in ms"),
    ([*_GOOD, "5000"], "length in ms"),
]


def test_what_is_mistyped_is_refused_and_nothing_is_done(redis_server: RedisServer) -> None:
    """A command that would have invalidated nothing says why, and the lane stands where it stood."""
    redis_server.cli("SET", _GOOD[0], envelope(_GOOD[5].encode()))
    for words, remedy in _MISTYPED:
        assert remedy in run_cli(redis_server, "--eval", str(FILE), *words), words
    assert redis_server.cli("KEYS", "*") == [_GOOD[0].encode()]
    assert run_cli(redis_server, "--eval", str(FILE), *_GOOD).split()[::2] == ["1", "1", "1"]


def test_invalidation_by_redis_cli_reaches_every_process(
    redis_server: RedisServer, make_worker: Callable[..., Worker]
) -> None:
    """Two processes hold a copy; after the command neither does, and no lane lost its place."""
    readers = [make_worker(READER), make_worker(READER)]
    with nearcache.open(redis_server.url, namespace="shop") as cache:
        for reader in readers:
            reader.call("start", redis_server.url, namespace="shop")
        cache["sku:1"], cache["sku:2"], cache["sku:3"] = "a", "b", "c"
        for reader in readers:
            wait_until(lambda reader=reader: [reader.call("get", f"sku:{n}") for n in (1, 2, 3)] == ["a", "b", "c"])
            wait_until(lambda reader=reader: reader.call("get", "sku:1") and reader.call("held", "sku:1") == "a")
        gaps = [reader.call("gaps") for reader in readers]
        names = wire.LaneNames(wire.lane_prefix("shop"))
        keys = [wire.encode_key(key) for key in ("sku:1", "sku:2")]
        words = [*map(names.value, keys), *map(names.lease, keys), names.lane_key]
        ids = ("1", "0000000000000001", "0000000000000002")
        out = run_cli(redis_server, "--eval", str(FILE), *(word.decode() for word in words), ",", *ids)
        assert out.split()[0] == "1"
        assert out.split()[2] == "2"
        for reader in readers:
            wait_until(lambda reader=reader: reader.call("held", "sku:1") is None)
            assert reader.call("get", "sku:1") is None
            assert reader.call("get", "sku:2") is None
            assert reader.call("get", "sku:3") == "c"
        assert cache.selftest().ok
        assert cache.get("sku:1") is None
        assert [reader.call("gaps") for reader in readers] == gaps


def test_hold_by_redis_cli_keeps_a_key_until_it_is_ended(redis_server: RedisServer) -> None:
    """With a time and a token the same file holds, and with 0 it ends the hold."""
    with nearcache.open(redis_server.url, namespace="shop") as cache:
        cache["k"] = 1
        keys = ["nc:{shop:0}:v:sk", "nc:{shop:0}:l:sk", "nc:{shop:0}:L", ","]
        ids = ["1", "00000000000000a1", "00000000000000a2"]
        run_cli(redis_server, "--eval", str(FILE), *keys, *ids, "60000", "00000000000000a3")
        wait_until(lambda: cache.peek("k") is None)
        assert cache.get_or_load("k", lambda _key: 2) == 2
        assert redis_server.cli("EXISTS", keys[0]) == 0
        run_cli(redis_server, "--eval", str(FILE), *keys, *ids[:2], "00000000000000a4", "0", "00000000000000a3")
        wait_until(lambda: cache.peek("k") is None)
        assert cache.get_or_load("k", lambda _key: 3) == 3
        assert redis_server.cli("EXISTS", keys[0]) == 1


@pytest.mark.parametrize("page", ["operations.md", "wire.md"])
def test_documented_line_invalidates(redis_server: RedisServer, page: str, tmp_path: Path) -> None:
    """The line of the page, copied into a shell, does what it says."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (line,) = re.findall(r"^ *(redis-cli --eval cli_invalidate\.lua .*)$", text, re.MULTILINE)
    line = line.replace("redis-cli", f"{shlex.quote(find_cli(redis_server))} -s {shlex.quote(redis_server.path)}", 1)
    line = line.replace("cli_invalidate.lua", shlex.quote(str(FILE)), 1)
    with nearcache.open(redis_server.url, namespace="shop") as cache:
        cache["sku:1"] = "a"
        subprocess.run(line, shell=True, check=True, capture_output=True, timeout=30, cwd=tmp_path)
        assert cache.selftest().ok
        assert cache.peek("sku:1") is None
        assert cache.get("sku:1") is None


def test_version_of_before_a_change_of_shards_is_refused_and_the_new_one_works(
    two_shards: tuple[RedisServer, RedisServer],
) -> None:
    """Whoever does not know the list of shards must not believe that it told the right one."""
    first, second = two_shards
    with nearcache.open(f"unix://{first.path}", namespace="shop", max_staleness=0.6) as cache:
        cache.reshard(f"unix://{second.path}", pause=0.0)
        cache["sku:1"] = "a"
        keys = ["nc:{shop:0}:v:ssku:1", "nc:{shop:0}:l:ssku:1", "nc:{shop:0}:L", ","]
        out = run_cli(second, "--eval", str(FILE), *keys, "1", "0000000000000001", "0000000000000002")
        assert re.match(r"NCTOPO 4-[0-9a-f]{16}\s", out)
        assert cache["sku:1"] == "a"
        out = run_cli(second, "--eval", str(FILE), *keys, "4", "0000000000000001", "0000000000000002")
        assert out.split()[::2] == ["1", "1", out.split()[4]]
        assert cache.selftest().ok
        assert cache.get("sku:1") is None
