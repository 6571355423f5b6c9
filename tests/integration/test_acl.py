"""The documented rights suffice for everything that a cache can do, and services that forbid a command still do."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

import nearcache
from nearcache import Cache
from support.redis import RedisServer
from support.switchboard import Switchboard
from support.waiting import wait_until

pytestmark = [pytest.mark.every_server, pytest.mark.usefixtures("no_leaks")]

DOCS = Path(__file__).parents[2] / "docs"
DATA = Path(__file__).parents[1] / "data"


def documented(page: str) -> list[str]:
    """Return the words after ``ACL SETUSER`` of the only such line on a page, for a user ``nc``."""
    lines = re.findall(r"^ *ACL SETUSER \S+ (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert len(lines) == 1
    return ["nc", *lines[0].replace(">PASSWORD", ">secret").split()]


def everything(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Do whatever a cache can do, with its answers checked; ``other`` is another process's view of the same."""
    cache["a"] = 1
    assert cache["a"] == 1
    assert other["a"] == 1
    assert cache.get("none") is None
    assert "a" in other
    cache.set("a", 2, ttl=60)
    cache.set_many({"b": 2, "c": 3, "large": "x" * 100_000})
    assert other.get_many(["b", "c", "large"]) == {"b": 2, "c": 3, "large": "x" * 100_000}
    cache["larger"] = "y" * 1_000_000
    assert other["larger"] == "y" * 1_000_000
    assert cache.setdefault("a", 5) == 2
    assert cache.setdefault("d", 5) == 5
    assert cache.pop("d") == 5
    cache.update({"e": 1}, f=2)
    assert cache.invalidate("e")
    del cache["f"]
    cache.delete_many(["b", "c"])
    wait_until(lambda: other.get_many(["b", "c"]) == {})
    assert cache.get_or_load("g", lambda key: f"loaded {key}") == "loaded g"
    assert other["g"] == "loaded g"
    cache.set("tagged", 1, tags=["t"])
    assert cache.get_or_load("tagged too", lambda key: 2, tags=["t", "u"]) == 2
    assert other.get_many(["tagged", "tagged too"]) == {"tagged": 1, "tagged too": 2}
    cache.invalidate_tag("t")
    assert cache.get_many(["tagged", "tagged too"]) == {}
    with cache.hold(["h"]):
        assert cache.get_or_load("h", lambda key: "held") == "held"
    cache["i"] = 1
    other.wait_for(cache.token(), timeout=10)
    assert other["i"] == 1
    assert not len(cache) or cache.popitem()
    cache.clear()
    wait_until(lambda: other.get("a") is None)
    found = cache.selftest(10)
    assert found.ok, str(found)


def write_behind(url: str, options: dict[str, Any]) -> None:
    """Do whatever can be done with a queue."""
    rows: dict[Any, Any] = {}

    def write(key: Any, value: Any) -> None:
        if value == "poison":
            raise ValueError(value)
        rows[key] = value

    writer = nearcache.Writer(write=write, delete=lambda key: rows.pop(key, None))
    with nearcache.open(url, writer=writer, write_delay=0.01, write_attempts=1, **options) as cache:
        cache.set_many({"q": 1, "r": 2, "s": "poison"})
        del cache["r"]
        cache.drop("q")
        cache.clear()
        assert cache.get_or_load("q", lambda key: 1) == 1
        cache.flush(20)
        assert rows == {"q": 1}
        (letter,) = cache.dead_letters()
        assert cache.replay_dead_letters([letter.id]) == 1
        cache.flush(20)
        assert cache.discard_dead_letters([letter.id for letter in cache.dead_letters()]) == 1


@pytest.mark.parametrize("page", ["operations.md", "wire.md"])
def test_documented_rights_suffice_for_everything(redis_server: RedisServer, page: str) -> None:
    """Each page has the line; no operation, heartbeat or message is refused, not even in silence."""
    words = documented(page)
    namespace = "shop" if any("{shop:" in word for word in words) else "any"
    redis_server.cli("ACL", "SETUSER", *words)
    redis_server.cli("ACL", "LOG", "RESET")
    options = {"namespace": namespace, "username": "nc", "password": "secret", "max_staleness": 0.4}
    with nearcache.open(redis_server.url, **options) as cache, nearcache.open(redis_server.url, **options) as other:
        everything(cache, other)
        resyncs = cache.stats().coherence.resyncs
        redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: cache.stats().coherence.resyncs > resyncs)
        redis_server.cli("SCRIPT", "FLUSH")
        everything(cache, other)
        assert cache.health().ok
        write_behind(redis_server.url, options)
        with nearcache.open(redis_server.url, db=1, **options) as elsewhere:
            elsewhere["a"] = 1
            assert elsewhere.selftest(10).ok
        refused = {_text(entry, "object") for entry in redis_server.cli("ACL", "LOG")}
    assert refused <= {"client", "client|no-evict"}  # Redis 6.2 has no such thing


