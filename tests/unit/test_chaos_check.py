"""The judge of chaos runs: hand-made histories that it must accuse, and others that it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chaos import records as r
from chaos.check import WITNESS, Limits, Verdict, covered, evidence, judge
from chaos.ground import Ground, Span
from chaos.servers import ROAMING

MS = 1_000_000
LIMITS = Limits(bound_ns=1_000 * MS, call_ns=2_000 * MS)


class Story:
    """A history in the making. Times are milliseconds; values are made by the process and thread that acts."""

    def __init__(self) -> None:
        self._records: list[tuple[Any, ...]] = []
        self._counts = 0

    def _add(self, op: int, end: int, tier: int, who: tuple[int, int], key: int, value: int, at: float, to: float,
             ttl: int = 0) -> None:  # fmt: skip
        process, thread = who
        self._records.append((op, end, tier, thread, key, process, ttl, value, round(at * MS), round(to * MS)))

    def write(
        self, at: float, to: float | None, *, who: tuple[int, int] = (2, 0), key: int = 0, op: int = r.SET,
        end: int = r.OK, ttl: int = 0,
    ) -> int:  # fmt: skip
        """A write; ``to`` None: its process was killed before it returned."""
        self._counts += 1
        value = r.value_id(*who, self._counts)
        self._add(op, r.INVOKED, 0, who, key, value, at, 0, ttl)
        if to is not None:
            self._add(op, end, 0, who, key, value, at, to)
        return value

    def load(self, at: float, *, who: tuple[int, int] = (2, 0), key: int = 0) -> int:
        """The loader was called."""
        self._counts += 1
        value = r.value_id(*who, self._counts)
        self._add(r.LOAD, r.INVOKED, 0, who, key, value, at, 0)
        return value

    def read(
        self, value: int, at: float, to: float, *, who: tuple[int, int] = (3, 0), key: int = 0, tier: int = r.L1,
        op: int = r.GET, end: int = r.OK,
    ) -> None:  # fmt: skip
        """A read that found a value (0: none)."""
        self._add(op, end, tier, who, key, value, at, to)

    def note(self, op: int, at: float, to: float, *, process: int = 3, value: int = 0, tier: int = r.UNKNOWN) -> None:
        """What a process says of itself."""
        self._add(op, r.OK, tier, (process, 200), 0, value, at, to)

    def judged(
        self, limits: Limits = LIMITS, *, resets: tuple[Span, ...] = (), erasures: tuple[Span, ...] = (),
        pauses: tuple[tuple[int, Span], ...] = (),
    ) -> tuple[Ground, Verdict]:  # fmt: skip
        """The verdict. Keys 0 to 4 are on shard 0, 5 to 9 on shard 1, the last on either; 3 and 4 have tags 0 and 1."""
        shards = np.array([0] * 5 + [1] * 5 + [ROAMING])
        tags = np.array([-1, -1, -1, 0, 1] + [-1] * 6)
        ground = Ground(np.array(self._records, r.RECORD), shards, resets, erasures, tags)
        return ground, judge(ground, limits, pauses)

    def accused(self, **circumstances: Any) -> list[str]:
        """The rules that were found broken."""
        return [violation.rule for violation in self.judged(**circumstances)[1].violations]


def span(at: float, to: float, shard: int | None = 0) -> Span:
    """A stretch of time, in milliseconds."""
    return Span(shard, round(at * MS), round(to * MS))


@pytest.fixture
def story() -> Story:
    """An empty history."""
    return Story()


# -- I1 ----------------------------------------------------------------------------------------------------------


def test_hit_longer_than_the_bound_after_the_next_write_is_accused(story: Story) -> None:
    """The next write had returned more than B before the call began."""
    old = story.write(0, 1)
    story.write(10, 11)
    story.read(old, 1_012, 1_013)
    assert story.accused() == ["I1"]


def test_hit_just_within_the_bound_is_stale_and_not_accused(story: Story) -> None:
    """Staleness counts from the next write's return to the call, whichever way errs on the side of the accused."""
    old = story.write(0, 1)
    story.write(10, 11)
    story.read(old, 1_011, 5_000, tier=r.L1)
    _, verdict = story.judged(Limits(1_000 * MS, 9_000 * MS))
    assert verdict.violations == []
    assert verdict.stale_ns.tolist() == [1_000 * MS]


def test_hit_after_an_invalidation_is_accused(story: Story) -> None:
    """An invalidation supersedes as a write does."""
    old = story.write(0, 1)
    story.write(10, 11, op=r.INVALIDATE)
    story.read(old, 1_100, 1_101)
    assert story.accused() == ["I1"]


