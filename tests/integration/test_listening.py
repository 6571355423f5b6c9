"""Listening to caches on Redis: changes of every process, in the server's order, told apart by origin."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, EntryEvent
from support.redis import RedisServer
from support.threads import PATIENCE
from support.waiting import wait_until

Opener = Callable[..., Any]


class Ear:
    """A listener that notes kind, key, value, cause and origin of everything."""

    def __init__(self, cache: Cache[Any, Any], *args: Any) -> None:
        self.cache = cache
        self.events: list[EntryEvent] = []
        self.subscription = cache.listen(self.events.append, *args)

    def take(self) -> list[tuple[Any, ...]]:
        """Return what came since the last time, when all that is in the server by now has come."""
        assert self.cache.selftest(PATIENCE).ok
        assert self.subscription.flush(PATIENCE)
        told = [(e.kind, e.key, e.value if e.has_value else "?", e.cause, e.origin) for e in self.events]
        self.events.clear()
        return told


@pytest.fixture
def opened(redis_server: RedisServer) -> Iterator[Opener]:
    """Open caches on one server; they are closed at the end."""
    caches: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> Cache[Any, Any]:
        caches.append(nearcache.open(redis_server.url, namespace="events", **options))
        return caches[-1]

    yield opener
    for cache in caches:
        cache.close()


def test_value_that_a_hold_keeps_out_is_told_as_a_removal(opened: Opener) -> None:
    """Nothing is created by it, in any process."""
    holder, writer = opened(), opened()
    writer["a"] = 1
    ears = [Ear(holder), Ear(writer)]
    with holder.hold(["a"]):
        for ear in ears:
            ear.take()
        writer["a"] = 2
        assert [[kind for kind, *_ in ear.take()] for ear in ears] == [["removed"], ["removed"]]


def test_changes_are_told_here_with_values_and_elsewhere_without(opened: Opener) -> None:
    """One event for each change in each process, in the server's order, by every way of writing."""
    ours, theirs = opened(), opened()
    here, there = Ear(ours), Ear(theirs)
    ours["a"] = 1
    ours.set("a", 2, tags=["t"])
    ours.set_many({"b": 3})
    assert ours.add("c", 4)
    assert not ours.add("c", 5)
    assert ours.incr("n") == 1
    assert ours.touch("n", 5)
    assert ours.get_and_delete("n") == 1
    del ours["a"]
    ours.invalidate_tag("t")
    expected = [
        ("created", "a", 1, "stored", "local"),
        ("updated", "a", 2, "stored", "local"),
        ("created", "b", 3, "stored", "local"),
        ("created", "c", 4, "stored", "local"),
        ("created", "n", 1, "stored", "local"),
        ("removed", "n", "?", "invalidated", "local"),
        ("removed", "a", "?", "invalidated", "local"),
    ]
    assert here.take() == expected
    # A lifetime that got shorter looks like a removal from elsewhere, and of "a" nobody there has a copy.
    told = [f"{kind} {key}" for kind, key, *_ in there.take()]
    assert told[:5] == ["created a", "created a", "created b", "created c", "created n"]
    assert told[5:] == ["removed n", "removed n", "removed a"]
    assert theirs["b"] == 3
    ours["b"] = 6
    assert (here.take(), there.take()) == (
        [("updated", "b", 6, "stored", "local")],
        [("updated", "b", "?", "stored", "remote")],
    )
    theirs.clear()
    assert here.take() == [("cleared", None, "?", "cleared", "remote")]
    assert there.take() == [("cleared", None, "?", "cleared", "local")]


def test_loads_are_told_where_they_happen_and_elsewhere_if_they_replace_something(opened: Opener) -> None:
    """What nobody can have a copy of is not announced, as always; what is refreshed is."""
    ours, theirs = opened(), opened()
    here, there = Ear(ours), Ear(theirs)
    assert ours.get_or_load("k", str.upper) == "K"
    assert here.take() == [("created", "k", "K", "loaded", "local")]
    assert there.take() == []
    assert theirs["k"] == "K"
    assert ours.refresh("k", str.title) == "K"
    assert here.take() == [("updated", "k", "K", "loaded", "local")]
    assert there.take() == [("updated", "k", "?", "loaded", "remote")]


def test_copies_that_end_are_told_with_their_values(opened: Opener) -> None:
    """The end of a lifetime, and what makes room if that is asked for; decoded with ``isolation="copy"`` too."""
    cache = opened(maxsize=1, isolation="copy")
    ear = Ear(cache, ["expired", "evicted"])
    cache.set("a", [1], ttl=60)
    cache.set("b", [2], ttl=60)
    assert ear.take() == [("evicted", "a", [1], "evicted", "local")]
    assert cache.expire(float("inf")) == [("b", [2])]
    assert ear.take() == [("expired", "b", [2], "expired", "local")]


