"""Listening to a ``memory://`` cache: what is told of which change, and what a listener can do wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT, ConfigError, EntryEvent, MemoryCache
from nearcache.cache.events import listening
from nearcache.cache.events.listening import Reporter, _Own
from support.fixtures import Clock
from support.threads import PATIENCE

Told = list[tuple[Any, ...]]


class Ear:
    """A listener that notes kind, key, value and cause of everything, once it is asked."""

    def __init__(self, cache: Any, *args: Any, **options: Any) -> None:
        self.events: list[EntryEvent] = []
        self.subscription = cache.listen(self.events.append, *args, **options)

    def take(self) -> Told:
        """Return what came since the last time."""
        assert self.subscription.flush(PATIENCE)
        told = [(e.kind, e.key, e.value if e.has_value else "?", e.cause) for e in self.events]
        assert {e.origin for e in self.events} <= {"local"}
        self.events.clear()
        return told


def test_listener_hears_what_each_way_of_storing_and_removing_does() -> None:
    """Once for each change, with the new value or the one that went."""
    with nearcache.open("memory://", maxsize=100) as cache:
        ear = Ear(cache)
        cache["a"] = 1
        cache["a"] = 1
        cache.set("b", 2, tags=["t"])
        cache.set("b", 3, tags=["t"])
        assert cache.setdefault("c", 4) == cache.setdefault("c", 5) == 4
        cache.update({"d": 5})
        assert ear.take() == [
            ("created", "a", 1, "stored"),
            ("updated", "a", 1, "stored"),
            ("created", "b", 2, "stored"),
            ("updated", "b", 3, "stored"),
            ("created", "c", 4, "stored"),
            ("created", "d", 5, "stored"),
        ]
        del cache["a"]
        assert not cache.invalidate("a")
        assert cache.pop("b") == 3
        cache.drop("c")
        cache.clear()
        assert ear.take() == [
            ("removed", "a", 1, "invalidated"),
            ("removed", "b", 3, "invalidated"),
            ("removed", "c", 4, "dropped"),
            ("removed", "d", 5, "invalidated"),
        ]
        assert cache.get("a") is None
        assert ear.take() == []


def test_listener_hears_what_the_verbs_change_and_nothing_of_those_that_change_nothing() -> None:
    """touch, gets and a refused verb are no change."""
    with nearcache.open("memory://") as cache:
        ear = Ear(cache)
        assert cache.add("a", 1)
        assert not cache.add("a", 2)
        assert cache.touch("a", 50)
        version = cache.gets("a")[1]
        assert cache.get_and_touch("a", 50) == 1
        assert cache.cas("a", 2, version)
        assert cache.incr("n") == 1
        assert cache.incr("n") == 2
        assert cache.compute("a", lambda old: old) == 2
        assert cache.get_and_delete("a") == 2
        assert cache.get_and_delete("a") is None
        assert ear.take() == [
            ("created", "a", 1, "stored"),
            ("updated", "a", 2, "stored"),
            ("created", "n", 1, "stored"),
            ("updated", "n", 2, "stored"),
            ("removed", "a", 2, "invalidated"),
        ]


def test_listener_hears_loads_evictions_and_ends_of_time() -> None:
    """``evicted`` only if it was asked for; what expired is told when it is met."""
    with nearcache.open("memory://", maxsize=2, policy="lru") as cache:
        usual, every = Ear(cache), Ear(cache, [*sorted(nearcache.events.KINDS)])
        cache.l1_set_clock(10**9)
        assert cache.get_or_load("a", str.upper, ttl=5) == "A"
        assert cache.refresh("a", str.lower, ttl=5) == "a"
        cache["b"] = cache["c"] = 1
        cache.set("d", 2, ttl=5)
        cache.l1_set_clock(100 * 10**9)
        assert cache.get("d") is None
        told = every.take()
        assert told == [
            ("created", "a", "A", "loaded"),
            ("updated", "a", "a", "loaded"),
            ("created", "b", 1, "stored"),
            ("evicted", "a", "a", "evicted"),
            ("created", "c", 1, "stored"),
            ("evicted", "b", 1, "evicted"),
            ("created", "d", 2, "stored"),
            ("expired", "d", 2, "expired"),
        ]
        assert usual.take() == [event for event in told if event[0] != "evicted"]


def test_listener_of_a_cache_with_old_values_hears_of_their_real_end() -> None:
    """The soft end is no end; refreshing is an update; an invalidation removes one entry, not two."""
    with nearcache.open("memory://", ttl=100, soft_ttl=10) as cache:
        ear = Ear(cache)
        cache["k"] = 1
        cache.l1_set_clock(None)
        assert cache.refresh("k", lambda _: 2) == 2
        assert cache.invalidate("k")
        cache["k"] = 3
        cache.clear()
        assert ear.take() == [
            ("created", "k", 1, "stored"),
            ("updated", "k", 2, "loaded"),
            ("removed", "k", 2, "invalidated"),
            ("created", "k", 3, "stored"),
            ("removed", "k", 3, "invalidated"),
        ]


@pytest.mark.parametrize("options", [{}, {"soft_ttl": 10}], ids=["plain", "aging"])
def test_listener_hears_that_a_value_was_created_where_one_had_expired(clock: Clock, options: dict[str, Any]) -> None:
    """As on Redis, and as ``add`` says it: nobody could get the one before."""
    with nearcache.open("memory://", ttl=100, **options) as cache:
        ear = Ear(cache)
        cache["k"] = 1
        clock(cache, 200)
        cache["k"] = 2
        clock(cache, 400)
        assert not cache.invalidate("k")
        assert ear.take() == [
            ("created", "k", 1, "stored"),
            ("expired", "k", 1, "expired"),
            ("created", "k", 2, "stored"),
            ("expired", "k", 2, "expired"),
        ]


def test_listener_of_negative_caching_hears_no_value_that_is_none() -> None:
    """That there is nothing is no entry."""
    with nearcache.open("memory://", negative_ttl=5, loader=lambda _: ABSENT) as cache:
        ear = Ear(cache)
        with pytest.raises(KeyError):
            cache["k"]
        assert ear.take() == []


def test_on_removal_goes_on_beside_listeners() -> None:
    """It is told what it always was, and may use the cache, which is told as ever."""
    gone: Told = []

    def note(key: Any, value: Any, cause: str) -> None:
        gone.append((key, value, cause))
        if value == 2:
            cache["from within"] = 1

    cache: MemoryCache[Any, Any] = MemoryCache(on_removal=note)
    cache["a"] = 1
    with cache.listen(lambda _: None):
        ear = Ear(cache)
        cache["a"] = 2
        cache.set("a", 3, tags=["t"])
        del cache["a"]
    assert gone == [("a", 1, "replaced"), ("a", 2, "replaced"), ("a", 3, "invalidated")]
    assert ear.take() == [
        ("updated", "a", 2, "stored"),
        ("updated", "a", 3, "stored"),
        ("created", "from within", 1, "stored"),
        ("removed", "a", 3, "invalidated"),
    ]
    cache.close()


def test_view_tells_of_its_own_keys_by_their_names_in_it() -> None:
    """Other keys, and those of inner views, are not its business."""
    with nearcache.open("memory://") as cache:
        view = cache.view("v")
        ear = Ear(view)
        view["a"] = cache["a"] = view.view("w")["a"] = 1
        view.pop("a")
        assert ear.take() == [("created", "a", 1, "stored"), ("removed", "a", 1, "invalidated")]


def test_slow_listener_delays_nobody_and_is_told_that_it_missed_something(caplog: pytest.LogCaptureFixture) -> None:
    """What finds its queue full is counted; before the next event it hears of that."""
    busy, go = threading.Event(), threading.Event()
    told: list[EntryEvent] = []

    def slow(event: EntryEvent) -> None:
        told.append(event)
        busy.set()
        go.wait(PATIENCE)

    with nearcache.open("memory://") as cache, caplog.at_level(logging.WARNING, "nearcache"):
        subscription = cache.listen(slow, queue=2)
        other = Ear(cache)
        cache[0] = 0
        assert busy.wait(PATIENCE)
        for key in (1, 2, 3, 4):
            cache[key] = key
        assert len(other.take()) == 5
        assert (subscription.dropped, subscription.pending) == (2, 2)
        go.set()
        assert subscription.flush(PATIENCE)
        cache[5] = 5
        assert subscription.flush(PATIENCE)
        assert [(event.kind, event.key, event.cause) for event in told] == [
            ("created", 0, "stored"),
            ("created", 1, "stored"),
            ("created", 2, "stored"),
            ("missed", None, "overflow"),
            ("created", 5, "stored"),
        ]
        assert subscription.delivered == 5
    assert caplog.text.count("namespace default: a listener is too slow for its queue of 2 events") == 1


def test_listener_that_raises_is_logged_and_counted_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    """The cache and other listeners notice nothing."""

    def bad(event: EntryEvent) -> None:
        raise SystemExit if event.key else ZeroDivisionError("of the listener")

    with nearcache.open("memory://") as cache, caplog.at_level(logging.ERROR, "nearcache"):
        subscription, other = cache.listen(bad), Ear(cache)
        cache[0] = cache[1] = 1
        assert subscription.flush(PATIENCE)
        assert (subscription.errors, subscription.delivered, len(other.take())) == (2, 2, 2)
    assert "of the listener" in caplog.text


@pytest.mark.usefixtures("no_leaks")
def test_closed_subscription_is_called_no_more() -> None:
    """By itself, as a context, from within the listener, or with the cache."""
    cache = nearcache.open("memory://")
    inner: Any = None

    def once(event: EntryEvent) -> None:
        calls.append(event.key)
        inner.close()

    calls: list[Any] = []
    inner = cache.listen(once)
    ear = Ear(cache)
    with cache.listen(calls.append) as outer:
        pass
    cache["a"] = 1
    assert inner.flush(PATIENCE)
    assert outer.flush(PATIENCE)
    cache["b"] = 1
    assert ear.take() == [("created", "a", 1, "stored"), ("created", "b", 1, "stored")]
    cache.close()
    assert ear.subscription.flush(PATIENCE)
    assert (calls, ear.events) == (["a"], [])
    assert "closed" in repr(ear.subscription)
    ear.subscription.close()
    with pytest.raises(nearcache.ClosedError):
        cache.listen(calls.append)


@pytest.mark.parametrize("options", [{}, {"soft_ttl": 5, "ttl": 10}])
def test_listener_that_refers_to_the_cache_keeps_nothing_alive(options: Any) -> None:
    """Neither a thread that waits for events nor the store's listener is a root for the collector."""

    class Watcher:
        def __init__(self) -> None:
            self.cache = nearcache.open("memory://", **options)
            self.subscription = self.cache.listen(self.heard)

        def heard(self, event: EntryEvent) -> None:
            pass

    watcher = Watcher()
    watcher.cache["k"] = 1
    assert watcher.subscription.flush(PATIENCE)
    gone, thread = weakref.ref(watcher), watcher.subscription._thread
    del watcher
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("lock", ["making", "of the hub"])
def test_what_comes_in_the_middle_may_listen_and_cease_to(lock: str) -> None:
    """A destructor, say: a collection may begin anywhere, a signal come at any time."""
    with nearcache.open("memory://") as cache:
        first = cache.listen(print)

        def in_the_middle() -> None:
            with listening.making if lock == "making" else cache._hub._lock:
                first.close()
                cache.listen(print).close()

        thread = threading.Thread(target=in_the_middle, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_change_in_the_middle_of_another_is_not_undone_by_it() -> None:
    """Who has been left meanwhile stays left, and who has come is told."""
    with nearcache.open("memory://") as cache:
        first, second, hub = cache.listen(print), cache.listen(print), cache._hub
        came: list[Any] = []

        def slowly(known: Any) -> Any:
            if not came:
                first.close()
                came.append(cache.listen(print))
            return tuple(each for each in known if each is not second)

        hub._change(slowly)
        assert hub._subscriptions == (came[0],)


def test_listener_may_use_the_cache_and_wait() -> None:
    """No lock is held while it runs, so another thread goes on."""
    with nearcache.open("memory://") as cache:
        seen = threading.Event()

        def derive(event: EntryEvent) -> None:
            if event.key == "a":
                assert seen.wait(PATIENCE)
                cache["derived"] = event.value * 2

        subscription = cache.listen(derive, ["created"])
        cache["a"] = 21
        cache["b"] = 1
        seen.set()
        assert subscription.flush(PATIENCE)
        assert cache["derived"] == 42


def test_child_of_a_fork_has_listeners_of_its_own() -> None:
    """They hear of what the child does, and the parent's of what the parent does."""
    with nearcache.open("memory://") as cache:
        ear = Ear(cache)
        cache["before"] = 1
        ear.take()
        pid = os.fork()
        if pid == 0:
            cache["child"] = 1
            os._exit(0 if ear.subscription.flush(PATIENCE) and [e.key for e in ear.events] == ["child"] else 1)
        assert os.waitpid(pid, 0)[1] == 0
        cache["parent"] = 1
        assert ear.take() == [("created", "parent", 1, "stored")]


async def _answer(event: EntryEvent) -> None: ...


@pytest.mark.parametrize(
    ("listen", "error", "match"),
    [
        (lambda cache: cache.listen(None), TypeError, r"listen\(None\): give a function"),
        (lambda cache: cache.listen(_answer), TypeError, "cache.aio.listen"),
        (lambda cache: cache.listen(print, ["gone"]), ConfigError, "events=.'gone'.*created"),
        (lambda cache: cache.listen(print, []), ConfigError, "events"),
        (lambda cache: cache.listen(print, queue=0), ConfigError, "queue=0"),
        (lambda cache: cache.listen(print, queue=True), ConfigError, "queue=True"),
    ],
)
def test_listen_with_bad_arguments_says_what_is_allowed(
    listen: Callable[[Any], Any], error: type[Exception], match: str
) -> None:
    """At the door, and nothing is begun."""
    with nearcache.open("memory://") as cache, pytest.raises(error, match=match):
        listen(cache)


@pytest.mark.usefixtures("no_leaks")
def test_asyncio_listener_is_called_in_its_loop_one_event_after_the_other() -> None:
    """A coroutine function or a plain one; what it raises is counted; with the loop it ends."""
    told: list[Any] = []

    async def main(cache: Any) -> Any:
        loop, second = asyncio.get_running_loop(), asyncio.Event()

        async def note(event: EntryEvent) -> None:
            assert asyncio.get_running_loop() is loop
            told.append(event.key)
            await asyncio.sleep(0)
            told.append(-event.key)
            if event.key == 2:
                second.set()
                raise ZeroDivisionError

        plain = cache.aio.view("v").listen(lambda event: told.append(event.key))
        subscription = cache.aio.listen(note, "created")
        await cache.aio.set(1, 1)
        cache[2] = 2
        await asyncio.wait_for(second.wait(), PATIENCE)
        plain.close()
        assert await asyncio.to_thread(subscription.flush, PATIENCE)
        return subscription

    with nearcache.open("memory://") as cache:
        subscription = asyncio.run(main(cache))
        assert told == [1, -1, 2, -2]
        assert subscription.errors == 1
        cache[3] = 3
        assert subscription.flush(PATIENCE)
        assert told == [1, -1, 2, -2]
        assert "closed" in repr(subscription)


def test_event_that_nobody_can_tell_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With whose it was; the lane goes on."""

    def knows(_name: Any) -> bool:
        raise ZeroDivisionError

    hub: Any = threading.Event()  # whatever can be referred to weakly
    hub.namespace = "t"
    Reporter(hub, knows, None).heard(0, "S", ["k"], 1)
    assert caplog.messages == ["namespace t: an event was lost"]


def test_change_made_in_the_middle_of_another_does_not_stop_it() -> None:
    """By another thread: on Redis, where more changes have been made than their messages are waited for."""
    hub: Any = threading.Event()  # whatever can be referred to weakly
    hub.namespace = "t"
    reporter = Reporter(hub, lambda _name: False, None)
    for wid in range(listening._OWN):
        reporter.writing(wid, "k", 1)
    others = iter(range(-10, 0))

    def meanwhile(_frame: Any, event: str, _what: Any) -> None:
        if event == "c_return" and (wid := next(others, None)) is not None:
            reporter._own[wid] = _Own()  # and the other thread gets no further for now

    sys.setprofile(meanwhile)
    try:
        reporter.writing(listening._OWN, "k", 2)
    finally:
        sys.setprofile(None)
    assert list(others) == []
    assert len(reporter._own) <= listening._OWN
    assert reporter._own[listening._OWN].values == {"k": (2, False)}
