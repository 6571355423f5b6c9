"""The verbs on ``memory://``, for threads and tasks: each is one step, whatever else is done to the key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ContentionError, MemoryCache
from nearcache._store import Store
from nearcache.cache.memory import exchanging

TIMEOUT = 30.0


@pytest.fixture
def cache() -> MemoryCache[Any, Any]:
    """A cache whose keys are folded, so that the key held is another than the one given."""
    return MemoryCache(key=lambda key: key.lower())


def test_add_replace_and_swaps_answer_as_on_redis(cache: MemoryCache[Any, Any]) -> None:
    """What they store, and what they return of what was there."""
    assert not cache.replace("K", 1)
    assert cache.add("K", 2)
    assert not cache.add("k", 3)
    assert cache.replace("k", 4)
    assert cache.get_and_set("k", 5) == 4
    assert cache.get_and_delete("K") == 5
    assert cache.get_and_delete("k", "none") == "none"
    assert cache.get_and_set("k", 6, "none") == "none"
    assert cache["k"] == 6
    cache.check_invariants()


@pytest.mark.parametrize("put", [lambda c: c.set("k", 1), lambda c: c.set("k", 1, tags=["t"]), lambda c: c.add("k", 1)])
def test_version_changes_with_every_write(cache: MemoryCache[Any, Any], put: Callable[[Cache[Any, Any]], Any]) -> None:
    """However the value came, its version is stable until somebody writes, even the same value again."""
    put(cache)
    value, version = cache.gets("K")
    assert (value, version) == cache.gets("k")
    assert version > 1
    cache["k"] = 1
    assert not cache.cas("k", 2, version)
    version = cache.gets("k")[1]
    assert cache.cas("K", 2, version)
    assert not cache.cas("k", 3, version)
    assert not cache.cas("k", 3, 0)
    cache.invalidate("k")
    assert cache.gets("k", "none") == ("none", 0)
    assert cache.cas("k", 3, 0)
    assert cache["k"] == 3


def test_touch_moves_the_end_and_keeps_version_and_tags(cache: MemoryCache[Any, Any]) -> None:
    """Only the lifetime is another afterwards."""
    cache.set("k", 1, ttl=50, tags=["t"])
    version = cache.gets("k")[1]
    assert cache.touch("K", 500)
    assert cache.remaining_ns("k") > 400_000_000_000  # type: ignore[operator]  # it has an end
    assert cache.get_and_touch("k", None) == 1
    assert cache.remaining_ns("k") is None
    assert cache.gets("k") == (1, version)
    cache.invalidate_tag("t")
    assert not cache.touch("k", 5)
    assert cache.get_and_touch("k", 5, "none") == "none"


def test_incr_does_not_move_the_end_of_the_window(cache: MemoryCache[Any, Any]) -> None:
    """Lifetime and tags are the first call's; the end is the very same instant after any number of calls."""
    assert cache.incr("n", ttl=50, tags=["t"]) == 1
    end = cache.l1_terms("n")
    assert [cache.incr("n", 2, ttl=500) for _ in range(100)][-1] == 201
    assert cache.decr("n", 202) == -1
    assert cache.l1_terms("n") == end
    cache.invalidate_tag("t")
    assert cache.incr("n", 1, 10) == 11
    with pytest.raises(TypeError, match="initial is str"):
        cache.incr("n", 1, "1")  # type: ignore[arg-type]  # what is tested


def test_append_and_prepend_need_a_value_of_their_type(cache: MemoryCache[Any, Any]) -> None:
    """Text to text, bytes to bytes, nothing to nothing."""
    assert not cache.append("k", b"x")
    cache["k"] = b"b"
    assert cache.append("k", b"c")
    assert cache.prepend("k", b"a")
    assert cache["k"] == b"abc"
    with pytest.raises(TypeError, match="the value is bytes, and str cannot be added"):
        cache.prepend("k", "x")


def test_changes_by_many_threads_are_all_counted(cache: MemoryCache[Any, Any]) -> None:
    """Four threads count and note at the same time; none overwrites what another has just stored."""
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for turn in range(500):
            cache.incr("n")
            if turn % 10 == 0:
                cache.compute("l", lambda there: (*there, number), ())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache["n"] == 2000
    assert sorted(cache["l"]) == [number for number in range(4) for _ in range(50)]
    cache.check_invariants()