def test_hit_after_a_clear_is_accused_for_every_key(story: Story) -> None:
    """A clear is a write of all keys."""
    old = story.write(0, 1, key=7)
    story.write(10, 11, op=r.CLEAR, key=r.ALL_KEYS)
    story.read(old, 1_100, 1_101, key=7)
    assert story.accused() == ["I1"]


@pytest.mark.parametrize("make", [Story.write, Story.load])
def test_hit_after_the_invalidation_of_its_tag_is_accused_and_no_other(story: Story, make: Callable[..., int]) -> None:
    """It is a write of all keys that have the tag. What is made afterwards is as good as new."""
    values = {key: make(story, 0, 1, key=key) if make is Story.write else make(story, 0, key=key) for key in (0, 3, 4)}
    story.write(10, 11, op=r.TAG, key=r.tagged(0), end=r.INFO)
    for key, value in values.items():
        story.read(value, 1_100, 1_101, key=key)
    assert story.accused() == []
    story.write(1_102, 1_103, op=r.TAG, key=r.tagged(0))
    newer = story.write(1_104, 1_105, key=3)
    story.read(newer, 3_000, 3_001, key=3)
    for key, value in values.items():
        story.read(value, 3_100, 3_101, who=(4, 0), key=key)
    ground, verdict = story.judged()
    assert [(each.rule, int(each.read["key"])) for each in verdict.violations] == [("I1", 3)]
    assert r.tagged(0) in [each["key"] for each in evidence(ground, verdict.violations[0])]


def test_hit_when_writes_overlap_is_not_accused(story: Story) -> None:
    """Of two writes at the same time, either may be the later one."""
    one = story.write(0, 10, who=(2, 0))
    story.write(5, 9, who=(4, 0))
    story.read(one, 5_000, 5_001)
    assert story.accused() == []


@pytest.mark.parametrize(("to", "end"), [(None, r.INFO), (40, r.INFO), (40, r.FAIL)])
def test_hit_after_a_write_of_unknown_outcome_is_not_accused(story: Story, to: float | None, end: int) -> None:
    """A write that may not have happened supersedes nothing."""
    old = story.write(0, 1)
    story.write(10, to, end=end)
    story.read(old, 5_000, 5_001)
    assert story.accused() == []


def test_hit_of_a_write_of_unknown_outcome_is_not_accused_unless_seen_before(story: Story) -> None:
    """It may have been carried out late; but not later than somebody read it."""
    unsure = story.write(0, None)
    story.write(10, 11)
    story.read(unsure, 5_000, 5_001)
    assert story.accused() == []
    story.read(unsure, 5, 6, who=(4, 0), tier=r.BELOW)
    assert story.accused() == ["I1"]


def test_read_that_is_no_hit_is_not_held_to_the_bound(story: Story) -> None:
    """The bound speaks of L1."""
    old = story.write(0, 1)
    story.write(10, 11)
    story.read(old, 2_000, 2_001, tier=r.BELOW)
    assert story.accused() == []


def test_hit_after_a_rollback_is_not_accused(story: Story) -> None:
    """A server that came back with older data may hold the old value again; writes after it count again."""
    old = story.write(0, 1)
    story.write(10, 11)
    story.read(old, 3_000, 3_001)
    rollback = (span(500, 1_000),)
    assert story.accused(resets=rollback) == []
    assert story.accused(resets=(span(500, 1_000, shard=1),)) == ["I1"]
    story.write(1_200, 1_201)
    assert story.accused(resets=rollback) == ["I1"]


def test_key_that_may_have_moved_is_excused_by_any_server_and_emptied_by_none(story: Story) -> None:
    """Nobody knows where it was at that moment; writes count as ever."""
    old = story.write(0, 1, key=10)
    story.write(10, 11, key=10)
    story.read(old, 3_000, 3_001, key=10)
    assert story.accused() == ["I1"]
    assert story.accused(resets=(span(500, 1_000, shard=0),)) == []
    assert story.accused(resets=(span(500, 1_000, shard=1),)) == []
    other = Story()
    kept = other.write(0, 1, key=10)
    other.read(kept, 1_200, 1_201, key=10)
    assert other.accused(erasures=(span(10, 11, shard=0), span(10, 11, shard=1))) == []


