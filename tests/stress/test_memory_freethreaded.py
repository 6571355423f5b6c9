"""Threads that invalidate at the same instant: what was invalidated stays so, with and without a GIL.

A number that each of them counts up would go back where two meet. Operations are counted, never timed.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

import nearcache
from support.threads import together

CHANGES = 100_000

pytestmark = pytest.mark.usefixtures("eager_switching")


class Facts:
    """A number that grows, and what it was when its last change had been made known."""

    def __init__(self) -> None:
        self.number = self.known = 0
        self.over = threading.Event()

    def change(self, make_known: Any) -> None:
        """Let it grow, and make that known, many times."""
        try:
            for _ in range(CHANGES):
                self.number += 1
                make_known()
                self.known = self.number
        finally:
            self.over.set()


def test_results_that_were_cleared_in_one_thread_while_others_clear_never_come_back() -> None:
    """``cache_clear()`` of a function, by three threads at once."""
    facts = Facts()
    with nearcache.open("memory://", maxsize=100_000) as cache:
        function: Any = cache.cached(version=1)(lambda _: facts.number)

        def clear() -> None:
            while not facts.over.is_set():
                function.cache_clear()

        def read() -> None:
            while not facts.over.is_set():
                known = facts.known
                assert function("k") >= known

        parts = [lambda: facts.change(function.cache_clear), clear, clear, read, read]
        together(lambda number: parts[number](), len(parts))


def test_loads_that_began_before_their_tag_changed_are_not_kept_while_other_tags_change() -> None:
    """The tag is told by the loader, so that only the number of changes speaks against the load."""
    facts = Facts()
    with nearcache.open("memory://", maxsize=None) as cache:

        def disturb() -> None:
            while not facts.over.is_set():
                cache.invalidate_tag("other")

        def load(_: str) -> Any:
            return nearcache.Loaded(facts.number, tags=["x"])

        def read(key: str) -> None:
            while not facts.over.is_set():
                cache.get_or_load(key, load)
                known, kept = facts.known, cache.peek(key)
                assert kept is None or kept >= known
                cache.drop(key)

        parts = [lambda: facts.change(lambda: cache.invalidate_tag("x")), disturb, disturb]
        parts += [lambda: read("k"), lambda: read("l")]
        together(lambda number: parts[number](), len(parts))
