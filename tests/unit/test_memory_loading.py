"""Loaders of ``memory://``: many keys at once, errors that are remembered, ages, and values found unchanged."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import pickle
import re
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import UNCHANGED, Cache, ConfigError, LoadCycleError, Loaded, Old, conditional
from nearcache.clocks import monotonic_ns
from support.caches import refuse_loaders_that_cannot_be_called
from support.interrupts import interrupted
from support.tasks import until
from support.waiting import wait_until

TIMEOUT = 20.0


class NotFoundError(Exception):
    """Says of a key that there is nothing."""


def opened(**options: Any) -> Cache[Any, Any]:
    """Open a cache of this process."""
    return nearcache.open("memory://", **options)


def doubled(keys: list[str]) -> dict[str, str]:
    """A bulk loader, which can be pickled."""
    return {key: key * 2 for key in keys}


# -- many keys


def test_all_misses_are_loaded_by_one_call() -> None:
    """What is there is not asked for; what has no value is left out, and kept only if absence is."""
    asked: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        return {key: len(asked) for key in keys if key != "none"}

    cache = opened(load_many=load_many)
    cache["a"] = 0
    assert cache.get_many(["a", "b", "none", "b"]) == {"a": 0, "b": 1}
    assert cache["c"] == 2
    assert cache.get("d") is None
    assert asked == [["b", "none"], ["c"]]
    with pytest.raises(KeyError, match="none"):
        cache["none"]
    assert (cache.stats().loader.loads, cache.stats().loader.errors) == (3, 1)
    keeping = opened(load_many=load_many, negative_ttl=60)
    for _ in range(2):
        assert keeping.get_many(["a", "none"]) == {"a": 4}
    assert asked[3:] == [["a", "none"]]


def test_bulk_and_single_loads_share_their_keys() -> None:
    """Each key is loaded by who asked first, and an error reaches all who wait."""
    may_go, asked = threading.Event(), []

    def load_many(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        assert may_go.wait(TIMEOUT)
        if "bad" in keys:
            raise ValueError("bad")
        return doubled(keys)

    cache = opened(load_many=load_many)
    results: list[Any] = []

    def read(work: Callable[[], Any]) -> None:
        try:
            results.append(work())
        except ValueError as error:
            results.append(str(error))

    def start(work: Callable[[], Any], calls: int) -> threading.Thread:
        thread = threading.Thread(target=read, args=(work,))
        thread.start()
        wait_until(lambda: len(asked) == calls, TIMEOUT)
        return thread

    threads = [
        start(lambda: cache.get_many(["a", "b"]), 1),
        start(lambda: cache.get_many(["b", "c"]), 2),
        start(lambda: cache.get_many(["bad"]), 3),
        start(lambda: cache["bad"], 3),
    ]
    wait_until(lambda: cache._loads.waiting == 1, TIMEOUT)
    may_go.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert asked[:3] == [["a", "b"], ["c"], ["bad"]]
    assert sorted(map(str, results)) == ["bad", "bad", "{'a': 'aa', 'b': 'bb'}", "{'b': 'bb', 'c': 'cc'}"]


@pytest.mark.parametrize("by_tasks", [False, True], ids=["threads", "tasks"])
def test_key_error_of_a_bulk_loader_is_an_error_to_who_joined_as_well(by_tasks: bool) -> None:
    """It says nothing of the keys: those that have no value, a bulk loader leaves out."""
    asked = threading.Event()

    def load_many(keys: list[str]) -> dict[str, str]:
        asked.set()
        wait_until(lambda: cache._loads.under_way("a").is_shared, TIMEOUT)
        raise KeyError("a column")

    async def read(keys: list[str]) -> Any:
        return await (cache.aio.get_many(keys) if by_tasks else asyncio.to_thread(cache.get_many, keys))

    async def main() -> list[Any]:
        first = asyncio.ensure_future(read(["a", "b"]))
        await until(asked.is_set)
        return await asyncio.gather(first, read(["a"]), return_exceptions=True)

    cache: Any = opened(load_many=load_many)
    assert list(map(repr, asyncio.run(main()))) == ["KeyError('a column')"] * 2


def test_loader_that_asks_for_its_own_keys_is_told_the_chain() -> None:
    """By whatever way."""
    cache = opened(load_many=lambda keys: {key: ask(key) for key in keys}, ages=True)
    for ask in (lambda key: cache[key], lambda key: cache.get_many([key])):  # noqa: B007  the loader reads it
        with pytest.raises(LoadCycleError) as caught:
            cache.get_many(["a", "b"])
        assert caught.value.chain == ("a", "a")


def test_what_was_written_during_a_bulk_load_stays() -> None:
    """It is newer."""

    def load_many(keys: list[str]) -> dict[str, str]:
        cache["a"] = "written"
        cache.invalidate("b")
        return doubled(keys)

    cache = opened()
    assert cache.get_or_load_many(["a", "b", "c"], load_many) == {"a": "aa", "b": "bb", "c": "cc"}
    assert dict(cache.items()) == {"a": "written", "c": "cc"}


def test_bulk_loader_of_another_kind_is_refused() -> None:
    """With what helps; surplus keys are counted."""

    async def later(keys: list[str]) -> dict[str, str]:
        return doubled(keys)

    cache = opened()
    with pytest.raises(TypeError, match=r"cache\.aio"):
        cache.get_or_load_many(["a"], later)
    with pytest.raises(TypeError, match="mapping"):
        cache.get_or_load_many(["a"], lambda keys: keys)
    with pytest.raises(TypeError, match="load_many="):
        cache.get_or_load_many(["a"])
    with pytest.raises(ConfigError, match="load_many"):
        opened(load_many=3)
    assert cache.get_or_load_many(["a"], lambda _: {"a": 1, "b": 2}) == {"a": 1}
    assert cache.stats().loader.surplus == 1
    assert len(cache) == 1


def test_copies_take_the_bulk_loader_along() -> None:
    """By pickle too."""
    cache = opened(load_many=doubled)
    for other in (copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.get_many(["a"]) == {"a": "aa"}
        assert other["b"] == "bb"


def test_tasks_load_many() -> None:
    """By coroutine functions and by others; a cycle is found, and a caller who goes leaves the load to the rest."""
    asked: list[list[str]] = []

    async def load_many(keys: list[str]) -> dict[str, str]:
        asked.append(keys)
        if "cycle" in keys:
            await cache.aio.get_or_load_many(["cycle"], load_many)
        await gate.wait()
        return doubled(keys)

    async def main() -> None:
        nonlocal gate
        gate = asyncio.Event()
        c = cache.aio
        first = asyncio.ensure_future(c.get_many(["a", "b"]))
        second = asyncio.ensure_future(c.get_many(["b", "c"]))
        while len(asked) < 2:
            await asyncio.sleep(0)
        first.cancel()
        gate.set()
        assert await second == {"b": "bb", "c": "cc"}
        assert await c.get_or_load("a") == "aa"
        assert asked == [["a", "b"], ["c"]]
        with pytest.raises(LoadCycleError, match="cycle"):
            await c.get_many(["cycle", "d"])
        assert await c.get_or_load_many(["e"], doubled) == {"e": "ee"}
        await c.close()

    gate: Any = None
    cache = opened(load_many=load_many)
    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


# -- errors


def test_errors_are_remembered_by_class() -> None:
    """Raised anew each time, with nothing of the traceback that was; a write or an invalidation ends it."""
    calls: list[str] = []

    def load(key: str) -> str:
        calls.append(key)
        if key == "k" and len(calls) < 3:
            raise NotFoundError(key)
        return key

    cache = opened(error_ttl={NotFoundError: 60}, loader=load)
    raised = []
    for _ in range(3):
        with pytest.raises(NotFoundError, match="k") as caught:
            cache["k"]
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 3
    assert calls == ["k"]
    assert (cache.get("k", 7), "k" in cache, cache.get_many(["k"]), len(cache)) == (7, False, {}, 0)
    cache["k"] = 1
    assert cache["k"] == 1
    cache.invalidate("k")
    with pytest.raises(NotFoundError):
        cache["k"]
    cache.invalidate("k")
    assert cache["k"] == "k"
    calls.clear()
    with pytest.raises(NotFoundError):
        cache.refresh("k")
    assert cache["k"] == "k"


@pytest.mark.parametrize(
    "wrong", [{NotFoundError: 0}, {"NotFoundError": 1}, {Exception: 1}, {KeyboardInterrupt: 1}, [NotFoundError], 5]
)
def test_lifetimes_of_errors_are_checked(wrong: Any) -> None:
    """Classes of exceptions that say something about a key, and seconds."""
    with pytest.raises(ConfigError, match="error_ttl"):
        opened(error_ttl=wrong)


def test_errors_of_nearcache_itself_cannot_be_remembered() -> None:
    """That a shard is out says nothing about a key."""
    with pytest.raises(ConfigError, match="error_ttl"):
        opened(error_ttl={nearcache.ShardError: 1})


# -- ages


def test_ages_are_kept_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is set, loaded, counted and touched; without the option it is an error that names it."""
    now_ns = [monotonic_ns()]
    for module in ("aging", "exchanging", "cache"):
        monkeypatch.setattr(f"nearcache.cache.memory.{module}.monotonic_ns", lambda: now_ns[0])
    cache = opened(ages=True, loader=str.upper)
    cache["a"] = 1
    cache.incr("n")
    now_ns[0] += 10_000_000_000
    cache["b"] = 2
    assert cache.get_many(["a", "b", "n", "x"], max_age=5) == {"b": 2}
    assert cache.get_many(["a", "b", "n"], max_age=15) == {"a": 1, "b": 2, "n": 1}
    assert cache.get("a", 7, max_age=5) == 7
    assert cache.touch("a", 60)
    assert cache.get("a", 7, max_age=5) == 7
    assert cache.get("a") == 1
    assert cache.incr("n") == 2
    assert cache.get("n", max_age=5) == 2
    assert cache.get_or_load("a", max_age=15) == 1
    assert cache.get_or_load("a", max_age=5) == "A"
    assert cache.get("a", max_age=0) == "A"
    assert cache.get_or_load_many(["a", "n", "z"], doubled, max_age=5) == {"a": "A", "n": 2, "z": "zz"}
    with pytest.raises(ConfigError, match="ages=True"):
        opened().get("a", max_age=5)
    with pytest.raises(ConfigError, match="max_age"):
        cache.get("a", max_age=-1)


