"""Histograms of durations, and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.coherence import Histogram, pack_token, parse_token

DURATION = st.one_of(st.integers(0, 100), st.integers(0, 2**39))


def test_histogram_of_nothing_has_no_quantile() -> None:
    """Nothing was measured, which is not the same as zero."""
    assert Histogram().quantile_ns(0.5) is None
    assert (Histogram().count, Histogram().longest_ns) == (0, 0)


@given(st.lists(DURATION, min_size=1, max_size=60), st.floats(0, 1))
def test_histogram_quantile_is_good_to_an_eighth(durations: list[int], share: float) -> None:
    """It is never below the true one, and above it by no more than an eighth."""
    counted = Histogram()
    for duration in durations:
        counted.add(duration)
    true = sorted(durations)[max(1, round(share * len(durations))) - 1]
    found = counted.quantile_ns(share)
    assert found is not None
    assert true <= found <= true * 1.125 + 1
    assert counted.count == len(durations)
    assert counted.quantile_ns(1.0) == counted.longest_ns == max(durations)


@given(st.lists(DURATION, min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_histogram_larger_share_is_no_shorter(durations: list[int], one: float, other: float) -> None:
    """Quantiles are in order."""
    counted = Histogram()
    for duration in durations:
        counted.add(duration)
    low, high = (counted.quantile_ns(share) for share in sorted((one, other)))
    assert low is not None
    assert high is not None
    assert low <= high


def test_histogram_of_absurd_durations_stays_in_its_bounds() -> None:
    """A clock that went back counts as 0, a century in the last bucket."""
    counted = Histogram()
    counted.add(-5)
    assert counted.quantile_ns(1.0) == 0
    counted.add(10**19)
    assert counted.longest_ns == 10**19
    assert counted.quantile_ns(0.5) == 0
    assert counted.count == 2


POSITIONS = st.dictionaries(
    st.integers(0, 99_999), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1)), max_size=20
)


@given(POSITIONS)
def test_token_packed_and_parsed_is_the_same(positions: dict[int, tuple[int, int]]) -> None:
    """Every position survives, and the characters pass through cookies and headers."""
    token = pack_token(positions)
    assert parse_token(token) == positions
    assert set(token) <= set("0123456789abcdef.-")


@pytest.mark.parametrize(
    "token",
    ["", "2", "1.", "1.0", "1.0-", "1.0-a", "1.0-a-", "1.0-a-1.", "1.-a-1", "1.0-A-1", "1.0-a-1 ", "1.0-a-1\n",
     "1.000000-a-1", "1.0-" + "a" * 17 + "-1", "1" + ".0-a-1" * 257, "1.0-a-1.0-a-2", "1.0-a-1.00-a-1", "x" * 300,
     "1.\u0660-a-1", b"1.0-a-1", None, 1],
)  # fmt: skip
def test_token_of_another_form_is_refused_with_the_remedy(token: object) -> None:
    """A token comes from outside, in a cookie: nothing but its form is taken."""
    with pytest.raises(ValueError, match=r"give what token\(\) of a cache of this namespace returned") as caught:
        parse_token(token)  # type: ignore[arg-type]  # not all are texts
    assert len(str(caught.value)) < 200
