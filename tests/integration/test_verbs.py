"""The verbs on real servers: one answer for everybody, whatever this process has in L1."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ContentionError, ShardUnavailableError
from nearcache._store import Op
from nearcache.changes import ATTEMPTS
from nearcache.clocks import NEVER_NS
from nearcache.codecs import pack
from nearcache.loading.tagging import tags_named
from nearcache.options import MOST_TAGS
from support.redis import RedisServer
from support.waiting import wait_until
from support.worker import Worker

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def open_cache(two_shards: tuple[RedisServer, RedisServer]) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on two shards that are closed at the end."""
    opened: list[Cache[Any, Any]] = []
    url = "unix://" + ",".join(server.path for server in two_shards)

    def opener(**options: Any) -> Cache[Any, Any]:
        opened.append(nearcache.open(url, **options))
        return opened[-1]

    yield opener
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(open_cache: Callable[..., Cache[Any, Any]]) -> Cache[Any, Any]:
    """This process's cache."""
    return open_cache()


@pytest.fixture
def other(open_cache: Callable[..., Cache[Any, Any]]) -> Cache[Any, Any]:
    """Another one over the same data, which hears of the first only through the servers."""
    return open_cache()


def left_s(cache: Cache[Any, Any], key: str) -> float:
    """Return how long the copy in L1 may still be served."""
    left_ns = cache.remaining_ns(key)
    return float("inf") if left_ns is None else left_ns / 1e9


def tags_stated(count: int) -> bytes:
    """Return how an envelope states so many tags."""
    return bytes([count]) + b"".join(2 * number.to_bytes(8, "little") for number in range(count))


def put_envelope(cache: Cache[Any, Any], server: RedisServer, key: str, wid: int, tags: int = 0) -> None:
    """Have L2 hold None in an envelope that no process of nearcache writes."""
    tier = cache._tier
    lane, encoded = tier.place(key)
    with server.client() as client:
        generation = int(client.hget(tier.names[lane].lane_key, "g"), 16)
        good = pack(wid or 1, generation, 60_000, b"N", tags=[(n, n) for n in range(min(tags, MOST_TAGS))])
        if tags > MOST_TAGS:
            before, after = good.split(tags_stated(MOST_TAGS))
            good = before + tags_stated(tags) + after
        client.set(tier.names[lane].value(encoded), good[:4] + wid.to_bytes(8, "big") + good[12:], px=60_000)


@pytest.mark.parametrize(("wid", "tags"), [(0, 0), (5, 127)], ids=["no write", "more tags than anybody reads"])
def test_verbs_replace_what_nobody_can_read(redis_server: RedisServer, wid: int, tags: int) -> None:
    """For each of them it is no value, and does not stand in the way of one."""
    verbs: list[tuple[Callable[[Cache[Any, Any], str], Any], Any]] = [
        (lambda cache, key: cache.touch(key, ttl=30), False),
        (lambda cache, key: key in cache, False),
        (lambda cache, key: cache.get_and_touch(key, ttl=30), None),
        (lambda cache, key: cache.add(key, 1), True),
        (lambda cache, key: cache.incr(key), 1),
        (lambda cache, key: cache.replace(key, 1), False),
        (lambda cache, key: cache.compute(key, lambda _: 1), 1),
        (lambda cache, key: cache.get_and_delete(key, None), None),
        (lambda cache, key: cache.get(key), None),
    ]
    with nearcache.open(redis_server.url) as cache:
        for number, (verb, expected) in enumerate(verbs):
            put_envelope(cache, redis_server, f"k{number}", wid, tags)
            assert verb(cache, f"k{number}") == expected, number


def test_record_of_a_tag_that_nobody_can_read_is_written_anew(redis_server: RedisServer) -> None:
    """It has the generation of one that is live, so that the server takes it for one."""
    with nearcache.open(redis_server.url) as cache:
        cache["any"] = 1
        (tag,) = tags_named(cache._tier, ["red"])
        tier = cache._tier
        with redis_server.client() as client:
            generation = bytes.fromhex(client.hget(tier.names[0].lane_key, "g").decode())
            client.set(tier.names[0].value(tag.key), b"\xd1" + bytes(11) + generation + bytes(40), px=60_000)
        cache.set("k", 1, tags=["red"])
        cache.drop("k")
        assert cache.get("k") == 1
        cache.invalidate_tag("red")
        assert cache.get("k") is None