def test_value_that_is_about_to_be_stored_is_not_for_who_asks_now() -> None:
    """It is stored after they have asked only if they asked before."""
    asked: list[Any] = []

    def ttl(key: str, value: int) -> int:
        if value == 1:
            asked.append(cache.get_or_load(key, max_age=0))
        return 60

    numbers = iter(range(1, 10))
    cache = opened(ages=True, loader=lambda _: next(numbers), ttl=ttl)
    assert cache.get_or_load("a", max_age=0) == 1
    assert asked == [2]


# -- unchanged


def test_conditional_loader_is_given_what_is_there() -> None:
    """Value and validator, if the value is still the one that came with it; UNCHANGED begins its life anew."""
    shown: list[Old | None] = []

    @conditional
    def load(key: str, old: Old | None) -> Any:
        shown.append(old)
        return Loaded([key], ttl=50, validator="v1") if old is None else UNCHANGED

    cache = opened(loader=load, ttl=1000, soft_ttl=500)
    value = cache["k"]
    assert cache.refresh("k") is value
    assert shown == [None, Old(["k"], "v1")]
    assert cache.remaining_ns("k") < 51e9
    assert cache.stats().loader.unchanged == 1
    cache["k"] = "set"
    assert cache.refresh("k") == "set"
    assert shown[2] == Old("set", None)
    assert load("other") == Loaded(["other"], ttl=50, validator="v1")
    with pytest.raises(TypeError, match="UNCHANGED"):
        cache.get_or_load("j", lambda _: UNCHANGED)


