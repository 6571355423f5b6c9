"""The tiered cache on real servers: one process, every operation, both tiers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ShardUnavailableError
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def url(two_shards: tuple[RedisServer, RedisServer]) -> str:
    """Two client-side shards."""
    return "unix://" + ",".join(server.path for server in two_shards)


@pytest.fixture
def open_cache(url: str) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches that are closed at the end."""
    with opening(url) as opener:
        yield opener


@pytest.fixture
def cache(open_cache: Callable[..., Cache[Any, Any]]) -> Cache[Any, Any]:
    """One cache over two shards, live."""
    return open_cache()


def heard(*caches: Cache[Any, Any]) -> None:
    """Wait until these caches have applied every message sent so far.

    A message that arrives while its key is being read keeps the answer out of L1: right, and tested elsewhere, but
    in the way of a test that is about something else.
    """
    for cache in caches:
        assert cache.selftest().ok


def test_cache_opened_on_live_shards_is_healthy(cache: Cache[Any, Any]) -> None:
    """After open() the first value is already kept in L1: no warm-up that a user would have to know of."""
    assert cache.health().ok, cache.health()
    cache["k"] = "v"
    before = cache.stats()
    assert cache["k"] == "v"
    assert cache.stats().l1.hits == before.l1.hits + 1
    assert cache.stats().l2 == before.l2


@pytest.mark.parametrize(
    "options",
    [{}, {"policy": "lru", "consistency": "lane"}, {"soft_ttl": 60, "ages": True}, {"isolation": "copy"}],
    ids=["key", "lane", "aging", "copy"],
)
def test_cache_without_entries_in_l1_reads_l2_each_time(
    open_cache: Callable[..., Cache[Any, Any]], options: dict[str, Any]
) -> None:
    """``maxsize=0``: what others write is there at once, and nothing takes memory."""
    one, two = open_cache(maxsize=0, **options), open_cache(maxsize=0, **options)
    calls: list[Any] = []
    one["k"] = [1]
    assert two["k"] == one["k"] == [1]
    assert two["k"] is not two["k"]
    two.set_many({"k": [2], "l": [3]})
    assert one.get_many(["k", "l", "m"]) == {"k": [2], "l": [3]}
    assert [one.incr("n"), two.incr("n"), one.get("n")] == [1, 2, 2]
    assert one.cas("k", [4], two.gets("k")[1])
    assert two.get_or_load("o", lambda key: calls.append(key) or key) == one["o"] == "o"
    assert one.get_or_load_many(["o", "p"], lambda keys: dict.fromkeys(keys, "many")) == {"o": "o", "p": "many"}
    square = one.cached(version=1)(lambda x: calls.append(x) or x * x)
    assert [square(3), square(3)] == [9, 9]
    assert calls == ["o", 3]
    assert two.invalidate("k")
    assert "k" not in one
    assert (len(one), one.stats().l1.entries, one.stats().l1.hits, one.cache_info().maxsize) == (0, 0, 0, 0)


