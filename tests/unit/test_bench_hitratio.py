"""The pure parts of the hit ratio measurements: reading the reference, MIN, the summary, plots and tables."""

from __future__ import annotations

import lzma
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hitratio import mixtures, peers, reference, replay, summary, synthetic, tables, textplot
from hitratio.belady import belady_hits, lru_hits, next_uses
from hitratio.cli import between
from hitratio.reference import MissingTableError, Row

README = """
# Traces

| file stem | requests |
|---|--:|
| x | 7 |

## Reference hit ratios (percent)

Sizes: some.

| trace | size | LRU | ARC | MIN |
|---|--:|--:|--:|--:|
| one | 10 | 1.50 | - | 9.00 |
| two-b | 20 | 2.00 | 3.25 | 9.50 |

## Published numbers

Exact hit counts, size: LRU / ARC
1024: 41 / 43; 2048: 45 / 59.

## Weighted (bytes) reference, cloud, LRU

| MiB | 128 | 256 |
|---|--:|--:|
| misses of 9 | 7 | 5 |

## Checks made
"""
ROWS = [Row("a", 1, {"LRU": 10.0, "ARC": 20.0, "MIN": 30.0}), Row("b", 2, {"LRU": 10.0, "ARC": 5.0, "MIN": 30.0})]


def test_reference_table_is_read_with_its_gaps() -> None:
    """A dash is no figure; the other tables of the text are not this one."""
    assert reference.parse_rows(README) == [
        Row("one", 10, {"LRU": 1.5, "MIN": 9.0}),
        Row("two-b", 20, {"LRU": 2.0, "ARC": 3.25, "MIN": 9.5}),
    ]


def test_reference_counts_and_weights_are_read_exactly() -> None:
    """Whole numbers, by size."""
    assert reference.parse_counts(README) == {1024: 41, 2048: 45}
    assert reference.parse_weighted(README) == {128: 7, 256: 5}


@pytest.mark.parametrize("parse", [reference.parse_rows, reference.parse_counts, reference.parse_weighted])
def test_reference_without_the_table_is_an_error(parse: object) -> None:
    """A README that has changed its shape is noticed, not read as empty."""
    assert callable(parse)
    with pytest.raises(MissingTableError, match="README of the traces"):
        parse("# Traces\n")


def test_next_uses_name_a_request_each() -> None:
    """What never comes again gets a number of its own behind all requests."""
    assert next_uses([7, 8, 7, 7, 9]) == [2, 6, 3, 8, 9]
    assert next_uses([]) == []


def optimum(keys: tuple[int, ...], size: int, held: frozenset[int] = frozenset()) -> int:
    """Return the most hits that any choice of victims gives, by trying them all."""
    if not keys:
        return 0
    first, rest = keys[0], keys[1:]
    if first in held:
        return 1 + optimum(rest, size, held)
    if len(held) < size:
        return optimum(rest, size, held | {first})
    return max(optimum(rest, size, held - {victim} | {first}) for victim in held)


def test_belady_any_short_sequence_is_the_optimum() -> None:
    """No choice of victims gives more hits."""
    for keys in product(range(4), repeat=6):
        for size in (1, 2, 3):
            assert belady_hits(keys, next_uses(keys), size) == optimum(keys, size)


def test_belady_in_a_loop_keeps_all_but_one_place() -> None:
    """What is asked for is stored: of n places a loop uses n - 1; LRU none."""
    keys = [*range(5)] * 101
    hits = belady_hits(keys, next_uses(keys), 3)
    assert hits == pytest.approx(500 * 2 / 4, abs=4)
    assert lru_hits(keys, 3) == 0


@pytest.mark.parametrize("size", [1, 3, 10])
def test_store_replay_of_lru_counts_as_an_independent_program(size: int) -> None:
    """Two programs that share nothing agree to the last request."""
    keys = synthetic.requests("zipf 1.0", 2_000)
    assert replay.hits(keys, size, replay.LRU) == lru_hits(keys, size)


def test_store_replay_by_bytes_bounds_the_sum_of_sizes() -> None:
    """Two of 4 bytes fit into 8, three do not."""
    assert replay.misses_by_bytes([1, 2, 1, 2], [4] * 4, 8, replay.LRU) == 2
    assert replay.misses_by_bytes([1, 2, 3, 1], [4] * 4, 8, replay.LRU) == 4


