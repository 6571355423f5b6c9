"""The keys of one measurement, and the order in which they are asked for: the same objects for every contestant."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

KINDS = ("str", "int", "tuple")
BATCH = 100


def make_keys(kind: str, start: int, stop: int) -> list[Any]:
    """Return keys: 24-character strings, consecutive numbers as databases give out, or pairs.

    Raises:
        ValueError: There is no such kind of key.
    """
    if kind == "str":
        return [f"product:{number:016d}" for number in range(start, stop)]
    if kind == "int":
        return list(range(1_000_000_000 + start, 1_000_000_000 + stop))
    if kind == "tuple":
        return [("product", number) for number in range(1_000_000_000 + start, 1_000_000_000 + stop)]
    raise ValueError(f"no kind of key is called {kind!r}: choose from {', '.join(KINDS)}")


def chunks(sequence: list[Any], length: int) -> list[list[Any]]:
    """Return a sequence in pieces of at most so many items."""
    return [sequence[start : start + length] for start in range(0, len(sequence), length)]


def full_chunks(sequence: list[Any], length: int) -> list[list[Any]]:
    """Return a sequence in pieces of just so many items, the rest left out; a shorter sequence in one piece."""
    pieces = chunks(sequence, length)
    return pieces[:-1] if len(pieces) > 1 and len(pieces[-1]) < length else pieces


#: Turns of keys that pass through; with more rounds than that they come again, long after.
PASSING_TURNS = 12


@dataclass
class Scene:
    """What is measured once: so many entries under such keys.

    Attributes:
        size: Entries.
        kind: Of keys.
        copies: Whether the keys asked for are equal to the stored ones, but other objects.
        most: The most keys in one turn. Small caches are asked for all their keys several times in one turn, large
            ones for another part of them in each.
    """

    size: int
    kind: str
    copies: bool
    most: int
    seed: int = 1

    @cached_property
    def stored(self) -> list[Any]:
        """The keys of the entries."""
        return make_keys(self.kind, 0, self.size)

    @cached_property
    def values(self) -> list[int]:
        """The values of the entries: distinct objects, as they are in a real cache."""
        return list(range(1_000_000_000, 1_000_000_000 + self.size))

    @cached_property
    def others(self) -> list[Any]:
        """As many keys that are not stored."""
        return make_keys(self.kind, self.size, 2 * self.size)

    @cached_property
    def asked(self) -> list[Any]:
        """The keys of the entries as those who ask have them."""
        return make_keys(self.kind, 0, self.size) if self.copies else self.stored

    def _shuffled(self, keys: list[Any]) -> list[Any]:
        mixed = list(keys)
        random.Random(self.seed).shuffle(mixed)
        return mixed

    def _turns(self, keys: list[Any]) -> list[list[Any]]:
        return full_chunks(self._shuffled(keys * max(1, self.most // len(keys))), self.most)

    @cached_property
    def resident(self) -> list[list[Any]]:
        """The turns of an operation on keys that are there: parts of a random permutation."""
        return self._turns(self.asked)

    @cached_property
    def absent(self) -> list[list[Any]]:
        """The turns of an operation on keys that are not there."""
        return self._turns(self.others)

    @cached_property
    def batches(self) -> list[list[list[Any]]]:
        """The turns of ``get_many``: each a list of lists."""
        return [full_chunks(turn, BATCH) for turn in self.resident]

    @cached_property
    def passing(self) -> list[list[Any]]:
        """The turns of inserting into a full cache: keys that were never stored before.

        A ring of few keys would do for LRU only: of one twice as long as the cache, a policy that turns newcomers away
        holds half, and what is timed is overwriting.
        """
        first = 2 * self.size
        keys = self._shuffled(make_keys(self.kind, first, first + PASSING_TURNS * self.most))
        for key in keys:
            hash(key)  # or the first contestant would pay for all
        return chunks(keys, self.most)

    @cached_property
    def halves(self) -> list[list[Any]]:
        """The turns of deleting: distinct keys, and never so many that the cache runs empty."""
        return full_chunks(self._shuffled(self.asked), min(self.most, max(1, self.size // 2)))
