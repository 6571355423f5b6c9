"""What ``await`` gets from L1: at once, without an exception and without a step of the loop."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import weakref
from typing import Any

import pytest

import nearcache
from nearcache._aio import Hits, Ready


class View(Hits[Any, Any]):
    """Answers misses with what it was asked."""

    async def _missing_get(self, key: Any, default: Any) -> Any:
        return ("missing", key, default)

    async def _missing_load(self, key: Any, loader: Any, **options: Any) -> Any:
        return ("load", key, loader, options)


@pytest.fixture
def view() -> View:
    """A view of a cache that holds one entry."""
    cache = nearcache.open("memory://")
    cache["k"] = ["value"]
    return View(cache.l1_hit)


def test_hit_is_awaited_without_suspending(view: View) -> None:
    """Whatever is driven by hand would show it: the first step is the last."""

    async def both() -> list[Any]:
        return [await view.get("k"), await view.get_or_load("k")]

    steps = both()
    with pytest.raises(StopIteration) as stop:
        steps.send(None)
    assert stop.value.value == [["value"], ["value"]]


def test_hit_returns_the_object_that_l1_holds(view: View) -> None:
    """No copy on the way; StopIteration, tuples and exceptions come out as they are."""
    for value in (["value"], None, (1, 2), StopIteration(3), KeyError("k")):

        async def get(value: Any = value) -> bool:
            return await Ready(value) is value

        assert asyncio.run(get())


def test_miss_goes_to_the_hooks(view: View) -> None:
    """With all that was given."""

    async def ask() -> list[Any]:
        return [
            await view.get("x"),
            await view.get("x", 1),
            await view.get_or_load("x", str.upper, ttl=2),
            await view.get_or_load(key="x"),
        ]

    assert asyncio.run(ask()) == [
        ("missing", "x", None),
        ("missing", "x", 1),
        ("load", "x", str.upper, {"ttl": 2}),
        ("load", "x", None, {}),
    ]


def test_option_that_is_unknown_is_refused_by_a_hit_as_by_a_miss(view: View) -> None:
    """Else a misspelt one would be noticed when the value has gone, by whoever asks then."""
    for key in ("k", "x"):
        with pytest.raises(TypeError, match="unexpected keyword argument 'tll'"):
            view.get_or_load(key, None, tll=2)  # type: ignore[call-overload]  # that is what is tested


def test_options_that_are_known_reach_the_hook_of_a_miss_as_they_are(view: View) -> None:
    """A hit needs none of them, but for a greatest age, which it does not know to judge."""
    options: Any = {"ttl": None, "tags": [], "max_age": 1}

    async def ask() -> list[Any]:
        return [
            await view.get_or_load("k", ttl=2, tags=["t"], max_age=None),
            await view.get_or_load("k", str.upper, **options),
        ]

    assert asyncio.run(ask()) == [["value"], ("load", "k", str.upper, options)]


def test_hit_that_raises_raises_at_the_call(view: View) -> None:
    """As the synchronous get does for a key that cannot be hashed."""
    with pytest.raises(TypeError, match="unhashable"):
        view.get([])


def test_ready_passes_for_a_coroutine_wherever_one_is_asked_for(view: View) -> None:
    """asyncio.run, tasks, gather, wait_for and shield take it."""

    async def main() -> list[Any]:
        return [
            await asyncio.create_task(view.get("k")),
            *await asyncio.gather(view.get("k"), view.get("x")),
            await asyncio.wait_for(view.get("k"), 5),
            await asyncio.shield(view.get("k")),
        ]

    assert isinstance(view.get("k"), collections.abc.Coroutine)
    assert inspect.isawaitable(view.get("k"))
    assert asyncio.run(view.get("k")) == ["value"]
    assert asyncio.run(main()) == [["value"], ["value"], ("missing", "x", None), ["value"], ["value"]]


def test_ready_can_be_awaited_again_or_not_at_all(view: View) -> None:
    """It is over before it begins, so nothing is left to run or to warn of."""
    ready = view.get("k")

    async def twice(ready: Any) -> tuple[Any, Any]:
        return await ready, await ready

    assert asyncio.run(twice(ready)) == (["value"], ["value"])
    ready.close()
    del ready
    gc.collect()


def test_ready_driven_by_hand_ends_by_stop_iteration() -> None:
    """The protocol of coroutines and of iterators."""
    with pytest.raises(StopIteration) as stop:
        Ready(1).send(None)
    assert stop.value.value == 1
    with pytest.raises(StopIteration) as stop:
        next(Ready(2))
    assert stop.value.value == 2
    assert iter(ready := Ready(3)) is ready
    for thrown in (ValueError("x"), ValueError):
        with pytest.raises(ValueError):
            Ready(3).throw(thrown)
    error = ValueError("y")
    with pytest.raises(ValueError) as caught:
        Ready(3).throw(ValueError, error, None)
    assert caught.value is error


@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")  # Python's own coroutines warn of it
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ValueError, None), (ValueError, "text"), (ValueError, ("two", "words")), (ValueError, 0),
        (ValueError, KeyError), (OSError, FileNotFoundError("f")), (KeyError, ValueError("v")), (ValueError("e"), None),
        (ValueError("e"), "text"), (3, None),
    ],
)  # fmt: skip
def test_ready_throws_as_a_coroutine_does(kind: Any, value: Any) -> None:
    """Its first argument may be a class, and the second what that is called with."""

    async def answer() -> None:
        """Nothing."""

    raised: list[BaseException] = []
    for thrower in (coroutine := answer(), Ready(None)):
        with pytest.raises(BaseException) as caught:
            thrower.throw(kind, value)
        raised.append(caught.value)
    coroutine.close()
    assert type(raised[0]) is type(raised[1])
    if kind != 3:  # which each refuses in words of its own
        assert raised[0].args == raised[1].args or str(raised[0]) == str(raised[1])


def test_ready_in_a_cycle_is_collected() -> None:
    """The collector sees what it holds."""

    class Node:
        pass

    node: Any = Node()
    node.ready = Ready(node)
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is None


def test_hits_of_a_cache_are_collected_with_it() -> None:
    """The view and its cache refer to each other."""
    cache = nearcache.open("memory://")
    seen = weakref.ref(cache.aio), weakref.ref(cache)
    del cache
    gc.collect()
    assert [each() for each in seen] == [None, None]
