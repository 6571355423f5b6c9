"""The judge of what was written behind a cache: histories that it must accuse, and others that it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chaos import records as r
from chaos.behind import is_poisoned
from chaos.ground import Span
from chaos.written import Written

MS = 1_000_000
LEASE_MS = 1_000


class Story:
    """A history in the making. Times are milliseconds. Keys 0 and 1 are on shard 0, key 2 is on shard 1."""

    def __init__(self) -> None:
        self._records: list[tuple[Any, ...]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._count = 0

    def _record(self, op: int, end: int, key: int, value: int, at: float, to: float, process: int) -> tuple[Any, ...]:
        return (op, end, r.UNKNOWN, 0, key, process, 0, value, round(at * MS), round(to * MS))

    def change(self, at: float, to: float | None, *, key: int = 0, end: int = r.OK, poisoned: bool = False) -> int:
        """A change; ``to`` None: its process was killed before it returned."""
        self._count += 1
        while is_poisoned(r.value_id(2, 0, self._count)) is not poisoned:
            self._count += 1
        value = r.value_id(2, 0, self._count)
        self._records.append(self._record(r.BEHIND, r.INVOKED, key, value, at, 0, 2))
        if to is not None:
            self._records.append(self._record(r.BEHIND, end, key, value, at, to, 2))
        return value

    def row(self, value: int, at: float, *, key: int = 0, process: int = 2, begun: float | None = None) -> None:
        """The writer has written a value, so many milliseconds after it was called."""
        self._rows.append(self._record(r.ROW, r.OK, key, value, at if begun is None else begun, at, process))

    def note(self, op: int, at: float, to: float, *, value: int = 0, key: int = 0, process: int = 2) -> None:
        """A flush, a dead letter, or a time in which the process did not run."""
        self._records.append(self._record(op, r.OK, key, value, at, to, process))

    def accused(self, losses: tuple[Span, ...] = (), pauses: tuple[tuple[int, Span], ...] = ()) -> list[str]:
        """The rules that were found broken."""
        history, rows = np.array(self._records, r.RECORD), np.array(self._rows, r.RECORD)
        written = Written(history, rows, [0, 0, 1], losses, pauses, LEASE_MS * MS)
        return [violation.rule for violation in written.judge()]


def span(at: float, to: float, shard: int | None = 0) -> Span:
    """A stretch of time, in milliseconds."""
    return Span(shard, round(at * MS), round(to * MS))


@pytest.fixture
def story() -> Story:
    return Story()


# -- W1: nothing acknowledged is lost --------------------------------------------------------------------------------


def test_change_that_is_not_there_when_flush_has_returned_is_accused_once(story: Story) -> None:
    """Though two flushes show it."""
    story.row(story.change(0, 10), 50)
    story.change(100, 110)
    story.note(r.FLUSH, 200, 300)
    story.note(r.FLUSH, 400, 500)
    assert story.accused() == ["W1"]


def test_change_of_a_key_that_was_never_written_is_accused(story: Story) -> None:
    """Another key's rows are no excuse."""
    story.row(story.change(0, 10), 50)
    story.change(0, 10, key=1)
    story.note(r.FLUSH, 200, 300)
    assert story.accused() == ["W1"]


def test_change_that_a_later_one_replaced_is_not_accused(story: Story) -> None:
    """Of several within the delay the last is written; so is one that overlaps it, whichever came later."""
    story.change(0, 10)
    story.change(5, 30)
    story.row(story.change(20, 40), 60)
    story.note(r.FLUSH, 100, 200)
    assert story.accused() == []


def test_change_replaced_by_one_whose_outcome_nobody_knows_is_not_accused(story: Story) -> None:
    """Its process was killed, and it has come into the queue all the same."""
    story.change(0, 10)
    story.row(story.change(20, None), 60)
    story.note(r.FLUSH, 100, 200)
    assert story.accused() == []


def test_change_replaced_by_an_earlier_one_only_is_accused(story: Story) -> None:
    """The row that there is does not stand for it."""
    story.row(story.change(0, None), 5)
    story.change(20, 30)
    story.note(r.FLUSH, 100, 200)
    assert story.accused() == ["W1"]


def test_row_that_came_after_flush_had_returned_is_too_late(story: Story) -> None:
    """What flush says is that it had been written."""
    first = story.change(0, 10)
    story.note(r.FLUSH, 100, 200)
    story.row(first, 250)
    assert story.accused() == ["W1"]


@pytest.mark.parametrize("to", [None, 110])
def test_change_that_had_not_returned_when_flush_was_called_is_not_accused(story: Story, to: int | None) -> None:
    """Nor one of unknown outcome."""
    story.change(90, to)
    story.note(r.FLUSH, 100, 200)
    story.change(150, 160, end=r.INFO)
    assert story.accused() == []


def test_dead_letter_stands_for_its_change_and_earlier_ones_only(story: Story) -> None:
    """A later change is owed all the same."""
    story.change(0, 10)
    dead = story.change(20, 30, poisoned=True)
    story.note(r.LETTER, 500, 501, value=dead)
    story.note(r.FLUSH, 100, 200)
    assert story.accused() == []
    story.change(210, 220)
    story.note(r.FLUSH, 300, 400)
    assert story.accused() == ["W1"]


