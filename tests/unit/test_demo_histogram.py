"""The demo's histogram of durations."""

from __future__ import annotations

import random

import pytest

from demo import histogram


def counts_of(*durations_ns: int) -> list[int]:
    """Return a histogram of some durations."""
    counts = [0] * histogram.SIZE
    for duration_ns in durations_ns:
        counts[histogram.bucket_of(duration_ns)] += 1
    return counts


def test_bucket_of_any_duration_is_bounded_by_neighbouring_edges() -> None:
    """A duration is at most its bucket's upper edge and beyond the edge before."""
    source = random.Random(20_231)
    for duration_ns in [*range(300), *(source.getrandbits(source.randint(1, 42)) for _ in range(20_000))]:
        bucket = histogram.bucket_of(duration_ns)
        assert duration_ns <= histogram.upper_edge(bucket)
        assert bucket == 0 or duration_ns > histogram.upper_edge(bucket - 1)


def test_bucket_edges_are_at_most_an_eighth_off() -> None:
    """The upper edge is never more than 12.5 % above a duration that falls under it."""
    for bucket in range(16, histogram.SIZE - 8):
        low, high = histogram.upper_edge(bucket - 1) + 1, histogram.upper_edge(bucket)
        assert high <= low * 1.125


@pytest.mark.parametrize("duration_ns", [-5, 0])
def test_bucket_of_nothing_is_the_first(duration_ns: int) -> None:
    """A negative duration counts as zero."""
    assert histogram.bucket_of(duration_ns) == 0


def test_bucket_of_an_age_is_inside_the_histogram() -> None:
    """However long it took, it is counted."""
    assert histogram.bucket_of(1 << 63) == histogram.bucket_of(histogram.LARGEST_NS) < histogram.SIZE


def test_percentile_of_known_durations_is_within_a_bucket() -> None:
    """The percentile lies between the exact one and 12.5 % more."""
    durations = [random.Random(7).randint(100, 10**9) for _ in range(5_000)]
    durations.sort()
    for fraction in (0.5, 0.9, 0.99, 1.0):
        exact = durations[max(int(fraction * len(durations)) - 1, 0)]
        found = histogram.percentile(counts_of(*durations), fraction)
        assert found is not None
        assert exact <= found <= exact * 1.13 + 1


def test_percentile_of_nothing_is_none() -> None:
    """Where nothing was counted there is no percentile."""
    assert histogram.percentile([0] * histogram.SIZE, 0.5) is None


def test_merged_histograms_count_everything_once() -> None:
    """The sum of histograms is the histogram of all."""
    assert histogram.merged([counts_of(1, 5_000), counts_of(5_000, 10**9)]) == counts_of(1, 5_000, 5_000, 10**9)
    assert histogram.merged([]) == [0] * histogram.SIZE