def test_add_stores_once_and_replace_only_over_a_value(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Of two that add one does; what is replaced must be there."""
    assert not cache.replace("k", "x")
    assert cache.add("k", [1])
    assert not other.add("k", [2])
    assert other["k"] == [1]
    assert other.replace("k", [3])
    wait_until(lambda: cache["k"] == [3])
    assert (cache.stats().l2.writes, other.stats().l2.writes) == (1, 1)


def test_add_refused_leaves_no_older_copy_in_l1(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """What stood in the way is newer than what this L1 may still hold, and is what the next reader gets."""
    cache["k"] = "old"
    other["k"] = "new"
    assert not cache.add("k", "mine")
    assert cache["k"] == "new"


def test_cas_with_version_stores_until_anybody_wrote(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """A version is good for one change, by whomever, even if the value is the same again; 0 stands for no value."""
    assert cache.gets("k", "none") == ("none", 0)
    assert cache.cas("k", 1, 0)
    assert not other.cas("k", 2, 0)
    value, version = other.gets("k")
    assert value == 1
    assert version == cache.gets("k")[1] != 0
    other["k"] = 1
    assert not cache.cas("k", 2, version)
    assert cache.cas("k", 3, cache.gets("k")[1])
    assert other.gets("k")[0] == 3
    other.invalidate("k")
    assert not cache.cas("k", 4, version)
    assert "k" not in other


@pytest.mark.parametrize("version", [-1, 1 << 64, "1", None])
def test_cas_with_what_is_no_version_is_refused(cache: Cache[Any, Any], version: Any) -> None:
    """An error at the door names the value, and nothing is sent."""
    with pytest.raises(ValueError, match=f"version={version!r}: give what gets"):
        cache.cas("k", 1, version)


def test_get_and_set_and_get_and_delete_return_what_was_there(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Each value is returned to one caller only, wherever it came from."""
    assert cache.get_and_set("k", 1, "none") == "none"
    assert other.get_and_set("k", 2) == 1
    assert cache.get_and_delete("k") == 2
    assert other.get_and_delete("k", "none") == "none"
    wait_until(lambda: other.get("k") is None)
    assert cache.get("k") is None


def test_touch_that_shortens_reaches_copies_elsewhere(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """A copy that would outlive its value goes; where the life gets longer nobody is told."""
    cache.set("k", "v", ttl=50)
    assert other.selftest().ok  # or the message would come while the value is read
    assert other["k"] == other.peek("k") == "v"
    assert cache.touch("k", 500)
    assert other.selftest().ok
    assert other.peek("k") == "v"
    assert cache.peek("k") == "v"
    assert cache.touch("k", 5)
    wait_until(lambda: other.peek("k") is None)
    assert cache.peek("k") is None
    assert cache.selftest().ok
    assert other["k"] == cache["k"] == "v"
    for each in (cache, other):
        assert left_s(each, "k") < 6


def test_touch_gives_l2_another_lifetime_and_sends_no_value(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """The value is written once; a reader elsewhere sees the longer life of L2 through its own reads."""
    cache.set("k", "v" * 50_000, ttl=5)
    written = cache.stats().l2.bytes_written
    assert cache.touch("k", 500)
    assert cache.stats().l2.bytes_written == written
    assert other.get_and_touch("k", None) == "v" * 50_000
    assert not cache.touch("no", 5)
    assert cache.get_and_touch("no", 5, "none") == "none"


def test_compute_under_contention_loses_no_change(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Two processes' threads add to one list at the same time; every addition is in it once."""
    errors: list[BaseException] = []

    def work(mine: Cache[Any, Any], number: int) -> None:
        try:
            for turn in range(5):
                mine.compute("k", lambda there, item=(number, turn): [*there, item], [])
        except BaseException as error:  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=((cache, other)[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(cache.gets("k")[0]) == [(n, turn) for n in range(4) for turn in range(5)]


def test_compute_that_others_always_overtake_gives_up(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """The number of attempts has an end, and the error says so; nothing of it is stored."""
    calls: list[int] = []

    def meddle(there: int) -> int:
        calls.append(there)
        other["k"] = len(calls)
        return -1

    with pytest.raises(ContentionError, match="key 'k': changed by others during each of 64 attempts") as caught:
        cache.compute("k", meddle, 0)
    assert (caught.value.key, caught.value.attempts, len(calls)) == ("k", ATTEMPTS, ATTEMPTS)
    assert cache["k"] == ATTEMPTS


def test_compute_whose_function_raises_changes_nothing(cache: Cache[Any, Any]) -> None:
    """The error comes through as it is; a coroutine function is refused before anything is read."""
    cache["k"] = 1
    with pytest.raises(ZeroDivisionError):
        cache.compute("k", lambda there: there / 0)

    async def later(there: int) -> int:
        return there

    with pytest.raises(TypeError, match="coroutine function"):
        cache.compute("k", later)  # type: ignore[arg-type]  # what is tested
    assert cache.gets("k")[0] == cache["k"] == 1


def test_incr_in_many_processes_counts_every_one(
    cache: Cache[Any, Any], two_shards: tuple[RedisServer, RedisServer], make_worker: Callable[..., Worker]
) -> None:
    """Three processes count at the same time; none is lost, and no number is given out twice."""
    url = "unix://" + ",".join(server.path for server in two_shards)
    code = f"import nearcache\ncache = nearcache.open({url!r})\n"
    workers = [make_worker(code) for _ in range(2)]
    threads = [
        threading.Thread(target=worker.eval, args=("[cache.incr('n') for _ in range(30)]",)) for worker in workers
    ]
    for thread in threads:
        thread.start()
    mine = [cache.incr("n") for _ in range(30)]
    for thread in threads:
        thread.join()
    assert mine == sorted(set(mine))
    assert cache.incr("n", 0) == 90


def test_incr_keeps_lifetime_and_tags_of_the_number(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A window of time does not move because somebody counts in it, and what has a tag still goes with it."""
    cache = open_cache(ttl=1000)
    assert cache.incr("n", 5, 100, ttl=50, tags=["t"]) == 105
    assert cache.decr("n", 6, ttl=5000) == 99
    assert cache.selftest().ok  # or a message would come while the value is read, and keep it out of L1
    cache.drop("n")
    assert cache["n"] == 99
    assert left_s(cache, "n") < 60
    cache.invalidate_tag("t")
    assert "n" not in cache
    assert cache.incr("n") == 1


def test_incr_of_what_is_no_int_is_refused(cache: Cache[Any, Any]) -> None:
    """A text is not counted, nor is a truth value; the value stays."""
    cache["k"], cache["b"] = "1", True
    for key, name in (("k", "str"), ("b", "bool")):
        with pytest.raises(TypeError, match=f"the value is {name}: only int can be counted"):
            cache.incr(key)
    with pytest.raises(TypeError, match="delta is float"):
        cache.incr("n", 1.5)  # type: ignore[arg-type]  # what is tested
    assert (cache["k"], cache["b"], cache.get("n")) == ("1", True, None)


def test_append_and_prepend_add_to_text_and_bytes(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """They add to what is there, keep its life, and refuse another type."""
    assert not cache.append("k", "x")
    cache.set("k", "b", ttl=50)
    assert other.append("k", "c")
    assert cache.prepend("k", "a")
    assert other.gets("k")[0] == "abc"
    assert other.selftest().ok
    other.drop("k")
    assert other["k"] == "abc"
    assert left_s(other, "k") < 60
    with pytest.raises(TypeError, match="the value is str, and bytes cannot be added"):
        cache.append("k", b"d")
    with pytest.raises(TypeError, match="int cannot be appended"):
        cache.append("k", 1)  # type: ignore[arg-type]  # what is tested


def test_values_invalidated_by_tag_or_clear_count_as_absent(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """What is dead in L2 does not stand in the way of add, and is nothing for the other verbs."""
    for kill in (lambda: other.invalidate_tag("t"), other.clear):
        cache.set("k", 1, tags=["t"])
        kill()
        assert cache.selftest().ok  # a change of a tag is known by its message, or within the bound
        assert cache.gets("k") == (None, 0)
        assert not cache.replace("k", 2)
        assert not cache.touch("k", 5)
        assert cache.get_and_touch("k", 5) is None
        assert cache.add("k", 3)
        assert other.get_and_delete("k") == 3


def test_verbs_during_a_hold_store_nothing(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """A key on hold takes no value from any of them, and add says so."""
    cache["k"] = 1
    with cache.hold(["k"]):
        assert not other.add("k", 2)
        assert other.compute("k", lambda there: there, 3) == 3
        assert other.gets("k") == (None, 0)
    assert other.add("k", 4)


def test_verbs_with_large_protected_values_work(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Values that are staged and signed are swapped like any other; the version is in the clear."""
    one, two = (open_cache(signing_keys=["s" * 32], compress=None) for _ in range(2))
    big = "x" * 40_000
    assert one.add("k", big, ttl=50)
    assert not two.add("k", big)
    assert two.append("k", "y")
    value, version = one.gets("k")
    assert value == big + "y"
    assert two.cas("k", big + "z", version)
    assert not one.cas("k", "", version)
    assert one.get_and_delete("k") == big + "z"


def test_verbs_give_isolated_readers_objects_of_their_own(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """With isolation="copy" nothing that a verb takes or returns is what L1 holds."""
    cache = open_cache(isolation="copy")
    mine = [1]
    assert cache.add("k", mine)
    mine.append(2)
    assert cache.gets("k")[0] == cache["k"] == [1]
    cache.gets("k")[0].append(3)
    made = cache.compute("k", lambda there: [*there, 4])
    made.append(5)
    assert cache["k"] == [1, 4]
    assert cache.get_and_touch("k", 50) == cache.get_and_set("k", [6]) == [1, 4]
    assert cache.get_and_delete("k") == [6]


def test_verb_whose_shard_is_gone_raises_and_owes(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Nobody can say whether it is done: an error even where changes are queued, no copy, an invalidation owed."""
    cache = open_cache(on_error="queue", timeout=0.2)
    cache["k"] = 1
    for server in two_shards:
        server.stop()
    for verb in (lambda: cache.add("k", 2), lambda: cache.get_and_delete("k"), lambda: cache.touch("k", 5)):
        with pytest.raises(ShardUnavailableError):
            verb()
    assert cache.peek("k") is None
    assert sum(lane.owed for lane in cache.stats().coherence.lanes) == 1


def test_verbs_of_aio_agree_with_threads_elsewhere(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Tasks here and threads there count together, and every verb is there as a coroutine."""

    async def use() -> None:
        aio = cache.aio
        await asyncio.gather(*(aio.incr("n") for _ in range(8)))
        assert await aio.add("k", 1)
        assert not await aio.add("k", 2)
        value, version = await aio.gets("k")
        assert await aio.cas("k", value + 1, version)
        assert not await aio.cas("k", 0, version)
        assert await aio.replace("k", "b")
        assert await aio.append("k", "c")
        assert await aio.prepend("k", "a")
        assert await aio.touch("k", 5)
        assert await aio.get_and_touch("k", 50) == await aio.get_and_set("k", 5) == "abc"
        assert await aio.compute("k", lambda there: there + 1) == 6
        assert await aio.get_and_delete("k") == 6
        assert await aio.decr("n", 2) == 6
        assert await aio.gets("k", "none") == ("none", 0)

    asyncio.run(use())
    assert other.incr("n") == 7


def test_view_clear_reaches_other_processes_in_both_tiers(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """One change of a tag: entries on both shards are gone from L2 and every L1; the rest of the cache is not."""
    view, theirs = cache.view("v"), other.view("v")
    view.set_many({number: number for number in range(20)})
    view.view("w")[1] = "inner"
    cache["k"] = "stays"
    assert theirs.get_many(range(20)) == {number: number for number in range(20)}
    written = cache.stats().l2
    view.clear()
    assert cache.stats().l2.bytes_written - written.bytes_written < 200
    wait_until(lambda: not theirs.get_many(range(20)))
    assert (len(view), view.view("w").get(1), cache["k"]) == (0, None, "stays")
    assert theirs.incr("n") == view.incr("n") - 1 == 1


def test_verbs_take_known_absence_for_no_value(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What L2 remembers of a loader that had nothing does not hinder add, and touch does not make it last."""

    def nothing(key: Any) -> Any:
        raise KeyError(key)

    cache = open_cache(ttl=100, negative_ttl=50, loader=nothing)
    for change in (lambda: cache.touch("k", 5000), lambda: cache.replace("k", 1), lambda: cache.get_and_delete("k")):
        with pytest.raises(KeyError):
            cache["k"]
        assert not change()
        assert cache.gets("k") == (None, 0)
    with pytest.raises(KeyError):
        cache["k"]
    assert cache.add("k", 2)
    assert cache["k"] == 2


def test_lifetime_as_a_function_is_asked_of_the_value(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Of the one that is stored, and by touch of the one that is there."""
    asked: list[Any] = []

    def ttl(key: Any, value: Any) -> float:
        asked.append((key, value))
        return 50.0

    cache = open_cache(ttl=ttl)
    assert cache.add("k", 1)
    assert cache.incr("k") == 2
    assert cache.get_and_set("k", 3) == 2
    assert cache.touch("k")
    assert not cache.touch("no")
    assert asked == [("k", 1), ("k", 3), ("k", 3)]


def test_get_and_touch_leaves_no_older_copy_behind(cache: Cache[Any, Any], other: Cache[Any, Any]) -> None:
    """Who has been shown the value in Redis is not given an older one afterwards, though no message has come yet."""
    other["k"] = "new"
    assert cache["k"] == "new"
    tier: Any = cache._tier  # type: ignore[attr-defined]  # of the class behind
    lane = tier.place("k")[0]
    op = Op("k", lane, wid=1, write=True)
    cache.l1_open(op)  # type: ignore[attr-defined]  # of the class behind
    assert cache.l1_finish(op, "old", 1, NEVER_NS, 0, tier.lanes[lane].identity)  # type: ignore[attr-defined]  # of the class behind
    assert cache["k"] == "old"
    assert cache.get_and_touch("k", ttl=None) == "new"
    assert cache["k"] == "new"
