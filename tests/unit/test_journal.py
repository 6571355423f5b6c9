"""The journal: what was changed is remembered for a minute, what is owed until it is acknowledged."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache.coherence.journal import BATCH_KEYS, KEEP_NS, ROOM_BYTES, Debt, Journal
from support.journals import LATER, NEW, OLD, OTHER, pay_all

# -- the newest change


def test_newest_changes_acknowledged_in_any_order_is_the_last() -> None:
    """Two threads hear of theirs in the wrong order; whoever was given a token must not miss the later one."""
    journal = Journal()
    for seq in (4, 6, 5):
        journal.note(OLD, seq, [b"a"], 0, journal.serial)
    assert journal.newest == (OLD, 6)
    journal.reach(OLD, 5)
    journal.reach(OLD, 7)
    assert journal.newest == (OLD, 7)
    journal.reach(NEW, 1)
    assert journal.newest == (NEW, 1)


# -- a new epoch


def test_forked_what_the_server_still_has_is_not_owed() -> None:
    """Up to the number where the old epoch ended, nothing was lost."""
    journal = Journal()
    journal.note(OLD, 4, [b"a"], 0, journal.serial)
    journal.note(OLD, 5, [b"b"], 0, journal.serial)
    journal.note(OLD, 6, [b"c", b"d"], 0, journal.serial)
    assert journal.forked(NEW, {OLD: 5}) == 2
    assert pay_all(journal) == [b"c", b"d"]
    assert journal.replayed == 2


def test_forked_epoch_that_the_server_never_heard_of_was_lost_whole() -> None:
    """A primary of a time between died before anything of it was replicated."""
    journal = Journal()
    journal.note(OTHER, 1, [b"a"], 0, journal.serial)
    assert journal.forked(NEW, {OLD: 5}) == 1
    assert pay_all(journal) == [b"a"]


def test_forked_lost_clear_is_owed_as_a_clear() -> None:
    """A clear names no keys, so everything has to go again; single keys then need no request of their own."""
    journal = Journal()
    journal.note(OLD, 6, [b"a"], 0, journal.serial)
    journal.note(OLD, 7, None, 0, journal.serial)
    assert journal.forked(NEW, {OLD: 5}) == 2
    assert pay_all(journal) is None
    assert not journal.owes


def test_forked_record_made_anew_owes_nothing() -> None:
    """A new record has a new generation: whatever came before is dead."""
    journal = Journal()
    journal.note(OLD, 6, [b"a"], 0, journal.serial)
    assert journal.forked(NEW, None) == 0
    assert not journal.owes
    assert journal.forked(OTHER, {}) == 0  # and it was forgotten with the record


def test_forked_back_to_a_record_that_was_thought_lost_owes_what_that_lacks() -> None:
    """The record is evicted, and made anew; then a replica takes over that has not heard of it, nor of our change."""
    journal = Journal()
    journal.note(OLD, 5, [b"kept"], 0, journal.serial)
    journal.note(OLD, 6, [b"lost"], 0, journal.serial)
    assert journal.forked(NEW, None) == 0
    assert not journal.owes
    assert journal.forked(OTHER, {OLD: 5}) == 1
    assert pay_all(journal) == [b"lost"]


def test_forked_on_from_a_record_made_anew_owes_nothing_of_the_one_before() -> None:
    """Where the new record lives on, what was written under the old one is dead, whatever became of it."""
    journal = Journal()
    journal.note(OLD, 5, [b"dead"], 0, journal.serial)
    journal.forked(NEW, None)
    assert journal.forked(OTHER, {NEW: 0}) == 0
    assert not journal.owes


def test_forked_back_to_before_both_a_change_and_the_record_that_buried_it_owes_the_change() -> None:
    """A replica takes over that has heard neither of the change's epoch nor of the new record: old values live."""
    journal = Journal()
    journal.forked(NEW, {OLD: 5})
    journal.note(NEW, 3, [b"a"], 0, journal.serial)
    assert journal.forked(OTHER, None) == 0
    assert journal.forked(LATER, {OLD: 2}) == 1
    assert pay_all(journal) == [b"a"]