def test_dead_letter_that_was_lost_may_have_taken_earlier_changes_with_it(story: Story) -> None:
    """Of its key and its shard; and none that a flush before it has shown to be missing."""
    story.change(0, 10)
    story.change(5, 30, poisoned=True)
    story.note(r.FLUSH, 100, 200)
    assert story.accused(losses=(span(900, 910),)) == []
    assert story.accused(losses=(span(900, 910, 1),)) == ["W1"]
    late = Story()
    late.change(0, 10)
    late.note(r.FLUSH, 100, 200)
    late.change(250, 260, poisoned=True)
    assert late.accused(losses=(span(900, 910),)) == ["W1"]


def test_loss_of_the_shard_excuses_what_was_changed_before_its_end(story: Story) -> None:
    """On that shard, and at that time; a letter may be lost at any later time."""
    story.change(0, 10)
    story.note(r.FLUSH, 100, 200)
    assert story.accused(losses=(span(50, 60),)) == []
    assert story.accused(losses=(span(150, 160, None),)) == []
    assert story.accused(losses=(span(50, 60, 1),)) == ["W1"]
    assert story.accused(losses=(span(250, 260),)) == ["W1"]
    other = Story()
    other.change(0, 10, poisoned=True)
    other.note(r.FLUSH, 100, 200)
    assert other.accused(losses=(span(250, 260),)) == []


# -- W2: in order ----------------------------------------------------------------------------------------------------


def test_row_of_an_earlier_change_after_that_of_a_later_one_is_accused(story: Story) -> None:
    """Whether it was there before or not."""
    first, second = story.change(0, 10), story.change(20, 30)
    story.row(second, 100)
    story.row(first, 200)
    assert story.accused() == ["W2"]


def test_row_that_comes_twice_or_overlaps_is_not_accused(story: Story) -> None:
    """Once at least is promised; and of changes at one time either may be the later one."""
    first, second = story.change(0, 30), story.change(20, 40)
    for value in (second, first, first):
        story.row(value, 100)
    assert story.accused() == []


def test_other_key_has_an_order_of_its_own(story: Story) -> None:
    """What is written of one says nothing of another."""
    first = story.change(0, 10)
    story.row(story.change(20, 30, key=1), 50, key=1)
    story.row(first, 60)
    assert story.accused() == []


def test_change_of_unknown_outcome_that_was_read_from_the_queue_is_earlier_than_what_came_after(story: Story) -> None:
    """It had been done when the writer was called with it."""
    unknown = story.change(0, None)
    story.row(unknown, 20, begun=19)
    story.row(story.change(30, 40), 50)
    story.row(unknown, 60)
    assert story.accused() == ["W2"]


def test_process_that_was_away_for_long_while_it_wrote_is_excused_and_no_other(story: Story) -> None:
    """Stopped, or without a processor; for a moment is no excuse."""
    first, second = story.change(0, 10), story.change(20, 30)
    story.row(second, 3_000, process=3)
    story.row(first, 5_000, process=2, begun=2_000)
    assert story.accused(pauses=((2, span(2_500, 4_500, None)),)) == []
    assert story.accused(pauses=((2, span(2_500, 2_600, None)),)) == ["W2"]
    assert story.accused(pauses=((3, span(2_500, 4_500, None)),)) == ["W2"]
    assert story.accused(pauses=((2, span(200, 900, None)),)) == ["W2"]
    assert story.accused(pauses=((2, span(5_003, 7_000, None)),)) == []  # between making the row and writing it
    assert story.accused(pauses=((2, span(5_500, 7_000, None)),)) == ["W2"]
    story.note(r.STALL, 2_500, 4_500, process=2)
    assert story.accused() == []


def test_server_that_brought_back_an_older_state_excuses_what_it_held_and_nothing_later(story: Story) -> None:
    """From its end on the order is owed again."""
    first, second = story.change(0, 10), story.change(20, 30)
    story.row(second, 100)
    story.row(first, 5_000)
    assert story.accused(losses=(span(1_000, 1_100),)) == []
    assert story.accused(losses=(span(6_000, 6_100),)) == ["W2"]
    third, fourth = story.change(3_000, 3_010), story.change(3_020, 3_030)
    story.row(fourth, 6_000)
    story.row(third, 6_100)
    assert story.accused(losses=(span(1_000, 1_100),)) == ["W2"]


# -- W3: nothing else ------------------------------------------------------------------------------------------------


def test_row_or_letter_that_nobody_wrote_is_accused(story: Story) -> None:
    """A damaged value reads as none; another key's is not this one's."""
    value = story.change(0, 10, key=1)
    story.row(0, 20)
    story.row(value, 30)
    story.row(value, 30, key=1)
    story.note(r.LETTER, 40, 50, value=0)
    assert story.accused() == ["W3", "W3", "W3"]


def test_row_of_a_change_that_was_reported_as_not_done_is_accused(story: Story) -> None:
    """Who was told so has done something else instead."""
    story.row(story.change(0, 10, end=r.FAIL), 20)
    assert story.accused() == ["W3"]