def test_rights_that_scan_and_replicas_need_beside_are_documented(make_redis: Callable[..., RedisServer]) -> None:
    """Without them an error names what is missing, and nothing else is hindered; with them nothing is refused."""
    page = "operations.md"
    primary = make_redis(transport="tcp")
    make_redis(transport="tcp", options={"replicaof": f"{primary.host} {primary.port}"})
    wait_until(
        lambda: primary.cli("INFO", "replication").get("slave0", {}).get("state") == "online", 20, what="a replica"
    )
    primary.cli("ACL", "SETUSER", *documented(page))
    options = {"username": "nc", "password": "secret", "max_staleness": 0.4, "timeout": 5}
    more = re.findall(r'`ack="replica"` needs `(\S+)` as well, and `scan\(\)` `(\S+)`', (DOCS / page).read_text())
    with nearcache.open(primary.url, **options) as cache, nearcache.open(primary.url, ack="replica", **options) as sure:
        cache["a"] = 1
        with pytest.raises(nearcache.ServerReplyError, match=r"NOPERM.*scan"):
            list(cache.scan())
        with pytest.raises(nearcache.NotReplicatedError) as caught:
            sure["b"] = 2
        assert "NOPERM" in str(caught.value.__cause__)
        assert cache["b"] == 2
        primary.cli("ACL", "SETUSER", "nc", *more[0])
        assert set(cache.scan()) == {"a", "b"}
        sure["c"] = 3
        assert sure.stats().l2.unreplicated == 1
        assert cache.health().ok


def _text(entry: Any, name: str) -> str:
    fields = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
    value = fields.get(name, fields.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else str(value)


def table() -> set[str]:
    """The commands that docs/operations.md says are used."""
    text = (DOCS / "operations.md").read_text().split("## Managed services and proxies")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[A-Z].*?) \|", text, re.MULTILINE)
    return set(re.findall("`([A-Z]+)`", " ".join(rows)))


def test_commands_in_the_code_are_those_of_the_table() -> None:
    """Scripts, named commands, the beginning of every tuple and packed command: none is missing, none is too many."""
    source = Path(nearcache.__file__).parent
    found = set()
    for path in source.glob("l2/scripts/*.lua"):
        found |= set(re.findall(r"call\('([A-Z]+)'", path.read_text()))
    for path in source.rglob("*.py"):
        if path.parent.name != "embedded":  # it speaks to servers of its own
            found |= set(re.findall(r'(?:\(b?|: Final = b)"([A-Z]{3,})"[,\n]', path.read_text()))
    assert found - {"CERTIFICATE", "COUNT", "MOVED"} | {"SSUBSCRIBE"} == table()


def test_commands_that_a_server_counts_are_those_of_the_table(redis_server: RedisServer) -> None:
    """Whatever a cache does."""
    with redis_server.client() as client:
        client.config_resetstat()
        with nearcache.open(redis_server.url, max_staleness=0.4) as cache, nearcache.open(redis_server.url) as other:
            everything(cache, other)
        counted = {name.removeprefix("cmdstat_").split("|")[0].upper() for name in client.info("commandstats")}
    assert counted - {"CONFIG"} <= table()
    assert {"EVALSHA", "PUBLISH", "RENAME", "SUBSCRIBE"} <= counted


#: What nearcache does without where it is missing, and what it says to sentinels.
OPTIONAL = {"ASKING", "SPUBLISH", "SSUBSCRIBE", "SENTINEL"}


def test_commands_of_the_table_are_documented_by_dragonfly() -> None:
    """Whoever uses a new one has to look whether it is there, and add it to the list in ``tests/data`` if so."""
    lines = (DATA / "commands_dragonfly.txt").read_text().splitlines()
    documented = {word for line in lines if not line.startswith("#") for word in line.partition(": ")[2].split()}
    assert table() - documented == {"ASKING", "SENTINEL"}


def test_commands_of_the_table_are_those_of_every_server(redis_server: RedisServer) -> None:
    """Of Redis 6.2 too, whose code and commands KeyDB has (docs.keydb.dev/docs/compatibility)."""
    with redis_server.client() as client:
        known = {name.upper() for name in client.command()}
    assert table() - OPTIONAL <= known


