"""The memory that all processes of the demo share.

One anonymous map, passed to the children as an open descriptor: it has no name, so no file can be left behind. It is
read as unsigned 64-bit words, each with one writer, so it needs no lock:

    part                            its writer
    header                          the parent (STOP), the changer (the rest)
    one slot for each worker        that worker
    one slot for the changer        the changer
    current version of each page    the changer
    newest record of each page      the changer
    records                         the changer

A slot holds a process's counters and histograms for the phase that runs.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import Final

from . import histogram

# Tiers, in the order of their histograms in a slot.
L1: Final = 0
L2: Final = 1
LOADER: Final = 2
TIERS: Final = ("L1", "L2", "loader")

# Histograms after those of the tiers.
STALENESS: Final = 3
LAG: Final = 4
HISTOGRAMS: Final = 5

# Counters at the head of a worker's slot.
LOADS: Final = 0
OUTDATED: Final = 1
TOO_OLD: Final = 2
WRONG: Final = 3
ERRORS: Final = 4
OLDEST_NS: Final = 5
EVIDENCES: Final = 6
EVIDENCE: Final = 8
EVIDENCE_WORDS: Final = 5
EVIDENCE_KEPT: Final = 8

# Counters at the head of the changer's slot.
CHANGES: Final = 0
RETRIES: Final = 1
LONGEST_NS: Final = 2
GIVEN_UP: Final = 3
WAITING: Final = 4

_HEAD_WORDS: Final = 64
SLOT_WORDS: Final = _HEAD_WORDS + HISTOGRAMS * histogram.SIZE

# Words of the header.
STOP: Final = 0
ANNOUNCED: Final = 1
ANNOUNCED_PAGE: Final = 2
RECORDS: Final = 3
_HEADER_WORDS: Final = 8

RECORD_WORDS: Final = 5
RECORD_CAPACITY: Final = 65_536


def histogram_start(which: int) -> int:
    """Return the first word of a histogram inside a slot."""
    return _HEAD_WORDS + which * histogram.SIZE


def histogram_in(slot: memoryview | list[int], which: int) -> list[int]:
    """Return a copy of one histogram of a slot."""
    start = histogram_start(which)
    return list(slot[start : start + histogram.SIZE])


def _words(workers: int, pages: int) -> int:
    return _HEADER_WORDS + (workers + 1) * SLOT_WORDS + 2 * pages + RECORD_CAPACITY * RECORD_WORDS


def create(workers: int, pages: int) -> int:
    """Return a descriptor of new shared memory for so many processes and pages; the caller closes it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("nearcache-demo")
    else:
        with tempfile.TemporaryFile() as nameless:
            descriptor = os.dup(nameless.fileno())
    os.ftruncate(descriptor, 8 * _words(workers, pages))
    return descriptor


class Board:
    """One process's view of the shared memory.

    Attributes:
        header: ``STOP``, the changer's announcement, and the number of records.
        slots: One view per worker, then the changer's.
        versions: Current version of each page.
        newest: One more than the number of the newest record of each page; 0 where there is none.
        records: See ``ledger``.
    """

    def __init__(self, descriptor: int, workers: int, pages: int) -> None:
        words = memoryview(mmap.mmap(descriptor, 8 * _words(workers, pages))).cast("Q")
        at = _HEADER_WORDS
        self.header = words[:at]
        self.slots = []
        for _ in range(workers + 1):
            self.slots.append(words[at : at + SLOT_WORDS])
            at += SLOT_WORDS
        self.versions = words[at : at + pages]
        self.newest = words[at + pages : at + 2 * pages]
        self.records = words[at + 2 * pages :]

    @property
    def stopped(self) -> bool:
        """Whether the parent has told everybody to stop."""
        return self.header[STOP] != 0

    def stop(self) -> None:
        """Tell everybody to stop."""
        self.header[STOP] = 1

    def clear_slot(self, who: int) -> None:
        """Zero the counters of one process, for a new phase."""
        self.slots[who][:] = memoryview(bytes(8 * SLOT_WORDS)).cast("Q")
