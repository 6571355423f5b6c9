"""What a process counts of its use of L2: altogether, and by lane what tells of lost or late messages."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DecodeError, ForgedError


@dataclass(slots=True)
class Judged:
    """What became of suspects, and of results, when they were judged.

    Attributes:
        revalidated: Suspect entries that L2 still held.
        dropped: Those of which L2 held another write, or none.
        poisoned: Results that L1 did not keep, because something happened to their key, or to the lane, meanwhile.
    """

    revalidated: int = 0
    dropped: int = 0
    poisoned: int = 0


def unreadable_as(error: DecodeError) -> str:
    """Return the name of the counter for what cannot be read for this reason."""
    return "forged" if isinstance(error, ForgedError) else "undecodable"


@dataclass(slots=True)
class L2Counters(Judged):
    """What this process asked of L2 and of the loader since the cache was opened."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    undecodable: int = 0
    forged: int = 0
    stale: int = 0
    writes: int = 0
    invalidations: int = 0
    loads: int = 0
    load_errors: int = 0
    unchanged: int = 0
    surplus: int = 0
    withheld: int = 0
    unremembered: int = 0
    fills_refused: int = 0
    fills_too_large: int = 0
    repaid: int = 0
    unreplicated: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