@pytest.mark.parametrize("name", synthetic.WORKLOADS)
def test_synthetic_workload_is_the_same_each_time(name: str) -> None:
    """As many requests as asked for, and sizes that rise."""
    keys = synthetic.requests(name, 40_000)
    assert len(keys) == 40_000
    assert keys == synthetic.requests(name, 40_000)
    assert synthetic.sizes(keys) == sorted(synthetic.sizes(keys))


@pytest.mark.parametrize("number", range(8))
def test_mixture_is_its_number_s_own(number: int) -> None:
    """The same each time, another for the next number, in keys that all peers take and sizes that they stand."""
    keys = mixtures.requests(f"{mixtures.MADE_UP} {number}")
    assert keys == mixtures.requests(f"{mixtures.MADE_UP} {number}")
    assert keys != mixtures.requests(f"{mixtures.MADE_UP} {number + 1}")
    assert set(keys) == set(range(max(keys) + 1))
    assert min(mixtures.sizes(keys)) >= mixtures.LEAST_SIZE


@pytest.mark.parametrize("part", mixtures.KINDS, ids=lambda part: part.__name__)
def test_mixture_parts_give_as_many_keys_as_asked_for(part: mixtures.Part) -> None:
    """And those of one part keep clear of the next one's."""
    keys = part(np.random.default_rng(1), 3_000)
    assert keys.shape == (3_000,)
    assert 0 < len(set(keys.tolist())) <= 3_000
    assert keys.max() - keys.min() < 1 << 40


def test_mixtures_of_pieces_come_from_recorded_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the folder of the traces; a trace that is shorter than a piece is one."""
    (tmp_path / "README.md").write_text(README)
    for name, first in (("one", 0), ("two-b", 500)):
        numbers = np.arange(first, first + 400, dtype="<u8")
        (tmp_path / f"{name}.keys.u64.xz").write_bytes(lzma.compress(np.tile(numbers, 3).tobytes()))
    monkeypatch.setenv("NEARCACHE_TRACES", str(tmp_path))
    mixtures._recorded.cache_clear()
    try:
        lengths = {len(set(mixtures.requests(f"{mixtures.PIECES} {number}"))) for number in range(8)}
    finally:
        mixtures._recorded.cache_clear()
    assert 400 in lengths
    assert 400 < max(lengths) <= 1_600


class PeerThatKeepsAll:
    """What the peers' classes have in common with theirs, in all three spellings of asking."""

    def __init__(self, size: int) -> None:
        self.room = size
        self.held: dict[int, bool] = {}

    def set(self, key: int, value: bool) -> None:
        assert len(self.held) < self.room
        self.held[key] = value

    def close(self) -> None:
        self.room = 0


class Simulated(PeerThatKeepsAll):
    """As libCacheSim: a request is stored on a miss. It begins with a table of so many places, 16 million by itself."""

    def __init__(self, *, cache_size: int, hashpower: int = 24) -> None:
        super().__init__(cache_size)
        assert cache_size <= 1 << hashpower <= 4 * cache_size

    def get(self, request: SimpleNamespace) -> bool:
        assert request.obj_size == 1
        found = request.obj_id in self.held
        self.set(request.obj_id, True)
        return found


class LikeTheine(PeerThatKeepsAll):
    """As theine: the value, and whether there was one."""

    def get(self, key: int) -> tuple[bool | None, bool]:
        return self.held.get(key), key in self.held


class LikeMoka(PeerThatKeepsAll):
    """As moka-py: None for what is not there."""

    def get(self, key: int) -> bool | None:
        return self.held.get(key)


@pytest.mark.parametrize("name", peers.NAMES)
def test_peers_are_asked_as_the_store_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Get, then put on a miss, in a cache of so many entries."""
    policies = dict.fromkeys(("ARC", "LIRS", "S3FIFO", "Sieve", "TwoQ"), Simulated)
    monkeypatch.setitem(sys.modules, "libcachesim", SimpleNamespace(Request=SimpleNamespace, **policies))
    monkeypatch.setitem(sys.modules, "theine", SimpleNamespace(Cache=LikeTheine))
    monkeypatch.setitem(sys.modules, "moka_py", SimpleNamespace(Moka=LikeMoka))
    assert peers.hits([*range(20)] * 2 + [3], 42, name) == 21


def test_peers_that_are_not_installed_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One module stands for several policies."""
    monkeypatch.setattr(peers, "find_spec", lambda module: module if module == "theine" else None)
    assert peers.installed() == ("theine",)
    monkeypatch.setattr(peers, "find_spec", lambda module: module)
    assert peers.installed() == peers.NAMES


