"""What the tests of the journal share."""

from __future__ import annotations

from nearcache.coherence.journal import Journal

#: Epochs.
OLD, NEW, OTHER, LATER = 0xA, 0xB, 0xC, 0xD


def pay_all(journal: Journal) -> list[bytes] | None:
    """Pay everything that is owed; return the keys, or None if that was a clear."""
    keys: list[bytes] = []
    while (debt := journal.due()) is not None:
        if debt.keys is None:
            journal.paid(debt)
            return None
        keys += debt.keys
        journal.paid(debt)
    return keys
