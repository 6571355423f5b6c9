"""Durations counted in logarithmic buckets: eight to an octave, so an edge is at most 12.5 % off.

A histogram is a run of ``SIZE`` unsigned 64-bit words, which may lie in shared memory; adding one duration costs one
``bit_length``, two shifts and an increment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SIZE: Final = 320
LARGEST_NS: Final = (1 << 42) - 1


def bucket_of(duration_ns: int) -> int:
    """Return the bucket of a duration; negative ones count as 0, those over 73 minutes as the last bucket."""
    if duration_ns < 16:
        return max(duration_ns, 0)
    duration_ns = min(duration_ns, LARGEST_NS)
    shift = duration_ns.bit_length() - 4
    return (shift << 3) + (duration_ns >> shift)


def upper_edge(bucket: int) -> int:
    """Return the largest duration that falls into a bucket, in nanoseconds."""
    if bucket < 16:
        return bucket
    shift = (bucket >> 3) - 1
    return ((8 + (bucket & 7) + 1) << shift) - 1


def total(counts: Sequence[int]) -> int:
    """Return how many durations were counted."""
    return sum(counts)


def percentile(counts: Sequence[int], fraction: float) -> int | None:
    """Return a duration that at least ``fraction`` of those counted do not exceed; ``None`` when none was counted.

    It is the upper edge of a bucket, so never too favourable.
    """
    wanted = fraction * sum(counts)
    if not wanted:
        return None
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return upper_edge(bucket)
    raise AssertionError("a histogram's counts changed while they were read")


def merged(histograms: Sequence[Sequence[int]]) -> list[int]:
    """Return the sum of several histograms; of none, an empty one."""
    if not histograms:
        return [0] * SIZE
    return [sum(column) for column in zip(*histograms, strict=True)]
