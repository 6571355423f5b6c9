"""The pure parts of the measurements of L1: keys and their order, who takes part, aims and tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l1 import growth, loops, report, roster, wanted
from l1.scene import PASSING_TURNS, Scene, chunks, full_chunks, make_keys
from l1.timing import LOOP, Series


def test_keys_of_each_kind_are_distinct_and_as_described() -> None:
    """Strings have 24 characters; different numbers give different keys."""
    assert {len(key) for key in make_keys("str", 0, 1000)} == {24}
    for kind in ("str", "int", "tuple"):
        assert len({*make_keys(kind, 0, 50), *make_keys(kind, 50, 100)}) == 100


def test_keys_of_an_unknown_kind_are_refused() -> None:
    """The message names what there is."""
    with pytest.raises(ValueError, match=r"'float'.*str, int, tuple"):
        make_keys("float", 0, 1)


def test_chunks_rest_is_kept_or_left_out() -> None:
    """Only ``full_chunks`` drops the rest, and never all there is."""
    assert chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert full_chunks([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4]]
    assert full_chunks([1], 2) == [[1]]


def test_resident_turns_of_a_small_cache_ask_for_each_key_equally_often() -> None:
    """One turn goes several times through all keys, in a mixed order."""
    scene = Scene(10, "str", False, 100)
    (turn,) = scene.resident
    assert sorted(turn) == sorted(scene.stored * 10)
    assert turn[:10] != scene.stored


def test_resident_turns_of_a_large_cache_are_parts_of_one_permutation() -> None:
    """No key comes twice before all have come."""
    scene = Scene(100, "int", False, 20)
    assert [len(turn) for turn in scene.resident] == [20] * 5
    assert sorted(key for turn in scene.resident for key in turn) == scene.stored


def test_copies_are_equal_to_the_stored_keys_but_other_objects() -> None:
    """Without copies the very objects are asked for."""
    for copies in (False, True):
        scene = Scene(10, "str", copies, 10)
        by_key = {key: key for key in scene.stored}
        assert {by_key[key] is key for turn in scene.resident for key in turn} == {not copies}


def test_passing_keys_were_never_stored_before() -> None:
    """Neither by the scene nor by another turn, so that whatever the policy is, a new key is what is timed."""
    scene = Scene(size=10, kind="str", copies=False, most=50)
    passing = [key for turn in scene.passing for key in turn]
    assert {len(turn) for turn in scene.passing} == {50}
    assert len(set(passing)) == len(passing) == 50 * PASSING_TURNS
    assert not set(passing) & {*scene.stored, *scene.others}


def test_deleted_keys_are_distinct_and_half_of_all() -> None:
    """A cache that runs empty would be another measurement."""
    scene = Scene(10, "str", False, 100)
    assert [len(turn) for turn in scene.halves] == [5, 5]
    assert len({key for turn in scene.halves for key in turn}) == 10


def test_contestant_not_installed_is_absent_with_a_reason() -> None:
    """Nobody is left out in silence; who is there has a version."""
    here = next(one for one in roster.ALL if one.name == roster.DICT)
    gone = replace(here, name="gone", package="no-such-distribution")
    present, absent = roster.roll_call([here, gone])
    assert present == [here]
    assert absent == {"gone": "no-such-distribution is not installed"}
    assert report.versions(present, absent)[-1] == "gone: ABSENT, no-such-distribution is not installed"


def test_contestants_chosen_by_beginning_bring_dict_along() -> None:
    """Ratios need it; a name that fits nobody is an error that names all."""
    assert [one.name for one in roster.choose(["lru-dict"])] == ["dict", "lru-dict"]
    assert len(roster.choose([])) == len(roster.ALL)
    with pytest.raises(ValueError, match=r"'memcached'.*moka-py"):
        roster.choose(["memcached"])


def test_contestant_filled_holds_every_key() -> None:
    """``nearcache`` and ``dict`` are filled through the loop that is timed; ``lru_cache`` by calls."""
    keys, values = make_keys("str", 0, 20), list(range(20))
    by_name = {one.name: one for one in roster.ALL}
    held: dict[str, int] = {}
    by_name["dict"].fill(held, keys, values)
    assert held == dict(zip(keys, values, strict=True))
    assert by_name["functools.lru_cache"].hit is loops.call


def test_aims_are_judged_by_minima_and_only_where_they_are_meant() -> None:
    """1.05 x dict is meant for 10,000 string keys, 1.15 for all; less than dict from a million on. What ``dict`` took
    in rounds without the contestant does not count, nor does the loop."""
    results = {
        "hit": {
            LOOP: Series([3.0, 4.0, 5.0]),
            "dict": Series([5.0, 23.0, 74.0]),
            "nearcache lru": Series([25.0, 70.0], [23.0, 74.0]),
        }
    }
    found = [(v.most, round(v.ratio, 2), round(v.median, 3), v.met) for v in wanted.judge(results, 10_000, "str")]
    assert found == [(1.05, 1.1, 0.978, False), (1.15, 1.1, 0.978, True)]  # 22 / 20 and 43.5 / 44.5
    assert [v.most for v in wanted.judge(results, 10_000, "int")] == [1.15]
    assert [v.most for v in wanted.judge(results, 1_000_000, "str")] == [1.15, 1.0]
    assert list(wanted.judge({}, 10_000, "str")) == []


def test_times_table_shows_ratios_with_and_without_the_loop() -> None:
    """Gross and net ratio, and the median of the ratios round by round."""
    results = {
        "hit": {
            LOOP: Series([5.0, 5.0]),
            "dict": Series([20.0, 20.0], [20.0, 20.0]),
            "nearcache lru": Series([22.0, 30.0], [20.0, 20.0]),
        }
    }
    (line,) = [line for line in report.times(results, Scene(10, "str", False, 10)) if "nearcache" in line]
    assert line.split() == ["nearcache", "lru", "22.0", "26.0", "15", "%", "17.0", "1.10", "1.30", "1.13"]


def test_wanted_table_counts_what_was_met() -> None:
    """Bytes and stalls stand beside the ratios."""
    verdicts = [
        *report.memory_verdicts({"nearcache": {10: 79.0, 20: 81.0}, "dict": {10: 99.0}}, ["nearcache"]),
        *report.growth_verdicts({"nearcache": [(900_000, 1_900_000), (5, 30_000)]}, ["nearcache"]),
    ]
    assert [one.met for one in verdicts] == [True, False, True]
    assert report.wanted(verdicts)[-1].strip() == "2 of 3 met"
    assert report.wanted([]) == []


def test_growth_counts_the_calmest_run_by_processor_time() -> None:
    """Being preempted makes wall time long, not the insertion; the longest wall time is shown beside."""
    runs = [[(900_000, 950_000)], [(800_000, 9_000_000), (30_000, 31_000)]]
    calmest = growth.calmest(runs)
    assert calmest == runs[1]
    row = report.growth({"nearcache": calmest, "dict": []}, 10)[-2]
    assert row.split() == ["nearcache", "0.800", "0.030", "-", "-", "-", "9.000"]


def test_spread_is_the_distance_of_the_quartiles() -> None:
    """0 for equal figures, and for a single one."""
    assert report.spread([1.0]) == 0.0
    assert report.spread([2.0, 2.0, 2.0]) == 0.0
    assert report.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