#: Keys and channels of others, and commands that concern the server or everybody.
FOREIGN = [
    "GET elsewhere", "SET elsewhere 1", "PUBLISH elsewhere 1", "KEYS *", "FLUSHALL", "SWAPDB 0 1", "CONFIG GET *",
    "CLIENT LIST", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1000", "CLIENT TRACKING ON",
]  # fmt: skip


@pytest.mark.parametrize("page", ["operations.md", "wire.md"])
def test_documented_rights_go_no_further(redis_server: RedisServer, page: str) -> None:
    """Whichever line was copied. The right to end connections cannot be had for one's own alone, but be left out."""
    rights = documented(page)
    less = [word for word in rights if word != "+client|kill"]
    assert len(less) == len(rights) - 1
    for words, refused in ((less, FOREIGN), (rights, [foreign for foreign in FOREIGN if "KILL" not in foreign])):
        redis_server.cli("ACL", "SETUSER", *words)
        with redis_server.client(username="nc", password="secret") as client:
            for foreign in refused:
                with pytest.raises(ResponseError, match="permission"):
                    client.execute_command(*foreign.split())


def test_right_that_is_missing_in_a_script_is_named_and_leaves_the_outcome_unknown(redis_server: RedisServer) -> None:
    """The server calls it ERR and a number of a line; and what the script had done before that is done."""
    with nearcache.open(redis_server.url, max_staleness=0.4) as cache:
        cache["k"] = "old"
        redis_server.cli("ACL", "SETUSER", "default", "-publish")
        try:
            with pytest.raises(nearcache.ServerReplyError, match="rights that a cache user needs"):
                cache["k"] = "new"
            with pytest.raises(nearcache.BulkError, match="rights that a cache user needs") as caught:
                cache.set_many({"a": 1, "b": 2})
        finally:
            redis_server.cli("ACL", "SETUSER", "default", "+publish")
        assert redis_server.cli("EXISTS", "nc:{default:0}:v:sa") == 1
        assert (set(caught.value.unknown), caught.value.failed) == ({"a", "b"}, {})
        wait_until(lambda: cache.health().ok and not cache.stats().coherence.owed)
        assert cache.get_many(["k", "a", "b"]) == {}


FORBIDDEN = [["SCRIPT"], ["CONFIG"], ["INFO"], ["CLIENT"], ["SCRIPT", "CONFIG", "INFO", "CLIENT"]]
OPTIONS = {"max_staleness": 0.4}


def service(url: str, **more: Any) -> None:
    """Do everything where commands are forbidden. L1 keeps what is read, and hears of what others change."""
    with nearcache.open(url, **OPTIONS, **more) as cache, nearcache.open(url, **OPTIONS, **more) as other:
        everything(cache, other)
        assert cache.health().ok
        other.set("k", "old", tags=["t"])
        wait_until(lambda: cache.get("k") == cache.peek("k") == "old")
        hits = cache.stats().l1.hits
        assert cache["k"] == "old"
        assert cache.stats().l1.hits > hits
        other["k"] = "new"
        wait_until(lambda: cache.peek("k") is None)
        assert cache.get_many(["k", "none"]) == {"k": "new"}


@pytest.mark.parametrize("forbidden", [*FORBIDDEN, ["ACL", "FUNCTION", "DEBUG", "CLUSTER"]], ids="-".join)
def test_service_that_forbids_commands_by_rights_still_does(redis_server: RedisServer, forbidden: list[str]) -> None:
    """As managed services do: nothing of ours needs them."""
    redis_server.cli("ACL", "SETUSER", "nc", "on", ">secret", "resetchannels", "~*", "&*", "+@all")
    for command in forbidden:
        with suppress(ResponseError):  # there is no such command in this version
            redis_server.cli("ACL", "SETUSER", "nc", f"-{command}")
    service(redis_server.url, username="nc", password="secret")


@pytest.mark.parametrize("forbidden", FORBIDDEN, ids="-".join)
def test_service_that_has_renamed_commands_still_does(
    make_redis: Callable[..., RedisServer], forbidden: list[str]
) -> None:
    """The old way to forbid one, which is still in use."""
    service(make_redis(options={"rename-command": [f'{command} ""' for command in forbidden]}).url)


@pytest.mark.parametrize("forbidden", FORBIDDEN, ids="-".join)
def test_proxy_that_answers_commands_with_errors_still_does(redis_server: RedisServer, forbidden: list[str]) -> None:
    """What it does not know does not reach the server."""
    with Switchboard(redis_server, forbidden) as proxy:
        service(proxy.url)
        assert proxy.asked == {"INFO", "CLIENT"} & set(forbidden)  # others are not even tried