def test_forked_change_of_the_new_epoch_is_kept() -> None:
    """What was acknowledged after the switch, but before it was heard of, is there."""
    journal = Journal()
    journal.note(NEW, 1, [b"a"], 0, journal.serial)
    assert journal.forked(NEW, {OLD: 5}) == 0
    assert journal.forked(OTHER, {NEW: 0}) == 1


def test_forked_twice_owes_a_lost_change_once() -> None:
    """What has been put on the list of debts is not a change any more."""
    journal = Journal()
    journal.note(OLD, 6, [b"a"], 0, journal.serial)
    assert journal.forked(NEW, {OLD: 5}) == 1
    assert journal.forked(OTHER, {OLD: 5, NEW: 3}) == 0
    assert pay_all(journal) == [b"a"]


def test_forked_newest_change_is_not_the_newest_any_more() -> None:
    """What is heard in the new epoch comes after it; a change made in the new epoch stays."""
    journal = Journal()
    journal.note(OLD, 6, [b"a"], 0, journal.serial)
    journal.forked(NEW, {OLD: 9})
    assert journal.newest is None
    journal.note(NEW, 1, [b"a"], 0, journal.serial)
    journal.forked(NEW, {OLD: 9})
    assert journal.newest == (NEW, 1)


def test_forked_within_an_epoch_that_was_set_back_owes_what_is_beyond() -> None:
    """A primary took over that nobody has met anew: its number is lower than what was acknowledged."""
    journal = Journal()
    journal.note(OLD, 5, [b"a"], 0, journal.serial)
    journal.note(OLD, 6, [b"b"], 0, journal.serial)
    assert journal.forked(OLD, {OLD: 5}) == 1
    assert pay_all(journal) == [b"b"]
    assert journal.newest is None


# -- bounds


def test_note_forgets_what_is_older_than_a_minute_without_counting_it() -> None:
    """That is what was promised; only what is forgotten before its time counts."""
    journal = Journal()
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.note(OLD, 2, [b"b"], KEEP_NS, journal.serial)
    journal.note(OLD, 3, [b"c"], KEEP_NS + 1, journal.serial)
    assert journal.forgotten == 0
    assert journal.forked(NEW, {OLD: 0}) == 2
    assert pay_all(journal) == [b"b", b"c"]


def test_note_of_too_many_forgets_the_oldest_and_counts_it() -> None:
    """A failover now could not be repaired whole, and the statistics say so."""
    journal = Journal(limit=3)
    for seq in range(1, 6):
        journal.note(OLD, seq, [b"%d" % seq], 0, journal.serial)
    assert journal.forgotten == 2
    assert journal.forked(NEW, {OLD: 0}) == 3


def test_owe_too_much_becomes_a_clear() -> None:
    """Owed keys are never forgotten: where they are too many, the lane is cleared."""
    journal = Journal(limit=3)
    journal.owe([b"1", b"2", b"3"])
    assert journal.owed_count == 3
    journal.owe([b"4"])
    assert journal.owed_count == 1
    assert journal.is_owed(b"never named")
    assert pay_all(journal) is None
    assert not journal.is_owed(b"1")


def test_owe_while_a_clear_is_owed_renews_the_clear() -> None:
    """A clear that was sent before the newer change says nothing about it."""
    journal = Journal()
    journal.owe_clear()
    sent = journal.due()
    journal.owe([b"a"])
    assert sent is not None
    journal.paid(sent)
    assert journal.is_owed(b"a")
    assert pay_all(journal) is None


# -- debts


def test_paid_key_that_was_owed_again_meanwhile_stays_owed() -> None:
    """The request that is acknowledged was older than the second change."""
    journal = Journal()
    journal.owe([b"a", b"b"])
    debt = journal.due()
    journal.owe([b"a"])
    assert debt is not None
    journal.paid(debt)
    assert journal.is_owed(b"a")
    assert not journal.is_owed(b"b")
    assert pay_all(journal) == [b"a"]


def test_note_of_an_owed_key_settles_it() -> None:
    """A newer change of the key that was acknowledged has done what was owed."""
    journal = Journal()
    journal.owe([b"a", b"b"])
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    assert pay_all(journal) == [b"b"]


def test_note_of_a_clear_settles_every_key() -> None:
    """So has a clear, for all of them."""
    journal = Journal()
    journal.owe([b"a", b"b"])
    journal.note(OLD, 1, None, 0, journal.serial)
    assert not journal.owes


