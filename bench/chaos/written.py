"""The judge of what was written behind a cache. It accuses only where no order of events could excuse what was done.

    W1   what was acknowledged before ``flush`` was called is in the file, or a later change of its key is, or it is a
         dead letter, when ``flush`` has returned; the last one is called after the faults
    W2   a later change of a key is never followed by an earlier one in the file; the same one may come twice
    W3   nothing is written that nobody changed, or whose change was reported as not done

A change is later than another if it was called after the other had returned. Servers that lost or brought back what
they held (*losses*) excuse what lies in that time, and a process that was kept from running for so long that it lost
the queue excuses what it wrote then: both are said in ``docs/writing.md``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import numpy as np

from . import records as r
from .behind import is_poisoned
from .check import Violation, covered
from .ground import NEVER, Span

#: A process that did not run for this part of the lock's time may have gone on without it.
_LATE_PART: Final = 0.3
#: So much later than it says may a row be in the file, while its process runs.
_MOMENT_NS: Final = 10_000_000


@dataclass
class _Change:
    record: np.void
    called_ns: int
    #: From when on it was surely done; it was not done if ``end`` says so.
    last_ns: int = NEVER
    end: int = r.INVOKED


@dataclass
class _Key:
    """All that concerns a key; rows in the order of the file."""

    shard: int
    changes: list[_Change] = field(default_factory=list)
    rows: list[np.void] = field(default_factory=list)
    letters: list[np.void] = field(default_factory=list)


class Written:
    """The evidence.

    Args:
        history: All records.
        rows: The file.
        shard_of: Shard of each key of the cache that writes behind.
        losses: When servers may have lost, or brought back, what they held.
        pauses: When which process was stopped.
        lease_ns: How long the lock of a queue lasts.
    """

    def __init__(
        self, history: np.ndarray, rows: np.ndarray, shard_of: Sequence[int], losses: Sequence[Span],
        pauses: Sequence[tuple[int, Span]], lease_ns: int,
    ) -> None:  # fmt: skip
        self._losses = losses
        self._lease_ns = lease_ns
        self._flushes = history[(history["op"] == r.FLUSH) & (history["end"] == r.OK)]
        self._away: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for stall in history[history["op"] == r.STALL]:
            self._away[int(stall["process"])].append((int(stall["from_ns"]), int(stall["to_ns"])))
        for process, span in pauses:
            self._away[process].append((span.from_ns, span.to_ns))
        self._keys = [_Key(shard) for shard in shard_of]
        self._changes: dict[int, _Change] = {}
        self.rows = len(rows)
        self.letters = 0
        self._collect(history, rows)

    def _collect(self, history: np.ndarray, rows: np.ndarray) -> None:
        changes = history[history["op"] == r.BEHIND]
        for record in changes[changes["end"] == r.INVOKED]:
            change = self._changes[int(record["value"])] = _Change(record, int(record["from_ns"]))
            self._keys[int(record["key"])].changes.append(change)
        for record in changes[changes["end"] != r.INVOKED]:
            change = self._changes[int(record["value"])]
            change.record, change.end = record, int(record["end"])
            if change.end == r.OK:
                change.last_ns = int(record["to_ns"])
        for row in rows:
            self._keys[int(row["key"])].rows.append(row)
            found = self._changes.get(int(row["value"]))
            if found is not None:  # the writer is called with what was in the queue by then
                found.last_ns = min(found.last_ns, int(row["from_ns"]))
        for letter in history[history["op"] == r.LETTER]:
            self._keys[int(letter["key"])].letters.append(letter)
            self.letters += 1

    @property
    def acknowledged(self) -> int:
        """How many changes were."""
        return sum(change.end == r.OK for change in self._changes.values())

    @property
    def flushes(self) -> int:
        """How often everything was known to be written."""
        return len(self._flushes)

    def judge(self) -> list[Violation]:
        """Return the accusations, earliest first."""
        found: list[Violation] = []
        for key in self._keys:
            found += self._impossible(key)
            found += self._backwards(key)
            found += self._lost(key)
        return sorted(found, key=lambda violation: int(violation.read["to_ns"]))

    def _impossible(self, key: _Key) -> list[Violation]:
        found = []
        for row in (*key.rows, *key.letters):
            change = self._changes.get(int(row["value"]))
            if change is None or int(change.record["key"]) != int(row["key"]):
                found.append(Violation("W3", "nobody made this change, or it was damaged", row))
            elif change.end == r.FAIL:
                text = "its change was reported as certainly not done"
                found.append(Violation("W3", text, row, (change.record,)))
        return found

    def _backwards(self, key: _Key) -> list[Violation]:
        found = []
        newest: _Change | None = None
        for place, row in enumerate(key.rows):
            change = self._changes.get(int(row["value"]))
            if change is None:
                continue
            if newest is not None and change.last_ns < newest.called_ns and not self._excused(key, row, change):
                shown = (change.record, newest.record, *key.rows[max(0, place - 6) : place])
                found.append(Violation("W2", "a later change of the key had been written", row, shown))
            if newest is None or change.called_ns > newest.called_ns:
                newest = change
        return found

    def _excused(self, key: _Key, row: np.void, change: _Change) -> bool:
        begun, ended, away = int(row["from_ns"]) - self._lease_ns, int(row["to_ns"]), self._away[int(row["process"])]
        # The row says when it was made; it comes into the file a moment later, or when the process runs again.
        reached = max([ended, *(to_ns for from_ns, to_ns in away if from_ns <= ended + _MOMENT_NS)])
        if covered(away, begun, reached) > _LATE_PART * self._lease_ns:
            return True
        return self._lossy(key, change.called_ns - self._lease_ns, ended)

    def _lossy(self, key: _Key, from_ns: int, to_ns: int) -> bool:
        return any(
            span.shard in (None, key.shard) and span.from_ns <= to_ns and span.to_ns >= from_ns for span in self._losses
        )

    def _lost(self, key: _Key) -> list[Violation]:
        """Each change is accused once, by the first flush that shows it."""
        known = [(int(row["to_ns"]), self._changes.get(int(row["value"]))) for row in key.rows]
        reached = list(accumulate((-1 if change is None else change.last_ns for _, change in known), max))
        times = list(accumulate((at_ns for at_ns, _ in known), max))
        dead = self._dead(key)
        acknowledged = sorted((each for each in key.changes if each.end == r.OK), key=lambda each: each.called_ns)
        found: dict[int, Violation] = {}
        for flush in np.sort(self._flushes, order="from_ns"):
            count = int(np.searchsorted(times, int(flush["to_ns"]), "right"))
            buried = (each.last_ns for each in dead if each.called_ns < flush["to_ns"])
            written = max(reached[count - 1] if count else -1, *buried, -1)
            late = [
                change
                for change in acknowledged
                if change.last_ns < flush["from_ns"] and change.called_ns > written
                and not self._lossy(key, change.called_ns, self._until(change, flush))
            ]  # fmt: skip
            for change in late[-1:]:
                text = f"flush() has returned, called {(int(flush['from_ns']) - change.last_ns) / 1e9:.3f} s after it"
                shown = (*key.rows[max(0, count - 4) : count], change.record)
                found.setdefault(int(change.record["value"]), Violation("W1", text, flush, shown))
        return list(found.values())

    def _dead(self, key: _Key) -> list[_Change]:
        """Changes that have become dead letters, or may have, if letters were lost: earlier ones ended with them."""
        found = [self._changes[value] for letter in key.letters if (value := int(letter["value"])) in self._changes]
        poisoned = (each for each in key.changes if each.end != r.FAIL and is_poisoned(int(each.record["value"])))
        return found + [each for each in poisoned if self._lossy(key, each.called_ns, NEVER)]

    def _until(self, change: _Change, flush: np.void) -> int:
        """Until when a loss excuses: dead letters are looked at after the faults."""
        return NEVER if is_poisoned(int(change.record["value"])) else int(flush["to_ns"])