def test_standing_is_against_the_best_of_the_others() -> None:
    """Behind by 10 in one row and ahead by 5 in the other; 2 behind LRU in the second."""
    rows = [Row("a", 1, {"LRU": 10.0, "ARC": 20.0}), Row("b", 2, {"LRU": 10.0, "ARC": 3.0})]
    found = summary.standing(rows, {("a", 1): 10.0, ("b", 2): 15.0})
    assert found == summary.Standing(5.0, 10.0, 2.5, 0.0, 0, 2)
    assert summary.standing(rows, {("a", 1): 25.0, ("b", 2): 8.0}) == summary.Standing(1.0, 2.0, 6.5, 2.0, 1, 2)


def test_standings_begin_with_the_least_regret() -> None:
    """One line for each policy."""
    lines = tables.standings_table(
        {"x": summary.Standing(2.0, 3.0, -1.0, 4.0, 1, 2), "y": summary.Standing(0.5, 1.0, 2.0, 0.0, 0, 2)}
    )
    assert [line.split() for line in lines[1:]] == [
        ["y", "0.50", "1.0", "+2.00", "0.0", "0", "2"],
        ["x", "2.00", "3.0", "-1.00", "4.0", "1", "2"],
    ]


def test_summary_counts_regret_losses_and_victories() -> None:
    """Behind by 10 in one row, ahead by 5 in the other."""
    found = summary.summarize(ROWS, {("a", 1): 10.0, ("b", 2): 15.0})
    assert found == summary.Summary(
        rows=2,
        mean_regret=5.0,
        mean_signed=2.5,
        worst_regret=("a", 1, 10.0),
        worst_to_lru=("a", 1, 0.0),
        better_than_all=1,
    )


def test_summary_leaves_out_what_cannot_be_compared() -> None:
    """Rows not measured, and rows that have no peer but LRU."""
    rows = [*ROWS, Row("c", 3, {"LRU": 50.0, "MIN": 60.0})]
    found = summary.summarize(rows, {("b", 2): 10.0, ("c", 3): 0.0})
    assert found is not None
    assert (found.rows, found.mean_regret) == (1, 0.0)
    assert summary.summarize(rows, {}) is None


def test_summary_differences_to_the_reference_count_from_two_decimals_on() -> None:
    """The reference is rounded; ours is not."""
    assert summary.differing(ROWS, {("a", 1): 10.0049, ("b", 2): 10.0151}) == [("b", 2, 10.0151, 10.0)]


def test_table_shows_ours_the_columns_and_the_regret() -> None:
    """A row not measured is left out; a missing figure is a dash."""
    lines = tables.rows_table([*ROWS, Row("c", 3, {"LRU": 1.0})], {"lru": {("a", 1): 10.0, ("c", 3): 1.0}})
    assert [line.split() for line in lines[1:]] == [
        ["a", "1", "10.00", "10.00", "20.00", "30.00", "ARC", "+10.00"],
        ["c", "3", "1.00", "1.00", "-", "-", "LRU", "+0.00"],
    ]


def test_exact_lines_name_each_count_that_differs() -> None:
    """A single request more or less is a difference."""
    assert tables.exact_lines("hits", {1: 5, 2: 6}, {1: 5, 2: 7}) == [
        "hits: 1 of 2 exactly as published",
        "  DIFFERS at 2: 7, published 6",
    ]


def test_text_plot_puts_marks_where_the_points_are() -> None:
    """Sizes on a logarithmic scale, the best percentage on top, the points of a curve joined."""
    lines = textplot.plot({"x": [(10, 0.0), (1000, 50.0)], "y": [(100, 50.0)]}, {"x": "L", "y": "m"}, ["x"], 5, 3)
    assert lines == [
        "  50.0 |  m.L",
        "  25.0 |  .",
        "   0.0 |L.",
        "       +-----",
        "        10 1,000 entries",
        "        L x  m y",
    ]


def test_text_plot_of_one_point_or_none_is_no_error() -> None:
    """There is no scale to speak of then."""
    assert textplot.plot({}, {}) == ["(nothing to plot)"]
    assert textplot.plot({"x": [(10, 1.0)]}, {"x": "L"}, width=3, height=2)[1] == "   1.0 |L"


def test_sizes_between_are_in_equal_proportions() -> None:
    """The given ones stay."""
    assert between([10, 1000], 1) == [10, 100, 1000]
    assert between([10, 500, 1000], 0) == [10, 500, 1000]
