"""What lanes have recorded of the list of shards, as a process that looks reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..rings import Ring, version_in


class Record(NamedTuple):
    """What a lane has recorded: version and fingerprint, and the ring itself if it is there and can be read.

    The two may differ: a failover may set back what a lane was told, and then every script that comes brings the
    version along, but not the ring.
    """

    shard: str
    text: bytes
    ring: Ring | None

    @property
    def described(self) -> str:
        """What people read in errors."""
        if self.ring is None or self.text not in (self.ring.text, self.ring.left):
            return f"version {self.text.decode(errors='replace')} of some other list"
        return str(self.ring)

    def says(self, ring: Ring) -> bool:
        """Whether it says, in full, that this one is in use."""
        return self.text == ring.text and self.ring is not None and self.ring.text == ring.text


def newest(records: Iterable[Record]) -> Record | None:
    """Return the record of the newest version, of those that are told in full if there is any, and of a shard that is
    still one."""

    def age(record: Record) -> tuple[int, bool]:
        return version_in(record.text)[0], record.ring is not None and record.text == record.ring.text

    return max(records, key=age, default=None)