def test_hit_before_a_rollback_is_accused_all_the_same(story: Story) -> None:
    """What a server does later excuses nothing."""
    old = story.write(0, 1)
    story.write(10, 11)
    story.read(old, 2_000, 2_001)
    assert story.accused(resets=(span(3_000, 4_000),)) == ["I1"]


def test_hit_after_a_flush_is_accused_on_that_shard_only(story: Story) -> None:
    """An acknowledged FLUSHALL removes all keys of its server."""
    first, second = story.write(0, 1, key=0), story.write(0, 1, key=9)
    story.read(first, 1_100, 1_101, key=0)
    story.read(second, 1_100, 1_101, key=9)
    _, verdict = story.judged(erasures=(span(10, 11),))
    assert [int(violation.read["key"]) for violation in verdict.violations] == [0]


def test_hit_after_the_lifetime_is_accused(story: Story) -> None:
    """A value with a ttl is not the newest any more when that has passed."""
    mortal = story.write(0, 1, ttl=3_000)
    story.read(mortal, 4_000, 4_001)
    assert story.accused() == []
    story.read(mortal, 4_002, 4_003)
    assert story.accused() == ["I1"]


def test_hit_of_a_load_from_before_a_write_is_accused(story: Story) -> None:
    """What was loaded before a write is never stored after it, whenever the fill may have come."""
    loaded = story.load(0)
    story.write(10, 11, op=r.INVALIDATE)
    story.read(loaded, 1_100, 1_101)
    assert story.accused() == ["I1"]


def test_hit_of_an_older_load_is_not_accused(story: Story) -> None:
    """Loads of one source that nobody invalidated do not supersede each other."""
    first = story.load(0)
    story.load(100, who=(4, 0))
    story.read(first, 9_000, 9_001)
    assert story.accused() == []


# -- I3, I4 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", [r.L1, r.BELOW, r.UNKNOWN])
def test_read_of_a_value_older_than_an_own_write_is_accused(story: Story, tier: int) -> None:
    """In the process that wrote, from the write's return, in every thread and whoever answers."""
    old = story.write(0, 1)
    story.write(10, 11, who=(3, 1))
    story.read(old, 12, 13, who=(3, 0), tier=tier)
    assert story.accused() == ["I3"]


def test_read_that_began_before_an_own_write_returned_is_not_accused(story: Story) -> None:
    """It may have been answered before."""
    old = story.write(0, 1)
    story.write(10, 12, who=(3, 1))
    story.read(old, 11, 20, who=(3, 0))
    assert story.accused() == []


def test_read_soon_after_another_processs_write_is_not_accused(story: Story) -> None:
    """Its message may be on its way."""
    old = story.write(0, 1)
    story.write(10, 11, who=(4, 0))
    story.read(old, 12, 13)
    assert story.accused() == []


def test_thread_that_reads_backwards_is_accused(story: Story) -> None:
    """New, then old, in one thread; two threads may differ."""
    old = story.write(0, 1)
    new = story.write(10, 11)
    story.read(new, 12, 13, who=(3, 0))
    story.read(old, 14, 15, who=(3, 1))
    assert story.accused() == []
    story.read(old, 16, 17, who=(3, 0), tier=r.BELOW)
    assert story.accused() == ["I4"]


def test_thread_that_reads_backwards_over_a_rollback_is_not_accused(story: Story) -> None:
    """The server went back, not the cache."""
    old = story.write(0, 1)
    new = story.write(10, 11)
    story.read(new, 12, 13)
    story.read(old, 100, 101)
    assert story.accused(resets=(span(20, 90),)) == []


def test_thread_that_loaded_past_a_dead_server_is_not_accused(story: Story) -> None:
    """A value that was never stored is in no order with those in Redis."""
    old = story.write(0, 1)
    loaded = story.load(10, who=(3, 0))
    story.read(loaded, 10, 12, tier=r.BELOW)
    story.read(old, 20, 21, tier=r.BELOW)
    assert story.accused() == []


def test_reader_that_joins_a_load_from_before_an_own_invalidation_is_accused(story: Story) -> None:
    """The load began before, the invalidation returned, the read began after: and got the load's value."""
    loaded = story.load(0, who=(3, 0))
    story.write(5, 6, who=(3, 1), op=r.INVALIDATE)
    story.read(loaded, 7, 30, who=(3, 2), tier=r.BELOW)
    story.read(loaded, 0, 30, who=(3, 0), tier=r.BELOW)
    assert story.accused() == ["I3"]


# -- I5, I10, I12, OUT -------------------------------------------------------------------------------------------