def test_get_many_when_a_shard_fails_at_the_second_question_returns_what_there_is(
    open_cache: Callable[..., Cache[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of another generation is asked about once more; that this goes unanswered makes it absent, no error."""
    keys = [f"k{number}" for number in range(20)]
    writer, reader = open_cache(), open_cache()
    writer.set_many(dict.fromkeys(keys, "old"))
    writer.clear()
    writer["kept"] = "new"
    heard(reader)
    execute = reader._driver.execute

    def failing(exchanges: Any, **options: Any) -> Any:
        if all(command[0] == b"HMGET" for _, commands in exchanges for command in commands):
            return [ShardUnavailableError("shard", "gone meanwhile") for _ in exchanges]
        return execute(exchanges, **options)

    monkeypatch.setattr(reader._driver, "execute", failing)
    assert set(reader.get_many([*keys, "kept"])) <= {"kept"}
    reader.drop_all()
    assert reader.get_many(["kept"]) == {"kept": "new"}


@pytest.mark.parametrize(
    "key", ["k", "", "ключ", "a b\n{c}", b"\x00\xff", 7, -1, 2**80, 1.5, None, (), ("a", (1, b"x"))]
)
def test_value_of_any_key_is_read_back_by_another_cache(open_cache: Callable[..., Cache[Any, Any]], key: Any) -> None:
    """L2 holds it under the encoded key, and every process decodes the same."""
    writer, reader = open_cache(), open_cache()
    writer[key] = {"at": date(2026, 1, 2), "items": [1, 2.5, "x", None, b"y"]}
    heard(reader)
    assert reader[key] == {"at": date(2026, 1, 2), "items": [1, 2.5, "x", None, b"y"]}
    assert key in reader
    assert list(reader) == [key]


def test_equal_keys_of_different_types_are_one_key(cache: Cache[Any, Any]) -> None:
    """As in a dict: 1, 1.0 and True."""
    cache[1] = "one"
    assert cache[1.0] == cache[True] == "one"
    heard(cache)
    cache.drop(1)
    assert cache[True] == "one"
    assert len(cache) == 1


def test_missing_key_raises_key_error_with_the_key(cache: Cache[Any, Any]) -> None:
    """And get returns the default; nothing is loaded."""
    with pytest.raises(KeyError, match="nowhere"):
        cache["nowhere"]
    assert cache.get("nowhere") is None
    assert cache.get("nowhere", 5) == 5
    assert "nowhere" not in cache
    with pytest.raises(KeyError):
        del cache["nowhere"]
    with pytest.raises(KeyError):
        cache.pop("nowhere")
    assert cache.pop("nowhere", 6) == 6


def test_none_is_a_value(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Absence is not None."""
    a, b = open_cache(), open_cache()
    a["k"] = None
    assert "k" in b
    assert b["k"] is None
    assert b.get("k", 1) is None


def test_delete_removes_from_both_tiers(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The key is gone for a cache that never had it in L1 too."""
    a, b = open_cache(), open_cache()
    a["k"] = 1
    del a["k"]
    assert "k" not in a
    assert "k" not in b
    assert a.invalidate("k") is False


def test_what_was_cleared_is_not_there_to_be_removed(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Redis holds it until it expires, and nobody reads it: who removes it is told no, as by ``in``."""
    a, b, other = open_cache(), open_cache(), open_cache()
    for remove in (a.invalidate, lambda key: asyncio.run(a.aio.invalidate(key)), other.invalidate):
        b["k"] = 1
        a.clear()
        assert "k" not in a
        assert remove("k") is False
    b["k"] = 1
    a.clear()
    with pytest.raises(KeyError, match="'k'"):
        del a["k"]
    b["k"] = 1
    assert a.invalidate("k") is True


def test_remembered_absence_is_nothing_that_could_be_removed(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It goes; but there was no value, for this process and for others."""
    a, b = open_cache(negative_ttl=60, loader={}.__getitem__), open_cache()
    for remove in (a.invalidate, b.invalidate, lambda key: asyncio.run(a.aio.invalidate(key))):
        with pytest.raises(KeyError, match="'k'"):
            a["k"]
        assert remove("k") is False
    with pytest.raises(KeyError, match="'k'"):
        a["k"]
    with pytest.raises(KeyError, match="'k'"):
        del b["k"]


def test_pop_and_popitem_remove_everywhere(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What is popped is nobody's any more."""
    a, b = open_cache(), open_cache()
    a["k"] = 1
    assert a.pop("k") == 1
    a["m"] = 2
    assert a.popitem() == ("m", 2)
    assert b.get_many(["k", "m"]) == {}
    with pytest.raises(KeyError):
        a.popitem()


def test_popitem_with_a_key_function_removes_what_it_returns(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It returns the key as it is held, to which ``key=`` is not applied once more."""
    a = open_cache(key=lambda number: f"p{number}", policy="lru")
    b = open_cache(key=lambda number: f"p{number}")
    a[1], a[2] = "one", "two"
    assert (b[1], b[2]) == ("one", "two")
    assert a.popitem() == ("p1", "one")
    wait_until(lambda: b.peek(1) is None)
    assert (a.get(1), b.get(1), a[2], b[2]) == (None, None, "two", "two")


def test_setdefault_of_two_processes_stores_once(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The second gets the first one's value."""
    a, b = open_cache(), open_cache()
    assert a.setdefault("k", "first") == "first"
    assert b.setdefault("k", "second") == "first"
    assert a.setdefault("k", "third") == "first"


def test_many_keys_take_one_round_trip_per_shard(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """get_many, set_many and delete_many reach all shards, and hits come from L1 the second time."""
    a, b = open_cache(), open_cache()
    values = {f"key {n}": n for n in range(1000)}
    a.set_many(values)
    heard(b)
    assert b.get_many(values) == values
    before = b.stats().l2
    assert b.get_many(values) == values
    assert b.stats().l2 == before
    a.delete_many(list(values)[:500])
    wait_until(lambda: len(b) == 500)
    assert b.get_many(values) == dict(list(values.items())[500:])
    assert a.get_many([]) == {}


def test_update_takes_what_dict_update_takes(cache: Cache[Any, Any]) -> None:
    """A mapping, pairs, keywords."""
    cache.update({"a": 1})
    cache.update([("b", 2)], c=3)
    assert cache.get_many([*"abc"]) == {"a": 1, "b": 2, "c": 3}


def test_clear_empties_every_process(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Own process at once, others by message; values written afterwards live."""
    a, b = open_cache(), open_cache()
    a.set_many({"x": 1, "y": 2})
    assert b["x"] == 1
    a.clear()
    assert len(a) == 0
    assert a.get_many(["x", "y"]) == {}
    a["x"] = 3
    wait_until(lambda: b.get("x") == 3)
    assert "y" not in b


def test_namespaces_do_not_see_each_other(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Same servers, same keys, other names."""
    a, b = open_cache(namespace="a"), open_cache(namespace="b")
    a["k"] = 1
    assert "k" not in b
    b["k"] = 2
    b.clear()
    assert a["k"] == 1


def test_ttl_ends_an_entry_in_both_tiers(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """L1 takes what is left of the lifetime in L2, so it never outlives it."""
    a, b = open_cache(ttl=60), open_cache(ttl=60)
    a.set("k", 1, ttl=0.3)
    heard(b)
    assert b["k"] == 1
    assert b.peek("k") == 1
    wait_until(lambda: b.peek("k") is None)
    wait_until(lambda: "k" not in a)
    assert "k" not in b


def test_l1_ttl_caps_the_copy_only(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """After it the value is read from L2 again."""
    cache = open_cache(l1_ttl=0.1)
    cache["k"] = 1
    wait_until(lambda: cache.peek("k") is None)
    assert cache["k"] == 1


def test_l1_is_bounded_and_l2_keeps_the_rest(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """maxsize evicts the least recently used; the value is still there."""
    cache = open_cache(maxsize=10)
    cache.set_many({n: n for n in range(50)})
    assert len(cache) == 10
    assert cache.stats().l1.evictions >= 40
    assert cache.get_many(range(50)) == {n: n for n in range(50)}


def test_value_over_maxbytes_is_asked_of_redis_each_time_counted_and_logged_once(
    open_cache: Callable[..., Cache[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Written, read alone or with others: it is never in memory, which nobody would see otherwise."""
    cache = open_cache(maxbytes=1000)
    large = b"x" * 2000
    cache["large"] = large
    assert cache["large"] == cache.get("large") == cache.get_many(["large", "none"])["large"] == large
    assert (cache.peek("large"), cache.stats().l2.hits, cache.stats().l1.too_large) == (None, 3, 4)
    (said,) = [line for line in caplog.messages if "maxbytes" in line]
    assert "key 'large': a value of 20" in said


def test_maxbytes_bounds_l1_by_encoded_size(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """A value above it is stored in L2 only."""
    cache = open_cache(maxbytes=10_000)
    cache.set_many(dict.fromkeys(range(50), "x" * 1000))
    assert cache.stats().l1.size_bytes <= 10_000
    assert 0 < len(cache) < 10
    cache["big"] = "y" * 20_000
    assert cache.peek("big") is None
    assert cache["big"] == "y" * 20_000


def test_key_function_maps_user_keys(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Keys that L2 cannot encode become some that it can; the loader still gets the user's."""
    seen: list[Any] = []

    def loader(key: frozenset[str]) -> int:
        seen.append(key)
        return len(key)

    a = open_cache(key=lambda key: ",".join(sorted(key)), loader=loader)
    b = open_cache(key=lambda key: ",".join(sorted(key)))
    assert a[frozenset("xy")] == 2
    assert seen == [frozenset("xy")]
    assert b[frozenset("yx")] == 2
    assert b.get_many([frozenset("xy")]) == {frozenset("xy"): 2}
    a.invalidate(frozenset("xy"))
    wait_until(lambda: frozenset("xy") not in b)


def test_views_and_equality_speak_of_l1(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Iteration never goes to the network, and never loads."""
    a, b = open_cache(loader=lambda key: 1 / 0), open_cache()
    a.set_many({"x": 1, "y": 2})
    assert dict(a.items()) == {"x": 1, "y": 2}
    assert sorted(a.keys()) == ["x", "y"]
    assert sorted(a.values()) == [1, 2]
    assert a == {"x": 1, "y": 2}
    assert len(b) == 0
    assert list(b) == []
    assert ("x", 1) in a.items()
    assert a.copy() == a


def test_peek_and_in_count_nothing_and_drop_is_local(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """peek looks at L1 only; drop leaves the others alone."""
    a, b = open_cache(), open_cache()
    a["k"] = 1
    heard(b)
    assert b["k"] == 1
    hits = a.stats().l1.hits
    assert a.peek("k") == 1
    assert "k" in a
    assert a.stats().l1.hits == hits
    assert a.drop("k") is True
    assert a.peek("k") is None
    assert b.peek("k") == 1
    assert a["k"] == 1


def test_registered_class_travels_and_others_are_refused(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The error comes at the write and names the class; nothing is changed by it."""
    cache = open_cache()
    cache["k"] = 1
    with pytest.raises(nearcache.UnencodableValueError, match="Opaque"):
        cache["k"] = Opaque()
    with pytest.raises(nearcache.UnencodableValueError, match="Opaque") as caught:
        cache.set_many({"k": 2, "m": Opaque()})
    assert caught.value.key == "m"
    with pytest.raises(nearcache.UnencodableKeyError):
        cache[frozenset()] = 1
    with pytest.raises(nearcache.UnencodableKeyError):
        cache.get(object())
    assert cache["k"] == 1
    assert "m" not in cache


class Opaque:
    """Nobody registered it."""


def test_value_too_large_is_refused_and_changes_nothing(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The error gives both sizes."""
    cache = open_cache(max_value=1000)
    cache["k"] = 1
    with pytest.raises(nearcache.ValueTooLargeError, match="max_value=1000"):
        cache["k"] = "x" * 2000
    assert cache["k"] == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda cache, value: cache.set("sku:7", value),
        lambda cache, value: cache.set("sku:7", value, tags=["t"]),
        lambda cache, value: cache.set_many({"other": 1, "sku:7": value}),
        lambda cache, value: cache.add("sku:7", value),
        lambda cache, value: cache.get_and_set("sku:7", value),
        lambda cache, value: cache.compute("sku:7", lambda _: value),
        lambda cache, value: cache.get_or_load("sku:7", lambda key: value),
    ],
    ids=["set", "tags", "set_many", "add", "get_and_set", "compute", "get_or_load"],
)
@pytest.mark.parametrize("writes", [False, True])
def test_error_of_a_value_names_its_key(
    open_cache: Callable[..., Cache[Any, Any]], change: Callable[[Any, Any], object], writes: bool
) -> None:
    """Which of a thousand it was is what whoever reads the log wants to know."""
    cache = open_cache(max_value=1000, **({"writer": {}.__setitem__, "loader": {}.__getitem__} if writes else {}))
    with pytest.raises(nearcache.UnencodableValueError, match=r"Opaque.*\(key 'sku:7'\)") as caught:
        change(cache, Opaque())
    assert pickle.loads(pickle.dumps(caught.value)).key == caught.value.key == "sku:7"
    if change(open_cache(), 1) != 1:  # what is loaded is returned and not kept
        with pytest.raises(nearcache.ValueTooLargeError, match=r"max_value=1000.*\(key 'sku:7'\)"):
            change(cache, "x" * 2000)


def test_selftest_sees_its_own_message_on_every_shard(cache: Cache[Any, Any]) -> None:
    """The proof that invalidations arrive, with the lag."""
    result = cache.selftest()
    assert result.ok, str(result)
    assert len(result.shards) == 2
    assert all(shard.lag_ms is not None and shard.lag_ms > 0 for shard in result.shards)


def test_stats_and_cache_info_count_by_tier(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What happened, where."""
    a, b = open_cache(loader=lambda key: key * 2), open_cache()
    assert a["k"] == "kk"
    assert a["k"] == "kk"
    heard(b)
    assert b["k"] == "kk"
    a["k"] = "new"
    wait_until(lambda: b.stats().coherence.applied == 1)
    stats = a.stats()
    assert (stats.loader.loads, stats.loader.errors, stats.loader.running) == (1, 0, 0)
    assert (stats.l1.hits, stats.l1.misses) == (1, 1)
    assert (stats.l2.hits, stats.l2.misses, stats.l2.writes) == (0, 1, 2)
    assert b.stats().l2.hits == 1
    assert b.stats().coherence.gaps == 0
    assert b.stats().l1.invalidated == 1
    assert a.cache_info() == (1, 1, 100_000, 1)
    assert stats.as_dict()["l1"]["hits"] == 1


def test_closed_cache_says_so(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """close() is idempotent, and what comes after it is a clear error."""
    cache = open_cache()
    cache.close()
    cache.close()
    with pytest.raises(nearcache.ClosedError):
        cache["k"]
    with pytest.raises(nearcache.ClosedError):
        cache["k"] = 1
    with pytest.raises(nearcache.ClosedError):
        cache.selftest()


def test_with_statement_closes(url: str) -> None:
    """The cache is a context manager."""
    with nearcache.open(url) as cache:
        cache["k"] = 1
    with pytest.raises(nearcache.ClosedError):
        cache.invalidate("k")


def test_ways_of_the_store_that_nobody_would_hear_of_are_refused(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Other caches call it ``delete`` and ``put``: here these must not change this process's memory alone."""
    cache, other = open_cache(), open_cache()
    cache["k"] = 1
    assert other["k"] == 1
    with pytest.raises(AttributeError):
        cache.delete("k")  # type: ignore[attr-defined]  # that is what is tested
    with pytest.raises(AttributeError):
        cache.put("k", 2)  # type: ignore[attr-defined]  # the same
    assert (cache["k"], other["k"]) == (1, 1)
