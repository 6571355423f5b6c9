"""Tags: one change of a small record ends any number of values, in every process and shard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, wire
from nearcache._store import Op
from nearcache.clocks import NEVER_NS
from nearcache.loading import tags_named
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

pytestmark = pytest.mark.every_server

TAGGER = """
import nearcache
def start(url, **options):
    global cache
    cache = nearcache.open(url, **options)
def get(key):
    return cache.get(key)
def held(key):
    return cache.peek(key)
def put(key, value, tags):
    cache.set(key, value, tags=tags)
def invalidate_tag(tag):
    cache.invalidate_tag(tag)
"""


@pytest.fixture
def urls(two_shards: tuple[RedisServer, RedisServer]) -> str:
    """The URL of two shards."""
    first, second = two_shards
    return f"unix://{first.path},{second.path}"


@pytest.fixture
def open_cache(urls: str) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on two shards that are closed at the end."""
    with opening(urls, shard_names=["a", "b"]) as opener:
        yield opener


KEYS = [f"k{n}" for n in range(20)]


def test_tagged_values_are_served_from_memory(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """However they came, and whatever shard they and their tags are on: a hit is a hit."""
    cache, other = open_cache(), open_cache()
    cache.set("set", 1, tags=["red"])
    cache.get_or_load("loaded", lambda _key: 2, tags=["red", "blue"])
    cache.set_many(dict.fromkeys(KEYS, 3), tags=["blue"])
    held = {"set": 1, "loaded": 2} | dict.fromkeys(KEYS, 3)
    assert {key: cache.peek(key) for key in held} == held
    assert other.selftest().ok  # every message sent before has arrived by now
    assert other.get_many(held) == held
    assert {key: other.peek(key) for key in held} == held


def test_invalidated_tag_ends_its_values_and_no_others(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """In this process at once, in another as soon as it has heard; on both shards."""
    cache, other = open_cache(), open_cache()
    cache.set_many(dict.fromkeys(KEYS, "red"), tags=["red"])
    cache.set("both", 1, tags=["red", "blue"])
    cache.set("blue", 2, tags=["blue"])
    cache["plain"] = 3
    everything = [*KEYS, "both", "blue", "plain"]
    assert len(other.get_many(everything)) == len(everything)
    cache.invalidate_tag("red")
    assert [cache.get(key) for key in [*KEYS, "both"]] == [None] * 21
    assert cache.get_many(everything) == {"blue": 2, "plain": 3}
    assert other.selftest().ok  # what was published before has arrived
    assert other.get_many(everything) == {"blue": 2, "plain": 3}
    assert other.get("both") is None


def test_invalidated_tag_reaches_other_processes(urls: str, make_worker: Callable[..., Worker]) -> None:
    """Both ways between two real processes."""
    first, second = make_worker(TAGGER), make_worker(TAGGER)
    for worker in (first, second):
        worker.call("start", urls, shard_names=["a", "b"])
    for wid, (writer, reader) in enumerate([(first, second), (second, first)]):
        writer.call("put", "k", wid, ["red"])
        wait_until(lambda reader=reader, wid=wid: reader.call("get", "k") == wid and reader.call("held", "k") == wid)
        writer.call("invalidate_tag", "red")
        wait_until(lambda reader=reader: reader.call("held", "k") is None)
        assert reader.call("get", "k") is None


def test_value_stored_after_its_tag_changed_lives(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A tag is not a tombstone."""
    cache, other = open_cache(), open_cache()
    for n in range(5):
        cache.set("k", n, tags=["red"])
        assert other.get("k") == n
        cache.invalidate_tag("red")
        assert cache.get("k") is None
        assert other.selftest().ok
        assert other.get("k") is None


def test_change_of_a_tag_during_a_load_keeps_the_value_out(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The generations are those of before the load, so what it brings is dead from the start."""
    cache, other = open_cache(), open_cache()

    def loader(_key: str) -> str:
        other.invalidate_tag("red")
        return "old"

    assert cache.get_or_load("k", loader, tags=["red"]) == "old"
    assert cache.selftest().ok
    assert cache.get("k") is None
    assert other.get("k") is None


def test_evicted_record_of_a_tag_ends_its_values(
    two_shards: tuple[RedisServer, RedisServer], open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """What was announced meanwhile nobody knows any more: the record made anew has another generation."""
    cache, fresh = open_cache(), open_cache()
    cache.set("k", 1, tags=["red"])
    record = b"nc:{default:0}:v:" + wire.tag_key("red")
    assert sum(int(server.cli("UNLINK", record)) for server in two_shards) == 1
    assert fresh.get("k") is None  # it never knew the generation
    assert cache.selftest().ok  # and has announced the one it made
    assert cache.get("k") is None
    cache.set("k", 2, tags=["red"])
    assert cache["k"] == 2
    assert fresh.get("k") == 2


def test_clear_ends_tagged_values_and_tags(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """After it, the same tags serve new values."""
    cache, other = open_cache(), open_cache()
    cache.set("k", 1, tags=["red"])
    assert other.get("k") == 1
    other.clear()
    assert cache.selftest().ok
    assert cache.get("k") is None
    cache.set("k", 2, tags=["red"])
    assert other.get("k") == cache.get("k") == 2
    other.invalidate_tag("red")
    assert cache.selftest().ok
    assert cache.get("k") is None


def test_tags_of_a_function_are_known_from_the_second_load_on(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The first value under a tag that only the function told of may be older than the tag: it is not kept."""
    calls: list[str] = []

    def loader(key: str) -> dict[str, str]:
        calls.append(key)
        return {"colour": "red"}

    cache = open_cache(loader=loader, tags=lambda _key, value: [value["colour"]])
    assert cache["a"] == {"colour": "red"}
    assert cache.peek("a") is None
    assert cache["a"] == cache["a"] == cache["b"] == {"colour": "red"}
    assert calls == ["a", "a", "b"]
    cache.invalidate_tag("red")
    assert cache.peek("a") is None
    assert cache["a"] == {"colour": "red"}
    assert calls == ["a", "a", "b", "a"]


def test_tag_that_a_process_met_during_the_load_says_nothing_of_the_time_before(
    open_cache: Callable[..., Cache[Any, Any]],
) -> None:
    """A function tells the tags when the value is there, and the tag may have changed since it was read."""
    cache, other = open_cache(), open_cache()

    def loader(_key: str) -> str:
        other.invalidate_tag("red")
        cache.wait_for(other.token())
        cache.set("another", 1, tags=["red"])
        return "old"

    assert cache.get_or_load("k", loader, tags=lambda _key, _value: ["red"]) == "old"
    assert cache.peek("k") is None
    assert other.get("k") is None


def test_function_for_tags_that_gives_a_text_is_refused(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It is a sequence of letters, and by the tag that was meant nothing would ever be removed."""
    cache = open_cache(tags=lambda _key, _value: "shirts")
    with pytest.raises(ConfigError, match="tags='shirts'"):
        cache.get_or_load("a", str.upper)
    assert cache.get("a") is None


def test_suspect_with_tags_is_found_good_by_its_header(
    two_shards: tuple[RedisServer, RedisServer], open_cache: Callable[..., Cache[Any, Any]]
) -> None:
    """After a lost connection no tagged value travels again that is still the same; one whose tag changed is gone."""
    cache, other = open_cache(), open_cache()
    cache.set("same", "x" * 1000, tags=["red"])
    cache.set("changed", "y" * 1000, tags=["blue"])
    resyncs = cache.stats().coherence.resyncs
    for server in two_shards:
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: cache.stats().coherence.resyncs == resyncs + 2)
    wait_until(lambda: other.health().ok)
    other.invalidate_tag("blue")
    assert cache.selftest().ok  # the two may share a derived lane
    before = cache.stats().l2
    assert cache["same"] == "x" * 1000
    after = cache.stats().l2
    assert (after.revalidated - before.revalidated, after.bytes_read - before.bytes_read) == (1, 0)
    assert cache.peek("same") == "x" * 1000
    assert cache.get("changed") is None


def test_sixteen_tags_are_taken_and_any_of_them_ends_the_value(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The documented most; a suspect with so many is still found good by its header."""
    cache, other = open_cache(), open_cache()
    tags = [f"tag {n}" for n in range(16)]
    cache.set("k", "x" * 500, tags=tags)
    assert other.selftest().ok
    assert other["k"] == "x" * 500
    for lane in range(2):
        other._horizon.lane_suspect(lane)
    before = other.stats().l2
    assert other["k"] == "x" * 500
    assert other.stats().l2.revalidated == before.revalidated + 1
    cache.invalidate_tag(tags[11])
    assert other.selftest().ok
    assert other.get("k") is None
    with pytest.raises(nearcache.ConfigError, match="at most 16"):
        cache.set("k", 1, tags=[*tags, "one more"])


def test_records_of_tags_are_where_the_wire_format_says(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What ``nearcache.wire`` computes is what the cache does."""
    cache = open_cache()
    for name in ("red", "", "naïve", "\udc80"):
        (tag,) = tags_named(cache._tier, [name])
        assert (tag.hash, tag.key) == (wire.tag_hash(name), wire.tag_key(name))
        assert tag.lane == wire.Placement(["a", "b"]).shard_of(wire.slot_of(wire.tag_key(name)))


def test_tag_in_memory_ends_its_values() -> None:
    """``memory://`` has the same tags."""
    with nearcache.open("memory://") as cache:
        cache.set("a", 1, tags=["red"])
        cache.set("b", 2, tags=["red", "blue"])
        cache.set("c", 3, tags=["blue"])
        cache.get_or_load("d", lambda _key: 4, tags=["red"])
        cache.invalidate_tag("red")
        assert dict(cache.items()) == {"c": 3}
        cache.set("a", 5, tags=["red"])
        assert cache["a"] == 5


def hear_late(cache: Cache[Any, Any], tag: str, generation: int) -> None:
    """Put L1 back to where it was before the last change of a tag, of which word is on its way."""
    tier: Any = cache._tier  # type: ignore[attr-defined]  # of the class behind
    (named,) = tags_named(tier, [tag])
    op = Op(named.key, named.lane, wid=generation, write=True)
    tier.tags.l1_open(op)
    assert tier.tags.l1_finish(op, generation, generation, NEVER_NS, 0, tier.lanes[named.lane].identity)


def test_value_newer_than_what_l1_knows_of_its_tag_is_no_dead_one(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Before a value is called dead, Redis is asked for the generation: else a number would start from 0 again."""
    cache, other = open_cache(max_staleness=60.0), open_cache(max_staleness=60.0)
    for each in (cache, other):
        each.set("n", 1, tags=["t"])
    tier: Any = other._tier  # type: ignore[attr-defined]  # of the class behind
    (named,) = tags_named(tier, ["t"])
    before = wait_until(lambda: other.get("n") and tier.tags.l1_hit(named.key, 0))
    cache.invalidate_tag("t")
    cache.set("n", 5, tags=["t"])
    wait_until(lambda: tier.tags.l1_hit(named.key, 0) != before and other.peek("n") is None)
    hear_late(other, "t", before)
    assert other.get("n") == 5
    hear_late(other, "t", before)
    assert other.incr("n") == 6
    hear_late(other, "t", before)
    assert other.setdefault("n", 0) == 6


def test_value_whose_tags_nobody_can_tell_of_is_not_replaced_as_if_absent(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """A read misses then and says why, a load loads, and a verb says that a shard is out."""
    cache = open_cache(timeout=0.3)
    tier: Any = cache._tier  # type: ignore[attr-defined]  # of the class behind
    tag = next(name for name in KEYS if tags_named(tier, [name])[0].lane == 1)
    key = next(name for name in KEYS if tier.place(name)[0] == 0)
    cache.set(key, 5, tags=[tag])
    cache.close()
    two_shards[1].kill()
    later = open_cache(timeout=0.3)
    assert later.get(key) is None
    with pytest.raises(KeyError) as missed:
        later[key]
    assert isinstance(missed.value.__cause__, nearcache.ShardUnavailableError)
    assert missed.value.__cause__.shard == "b"
    with pytest.raises(nearcache.ShardUnavailableError):
        later.incr(key)
    with pytest.raises(nearcache.ShardUnavailableError):
        later.setdefault(key, 0)
    assert later.get_or_load(key, lambda _key: 6) == 6
    two_shards[1].restart()


def test_load_from_before_a_change_of_a_tag_is_not_joined(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Who has changed a tag is given nothing that was loaded before."""
    cache = open_cache(lease=0.2)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_key: str) -> str:
        begun.set()
        assert go_on.wait(20)
        return "old"

    first = threading.Thread(target=cache.get_or_load, args=("k", slow), kwargs={"tags": ["t"]})
    first.start()
    assert begun.wait(20)
    cache.invalidate_tag("t")
    loads = cache._tier.loads  # type: ignore[attr-defined]  # of the class behind
    assert len(loads) == 0
    go_on.set()
    assert cache.get_or_load("k", lambda _key: "new", tags=["t"]) == "new"
    first.join()
