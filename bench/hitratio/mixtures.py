"""Requests that no policy was made for: parts drawn at random, by themselves, mixed, or in turns.

Whoever looks at one set of traces for long ends up with what suits those. A number is a workload here, so that there
are as many as anybody likes that have not been looked at: made up from the parts below, or of pieces of the recorded
traces.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from . import reference, synthetic

MADE_UP = "made up"
PIECES = "pieces"
#: The simulator of the peers stands no smaller cache.
LEAST_SIZE = 30
_FEWEST, _MOST = 20_000, 200_000
_FAR = 1 << 40  #: so far apart are the keys of two parts

Keys = np.ndarray
Part = Callable[[np.random.Generator, int], Keys]


def _between(random: np.random.Generator, least: float, most: float) -> int:
    """Return a whole number, each order of magnitude as likely as another."""
    return round(10 ** random.uniform(np.log10(least), np.log10(most)))


def popular(random: np.random.Generator, count: int) -> Keys:
    """Return keys of which a few are asked for often (Zipf)."""
    keys = _between(random, 100, 50_000)
    exponent = random.uniform(0.4, 1.3)
    return random.permutation(keys)[synthetic.zipf(random, count, exponent, keys)]


def passing(random: np.random.Generator, count: int) -> Keys:
    """Return popular keys, and between them others that come once."""
    keys = popular(random, count)
    once = random.random(count) < random.uniform(0.1, 0.9)
    return np.where(once, _FAR // 2 + np.arange(count), keys)


def drifting(random: np.random.Generator, count: int) -> Keys:
    """Return popular keys of which it slowly becomes others that are popular."""
    return popular(random, count) + (np.arange(count) * 10 ** random.uniform(-3, -0.5)).astype(np.int64)


def loop(random: np.random.Generator, count: int) -> Keys:
    """Return one round after the other through the same keys."""
    return np.arange(count) % _between(random, 100, 50_000)


def rounds(random: np.random.Generator, count: int) -> Keys:
    """Return some rounds through some keys, then through others, which partly are the same."""
    keys = np.empty(count, dtype=np.int64)
    at = first = 0
    while at < count:
        length = _between(random, 30, 10_000)
        asked = min(count - at, length * int(random.integers(1, 12)))
        keys[at : at + asked] = first + np.arange(asked) % length
        at += asked
        first = int(random.integers(3)) * int(random.integers(1, 5_000))
    return keys


def twice(random: np.random.Generator, count: int) -> Keys:
    """Return new keys, each asked for once more a fixed time later."""
    keys = np.arange(count)
    keys[1::2] = np.maximum(keys[1::2] - 2 * _between(random, 10, 10_000) - 1, 0)
    return keys


def wandering(random: np.random.Generator, count: int) -> Keys:
    """Return a random walk."""
    return np.cumsum(np.round(random.normal(0, 10 ** random.uniform(0, 2.5), count)).astype(np.int64))


def recent(random: np.random.Generator, count: int) -> Keys:
    """Return keys asked for again after so many others, many soon and few late."""
    depth = np.exp(random.normal(np.log(10 ** random.uniform(1, 3)), random.uniform(0.5, 2.0), count))
    is_new = random.random(count) < random.uniform(0.01, 0.4)
    stack: list[int] = []
    keys = np.empty(count, dtype=np.int64)
    for number, (deep, new) in enumerate(zip(depth.tolist(), is_new.tolist(), strict=True)):
        keys[number] = number if new or deep >= len(stack) else stack.pop(-1 - int(deep))
        stack.append(int(keys[number]))
    return keys


KINDS: tuple[Part, ...] = (popular, passing, drifting, loop, rounds, twice, wandering, recent)


def _made_up(random: np.random.Generator, count: int) -> Keys:
    return KINDS[int(random.integers(len(KINDS)))](random, count)


@lru_cache(maxsize=1)
def _recorded() -> tuple[Keys, ...]:
    folder = reference.traces_folder()
    if folder is None:
        return ()
    rows = reference.parse_rows((folder / "README.md").read_text(encoding="utf-8"))
    names = dict.fromkeys(row.trace for row in rows)
    return tuple(np.asarray(reference.trace(str(folder / name)).sequence, dtype=np.int64) for name in names)


def _piece(random: np.random.Generator, count: int) -> Keys:
    recorded = _recorded()
    trace = recorded[int(random.integers(len(recorded)))]
    start = int(random.integers(max(1, len(trace) - count)))
    return trace[start : start + count]


def _mixed(random: np.random.Generator, parts: list[Keys]) -> Keys:
    """Return two parts, at each request one of them."""
    first, second = parts
    from_first = random.random(min(len(first), len(second))) < random.uniform(0.1, 0.9)
    places = np.cumsum(from_first)
    others = np.arange(1, len(from_first) + 1) - places
    return np.where(from_first, first[np.maximum(places - 1, 0)], second[np.maximum(others - 1, 0)] + _FAR)


def _in_turns(random: np.random.Generator, parts: list[Keys], count: int) -> Keys:
    """Return now a while of one part, now of another, each going on where it was."""
    at = [0] * len(parts)
    turns: list[Keys] = []
    asked = 0
    while asked < count:
        number = int(random.integers(len(parts)))
        turn = np.take(parts[number], np.arange(at[number], at[number] + _between(random, 100, 30_000)), mode="wrap")
        at[number] += len(turn)
        asked += len(turn)
        turns.append(turn + number * _FAR)
    return np.concatenate(turns)[:count]


def requests(name: str) -> list[int]:
    """Return the requests of ``MADE_UP`` or ``PIECES`` and a number; the same ones each time."""
    kind, _, number = name.rpartition(" ")
    random = np.random.default_rng(int(number))
    part = _piece if kind == PIECES else _made_up
    count = _between(random, _FEWEST, _MOST)
    how = int(random.integers(3))
    if how == 0:
        keys = part(random, count)
    elif how == 1:
        keys = _mixed(random, [part(random, count) for _ in range(2)])
    else:
        keys = _in_turns(random, [part(random, count) for _ in range(int(random.integers(2, 5)))], count)
    # Small numbers, in the same order: some of the peers take no others.
    return np.unique(keys, return_inverse=True)[1].tolist()  # type: ignore[no-any-return]  # numpy's stub says Any


def sizes(keys: list[int]) -> list[int]:
    """Return cache sizes that say something about these requests."""
    unique = len(set(keys))
    return sorted({max(LEAST_SIZE, round(unique * part)) for part in synthetic.PARTS})
