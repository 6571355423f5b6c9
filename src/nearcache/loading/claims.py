"""What this process claims in Redis for a time, and renews while it works: keys to load, data to change, queues."""

from __future__ import annotations

from typing import NamedTuple

from ..flights import Load


class Leased(NamedTuple):
    """A lease that this process holds, while its loader runs."""

    lane: int
    encoded: bytes
    token: bytes
    since_ns: int
    load: Load


class Owned(NamedTuple):
    """A queue that this process owns, while its writer runs."""

    token: bytes
    since_ns: int


class Locked(NamedTuple):
    """The data behind a key that this process is about to change."""

    lane: int
    encoded: bytes
    since_ns: int