class Thing:
    """A value that says when it is gone."""


@pytest.mark.parametrize("terms", [{"ttl": 60}, {"tags": ["t"]}, {"validator": "v1"}])
@pytest.mark.parametrize("loader_kind", [conditional, lambda load: lambda key: load(key, None)])
def test_value_that_came_with_terms_is_gone_when_it_is_removed(loader_kind: Any, terms: dict[str, Any]) -> None:
    """Nothing but the store holds it; what it came with is for its successor alone."""
    cache = opened(loader=loader_kind(lambda _key, _old: Loaded(Thing(), **terms)))
    thing = weakref.ref(cache["k"])
    assert thing() is not None
    del cache["k"]
    gc.collect()
    assert thing() is None
    cache.close()
    assert cache._answers is None or len(cache._answers) == 0


def test_terms_are_kept_for_as_long_as_the_value_is_to_live() -> None:
    """And not of more values than the cache has room for."""

    @conditional
    def load(key: str, old: Old | None) -> Any:
        return Loaded(key, ttl=50, validator="v1") if old is None or old.validator is None else UNCHANGED

    with opened(loader=load, maxsize=10) as cache:
        for number in range(100):
            assert cache[str(number)] == str(number)
        known = cache._answers
        assert known is not None
        assert 0 < len(known) <= 10
        known.l1_set_clock(monotonic_ns() + 51_000_000_000)
        known.expire()
        assert len(known) == 0
        assert cache.refresh("99") == "99"
        assert cache.stats().loader.unchanged == 0
        assert len(known) == 1
        cache.clear()
        assert len(known) == 0


