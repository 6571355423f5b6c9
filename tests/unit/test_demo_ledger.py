"""The demo's check of every read: it must find what is planted, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from demo import board as layout
from demo.board import Board, create
from demo.ledger import FIRST_VERSION, Judge, Ledger, LedgerFullError
from demo.reading import WorkerReading

SECOND = 1_000_000_000
BOUND = 2 * SECOND
PAGE = 3


@pytest.fixture
def board() -> Iterator[Board]:
    """Shared memory for one worker, the changer and ten pages."""
    descriptor = create(1, 10)
    try:
        yield Board(descriptor, 1, 10)
    finally:
        os.close(descriptor)


@pytest.fixture
def ledger(board: Board) -> Ledger:
    """A ledger in which every page has its first version."""
    ledger = Ledger(board)
    ledger.start()
    return ledger


@pytest.fixture
def judge(board: Board, ledger: Ledger) -> Judge:
    """The judge of the worker's reads."""
    return Judge(ledger, board.slots[0], BOUND)


def change(ledger: Ledger, superseded_ns: int, page: int = PAGE) -> int:
    """Change a page, acknowledged at an instant, and return the version it had."""
    version = ledger.bump(page)
    ledger.supersede(page, version, superseded_ns - 1_000, superseded_ns)
    return version


def found(board: Board) -> WorkerReading:
    """Return what the worker's slot says."""
    return WorkerReading.from_slot(board.slots[0])


def test_judge_planted_stale_read_beyond_the_bound_is_found(board: Board, ledger: Ledger, judge: Judge) -> None:
    """A read that began later than the bound after its version was superseded breaks the promise; it is kept."""
    old = change(ledger, 10 * SECOND)
    judge.outdated(PAGE, old, 10 * SECOND + BOUND + 1)
    reading = found(board)
    assert (reading.too_old, reading.outdated, reading.wrong) == (1, 1, 0)
    assert reading.oldest_ns == BOUND + 1
    (evidence,) = reading.evidence
    assert (evidence.page, evidence.version, evidence.current) == (PAGE, FIRST_VERSION, FIRST_VERSION + 1)
    assert (evidence.began_ns, evidence.superseded_ns) == (10 * SECOND + BOUND + 1, 10 * SECOND)


def test_judge_outdated_read_within_the_bound_is_counted_only(board: Board, ledger: Ledger, judge: Judge) -> None:
    """Up to the bound, and at it, an outdated read is allowed; how much it was outdated by is known."""
    old = change(ledger, 10 * SECOND)
    judge.outdated(PAGE, old, 10 * SECOND + BOUND)
    reading = found(board)
    assert (reading.too_old, reading.outdated, reading.oldest_ns) == (0, 1, BOUND)
    assert reading.outdated_by(0.99) == BOUND
    assert not reading.evidence


def test_judge_read_that_began_before_the_acknowledgement_is_fine(board: Board, ledger: Ledger, judge: Judge) -> None:
    """What begins before ``invalidate`` has returned may return the old version."""
    old = change(ledger, 10 * SECOND)
    judge.outdated(PAGE, old, 10 * SECOND)
    assert found(board).outdated == 0


def test_judge_version_two_changes_back_counts_from_its_own_end(board: Board, ledger: Ledger, judge: Judge) -> None:
    """A version is outdated since its own superseding, not since the newest change."""
    first = change(ledger, 10 * SECOND)
    second = change(ledger, 20 * SECOND)
    change(ledger, 30 * SECOND)
    judge.outdated(PAGE, second, 21 * SECOND)
    assert found(board).too_old == 0
    judge.outdated(PAGE, first, 21 * SECOND)
    assert found(board).too_old == 1
    assert found(board).oldest_ns == 11 * SECOND


def test_judge_changes_of_other_pages_do_not_matter(board: Board, ledger: Ledger, judge: Judge) -> None:
    """Each page has a history of its own."""
    old = change(ledger, 10 * SECOND)
    for at in range(11, 20):
        change(ledger, at * SECOND, page=PAGE + 1)
    judge.outdated(PAGE, old, 11 * SECOND)
    assert (found(board).too_old, found(board).oldest_ns) == (0, SECOND)


def test_judge_unacknowledged_change_waits_until_settled(board: Board, ledger: Ledger, judge: Judge) -> None:
    """A read is judged when the acknowledgement is known, even if it was read long before it was written down."""
    old = ledger.bump(PAGE)
    judge.outdated(PAGE, old, 15 * SECOND)
    judge.outdated(PAGE, old, 16 * SECOND)
    judge.settle()
    assert found(board).outdated == 0
    ledger.supersede(PAGE, old, 9 * SECOND, 10 * SECOND)
    judge.settle()
    assert (found(board).too_old, found(board).oldest_ns) == (1, 6 * SECOND)
    judge.settle()
    assert found(board).outdated == 1


def test_judge_change_never_acknowledged_counts_from_the_next(board: Board, ledger: Ledger, judge: Judge) -> None:
    """When the changer gave up on one invalidation, the next acknowledged one ends both versions."""
    lost = ledger.bump(PAGE)
    change(ledger, 20 * SECOND)
    judge.outdated(PAGE, lost, 19 * SECOND)
    assert found(board).outdated == 0
    judge.outdated(PAGE, lost, 23 * SECOND)
    assert (found(board).too_old, found(board).oldest_ns) == (1, 3 * SECOND)


@pytest.mark.parametrize("version", [0, FIRST_VERSION + 1, 99])
def test_judge_impossible_version_is_wrong(board: Board, ledger: Ledger, judge: Judge, version: int) -> None:
    """A version that the source never had is an error of its own."""
    judge.outdated(PAGE, version, SECOND)
    assert (found(board).wrong, found(board).evidence[0].version) == (1, version)


def test_judge_many_violations_keep_one_of_each_version(board: Board, ledger: Ledger, judge: Judge) -> None:
    """Every violation is counted; of each version one is kept, and of all no more than there is room for."""
    versions = [change(ledger, at * SECOND) for at in range(1, 21)]
    for version in versions:
        for began in (100, 101):
            judge.outdated(PAGE, version, began * SECOND)
    reading = found(board)
    assert reading.too_old == 40
    assert [item.version for item in reading.evidence] == versions[: layout.EVIDENCE_KEPT]


def test_ledger_that_is_full_refuses_another_change(board: Board, ledger: Ledger) -> None:
    """A change that could not be accounted for is not made."""
    board.header[layout.RECORDS] = layout.RECORD_CAPACITY
    with pytest.raises(LedgerFullError):
        ledger.bump(PAGE)
    assert ledger.version(PAGE) == FIRST_VERSION


def test_board_is_one_memory_for_all_who_map_it(board: Board) -> None:
    """What one process writes is what another reads, slot by slot."""
    descriptor = create(2, 5)
    try:
        one, other = Board(descriptor, 2, 5), Board(descriptor, 2, 5)
        one.slots[1][layout.LOADS] = 7
        one.versions[4] = 9
        one.stop()
        assert (other.slots[1][layout.LOADS], other.slots[0][layout.LOADS], other.versions[4]) == (7, 0, 9)
        assert other.stopped
        other.clear_slot(1)
        assert not any(one.slots[1])
    finally:
        os.close(descriptor)
