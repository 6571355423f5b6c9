"""scan(): all keys that have a value in L2, in whatever process they were stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from support.caches import opening
from support.redis import RedisServer
from support.waiting import wait_until

MANY = 2_000


@pytest.fixture
def open_cache(two_shards: tuple[RedisServer, RedisServer]) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on two shards that are closed at the end."""
    first, second = two_shards
    with opening(f"unix://{first.path},{second.path}", shard_names=["a", "b"], timeout=0.5) as opener:
        yield opener


def gathered(keys: AsyncIterator[Any]) -> set[Any]:
    """Return what an asynchronous iterator gives, in a loop of its own."""

    async def gather() -> set[Any]:
        return {key async for key in keys}

    return asyncio.run(gather())


@pytest.mark.every_server
def test_every_key_of_every_kind_is_found_in_another_process_l2(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What the reader's own memory holds plays no part, and nothing is put into it; another namespace is not seen."""
    cache, other, foreign = open_cache(), open_cache(), open_cache(namespace="default2")
    foreign["elsewhere"] = 1
    values = dict.fromkeys(("a", "", b"a", 1, 2.5, None, ("a", 1), ("a", ("b", b"c")), "naïve", "*?[x]\\"), 1)
    cache.set_many(values)
    assert list(cache.scan()) != []
    assert set(other.scan()) == set(values)
    assert gathered(open_cache().aio.scan()) == set(values)
    assert len(other) == 0


def test_what_a_function_is_cleared_by_is_no_value(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Its results are: under its name, what tells them from older ones, and the arguments."""
    cache = open_cache()
    double = cache.cached(version="of scan")(lambda number: 2 * number)
    assert (double(1), double(2)) == (2, 4)
    assert sorted((key[0], *key[2:]) for key in cache.scan()) == [(double._plan.name, 1), (double._plan.name, 2)]


def test_more_keys_than_one_answer_has_come_as_they_are_wanted(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Nobody makes a list of them: the first come before the last were asked for. And nothing is left out."""
    cache = open_cache()
    cache.set_many(dict.fromkeys(range(MANY), "x"))
    walk = cache.scan()
    first = next(walk)
    late = [key for key in range(MANY) if key != first]
    cache.delete_many(late)
    assert len(list(walk)) < MANY // 2
    cache.set_many(dict.fromkeys(range(MANY), "x"))
    assert set(cache.scan()) == set(range(MANY))


def test_only_what_has_a_value_counts(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """Neither what was deleted, cleared or invalidated by a tag, nor an absence that is kept."""
    cache = open_cache(negative_ttl=60)
    cache.set_many({"deleted": 1, "kept": 1})
    cache.set("tagged", 1, tags=["t"])
    cache.set("tagged too", 1, tags=["u"])
    del cache["deleted"]
    with pytest.raises(KeyError):
        cache.get_or_load("absent", {}.__getitem__)
    assert set(cache.scan()) == {"kept", "tagged", "tagged too"}
    cache.invalidate_tag("t")
    assert set(cache.scan()) == {"kept", "tagged too"}
    cache.clear()
    assert set(cache.scan()) == set()
    cache["again"] = 1
    assert list(cache.scan()) == ["again"]


def test_prefix_takes_texts_or_bytes_and_nothing_in_it_is_a_pattern(open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """What means something to SCAN is a character like others."""
    cache = open_cache()
    texts = {"user:1", "user:2", "user", "u*", "u?", "[user]", "u\\x"}
    cache.set_many(dict.fromkeys([*texts, b"user:1", 1, ("user:1",)], 1))
    assert set(cache.scan("user:")) == {"user:1", "user:2"}
    assert set(cache.scan("")) == texts
    assert set(cache.scan(b"user")) == {b"user:1"}
    for text in ("u*", "u?", "[user]", "u\\"):
        assert set(cache.scan(text)) == {each for each in texts if each.startswith(text)}
    assert gathered(open_cache().aio.scan("user:")) == {"user:1", "user:2"}
    for wrong in (1, ["user"], ("user",)):
        with pytest.raises(TypeError, match="give the beginning of keys"):
            cache.scan(wrong)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("where", ["redis", "memory"])
def test_view_finds_its_own_keys_and_not_those_of_views_in_it(
    open_cache: Callable[..., Cache[Any, Any]], where: str
) -> None:
    """By the view's names for them."""
    cache = open_cache() if where == "redis" else nearcache.open("memory://")
    users = cache.view("user")
    users.set_many({"ann": 1, "bob": 2, 7: 3})
    users.view("ann")["inner"] = 1
    cache.view("users")["eve"] = cache["user"] = cache["user", "a", "b"] = 1
    assert set(users.scan()) == {"ann", "bob", 7}
    assert list(users.scan("a")) == ["ann"]
    assert list(users.view("ann").scan()) == ["inner"]
    assert gathered(users.aio.scan()) == {"ann", "bob", 7}
    users.clear()
    assert list(users.scan()) == []
    assert set(cache.scan()) == {("users", "eve"), "user", ("user", "a", "b")}
    cache.close()


def test_memory_cache_tells_what_it_holds() -> None:
    """There is no L2 there; keys of any kind may stand in it."""
    with nearcache.open("memory://") as cache:
        odd = frozenset("x")
        cache.update({"a1": 1, "a2": 2, "b": 3, odd: 4})
        assert set(cache.scan()) == {"a1", "a2", "b", odd}
        assert gathered(cache.aio.scan("a")) == {"a1", "a2"}
    with pytest.raises(nearcache.ClosedError):
        cache.scan()


def test_keys_of_shards_that_answer_come_before_the_error_of_one_that_does_not(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """Whoever needs all of them must not take what has come for all."""
    cache = open_cache()
    keys = [f"k{n}" for n in range(20)]
    cache.set_many(dict.fromkeys(keys, 1))
    lanes: Any = cache._tier  # type: ignore[attr-defined]  # of the class behind
    two_shards[1].kill()
    found = []
    with pytest.raises(nearcache.ShardUnavailableError, match="shard b"):
        for key in cache.scan():
            found.append(key)
    assert set(found) == {key for key in keys if lanes.place(key)[0] == 0}
    two_shards[1].start()
    wait_until(lambda: cache.health().ok)


def test_server_that_was_replaced_in_between_is_walked_from_its_beginning(
    open_cache: Callable[..., Cache[Any, Any]], two_shards: tuple[RedisServer, RedisServer]
) -> None:
    """The place in one server means nothing in another, which would leave out what it takes for walked through."""
    cache = open_cache()
    cache.set_many(dict.fromkeys(range(MANY), "x"))
    walk = cache.scan()
    begun = next(walk)
    two_shards[0].restart(keep_data=True)
    wait_until(lambda: cache.health().ok)
    assert {begun, *walk} == set(range(MANY))
