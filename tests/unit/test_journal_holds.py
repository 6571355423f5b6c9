"""The journal, of holds: those that could not be begun or ended are ended with an invalidation."""

from __future__ import annotations

import random

from nearcache.coherence.journal import ROOM_BYTES, Debt, Journal


def test_hold_owed_is_ended_under_its_token_with_the_invalidation() -> None:
    """One message does both, and nothing is owed any more; other keys are invalidated for themselves."""
    journal = Journal()
    journal.owe([b"a", b"b"], (b"0", b"t"))
    journal.owe([b"c"])
    assert journal.owed_count == 3
    debt = journal.due()
    assert debt == Debt([b"a", b"b"], journal.serial, (b"0", b"t"))
    journal.paid(debt)
    assert journal.due() == Debt([b"c"], journal.serial)
    journal.paid(Debt([b"c"], journal.serial))
    assert not journal.owes


def test_hold_owed_outlives_a_change_of_its_key_and_ends_with_its_own_end() -> None:
    """An acknowledged write says nothing of a hold; the end of it does, though a server may be gone by then."""
    journal = Journal()
    journal.owe([b"a"], (b"0", b"t"))
    journal.note(0xA, 1, [b"a"], 0, journal.serial)
    assert not journal.is_owed(b"a")
    assert (journal.owes, journal.owed_count, journal.owed_holds()) == (True, 1, {(b"0", b"t"): [b"a"]})
    journal.ended((b"0", b"other"), [b"a"])
    assert journal.owes
    journal.ended((b"0", b"t"), [b"a"])
    assert not journal.owes


def test_holds_owed_beyond_the_limit_are_left_to_their_time() -> None:
    """The oldest first: every hold ends by itself."""
    journal = Journal(limit=3)
    for number in range(4):
        journal.owe([b"a"], (b"0", b"%d" % number))
    assert list(journal.owed_holds()) == [(b"0", b"%d" % number) for number in (1, 2, 3)]


def test_holds_owed_again_and_ended_take_as_much_room_as_their_keys() -> None:
    """Whatever order they come in: the bound is counted along, for to add all holds up takes longer with each."""
    journal, chance = Journal(limit=12), random.Random(5)
    for _ in range(2000):
        hold = (b"0", b"%d" % chance.randrange(6))
        keys = [b"k" * chance.choice((1, 300, 700)) for _ in range(chance.randrange(1, 4))]
        if chance.random() < 0.6:
            journal.owe(keys, hold)
        else:
            journal.ended(hold, keys)
        held = journal.owed_holds()
        room = sum(1 + len(key) // ROOM_BYTES for keys in held.values() for key in keys)
        assert room <= 12 or len(held) == 1
    for hold, keys in journal.owed_holds().items():
        journal.ended(hold, keys)
    for number in range(12):
        journal.owe([b"a"], (b"1", b"%d" % number))
    assert len(journal.owed_holds()) == 12
