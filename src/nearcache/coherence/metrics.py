"""Histograms of durations: small, bounded, good to an eighth of the value."""

from __future__ import annotations

from typing import Final

#: Buckets per doubling.
_STEPS: Final = 8
#: Doublings covered: up to 2**40 ns, eighteen minutes.
_DOUBLINGS: Final = 40


class Histogram:
    """Counts durations in buckets whose width grows with the value.

    Not locked: one thread adds, and readers may see a value more or less.

    Attributes:
        count: How many have been added.
        longest_ns: The longest.
    """

    __slots__ = ("_buckets", "count", "longest_ns")

    def __init__(self) -> None:
        self._buckets = [0] * (_STEPS * (_DOUBLINGS + 1))
        self.count = 0
        self.longest_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count a duration; below 0 counts as 0."""
        duration_ns = max(0, duration_ns)
        self._buckets[_bucket(duration_ns)] += 1
        self.count += 1
        self.longest_ns = max(self.longest_ns, duration_ns)

    def quantile_ns(self, share: float) -> int | None:
        """Return a duration that this share (0 to 1) does not exceed; ``None`` while nothing has been counted."""
        if not self.count:
            return None
        wanted = max(1, round(share * self.count))
        seen = 0
        for bucket, number in enumerate(self._buckets):
            seen += number
            if seen >= wanted:
                return min(_upper(bucket), self.longest_ns)
        return self.longest_ns


def _bucket(duration_ns: int) -> int:
    if duration_ns < _STEPS:
        return duration_ns
    doubling = duration_ns.bit_length() - _STEPS.bit_length()
    return min(_STEPS * (_DOUBLINGS + 1) - 1, _STEPS * doubling + (duration_ns >> doubling))


def _upper(bucket: int) -> int:
    """The largest duration in a bucket."""
    if bucket < 2 * _STEPS:
        return bucket
    doubling = bucket // _STEPS - 1
    return ((bucket - _STEPS * doubling + 1) << doubling) - 1
