"""Requests made up by rule: what can be measured without the recorded traces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEED = 20_240_501
KEYS = 50_000
#: Cache sizes, as parts of the number of keys.
PARTS = (0.01, 0.05, 0.2)


def zipf(random: np.random.Generator, count: int, exponent: float, keys: int = KEYS) -> np.ndarray:
    """Return some of so many keys, of which the n-th is asked for n ** -exponent times as often as the first."""
    weights = np.cumsum(np.arange(1, keys + 1, dtype=float) ** -exponent)
    return np.searchsorted(weights / weights[-1], random.random(count)).astype(np.int64)


def zipf_07(random: np.random.Generator, count: int) -> np.ndarray:
    """A flat popularity."""
    return zipf(random, count, 0.7)


def zipf_10(random: np.random.Generator, count: int) -> np.ndarray:
    """A steep popularity."""
    return zipf(random, count, 1.0)


def zipf_scans(random: np.random.Generator, count: int) -> np.ndarray:
    """A steep popularity, and every 20,000 requests a scan of 10,000 keys that never come again."""
    asked = zipf(random, count, 1.0)
    for number, start in enumerate(range(20_000, count, 30_000)):
        stop = min(start + 10_000, count)
        asked[start:stop] = KEYS + 10_000 * number + np.arange(stop - start)
    return asked


def loop(random: np.random.Generator, count: int) -> np.ndarray:
    """One round after the other through 12,000 keys."""
    return np.arange(count, dtype=np.int64) % 12_000


def zipf_shifting(random: np.random.Generator, count: int) -> np.ndarray:
    """A steep popularity whose favourites are others after each 100,000 requests."""
    asked = zipf(random, count, 1.0)
    for number, start in enumerate(range(0, count, 100_000)):
        part = asked[start : start + 100_000]
        part[:] = (part + 7_919 * number) % KEYS
    return asked


WORKLOADS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "zipf 0.7": zipf_07,
    "zipf 1.0": zipf_10,
    "zipf 1.0 + scans": zipf_scans,
    "loop": loop,
    "zipf 1.0, shifting": zipf_shifting,
}


def requests(name: str, count: int) -> list[int]:
    """Return the requests of a workload; the same ones each time."""
    return WORKLOADS[name](np.random.default_rng(SEED), count).tolist()  # type: ignore[no-any-return]  # as above


def sizes(keys: list[int]) -> list[int]:
    """Return cache sizes that say something about these requests."""
    unique = min(len(set(keys)), KEYS)
    return [max(1, round(unique * part)) for part in PARTS]
