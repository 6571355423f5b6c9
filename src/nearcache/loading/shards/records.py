"""What lanes have recorded of the list of shards, as a process that looks reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ...rings import Ring, version_in

if TYPE_CHECKING:
    from ...options import Endpoint

#: How many recorded texts are remembered: those of two versions, and of whoever disagrees.
_MOST: Final = 4


class Reader:
    """Reads what lanes have recorded. They all say the same as a rule, and the tables of a long list take long to make.

    Args:
        like: As :meth:`Ring.load` has it.
    """

    def __init__(self, like: Endpoint) -> None:
        self._like = like
        self._read: dict[bytes, Ring] = {}

    def ring(self, content: bytes) -> Ring:
        """Return the ring that is recorded.

        Raises:
            ValueError: As :meth:`Ring.load` does.
        """
        ring = self._read.get(content)
        if ring is None:
            ring = Ring.load(content, self._like)
            # Replaced as a whole: two threads may be here.
            self._read = {content: ring} if len(self._read) >= _MOST else {**self._read, content: ring}
        return ring


class Record(NamedTuple):
    """What a lane has recorded: version and fingerprint, and the ring itself if it is there and can be read.

    The two may differ: a failover may set back what a lane was told, and then every script that comes brings the
    version along, but not the ring.
    """

    shard: str
    text: bytes
    ring: Ring | None

    @property
    def whole(self) -> Ring | None:
        """The ring, if it is the version's own, of a shard that stays or one that goes."""
        return self.ring if self.ring is not None and self.text in (self.ring.text, self.ring.left) else None

    @property
    def described(self) -> str:
        """What people read in errors."""
        return str(self.whole) if self.whole else f"version {self.text.decode(errors='replace')} of some other list"

    def bars(self, ring: Ring) -> bool:
        """Whether a shard that a change's first step takes in is in another list, which it would hold against this.

        Older versions are no hindrance, nor is one that it was left by, or that nobody has told.
        """
        version, fingerprint = version_in(self.text)
        if version < ring.version - 1 or self.text in (ring.before(), ring.text):
            return False
        if version < ring.version:
            return bool(fingerprint.strip(b"0"))
        theirs = self.whole  # of those who are further with the same change, perhaps
        return theirs is None or ring.new is None or not ring.new.is_same(theirs.new or theirs.old)

    def says(self, ring: Ring) -> bool:
        """Whether it says, in full, that this one is in use."""
        return self.text == ring.text and self.ring is not None and self.ring.text == ring.text


def newest_of(records: Iterable[Record]) -> Record | None:
    """Return the record of the newest version: one that is told in full, of a shard that stays, if there is any."""

    def age(record: Record) -> tuple[int, bool]:
        return version_in(record.text)[0], record.ring is not None and record.text == record.ring.text

    return max(records, key=age, default=None)


def unreadable(shard: str, lane_key: bytes, text: bytes | None) -> str:
    """What people are to read where a lane's record names no version; empty: it names one."""
    try:
        version_in(text or b"")
    except ValueError:
        return (
            f"shard {shard}: the field r of its lane record says {(text or b'')[:64]!r}, which is no version of a list "
            "of shards. The shard refuses all changes, and nothing of it is served from memory. Remove the record (DEL "
            f"{lane_key.decode()!r}), and it is made anew; what the shard holds of the namespace starts cold"
        )
    return ""
