"""Derived lanes: what lets an L1 entry depend on its tags, at no cost to a hit.

A hit compares an entry's stamp with its lane's, and the time with the lane's fresh-until; nothing else. An entry with
tags must also end when one of its tags does, and must not be served when the lane on which such a tag is announced has
fallen silent. So it is entered under a *derived* lane, which exists in L1 alone:

::

    lanes of L2      0         1         2
                      \\       / \\       /
    derived lanes      65 {red}   66 {red, blue}        stamp: moves when a tag in it changes, or a lane below it
                                                        becomes suspect; fresh until the least of the lanes below

There are a few dozen of them. The first combinations of a lane and tags have one of their own; all others are dealt out
by hash, so they share one with entries of other tags. Those become suspect too when a tag changes, and are found good
again by their header.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from .._store import Store

#: How many derived lanes a cache has.
DERIVED: Final = 64
#: How many tags are told apart.
TAGS: Final = 65_536
#: How many of this process' own messages are remembered until they come.
_EXPECTED: Final = 1024


class Derived:
    """Which derived lanes depend on what.

    Args:
        lanes: Number of lanes in L2; derived lanes are numbered from there.
        count: Number of derived lanes.
        tags: Most tags told apart; beyond, all derived lanes become suspect and are dealt out anew.
    """

    def __init__(self, lanes: int, count: int = DERIVED, tags: int = TAGS) -> None:
        self.lanes = lanes
        self.count = count
        self._most_tags = tags
        self._until_ns = [0] * lanes
        self._below: defaultdict[int, set[int]] = defaultdict(set)  # of those that are in use
        self._above: list[set[int]] = [set() for _ in range(lanes)]
        self._by_tag: dict[bytes, set[int]] = {}
        self._numbers: dict[tuple[int, tuple[bytes, ...]], int] = {}  # of those that came first
        self._expected: dict[int, None] = {}
        # Re-entrant: steps that a collection or a signal handler ends, or runs, may come in the middle.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Number of tags that are told apart now."""
        return len(self._by_tag)

    def assign(self, store: Store[Any, Any], lane: int, tags: Sequence[tuple[bytes, int]]) -> tuple[int, int]:
        """Return the derived lane for a value of ``lane`` with these tags, and its stamp as of now.

        To be asked for *before* the tags' generations are looked at: what changes afterwards moves the stamp.

        Args:
            tags: For each the encoded key of its record, and the lane of that.
        """
        combination = (lane, tuple(key for key, _ in tags))
        with self._lock:
            number = self._number(combination)
            derived = self.lanes + number
            stamp = store.lane_stamp(derived)
            new = {lane, *(tag_lane for _, tag_lane in tags)} - self._below[number]
            for below in new:
                self._below[number].add(below)
                self._above[below].add(derived)
            for key, _ in tags:
                self._by_tag.setdefault(key, set()).add(derived)
            if new:
                store.lane_vouch(derived, min(self._until_ns[below] for below in self._below[number]))
            if len(self._by_tag) > self._most_tags:
                self._by_tag.clear()
                self._numbers.clear()
                self._suspect(store, range(self.lanes, self.lanes + self.count))
        return derived, stamp

    def _number(self, combination: tuple[int, tuple[bytes, ...]]) -> int:
        number = self._numbers.get(combination)
        if number is not None:
            return number
        if len(self._numbers) == self.count:
            return hash(combination) % self.count
        return self._numbers.setdefault(combination, len(self._numbers))

    def vouched(self, store: Store[Any, Any], lane: int, until_ns: int) -> None:
        """A lane of L2 is fresh until then."""
        with self._lock:
            self._until_ns[lane] = until_ns
            for derived in self._above[lane]:
                below = self._below[derived - self.lanes]
                store.lane_vouch(derived, min(self._until_ns[each] for each in below))

    def leave(self, store: Store[Any, Any], lane: int) -> None:
        """A lane of L2 is in use no more: what depended on it is suspect, and what is entered from now on does not."""
        with self._lock:
            above, self._above[lane] = self._above[lane], set()
            self._suspect(store, above)
            self._until_ns[lane] = 0
            for derived in above:
                below = self._below[derived - self.lanes]
                below.discard(lane)
                store.lane_vouch(derived, min((self._until_ns[each] for each in below), default=0))

    def suspected(self, store: Store[Any, Any], lane: int) -> None:
        """Messages of a lane of L2 may have been missed."""
        with self._lock:
            self._suspect(store, self._above[lane])

    def expect(self, wid: int) -> None:
        """This process makes a tag's record under this id, and says itself what changes by that."""
        with self._lock:
            self._expected[wid] = None
            if len(self._expected) > _EXPECTED:
                del self._expected[next(iter(self._expected))]

    def unexpect(self, wid: int) -> None:
        """Nobody knows what became of it: if its message comes, that is news."""
        with self._lock:
            self._expected.pop(wid, None)

    def heard(self, store: Store[Any, Any], wid: int, tags: Iterable[bytes]) -> None:
        """A message says that tags have another generation: the write's id."""
        with self._lock:
            is_own = wid in self._expected
            self._expected.pop(wid, None)
            for tag in () if is_own else tags:
                self._suspect(store, self._by_tag.get(tag, ()))

    def changed(self, store: Store[Any, Any], tag: bytes) -> None:
        """A tag has, or may have, another generation."""
        with self._lock:
            self._suspect(store, self._by_tag.get(tag, ()))

    def tags(self) -> dict[int, list[bytes]]:
        """Return for each derived lane that is in use the tags it depends on."""
        found: defaultdict[int, list[bytes]] = defaultdict(list)
        with self._lock:
            for tag, lanes in self._by_tag.items():
                for lane in lanes:
                    found[lane].append(tag)
        return dict(found)

    def after_fork(self) -> None:
        """In the child: the lock may have been held."""
        self._lock = threading.RLock()

    @staticmethod
    def _suspect(store: Store[Any, Any], derived: Iterable[int]) -> None:
        for number in derived:
            store.lane_suspect(number)