def test_change_that_others_are_always_quicker_than_gets_its_turn(cache: MemoryCache[Any, Any]) -> None:
    """Whoever would come in between has to wait: a thread that counts without end keeps no other from a change."""
    asked, answered, over = threading.Event(), threading.Event(), threading.Event()

    def disturb() -> None:
        while asked.wait(TIMEOUT) and not over.is_set():
            asked.clear()
            cache.incr("n")
            answered.set()

    def slow(there: int) -> int:
        answered.clear()
        asked.set()
        answered.wait(0.1)
        return there + 1000

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        cache.compute("n", slow, 0)
    finally:
        over.set()
        asked.set()
        thread.join()
    assert cache["n"] in (1001, 1002)  # the last of the others comes after it


def test_change_in_its_turn_may_wait_for_another_thread(
    cache: MemoryCache[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a turn for ever, so what is made in one may need what another thread changes."""
    monkeypatch.setattr(exchanging, "PATIENCE_S", 0.01)
    cache["n"] = 0

    def needy(there: int) -> int:
        if there < 3:
            other = threading.Thread(target=cache.incr, args=("n",))
            other.start()
            other.join(TIMEOUT)
            assert not other.is_alive()
        return there + 1000

    assert cache.compute("n", needy, 0) == 1003


@pytest.mark.parametrize(
    "meddle",
    [
        lambda cache: cache.set("k", "other"),
        lambda cache: cache.set("k", "other", tags=["t"]),
        lambda cache: cache.incr("n") and cache.get_and_set("k", "other"),
    ],
)
def test_change_that_others_overtake_is_tried_again(
    cache: MemoryCache[Any, Any], meddle: Callable[[Cache[Any, Any]], Any]
) -> None:
    """Whatever the way in which somebody else stores a value meanwhile, the change is made of that value."""
    seen: list[Any] = []

    def make(there: Any) -> str:
        seen.append(there)
        if len(seen) == 1:
            meddle(cache)
        return f"{there}+"

    assert cache.compute("k", make, "default") == "other+"
    assert seen == ["default", "other"]


def test_change_that_is_always_overtaken_gives_up(cache: MemoryCache[Any, Any]) -> None:
    """The attempts have an end, as on Redis."""

    def make(there: int) -> int:
        cache["k"] = there + 1
        return -1

    with pytest.raises(ContentionError, match="key 'k': changed by others during each of 64 attempts"):
        cache.compute("K", make, 0)
    assert cache["k"] == 64


def test_deletion_during_a_change_is_not_undone(cache: MemoryCache[Any, Any]) -> None:
    """A value that was invalidated meanwhile is not written back changed; the change begins anew."""
    cache["k"] = 1
    seen: list[Any] = []

    def make(there: Any) -> int:
        seen.append(there)
        if len(seen) == 1:
            cache.invalidate("k")
        return there + 1

    assert cache.compute("k", make, 10) == 11
    assert cache["k"] == 11
    assert seen == [1, 10]


def test_verbs_of_aio_answer_the_same() -> None:
    """Each of them as a coroutine."""

    async def use() -> None:
        aio = nearcache.open("memory://").aio
        assert await aio.add("k", 1)
        assert not await aio.add("k", 2)
        assert await aio.replace("k", 3)
        value, version = await aio.gets("k")
        assert await aio.cas("k", value + 1, version)
        assert not await aio.cas("k", 0, version)
        assert await aio.get_and_set("k", "b") == 4
        assert await aio.append("k", "c")
        assert await aio.prepend("k", "a")
        assert await aio.touch("k", 5)
        assert await aio.get_and_touch("k", 50) == "abc"
        assert await aio.compute("k", str.upper) == "ABC"
        assert await aio.get_and_delete("k") == "ABC"
        assert [await aio.get_and_delete("k"), await aio.get_and_delete("k", "none")] == [None, "none"]
        assert await aio.incr("n", 5) == 5
        assert await aio.decr("n") == 4
        assert aio.cache["n"] == 4

    asyncio.run(use())


def test_verbs_find_values_that_have_grown_old() -> None:
    """Behind its soft end a value is there all the same; counting neither renews it nor takes it from its tag."""
    cache = nearcache.open("memory://", ttl=100, soft_ttl=0.001)
    cache.set("n", 1, tags=["t"])
    cache.l1_set_clock(time.monotonic_ns() + 5_000_000_000)
    assert cache.peek("n") is None
    assert not cache.add("n", 9)
    assert cache.incr("n") == 2
    value, version = cache.gets("n")
    assert value == cache["n"] == 2
    assert cache.touch("n", 50)
    assert cache.cas("n", 3, version)
    assert cache["n"] == 3
    cache.set("n", 1, tags=["t"])
    cache.l1_set_clock(time.monotonic_ns() + 10_000_000_000)
    assert cache.incr("n") == 2
    cache.invalidate_tag("t")
    assert cache.get("n") is None
    assert cache.add("n", 4)
    assert cache.get_and_delete("n") == 4
    assert "n" not in cache


@pytest.mark.parametrize("options", [{"soft_ttl": 1}, {"soft_ttl": 1, "beta": 1}, {"soft_ttl": 1, "ages": True}])
@pytest.mark.parametrize("verb", ["incr", "decr", "append", "prepend"])
def test_what_is_made_of_a_value_that_is_young_lives_as_long_as_that_would_have(
    options: dict[str, Any], verb: str
) -> None:
    """Not only until its soft end, which what is made of it does not have; and it keeps its tags."""
    made = {"incr": 2, "decr": 0, "append": "xy", "prepend": "yx"}[verb]
    for end in ("its lifetime", "its tag"):
        with nearcache.open("memory://", ttl=100, **options) as cache:
            cache.set("n", 1 if verb in {"incr", "decr"} else "x", tags=["t"])
            getattr(cache, verb)("n", *(["y"] if verb in {"append", "prepend"} else []))
            for at_s in (3, 98):
                cache.l1_set_clock(time.monotonic_ns() + at_s * 1_000_000_000)
                assert cache.get("n") == made
            if end == "its tag":
                cache.invalidate_tag("t")
            else:
                cache.l1_set_clock(time.monotonic_ns() + 101 * 1_000_000_000)
            assert cache.get("n") is None


@pytest.mark.parametrize("options", [{}, {"soft_ttl": 30, "ttl": 60}, {"ttl": nearcache.Idle(60)}])
@pytest.mark.parametrize("overtakes", ["drop", "assignment"])
def test_verb_that_a_write_without_the_lock_overtakes_is_tried_anew(options: dict[str, Any], overtakes: str) -> None:
    """Else add() would say that it has stored what nobody has ever seen, and nobody would be told of its removal."""
    told: list[Any] = []
    late = [True]
    kind: Any = type(nearcache.open("memory://", **options))

    class Overtaken(kind):  # type: ignore[misc]  # what open() chooses
        def l1_finish(self, *arguments: Any, **more: Any) -> bool:
            if late:
                late.clear()
                if overtakes == "drop":
                    Store.drop(self, "k")
                else:
                    Store.l1_put(self, "k", "other")
            return bool(super().l1_finish(*arguments, **more))

    cache = Overtaken(on_removal=lambda _key, value, _cause: told.append(value), **options)
    was_added = cache.add("k", "mine")
    assert not late
    assert was_added is (overtakes == "drop")
    assert cache["k"] == ("mine" if was_added else "other")
    cache.drop("k")
    assert told.count("mine") == was_added


def test_verbs_take_known_absence_for_no_value() -> None:
    """That a loader had nothing is no value: it is not counted, replaced or touched, and does not hinder add."""

    def nothing(key: Any) -> Any:
        raise KeyError(key)

    cache = nearcache.open("memory://", ttl=100, negative_ttl=50, loader=nothing)
    with pytest.raises(KeyError):
        cache["k"]
    assert not cache.replace("k", 1)
    assert not cache.touch("k", 50)
    assert cache.gets("k") == (None, 0)
    assert cache.add("k", 2)
    assert cache["k"] == 2


def test_lifetime_as_a_function_is_asked_of_the_new_value() -> None:
    """Whatever verb stores it; touch asks it of the value that is there."""
    asked: list[Any] = []

    def ttl(key: Any, value: Any) -> float:
        asked.append((key, value))
        return 50.0

    cache = nearcache.open("memory://", ttl=ttl)
    assert cache.add("k", 1)
    assert cache.incr("k") == 2
    assert cache.get_and_set("k", 3) == 2
    assert cache.touch("k")
    assert asked == [("k", 1), ("k", 3), ("k", 3)]