def test_due_comes_in_batches_that_one_message_carries() -> None:
    """By number and by size; one that is longer by itself comes alone."""
    journal = Journal()
    journal.owe(b"%04d" % n for n in range(BATCH_KEYS + 1))
    first = journal.due()
    assert first is not None
    assert first.keys is not None
    assert len(first.keys) == BATCH_KEYS
    journal.paid(first)
    assert pay_all(journal) == [b"%04d" % BATCH_KEYS]
    journal.owe([b"x" * 59_000, b"y" * 59_000, b"z" * 65_000])
    sizes = []
    while (debt := journal.due()) is not None:
        assert debt.keys is not None
        sizes.append(len(debt.keys))
        journal.paid(debt)
    assert sizes == [1, 1, 1]


def test_after_fork_owes_what_was_owed_and_remembers_nothing() -> None:
    """The child must not believe what it meant to be rid of, and the parent may end; it does remember its changes."""
    journal = Journal()
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.owe([b"b"])
    journal.after_fork()
    assert journal.is_owed(b"b")
    assert journal.due() == Debt([b"b"], journal.serial)
    assert journal.forked(NEW, {OLD: 0}) == 0


def test_after_fork_clear_is_still_owed() -> None:
    """The same for a clear."""
    journal = Journal()
    journal.owe_clear()
    journal.after_fork()
    assert journal.is_owed(b"any")
    assert journal.due() == Debt(None, journal.serial)


# -- any history

KEY = st.sampled_from([b"a", b"b", b"c", b"d"])
STEP = st.one_of(
    st.tuples(st.just("note"), st.lists(KEY, min_size=1, max_size=2)),
    st.tuples(st.just("owe"), st.lists(KEY, min_size=1, max_size=3)),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("lose clear"), st.none()),
    st.tuples(st.just("send"), st.none()),
    st.tuples(st.just("acknowledge"), st.integers(0, 3)),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 5))
def test_owed_key_stays_owed_until_a_later_request_is_acknowledged(steps: list, limit: int) -> None:
    """The one thing that may not happen: that a debt vanishes without a request sent after it being acknowledged."""
    journal = Journal(limit=limit)
    owed: dict[bytes | None, int] = {}  # what must be owed -> when it began to be; None: everything
    sent: list[tuple[int, object]] = []
    for now, (step, what) in enumerate(steps):
        if step == "note":
            journal.note(OLD, now, what, 0, journal.serial)
            for key in what:
                owed.pop(key, None)
        elif step == "owe":
            journal.owe(what)
            owed |= dict.fromkeys(what, now)
        elif step == "clear":
            journal.note(OLD, now, None, 0, journal.serial)
            owed = {key: since for key, since in owed.items() if key is None}
        elif step == "lose clear":
            journal.owe_clear()
            owed[None] = now
        elif step == "send":
            if (debt := journal.due()) is not None:
                sent.append((now, debt))
        elif what < len(sent):
            at, debt = sent.pop(what)
            journal.paid(debt)
            gone = list(owed) if debt.keys is None else debt.keys
            for key in gone:
                if owed.get(key, now) < at:
                    del owed[key]
        for key in owed:
            assert journal.is_owed(b"never named" if key is None else key)
        assert journal.owes or not owed
    pay_all(journal)
    assert not journal.owes


# -- answers that come late


