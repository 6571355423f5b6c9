"""Which version of a page was true when: the source of truth, and the judge of every read.

Definitions, which the demo also prints:

- A page's *source* is one number here, its version. A page is rendered from the version it finds when rendering
  begins.
- A change first bumps that number and then invalidates the page in the cache. The old version is *superseded* at the
  instant at which ``invalidate`` has returned to the changer; from there on nearcache has promised something.
- A read that began at t and returned version v is *outdated by* t minus the instant at which v was superseded. It
  breaks the promise if that is more than ``max_staleness``.

All instants are CLOCK_MONOTONIC, which every process of one machine shares. Only the changer writes. Each change
appends a record

    page | version superseded | when the source was bumped | when superseded | one more than the page's record before

and then makes it the page's newest, so that a reader walks one page's history backwards and always finds it whole.
"""

from __future__ import annotations

from . import board as layout
from . import histogram
from .board import RECORD_WORDS, Board

FIRST_VERSION = 1


class LedgerFullError(RuntimeError):
    """There is no room for another change."""


class Ledger:
    """Versions of pages and the instants at which they were superseded."""

    def __init__(self, board: Board) -> None:
        self._header = board.header
        self._versions = board.versions
        self._newest = board.newest
        self._records = board.records

    # -- the changer's side ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Give every page its first version."""
        for page in range(len(self._versions)):
            self._versions[page] = FIRST_VERSION

    def bump(self, page: int) -> int:
        """Change the source of a page and return the version that it had before."""
        if self._header[layout.RECORDS] >= layout.RECORD_CAPACITY:
            raise LedgerFullError(f"{layout.RECORD_CAPACITY} changes are all that the demo can account for")
        before = self._versions[page]
        self._versions[page] = before + 1
        return before

    def supersede(self, page: int, version: int, bumped_ns: int, superseded_ns: int) -> None:
        """Record when a version was superseded, once its invalidation was acknowledged."""
        number = self._header[layout.RECORDS]
        at = number * RECORD_WORDS
        row = (page, version, bumped_ns, superseded_ns, self._newest[page])
        for offset, word in enumerate(row):
            self._records[at + offset] = word
        self._header[layout.RECORDS] = number + 1
        self._newest[page] = number + 1

    # -- the readers' side -------------------------------------------------------------------------------------

    def version(self, page: int) -> int:
        """Return the current version of a page's source."""
        return self._versions[page]

    def superseded(self, page: int, version: int) -> tuple[int, int] | None:
        """Return when the source was bumped and when that was acknowledged, for the change that superseded a version.

        That is the first acknowledged change at or after this version: if the changer gave up on one, the next counts.
        """
        found = None
        following = self._newest[page]
        while following:
            at = (following - 1) * RECORD_WORDS
            if self._records[at + 1] < version:
                break
            found = self._records[at + 2], self._records[at + 3]
            following = self._records[at + 4]
        return found


class Judge:
    """Judges one worker's reads and keeps what it found in the worker's slot.

    A version that the source has left but whose invalidation is not yet acknowledged cannot be judged: it may be
    superseded at an instant that lies before the read, if the changer was interrupted between taking the time and
    writing it down. Such reads wait in ``_open``, the latest of each version, until :meth:`settle`.
    """

    def __init__(self, ledger: Ledger, slot: memoryview, bound_ns: int) -> None:
        self._ledger = ledger
        self._slot = slot
        self._bound_ns = bound_ns
        self._open: dict[tuple[int, int], int] = {}
        self._kept: set[tuple[int, int]] = set()

    def outdated(self, page: int, version: int, began_ns: int) -> None:
        """Judge a read that returned another version than the source has now."""
        if not 0 < version <= self._ledger.version(page):
            self._slot[layout.WRONG] += 1
            self._keep(page, version, began_ns, 0)
            return
        record = self._ledger.superseded(page, version)
        if record is None:
            self._open[page, version] = began_ns
            return
        age_ns = began_ns - record[1]
        if age_ns <= 0:
            return
        slot = self._slot
        slot[layout.OUTDATED] += 1
        slot[layout.histogram_start(layout.STALENESS) + histogram.bucket_of(age_ns)] += 1
        slot[layout.OLDEST_NS] = max(slot[layout.OLDEST_NS], age_ns)
        if age_ns > self._bound_ns:
            slot[layout.TOO_OLD] += 1
            self._keep(page, version, began_ns, record[1])

    def wrong(self, page: int, began_ns: int) -> None:
        """Count a read that returned something that is not this page."""
        self._slot[layout.WRONG] += 1
        self._keep(page, 0, began_ns, 0)

    def settle(self) -> None:
        """Judge the reads that had to wait; those that still cannot be judged go on waiting."""
        waiting, self._open = self._open, {}
        for (page, version), began_ns in waiting.items():
            self.outdated(page, version, began_ns)

    def _keep(self, page: int, version: int, began_ns: int, superseded_ns: int) -> None:
        """Keep one read of each version as evidence."""
        if (page, version) in self._kept or len(self._kept) == layout.EVIDENCE_KEPT:
            return
        at = layout.EVIDENCE + len(self._kept) * layout.EVIDENCE_WORDS
        self._kept.add((page, version))
        self._slot[layout.EVIDENCES] = len(self._kept)
        row = (page, version, self._ledger.version(page), began_ns, superseded_ns)
        for offset, word in enumerate(row):
            self._slot[at + offset] = word
