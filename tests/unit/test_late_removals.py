"""Aging ``memory://`` caches in which a thread sees to what it has removed when others have changed it long since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nearcache
from nearcache.cache.memory.aging import AgingMemoryCache
from support.fixtures import Clock

Told = list[tuple[Any, Any, str]]


class Late:
    """What a store of the cache says of its removals; of those within :meth:`waiting`, when :meth:`come` is called."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str) -> None:
        self._waits = False
        self._calls: list[tuple[Any, ...]] = []
        self._true: Any = getattr(AgingMemoryCache, name)

        def told(*call: Any) -> None:
            if self._waits:
                self._calls.append(call)
            else:
                self._true(*call)

        patch.setattr(AgingMemoryCache, name, told)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is removed within this block is seen to later."""
        self._waits = True
        yield
        self._waits = False

    def come(self) -> int:
        """Let the store say it. Returns how much there was to say."""
        for call in self._calls:
            self._true(*call)
        return len(self._calls)


def told_cache(**options: Any) -> tuple[Any, Told]:
    """A cache, and what ``on_removal`` is told."""
    told: Told = []
    return nearcache.open("memory://", on_removal=lambda *said: told.append(said), maxsize=10, **options), told


def test_value_that_grows_old_when_an_earlier_one_is_seen_to_is_told_of_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one's end is no sign that the later one, whose soft end nobody has met, has grown old."""
    late = Late(monkeypatch, "_young_told")
    cache, told = told_cache(ttl=100, soft_ttl=10)
    with cache:
        cache["k"] = "early"
        clock(cache, 20)
        with late.waiting():
            assert cache.get("k") == "early"
        cache["k"] = "later"
        clock(cache, 40)
        assert late.come() == 1
        cache["k"] = "last"
        assert sorted(value for _, value, _ in told) == ["early", "later"]


def test_value_whose_end_is_seen_to_after_another_was_stored_is_told_of(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: by the store of old values, or by the write that finds its name still among theirs."""
    late = Late(monkeypatch, "_old_told")
    cache, told = told_cache(ttl=100, soft_ttl=10)
    with cache:
        cache["k"] = "early"
        clock(cache, 20)
        assert cache.get("k") == "early"
        clock(cache, 200)
        with late.waiting():
            assert cache.get("k") is None
        cache["k"] = "later"
        assert late.come() == 1
        assert told == [("k", "early", "expired")]
        clock(cache, 220)
        assert cache.get("k") == "later"
        cache["k"] = "last"
        assert told[1:] == [("k", "later", "replaced")]


def test_value_in_use_whose_copy_is_seen_to_late_is_told_of_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives on when that has been done, and is there meanwhile."""
    late = Late(monkeypatch, "_young_told")
    cache, told = told_cache(ttl=nearcache.Idle(30))
    with cache:
        cache["k"] = "early"
        clock(cache, 20)
        with late.waiting():
            assert cache.get("k") == "early"
        cache["k"] = "later"
        assert late.come() == 1
        assert [value for _, value, _ in told] == ["early"]
        clock(cache, 40)
        assert cache.get("k") == "later"
        clock(cache, 60)
        assert cache.get("k") == "later"
        assert len(told) == 1


@pytest.mark.parametrize("was_old", [False, True])
def test_value_that_is_touched_while_another_thread_removes_it_is_told_of_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, was_old: bool
) -> None:
    """The verb has seen it, and puts it back: it has not gone before it goes from there."""
    late = Late(monkeypatch, "_old_told" if was_old else "_young_told")
    cache, told = told_cache(ttl=100, soft_ttl=10, key=str.upper)
    true: Any = AgingMemoryCache._put_silently

    def put_late(*call: Any) -> Any:
        with late.waiting():
            clock(cache, 200)
            assert cache._old.get("K") is None
            assert cache.l1_hit("k", None) is None
        return true(*call)

    with cache:
        cache["k"] = "early"
        if was_old:
            clock(cache, 20)
            assert cache.get("k") == "early"
        with monkeypatch.context() as patch:
            patch.setattr(AgingMemoryCache, "_put_silently", put_late)
            assert cache.touch("k", ttl=1000)
        assert late.come() == 1
        assert cache.get("k") == "early"
        assert told == []
        cache["k"] = "last"
        assert told == [("K", "early", "replaced")]
