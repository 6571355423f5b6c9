"""Which shard has a key: slot -> shard, by rendezvous hashing over the shards' names; and what lanes are called.

A key's slot is Redis Cluster's (``keys.slot_of``). For each slot every shard has a score, and the highest wins. So a
shard that joins takes 1/n of the slots, from all others alike, and one that leaves gives its own to the rest; nothing
else moves. Names count, not addresses, so a replacement host that is given the old name keeps its place, and the order
in which shards are listed decides nothing. (Thaler and Ravishankar, "Using name-based mappings to increase hit rates",
1998.) ``docs/wire.md`` gives the formula and test vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from ._placement import SLOTS as _SLOTS
from ._placement import fnv1a64, rendezvous, tag_number
from .errors import ConfigError

#: Number of slots.
SLOTS: Final[int] = _SLOTS
#: Lanes of a namespace in Redis Cluster, fixed for ever: a key's lane is its slot modulo this.
CLUSTER_LANES: Final = 64


class Placement:
    """The table for one list of shards. Immutable.

    Attributes:
        names: The shards' names; their positions are the shard numbers.
        table: 16,384 bytes: the shard number of each slot.
        version: 64-bit fingerprint of the set of names: equal for lists that place every key on the same name.
    """

    __slots__ = ("names", "table", "version")

    def __init__(self, names: Sequence[str]) -> None:
        """Compute the table; about 20 us per shard.

        Raises:
            ConfigError: There is no name, more than 255, or one twice.
        """
        self.names = tuple(names)
        encoded = [name.encode("utf-8", "surrogatepass") for name in self.names]
        if not 1 <= len(encoded) <= 255:
            raise ConfigError("shard_names", self.names, "give 1 to 255 shards")
        hashes = [fnv1a64(name) for name in encoded]
        if len(set(hashes)) != len(hashes):
            raise ConfigError("shard_names", self.names, "give every shard a name of its own")
        self.table = rendezvous(hashes)
        self.version = fnv1a64(b"".join(b"%d:%s" % (len(name), name) for name in sorted(encoded)))

    def __repr__(self) -> str:
        return f"Placement({list(self.names)!r})"

    def shard_of(self, slot: int) -> int:
        """Return the number of the shard that has a slot (0 to 16,383)."""
        return self.table[slot]

    def slots_of(self, shard: int) -> int:
        """Return how many slots a shard has."""
        return self.table.count(shard)


class ClusterPlacement:
    """The table of a namespace in Redis Cluster: which lane has a slot. Immutable.

    All keys of a lane have the lane's hash tag, so they lie in the lane's own slot, whichever theirs would be.

    Attributes:
        names: What the lanes are called in messages to people; their positions are the lanes' numbers.
        table: 16,384 bytes: the number of the lane of each slot.
    """

    __slots__ = ("names", "table")

    def __init__(self) -> None:
        self.names = tuple(f"lane {lane}" for lane in range(CLUSTER_LANES))
        self.table = bytes(slot % CLUSTER_LANES for slot in range(SLOTS))


def slot_of_lane(lane: int) -> int:
    """Return the slot of Redis Cluster in which a lane lies: the lanes are spread evenly."""
    return lane * (SLOTS // CLUSTER_LANES)


@functools.lru_cache(maxsize=64)
def cluster_prefixes(namespace: str) -> tuple[bytes, ...]:
    """Return what the names of each lane of a namespace begin with in Redis Cluster: see :func:`lane_prefix`.

    Behind the lane's number stands the least number that puts the hash tag in the lane's slot. A few milliseconds.
    """
    stems = [f"{namespace}:{lane}-".encode() for lane in range(CLUSTER_LANES)]
    return tuple(b"nc:{%s%d}:" % (stem, tag_number(stem, slot_of_lane(lane))) for lane, stem in enumerate(stems))


class LaneNames:
    """What the keys and the channel of one lane are called in Redis. Immutable.

    Attributes:
        prefix: What all of them begin with.
        lane_key: The lane record.
        channel: The pub/sub channel.
        value_prefix, lease_prefix: What the names of values and of leases begin with; the encoded key follows.
        queue, owner, dead: What is to be written behind the cache, whose task that is now, and what could not be.
    """

    __slots__ = ("channel", "dead", "lane_key", "lease_prefix", "owner", "prefix", "queue", "value_prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.lane_key = prefix + b"L"
        self.channel = prefix + b"i"
        self.value_prefix = prefix + b"v:"
        self.lease_prefix = prefix + b"l:"
        self.queue = prefix + b"w"
        self.owner = prefix + b"o"
        self.dead = prefix + b"d"

    def value(self, encoded: bytes) -> bytes:
        """Name of a value."""
        return self.value_prefix + encoded

    def lease(self, encoded: bytes) -> bytes:
        """Name of the lease or hold on a key."""
        return self.lease_prefix + encoded


def lane_prefix(namespace: str, lane: int = 0, db: int = 0) -> bytes:
    """Return what the names of all keys and the channel of a lane begin with.

    ``L`` (lane record), ``i`` (channel), ``v:`` and ``l:`` (values and leases) are appended to it. The number of a
    database other than 0 is part of it, because channels, unlike keys, are common to all databases of a server: two
    lanes that shared one would each see the other's messages as gaps in its own.
    """
    return f"nc:{{{namespace}:{lane}@{db}}}:".encode() if db else f"nc:{{{namespace}:{lane}}}:".encode()


def layout(
    namespace: str, shard_names: Sequence[str], db: int, *, clustered: bool
) -> tuple[Placement | ClusterPlacement, list[LaneNames]]:
    """Return which lane has which keys, and what belongs to each lane in Redis."""
    if clustered:
        return ClusterPlacement(), [LaneNames(prefix) for prefix in cluster_prefixes(namespace)]
    # One lane per shard, each on a server of its own, so that all may have the same names.
    return Placement(shard_names), [LaneNames(lane_prefix(namespace, 0, db))] * len(shard_names)
