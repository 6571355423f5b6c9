"""The journal: what is remembered of changes, and what is owed."""

from __future__ import annotations

from nearcache.coherence import Journal
from nearcache.coherence.journal import KEEP_NS


def test_remembers_so_many_keys_however_many_a_change_has() -> None:
    """Bulk writes name a hundred at a time."""
    journal = Journal(limit=10)
    for seq in range(1, 6):
        journal.note(1, seq, [b"%d.%d" % (seq, number) for number in range(4)], 0, journal.serial)
    assert journal.forgotten == 12
    assert journal.forked(2, {}) == 8
    assert journal.owed_count == 8


def test_keys_that_time_has_taken_make_room() -> None:
    """They are not forgotten before their time."""
    journal = Journal(limit=10)
    journal.note(1, 1, [b"%d" % number for number in range(10)], 0, journal.serial)
    journal.note(1, 2, [b"%d" % number for number in range(10)], KEEP_NS + 1, journal.serial)
    assert journal.forgotten == 0
    assert journal.forked(2, {1: 1}) == 10


def test_room_is_counted_anew_after_a_fork() -> None:
    """What the new primary has is still remembered, for the next failover."""
    journal = Journal(limit=10)
    journal.note(1, 1, [b"a"] * 6, 0, journal.serial)
    journal.note(1, 2, [b"b"] * 4, 0, journal.serial)
    assert journal.forked(2, {1: 1}) == 4
    journal.note(2, 3, [b"c"] * 4, 0, journal.serial)
    assert journal.forgotten == 0
    journal.note(2, 4, [b"d"], 0, journal.serial)
    assert journal.forgotten == 6