def test_hit_at_the_end_that_differs_from_redis_is_accused(story: Story) -> None:
    """When nothing is written any more, L1 holds what Redis holds."""
    one, two = story.write(0, 5), story.write(0, 5, who=(4, 0))
    story.read(one, 100, 101, op=r.FINAL)
    story.read(one, 200, 201, op=r.FINAL, who=(WITNESS, 0), tier=r.BELOW)
    assert story.accused() == []
    story.read(two, 100, 101, op=r.FINAL, who=(5, 0))
    assert story.accused() == ["I5"]


def test_hit_at_the_end_before_a_write_of_unknown_outcome_is_not_accused(story: Story) -> None:
    """A write that nobody heard of again may be carried out between the two reads."""
    one = story.write(0, 5)
    late = story.write(10, 600, end=r.INFO)
    story.read(one, 700, 701, op=r.FINAL)
    story.read(late, 800, 801, op=r.FINAL, who=(WITNESS, 0), tier=r.BELOW)
    _, verdict = story.judged()
    assert (verdict.violations, verdict.unjudged) == ([], 1)


def test_hit_at_the_end_of_what_redis_evicted_is_counted_and_not_accused(story: Story) -> None:
    """Evictions are not announced, nor are loads after them."""
    one, loaded = story.write(0, 5), story.load(50)
    story.read(one, 100, 101, op=r.FINAL)
    story.read(loaded, 200, 201, op=r.FINAL, who=(WITNESS, 0), tier=r.BELOW)
    assert story.accused() == ["I5"]
    _, verdict = story.judged(Limits(LIMITS.bound_ns, LIMITS.call_ns, evictions=True))
    assert (verdict.violations, verdict.unjudged) == ([], 1)


def test_shard_still_dark_at_the_end_is_accused(story: Story) -> None:
    """Recovery is promised, too."""
    story.note(r.HEALTH, 100, 100, value=1, tier=r.BELOW)
    assert story.accused() == []
    story.note(r.HEALTH, 100, 100, value=0, tier=r.BELOW)
    assert story.accused() == ["I5"]


def test_read_that_raised_is_accused(story: Story) -> None:
    """A fault costs the caching, not the read."""
    story.read(0, 1, 2, end=r.FAIL)
    assert story.accused() == ["I10"]


def test_call_beyond_its_time_is_accused_unless_the_process_stood_still(story: Story) -> None:
    """Time in which the process was stopped, or found that it had not run, is not the call's."""
    story.write(0, 2_600)
    assert story.accused() == ["I12"]
    assert story.accused(pauses=((2, span(100, 1_000, None)),)) == []
    assert story.accused(pauses=((9, span(100, 1_000, None)),)) == ["I12"]
    story.note(r.STALL, 200, 900, process=2)
    assert story.accused() == []


@pytest.mark.parametrize("end", [r.OK, r.INFO])
def test_value_of_a_write_reported_as_not_sent_is_accused(story: Story, end: int) -> None:
    """FAIL says "certainly not done"; so does a value that nobody wrote."""
    failed = story.write(0, 5, end=r.FAIL)
    story.read(failed, 10, 11, tier=r.BELOW)
    story.read(story.write(0, 5, end=end, key=1), 10, 11, key=1, tier=r.BELOW)
    story.read(12_345, 10, 11, key=2, tier=r.BELOW)
    assert story.accused() == ["OUT", "OUT"]


# -- around it ---------------------------------------------------------------------------------------------------


def test_evidence_of_a_violation_is_its_write_the_next_and_the_read(story: Story) -> None:
    """What is shown explains the accusation, in order of time."""
    old = story.write(0, 1)
    story.write(0, 1, key=3)
    new = story.write(10, 11)
    story.read(old, 2_000, 2_001)
    ground, verdict = story.judged()
    shown = evidence(ground, verdict.violations[0])
    assert [(int(each["value"]), int(each["end"])) for each in shown] == [
        (old, r.INVOKED), (old, r.OK), (new, r.INVOKED), (new, r.OK), (old, r.OK),
    ]  # fmt: skip
    assert "from L1" in r.tell(shown[-1], 0)


def test_covered_time_of_overlapping_spans_counts_once() -> None:
    """Spans may overlap, and reach beyond."""
    assert covered([(0, 4), (3, 6), (8, 20)], 2, 10) == 4 + 2


def test_history_without_records_is_judged_empty(story: Story) -> None:
    """A run that was cut short is no crash."""
    ground = Ground(np.zeros(0, r.RECORD), np.zeros(3, np.int64))
    assert judge(ground, LIMITS).violations == []