def test_flush_waits_for_the_messages_that_are_still_to_come(opened: Opener) -> None:
    """Own ones come from the server as all do. Afterwards everything has been told, by one shard and the others."""
    ours, theirs = opened(), opened()
    here, there = [], []
    heard = ours.listen(lambda event: here.append(event.kind)), theirs.listen(lambda event: there.append(event.kind))
    for round_ in range(20):
        ours["k"] = round_
        ours["k"] = round_
        del ours["k"]
        assert all(each.flush(PATIENCE) for each in heard)
        assert (here.count("removed"), there.count("removed")) == (round_ + 1, round_ + 1)
        assert (len(here), len(there)) == (3 * round_ + 3, 3 * round_ + 3)


def test_flush_waits_for_no_shard_that_is_lost(opened: Opener, redis_server: RedisServer) -> None:
    """What its messages would have said is told as missed."""
    cache = opened(max_staleness=0.2)
    ear = Ear(cache)
    redis_server.kill()
    wait_until(lambda: not cache.health().ok, what="the loss is noticed")
    assert ear.subscription.flush(PATIENCE)
    assert [event.kind for event in ear.events] == ["missed"]


def test_flush_in_the_thread_that_hears_waits_for_nothing_to_hear(opened: Opener) -> None:
    """As a function for ``on_removal`` may: nothing comes while that thread waits for it."""
    flushed: list[bool] = []
    cache = opened(on_removal=lambda *_: flushed.append(subscription.flush()))
    subscription = cache.listen(lambda _: None)
    other = opened()
    cache["k"] = 1
    other["k"] = 2
    wait_until(lambda: flushed, what="the copy has gone")
    assert flushed == [True]


def test_lost_connection_is_told_as_missed_events(opened: Opener, redis_server: RedisServer) -> None:
    """Anything may have changed meanwhile; once for each loss."""
    cache = opened(max_staleness=0.2)
    ear = Ear(cache, ["missed"])
    redis_server.client().client_kill_filter(_type="pubsub")
    wait_until(lambda: ear.events, what="the loss is told")
    wait_until(lambda: cache.health().ok, what="the lane is live again")
    assert ear.take() == [("missed", None, "?", "lost", "local")]


def test_waiting_readers_get_their_value_while_somebody_listens(opened: Opener) -> None:
    """Messages that somebody waits for, which take another way, are told as well and only once."""
    ours, theirs = opened(), opened()
    here, there = Ear(ours), Ear(theirs)
    loading, go = threading.Event(), threading.Event()

    def load(key: str) -> str:
        loading.set()
        assert go.wait(PATIENCE)
        return key.upper()

    answers: list[Any] = []
    first = threading.Thread(target=lambda: answers.append(ours.get_or_load("k", load)))
    first.start()
    assert loading.wait(PATIENCE)
    second = threading.Thread(target=lambda: answers.append(theirs.get_or_load("k", str.lower)))
    second.start()
    wait_until(lambda: theirs._tier.ears._followers[0]._awaited[0], what="the second waits")
    go.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert answers == ["K", "K"]
    assert here.take() == [("created", "k", "K", "loaded", "local")]
    assert there.take() == [("created", "k", "?", "loaded", "remote")]


@pytest.mark.usefixtures("no_leaks")
def test_listener_that_refers_to_the_cache_keeps_nothing_alive(redis_server: RedisServer) -> None:
    """Neither the thread that hears the messages nor what ends it is a root for the collector."""

    class Watcher:
        def __init__(self) -> None:
            self.cache = nearcache.open(redis_server.url, namespace="events")
            self.subscription = self.cache.listen(self.heard)

        def heard(self, event: EntryEvent) -> None:
            pass

    watcher = Watcher()
    watcher.cache["k"] = 1
    assert watcher.cache.selftest(PATIENCE).ok
    assert watcher.subscription.flush(PATIENCE)
    gone, delivering = weakref.ref(watcher), watcher.subscription._thread
    hearing = watcher.cache._listener.thread
    del watcher
    gc.collect()
    assert gone() is None
    for thread in (delivering, hearing):
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_caches_nobody_listens_to_do_what_they_always_did(opened: Opener) -> None:
    """No hub, no witness, and the store tells nobody."""
    cache = opened()
    cache["k"] = 1
    assert (cache._hub, cache._tier.witness) == (None, None)
    assert cache.listen(print).pending == 0
    assert cache._tier.witness._hub() is cache._hub
