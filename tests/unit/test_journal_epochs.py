"""The journal, of epochs: what a lane comes from, by what its record tells and by what was heard before."""

from __future__ import annotations

from nearcache.coherence.journal import Journal
from support.journals import NEW, OLD, OTHER, pay_all


def test_change_that_has_come_through_more_epochs_than_the_record_tells_of_is_kept() -> None:
    """It tells of the last eight. What was there when one of them ended is there with whatever comes from it."""
    journal = Journal()
    journal.forked(1, {})
    journal.note(1, 5, [b"a"], 0, journal.serial)
    journal.note(1, 6, [b"lost"], 0, journal.serial)
    for number in range(2, 20):
        journal.forked(number, dict.fromkeys(range(max(1, number - 8), number), 5))
    assert pay_all(journal) == [b"lost"]
    assert journal.forked(99, {98: 5}) == 1, "of a server that does not come from the one before nothing is known"
    assert pay_all(journal) == [b"a"]


def test_reclaimed_change_of_an_epoch_that_the_lane_does_not_come_from_is_owed() -> None:
    """A replaced primary that has lost its record begins another, of whose end no lane tells."""
    journal = Journal()
    journal.forked(NEW, {OLD: 5})
    journal.note(NEW, 1, [b"a"], 0, journal.serial)
    journal.note(OLD, 5, [b"b"], 0, journal.serial)
    assert not journal.has_strayed
    assert journal.note(OTHER, 9, [b"c"], 0, journal.serial)
    assert journal.has_strayed
    assert not journal.owes
    journal.reclaim(1)
    assert pay_all(journal) == [b"c"]
    assert not journal.has_strayed
    assert journal.forked(0xD, {NEW: 0, OLD: 5}) == 1
    assert pay_all(journal) == [b"a"]


def test_strayed_change_that_was_acknowledged_after_the_lane_was_asked_is_not_reclaimed_yet() -> None:
    """The answer may be of before the lane passed on, and the change of its new primary; the next one tells."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(NEW, 1, [b"a"], 1, journal.serial)
    journal.note(NEW, 2, [b"b"], 2, journal.serial)
    journal.reclaim(2)
    assert pay_all(journal) == [b"a"]
    assert journal.has_strayed
    journal.reclaim(3)
    assert pay_all(journal) == [b"b"]
    assert not journal.has_strayed


def test_strayed_change_of_the_epoch_to_come_is_kept() -> None:
    """The new primary was met before the lane had told of it."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(NEW, 1, [b"a"], 0, journal.serial)
    assert journal.has_strayed
    assert journal.forked(NEW, {OLD: 5}) == 0
    assert not journal.has_strayed
    assert not journal.owes


def test_change_before_the_lane_has_told_of_its_epoch_has_not_strayed() -> None:
    """There is nothing yet to compare it with."""
    journal = Journal()
    journal.note(NEW, 1, [b"a"], 0, journal.serial)
    assert not journal.has_strayed


def test_reclaiming_leaves_what_died_with_a_record() -> None:
    """It is dead as long as that record's successor is there."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.forked(NEW, None)
    journal.note(OTHER, 1, None, 0, journal.serial)
    journal.reclaim(1)
    assert journal.owes_clear
    assert pay_all(journal) is None
    assert journal.forked(OLD, {OLD: 0}) == 1
    assert pay_all(journal) == [b"a"]


def test_record_that_is_back_owes_what_another_took_meanwhile() -> None:
    """An address leads to an empty server for a while: the old record is as it began, and did not begin anew."""
    journal = Journal()
    journal.forked(OLD, None, 0)
    journal.note(OLD, 1, [b"there"], 0, journal.serial)
    journal.forked(NEW, None, 0)
    journal.note(NEW, 1, [b"elsewhere"], 0, journal.serial)
    assert journal.forked(OLD, None, 1) == 1
    assert pay_all(journal) == [b"elsewhere"]
    assert journal.forked(NEW, None, 1) == 1, "and what the other has not"
    assert pay_all(journal) == [b"there"]


def test_record_that_is_back_from_a_dump_owes_what_is_younger_than_that() -> None:
    """It says how far it had come."""
    journal = Journal()
    journal.forked(OLD, None, 0)
    for seq, key in enumerate((b"dumped", b"younger"), 1):
        journal.note(OLD, seq, [key], 0, journal.serial)
    journal.forked(NEW, None, 0)
    assert journal.forked(OLD, None, 1) == 1
    assert pay_all(journal) == [b"younger"]


def test_record_that_others_have_told_of_did_not_begin_anew() -> None:
    """Who came after a failover has never been at the first primary, but the second one's record tells of it."""
    journal = Journal()
    journal.forked(NEW, {OLD: 5}, 5)
    journal.note(NEW, 6, [b"a"], 0, journal.serial)
    assert journal.forked(OLD, None, 5) == 1
    assert pay_all(journal) == [b"a"]


def test_change_of_a_lost_record_that_is_acknowledged_late_is_owed_when_a_dump_without_it_is_back() -> None:
    """Until then it is dead with the record."""
    journal = Journal()
    journal.forked(OLD, None, 0)
    journal.forked(NEW, None, 0)
    assert not journal.note(OLD, 2, [b"late"], 0, journal.serial)
    assert not journal.owes
    assert journal.forked(OLD, None, 1) == 1
    assert pay_all(journal) == [b"late"]