def test_note_of_what_the_new_server_lacks_does_not_settle_an_older_debt() -> None:
    """What was lost has settled nothing."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.owe([b"a"])
    journal.forked(NEW, {OLD: 3})
    journal.note(OLD, 6, [b"a"], 0, journal.serial)
    assert journal.is_owed(b"a")


def test_note_settles_nothing_that_came_to_be_owed_after_it_was_sent() -> None:
    """An older write may be acknowledged after a newer invalidation has failed, and be what had to go."""
    journal = Journal()
    since = journal.serial
    journal.owe([b"a"])
    journal.note(OLD, 1, [b"a"], 0, since)
    assert journal.is_owed(b"a")
    journal.note(OLD, 2, [b"a"], 0, journal.serial)
    assert not journal.is_owed(b"a")


# -- how much is remembered


def test_remembers_so_many_keys_however_many_a_change_has() -> None:
    """Bulk writes name a hundred at a time."""
    journal = Journal(limit=10)
    for seq in range(1, 6):
        journal.note(1, seq, [b"%d.%d" % (seq, number) for number in range(4)], 0, journal.serial)
    assert journal.forgotten == 12
    assert journal.forked(2, {}) == 8
    assert journal.owed_count == 8


def test_long_keys_take_the_room_of_many() -> None:
    """So that no number of them takes the memory: what is remembered is forgotten, what is owed becomes a clear."""
    journal = Journal(limit=10)
    for seq in range(1, 4):
        journal.note(1, seq, [b"%d" % seq * 4 * ROOM_BYTES], 0, journal.serial)
    assert journal.forgotten == 1
    journal.note(1, 4, [b"4" * 10 * ROOM_BYTES], 0, journal.serial)  # too long to be remembered at all
    assert journal.forgotten == 4
    assert journal.forked(2, {}) == 0
    for _ in range(3):  # owed again and again, it takes its room once; paid, none
        journal.owe([b"a" * 8 * ROOM_BYTES] * 2)
    assert pay_all(journal) == [b"a" * 8 * ROOM_BYTES]
    journal.owe([b"b" * 8 * ROOM_BYTES])
    journal.note(2, 1, [b"b" * 8 * ROOM_BYTES], 0, journal.serial)
    journal.owe([b"c" * 4 * ROOM_BYTES, b"d" * 4 * ROOM_BYTES])
    assert not journal.owes_clear
    journal.owe([b"e"])
    assert journal.owes_clear


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


def test_epoch_that_comes_back_takes_changes_again() -> None:
    """A primary that was replaced is reached once more, through a proxy say: what it acknowledges from now on is there.

    Else each change would be taken for lost and made up for, and so would be what makes up for it, without an end.
    """
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(OLD, 1, [b"before"], 0, journal.serial)
    journal.forked(NEW, {OLD: 1})
    journal.note(NEW, 1, [b"elsewhere"], 0, journal.serial)
    assert journal.forked(OLD, {}, 1) == 1
    assert journal.owed_keys() == [b"elsewhere"]
    journal.note(OLD, 2, [b"elsewhere"], 0, journal.serial)
    journal.note(OLD, 3, [b"after"], 0, journal.serial)
    assert not journal.owes
    assert journal.newest == (OLD, 3)
    assert journal.forked(NEW, {OLD: 2}) == 1  # and of these it is told which are lost, as ever
    assert journal.owed_keys() == [b"after"]


def test_note_says_whether_the_change_counts() -> None:
    """Who pays debts at a server that was replaced has paid nothing."""
    journal = Journal()
    assert journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.forked(NEW, {OLD: 1})
    assert not journal.note(OLD, 2, [b"a"], 0, journal.serial)
    assert journal.note(NEW, 1, [b"b"], 0, journal.serial)


# -- a lane that took what it was to refuse


def test_doubted_lane_that_has_passed_on_owes_again_what_it_took() -> None:
    """What its server was told of the others may have been lost with the one before, so they have not heard of it."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.forked(NEW, {OLD: 1})
    journal.note(NEW, 2, [b"b"], 0, journal.serial)
    journal.doubt()
    assert pay_all(journal) == [b"a", b"b"]


def test_doubted_lane_whose_new_epoch_is_not_known_yet_owes_again_what_it_took() -> None:
    """The answer to a change may come before that to a heartbeat."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(NEW, 2, [b"a"], 0, journal.serial)
    journal.doubt()
    assert pay_all(journal) == [b"a"]


def test_doubted_lane_that_has_lost_nothing_owes_nothing() -> None:
    """It has refused what it was to refuse."""
    journal = Journal()
    journal.forked(OLD, {})
    journal.note(OLD, 1, [b"a"], 0, journal.serial)
    journal.doubt()
    assert not journal.owes


def test_change_under_way_when_a_lane_is_doubted_is_owed() -> None:
    """Its answer comes too late to be told from those that count; those that begin later do count."""
    journal = Journal()
    before = journal.serial
    journal.doubt()
    assert not journal.note(OLD, 1, [b"a"], 0, before)
    assert pay_all(journal) == [b"a"]
    assert journal.note(OLD, 2, [b"b"], 0, journal.serial)
    assert not journal.owes