def test_terms_are_of_the_value_that_they_came_with() -> None:
    """An equal one that was stored since, even the same object, came without; one whose life was changed keeps them."""
    validators: list[str | None] = []

    @conditional
    def load(key: str, old: Old | None) -> Any:
        validators.append(old.validator if old is not None else None)
        return Loaded(key, ttl=50, validator="v1")

    with opened(loader=load) as cache:
        value = cache["k"]
        cache["k"] = value
        cache.refresh("k")
        cache.touch("k", 100)
        assert cache.gets("k")[0] is value
        cache.refresh("k")
    assert validators == [None, None, "v1"]


@pytest.mark.parametrize("options", [{}, {"ttl": 60, "soft_ttl": 30}, {"ttl": nearcache.Idle(60)}])
@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda cache: cache.add("k", 5), 5),
        (lambda cache: [cache.set("k", 5), cache.incr("k")], 6),
        (lambda cache: [cache.set("k", 5), cache.gets("k")], 5),
        (lambda cache: cache.set("k", 5, tags=["t"]), 5),
        (lambda cache: [cache.set("k", 5), cache.invalidate("k")], None),
    ],
)
def test_load_that_ends_after_a_change_leaves_what_the_change_made(options: Any, change: Any, value: Any) -> None:
    """Whichever verb it was: it is newer."""
    with opened(**options) as cache:

        def load(_key: str) -> str:
            change(cache)
            return "loaded"

        assert cache.get_or_load("k", load) == "loaded"
        assert cache.get("k") == value


def test_tags_of_a_loaded_value_are_added_to_the_others() -> None:
    """And either invalidates it."""
    cache = opened()
    for tag in ("call", "own"):
        cache.get_or_load("k", lambda key: Loaded(key, tags=["own"]), tags=["call"])
        assert cache.get("k") == "k"
        cache.invalidate_tag(tag)
        assert cache.get("k") is None


@pytest.mark.parametrize(
    "wrong",
    [{"ttl": 0}, {"ttl": "x"}, {"tags": "red"}, {"validator": b"v"}, {"validator": ""}, {"validator": "é" * 128}],
)
def test_terms_of_a_loaded_value_are_checked(wrong: dict[str, Any]) -> None:
    """Where the loader makes them."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Loaded(1, **wrong)
    assert Loaded(1, validator="é" * 127).validator == "é" * 127


def test_cached_functions_may_answer_with_terms() -> None:
    """What they return is the value."""
    cache = opened()

    @cache.cached(unless=lambda value: value == 0)
    def load(x: int) -> Any:
        return Loaded(x, ttl=5)

    assert load(1) == 1
    assert load(0) == 0
    assert load.peek(1) == 1
    with pytest.raises(KeyError):
        load.peek(0)


def test_bulk_load_interrupted_anywhere_keeps_nobody_waiting() -> None:
    """An interrupt concerns the thread that it strikes: who waits for one of the keys gets on."""
    for step in itertools.count(1):
        cache, waiters = opened(), list[threading.Thread]()

        def load(keys: list[str], cache: Any = cache, waiters: list[threading.Thread] = waiters) -> dict[str, str]:
            look = sys.getprofile()
            sys.setprofile(None)
            waiters.append(threading.Thread(target=lambda: cache.get_or_load("c", str.upper), daemon=True))
            waiters[0].start()
            wait_until(lambda: cache._loads.waiting, step=0.0)
            sys.setprofile(look)
            return doubled(keys)

        was_interrupted = interrupted(step, lambda cache=cache, load=load: cache.get_or_load_many([*"abc"], load))
        for waiter in waiters:
            waiter.join(TIMEOUT)
            assert not waiter.is_alive(), step
        assert cache.get_or_load_many([*"abc"], doubled).keys() == set("abc")
        if not was_interrupted:
            return


@pytest.mark.parametrize("told", ["shirts", None, 7, ["a", 1]], ids=repr)
@pytest.mark.parametrize("where", ["option", "call"])
def test_function_for_tags_that_gives_none_is_refused(where: str, told: Any) -> None:
    """A text is a sequence of letters, and by the tag that was meant nothing would ever be removed."""
    tags = {"tags": lambda _key, _value: told}
    cache = opened(**(tags if where == "option" else {}))
    with pytest.raises(ConfigError, match=f"tags={re.escape(repr(told))}.*texts"):
        cache.get_or_load("k", str.upper, **({} if where == "option" else tags))
    assert "k" not in cache


@pytest.mark.parametrize("kind", ["cache", "view"])
def test_loader_that_cannot_be_called_is_refused_with_the_remedy(kind: str) -> None:
    """By name and value, for threads and tasks; nothing is asked before."""
    whole = nearcache.open("memory://", ages=True)
    cache: Any = whole if kind == "cache" else whole.view("part")
    refuse_loaders_that_cannot_be_called(cache)
