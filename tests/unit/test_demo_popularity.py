"""The demo's requests: Zipf's law, from a seed."""

from __future__ import annotations

from collections import Counter

import pytest

from demo import popularity


def test_requests_with_the_same_seed_are_the_same() -> None:
    """All phases serve the same requests."""
    assert popularity.requests(50, 3, "worker 1", 500) == popularity.requests(50, 3, "worker 1", 500)


@pytest.mark.parametrize(("seed", "who"), [(4, "worker 1"), (3, "worker 2")])
def test_requests_of_others_differ(seed: int, who: str) -> None:
    """Another seed or another process asks for other pages."""
    assert popularity.requests(50, seed, who, 500) != popularity.requests(50, 3, "worker 1", 500)


def test_requests_follow_the_law() -> None:
    """The n-th most popular page is asked for about 1 / n as often as the first."""
    asked = Counter(popularity.requests(100, 1, "worker 1", 100_000))
    ranking = popularity.ranking(100, 1)
    for rank in (2, 4, 10):
        assert asked[ranking[0]] / asked[ranking[rank - 1]] == pytest.approx(rank, rel=0.15)


def test_ranking_is_a_permutation_shared_by_all() -> None:
    """Every page has one rank, and processes agree on it."""
    ranking = popularity.ranking(80, 9)
    assert sorted(ranking) == list(range(80))
    assert ranking == popularity.ranking(80, 9) != popularity.ranking(80, 10)
